package query_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"varve/query"
)

// tracker is a promql.QueryTracker that remembers what it was told.
type tracker struct {
	mu     sync.Mutex // guards the rest
	open   int
	seen   []string
	closed bool
}

func (*tracker) GetMaxConcurrent() int { return 2 }
func (tr *tracker) Close() error       { tr.closed = true; return nil }
func (tr *tracker) Insert(_ context.Context, text string) (int, error) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.open++
	tr.seen = append(tr.seen, text)
	return len(tr.seen) - 1, nil
}

func (tr *tracker) Delete(int) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.open--
}

// logger is a promql.QueryLogger into a buffer.
type logger struct {
	slog.Handler
	io.Closer
}

type closeFunc func() error

func (f closeFunc) Close() error { return f() }

// The tracker, the query log and the metrics see a split query once, with the
// statistics of all its parts.
func TestOncePerQuery(t *testing.T) {
	tr, reg := &tracker{}, prometheus.NewRegistry()
	o := query.Options{Parts: 3, Tracker: tr, Registerer: reg, PerStepStats: true}
	o.ForceSplit()
	e, err := query.NewEngine(o)
	require.NoError(t, err)
	var lines bytes.Buffer
	closed := 0
	log := logger{slog.NewJSONHandler(&lines, nil), closeFunc(func() error { closed++; return nil })}
	e.SetQueryLogger(log)

	q := newRange(t, e, hour(), "sum(rate(a[2m]))")
	require.NoError(t, q.Exec(t.Context()).Err)
	parts, _, _ := query.Split(q)
	require.Equal(t, 3, parts)
	failing := newRange(t, e, hour(), `label_replace(a, "x", "y", "z", "(")`)
	require.Error(t, failing.Exec(t.Context()).Err)

	require.Equal(t, []string{"sum(rate(a[2m]))", `label_replace(a, "x", "y", "z", "(")`}, tr.seen)
	require.Zero(t, tr.open)
	logged := strings.Split(strings.TrimSpace(lines.String()), "\n")
	require.Len(t, logged, 2)
	var line struct {
		Params struct {
			Query, Start, End string
			Step              int
		}
		Stats struct {
			Samples struct{ TotalQueryableSamples int64 }
		}
	}
	require.NoError(t, json.Unmarshal([]byte(logged[0]), &line))
	require.Equal(t, "sum(rate(a[2m]))", line.Params.Query)
	require.Equal(t, "1970-01-01T01:00:00.000Z", line.Params.End)
	require.Equal(t, 60, line.Params.Step)
	require.Equal(t, q.Stats().Samples.TotalSamples, line.Stats.Samples.TotalQueryableSamples)
	require.Contains(t, logged[1], "invalid regular expression")

	total := q.Stats().Samples.TotalSamples + failing.Stats().Samples.TotalSamples
	require.NoError(t, testutil.GatherAndCompare(reg, strings.NewReader(fmt.Sprintf(countedOnce, total)), countedNames...))

	e.SetQueryLogger(nil)
	require.Equal(t, 1, closed)
	require.NoError(t, e.Close())
	require.True(t, tr.closed)
	_, err = query.NewEngine(query.Options{Registerer: reg})
	require.ErrorContains(t, err, "register query metrics")
}

// countedOnce is what the metrics hold after one split and one failed query.
const countedOnce = `
# HELP prometheus_engine_queries The current number of queries being executed or waiting.
# TYPE prometheus_engine_queries gauge
prometheus_engine_queries 0
# HELP prometheus_engine_queries_concurrent_max The max number of concurrent queries.
# TYPE prometheus_engine_queries_concurrent_max gauge
prometheus_engine_queries_concurrent_max 2
# HELP prometheus_engine_query_log_enabled State of the query log.
# TYPE prometheus_engine_query_log_enabled gauge
prometheus_engine_query_log_enabled 1
# HELP prometheus_engine_query_samples_total The total number of samples loaded by all queries (full window per step for range-vector).
# TYPE prometheus_engine_query_samples_total counter
prometheus_engine_query_samples_total %d
# HELP varve_query_failed_total Queries that ended with an error, by the HTTP status of its class.
# TYPE varve_query_failed_total counter
varve_query_failed_total{status="422"} 1
# HELP varve_query_parts_total Parts of the queries evaluated in several parts.
# TYPE varve_query_parts_total counter
varve_query_parts_total 3
# HELP varve_query_reruns_total Split queries evaluated again in one piece, by reason.
# TYPE varve_query_reruns_total counter
varve_query_reruns_total{reason="error"} 1
# HELP varve_query_split_total Queries evaluated in several parts at once.
# TYPE varve_query_split_total counter
varve_query_split_total 1
`

var countedNames = []string{
	"prometheus_engine_queries", "prometheus_engine_queries_concurrent_max", "prometheus_engine_query_log_enabled",
	"prometheus_engine_query_samples_total", "varve_query_failed_total", "varve_query_parts_total", "varve_query_reruns_total", "varve_query_split_total",
}

// Options out of range are refused with the name of the field.
func TestOptions(t *testing.T) {
	_, err := query.NewEngine(query.Options{Limits: query.Limits{SamplesMax: -1}})
	require.ErrorContains(t, err, "samples")
	_, err = query.NewEngine(query.Options{Parts: -1})
	require.ErrorContains(t, err, "parts")
	require.Equal(t, http.StatusOK, query.Status(nil))
}
