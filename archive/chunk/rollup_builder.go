package chunk

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"math"
	"slices"

	"varve/rollup"
)

// RollupBuilder gathers the series of a rollup bundle and writes it.
//
// Add encodes a series at once. It keeps
//
//  1. one value, if all samples have it;
//  2. else the number of the earlier series that has the same bytes, if there is one;
//  3. else the columns or, if it is shorter, their difference to the series that Add was
//     pointed to.
//
// Append lays the series out. Neighbours that have one value, or are repeated, and alike in
// all become one entry.
//
// The zero RollupBuilder is ready once Reset told it the window. It keeps its memory for the
// next bundle and belongs to one goroutine at a time.
type RollupBuilder struct {
	window RollupWindow
	series []builtRollup
	arena  []byte // what the series' spans lie in
	size   int

	// bodies finds a series by the hash of its body.
	bodies map[uint64]int32
	seed   maphash.Seed

	times      rollupTimesEncoder
	columns    rollupEncoder
	histograms rollupHistogramEncoder
	// rows are the times of the series that is being added, and histogramRows those of its
	// histograms.
	rows, histogramRows RollupClock
	difference          []byte

	// base holds what differences are taken from, the columns of the series numbered baseOf.
	base   rollupRowsDecoder
	baseAt rollupBody
	baseOf int32
}

// builtRollup is a series before it is laid out.
type builtRollup struct {
	ref    uint64
	kind   rollupKind
	depth  uint8
	shape  uint8
	clock  ClockID
	target int32 // of a repeat or a difference
	times  span
	ended  span
	// body is the whole body, which others may repeat; difference is what is written in its
	// place with rollupDifference.
	body, difference span
	constant         float64
}

// Reset forgets all series and begins a bundle of a window.
func (b *RollupBuilder) Reset(window RollupWindow) {
	if b.bodies == nil {
		b.bodies, b.seed = map[uint64]int32{}, maphash.MakeSeed()
	}
	clear(b.bodies)
	b.window = window
	b.series, b.arena = b.series[:0], b.arena[:0]
	b.size, b.baseOf = 0, -1
}

// Len is the number of series so far.
func (b *RollupBuilder) Len() int { return len(b.series) }

// Size estimates the length of the bundle's value so far, in bytes, as if no series made an
// entry with others.
func (b *RollupBuilder) Size() int { return bundleFrameBytes + b.size }

// Add adds a series. Refs ascend.
//
// id is the clock that c's rows are all or some of, and clock what it has; with NoClock the
// bundle gets the times itself. Times beside the clock's are kept too. base is the number of a
// series added before that has the same times and whose values are probably a little lower,
// or -1.
//
// Of c, Ends, Counts, FirstMillis, LastMillis, First and Last must be there; all other
// columns may be nil, and those of floats, Resets and Changes then are not kept. Ends must be
// of the window, times must lie in their buckets and fit the counts. Of rows without samples only
// Ended and histograms are kept, the rest comes back as 0. Nothing is kept of the arguments.
// With an error nothing was added: ErrBundleFull, or a fault of the caller's.
func (b *RollupBuilder) Add(ref uint64, id ClockID, clock *RollupClock, base int, c *rollup.Columns) error {
	n, arena, size := len(b.series), len(b.arena), b.size
	err := b.add(ref, id, clock, base, c)
	if err != nil {
		b.series, b.arena, b.size = b.series[:n], b.arena[:arena], size
		if b.baseOf >= int32(n) {
			b.baseOf = -1
		}
		return fmt.Errorf("add series %d to rollup bundle: %w", ref, err)
	}
	return nil
}

func (b *RollupBuilder) add(ref uint64, id ClockID, clock *RollupClock, base int, c *rollup.Columns) error {
	if err := b.window.check(); err != nil {
		return err
	}
	switch n := len(b.series); {
	case n == BundleChunksMax:
		return ErrBundleFull
	case n > 0 && ref <= b.series[n-1].ref:
		return fmt.Errorf("not behind series %d", b.series[n-1].ref)
	case base >= n:
		return fmt.Errorf("base %d of %d series", base, n)
	case id != NoClock && clock == nil:
		return fmt.Errorf("clock %x without times", uint64(id))
	}
	if err := b.checkColumns(c); err != nil {
		return err
	}
	b.series = append(b.series, builtRollup{ref: ref, clock: id})
	built := &b.series[len(b.series)-1]
	histograms, err := b.takeTimes(built, c)
	if err != nil {
		return err
	}
	b.addTimes(built, clock)
	b.addEnded(built, c.Ended)
	switch {
	case histograms == 0:
		b.addFloats(built, base, c)
	case built.kind == rollupHistograms:
		arena, err := b.histograms.append(b.arena, c.Histograms)
		if err != nil {
			return err
		}
		built.body = b.keep(arena)
		b.repeats(built)
	default:
		if err := b.addBoth(built, c); err != nil {
			return err
		}
	}
	b.count(built)
	return nil
}

// checkColumns tells why columns can't be kept, but for their times.
func (b *RollupBuilder) checkColumns(c *rollup.Columns) error {
	n := len(c.Ends)
	for _, of := range [...]int{len(c.Counts), len(c.FirstMillis), len(c.LastMillis), len(c.First), len(c.Last)} {
		if of != n {
			return fmt.Errorf("%d ends and a column of %d rows", n, of)
		}
	}
	for _, x := range [...][]float64{c.Min, c.Max, c.Sums, c.Corrections} {
		if x != nil && len(x) != n {
			return fmt.Errorf("%d ends and a column of %d rows", n, len(x))
		}
	}
	if c.Resets != nil && len(c.Resets) != n || c.Changes != nil && len(c.Changes) != n || c.Ended != nil && len(c.Ended) != n {
		return fmt.Errorf("%d ends, and %d, %d and %d of the columns behind corrections", n, len(c.Resets), len(c.Changes), len(c.Ended))
	}
	if len(c.HistogramAt) != len(c.Histograms) {
		return fmt.Errorf("%d histograms at %d rows", len(c.Histograms), len(c.HistogramAt))
	}
	for i, at := range c.HistogramAt {
		if at < 0 || int(at) >= n || i > 0 && at <= c.HistogramAt[i-1] {
			return fmt.Errorf("histograms in row %d of %d", at, n)
		}
		if err := checkHistogramRow(&c.Histograms[i]); err != nil {
			return fmt.Errorf("row %d: %w", at, err)
		}
	}
	return nil
}

// takeTimes makes rows and histogramRows those of c, and finds whether the series has
// histograms only. It returns how many histograms there are.
func (b *RollupBuilder) takeTimes(built *builtRollup, c *rollup.Columns) (histograms int, err error) {
	r := &b.rows
	r.Ends, r.Counts = append(r.Ends[:0], c.Ends...), append(r.Counts[:0], c.Counts...)
	r.FirstMillis, r.LastMillis = append(r.FirstMillis[:0], c.FirstMillis...), append(r.LastMillis[:0], c.LastMillis...)
	clearEmpty(r.Counts, r.FirstMillis)
	clearEmpty(r.Counts, r.LastMillis)
	if err := r.check(b.window); err != nil {
		return 0, err
	}
	if len(c.Histograms) == 0 {
		return 0, nil
	}
	h := &b.histogramRows
	h.resize(0)
	for i, at := range c.HistogramAt {
		row := &c.Histograms[i]
		if row.Count < 1 {
			return 0, fmt.Errorf("histograms in row %d: %d", at, row.Count)
		}
		h.Ends, h.Counts = append(h.Ends, c.Ends[at]), append(h.Counts, row.Count)
		h.FirstMillis, h.LastMillis = append(h.FirstMillis, row.FirstMillis), append(h.LastMillis, row.LastMillis)
	}
	if err := h.check(b.window); err != nil {
		return 0, fmt.Errorf("histograms: %w", err)
	}
	built.kind = rollupBoth
	if !slices.ContainsFunc(c.Counts, func(m int64) bool { return m != 0 }) {
		built.kind = rollupHistograms
		for i, at := range c.HistogramAt {
			r.Counts[at], r.FirstMillis[at], r.LastMillis[at] = h.Counts[i], h.FirstMillis[i], h.LastMillis[i]
		}
	}
	return len(c.Histograms), nil
}

// addTimes tells how the series gets its times, which are rows.
func (b *RollupBuilder) addTimes(built *builtRollup, clock *RollupClock) {
	if built.clock != NoClock {
		if b.rows.Equal(clock) {
			built.shape = timesWhole
			return
		}
		if arena, ok := b.times.appendSome(b.arena, b.window, clock, &b.rows); ok {
			built.shape, built.times = timesSome, b.keep(arena)
			return
		}
	}
	built.shape, built.clock = timesInline, NoClock
	built.times = b.keep(b.times.append(b.arena, &b.rows))
}

// keep makes the extended arena the arena and returns what was added.
func (b *RollupBuilder) keep(extended []byte) span {
	s := span{uint32(len(b.arena)), uint32(len(extended))}
	b.arena = extended
	return s
}

// addEnded keeps which rows ended the series, if any.
func (b *RollupBuilder) addEnded(built *builtRollup, ended []bool) {
	arena, next := b.arena, 0
	for i, is := range ended {
		if is {
			arena = binary.AppendUvarint(arena, uint64(i-next))
			next = i + 1
		}
	}
	built.ended = b.keep(arena)
}

// addFloats encodes the floats of the series.
func (b *RollupBuilder) addFloats(built *builtRollup, base int, c *rollup.Columns) {
	if v, ok := oneValue(b.rows.Counts, c); ok {
		built.kind, built.constant = rollupKind(constantKind(v)), v
		return
	}
	built.kind = rollupFloats
	built.body = b.keep(b.columns.append(b.arena, b.rows.Counts, c))
	if !b.repeats(built) && base >= 0 {
		b.tryDifference(built, base)
	}
}

// oneValue returns the value that all samples have, if their columns say so and follow
// from it.
func oneValue(counts []int64, c *rollup.Columns) (v float64, ok bool) {
	if keptOf(c)&floatsWanted != floatsWanted {
		return 0, false
	}
	found := false
	var want uint64
	for i, m := range counts {
		if m == 0 {
			continue
		}
		if !found {
			found, v, want = true, c.First[i], math.Float64bits(c.First[i])
		}
		if math.Float64bits(c.First[i]) != want || math.Float64bits(c.Last[i]) != want || math.Float64bits(c.Min[i]) != want || math.Float64bits(c.Max[i]) != want ||
			math.Float64bits(c.Sums[i]) != math.Float64bits(sumOf(m, v)) || math.Float64bits(c.Corrections[i]) != 0 || c.Resets[i] != 0 || c.Changes[i] != 0 {
			return 0, false
		}
	}
	return v, true
}

// addBoth encodes the histograms and floats of a series that has both.
func (b *RollupBuilder) addBoth(built *builtRollup, c *rollup.Columns) error {
	times := b.times.append(nil, &b.histogramRows)
	histograms, err := b.histograms.append(nil, c.Histograms)
	if err != nil {
		return err
	}
	arena := append(binary.AppendUvarint(b.arena, uint64(len(times))), times...)
	arena = append(binary.AppendUvarint(arena, uint64(len(histograms))), histograms...)
	built.body = b.keep(b.columns.append(arena, b.rows.Counts, c))
	b.repeats(built)
	return nil
}

// repeats makes the series a repeat of an earlier one with the same times and body, and
// remembers it otherwise.
func (b *RollupBuilder) repeats(built *builtRollup) bool {
	body := built.body.of(b.arena)
	h := maphash.Bytes(b.seed, body)
	i, known := b.bodies[h]
	if !known || int(i) >= len(b.series)-1 {
		b.bodies[h] = int32(len(b.series) - 1)
		return false
	}
	o := &b.series[i]
	if !bytes.Equal(o.body.of(b.arena), body) || !b.sameTimes(o, built) ||
		o.kind != built.kind && (o.kind != rollupDifference || built.kind != rollupFloats) {
		return false
	}
	built.kind, built.target = rollupRepeat, i
	b.arena = b.arena[:built.body.first]
	built.body = span{}
	return true
}

// sameTimes is Rollups.sameTimes before the bytes are there.
func (b *RollupBuilder) sameTimes(x, y *builtRollup) bool {
	return x.clock == y.clock && x.shape == y.shape && bytes.Equal(x.times.of(b.arena), y.times.of(b.arena))
}

// tryDifference encodes the series as a difference to another and keeps that if it is
// shorter.
func (b *RollupBuilder) tryDifference(built *builtRollup, base int) {
	below := int32(base)
	if b.series[below].kind == rollupRepeat {
		below = b.series[below].target
	}
	o := &b.series[below]
	if o.kind != rollupFloats && o.kind != rollupDifference || o.depth == rollupDepthMax || !b.sameTimes(o, built) {
		return
	}
	n := len(b.rows.Counts)
	if b.baseOf != below {
		b.baseOf = -1
		if err := b.baseAt.parse(o.body.of(b.arena), n); err != nil {
			panic(err) // It was encoded by this builder.
		}
		if err := b.base.decode(&b.baseAt, b.rows.Counts, 0, n, floatsWanted); err != nil {
			panic(err)
		}
		b.baseOf = below
	}
	ok := false
	if b.difference, ok = b.columns.appendDifference(b.difference[:0], &b.baseAt, &b.base); !ok {
		return
	}
	const distanceBytes = 2
	if len(b.difference)+distanceBytes >= built.body.length() {
		return
	}
	built.difference = b.keep(append(b.arena, b.difference...))
	built.kind, built.target, built.depth = rollupDifference, below, o.depth+1
}

// count adds the series to the size, as if it made an entry of its own.
func (b *RollupBuilder) count(built *builtRollup) {
	const tagAndDistance, lengthMax, clockMax = 3, 3, 6
	n := tagAndDistance + built.ended.length()
	switch built.kind {
	case rollupInteger, rollupDecimal:
		n += uvarintBytes(uint64(math.Abs(built.constant)))
	case rollupFloat:
		n += 8
	case rollupDifference:
		n += lengthMax + built.difference.length()
	case rollupRepeat:
	default:
		n += lengthMax + built.body.length()
	}
	var before *builtRollup
	if len(b.series) > 1 {
		before = &b.series[len(b.series)-2]
		n += uvarintBytes(built.ref - before.ref)
	}
	if before == nil || !b.sameTimes(built, before) {
		n += clockMax + lengthMax + built.times.length()
	}
	b.size += n
}

// Append appends the bundle's value to dst and returns the extended slice. key is what it
// will be stored under. There must be a series.
func (b *RollupBuilder) Append(dst, key []byte) []byte {
	start := len(dst)
	dst = append(dst, rollupVersion1)
	w := rollupWriter{builder: b}
	for i := 0; i < len(b.series); {
		n := b.alike(i)
		dst = w.entry(dst, i, n)
		i += n
	}
	return appendChecksum(dst, key, start)
}

// alike is how many series from index i on make one entry.
func (b *RollupBuilder) alike(i int) int {
	c := &b.series[i]
	n := 1
	if c.kind.hasBody() {
		return n
	}
	for ; i+n < len(b.series); n++ {
		o := &b.series[i+n]
		if o.kind != c.kind || o.ref != c.ref+uint64(n) || math.Float64bits(o.constant) != math.Float64bits(c.constant) ||
			o.target != c.target || !b.sameTimes(o, c) || !bytes.Equal(o.ended.of(b.arena), c.ended.of(b.arena)) {
			break
		}
	}
	return n
}

// rollupWriter writes the entries of a rollup bundle.
type rollupWriter struct {
	builder *RollupBuilder
	before  *builtRollup
	group   uint64
}

// entry writes the n series from index i on, which are alike.
func (w *rollupWriter) entry(dst []byte, i, n int) []byte {
	b := w.builder
	c := &b.series[i]
	at := len(dst)
	dst = append(dst, byte(c.kind))
	if w.before != nil && c.ref != w.before.ref+1 {
		dst[at] |= entryHasGap
		dst = binary.AppendUvarint(dst, c.ref-w.before.ref)
	}
	if w.before == nil || !b.sameTimes(c, w.before) {
		dst[at] |= entryHasTimes
		dst = w.times(dst, c)
	}
	if !c.ended.isEmpty() {
		dst[at] |= entryHasEnded
		ended := c.ended.of(b.arena)
		dst = append(binary.AppendUvarint(dst, uint64(len(ended))), ended...)
	}
	w.before = &b.series[i+n-1]
	if c.kind.hasBody() {
		return w.body(dst, at, i)
	}
	if more := n - 1; more < entryMoreMin {
		dst[at] |= byte(more) << entrySizeShift
	} else {
		dst[at] |= entryMoreMin << entrySizeShift
		dst = binary.AppendUvarint(dst, uint64(more-entryMoreMin))
	}
	switch c.kind {
	case rollupInteger:
		k, _ := decimalOf(c.constant, 0)
		return binary.AppendVarint(dst, k)
	case rollupDecimal:
		exponent, _ := exponentFrom(c.constant, 0)
		k, _ := decimalOf(c.constant, exponent)
		return binary.AppendVarint(append(dst, byte(exponent)), k)
	case rollupFloat:
		return binary.LittleEndian.AppendUint64(dst, math.Float64bits(c.constant))
	default: // rollupRepeat
		return binary.AppendUvarint(dst, uint64(i)-uint64(c.target))
	}
}

// times writes what the times of a series are.
func (w *rollupWriter) times(dst []byte, c *builtRollup) []byte {
	if c.shape == timesInline {
		dst = append(dst, timesInline)
	} else {
		head := uint64(c.shape) | c.clock.ordinal()<<timesOrdinalShift
		if group := c.clock.group(); group != w.group {
			dst = binary.AppendUvarint(dst, head|timesOtherGroup)
			dst = binary.AppendVarint(dst, int64(group-w.group))
			w.group = group
		} else {
			dst = binary.AppendUvarint(dst, head)
		}
	}
	if c.shape == timesWhole {
		return dst
	}
	times := c.times.of(w.builder.arena)
	return append(binary.AppendUvarint(dst, uint64(len(times))), times...)
}

// body writes the body of series i, whose entry begins at index at of dst.
func (w *rollupWriter) body(dst []byte, at, i int) []byte {
	c := &w.builder.series[i]
	body := c.body
	if c.kind == rollupDifference {
		body = c.difference
		dst = binary.AppendUvarint(dst, uint64(i)-uint64(c.target))
	}
	bytes := body.of(w.builder.arena)
	if i < len(w.builder.series)-1 {
		size := lengthBytes(len(bytes))
		dst[at] |= byte(size) << entrySizeShift
		var le [8]byte
		binary.LittleEndian.PutUint64(le[:], uint64(len(bytes)))
		dst = append(dst, le[:size]...)
	}
	return append(dst, bytes...)
}
