package forward_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/forward"
)

// engine is an Evaluator that answers with the time in seconds, and Times in memory.
type engine struct {
	mu    sync.Mutex
	asked []time.Time
	saved map[string]time.Time
	fail  func(at time.Time) error
	save  error
}

func (e *engine) Query(_ context.Context, expr string, at time.Time) (promql.Vector, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asked = append(e.asked, at)
	if e.fail != nil {
		if err := e.fail(at); err != nil {
			return nil, err
		}
	}
	return promql.Vector{
		{Metric: labels.FromStrings("__name__", "a", "expr", expr), F: float64(at.Unix())},
		{Metric: labels.FromStrings("expr", expr, "h", "1"), H: floatHistogram(float64(at.Unix()))},
	}, nil
}

// times are the steps that were asked for.
func (e *engine) times() []time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.asked)
}

func (e *engine) SavedTime(output, query string) (time.Time, bool, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	t, ok := e.saved[output+"/"+query]
	return t, ok, e.save
}

func (e *engine) SaveTime(output, query string, t time.Time) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.save == nil {
		e.saved[output+"/"+query] = t
	}
	return e.save
}

func queryOutput(p *peer) forward.Output {
	o := output(p)
	o.QueriesOnly = true
	o.Queries = []forward.Query{{Name: "q", Expr: "up", Metric: "ups", Labels: labels.FromStrings("l", "v"), Interval: 15 * time.Second, Delay: 5 * time.Second}}
	o.ExternalLabels = labels.FromStrings("site", "s")
	return o
}

// TestQueries shows that a query is evaluated at each multiple of its interval, a delay later, that its results have their name and
// labels, and that after a stop, a kill and an outage every step is sent.
func TestQueries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, p := &engine{saved: map[string]time.Time{}}, newPeer()
		began := time.Now()
		require.Zero(t, began.Unix()%15)
		run := func(more func(r *rig)) {
			r := startWith(t, newFakeArchive(), forward.Options{DeadLetters: t.TempDir(), Evaluator: e, Times: e}, queryOutput(p))
			defer r.stop()
			more(r)
		}
		run(func(r *rig) {
			pass(19 * time.Second)
			require.Empty(t, e.times())
			pass(2 * time.Second)
			require.Equal(t, []time.Time{began.Add(15 * time.Second)}, e.times())
			require.Equal(t, 2, p.samples())
			s := r.status(t)
			require.Equal(t, began.Add(15*time.Second), *s.Queries[0].Settled)
			require.Equal(t, forward.StateRunning, s.State)
			pass(10 * time.Minute)
		})
		pass(10 * time.Minute)
		var moment time.Time
		e.fail = func(time.Time) error { // Called with the engine's lock held.
			if moment.IsZero() {
				moment = time.Now()
			}
			if time.Since(moment) < 5*time.Minute {
				return errors.New("too many samples")
			}
			return nil
		}
		run(func(r *rig) {
			pass(time.Minute)
			s := r.status(t)
			require.Equal(t, forward.StateFailed, s.State)
			require.Contains(t, s.Error, "too many samples")
			pass(10 * time.Minute)
			require.Equal(t, forward.StateRunning, r.status(t).State)
		})
		series := p.series[`{__name__="ups", expr="up", l="v", site="s"}`]
		steps := int((e.saved["out/q"].Sub(began)) / (15 * time.Second))
		require.Greater(t, steps, 120)
		require.Len(t, series, steps)
		for i, s := range series {
			at := began.Unix() + 15*int64(i+1)
			require.Equal(t, sample{1000 * at, float64(at)}, s)
		}
		require.Len(t, p.series[`{__name__="ups", expr="up", h="1", l="v", site="s"}`], steps)
		p.faultless(t)
	})
}

// TestQueryGivenUp shows that a step that fails for longer than the backlog may be old is given up and counted, and no other.
func TestQueryGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, p := &engine{saved: map[string]time.Time{}}, newPeer()
		poison := time.Now().Add(30 * time.Second)
		e.fail = func(at time.Time) error {
			if at.Equal(poison) {
				return errors.New("never")
			}
			return nil
		}
		registry := prometheus.NewRegistry()
		o := queryOutput(p)
		o.BacklogAge = 10 * time.Minute
		startWith(t, newFakeArchive(), forward.Options{DeadLetters: t.TempDir(), Evaluator: e, Times: e, Registerer: registry}, o)
		pass(30 * time.Minute)
		require.Len(t, p.series[`{__name__="ups", expr="up", l="v", site="s"}`], 30*4-2)
		require.Equal(t, 1.0, counted(t, registry, "varve_forward_query_steps_dropped_total"))
	})
}

// counted is the sum of a counter's series.
func counted(t testing.TB, r *prometheus.Registry, name string) (v float64) {
	t.Helper()
	n, err := testutil.GatherAndCount(r, name)
	require.NoError(t, err)
	require.NotZero(t, n)
	families, err := r.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				v += m.GetCounter().GetValue()
			}
		}
	}
	return v
}

// TestQueriesBesideStream shows that both go to the peer, and that a rewind takes queries back as well.
func TestQueriesBesideStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, p := &engine{saved: map[string]time.Time{}}, newPeer()
		began := time.Now()
		a := newFakeArchive()
		o := queryOutput(p)
		o.QueriesOnly = false
		r := startWith(t, a, forward.Options{DeadLetters: t.TempDir(), Evaluator: e, Times: e}, o)
		a.floats(1, a.named(5)...)
		pass(61 * time.Second)
		require.Equal(t, 5+2*3, p.samples())
		require.Equal(t, archive.Tally{Sent: 5}, a.tally("out"))
		n := len(e.times())
		require.NoError(t, r.Rewind("out", archive.Start{From: began.Add(30 * time.Second)}))
		pass(time.Second)
		require.Equal(t, []time.Time{began.Add(30 * time.Second), began.Add(45 * time.Second)}, e.times()[n:])
		p.faultless(t)
	})
}
