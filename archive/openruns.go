package archive

import (
	"fmt"
	"sync"
	"sync/atomic"

	"varve/archive/chunk"
	"varve/archive/format"
)

// noSlot is the slotStart of a series whose next sample must take the careful
// path: no time that the archive takes lies within a slot of it.
const noSlot = -1 << 62

// openRuns are the open runs of all series, in pages by ref. There are two of
// them: one for what arrives, one for what a start-up reads back from the journal.
type openRuns struct {
	cat *catalogue

	mu    sync.Mutex // guards the making and dropping of pages, and is held while series are forgotten
	pages atomic.Pointer[[]atomic.Pointer[page]]
	// bytes is the memory of all pages, as of their last visit.
	bytes atomic.Int64
}

func newOpenRuns(cat *catalogue) *openRuns {
	o := &openRuns{cat: cat}
	pages := make([]atomic.Pointer[page], 16)
	o.pages.Store(&pages)
	return o
}

// page returns the page of a ref, nil when it isn't in memory.
func (o *openRuns) page(ref format.Ref) *page {
	pages := *o.pages.Load()
	if i := int(ref >> pageBits); i < len(pages) {
		return pages[i].Load()
	}
	return nil
}

// touch returns the page of a ref after it was marked as in use, so that it stays in
// memory for a while; nil when it isn't there.
func (o *openRuns) touch(ref format.Ref, now int64) *page {
	for {
		p := o.page(ref)
		if p == nil {
			return nil
		}
		p.touched.Store(now)
		if o.page(ref) == p {
			return p
		}
	}
}

// ensure brings the page of a ref to memory and makes the ref's slot usable.
// It reads the catalogue, so it is called without the archive's lock.
func (o *openRuns) ensure(ref format.Ref) (*page, error) {
	p := o.page(ref)
	if p == nil {
		var err error
		if p, err = o.load(ref, nil); err != nil {
			return nil, err
		}
	}
	if p.exists(ref) {
		return p, nil
	}
	// A series is forgotten with the lock held, so it is there from here to its slot, and stays.
	o.mu.Lock()
	defer o.mu.Unlock()
	o.cat.leaving.stay(ref)
	rec, err := o.cat.record(ref)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	p.add(ref, rec.Metric)
	p.mu.Unlock()
	return p, nil
}

// load makes the page of a ref, with the slots of all series that exist there and aren't leaving. It
// shows visit, unless nil, the records that it reads for that.
func (o *openRuns) load(ref format.Ref, visit func(format.Ref, *format.Series)) (*page, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if p := o.page(ref); p != nil {
		return p, nil
	}
	i := int(ref >> pageBits)
	p := &page{first: ref &^ (pageSize - 1)}
	p.touched.Store(o.cat.now())
	err := o.cat.records(p.first, p.first+pageSize, func(ref format.Ref, rec *format.Series) error {
		if o.cat.leaving.has(ref) {
			return nil
		}
		p.add(ref, rec.Metric)
		if visit != nil {
			visit(ref, rec)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("load page of series %d: %w", ref, err)
	}
	pages := *o.pages.Load()
	if i >= len(pages) {
		grown := make([]atomic.Pointer[page], max(i+1, 2*len(pages)))
		for j := range pages {
			grown[j].Store(pages[j].Load())
		}
		pages = grown
		o.pages.Store(&pages)
	}
	pages[i].Store(p)
	return p, nil
}

// each calls f for every page in memory, in the order of refs.
func (o *openRuns) each(f func(*page)) {
	pages := *o.pages.Load()
	for i := range pages {
		if p := pages[i].Load(); p != nil {
			f(p)
		}
	}
}

// drop takes a page out of memory. The caller has seen that it holds nothing.
//
// Called with the archive's lock held, so it does not wait: a page that is being loaded
// meanwhile is a reason to try again later. A writer that asked for the page at the
// same time either finds it gone, and loads it, or is seen by idle, and keeps it.
func (o *openRuns) drop(p *page, idle func() bool) bool {
	if !o.mu.TryLock() {
		return false
	}
	defer o.mu.Unlock()
	place := &(*o.pages.Load())[p.first>>pageBits]
	if !idle() || !place.CompareAndSwap(p, nil) {
		return false
	}
	if !idle() {
		place.Store(p)
		return false
	}
	return true
}

// appendPieces appends to dst, in arrival order, a series' samples that a reader of the
// epoch does not find on disk and that the series' masks don't hide.
func (o *openRuns) appendPieces(dst []chunk.Piece, ref format.Ref, epoch uint64, own seriesMasks) []chunk.Piece {
	p := o.page(ref)
	if p == nil {
		return dst
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.appendPieces(dst, uint8(ref-p.first), epoch, own)
}
