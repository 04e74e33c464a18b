package opentsdb_test

import (
	"math"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"varve/forward"
	"varve/forward/opentsdb"
)

// Whatever a server answers, what is made of it are samples of the batch that were sent, each once and with a reason.
func FuzzTrace(f *testing.F) {
	for _, answer := range []string{
		`{"errors":[{"datapoint":{"metric":"up","timestamp":1700000000,"value":"1","tags":{"source":"varve"}},"error":"bad"}],"failed":1,"success":0}`,
		`{"success":1,"failed":2,"errors":[{"datapoint":{"metric":"a_.b","timestamp":1700000002,"tags":{"j":"_20","i":"1"}},"error":""},{"datapoint":{"metric":"a_.b","timestamp":1700000002,"tags":{"j":"_20","i":"1"}},"error":"`,
		`{"errors":[{"datapoint":null,"error":7}]}`, `{"errors":`, `[]`, ``,
	} {
		f.Add(answer)
	}
	s, err := opentsdb.New(opentsdb.Options{Name: "fuzz", URL: "http://host"})
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, answer string) {
		b := &forward.Batch{Series: []forward.Series{
			series(t, s, labels.FromStrings("__name__", "up"), 1, 2),
			series(t, s, labels.FromStrings("__name__", "a:b", "i", "1", "j", " "), math.NaN(), 3, 4),
		}}
		seen := map[[2]int]bool{}
		for _, r := range s.Trace(answer, b) {
			at := [2]int{r.Series, r.Float}
			require.False(t, seen[at])
			seen[at] = true
			require.True(t, b.Series[r.Series].Floats[r.Float].Value > 0, "a sample that was sent")
			require.NotEmpty(t, r.Reason)
			require.Equal(t, -1, r.Histogram)
		}
	})
}
