package forwarding_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"
)

// relay stands between an output and its target: it counts what comes by, and can hold answers back.
type relay struct {
	server *httptest.Server
	client *http.Client
	target string

	// answered gets a value when the target answered and the output doesn't know it yet, passed when the output was
	// told; each only if somebody waits.
	answered, passed chan struct{}

	mu sync.Mutex
	// hold keeps answers back for as long as the output waits for them, silent keeps the requests back.
	hold, silent bool
	// changed is closed when hold or silent is taken back.
	changed chan struct{}
	// observe, when set, is told of each series that the target took over 1.0.
	observe func(series *prompb.TimeSeries)
	counts  relayCounts
	wrong   error
}

// relayCounts is what came by.
type relayCounts struct {
	// requests were answered with 2xx, with the samples.
	requests, samples int
	// refused were answered otherwise, severed not at all.
	refused, severed int
}

// newRelay returns a relay to the URL, which ends with the test.
func newRelay(t *testing.T, target string) *relay {
	t.Helper()
	r := &relay{
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4}}, target: target,
		answered: make(chan struct{}), passed: make(chan struct{}), changed: make(chan struct{}),
	}
	r.server = httptest.NewServer(r)
	t.Cleanup(func() {
		r.set(false, false)
		r.server.CloseClientConnections()
		r.server.Close()
		r.client.CloseIdleConnections()
		require.NoError(t, r.wrong)
	})
	return r
}

// url is what the output is given.
func (r *relay) url() string { return r.server.URL + "/api/v1/write" }

// set makes it hold answers back, and requests.
func (r *relay) set(hold, silent bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hold, r.silent = hold, silent
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *relay) count() relayCounts {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.counts
}

// ServeHTTP implements http.Handler.
func (r *relay) ServeHTTP(w http.ResponseWriter, in *http.Request) {
	body, err := io.ReadAll(in.Body)
	if err == nil {
		err = r.keep(in, func() bool { return r.silent })
	}
	if err != nil {
		r.sever()
	}
	answer, text, err := r.forward(in, body)
	if err != nil {
		r.sever()
	}
	if answer.StatusCode/100 == 2 {
		r.took(in, body)
	} else {
		r.mu.Lock()
		r.counts.refused++
		r.mu.Unlock()
	}
	tell(r.answered)
	if r.keep(in, func() bool { return r.hold }) != nil {
		r.sever()
	}
	maps.Copy(w.Header(), answer.Header)
	w.WriteHeader(answer.StatusCode)
	_, _ = w.Write(text)
	_ = http.NewResponseController(w).Flush()
	tell(r.passed)
}

// tell wakes who waits.
func tell(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// keep waits for as long as the condition holds. An error means that the output waits no more.
func (r *relay) keep(in *http.Request, while func() bool) error {
	for {
		r.mu.Lock()
		wait, changed := while(), r.changed
		r.mu.Unlock()
		if !wait {
			return nil
		}
		select {
		case <-in.Context().Done():
			return in.Context().Err()
		case <-changed:
		}
	}
}

// sever ends the connection without an answer.
func (r *relay) sever() {
	r.mu.Lock()
	r.counts.severed++
	r.mu.Unlock()
	panic(http.ErrAbortHandler)
}

func (r *relay) forward(in *http.Request, body []byte) (answer *http.Response, text []byte, err error) {
	out, err := http.NewRequestWithContext(in.Context(), http.MethodPost, r.target, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	out.Header = in.Header.Clone()
	answer, err = r.client.Do(out)
	if err != nil {
		return nil, nil, err
	}
	text, err = io.ReadAll(answer.Body)
	return answer, text, errors.Join(err, answer.Body.Close())
}

// took counts what the target took.
func (r *relay) took(in *http.Request, body []byte) {
	samples, series, err := decode(in.Header.Get("Content-Type"), body)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wrong = errors.Join(r.wrong, err)
	r.counts.requests++
	r.counts.samples += samples
	if r.observe != nil {
		for i := range series {
			r.observe(&series[i])
		}
	}
}

// decodeBody decodes a request that nobody read.
func decodeBody(r *http.Request) (samples int, series []prompb.TimeSeries, err error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return 0, nil, err
	}
	return decode(r.Header.Get("Content-Type"), body)
}

// decode returns the number of samples of a request, and the series of one of 1.0.
func decode(contentType string, body []byte) (samples int, series []prompb.TimeSeries, err error) {
	plain, err := snappy.Decode(nil, body)
	if err != nil {
		return 0, nil, fmt.Errorf("decode a request: %w", err)
	}
	if strings.Contains(contentType, "io.prometheus.write.v2.Request") {
		var m writev2.Request
		if err := m.Unmarshal(plain); err != nil {
			return 0, nil, fmt.Errorf("decode a request: %w", err)
		}
		for i := range m.Timeseries {
			samples += len(m.Timeseries[i].Samples) + len(m.Timeseries[i].Histograms)
		}
		return samples, nil, nil
	}
	var m prompb.WriteRequest
	if err := m.Unmarshal(plain); err != nil {
		return 0, nil, fmt.Errorf("decode a request: %w", err)
	}
	for i := range m.Timeseries {
		samples += len(m.Timeseries[i].Samples) + len(m.Timeseries[i].Histograms)
	}
	return samples, m.Timeseries, nil
}
