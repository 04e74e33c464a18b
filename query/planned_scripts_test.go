package query_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"varve/internal/testkit"
	"varve/query"
)

// rolledEngine shows an engine every storage as one with rollups. Queries that are refused because they
// could only be approximated are counted, and answered by upstream's engine.
type rolledEngine struct {
	*query.Engine
	policy      query.Resolution
	resolutions []int64
	rawGone     bool
	upstream    *promql.Engine
	every       int64 // how many queries there are for one of ours
	seen        atomic.Int64

	exact, raw, refused atomic.Int64
}

func (e *rolledEngine) archive(s storage.Queryable) *rolled {
	r := newRolled(&arrays{from: s}, e.resolutions...)
	if e.rawGone {
		r.rawSince = wide
	}
	return r
}

func (e *rolledEngine) NewInstantQuery(ctx context.Context, s storage.Queryable, opts promql.QueryOpts, text string, at time.Time) (promql.Query, error) {
	if e.seen.Add(1)%e.every != 0 {
		return e.upstream.NewInstantQuery(ctx, plain{s}, opts, text, at)
	}
	q, err := e.Engine.NewInstantQuery(ctx, e.archive(s), opts, text, at)
	if err != nil {
		return nil, err
	}
	again, err := e.upstream.NewInstantQuery(ctx, plain{s}, opts, text, at)
	return rolledQuery{q, e, again}, err
}

func (e *rolledEngine) NewRangeQuery(ctx context.Context, s storage.Queryable, opts promql.QueryOpts, text string, start, end time.Time, step time.Duration) (promql.Query, error) {
	if e.seen.Add(1)%e.every != 0 {
		return e.upstream.NewRangeQuery(ctx, plain{s}, opts, text, start, end, step)
	}
	q, err := e.Engine.NewRangeQuery(ctx, e.archive(s), opts, text, start, end, step)
	if err != nil {
		return nil, err
	}
	again, err := e.upstream.NewRangeQuery(ctx, plain{s}, opts, text, start, end, step)
	return rolledQuery{q, e, again}, err
}

type rolledQuery struct {
	promql.Query
	engine   *rolledEngine
	upstream promql.Query
}

func (q rolledQuery) Close() {
	q.Query.Close()
	q.upstream.Close()
}

func (q rolledQuery) Exec(ctx context.Context) *promql.Result {
	r := q.Query.Exec(query.WithResolution(ctx, q.engine.policy))
	switch {
	case errors.Is(r.Err, query.ErrInexact):
		q.engine.refused.Add(1)
		return q.upstream.Exec(ctx)
	case withoutRollups(r):
		q.engine.exact.Add(1)
	default:
		q.engine.raw.Add(1)
	}
	return r
}

// scriptsBut runs upstream's scripts but for those that it leaves out.
type scriptsBut struct {
	*testing.T
	out string
}

func (s scriptsBut) Run(name string, f func(*testing.T)) bool {
	if s.out != "" && strings.Contains(name, s.out) {
		return true
	}
	return s.T.Run(name, f)
}

// Upstream's acceptance scripts over a storage with rollups: automatically and strictly while all raw samples
// are kept, and strictly when none is: each query passes, or is refused.
func TestScriptsOverRollups(t *testing.T) {
	type variant struct {
		policy      query.Resolution
		resolutions []int64
		rawGone     bool
		// starts is upstream's feature of start timestamps, of which buckets know nothing.
		starts bool
	}
	for name, v := range map[string]variant{
		"auto":                 {query.Auto, []int64{minuteMillis, 5 * minuteMillis}, false, true},
		"strict without raw":   {query.Strict, []int64{minuteMillis, 5 * minuteMillis}, true, true},
		"rates, strict":        {query.Strict, []int64{minuteMillis, 5 * minuteMillis}, false, false},
		"rates, strict, 5m":    {query.Strict, []int64{5 * minuteMillis}, false, false},
		"rates, no raw, 1s":    {query.Strict, []int64{1000, 10_000}, true, false},
		"rates, auto, all raw": {query.Auto, []int64{5 * minuteMillis, hourMillis}, false, false},
	} {
		if !long() && name != "rates, no raw, 1s" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			o := testOptions(2, true)
			o.StartTimestamps = v.starts
			up := newUpstream(true, 1<<24)
			out := ""
			if !v.starts {
				up, out = plainUpstream(true), "start_timestamps"
			}
			e := &rolledEngine{Engine: newEngine(t, o), policy: v.policy, resolutions: v.resolutions, rawGone: v.rawGone, upstream: up, every: 1}
			if !long() {
				e.every = 5
			}
			promqltest.RunBuiltinTestsWithStorage(testkit.Scripts(scriptsBut{t, out}), e, func(t testing.TB) storage.Storage {
				if v.starts {
					return testkit.Upstream(t, testkit.StartTimestamps)
				}
				return testkit.Upstream(t)
			})
			t.Logf("%d answered from rollups exactly, %d from raw samples or nothing, %d refused", e.exact.Load(), e.raw.Load(), e.refused.Load())
			require.Positive(t, e.exact.Load())
			require.Equal(t, v.rawGone, e.refused.Load() > 0)
		})
	}
}
