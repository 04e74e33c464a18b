package main

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"

	"varve/intake"
)

// blockSample is a sample of a block: a histogram, or without one a float.
type blockSample struct {
	t int64
	f float64
	h *histogram.Histogram
}

func (s blockSample) T() int64                      { return s.t }
func (s blockSample) ST() int64                     { return 0 }
func (s blockSample) F() float64                    { return s.f }
func (s blockSample) H() *histogram.Histogram       { return s.h }
func (s blockSample) FH() *histogram.FloatHistogram { return nil }
func (s blockSample) Copy() chunks.Sample           { return s }
func (s blockSample) Type() chunkenc.ValueType {
	if s.h != nil {
		return chunkenc.ValHistogram
	}
	return chunkenc.ValFloat
}

// makeBlocks makes a directory with two blocks of 20 series with a sample a minute.
func makeBlocks(t *testing.T, from time.Time, span time.Duration) (dir string, samples int) {
	dir = t.TempDir()
	half := from.Add(span / 2)
	for _, part := range [][2]time.Time{{from, half}, {half, from.Add(span)}} {
		var all []storage.Series
		for i := range 20 {
			var list []chunks.Sample
			for at := part[0].UnixMilli(); at < part[1].UnixMilli(); at += 60_000 {
				list = append(list, blockSampleOf(i, at))
				samples++
			}
			name := "value"
			if i < 5 {
				name = "sizes"
			}
			all = append(all, storage.NewListSeries(labels.FromStrings(model.MetricNameLabel, name, "i", fmt.Sprint(i)), list))
		}
		_, err := tsdb.CreateBlock(all, dir, span.Milliseconds(), slog.New(slog.DiscardHandler))
		require.NoError(t, err)
	}
	return dir, samples
}

func blockSampleOf(i int, at int64) chunks.Sample {
	if i < 5 {
		return blockSample{t: at, h: tsdbutil.GenerateTestHistogram(at / 60_000 % 50)}
	}
	return blockSample{t: at, f: float64(at/60_000%1000) / float64(i)}
}

// TestImportTSDB shows that blocks go into a running server whole and are proved equal, that a rerun finds them done or there already, that a live
// server's samples go by remote read into a data directory that no server runs on, and that this is a sound archive.
func TestImportTSDB(t *testing.T) {
	// Before the server, which writes samples of its own into the day on which it runs.
	from := time.Now().UTC().Truncate(24 * time.Hour).Add(-60 * time.Hour)
	p := start(t, t.TempDir(), "--web.enable-admin-api")
	dir, samples := makeBlocks(t, from, 48*time.Hour)
	code, stdout, stderr := invoke(t, "import", "tsdb", dir, "--url="+p.base)
	require.Zero(t, code, stdout+stderr)
	require.Contains(t, stdout, fmt.Sprintf("%d samples of", samples))
	require.Contains(t, stdout, "days: 3 taken whole, 0 through the write port")
	require.Contains(t, stdout, "every sample proved equal")
	require.Contains(t, stdout, " before, ")
	at := from.Add(13 * time.Hour)
	require.Equal(t, "20", p.value(`count({__name__=~"value|sizes"})`, at))

	code, stdout, stderr = invoke(t, "import", "tsdb", dir, "--url="+p.base)
	require.Zero(t, code, stdout+stderr)
	require.Contains(t, stdout, "3 done before")
	require.Contains(t, stdout, "every sample proved equal, on the 3 days done before when they were imported")
	code, stdout, stderr = invoke(t, "import", "tsdb", dir, "--url="+p.base, "--restart", "--match=value{i='7'}")
	require.Zero(t, code, stdout+stderr)
	require.Contains(t, stdout, fmt.Sprintf("3 through the write port (0 samples new, %d there already)", samples/20))
	_, err := os.Stat(dir + importStateSuffix)
	require.NoError(t, err)

	archived := filepath.Join(t.TempDir(), "data")
	code, stdout, stderr = invoke(t, "import", "remote-read", p.base, "--data="+archived, "--start="+from.Format(time.RFC3339), "--match=value",
		"--end="+from.Add(36*time.Hour).Format(time.RFC3339), "--extra-label=site=x")
	require.Zero(t, code, stdout+stderr)
	require.Contains(t, stdout, "days: 2 taken whole")
	require.Contains(t, stdout, fmt.Sprintf("%d samples of", samples/20*15*3/4))
	require.Contains(t, stdout, "every sample proved equal")
	p.terminate()
	code, stdout, stderr = invoke(t, "check", "data", archived)
	require.Zero(t, code, stdout+stderr)
	p = start(t, archived)
	require.Equal(t, "15", p.value(`count(value{site="x"})`, at))
	p.terminate()
}

// TestIntakeReport shows that a report says of no more samples that they are equal than were looked at.
func TestIntakeReport(t *testing.T) {
	f := func(r intake.Report, ended bool, want string) {
		t.Helper()
		var b strings.Builder
		require.NoError(t, printIntakeReport(&b, &r, ended))
		require.Equal(t, want, b.String()[strings.LastIndex(strings.TrimSpace(b.String()), "\n")+1:])
	}
	f(intake.Report{Samples: 5}, true, "every sample proved equal\n")
	f(intake.Report{Samples: 5}, false, "every sample so far proved equal\n")
	f(intake.Report{Samples: 5, RefusedSamples: map[string]uint64{"out_of_retention": 2}}, true, "every sample that was not refused proved equal\n")
	f(intake.Report{Samples: 5, RefusedDays: []intake.RefusedDay{{Day: "2026-01-01", Why: "old"}}}, true, "every sample that was not refused proved equal\n")
	f(intake.Report{Samples: 5, Unequal: []intake.Difference{{Day: "2026-01-01"}}}, true, "NOT EQUAL: run the same command again, which tries those days again\n")
}

// TestImportTSDBMistakes shows what is said of what can't be imported.
func TestImportTSDBMistakes(t *testing.T) {
	for text, args := range map[string][]string{
		"name data directories":       {"tsdb"},
		"--end is not behind --start": {"tsdb", "x", "--start=2026-01-02", "--end=2026-01-01"},
		"--match {: ":                 {"tsdb", "x", "--match={"},
		"not of the form name=value":  {"tsdb", "x", "--extra-label=y"},
		"--forward needs":             {"tsdb", "x", "--forward", "--data=y"},
		"give --start":                {"remote-read", "http://127.0.0.1:1"},
		"neither RFC 3339":            {"remote-read", "http://127.0.0.1:1", "--start=noon"},
	} {
		code, _, stderr := invoke(t, append([]string{"import"}, args...)...)
		require.Equal(t, 1, code)
		require.Contains(t, stderr, text)
	}
	p := start(t, t.TempDir())
	dir, _ := makeBlocks(t, time.Now().Add(-50*time.Hour), 24*time.Hour)
	code, _, stderr := invoke(t, "import", "tsdb", dir, "--url="+p.base)
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "--web.enable-admin-api")
	p.terminate()
}
