package compactor_test

import (
	"context"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/archive/format"
	"varve/arrival"
	"varve/compactor"
	"varve/internal/testkit"
)

// TestPlanExpiry has ten sealed and rolled days of 100 bytes of samples, and as many of 10 bytes of buckets, and
// tells what goes, what stays and what waits.
func TestPlanExpiry(t *testing.T) {
	const first = format.Day(20000)
	type change = func(i *compactor.Inventory)
	day := func(n int, f func(*archive.DayStatus)) change {
		return func(i *compactor.Inventory) { f(&i.Days[n]) }
	}
	cut := func(raw, rolled int) change {
		return func(i *compactor.Inventory) {
			i.Retention.Levels[0].Cutoff, i.Retention.Levels[1].Cutoff = first+format.Day(raw), first+format.Day(rolled)
		}
	}
	floor := func(raw, rolled int) change {
		return func(i *compactor.Inventory) {
			i.Retention.Levels[0].Floor, i.Retention.Levels[1].Floor = first+format.Day(raw), first+format.Day(rolled)
		}
	}
	size := func(disk, most uint64) change {
		return func(i *compactor.Inventory) { i.Retention.DiskBytes, i.Retention.BytesMax = disk, most }
	}
	for name, c := range map[string]struct {
		changes     []change
		policy      compactor.Policy
		raw, rolled int // floors
		bytes       uint64
		kept, waits bool
		why         string
	}{
		"nothing is old":                  {changes: []change{cut(0, 0)}},
		"three days":                      {changes: []change{cut(3, 0)}, raw: 3, bytes: 300, why: "past its age"},
		"three days, and two of rows":     {changes: []change{cut(3, 2)}, raw: 3, rolled: 2, bytes: 320, why: "past its age"},
		"rows alone":                      {changes: []change{cut(0, 4)}, rolled: 4, bytes: 40, why: "past its age"},
		"some went already":               {changes: []change{cut(3, 1), floor(2, 1)}, raw: 3, rolled: 1, bytes: 100 + 10, why: "past its age"},
		"the floors are higher":           {changes: []change{cut(1, 1), floor(2, 2), func(i *compactor.Inventory) { i.Days, i.Retention.Levels[1].Days = i.Days[2:], nil }}},
		"not rolled up":                   {changes: []change{cut(3, 0), day(1, func(d *archive.DayStatus) { d.Rolled = false })}, raw: 1, bytes: 100, kept: true, why: "past its age"},
		"to be rolled up anew":            {changes: []change{cut(3, 0), day(2, func(d *archive.DayStatus) { d.Dirty = true })}, raw: 2, bytes: 200, kept: true, why: "past its age"},
		"late runs":                       {changes: []change{cut(3, 0), day(0, func(d *archive.DayStatus) { d.Runs, d.RunBytes = true, 5 })}, kept: true},
		"under a delete":                  {changes: []change{cut(3, 0), day(0, func(d *archive.DayStatus) { d.Held = true })}, kept: true},
		"being sealed":                    {changes: []change{cut(3, 0), day(1, func(d *archive.DayStatus) { d.Folding = true })}, raw: 1, bytes: 100, kept: true, why: "past its age"},
		"not rolled up, nor kept rolled":  {changes: []change{cut(3, 3), day(1, func(d *archive.DayStatus) { d.Rolled, d.Runs, d.RunBytes = false, true, 7 })}, raw: 3, rolled: 3, bytes: 337, why: "past its age"},
		"under a delete, nor kept rolled": {changes: []change{cut(3, 3), day(1, func(d *archive.DayStatus) { d.Held = true })}, raw: 1, rolled: 3, bytes: 130, kept: true, why: "past its age"},
		"half of it":                      {changes: []change{cut(5, 5)}, raw: 5, rolled: 5, bytes: 550, why: "past its age"},
		"more than half":                  {changes: []change{cut(6, 5)}, raw: 6, rolled: 5, bytes: 650, waits: true, why: "past its age"},
		"more than half, forced":          {changes: []change{cut(6, 5)}, policy: compactor.Policy{Force: true}, raw: 6, rolled: 5, bytes: 650, why: "past its age"},
		"more than a set share":           {changes: []change{cut(1, 0)}, policy: compactor.Policy{DropShareMax: 0.05}, raw: 1, bytes: 100, waits: true, why: "past its age"},
		"all of it":                       {changes: []change{cut(10, 10)}, raw: 10, rolled: 10, bytes: 1100, waits: true, why: "past its age"},
		"large enough":                    {changes: []change{cut(0, 0), size(1000, 1000)}},
		"too large":                       {changes: []change{cut(0, 0), size(1000, 850)}, raw: 2, bytes: 200, why: "the archive takes 1000 bytes on disk, more than 850"},
		"too large, but some goes":        {changes: []change{cut(2, 0), size(1000, 850)}, raw: 2, bytes: 200, why: "past its age"},
		"too large, and some goes":        {changes: []change{cut(1, 0), size(1000, 850)}, raw: 2, bytes: 200, why: "the archive takes 1000 bytes on disk, more than 850"},
		"too large, not rolled up":        {changes: []change{cut(0, 0), size(1000, 500), day(1, func(d *archive.DayStatus) { d.Rolled = false })}, raw: 1, bytes: 100, why: "the archive takes 1000 bytes on disk, more than 500"},
		"too large, while some goes":      {changes: []change{cut(0, 0), size(1000, 850), func(i *compactor.Inventory) { i.Retention.Dropping = true }}},
		"far too large":                   {changes: []change{cut(0, 0), size(9000, 1)}, policy: compactor.Policy{Force: true}, raw: 9, bytes: 900, why: "the archive takes 9000 bytes on disk, more than 1"},
	} {
		t.Run(name, func(t *testing.T) {
			i := compactor.Inventory{Retention: archive.RetentionStatus{Today: first + 10, Levels: []archive.LevelStatus{{Floor: first, Cutoff: first}, {Resolution: time.Hour, Floor: first, Cutoff: first}}}}
			for n := range 10 {
				d := first + format.Day(n)
				i.Days = append(i.Days, archive.DayStatus{Day: d, Bytes: 100, RawBytes: 100, Samples: 50, Sealed: time.UnixMilli(1), Rolled: true})
				i.Retention.Levels[1].Days = append(i.Retention.Levels[1].Days, archive.LevelDay{Day: d, Bytes: 10})
			}
			for _, change := range c.changes {
				change(&i)
			}
			e, ok := compactor.PlanExpiry(i, c.policy)
			require.Equal(t, c.bytes > 0, ok)
			require.Equal(t, c.kept, e.Kept != "", e.Kept)
			if !ok {
				return
			}
			require.Equal(t, []format.Day{first + format.Day(c.raw), first + format.Day(c.rolled)}, e.Floors)
			require.Equal(t, c.bytes, e.Bytes)
			require.Equal(t, c.waits, e.Waits != "", e.Waits)
			require.Equal(t, c.why, e.Why)
			var jobs []compactor.Job
			for _, job := range compactor.Plan(i, date("2024-10-14 01:00:00"), c.policy) {
				if job.Kind == compactor.Expire {
					jobs = append(jobs, job)
				} else {
					require.Empty(t, jobs, "expiry comes last")
				}
			}
			require.Equal(t, []compactor.Job{{Kind: compactor.Expire, Expiry: e, Why: e.Why, Waits: e.Waits}}, jobs)
		})
	}
}

// TestPlanTrims has days of which some series are past their age, and tells which are trimmed, and when.
func TestPlanTrims(t *testing.T) {
	const first = format.Day(20000)
	sealed := func(d format.Day, f func(*archive.DayStatus)) archive.DayStatus {
		s := archive.DayStatus{Day: d, Bytes: 100, Sealed: time.UnixMilli(1), Rolled: true}
		if f != nil {
			f(&s)
		}
		return s
	}
	i := compactor.Inventory{
		Days: []archive.DayStatus{
			sealed(first+2, nil), sealed(first+3, func(d *archive.DayStatus) { d.Dirty = true }),
			sealed(first+4, func(d *archive.DayStatus) { d.Rolled = false }), sealed(first+5, nil), sealed(first+6, nil),
		},
		Retention: archive.RetentionStatus{
			Today: first + 10, Levels: []archive.LevelStatus{{Floor: first + 2, Cutoff: first + 2}, {Resolution: time.Hour, Floor: first, Cutoff: first}},
			Trims: []archive.TrimDay{
				{Day: first + 1, Series: 1, Bytes: 7}, // of which only buckets are left
				{Day: first + 2, Series: 2, Raw: true, Bytes: 30},
				{Day: first + 3, Series: 3, Raw: true}, {Day: first + 4, Series: 4, Raw: true},
				{Day: first + 5, Series: 5, Raw: true, Held: true}, {Day: first + 6, Raw: true, Begun: true},
			},
		},
	}
	var got []string
	for _, job := range compactor.Plan(i, date("2024-10-14 01:00:00"), compactor.Policy{}) {
		if job.Kind == compactor.Trim {
			got = append(got, archive.Date(job.Day.Day)+" "+job.Why+job.Waits)
		}
	}
	require.Equal(t, []string{"2024-10-05 1 series are past their age", "2024-10-06 2 series are past their age", "2024-10-10 a trim was interrupted"}, got)
	i.Retention.Trims[1].Bytes = 300
	e, ok := compactor.PlanExpiry(i, compactor.Policy{})
	require.True(t, ok)
	require.False(t, e.Drops)
	require.EqualValues(t, 307, e.Bytes)
	require.NotEmpty(t, e.Waits, "trims count too")
}

// TestExpires shows that a pass seals, rolls up and then expires, that one which drops much waits until it is forced, and that
// a clock that is years ahead drops nothing.
func TestExpires(t *testing.T) {
	w := &watch{now: date("2026-03-09 12:00:00")}
	o := testkit.Options()
	o.Now, o.Resolutions = w.Now, []time.Duration{time.Hour}
	a := testkit.Open(t, testkit.MemoryDir(t), o)
	for d := range 8 {
		write(t, a, date("2026-03-01 10:00:00").AddDate(0, 0, d), float64(d))
	}
	keep := func(days int) {
		k := time.Duration(days) * 24 * time.Hour
		require.NoError(t, a.SetRetention(archive.Retention{Rules: []archive.RetentionRule{{Keep: []time.Duration{k, archive.Forever}}}}))
	}
	var kinds []compactor.Kind
	c := compactor.New(a, compactor.Options{Now: w.Now, Done: func(o compactor.Outcome) {
		require.NoError(t, o.Err)
		kinds = append(kinds, o.Job.Kind)
	}})
	keep(7)
	r, err := c.Run(context.Background())
	require.NoError(t, err)
	require.Len(t, r.Expired, 1)
	require.Equal(t, compactor.Expire, kinds[len(kinds)-1], "nothing expires before all is rolled up")
	require.Equal(t, []float64{1, 2, 3, 4, 5, 6, 7}, values(t, a))

	keep(2)
	w.set(date("2036-03-09 12:00:00"))
	require.Equal(t, []float64{6, 7}, values(t, a), "ages are counted from the newest day")
	r, err = compactor.New(a, compactor.Options{Now: w.Now, Policy: compactor.Policy{DropShareMax: 0.1}}).Run(context.Background())
	require.NoError(t, err)
	require.Empty(t, r.Expired)
	keep(7)
	require.Equal(t, []float64{1, 2, 3, 4, 5, 6, 7}, values(t, a), "a rule that was wrong has cost nothing")
	keep(2)
	strict := compactor.New(a, compactor.Options{Now: w.Now, Policy: compactor.Policy{DropShareMax: 0.1}})
	_, err = strict.Run(context.Background())
	require.NoError(t, err)
	require.Len(t, strict.Status().Unforced, 1)
	r, err = strict.RunForced(context.Background())
	require.NoError(t, err)
	require.Len(t, r.Expired, 1)
	require.EqualValues(t, 5, r.Expired[0].Levels[0].Samples)
	require.Empty(t, strict.Status().Unforced)
	require.Equal(t, []float64{6, 7}, values(t, a))
}

// TestForgets shows that a pass which lets the last data of a series expire forgets the series, and says so, and that looking in vain is not
// told.
func TestForgets(t *testing.T) {
	w := &watch{now: date("2026-03-09 12:00:00")}
	o := testkit.Options()
	o.Now, o.Resolutions = w.Now, []time.Duration{time.Hour}
	a := testkit.Open(t, testkit.MemoryDir(t), o)
	old := []arrival.Unknown{{Labels: labels.FromStrings("__name__", "old", "job", "j")}}
	require.NoError(t, a.Resolve(context.Background(), old))
	_, err := a.Write(context.Background(), &arrival.Batch{
		Rows: []arrival.Row{{Ref: old[0].Ref, Count: 1}}, Times: []int64{date("2026-03-02 10:00:00").UnixMilli()}, Values: []uint64{1},
	})
	require.NoError(t, err)
	write(t, a, date("2026-03-08 10:00:00"), 1)
	w.set(date("2026-03-09 14:00:00"))
	keep := 3 * 24 * time.Hour
	require.NoError(t, a.SetRetention(archive.Retention{Rules: []archive.RetentionRule{{Keep: []time.Duration{keep, keep}}}}))
	var kinds []compactor.Kind
	c := compactor.New(a, compactor.Options{Now: w.Now, Policy: compactor.Policy{DropShareMax: 1}, Done: func(o compactor.Outcome) {
		require.NoError(t, o.Err)
		kinds = append(kinds, o.Job.Kind)
	}})
	r, err := c.Run(context.Background())
	require.NoError(t, err)
	require.EqualValues(t, 1, r.Forgot.Series)
	require.EqualValues(t, 1, r.Forgot.Pairs)
	require.Equal(t, compactor.Forget, kinds[len(kinds)-1])
	n := len(kinds)
	_, err = c.Run(context.Background())
	require.NoError(t, err)
	require.Len(t, kinds, n)
	require.NoError(t, a.Resolve(context.Background(), old))
	require.EqualValues(t, 2, old[0].Ref, "a ref is given once")
}
