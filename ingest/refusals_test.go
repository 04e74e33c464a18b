package ingest_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"varve/arrival"
	"varve/ingest"
)

// TestRefusalExamples counts refusals by reason and keeps one example of each, bounded and valid text, which another takes the place of after a
// while; what is of another input is apart, and an input that comes back finds its own.
func TestRefusalExamples(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		all := ingest.NewMetrics(nil)
		m := all.For("a").Meter("x")
		asked := 0
		tell := func(text string, reasons ...arrival.Reason) {
			var rejected arrival.Rejected
			for _, r := range reasons {
				rejected[r]++
			}
			m.Told(&rejected, func() string { asked++; return text })
		}
		require.Empty(t, all.For("a").Refusals())
		tell("nothing")
		require.Zero(t, asked)
		tell("<script>alert(1)</script>", arrival.ReasonInvalidLine, arrival.ReasonFuture)
		tell("another", arrival.ReasonInvalidLine)
		require.Equal(t, 1, asked, "the second has an example already")
		first := time.Now().UTC()
		got := all.For("a").Refusals()
		require.Equal(t, []ingest.Refusal{
			{Reason: arrival.ReasonInvalidLine.String(), Count: 2, Example: "<script>alert(1)</script>", At: &first, Last: first},
			{Reason: arrival.ReasonFuture.String(), Count: 1, Example: "<script>alert(1)</script>", At: &first, Last: first},
		}, got)
		require.Empty(t, all.For("b").Refusals())

		<-time.NewTimer(time.Minute).C
		tell(strings.Repeat("é", 5000)+"\xff", arrival.ReasonInvalidLine)
		again := all.For("a").Meter("y")
		var one arrival.Rejected
		one[arrival.ReasonFuture] = 5
		again.Told(&one, func() string { return "" })
		got = all.For("a").Refusals()
		require.Equal(t, arrival.ReasonFuture.String(), got[0].Reason)
		require.EqualValues(t, 6, got[0].Count)
		require.Equal(t, "<script>alert(1)</script>", got[0].Example, "one without a text takes no place")
		require.Equal(t, time.Now().UTC(), got[0].Last)
		require.LessOrEqual(t, len(got[1].Example), 500)
		require.True(t, utf8.ValidString(got[1].Example))
		require.True(t, strings.HasPrefix(got[1].Example, "ééé"))
	})
}
