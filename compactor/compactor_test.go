package compactor_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/archive/format"
	"varve/arrival"
	"varve/compactor"
	"varve/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// watch is a clock that tests move. Safe for use by several goroutines.
type watch struct {
	mu  sync.Mutex
	now time.Time
}

func (w *watch) Now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *watch) set(t time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = t
}

func write(t testing.TB, a *archive.Archive, at time.Time, v float64) {
	t.Helper()
	u := []arrival.Unknown{{Labels: labels.FromStrings("__name__", "m", "job", "j", "instance", "i")}}
	require.NoError(t, a.Resolve(context.Background(), u))
	b := &arrival.Batch{
		Rows: []arrival.Row{{Ref: u[0].Ref, Count: 1}}, Times: []int64{at.UnixMilli()}, Values: []uint64{math.Float64bits(v)},
	}
	res, err := a.Write(context.Background(), b)
	require.NoError(t, err)
	require.Equal(t, 1, res.Samples)
}

func values(t testing.TB, a *archive.Archive) []float64 {
	t.Helper()
	q, err := a.Querier(math.MinInt64, math.MaxInt64)
	require.NoError(t, err)
	defer q.Close()
	set := q.Select(context.Background(), true, nil, labels.MustNewMatcher(labels.MatchEqual, "__name__", "m"))
	var out []float64
	for set.Next() {
		for it := set.At().Iterator(nil); it.Next() != 0; {
			_, v := it.At()
			out = append(out, v)
		}
	}
	require.NoError(t, set.Err())
	return out
}

// TestRun seals what is over and leaves what isn't, tells of it, and holds the space of
// a day until a query of the time before is closed.
func TestRun(t *testing.T) {
	w := &watch{now: date("2026-03-02 12:00:00")}
	o := testkit.Options()
	o.Now = w.Now
	a := testkit.Open(t, testkit.MemoryDir(t), o)
	registry := prometheus.NewRegistry()
	var done []string
	c := compactor.New(a, compactor.Options{
		Policy: compactor.Policy{SealDelay: time.Hour, Quiet: time.Hour, ResealAfter: time.Hour}, Now: w.Now, Registerer: registry,
		Done: func(o compactor.Outcome) {
			require.NoError(t, o.Err)
			done = append(done, fmt.Sprintf("%s %d %s", archive.Date(o.Seal.Day), o.Seal.Samples, o.Job.Why))
		},
	})
	write(t, a, date("2026-02-20 10:00:00"), 1)
	write(t, a, date("2026-03-01 23:59:59"), 2)
	write(t, a, date("2026-03-02 11:00:00"), 3)
	query, err := a.Querier(0, math.MaxInt64)
	require.NoError(t, err)

	report, err := c.Run(context.Background())
	require.NoError(t, err)
	require.Equal(t, []string{"2026-02-20 1 the day is over", "2026-03-01 1 the day is over"}, done)
	require.Len(t, report.Sealed, 2)
	require.Equal(t, 2, report.Waiting)
	require.Equal(t, 2, c.Status().Waiting)
	require.NoError(t, query.Close())
	report, err = c.Run(context.Background())
	require.NoError(t, err)
	require.Zero(t, report.Waiting)
	require.Empty(t, report.Sealed)
	require.Equal(t, []float64{1, 2, 3}, values(t, a))

	// A late sample, and the day that was today.
	done = nil
	write(t, a, date("2026-02-20 11:00:00"), 1.5)
	w.set(date("2026-03-03 12:00:00"))
	_, err = c.Run(context.Background())
	require.NoError(t, err)
	require.Equal(t, []string{"2026-02-20 2 late samples came", "2026-03-02 1 the day is over"}, done)
	require.Equal(t, []float64{1, 1.5, 2, 3}, values(t, a))
	families, err := registry.Gather()
	require.NoError(t, err)
	require.NotEmpty(t, families)
}

// TestLoop seals a day by itself once it is over.
func TestLoop(t *testing.T) {
	w := &watch{now: date("2026-03-01 12:00:00")}
	o := testkit.Options()
	o.Now = w.Now
	a := testkit.Open(t, testkit.MemoryDir(t), o)
	write(t, a, w.Now(), 1)
	require.NoError(t, a.Maintain(true))
	sealed := make(chan archive.SealReport, 10)
	c := compactor.New(a, compactor.Options{
		Interval: time.Millisecond, Now: w.Now,
		Done: func(o compactor.Outcome) {
			if o.Job.Kind == compactor.Forget && errors.Is(o.Err, context.Canceled) {
				return // The loop ended while it looked for series to forget, as it does once after a start.
			}
			assert.NoError(t, o.Err)
			sealed <- o.Seal
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.Loop(ctx)
	}()
	w.set(date("2026-03-02 00:00:00"))
	r := <-sealed
	require.Equal(t, "2026-03-01", archive.Date(r.Day))
	cancel()
	<-ended
	require.Empty(t, sealed, "a day is sealed once")
}

// TestRunEnds shows that a job ends with its context and is taken up again.
func TestRunEnds(t *testing.T) {
	w := &watch{now: date("2026-03-02 12:00:00")}
	o := testkit.Options()
	o.Now = w.Now
	a := testkit.Open(t, testkit.MemoryDir(t), o)
	write(t, a, date("2026-02-20 10:00:00"), 1)
	c := compactor.New(a, compactor.Options{Now: w.Now})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := c.Run(ctx)
	require.ErrorIs(t, err, context.Canceled)
	report, err := c.Run(context.Background())
	require.NoError(t, err)
	require.Len(t, report.Sealed, 1)
}

// TestRunDue shows that what is due is done while the compactor is paused, that what is in memory alone is left there,
// and that nothing at all is written when nothing is due.
func TestRunDue(t *testing.T) {
	w := &watch{now: date("2026-03-02 12:00:00")}
	o := testkit.Options()
	o.Now = w.Now
	a := testkit.Open(t, testkit.MemoryDir(t), o)
	c := compactor.New(unhurried{a, t}, compactor.Options{Policy: compactor.Policy{SealDelay: time.Hour, Quiet: time.Hour}, Share: 0.9, Now: w.Now})
	c.Pause()
	write(t, a, date("2026-02-20 10:00:00"), 1)
	require.NoError(t, a.Maintain(true))
	write(t, a, date("2026-02-21 10:00:00"), 2)
	report, err := c.RunDue(context.Background())
	require.NoError(t, err)
	require.Len(t, report.Sealed, 1)
	report, err = c.RunDue(context.Background())
	require.NoError(t, err)
	require.Empty(t, report.Sealed)
	require.NoError(t, a.Maintain(true))
	report, err = c.RunDue(context.Background())
	require.NoError(t, err)
	require.Len(t, report.Sealed, 1, "the day that was in memory")
}

// unhurried is an archive that may not be brought to disk for the sake of a copy.
type unhurried struct {
	compactor.Archive
	t *testing.T
}

func (c unhurried) Maintain(bool) error {
	c.t.Error("what is in memory was cut")
	return nil
}

func (c unhurried) Settle() error {
	c.t.Error("the archive was settled")
	return nil
}

// failing is an archive of which one day can't be sealed.
type failing struct {
	compactor.Archive
	day string
}

var errBroken = errors.New("broken")

func (f failing) Seal(ctx context.Context, day format.Day, pace compactor.Pace) (archive.SealReport, error) {
	if archive.Date(day) == f.day {
		return archive.SealReport{Day: day}, errBroken
	}
	return f.Archive.Seal(ctx, day, pace)
}

// TestOneDayFails shows that a day that can't be sealed keeps no other from it.
func TestOneDayFails(t *testing.T) {
	w := &watch{now: date("2026-03-02 12:00:00")}
	o := testkit.Options()
	o.Now = w.Now
	a := testkit.Open(t, testkit.MemoryDir(t), o)
	write(t, a, date("2026-02-19 10:00:00"), 1)
	write(t, a, date("2026-02-20 10:00:00"), 1)
	c := compactor.New(failing{a, "2026-02-19"}, compactor.Options{Now: w.Now})
	report, err := c.Run(context.Background())
	require.ErrorIs(t, err, errBroken)
	require.Len(t, report.Sealed, 1)
	require.Equal(t, "2026-02-20", archive.Date(report.Sealed[0].Day))
	require.ErrorIs(t, c.Status().Failed, errBroken, "a day that went well after it hides nothing")
}

// held is an archive that can't give space back.
type held struct{ compactor.Archive }

func (held) Reclaim() (int, error) { return 0, errBroken }

// TestFailuresBesideJobs shows that an error which belongs to no job is told, and shown.
func TestFailuresBesideJobs(t *testing.T) {
	a := testkit.Open(t, testkit.MemoryDir(t), testkit.Options())
	var told error
	c := compactor.New(held{a}, compactor.Options{Failed: func(err error) { told = err }})
	_, err := c.Run(context.Background())
	require.ErrorIs(t, err, errBroken)
	require.ErrorIs(t, told, errBroken)
	require.ErrorIs(t, c.Status().Failed, errBroken)
}

// TestRolls shows that days are rolled up once the day behind them is sealed or over, and again
// when late samples were sealed.
func TestRolls(t *testing.T) {
	w := &watch{now: date("2026-03-04 12:00:00")}
	o := testkit.Options()
	o.Now = w.Now
	o.Resolutions = []time.Duration{time.Hour}
	a := testkit.Open(t, testkit.MemoryDir(t), o)
	var done []string
	c := compactor.New(a, compactor.Options{Now: w.Now, Done: func(o compactor.Outcome) {
		require.NoError(t, o.Err)
		done = append(done, fmt.Sprintf("%s %s %s", o.Job.Kind, archive.Date(o.Job.Day.Day), o.Job.Why))
	}})
	run := func() []string {
		done = nil
		report, err := c.Run(context.Background())
		require.NoError(t, err)
		require.Len(t, done, len(report.Sealed)+len(report.Rolled))
		return done
	}
	write(t, a, date("2026-03-01 00:00:00"), 1)
	write(t, a, date("2026-03-03 10:00:00"), 2)
	write(t, a, date("2026-03-04 11:00:00"), 3)
	require.Equal(t, []string{
		"seal 2026-03-01 the day is over", "seal 2026-03-03 the day is over",
		"roll 2026-02-28 the day is sealed", "roll 2026-03-01 the day is sealed", "roll 2026-03-02 the day is sealed",
	}, run(), "the bucket before midnight has the first sample; the 3rd waits for the 4th")
	require.Empty(t, run())
	write(t, a, date("2026-03-03 00:00:00"), 5)
	require.Equal(t, []string{"seal 2026-03-03 late samples came", "roll 2026-03-02 sealed samples changed"}, run())
	w.set(date("2026-03-05 00:00:00"))
	require.Equal(t, []string{"seal 2026-03-04 the day is over", "roll 2026-03-03 the day is sealed"}, run())
	w.set(date("2026-03-06 00:00:00"))
	require.Equal(t, []string{"roll 2026-03-04 the day is sealed"}, run(), "the 5th is over without samples")
}

// TestBackoff shows that a job which fails is tried again later and later, unless somebody asks.
func TestBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := make(chan time.Time, 100)
		c := compactor.New(broken{}, compactor.Options{Done: func(o compactor.Outcome) {
			require.ErrorIs(t, o.Err, errBroken)
			require.True(t, o.Retry.After(time.Now()))
			tries <- time.Now()
		}})
		ctx, cancel := context.WithCancel(context.Background())
		go c.Loop(ctx)
		var gaps []time.Duration
		last := <-tries
		for range 8 {
			next := <-tries
			gaps = append(gaps, next.Sub(last))
			last = next
		}
		m := time.Minute
		require.Equal(t, []time.Duration{m, 2 * m, 4 * m, 8 * m, 16 * m, 32 * m, 60 * m, 60 * m}, gaps)
		_, err := c.Run(ctx)
		require.ErrorIs(t, err, errBroken)
		require.Equal(t, time.Now(), <-tries)
		c.Pause()
		require.True(t, c.Status().Paused)
		select {
		case <-tries:
			t.Error("a job was begun while paused")
		case <-time.After(10 * time.Hour):
		}
		c.Resume()
		<-tries
		cancel()
	})
}

// broken is an archive whose only day can't be sealed.
type broken struct{ compactor.Archive }

func (broken) Maintain(bool) error           { return nil }
func (broken) Reclaim() (int, error)         { return 0, nil }
func (broken) LiveDeletes() []archive.Delete { return nil }
func (broken) Retention() (archive.RetentionStatus, error) {
	return archive.RetentionStatus{}, nil
}
func (broken) Days() ([]archive.DayStatus, error) {
	return []archive.DayStatus{{Folding: true}}, nil
}

func (broken) Seal(context.Context, format.Day, compactor.Pace) (archive.SealReport, error) {
	return archive.SealReport{}, errBroken
}

// TestPause shows that a job under way stops after its batch, and goes on.
func TestPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pacing{begun: make(chan struct{}), done: make(chan struct{})}
		c := compactor.New(p, compactor.Options{})
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		go c.Loop(ctx)
		<-p.begun
		c.Pause()
		select {
		case <-p.done:
			t.Error("the job went on")
		case <-time.After(time.Hour):
		}
		c.Resume()
		<-p.done
	})
}

// pacing is an archive whose job has two batches.
type pacing struct {
	broken
	begun, done chan struct{}
}

func (p *pacing) Seal(ctx context.Context, _ format.Day, pace compactor.Pace) (archive.SealReport, error) {
	close(p.begun)
	for range 2 {
		if err := pace(ctx, time.Second); err != nil {
			return archive.SealReport{}, err
		}
	}
	close(p.done)
	<-ctx.Done()
	return archive.SealReport{}, ctx.Err()
}

// TestIntakeAtWork shows that the jobs of a time when a day is leased are no failures: they are done when the lease is over, without
// a wait, and whoever asked for them is told.
func TestIntakeAtWork(t *testing.T) {
	w := &watch{now: date("2026-03-02 12:00:00")}
	o := testkit.Options()
	o.Now = w.Now
	a := testkit.Open(t, testkit.MemoryDir(t), o)
	write(t, a, date("2026-02-20 10:00:00"), 1)
	write(t, a, date("2026-02-21 10:00:00"), 2)
	c := compactor.New(a, compactor.Options{Now: w.Now, Done: func(o compactor.Outcome) { require.NoError(t, o.Err) }})
	lease, err := a.OpenIntake(context.Background(), format.DayOf(date("2026-01-01 00:00:00").UnixMilli()))
	require.NoError(t, err)
	report, err := c.Run(context.Background())
	require.ErrorIs(t, err, archive.ErrJobAtWork)
	require.Empty(t, report.Sealed)
	require.NoError(t, lease.Close())
	report, err = c.Run(context.Background())
	require.NoError(t, err)
	require.Len(t, report.Sealed, 2)
}
