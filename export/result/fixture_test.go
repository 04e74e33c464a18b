package result

import (
	"bytes"
	"context"
	"math"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"varve/internal/testkit"
	"varve/internal/testkit/leaks"
)

// TestMain looks for goroutines that a test left behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(leaks.Patient(m)) }

// start is where the data of tests begin, one sample every ten seconds.
const (
	start    = int64(1_700_006_400_000)
	interval = int64(10_000)
	samples  = 500
)

// hostile are label values that mean something in some form.
var hostile = []string{
	`a,b;c`, `"quoted"`, "line\nfeed", "carriage\rreturn", `back\slash\`, "EOD", "EOD\n", "@macro", "`touch pwned`", "$(touch pwned)", "'single'", `''`,
	"{braces}_^under", "$math$", "_leading", "#comment", "%d %s", "\x00\x01\x7f", "é 日本 🙂", "\u202egnp.exe", "</text><script>alert(1)</script>", "&amp;", "=1+1", "\\U0001F600 \\x41 \\n",
	"\u2028", "  spaces  ", "'''", `"""`, "]]>", "',system('touch pwned'),'",
}

// newEngine is an upstream engine over an upstream database with series that come, go, have gaps and all kinds of values.
func newEngine(t testing.TB) *Engine {
	s := testkit.Upstream(t)
	app := s.Appender(t.Context())
	add := func(at int64, v float64, pairs ...string) {
		_, err := app.Append(0, labels.FromStrings(pairs...), start+at*interval, v)
		require.NoError(t, err)
	}
	for i := range int64(samples) {
		add(i, float64(i)/3, "__name__", "steady", "n", "1")
		add(i, float64(i*i), "__name__", "steady", "n", "2")
		if i >= 300 {
			add(i, 1e21+float64(i), "__name__", "late", "n", "1")
		}
		if i/60%2 == 0 {
			add(i, float64(i), "__name__", "gappy", "n", "1")
		}
		if i == 250 {
			add(i, 7, "__name__", "gappy", "n", "alone")
		}
		odd := []float64{math.NaN(), math.Inf(1), math.Inf(-1), math.Copysign(0, -1), 5e-324, math.MaxFloat64, 0.1, 1e-7}
		add(i, odd[i%8], "__name__", "odd")
		if i%20 == 0 {
			_, err := app.AppendHistogram(0, labels.FromStrings("__name__", "durations"), start+i*interval, tsdbutil.GenerateTestHistogram(i), nil)
			require.NoError(t, err)
			_, err = app.AppendHistogram(0, labels.FromStrings("__name__", "fdurations"), start+i*interval, nil, tsdbutil.GenerateTestFloatHistogram(i))
			require.NoError(t, err)
		}
	}
	for i, value := range hostile {
		for j := range int64(5) {
			add(j, float64(i)+float64(j), "__name__", "hostile", "text", value)
		}
	}
	require.NoError(t, app.Commit())
	e := promql.NewEngine(promql.EngineOpts{MaxSamples: 1_000_000, Timeout: time.Hour, LookbackDelta: 15 * time.Second, EnableAtModifier: true, EnableNegativeOffset: true, Parser: anyParser})
	return &Engine{Engine: e, Storage: s}
}

// all is the time of the data, at their interval.
func all() Grid {
	return Grid{First: start, Last: start + (samples-1)*interval, Step: interval}
}

// small are bounds that make many parts of anything.
func small(r Read) Read {
	r.PointsMax = 37
	r.partBytes, r.partBytesMax = 20_000, 60_000
	return r
}

// written returns what Write writes.
func written(t testing.TB, o Options) (string, Stats) {
	var b bytes.Buffer
	o.Scratch = t.TempDir()
	stats, err := Write(context.Background(), &b, o)
	require.NoError(t, err)
	require.Equal(t, int64(b.Len()), stats.Bytes)
	return b.String(), stats
}
