package peer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"varve/benchmarks/wire"
)

// NotSealed is what Tidy answers for a Varve without a compactor to run.
const NotSealed = "not sealed: it has no compactor to run"

// NothingSealed is what Tidy answers for a Varve that was given nothing but sealed days, or none that is over.
const NothingSealed = "the compactor found no day to seal"

const (
	// answerBytesMax bounds what is read of an answer.
	answerBytesMax = 1 << 20
	// idleCores is what an idle server may use: housekeeping ticks.
	idleCores = 0.05
)

// Tidying says what Tidy waits for.
type Tidying struct {
	// EndMillis is after the newest sample.
	EndMillis int64
	// Labels are of a series that the server has, as label fields of remote write 1.0.
	Labels []byte
	// Limit bounds the wait for a quiet server, and four times as long all of it.
	Limit time.Duration
	// Quiet is how long the size of the data directory must stay as it is, and the
	// server idle, before it counts as settled.
	Quiet time.Duration
}

// Tidy makes a server bring all data before the end into the form that it keeps for
// good, and waits until the data directory stays as it is:
//
//   - Varve: POST /api/v1/admin/compactor/run?wait=true seals the days that are over.
//   - VictoriaMetrics: /internal/force_flush, /internal/force_merge, until no merge
//     is under way.
//   - Prometheus compacts what lies behind one and a half block ranges before its
//     newest sample. So one sample of the present is sent, and the head's beginning is
//     waited for to pass the data, then compactions to end. The sample is of a series
//     that exists: a new one would show in the lists of labels.
//
// Then, for all: no growth or shrinking and less than 5 % of a core for a while. It
// says in words what the server did not do.
func (s *Server) Tidy(ctx context.Context, t Tidying) (remark string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 4*t.Limit)
	defer cancel()
	switch s.Spec.Kind {
	case Varve:
		remark, err = s.seal(ctx)
	case VictoriaMetrics:
		err = s.merge(ctx)
	case Prometheus:
		err = s.compactHead(ctx, t.EndMillis, t.Labels)
	default:
	}
	if err != nil {
		return remark, fmt.Errorf("settle %s: %w", s.Spec.Name, err)
	}
	if !s.waitQuiet(ctx, t) {
		remark = joinRemarks(remark, "not quiet within "+t.Limit.String())
	}
	return remark, ctx.Err()
}

// joinRemarks joins two remarks, the first of which may be empty.
func joinRemarks(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}

// post sends a request and gives the status and the text of the answer.
func (s *Server) post(ctx context.Context, method, path string, body []byte, header http.Header) (int, string, error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://"+s.Address+path, bytes.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	request.Header = header
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, "", err
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, answerBytesMax))
	return response.StatusCode, string(text), errors.Join(err, response.Body.Close())
}

// seal runs Varve's compactor.
func (s *Server) seal(ctx context.Context) (string, error) {
	status, text, err := s.post(ctx, http.MethodPost, "/api/v1/admin/compactor/run?wait=true", nil, http.Header{})
	switch {
	case err != nil:
		return "", err
	case status == http.StatusNotFound:
		return NotSealed, nil
	case status/100 != 2:
		return "", fmt.Errorf("run the compactor: status %d: %.300s", status, text)
	}
	var answer struct {
		Data struct {
			Sealed []json.RawMessage `json:"sealed"`
		} `json:"data"`
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		return "", fmt.Errorf("run the compactor: %w: %.300s", err, text)
	}
	if len(answer.Data.Sealed) == 0 {
		return NothingSealed, nil
	}
	return "", nil
}

// merge runs VictoriaMetrics' merges. They go on after the answer.
func (s *Server) merge(ctx context.Context) error {
	for _, path := range []string{"/internal/force_flush", "/internal/force_merge"} {
		if status, text, err := s.post(ctx, http.MethodGet, path, nil, http.Header{}); err != nil || status/100 != 2 {
			return errors.Join(fmt.Errorf("%s: status %d: %.300s", path, status, text), err)
		}
	}
	return s.waitMetrics(ctx, func(m map[string]float64) bool { return m["vm_active_force_merges"] == 0 && m["vm_active_merges"] == 0 })
}

// compactHead moves Prometheus' head beyond the data.
func (s *Server) compactHead(ctx context.Context, endMillis int64, labels []byte) error {
	body := wire.AppendSeries(nil, labels, 1, time.Now().UnixMilli())
	var slab wire.Slab
	header := http.Header{"Content-Encoding": {"snappy"}, "Content-Type": {"application/x-protobuf"}, "X-Prometheus-Remote-Write-Version": {"0.1.0"}}
	status, text, err := s.post(ctx, http.MethodPost, "/api/v1/write", slab.Frame(body, 1, 0).Body, header)
	if err != nil || status/100 != 2 {
		return errors.Join(fmt.Errorf("send a sample of the present: status %d: %.300s", status, text), err)
	}
	last := -1.0
	return s.waitMetrics(ctx, func(m map[string]float64) bool {
		compactions := m["prometheus_tsdb_compactions_total"]
		done := m["prometheus_tsdb_head_min_time"] >= float64(endMillis) && compactions == last
		last = compactions
		return done
	})
}

// waitMetrics asks for the server's metrics every two seconds until they are as they
// should be.
func (s *Server) waitMetrics(ctx context.Context, done func(map[string]float64) bool) error {
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for {
		metrics, err := s.Metrics(ctx)
		if err != nil {
			return err
		}
		if done(metrics) {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// waitQuiet waits until the directory's size and the server are quiet. It says false
// if they are not within the limit.
func (s *Server) waitQuiet(ctx context.Context, t Tidying) bool {
	if s.command == nil {
		return true
	}
	deadline := time.Now().Add(t.Limit)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var size int64
	cpu, since := 0.0, time.Now()
	for time.Now().Before(deadline) {
		disk, err := s.Disk()
		if err != nil {
			return false
		}
		cost, err := s.Cost()
		if err != nil {
			return false
		}
		idle := cost.CPUSeconds-cpu <= idleCores*time.Since(since).Seconds()+1.0/ticksPerSecond
		switch {
		case disk.Bytes != size || !idle:
			size, cpu, since = disk.Bytes, cost.CPUSeconds, time.Now()
		case time.Since(since) >= t.Quiet:
			return true
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
	return false
}
