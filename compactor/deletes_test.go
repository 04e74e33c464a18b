package compactor_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/archive/format"
	"varve/compactor"
	"varve/internal/testkit"
)

// TestPlanDeletes has deletes in every state around the end of their grace.
func TestPlanDeletes(t *testing.T) {
	now := date("2026-03-02 02:00:00")
	id := func(n byte) format.TombstoneID { return format.TombstoneID{n} }
	deleted := func(n byte, state format.TombstoneState, until time.Time) archive.Delete {
		return archive.Delete{ID: id(n), State: state, Until: until}
	}
	for name, c := range map[string]struct {
		deletes []archive.Delete
		want    []format.TombstoneID
		why     string
	}{
		"none":                   {},
		"in its grace":           {deletes: []archive.Delete{deleted(1, format.TombstoneActive, now.Add(1))}},
		"at the end of it":       {deletes: []archive.Delete{deleted(1, format.TombstoneActive, now)}, want: []format.TombstoneID{id(1)}, why: "the grace is over"},
		"interrupted":            {deletes: []archive.Delete{deleted(1, format.TombstoneCleaning, now.Add(time.Hour))}, want: []format.TombstoneID{id(1)}, why: "a cleaning was interrupted"},
		"ended, though not live": {deletes: []archive.Delete{deleted(1, format.TombstoneCleaned, now), deleted(2, format.TombstoneUndone, now)}},
		"several": {
			deletes: []archive.Delete{deleted(1, format.TombstoneActive, now.Add(-1)), deleted(2, format.TombstoneActive, now.Add(1)), deleted(3, format.TombstoneActive, now)},
			want:    []format.TombstoneID{id(1), id(3)}, why: "the grace is over",
		},
	} {
		jobs := compactor.Plan(compactor.Inventory{Deletes: c.deletes}, now, compactor.Policy{})
		if c.want == nil {
			require.Empty(t, jobs, name)
			continue
		}
		require.Equal(t, []compactor.Job{{Kind: compactor.Clean, Deletes: c.want, Why: c.why}}, jobs, name)
	}
	day := format.DayOf(date("2026-03-01 00:00:00").UnixMilli())
	jobs := compactor.Plan(compactor.Inventory{
		Days:    []archive.DayStatus{{Day: day - 1, Runs: true, Held: true}, {Day: day, Runs: true, Rolled: true}},
		Deletes: []archive.Delete{deleted(1, format.TombstoneActive, now)},
	}, now, compactor.Policy{})
	require.Len(t, jobs, 2, "a day under a delete is not sealed")
	require.Equal(t, compactor.Clean, jobs[0].Kind)
	require.Equal(t, day, jobs[1].Day.Day)
}

// TestDeletes shows that a day is sealed once its deletes are cleaned, in the same pass, and that a delete
// whose grace goes on is cleaned when somebody asks.
func TestDeletes(t *testing.T) {
	w := &watch{now: date("2026-03-04 12:00:00")}
	o := testkit.Options()
	o.Now = w.Now
	a := testkit.Open(t, testkit.MemoryDir(t), o)
	var done []string
	c := compactor.New(a, compactor.Options{Now: w.Now, Done: func(o compactor.Outcome) {
		require.NoError(t, o.Err)
		done = append(done, fmt.Sprintf("%s %s", o.Job.Kind, o.Job.Why))
	}})
	for i, at := range []string{"2026-03-01 10:00:00", "2026-03-02 10:00:00", "2026-03-02 11:00:00"} {
		write(t, a, date(at), float64(i))
	}
	remove := func(from, to string) format.TombstoneID {
		d, ok, err := a.Delete(context.Background(), archive.DeleteRequest{
			Matchers:  [][]*labels.Matcher{{labels.MustNewMatcher(labels.MatchEqual, "__name__", "m")}},
			MinMillis: date(from).UnixMilli(), MaxMillis: date(to).UnixMilli(), Grace: time.Hour,
		})
		require.NoError(t, err)
		require.True(t, ok)
		return d.ID
	}
	remove("2026-03-02 10:00:00", "2026-03-02 10:30:00")
	require.Equal(t, []float64{0, 2}, values(t, a))
	_, err := c.Run(context.Background())
	require.NoError(t, err)
	require.Equal(t, []string{"seal the day is over"}, done)
	w.set(date("2026-03-04 13:00:00"))
	done = nil
	r, err := c.Run(context.Background())
	require.NoError(t, err)
	require.Equal(t, []string{"clean the grace is over", "seal the day is over"}, done)
	require.EqualValues(t, 1, r.Cleaned[0].Samples)
	require.Equal(t, []float64{0, 2}, values(t, a))

	id := remove("2026-03-01 00:00:00", "2026-03-01 23:00:00")
	done = nil
	r, err = c.Clean(context.Background(), []format.TombstoneID{id})
	require.NoError(t, err)
	require.Equal(t, []string{"clean somebody asked for it"}, done)
	require.EqualValues(t, 1, r.Cleaned[0].Samples)
	require.Equal(t, []float64{2}, values(t, a))
	require.Empty(t, a.LiveDeletes())
}
