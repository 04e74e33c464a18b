package archive_test

import (
	"context"
	"fmt"
	"math"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/arrival"
	"varve/internal/testkit"
)

// TestUnforwarded shows that a batch that is not for outputs is stored like any other, over a start too, and that cursors pass over
// it: in the journal, in a record that it shares with another batch, and when the journal is trimmed under them.
func TestUnforwarded(t *testing.T) {
	for _, trimmed := range []bool{false, true} {
		t.Run(fmt.Sprintf("trimmed=%v", trimmed), func(t *testing.T) {
			clock := &movingClock{day0}
			o := tailOptions(clock)
			if trimmed {
				o.JournalBytesMax = 2000
			}
			dir := testkit.MemoryDir(t) + "/a"
			a, err := archive.Open(dir, o)
			require.NoError(t, err)
			<-a.Started()
			a.SmallSegments(300)
			c, err := a.OpenCursor("out", archive.Start{})
			require.NoError(t, err)

			m, all := model{}, model{}
			both := make(chan error, 2)
			h := &histogram.Histogram{Count: 1, ZeroCount: 1}
			for i := range 300 {
				at := day0 + int64(i)*1000
				clock.ms = at
				kept := &arrival.Batch{Unforwarded: true, Times: []int64{at, at}, Values: []uint64{1, math.Float64bits(float64(i))}}
				sent := &arrival.Batch{Times: []int64{at}, Values: []uint64{math.Float64bits(float64(-i))}}
				for n, series := range []int{1, 2} {
					kept.Rows = append(kept.Rows, arrival.Row{Ref: resolve(t, a, seriesLabels(series)), First: uint32(n), Count: 1})
				}
				kept.Rows = append(kept.Rows, arrival.Row{Ref: resolve(t, a, seriesLabels(9)), First: 2})
				kept.Histograms = []arrival.Histogram{{Row: 2, TimeMillis: at, Int: h}}
				sent.Rows = []arrival.Row{{Ref: resolve(t, a, seriesLabels(3)), Count: 1}}
				for _, b := range []*arrival.Batch{kept, sent} {
					go func() {
						_, err := a.Write(context.Background(), b)
						both <- err
					}()
				}
				require.NoError(t, <-both)
				require.NoError(t, <-both)
				m.add([]point{{3, at, float64(-i)}})
				all.add([]point{{2, at, float64(i)}, {3, at, float64(-i)}})
				if trimmed && i == 250 {
					require.NoError(t, a.Maintain(true))
					require.Less(t, a.JournalRecords(), 100)
				}
			}
			g := newGot()
			if trimmed {
				drain(t, c, g)
			} else {
				var r archive.Arrivals
				for readNow(t, c, &r) {
					require.Empty(t, r.Histograms)
					g.add(t, c, &r)
					require.NoError(t, c.Done(r.Position, archive.Tally{}))
				}
				lag, err := c.Lag()
				require.NoError(t, err)
				require.Zero(t, lag)
			}
			g.requireModel(t, m)
			require.NoError(t, c.Close())
			require.NoError(t, a.Close())

			a, err = archive.Open(dir, o)
			require.NoError(t, err)
			<-a.Started()
			for _, series := range []int{2, 3} {
				name := labels.MustNewMatcher(labels.MatchEqual, "i", fmt.Sprint(series))
				require.Equal(t, model{series: all[series]}.dump(day0, day0+1e6), read(t, a, day0, day0+1e6, name))
			}
			require.NoError(t, a.Close())
			report, err := archive.Check(dir, func(f archive.Fault) { t.Error(f) })
			require.NoError(t, err)
			require.Zero(t, report.Faults)
		})
	}
}
