package forwarding_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"varve/internal/gate/ledger"
)

const (
	// bulkSeriesAtOnce and bulkStepsAtOnce make a request, which bulkWriters send at once, those of a series in order.
	bulkSeriesAtOnce = 1000
	bulkStepsAtOnce  = 4
	bulkWriters      = 4
	bulkGate         = "bulk"
)

// bulk writes much: series with a sample each at every step of a grid. The values are noise, so that a
// journal of a megabyte has some hundred thousand of them at most.
type bulk struct {
	t      *testing.T
	url    string
	client *http.Client
	name   string
	// gate is a label of all series.
	gate   string
	series int
	// start is the time of step 0, in Unix ms.
	start, step int64

	mu        sync.Mutex
	latencies []time.Duration
}

func newBulk(t *testing.T, base, name string, series int, start time.Time, step time.Duration) *bulk {
	t.Helper()
	b := &bulk{
		t: t, url: base + "/api/v1/write", name: name, gate: bulkGate, series: series, start: start.UnixMilli(), step: step.Milliseconds(),
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: bulkWriters}, Timeout: readyTimeout},
	}
	t.Cleanup(b.client.CloseIdleConnections)
	return b
}

func (b *bulk) at(step int) int64 { return b.start + int64(step)*b.step }

func (b *bulk) labels(series int) labels.Labels {
	return labels.FromStrings(
		model.MetricNameLabel, fmt.Sprintf("%s_%d", b.name, series%10), ledger.LabelGate, b.gate, ledger.LabelWriter, b.name, "series", fmt.Sprintf("%06d", series),
	)
}

// value is between 1 and 2, with all bits of its fraction in use.
func (b *bulk) value(series, step int) float64 {
	h := uint64(series)*0x9e3779b97f4a7c15 + uint64(step)*0xbf58476d1ce4e5b9
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return math.Float64frombits(0x3ff<<52 | (h^h>>31)>>12)
}

// write writes the steps from from (inclusive) to to (exclusive) of all series. None may be refused.
func (b *bulk) write(from, to int) {
	b.t.Helper()
	// The server may be another one since.
	b.client.CloseIdleConnections()
	var work sync.WaitGroup
	errs := make(chan error, bulkWriters)
	for w := range bulkWriters {
		work.Go(func() {
			for step := from; step < to; step += bulkStepsAtOnce {
				for first := w * bulkSeriesAtOnce; first < b.series; first += bulkWriters * bulkSeriesAtOnce {
					if err := b.send(first, min(first+bulkSeriesAtOnce, b.series), step, min(step+bulkStepsAtOnce, to)); err != nil {
						errs <- err
						return
					}
				}
			}
		})
	}
	work.Wait()
	close(errs)
	for err := range errs {
		require.NoError(b.t, err)
	}
}

func (b *bulk) send(first, last, from, to int) error {
	m := prompb.WriteRequest{Timeseries: make([]prompb.TimeSeries, 0, last-first)}
	for i := first; i < last; i++ {
		s := prompb.TimeSeries{Labels: prompb.FromLabels(b.labels(i), nil), Samples: make([]prompb.Sample, 0, to-from)}
		for step := from; step < to; step++ {
			s.Samples = append(s.Samples, prompb.Sample{Timestamp: b.at(step), Value: b.value(i, step)})
		}
		m.Timeseries = append(m.Timeseries, s)
	}
	began := time.Now()
	if err := post(b.t.Context(), b.client, b.url, &m); err != nil {
		return err
	}
	took := time.Since(began)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.latencies = append(b.latencies, took)
	return nil
}

// p99 is that of the requests since it was last asked.
func (b *bulk) p99() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	slices.Sort(b.latencies)
	p := b.latencies[len(b.latencies)*99/100]
	b.latencies = nil
	return p
}

// post sends a request of remote write 1.0 that is to be taken. Where the server says that the disk keeps it waiting, which is no fault of its
// own, it is sent again.
func post(ctx context.Context, client *http.Client, url string, m *prompb.WriteRequest) error {
	body, err := m.Marshal()
	if err != nil {
		return err
	}
	body = snappy.Encode(nil, body)
	for end := time.Now().Add(readyTimeout); ; {
		err := postOnce(ctx, client, url, body)
		if !errors.Is(err, errDiskWaits) || time.Now().After(end) {
			return err
		}
		again := time.NewTimer(time.Second)
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return err
		}
	}
}

var errDiskWaits = errors.New("the disk keeps the server waiting")

func postOnce(ctx context.Context, client *http.Client, url string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	req.Header.Set("Content-Encoding", "snappy")
	req.Header.Set("X-Prometheus-Remote-Write-Version", "0.1.0")
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	err = errors.Join(err, resp.Body.Close())
	if resp.StatusCode == http.StatusServiceUnavailable && (bytes.Contains(text, []byte("waiting for the disk")) || bytes.Contains(text, []byte("waits for the disk"))) {
		return errDiskWaits
	}
	if resp.StatusCode/100 != 2 {
		return errors.Join(fmt.Errorf("a write was answered %s: %s", resp.Status, text), err)
	}
	return nil
}
