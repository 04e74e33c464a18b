package result_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"varve/benchmarks/result"
)

func entry(run, verb, peer, kind string) result.Entry {
	return result.Entry{
		Schema: result.Schema, Run: run, Date: "2026-01-02T03:04:05Z", Verb: verb, Command: "go run ./benchmarks " + verb, Commit: "abc",
		Machine: result.Machine{Cores: 2, CPU: "x", MemoryBytes: 8 << 30, FileSystem: "ext4", Go: "go1.26"},
		Peer:    result.Peer{Name: peer, Kind: kind, Version: "1.0", Sync: "always"},
		Dataset: result.Dataset{Seed: 1, Series: 1000, StepMillis: 15000, LabelsMean: 6, LabelBytesMean: 150},
	}
}

// Shows that lines come back as they were appended, also onto earlier ones.
func TestAppendLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "results.jsonl")
	a, b := entry("1", "memory", "varve", "varve"), entry("1", "memory", "prom", "prometheus")
	a.Memory = []result.Memory{{Series: 10, RSSBytes: 1 << 20}}
	require.NoError(t, result.Append(path, []result.Entry{a}))
	require.NoError(t, result.Append(path, []result.Entry{b}))
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, 2, strings.Count(string(text), "\n"))
	got, err := result.Load(strings.NewReader(string(text)))
	require.NoError(t, err)
	require.Equal(t, []result.Entry{a, b}, got)
}

// Shows that unknown fields and schemas are refused with their line.
func TestLoadRefuses(t *testing.T) {
	_, err := result.Load(strings.NewReader("{\"schema\":1}\n{\"schema\":1,\"colour\":3}\n"))
	require.ErrorContains(t, err, "line 2")
	_, err = result.Load(strings.NewReader("\n{\"schema\":99}\n"))
	require.ErrorContains(t, err, "schema 99")
}

// Shows that the committed results are readable and that the committed page is
// what they give.
func TestCommittedResults(t *testing.T) {
	file, err := os.Open(filepath.Join("..", "results.jsonl"))
	if os.IsNotExist(err) {
		t.Skip("no results are committed yet")
	}
	require.NoError(t, err)
	defer file.Close()
	entries, err := result.Load(file)
	require.NoError(t, err)
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "benchmarks.md"))
	require.NoError(t, err)
	require.Equal(t, string(page), result.Page(entries), "run: go run ./benchmarks render")
	charts, err := result.Charts(entries)
	require.NoError(t, err)
	for name, want := range charts {
		got, err := os.ReadFile(filepath.Join("..", "..", "docs", result.ChartFolder, name))
		require.NoError(t, err)
		require.Equal(t, string(got), string(want), "run: go run ./benchmarks render")
	}
}

// Shows medians, ratios and the choice of the newest run in the ingestion table.
func TestPageIngest(t *testing.T) {
	old := entry("1", "ingest", "varve", "varve")
	old.Ingest = []result.Ingest{{Protocol: 1, Batch: 500, Connections: 4, Repetition: 1, SamplesPerSecond: 9e6}}
	a, b := entry("2", "ingest", "varve", "varve"), entry("2", "ingest", "prom", "prometheus")
	for rep, rate := range []float64{2e6, 4e6} {
		a.Ingest = append(a.Ingest, result.Ingest{Protocol: 1, Batch: 500, Connections: 4, Repetition: rep + 1, SamplesPerSecond: rate, CPU: 0.25})
		b.Ingest = append(b.Ingest, result.Ingest{Protocol: 1, Batch: 500, Connections: 4, Repetition: rep + 1, SamplesPerSecond: rate / 4, CPU: 2.5})
	}
	page := result.Page([]result.Entry{old, a, b})
	require.Contains(t, page, "| 500 x 4, 1.0 | varve | 3.00 | 1.00 | 0.250 |")
	require.Contains(t, page, "| 500 x 4, 1.0 | prom | 0.75 | 4.00 | 2.50 |")
	require.NotContains(t, page, "9.00")
	require.Contains(t, page, "do not show")
}

// Shows the geometric mean of the times and the count of identical answers, with
// a query that failed left out of the mean.
func TestPageQuery(t *testing.T) {
	a, b := entry("2", "query", "varve", "varve"), entry("2", "query", "prom", "prometheus")
	points := func(identical bool, warm ...float64) *result.Query {
		q := &result.Query{Samples: 5, Reference: "prom"}
		for _, w := range warm {
			q.Queries = append(q.Queries, result.QueryPoint{Query: "a|b", ColdSeconds: []float64{1}, WarmSeconds: []float64{w}, WarmCPU: []float64{w}, Identical: identical})
		}
		return q
	}
	a.Query, b.Query = points(true, 0.1, 0.4, 7), points(true, 0.2, 0.2, 1)
	a.Query.Queries[2].Error, a.Query.Queries[2].Identical = "too many samples", false
	page := result.Page([]result.Entry{a, b})
	require.Contains(t, page, "| varve | prom | 1.00 | 1.00 | 1.00 | 2 of 3 | 2 |")
	require.Contains(t, page, "| `a\\|b` | 0m / 0s | 0 | 100 (1000) = | 100 | 200 (1000) = | 200 |")
	require.Contains(t, page, "| error | - | 1000 (1000) = | 1000 |")
}

// Shows that memory is judged without the caches, and restarts with what was lost.
func TestPageOthers(t *testing.T) {
	m, r := entry("1", "memory", "varve", "varve"), entry("1", "restart", "vm", "victoriametrics")
	m.Memory = []result.Memory{{Series: 100_000, Rounds: 5, RSSBytes: 300 << 20, CacheBytes: 50 << 20, CacheBytesMax: 512 << 20}}
	r.Restart = []result.Restart{{Series: 1000, SamplesPerSecond: 100_000, WriteSeconds: 0.5, QuerySeconds: -1, UsualCPU: 2, FirstCPU: 3, Acknowledged: 50, Found: 40}}
	page := result.Page([]result.Entry{m, r})
	require.Contains(t, page, "| 50 of 512 | 250 | 198 |")
	require.Contains(t, page, "| 0.500 | never | 2.00 | 3.00 | 1.50 | 50 | 10 |")
}

// Shows a fleet's bytes with and without fixed files, what came back changed, what is
// repeated, and that every picture of the page is drawn.
func TestPageFleet(t *testing.T) {
	a, b := entry("2", "fleet", "varve", "varve"), entry("2", "fleet", "vm", "victoriametrics")
	replay := result.Replay{Scrapes: 5760, Positions: 5760, Targets: 3, Series: 1000, Samples: 1 << 20, Stale: 4, SpanSeconds: 86400, Groups: []result.ReplayGroup{{Name: "node", Targets: 3, Series: 500}}}
	a.Fleet = &result.Fleet{
		Replay: replay, SamplesPerSecond: 3e6, Remark: "not sealed", AnsweredSeconds: -1,
		Disk:   result.Disk{Bytes: 65 << 20, FixedBytes: 64 << 20, IndexBytes: 50_000, Families: map[string]int64{"raw": 7, "index": 3}},
		Exact:  &result.Exact{Sent: 100, Exact: 100},
		Labels: []result.LabelPoint{{Path: "labels", Count: 3, ColdSeconds: []float64{0.02}, WarmSeconds: []float64{0.01}, Identical: true}},
	}
	b.Fleet = &result.Fleet{Replay: replay, Disk: result.Disk{Bytes: 3 << 20}, Exact: &result.Exact{Sent: 100, Exact: 88, Changed: 10, ChangedNaN: 1, Missing: 2, MissingNaN: 2, Difference: "0.1 instead of 0.2"}}
	a.Query = &result.Query{Reference: "varve", Queries: []result.QueryPoint{{Name: "rates", Query: "q", WarmSeconds: []float64{0.5}}}}
	b.Query = &result.Query{Reference: "varve", Queries: []result.QueryPoint{{Name: "rates", Query: "q", Error: "no"}}}
	entries := []result.Entry{a, b}
	page := result.Page(entries)
	require.Contains(t, page, "3 of node (500 series each)")
	require.Contains(t, page, "No target repeats")
	require.Contains(t, page, "| varve | 65 | 64 | 0 | 65.0 | 1.00 | 1.00 | 50.0 |")
	require.Contains(t, page, "| vm | 3 | 0 | 0 | 3.00 | 3.00 | 3.00 | 0 |")
	require.Contains(t, page, "| vm | 100 | 10 | 10.0000 % | 1 | 2 | 2 | 0 | 0.1 instead of 0.2 |")
	require.Contains(t, page, "Families of varve, bytes: index 3, raw 7.")
	require.Contains(t, page, "| `labels` | 3 | 10.0 (20.0) = | error |")
	require.Contains(t, page, "| varve | 0 | never |")
	require.Contains(t, page, "not sealed")
	charts, err := result.Charts(entries)
	require.NoError(t, err)
	require.Len(t, charts, strings.Count(page, "]("+result.ChartFolder+"/"))
	for name := range charts {
		require.Contains(t, page, result.ChartFolder+"/"+name)
	}
	a.Fleet.Replay.Repeated, a.Fleet.Disk.Logged = 0.25, true
	require.Contains(t, result.Page([]result.Entry{a}), "| not sealed; **not settled")
	require.Contains(t, result.Page([]result.Entry{a}), "25 % of the steps repeat")
}

// Shows the bytes of several fleets by sample, and of their index by series, fleet
// after fleet, with what each repeats.
func TestPageDeposits(t *testing.T) {
	e := entry("2", "churn", "varve", "varve")
	for _, name := range []string{"short, 24 h", "short, 2 h"} {
		e.Churn = append(e.Churn, result.Deposit{Name: name, LabelBytes: 90, LifeS: 7200, Replay: result.Replay{Targets: 9, Series: 1000, Samples: 100_000, SpanSeconds: 86400},
			Disk: result.Disk{Bytes: 120_000 + 1<<20, FixedBytes: 20_000 + 1<<20, IndexBytes: 60_000}})
	}
	e.Churn[1].Replay.Repeated = 0.5
	x := entry("3", "exporters", "varve", "varve")
	x.Exporters = e.Churn[:1]
	entries := []result.Entry{e, x}
	page := result.Page(entries)
	require.Equal(t, 2, strings.Count(page, "| short, 24 h | varve | 90.0 | 1000 | 100000 | 1.00 | 1 | 60.0 | 0.600 |"))
	require.Contains(t, page, "| short, 2 h | varve |")
	require.Contains(t, page, "- short, 24 h: 9 targets over 24.0 h, living for 2.0 h\n")
	require.Contains(t, page, "50 % of the steps repeat")
	charts, err := result.Charts(entries)
	require.NoError(t, err)
	require.Len(t, charts, 2)
}
