package scrape_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"varve/ingest"
	"varve/ingest/ingesttest"
	"varve/ingest/scrape"
	"varve/internal/testkit/leaks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(leaks.Patient(m)) }

// patience bounds the wait for something that happens within milliseconds, which only something that hangs outlasts.
const patience = 2 * time.Minute

// rig is a scraper that runs and writes to a sink in memory.
type rig struct {
	t       *testing.T
	sink    *ingesttest.Sink
	scraper *scrape.Scraper
	reg     *prometheus.Registry
	log     *lockedBuffer
	stop    func()
}

// start starts a scraper with the configuration, which ends with the test. The
// options are filled in where a test has no wish.
func start(t *testing.T, o scrape.Options, configuration string) *rig {
	t.Helper()
	r := &rig{t: t, sink: ingesttest.NewSink(), reg: prometheus.NewRegistry(), log: &lockedBuffer{}}
	appendable := ingest.NewAppendable(r.sink, ingest.Limits{}, ingest.NewMetrics(r.reg).For("test"), "scrape")
	appendable.SkipRepeated()
	o.Name, o.Appendable, o.Registerer = "test", appendable, r.reg
	o.Logger = slog.New(slog.NewTextHandler(r.log, nil))
	if o.DiscoveryInterval == 0 {
		o.DiscoveryInterval = time.Millisecond
	}
	var err error
	r.scraper, err = scrape.New(o)
	require.NoError(t, err)
	require.NoError(t, r.scraper.Apply([]byte(configuration)))
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- r.scraper.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-ran)
	})
	t.Cleanup(r.stop)
	return r
}

// series returns what was written of the series of the job with the text of labels
// before job and instance.
func (r *rig) named(name string) map[string]ingesttest.Series {
	out := make(map[string]ingesttest.Series)
	for ls, s := range r.sink.Written() {
		if strings.HasPrefix(ls, fmt.Sprintf(`{__name__=%q`, name)) {
			out[ls] = s
		}
	}
	return out
}

// only returns what was written of the only series of a name.
func (r *rig) only(name string) ingesttest.Series {
	r.t.Helper()
	found := r.named(name)
	require.Len(r.t, found, 1, name)
	for _, s := range found {
		return s
	}
	panic("unreachable")
}

// until waits for a condition.
func (r *rig) until(what string, condition func() bool) {
	r.t.Helper()
	require.Eventually(r.t, condition, patience, 5*time.Millisecond, "%s; log: %s", what, r.log)
}

// scrapes waits until so many scrapes are written, of targets that are down too.
func (r *rig) scrapes(n int) {
	r.t.Helper()
	r.until(fmt.Sprintf("%d scrapes", n), func() bool {
		for _, s := range r.named("up") {
			if len(s.Samples) >= n {
				return true
			}
		}
		return false
	})
}

// wholeScrapes waits until so many scrapes of a target that is up are written. On a busy machine one may take too long, and is one of a target
// that is down.
func (r *rig) wholeScrapes(n int) {
	r.t.Helper()
	r.until(fmt.Sprintf("%d whole scrapes", n), func() bool {
		for _, s := range r.named("up") {
			if count(s, 1) >= n {
				return true
			}
		}
		return false
	})
}

// count is how many samples of a series have the value.
func count(s ingesttest.Series, value float64) (n int) {
	for _, sample := range s.Samples {
		if sample.Bits == math.Float64bits(value) {
			n++
		}
	}
	return n
}

func (r *rig) counter(name string) float64 {
	r.t.Helper()
	families, err := r.reg.Gather()
	require.NoError(r.t, err)
	total := 0.
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				total += m.GetCounter().GetValue()
			}
		}
	}
	return total
}

// target serves a text under a content type.
func target(t *testing.T, contentType string, text func() string) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		fmt.Fprint(w, text())
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// job is the configuration of a job with static targets, and more lines of it.
func job(name string, targets []string, more ...string) string {
	text := fmt.Sprintf("- job_name: %s\n  scrape_interval: 100ms\n  scrape_timeout: 100ms\n", name)
	for _, line := range more {
		text += "  " + line + "\n"
	}
	if targets != nil {
		text += fmt.Sprintf("  static_configs: [{targets: [%s]}]\n", strings.Join(targets, ", "))
	}
	return text
}

// unhurried gives the scrapes of a job time for what takes some.
func unhurried(job string) string { return strings.ReplaceAll(job, "100ms", "1s") }

// lockedBuffer is a buffer for a logger of several goroutines.
type lockedBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

// Write implements io.Writer.
func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// String returns what was written.
func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
