package api

import (
	"net/http"
	"strconv"
)

// serveMetadata answers as Prometheus does from its targets, but from what was
// written, so that the answer is the same after a restart and for metrics whose
// source is gone.
func (a *API) serveMetadata(w http.ResponseWriter, r *http.Request) {
	limit, errLimit := numberParam(r, "limit")
	perMetric, errPerMetric := numberParam(r, "limit_per_metric")
	if errLimit || errPerMetric {
		respondError(w, http.StatusBadRequest, errorBadData, "limit and limit_per_metric must be numbers")
		return
	}
	if limit == 0 {
		respond(w, map[string]any{})
		return
	}
	all, err := a.o.Catalogue.Metadata(r.Context(), r.FormValue("metric"), limit)
	if err != nil {
		respondError(w, http.StatusInternalServerError, errorInternal, err.Error())
		return
	}
	for name, list := range all {
		if perMetric > 0 && len(list) > perMetric {
			all[name] = list[:perMetric]
		}
	}
	respond(w, all)
}

// numberParam returns -1 if the parameter is absent.
func numberParam(r *http.Request, name string) (n int, bad bool) {
	text := r.FormValue(name)
	if text == "" {
		return -1, false
	}
	n, err := strconv.Atoi(text)
	return n, err != nil
}
