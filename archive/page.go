package archive

import (
	"sync"
	"sync/atomic"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"varve/archive/chunk"
	"varve/archive/format"
)

const (
	// pageBits makes a page of 256 refs: the largest block of refs of a group, so
	// that one scrape of one target touches few pages.
	pageBits = 8
	pageSize = 1 << pageBits
	// tailMax is the number of samples that wait uncoded behind a series. With 22 a
	// series' slot is 312 bytes; more would cost memory and cache misses, fewer
	// would cost bytes, since each coded piece has 18 bytes of its own.
	tailMax = 22
)

// point is a sample in a tail. It has no 8-byte field, so that it packs to 12 bytes.
type point struct {
	delta  uint32 // ms since openSeries.base
	lo, hi uint32 // halves of the value's bits
}

func (p *point) bits() uint64 { return uint64(p.lo) | uint64(p.hi)<<32 }

// openSeries is a series' open run: the newest samples uncoded in tail, the ones
// before as pieces of the page. It holds no pointer, so bulk memory costs the
// collector nothing.
type openSeries struct {
	base      int64  // Unix ms of the tail's first sample
	slotStart int64  // first ms of the two-hour slot that the tail lies in
	last      uint64 // last value in the journal's current segment
	segment   uint32 // the segment that last belongs to
	head      uint32 // 1 + index of the series' newest piece in the page, 0 without one
	metric    format.PairID
	day       format.Day // the last day that was given to the index
	n         uint8      // samples in the tail
	flags     uint8
	tail      [tailMax]point
}

const (
	// flagDay tells that day is set.
	flagDay = 1 << iota
	// flagRare tells that the series' newest samples are in the page's rare runs.
	flagRare
)

// piece is a coded part of an open run.
type piece struct {
	previous uint32 // like openSeries.head
	offset   uint32
	length   uint16
	samples  uint8
	min, max int64
}

// pieceLog holds the coded pieces of a page's open runs since its last cut. It
// only grows, so that readers may keep slices of it.
type pieceLog struct {
	pieces []piece
	data   []byte
}

func (l *pieceLog) bytes() int { return cap(l.pieces)*32 + cap(l.data) }

// appendTo appends the pieces of the chain that ends with head to dst, oldest first.
func (l *pieceLog) appendTo(dst []chunk.Piece, head uint32) []chunk.Piece {
	first := len(dst)
	for head != 0 {
		p := &l.pieces[head-1]
		dst = append(dst, chunk.Piece{
			Encoding: chunkenc.EncXOR, Samples: int(p.samples), MinMillis: p.min, MaxMillis: p.max,
			Data: l.data[p.offset : p.offset+uint32(p.length) : p.offset+uint32(p.length)],
		})
		head = p.previous
	}
	for i, j := first, len(dst)-1; i < j; i, j = i+1, j-1 {
		dst[i], dst[j] = dst[j], dst[i]
	}
	return dst
}

// rareRun holds what the float tail can't: histograms and samples with a start
// timestamp, of one series in one slot. Once a series has one, all its later
// samples go there until the next cut, so that arrival order is kept.
type rareRun struct {
	slotStart int64
	builder   chunk.RareBuilder
}

// page holds the open runs of 256 neighbouring refs.
type page struct {
	first format.Ref
	// known has a bit for each ref of the page that has a slot, unless the series is leaving. Bits are set under mu, read without.
	known [pageSize / 64]atomic.Uint64
	// touched is the archive's clock (ms) when a writer last asked for the page.
	touched atomic.Int64

	// mu guards what follows. It is taken inside Archive.mu by the writer, alone by readers.
	mu    sync.Mutex
	slots []openSeries // by ref - first; as long as the refs that exist
	log   pieceLog
	rare  map[uint8][]*rareRun
	// since is the sequence of the first arrival after the last cut, zero when there is none.
	since format.Sequence
	// opened is the archive's clock (ms) at the first arrival after the cut.
	opened int64
	// moved are cut runs that some reader may still have to find in memory.
	moved []*movedRuns
	// newest is the overwriteGuard's: the time of each series' newest sample. Nil without a guard.
	newest *[pageSize]int64
}

// movedRuns are runs that were cut: on their way to disk, or there already but
// not in the snapshot of every reader.
type movedRuns struct {
	log   pieceLog
	heads []uint32 // by slot of the page
	rare  map[uint8][]*rareRun
	since format.Sequence
	// sequence is that of the runs' keys.
	sequence format.Sequence
	// epoch is 0 until the commit is durable, then the first epoch whose readers find the runs on disk.
	epoch uint64
}

func (m *movedRuns) bytes() int { return m.log.bytes() + 4*len(m.heads) + rareBytes(m.rare) }

func rareBytes(rare map[uint8][]*rareRun) int {
	n := 0
	for _, runs := range rare {
		for _, r := range runs {
			n += r.builder.Bytes()
		}
	}
	return n
}

// exists tells whether the ref has a slot. It needs no lock.
func (p *page) exists(ref format.Ref) bool {
	i := ref - p.first
	return p.known[i/64].Load()&(1<<(i%64)) != 0
}

// leave makes the slots of refs unknown, so that a writer has to ask for the series before it writes to one. The
// slots keep what they hold.
func (p *page) leave(refs *roaring.Bitmap) {
	for i := range format.Ref(pageSize) {
		if refs.Contains(uint32(p.first + i)) {
			p.known[i/64].And(^uint64(1 << (i % 64)))
		}
	}
}

// add gives the ref a slot as a series of the metric. Called with mu held, or before others see the page.
func (p *page) add(ref format.Ref, metric format.PairID) {
	slot := int(ref - p.first)
	if p.exists(ref) {
		return
	}
	for len(p.slots) <= slot {
		if len(p.slots) == cap(p.slots) {
			next := make([]openSeries, len(p.slots), min(max(2*cap(p.slots), 8), pageSize))
			copy(next, p.slots)
			p.slots = next
		}
		p.slots = append(p.slots, openSeries{slotStart: noSlot})
	}
	p.slots[slot].metric = metric
	p.known[slot/64].Or(1 << (slot % 64))
}

// closeTail codes the tail of a series as a piece.
func (p *page) closeTail(s *openSeries) {
	if s.n == 0 {
		return
	}
	var times [tailMax]int64
	var values [tailMax]uint64
	for i := range s.n {
		times[i], values[i] = s.base+int64(s.tail[i].delta), s.tail[i].bits()
	}
	offset := len(p.log.data)
	p.log.data = chunk.AppendXOR(p.log.data, times[:s.n], values[:s.n])
	p.log.pieces = append(p.log.pieces, piece{
		previous: s.head, offset: uint32(offset), length: uint16(len(p.log.data) - offset),
		samples: s.n, min: times[0], max: times[s.n-1],
	})
	s.head = uint32(len(p.log.pieces))
	s.n = 0
}

// put adds a sample that does not simply follow the tail: it lies in another
// slot, before the tail's last sample, or on one of its samples. It reports
// whether it replaced another value at the same time.
func (p *page) put(s *openSeries, t int64, v uint64) (overwrote bool) {
	if uint64(t-s.slotStart) >= format.SlotMillis {
		p.closeTail(s)
		s.slotStart = format.SlotStart(t)
	}
	if s.n > 0 && t < s.base {
		p.closeTail(s)
	}
	if s.n == 0 {
		s.base = t
		s.tail[0] = point{lo: uint32(v), hi: uint32(v >> 32)}
		s.n = 1
		return false
	}
	delta := uint32(t - s.base)
	i := int(s.n)
	for i > 0 && s.tail[i-1].delta >= delta {
		i--
	}
	if i < int(s.n) && s.tail[i].delta == delta {
		overwrote = s.tail[i].bits() != v
		s.tail[i].lo, s.tail[i].hi = uint32(v), uint32(v>>32)
		return overwrote
	}
	copy(s.tail[i+1:s.n+1], s.tail[i:s.n])
	s.tail[i] = point{delta: delta, lo: uint32(v), hi: uint32(v >> 32)}
	if s.n++; s.n == tailMax {
		p.closeTail(s)
	}
	return false
}

// putRare lets add append a sample at t to the rare run of the slot's series.
func (p *page) putRare(slot uint8, t int64, add func(*rareRun)) {
	s := &p.slots[slot]
	p.closeTail(s)
	s.flags |= flagRare
	s.slotStart = noSlot
	if p.rare == nil {
		p.rare = map[uint8][]*rareRun{}
	}
	runs := p.rare[slot]
	at := format.SlotStart(t)
	if len(runs) == 0 || runs[len(runs)-1].slotStart != at {
		runs = append(runs, &rareRun{slotStart: at})
		p.rare[slot] = runs
	}
	add(runs[len(runs)-1])
}

// appendPieces appends all samples in memory of the slot's series to dst as pieces in arrival order.
// The pieces may be read after the lock was given back. Cut runs that a reader of the
// epoch finds on disk are left out, and what the masks of the series hide. They hide nothing of
// open runs, which were cut when the masks were made.
func (p *page) appendPieces(dst []chunk.Piece, slot uint8, epoch uint64, own seriesMasks) []chunk.Piece {
	for _, m := range p.moved {
		if m.epoch != 0 && m.epoch <= epoch {
			continue
		}
		first := len(dst)
		if int(slot) < len(m.heads) {
			dst = m.log.appendTo(dst, m.heads[slot])
		}
		for _, r := range m.rare[slot] {
			dst = r.builder.Pieces(dst)
		}
		if len(own) > 0 {
			dst = own.hide(dst[:first], dst[first:], m.sequence)
		}
	}
	if int(slot) >= len(p.slots) {
		return dst
	}
	s := &p.slots[slot]
	dst = p.log.appendTo(dst, s.head)
	if s.n > 0 {
		var times [tailMax]int64
		var values [tailMax]uint64
		for i := range s.n {
			times[i], values[i] = s.base+int64(s.tail[i].delta), s.tail[i].bits()
		}
		dst = append(dst, chunk.Piece{
			Encoding: chunkenc.EncXOR, Samples: int(s.n), MinMillis: times[0], MaxMillis: times[s.n-1],
			Data: chunk.AppendXOR(nil, times[:s.n], values[:s.n]),
		})
	}
	for _, r := range p.rare[slot] {
		dst = r.builder.Pieces(dst)
	}
	return dst
}

// cut moves all open runs of the page out, calls emit for each run, and keeps
// them readable. It returns nil when the page holds none. The pieces given to emit
// are valid during the call only.
func (p *page) cut(emit func(slot uint8, s *openSeries, slotStart int64, pieces []chunk.Piece)) *movedRuns {
	if p.since == 0 {
		return nil
	}
	m := &movedRuns{heads: make([]uint32, len(p.slots)), rare: p.rare, since: p.since}
	for i := range p.slots {
		s := &p.slots[i]
		p.closeTail(s)
		m.heads[i], s.head = s.head, 0
		if s.flags&flagRare != 0 {
			s.flags &^= flagRare
			s.slotStart = noSlot
		}
	}
	m.log, p.log, p.rare, p.since = p.log, pieceLog{}, nil, 0
	var buf []chunk.Piece
	for i := range p.slots {
		buf = m.log.appendTo(buf[:0], m.heads[i])
		for _, r := range m.rare[uint8(i)] {
			buf = r.builder.Pieces(buf)
		}
		emitBySlot(uint8(i), &p.slots[i], buf, emit)
	}
	p.moved = append(p.moved, m)
	return m
}

// emitBySlot gives the pieces of a series to emit, those of one two-hour slot together.
func emitBySlot(slot uint8, s *openSeries, pieces []chunk.Piece, emit func(uint8, *openSeries, int64, []chunk.Piece)) {
	for len(pieces) > 0 {
		start := format.SlotStart(pieces[0].MinMillis)
		same := 0
		for i := range pieces {
			if format.SlotStart(pieces[i].MinMillis) == start {
				same++
			}
		}
		if same == len(pieces) {
			emit(slot, s, start, pieces)
			return
		}
		here := make([]chunk.Piece, 0, same)
		rest := make([]chunk.Piece, 0, len(pieces)-same)
		for i := range pieces {
			if format.SlotStart(pieces[i].MinMillis) == start {
				here = append(here, pieces[i])
			} else {
				rest = append(rest, pieces[i])
			}
		}
		emit(slot, s, start, here)
		pieces = rest
	}
}

// release forgets the moved runs that every reader from the epoch on finds on disk,
// and returns their bytes.
func (p *page) release(epoch uint64) int {
	n, kept := 0, p.moved[:0]
	for _, m := range p.moved {
		if m.epoch != 0 && m.epoch <= epoch {
			n += m.bytes()
			continue
		}
		kept = append(kept, m)
	}
	clear(p.moved[len(kept):])
	if p.moved = kept; len(kept) == 0 {
		p.moved = nil
	}
	return n
}

// bytes is the memory of the page's samples.
func (p *page) bytes() int {
	n := p.openBytes()
	for _, m := range p.moved {
		n += m.bytes()
	}
	return n
}

// openBytes is the memory of the page's open runs, its slots included.
func (p *page) openBytes() int { return cap(p.slots)*slotBytes + p.log.bytes() + rareBytes(p.rare) }

// slotBytes is the size of an openSeries; a test pins it.
const slotBytes = 312
