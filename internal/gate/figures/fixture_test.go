package figures_test

import (
	"bytes"
	"context"
	"encoding/json"
	"image"
	"image/color"
	"image/png"
	"io"
	"math"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"varve/internal/gate/peers"
	"varve/internal/gate/server"
	"varve/internal/testkit/leaks"
)

// home is the home of the programs that draw, where they keep lists of fonts that take long to make.
var home string

func TestMain(m *testing.M) {
	var err error
	if home, err = os.MkdirTemp("", "varve-figures-"); err != nil {
		os.Stderr.WriteString(err.Error())
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(home)
	server.RemoveBinaries()
	http.DefaultClient.CloseIdleConnections()
	if err := leaks.Find(); err != nil && code == 0 {
		os.Stderr.WriteString(err.Error())
		code = 1
	}
	os.Exit(code)
}

// patience bounds what should take seconds: only something that hangs takes as long.
const patience = 5 * time.Minute

// interval lies between samples; there are so many of each series.
const (
	interval = 15 * time.Second
	samples  = 960
)

// begin is of the first samples: four hours and more ago, at a full hour. All that is written is over by now.
var begin = time.Now().Truncate(time.Hour).Add(-5 * time.Hour)

func end() time.Time { return begin.Add((samples - 1) * interval) }

// hostile are label values that mean something to one of the programs.
var hostile = []string{
	`a,b;c`, `"quoted"`, "line\nfeed", "carriage\rreturn", `back\slash\`, "EOD", "EOD\n", "@macro", "`touch pwned`", "$(touch pwned)", "'single'", `''`,
	"{braces}_^under", "$math$", "$\\frac{1}{0}$", "_leading", "#comment \\", "%d %s", "\x01\x7f", "é 日本 🙂", "\u202egnp.exe", "</text><script>alert(1)</script>", "&amp;", "=1+1",
	"\\U0001F600 \\x41 \\n", "\u2028", "  spaces  ", "'''", `"""`, "]]>", "',system('touch pwned'),'", "%(touch pwned)s",
}

// the colours in which each program draws its first lines.
var (
	gnuplotColors    = []color.RGBA{{0x94, 0, 0xd3, 255}, {0, 0x9e, 0x73, 255}, {0x56, 0xb4, 0xe9, 255}}
	matplotlibColors = []color.RGBA{{0x1f, 0x77, 0xb4, 255}, {0xff, 0x7f, 0x0e, 255}, {0x2c, 0xa0, 0x2c, 255}}
	ownColors        = []color.RGBA{{0x1f, 0x77, 0xb4, 255}, {0xd5, 0x5e, 0, 255}, {0, 0x9e, 0x73, 255}}
)

// fill writes the samples to a receiver of remote write.
func fill(t *testing.T, url string) {
	t.Helper()
	var request prompb.WriteRequest
	add := func(f func(i int) (float64, bool), pairs ...string) {
		s := prompb.TimeSeries{Labels: prompb.FromLabels(labels.FromStrings(pairs...), nil)}
		for i := range samples {
			if v, ok := f(i); ok {
				s.Samples = append(s.Samples, prompb.Sample{Timestamp: begin.Add(time.Duration(i) * interval).UnixMilli(), Value: v})
			}
		}
		request.Timeseries = append(request.Timeseries, s)
	}
	for k, wave := range []string{"a", "b", "c"} {
		add(func(i int) (float64, bool) { return math.Sin(float64(i)/60+float64(k)) + 3*float64(k), true }, "__name__", "wave", "wave", wave)
	}
	// With a stale marker the gap begins at once.
	add(func(i int) (float64, bool) {
		if i == 320 {
			return math.Float64frombits(value.StaleNaN), true
		}
		return 5 + float64(i%40)/40, i < 320 || i > 640
	}, "__name__", "gappy")
	add(func(i int) (float64, bool) {
		return []float64{math.Inf(1), math.Inf(-1), math.NaN(), math.Copysign(0, -1), 5e-324, math.MaxFloat64, 0.1, 1e-7, 1e21, 123456789.125}[i/7%10], true
	}, "__name__", "odd")
	for i, text := range hostile {
		add(func(j int) (float64, bool) { return float64(i) + float64(j)/samples, true }, "__name__", "hostile", "text", text)
	}
	add(func(i int) (float64, bool) { return float64(i) * 7, true }, "__name__", "requests_total", "code", "200")
	body, err := request.Marshal()
	require.NoError(t, err)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, bytes.NewReader(snappy.Encode(nil, body)))
	require.NoError(t, err)
	r.Header.Set("Content-Encoding", "snappy")
	r.Header.Set("Content-Type", "application/x-protobuf")
	r.Header.Set("X-Prometheus-Remote-Write-Version", "0.1.0")
	answer, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	text, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	require.NoError(t, answer.Body.Close())
	require.Equal(t, 2, answer.StatusCode/100, "%s", text)
}

func startPrometheus(t *testing.T) *server.Server {
	t.Helper()
	s := server.StartPrometheus(t, server.Prometheus2(t), "storage: {tsdb: {out_of_order_time_window: 30d}}\n", "--web.enable-remote-write-receiver", "--web.route-prefix=/")
	fill(t, s.URL("/api/v1/write"))
	return s
}

// startVarve starts a server under a prefix, as behind a proxy.
func startVarve(t *testing.T, dir string) (s *server.Server, base string) {
	t.Helper()
	address, err := server.FreeAddress()
	require.NoError(t, err)
	s, err = server.Start(server.Options{Binary: server.Binary(t, ""), Address: address, Args: []string{
		"serve", "--storage.path", dir, "--web.listen-address", address, "--web.external-url", "http://" + address + "/metrics/archive/", "--storage.memory=64MiB", "--log.level=warn",
	}})
	require.NoError(t, err)
	t.Cleanup(s.Kill)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, s.WaitReady(ctx))
	base = s.URL("/metrics/archive")
	fill(t, base+"/api/v1/write")
	return s, base
}

func stop(t *testing.T, s *server.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, s.Terminate(ctx))
}

func startVictoria(t *testing.T) *peers.Victoria {
	t.Helper()
	v := peers.StartVictoria(t)
	fill(t, v.URL("/api/v1/write"))
	status, _, err := server.Get(t.Context(), v.URL("/internal/force_flush"))
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, status)
	return v
}

// exported is what a run of the verb left.
type exported struct {
	out, errs string
	code      int
	rssBytes  int64
}

// export runs the verb over the time of the data.
func export(t *testing.T, args ...string) exported {
	t.Helper()
	all := append([]string{"export", "query", "--start", begin.Format(time.RFC3339), "--end", end().Format(time.RFC3339)}, args...)
	return exportAs(t, all...)
}

func exportAs(t *testing.T, args ...string) exported {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var out, errs bytes.Buffer
	c := exec.CommandContext(ctx, server.Binary(t, ""), args...)
	c.Stdout, c.Stderr = &out, &errs
	require.NoError(t, c.Start())
	done, peak := make(chan struct{}), make(chan int64)
	go func() { peak <- peakOf(c.Process.Pid, done) }()
	err := c.Wait()
	close(done)
	rss := <-peak
	require.NoError(t, ctx.Err())
	if err != nil {
		require.ErrorAs(t, err, new(*exec.ExitError))
	}
	return exported{out.String(), errs.String(), c.ProcessState.ExitCode(), rss}
}

// peakOf looks at the most memory that a process had resident, until done. What wait reports counts what this process had when it forked.
func peakOf(pid int, done <-chan struct{}) (bytes int64) {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		bytes = max(bytes, residentOf(pid))
		select {
		case <-done:
			return bytes
		case <-ticker.C:
		}
	}
}

// residentOf is the most that a process had resident until now, 0 where that isn't known.
func residentOf(pid int) int64 {
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return 0
	}
	kib, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil {
		return 0
	}
	return kib << 10
}

// good is export where it has to go well.
func good(t *testing.T, args ...string) exported {
	t.Helper()
	e := export(t, args...)
	require.Zero(t, e.code, e.errs)
	return e
}

// apiSeries is a series as the query API answers it.
type apiSeries struct {
	Metric map[string]string    `json:"metric"`
	Values [][2]json.RawMessage `json:"values"`
}

// ask returns what query_range answers, and the body.
func ask(t *testing.T, base, query string, from, to time.Time, step time.Duration) ([]apiSeries, []byte) {
	t.Helper()
	answer, err := http.PostForm(base+"/api/v1/query_range", url.Values{
		"query": {query}, "start": {from.Format(time.RFC3339)}, "end": {to.Format(time.RFC3339)}, "step": {strconv.FormatFloat(step.Seconds(), 'f', -1, 64)}, "nocache": {"1"},
	})
	require.NoError(t, err)
	body, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	require.NoError(t, answer.Body.Close())
	require.Equal(t, http.StatusOK, answer.StatusCode, "%s", body)
	var a struct{ Data struct{ Result []apiSeries } }
	require.NoError(t, json.Unmarshal(body, &a))
	return a.Data.Result, body
}

// ran is what a program left: what it wrote to its standard output, and besides what it had to say, as Python does of fonts when it is slow.
type ran struct{ dir, out, errs string }

// runIn runs a program in a folder of its own beside the named files, and returns the folder. Nothing but want may appear in it.
func runIn(t *testing.T, files map[string]string, want []string, environment []string, program string, args ...string) ran {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c := exec.CommandContext(ctx, program, args...)
	c.Dir, c.Env = dir, append(append(os.Environ(), "HOME="+home, "MPLCONFIGDIR="+filepath.Join(home, "matplotlib"), "PYTHONDONTWRITEBYTECODE=1"), environment...)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	err := c.Run()
	require.NoError(t, err, "%s %s: %s%s", program, strings.Join(args, " "), out.Bytes(), errs.Bytes())
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var got []string
	for _, e := range entries {
		if _, ours := files[e.Name()]; !ours {
			got = append(got, e.Name())
		}
	}
	require.Equal(t, want, got, "%s%s", out.Bytes(), errs.Bytes())
	return ran{dir, out.String(), errs.String()}
}

func decode(t *testing.T, path string) image.Image {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	img, err := png.Decode(f)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	return img
}

// columns tells which columns of pixels have one that is nearly of the colour, in the upper part of a picture.
func columns(img image.Image, c color.RGBA, part float64) []bool {
	b := img.Bounds()
	out := make([]bool, b.Dx())
	for x := range out {
		for y := b.Dy() / 20; y < int(part*float64(b.Dy())); y++ {
			red, green, blue, _ := img.At(b.Min.X+x, b.Min.Y+y).RGBA()
			near := func(have uint32, want uint8) bool { return math.Abs(float64(have>>8)-float64(want)) < 80 }
			out[x] = out[x] || near(red, c.R) && near(green, c.G) && near(blue, c.B)
		}
	}
	return out
}

func count(columns []bool) (n int) {
	for _, c := range columns {
		if c {
			n++
		}
	}
	return n
}

// Parts of a picture: whole has the legend too, of whose lines each is short; plotted hasn't.
const (
	whole   = 1.0
	plotted = 0.75
)

// widestGap is the longest stretch without the colour, between columns that have it.
func widestGap(columns []bool) (widest int) {
	last := -1
	for x, c := range columns {
		if c {
			if last >= 0 {
				widest = max(widest, x-last-1)
			}
			last = x
		}
	}
	return widest
}
