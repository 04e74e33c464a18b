package direct_test

import (
	"context"
	"testing"
	"time"

	prommodel "github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/intake"
	"varve/intake/blocks"
	"varve/intake/direct"
	"varve/internal/testkit"
)

// wrapped is a target of which a test changes a day.
type wrapped struct {
	intake.Target
	day func(intake.Day) intake.Day
}

func (w wrapped) OpenDay(ctx context.Context, start int64) (intake.Day, error) {
	d, err := w.Target.OpenDay(ctx, start)
	if err != nil {
		return nil, err
	}
	return w.day(d), nil
}

// beforeCommit calls f before a day is committed.
type beforeCommit struct {
	intake.Day
	f func()
}

func (d beforeCommit) Commit(ctx context.Context) (intake.DayReport, error) {
	d.f()
	return d.Day.Commit(ctx)
}

func runInto(t testing.TB, dir string, target intake.Target) intake.Report {
	t.Helper()
	s, err := blocks.Open(t.Context(), []string{dir}, blocks.Options{Scratch: t.TempDir()})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	r, err := intake.Run(t.Context(), s, target, intake.Options{})
	require.NoError(t, err)
	require.True(t, r.Equal(), "%v", r.Unequal)
	return r
}

// TestForward shows that outputs get everything of an import if that is asked for, and else nothing: neither of days that
// are leased nor of those that go through the write port.
func TestForward(t *testing.T) {
	dir, m := dataDir(t, 2)
	for _, forward := range []bool{false, true} {
		a := testkit.Open(t, testkit.MemoryDir(t), options())
		c, err := a.OpenCursor("out", archive.Start{})
		require.NoError(t, err)
		target := direct.New(a, direct.Options{Forward: forward})
		if !forward {
			require.Equal(t, 2, runInto(t, dir, target).Leased)
		}
		r := runInto(t, dir, target)
		require.Zero(t, r.Leased)
		require.Equal(t, 2, r.Written)
		requireSame(t, m, modelOf(t, a))
		lag, err := c.Lag()
		require.NoError(t, err)
		if forward {
			// What overlapping blocks hold twice may be sent twice.
			require.GreaterOrEqual(t, lag.Samples, m.samples())
		} else {
			require.Zero(t, lag.Samples)
		}
		require.NoError(t, c.Close())
	}
}

// TestDeletedMeanwhile shows that a delete which is made while a day is leased hides nothing of what comes in.
func TestDeletedMeanwhile(t *testing.T) {
	dir, m := dataDir(t, 2)
	a := testkit.Open(t, testkit.MemoryDir(t), options())
	deletes := 0
	r := runInto(t, dir, wrapped{direct.New(a, direct.Options{}), func(d intake.Day) intake.Day {
		return beforeCommit{d, func() {
			if deletes++; deletes > 1 {
				return
			}
			testkit.Write(t, a, begin+9, []labels.Labels{labels.FromStrings(prommodel.MetricNameLabel, "metric_0", "instance", "host-0.example", "job", "node")}, []float64{1})
			_, _, err := a.Delete(t.Context(), archive.DeleteRequest{
				Matchers:  [][]*labels.Matcher{{labels.MustNewMatcher(labels.MatchNotEqual, prommodel.MetricNameLabel, "")}},
				MinMillis: begin, MaxMillis: begin + 3_600_000, Grace: time.Hour,
			})
			require.NoError(t, err)
		}}
	}})
	require.Equal(t, 2, deletes)
	require.Equal(t, 1, r.Leased)
	require.Equal(t, 1, r.Written)
	requireSame(t, m, modelOf(t, a))
}
