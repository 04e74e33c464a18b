package forward

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

// backlog remembers where what arrived ends, in the ledger's sum of bytes.
type backlog struct {
	mu   sync.Mutex
	at   time.Time
	head int64
}

// headBytes is where what arrived ends. It is looked up once in a while.
func (s *session) headBytes() int64 {
	b := &s.backlog
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.at.IsZero() && time.Since(b.at) < lookEvery {
		return b.head
	}
	// What is saved between the two makes the head too small, never too large.
	saved := s.ledger.savedBytes()
	lag, err := s.source.Lag()
	if err != nil {
		s.trouble(fmt.Errorf("look up the backlog: %w", err), true)
		return b.head
	}
	b.at, b.head = time.Now(), saved+int64(lag.Bytes)
	return b.head
}

// overBytes tells whether a read and what lies behind it are more than the limit, whatever before it waits still.
func (s *session) overBytes(r *read) bool {
	return s.BacklogBytes > 0 && s.source != nil && r.ledger == s.ledger && s.headBytes()-r.end+r.bytes > int64(s.BacklogBytes)
}

// over sets expired to which shares of the batch are over the limits, and tells how many are.
func (w *shard) over(b *batch) int {
	n := 0
	w.expired = slices.Grow(w.expired[:0], len(b.shares))[:len(b.shares)]
	now := w.f.Now()
	for i := range b.shares {
		r := b.shares[i].read
		w.expired[i] = w.overBytes(r) || w.BacklogAge > 0 && now.Sub(r.arrived) > w.BacklogAge
		if w.expired[i] {
			n++
		}
	}
	return n
}

// overMore tells whether something of the batch is to be dropped that was not when drop looked.
func (w *shard) overMore(b *batch) bool {
	if w.Policy != DropOldest || w.over(b) == 0 {
		return false
	}
	for i := range b.shares {
		if w.expired[i] && !b.shares[i].dropped {
			return true
		}
	}
	return false
}

// drop takes out of a piece what is over the limits, and counts it. What waits longest is asked first, since each shard asks
// for its oldest batch before it sends.
func (w *shard) drop(b *batch, p *piece) {
	if w.Policy != DropOldest {
		return
	}
	n := w.over(b)
	if n == 0 {
		return
	}
	for i := range b.shares {
		b.shares[i].dropped = w.expired[i]
	}
	if n == len(b.shares) {
		p.families = nil
	}
	kept := 0
	for i := range p.series {
		s, at := &p.series[i], p.places[i]
		s.Floats = unexpired(w, b, s.Floats, b.floatShares[at.float:])
		if len(s.Histograms) > 0 {
			s.Histograms = unexpired(w, b, s.Histograms, b.histogramShares[at.histogram:])
		}
		if n == len(b.shares) {
			s.Exemplars = nil
		}
		if s.Samples() > 0 || len(s.Exemplars) > 0 {
			p.series[kept], p.places[kept] = *s, at
			kept++
		}
	}
	p.series, p.places = p.series[:kept], p.places[:kept]
}

// unexpired takes out the samples of expired shares, and their shares.
func unexpired[T any](w *shard, b *batch, samples []T, shares []uint16) []T {
	n := 0
	for i := range samples {
		if share := shares[i]; w.expired[share] {
			b.shares[share].tally.Dropped++
			continue
		}
		samples[n], shares[n] = samples[i], shares[i]
		n++
	}
	return samples[:n]
}
