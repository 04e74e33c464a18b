package writerequest_test

import (
	"math"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"varve/forward"
	"varve/forward/writerequest"
)

// want1 is the batch as upstream's types of 1.0.
func want1(b *forward.Batch, parts writerequest.Parts) *prompb.WriteRequest {
	out := &prompb.WriteRequest{}
	pairs := func(ls labels.Labels) (out []prompb.Label) { return prompb.FromLabels(ls, nil) }
	for i := range b.Series {
		s := &b.Series[i]
		if parts.Empty(s) {
			continue
		}
		ts := prompb.TimeSeries{Labels: pairs(s.Labels)}
		for _, f := range s.Floats {
			ts.Samples = append(ts.Samples, prompb.Sample{Value: f.Value, Timestamp: f.TimeMillis})
		}
		if parts.Histograms {
			for _, h := range s.Histograms {
				if h.Int != nil {
					ts.Histograms = append(ts.Histograms, prompb.FromIntHistogram(h.TimeMillis, h.Int))
				} else {
					ts.Histograms = append(ts.Histograms, prompb.FromFloatHistogram(h.TimeMillis, h.Float))
				}
			}
		}
		if parts.Exemplars {
			for _, e := range s.Exemplars {
				ts.Exemplars = append(ts.Exemplars, prompb.Exemplar{Labels: pairs(e.Labels), Value: e.Value, Timestamp: e.Ts})
			}
		}
		out.Timeseries = append(out.Timeseries, ts)
	}
	for _, f := range b.Families {
		out.Metadata = append(out.Metadata, prompb.MetricMetadata{
			Type: prompb.FromMetadataType(f.Type), MetricFamilyName: f.Family, Help: f.Help, Unit: f.Unit,
		})
	}
	return out
}

// resolved is a series of 2.0 with its references resolved.
type resolved struct {
	Labels     labels.Labels
	Metadata   metadata.Metadata
	Samples    []writev2.Sample
	Histograms []writev2.Histogram
	Exemplars  []exemplar.Exemplar
}

// want2 is the batch as upstream's types of 2.0.
func want2(b *forward.Batch, parts writerequest.Parts) (out []resolved) {
	for i := range b.Series {
		s := &b.Series[i]
		if parts.Empty(s) {
			continue
		}
		meta := s.Metadata
		if !parts.Metadata {
			meta = metadata.Metadata{}
		}
		if meta.Type == "" {
			meta.Type = model.MetricTypeUnknown
		}
		floats := resolved{Labels: s.Labels, Metadata: meta}
		for _, f := range s.Floats {
			floats.Samples = append(floats.Samples, writev2.Sample{Value: f.Value, Timestamp: f.TimeMillis, StartTimestamp: f.StartMillis})
		}
		histograms := resolved{Labels: s.Labels, Metadata: meta}
		if parts.Histograms {
			for _, h := range s.Histograms {
				var w writev2.Histogram
				if h.Int != nil {
					w = writev2.FromIntHistogram(h.StartMillis, h.TimeMillis, h.Int)
				} else {
					w = writev2.FromFloatHistogram(h.StartMillis, h.TimeMillis, h.Float)
				}
				histograms.Histograms = append(histograms.Histograms, w)
			}
		}
		first := &floats
		if len(floats.Samples) == 0 {
			first = &histograms
		}
		if parts.Exemplars {
			first.Exemplars = s.Exemplars
		}
		out = append(out, *first)
		if first == &floats && len(histograms.Histograms) > 0 {
			out = append(out, histograms)
		}
	}
	return out
}

// TestWriteRequest1 shows that upstream's decoder reads of our bytes what the batch has, bit for bit.
func TestWriteRequest1(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b, parts := drawn{t}.batch(), writerequest.Parts{Histograms: rapid.Bool().Draw(t, "histograms"), Exemplars: rapid.Bool().Draw(t, "exemplars"), Metadata: rapid.Bool().Draw(t, "metadata")}
		var wire []byte
		for i := range b.Series {
			s := &b.Series[i]
			if parts.Empty(s) {
				continue
			}
			var encoded []byte
			if i%2 == 0 {
				encoded = writerequest.AppendLabels(nil, s.Labels)
			}
			wire = writerequest.AppendSeries(wire, encoded, s, parts)
		}
		for i := range b.Families {
			wire = writerequest.AppendFamily(wire, &b.Families[i])
		}
		var got prompb.WriteRequest
		require.NoError(t, got.Unmarshal(wire))
		require.Equal(t, normal1(want1(b, parts)), normal1(&got))
	})
}

// TestRequest2 shows the same for 2.0, that the symbols are a set which begins with the empty one, and that a request that
// is used again is empty first.
func TestRequest2(t *testing.T) {
	var r writerequest.Request
	rapid.Check(t, func(t *rapid.T) {
		b, parts := drawn{t}.batch(), writerequest.Parts{Histograms: rapid.Bool().Draw(t, "histograms"), Exemplars: rapid.Bool().Draw(t, "exemplars"), Metadata: rapid.Bool().Draw(t, "metadata")}
		r.Reset()
		for i := range b.Series {
			s := &b.Series[i]
			if parts.Empty(s) {
				continue
			}
			var hashes []uint32
			if i%2 == 0 {
				hashes = writerequest.AppendHashes(nil, s.Labels)
			}
			r.Add(s, hashes, parts)
		}
		var got writev2.Request
		require.NoError(t, got.Unmarshal(r.Append(nil)))
		require.Empty(t, got.Symbols[0])
		seen := map[string]bool{}
		for _, s := range got.Symbols {
			require.False(t, seen[s], s)
			seen[s] = true
		}
		builder := labels.NewScratchBuilder(0)
		var series []resolved
		floats, histograms, exemplars := 0, 0, 0
		for _, ts := range got.Timeseries {
			require.False(t, len(ts.Samples) > 0 && len(ts.Histograms) > 0)
			ls, err := ts.ToLabels(&builder, got.Symbols)
			require.NoError(t, err)
			meta, err := ts.ToMetadata(got.Symbols)
			require.NoError(t, err)
			one := resolved{Labels: ls, Metadata: meta, Samples: ts.Samples, Histograms: ts.Histograms}
			for _, e := range ts.Exemplars {
				x, err := e.ToExemplar(&builder, got.Symbols)
				require.NoError(t, err)
				one.Exemplars = append(one.Exemplars, x)
			}
			floats, histograms, exemplars = floats+len(one.Samples), histograms+len(one.Histograms), exemplars+len(one.Exemplars)
			series = append(series, one)
		}
		require.Equal(t, normal2(want2(b, parts)), normal2(series))
		f, h, e := r.Counts()
		require.Equal(t, []int{floats, histograms, exemplars}, []int{f, h, e})
	})
}

// TestBits shows that floats which equal zero, and those which equal nothing, keep their bits in both versions.
func TestBits(t *testing.T) {
	for _, bits := range []uint64{1 << 63, 0x7ff0000000000002, 0x7ff8000000000001, 0xfff8_0000_0000_0000, 0} {
		s := forward.Series{Target: &forward.Target{Labels: labels.FromStrings("__name__", "a")}, Floats: []forward.Float{{TimeMillis: 1, Value: math.Float64frombits(bits)}}}
		var one prompb.WriteRequest
		require.NoError(t, one.Unmarshal(writerequest.AppendSeries(nil, nil, &s, writerequest.Parts{})))
		require.Equal(t, bits, math.Float64bits(one.Timeseries[0].Samples[0].Value))
		var r writerequest.Request
		r.Add(&s, nil, writerequest.Parts{})
		var two writev2.Request
		require.NoError(t, two.Unmarshal(r.Append(nil)))
		require.Equal(t, bits, math.Float64bits(two.Timeseries[0].Samples[0].Value))
	}
}

// TestEqualHashes shows that strings whose hashes are equal stay apart.
func TestEqualHashes(t *testing.T) {
	var r writerequest.Request
	s := forward.Series{Target: &forward.Target{Labels: labels.FromStrings("__name__", "a", "b", "c", "d", "a")}, Floats: []forward.Float{{TimeMillis: 1}}}
	r.Add(&s, make([]uint32, 6), writerequest.Parts{})
	var got writev2.Request
	require.NoError(t, got.Unmarshal(r.Append(nil)))
	require.Equal(t, []string{"", "__name__", "a", "b", "c", "d"}, got.Symbols)
	require.Equal(t, []uint32{1, 2, 3, 4, 5, 2}, got.Timeseries[0].LabelsRefs)
}
