package chunk

import (
	"fmt"
	"math"
	"slices"
	"sort"

	"varve/rollup"
)

// RollupRange says what is wanted of a series.
type RollupRange struct {
	// Wanted are the buckets that end after FromMillis and not after ToMillis, Unix ms.
	FromMillis, ToMillis int64
	// Columns are the columns wanted.
	Columns RollupColumns
}

// RollupDecoder decodes series of rollup bundles. The zero value is ready. It keeps its
// memory and belongs to one goroutine at a time.
type RollupDecoder struct {
	times rollupTimesDecoder
	// rows are the times of the series that timesOf names, if it hasn't those of its clock.
	rows    RollupClock
	timesOf rolledTimes
	// histogramRows are those of the histograms of a series that has floats too.
	histogramRows RollupClock

	columns    rollupRowsDecoder
	histograms rollupHistogramDecoder
	body       rollupBody
	chain      []int32
	// bases are rollupBaseSlots once there was a difference; remembered is how many integers
	// they hold.
	bases      []rollupBase
	remembered int
}

// rolledTimes tells whose times were decoded last.
type rolledTimes struct {
	bundle uint64
	times  span
	clock  *RollupClock
}

// rollupBase are columns of a series that others are differences to, or may be.
type rollupBase struct {
	bundle   uint64
	series   int32
	lo, end  int
	there    uint
	integers [rollupFloatColumns][]int64
}

// A decoder remembers bases by bundle and series, as that of samples does.
const (
	rollupBaseSlots       = 1024
	rollupBaseIntegersMax = 1 << 18
)

// Decode appends the rows wanted of series i to the columns wanted of c, and to Ends and
// Counts. What c has in other columns is left alone. clock is the one that b.Clock(i) names,
// which must not change while it is used for b; nil with NoClock.
//
// It returns the columns that are there. Others were not kept when the series was added; their
// floats are NaN, their integers -1. Errors wrap ErrCorrupt; c is then in disorder. It never
// panics, and what it allocates is bounded by the rows of the clock, or by RollupRowsMax, and
// by the bounds of histograms.
func (d *RollupDecoder) Decode(b *Rollups, i int, clock *RollupClock, r RollupRange, c *rollup.Columns) (RollupColumns, error) {
	s := &b.series[i]
	there, err := d.decode(b, i, clock, r, c)
	if err != nil {
		return 0, fmt.Errorf("decode rollups of series %d: %w", s.ref, err)
	}
	return there, nil
}

func (d *RollupDecoder) decode(b *Rollups, i int, clock *RollupClock, r RollupRange, c *rollup.Columns) (RollupColumns, error) {
	s := &b.series[i]
	times, err := d.timesFor(b, s, clock)
	if err != nil {
		return 0, err
	}
	first := sort.Search(len(times.Ends), func(i int) bool { return times.Ends[i] > r.FromMillis })
	end := sort.Search(len(times.Ends), func(i int) bool { return times.Ends[i] > r.ToMillis })
	if first >= end {
		return RollupAll, nil
	}
	at := len(c.Ends)
	c.Ends = append(c.Ends, times.Ends[first:end]...)
	if r.Columns&RollupEnded != 0 {
		if err := d.appendEnded(b, s, len(times.Ends), first, end, c); err != nil {
			return 0, err
		}
	}
	switch {
	case s.kind == rollupHistograms:
		appendNoFloats(c, end-first, r.Columns)
		err = d.appendHistograms(s.body.of(b.value), times, times, first, end, at, r.Columns, c)
		return RollupAll, err
	case s.kind == rollupBoth:
		return d.decodeBoth(b, s, times, first, end, at, r.Columns, c)
	}
	appendTimes(c, times, first, end, r.Columns)
	if !s.kind.hasBody() {
		appendValue(c, times.Counts[first:end], s.constant, r.Columns)
		return RollupAll, nil
	}
	return d.appendFloats(b, i, s.body.of(b.value), times, first, end, r.Columns, c)
}

// timesFor returns the times of a series, valid until the next call.
func (d *RollupDecoder) timesFor(b *Rollups, s *rolled, clock *RollupClock) (*RollupClock, error) {
	if s.shape != timesInline && clock == nil {
		return nil, fmt.Errorf("clock %x is missing", uint64(s.clock))
	}
	if s.shape == timesWhole {
		return clock, nil
	}
	of := rolledTimes{bundle: b.id, times: s.times, clock: clock}
	if of == d.timesOf {
		return &d.rows, nil
	}
	d.timesOf = rolledTimes{}
	var err error
	if s.shape == timesInline {
		err = d.times.decode(s.times.of(b.value), b.window, &d.rows)
	} else {
		err = d.times.decodeSome(s.times.of(b.value), b.window, clock, &d.rows)
	}
	if err != nil {
		return nil, err
	}
	d.timesOf = of
	return &d.rows, nil
}

// appendEnded appends which of the rows from first to end, of n, ended their series.
func (d *RollupDecoder) appendEnded(b *Rollups, s *rolled, n, first, end int, c *rollup.Columns) error {
	at := len(c.Ended)
	c.Ended = slices.Grow(c.Ended, end-first)[:at+end-first]
	ended := c.Ended[at:]
	clear(ended)
	r := runReader{rest: s.ended.of(b.value)}
	for next := uint64(0); len(r.rest) > 0; next++ {
		gap := r.uvarint()
		if r.broken || gap >= uint64(n)-next {
			return fmt.Errorf("end of the series in row %d of %d: %w", gap+next, n, ErrCorrupt)
		}
		if next += gap; next >= uint64(first) && next < uint64(end) {
			ended[next-uint64(first)] = true
		}
	}
	return nil
}

// appendTimes appends numbers and times of samples.
func appendTimes(c *rollup.Columns, times *RollupClock, first, end int, wanted RollupColumns) {
	c.Counts = append(c.Counts, times.Counts[first:end]...)
	if wanted&RollupTimes != 0 {
		c.FirstMillis = append(c.FirstMillis, times.FirstMillis[first:end]...)
		c.LastMillis = append(c.LastMillis, times.LastMillis[first:end]...)
	}
}

// columnsOf are the columns of c by number.
func columnsOf(c *rollup.Columns) (floats [rollupFloatColumns]*[]float64, integers [2]*[]int64) {
	return [...]*[]float64{&c.First, &c.Last, &c.Min, &c.Max, &c.Sums, &c.Corrections}, [...]*[]int64{&c.Resets, &c.Changes}
}

// appendNoFloats appends n rows without floats.
func appendNoFloats(c *rollup.Columns, n int, wanted RollupColumns) {
	c.Counts = appendSame(c.Counts, 0, n)
	if wanted&RollupTimes != 0 {
		c.FirstMillis, c.LastMillis = appendSame(c.FirstMillis, 0, n), appendSame(c.LastMillis, 0, n)
	}
	floats, integers := columnsOf(c)
	for column, x := range floats {
		if wanted>>column&1 != 0 {
			*x = appendSame(*x, 0, n)
		}
	}
	for i, x := range integers {
		if wanted>>(columnResets+i)&1 != 0 {
			*x = appendSame(*x, 0, n)
		}
	}
}

// appendSame appends n times v.
func appendSame[T int64 | float64](x []T, v T, n int) []T {
	at := len(x)
	x = slices.Grow(x, n)[:at+n]
	for i := range x[at:] {
		x[at+i] = v
	}
	return x
}

// appendValue appends rows of samples that all are v.
func appendValue(c *rollup.Columns, counts []int64, v float64, wanted RollupColumns) {
	floats, integers := columnsOf(c)
	for column, x := range floats {
		if wanted>>column&1 == 0 {
			continue
		}
		at := len(*x)
		switch column {
		case columnCorrection:
			*x = appendSame(*x, 0, len(counts))
			continue
		case columnSum:
			*x = slices.Grow(*x, len(counts))[:at+len(counts)]
			for i, m := range counts {
				(*x)[at+i] = sumOf(m, v)
			}
		default:
			*x = appendSame(*x, v, len(counts))
		}
		clearEmpty(counts, (*x)[at:])
	}
	for i, x := range integers {
		if wanted>>(columnResets+i)&1 != 0 {
			*x = appendSame(*x, 0, len(counts))
		}
	}
}

// clearEmpty puts 0 into rows without samples.
func clearEmpty[T int64 | float64](counts []int64, x []T) {
	for i, m := range counts {
		if m == 0 {
			x[i] = 0
		}
	}
}

// floatsWanted are the columns of a set that are in the body of floats.
const floatsWanted = 1<<rollupColumnCount - 1

// appendFloats appends columns of floats from the body src of series i.
func (d *RollupDecoder) appendFloats(b *Rollups, i int, src []byte, times *RollupClock, first, end int, wanted RollupColumns, c *rollup.Columns) (RollupColumns, error) {
	if wanted&floatsWanted == 0 {
		return RollupAll, nil
	}
	lo := max(first-1, 0) // The first value is guessed from the row before.
	var err error
	if s := &b.series[i]; s.based || s.kind == rollupDifference {
		err = d.decodeBased(b, int32(i), times.Counts, lo, end, uint(wanted&floatsWanted))
	} else if err = d.body.parse(src, len(times.Ends)); err == nil {
		err = d.columns.decode(&d.body, times.Counts, lo, end, uint(wanted&floatsWanted))
	}
	if err != nil {
		return 0, err
	}
	return d.appendColumns(times.Counts[first:end], lo, first, wanted, c), nil
}

// appendColumns appends the rows from first on of the columns that were decoded from row lo
// on. counts are their numbers of samples.
func (d *RollupDecoder) appendColumns(counts []int64, lo, first int, wanted RollupColumns, c *rollup.Columns) RollupColumns {
	there := RollupAll
	empty := slices.Contains(counts, 0)
	floats, integers := columnsOf(c)
	for column := range rollupColumnCount {
		if wanted>>column&1 == 0 {
			continue
		}
		kept := d.body.heads[column] != headAbsent
		if !kept {
			there &^= 1 << column
		}
		if column >= columnResets {
			x := integers[column-columnResets]
			at := len(*x)
			if kept {
				*x = append(*x, d.columns.integers[column][first-lo:][:len(counts)]...)
			} else {
				*x = appendSame(*x, -1, len(counts))
			}
			if empty {
				clearEmpty(counts, (*x)[at:])
			}
			continue
		}
		x := floats[column]
		at := len(*x)
		if !kept {
			*x = appendSame(*x, math.NaN(), len(counts))
		} else {
			*x = slices.Grow(*x, len(counts))[:at+len(counts)]
			d.columns.floats(&d.body, column, lo, first-lo, (*x)[at:])
		}
		if empty {
			clearEmpty(counts, (*x)[at:])
		}
	}
	return there
}

// decodeBased decodes the columns of a series that is a difference, or a base of one, and
// remembers those of floats.
func (d *RollupDecoder) decodeBased(b *Rollups, series int32, counts []int64, lo, end int, wanted uint) error {
	if d.bases == nil {
		d.bases = make([]rollupBase, rollupBaseSlots)
	}
	// Below the series itself, integers are enough.
	d.chain = d.chain[:0]
	const floats = 1<<rollupFloatColumns - 1
	var below *rollupBase
	for at := series; ; at = b.series[at].base {
		if known := d.baseOf(b, at); at != series && known.has(b.id, at, lo, end, wanted&floats) {
			below = known
			break
		}
		d.chain = append(d.chain, at)
		if b.series[at].kind != rollupDifference {
			break
		}
	}
	for i := len(d.chain) - 1; i >= 0; i-- {
		at := d.chain[i]
		need := wanted & floats
		if i == 0 {
			need = wanted
		}
		s := &b.series[at]
		if err := d.body.parse(s.body.of(b.value), len(counts)); err != nil {
			return err
		}
		// What a wanted column is guessed from needs no base: differences are guessed from
		// differences. Ordered bits of sums need the last value.
		need = d.body.closure(need)
		if err := d.columns.decode(&d.body, counts, lo, end, need); err != nil {
			return err
		}
		if s.kind == rollupDifference {
			if err := d.addBase(below, wanted&floats); err != nil {
				return err
			}
		}
		below = d.remember(b, at, lo, end, wanted&floats)
	}
	return nil
}

// has tells whether the columns of a series are there.
func (k *rollupBase) has(bundle uint64, series int32, lo, end int, columns uint) bool {
	return k.bundle == bundle && k.series == series && k.lo == lo && k.end == end && columns&^k.there == 0
}

func (d *RollupDecoder) baseOf(b *Rollups, series int32) *rollupBase {
	return &d.bases[(b.id*31+uint64(series))%rollupBaseSlots]
}

// addBase adds the integers of the series below to those that were decoded.
func (d *RollupDecoder) addBase(below *rollupBase, columns uint) error {
	if d.body.form != formDecimal {
		return fmt.Errorf("difference of form %d: %w", d.body.form, ErrCorrupt)
	}
	for column := range rollupFloatColumns {
		if columns>>column&1 == 0 || d.body.heads[column] == headAbsent {
			continue
		}
		if d.body.byBits(column) || below.there>>column&1 == 0 {
			return fmt.Errorf("difference in column %d: %w", column, ErrCorrupt)
		}
		x := d.columns.integers[column]
		for i, k := range below.integers[column][:len(x)] {
			x[i] += k
		}
	}
	return nil
}

// remember keeps the integers of columns of the series that was decoded.
func (d *RollupDecoder) remember(b *Rollups, series int32, lo, end int, columns uint) *rollupBase {
	place := d.baseOf(b, series)
	if d.remembered > rollupBaseIntegersMax {
		clear(d.bases)
		d.remembered = 0
	}
	*place = rollupBase{bundle: b.id, series: series, lo: lo, end: end, integers: place.integers}
	for column := range rollupFloatColumns {
		if columns>>column&1 == 0 || d.body.heads[column] == headAbsent || d.body.byBits(column) || d.body.form != formDecimal {
			continue
		}
		d.remembered -= cap(place.integers[column])
		place.integers[column] = append(place.integers[column][:0], d.columns.integers[column]...)
		d.remembered += cap(place.integers[column])
		place.there |= 1 << column
	}
	return place
}

// decodeBoth appends the floats and the histograms of a series that has both.
func (d *RollupDecoder) decodeBoth(b *Rollups, s *rolled, times *RollupClock, first, end, at int, wanted RollupColumns, c *rollup.Columns) (RollupColumns, error) {
	r := runReader{rest: s.body.of(b.value)}
	histogramTimes, histograms := r.bytes(r.uvarint()), r.bytes(r.uvarint())
	if r.broken {
		return 0, fmt.Errorf("histograms cut short: %w", ErrCorrupt)
	}
	appendTimes(c, times, first, end, wanted)
	if wanted&RollupHistograms != 0 {
		if err := d.times.decode(histogramTimes, b.window, &d.histogramRows); err != nil {
			return 0, err
		}
		if err := d.appendHistograms(histograms, &d.histogramRows, times, first, end, at, wanted, c); err != nil {
			return 0, err
		}
	}
	if wanted&floatsWanted == 0 {
		return RollupAll, nil
	}
	lo := max(first-1, 0)
	if err := d.body.parse(r.rest, len(times.Ends)); err != nil {
		return 0, err
	}
	if err := d.columns.decode(&d.body, times.Counts, lo, end, uint(wanted&floatsWanted)); err != nil {
		return 0, err
	}
	return d.appendColumns(times.Counts[first:end], lo, first, wanted, c), nil
}

// appendHistograms appends the histograms of the rows from first to end of times. own are
// the times of all buckets with histograms, at is where the rows begin in c.
func (d *RollupDecoder) appendHistograms(src []byte, own, times *RollupClock, first, end, at int, wanted RollupColumns, c *rollup.Columns) error {
	if wanted&RollupHistograms == 0 {
		return nil
	}
	n, from := 0, 0
	begin := len(c.Histograms)
	row := 0
	for i, m := range own.Counts {
		if m == 0 {
			continue
		}
		for row < len(times.Ends) && times.Ends[row] < own.Ends[i] {
			row++
		}
		if row == len(times.Ends) || times.Ends[row] != own.Ends[i] {
			return fmt.Errorf("histograms in a bucket that isn't there: %w", ErrCorrupt)
		}
		switch {
		case row < first:
			from++
		case row < end:
			c.HistogramAt = append(c.HistogramAt, int32(at+row-first))
			c.Histograms = append(c.Histograms, rollup.HistogramRow{Count: m, FirstMillis: own.FirstMillis[i], LastMillis: own.LastMillis[i]})
		}
		n++
	}
	if len(c.Histograms) == begin {
		return nil
	}
	return d.histograms.decode(&d.columns.values, src, n, from, wanted, c.Histograms[begin:])
}

// Bytes is the memory that the decoder holds for reuse.
func (d *RollupDecoder) Bytes() int {
	n := d.histograms.bytes() + 4*cap(d.chain) + d.columns.values.bytes() + 8*(cap(d.columns.guesses)+cap(d.columns.lasts))
	for _, c := range [...]*RollupClock{&d.rows, &d.histogramRows} {
		n += 8 * (cap(c.Ends) + cap(c.Counts) + cap(c.FirstMillis) + cap(c.LastMillis))
	}
	for _, x := range d.columns.integers {
		n += 8 * cap(x)
	}
	for _, x := range d.columns.residuals {
		n += 8 * cap(x)
	}
	for i := range d.bases {
		for _, x := range d.bases[i].integers {
			n += 8 * cap(x)
		}
	}
	return n
}
