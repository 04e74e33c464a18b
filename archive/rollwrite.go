package archive

import (
	"errors"
	"fmt"
	"math"

	"github.com/RoaringBitmap/roaring/v2"

	"varve/archive/chunk"
	"varve/archive/format"
	"varve/rocks"
	"varve/rollup"
)

// rollWriter writes the rollups of a day at one resolution. Series come in the order of metric
// and ref. A bundle that a series is in, or lies in, is taken away, and its other series are
// written anew beside those that come.
type rollWriter struct {
	r          *roller
	resolution uint32
	family     format.Family
	// refs are those to be rolled up, nil for all.
	refs    *roaring.Bitmap
	record  format.RollRecord
	builder chunk.RollupBuilder
	buckets int // in the builder
	added   int // series in the builder
	book    rollBook
	groups  groupFinder
	bases   baseFinder
	metric  format.PairID
	last    format.Ref
	key     []byte
	value   []byte

	snap *rocks.Snapshot
	old  *rocks.Iterator
	// taken is the bundle that is being replaced; next is the first of its series that is
	// not written or replaced yet.
	taken   chunk.Rollups
	bytes   []byte
	next    int
	decoder chunk.RollupDecoder
	copied  rollup.Columns
}

func newRollWriter(r *roller, resolution uint32, snap *rocks.Snapshot) *rollWriter {
	k := rollKey{resolution, r.day}
	w := &rollWriter{r: r, resolution: resolution, family: format.RollupFamily(resolution), snap: snap, groups: newGroupFinder(r.a.cat), bases: newBaseFinder(r.a.cat)}
	w.book = rollBook{db: r.a.db, key: k, batch: &r.batch, groups: map[format.GroupID][]*bookedRollClock{}}
	w.record, w.refs = r.a.rolls.todo(k)
	w.builder.Reset(k.window())
	w.old = r.a.db.NewIterator(family(w.family), rocks.IterOptions{
		Snapshot: snap, Lower: format.AppendRollupDay(nil, resolution, r.day), Upper: format.AppendRollupDay(nil, resolution, r.day+1), NoFillCache: true,
	})
	return w
}

func (w *rollWriter) close() { w.old.Close() }

// wants tells whether the series is to be rolled up.
func (w *rollWriter) wants(s rollSeries) bool {
	if w.refs == nil {
		return s.metric > w.record.Metric || s.metric == w.record.Metric && s.ref >= w.record.Ref
	}
	return s.ref <= math.MaxUint32 && w.refs.Contains(uint32(s.ref))
}

// pending tells that series of a bundle that was taken away are still to be written.
func (w *rollWriter) pending() bool { return w.next < w.taken.Len() }

// add writes the rows of a series in place of those that it had, if there were any.
func (w *rollWriter) add(metric format.PairID, ref format.Ref, c *rollup.Columns) error {
	found, err := w.goTo(metric, ref)
	if err != nil {
		return err
	}
	if found {
		w.next++
	}
	if c.Len() == 0 {
		return nil
	}
	return w.put(ref, c)
}

// goTo writes what comes before the series of bundles that were taken away, and tells whether the series is
// the next of such a bundle.
func (w *rollWriter) goTo(metric format.PairID, ref format.Ref) (found bool, err error) {
	if metric != w.metric {
		if err := w.endMetric(); err != nil {
			return false, err
		}
		w.metric = metric
		first := format.RollupKey{Resolution: w.resolution, Day: w.r.day, Metric: metric}
		w.old.Seek(first.Append(nil))
	}
	return w.advance(ref)
}

// advance writes what bundles that were taken away have of series before ref, and takes away the
// bundle that ref is in or lies in. It tells whether ref is the next of it.
func (w *rollWriter) advance(ref format.Ref) (found bool, err error) {
	for {
		if w.pending() {
			if have := format.Ref(w.taken.Ref(w.next)); have >= ref {
				return have == ref, nil
			}
			if err := w.copyNext(); err != nil {
				return false, err
			}
			continue
		}
		covers, err := w.meet(ref)
		if err != nil || !covers {
			return false, err
		}
	}
}

// meet steps over bundles that end before ref and takes the one that ref lies in, if there is one.
func (w *rollWriter) meet(ref format.Ref) (covers bool, err error) {
	for w.old.Valid() {
		k, err := format.ParseRollupKey(w.old.Key())
		if err != nil {
			return false, err
		}
		if k.Metric != w.metric {
			return false, nil
		}
		if k.Last < ref {
			// A bundle that reached over this one would hide it.
			if err := w.closeBundle(); err != nil {
				return false, err
			}
			w.old.Next()
			continue
		}
		w.bytes = append(w.bytes[:0], w.old.Value()...)
		if err := w.parse(k); err != nil {
			return false, err
		}
		if format.Ref(w.taken.Ref(0)) > ref {
			w.next = w.taken.Len() // Not taken.
			return false, nil
		}
		buckets, err := w.takenBuckets()
		if err != nil {
			return false, err
		}
		w.r.batch.Delete(family(w.family), w.old.Key())
		w.record.RemoveBundle(buckets, len(w.old.Key())+len(w.bytes), bundleHash(w.old.Key(), w.bytes))
		w.r.report.Replaced++
		w.next = 0
		w.old.Next()
		return true, nil
	}
	return false, w.old.Err()
}

func (w *rollWriter) parse(k format.RollupKey) error {
	err := chunk.ParseRollups(w.old.Key(), w.bytes, uint64(k.Last), w.book.key.window(), &w.taken)
	if err != nil {
		w.next = w.taken.Len()
		return fmt.Errorf("bundle in family %s, key %x: %w; run `varve check data`", format.FamilyNames[w.family], w.old.Key(), err)
	}
	return nil
}

// takenBuckets counts the rows of the bundle that was taken away.
func (w *rollWriter) takenBuckets() (n int, err error) {
	for i := range w.taken.Len() {
		if err := w.read(i, 0); err != nil {
			return 0, err
		}
		n += w.copied.Len()
	}
	return n, nil
}

// read sets copied to the rows of a series of the bundle that was taken away.
func (w *rollWriter) read(i int, columns chunk.RollupColumns) error {
	w.copied.Reset()
	return w.readBetween(i, chunk.RollupRange{FromMillis: math.MinInt64, ToMillis: math.MaxInt64, Columns: columns}, &w.copied)
}

// readBetween appends the rows of a series of the bundle that was taken away that end in the range.
func (w *rollWriter) readBetween(i int, wanted chunk.RollupRange, c *rollup.Columns) error {
	clock, err := w.r.a.rollClock(w.snap, rollClockName{w.book.key, w.taken.Clock(i)})
	if err != nil {
		return err
	}
	if _, err := w.decoder.Decode(&w.taken, i, clock, wanted, c); err != nil {
		return fmt.Errorf("%w; run `varve check data`", err)
	}
	return nil
}

// copyNext writes the next series of the bundle that was taken away.
func (w *rollWriter) copyNext() error {
	i := w.next
	w.next++
	if err := w.read(i, chunk.RollupAll); err != nil {
		return err
	}
	return w.put(format.Ref(w.taken.Ref(i)), &w.copied)
}

// put adds the rows of a series to the bundle that grows.
func (w *rollWriter) put(ref format.Ref, c *rollup.Columns) error {
	limits := &w.r.a.sealLimits
	if w.builder.Size() >= limits.bundleBytes || w.builder.Len() >= limits.bundleChunks {
		if err := w.closeBundle(); err != nil {
			return err
		}
	}
	err := w.append(ref, c)
	if errors.Is(err, chunk.ErrBundleFull) && w.builder.Len() > 0 {
		if err := w.closeBundle(); err != nil {
			return err
		}
		err = w.append(ref, c)
	}
	return err
}

// append adds the rows of a series to the bundle that grows, which may be full.
func (w *rollWriter) append(ref format.Ref, c *rollup.Columns) error {
	group, err := w.groups.of(ref)
	if err != nil {
		return err
	}
	id, clock, err := w.book.find(group, c)
	if err != nil {
		return err
	}
	base, err := w.bases.base(w.metric, ref, w.added)
	if err != nil {
		return err
	}
	if err := w.builder.Add(uint64(ref), id, clock, base, c); err != nil {
		return err
	}
	w.last = ref
	w.buckets += c.Len()
	w.added++
	return nil
}

// closeBundle puts the bundle that grows into the batch.
func (w *rollWriter) closeBundle() error {
	if w.builder.Len() == 0 {
		return nil
	}
	k := format.RollupKey{Resolution: w.resolution, Day: w.r.day, Metric: w.metric, Last: w.last}
	w.key = k.Append(w.key[:0])
	w.value = w.builder.Append(w.value[:0], w.key)
	w.r.batch.Put(family(w.family), w.key, w.value)
	bytes := len(w.key) + len(w.value)
	w.record.AddBundle(w.buckets, bytes, bundleHash(w.key, w.value))
	w.r.report.Bundles++
	w.r.report.BundleBytes += bytes
	w.r.report.Buckets += w.buckets
	w.builder.Reset(w.book.key.window())
	w.bases.reset()
	w.buckets, w.added = 0, 0
	return nil
}

// endMetric writes what is left of the metric.
func (w *rollWriter) endMetric() error {
	for w.pending() {
		if err := w.copyNext(); err != nil {
			return err
		}
	}
	return w.closeBundle()
}
