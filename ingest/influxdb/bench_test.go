package influxdb_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"varve/ingest"
	"varve/ingest/influxdb"
	"varve/ingest/ingesttest"
	"varve/internal/testkit/race"
)

// cpuLines is a body of lines as the time series benchmark suite has them: ten tags, ten fields.
func cpuLines(first, lines int) []byte {
	var b bytes.Buffer
	for i := first; i < first+lines; i++ {
		fmt.Fprintf(&b, "cpu,hostname=host_%d,region=eu-central-1,datacenter=eu-central-1a,rack=%d,os=Ubuntu16.04LTS,arch=x64,team=SF,service=%d,service_version=1,service_environment=test "+
			"usage_user=%di,usage_system=2i,usage_idle=%d.25,usage_nice=38.125,usage_iowait=22i,usage_irq=63i,usage_softirq=6i,usage_steal=44.5,usage_guest=%di,usage_guest_nice=80.75 %d\n",
			i, i%100, i%20, i%100, i%97, i%90, int64(nowMillis)*1_000_000)
	}
	return b.Bytes()
}

// shortLines is a body of lines with two tags and one field.
func shortLines(first, lines int) []byte {
	var b bytes.Buffer
	for i := first; i < first+lines; i++ {
		fmt.Fprintf(&b, "temperature,sensor=s%d,room=r%d value=%d.%d %d\n", i, i%50, 15+i%10, i%10, int64(nowMillis)*1_000_000)
	}
	return b.Bytes()
}

// rewinding is a request body that can be sent again without an allocation.
type rewinding struct {
	b  []byte
	at int
}

func (r *rewinding) Read(p []byte) (int, error) {
	if r.at == len(r.b) {
		return 0, io.EOF
	}
	n := copy(p, r.b[r.at:])
	r.at += n
	return n, nil
}

func (*rewinding) Close() error { return nil }

type bareWriter struct {
	header http.Header
	code   int
}

func (w *bareWriter) Header() http.Header         { return w.header }
func (w *bareWriter) Write(b []byte) (int, error) { return len(b), nil }
func (w *bareWriter) WriteHeader(code int)        { w.code = code }

// BenchmarkWrite writes lines of 100 000 known series over and over, 1000 lines a request.
func BenchmarkWrite(b *testing.B) {
	const linesPerRequest = 1000
	for _, c := range []struct {
		name          string
		body          func(first, lines int) []byte
		fieldsPerLine int
	}{{"cpu", cpuLines, 10}, {"short", shortLines, 1}} {
		b.Run(c.name, func(b *testing.B) {
			in := newInput(ingesttest.NewTable(), influxdb.Options{})
			h := in.Write()
			var bodies [][]byte
			for i := 0; i < 100_000/c.fieldsPerLine; i += linesPerRequest {
				bodies = append(bodies, c.body(i, linesPerRequest))
			}
			r := httptest.NewRequest(http.MethodPost, "/write?db=a", nil)
			w := &bareWriter{header: make(http.Header)}
			body := &rewinding{}
			write := func(i int) {
				body.b, body.at = bodies[i%len(bodies)], 0
				r.Body, r.ContentLength = body, int64(len(body.b))
				h.ServeHTTP(w, r)
				if w.code != http.StatusNoContent {
					b.Fatal(w.code)
				}
			}
			for i := range bodies {
				write(i)
			}
			b.SetBytes(int64(len(bodies[0])))
			b.ReportAllocs()
			b.ResetTimer()
			for i := 0; b.Loop(); i++ {
				write(i)
			}
			b.ReportMetric(float64(b.N)*linesPerRequest/b.Elapsed().Seconds(), "lines/s")
			b.ReportMetric(float64(b.N)*linesPerRequest*float64(c.fieldsPerLine)/b.Elapsed().Seconds(), "samples/s")
		})
	}
}

// TestNoAllocations shows that lines of known series allocate nothing: whatever a request
// allocates is the same for 100 lines and for 1000.
func TestNoAllocations(t *testing.T) {
	for name, body := range map[string]func(first, lines int) []byte{"cpu": cpuLines, "short": shortLines} {
		for _, lines := range []int{100, 1000} {
			t.Run(fmt.Sprint(name, lines), func(t *testing.T) {
				h := influxdb.New(ingesttest.NewTable(), ingest.Limits{}, ingest.NewMetrics(nil), discard, fixedNow, influxdb.Options{}).Write()
				r := httptest.NewRequest(http.MethodPost, "/write?db=a&precision=ns", nil)
				w := &bareWriter{header: make(http.Header)}
				from := &rewinding{b: body(0, lines)}
				r.ContentLength = int64(len(from.b))
				allocs := testing.AllocsPerRun(100, func() {
					from.at = 0
					r.Body = from
					h.ServeHTTP(w, r)
					require.Equal(t, http.StatusNoContent, w.code)
				})
				if !race.Enabled { // the race detector makes sync.Pool drop a part of what it is given
					require.LessOrEqual(t, allocs, 12.0)
				}
			})
		}
	}
}
