package text

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"io"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/model/textparse"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"

	"varve/export"
	"varve/internal/testkit"
)

// TestMain looks for goroutines and objects of RocksDB that a test left behind.
func TestMain(m *testing.M) { testkit.Main(m) }

const (
	minute = int64(60_000)
	start  = int64(1_700_006_400_000)
)

var (
	all = [][]*labels.Matcher{{labels.MustNewMatcher(labels.MatchRegexp, model.MetricNameLabel, ".*")}}
	odd = []float64{math.Inf(1), math.Inf(-1), math.Copysign(0, -1), math.NaN(), math.Float64frombits(0x7ff8_0000_dead_beef), math.MaxFloat64, 5e-324, 0.1}
)

// fill writes series with all that is hard to write: names, values of labels, floats, times, histograms, stale markers.
func fill(t testing.TB) *testkit.Storage {
	s := testkit.NewStorage(t, testkit.Runs)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	app := s.AppenderV2(context.Background())
	add := func(at int64, v float64, h *histogram.Histogram, pairs ...string) {
		_, err := app.Append(0, labels.FromStrings(pairs...), 0, at, v, h, nil, storage.AOptions{})
		require.NoError(t, err)
	}
	for i := range int64(300) {
		at := start + i*minute + i*i%1000
		add(at, float64(i)/3, nil, "__name__", "requests_total", "instance", "a,b", "job", "x")
		add(at, float64(i), nil, "__name__", "requests_total", "instance", "line\nfeed \"quoted\" back\\slash", "job", "é")
		add(at, odd[int(i)%len(odd)], nil, "__name__", "odd", "Upper", "1")
		add(at, float64(i), nil, "__name__", "latency_seconds_bucket", "le", "0.5")
		add(at, float64(i), nil, "__name__", "latency_seconds_count")
		if i%50 == 0 {
			add(at, 0, tsdbutil.GenerateTestHistogram(i), "__name__", "durations")
			add(at+1, float64(i), nil, "__name__", "my.metric", "a.b", "c")
		}
	}
	add(start+400*minute, math.Float64frombits(value.StaleNaN), nil, "__name__", "odd", "Upper", "1")
	add(start+400*minute, 0, &histogram.Histogram{Sum: math.Float64frombits(value.StaleNaN)}, "__name__", "durations")
	require.NoError(t, app.Commit())
	return s
}

func options(t testing.TB, q storage.Queryable, f Format) Options {
	return Options{
		Source: &export.Source{Queryable: q}, Request: export.Request{Selectors: all, MinMillis: start, MaxMillis: start + 500*minute},
		Format: f, Scratch: t.TempDir(), Metadata: func(family string) (metadata.Metadata, bool) {
			m, ok := map[string]metadata.Metadata{
				"requests_total":  {Type: model.MetricTypeCounter, Help: "Requests\nof \"all\" kinds."},
				"latency_seconds": {Type: model.MetricTypeHistogram, Unit: "seconds", Help: "How long."},
				"odd":             {Type: model.MetricTypeCounter}, // which OpenMetrics has no name for
			}[family]
			return m, ok
		},
	}
}

// point is a sample, NaN being the usual one.
type point struct {
	t int64
	f uint64
}

// floats returns the floats of the archive that text can have.
func floats(t testing.TB, q storage.Queryable) map[string][]point {
	querier, err := q.Querier(start, start+500*minute)
	require.NoError(t, err)
	defer func() { require.NoError(t, querier.Close()) }()
	out := map[string][]point{}
	found := querier.Select(t.Context(), true, nil, all[0]...)
	for found.Next() {
		it := found.At().Iterator(nil)
		for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
			if kind != chunkenc.ValFloat {
				continue
			}
			if at, v := it.At(); !value.IsStaleNaN(v) {
				name := found.At().Labels().String()
				out[name] = append(out[name], point{at, usual(v)})
			}
		}
		require.NoError(t, it.Err())
	}
	require.NoError(t, found.Err())
	return out
}

func usual(v float64) uint64 {
	if math.IsNaN(v) {
		return value.NormalNaN
	}
	return math.Float64bits(v)
}

// write exports with the budgets of reading that matter: all in one, and as little as possible at a time.
func write(t *testing.T, o Options, f func(t *testing.T, out string, s Stats)) {
	var first string
	for name, walker := range map[string]export.Walker{"whole": {}, "small": {SamplesBudget: 100, SliceSeriesMax: 2}} {
		t.Run(name, func(t *testing.T) {
			o.Walker = walker
			var out bytes.Buffer
			stats, err := Write(t.Context(), &out, o)
			require.NoError(t, err)
			require.Equal(t, int64(out.Len()), stats.Bytes)
			if first != "" && o.Format != JSONLines {
				require.Equal(t, first, out.String())
			}
			first = out.String()
			f(t, out.String(), stats)
		})
	}
}

// TestOpenMetrics shows that Prometheus' parser reads from the text what the archive has, with types, help and units; and that what is left
// out is counted.
func TestOpenMetrics(t *testing.T) {
	s := fill(t)
	write(t, options(t, s, OpenMetrics), func(t *testing.T, out string, stats Stats) {
		require.True(t, strings.HasSuffix(out, "\n# EOF\n"))
		require.Contains(t, out, "# TYPE requests counter\n# HELP requests Requests\\nof \\\"all\\\" kinds.\n")
		require.Contains(t, out, "# TYPE latency_seconds histogram\n# UNIT latency_seconds seconds\n")
		require.Contains(t, out, "# TYPE odd unknown\n")
		require.Equal(t, 1, strings.Count(out, "# TYPE latency_seconds "))
		got := map[string][]point{}
		p := textparse.NewOpenMetricsParser([]byte(out), labels.NewSymbolTable())
		for {
			entry, err := p.Next()
			if err == io.EOF {
				break
			}
			require.NoError(t, err)
			if entry != textparse.EntrySeries {
				continue
			}
			var ls labels.Labels
			p.Labels(&ls)
			_, at, v := p.Series()
			got[ls.String()] = append(got[ls.String()], point{*at, usual(v)})
		}
		require.Equal(t, floats(t, s), got)
		require.Equal(t, Stats{Series: 6, Samples: 5*300 + 6, Bytes: stats.Bytes, StaleMarkers: 1, Histograms: 7, NaNs: stats.NaNs}, stats)
		require.Positive(t, stats.NaNs)
	})
}

// TestCSV shows that a reader of CSV finds what the archive has in the long form, with each form of times.
func TestCSV(t *testing.T) {
	s := fill(t)
	for _, times := range []TimeFormat{RFC3339, UnixSeconds, UnixMillis} {
		o := options(t, s, CSV)
		o.Times = times
		write(t, o, func(t *testing.T, out string, stats Stats) {
			records, err := csv.NewReader(strings.NewReader(out)).ReadAll()
			require.NoError(t, err)
			require.Equal(t, []string{"time", "metric", "Upper", "a.b", "instance", "job", "le", "value"}, records[0])
			got := map[string][]point{}
			for _, r := range records[1:] {
				b := labels.NewBuilder(labels.FromStrings("__name__", r[1]))
				for i, name := range records[0][2:7] {
					if r[i+2] != "" {
						b.Set(name, r[i+2])
					}
				}
				name := b.Labels().String()
				got[name] = append(got[name], point{parseTime(t, times, r[0]), parseFloat(t, r[7])})
			}
			require.Equal(t, floats(t, s), got)
			require.Equal(t, uint64(7), stats.Histograms)
		})
	}
}

func parseTime(t testing.TB, f TimeFormat, s string) int64 {
	switch f {
	case UnixSeconds:
		v, err := strconv.ParseFloat(s, 64)
		require.NoError(t, err)
		return int64(math.Round(v * 1000))
	case UnixMillis:
		v, err := strconv.ParseInt(s, 10, 64)
		require.NoError(t, err)
		return v
	}
	at, err := time.Parse(time.RFC3339Nano, s)
	require.NoError(t, err)
	return at.UnixMilli()
}

func parseFloat(t testing.TB, s string) uint64 {
	v, err := strconv.ParseFloat(s, 64)
	require.NoError(t, err)
	return usual(v)
}

// TestCSVWide shows the same of the wide form, whose times ascend, and that too many columns are refused.
func TestCSVWide(t *testing.T) {
	s := fill(t)
	o := options(t, s, CSVWide)
	o.Times = UnixMillis
	write(t, o, func(t *testing.T, out string, stats Stats) {
		records, err := csv.NewReader(strings.NewReader(out)).ReadAll()
		require.NoError(t, err)
		got := map[string][]point{}
		last := int64(0)
		for _, r := range records[1:] {
			at := parseTime(t, UnixMillis, r[0])
			require.Greater(t, at, last)
			last = at
			for i, cell := range r[1:] {
				if cell != "" {
					got[records[0][i+1]] = append(got[records[0][i+1]], point{at, parseFloat(t, cell)})
				}
			}
		}
		require.Equal(t, floats(t, s), got)
		require.Equal(t, uint64(6), stats.Series)
	})
	o.ColumnsMax = 3
	_, err := Write(t.Context(), io.Discard, o)
	require.ErrorIs(t, err, export.ErrTooWide)
	o.Format = CSV
	_, err = Write(t.Context(), io.Discard, o)
	require.ErrorIs(t, err, export.ErrTooWide)
}

// line is one of JSON lines.
type line struct {
	Metric     map[string]string
	Values     []any
	Histograms []struct {
		Schema         int32
		ZeroThreshold  float64 `json:"zero_threshold"`
		ZeroCount      float64 `json:"zero_count"`
		Count, Sum     float64
		PositiveCounts []float64 `json:"positive_counts"`
	}
	Timestamps []int64
}

// TestJSONLines shows that the lines have what the archive has, histograms too.
func TestJSONLines(t *testing.T) {
	s := fill(t)
	write(t, options(t, s, JSONLines), func(t *testing.T, out string, stats Stats) {
		got := map[string][]point{}
		histograms := 0
		for text := range strings.Lines(out) {
			var l line
			require.NoError(t, json.Unmarshal([]byte(text), &l))
			name := labels.FromMap(l.Metric).String()
			for i, h := range l.Histograms {
				want := tsdbutil.GenerateTestHistogram(int64(histograms) * 50).ToFloat(nil)
				require.Equal(t, [2]float64{want.Count, want.Sum}, [2]float64{h.Count, h.Sum})
				require.Equal(t, want.PositiveBuckets, h.PositiveCounts)
				require.Equal(t, want.ZeroThreshold, h.ZeroThreshold)
				require.Equal(t, start+int64(histograms)*50*minute+int64(histograms*50*histograms*50)%1000, l.Timestamps[i])
				histograms++
			}
			for i, v := range l.Values {
				f := math.NaN()
				switch v := v.(type) {
				case float64:
					f = v
				case string:
					f = math.Float64frombits(parseFloat(t, v))
				}
				got[name] = append(got[name], point{l.Timestamps[i], usual(f)})
			}
		}
		require.Equal(t, floats(t, s), got)
		require.Equal(t, 6, histograms)
		require.Equal(t, uint64(2), stats.StaleMarkers)
		require.Equal(t, uint64(7), stats.Series)
	})
}

// TestOpenMetricsTime shows that the parser, which cuts what is behind a ms, reads back each time, and that such as rounds
// does too.
func TestOpenMetricsTime(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200_000 {
		at := r.Int64N(8_000_000_000_000) - 2_000_000_000_000
		text := string(appendOpenMetricsTime(nil, at))
		v, err := strconv.ParseFloat(text, 64)
		require.NoError(t, err)
		if int64(v*1000) != at || int64(math.Round(v*1000)) != at {
			t.Fatalf("%d became %s", at, text)
		}
	}
}

// TestDeepBudget shows that a series of a million samples is written with a budget of some thousand, and that at no time more than a
// part of it was read.
func TestDeepBudget(t *testing.T) {
	q := &dense{samples: 1_000_000}
	o := options(t, q, CSV)
	o.Request = export.Request{Selectors: all, MinMillis: 0, MaxMillis: 1_000_000*1000 - 1}
	o.Walker.SamplesBudget = 10_000
	stats, err := Write(t.Context(), io.Discard, o)
	require.NoError(t, err)
	require.Equal(t, uint64(1_000_000), stats.Samples)
	require.Less(t, q.largest, int64(50_000))
}

// dense is a storage of one series with a sample a second, that notes the largest number of samples it was asked for.
type dense struct {
	samples, largest int64
}

func (d *dense) Querier(mint, maxt int64) (storage.Querier, error) {
	return &denseQuerier{Querier: storage.NoopQuerier(), d: d, mint: mint, maxt: maxt}, nil
}

type denseQuerier struct {
	storage.Querier
	d          *dense
	mint, maxt int64
}

func (q *denseQuerier) Select(_ context.Context, _ bool, hints *storage.SelectHints, _ ...*labels.Matcher) storage.SeriesSet {
	var list []chunks.Sample
	if hints.Func != "series" {
		for i := (q.mint + 999) / 1000; i*1000 <= q.maxt && i < q.d.samples; i++ {
			list = append(list, second(i))
		}
		q.d.largest = max(q.d.largest, int64(len(list)))
	}
	return &oneSeries{SeriesSet: storage.EmptySeriesSet(), series: storage.NewListSeries(labels.FromStrings("__name__", "up"), list)}
}

// oneSeries is a set of one.
type oneSeries struct {
	storage.SeriesSet
	series storage.Series
	done   bool
}

func (s *oneSeries) Next() bool {
	was := s.done
	s.done = true
	return !was
}

func (s *oneSeries) At() storage.Series { return s.series }

// second is a sample at a second.
type second int64

func (s second) T() int64                    { return int64(s) * 1000 }
func (second) ST() int64                     { return 0 }
func (s second) F() float64                  { return float64(s) }
func (second) H() *histogram.Histogram       { return nil }
func (second) FH() *histogram.FloatHistogram { return nil }
func (second) Type() chunkenc.ValueType      { return chunkenc.ValFloat }
func (s second) Copy() chunks.Sample         { return s }
