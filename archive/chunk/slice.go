package chunk

// Slice makes c the samples of src with mint <= time <= maxt, both inclusive and in Unix
// milliseconds. c then shares the memory of src: it is for reading, until src changes,
// and must not be decoded into.
func (c *Column) Slice(src *Column, mint, maxt int64) {
	first, end := between(src.Times, mint, maxt)
	*c = Column{Times: src.Times[first:end], Values: src.Values[first:end], histograms: src.histograms}
	if src.Starts != nil {
		c.Starts = src.Starts[first:end]
	}
	if src.Kinds != nil {
		c.Kinds, c.rows = src.Kinds[first:end], src.rows[first:end]
	}
}

// between returns the stretch of ascending times with mint <= time <= maxt: from index first
// on, before end.
func between(times []int64, mint, maxt int64) (first, end int) {
	first = seek(times, 0, mint)
	end = len(times)
	if first < end && times[end-1] > maxt {
		end = first + seek(times[first:], 0, maxt+1) // maxt is below some int64.
	}
	return first, end
}
