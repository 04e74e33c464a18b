package ints

import (
	"encoding/binary"
	"slices"
)

// dictionaryLenMin is the shortest list for which a dictionary is tried.
const dictionaryLenMin = 32

// dictionarySlots is the size of the hash table, a power of two of at least twice
// dictionaryMax, so that probing stays short.
const (
	dictionarySlotBits = 8
	dictionarySlots    = 1 << dictionarySlotBits
)

// dictionary collects the distinct values of a list, called levels, if they are few.
type dictionary struct {
	slots [dictionarySlots]uint8 // 1 and the index of a level, 0 if free
	level [dictionaryMax]int64
	count [dictionaryMax]uint32
	rank  [dictionaryMax]uint8 // of each level by count
	n     int
	byUse []uint64
}

// slotOf returns the slot that holds v or would.
func (d *dictionary) slotOf(v int64) uint {
	// Multiplicative hashing with the golden ratio's fraction (Knuth, volume 3, 6.4).
	slot := uint(uint64(v) * 0x9e3779b97f4a7c15 >> (64 - dictionarySlotBits))
	for {
		held := d.slots[slot]
		if held == 0 || d.level[held-1] == v {
			return slot
		}
		slot = (slot + 1) % dictionarySlots
	}
}

// collect counts the levels of y and says whether they are few enough to be worth
// a dictionary. If so, they are ranked: the most frequent one is 0.
func (d *dictionary) collect(y []int64) bool {
	clear(d.slots[:])
	d.n = 0
	levelsMax := min(dictionaryMax, len(y)/4)
	for _, v := range y {
		slot := d.slotOf(v)
		if d.slots[slot] == 0 {
			if d.n == levelsMax {
				return false
			}
			d.level[d.n], d.count[d.n] = v, 0
			d.n++
			d.slots[slot] = uint8(d.n)
		}
		d.count[d.slots[slot]-1]++
	}
	d.byUse = d.byUse[:0]
	for i := range d.n {
		d.byUse = append(d.byUse, uint64(^d.count[i])<<8|uint64(i))
	}
	slices.Sort(d.byUse)
	for r, b := range d.byUse {
		d.rank[b&0xff] = uint8(r)
	}
	return true
}

// append writes the number of levels and the levels by rank.
func (d *dictionary) append(dst []byte) []byte {
	dst = append(dst, byte(d.n))
	for _, b := range d.byUse {
		dst = binary.AppendUvarint(dst, zigzag(d.level[b&0xff]))
	}
	return dst
}

// appendRanks writes the list as ranks if that takes less than size bytes.
func (e *Encoder) appendRanks(dst []byte, first int64, step uint64, size int) ([]byte, bool) {
	e.ranks = e.ranks[:0]
	for _, v := range e.scaled {
		e.ranks = append(e.ranks, uint64(e.levels.rank[e.levels.slots[e.levels.slotOf(v)]-1]))
	}
	classes, ranksSize := e.planCoder(e.ranks, orderRank)
	mark := len(e.header)
	e.header = e.levels.append(appendHeader(e.header, first, step, orderRank, 0))
	ours := e.header[mark:]
	if len(ours)+ranksSize >= size {
		e.header = e.header[:mark]
		return dst, false
	}
	e.header = append(e.header[:0], ours...)
	return e.appendCoded(dst, e.ranks, orderRank, 0, classes), true
}
