package intake

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"varve/digest"
)

// encodings bounds the array of iterators that a cursor keeps, one an encoding.
const encodings = int(chunkenc.EncFloatHistogramST) + 1

// merger walks the samples of a series' chunks in ascending time, of equal times the one of the later
// chunk in the slice. It is how the engine knows the source by itself, and shares no code with a target.
//
//  1. Chunks are put in the order of their first times.
//  2. Those that have begun are active, each with a cursor at its next sample that counts.
//  3. The lowest time of the cursors is next; all that stand on it are moved on with it.
//
// Memory is a cursor for each chunk that overlaps another at one time, kept for the next series.
type merger struct {
	chunks   []Chunk
	order    []int
	begun    int // of order
	active   []*cursor
	spare    []*cursor
	from, to int64 // inclusive, exclusive
	// last is the time of the sample that Next stands on, if on is set.
	last int64
	on   *cursor
	err  error
	// Room that samples are decoded to.
	ints   histogram.Histogram
	floats histogram.FloatHistogram
}

// cursor is a place in one chunk.
type cursor struct {
	iterators [encodings]chunkenc.Iterator
	it        chunkenc.Iterator
	chunk     *Chunk
	index     int
	kind      chunkenc.ValueType
	time      int64
	value     float64 // of kind ValFloat
	deleted   int     // the first interval that doesn't end before time
}

// reset begins a series: its samples in [from, to).
func (m *merger) reset(chunks []Chunk, from, to int64) {
	m.spare = append(m.spare, m.active...)
	m.active, m.order, m.begun = m.active[:0], m.order[:0], 0
	m.chunks, m.from, m.to, m.on, m.err = chunks, from, to, nil, nil
	sorted := true
	for i := range chunks {
		m.order = append(m.order, i)
		sorted = sorted && (i == 0 || chunks[i-1].MinMillis <= chunks[i].MinMillis)
	}
	if !sorted {
		slices.SortStableFunc(m.order, func(a, b int) int { return cmp.Compare(chunks[a].MinMillis, chunks[b].MinMillis) })
	}
}

// Next goes to the next sample. It returns ValNone at the end and on an error, which err has.
func (m *merger) Next() chunkenc.ValueType {
	if m.on != nil {
		m.step(m.last)
		m.on = nil
	}
	m.begin()
	if m.err != nil || len(m.active) == 0 {
		return chunkenc.ValNone
	}
	best := m.active[0]
	for _, c := range m.active[1:] {
		if c.time < best.time || c.time == best.time && c.index > best.index {
			best = c
		}
	}
	m.on, m.last = best, best.time
	return best.kind
}

// step moves on all cursors that stand at the time.
func (m *merger) step(at int64) {
	for i := 0; i < len(m.active); {
		c := m.active[i]
		if c.time != at || m.advance(c) {
			i++
			continue
		}
		m.active[i] = m.active[len(m.active)-1]
		m.active = m.active[:len(m.active)-1]
		m.spare = append(m.spare, c)
	}
}

// begin opens the chunks that may hold the next sample.
func (m *merger) begin() {
	lowest := int64(math.MaxInt64)
	for _, c := range m.active {
		lowest = min(lowest, c.time)
	}
	for m.err == nil && m.begun < len(m.order) && m.chunks[m.order[m.begun]].MinMillis <= lowest {
		if c := m.open(m.order[m.begun]); m.advance(c) {
			m.active = append(m.active, c)
			lowest = min(lowest, c.time)
		} else {
			m.spare = append(m.spare, c)
		}
		m.begun++
	}
}

func (m *merger) open(index int) *cursor {
	var c *cursor
	if n := len(m.spare); n > 0 {
		c, m.spare = m.spare[n-1], m.spare[:n-1]
	} else {
		c = &cursor{}
	}
	c.chunk, c.index, c.deleted, c.kind, c.time = &m.chunks[index], index, 0, chunkenc.ValNone, math.MinInt64
	if e := c.chunk.Chunk.Encoding(); int(e) < encodings {
		c.iterators[e] = c.chunk.Chunk.Iterator(c.iterators[e])
		c.it = c.iterators[e]
	} else {
		c.it = c.chunk.Chunk.Iterator(nil)
	}
	return c
}

// advance goes to the next sample of the cursor's chunk that counts. It returns false if there is none.
func (m *merger) advance(c *cursor) bool {
	for {
		before, first := c.time, c.kind == chunkenc.ValNone
		c.kind = c.it.Next()
		switch c.kind {
		case chunkenc.ValNone:
			if err := c.it.Err(); err != nil {
				m.fail(fmt.Errorf("%w: chunk %d, from %d to %d ms: %w", ErrBadChunk, c.index, c.chunk.MinMillis, c.chunk.MaxMillis, err))
			}
			return false
		case chunkenc.ValFloat:
			c.time, c.value = c.it.At()
		default:
			c.time = c.it.AtT()
		}
		if c.time < c.chunk.MinMillis || c.time > c.chunk.MaxMillis || !first && c.time <= before {
			m.fail(fmt.Errorf("%w: chunk %d, from %d to %d ms, has a sample at %d behind one at %d", ErrBadChunk, c.index, c.chunk.MinMillis, c.chunk.MaxMillis, c.time, before))
			return false
		}
		if c.time >= m.to {
			return false
		}
		if c.time >= m.from && !c.isDeleted() {
			return true
		}
	}
}

func (c *cursor) isDeleted() bool {
	d := c.chunk.Deleted
	for c.deleted < len(d) && d[c.deleted].Maxt < c.time {
		c.deleted++
	}
	return c.deleted < len(d) && d[c.deleted].Mint <= c.time
}

func (m *merger) fail(err error) {
	if m.err == nil {
		m.err = err
	}
}

// digest adds all samples that are left.
func (m *merger) digest(d *digest.Series) error {
	for m.Next() != chunkenc.ValNone {
		if len(m.active) == 1 && m.on.kind == chunkenc.ValFloat {
			m.floatsAlone(d)
			continue
		}
		m.addTo(d)
	}
	return m.err
}

// floatsAlone adds floats for as long as no other chunk can have one before the next: the common case.
func (m *merger) floatsAlone(d *digest.Series) {
	limit := int64(math.MaxInt64)
	if m.begun < len(m.order) {
		limit = m.chunks[m.order[m.begun]].MinMillis
	}
	c := m.on
	for {
		d.Float(c.time, c.value)
		if !m.advance(c) {
			m.active, m.spare, m.on = m.active[:0], append(m.spare, c), nil
			return
		}
		if c.kind != chunkenc.ValFloat || c.time >= limit {
			m.on = nil
			return
		}
	}
}

// addTo adds the sample that Next stands on.
func (m *merger) addTo(d *digest.Series) {
	switch c := m.on; c.kind {
	case chunkenc.ValFloat:
		d.Float(c.time, c.value)
	case chunkenc.ValHistogram:
		_, h := c.it.AtHistogram(&m.ints)
		d.Histogram(c.time, h)
	case chunkenc.ValFloatHistogram:
		_, h := c.it.AtFloatHistogram(&m.floats)
		d.FloatHistogram(c.time, h)
	}
}

// addAt adds the sample that an iterator of a target stands on.
func (m *merger) addAt(d *digest.Series, it chunkenc.Iterator, kind chunkenc.ValueType) {
	switch kind {
	case chunkenc.ValFloat:
		d.Float(it.At())
	case chunkenc.ValHistogram:
		d.Histogram(it.AtHistogram(&m.ints))
	case chunkenc.ValFloatHistogram:
		d.FloatHistogram(it.AtFloatHistogram(&m.floats))
	}
}
