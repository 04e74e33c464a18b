package ingest

import (
	"encoding/binary"
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/zeebo/xxh3"

	"varve/arrival"
)

// sampleMark tells one sample of a series from the others. The zero mark is of none.
type sampleMark struct {
	timeMillis, startMillis int64
	// bits are a float's own, or a hash of a native histogram.
	bits uint64
	kind sampleKind
}

type sampleKind uint8

const (
	sampleNone sampleKind = iota
	sampleFloat
	sampleHistogram
)

// repeats says whether a sample is the one of its series that was written last.
func (a *appender) repeats(k *known, st, t int64, v float64, h *histogram.Histogram, fh *histogram.FloatHistogram) bool {
	if k.last.kind == sampleNone || k.last.timeMillis != t || k.last.startMillis != st {
		return false
	}
	if h == nil && fh == nil {
		return k.last.kind == sampleFloat && k.last.bits == math.Float64bits(v)
	}
	var p sampleMark
	p, a.wire = markOf(&arrival.Histogram{TimeMillis: t, StartMillis: st, Int: h, Float: fh}, a.wire)
	return p == k.last
}

// leaveOut counts a repeated sample as dropped once the batch is committed.
func (a *appender) leaveOut(native bool) {
	a.dropped.Dropped[arrival.ReasonRepeated]++
	if native {
		a.dropped.DroppedHistograms++
	} else {
		a.dropped.DroppedSamples++
	}
}

// markOf returns the mark of a native histogram, and the scratch grown.
func markOf(h *arrival.Histogram, scratch []byte) (sampleMark, []byte) {
	b := scratch[:0]
	if h.Float != nil {
		f := h.Float
		b = append(b, 'f', byte(f.CounterResetHint))
		b = append64(b, uint64(uint32(f.Schema)), math.Float64bits(f.ZeroThreshold), math.Float64bits(f.ZeroCount), math.Float64bits(f.Count), math.Float64bits(f.Sum))
		b = appendSpans(appendSpans(b, f.PositiveSpans), f.NegativeSpans)
		b = appendFloats(appendFloats(appendFloats(b, f.PositiveBuckets), f.NegativeBuckets), f.CustomValues)
	} else {
		i := h.Int
		b = append(b, 'i', byte(i.CounterResetHint))
		b = append64(b, uint64(uint32(i.Schema)), math.Float64bits(i.ZeroThreshold), i.ZeroCount, i.Count, math.Float64bits(i.Sum))
		b = appendSpans(appendSpans(b, i.PositiveSpans), i.NegativeSpans)
		b = appendFloats(appendInts(appendInts(b, i.PositiveBuckets), i.NegativeBuckets), i.CustomValues)
	}
	return sampleMark{timeMillis: h.TimeMillis, startMillis: h.StartMillis, bits: xxh3.Hash(b), kind: sampleHistogram}, b
}

func append64(b []byte, values ...uint64) []byte {
	for _, v := range values {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return b
}

func appendSpans(b []byte, spans []histogram.Span) []byte {
	b = append64(b, uint64(len(spans)))
	for _, s := range spans {
		b = append64(b, uint64(uint32(s.Offset))<<32|uint64(s.Length))
	}
	return b
}

func appendInts(b []byte, values []int64) []byte {
	b = append64(b, uint64(len(values)))
	for _, v := range values {
		b = append64(b, uint64(v))
	}
	return b
}

func appendFloats(b []byte, values []float64) []byte {
	b = append64(b, uint64(len(values)))
	for _, v := range values {
		b = append64(b, math.Float64bits(v))
	}
	return b
}
