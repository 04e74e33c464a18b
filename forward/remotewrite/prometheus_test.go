package remotewrite_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/gogo/protobuf/proto"
	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"varve/forward"
	"varve/forward/remotewrite"
	"varve/internal/gate/server"
)

const configuration = "global: {scrape_interval: 1h}\n"

// readBack asks a Prometheus for everything in the time of the tests by remote read.
func readBack(t *testing.T, s *server.Server) map[string]lines {
	t.Helper()
	body, err := proto.Marshal(&prompb.ReadRequest{Queries: []*prompb.Query{{
		StartTimestampMs: start - 1000, EndTimestampMs: start + time.Hour.Milliseconds(),
		Matchers: []*prompb.LabelMatcher{{Type: prompb.LabelMatcher_RE, Name: "__name__", Value: ".+"}},
	}}})
	require.NoError(t, err)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL("/api/v1/read"), bytes.NewReader(snappy.Encode(nil, body)))
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer http.DefaultClient.CloseIdleConnections()
	defer resp.Body.Close()
	wire, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, 200, resp.StatusCode, string(wire))
	plain, err := snappy.Decode(nil, wire)
	require.NoError(t, err)
	var answer prompb.ReadResponse
	require.NoError(t, answer.Unmarshal(plain))
	out := map[string]lines{}
	for _, ts := range answer.Results[0].Timeseries {
		b := labels.NewScratchBuilder(len(ts.Labels))
		for _, l := range ts.Labels {
			b.Add(l.Name, l.Value)
		}
		var l lines
		for _, s := range ts.Samples {
			l.float(s.Timestamp, 0, math.Float64bits(s.Value))
		}
		for _, h := range ts.Histograms {
			f := h.ToFloatHistogram()
			f.CounterResetHint = histogram.UnknownCounterReset
			l.histogram(h.Timestamp, 0, nil, f)
		}
		out[b.Labels().String()] = l
	}
	return out
}

// wanted is what a Prometheus answers: no exemplars, histograms of integers as floats, for comparison, and negative zero as zero, since upstream's
// encoder of the answer leaves it out.
func wanted(b *forward.Batch) map[string]lines {
	c := *b
	c.Series = nil
	for _, s := range b.Series {
		s.Exemplars = nil
		s.Floats = slices.Clone(s.Floats)
		for i := range s.Floats {
			if s.Floats[i].Value == 0 {
				s.Floats[i].Value = 0
			}
		}
		whole := s.Histograms
		s.Histograms = nil
		for _, h := range whole {
			if h.Int != nil {
				h.Float, h.Int = h.Int.ToFloat(nil), nil
			}
			f := h.Float.Copy()
			f.CounterResetHint = histogram.UnknownCounterReset
			h.Float = f
			s.Histograms = append(s.Histograms, h)
		}
		c.Series = append(c.Series, s)
	}
	return sent(&c, remotewrite.Message1)
}

// lastOf is what of the batch a Prometheus takes again: a series' last sample. Those before are out of order then, sent again or not.
func lastOf(b *forward.Batch) *forward.Batch {
	out := &forward.Batch{ID: b.ID}
	for _, s := range b.Series {
		if len(s.Histograms) > 0 {
			s.Floats, s.Histograms = nil, s.Histograms[len(s.Histograms)-1:]
		} else {
			s.Floats = s.Floats[len(s.Floats)-1:]
		}
		out.Series = append(out.Series, s)
	}
	return out
}

// histogramAt asks a Prometheus for a histogram at a time.
func histogramAt(t *testing.T, s *server.Server, name string, millis int64) string {
	t.Helper()
	status, body, err := server.Get(t.Context(), s.URL(fmt.Sprintf("/api/v1/query?query=%s&time=%d.%03d", name, millis/1000, millis%1000)))
	require.NoError(t, err)
	require.Equal(t, 200, status, string(body))
	var answer struct {
		Data struct {
			Result []struct {
				Histogram []json.RawMessage
			}
		}
	}
	require.NoError(t, json.Unmarshal(body, &answer))
	require.Len(t, answer.Data.Result, 1, string(body))
	return string(answer.Data.Result[0].Histogram[1])
}

// TestToPrometheus2 shows that Debian's Prometheus holds what was sent, bit for bit, in 1.0 and, since it answers 2.0 with a success and
// stores nothing, in 2.0; that the last samples sent again change nothing; and that one that is out of order is refused.
func TestToPrometheus2(t *testing.T) {
	for name, message := range versions {
		t.Run(name, func(t *testing.T) {
			p := server.StartPrometheus(t, server.Prometheus2(t), configuration, "--web.enable-remote-write-receiver", "--enable-feature=native-histograms,exemplar-storage")
			s := newSender(t, p.URL("/api/v1/write"), message)
			b := prepare(t, s, rich())
			// Custom bounds are younger than 2.42, which takes such a histogram and forgets them.
			b.Series[3].Histograms = append(b.Series[3].Histograms[:2:2], b.Series[3].Histograms[3])
			// Histograms that come again are refused by 2.42, even if they are the last.
			for _, again := range []*forward.Batch{b, lastOf(&forward.Batch{Series: b.Series[:3]})} {
				_, err := s.Send(t.Context(), again)
				require.NoError(t, err)
				// 2.42 leaves histograms out of what it answers to a remote read.
				want := wanted(b)
				want[b.Series[3].Labels.String()] = nil
				want[b.Series[4].Labels.String()] = want[b.Series[4].Labels.String()][:1]
				require.Equal(t, want, readBack(t, p))
			}
			for millis := start; millis <= start+1000; millis += 1000 {
				require.JSONEq(t, `{"count": "9", "sum": "12.5", "buckets": [
					[1, "-1.189207115002721", "-1", "2"], [1, "-1", "-0.8408964152537144", "1"], [3, "-0.001", "0.001", "2"],
					[0, "0.5946035575013605", "0.7071067811865475", "1"], [0, "0.7071067811865475", "0.8408964152537144", "2"],
					[0, "1.414213562373095", "1.6817928305074288", "1"]]}`, histogramAt(t, p, "sizes", millis))
			}
			old := series("up", "job", "a")
			old.Floats = []forward.Float{{TimeMillis: start - 1, Value: 1}}
			_, err := s.Send(t.Context(), prepare(t, s, &forward.Batch{Series: []forward.Series{old}}))
			var refused *forward.Refused
			require.ErrorAs(t, err, &refused)
			require.ErrorContains(t, err, "out of order")
		})
	}
}

// TestToPrometheus3 shows the same of a Prometheus that speaks 2.0, custom bounds included, and that its refusal of exemplars that
// come again is none of samples.
func TestToPrometheus3(t *testing.T) {
	for name, message := range versions {
		t.Run(name, func(t *testing.T) {
			p := server.StartPrometheus(t, server.Prometheus3(t), configuration, "--web.enable-remote-write-receiver", "--enable-feature=exemplar-storage")
			s := newSender(t, p.URL("/api/v1/write"), message)
			b := prepare(t, s, rich())
			for _, again := range []*forward.Batch{b, lastOf(b)} {
				_, err := s.Send(t.Context(), again)
				require.NoError(t, err)
				require.Equal(t, wanted(b), readBack(t, p))
			}
			b.Series[1].Floats = append(b.Series[1].Floats, forward.Float{TimeMillis: start - 1, Value: 1})
			_, err := s.Send(t.Context(), b)
			var refused *forward.Refused
			require.True(t, errors.As(err, &refused), err)
		})
	}
}
