package archive

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"varve/archive/format"
	"varve/arrival"
	"varve/rocks"
)

// catalogue knows every series: its labels, its ref, and the keys by which
// senders name it.
//
// A new series is visible at once and durable with the next group commit: its
// records wait in fresh, travel with the first commit taken after it was made, and
// with every following one until one succeeds. Refs, pair ids and groups are never
// reused, because the counters travel in the same batch.
type catalogue struct {
	db    *rocks.DB
	seed  arrival.Seed
	keys  *keyTable
	now   func() int64
	limit seriesLimit

	pairs  *genCache[format.PairID, pairText]
	labels *genCache[format.Ref, labels.Labels]
	// ids are pairs by text key. The cache is replaced when pairs go: whoever has the old one may
	// put one that is gone into that, but nobody asks it any more.
	ids atomic.Pointer[genCache[string, format.PairID]]

	// leaving are series without data that are about to be forgotten (forget.go).
	leaving leavingSeries

	// mu serialises the making of series and guards everything below. It is taken
	// before nothing and after nothing: no other lock is held with it but the caches'.
	mu        sync.Mutex
	nextRef   format.Ref
	nextPair  format.PairID
	nextGroup format.GroupID
	groups    map[groupKey]*openGroup
	fresh     *newRecords
	created   uint64
	forgotten uint64
	before    uint64 // about how many series there were at the start
	// departed are the labels of series that were forgotten lately, for writers that looked them up before.
	departed map[format.Ref]labels.Labels
	// used are pairs that series made since a sweep began carry; nil if there is no sweep.
	used *roaring.Bitmap

	// recentMu guards what is known but not yet durable. Nested inside mu.
	recentMu    sync.RWMutex
	recent      map[format.Ref]recentSeries
	recentPairs map[format.PairID]pairText
	recentIDs   map[string]format.PairID // by text key
}

type pairText struct{ name, value string }

type groupKey struct{ job, instance format.PairID }

// openGroup is a group with the refs that are reserved for it.
type openGroup struct {
	format.Group
	next format.Ref
}

type recentSeries struct {
	labels labels.Labels
	record format.Series
}

// newRecords are records of series that wait for, or travel with, a commit.
type newRecords struct {
	batch rocks.Batch
	refs  []format.Ref
	pairs []format.PairID
}

// The first block of refs of a group has 16, each further one twice as many up
// to 256: a pod of twenty series wastes a dozen refs, a big target's series are
// neighbours all the same.
const (
	refBlockMin = 16
	refBlockMax = 256
	// groupsMax bounds the memory of groups that were seen making series, about 100 bytes each.
	groupsMax = 1 << 18
)

func newCatalogue(db *rocks.DB, now func() int64, o *Options) *catalogue {
	c := &catalogue{
		db: db, keys: newKeyTable(), now: now,
		limit:       seriesLimit{totalMax: o.SeriesMax, perMinuteMax: o.NewSeriesPerMinuteMax},
		pairs:       newGenCache[format.PairID](o.SymbolCacheBytes/2, func(p pairText) int { return len(p.name) + len(p.value) + 96 }),
		labels:      newGenCache[format.Ref](o.LabelCacheBytes, func(l labels.Labels) int { return int(l.ByteSize()) + 64 }),
		groups:      map[groupKey]*openGroup{},
		fresh:       &newRecords{},
		recent:      map[format.Ref]recentSeries{},
		recentPairs: map[format.PairID]pairText{},
		recentIDs:   map[string]format.PairID{},
		departed:    map[format.Ref]labels.Labels{},
	}
	c.forgetIDs(o.SymbolCacheBytes / 2)
	return c
}

// forgetIDs begins an empty cache of pairs by text. Called with mu held, or before others see the catalogue.
func (c *catalogue) forgetIDs(bytesMax int) {
	c.ids.Store(newGenCache[string](bytesMax, func(format.PairID) int { return 128 }))
}

// total is about how many series there are. Called with mu held.
func (c *catalogue) total() uint64 {
	all := c.before + c.created
	return all - min(all, c.forgotten)
}

// load reads the counters and the seed of an existing archive.
func (c *catalogue) load(meta func(name string) (uint64, bool, error)) error {
	for name, set := range map[string]func(uint64){
		format.MetaSeed:      func(v uint64) { c.seed = arrival.Seed(v) },
		format.MetaNextRef:   func(v uint64) { c.nextRef = format.Ref(v) },
		format.MetaNextPair:  func(v uint64) { c.nextPair = format.PairID(v) },
		format.MetaNextGroup: func(v uint64) { c.nextGroup = format.GroupID(v) },
	} {
		v, ok, err := meta(name)
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("%w: meta record %q is missing", format.ErrCorrupt, name)
		}
		set(v)
	}
	c.before = c.db.KeysEstimate(family(format.FamilySeries))
	return nil
}

// Resolve implements the write port: it finds or makes the series of unknown.
func (c *catalogue) resolve(ctx context.Context, unknown []arrival.Unknown) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	own := make([]arrival.Key, len(unknown))
	var missing []int
	var wire []byte
	for i := range unknown {
		u := &unknown[i]
		wire = arrival.AppendLabels(wire[:0], u.Labels)
		own[i] = c.seed.Hash(wire)
		if u.Ref = c.keys.get(own[i]); u.Ref == 0 {
			missing = append(missing, i)
		}
	}
	if err := c.lookup(unknown, own, missing); err != nil {
		return err
	}
	for i := range unknown {
		u := &unknown[i]
		if u.Ref == 0 {
			// An earlier entry of the same request may have made it.
			u.Ref = c.keys.get(own[i])
		}
		if u.Ref == 0 {
			if !c.limit.allow(c.now(), c.total()) {
				u.Refused = arrival.ReasonSeriesLimit
				continue
			}
			if err := c.create(u, own[i]); err != nil {
				return fmt.Errorf("create series: %w", err)
			}
		}
		if u.Key != (arrival.Key{}) && u.Key != own[i] && c.keys.get(u.Key) == 0 {
			c.keys.put(u.Key, u.Ref)
		}
	}
	return nil
}

// lookup finds series that exist on disk but not in the table of keys.
func (c *catalogue) lookup(unknown []arrival.Unknown, own []arrival.Key, missing []int) error {
	if len(missing) == 0 {
		return nil
	}
	keys := make([][]byte, len(missing))
	for j, i := range missing {
		keys[j] = format.AppendLookupKey(nil, own[i].Hi, own[i].Lo)
	}
	found := make([]format.Ref, 0, len(missing))
	at := make([]int, 0, len(missing))
	err := c.db.MultiGet(family(format.FamilyLookup), keys, func(j int, value []byte, ok bool) error {
		if !ok {
			return nil
		}
		ref, err := format.ParseUint64(value)
		if err != nil {
			return fmt.Errorf("lookup record: %w", err)
		}
		found = append(found, format.Ref(ref))
		at = append(at, missing[j])
		return nil
	})
	if err != nil {
		return fmt.Errorf("look up series: %w", err)
	}
	sets, err := c.labelsOf(found)
	if err != nil {
		return err
	}
	for k, i := range at {
		if !labels.Equal(sets[k], unknown[i].Labels) {
			return fmt.Errorf("%w: lookup names series %d for labels of another series; run `varve check data`", format.ErrCorrupt, found[k])
		}
		c.leaving.stay(found[k])
		if c.keys.get(own[i]) == 0 {
			c.keys.put(own[i], found[k])
		}
		unknown[i].Ref = found[k]
	}
	return nil
}

// create makes a series. Called with mu held.
func (c *catalogue) create(u *arrival.Unknown, own arrival.Key) error {
	rec := format.Series{CreatedMillis: c.now()}
	var group groupKey
	var err error
	u.Labels.Range(func(l labels.Label) {
		if err != nil {
			return
		}
		var id format.PairID
		if id, err = c.pair(l.Name, l.Value); err != nil {
			return
		}
		switch l.Name {
		case model.MetricNameLabel:
			rec.Metric = id
		case "job":
			group.job = id
		case "instance":
			group.instance = id
		}
		rec.Pairs = append(rec.Pairs, id)
	})
	if err != nil {
		return err
	}
	g, err := c.group(group)
	if err != nil {
		return err
	}
	ref := g.next
	g.next++
	rec.Group = g.ID

	f := c.fresh
	f.refs = append(f.refs, ref)
	f.batch.Put(family(format.FamilySeries), format.AppendUint64(nil, uint64(ref)), rec.Append(nil))
	f.batch.Put(family(format.FamilyLookup), format.AppendLookupKey(nil, own.Hi, own.Lo), format.AppendUint64(nil, uint64(ref)))
	ls := u.Labels
	c.recentMu.Lock()
	c.recent[ref] = recentSeries{labels: ls, record: rec}
	c.recentMu.Unlock()
	c.labels.put(ref, ls)
	c.keys.put(own, ref)
	c.created++
	if c.used != nil {
		for _, id := range rec.Pairs {
			c.used.Add(uint32(id))
		}
	}
	u.Ref = ref
	return nil
}

// pair returns the id of a label pair and makes one when there is none. Called with mu held.
func (c *catalogue) pair(name, value string) (format.PairID, error) {
	id, err := c.findPair(name, value)
	if err != nil || id != 0 {
		return id, err
	}
	id = c.nextPair
	if id == 0 {
		return 0, fmt.Errorf("all label pair ids are used up")
	}
	c.nextPair++
	key := format.AppendTextKey(nil, name, value)
	f := c.fresh
	f.pairs = append(f.pairs, id)
	f.batch.Put(family(format.FamilySymbols), key, format.AppendPairID(nil, id))
	f.batch.Put(family(format.FamilySymbols), format.AppendPairKey(nil, id), format.AppendPair(nil, name, value))
	p := pairText{name: strings.Clone(name), value: strings.Clone(value)}
	c.recentMu.Lock()
	c.recentPairs[id] = p
	c.recentIDs[string(key)] = id
	c.recentMu.Unlock()
	c.ids.Load().put(string(key), id)
	c.pairs.put(id, p)
	return id, nil
}

// findPair returns the id of a label pair, zero when no series has it.
func (c *catalogue) findPair(name, value string) (format.PairID, error) {
	key := format.AppendTextKey(make([]byte, 0, 64), name, value)
	ids := c.ids.Load()
	if id, ok := ids.get(string(key)); ok {
		return id, nil
	}
	// A pair leaves recent after it has become durable, so this order misses none.
	c.recentMu.RLock()
	id, ok := c.recentIDs[string(key)]
	c.recentMu.RUnlock()
	if ok {
		return id, nil
	}
	v, ok, err := c.db.Get(family(format.FamilySymbols), key, nil)
	if err != nil {
		return 0, fmt.Errorf("look up label pair: %w", err)
	}
	if !ok {
		return 0, nil
	}
	if id, err = format.ParsePairID(v); err != nil {
		return 0, fmt.Errorf("label pair %s=%q: %w", name, value, err)
	}
	ids.put(string(key), id)
	return id, nil
}

// group returns the group with room for another series. Called with mu held.
func (c *catalogue) group(k groupKey) (*openGroup, error) {
	g := c.groups[k]
	if g == nil {
		var err error
		if g, err = c.loadGroup(k); err != nil {
			return nil, err
		}
		if len(c.groups) >= groupsMax {
			clear(c.groups)
		}
		c.groups[k] = g
	}
	if g.next < g.End {
		return g, nil
	}
	if g.ID == 0 {
		g.ID = c.nextGroup
		c.nextGroup++
	}
	size := min(max((g.End-g.First)*2, refBlockMin), refBlockMax)
	if uint64(c.nextRef+size) > refMax {
		return nil, fmt.Errorf("all %d series refs are used up", uint64(refMax))
	}
	g.First, g.End, g.next = c.nextRef, c.nextRef+size, c.nextRef
	c.nextRef = g.End
	c.fresh.batch.Put(family(format.FamilySymbols), format.AppendGroupKey(nil, k.job, k.instance), g.Group.Append(nil))
	return g, nil
}

// refMax bounds refs to what the 32-bit bitmaps in memory hold.
const refMax = 1<<32 - 1

// loadGroup reads a group and finds the first free of its reserved refs, which
// is behind the last one that has a record.
func (c *catalogue) loadGroup(k groupKey) (*openGroup, error) {
	v, ok, err := c.db.Get(family(format.FamilySymbols), format.AppendGroupKey(nil, k.job, k.instance), nil)
	if err != nil {
		return nil, fmt.Errorf("read group: %w", err)
	}
	if !ok {
		return &openGroup{}, nil
	}
	rec, err := format.ParseGroup(v)
	if err != nil {
		return nil, err
	}
	g := &openGroup{Group: rec, next: rec.First}
	it := c.db.NewIterator(family(format.FamilySeries), rocks.IterOptions{
		Lower: format.AppendUint64(nil, uint64(rec.First)), Upper: format.AppendUint64(nil, uint64(rec.End)),
	})
	defer it.Close()
	if it.SeekToLast(); it.Valid() {
		last, err := format.ParseUint64(it.Key())
		if err != nil {
			return nil, err
		}
		g.next = format.Ref(last) + 1
	}
	c.recentMu.RLock()
	for ref := g.next; ref < g.End; ref++ {
		if _, ok := c.recent[ref]; ok {
			g.next = ref + 1
		}
	}
	c.recentMu.RUnlock()
	return g, it.Err()
}

// take hands the waiting records to a commit. The caller gives them to settle
// when the commit succeeded, and keeps them for the next commit otherwise.
func (c *catalogue) take() *newRecords {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.fresh
	if f.batch.Len() == 0 {
		return nil
	}
	meta := family(format.FamilyMeta)
	f.batch.Put(meta, []byte(format.MetaNextRef), format.AppendUint64(nil, uint64(c.nextRef)))
	f.batch.Put(meta, []byte(format.MetaNextPair), format.AppendUint64(nil, uint64(c.nextPair)))
	f.batch.Put(meta, []byte(format.MetaNextGroup), format.AppendUint64(nil, uint64(c.nextGroup)))
	c.fresh = &newRecords{}
	return f
}

// isRecent tells whether the series may not be durable yet.
func (c *catalogue) isRecent(ref format.Ref) bool {
	c.recentMu.RLock()
	defer c.recentMu.RUnlock()
	_, ok := c.recent[ref]
	return ok
}

// settle forgets that records were not durable.
func (c *catalogue) settle(f *newRecords) {
	c.recentMu.Lock()
	defer c.recentMu.Unlock()
	for _, ref := range f.refs {
		delete(c.recent, ref)
	}
	for _, id := range f.pairs {
		p := c.recentPairs[id]
		delete(c.recentIDs, string(format.AppendTextKey(nil, p.name, p.value)))
		delete(c.recentPairs, id)
	}
}

// seriesLimit bounds the number of series and the rate of new ones. Zero limits nothing.
type seriesLimit struct {
	totalMax     uint64
	perMinuteMax int

	minute int64
	used   int
}

func (l *seriesLimit) allow(nowMillis int64, total uint64) bool {
	if l.totalMax > 0 && total >= l.totalMax {
		return false
	}
	if l.perMinuteMax <= 0 {
		return true
	}
	if m := nowMillis / 60_000; m != l.minute {
		l.minute, l.used = m, 0
	}
	l.used++
	return l.used <= l.perMinuteMax
}
