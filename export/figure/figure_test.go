package figure

import (
	"bytes"
	"context"
	"encoding/xml"
	"image"
	"image/color"
	"image/png"
	"io"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"gonum.org/v1/plot"

	"varve/export/result"
	"varve/internal/testkit/leaks"
)

// TestMain looks for goroutines that a test left behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(leaks.Patient(m)) }

const start = int64(1_700_006_400_000)

// made is a source of series by label value; a function tells the value at a step, NaN for none.
type made struct {
	names  []string
	values func(series int, step int64) float64
	// nans has NaN as values rather than as gaps.
	nans bool
}

func (m *made) Range(_ context.Context, _ string, g result.Grid, _ int64) (result.Answer, error) {
	var a result.Answer
	for i, n := range m.names {
		s := result.Series{Labels: labels.FromStrings("__name__", "m", "n", n)}
		for t := g.First; t <= g.Last; t += g.Step {
			if v := m.values(i, (t-start)/g.Step); m.nans || !math.IsNaN(v) {
				s.Floats = append(s.Floats, promql.FPoint{T: t, F: v})
			}
		}
		a.Series = append(a.Series, s)
	}
	return a, nil
}

func numbered(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = strconv.Itoa(1000 + i)
	}
	return names
}

func options(m *made, points int64) Options {
	return Options{Read: result.Read{Source: m, Queries: []string{"m"}, Grid: result.Grid{First: start, Last: start + (points-1)*15_000, Step: 15_000}}}
}

func drawn(t testing.TB, o Options) ([]byte, result.Stats) {
	var b bytes.Buffer
	stats, err := Write(context.Background(), &b, o)
	require.NoError(t, err)
	require.Equal(t, int64(b.Len()), stats.Bytes)
	return b.Bytes(), stats
}

func decoded(t testing.TB, o Options) image.Image {
	b, _ := drawn(t, o)
	img, err := png.Decode(bytes.NewReader(b))
	require.NoError(t, err)
	return img
}

// inColumns counts the pixels that look like a colour, of each column of pixels between two rows.
func inColumns(img image.Image, c color.RGBA, top, bottom int) []int {
	out := make([]int, img.Bounds().Dx())
	for x := range out {
		for y := top; y < bottom; y++ {
			r, g, b, _ := img.At(x, y).RGBA()
			near := func(have uint32, want uint8) bool { return math.Abs(float64(have>>8)-float64(want)) < 60 }
			if near(r, c.R) && near(g, c.G) && near(b, c.B) {
				out[x]++
			}
		}
	}
	return out
}

// TestLineIsDrawn shows that a PNG has the size that was asked for, that the line of a sine goes through nearly all columns of the plot area in
// its colour, over most of its height, and that a second line has another colour.
func TestLineIsDrawn(t *testing.T) {
	m := &made{names: numbered(2), values: func(i int, n int64) float64 { return math.Sin(float64(n)/20+float64(i)) + float64(i) }}
	o := options(m, 240)
	o.Width, o.Height = 800, 500
	img := decoded(t, o)
	require.Equal(t, image.Rect(0, 0, 800, 500), img.Bounds())
	for i := range 2 {
		columns := inColumns(img, colors[i], 30, 420)
		filled, sum := 0, 0
		for _, n := range columns {
			sum += n
			if n > 0 {
				filled++
			}
		}
		require.Greater(t, filled, 650, "line %d", i)
		require.Greater(t, sum, 900)
	}
}

// TestGapsStay shows that no line crosses a gap, whether the values are missing or not a number, and that a value alone is a dot.
func TestGapsStay(t *testing.T) {
	for _, nans := range []bool{false, true} {
		m := &made{names: numbered(1), nans: nans, values: func(_ int, n int64) float64 {
			if n < 100 || n == 150 || n >= 200 {
				return float64(n % 50)
			}
			return math.NaN()
		}}
		columns := inColumns(decoded(t, options(m, 300)), colors[0], 30, 556)
		// The plot area begins at about x = 60 and is about 930 wide: 3.1 a step.
		at := func(step int) int { return 60 + step*31/10 }
		filled := func(from, to int) (n int) {
			for _, c := range columns[at(from):at(to)] {
				if c > 0 {
					n++
				}
			}
			return n
		}
		require.Greater(t, filled(5, 95), 250)
		require.Zero(t, filled(110, 140))
		require.Zero(t, filled(160, 190))
		require.Greater(t, filled(205, 295), 250)
		require.NotZero(t, filled(142, 158), "the dot")
	}
}

// TestManyPointsLookAlike shows that what is kept of a column of pixels draws the spikes that all points would, and that memory is bounded: many
// thousand points with one spike of one step.
func TestManyPointsLookAlike(t *testing.T) {
	const n = 60_000
	m := &made{names: numbered(1), values: func(_ int, i int64) float64 {
		if i == n/2 {
			return 100
		}
		return float64(i % 2)
	}}
	o := options(m, n)
	c := &collector{o: &o, bucketMillis: (o.Read.Grid.Last-o.Read.Grid.First)/1000 + 1, lines: map[string]*line{}, seen: map[uint64]bool{}}
	require.NoError(t, o.complete())
	_, err := o.Read.Parts(t.Context(), c.add)
	require.NoError(t, err)
	for _, l := range c.lines {
		require.LessOrEqual(t, len(l.buckets), 1001)
		broken := 0
		for _, b := range l.buckets {
			if b.broken {
				broken++
			}
		}
		require.Equal(t, 1, broken, "only the begin")
	}
	columns := inColumns(decoded(t, o), colors[0], 30, 520)
	tall := 0
	for _, n := range columns[60:] {
		if n > 300 {
			tall++
		}
	}
	require.GreaterOrEqual(t, tall, 1, "the spike")
	require.LessOrEqual(t, tall, 4)
}

// TestManySeries shows that lines and the legend are bounded, and that the figure and the caller are told.
func TestManySeries(t *testing.T) {
	m := &made{names: numbered(700), values: func(i int, n int64) float64 {
		switch {
		case i == 0:
			return math.NaN()
		case i == 1 && n == 3:
			return math.Inf(1)
		}
		return float64(i) + float64(n)
	}, nans: true}
	o := options(m, 20)
	o.Format = SVG
	_, stats := drawn(t, o)
	require.Equal(t, 500, stats.Series)
	require.Len(t, stats.Notes, 4)
	text := strings.Join(stats.Notes, "; ")
	require.Contains(t, text, "the first 500 of 699 series are drawn")
	require.Contains(t, text, "30 of 500 lines are named")
	require.Contains(t, text, "1 series without a finite value")
	require.Contains(t, text, "1 infinite values are gaps")
	o.SeriesMax = 3
	b, stats := drawn(t, o)
	require.Equal(t, 3, stats.Series)
	require.Contains(t, string(b), "the first 3 of 699 series are drawn")
}

// TestSVG shows that an SVG is well-formed whatever the texts are, that texts stay texts, and that it refers to nothing outside and has no script.
func TestSVG(t *testing.T) {
	hostile := []string{
		"</text><script>alert(1)</script>", "&amp;", "\x00\x01\x0b", "\ufffe\uffff", "a\nb", `"quoted" 'single'`, "]]>", "<!--", "é 日本 🙂", "\xff\xfe", strings.Repeat("long ", 400),
		`style="font-family:Liberation Sans;`, "\u202e",
	}
	m := &made{names: hostile, values: func(i int, n int64) float64 { return float64(i) * float64(n) }}
	for _, title := range append(hostile, "") {
		o := options(m, 100)
		o.Format, o.Title, o.Unit = SVG, title, title
		b, _ := drawn(t, o)
		d := xml.NewDecoder(bytes.NewReader(b))
		names := map[string]int{}
		var texts strings.Builder
		for {
			token, err := d.Token()
			if err == io.EOF {
				break
			}
			require.NoError(t, err, "%s", b)
			switch token := token.(type) {
			case xml.StartElement:
				names[token.Name.Local]++
				for _, a := range token.Attr {
					require.NotContains(t, strings.ToLower(a.Name.Local), "on")
					require.NotEqual(t, "href", a.Name.Local)
				}
			case xml.CharData:
				texts.Write(token)
			}
		}
		require.Zero(t, names["script"])
		require.Zero(t, names["image"])
		require.Greater(t, names["path"], len(hostile))
		require.Contains(t, texts.String(), `</text><script>alert(1)</script>`)
		require.NotContains(t, string(b), `style="font-family:Liberation Sans;`)
	}
}

// TestExtremes shows that any values and any times are drawn without an end or a panic: the greatest floats, the least, one value, one point, milliseconds and
// thousands of years.
func TestExtremes(t *testing.T) {
	for _, values := range [][]float64{
		{math.MaxFloat64, -math.MaxFloat64}, {5e-324}, {0}, {5e-324, 0}, {1e300, 1e-300}, {1, math.Nextafter(1, 2)}, {-5, -5}, {1e15, 1e15 + 0.125}, {math.MaxFloat64}, {math.Inf(1), 3},
	} {
		m := &made{names: numbered(1), nans: true, values: func(_ int, n int64) float64 { return values[n%int64(len(values))] }}
		for _, points := range []int64{1, 2, 30} {
			if points == 1 && math.IsInf(values[0], 0) {
				continue
			}
			o := options(m, points)
			o.Width, o.Height = 240, 160
			o.Unit = "bytes"
			decoded(t, o)
			o.Unit = ""
			decoded(t, o)
			o.Format = SVG
			svg, _ := drawn(t, o)
			require.NotContains(t, string(svg), "NaN", "%v", values)
		}
	}
	m := &made{names: numbered(1), values: func(_ int, n int64) float64 { return 1 }}
	for _, g := range []result.Grid{
		{First: start, Last: start + 7, Step: 1}, {First: -62_135_596_800_000, Last: 253_402_300_799_000, Step: 86_400_000 * 365},
		{First: start, Last: start + 86_400_000*366, Step: 86_400_000},
	} {
		o := options(m, 1)
		o.Read.Grid = g
		o.Width, o.Height = 240, 160
		decoded(t, o)
	}
	for _, size := range [][2]int{{100, 100}, {2000, 120}, {120, 2000}} {
		o := options(m, 50)
		o.Width, o.Height = size[0], size[1]
		require.Equal(t, image.Rect(0, 0, size[0], size[1]), decoded(t, o).Bounds())
	}
}

// TestTimeTicks shows where ticks are and what they say: round times in UTC, with the day where it is new.
func TestTimeTicks(t *testing.T) {
	f := func(from string, span time.Duration, want ...string) {
		t.Helper()
		at, err := time.Parse(time.RFC3339, from)
		require.NoError(t, err)
		var got []string
		for _, tick := range (timeTicks{at.UnixMilli(), 6}).Ticks(0, span.Seconds()) {
			got = append(got, strings.ReplaceAll(tick.Label, "\n", " "))
		}
		require.Equal(t, want, got)
	}
	f("2026-01-31T23:00:00Z", 2*time.Hour, "23:00 2026-01-31", "23:30", "00:00 2026-02-01", "00:30", "01:00")
	f("2026-01-31T23:59:58Z", 5*time.Second, "23:59:58 2026-01-31", "23:59:59", "00:00:00 2026-02-01", "00:00:01", "00:00:02", "00:00:03")
	f("2026-01-31T12:00:00Z", 5*day, "2026-02-01", "2026-02-02", "2026-02-03", "2026-02-04", "2026-02-05")
	f("2026-01-25T00:00:00Z", 25*day, "2026-01-26", "2026-02-01", "2026-02-06", "2026-02-11", "2026-02-16")
	f("2026-01-15T00:00:00Z", 365*day, "2026-03", "2026-05", "2026-07", "2026-09", "2026-11", "2027-01")
	f("2016-01-01T00:00:00Z", 10*365*day, "2016", "2018", "2020", "2022", "2024")
	f("2026-01-01T00:00:00Z", 20*time.Millisecond, "00:00:00.000 2026-01-01", "00:00:00.005", "00:00:00.010", "00:00:00.015", "00:00:00.020")
}

// TestValueTicks shows the ticks of values: 1, 2 or 5, by 1024 for bytes, with prefixes, and enough digits to tell them apart.
func TestValueTicks(t *testing.T) {
	f := func(from, to float64, binary bool, want ...string) {
		t.Helper()
		var got []string
		for _, tick := range (valueTicks{5, binary}).Ticks(from, to) {
			got = append(got, tick.Label)
		}
		require.Equal(t, want, got)
	}
	f(0, 10, false, "0", "2", "4", "6", "8", "10")
	f(0, 1, false, "0", "0.2", "0.4", "0.6", "0.8", "1.0")
	f(-5e6, 5e6, false, "-4 M", "-2 M", "0", "2 M", "4 M")
	f(0, 4<<30, true, "0", "1 Gi", "2 Gi", "3 Gi", "4 Gi")
	f(0, 3000, true, "0", "1 Ki", "2 Ki")
	f(0, 2e-6, false, "0", "500 n", "1.0 µ", "1.5 µ", "2.0 µ")
	f(100, 100.01, false, "100.000", "100.002", "100.004", "100.006", "100.008", "100.010")
	f(0, 1e25, false, "0", "2e+24", "4e+24", "6e+24", "8e+24", "1e+25")
}

// FuzzTicks shows that axes of any bounds have a bounded number of ticks, ascending and within them.
func FuzzTicks(f *testing.F) {
	f.Add(0.0, 1.0, int64(0), int64(1000))
	f.Add(-math.MaxFloat64, math.MaxFloat64, int64(-1e15), int64(1e12))
	f.Add(1.0, math.Nextafter(1, 2), start, int64(1))
	f.Fuzz(func(t *testing.T, from, to float64, first, span int64) {
		check := func(ticks []plot.Tick, most int) {
			require.LessOrEqual(t, len(ticks), most)
			for i := range ticks {
				require.NotEmpty(t, ticks[i].Label)
				require.True(t, i == 0 || ticks[i-1].Value < ticks[i].Value, "%v", ticks)
			}
		}
		if from < to && isFinite(from) && isFinite(to) {
			check(valueTicks{5, false}.Ticks(from, to), 12)
			check(valueTicks{5, true}.Ticks(from, to), 12)
		}
		if span > 0 && first > -6e13 && first < 2e14 && span < 2e14 {
			check(timeTicks{first, 6}.Ticks(0, float64(span)/1000), 14)
		}
	})
}
