package ingest

import (
	"sync"

	"github.com/prometheus/prometheus/storage"

	"varve/arrival"
)

// What a door says of a row beside its ref stands in the ref's high bits, on the way
// from Lookup or Resolve to Write. The archive's refs have 32 bits.
const (
	// refFiltered stands in a row whose series the rules leave out. To an input it is
	// a series like any other.
	refFiltered storage.SeriesRef = 1 << 63
	// refReplica marks rows of a replica that is not elected, within Write.
	refReplica storage.SeriesRef = 1 << 62

	tagShift                      = 40
	refMask     storage.SeriesRef = 1<<tagShift - 1
	tagMax                        = 1<<(62-tagShift) - 1
	tagFiltered keyTag            = 1 << 31
	// tagAlone is of series that have no replica, where there are replicas.
	tagAlone keyTag = 1
)

// keyTag is what a door knows of a key: tagFiltered, tagAlone or a replica's number.
type keyTag uint32

// keyTags remembers tags by key in two generations: what is used moves to the young
// one, and when that is full the old one is forgotten.
type keyTags struct {
	max int
	mu  sync.RWMutex // guards the maps
	// young and old together hold at most 2 max keys.
	young, old map[arrival.Key]keyTag
}

// keyTagsMax bounds a generation: at about 50 bytes a key 25 MiB.
const keyTagsMax = 1 << 19

func newKeyTags() *keyTags { return &keyTags{max: keyTagsMax, young: make(map[arrival.Key]keyTag)} }

func (k *keyTags) put(key arrival.Key, tag keyTag) {
	if key == (arrival.Key{}) {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.putLocked(key, tag)
}

func (k *keyTags) putLocked(key arrival.Key, tag keyTag) {
	if len(k.young) >= k.max {
		k.old, k.young = k.young, make(map[arrival.Key]keyTag)
	}
	k.young[key] = tag
}

// filtered marks rows without a ref that the rules leave out. missing is how many
// rows are without a ref; it returns how many are left.
func (k *keyTags) filtered(rows []arrival.Row, missing int) int {
	k.mu.RLock()
	if len(k.young) == 0 && len(k.old) == 0 {
		k.mu.RUnlock()
		return missing
	}
	var used []arrival.Key
	for i := range rows {
		if rows[i].Ref != 0 {
			continue
		}
		if _, ok := k.young[rows[i].Key]; !ok {
			if _, ok = k.old[rows[i].Key]; !ok {
				continue
			}
			used = append(used, rows[i].Key)
		}
		rows[i].Ref = refFiltered
		missing--
	}
	k.mu.RUnlock()
	k.renew(used)
	return missing
}

// tag puts the tags of all keys into the refs and returns how many rows are without a
// ref. A row whose key has no tag loses its ref, so that it is resolved again.
func (k *keyTags) tag(rows []arrival.Row) int {
	var used []arrival.Key
	missing := 0
	k.mu.RLock()
	for i := range rows {
		row := &rows[i]
		if row.Ref > refMask {
			continue
		}
		tag, ok := k.young[row.Key]
		if !ok {
			if tag, ok = k.old[row.Key]; ok {
				used = append(used, row.Key)
			}
		}
		switch {
		case ok && tag == tagFiltered:
			row.Ref = refFiltered
		case ok && row.Ref != 0:
			row.Ref |= tag.ref()
		default:
			row.Ref = 0
			missing++
		}
	}
	k.mu.RUnlock()
	k.renew(used)
	return missing
}

// ref is the tag as it stands in a ref.
func (t keyTag) ref() storage.SeriesRef { return storage.SeriesRef(t) << tagShift }

// tagOf is the tag that stands in a ref.
func tagOf(ref storage.SeriesRef) keyTag { return keyTag(ref >> tagShift) }

func (k *keyTags) clear() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.young, k.old = make(map[arrival.Key]keyTag), nil
}

// renew moves keys to the young generation.
func (k *keyTags) renew(used []arrival.Key) {
	if len(used) == 0 {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, key := range used {
		tag, ok := k.old[key]
		if _, young := k.young[key]; ok && !young {
			k.putLocked(key, tag)
		}
	}
}

// left is what was left out of a batch.
type left struct{ samples, histograms, exemplars int }

// leaveOut takes the refs of the rows that are marked, so that nothing of them is
// written, and says what they hold.
func leaveOut(b *arrival.Batch, mark storage.SeriesRef) (l left) {
	some := false
	for i := range b.Rows {
		if b.Rows[i].Ref == mark {
			some = true
			l.samples += int(b.Rows[i].Count)
		}
	}
	if !some {
		return l
	}
	for i := range b.Histograms {
		if b.Rows[b.Histograms[i].Row].Ref == mark {
			l.histograms++
		}
	}
	for i := range b.Exemplars {
		if b.Rows[b.Exemplars[i].Row].Ref == mark {
			l.exemplars++
		}
	}
	for i := range b.Rows {
		if b.Rows[i].Ref == mark {
			b.Rows[i].Ref = 0
		}
	}
	return l
}

// dropped counts it as dropped by rule.
func (l left) dropped(res *arrival.Result, reason arrival.Reason) {
	res.Dropped[reason] += l.samples + l.histograms + l.exemplars
	res.DroppedSamples += l.samples
	res.DroppedHistograms += l.histograms
	res.DroppedExemplars += l.exemplars
}
