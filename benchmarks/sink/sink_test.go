package sink_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"varve/benchmarks/sink"
	"varve/internal/testkit/leaks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(leaks.Patient(m)) }

// bodies are requests of either protocol with five samples, among other things.
func bodies(tb testing.TB) map[int][]byte {
	tb.Helper()
	one := prompb.WriteRequest{
		Timeseries: []prompb.TimeSeries{
			{Labels: []prompb.Label{{Name: "a", Value: "b"}}, Samples: []prompb.Sample{{Value: 1, Timestamp: 5}, {Timestamp: 6}}},
			{Exemplars: []prompb.Exemplar{{Value: 2, Timestamp: 7}}, Histograms: []prompb.Histogram{{Sum: 1}, {Sum: 2, Timestamp: 3}}},
			{Samples: []prompb.Sample{{}}},
		},
		Metadata: []prompb.MetricMetadata{{MetricFamilyName: "a", Help: "b"}},
	}
	two := writev2.Request{
		Symbols: []string{"", "a", "b"},
		Timeseries: []writev2.TimeSeries{
			{LabelsRefs: []uint32{1, 2}, Samples: []writev2.Sample{{Value: 1, Timestamp: 5}, {Timestamp: 6}}, Metadata: writev2.Metadata{HelpRef: 1}},
			{Exemplars: []writev2.Exemplar{{Value: 2}}, Histograms: []writev2.Histogram{{Sum: 1}, {Sum: 2, Timestamp: 3}}},
			{Samples: []writev2.Sample{{}}},
		},
	}
	first, err := one.Marshal()
	require.NoError(tb, err)
	second, err := two.Marshal()
	require.NoError(tb, err)
	return map[int][]byte{1: first, 2: second}
}

// Shows that floats and histograms are counted in either protocol, and nothing else.
func TestCount(t *testing.T) {
	for protocol, body := range bodies(t) {
		n, err := sink.Count(body, protocol)
		require.NoError(t, err)
		require.Equal(t, 5, n, protocol)
		for cut := range body {
			n, err := sink.Count(body[:cut], protocol)
			require.True(t, err != nil || n <= 5)
		}
	}
	for _, wrong := range []string{"\x80", "\x08\x80", "\x0a\x05abc", "\x0b", "\x0d\x01\x02", "\x09\x01"} {
		_, err := sink.Count([]byte(wrong), 1)
		require.Error(t, err, "%q", wrong)
	}
}

// FuzzCount shows that no body makes it panic, and that a request is counted as its
// decoder has it.
func FuzzCount(f *testing.F) {
	for protocol, body := range bodies(f) {
		f.Add(body, protocol == 2)
	}
	f.Fuzz(func(t *testing.T, body []byte, second bool) {
		if second {
			_, _ = sink.Count(body, 2)
			return
		}
		var request prompb.WriteRequest
		if request.Unmarshal(body) != nil {
			_, _ = sink.Count(body, 1)
			return
		}
		want := 0
		for _, series := range request.Timeseries {
			want += len(series.Samples) + len(series.Histograms)
		}
		// Groups, which nothing writes, are the one thing that the decoder passes over and Count refuses.
		if n, err := sink.Count(body, 1); err == nil {
			require.Equal(t, want, n)
		}
	})
}

// post sends a body and gives the status and what the sink says that it wrote.
func post(ctx context.Context, t *testing.T, url string, protocol int, body []byte) (int, string, error) {
	t.Helper()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	require.NoError(t, err)
	if protocol == 2 {
		request.Header.Set("Content-Type", "application/x-protobuf;proto=io.prometheus.write.v2.Request")
	}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	response, err := transport.RoundTrip(request)
	if err != nil {
		return 0, "", err
	}
	return response.StatusCode, response.Header.Get("X-Prometheus-Remote-Write-Samples-Written"), response.Body.Close()
}

// Shows that a sink refuses connections until it is opened, counts what it takes then, and
// tells of a request that it can't read.
func TestSink(t *testing.T) {
	s, err := sink.New(http.StatusNoContent)
	require.NoError(t, err)
	_, _, err = post(t.Context(), t, s.URL(), 1, nil)
	require.ErrorContains(t, err, "refused")
	require.NoError(t, s.Open())
	total := 0
	for protocol, body := range bodies(t) {
		body = s2.EncodeSnappy(nil, body)
		status, written, err := post(t.Context(), t, s.URL(), protocol, body)
		require.NoError(t, err)
		require.Equal(t, http.StatusNoContent, status)
		require.Equal(t, "5", written)
		total += len(body)
	}
	require.EqualValues(t, 10, s.Samples())
	require.EqualValues(t, 2, s.Requests())
	require.EqualValues(t, total, s.Bytes())
	require.NoError(t, s.Fault())
	for _, wrong := range [][]byte{[]byte("no snappy"), binary.AppendUvarint(nil, 1<<31), s2.EncodeSnappy(nil, []byte("\x0b"))} {
		status, _, err := post(t.Context(), t, s.URL(), 1, wrong)
		require.NoError(t, err)
		require.Equal(t, http.StatusBadRequest, status)
	}
	require.ErrorContains(t, s.Fault(), "decompress")
	require.EqualValues(t, 10, s.Samples())
	require.NoError(t, s.Close())
	require.NoError(t, s.Close())
}

// Shows sinks that answer with an error, and one that never answers, until it is closed.
func TestSinkDead(t *testing.T) {
	s, err := sink.New(http.StatusTooManyRequests)
	require.NoError(t, err)
	require.NoError(t, s.Open())
	status, _, err := post(t.Context(), t, s.URL(), 1, []byte("x"))
	require.NoError(t, err)
	require.Equal(t, http.StatusTooManyRequests, status)
	require.EqualValues(t, 1, s.Requests())
	require.NoError(t, s.Close())

	s, err = sink.New(sink.Hang)
	require.NoError(t, err)
	require.NoError(t, s.Open())
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, _, err := post(ctx, t, s.URL(), 1, []byte("x"))
		ended <- err
	}()
	require.Eventually(t, func() bool { return s.Requests() == 1 }, time.Minute, time.Millisecond)
	select {
	case err := <-ended:
		t.Fatalf("it answered: %v", err)
	default:
	}
	cancel(errors.New("enough"))
	require.Error(t, <-ended)
	require.NoError(t, s.Close())
}
