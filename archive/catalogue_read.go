package archive

import (
	"fmt"
	"strings"

	"github.com/prometheus/prometheus/model/labels"

	"varve/archive/format"
	"varve/rocks"
)

// errNoRecord is the error of asking for a series that is not there. Of one that a writer has looked up it means
// that it was forgotten since.
var errNoRecord = fmt.Errorf("%w: the series has no record; run `varve check data`", format.ErrCorrupt)

// record returns the record of a series.
func (c *catalogue) record(ref format.Ref) (format.Series, error) {
	c.recentMu.RLock()
	r, ok := c.recent[ref]
	c.recentMu.RUnlock()
	if ok {
		return r.record, nil
	}
	v, ok, err := c.db.Get(family(format.FamilySeries), format.AppendUint64(nil, uint64(ref)), nil)
	if err != nil {
		return format.Series{}, fmt.Errorf("read series %d: %w", ref, err)
	}
	if !ok {
		return format.Series{}, fmt.Errorf("series %d: %w", ref, errNoRecord)
	}
	var s format.Series
	if err := s.Parse(v); err != nil {
		return s, fmt.Errorf("series %d: %w", ref, err)
	}
	return s, nil
}

// records calls each for the series in [from, to) that exist, in the order of their refs,
// those that are not durable included. rec is valid during the call.
func (c *catalogue) records(from, to format.Ref, each func(ref format.Ref, rec *format.Series) error) error {
	c.recentMu.RLock()
	fresh := make([]recentSeries, 0, 8)
	var refs []format.Ref
	for ref := from; ref < to && len(c.recent) > 0; ref++ {
		if r, ok := c.recent[ref]; ok {
			fresh, refs = append(fresh, r), append(refs, ref)
		}
	}
	c.recentMu.RUnlock()
	it := c.db.NewIterator(family(format.FamilySeries), rocks.IterOptions{
		Lower: format.AppendUint64(nil, uint64(from)), Upper: format.AppendUint64(nil, uint64(to)),
	})
	defer it.Close()
	var s format.Series
	for it.SeekToFirst(); it.Valid(); it.Next() {
		ref, err := format.ParseUint64(it.Key())
		if err != nil {
			return fmt.Errorf("series key: %w", err)
		}
		if err := s.Parse(it.Value()); err != nil {
			return fmt.Errorf("series %d: %w", ref, err)
		}
		if err := each(format.Ref(ref), &s); err != nil {
			return err
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read series: %w", err)
	}
	for i := range fresh {
		if err := each(refs[i], &fresh[i].record); err != nil {
			return err
		}
	}
	return nil
}

// labelsOf returns the labels of series, in the order of refs.
func (c *catalogue) labelsOf(refs []format.Ref) ([]labels.Labels, error) {
	out := make([]labels.Labels, len(refs))
	var missing []int
	for i, ref := range refs {
		ls, ok := c.labels.get(ref)
		if !ok {
			missing = append(missing, i)
		}
		out[i] = ls
	}
	for len(missing) > 0 {
		n := min(len(missing), 4096)
		if err := c.loadLabels(refs, missing[:n], out); err != nil {
			return nil, err
		}
		missing = missing[n:]
	}
	return out, nil
}

// loadLabels reads the labels of the refs at the given places into out.
func (c *catalogue) loadLabels(refs []format.Ref, at []int, out []labels.Labels) error {
	recs := make([]format.Series, len(at))
	keys := make([][]byte, len(at))
	buf := make([]byte, 0, 8*len(at))
	for j, i := range at {
		buf = format.AppendUint64(buf, uint64(refs[i]))
		keys[j] = buf[len(buf)-8:]
	}
	err := c.db.MultiGet(family(format.FamilySeries), keys, func(j int, value []byte, ok bool) error {
		if ok {
			return recs[j].Parse(value)
		}
		ref := refs[at[j]]
		c.recentMu.RLock()
		r, recent := c.recent[ref]
		c.recentMu.RUnlock()
		if !recent {
			// The record may have become durable, and been forgotten here, since the read.
			rec, err := c.record(ref)
			if err != nil {
				return err
			}
			r.record = rec
		}
		recs[j] = r.record
		return nil
	})
	if err != nil {
		return fmt.Errorf("read series: %w", err)
	}
	texts, err := c.pairTexts(recs)
	if err != nil {
		return err
	}
	var b labels.ScratchBuilder
	for j, i := range at {
		b.Reset()
		for _, id := range recs[j].Pairs {
			p := texts[id]
			b.Add(p.name, p.value)
		}
		out[i] = b.Labels()
		c.labels.put(refs[i], out[i])
	}
	return nil
}

// pairTexts returns the texts of all pairs that the records name.
func (c *catalogue) pairTexts(recs []format.Series) (map[format.PairID]pairText, error) {
	return c.textsOf(recs, func(id format.PairID) error {
		return fmt.Errorf("%w: label pair %d has no text; run `varve check data`", format.ErrCorrupt, id)
	})
}

// textsOf is pairTexts, and asks lost about pairs without a text: their text is empty if it returns nil.
func (c *catalogue) textsOf(recs []format.Series, lost func(format.PairID) error) (map[format.PairID]pairText, error) {
	texts := make(map[format.PairID]pairText, len(recs))
	var missing []format.PairID
	for i := range recs {
		for _, id := range recs[i].Pairs {
			if _, ok := texts[id]; ok {
				continue
			}
			p, ok := c.pairs.get(id)
			if !ok {
				missing = append(missing, id)
			}
			texts[id] = p
		}
	}
	keys := make([][]byte, len(missing))
	for i, id := range missing {
		keys[i] = format.AppendPairKey(nil, id)
	}
	err := c.db.MultiGet(family(format.FamilySymbols), keys, func(i int, value []byte, ok bool) error {
		id := missing[i]
		p, found, err := c.parsePair(id, value, ok)
		if err != nil {
			return err
		}
		if !found {
			return lost(id)
		}
		texts[id] = p
		c.pairs.put(id, p)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read label pairs: %w", err)
	}
	return texts, nil
}

// parsePair reads the text of a pair from its record, or finds it otherwise if there was none a moment ago.
func (c *catalogue) parsePair(id format.PairID, value []byte, ok bool) (p pairText, found bool, err error) {
	if !ok {
		c.recentMu.RLock()
		p, recent := c.recentPairs[id]
		c.recentMu.RUnlock()
		if recent {
			return p, true, nil
		}
		if value, ok, err = c.db.Get(family(format.FamilySymbols), format.AppendPairKey(nil, id), nil); err != nil || !ok {
			return pairText{}, false, err
		}
	}
	name, val, err := format.ParsePair(value)
	if err != nil {
		return pairText{}, false, fmt.Errorf("label pair %d: %w", id, err)
	}
	return pairText{name: string(name), value: string(val)}, true, nil
}

// values calls each for the pairs of a label name whose value begins with
// prefix, in the order of the values, except that those not yet durable come last.
func (c *catalogue) values(name, prefix string, each func(value string, id format.PairID) error) error {
	c.recentMu.RLock()
	recent := map[format.PairID]string{}
	for id, p := range c.recentPairs {
		if p.name == name && strings.HasPrefix(p.value, prefix) {
			recent[id] = p.value
		}
	}
	c.recentMu.RUnlock()
	lower := format.AppendTextKey(nil, name, prefix)
	it := c.db.NewIterator(family(format.FamilySymbols), rocks.IterOptions{Lower: lower, Upper: format.PrefixEnd(lower)})
	defer it.Close()
	for it.SeekToFirst(); it.Valid(); it.Next() {
		_, value, err := format.ParseTextKey(it.Key())
		if err != nil {
			return err
		}
		id, err := format.ParsePairID(it.Value())
		if err != nil {
			return fmt.Errorf("label %s=%q: %w", name, value, err)
		}
		delete(recent, id)
		if err := each(string(value), id); err != nil {
			return err
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read values of label %s: %w", name, err)
	}
	for id, value := range recent {
		if err := each(value, id); err != nil {
			return err
		}
	}
	return nil
}

// names returns all label names that series ever had.
func (c *catalogue) names() ([]string, error) {
	seen := map[string]bool{}
	c.recentMu.RLock()
	for _, p := range c.recentPairs {
		seen[p.name] = true
	}
	c.recentMu.RUnlock()
	prefix := format.AppendNamePrefix(nil, "")[:1]
	it := c.db.NewIterator(family(format.FamilySymbols), rocks.IterOptions{Lower: prefix, Upper: format.PrefixEnd(prefix)})
	defer it.Close()
	for it.SeekToFirst(); it.Valid(); {
		name, _, err := format.ParseTextKey(it.Key())
		if err != nil {
			return nil, err
		}
		seen[string(name)] = true
		end := format.PrefixEnd(format.AppendNamePrefix(nil, string(name)))
		if end == nil {
			break
		}
		it.Seek(end)
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("read label names: %w", err)
	}
	out := make([]string, 0, len(seen))
	for n := range seen {
		out = append(out, n)
	}
	return out, nil
}
