package archive_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/archive/format"
	"varve/arrival"
	"varve/internal/testkit"
)

// setting is one way to run an archive that no answer may depend on.
type setting struct {
	name string
	o    func(*archive.Options)
	// opened is called with the archive after every opening, between after every
	// operation; it may return another archive that took the place of the one it got.
	opened  func(*archive.Archive)
	between func(m *metamorph, i int)
}

var settings = []setting{
	{name: "as it comes"},
	{name: "tiny memtables", o: func(o *archive.Options) { o.MemtableBytes = 64 << 10 }, between: func(m *metamorph, i int) {
		require.NoError(m.t, m.a.Maintain(true))
	}},
	{name: "sealed at once", between: func(m *metamorph, i int) { testkit.SealAll(m.t, m.a) }},
	{
		name: "sealed at once, small", o: func(o *archive.Options) { o.MemtableBytes = 64 << 10 },
		opened: (*archive.Archive).SmallSeals, between: func(m *metamorph, i int) { testkit.SealAll(m.t, m.a) },
	},
	{name: "sealed now and then", opened: (*archive.Archive).SmallSeals, between: func(m *metamorph, i int) {
		if i%5 == 4 {
			testkit.SealAll(m.t, m.a)
		}
	}},
	{name: "restarted", between: func(m *metamorph, i int) {
		if i%3 == 2 {
			m.restart()
		}
	}},
	{name: "killed and sealed", opened: (*archive.Archive).SmallSeals, between: func(m *metamorph, i int) {
		if i%7 == 6 {
			b, to := crash(m.t, m.dir, m.o)
			require.NoError(m.t, m.a.Close())
			m.a, m.dir = b, to
			m.a.SmallSeals()
		}
		if i%4 == 1 {
			testkit.SealAll(m.t, m.a)
		}
	}},
}

// metamorph is an archive under a setting.
type metamorph struct {
	t   testing.TB
	s   setting
	o   archive.Options
	dir string
	a   *archive.Archive
}

func (m *metamorph) open() {
	a, err := archive.Open(m.dir, m.o)
	require.NoError(m.t, err)
	<-a.Started()
	require.NoError(m.t, a.StartError())
	if m.s.opened != nil {
		m.s.opened(a)
	}
	m.a = a
}

func (m *metamorph) restart() {
	require.NoError(m.t, m.a.Close())
	testkit.Check(m.t, m.dir)
	m.open()
}

// operation is a write or a question.
type operation func(t testing.TB, a *archive.Archive) (answer string)

// TestMetamorphic runs one list of writes and questions under many settings. The
// answers are the same under all. METAMORPHIC_SEED repeats a list.
func TestMetamorphic(t *testing.T) {
	for _, seed := range seeds(t, "METAMORPHIC_SEED", draws(2, 4)) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			operations := operationsOf(seed, 40)
			var want []string
			for _, s := range settings {
				m := &metamorph{t: t, s: s, o: options(), dir: testkit.MemoryDir(t)}
				if s.o != nil {
					s.o(&m.o)
				}
				m.open()
				for i, op := range operations {
					answer := op(t, m.a)
					if len(want) <= i {
						want = append(want, answer)
					}
					requireSame(t, want[i], answer, fmt.Sprintf("METAMORPHIC_SEED=%d, operation %d, %q beside %q", seed, i, s.name, settings[0].name))
					if s.between != nil {
						s.between(m, i)
					}
				}
				require.NoError(t, m.a.Close())
				testkit.Check(t, m.dir)
			}
		})
	}
}

// operationsOf draws operations: more than half are writes.
func operationsOf(seed uint64, n int) []operation {
	r := rand.New(rand.NewPCG(seed, 0x6d657461))
	at := day0 + 86400_000 - 3_600_000
	var out []operation
	for range n {
		switch k := r.IntN(24); {
		case k < 14:
			out = append(out, drawWrite(r, &at))
		case k < 17:
			out = append(out, drawDelete(r, at))
		default:
			out = append(out, drawQuestion(r, at))
		}
	}
	return append(out, ask(math.MinInt64, math.MaxInt64))
}

// drawWrite draws a batch: samples in order, late ones, the same again with the same or
// another value, odd values, and histograms of all sorts.
func drawWrite(r *rand.Rand, at *int64) operation {
	var points []point
	type shot struct {
		series, kind int
		t            int64
		i            int64
	}
	var shots []shot
	for range 1 + r.IntN(120) {
		p := point{series: r.IntN(30), t: *at, v: float64(r.IntN(1000)) / 8}
		switch r.IntN(10) {
		case 0:
			p.t -= r.Int64N(60_000)
		case 1:
			p.t -= r.Int64N(20 * 86400_000)
		case 2:
			p.t -= p.t % 900_000 // often the same
		case 3:
			p.v = oddValues[r.IntN(len(oddValues))]
		}
		if p.series >= 24 {
			shots = append(shots, shot{series: p.series, kind: r.IntN(4), t: p.t, i: r.Int64N(50)})
		} else {
			points = append(points, p)
		}
		*at += r.Int64N(20_000)
	}
	return func(t testing.TB, a *archive.Archive) string {
		write(t, a, points)
		for _, s := range shots {
			h := arrival.Histogram{TimeMillis: s.t}
			switch s.kind {
			case 0:
				h.Int = tsdbutil.GenerateTestHistogram(s.i)
			case 1:
				h.Float = tsdbutil.GenerateTestFloatHistogram(s.i)
			case 2:
				h.Int = tsdbutil.GenerateTestCustomBucketsHistogram(s.i)
			case 3:
				h.Int = tsdbutil.GenerateTestGaugeHistogram(s.i)
			}
			b := &arrival.Batch{Rows: []arrival.Row{{Ref: resolve(t, a, seriesLabels(s.series))}}, Histograms: []arrival.Histogram{h}}
			res, err := a.Write(context.Background(), b)
			require.NoError(t, err)
			require.Equal(t, 1, res.Histograms)
		}
		return ""
	}
}

// drawDelete draws a delete, or an end of one.
func drawDelete(r *rand.Rand, at int64) operation {
	selector, _ := drawSelector(r)
	mint, maxt := drawSpan(r, at-20*86400_000, at)
	kind, which := r.IntN(6), r.IntN(100)
	return func(t testing.TB, a *archive.Archive) string {
		live := a.LiveDeletes()
		switch {
		case kind > 1 || len(live) == 0:
			deleteSeries(t, a, selector, mint, maxt)
		case kind == 0:
			_, err := a.Undelete(live[which%len(live)].ID)
			require.NoError(t, err)
		default:
			_, err := a.Clean(context.Background(), []format.TombstoneID{live[which%len(live)].ID}, nil)
			require.NoError(t, err)
		}
		return fmt.Sprint(len(a.LiveDeletes()))
	}
}

// drawQuestion draws a range to read, or a query of the engine.
func drawQuestion(r *rand.Rand, at int64) operation {
	mint := at - r.Int64N(25*86400_000)
	maxt := mint + r.Int64N(5*86400_000)
	queries := []string{
		`rate({__name__=~"metric_.+"}[1h])`, `{__name__=~"metric_[03]"}`, `increase({i="25"}[6h])`,
		`histogram_quantile(0.9, {i=~"2[4-9]"})`, `max_over_time({job="job1"}[2h])`, `count({__name__=~".+"}) by (job)`,
	}
	query := queries[r.IntN(len(queries))]
	switch r.IntN(4) {
	case 0, 1:
		return ask(mint, maxt)
	case 2:
		return askChunks(mint, maxt)
	}
	return func(t testing.TB, a *archive.Archive) string {
		engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 1e7, Timeout: time.Hour, LookbackDelta: 5 * time.Minute})
		defer func() { require.NoError(t, engine.Close()) }()
		q, err := engine.NewRangeQuery(context.Background(), a, nil, query, time.UnixMilli(mint), time.UnixMilli(maxt), 17*time.Minute)
		require.NoError(t, err)
		defer q.Close()
		return query + "\n" + q.Exec(context.Background()).String()
	}
}

// ask reads everything between two times. Counter reset hints are left out: a sealed
// chunk knows them where a run that was cut apart does not, and neither lies.
func ask(mint, maxt int64) operation {
	return func(t testing.TB, a *archive.Archive) string {
		q, err := a.Querier(mint, maxt)
		require.NoError(t, err)
		defer func() { require.NoError(t, q.Close()) }()
		set := q.Select(context.Background(), true, nil, labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".+"))
		var lines []string
		for set.Next() {
			if line := samplesOf(t, set.At().Iterator(nil)); line != "" {
				lines = append(lines, set.At().Labels().String()+line)
			}
		}
		require.NoError(t, set.Err())
		sort.Strings(lines)
		return strings.Join(lines, "\n")
	}
}

// askChunks reads like remote read does: as chunks, coded anew.
func askChunks(mint, maxt int64) operation {
	return func(t testing.TB, a *archive.Archive) string {
		q, err := a.ChunkQuerier(mint, maxt)
		require.NoError(t, err)
		defer func() { require.NoError(t, q.Close()) }()
		set := q.Select(context.Background(), true, nil, labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".+"))
		var lines []string
		for set.Next() {
			line := ""
			chunks := set.At().Iterator(nil)
			for chunks.Next() {
				line += samplesOf(t, chunks.At().Chunk.Iterator(nil))
			}
			require.NoError(t, chunks.Err())
			if line != "" {
				lines = append(lines, set.At().Labels().String()+line)
			}
		}
		require.NoError(t, set.Err())
		sort.Strings(lines)
		return strings.Join(lines, "\n")
	}
}

func samplesOf(t testing.TB, it chunkenc.Iterator) string {
	var b strings.Builder
	for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
		switch kind {
		case chunkenc.ValFloat:
			ts, v := it.At()
			fmt.Fprintf(&b, " %d=%x", ts, math.Float64bits(v))
		case chunkenc.ValHistogram:
			ts, h := it.AtHistogram(nil)
			gauge := h.CounterResetHint == histogram.GaugeType
			fmt.Fprintf(&b, " %d=%v gauge=%t schema=%d custom=%v spans=%v%v sum=%x", ts, h, gauge, h.Schema, h.CustomValues, h.PositiveSpans, h.NegativeSpans, math.Float64bits(h.Sum))
		case chunkenc.ValFloatHistogram:
			ts, h := it.AtFloatHistogram(nil)
			fmt.Fprintf(&b, " %d=%v gauge=%t schema=%d custom=%v spans=%v%v sum=%x", ts, h, h.CounterResetHint == histogram.GaugeType, h.Schema, h.CustomValues, h.PositiveSpans, h.NegativeSpans, math.Float64bits(h.Sum))
		}
	}
	require.NoError(t, it.Err())
	return b.String()
}
