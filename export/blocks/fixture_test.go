package blocks

import (
	"context"
	"math"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"

	"varve/export"
	"varve/internal/testkit"
)

// TestMain looks for goroutines and objects of RocksDB that a test left behind.
func TestMain(m *testing.M) { testkit.Main(m) }

const (
	minute = int64(60_000)
	hour   = 60 * minute
	day    = 24 * hour
	// start is a midnight.
	start = int64(1_700_006_400_000)
)

var all = [][]*labels.Matcher{{labels.MustNewMatcher(labels.MatchRegexp, model.MetricNameLabel, ".*")}}

// fill writes two and a half days of some series: plain ones, one that ends, one of odd floats, histograms of all kinds.
func fill(t testing.TB, s storage.AppendableV2) {
	t.Helper()
	app := s.AppenderV2(context.Background())
	n := 0
	add := func(ls labels.Labels, at int64, v float64, h *histogram.Histogram, fh *histogram.FloatHistogram) {
		_, err := app.Append(0, ls, 0, at, v, h, fh, storage.AOptions{})
		require.NoError(t, err)
		if n++; n%5000 == 0 {
			require.NoError(t, app.Commit())
			app = s.AppenderV2(context.Background())
		}
	}
	name := func(pairs ...string) labels.Labels { return labels.FromStrings(pairs...) }
	for at, i := start, int64(0); at < start+60*hour; at, i = at+minute, i+1 {
		for _, instance := range []string{"a", "b", "c"} {
			add(name("__name__", "requests_total", "instance", instance, "job", "api"), at+3, float64(i*7%5000), nil, nil)
		}
		add(name("__name__", "temperature", "Room", "1"), at, math.Sin(float64(i)/100)*20.1, nil, nil)
		if i < 100 {
			add(name("__name__", "short", "weird", "a\"b\\c\nd,e|f"), at, float64(i), nil, nil)
		}
		if i%60 == 0 {
			odd := []float64{math.Inf(1), math.Inf(-1), math.Copysign(0, -1), math.NaN(), math.Float64frombits(0x7ff8_0000_dead_beef), math.MaxFloat64, 5e-324}
			add(name("__name__", "odd"), at, odd[int(i/60)%len(odd)], nil, nil)
			h := tsdbutil.GenerateTestHistogram(i / 60)
			add(name("__name__", "durations"), at, 0, h, nil)
			add(name("__name__", "sizes"), at, 0, nil, tsdbutil.GenerateTestGaugeFloatHistogram(i))
			add(name("__name__", "custom"), at, 0, tsdbutil.GenerateTestCustomBucketsHistogram(i/60), nil)
		}
	}
	add(name("__name__", "short", "weird", "a\"b\\c\nd,e|f"), start+100*minute, math.Float64frombits(value.StaleNaN), nil, nil)
	add(name("__name__", "durations"), start+61*hour, 0, &histogram.Histogram{Sum: math.Float64frombits(value.StaleNaN)}, nil)
	require.NoError(t, app.Commit())
}

// sample is one of any kind.
type sample struct {
	t  int64
	f  uint64
	h  *histogram.Histogram
	fh *histogram.FloatHistogram
}

// read returns all samples by labels. Histograms lose what chunks needn't keep: layout and hints.
func read(t testing.TB, q storage.Queryable, mint, maxt int64, ms ...*labels.Matcher) map[string][]sample {
	t.Helper()
	querier, err := q.Querier(mint, maxt)
	require.NoError(t, err)
	defer func() { require.NoError(t, querier.Close()) }()
	if len(ms) == 0 {
		ms = all[0]
	}
	out := map[string][]sample{}
	found := querier.Select(context.Background(), true, nil, ms...)
	for found.Next() {
		var got []sample
		it := found.At().Iterator(nil)
		for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
			switch kind {
			case chunkenc.ValFloat:
				at, v := it.At()
				got = append(got, sample{t: at, f: math.Float64bits(v)})
			case chunkenc.ValHistogram:
				at, h := it.AtHistogram(nil)
				h = h.Copy().Compact(0)
				h.CounterResetHint = 0
				got = append(got, sample{t: at, h: plainNaN(h)})
			case chunkenc.ValFloatHistogram:
				at, h := it.AtFloatHistogram(nil)
				h = h.Copy().Compact(0)
				h.CounterResetHint = 0
				got = append(got, sample{t: at, fh: h})
			}
		}
		require.NoError(t, it.Err())
		if len(got) > 0 {
			out[found.At().Labels().String()] = got
		}
	}
	require.NoError(t, found.Err())
	return out
}

// plainNaN makes a stale marker comparable.
func plainNaN(h *histogram.Histogram) *histogram.Histogram {
	if value.IsStaleNaN(h.Sum) {
		return &histogram.Histogram{Sum: -1, Schema: -99}
	}
	return h
}

// filled returns an archive with what fill writes, and what exports of it need.
func filled(t testing.TB) *testkit.Storage {
	s := testkit.NewStorage(t, testkit.Sealed)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	fill(t, s)
	return s
}

func source(q storage.Queryable) *export.Source { return &export.Source{Queryable: q} }
