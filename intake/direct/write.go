package direct

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tombstones"

	"varve/arrival"
	"varve/intake"
)

// batchSamples bounds one write: a few MB of columns.
const batchSamples = 1 << 16

// Write implements intake.Target: in batches, each durable before the next one. Chunks of a series that overlap are written one
// behind the other, so that the later one wins as the later arrival.
func (t *target) Write(ctx context.Context, samples []intake.SeriesSamples) (r intake.WriteReport, err error) {
	w := writer{t: t, report: intake.WriteReport{Reasons: map[string]uint64{}}}
	defer func() {
		if p := recover(); p != nil { // upstream's decoders trust their bytes
			err = fmt.Errorf("%w: decoding it panics: %v", intake.ErrBadChunk, p)
		}
	}()
	refs, err := w.resolve(ctx, samples)
	if err != nil {
		return w.report, err
	}
	for i := range samples {
		if err := w.series(ctx, refs[i], samples[i].Chunks); err != nil {
			return w.report, fmt.Errorf("%s: %w", samples[i].Labels, err)
		}
	}
	return w.report, w.flush(ctx)
}

// writer fills batches.
type writer struct {
	t      *target
	batch  arrival.Batch
	n      int // samples in it
	report intake.WriteReport
	it     chunkenc.Iterator
}

func (w *writer) resolve(ctx context.Context, samples []intake.SeriesSamples) ([]intake.Series, error) {
	series := make([]intake.Series, len(samples))
	for i := range samples {
		series[i].Labels = samples[i].Labels
	}
	return series, w.t.Resolve(ctx, series)
}

// series writes the samples of a series.
func (w *writer) series(ctx context.Context, s intake.Series, chunks []intake.Chunk) error {
	for i := range chunks {
		c := &chunks[i]
		w.row(s)
		w.it = c.Chunk.Iterator(w.it)
		for kind := w.it.Next(); kind != chunkenc.ValNone; kind = w.it.Next() {
			if isDeleted(c, w.it.AtT()) {
				continue
			}
			if s.Ref == 0 {
				w.report.Refused++
				w.report.Reasons[cmp.Or(s.Refused, "unknown")]++
				continue
			}
			w.sample(kind)
			if w.n++; w.n < batchSamples {
				continue
			}
			if err := w.flush(ctx); err != nil {
				return err
			}
			w.row(s)
		}
		if err := w.it.Err(); err != nil {
			return fmt.Errorf("%w: %w", intake.ErrBadChunk, err)
		}
	}
	return nil
}

func isDeleted(c *intake.Chunk, at int64) bool {
	i, _ := slices.BinarySearchFunc(c.Deleted, at, func(d tombstones.Interval, at int64) int { return cmp.Compare(d.Maxt, at) })
	return i < len(c.Deleted) && c.Deleted[i].Mint <= at
}

// row begins a row of the series.
func (w *writer) row(s intake.Series) {
	w.batch.Rows = append(w.batch.Rows, arrival.Row{Ref: storage.SeriesRef(s.Ref), First: uint32(len(w.batch.Times))})
}

// sample adds the sample that the iterator stands on.
func (w *writer) sample(kind chunkenc.ValueType) {
	row := len(w.batch.Rows) - 1
	start := w.it.AtST()
	if kind == chunkenc.ValFloat {
		at, v := w.it.At()
		if start != 0 && len(w.batch.Starts) == 0 {
			w.batch.Starts = append(w.batch.Starts, make([]int64, len(w.batch.Times))...)
		}
		w.batch.Times, w.batch.Values = append(w.batch.Times, at), append(w.batch.Values, math.Float64bits(v))
		if start != 0 || len(w.batch.Starts) > 0 {
			w.batch.Starts = append(w.batch.Starts, start)
		}
		w.batch.Rows[row].Count++
		return
	}
	h := arrival.Histogram{Row: uint32(row), StartMillis: start}
	if kind == chunkenc.ValHistogram {
		h.TimeMillis, h.Int = w.it.AtHistogram(nil)
	} else {
		h.TimeMillis, h.Float = w.it.AtFloatHistogram(nil)
	}
	w.batch.Histograms = append(w.batch.Histograms, h)
}

// flush writes the batch. An archive that can't take it for now is asked again.
func (w *writer) flush(ctx context.Context) error {
	if w.n == 0 {
		w.batch.Reset()
		return nil
	}
	w.batch.Unforwarded = !w.t.o.Forward
	var res arrival.Result
	err := retried(ctx, func() (err error) { res, err = w.t.a.Write(ctx, &w.batch); return err })
	if err != nil {
		return err
	}
	w.report.Samples += uint64(res.Samples + res.Histograms)
	for reason, n := range res.Rejected {
		if n > 0 {
			w.report.Refused += uint64(n)
			w.report.Reasons[arrival.Reason(reason).String()] += uint64(n)
		}
	}
	w.batch.Reset()
	w.n = 0
	return nil
}
