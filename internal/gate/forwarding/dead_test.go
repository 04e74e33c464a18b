package forwarding_test

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"varve/internal/gate/server"
)

const deadConfiguration = `
storage: {memory: 64MiB, runs: {max_age: 1s}, journal: {max_size: 1MiB}}
self_scrape: {enabled: false}
log: {level: warn}
outputs:
  - {name: good, batch_samples: 10000, batch_delay: 100ms, timeout: 5m, remote_write: {url: %q}}
%s`

const (
	deadSeries = 2000
	// deadSteps are as many as make a load of some seconds.
	deadSteps = 600
	// deadLagMax is what the good output may be behind while the load goes on, on a machine that stalls now and then.
	deadLagMax = time.Minute
	// deadMemoryMax bounds the process: 64 MiB of the engine, 16 MiB in flight for each output, and the rest of a small server with
	// race detector and cgo, whatever the backlog.
	deadMemoryMax = 1 << 30
)

// TestDeadTargets shows that five outputs whose targets refuse connections, hang, fail, put off and refuse the credentials
// harm neither ingestion nor a sixth one: nothing is refused, the good one keeps up, and memory stays bounded.
func TestDeadTargets(t *testing.T) {
	alone := loadBeside(t, "")
	beside := loadBeside(t, deadOutputs(t))
	t.Logf("with a good target alone: %v", alone)
	t.Logf("with five dead ones beside it: %v", beside)
}

// load is what became of a load.
type load struct {
	rate            float64 // samples a second
	p99             time.Duration
	lagMax          float64 // seconds
	memory, backlog float64
}

// String implements fmt.Stringer.
func (l load) String() string {
	return fmt.Sprintf("%.0f samples/s in, p99 of a request %v, the good one at most %.1f s behind, %.0f MiB resident, %.0f samples behind at all outputs",
		l.rate, l.p99.Round(time.Millisecond), l.lagMax, l.memory/(1<<20), l.backlog)
}

func loadBeside(t *testing.T, outputs string) (l load) {
	t.Helper()
	good := newSink(t)
	v := newVarve(t, func() string { return fmt.Sprintf(deadConfiguration, good.server.URL+"/api/v1/write", outputs) })
	v.start()
	v.begun("good")
	if outputs != "" {
		v.begun(deadNames...)
	}
	b := newBulk(t, "http://"+v.address, "load", deadSeries, time.Now().Add(-3*time.Hour), 15*time.Second)
	began := time.Now()
	written := make(chan struct{})
	var work sync.WaitGroup
	work.Go(func() {
		defer close(written)
		b.write(0, deadSteps)
	})
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for under := true; under; {
		select {
		case <-written:
			under = false
		case <-ticker.C:
			l.lagMax = max(l.lagMax, v.output("good").Lag.Seconds)
		}
	}
	work.Wait()
	l.rate = float64(deadSeries*deadSteps) / time.Since(began).Seconds()
	l.p99 = b.p99()
	v.drain("good")
	require.Equal(t, int64(deadSeries*deadSteps), good.samples.Load())
	l.memory, l.backlog = v.metric("process_resident_memory_bytes"), v.metric("varve_forward_lag_samples")
	require.Less(t, l.lagMax, deadLagMax.Seconds())
	require.Less(t, l.memory, float64(deadMemoryMax))
	if outputs != "" {
		for _, name := range deadNames {
			// One that hangs is found out when the time for an attempt is over.
			v.await(name, "it waits", func(o *outputStatus) bool { return o.State != "running" })
			o := v.output(name)
			require.Zero(t, o.Totals.Sent+o.Totals.Dropped+o.Totals.Refused, "%+v", o)
			require.GreaterOrEqual(t, o.Lag.Samples, uint64(deadSeries*deadSteps), "%+v", o)
		}
	}
	v.stop()
	v.verb("check", "data")
	return l
}

// deadNames are the names of deadOutputs.
var deadNames = []string{"closed", "hanging", "failing", "busy", "forbidden"}

// deadOutputs are the outputs with targets that take nothing.
func deadOutputs(t *testing.T) (text string) {
	t.Helper()
	closed, err := server.FreeAddress()
	require.NoError(t, err)
	for _, o := range []struct{ name, url string }{
		{"closed", "http://" + closed},
		{"hanging", "http://" + hanging(t)},
		{"failing", answering(t, http.StatusInternalServerError)},
		{"busy", answering(t, http.StatusTooManyRequests)},
		{"forbidden", answering(t, http.StatusUnauthorized)},
	} {
		text += fmt.Sprintf("  - {name: %s, timeout: 5s, max_backoff: 1s, remote_write: {url: %q}}\n", o.name, o.url+"/api/v1/write")
	}
	return text
}

// hanging is the address of a listener that takes connections and says nothing.
func hanging(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var conns []net.Conn
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns = append(conns, c)
		}
	}()
	t.Cleanup(func() {
		require.NoError(t, l.Close())
		<-ended
		for _, c := range conns {
			_ = c.Close()
		}
	})
	return l.Addr().String()
}

// answering is the URL of a server that answers all with a status.
func answering(t *testing.T, status int) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(status)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// sink takes everything and counts it.
type sink struct {
	server  *httptest.Server
	samples atomic.Int64
}

func newSink(t *testing.T) *sink {
	t.Helper()
	s := &sink{}
	s.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		samples, _, err := decodeBody(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		s.samples.Add(int64(samples))
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(s.server.Close)
	return s
}
