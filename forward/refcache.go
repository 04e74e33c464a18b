package forward

import (
	"github.com/prometheus/prometheus/storage"
)

// Refs of series that are scraped together are neighbours, in blocks of 256.
const (
	pageRefs = 256
	dirPages = 4096
)

// page has the targets of neighbouring refs, nil where none is known.
type page struct {
	id      uint64
	targets [pageRefs]*target
	known   int
	// used tells that it was asked for since the hand of the clock went by.
	used bool
}

// refCache remembers the targets of refs, those that aren't wanted too. When there are too many, pages that were not used of late
// go, and if that isn't enough, others. One goroutine at a time.
type refCache struct {
	dirs map[uint64]*[dirPages]*page
	// last is the page that was asked for last.
	last       *page
	pages      []*page
	known, max int
}

func newRefCache(most int) *refCache {
	return &refCache{dirs: map[uint64]*[dirPages]*page{}, max: most, last: &page{id: ^uint64(0)}}
}

// page is the one of a ref, nil if there is none.
func (c *refCache) page(ref storage.SeriesRef) *page {
	id := uint64(ref) / pageRefs
	if c.last.id == id {
		return c.last
	}
	dir := c.dirs[id/dirPages]
	if dir == nil {
		return nil
	}
	p := dir[id%dirPages]
	if p != nil {
		p.used = true
		c.last = p
	}
	return p
}

// get is the target of a ref, nil if it isn't known.
func (c *refCache) get(ref storage.SeriesRef) *target {
	if p := c.page(ref); p != nil {
		return p.targets[ref%pageRefs]
	}
	return nil
}

// put remembers the target of a ref.
func (c *refCache) put(ref storage.SeriesRef, t *target) {
	p := c.page(ref)
	if p == nil {
		if c.known >= c.max || len(c.pages) >= c.pagesMax() {
			c.evict()
		}
		p = c.add(uint64(ref) / pageRefs)
	}
	i := ref % pageRefs
	if p.targets[i] == nil {
		p.known++
		c.known++
	}
	p.targets[i] = t
}

func (c *refCache) add(id uint64) *page {
	dir := c.dirs[id/dirPages]
	if dir == nil {
		dir = new([dirPages]*page)
		c.dirs[id/dirPages] = dir
	}
	p := &page{id: id, used: true}
	dir[id%dirPages] = p
	c.pages = append(c.pages, p)
	c.last = p
	return p
}

// pagesMax bounds the memory where few refs of a page are in use: then there are as many pages as if 16 were.
func (c *refCache) pagesMax() int { return max(4, c.max/16) }

// evict leaves at most three quarters of what may be there: first what was not used since the last time goes, then what comes.
func (c *refCache) evict() {
	knownGoal, pagesGoal := c.max-c.max/4, c.pagesMax()-c.pagesMax()/4
	left := len(c.pages)
	for _, force := range []bool{false, true} {
		kept := c.pages[:0]
		for _, p := range c.pages {
			if (c.known > knownGoal || left > pagesGoal) && (force || !p.used) {
				c.dirs[p.id/dirPages][p.id%dirPages] = nil
				c.known -= p.known
				left--
				continue
			}
			p.used = false
			kept = append(kept, p)
		}
		clear(c.pages[len(kept):])
		c.pages = kept
	}
	c.last = &page{id: ^uint64(0)}
}
