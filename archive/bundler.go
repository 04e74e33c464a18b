package archive

import (
	"errors"
	"time"

	"github.com/zeebo/xxh3"

	"varve/archive/chunk"
	"varve/archive/format"
	"varve/rocks"
)

// bundler writes series, which come in the order of metric and ref, as bundles of one day. It
// gathers in a batch new clocks, the bundles, unless put takes them elsewhere, and those whose place they take as deletes, and counts
// them in the day's record. Whoever uses it sets full, and writes the batch.
type bundler struct {
	a      *Archive
	day    format.Day
	limits sealLimits
	report SealReport
	// full writes the batch, when it is large or has gathered for long, at a point where it is whole. The
	// series is the first that is not in it.
	full func(metric format.PairID, ref format.Ref) error
	// put, unless nil, takes bundles elsewhere than to the batch, in the order of their keys. It doesn't keep them.
	put func(key, value []byte) error
	// stepMax is after what time the batch is written however small it is.
	stepMax time.Duration

	record  format.DayRecord
	clocks  *clockReader
	book    clockBook
	groups  groupFinder
	bases   baseFinder
	builder chunk.BundleBuilder
	batch   rocks.Batch
	column  chunk.Column
	part    chunk.Column
	metric  format.PairID
	last    format.Ref
	samples int // in the builder
	added   int // series in the builder
	// open tells that series of bundles in the batch's deletes may be missing in its puts.
	open    bool
	key     []byte
	value   []byte
	stepped time.Time // when a batch was last written
}

func newBundler(a *Archive, day format.Day) bundler {
	return bundler{
		a: a, day: day, limits: a.sealLimits, stepMax: sealStepMax, report: SealReport{Day: day},
		groups: newGroupFinder(a.cat), bases: newBaseFinder(a.cat),
	}
}

// series adds a series, whose samples are in the pieces, to the bundle that grows.
func (w *bundler) series(series *sealSeries, pieces []chunk.Piece) error {
	if err := w.column.Decode(pieces, w.day.StartMillis(), w.day.EndMillis()-1); err != nil {
		return err
	}
	return w.decoded(series)
}

// decoded adds a series, whose samples are in the column.
func (w *bundler) decoded(series *sealSeries) error {
	due := w.batch.Bytes() >= w.limits.batchBytes || time.Since(w.stepped) >= w.stepMax
	full, err := w.isFull(series)
	if err != nil {
		return err
	}
	if due || series.edge || series.metric != w.metric || full {
		if err := w.closeBundle(0); err != nil {
			return err
		}
		// The bundles that were taken over go in the same batch as those that take their place.
		if w.open = w.open && !series.edge; !w.open && due {
			if err := w.full(series.metric, series.ref); err != nil {
				return err
			}
		}
	}
	for i := range series.replaced {
		if err := w.replace(&series.replaced[i]); err != nil {
			return err
		}
	}
	w.report.Runs += series.runs
	w.report.RunBytes += series.runBytes
	w.report.Overwritten += w.column.Overwritten
	w.report.Series++
	w.report.Samples += len(w.column.Times)
	if len(w.column.Times) > w.limits.chunkSamples {
		return w.stretches(series)
	}
	err = w.add(series, &w.column)
	if !errors.Is(err, chunk.ErrBundleFull) {
		return err
	}
	// Its samples change their kind so often that they take more chunks than are left.
	if err := w.closeBundle(0); err != nil {
		return err
	}
	if err := w.add(series, &w.column); !errors.Is(err, chunk.ErrBundleFull) {
		return err
	}
	return w.stretches(series)
}

// isFull tells whether the bundle that grows is large enough for the series to begin another.
// The buckets of a histogram stay together, as they are differences to each other: parting them
// took 1 to 2 % of the bytes of exporters written in Go.
func (w *bundler) isFull(series *sealSeries) (bool, error) {
	if w.builder.Len() >= w.limits.bundleChunks || w.builder.Size() >= 2*w.limits.bundleBytes {
		return true, nil
	}
	if w.builder.Size() < w.limits.bundleBytes {
		return false, nil
	}
	together, err := w.bases.hasBucketOf(series.metric, series.ref)
	return !together, err
}

// add adds the column, whole or a stretch of the day, to the bundle that grows.
func (w *bundler) add(series *sealSeries, c *chunk.Column) error {
	if len(c.Times) == 0 {
		return nil
	}
	group, err := w.groups.of(series.ref)
	if err != nil {
		return err
	}
	id, times, err := w.book.find(group, c.Times)
	if err != nil {
		return err
	}
	base, err := w.bases.base(series.metric, series.ref, w.added)
	if err != nil {
		return err
	}
	if err := w.builder.Add(uint64(series.ref), id, times, base, c); err != nil {
		return err
	}
	w.metric, w.last = series.metric, series.ref
	w.samples += len(c.Times)
	w.added++
	return nil
}

// stretches writes a series with too many samples for one chunk as bundles of its own,
// one for each stretch of the day. The stretches are equal parts of the day, so that
// the series of a group have the same and share their clocks.
func (w *bundler) stretches(series *sealSeries) error {
	if err := w.closeBundle(0); err != nil {
		return err
	}
	parts := int64(2)
	for len(w.column.Times) > int(parts)*w.limits.chunkSamples && parts < 1<<12 {
		parts *= 2
	}
	length := int64(format.DayMillis) / parts
	most := w.limits.chunkSamples
	for from := int64(0); from < format.DayMillis; from += length {
		begin, end := w.day.StartMillis()+from, w.day.StartMillis()+from+length-1
		for w.part.Slice(&w.column, begin, end); len(w.part.Times) > 0; w.part.Slice(&w.column, begin, end) {
			// A burst may hold more than its share: it is cut by number.
			var head chunk.Column
			head.Slice(&w.part, w.part.Times[0], w.part.Times[min(len(w.part.Times), most)-1])
			err := w.add(series, &head)
			if errors.Is(err, chunk.ErrBundleFull) && most > 1 {
				most /= 2
				w.bases.reset()
				continue
			}
			if err != nil {
				return err
			}
			if err := w.closeBundle(uint32(head.Times[0] - w.day.StartMillis())); err != nil {
				return err
			}
			begin = head.Times[len(head.Times)-1] + 1
		}
	}
	return nil
}

// closeBundle puts the bundle that grows into the batch.
func (w *bundler) closeBundle(from uint32) error {
	if w.builder.Len() == 0 {
		return nil
	}
	k := format.RawKey{Day: w.day, Metric: w.metric, Last: w.last, From: from}
	w.key = k.Append(w.key[:0])
	w.value = w.builder.Append(w.value[:0], w.key)
	if w.put == nil {
		w.batch.Put(family(format.FamilyRaw), w.key, w.value)
	} else if err := w.put(w.key, w.value); err != nil {
		return err
	}
	w.record.AddBundle(w.samples, len(w.key)+len(w.value), bundleHash(w.key, w.value))
	w.report.Bundles++
	w.report.BundleBytes += len(w.key) + len(w.value)
	w.builder.Reset()
	w.bases.reset()
	w.samples, w.added = 0, 0
	return nil
}

// replace takes away a bundle whose series are written anew.
func (w *bundler) replace(b *sealedBundle) error {
	samples, err := b.bundle.TotalSamples(w.clocks.Times)
	if err != nil {
		return err
	}
	w.batch.Delete(family(format.FamilyRaw), b.key.Append(nil))
	w.record.RemoveBundle(samples, b.bytes, b.hash)
	w.report.Replaced++
	w.open = true
	return nil
}

// bundleHash is what a bundle adds to the digest of its day.
func bundleHash(key, value []byte) uint64 {
	h := xxh3.New()
	h.Write(key)
	h.Write(value[max(0, len(value)-4):])
	return h.Sum64()
}
