package query_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/httputil"
	"github.com/prometheus/prometheus/util/stats"
	"github.com/stretchr/testify/require"

	"varve/query"
)

// an hour of a few series
func hour() *arrays {
	a := &arrays{}
	for i := range 4 {
		a.series = append(a.series, floats(scrapeMillis, 240, func(n int) float64 { return float64(n * i) }, "__name__", "a", "host", fmt.Sprint("h", i)))
	}
	return a
}

func newRange(t testing.TB, e *query.Engine, s storage.Queryable, text string) promql.Query {
	q, err := e.NewRangeQuery(context.Background(), s, nil, text, time.Unix(0, 0), time.Unix(3600, 0), time.Minute)
	require.NoError(t, err)
	t.Cleanup(q.Close)
	return q
}

// blocked returns a storage whose Selects wait for release, or the end of their
// context, and tell begun.
func blocked() (store *arrays, begun chan struct{}, release chan struct{}) {
	store, begun, release = hour(), make(chan struct{}, 100), make(chan struct{})
	store.hook = func(ctx context.Context, _ *storage.SelectHints) error {
		begun <- struct{}{}
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("read postings: %w", ctx.Err())
		}
	}
	return store, begun, release
}

// start executes q beside the test.
func start(q promql.Query) <-chan *promql.Result {
	done := make(chan *promql.Result, 1)
	go func() { done <- q.Exec(context.Background()) }()
	return done
}

// Queries beyond the concurrency wait in their order, those beyond the queue are
// turned away at once, and all of it is listed.
func TestQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := query.Options{Limits: query.Limits{Concurrency: 1, QueueMax: 2}, Parts: 1}
		e := newEngine(t, o)
		store, begun, release := blocked()
		first := start(newRange(t, e, store, "sum(a)"))
		<-begun
		second := start(newRange(t, e, store, "avg(a)"))
		synctest.Wait()
		third := start(newRange(t, e, store, "max(a)"))
		synctest.Wait()
		require.Equal(t, 2, e.Waiting())

		r := newRange(t, e, store, "min(a)").Exec(context.Background())
		require.ErrorIs(t, r.Err, query.ErrTooManyQueries)
		require.Equal(t, http.StatusServiceUnavailable, query.Status(r.Err))
		var timeout promql.ErrQueryTimeout
		require.ErrorAs(t, r.Err, &timeout, "upstream's API answers 503 for that one only")
		require.ErrorContains(t, r.Err, "1 run and 2 wait")

		running := e.Running()
		require.Len(t, running, 3)
		for i, want := range []struct{ text, phase string }{{"sum(a)", "running"}, {"avg(a)", "queued"}, {"max(a)", "queued"}} {
			require.Equal(t, want.text, running[i].Text)
			require.Equal(t, want.phase, running[i].Phase)
		}
		release <- struct{}{}
		require.NoError(t, (<-first).Err)
		<-begun
		running = e.Running()
		require.Equal(t, "avg(a)", running[0].Text)
		require.Equal(t, "running", running[0].Phase)
		close(release)
		require.NoError(t, (<-second).Err)
		require.NoError(t, (<-third).Err)
		require.Empty(t, e.Running())
	})
}

// A query that waits too long in the queue is turned away, one that reaches its
// own timeout there has timed out, and the places of both are free again.
func TestQueueWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, query.Options{Limits: query.Limits{Concurrency: 1, QueueMax: 1, QueueWait: 10 * time.Second, Timeout: time.Hour}, Parts: 1})
		store, begun, release := blocked()
		first := start(newRange(t, e, store, "sum(a)"))
		<-begun
		begin := time.Now()
		r := newRange(t, e, store, "avg(a)").Exec(context.Background())
		require.ErrorIs(t, r.Err, query.ErrTooManyQueries)
		require.Equal(t, 10*time.Second, time.Since(begin))

		require.NoError(t, e.Apply(query.Limits{Concurrency: 1, QueueMax: 1, QueueWait: 10 * time.Second, Timeout: 3 * time.Second}))
		begin = time.Now()
		q := newRange(t, e, store, "avg(a)")
		r = q.Exec(context.Background())
		require.Equal(t, promql.ErrQueryTimeout("query queue"), r.Err)
		require.Equal(t, 3*time.Second, time.Since(begin))
		require.Zero(t, e.Waiting())
		require.InDelta(t, 3, q.Stats().Timers.GetTimer(stats.ExecQueueTime).Duration(), 0.001)

		canceled := newRange(t, e, store, "avg(a)")
		done := start(canceled)
		synctest.Wait()
		canceled.Cancel()
		r = <-done
		require.Equal(t, promql.ErrQueryCanceled("query queue"), r.Err)
		close(release)
		require.NoError(t, (<-first).Err)
	})
}

// More slots by Apply let those in the queue run, and fewer hold back new ones.
func TestApply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, query.Options{Limits: query.Limits{Concurrency: 1}, Parts: 1})
		store, begun, release := blocked()
		var all []<-chan *promql.Result
		for range 5 {
			all = append(all, start(newRange(t, e, store, "sum(a)")))
		}
		<-begun
		synctest.Wait()
		require.Equal(t, 4, e.Waiting())
		require.NoError(t, e.Apply(query.Limits{Concurrency: 3}))
		synctest.Wait()
		require.Equal(t, 2, e.Waiting())
		require.NoError(t, e.Apply(query.Limits{Concurrency: 2}))
		release <- struct{}{}
		synctest.Wait()
		require.Equal(t, 2, e.Waiting(), "two run already")
		close(release)
		for _, done := range all {
			require.NoError(t, (<-done).Err)
		}
		require.Error(t, e.Apply(query.Limits{Timeout: -1}))
		require.NoError(t, e.Apply(query.Limits{TextBytesMax: 5}))
		_, err := e.NewInstantQuery(t.Context(), store, nil, "sum(a)", time.Unix(0, 0))
		require.ErrorIs(t, err, query.ErrTextTooLong)
	})
}

// A query ends at its timeout with upstream's error, whatever the storage says,
// whether it is split or not.
func TestTimeout(t *testing.T) {
	for _, parts := range []int{1, 3} {
		synctest.Test(t, func(t *testing.T) {
			o := query.Options{Limits: query.Limits{Timeout: 7 * time.Second}, Parts: parts}
			o.ForceSplit()
			e := newEngine(t, o)
			store, _, _ := blocked()
			begin := time.Now()
			q := newRange(t, e, store, "sum(a)")
			r := q.Exec(t.Context())
			require.Equal(t, promql.ErrQueryTimeout("expression evaluation"), r.Err)
			require.Equal(t, http.StatusServiceUnavailable, query.Status(r.Err))
			require.Equal(t, 7*time.Second, time.Since(begin))
			require.Zero(t, store.queriers.Load())
			_, _, rerun := query.Split(q)
			require.Empty(t, rerun)
		})
	}
}

// A query is cancelled by its id, by Cancel, and by its caller's context, in all
// its parts, with upstream's error and without being run again.
func TestCancel(t *testing.T) {
	for _, parts := range []int{1, 3} {
		for _, how := range []string{"id", "method", "context"} {
			synctest.Test(t, func(t *testing.T) {
				o := query.Options{Parts: parts}
				o.ForceSplit()
				e := newEngine(t, o)
				store, begun, _ := blocked()
				q := newRange(t, e, store, "sum(a)")
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				done := make(chan *promql.Result, 1)
				go func() { done <- q.Exec(ctx) }()
				<-begun
				running := e.Running()
				require.Len(t, running, 1)
				require.Equal(t, parts, running[0].Parts)
				switch how {
				case "id":
					require.False(t, e.Cancel(running[0].ID+"0"))
					require.True(t, e.Cancel(running[0].ID))
				case "method":
					q.Cancel()
				case "context":
					cancel()
				}
				r := <-done
				var canceled promql.ErrQueryCanceled
				require.ErrorAs(t, r.Err, &canceled)
				require.Equal(t, 499, query.Status(r.Err))
				require.False(t, e.Cancel(running[0].ID))
				require.Zero(t, store.queriers.Load())
				require.Zero(t, e.BusyCores())
			})
		}
	}
}

// Close cancels what runs and waits, waits for it, and refuses what comes later.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, err := query.NewEngine(query.Options{Limits: query.Limits{Concurrency: 1}, Parts: 2})
		require.NoError(t, err)
		store, begun, _ := blocked()
		runs := start(newRange(t, e, store, "sum(a)"))
		<-begun
		waits := start(newRange(t, e, store, "sum(a)"))
		synctest.Wait()
		require.NoError(t, e.Close())
		require.Empty(t, e.Running())
		require.Zero(t, store.queriers.Load())
		for _, done := range []<-chan *promql.Result{runs, waits} {
			require.Equal(t, 499, query.Status((<-done).Err))
		}
		r := newRange(t, e, store, "sum(a)").Exec(context.Background())
		require.ErrorIs(t, r.Err, query.ErrClosed)
		require.Equal(t, http.StatusServiceUnavailable, query.Status(r.Err))
		require.NoError(t, e.Close())
	})
}

// A listed query shows what it is, who asked, and how far it came.
func TestRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		e := newEngine(t, query.Options{Parts: 1})
		store, begun, release := blocked()
		store.hook = func(ctx context.Context, hints *storage.SelectHints) error {
			if hints.Func != "avg" {
				return nil
			}
			begun <- struct{}{}
			<-release
			return nil
		}
		q, err := e.NewInstantQuery(t.Context(), store, nil, "sum(a) / avg(a)", time.Unix(1800, 0))
		require.NoError(t, err)
		defer q.Close()
		request := httptest.NewRequest(http.MethodGet, "/api/v1/query", http.NoBody)
		request.RemoteAddr = "10.1.2.3:4567"
		done := make(chan *promql.Result, 1)
		go func() { done <- q.Exec(httputil.ContextFromRequest(t.Context(), request)) }()
		<-begun
		one := e.Running()[0]
		require.NotEmpty(t, one.ID)
		one.ID = ""
		require.Equal(t, query.Running{
			Text: "sum(a) / avg(a)", Kind: "instant", Start: time.Unix(1800, 0), End: time.Unix(1800, 0), Since: begin,
			Phase: "running", Parts: 1, Client: "10.1.2.3",
		}, one)

		named := make(chan string, 1)
		other := hour()
		other.hook = func(context.Context, *storage.SelectHints) error {
			named <- e.Running()[1].Client
			return nil
		}
		r := newRange(t, e, other, "a")
		require.NoError(t, r.Exec(query.WithClient(t.Context(), "grafana")).Err)
		require.Equal(t, "grafana", <-named)
		close(release)
		require.NoError(t, (<-done).Err)
	})
}

// One engine, many queries at once: slots, cores and the list come back to zero.
func TestManyQueries(t *testing.T) {
	o := query.Options{Limits: query.Limits{Concurrency: 3, QueueWait: time.Hour, Timeout: time.Hour}, Parts: 4}
	e := newEngine(t, o)
	store := hour()
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			q, err := e.NewRangeQuery(context.Background(), store, nil, "sum(rate(a[1m]))", time.Unix(0, 0), time.Unix(3600, 0), 15*time.Second)
			if err != nil {
				t.Error(err)
				return
			}
			defer q.Close()
			ctx, cancel := context.WithCancel(context.Background())
			if i%4 == 0 {
				cancel()
			}
			defer cancel()
			if r := q.Exec(ctx); r.Err != nil && i%4 != 0 {
				t.Error(r.Err)
			}
			for _, other := range e.Running() {
				if other.Parts > 4 {
					t.Errorf("%d parts", other.Parts)
				}
			}
		})
	}
	wg.Wait()
	require.Zero(t, e.BusyCores())
	require.Zero(t, e.Waiting())
	require.Empty(t, e.Running())
	require.Zero(t, store.queriers.Load())
}

// Cores that other queries use are not shared: the answer comes in fewer parts.
func TestBusyCores(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, query.Options{Parts: 3})
		store, begun, release := blocked()
		first, err := e.NewInstantQuery(t.Context(), store, nil, "a", time.Unix(60, 0))
		require.NoError(t, err)
		done := start(first)
		<-begun
		parts := func() int {
			q := newRange(t, e, hour(), "sum(rate(a[1m]))")
			require.NoError(t, q.Exec(t.Context()).Err)
			n, _, _ := query.Split(q)
			return n
		}
		require.Equal(t, 2, parts())
		close(release)
		<-done
		require.Equal(t, 3, parts())
		require.Zero(t, e.BusyCores())
	})
}
