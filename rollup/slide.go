package rollup

// Slide merges the rows of windows that move on, at a cost of a few merges a row, however
// much the windows overlap:
//
//  1. The rows of a window are in two stacks. The back one has the later rows and one
//     Summary of them all; a row that comes in is added to it.
//  2. The front one has the earlier rows and for each of them the Summary of it and those
//     behind it, so that a row goes without any work.
//  3. When the front is empty, all rows of the back are moved to it.
//  4. A window that shares no row with the one before begins anew.
//
// A Slide belongs to one goroutine. Its zero value has no rows.
type Slide struct {
	columns *Columns
	// Rows low <= i < middle are in the front stack, those up to high in the back one.
	low, middle, high int
	// front[i] is rows frontLow+i to middle.
	front    []Summary
	frontLow int
	back     Summary
	// merged counts rows that came in.
	merged int
}

// Begin makes s slide over c, which must not change while it does.
func (s *Slide) Begin(c *Columns) {
	clear(s.front)
	*s = Slide{columns: c, front: s.front[:0]}
}

// Window returns the rows that end after from and not after to. Neither of the two may be
// less than in the call before. The result may be added to, and is good until the next call.
func (s *Slide) Window(from, to int64) Summary {
	ends := s.columns.Ends
	for s.low < s.high && ends[s.low] <= from {
		s.low++
	}
	switch {
	case s.low == s.high:
		s.skip(from)
	case s.low >= s.middle && s.low > s.frontLow:
		s.turn()
	}
	for s.high < len(ends) && ends[s.high] <= to {
		s.back.AppendRow(s.columns, s.high)
		s.high++
		s.merged++
	}
	if s.low >= s.middle {
		return s.back.Clone()
	}
	all := s.front[s.low-s.frontLow].Clone()
	all.Append(&s.back)
	return all
}

// Merged returns the number of rows that came in since Begin.
func (s *Slide) Merged() int { return s.merged }

// skip begins anew at the first row that ends after from.
func (s *Slide) skip(from int64) {
	for s.high < len(s.columns.Ends) && s.columns.Ends[s.high] <= from {
		s.high++
	}
	s.low, s.middle, s.frontLow = s.high, s.high, s.high
	s.back.Reset()
}

// turn moves the rows of the back stack to the front.
func (s *Slide) turn() {
	s.frontLow, s.middle = s.low, s.high
	n := s.high - s.low
	if cap(s.front) < n {
		s.front = make([]Summary, n)
	}
	s.front = s.front[:n]
	for i := n - 1; i >= 0; i-- {
		s.front[i].Reset()
		s.front[i].AppendRow(s.columns, s.low+i)
		if i+1 < n {
			s.front[i].Append(&s.front[i+1])
		}
	}
	s.back.Reset()
}
