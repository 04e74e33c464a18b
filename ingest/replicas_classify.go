package ingest

import (
	"math"
	"slices"
	"time"

	"varve/arrival"
)

// sorting is what a write finds out about its rows.
type sorting struct {
	coming []coming
	// cuts runs beside coming. trim: something lies at or before its cut.
	cuts []int64
	trim bool
	// of says of a replica where its cluster is in coming, -1 if it is not elected.
	of map[keyTag]int
	// kept is what is kept of replicas that are not elected.
	kept map[keyTag]*kept
}

// classify marks the rows of replicas that are not elected with refReplica, keeps of
// them what a failover would need, and takes the tags out of the others. late is what
// elected replicas have of before their election; it is out of the batch.
func (rs *replicas) classify(b *arrival.Batch, now time.Time) (out []coming, late left) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	s := sorting{of: make(map[keyTag]int, 4), kept: make(map[keyTag]*kept, 4)}
	latest := rs.latest(now)
	for i := range b.Rows {
		row := &b.Rows[i]
		if row.Ref == 0 || tagOf(row.Ref) == tagAlone {
			continue
		}
		at := rs.place(&s, tagOf(row.Ref))
		if at < 0 {
			s.keepFloats(b, row)
			continue
		}
		for _, t := range b.Times[row.First : row.First+row.Count] {
			s.see(at, t, latest)
		}
	}
	for i := range b.Histograms {
		h := &b.Histograms[i]
		row := &b.Rows[h.Row]
		at, ok := s.of[tagOf(row.Ref)]
		switch {
		case !ok:
		case at < 0:
			s.keepHistogram(h, row)
		default:
			s.see(at, h.TimeMillis, latest)
		}
	}
	if s.trim {
		late = cutEarly(b, &s)
	}
	for i := range b.Rows {
		row := &b.Rows[i]
		if at, ok := s.of[tagOf(row.Ref)]; ok && at < 0 {
			row.Ref = refReplica
		} else {
			row.Ref &= refMask
		}
	}
	for tag, k := range s.kept {
		rs.keep(rs.byTag[tag], k)
	}
	for _, c := range s.coming {
		c.cluster.inFlight++
		c.cluster.comingMillis = max(c.cluster.comingMillis, c.millis)
	}
	return s.coming, late
}

// place returns where the cluster of a replica is in coming, -1 if the replica is not
// elected. Called with mu held.
func (rs *replicas) place(s *sorting, tag keyTag) int {
	if at, ok := s.of[tag]; ok {
		return at
	}
	at := -1
	switch r := rs.byTag[tag]; {
	case r == nil: // forgotten this very moment
	case r.cluster.elected == r:
		at = len(s.coming)
		s.coming = append(s.coming, coming{cluster: r.cluster, millis: math.MinInt64})
		s.cuts = append(s.cuts, r.cluster.cutMillis)
	default:
		s.kept[tag] = &kept{afterMillis: r.cluster.lastMillis, lastMillis: math.MinInt64}
	}
	s.of[tag] = at
	return at
}

// see takes note of a sample of an elected replica.
func (s *sorting) see(at int, millis, latest int64) {
	if millis <= s.cuts[at] {
		s.trim = true
	}
	if millis <= latest && millis > s.coming[at].millis {
		s.coming[at].millis = millis
	}
}

// cutEarly takes out of the batch what elected replicas have at or before the cuts of
// their clusters.
func cutEarly(b *arrival.Batch, s *sorting) (out left) {
	cut := func(row *arrival.Row) int64 {
		if at, ok := s.of[tagOf(row.Ref)]; ok && at >= 0 {
			return s.cuts[at]
		}
		return math.MinInt64
	}
	n := uint32(0)
	for i := range b.Rows {
		row := &b.Rows[i]
		after, first, last := cut(row), n, row.First+row.Count
		for k := row.First; k < last; k++ {
			if b.Times[k] <= after && after != math.MinInt64 {
				out.samples++
				continue
			}
			b.Times[n], b.Values[n] = b.Times[k], b.Values[k]
			if len(b.Starts) > 0 {
				b.Starts[n] = b.Starts[k]
			}
			n++
		}
		row.First, row.Count = first, n-first
	}
	b.Times, b.Values = b.Times[:n], b.Values[:n]
	if len(b.Starts) > 0 {
		b.Starts = b.Starts[:n]
	}
	b.Histograms = slices.DeleteFunc(b.Histograms, func(h arrival.Histogram) bool {
		after := cut(&b.Rows[h.Row])
		early := h.TimeMillis <= after && after != math.MinInt64
		if early {
			out.histograms++
		}
		return early
	})
	return out
}
