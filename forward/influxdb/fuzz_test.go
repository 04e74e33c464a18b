package influxdb_test

import (
	"math"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"varve/forward"
	"varve/forward/influxdb"
	"varve/forward/lineprotocol"
)

// Whatever a target answers, what is made of it are samples of the batch that were sent, each with a reason.
func FuzzTrace(f *testing.F) {
	for _, answer := range []string{
		`{"error":"partial write: field type conflict: input field \"value\" on measurement \"a,b\" is type float, already exists as type integer dropped=2"}`,
		`{"error":"partial write: field type conflict: input field \"c d\" on measurement \"m\" is type float, already exists as type integer dropped=1"}`,
		`{"error":"partial write: points beyond retention policy dropped=1"}`,
		`{"error":"unable to parse 'c\\ d value=5 1700000000000000000': bad\nunable to parse 'x': y"}`,
		`{"code":"invalid","message":"error in line 2: x\nerror in line 3: y","line":2}`,
		`{"error":"partial write of line protocol occurred","data":[{"line_number":1,"error_message":""},{"line_number":-1}]}`,
		`{"line":18446744073709551616}`, `[]`, `nil`,
	} {
		f.Add(answer)
	}
	var senders []*influxdb.Sender
	for _, route := range []*lineprotocol.Route{nil, {DefaultMeasurement: "m"}} {
		s, err := influxdb.New(influxdb.Options{Name: "fuzz", URL: "http://host", Route: route, Histograms: lineprotocol.CountAndSum})
		require.NoError(f, err)
		senders = append(senders, s)
	}
	f.Fuzz(func(t *testing.T, answer string) {
		for _, s := range senders {
			h := series(t, s, labels.FromStrings("__name__", "h"))
			h.Histograms = []forward.Histogram{{TimeMillis: start, Int: &histogram.Histogram{Count: 1}}}
			b := &forward.Batch{Series: []forward.Series{
				series(t, s, labels.FromStrings("__name__", "a,b", "i", "1"), 1, math.NaN(), 3),
				series(t, s, labels.FromStrings("__name__", "c d"), 5), h,
			}}
			for _, r := range s.Trace(&forward.Answer{Status: 400, Body: answer}, b) {
				if r.Histogram >= 0 {
					require.Equal(t, [3]int{2, -1, 0}, [3]int{r.Series, r.Float, r.Histogram})
					continue
				}
				require.True(t, b.Series[r.Series].Floats[r.Float].Value > 0, "a sample that was sent")
			}
		}
	})
}
