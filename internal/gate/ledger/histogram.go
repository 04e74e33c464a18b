package ledger

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/model/value"
)

// Histogram is a native histogram sample. Exactly one of Int and Float is set.
type Histogram struct {
	Millis int64
	Int    *histogram.Histogram
	Float  *histogram.FloatHistogram
}

// histogramResetSeq is the number of requests after which the histograms begin
// anew, as if their target had restarted.
const histogramResetSeq = 97

// histograms gives one sample each to series of integer and float histograms
// with exponential and with custom buckets, to one that changes between floats
// and histograms, and stale markers now and then. A counter beside each of them
// carries exemplars.
func (w *Workload) histograms(d draw, id WriterID, seq Seq) []Series {
	at := w.turnMillis(true) + (int64(seq)-steadyTurnSeqMax/2)*steadyStepMillis
	out := make([]Series, 0, 2*histogramSeries)
	for i := range histogramSeries {
		h := d.at(uint64(i), uint64(seq))
		s := Series{
			Labels:   w.labels(Histograms, id, i),
			Metadata: metadata.Metadata{Type: model.MetricTypeHistogram, Help: "Native histograms.", Unit: "seconds"},
		}
		switch {
		case i == 0 && seq%5 == 0:
			s.Samples = []Sample{{at, math.Float64bits(float64(seq))}}
		case h.below(40) == 0 && i%2 == 0:
			s.Histograms = []Histogram{{Millis: at, Int: &histogram.Histogram{Sum: math.Float64frombits(value.StaleNaN)}}}
		case i%2 == 0:
			s.Histograms = []Histogram{{Millis: at, Int: intHistogram(i, uint64(seq))}}
		default:
			s.Histograms = []Histogram{{Millis: at, Float: intHistogram(i, uint64(seq)).ToFloat(nil)}}
		}
		out = append(out, s)
	}
	for i := range histogramSeries {
		out = append(out, Series{
			Labels:  w.labels(Histograms, id, histogramSeries+i),
			Samples: []Sample{{at, math.Float64bits(float64(seq))}},
			Exemplars: []exemplar.Exemplar{{
				Labels: labels.FromStrings("trace_id", fmt.Sprintf("%016x", uint64(d.at(uint64(i), uint64(seq), 7)))),
				Value:  float64(seq) / 8,
				Ts:     at + int64(i),
				HasTs:  true,
			}},
			Metadata: metadata.Metadata{Type: model.MetricTypeHistogram, Help: "Native histograms.", Unit: "seconds"},
		})
	}
	return out
}

// intHistogram returns a valid histogram whose buckets grow with n until the
// reset. Some series have custom buckets, some negative ones.
func intHistogram(series int, n uint64) *histogram.Histogram {
	n = n%histogramResetSeq + 1
	h := &histogram.Histogram{
		Schema:          int32(series % 4),
		ZeroThreshold:   0.001,
		ZeroCount:       n / 3,
		Sum:             float64(n) * 1.25,
		PositiveSpans:   []histogram.Span{{Offset: int32(series) - 3, Length: 2}, {Offset: 1, Length: 1 + uint32(n/20)}},
		PositiveBuckets: nil,
	}
	if series%5 == 4 {
		h.Schema, h.ZeroThreshold, h.ZeroCount = histogram.CustomBucketsSchema, 0, 0
		h.CustomValues = []float64{0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600}
		h.PositiveSpans[0].Offset = 1
	}
	h.Count = h.ZeroCount
	h.PositiveBuckets, h.Count = growingBuckets(h.PositiveSpans, n, h.Count)
	if series%3 == 0 && !h.UsesCustomBuckets() {
		h.NegativeSpans = []histogram.Span{{Offset: 0, Length: 2}}
		h.NegativeBuckets, h.Count = growingBuckets(h.NegativeSpans, n/2, h.Count)
	}
	return h
}

// growingBuckets fills the buckets of the spans, as deltas, and adds what is in
// them to count.
func growingBuckets(spans []histogram.Span, n, count uint64) (deltas []int64, total uint64) {
	var last int64
	for _, span := range spans {
		for range span.Length {
			filled := int64(n) + int64(len(deltas))*3
			deltas = append(deltas, filled-last)
			last = filled
			count += uint64(filled)
		}
	}
	return deltas, count
}

// Digest is a hash of all that a histogram means: what storage may change, such
// as empty buckets, the division into spans and the counter reset hint, is not
// part of it. All stale markers have the same digest, since their rest is void.
func (h Histogram) Digest() uint64 {
	hash := xxhash.New()
	put := func(v uint64) {
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], v)
		_, _ = hash.Write(b[:])
	}
	putFloat := func(v float64) { put(math.Float64bits(v)) }
	if (h.Int != nil && value.IsStaleNaN(h.Int.Sum)) || (h.Float != nil && value.IsStaleNaN(h.Float.Sum)) {
		return hash.Sum64()
	}
	f := h.Float
	if h.Int != nil {
		put(1)
		f = h.Int.ToFloat(nil)
	} else {
		put(2)
		f = f.Copy()
	}
	f.Compact(0)
	put(uint64(f.Schema))
	for _, v := range []float64{f.ZeroThreshold, f.ZeroCount, f.Count, f.Sum} {
		putFloat(v)
	}
	for _, values := range [][]float64{f.CustomValues, f.PositiveBuckets, f.NegativeBuckets} {
		put(uint64(len(values)))
		for _, v := range values {
			putFloat(v)
		}
	}
	for _, spans := range [][]histogram.Span{f.PositiveSpans, f.NegativeSpans} {
		for _, s := range spans {
			put(uint64(s.Offset)<<32 | uint64(s.Length))
		}
	}
	return hash.Sum64()
}
