package opentsdb_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"varve/ingest"
	"varve/ingest/ingesttest"
	"varve/ingest/opentsdb"
	"varve/internal/testkit/race"
)

// points are a body of n points, and the same as put lines.
func points(n int) (body, lines string) {
	var b, l strings.Builder
	for i := range n {
		separator := ","
		if i == 0 {
			separator = "["
		}
		metric, host := fmt.Sprintf("sys.cpu.nice.%03d", i%200), fmt.Sprintf("web%04d.example.org", i/200)
		fmt.Fprintf(&b, `%s{"metric":%q,"timestamp":%d,"value":%d.25,"tags":{"host":%q,"dc":"lga","cpu":"%d"}}`, separator, metric, 1700000000+i%7, i, host, i%16)
		fmt.Fprintf(&l, "put %s %d %d.25 host=%s dc=lga cpu=%d\n", metric, 1700000000+i%7, i, host, i%16)
	}
	return b.String() + "]", l.String()
}

// poster posts one body again and again.
func poster(tb testing.TB, body string) func() {
	h := handler(tb, ingesttest.NewTable(), opentsdb.Options{}, ingest.Limits{})
	content, reader := []byte(body), new(rewinding)
	r := httptest.NewRequest(http.MethodPost, "/api/put", nil)
	r.ContentLength = int64(len(content))
	w := &bareWriter{header: make(http.Header)}
	return func() {
		reader.Reset(content)
		r.Body = reader
		h.ServeHTTP(w, r)
		if w.code != http.StatusNoContent {
			tb.Fatal(w.code)
		}
	}
}

// TestNoAllocations shows that points of known series allocate nothing, over HTTP and over telnet.
func TestNoAllocations(t *testing.T) {
	for _, n := range []int{500, 5000} {
		body, _ := points(n)
		allocs := testing.AllocsPerRun(100, poster(t, body))
		// The race detector makes sync.Pool drop a part of what it is given.
		if !race.Enabled {
			require.LessOrEqual(t, allocs, 4.0)
		}
	}
}

// cpuNanos is the CPU time of the process: unlike the clock it does not count what other processes took of the cores.
func cpuNanos() int64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// BenchmarkPut measures ServeHTTP without a network and without a disk.
func BenchmarkPut(b *testing.B) {
	body, _ := points(2000)
	post := poster(b, body)
	post()
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	cpu := cpuNanos()
	for b.Loop() {
		post()
	}
	b.ReportMetric(float64(cpuNanos()-cpu)/float64(b.N*2000), "cpu-ns/point")
}

// BenchmarkTelnet measures put lines over a connection on loopback, with the client's part of it.
func BenchmarkTelnet(b *testing.B) {
	_, lines := points(2000)
	_, address := listen(b, ingesttest.NewTable(), opentsdb.Options{}, ingest.Limits{})
	conn := dial(b, address)
	content := bytes.Repeat([]byte(lines), 10)
	b.SetBytes(int64(len(content)))
	b.ReportAllocs()
	cpu := cpuNanos()
	for b.Loop() {
		if _, err := conn.Write(content); err != nil {
			b.Fatal(err)
		}
	}
	require.NoError(b, conn.CloseWrite())
	said, err := io.ReadAll(conn)
	require.NoError(b, err)
	require.Empty(b, said)
	b.ReportMetric(float64(cpuNanos()-cpu)/float64(b.N*20000), "cpu-ns/point")
}
