package forwarding_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"varve/internal/gate/ledger"
	"varve/internal/gate/server"
)

const prometheusConfiguration = `
storage: {memory: 64MiB, runs: {max_age: 1s}, journal: {max_size: 1MiB}}
self_scrape: {enabled: false}
log: {level: warn}
outputs:
  - name: prometheus
    batch_delay: 100ms
    max_backoff: 500ms
    remote_write: {url: %q}
`

const (
	feedGate   = "feed"
	feedSeries = 300
	// feedBad is the series of which Prometheus refuses every third sample: it comes behind a later one.
	feedBad = 7
)

// TestPrometheus shows that Debian's Prometheus, which takes the samples of a series in order only and refuses a request as a
// whole, gets every sample that it can take, though it is away for a while and Varve is killed meanwhile; what it refuses is
// in the dead letters, and nothing else is.
func TestPrometheus(t *testing.T) {
	p := newPrometheus(t)
	p.start()
	v := newVarve(t, func() string { return fmt.Sprintf(prometheusConfiguration, p.url("/api/v1/write")) })
	v.start()
	v.begun("prometheus")
	f := &feed{t: t, url: "http://" + v.address + "/api/v1/write", start: time.Now().Add(-45 * time.Minute).Truncate(time.Second)}

	f.write(40)
	v.drain("prometheus")
	p.stop()
	f.write(30)
	v.kill()
	v.start()
	f.write(30)
	p.start()
	v.drain("prometheus")
	// From here on kills meet it while it sends.
	for range 5 {
		f.write(8)
		v.begun("prometheus")
		v.kill()
		v.start()
	}
	f.write(8)
	v.drain("prometheus")

	want := read(t, v.server.URL(""), true, nil, is(ledger.LabelGate, feedGate))
	got := read(t, p.url(""), false, nil, is(ledger.LabelGate, feedGate))
	require.Equal(t, f.steps*feedSeries, want.samples())
	letters := deadLetters(t, filepath.Join(v.data(), "deadletter", "prometheus.jsonl"))
	bad := f.labels(feedBad).String()
	refused, again := 0, 0
	for _, l := range letters {
		at := point{millis: l.Timestamp}
		i, there := slices.BinarySearchFunc(got[l.Labels.String()], at, func(a, b point) int { return int(a.millis - b.millis) })
		switch {
		case there:
			again++ // It was sent before a kill, and once more after it.
		case l.Labels.String() == bad:
			refused++
			got[bad] = slices.Insert(got[bad], i, want[bad][at.position(want[bad])])
		default:
			require.Fail(t, "a sample that Prometheus has not was refused", "%+v", l)
		}
	}
	equal(t, "Prometheus with the dead letters of the series out of order", want, got)
	require.Positive(t, refused)
	o := v.output("prometheus")
	// A kill may fall between a letter and the note of it.
	require.LessOrEqual(t, o.Totals.Refused, uint64(refused+again))
	require.Positive(t, o.Totals.Refused)
	require.Zero(t, o.Totals.Dropped)
	t.Logf("%d samples, %d kills; refused: %d out of order, %d that were sent again", want.samples(), v.kills, refused, again)
}

// position is where a point of the same time is, -1 if nowhere.
func (p point) position(in []point) int {
	return slices.IndexFunc(in, func(q point) bool { return q.millis == p.millis })
}

// feed writes series like those of a scrape, step by step.
type feed struct {
	t     *testing.T
	url   string
	start time.Time
	steps int
}

func (f *feed) labels(series int) labels.Labels {
	return labels.FromStrings(model.MetricNameLabel, fmt.Sprintf("feed_%d_total", series%9), ledger.LabelGate, feedGate, "series", fmt.Sprintf("%04d", series))
}

// write writes so many steps more, a request each.
func (f *feed) write(steps int) {
	f.t.Helper()
	client := &http.Client{Transport: &http.Transport{}, Timeout: readyTimeout}
	defer client.CloseIdleConnections()
	for range steps {
		m := prompb.WriteRequest{}
		for i := range feedSeries {
			at := f.start.UnixMilli() + int64(f.steps)*15_000
			if i == feedBad && f.steps%3 == 2 {
				at -= 37_000
			}
			v := float64(f.steps*i) / 8
			if (i+f.steps)%50 == 0 {
				v = math.Float64frombits(value.StaleNaN)
			}
			m.Timeseries = append(m.Timeseries, prompb.TimeSeries{Labels: prompb.FromLabels(f.labels(i), nil), Samples: []prompb.Sample{{Timestamp: at, Value: v}}})
		}
		require.NoError(f.t, post(f.t.Context(), client, f.url, &m))
		f.steps++
	}
}

// prometheus is Debian's Prometheus as a target, which is started and stopped.
type prometheus struct {
	t       *testing.T
	binary  string
	dir     string
	address string
	server  *server.Server
}

func newPrometheus(t *testing.T) *prometheus {
	t.Helper()
	p := &prometheus{t: t, binary: server.Prometheus2(t), dir: t.TempDir()}
	var err error
	p.address, err = server.FreeAddress()
	require.NoError(t, err)
	p.configure("scrape_configs: []\n")
	t.Cleanup(func() {
		if p.server != nil {
			p.server.Kill()
		}
	})
	return p
}

// configure writes what the next start reads.
func (p *prometheus) configure(text string) {
	p.t.Helper()
	require.NoError(p.t, os.WriteFile(filepath.Join(p.dir, "prometheus.yml"), []byte(text), 0o600))
}

func (p *prometheus) url(path string) string { return "http://" + p.address + path }

func (p *prometheus) start() {
	p.t.Helper()
	s, err := server.Start(server.Options{
		Binary: p.binary, Address: p.address,
		Args: []string{
			"--config.file=" + filepath.Join(p.dir, "prometheus.yml"), "--storage.tsdb.path=" + filepath.Join(p.dir, "data"),
			"--web.listen-address=" + p.address, "--web.enable-remote-write-receiver", "--log.level=warn",
		},
	})
	require.NoError(p.t, err)
	p.server = s
	ctx, cancel := context.WithTimeout(p.t.Context(), readyTimeout)
	defer cancel()
	require.NoError(p.t, s.WaitReady(ctx))
}

func (p *prometheus) stop() {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), stopTimeout)
	defer cancel()
	s := p.server
	p.server = nil
	require.NoError(p.t, s.Terminate(ctx))
}

// deadLetter is what is asked of a dead letter.
type deadLetter struct {
	Class     string        `json:"class"`
	Reason    string        `json:"reason"`
	Labels    labels.Labels `json:"labels"`
	Timestamp int64         `json:"timestamp"`
}

func deadLetters(t *testing.T, path string) (all []deadLetter) {
	t.Helper()
	file, err := os.Open(path)
	require.NoError(t, err)
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		var l deadLetter
		require.NoError(t, json.Unmarshal(lines.Bytes(), &l), "%s", lines.Text())
		all = append(all, l)
	}
	require.NoError(t, lines.Err())
	return all
}
