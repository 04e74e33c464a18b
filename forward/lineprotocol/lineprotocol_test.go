package lineprotocol_test

import (
	"math"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/stretchr/testify/require"

	"varve/forward/lineprotocol"
)

// Each part of a line is escaped by its own rules, and what the protocol can't hold is written in a form that every reader takes alike.
func TestAppendSeries(t *testing.T) {
	f := func(want string, ls ...string) {
		t.Helper()
		require.Equal(t, want, string(lineprotocol.AppendSeries(nil, labels.FromStrings(ls...))))
	}
	f(`up`, "__name__", "up")
	f(`up,a=1,b=2`, "__name__", "up", "b", "2", "a", "1")
	f(`a\ b\,c=d"e`, "__name__", `a b,c=d"e`)
	f(`\#x`, "__name__", "#x")
	f(`m\n\t\0`, "__name__", "m\n\t\x00")
	f(`m,k\ \,\=1=v\ \,\="`, "__name__", "m", "k ,=1", `v ,="`)
	f(`m,k=a\nb\rc\td\fe\0`, "__name__", "m", "k", "a\nb\rc\td\fe\x00")
	f(`m,k=C:\Windows\x`, "__name__", "m", "k", `C:\Windows\x`)
	f(`m,k=C:/`, "__name__", "m", "k", `C:\`)
	f(`m,k=a\/`, "__name__", "m", "k", `a\\`)
	f(`m,k=a/\,b/\ c/\=d/"e/\nf`, "__name__", "m", "k", "a\\,b\\ c\\=d\\\"e\\\nf")
	f(`m/,k/=v`, "__name__", `m\`, `k\`, "v")
	f(`m,time_=1`, "__name__", "m", "time", "1")
	f(`m,_field_=1,_measurement_=2,_time=3`, "__name__", "m", "_field", "1", "_measurement", "2", "_time", "3")
	f(`m,k=é世`, "__name__", "m", "k", "é世")
	f(`m,b=1`, "__name__", "m", "a", "", "b", "1")
}

// A line holds the value so that it reads back as the same float, the time in the unit asked for, and nothing that isn't finite.
func TestAppendSample(t *testing.T) {
	f := func(v float64, millis int64, p lineprotocol.Precision, want string) {
		t.Helper()
		line, ok := lineprotocol.AppendSample([]byte("before\n"), []byte("m,a=b"), v, millis, p)
		require.True(t, ok)
		require.Equal(t, "before\nm,a=b "+want+"\n", string(line))
		require.Empty(t, lineprotocol.Reason(v, millis))
	}
	f(1, 1700000000123, lineprotocol.Nanoseconds, "value=1 1700000000123000000")
	f(-1.5, 1700000000123, lineprotocol.Microseconds, "value=-1.5 1700000000123000")
	f(0, 1700000000123, lineprotocol.Milliseconds, "value=0 1700000000123")
	f(math.Copysign(0, -1), 1700000000999, lineprotocol.Seconds, "value=-0 1700000000")
	f(1e6, -1, lineprotocol.Seconds, "value=1000000 -1")
	f(1<<53, -1000, lineprotocol.Seconds, "value=9.007199254740992e+15 -1")
	f(5e-324, 0, lineprotocol.Seconds, "value=5e-324 0")
	f(-math.MaxFloat64, 9223372036854, lineprotocol.Nanoseconds, "value=-1.7976931348623157e+308 9223372036854000000")
	f(1, -9223372036854, lineprotocol.Nanoseconds, "value=1 -9223372036854000000")

	g := func(v float64, millis int64, reason string) {
		t.Helper()
		line, ok := lineprotocol.AppendSample(nil, []byte("m"), v, millis, lineprotocol.Seconds)
		require.False(t, ok)
		require.Empty(t, line)
		require.Equal(t, reason, lineprotocol.Reason(v, millis))
	}
	g(math.NaN(), 1, lineprotocol.ReasonNotFinite)
	g(math.Inf(1), 1, lineprotocol.ReasonNotFinite)
	g(math.Inf(-1), 1, lineprotocol.ReasonNotFinite)
	g(math.Float64frombits(value.StaleNaN), 1, lineprotocol.ReasonStale)
	g(1, 9223372036855, lineprotocol.ReasonTime)
	g(1, math.MinInt64, lineprotocol.ReasonTime)
}

// Every name of a precision is understood, and nothing else.
func TestParsePrecision(t *testing.T) {
	for name, want := range map[string]lineprotocol.Precision{
		"": lineprotocol.Nanoseconds, "n": lineprotocol.Nanoseconds, "ns": lineprotocol.Nanoseconds,
		"u": lineprotocol.Microseconds, "us": lineprotocol.Microseconds, "ms": lineprotocol.Milliseconds, "s": lineprotocol.Seconds,
	} {
		p, err := lineprotocol.ParsePrecision(name)
		require.NoError(t, err, name)
		require.Equal(t, want, p, name)
	}
	_, err := lineprotocol.ParsePrecision("m")
	require.Error(t, err)
}

// Any labels make one line that reads back as they are, but for what the protocol can't hold.
func FuzzAppendSeries(f *testing.F) {
	f.Add("up", "job", "a b", 1.5, int64(1))
	f.Add("#a=b,c d", `k\`, `C:\`, math.Copysign(0, -1), int64(-1))
	f.Add("\t\x00a", "time", "a\\\\\\,\n\\\"", 1e300, int64(1700000000123))
	f.Fuzz(func(t *testing.T, name, key, v string, number float64, millis int64) {
		if name == "" || key == "" || v == "" || key == "__name__" || !utf8.ValidString(name+key+v) {
			t.Skip()
		}
		line, ok := lineprotocol.AppendSample(nil, lineprotocol.AppendSeries(nil, labels.FromStrings("__name__", name, key, v)), number, millis, lineprotocol.Milliseconds)
		require.Equal(t, ok, lineprotocol.Reason(number, millis) == "")
		if !ok {
			return
		}
		require.Equal(t, 1, strings.Count(string(line), "\n"))
		p, err := parse(strings.TrimSuffix(string(line), "\n"))
		require.NoError(t, err, "%q", line)
		if strings.HasPrefix(name, "#") {
			name = `\` + name
		}
		require.Equal(t, held(name), p.measurement)
		if lineprotocol.Reserved(key) {
			key += "_"
		}
		require.Equal(t, [][2]string{{held(key), held(v)}}, p.tags)
		require.Equal(t, "value", p.fields[0][0])
		got, err := strconv.ParseFloat(p.fields[0][1], 64)
		require.NoError(t, err)
		require.Equal(t, math.Float64bits(number), math.Float64bits(got))
		require.Equal(t, millis, p.time)
	})
}

// held is what of a text the protocol can hold.
func held(s string) string {
	letters := map[byte]string{'\n': `\n`, '\r': `\r`, '\t': `\t`, '\f': `\f`, 0: `\0`}
	var b strings.Builder
	for i := range len(s) {
		switch letter := letters[s[i]]; {
		case letter != "":
			b.WriteString(letter)
		case s[i] == '\\' && (i+1 == len(s) || strings.IndexByte(",= \"\n\r\t\f\x00", s[i+1]) >= 0):
			b.WriteByte('/')
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

// A route takes the measurement from a label, the field from the metric's name, and leaves out what it was told to.
func TestRouteSeries(t *testing.T) {
	r := lineprotocol.Route{MeasurementLabel: "prefix", DefaultMeasurement: "other", DropLabels: []string{"key", "unit"}}
	prefix, field, err := r.Series(labels.FromStrings("__name__", "tank_level_value", "prefix", "tank 1", "key", "level", "unit", "m", "system", "heros"))
	require.NoError(t, err)
	require.Equal(t, `tank\ 1,system=heros`, string(prefix))
	require.Equal(t, "tank_level_value", field)

	prefix, _, err = r.Series(labels.FromStrings("__name__", "up", "job", "j"))
	require.NoError(t, err)
	require.Equal(t, `other,job=j`, string(prefix))

	r.DefaultMeasurement = ""
	_, _, err = r.Series(labels.FromStrings("__name__", "up", "job", "j"))
	require.ErrorIs(t, err, lineprotocol.ErrNoMeasurement)
	_, _, err = r.Series(labels.FromStrings("prefix", "p"))
	require.ErrorIs(t, err, lineprotocol.ErrNoName)
}

// Samples of one row and time make one line, in the order of their fields; others and repeated ones make lines of their own.
func TestRowsAppendLines(t *testing.T) {
	var r lineprotocol.Rows
	for range 2 { // the second time in memory that was used
		r.Reset()
		r.Column("tank,system=heros", "a_inbound")
		r.Add(1, 2000, lineprotocol.Milliseconds, 0)
		r.Add(2, 3000, lineprotocol.Milliseconds, 1)
		r.Column("tank,system=heros,unit=m", "a_value")
		r.Add(3, 2000, lineprotocol.Milliseconds, 2)
		r.Column("tank,system=heros", "a_raw_value")
		r.Add(4, 1000, lineprotocol.Milliseconds, 3)
		r.Add(5, 2000, lineprotocol.Milliseconds, 4)
		require.False(t, r.Add(math.NaN(), 3000, lineprotocol.Milliseconds, 5))
		r.Column("tank,system=heros", "a_inbound")
		r.Add(6, 2000, lineprotocol.Milliseconds, 6)
		var ids [][]int32
		var ends []int
		got := string(r.AppendLines(nil, lineprotocol.Milliseconds, func(end int, of []int32) {
			ends = append(ends, end)
			ids = append(ids, append([]int32(nil), of...))
		}))
		require.Equal(t, "tank,system=heros a_raw_value=4 1000\n"+
			"tank,system=heros a_inbound=1,a_raw_value=5 2000\n"+
			"tank,system=heros a_inbound=6 2000\n"+
			"tank,system=heros a_inbound=2 3000\n"+
			"tank,system=heros,unit=m a_value=3 2000\n", got)
		require.Equal(t, [][]int32{{3}, {0, 4}, {6}, {1}, {2}}, ids)
		require.Equal(t, len(got), ends[len(ends)-1])
	}
}

// Rows are joined by the time that the target sees.
func TestRowsAppendLinesSeconds(t *testing.T) {
	var r lineprotocol.Rows
	r.Column("m", "a")
	r.Add(1, 1000, lineprotocol.Seconds, 0)
	r.Add(2, 1500, lineprotocol.Seconds, 1)
	r.Column("m", "b")
	r.Add(3, 1999, lineprotocol.Seconds, 2)
	r.Add(4, -1, lineprotocol.Seconds, 3)
	require.Equal(t, "m b=4 -1\nm a=1,b=3 1\nm a=2 1\n", string(r.AppendLines(nil, lineprotocol.Seconds, nil)))
}

// A native histogram is written as the classic one that holds as much.
func TestHistogramSeriesAppend(t *testing.T) {
	h := &histogram.Histogram{
		Schema: 0, Count: 12, Sum: 18.5, ZeroCount: 2, ZeroThreshold: 0.001,
		PositiveSpans: []histogram.Span{{Offset: 0, Length: 2}}, PositiveBuckets: []int64{3, 1},
		NegativeSpans: []histogram.Span{{Offset: 0, Length: 1}}, NegativeBuckets: []int64{3},
	}
	ls := labels.FromStrings("__name__", "lat", "job", "j", "le", "x")
	const countSum = "lat_count,job=j,le=x value=12 5\nlat_sum,job=j,le=x value=18.5 5\n"
	const buckets = "lat_bucket,job=j,le=-0.5 value=3 5\nlat_bucket,job=j,le=0.001 value=5 5\nlat_bucket,job=j,le=1 value=8 5\n" +
		"lat_bucket,job=j,le=2 value=12 5\nlat_bucket,job=j,le=+Inf value=12 5\n"
	for as, want := range map[lineprotocol.Histograms]string{lineprotocol.CountAndSum: countSum, lineprotocol.ClassicBuckets: countSum + buckets} {
		s := lineprotocol.NewHistogramSeries(ls, as)
		got, ok := s.Append(nil, h, nil, &histogram.FloatHistogram{}, 5, lineprotocol.Milliseconds)
		require.True(t, ok)
		require.Equal(t, want, string(got))
		got, ok = s.Append(nil, nil, h.ToFloat(nil), nil, 5, lineprotocol.Milliseconds)
		require.True(t, ok)
		require.Equal(t, want, string(got))
	}
	require.Nil(t, lineprotocol.NewHistogramSeries(ls, lineprotocol.SkipHistograms))

	s := lineprotocol.NewHistogramSeries(ls, lineprotocol.CountAndSum)
	_, ok := s.Append(nil, &histogram.Histogram{Sum: math.Float64frombits(value.StaleNaN)}, nil, nil, 5, lineprotocol.Milliseconds)
	require.False(t, ok)
	require.Equal(t, lineprotocol.ReasonStale, lineprotocol.HistogramReason(math.Float64frombits(value.StaleNaN), 5))
	got, ok := s.Append(nil, &histogram.Histogram{Count: 1, Sum: math.Inf(1)}, nil, nil, 5, lineprotocol.Milliseconds)
	require.True(t, ok)
	require.Equal(t, "lat_count,job=j,le=x value=1 5\n", string(got))
}

// The names of how histograms are written are understood, and nothing else.
func TestParseHistograms(t *testing.T) {
	for name, want := range map[string]lineprotocol.Histograms{
		"": lineprotocol.SkipHistograms, "skip": lineprotocol.SkipHistograms, "count_sum": lineprotocol.CountAndSum, "classic": lineprotocol.ClassicBuckets,
	} {
		as, err := lineprotocol.ParseHistograms(name)
		require.NoError(t, err)
		require.Equal(t, want, as)
	}
	_, err := lineprotocol.ParseHistograms("native")
	require.Error(t, err)
}

var nodeLabels = labels.FromStrings("__name__", "node_network_receive_bytes_total", "instance", "host-1234.example:9100", "job", "node", "device", "eth0")

// One sample as a line behind its prefix.
func BenchmarkAppendSample(b *testing.B) {
	prefix := lineprotocol.AppendSeries(nil, nodeLabels)
	for name, step := range map[string]float64{"counter": 1234, "gauge": 0.1234567} {
		b.Run(name, func(b *testing.B) {
			var buf []byte
			v := 1e6
			b.ReportAllocs()
			for i := range b.N {
				v += step
				buf, _ = lineprotocol.AppendSample(buf[:0], prefix, v, int64(1700000000000+i), lineprotocol.Nanoseconds)
			}
		})
	}
}

// The prefix of a series, made once for each.
func BenchmarkAppendSeries(b *testing.B) {
	var buf []byte
	b.ReportAllocs()
	for range b.N {
		buf = lineprotocol.AppendSeries(buf[:0], nodeLabels)
	}
}

// A sample in rows of ten fields.
func BenchmarkRows(b *testing.B) {
	var r lineprotocol.Rows
	var buf []byte
	const rows, fields, times = 20, 10, 50
	var prefixes, names []string
	for i := range rows {
		prefixes = append(prefixes, "table,system=heros,unit=u"+strconv.Itoa(i))
	}
	for i := range fields {
		names = append(names, "field_"+strconv.Itoa(i))
	}
	b.ReportAllocs()
	for i := 0; i < b.N; i += rows * fields * times {
		r.Reset()
		for _, p := range prefixes {
			for _, n := range names {
				r.Column(p, n)
				for at := range times {
					r.Add(float64(at)*1.1, int64(at)*5000, lineprotocol.Nanoseconds, int32(at))
				}
			}
		}
		buf = r.AppendLines(buf[:0], lineprotocol.Nanoseconds, nil)
	}
}
