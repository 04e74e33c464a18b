package recording_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"varve/benchmarks/recording"
	"varve/internal/testkit/leaks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(leaks.Patient(m)) }

// write makes a recording of scrapes and returns its path.
func write(t testing.TB, scrapes ...recording.Scrape) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x"+recording.Extension)
	w, err := recording.Create(path, "a target")
	require.NoError(t, err)
	for _, s := range scrapes {
		require.NoError(t, w.Append(s))
	}
	require.NoError(t, w.Close())
	return path
}

// Shows that scrapes come back as they were, and that a file has its name only once
// it is complete.
func TestWriteRead(t *testing.T) {
	long := strings.Repeat("x", 3<<20)
	want := []recording.Scrape{{Millis: -5, Text: []byte("a 1\n")}, {Millis: 10, Text: []byte{}}, {Millis: 11, Text: []byte(long)}}
	path := write(t, want...)
	file, err := os.Open(path)
	require.NoError(t, err)
	defer file.Close()
	r, err := recording.NewReader(file)
	require.NoError(t, err)
	defer r.Close()
	require.Equal(t, "a target", r.Name())
	for _, w := range want {
		got, err := r.Next()
		require.NoError(t, err)
		require.Equal(t, w.Millis, got.Millis)
		require.True(t, bytes.Equal(w.Text, got.Text))
	}
	_, err = r.Next()
	require.ErrorIs(t, err, io.EOF)

	w, err := recording.Create(path, "again")
	require.NoError(t, err)
	_, err = recording.Create(path, "at the same time")
	require.ErrorContains(t, err, "another run")
	require.NoError(t, w.Discard())
	_, err = os.Stat(path)
	require.NoError(t, err, "the earlier recording stays")
}

// Shows that damaged files are named so.
func TestCorrupt(t *testing.T) {
	pack := func(text string) []byte {
		var out bytes.Buffer
		w, err := zstd.NewWriter(&out)
		require.NoError(t, err)
		_, err = io.WriteString(w, text)
		require.NoError(t, err)
		require.NoError(t, w.Close())
		return out.Bytes()
	}
	const head = "varve-recording 1 x\n"
	for name, body := range map[string][]byte{
		"empty": nil, "no zstd": []byte("hello"), "other": pack("x\n"), "no scrape": pack(head), "half a head": pack(head + "12"),
		"half a scrape": pack(head + "12 5\nab"), "no number": pack(head + "12 x\n"), "negative": pack(head + "12 -1\n"), "huge": pack(head + "12 99999999999\n"),
		"back in time": pack(head + "12 4\na 1\n12 4\na 1\n"), "no metrics": pack(head + "12 4\n{{{\n"), "far away": pack(head + "12 4\na 1\n12000000 4\na 1\n"),
	} {
		_, err := recording.Read(bytes.NewReader(body), 1000)
		require.ErrorIs(t, err, recording.ErrCorrupt, name)
	}
}

// Shows slots, gaps, delays, types and decimal places.
func TestColumns(t *testing.T) {
	const head = "# TYPE c counter\n# TYPE g gauge\n# TYPE h histogram\n# TYPE s summary\n"
	c, err := recording.Open(write(t,
		recording.Scrape{Millis: 1_000_010, Text: []byte(head + "c 1\ng{a=\"1\"} 0.25\nh_bucket{le=\"1\"} 3\nh_sum 0.30000000000000004\ns{quantile=\"0.5\"} NaN\ns_count 4\nfree_total 7\n")},
		recording.Scrape{Millis: 1_001_000, Text: []byte("c 2\n")},
		recording.Scrape{Millis: 1_003_030, Text: []byte("c 2.5\nlate{} 1e-3\n")},
	), 1000)
	require.NoError(t, err)
	require.Equal(t, 4, c.Slots)
	require.Equal(t, 3, c.Scrapes)
	require.Equal(t, []int64{10, 0, -1, 30}, c.DelayMillis)
	type fact struct {
		counter  bool
		decimals int
	}
	facts := map[string]fact{}
	for _, s := range c.Series {
		require.Len(t, s.Values, 4)
		require.True(t, recording.IsAbsent(s.Values[2]))
		facts[s.Labels.String()] = fact{s.Counter, s.Decimals}
		if s.Labels.Get("__name__") == "c" {
			require.Equal(t, []float64{1, 2}, s.Values[:2])
			require.Equal(t, 2.5, s.Values[3])
		}
	}
	require.Equal(t, map[string]fact{
		`{__name__="c"}`: {true, 1}, `{__name__="g", a="1"}`: {false, 2}, `{__name__="h_bucket", le="1"}`: {true, 0}, `{__name__="h_sum"}`: {true, -1},
		`{__name__="s", quantile="0.5"}`: {false, -1}, `{__name__="s_count"}`: {true, 0}, `{__name__="free_total"}`: {true, 0}, `{__name__="late"}`: {false, 3},
	}, facts)
	require.False(t, recording.IsAbsent(math.NaN()))
}

// Shows that targets are recorded side by side with what they said, and that the
// files of a failed recording do not stay.
func TestRecord(t *testing.T) {
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/broken" {
			http.Error(w, "no", http.StatusInternalServerError)
			return
		}
		fmt.Fprintf(w, "n %d\n", asked.Add(1))
	}))
	defer server.Close()
	// A reader takes a gap of a thousand intervals for damage: no pause of the machine is as long as that.
	const intervalMillis = 100
	dir := t.TempDir()
	plan := recording.Plan{
		Targets:   []recording.Target{{Name: "one", URL: server.URL}, {Name: "two", URL: server.URL}},
		Directory: dir, Interval: intervalMillis * time.Millisecond, Scrapes: 5,
	}
	require.NoError(t, recording.Record(context.Background(), plan))
	for _, target := range plan.Targets {
		c, err := recording.Open(filepath.Join(dir, target.Name+recording.Extension), intervalMillis)
		require.NoError(t, err)
		require.Equal(t, target.Name, c.Name)
		require.NotZero(t, c.Scrapes)
		require.Len(t, c.Series, 1)
	}
	plan.Directory = t.TempDir()
	plan.Targets[1].URL += "/broken"
	plan.Interval, plan.Scrapes = time.Millisecond, 1_000_000
	require.ErrorContains(t, recording.Record(context.Background(), plan), "status 500")
	left, err := os.ReadDir(plan.Directory)
	require.NoError(t, err)
	require.Empty(t, left)
}

// FuzzRead shows that any bytes are read or refused, and that what is read has
// columns of equal length.
func FuzzRead(f *testing.F) {
	for _, scrapes := range [][]recording.Scrape{nil, {{Millis: 5, Text: []byte("a 1\n")}, {Millis: 1200, Text: []byte("a 2\nb{x=\"y\"} NaN\n")}}} {
		text, err := os.ReadFile(write(f, scrapes...))
		require.NoError(f, err)
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		c, err := recording.Read(bytes.NewReader(body), 1000)
		if err != nil {
			return
		}
		require.Len(t, c.DelayMillis, c.Slots)
		for _, s := range c.Series {
			require.Len(t, s.Values, c.Slots)
		}
	})
}
