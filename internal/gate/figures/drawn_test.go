package figures_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"image"
	"image/color"
	"io"
	"math"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"varve/internal/gate/server"
)

// title is as hostile as labels are, in letters for which every machine has a font: gnuplot draws others with whatever font has them, at any size.
const title = "`touch pwned` 'single' \"double\" {a}_b^c $\\frac{1}{0}$ @macro EOD \\\n# EOD\n', system('touch pwned'), é"

// files exports a query from Varve in a format and stops the server: what is drawn later has nothing but the file.
func files(t *testing.T, format string, queries ...[]string) (texts []string) {
	t.Helper()
	s, base := startVarve(t, t.TempDir())
	for _, q := range queries {
		texts = append(texts, good(t, queryArgs(q, "--step", "15s", "--format", format, "--title", title, "--unit", "wave's \"unit\" _x", "--url", base)...).out)
	}
	s.Kill()
	return texts
}

// requireLines shows that three lines go through the picture from side to side.
func requireLines(t *testing.T, path string, size image.Point, colors []color.RGBA) image.Image {
	t.Helper()
	img := decode(t, path)
	require.Equal(t, size, img.Bounds().Size())
	for i, c := range colors {
		drawn := columns(img, c, whole)
		require.Greater(t, count(drawn), size.X*7/10, "line %d", i)
		// Another line may hide it where they cross.
		require.Less(t, widestGap(drawn), 60, "line %d", i)
	}
	return img
}

// TestGnuplot draws three waves with gnuplot to a PNG of the size that is asked for, in which each goes from side to side in its colour; a line with a
// gap, in which there is nothing; and all hostile labels under a hostile title, which draw and do nothing else. The terminal for
// text draws too, and without a terminal it ends well.
func TestGnuplot(t *testing.T) {
	path, err := exec.LookPath("gnuplot")
	if err != nil {
		server.Lacking(t, "no gnuplot in PATH: apt-get install gnuplot-nox")
	}
	texts := files(t, "gnuplot", []string{"wave"}, []string{"gappy"}, []string{"hostile", "odd", "sum(wave)"})
	draw := func(text string) string {
		r := runIn(t, map[string]string{"figure.gp": text}, []string{"x.png"}, nil, path, "-e", "set term pngcairo size 800,500; set output 'x.png'", "figure.gp")
		return filepath.Join(r.dir, "x.png")
	}
	requireLines(t, draw(texts[0]), image.Pt(800, 500), gnuplotColors)
	gap := columns(decode(t, draw(texts[1])), gnuplotColors[0], plotted)
	require.Greater(t, count(gap), 350)
	require.InDelta(t, 800*0.8/3, widestGap(gap), 60)
	img := decode(t, draw(texts[2]))
	require.Greater(t, count(columns(img, gnuplotColors[1], plotted)), 400)
	for _, text := range texts {
		r := runIn(t, map[string]string{"figure.gp": text}, nil, nil, path, "-e", "set term dumb 120 40", "figure.gp")
		require.Greater(t, strings.Count(r.out, "\n"), 35)
		require.NotContains(t, r.out+r.errs, "warning")
	}
	r := runIn(t, map[string]string{"figure.gp": texts[0]}, nil, []string{"GNUTERM=unknown"}, path, "figure.gp")
	require.NotContains(t, strings.ToLower(r.out+r.errs), "error")
}

// readBack prints what is in the file, as Python understands it.
const readBack = `
import json, runpy
g = runpy.run_path('figure.py')
print(json.dumps({
    'title': g['TITLE'], 'unit': g['UNIT'], 'names': [name for name, _ in g['SERIES']],
    'times': [round(t.timestamp() * 1000) for t in g['times']],
    'values': [[None if v is None else repr(v) for v in s] for s in g['values']],
}))
`

// TestMatplotlib draws as TestGnuplot does, and shows besides that Python finds in the file the names, the texts and the values that the
// API has, with None where there is none.
func TestMatplotlib(t *testing.T) {
	path := python(t, "matplotlib", "python3-matplotlib")
	s, base := startVarve(t, t.TempDir())
	hostileSeries, _ := ask(t, base, "hostile", begin, end(), interval)
	odd, _ := ask(t, base, "odd", begin, end(), interval)
	gappy, _ := ask(t, base, "gappy", begin, end(), interval)
	s.Kill()
	texts := files(t, "matplotlib", []string{"wave"}, []string{"gappy"}, []string{"hostile", "odd", "gappy"})
	draw := func(text, name string) string {
		r := runIn(t, map[string]string{"figure.py": text}, []string{name}, nil, path, "figure.py", name)
		require.NotContains(t, r.out+r.errs, "Error")
		return filepath.Join(r.dir, name)
	}
	// The legend comes below what was asked for: 24 and 16 a name.
	requireLines(t, draw(texts[0], "x.png"), image.Pt(1000, 600+24+3*16), matplotlibColors)
	gap := columns(decode(t, draw(texts[1], "x.png")), matplotlibColors[0], plotted)
	require.Greater(t, count(gap), 450)
	require.InDelta(t, 1000*0.93/3, widestGap(gap), 60)
	draw(texts[2], "x.png")
	draw(texts[2], "x.svg")
	runIn(t, map[string]string{"figure.py": texts[0]}, nil, []string{"MPLBACKEND=Agg"}, path, "figure.py")

	r := runIn(t, map[string]string{"figure.py": texts[2], "read.py": readBack}, nil, []string{"MPLBACKEND=Agg"}, path, "-W", "ignore", "read.py")
	var got struct {
		Title, Unit string
		Names       []string
		Times       []int64
		Values      [][]*string
	}
	require.NoError(t, json.Unmarshal([]byte(r.out), &got), r.out+r.errs)
	require.Equal(t, "wave's \"unit\" _x", got.Unit)
	require.Contains(t, got.Title, "`touch pwned` 'single' \"double\" {a}_b^c $\\frac{1}{0}$ @macro EOD \\ # EOD ', system")
	want := append(append(hostileSeries, odd...), gappy...)
	require.Len(t, got.Names, len(want))
	for i, s := range want {
		if text, ok := s.Metric["text"]; ok {
			require.Equal(t, `hostile{text=`+strconv.Quote(text)+`}`, got.Names[i])
		}
		values := map[int64]float64{}
		for _, v := range s.Values {
			at, err := strconv.ParseFloat(string(v[0]), 64)
			require.NoError(t, err)
			var text string
			require.NoError(t, json.Unmarshal(v[1], &text))
			values[int64(at*1000)], err = strconv.ParseFloat(text, 64)
			require.NoError(t, err)
		}
		require.Len(t, got.Values[i], len(got.Times))
		for j, at := range got.Times {
			want, ok := values[at]
			require.Equal(t, ok, got.Values[i][j] != nil)
			if ok {
				have, err := strconv.ParseFloat(*got.Values[i][j], 64)
				require.NoError(t, err)
				require.True(t, have == want && math.Signbit(have) == math.Signbit(want) || math.IsNaN(have) && math.IsNaN(want), "%s: %v and %v", got.Names[i], have, want)
			}
		}
	}
}

// TestPNGAndSVG shows that the figures that the verb draws have the lines in their colours and the gap, that those of the server are the same
// bytes, and that an SVG is well-formed with hostile labels.
func TestPNGAndSVG(t *testing.T) {
	_, base := startVarve(t, t.TempDir())
	file := filepath.Join(t.TempDir(), "x.png")
	good(t, "--query", "wave", "--step", "15s", "--output", file, "--width", "900", "--height", "500", "--unit", "bytes", "--url", base)
	requireLines(t, file, image.Pt(900, 500), ownColors)
	own := good(t, "--query", "wave", "--step", "15s", "--format", "png", "--width", "900", "--height", "500", "--unit", "bytes", "--url", base)
	require.Equal(t, own.out, served(t, base, url.Values{"query": {"wave"}, "format": {"png"}, "width": {"900"}, "height": {"500"}, "unit": {"bytes"}}))
	good(t, "--query", "gappy", "--step", "15s", "--output", file, "--url", base)
	gap := columns(decode(t, file), ownColors[0], plotted)
	require.Greater(t, count(gap), 450)
	require.InDelta(t, 1000*0.93/3, widestGap(gap), 60)
	svg := good(t, queryArgs([]string{"hostile", "odd"}, "--step", "15s", "--format", "svg", "--title", title, "--url", base)...).out
	d := xml.NewDecoder(bytes.NewReader([]byte(svg)))
	var text strings.Builder
	for {
		token, err := d.Token()
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
		switch token := token.(type) {
		case xml.StartElement:
			require.NotEqual(t, "script", token.Name.Local)
		case xml.CharData:
			text.Write(token)
		}
	}
	require.Contains(t, text.String(), `hostile{text="$(touch pwned)"}`)
	require.Contains(t, text.String(), `</text><script>alert(1)</script>`)
}

// TestServedAsWritten shows that the server's export is, byte by byte, that of the verb, in every format of text.
func TestServedAsWritten(t *testing.T) {
	_, base := startVarve(t, t.TempDir())
	for _, format := range []string{"csv", "jsonl", "gnuplot", "matplotlib", "svg"} {
		want := good(t, "--query", "hostile", "--query", "gappy", "--step", "15s", "--format", format, "--title", "T", "--url", base).out
		same(t, want, served(t, base, url.Values{"query": {"hostile", "gappy"}, "format": {format}, "title": {"T"}}), format)
	}
}

func served(t *testing.T, base string, form url.Values) string {
	t.Helper()
	form.Set("start", begin.Format(time.RFC3339))
	form.Set("end", strconv.FormatInt(end().Unix(), 10))
	form.Set("step", "15s")
	answer, err := http.Get(base + "/api/v1/export/query?" + form.Encode())
	require.NoError(t, err)
	body, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	require.NoError(t, answer.Body.Close())
	require.Equal(t, http.StatusOK, answer.StatusCode, "%s", body)
	return string(body)
}
