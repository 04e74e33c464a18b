package archive

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/prometheus/prometheus/model/labels"

	"varve/archive/format"
	"varve/arrival"
	"varve/rocks"
)

// leaver is a series with all that is needed to remove it.
type leaver struct {
	ref    format.Ref
	record format.Series
	labels labels.Labels
	key    arrival.Key
	group  groupKey
}

// leavers reads series.
func (c *catalogue) leavers(refs []format.Ref) ([]leaver, error) {
	out := make([]leaver, len(refs))
	recs := make([]format.Series, len(refs))
	keys := make([][]byte, len(refs))
	for i, ref := range refs {
		keys[i] = format.AppendUint64(nil, uint64(ref))
	}
	err := c.db.MultiGet(family(format.FamilySeries), keys, func(i int, value []byte, ok bool) error {
		if !ok {
			return fmt.Errorf("series %d: %w", refs[i], errNoRecord)
		}
		return recs[i].Parse(value)
	})
	if err != nil {
		return nil, fmt.Errorf("read series: %w", err)
	}
	texts, err := c.pairTexts(recs)
	if err != nil {
		return nil, err
	}
	var b labels.ScratchBuilder
	var wire []byte
	for i := range out {
		l := &out[i]
		l.ref, l.record = refs[i], recs[i]
		b.Reset()
		wire = wire[:0]
		for _, id := range recs[i].Pairs {
			p := texts[id]
			b.Add(p.name, p.value)
			wire = arrival.AppendLabel(wire, p.name, p.value)
			switch p.name {
			case "job":
				l.group.job = id
			case "instance":
				l.group.instance = id
			}
		}
		l.labels, l.key = b.Labels(), c.seed.Hash(wire)
	}
	return out, nil
}

// remove removes the series that are leaving still.
func (f *forgetter) remove() error {
	a := f.a
	for _, noted := range *a.trims.gone.Load() {
		a.cat.leaving.keep(noted)
	}
	all := a.cat.leaving.all()
	// Whoever asks for one of them by its labels from here on asks the disk, and makes it stay.
	a.cat.mu.Lock()
	a.cat.keys.forget(func(ref format.Ref) bool { return all.Contains(uint32(ref)) })
	a.cat.mu.Unlock()
	gone := roaring.New()
	for some := range slices.Chunk(refsOf(all), a.forgets.batch) {
		leaving, err := a.cat.leavers(some)
		if err != nil {
			return err
		}
		if err := f.removeSome(leaving, gone); err != nil {
			return err
		}
		a.step("series forgotten")
		if err := f.rest(); err != nil {
			return err
		}
	}
	a.orders.forget(gone)
	a.kept.rules.Load().forget(gone)
	a.cat.mu.Lock()
	defer a.cat.mu.Unlock()
	if a.cat.keys.used > keyTableMin && gone.GetCardinality() > uint64(a.cat.keys.used/2) {
		a.cat.keys.shrink(func(format.Ref) bool { return true })
	}
	return nil
}

// removeSome removes some series in one batch, and adds those that went to gone.
func (f *forgetter) removeSome(leaving []leaver, gone *roaring.Bitmap) error {
	a := f.a
	// Whoever deletes has found the series in the index, and has noted them when this is free.
	a.deletes.changing.Lock()
	defer a.deletes.changing.Unlock()
	a.upkeep.mu.Lock()
	defer a.upkeep.mu.Unlock()
	a.index.mu.Lock()
	defer a.index.mu.Unlock()
	promised := a.promised()
	a.cat.leaving.keep(promised)
	for {
		leaving = slices.DeleteFunc(leaving, func(l leaver) bool { return !a.cat.leaving.has(l.ref) })
		if len(leaving) == 0 {
			return nil
		}
		r, err := f.removal(leaving)
		if err != nil {
			return err
		}
		done, err := f.commit(r, gone)
		if err != nil || done {
			return err
		}
	}
}

// removal is a batch that removes series, and what of it memory has to know.
type removal struct {
	leaving []leaver
	refs    *roaring.Bitmap
	batch   rocks.Batch
	bytes   map[format.Family]uint64
	month   format.Month
	pairs   map[format.PairID]*roaring.Bitmap
}

// removal makes the batch. Called with the index's lock held.
func (f *forgetter) removal(leaving []leaver) (*removal, error) {
	a := f.a
	r := &removal{
		leaving: leaving, refs: roaring.New(), bytes: map[format.Family]uint64{}, month: a.kept.floors.Load().Series.Month(),
		pairs: map[format.PairID]*roaring.Bitmap{},
	}
	remove := func(of format.Family, key []byte, value int) {
		r.batch.Delete(family(of), key)
		r.bytes[of] += uint64(len(key) + value)
	}
	for i := range leaving {
		l := &leaving[i]
		r.refs.Add(uint32(l.ref))
		for _, id := range l.record.Pairs {
			addTo(r.pairs, id, uint32(l.ref))
		}
		remove(format.FamilySeries, format.AppendUint64(nil, uint64(l.ref)), len(l.record.Append(nil)))
		remove(format.FamilyLookup, format.AppendLookupKey(nil, l.key.Hi, l.key.Lo), 8)
	}
	// The month that the floor cuts in two has postings of days before it.
	for id, set := range r.pairs {
		err := a.index.subtract(&r.batch, format.FamilyIndex, set, func(high uint64) []byte { return format.AppendIndexKey(nil, r.month, id, high) })
		if err != nil {
			return nil, err
		}
	}
	return r, nil
}

// commit writes a batch. It is false, and nothing is done, if one of the series stays.
func (f *forgetter) commit(r *removal, gone *roaring.Bitmap) (done bool, err error) {
	a := f.a
	a.live.mu.Lock()
	defer a.live.mu.Unlock()
	a.cat.mu.Lock()
	defer a.cat.mu.Unlock()
	for i := range r.leaving {
		if !a.cat.leaving.has(r.leaving[i].ref) {
			return false, nil
		}
	}
	if err := a.writeBatch(&r.batch); err != nil {
		return false, err
	}
	if known := a.index.months[r.month]; known != nil {
		known.AndNot(r.refs)
	}
	for id, set := range r.pairs {
		takeFrom(a.index.fresh.pairs, monthPair{r.month, id}, set)
	}
	a.cat.depart(r.leaving)
	a.cat.leaving.keep(r.refs)
	gone.Or(r.refs)
	f.report.Series += r.refs.GetCardinality()
	for of, n := range r.bytes {
		f.gone(of, n)
	}
	return true, nil
}

// gone counts bytes that a family has lost.
func (f *forgetter) gone(of format.Family, bytes uint64) {
	f.freed[of] += bytes
	f.report.Bytes += bytes
}

// depart notes that series are gone. Called with mu held.
func (c *catalogue) depart(leaving []leaver) {
	c.forgotten += uint64(len(leaving))
	if len(c.departed) > departedMax-forgetBatch {
		clear(c.departed)
	}
	for i := range leaving {
		c.departed[leaving[i].ref] = leaving[i].labels
	}
}

// prepareTries is how often the series of a batch may be forgotten while it is prepared.
const prepareTries = 3

// prepared prepares the batch, and gives the rows of series that were forgotten since they were looked up those that their
// labels name now. passes is the count of passes that the batch knows of.
func (a *Archive) prepared(ctx context.Context, b *arrival.Batch) (passes uint64, err error) {
	for range prepareTries {
		passes = a.leaves.Load()
		if err = a.prepare(b); !errors.Is(err, errNoRecord) {
			return passes, err
		}
		if err = a.renew(ctx, b); err != nil {
			break
		}
	}
	return 0, forgottenMeanwhile(err)
}

// renew looks the rows' series up anew that were forgotten.
func (a *Archive) renew(ctx context.Context, b *arrival.Batch) error {
	var unknown []arrival.Unknown
	var rows []int
	for i := range b.Rows {
		ref := b.Rows[i].Ref
		if p := a.live.page(ref); ref == 0 || p != nil && p.exists(ref) {
			continue
		}
		_, err := a.cat.record(ref)
		if err == nil {
			continue
		}
		a.cat.mu.Lock()
		ls, ok := a.cat.departed[ref]
		a.cat.mu.Unlock()
		if !ok {
			return err
		}
		rows, unknown = append(rows, i), append(unknown, arrival.Unknown{Labels: ls})
	}
	if err := a.cat.resolve(ctx, unknown); err != nil {
		return err
	}
	for j, i := range rows {
		if unknown[j].Ref == 0 {
			return fmt.Errorf("series %d: %w", b.Rows[i].Ref, errNoRecord)
		}
		b.Rows[i].Ref = unknown[j].Ref
	}
	return nil
}

// forgottenMeanwhile makes of the error of a series that was forgotten one that tells the sender to send again.
func forgottenMeanwhile(err error) error {
	if !errors.Is(err, errNoRecord) {
		return err
	}
	return &arrival.Unavailable{Reason: "overload", RetryAfter: time.Second, Err: fmt.Errorf("a series was forgotten while it was written to: %w", err)}
}
