package result

import (
	"encoding/csv"
	"io"
	"math"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"varve/export/text"
)

// TestName shows how label sets are written, and that PromQL reads them back.
func TestName(t *testing.T) {
	f := func(want string, pairs ...string) {
		t.Helper()
		ls := labels.FromStrings(pairs...)
		require.Equal(t, want, Name(ls))
		if want != "{}" {
			ms, err := anyParser.ParseMetricSelector(want)
			require.NoError(t, err)
			for _, m := range ms {
				require.Equal(t, ls.Get(m.Name), m.Value)
			}
			require.Len(t, ms, ls.Len())
		}
	}
	f("{}")
	f("up", "__name__", "up")
	f(`up{a="b", job="x"}`, "__name__", "up", "job", "x", "a", "b")
	f(`{a="b"}`, "a", "b")
	f(`{"my.metric", "a.b"="c"}`, "__name__", "my.metric", "a.b", "c")
	for _, value := range hostile {
		name := Name(labels.FromStrings("__name__", "up", "text", value))
		require.Equal(t, name, Line(name), "one line, that can be printed")
		f(name, "__name__", "up", "text", value)
	}
}

// TestTitles shows what legends call series of several queries.
func TestTitles(t *testing.T) {
	up, none := labels.FromStrings("__name__", "up"), labels.EmptyLabels()
	require.Equal(t, []string{"up", "sum(up)"}, Titles([]string{"up", "sum(up)"}, []int{0, 1}, []labels.Labels{up, none}))
	require.Equal(t, []string{"up up", "up > 0 up", "sum( up )"}, Titles([]string{"up", "up > 0", "sum(\nup\n)"}, []int{0, 1, 2}, []labels.Labels{up, up, none}))
}

// TestDivisible shows how queries are asked for in parts: as they are, or with the bounds of the range written out.
func TestDivisible(t *testing.T) {
	g := Grid{First: 1_000_500, Last: 2_000_000, Step: 500}
	f := func(query, want string) {
		t.Helper()
		got, err := divisible(anyParser, query, g)
		if want == "" {
			require.Error(t, err)
			return
		}
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	f("up  # as it is", "up  # as it is")
	f("up @ start()", "up @ 1000.500")
	f("rate(up[5m] @ end()) + on() (up @ start())", "rate(up[5m] @ 2000.000) + on () (up @ 1000.500)")
	f("max_over_time(up[1h:1m] @ end())", "max_over_time(up[1h:1m] @ 2000.000)")
	f("max_over_time(rate(up[1m] @ start())[1h:1m])", "max_over_time(rate(up[1m] @ 1000.500)[1h:1m])")
	f("rate(up[step()])", "rate(up[step()])")
	f("rate(up[range()])", "")
	f("rate(up[1m + range() / 2])", "")
	f("max_over_time(up[1h:range()])", "")
	f("up offset -range()", "")
	f("range_avg(up)", "")
	f("up{", "")
}

// TestNiceStep shows the steps that are chosen: round, and at most a thousand.
func TestNiceStep(t *testing.T) {
	for span, want := range map[int64]int64{0: 1, 1000: 1, 3600: 5, 86400: 120, 30 * 86400: 3600, 365 * 86400: 43200, 3000 * 86400: 4 * 86400} {
		require.Equal(t, want*1000, NiceStep(span*1000), "%d", span)
	}
}

// TestMemory shows that what is held doesn't grow with the range: a million values pass through some MB.
func TestMemory(t *testing.T) {
	for _, format := range []Format{CSVLong, JSONLines, CSV} {
		s := &counting{series: 20, pointsMax: math.MaxInt64}
		read := Read{Source: s, Queries: []string{"x"}, Grid: Grid{First: start, Last: start + 49_999*1000, Step: 1000}, partBytes: 256 << 10, partBytesMax: 8 << 20}
		var before, now runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		most := uint64(0)
		n := 0
		read.Progress = func(Progress) {
			if n++; n%10 == 0 {
				runtime.GC()
				runtime.ReadMemStats(&now)
				most = max(most, now.HeapAlloc-min(before.HeapAlloc, now.HeapAlloc))
			}
		}
		stats, err := Write(t.Context(), io.Discard, Options{Read: read, Format: format, Scratch: t.TempDir()})
		require.NoError(t, err)
		require.Equal(t, uint64(1_000_000), stats.Values)
		// A part, what it becomes, and for the table 8 MiB.
		require.Less(t, most, uint64(16<<20), "format %d", format)
		t.Logf("format %d: %.1f MiB held for %d values in %d requests", format, float64(most)/(1<<20), stats.Values, stats.Requests)
	}
}

// FuzzGnuplotString shows that a quoted text is one token of gnuplot, on one line, and means the text again.
func FuzzGnuplotString(f *testing.F) {
	for _, s := range hostile {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		q := gnuplotString(s)
		require.True(t, len(q) >= 2 && q[0] == '"' && q[len(q)-1] == '"')
		inner := q[1 : len(q)-1]
		require.Equal(t, -1, strings.IndexAny(inner, "\"`@"))
		require.True(t, utf8.ValidString(q))
		require.Equal(t, -1, strings.IndexFunc(q, func(r rune) bool { return unicode.IsControl(r) }))
		var b strings.Builder
		for i := 0; i < len(inner); i++ {
			if inner[i] != '\\' {
				b.WriteByte(inner[i])
				continue
			}
			c, err := strconv.ParseUint(inner[i+1:i+4], 8, 7)
			require.NoError(t, err)
			b.WriteByte(byte(c))
			i += 3
		}
		require.Equal(t, Line(s), b.String())
	})
}

// FuzzPythonString shows that a literal is ASCII, ends where it should, and means the text again, but for bytes that are no UTF-8. The
// gate lets Python read the hostile ones.
func FuzzPythonString(f *testing.F) {
	for _, s := range hostile {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		q := pythonString(s)
		for _, c := range []byte(q) {
			require.True(t, c >= ' ' && c <= '~')
		}
		var b strings.Builder
		rest := q[1 : len(q)-1]
		for rest != "" {
			require.NotEqual(t, byte('\''), rest[0], "the end comes early")
			if rest[0] != '\\' {
				b.WriteByte(rest[0])
				rest = rest[1:]
				continue
			}
			digits := map[byte]int{'x': 2, 'u': 4, 'U': 8}[rest[1]]
			if digits == 0 {
				b.WriteString(map[byte]string{'n': "\n", '\\': `\`, '\'': "'"}[rest[1]])
				rest = rest[2:]
				continue
			}
			r, err := strconv.ParseUint(rest[2:2+digits], 16, 32)
			require.NoError(t, err)
			b.WriteRune(rune(r))
			rest = rest[2+digits:]
		}
		// A range over a text makes of each wrong byte one replacement character.
		require.Equal(t, string([]rune(s)), b.String())
	})
}

// FuzzCSV shows that any fields come back from Go's reader, with any separator that is allowed.
func FuzzCSV(f *testing.F) {
	for _, s := range hostile {
		f.Add(s, ";", ",")
		f.Add("", s, "\t")
	}
	f.Fuzz(func(t *testing.T, one, two, separator string) {
		r, size := utf8.DecodeRuneInString(separator)
		if size != len(separator) || !ValidSeparator(r) {
			return
		}
		b := text.AppendField(appendRune(text.AppendField([]byte("t"+separator), one, r), r), two, r)
		reader := csv.NewReader(strings.NewReader(string(b) + lineEnd))
		reader.Comma = r
		if r == 0 || !utf8.ValidRune(r) {
			return // Go's reader takes none of these.
		}
		got, err := reader.Read()
		require.NoError(t, err)
		// Go's reader makes a feed of a return and a feed.
		feed := strings.NewReplacer("\r\n", "\n")
		require.Equal(t, []string{"t", feed.Replace(one), feed.Replace(two)}, got)
	})
}

// FuzzSpool shows that no bytes make the reader of the scratch file panic.
func FuzzSpool(f *testing.F) {
	tab := newTable("", 1<<20, 10, 1000)
	p := Part{Grid: Grid{First: 0, Last: 5000, Step: 1000}, Series: []Series{{Labels: labels.FromStrings("a", "b"), Histograms: []Histogram{{2000, []byte("{}")}}}}}
	require.NoError(f, tab.add(&p))
	f.Add(tab.memory.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := tab.decode(b, []int{0})
		if err == nil {
			require.LessOrEqual(t, len(p.Series), len(b))
		}
	})
}
