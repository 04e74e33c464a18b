package chunk

// Slice makes c the samples of src with mint <= time <= maxt, both inclusive and in Unix
// milliseconds. c then shares the memory of src: it is for reading, until src changes,
// and must not be decoded into.
func (c *Column) Slice(src *Column, mint, maxt int64) {
	first := seek(src.Times, 0, mint)
	end := len(src.Times)
	if end > first && src.Times[end-1] > maxt {
		end = first + seek(src.Times[first:], 0, maxt+1) // maxt is below some int64.
	}
	*c = Column{Times: src.Times[first:end], Values: src.Values[first:end], histograms: src.histograms}
	if src.Starts != nil {
		c.Starts = src.Starts[first:end]
	}
	if src.Kinds != nil {
		c.Kinds, c.rows = src.Kinds[first:end], src.rows[first:end]
	}
}

// TotalSamples is the number of samples in all chunks of the bundle. times gives the
// times of a clock.
func (b *Bundle) TotalSamples(times func(ClockID) ([]int64, error)) (int, error) {
	n := 0
	for i := range b.chunks {
		if samples := b.Samples(i); samples > 0 {
			n += samples
			continue
		}
		clock, err := times(b.Clock(i))
		if err != nil {
			return 0, err
		}
		n += len(clock)
	}
	return n, nil
}
