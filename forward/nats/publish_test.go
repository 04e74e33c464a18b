package nats_test

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/golang/snappy"
	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"varve/forward"
	"varve/forward/lineprotocol"
	"varve/forward/nats"
)

// content is what messages hold by subject and labels, bit for bit.
type content map[string][]string

func (c content) add(subject, labels, what string) {
	key := subject + " " + labels
	c[key] = append(c[key], what)
}

// wanted is what the batch should be in messages of PayloadPrometheus.
func wanted(b *forward.Batch, subject func(labels.Labels) string) content {
	out := content{}
	for i := range b.Series {
		s := &b.Series[i]
		for _, f := range s.Floats {
			out.add(subject(s.Labels), s.Labels.String(), fmt.Sprintf("%d %#x", f.TimeMillis, math.Float64bits(f.Value)))
		}
		for _, h := range s.Histograms {
			var p prompb.Histogram
			if h.Int != nil {
				p = prompb.FromIntHistogram(h.TimeMillis, h.Int)
			} else {
				p = prompb.FromFloatHistogram(h.TimeMillis, h.Float)
			}
			out.add(subject(s.Labels), s.Labels.String(), p.String())
		}
		for _, e := range s.Exemplars {
			out.add(subject(s.Labels), s.Labels.String(), fmt.Sprintf("exemplar %d %v", e.Ts, e.Value))
		}
	}
	for _, f := range b.Families {
		out.add("varve."+f.Family+".%-", "", f.Family+" "+f.Help)
	}
	return out
}

// decoded is what messages of PayloadPrometheus hold.
func decoded(t *testing.T, messages []message) content {
	t.Helper()
	out := content{}
	for _, m := range messages {
		body, err := snappy.Decode(nil, m.content)
		require.NoError(t, err)
		var r prompb.WriteRequest
		require.NoError(t, r.Unmarshal(body))
		for _, ts := range r.Timeseries {
			b := labels.NewScratchBuilder(0)
			for _, l := range ts.Labels {
				b.Add(l.Name, l.Value)
			}
			name := b.Labels().String()
			for _, s := range ts.Samples {
				out.add(m.subject, name, fmt.Sprintf("%d %#x", s.Timestamp, math.Float64bits(s.Value)))
			}
			for _, h := range ts.Histograms {
				out.add(m.subject, name, h.String())
			}
			for _, e := range ts.Exemplars {
				out.add(m.subject, name, fmt.Sprintf("exemplar %d %v", e.Timestamp, e.Value))
			}
		}
		for _, f := range r.Metadata {
			out.add(m.subject, "", f.MetricFamilyName+" "+f.Help)
		}
	}
	return out
}

// subjects are those of the template of tests for labels of tests.
func subjects(ls labels.Labels) string {
	job := strings.NewReplacer(".", "%2E", " ", "%20").Replace(ls.Get("job"))
	if job == "" {
		job = "%-"
	}
	return "varve." + ls.Get("__name__") + "." + job
}

// TestPrometheus shows that what is read back from the stream is the batch, bit for bit, below the subjects of the template.
func TestPrometheus(t *testing.T) {
	server := run(t)
	s := newSender(t, server.ClientURL())
	b := rich()
	send(t, s, b)
	got := stored(t, server.ClientURL())
	require.Equal(t, wanted(b, subjects), decoded(t, got))
	for _, m := range got {
		require.Regexp(t, `^inc-1-9-0-[0-9a-f]{32}$`, m.id)
	}
	require.Len(t, got, 3)
}

// TestJSON shows the objects of all kinds of samples, and that they are JSON.
func TestJSON(t *testing.T) {
	server := run(t)
	s := newSender(t, server.ClientURL(), func(o *nats.Options) { o.Payload = nats.PayloadJSON })
	send(t, s, rich())
	var got []string
	for _, m := range stored(t, server.ClientURL()) {
		for line := range strings.Lines(string(m.content)) {
			require.True(t, json.Valid([]byte(line)), line)
			got = append(got, line)
		}
	}
	const up, sizes = `{"labels":{"__name__":"up","instance":"x","job":"a.b c"},"timestamp_ms":`, `{"labels":{"__name__":"sizes"},"timestamp_ms":`
	require.Equal(t, []string{
		up + `1700000000000,"start_ms":1699999999900,"value":"1.5"}` + "\n",
		up + `1700000000001,"value":"-0"}` + "\n",
		up + `1700000000002,"value":"+Inf"}` + "\n",
		up + `1700000000003,"value":"NaN"}` + "\n",
		up + `1700000000004,"value":"NaN","stale":true}` + "\n",
		up + `1700000000005,"value":"NaN"}` + "\n",
		sizes + `1700000000000,"start_ms":1699999999999,"histogram":{"kind":"int","schema":2,"count":"9","zero_count":"2","sum":"12.5","zero_threshold":"0.001","reset_hint":"reset",` +
			`"positive_spans":[[-2,2],[3,1]],"positive_buckets":["1","2","1"],"negative_spans":[[0,2]],"negative_buckets":["1","2"]}}` + "\n",
		sizes + `1700000000001,"histogram":{"kind":"float","schema":-53,"count":"3.5","zero_count":"0","sum":"1","zero_threshold":"0","custom_values":["-1","0.5","2"],` +
			`"positive_spans":[[1,2]],"positive_buckets":["1.25","2.25"]}}` + "\n",
		sizes + `1700000000002,"histogram":{"kind":"int","schema":0,"count":"0","zero_count":"0","sum":"NaN","zero_threshold":"0"},"stale":true}` + "\n",
	}, got)
}

// TestInflux shows the lines, and that what they can't express is counted.
func TestInflux(t *testing.T) {
	server := run(t)
	s := newSender(t, server.ClientURL(), func(o *nats.Options) {
		o.Payload, o.Precision, o.InfluxHistograms = nats.PayloadInflux, lineprotocol.Milliseconds, lineprotocol.CountAndSum
	})
	o, err := s.Send(t.Context(), prepare(t, s, rich()))
	require.NoError(t, err)
	require.Equal(t, map[string]int{lineprotocol.ReasonNotFinite: 3, lineprotocol.ReasonStale: 2}, o.Skipped)
	var got []string
	for _, m := range stored(t, server.ClientURL()) {
		got = append(got, string(m.content))
	}
	require.Equal(t, []string{
		"up,instance=x,job=a.b\\ c value=1.5 1700000000000\nup,instance=x,job=a.b\\ c value=-0 1700000000001\n",
		"sizes_count value=9 1700000000000\nsizes_sum value=12.5 1700000000000\nsizes_count value=3.5 1700000000001\nsizes_sum value=1 1700000000001\n",
	}, got)
}

// TestLeavesOut shows that histograms that are not sent are counted in all payloads, and that a message of nothing is not published.
func TestLeavesOut(t *testing.T) {
	for _, payload := range []nats.Payload{nats.PayloadPrometheus, nats.PayloadInflux, nats.PayloadJSON} {
		t.Run(string(payload), func(t *testing.T) {
			server := run(t)
			s := newSender(t, server.ClientURL(), func(o *nats.Options) {
				o.Payload, o.Histograms, o.Exemplars, o.Metadata = payload, false, false, false
			})
			b := rich()
			b.Series = b.Series[1:]
			o, err := s.Send(t.Context(), prepare(t, s, b))
			require.NoError(t, err)
			require.Equal(t, map[string]int{lineprotocol.ReasonHistogram: 3}, o.Skipped)
			require.Empty(t, stored(t, server.ClientURL()))
		})
	}
}

// TestDuplicates shows that a batch that is sent again is stored once, and that one which is cut differently below the same ID is stored too.
func TestDuplicates(t *testing.T) {
	server := run(t)
	s := newSender(t, server.ClientURL())
	b := prepare(t, s, plain("inc-1-2-0", 60))
	for range 3 {
		send(t, s, b)
	}
	require.Len(t, stored(t, server.ClientURL()), 3)
	cut := *b
	cut.Series = b.Series[:50]
	send(t, s, &cut)
	require.Len(t, stored(t, server.ClientURL()), 6)
	// Another sender, as after a restart, makes the same messages.
	again := newSender(t, server.ClientURL())
	send(t, again, plain("inc-1-2-0", 60))
	require.Len(t, stored(t, server.ClientURL()), 6)
	send(t, again, plain("inc-3-4-0", 60))
	require.Len(t, stored(t, server.ClientURL()), 9)
	// The same content below another subject is another message.
	stream(t, server.ClientURL())
	other := newSender(t, server.ClientURL(), func(o *nats.Options) { o.Subject = "varve.other.{job}" })
	send(t, other, plain("inc-3-4-0", 60))
	require.Len(t, stored(t, server.ClientURL()), 12)
}

// TestSplits shows that messages stay below the server's and the stream's limits with their headers, that all samples arrive in order, and
// that a sample whose message would be too large alone is refused by its place.
func TestSplits(t *testing.T) {
	for _, payload := range []nats.Payload{nats.PayloadPrometheus, nats.PayloadJSON} {
		for name, limit := range map[string]func(*nats.Options){
			"option": func(o *nats.Options) { o.MaxPayloadBytes = 1000 },
			"server": func(*nats.Options) {},
		} {
			t.Run(string(payload)+" "+name, func(t *testing.T) {
				server := run(t, func(o *natsOptions) {
					if name == "server" {
						o.MaxPayload = 1000
					}
				})
				s := newSender(t, server.ClientURL(), limit, func(o *nats.Options) { o.Payload, o.Subject = payload, "varve" })
				b := plain("inc-1-2-0", 500)
				long := series("long")
				for i := range 700 {
					long.Floats = append(long.Floats, forward.Float{TimeMillis: start + int64(i), Value: math.Sqrt(float64(i))})
				}
				broad := series("broad", "job", noise(2000))
				broad.Floats = []forward.Float{{TimeMillis: start, Value: 1}, {TimeMillis: start + 1, Value: 2}}
				broad.Histograms = rich().Series[1].Histograms[:1]
				b.Series = append(b.Series, long, broad)
				o, err := s.Send(t.Context(), prepare(t, s, b))
				require.NoError(t, err)
				var refused []string
				for _, r := range o.Refusals {
					require.Contains(t, r.Reason, "is the limit")
					refused = append(refused, fmt.Sprint(r.Series, r.Float, r.Histogram))
				}
				require.Equal(t, []string{"501 0 -1", "501 1 -1", "501 -1 0"}, refused)
				messages := stored(t, server.ClientURL())
				require.Greater(t, len(messages), 10)
				for _, m := range messages {
					require.LessOrEqual(t, len(m.content), 1000)
				}
				if payload == nats.PayloadPrometheus {
					b.Series = b.Series[:501]
					require.Equal(t, wanted(b, func(labels.Labels) string { return "varve" }), decoded(t, messages))
				} else {
					lines := 0
					for _, m := range messages {
						lines += strings.Count(string(m.content), "\n")
					}
					require.Equal(t, 1200, lines)
				}
			})
		}
	}
}

// pendingStream acknowledges a message when somebody waits for that, and keeps how many it has not.
type pendingStream struct {
	jetstream.JetStream
	pending, pendingMax, published int
}

func (s *pendingStream) PublishMsgAsync(*client.Msg, ...jetstream.PublishOpt) (jetstream.PubAckFuture, error) {
	s.published++
	s.pending++
	s.pendingMax = max(s.pendingMax, s.pending)
	return &pendingAck{stream: s}, nil
}

// pendingAck is an acknowledgement that comes when it is waited for.
type pendingAck struct {
	jetstream.PubAckFuture
	stream *pendingStream
}

func (a *pendingAck) Ok() <-chan *jetstream.PubAck {
	a.stream.pending--
	c := make(chan *jetstream.PubAck, 1)
	c <- &jetstream.PubAck{}
	return c
}

func (*pendingAck) Err() <-chan error { return nil }

// TestWindow shows that no more messages than the window wait for their acknowledgements, and that all are waited for.
func TestWindow(t *testing.T) {
	var s pendingStream
	require.NoError(t, nats.Fly(t, &s, 3, 10))
	require.Equal(t, 10, s.published)
	require.Equal(t, 3, s.pendingMax)
	require.Zero(t, s.pending)
}
