package api

import (
	"net/http"

	"varve/query"
)

// resolutionHeader chooses in a request, beside the parameter "resolution", what a query may be answered from, and tells
// in the answer what it was answered from, as query.Sources prints it.
const resolutionHeader = "X-Varve-Resolution"

// chooseResolution hands the resolution that a request asks for to the engine. The parameter
// goes before the header.
func chooseResolution(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text := r.FormValue("resolution")
		if text == "" {
			text = r.Header.Get(resolutionHeader)
		}
		ctx := r.Context()
		if text != "" {
			chosen, err := query.ParseResolution(text)
			if err != nil {
				respondError(w, http.StatusBadRequest, errorBadData, err.Error())
				return
			}
			ctx = query.WithResolution(ctx, chosen)
		}
		ctx, executed := query.WithReport(ctx)
		next.ServeHTTP(&reportingWriter{ResponseWriter: w, executed: executed}, r.WithContext(ctx))
	})
}

// reportingWriter adds the sources of a query to the header of its answer, which is written
// after the query was executed.
type reportingWriter struct {
	http.ResponseWriter
	executed func() (query.Sources, bool)
	written  bool
}

// WriteHeader implements http.ResponseWriter.
func (w *reportingWriter) WriteHeader(code int) {
	if !w.written {
		w.written = true
		if used, ok := w.executed(); ok && code == http.StatusOK {
			w.Header().Set(resolutionHeader, used.String())
		}
	}
	w.ResponseWriter.WriteHeader(code)
}

// Write implements http.ResponseWriter.
func (w *reportingWriter) Write(b []byte) (int, error) {
	if !w.written {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *reportingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
