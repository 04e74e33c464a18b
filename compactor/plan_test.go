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
			c.day.Day, c.day.Rolled = day, true
			if c.now.IsZero() {
				c.now = now
			}
			jobs := compactor.Plan(compactor.Inventory{Days: []archive.DayStatus{c.day}}, c.now, policy)
			if c.want == "" {
				require.Empty(t, jobs)
				return
			}
			require.Len(t, jobs, 1)
			require.Equal(t, c.want, jobs[0].Why)
			require.Equal(t, c.day, jobs[0].Day)
		})
	}
	all := []archive.DayStatus{{Day: day - 2, Runs: true, Rolled: true}, {Day: day - 1, Sealed: now, Rolled: true}, {Day: day, Runs: true, Rolled: true}, {Day: day + 1, Runs: true, Rolled: true}}
	jobs := compactor.Plan(compactor.Inventory{Days: all}, now, policy)
	require.Len(t, jobs, 2)
	require.Equal(t, day-2, jobs[0].Day.Day, "the oldest first")
	require.Equal(t, day, jobs[1].Day.Day)
}

// TestPlanForget forgets series when the archive says that it can, after all else.
func TestPlanForget(t *testing.T) {
	day := archive.DayStatus{Day: format.DayOf(date("2026-03-01 00:00:00").UnixMilli()), Runs: true, Rolled: true}
	now := date("2026-03-02 02:00:00")
	i := compactor.Inventory{Days: []archive.DayStatus{day}}
	i.Retention.Forget = archive.ForgetStatus{Leaving: 3, Waits: "a query began before"}
	require.Len(t, compactor.Plan(i, now, compactor.Policy{}), 1)
	i.Retention.Forget = archive.ForgetStatus{Due: true, Leaving: 3}
	jobs := compactor.Plan(i, now, compactor.Policy{})
	require.Len(t, jobs, 2)
	require.Equal(t, compactor.Job{Kind: compactor.Forget, Why: "3 series have no data any more"}, jobs[1])
	i.Days, i.Retention.Forget.Leaving = nil, 0
	require.Equal(t, []compactor.Job{{Kind: compactor.Forget, Why: "series may have lost their last data"}}, compactor.Plan(i, now, compactor.Policy{}))
}

// TestPlanRolls has a sealed day and the one behind it in every state.
func TestPlanRolls(t *testing.T) {
	day := format.DayOf(date("2026-03-01 00:00:00").UnixMilli())
	now := date("2026-03-04 02:00:00")
	sealed := date("2026-03-02 02:00:00")
	policy := compactor.Policy{SealDelay: 2 * time.Hour}
	next := archive.DayStatus{Day: day + 1, Sealed: sealed, Rolled: true}
	for name, c := range map[string]struct {
		day, next archive.DayStatus
		now       time.Time
		want      string
	}{
		"sealed":                                 {day: archive.DayStatus{Sealed: sealed}, next: next, want: "the day is sealed"},
		"rolled up":                              {day: archive.DayStatus{Sealed: sealed, Rolled: true}, next: next},
		"rolled up, and changed":                 {day: archive.DayStatus{Sealed: sealed, Rolled: true, Dirty: true}, next: next, want: "sealed samples changed"},
		"with late runs":                         {day: archive.DayStatus{Sealed: sealed, Runs: true}, next: next, want: "the day is sealed"},
		"with a delete that can be undone":       {day: archive.DayStatus{Sealed: sealed, Held: true}, next: next},
		"being sealed":                           {day: archive.DayStatus{Sealed: sealed, Folding: true}, next: next},
		"not sealed":                             {day: archive.DayStatus{Runs: true, Cut: now}, next: next},
		"before one that is not sealed":          {day: archive.DayStatus{Sealed: sealed}, next: archive.DayStatus{Day: day + 1, Runs: true, Cut: now, Rolled: true}},
		"before one that is being sealed":        {day: archive.DayStatus{Sealed: sealed}, next: archive.DayStatus{Day: day + 1, Held: true, Runs: true, Rolled: true, Cut: now}},
		"before one without samples":             {day: archive.DayStatus{Sealed: sealed}, want: "the day is sealed"},
		"before one that is not over":            {day: archive.DayStatus{Sealed: sealed}, now: date("2026-03-02 23:59:59")},
		"before one whose samples may come late": {day: archive.DayStatus{Sealed: sealed}, now: date("2026-03-03 01:59:59")},
		"before one that is over":                {day: archive.DayStatus{Sealed: sealed}, now: date("2026-03-03 02:00:00"), want: "the day is sealed"},
		"without samples":                        {day: archive.DayStatus{}, next: next, want: "the day is sealed"},
	} {
		t.Run(name, func(t *testing.T) {
			c.day.Day = day
			days := []archive.DayStatus{c.day}
			if c.next.Day != 0 {
				days = append(days, c.next)
			}
			if c.now.IsZero() {
				c.now = now
			}
			p := policy
			p.Quiet = 100 * time.Hour
			var why string
			for _, job := range compactor.Plan(compactor.Inventory{Days: days}, c.now, p) {
				if job.Kind == compactor.Roll {
					require.Empty(t, why)
					require.Equal(t, day, job.Day.Day)
					why = job.Why
				}
			}
			require.Equal(t, c.want, why)
		})
	}
}
