package compactor_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
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
		Done: func(j compactor.Job, r archive.SealReport, err error) {
			require.NoError(t, err)
			done = append(done, fmt.Sprintf("%s %d %s", archive.Date(r.Day), r.Samples, j.Why))
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
		Done: func(_ compactor.Job, r archive.SealReport, err error) {
			require.NoError(t, err)
			sealed <- r
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

// failing is an archive of which one day can't be sealed.
type failing struct {
	compactor.Archive
	day string
}

var errBroken = errors.New("broken")

func (f failing) Seal(ctx context.Context, day format.Day, pace func(context.Context, time.Duration) error) (archive.SealReport, error) {
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
