package codec_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"varve/benchmarks/recording"
)

var recordings = flag.String("recordings", "", "where recordings are kept, the user's cache if empty")

// openDays are the days read so far, since a benchmark is run several times.
var openDays = map[string]*day{}

// recordedDay reads the longest recording of an exporter. Without one the benchmark is skipped.
func recordedDay(b *testing.B, name string) *day {
	b.Helper()
	if d := openDays[name]; d != nil {
		return d
	}
	path, err := longestRecording(name)
	if err != nil {
		// A skip by itself is silent without -v.
		fmt.Fprintf(os.Stderr, "%s: NOT MEASURED: %v; make recordings, which takes 96 minutes: go run ./benchmarks record\n", b.Name(), err)
		b.SkipNow()
	}
	c, err := recording.Open(path, recordedMillis)
	if err != nil {
		b.Fatal(err)
	}
	d, err := newDay(c)
	if err != nil {
		b.Fatal(err)
	}
	if len(d.clock) < dayRounds*9/10 {
		b.Logf("%s is too short for a day: %d of %d steps", path, len(d.clock), dayRounds)
	}
	openDays[name] = d
	return d
}

// longestRecording finds the recording of an exporter with the most scrapes. The directory
// that holds it is called TIME-SCRAPES.
func longestRecording(name string) (string, error) {
	dir := *recordings
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("find the cache: %w", err)
		}
		dir = filepath.Join(cache, "varve-bench", "recordings")
	}
	paths, err := filepath.Glob(filepath.Join(dir, "*-*", name+recording.Extension))
	if err != nil {
		return "", err
	}
	longest, most := "", 0
	for _, path := range paths {
		_, scrapes, _ := strings.Cut(filepath.Base(filepath.Dir(path)), "-")
		if n, err := strconv.Atoi(scrapes); err == nil && n >= most {
			longest, most = path, n
		}
	}
	if longest == "" {
		return "", fmt.Errorf("no recording of %s in %s", name, dir)
	}
	return longest, nil
}

// BenchmarkRecorded encodes and decodes a day of each recorded exporter, all series of it
// at a time. B/sample is values and directories without keys; clock-B/sample what the
// shared timestamps add to that.
func BenchmarkRecorded(b *testing.B) {
	for _, name := range []string{"node", "prometheus", "varve"} {
		b.Run(name, func(b *testing.B) { benchmarkDay(b, recordedDay(b, name)) })
	}
}

func benchmarkDay(b *testing.B, d *day) {
	var kept sealer
	out, err := kept.seal(d)
	if err != nil {
		b.Fatal(err)
	}
	if fault, err := d.differs(out); err != nil || fault != "" {
		b.Fatalf("what comes back is another: %s, %v", fault, err)
	}
	chunks, err := encodeXOR(d)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		var s sealer
		for b.Loop() {
			if _, err := s.seal(d); err != nil {
				b.Fatal(err)
			}
		}
		d.perSample(b)
		b.ReportMetric(float64(out.valueBytes())/float64(d.samples), "B/sample")
		b.ReportMetric(float64(len(out.clock))/float64(d.samples), "clock-B/sample")
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		var u unsealer
		for b.Loop() {
			if err := u.unseal(out, nil); err != nil {
				b.Fatal(err)
			}
		}
		d.perSample(b)
	})
	b.Run("xor-encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := encodeXOR(d); err != nil {
				b.Fatal(err)
			}
		}
		d.perSample(b)
		b.ReportMetric(float64(chunks.bytes())/float64(d.samples), "B/sample")
	})
	b.Run("xor-decode", func(b *testing.B) {
		b.ReportAllocs()
		var r xorReader
		for b.Loop() {
			for _, series := range chunks {
				if _, err := r.read(series); err != nil {
					b.Fatal(err)
				}
			}
		}
		d.perSample(b)
	})
}

// perSample reports the time that a sample of the day takes.
func (d *day) perSample(b *testing.B) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(d.samples), "ns/sample")
}
