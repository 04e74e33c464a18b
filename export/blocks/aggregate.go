package blocks

import (
	"context"
	"math"
	"slices"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"varve/digest"
	"varve/export"
	"varve/rollup"
)

// aggregator makes chunks of aggregates of one series after the other.
//
// A bucket that ends at e has the samples later than e-r up to and including e, as rollups have them, and stands at e-1: that
// is the last ms of its stretch in Thanos, whose stretches begin at a multiple of r and not behind it. A range that ends at
// a multiple of r and is as long as one has the same buckets either way.
type aggregator struct {
	resolution int64
	stats      *Stats
	encoder    *encoder // lends chunks for floats

	builder rollup.Builder
	columns rollup.Columns
	finer   rollup.Columns
	it      chunkenc.Iterator

	metas  []chunks.Meta
	digest digest.Series
	datas  [][]byte // of chunks of aggregates, reused
}

func (a *aggregator) begin() {
	a.metas, a.digest = a.metas[:0], digest.Series{}
	a.encoder.begin()
	a.builder.Begin(a.resolution, &a.columns)
}

// samples adds the samples of an iterator.
func (a *aggregator) samples(it chunkenc.Iterator) error {
	for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
		if kind == chunkenc.ValFloat {
			a.builder.Float(it.At())
			continue
		}
		t, h := it.AtFloatHistogram(nil)
		a.builder.Histogram(t, h)
	}
	return it.Err()
}

// rolled adds what a series has later than from and up to to, from buckets where they are complete, the longest that
// fit first, else from samples. bases are the lengths of buckets to look at.
func (a *aggregator) rolled(ctx context.Context, s export.RolledSeries, from, to int64, bases []int64) error {
	if from >= to {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(bases) == 0 {
		if from+1 < s.RawSince() {
			a.stats.Incomplete++
		}
		a.it = s.Raw(a.it, from+1, to)
		return a.samples(a.it)
	}
	type stretch struct{ from, to int64 }
	var covered []stretch
	err := s.Covered(bases[0], func(f, t int64) {
		if f, t = max(f, from), min(t, to); f < t {
			covered = append(covered, stretch{f, t})
		}
	})
	if err != nil {
		return err
	}
	at := from
	for _, c := range covered {
		if err := a.rolled(ctx, s, at, c.from, bases[1:]); err != nil {
			return err
		}
		if err := s.Buckets(bases[0], c.from, c.to, &a.finer); err != nil {
			return err
		}
		a.builder.Rows(&a.finer, 0, a.finer.Len())
		at = c.to
	}
	return a.rolled(ctx, s, at, to, bases[1:])
}

// bases returns the resolutions that a resolution is a multiple of, the longest first.
func bases(resolution int64, have []int64) []int64 {
	var fit []int64
	for _, r := range have {
		if r > 0 && resolution%r == 0 {
			fit = append(fit, r)
		}
	}
	slices.SortFunc(fit, func(x, y int64) int { return int(y - x) })
	return fit
}

// finish turns the buckets into chunks.
func (a *aggregator) finish() error {
	a.builder.Finish()
	c := &a.columns
	a.stats.HistogramBuckets += uint64(len(c.Histograms))
	used := 0
	for at := 0; at < c.Len(); {
		rows := make([]int, 0, chunkSamplesMax)
		for ; at < c.Len() && len(rows) < chunkSamplesMax; at++ {
			if c.Counts[at] > 0 {
				rows = append(rows, at)
			}
		}
		if len(rows) == 0 {
			break
		}
		if used == len(a.datas) {
			a.datas = append(a.datas, nil)
		}
		parts, err := a.encode(rows)
		if err != nil {
			return err
		}
		if a.digest, err = addAggregates(a.digest, &parts); err != nil {
			return err
		}
		a.datas[used] = AppendAggregateChunk(a.datas[used][:0], &parts)
		chunk := AggregateChunk(a.datas[used])
		used++
		// The parts are copied: their chunks are lent again.
		a.encoder.used = 0
		a.metas = append(a.metas, chunks.Meta{Chunk: &chunk, MinTime: c.Ends[rows[0]] - 1, MaxTime: c.Ends[rows[len(rows)-1]] - 1})
		a.stats.Buckets += uint64(len(rows))
	}
	return nil
}

// encode makes the parts of one chunk of the rows at some places.
func (a *aggregator) encode(rows []int) (parts [aggregates]chunkenc.Chunk, err error) {
	var apps [aggregates]chunkenc.Appender
	for i := range parts {
		parts[i] = a.encoder.floatChunk()
		if apps[i], err = parts[i].Appender(); err != nil {
			return parts, err
		}
	}
	c := &a.columns
	var counter counterState
	for i, at := range rows {
		r := c.Row(at)
		t := c.Ends[at] - 1
		apps[Count].Append(0, t, float64(r.Count))
		apps[Sum].Append(0, t, r.Sum)
		apps[Min].Append(0, t, r.Min)
		apps[Max].Append(0, t, r.Max)
		if i == 0 {
			// A sample right at the end of the bucket would stand behind it.
			apps[Counter].Append(0, min(r.FirstMillis, t), r.First)
		}
		counter.add(&r)
		apps[Counter].Append(0, t, counter.total)
	}
	apps[Counter].Append(0, c.Ends[rows[len(rows)-1]]-1, counter.last)
	return parts, nil
}

// counterState is what a counter came to, resets made up for, since the first bucket of a chunk.
type counterState struct {
	total, last float64
	begun       bool
}

// add takes a bucket. What isn't a number is passed over, as Thanos does, since nothing could be added to it.
func (s *counterState) add(r *rollup.Row) {
	grown := r.First + (r.Last - r.First + r.Correction)
	if s.begun && r.First >= s.last {
		grown -= s.last
	}
	if !math.IsNaN(grown) {
		s.total += grown
	}
	if !math.IsNaN(r.Last) {
		s.last, s.begun = r.Last, true
	}
}

// addAggregates adds the values of all aggregates to a digest. Their times are made to differ, so that one isn't taken for
// another.
func addAggregates(d digest.Series, parts *[aggregates]chunkenc.Chunk) (digest.Series, error) {
	for i, p := range parts {
		if p == nil {
			continue
		}
		it := p.Iterator(nil)
		for it.Next() == chunkenc.ValFloat {
			t, v := it.At()
			d.Float(t*int64(aggregates)+int64(i), v)
		}
		if err := it.Err(); err != nil {
			return d, err
		}
	}
	return d, nil
}
