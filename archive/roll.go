package archive

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"varve/archive/chunk"
	"varve/archive/format"
	"varve/rocks"
	"varve/rollup"
)

// RollReport says what a Roll did.
type RollReport struct {
	Day format.Day
	// Series and Samples were read; of all resolutions Buckets were written, in Bundles of
	// BundleBytes with their keys, and Replaced bundles went.
	Series, Samples, Buckets, Bundles, BundleBytes, Replaced int
	Took                                                     time.Duration
}

// rollSeriesMax is how many series are read at a time.
const rollSeriesMax = 1024

// Roll makes the rollups of a day: of all its series, or, if it was rolled up before, of those
// of which late samples were sealed since, or samples deleted. It reads the day, and the first
// millisecond of the next, as a query would, so that what is there is what a query would find.
//
// A Roll that is ended, by ctx, an error or a kill, goes on where it was when it is called
// again; until a day is rolled up whole its rollups at a resolution are not used. pace is as in Seal.
func (a *Archive) Roll(ctx context.Context, day format.Day, pace Pace) (RollReport, error) {
	if err := a.beginJob(); err != nil {
		return RollReport{Day: day}, err
	}
	defer a.sealing.Unlock()
	r := roller{a: a, ctx: ctx, day: day, pace: pace, done: roaring.New(), report: RollReport{Day: day}}
	began := time.Now()
	err := r.run()
	r.report.Took = time.Since(began)
	a.m.rolled(&r.report, err)
	if err != nil {
		return r.report, fmt.Errorf("roll up %s: %w", Date(day), err)
	}
	return r.report, nil
}

// roller rolls up one day.
//
// Batches hold whole bundles, the bundles they replace as deletes, the containers of series
// that are no longer dirty, and the records of the day with the place that was reached.
type roller struct {
	a       *Archive
	ctx     context.Context
	day     format.Day
	pace    Pace
	report  RollReport
	writers []*rollWriter // by resolution, ascending
	batch   rocks.Batch
	done    *roaring.Bitmap // series since the last batch
	stepped time.Time

	column  chunk.Column
	pieces  []chunk.Piece
	walk    chunk.Iterator
	builder rollup.Builder
	levels  []rollup.Columns // by resolution
}

// rollSeries is a series to be rolled up.
type rollSeries struct {
	metric format.PairID
	ref    format.Ref
}

func (r *roller) run() error {
	snap := r.a.db.NewSnapshot()
	defer snap.Release()
	defer func() {
		for _, w := range r.writers {
			w.close()
		}
	}()
	var all bool
	refs := roaring.New()
	// Of these the samples are gone, so that their buckets stay as they are.
	gone := r.a.trims.of(rollKey{0, r.day})
	for _, resolution := range r.a.rolls.of(r.day) {
		w := newRollWriter(r, resolution, snap)
		r.writers = append(r.writers, w)
		if w.refs == nil {
			all = true
		} else {
			refs.Or(w.refs)
		}
	}
	if len(r.writers) == 0 {
		return nil
	}
	if all {
		active, err := r.a.activeBetween(r.day, r.day+2)
		if err != nil {
			return err
		}
		refs.Or(active)
	}
	// A series without samples on the day may have a bucket of one at the midnight behind it. Its samples there never go before
	// those of the day.
	kept := roaring.And(refs, roaring.Or(gone, r.a.trims.of(rollKey{0, r.day + 1})))
	r.a.rolls.reading(r.day, kept)
	r.done.Or(kept)
	refs.AndNot(kept)
	if err := r.noteGone(gone, refs); err != nil {
		return err
	}
	r.levels = make([]rollup.Columns, len(r.writers))
	series, err := r.order(refs)
	if err != nil {
		return err
	}
	r.stepped = time.Now()
	for len(series) > 0 {
		n := min(len(series), rollSeriesMax)
		if err := r.some(series[:n]); err != nil {
			return err
		}
		series = series[n:]
	}
	return r.finish()
}

// noteGone notes that at resolutions which are rolled up for the first time there are no buckets of the series whose
// samples are gone, and that buckets which a rule removed are there again of those that are rolled up.
func (r *roller) noteGone(gone, refs *roaring.Bitmap) error {
	var b rocks.Batch
	changed := map[rollKey]*roaring.Bitmap{}
	for _, w := range r.writers {
		k := rollKey{w.resolution, r.day}
		before := r.a.trims.of(k)
		var after *roaring.Bitmap
		if w.refs == nil {
			after = gone
		} else {
			after = roaring.AndNot(before, roaring.And(refs, w.refs))
		}
		if !after.Equals(before) {
			changed[k] = after.Clone()
			putGone(&b, k, before, after)
		}
	}
	if len(changed) == 0 {
		return nil
	}
	if err := r.a.writeBatch(&b); err != nil {
		return err
	}
	r.a.trims.set(changed)
	return nil
}

// order returns the series in the order of metric and ref.
func (r *roller) order(refs *roaring.Bitmap) ([]rollSeries, error) {
	if refs.IsEmpty() {
		return nil, nil
	}
	out := make([]rollSeries, 0, refs.GetCardinality())
	first, end := format.Ref(refs.Minimum()), format.Ref(refs.Maximum())+1
	err := r.a.cat.records(first, end, func(ref format.Ref, rec *format.Series) error {
		if ref <= math.MaxUint32 && refs.Contains(uint32(ref)) {
			out = append(out, rollSeries{rec.Metric, ref})
		}
		return r.ctx.Err()
	})
	slices.SortFunc(out, func(x, y rollSeries) int {
		if c := cmp.Compare(x.metric, y.metric); c != 0 {
			return c
		}
		return cmp.Compare(x.ref, y.ref)
	})
	return out, err
}

// some rolls up some series, which come next in order.
func (r *roller) some(series []rollSeries) error {
	read := roaring.New()
	out := make([]samples, 0, len(series))
	for _, s := range series {
		if slices.ContainsFunc(r.writers, func(w *rollWriter) bool { return w.wants(s) }) {
			read.Add(uint32(s.ref))
			out = append(out, samples{ref: s.ref, metric: s.metric})
		}
	}
	if len(out) == 0 {
		return nil
	}
	r.a.rolls.reading(r.day, read)
	mint, maxt := r.day.StartMillis()+1, r.day.EndMillis()
	v, err := r.a.storedView(mint, maxt)
	if err != nil {
		return err
	}
	defer v.Close()
	v.bytesMax = math.MaxInt64
	if _, err := v.fill(r.ctx, out, mint, maxt); err != nil {
		return err
	}
	for i := range out {
		if err := r.a.ended(r.ctx); err != nil {
			return err
		}
		if err := r.step(rollSeries{out[i].metric, out[i].ref}); err != nil {
			return err
		}
		if err := r.series(&out[i], mint, maxt); err != nil {
			return fmt.Errorf("series %d of metric %d: %w", out[i].ref, out[i].metric, err)
		}
		r.done.Add(uint32(out[i].ref))
	}
	return nil
}

// series makes the buckets of a series.
func (r *roller) series(s *samples, mint, maxt int64) error {
	r.pieces = s.appendPieces(r.pieces[:0])
	if err := r.column.Decode(r.pieces, mint, maxt); err != nil {
		return err
	}
	r.report.Series++
	r.report.Samples += len(r.column.Times)
	for i, w := range r.writers {
		r.builder.Begin(int64(w.resolution), &r.levels[i])
		if i == 0 {
			r.samples()
		} else {
			r.builder.Rows(&r.levels[i-1], 0, r.levels[i-1].Len())
		}
		r.builder.Finish()
	}
	for i, w := range r.writers {
		if !w.wants(rollSeries{s.metric, s.ref}) {
			continue
		}
		if err := w.add(s.metric, s.ref, &r.levels[i]); err != nil {
			return err
		}
	}
	return nil
}

// samples hands the column to the builder.
func (r *roller) samples() {
	if r.column.Kinds == nil {
		for i, t := range r.column.Times {
			r.builder.Float(t, r.column.Values[i])
		}
		return
	}
	r.walk.Reset(&r.column)
	for kind := r.walk.Next(); kind != chunkenc.ValNone; kind = r.walk.Next() {
		if kind == chunkenc.ValFloat {
			r.builder.Float(r.walk.At())
			continue
		}
		r.builder.Histogram(r.walk.AtFloatHistogram(nil))
	}
}

// step writes the batch if it is time for that. next is the first series that is not in it.
func (r *roller) step(next rollSeries) error {
	if r.batch.Bytes() < r.a.sealLimits.batchBytes && time.Since(r.stepped) < sealStepMax {
		return nil
	}
	for _, w := range r.writers {
		if w.pending() {
			return nil // Series of a bundle that is taken away are still missing.
		}
	}
	return r.write(next, false)
}

// write writes the batch with all bundles closed. next is the first series that is not in it.
func (r *roller) write(next rollSeries, last bool) error {
	records := map[uint32]format.RollRecord{}
	for _, w := range r.writers {
		if err := w.closeBundle(); err != nil {
			return err
		}
		if w.record.Rolling {
			w.record.Metric, w.record.Ref = next.metric, next.ref
		}
		if last {
			w.record.Rolling, w.record.Metric, w.record.Ref = false, 0, 0
			w.record.RolledMillis = r.a.o.Now().UnixMilli()
		}
		records[w.resolution] = w.record
	}
	if err := r.a.disk.check(); err != nil {
		return err
	}
	err := r.a.rolls.rolled(r.day, records, r.done, &r.batch, func(b *rocks.Batch) error {
		// As in a sealing only the last batch is synced: a crash before that leaves the day to do.
		if last {
			return r.a.writeBatch(b)
		}
		return r.a.db.Write(b, false)
	})
	if err != nil {
		r.a.state.failed(err)
		return err
	}
	r.batch.Reset()
	r.done.Clear()
	for _, w := range r.writers {
		if w.book.full() {
			w.book.forget()
		}
	}
	r.a.step("rolled batch")
	if r.pace != nil && !last {
		if err := r.pace(r.ctx, time.Since(r.stepped)); err != nil {
			return err
		}
	}
	r.stepped = time.Now()
	return nil
}

func (r *roller) finish() error {
	var errs []error
	for _, w := range r.writers {
		errs = append(errs, w.endMetric())
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := r.write(rollSeries{}, true); err != nil {
		return err
	}
	r.a.untidy.rolled(r.day)
	r.a.step("rolled")
	return nil
}

// activeBetween returns the series with samples on days from first on, before end.
func (a *Archive) activeBetween(first, end format.Day) (*roaring.Bitmap, error) {
	if err := a.index.drain(); err != nil {
		return nil, err
	}
	snap := a.db.NewSnapshot()
	defer snap.Release()
	return a.index.active(snap, first, end)
}
