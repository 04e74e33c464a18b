package remotewrite_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	"varve/forward"
	"varve/forward/remotewrite"
	"varve/ingest/ingesttest"
	"varve/internal/testkit"
)

// lines print everything of a series bit for bit, so that two can be compared. NaN would equal nothing.
type lines []string

func (l *lines) float(millis, start int64, bits uint64) {
	*l = append(*l, fmt.Sprintf("%d from %d: %#x", millis, start, bits))
}

func (l *lines) histogram(millis, start int64, h *histogram.Histogram, f *histogram.FloatHistogram) {
	if h != nil {
		*l = append(*l, fmt.Sprintf("%d from %d: hint %d, sum %#x, %s, %v", millis, start, h.CounterResetHint, math.Float64bits(h.Sum), h, h.CustomValues))
		return
	}
	*l = append(*l, fmt.Sprintf("%d from %d: float hint %d, sum %#x, %s, %v", millis, start, f.CounterResetHint, math.Float64bits(f.Sum), f, f.CustomValues))
}

func (l *lines) exemplar(e *exemplar.Exemplar) {
	*l = append(*l, fmt.Sprintf("exemplar %d %s %#x", e.Ts, e.Labels, math.Float64bits(e.Value)))
}

// sent is what the batch holds, by labels. 1.0 has no start timestamps.
func sent(b *forward.Batch, message string) map[string]lines {
	out := map[string]lines{}
	for i := range b.Series {
		s := &b.Series[i]
		var l lines
		begin := func(v int64) int64 {
			if message == remotewrite.Message1 {
				return 0
			}
			return v
		}
		for _, f := range s.Floats {
			l.float(f.TimeMillis, begin(f.StartMillis), math.Float64bits(f.Value))
		}
		for _, h := range s.Histograms {
			l.histogram(h.TimeMillis, begin(h.StartMillis), h.Int, h.Float)
		}
		for i := range s.Exemplars {
			l.exemplar(&s.Exemplars[i])
		}
		out[s.Labels.String()] = l
	}
	return out
}

// stored is what a sink holds.
func stored(sink *ingesttest.Sink) map[string]lines {
	out := map[string]lines{}
	for name, s := range sink.Written() {
		var l lines
		for _, f := range s.Samples {
			l.float(f.TimeMillis, f.StartMillis, f.Bits)
		}
		for _, h := range s.Histograms {
			l.histogram(h.TimeMillis, h.StartMillis, h.Int, h.Float)
		}
		for i := range s.Exemplars {
			l.exemplar(&s.Exemplars[i])
		}
		out[name] = l
	}
	return out
}

// TestToVarve shows that a second Varve takes in what was sent, bit for bit: odd floats, stale markers, histograms of all kinds,
// exemplars, metadata, and start timestamps with 2.0.
func TestToVarve(t *testing.T) {
	for name, message := range versions {
		t.Run(name, func(t *testing.T) {
			url, sink := varve(t)
			s := newSender(t, url, message)
			b := prepare(t, s, rich())
			o, err := s.Send(t.Context(), b)
			require.NoError(t, err)
			require.Empty(t, o)
			require.Equal(t, sent(b, message), stored(sink))
			families := map[string]metadata.Metadata{}
			for _, f := range b.Families {
				// 2.0 speaks of the families whose series are sent.
				if message == remotewrite.Message1 || f.Family != "other" {
					families[f.Family] = f.Metadata
				}
			}
			got := sink.Families()
			require.Equal(t, families["up"], got["up"])
			require.Equal(t, families["sizes"], got["sizes"])
			require.Equal(t, families["other"], got["other"])
		})
	}
}

// TestLeavesOut shows that what is switched off is not sent, and that histograms which are not sent are counted.
func TestLeavesOut(t *testing.T) {
	for name, message := range versions {
		t.Run(name, func(t *testing.T) {
			url, sink := varve(t)
			s := newSender(t, url, message, func(o *remotewrite.Options) { o.Exemplars, o.Histograms, o.Metadata = false, false, false })
			b := prepare(t, s, rich())
			o, err := s.Send(t.Context(), b)
			require.NoError(t, err)
			require.Equal(t, map[string]int{"native histogram": 5}, o.Skipped)
			want := rich()
			for i := range want.Series {
				want.Series[i].Exemplars, want.Series[i].Histograms = nil, nil
			}
			expected := sent(want, message)
			delete(expected, b.Series[3].Labels.String())
			require.Equal(t, expected, stored(sink))
			require.Empty(t, sink.Families())
		})
	}
}

// TestToArchive shows that an archive behind the receiver reads back what was sent, in both versions.
func TestToArchive(t *testing.T) {
	for name, message := range versions {
		t.Run(name, func(t *testing.T) {
			a := testkit.Open(t, testkit.MemoryDir(t), testkit.Options())
			s := newSender(t, receive(t, a), message)
			b := prepare(t, s, rich())
			_, err := s.Send(t.Context(), b)
			require.NoError(t, err)
			q, err := a.Querier(0, math.MaxInt64)
			require.NoError(t, err)
			defer func() { require.NoError(t, q.Close()) }()
			set := q.Select(t.Context(), false, nil, labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".+"))
			got := map[string]lines{}
			for set.Next() {
				var l lines
				it := set.At().Iterator(nil)
				for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
					switch kind {
					case chunkenc.ValFloat:
						millis, v := it.At()
						l.float(millis, it.AtST(), math.Float64bits(v))
					default:
						millis, h := it.AtFloatHistogram(nil)
						h.CounterResetHint = histogram.UnknownCounterReset
						l.histogram(millis, it.AtST(), nil, h)
					}
				}
				require.NoError(t, it.Err())
				got[set.At().Labels().String()] = l
			}
			require.NoError(t, set.Err())
			// A querier gives all histograms as floats, with hints of its own, and exemplars elsewhere.
			for i := range b.Series {
				b.Series[i].Exemplars = nil
				for j := range b.Series[i].Histograms {
					h := &b.Series[i].Histograms[j]
					if h.Int != nil {
						h.Float, h.Int = h.Int.ToFloat(nil), nil
					}
					h.Float.CounterResetHint = histogram.UnknownCounterReset
				}
			}
			require.Equal(t, sent(b, message), got)
		})
	}
}
