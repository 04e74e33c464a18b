package archive

import (
	"cmp"
	"container/heap"
	"slices"
)

// pages are numbers by refs or ids, zero where none was set. What lies together shares a page.
type pages map[uint32]*[1 << 16]uint32

// noPage stands for one that was never set.
var noPage [1 << 16]uint32

func (p *pages) set(at, n uint32) {
	if *p == nil {
		*p = pages{}
	}
	page := (*p)[at>>16]
	if page == nil {
		page = new([1 << 16]uint32)
		(*p)[at>>16] = page
	}
	page[at&(1<<16-1)] = n
}

func (p pages) get(at uint32) uint32 {
	if page := p[at>>16]; page != nil {
		return page[at&(1<<16-1)]
	}
	return 0
}

// ranked is a candidate for a list.
type ranked[T cmp.Ordered] struct {
	of             T
	values, series uint64
	bytes          float64
}

// greatest keeps the greatest of what is added, in a heap with the least of them on top.
type greatest[T cmp.Ordered] struct {
	max      int
	bySeries bool
	all      []ranked[T]
	// left were not kept.
	left int
}

func (g *greatest[T]) compare(x, y *ranked[T]) int {
	byBytes, bySeries := cmp.Compare(x.bytes, y.bytes), cmp.Compare(x.series, y.series)
	if g.bySeries {
		byBytes, bySeries = bySeries, byBytes
	}
	return cmp.Or(byBytes, bySeries, cmp.Compare(y.of, x.of))
}

func (g *greatest[T]) add(e ranked[T]) {
	if len(g.all) < g.max {
		heap.Push(g, e)
		return
	}
	g.left++
	if g.compare(&e, &g.all[0]) > 0 {
		g.all[0] = e
		heap.Fix(g, 0)
	}
}

// sorted returns what was kept, the greatest first.
func (g *greatest[T]) sorted() []ranked[T] {
	slices.SortFunc(g.all, func(x, y ranked[T]) int { return -g.compare(&x, &y) })
	return g.all
}

// Len, Less, Swap, Push and Pop implement heap.Interface.
func (g *greatest[T]) Len() int           { return len(g.all) }
func (g *greatest[T]) Less(i, j int) bool { return g.compare(&g.all[i], &g.all[j]) < 0 }
func (g *greatest[T]) Swap(i, j int)      { g.all[i], g.all[j] = g.all[j], g.all[i] }
func (g *greatest[T]) Push(e any)         { g.all = append(g.all, e.(ranked[T])) }
func (g *greatest[T]) Pop() any {
	last := g.all[len(g.all)-1]
	g.all = g.all[:len(g.all)-1]
	return last
}
