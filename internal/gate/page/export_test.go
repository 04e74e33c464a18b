package page_test

import (
	"bytes"
	"encoding/csv"
	"encoding/xml"
	"image"
	"image/png"
	"io"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

type matrix struct {
	Result []struct {
		Metric map[string]string
		Values [][2]any
	}
}

// export opens the menu, chooses a format and returns the file.
func (x *tab) export(format, extension string) []byte {
	x.t.Helper()
	// A press on the button of an open menu closes it.
	x.until("the menu is closed", "(e => e && e.getAttribute('aria-expanded') === 'false')("+element("export-menu")+")")
	return x.download(extension, func() {
		x.click("export-menu")
		x.click("export-" + format)
	})
}

// TestExportCSV compares each value of the file with that of the API at the same time, as text: more than a thousand, a hostile label
// among the names.
func TestExportCSV(t *testing.T) {
	w := theWorld(t)
	x := newTab(t, w.archive.URL(""))
	query := "hostile_gauge or node_load1 / 3"
	x.open(explore([]string{query}, "from", w.to.Add(-6*time.Hour).Format(time.RFC3339), "to", w.to.Format(time.RFC3339)))
	x.drawn("graph")
	records, err := csv.NewReader(bytes.NewReader(x.export("csv", ".csv"))).ReadAll()
	require.NoError(t, err)
	require.Greater(t, len(records), 300)
	first, err := time.Parse(time.RFC3339, records[1][0])
	require.NoError(t, err)
	second, err := time.Parse(time.RFC3339, records[2][0])
	require.NoError(t, err)
	last, err := time.Parse(time.RFC3339, records[len(records)-1][0])
	require.NoError(t, err)
	answer := get[matrix](t, w.archive, "query_range", url.Values{
		"query": {query}, "start": {first.Format(time.RFC3339)}, "end": {last.Format(time.RFC3339)}, "step": {second.Sub(first).String()},
	})
	require.Len(t, answer.Result, 4)
	require.Len(t, records[0], 5)
	compared := 0
	for _, s := range answer.Result {
		column := -1
		for i, name := range records[0] {
			all := true
			for k, v := range s.Metric {
				// Names are written as PromQL writes them.
				value := strconv.Quote(v)
				all = all && (k == "__name__" && strings.HasPrefix(name, v) || strings.Contains(name, k+"="+value) || strings.Contains(name, strconv.Quote(k)+"="+value))
			}
			if all && i > 0 {
				column = i
			}
		}
		require.Positive(t, column, "%v is among %q", s.Metric, records[0])
		want := map[int64]float64{}
		for _, v := range s.Values {
			f, err := strconv.ParseFloat(v[1].(string), 64)
			require.NoError(t, err)
			want[int64(v[0].(float64)*1000)] = f
		}
		for _, r := range records[1:] {
			at, err := time.Parse(time.RFC3339, r[0])
			require.NoError(t, err)
			value, there := want[at.UnixMilli()]
			if !there {
				require.Empty(t, r[column])
				continue
			}
			got, err := strconv.ParseFloat(r[column], 64)
			require.NoError(t, err)
			require.Equal(t, value, got, "%s of %v", r[0], s.Metric)
			compared++
		}
	}
	require.Greater(t, compared, 1000)
	t.Logf("%d values compared", compared)
}

// TestExportPictures decodes the PNG and the SVG: both have the graph, its axes and the names of the series, and the SVG has of a hostile
// one its text alone.
func TestExportPictures(t *testing.T) {
	w := theWorld(t)
	x := newTab(t, w.archive.URL(""))
	x.open(explore([]string{"hostile_gauge"}, "from", "now-3h", "to", "now"))
	x.drawn("graph")
	picture, err := png.Decode(bytes.NewReader(x.export("png", ".png")))
	require.NoError(t, err)
	require.Greater(t, picture.Bounds().Dx(), 1000)
	require.Greater(t, coloured(picture), 1000)
	drawing := x.export("svg", ".svg")
	elements, text := map[string]int{}, strings.Builder{}
	for d := xml.NewDecoder(bytes.NewReader(drawing)); ; {
		token, err := d.Token()
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
		switch e := token.(type) {
		case xml.StartElement:
			elements[e.Name.Local]++
			for _, a := range e.Attr {
				require.False(t, strings.HasPrefix(strings.ToLower(a.Name.Local), "on"), "%s", a.Name.Local)
			}
		case xml.CharData:
			text.Write(e)
		}
	}
	for _, bad := range []string{"script", "img", "b", "i", "foreignObject", "image"} {
		require.Zero(t, elements[bad], bad)
	}
	require.Positive(t, elements["text"])
	require.GreaterOrEqual(t, elements["path"]+elements["polyline"], 2)
	require.Contains(t, text.String(), "onerror=alert(1)", "the label is there, as text")
}

// coloured counts the points of a picture that are no shade of grey.
func coloured(picture image.Image) (n int) {
	b := picture.Bounds()
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			r, g, bl, _ := picture.At(x, y).RGBA()
			if max(r, g, bl)-min(r, g, bl) > 40<<8 {
				n++
			}
		}
	}
	return n
}

// TestExportScripts gets the files that the server makes: each begins as its program wants and has the data in it.
func TestExportScripts(t *testing.T) {
	w := theWorld(t)
	x := newTab(t, w.archive.URL(""))
	x.open(explore([]string{"node_load1"}, "from", "now-3h", "to", "now"))
	x.drawn("graph")
	for format, part := range map[string]string{"gnuplot": "plot", "matplotlib": "import matplotlib"} {
		extension := map[string]string{"gnuplot": ".gp", "matplotlib": ".py"}[format]
		file := string(x.export(format, extension))
		require.Contains(t, file, part)
		require.Contains(t, file, "host0:9100")
		require.Greater(t, len(file), 2000)
	}
}
