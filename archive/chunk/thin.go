package chunk

// Thin keeps, for each step t of firstMillis, firstMillis+stepMillis, ... up to
// lastMillis inclusive, the last sample with a time in (t-lookbackMillis, t], stale
// markers included, and drops all others. It is what an instant selector sees of a
// series, so evaluating one over the thinned column gives the same answer.
//
// A stepMillis of zero or less means the single step firstMillis. Counter reset
// hints stay what they were.
func (c *Column) Thin(firstMillis, lastMillis, stepMillis, lookbackMillis int64) {
	kept := 0
	i := 0 // The samples before i are dealt with.
	for t := firstMillis; t <= lastMillis && i < len(c.Times); {
		if c.Times[i] <= t {
			// One beyond the last sample at or before t.
			next := len(c.Times)
			if t < c.Times[len(c.Times)-1] {
				next = seek(c.Times, i, t+1)
			}
			// The distance is a whole number from 0 on, whatever the signs: unsigned
			// arithmetic holds it where signed would overflow.
			if last := next - 1; lookbackMillis > 0 && uint64(t-c.Times[last]) < uint64(lookbackMillis) {
				c.move(kept, last)
				kept++
			}
			if i = next; i == len(c.Times) {
				break
			}
		}
		// The next step that sees a sample which this one didn't.
		if stepMillis <= 0 {
			break
		}
		distance := uint64(c.Times[i] - t)
		steps := distance / uint64(stepMillis)
		if distance%uint64(stepMillis) != 0 {
			steps++
		}
		if steps > uint64(lastMillis-t)/uint64(stepMillis) {
			break
		}
		t += int64(steps) * stepMillis
	}
	c.cut(kept)
}

// move copies the sample at index from to index to.
func (c *Column) move(to, from int) {
	c.Times[to], c.Values[to] = c.Times[from], c.Values[from]
	if c.Starts != nil {
		c.Starts[to] = c.Starts[from]
	}
	if c.Kinds != nil {
		c.Kinds[to], c.rows[to] = c.Kinds[from], c.rows[from]
	}
}

// cut drops the samples from index n on.
func (c *Column) cut(n int) {
	c.Times, c.Values = c.Times[:n], c.Values[:n]
	if c.Starts != nil {
		c.Starts = c.Starts[:n]
	}
	if c.Kinds != nil {
		c.Kinds, c.rows = c.Kinds[:n], c.rows[:n]
	}
}
