package archive

import (
	"sync/atomic"

	"varve/archive/format"
	"varve/arrival"
)

// keyTable maps the 128-bit keys of series, and of the other byte strings by
// which senders name them, to refs. It is an open-addressing table of pointer-free
// slots: a lookup is one or two cache misses and no work for the collector.
//
// Of a key 96 bits are kept, which also give the slot's place, so that the table
// can grow. At a billion entries the chance that any two keys collide is below
// 10^-11, and the hash is keyed, so nobody can look for a collision.
//
// Lookups need no lock and may run beside one writer. A slot's ref and upper hash
// bits are one word, written last; a reader that sees it sees the whole slot.
type keyTable struct {
	slots atomic.Pointer[keySlots]
	used  int // writer only
}

type keySlots struct {
	mask  uint64
	slots []keySlot
}

type keySlot struct {
	lo uint64
	// hiRef is the upper 32 bits of the key's Hi, then the ref. Zero is an empty slot, a ref of zero one whose series was forgotten:
	// it stays in the way, so that what lies behind it is found.
	hiRef uint64
}

// keyTableMin is the number of slots of an empty table: 64 KiB.
const keyTableMin = 1 << 12

func newKeyTable() *keyTable {
	t := &keyTable{}
	t.slots.Store(newKeySlots(keyTableMin))
	return t
}

func newKeySlots(n int) *keySlots {
	return &keySlots{mask: uint64(n - 1), slots: make([]keySlot, n)}
}

// get returns the ref of k, zero when it is not known.
func (t *keyTable) get(k arrival.Key) format.Ref { return t.slots.Load().get(k) }

func (s *keySlots) get(k arrival.Key) format.Ref {
	hi := k.Hi >> 32
	for p := k.Lo & s.mask; ; p = (p + 1) & s.mask {
		slot := &s.slots[p]
		w := atomic.LoadUint64(&slot.hiRef)
		if w == 0 {
			return 0
		}
		if w>>32 == hi && slot.lo == k.Lo {
			return format.Ref(uint32(w))
		}
	}
}

// put remembers k. Callers serialise; k is not in the table.
func (t *keyTable) put(k arrival.Key, ref format.Ref) {
	s := t.slots.Load()
	if (t.used+1)*3 > len(s.slots)*2 {
		s = t.rebuild(len(s.slots)*2, nil)
	}
	s.put(keySlot{lo: k.Lo, hiRef: k.Hi>>32<<32 | uint64(uint32(ref))})
	t.used++
}

func (s *keySlots) put(e keySlot) {
	p := e.lo & s.mask
	for s.slots[p].hiRef != 0 && (s.slots[p].lo != e.lo || s.slots[p].hiRef>>32 != e.hiRef>>32) {
		p = (p + 1) & s.mask
	}
	if s.slots[p].hiRef == 0 {
		s.slots[p].lo = e.lo
	}
	atomic.StoreUint64(&s.slots[p].hiRef, e.hiRef)
}

// rebuild moves the entries that keep accepts (all when nil) to a table of n slots.
func (t *keyTable) rebuild(n int, keep func(format.Ref) bool) *keySlots {
	old := t.slots.Load()
	s := newKeySlots(n)
	t.used = 0
	for i := range old.slots {
		e := old.slots[i]
		if uint32(e.hiRef) != 0 && (keep == nil || keep(format.Ref(uint32(e.hiRef)))) {
			s.put(e)
			t.used++
		}
	}
	t.slots.Store(s)
	return s
}

// shrink drops the entries that keep refuses and sizes the table for the rest.
func (t *keyTable) shrink(keep func(format.Ref) bool) {
	kept := 0
	for _, e := range t.slots.Load().slots {
		if uint32(e.hiRef) != 0 && keep(format.Ref(uint32(e.hiRef))) {
			kept++
		}
	}
	n := keyTableMin
	for n < kept*2 {
		n *= 2
	}
	t.rebuild(n, keep)
}

// forget makes all keys of the series unknown. Callers serialise.
func (t *keyTable) forget(gone func(format.Ref) bool) {
	slots := t.slots.Load().slots
	empty := false
	for i := range slots {
		s := &slots[i]
		ref := uint32(s.hiRef)
		if ref == 0 || !gone(format.Ref(ref)) {
			continue
		}
		if s.hiRef>>32 == 0 {
			empty = true // One in four thousand million: its slot would be an empty one.
			continue
		}
		atomic.StoreUint64(&s.hiRef, s.hiRef>>32<<32)
	}
	if empty {
		t.rebuild(len(slots), func(ref format.Ref) bool { return !gone(ref) })
	}
}

// bytes is the memory that the table takes.
func (t *keyTable) bytes() int { return len(t.slots.Load().slots) * 16 }
