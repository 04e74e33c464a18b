package compactor_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/archive/format"
	"varve/compactor"
)

func date(s string) time.Time {
	t, err := time.Parse(time.DateTime, s)
	if err != nil {
		panic(err)
	}
	return t
}

// TestPlan has a day in every state at the edges of every delay.
func TestPlan(t *testing.T) {
	policy := compactor.Policy{SealDelay: time.Hour, Quiet: 10 * time.Minute, ResealAfter: 6 * time.Hour}
	day := format.DayOf(date("2026-03-01 00:00:00").UnixMilli())
	now := date("2026-03-02 02:00:00")
	cases := map[string]struct {
		day  archive.DayStatus
		now  time.Time
		want string
	}{
		"nothing to seal":                  {day: archive.DayStatus{Sealed: now}},
		"over":                             {day: archive.DayStatus{Runs: true}, want: "the day is over"},
		"not over":                         {day: archive.DayStatus{Runs: true}, now: date("2026-03-01 23:59:59")},
		"within the delay":                 {day: archive.DayStatus{Runs: true}, now: date("2026-03-02 00:59:59")},
		"at the end of the delay":          {day: archive.DayStatus{Runs: true}, now: date("2026-03-02 01:00:00"), want: "the day is over"},
		"still arriving":                   {day: archive.DayStatus{Runs: true, Cut: now.Add(-10*time.Minute + 1)}},
		"quiet again":                      {day: archive.DayStatus{Runs: true, Cut: now.Add(-10 * time.Minute)}, want: "the day is over"},
		"too much waits":                   {day: archive.DayStatus{Runs: true, Cut: now, RunBytes: 3 << 30}, want: "3221225472 bytes of runs wait"},
		"too much, but of today":           {day: archive.DayStatus{Runs: true, RunBytes: 3 << 30}, now: date("2026-03-01 12:00:00")},
		"late samples, sealed just now":    {day: archive.DayStatus{Runs: true, Sealed: now.Add(-6*time.Hour + 1)}},
		"late samples":                     {day: archive.DayStatus{Runs: true, Sealed: now.Add(-6 * time.Hour)}, want: "late samples came"},
		"sealed by a clock that was ahead": {day: archive.DayStatus{Runs: true, Sealed: now.AddDate(1, 0, 0)}, want: "late samples came"},
		"cut by a clock that was ahead":    {day: archive.DayStatus{Runs: true, Cut: now.AddDate(1, 0, 0)}, want: "the day is over"},
		"interrupted":                      {day: archive.DayStatus{Folding: true, Cut: now}, want: "a sealing was interrupted"},
		"interrupted today":                {day: archive.DayStatus{Folding: true}, now: date("2026-03-01 12:00:00"), want: "a sealing was interrupted"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			c.day.Day = day
			if c.now.IsZero() {
				c.now = now
			}
			jobs := compactor.Plan([]archive.DayStatus{c.day}, c.now, policy)
			if c.want == "" {
				require.Empty(t, jobs)
				return
			}
			require.Len(t, jobs, 1)
			require.Equal(t, c.want, jobs[0].Why)
			require.Equal(t, c.day, jobs[0].Day)
		})
	}
	all := []archive.DayStatus{{Day: day - 2, Runs: true}, {Day: day - 1, Sealed: now}, {Day: day, Runs: true}, {Day: day + 1, Runs: true}}
	jobs := compactor.Plan(all, now, policy)
	require.Len(t, jobs, 2)
	require.Equal(t, day-2, jobs[0].Day.Day, "the oldest first")
	require.Equal(t, day, jobs[1].Day.Day)
}
