package api

import (
	"context"
	"net/http"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
)

// lastSamples is a Storage that knows the newest sample of each series, whatever its age.
type lastSamples interface {
	// Latest calls f for each series that matches one of the selectors, sorted by labels and each once, with
	// its newest sample that is no stale marker. h is nil for a plain float. f's error ends the calls and is returned.
	Latest(ctx context.Context, selectors [][]*labels.Matcher, f func(ls labels.Labels, timeMillis int64, v float64, h *histogram.FloatHistogram) error) error
}

// everySeries is what is selected without match[].
const everySeries = `{__name__=~".+"}`

// latest answers the last value of every series that match[] selects, of all series without
// one, with its time: what an aggregator that remembers what it saw last would say. It differs from
// federate in two things. Neither the lookback delta nor the clock bounds the age of a sample, and a series
// that ended is answered with what it had before.
func (a *API) latest(from lastSamples) http.Handler {
	gather := func(ctx context.Context, selectors [][]*labels.Matcher) (samples []federated, err error) {
		err = from.Latest(ctx, selectors, func(ls labels.Labels, timeMillis int64, v float64, h *histogram.FloatHistogram) error {
			samples, err = a.appendFederated(samples, federated{metric: ls, timeMillis: timeMillis, value: v, histogram: h})
			return err
		})
		return samples, err
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		texts := r.Form["match[]"]
		if len(texts) == 0 {
			texts = []string{everySeries}
		}
		a.expose(w, r, texts, gather)
	})
}
