package rollup

import (
	"slices"
	"sort"
)

// Len returns the number of rows.
func (c *Columns) Len() int { return len(c.Ends) }

// Reset leaves no rows. The slices keep their memory; the histograms are let go.
func (c *Columns) Reset() {
	clear(c.Histograms)
	*c = Columns{
		Ends: c.Ends[:0], Counts: c.Counts[:0], FirstMillis: c.FirstMillis[:0], LastMillis: c.LastMillis[:0],
		First: c.First[:0], Last: c.Last[:0], Min: c.Min[:0], Max: c.Max[:0], Sums: c.Sums[:0], Corrections: c.Corrections[:0],
		Resets: c.Resets[:0], Changes: c.Changes[:0], Ended: c.Ended[:0], HistogramAt: c.HistogramAt[:0], Histograms: c.Histograms[:0],
	}
}

// Append adds a row behind all others. endMillis is later than that of the row before.
// h is nil, or what the bucket has of native histograms.
func (c *Columns) Append(endMillis int64, r *Row, h *HistogramRow) {
	if h != nil {
		c.HistogramAt = append(c.HistogramAt, int32(len(c.Ends)))
		c.Histograms = append(c.Histograms, *h)
	}
	c.Ends = append(c.Ends, endMillis)
	c.Counts = append(c.Counts, r.Count)
	c.FirstMillis = append(c.FirstMillis, r.FirstMillis)
	c.LastMillis = append(c.LastMillis, r.LastMillis)
	c.First = append(c.First, r.First)
	c.Last = append(c.Last, r.Last)
	c.Min = append(c.Min, r.Min)
	c.Max = append(c.Max, r.Max)
	c.Sums = append(c.Sums, collapse(r.Sum, r.SumLow))
	c.Corrections = append(c.Corrections, r.Correction)
	c.Resets = append(c.Resets, r.Resets)
	c.Changes = append(c.Changes, r.Changes)
	c.Ended = append(c.Ended, r.Ended)
}

// Row returns what row i has of floats.
func (c *Columns) Row(i int) Row {
	return Row{
		Count: c.Counts[i], FirstMillis: c.FirstMillis[i], LastMillis: c.LastMillis[i], First: c.First[i], Last: c.Last[i],
		Min: c.Min[i], Max: c.Max[i], Sum: c.Sums[i], Correction: c.Corrections[i], Resets: c.Resets[i], Changes: c.Changes[i], Ended: c.Ended[i],
	}
}

// HistogramRow returns what row i has of native histograms, nil if nothing. It is shared
// with c, and must not be changed.
func (c *Columns) HistogramRow(i int) *HistogramRow {
	if len(c.HistogramAt) == 0 {
		return nil
	}
	j, ok := slices.BinarySearch(c.HistogramAt, int32(i))
	if !ok {
		return nil
	}
	return &c.Histograms[j]
}

// After returns the index of the first row that ends later than t, Len if there is none.
func (c *Columns) After(t int64) int {
	return sort.Search(len(c.Ends), func(i int) bool { return c.Ends[i] > t })
}
