package ingest

import (
	"context"
	"math"

	"github.com/prometheus/prometheus/storage"

	"varve/arrival"
)

// kept is what one write brought of a replica that is not elected, as far as it was
// later than the last sample of the elected one.
type kept struct {
	afterMillis, lastMillis int64
	samples                 []keptSample
	histograms              []keptHistogram
	bytes                   int64
}

type keptSample struct {
	ref           storage.SeriesRef
	millis, start int64
	bits          uint64
}

type keptHistogram struct {
	ref storage.SeriesRef
	arrival.Histogram
}

// What is counted of the buffer's memory.
const (
	keptBytes          = 96
	keptSampleBytes    = 32
	keptHistogramBytes = 320
)

func (s *sorting) keepFloats(b *arrival.Batch, row *arrival.Row) {
	k := s.kept[tagOf(row.Ref)]
	if k == nil {
		return
	}
	for i := row.First; i < row.First+row.Count; i++ {
		if b.Times[i] <= k.afterMillis {
			continue
		}
		sample := keptSample{ref: row.Ref & refMask, millis: b.Times[i], bits: b.Values[i]}
		if len(b.Starts) > 0 {
			sample.start = b.Starts[i]
		}
		k.samples = append(k.samples, sample)
		k.lastMillis = max(k.lastMillis, sample.millis)
		k.bytes += keptSampleBytes
	}
}

func (s *sorting) keepHistogram(h *arrival.Histogram, row *arrival.Row) {
	k := s.kept[tagOf(row.Ref)]
	if k == nil || h.TimeMillis <= k.afterMillis {
		return
	}
	own := keptHistogram{ref: row.Ref & refMask, Histogram: *h}
	k.bytes += keptHistogramBytes
	if h.Int != nil {
		own.Int = h.Int.Copy()
		k.bytes += 8 * int64(len(own.Int.PositiveBuckets)+len(own.Int.NegativeBuckets)+len(own.Int.PositiveSpans)+len(own.Int.NegativeSpans)+len(own.Int.CustomValues))
	} else {
		own.Float = h.Float.Copy()
		k.bytes += 8 * int64(len(own.Float.PositiveBuckets)+len(own.Float.NegativeBuckets)+len(own.Float.PositiveSpans)+len(own.Float.NegativeSpans)+len(own.Float.CustomValues))
	}
	k.histograms = append(k.histograms, own)
	k.lastMillis = max(k.lastMillis, own.TimeMillis)
}

func (k *kept) items() int { return len(k.samples) + len(k.histograms) }

// firstAfter is the first time after the cut, the largest int64 if there is none.
func (k *kept) firstAfter(cut int64) int64 {
	first := int64(math.MaxInt64)
	for i := range k.samples {
		if t := k.samples[i].millis; t > cut {
			first = min(first, t)
		}
	}
	for i := range k.histograms {
		if t := k.histograms[i].TimeMillis; t > cut {
			first = min(first, t)
		}
	}
	return first
}

// keep puts k into the buffer of a replica. What the elected one has overtaken leaves
// it, and what has no room, the oldest first. Called with mu held.
func (rs *replicas) keep(r *replica, k *kept) {
	after := r.cluster.lastMillis
	gone := 0
	for gone < len(r.buffer) && r.buffer[gone].lastMillis <= after {
		gone++
	}
	rs.release(r.buffer[:gone])
	if k.items() > 0 {
		k.bytes += keptBytes
		for gone < len(r.buffer) && rs.buffered+k.bytes > rs.bufferMax {
			rs.door.m.bufferLost.Add(float64(r.buffer[gone].items()))
			rs.release(r.buffer[gone : gone+1])
			gone++
		}
	}
	// A copy, so that the array doesn't keep what left it.
	r.buffer = append([]*kept(nil), r.buffer[gone:]...)
	switch {
	case k.items() == 0:
	case rs.buffered+k.bytes > rs.bufferMax:
		rs.door.m.bufferLost.Add(float64(k.items()))
	default:
		rs.buffered += k.bytes
		r.buffer = append(r.buffer, k)
	}
}

// release gives back the room of what leaves the buffer. Called with mu held.
func (rs *replicas) release(all []*kept) {
	for _, k := range all {
		rs.buffered -= k.bytes
	}
}

// writeKept writes what is later than the cluster's cut, in batches.
func (rs *replicas) writeKept(ctx context.Context, cut int64, all []*kept) error {
	var b arrival.Batch
	row := func(ref storage.SeriesRef) *arrival.Row {
		if n := len(b.Rows); n == 0 || b.Rows[n-1].Ref != ref {
			b.Rows = append(b.Rows, arrival.Row{Ref: ref, First: uint32(len(b.Times))})
		}
		return &b.Rows[len(b.Rows)-1]
	}
	write := func(least int) error {
		if len(b.Times)+len(b.Histograms) < least {
			return nil
		}
		if t := rs.door.thin; t != nil {
			// Series that came once and were forgotten since.
			rs.door.m.bufferLost.Add(float64(t.unlinked(b.Rows)))
		}
		var res arrival.Result
		err := rs.door.store(ctx, &b, &res)
		b.Reset()
		return err
	}
	for _, k := range all {
		for i := range k.samples {
			s := &k.samples[i]
			if s.millis <= cut {
				continue
			}
			row(s.ref).Count++
			b.Times, b.Values = append(b.Times, s.millis), append(b.Values, s.bits)
			if s.start != 0 || len(b.Starts) > 0 {
				// None that came before had one.
				b.Starts = append(b.Starts, make([]int64, len(b.Times)-1-len(b.Starts))...)
				b.Starts = append(b.Starts, s.start)
			}
		}
		for i := range k.histograms {
			if h := k.histograms[i]; h.TimeMillis > cut {
				row(h.ref)
				h.Row = uint32(len(b.Rows) - 1)
				b.Histograms = append(b.Histograms, h.Histogram)
			}
		}
		if err := write(rowsMax); err != nil {
			return err
		}
	}
	return write(1)
}
