package chunk

// Span is a stretch of time in Unix milliseconds, both ends inclusive.
type Span struct{ FromMillis, ToMillis int64 }

// Spans are stretches of time that ascend and do not touch each other.
type Spans []Span

// add appends the strip of a piece whose samples begin at at and go to the end of the times. If
// some of its samples are hidden, it is a strip for each stretch between those.
func (u *strips) add(arrival, at int, p *Piece) {
	s := strip{arrival: arrival, begin: at, end: len(u.times), histogram: p.isHistogram()}
	if p.Hidden == nil {
		u.strips = append(u.strips, s)
		return
	}
	for _, h := range *p.Hidden {
		first, behind := between(u.times[s.begin:s.end], h.FromMillis, h.ToMillis)
		if first >= behind {
			continue
		}
		if first > 0 {
			before := s
			before.end, before.severedBehind = s.begin+first, true
			u.strips = append(u.strips, before)
		}
		s.begin, s.severed = s.begin+behind, true
	}
	if s.begin < s.end {
		u.strips = append(u.strips, s)
	}
}

// lastMillis is a time that no sample of the piece which isn't hidden lies behind.
func (p *Piece) lastMillis() int64 {
	if p.Hidden != nil {
		if last := (*p.Hidden)[len(*p.Hidden)-1]; last.ToMillis >= p.MaxMillis {
			return min(p.MaxMillis, last.FromMillis-1)
		}
	}
	return p.MaxMillis
}
