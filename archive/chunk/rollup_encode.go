package chunk

import (
	"cmp"
	"encoding/binary"
	"math"
	"math/bits"
	"slices"

	"varve/archive/chunk/ints"
	"varve/rollup"
)

// rollupEncoder writes the bodies of columns of floats.
//
//  1. Firsts, lasts, minima and maxima are turned into integers together, as the values of a
//     chunk are, at one exponent; sums and corrections follow at that exponent.
//  2. If all have a step, they are counted in steps.
//  3. Each column is guessed from others in some ways. The guess with the smallest estimate
//     is kept, and a stream of the differences to it, unless all are 0.
//
// The zero rollupEncoder is ready; it keeps its memory and belongs to one goroutine.
type rollupEncoder struct {
	values valueEncoder
	ints   ints.Encoder
	rollupRows

	kept       RollupColumns
	form       byte
	exponent   int
	origin     int64
	step       uint64
	exceptions []rollupException
	// byBits tells which of sums and corrections are ordered bits.
	byBits [rollupFloatColumns]bool

	list, guesses, best []int64
	flat                []float64
	scratch, other      []byte
}

// rollupException is a stretch of rows in which some columns of floats have bits that the
// form can't give.
type rollupException struct {
	first, length int
	columns       uint8 // bits by number
	bits          uint64
}

// append writes the body. counts are the rows' numbers of samples; what c has in rows
// without any is not kept.
func (e *rollupEncoder) append(dst []byte, counts []int64, c *rollup.Columns) []byte {
	e.counts = counts
	e.kept = keptOf(c)
	e.gather(c)
	fits := e.values.fitDecimals(e.flat)
	e.values.form = formDecimal
	if fits {
		dst2 := e.attempt(dst, c)
		if e.values.oddities < odditiesDoubtful && e.exponent < exponentDoubtful {
			return dst2
		}
		decimals := len(dst2) - len(dst)
		e.values.scaleOrOrder(e.flat)
		e.other = e.attempt(e.other[:0], c)
		if len(e.other) < decimals {
			return append(dst, e.other...)
		}
		e.values.fitDecimals(e.flat)
		e.values.form = formDecimal
		return e.attempt(dst, c)
	}
	e.values.scaleOrOrder(e.flat)
	return e.attempt(dst, c)
}

// keptOf tells which columns c has.
func keptOf(c *rollup.Columns) RollupColumns {
	kept := RollupFirst | RollupLast
	for i, has := range [...]bool{columnMin: c.Min != nil, c.Max != nil, c.Sums != nil, c.Corrections != nil, c.Resets != nil, c.Changes != nil} {
		if has {
			kept |= 1 << i
		}
	}
	return kept
}

// has tells whether a column is kept.
func (e *rollupEncoder) has(column int) bool { return e.kept>>column&1 != 0 }

// floatsOf returns a column of floats.
func floatsOf(c *rollup.Columns, column int) []float64 {
	return [...][]float64{c.First, c.Last, c.Min, c.Max, c.Sums, c.Corrections}[column]
}

// gather fills flat with the columns of samples, one behind the other. Rows without
// samples repeat the value before.
func (e *rollupEncoder) gather(c *rollup.Columns) {
	e.flat = e.flat[:0]
	for column := range rollupValueColumns {
		if !e.has(column) {
			continue
		}
		before := 0.0
		for i, v := range floatsOf(c, column) {
			if e.counts[i] > 0 {
				before = v
			}
			e.flat = append(e.flat, before)
		}
	}
}

// attempt writes the body with the integers that values made of flat.
func (e *rollupEncoder) attempt(dst []byte, c *rollup.Columns) []byte {
	e.form, e.exponent = e.values.form, e.values.exponent
	e.exceptions = e.exceptions[:0]
	e.takeValues()
	e.takeSums(c, columnSum)
	e.takeSums(c, columnCorrection)
	for i, x := range [...][]int64{c.Resets, c.Changes} {
		column := columnResets + i
		e.integers[column] = append(e.integers[column][:0], x...)
		if x == nil {
			e.integers[column] = zeros(e.integers[column], len(e.counts))
		}
		for i, n := range e.counts {
			if n == 0 {
				e.integers[column][i] = 0
			}
		}
	}
	e.mergeExceptions()
	e.settle()
	e.findStep()
	return e.write(dst)
}

// zeros returns n zeros in the memory of x.
func zeros(x []int64, n int) []int64 {
	x = slices.Grow(x[:0], n)[:n]
	clear(x)
	return x
}

// takeValues splits what values made by columns.
func (e *rollupEncoder) takeValues() {
	n := len(e.counts)
	at := 0
	for column := range rollupValueColumns {
		if !e.has(column) {
			e.integers[column], e.residuals[column] = zeros(e.integers[column], n), zeros(e.residuals[column], n)
			continue
		}
		e.integers[column] = append(e.integers[column][:0], e.values.integers[at:at+n]...)
		if e.form == formScaled {
			e.residuals[column] = append(e.residuals[column][:0], e.values.residuals[at:at+n]...)
		} else {
			e.residuals[column] = zeros(e.residuals[column], n)
		}
		for _, run := range e.values.exceptions {
			first, end := max(run.first, at), min(run.first+run.length, at+n)
			e.except(column, first-at, end-at, run.bits)
		}
		at += n
	}
}

// except adds the rows from first to end, which has samples, as exceptions.
func (e *rollupEncoder) except(column, first, end int, bits uint64) {
	for ; first < end; first++ {
		if e.counts[first] == 0 {
			continue
		}
		if n := len(e.exceptions); n > 0 {
			last := &e.exceptions[n-1]
			if last.columns == 1<<column && last.bits == bits && last.first+last.length == first {
				last.length++
				continue
			}
		}
		e.exceptions = append(e.exceptions, rollupException{first: first, length: 1, columns: 1 << column, bits: bits})
	}
}

// mergeExceptions makes one of those that are alike in several columns, and orders them.
func (e *rollupEncoder) mergeExceptions() {
	slices.SortFunc(e.exceptions, func(x, y rollupException) int {
		return cmp.Or(cmp.Compare(x.first, y.first), cmp.Compare(x.length, y.length), cmp.Compare(x.bits, y.bits), cmp.Compare(x.columns, y.columns))
	})
	n := 0
	for _, x := range e.exceptions {
		if n > 0 {
			if last := &e.exceptions[n-1]; last.first == x.first && last.length == x.length && last.bits == x.bits {
				last.columns |= x.columns
				continue
			}
		}
		e.exceptions[n] = x
		n++
	}
	e.exceptions = e.exceptions[:n]
}

// sumMax is where sums become ordered bits that as integers might overflow.
const sumMax = 1 << 62

// takeSums makes integers of sums or corrections. Where some are too large, or the form is
// that of ordered bits, all are their bits.
func (e *rollupEncoder) takeSums(c *rollup.Columns, column int) {
	n := len(e.counts)
	e.integers[column], e.residuals[column] = zeros(e.integers[column], n), zeros(e.residuals[column], n)
	e.byBits[column] = false
	if !e.has(column) {
		return
	}
	sums := floatsOf(c, column)
	power := powersOfTen[e.exponent]
	e.byBits[column] = e.form == formBits
	for i, m := range e.counts {
		if m > 0 && isFinite(sums[i]) && !(math.Abs(sums[i]*power) < sumMax) {
			e.byBits[column] = true
		}
	}
	for i, m := range e.counts {
		switch v := sums[i]; {
		case m == 0:
		case e.byBits[column]:
			e.integers[column][i] = orderedBits(v)
			if column == columnSum {
				e.integers[column][i] -= orderedBits(sumOf(m, c.Last[i]))
			}
		case !isFinite(v):
			e.except(column, i, i+1, math.Float64bits(v))
		default:
			k := int64(math.RoundToEven(v * power))
			e.integers[column][i] = k
			e.residuals[column][i] = orderedBits(v) - orderedBits(scaledFloat(k, e.exponent))
		}
	}
}

// sumOf is the sum of m samples that are all v.
func sumOf(m int64, v float64) float64 {
	if math.IsNaN(v) {
		return v
	}
	return float64(m) * v
}

// scaledFloat is k/10^exponent.
func scaledFloat(k int64, exponent int) float64 {
	if exponent == 0 {
		return float64(k)
	}
	return float64(k) / powersOfTen[exponent]
}

// settle gives rows without samples and exceptions integers that cost nothing, or little.
func (e *rollupEncoder) settle() {
	for i, m := range e.counts {
		if m == 0 {
			e.settleRow(i, 1<<rollupFloatColumns-1)
		}
	}
	for _, x := range e.exceptions {
		for i := range x.length {
			e.settleRow(x.first+i, x.columns)
		}
	}
}

// settleRow gives some columns of a row integers. Rows before it are settled in the same
// columns.
func (e *rollupEncoder) settleRow(i int, columns uint8) {
	first, last := e.integers[columnFirst], e.integers[columnLast]
	if columns>>columnFirst&1 != 0 {
		first[i] = 0
		e.residuals[columnFirst][i] = 0
		if i > 0 {
			first[i], e.residuals[columnFirst][i] = last[i-1], e.residuals[columnLast][i-1]
		} else if columns>>columnLast&1 == 0 {
			first[i], e.residuals[columnFirst][i] = last[i], e.residuals[columnLast][i]
		}
	}
	if columns>>columnLast&1 != 0 {
		last[i], e.residuals[columnLast][i] = first[i], e.residuals[columnFirst][i]
	}
	for column, of := range [...]int64{columnMin: min(first[i], last[i]), columnMax: max(first[i], last[i])} {
		if column >= columnMin && columns>>column&1 != 0 {
			e.integers[column][i] = of
			e.residuals[column][i] = e.edgeResidual(column, i)
		}
	}
	if columns>>columnSum&1 != 0 {
		e.integers[columnSum][i], e.residuals[columnSum][i] = e.counts[i]*(first[i]+last[i])>>1, 0
	}
	if columns>>columnCorrection&1 != 0 {
		e.integers[columnCorrection][i], e.residuals[columnCorrection][i] = 0, 0
	}
}

// edgeResidual guesses the residual of a minimum or maximum: that of the first or the last
// if it is one of the two.
func (r *rollupRows) edgeResidual(column, i int) int64 {
	switch r.integers[column][i] {
	case r.integers[columnFirst][i]:
		return r.residuals[columnFirst][i]
	case r.integers[columnLast][i]:
		return r.residuals[columnLast][i]
	default:
		return 0
	}
}

// findStep counts integers in steps if they have one.
func (e *rollupEncoder) findStep() {
	e.origin, e.step = 0, 1
	if e.form == formBits {
		return
	}
	origin, step := e.integers[columnFirst][0], uint64(0)
	for column := range rollupFloatColumns {
		if !e.has(column) || e.byBits[column] {
			continue
		}
		for i, k := range e.integers[column] {
			d := uint64(k - e.many(column, i)*origin)
			if int64(d) < 0 {
				d = -d
			}
			for a := d; a != 0; {
				a, step = step%a, a
			}
			if step == 1 {
				return
			}
		}
	}
	if step <= 1 || step > math.MaxInt64 {
		return
	}
	e.origin, e.step = origin, step
	for column := range rollupFloatColumns {
		if !e.has(column) || e.byBits[column] {
			continue
		}
		for i := range e.integers[column] {
			e.integers[column][i] = (e.integers[column][i] - e.many(column, i)*origin) / int64(step)
		}
	}
}

// many is how many samples are added up in a column's value.
func (r *rollupRows) many(column, i int) int64 {
	switch column {
	case columnSum:
		return r.counts[i]
	case columnCorrection:
		return r.integers[columnResets][i]
	default:
		return 1
	}
}

// write writes what was prepared.
func (e *rollupEncoder) write(dst []byte) []byte {
	head := len(dst)
	dst = append(dst, e.form|byte(e.exponent)<<formExponentShift)
	if len(e.exceptions) > 0 {
		dst[head] |= formHasExceptions
	}
	heads := len(dst)
	dst = append(dst, make([]byte, headsBytes)...)
	flags := len(dst)
	dst = append(dst, 0)
	if e.step > 1 {
		dst[flags] |= rollupHasStep
		dst = binary.AppendVarint(binary.AppendUvarint(dst, e.step), e.origin)
	}
	dst = e.appendExceptions(dst)
	for column := range rollupColumnCount {
		if !e.has(column) {
			continue
		}
		var h byte
		h, dst = e.appendColumn(dst, column)
		dst[heads+column/2] |= h << (4 * (column & 1))
	}
	for column := range rollupFloatColumns {
		if e.has(column) && e.residualsOf(column) {
			dst[flags] |= 1 << column
			dst = e.appendFramed(dst, e.list)
		}
	}
	return dst
}

// rollupHasStep tells in the byte behind the heads that step and origin follow. Its bits
// below tell which columns have residuals.
const rollupHasStep = 1 << rollupFloatColumns

// appendFramed appends a stream behind its length.
func (e *rollupEncoder) appendFramed(dst []byte, x []int64) []byte {
	e.scratch = e.ints.Append(e.scratch[:0], x)
	return append(binary.AppendUvarint(dst, uint64(len(e.scratch))), e.scratch...)
}

func (e *rollupEncoder) appendExceptions(dst []byte) []byte {
	if len(e.exceptions) == 0 {
		return dst
	}
	dst = binary.AppendUvarint(dst, uint64(len(e.exceptions)))
	first := 0
	var before uint64
	hasBefore := false
	for _, x := range e.exceptions {
		tag := exceptionTag(x.bits, before, hasBefore)
		dst = binary.AppendUvarint(dst, uint64(x.first-first))
		dst = binary.AppendUvarint(dst, uint64(x.length-1)<<exceptionTagBits|tag)
		dst = append(dst, x.columns)
		if tag == exceptionBits {
			dst = binary.LittleEndian.AppendUint64(dst, x.bits)
			before, hasBefore = x.bits, true
		}
		first = x.first
	}
	return dst
}

// appendColumn writes a column by the guess that is estimated to be best, and returns its head.
func (e *rollupEncoder) appendColumn(dst []byte, column int) (byte, []byte) {
	n := len(e.counts)
	from, to := 0, guessesOf[column]
	switch {
	case column == columnSum && e.byBits[column]:
		from = guessSumFloat
	case column == columnSum:
		to = sumGuesses
	case column == columnCorrection && e.byBits[column]:
		from = guessCorrectionFloat
	case column == columnCorrection:
		to = correctionGuesses
	}
	best, cost := 0, math.MaxInt
	for guess := from; guess < to; guess++ {
		if !e.allows(column, guess) {
			continue
		}
		e.guesses = slices.Grow(e.guesses[:0], n)[:n]
		e.guess(column, guess, 0, e.guesses)
		any := int64(0)
		for i, k := range e.integers[column] {
			e.guesses[i] = k - e.guesses[i]
			any |= e.guesses[i]
		}
		if any == 0 && guess == 0 {
			return headGuess, dst
		}
		if c := streamCost(e.guesses); c < cost {
			best, cost = guess, c
			e.best, e.guesses = e.guesses, e.best
		}
	}
	return byte(headStream + best), e.appendFramed(dst, e.best)
}

// allows tells whether what the guess needs is kept.
func (e *rollupEncoder) allows(column, guess int) bool {
	return guessNeeds(column, guess)&^uint(e.kept) == 0
}

// centreSamples is how many values the centre of a list is the median of.
const centreSamples = 31

// streamCost estimates the bits that a stream takes.
func streamCost(x []int64) int {
	var samples [centreSamples + 1]int64
	n := 0
	for i := 0; i < len(x) && n < len(samples); i += (len(x) + centreSamples) / centreSamples {
		samples[n] = x[i]
		n++
	}
	slices.Sort(samples[:n])
	centre := samples[n/2]
	before := x[0]
	offset, delta := 0, 0
	for _, v := range x {
		offset += bits.Len64(uint64((v-centre)<<1 ^ (v-centre)>>63))
		delta += bits.Len64(uint64((v-before)<<1 ^ (v-before)>>63))
		before = v
	}
	return min(offset, delta+bitLength(x[0]))
}

// residualsOf fills list with the differences of a column's residuals to their guess, and
// tells whether any isn't 0.
func (e *rollupEncoder) residualsOf(column int) bool {
	e.list = append(e.list[:0], e.residuals[column]...)
	any := int64(0)
	for i := range e.list {
		e.list[i] -= e.residualGuess(column, i)
		any |= e.list[i]
	}
	return any != 0
}

// residualGuess guesses the residual of a column in a row. What is needed is there.
func (r *rollupRows) residualGuess(column, i int) int64 {
	switch column {
	case columnFirst:
		if i > 0 {
			return r.residuals[columnLast][i-1]
		}
	case columnMin, columnMax:
		return r.edgeResidual(column, i)
	}
	return 0
}

// appendDifference writes the body that was written last once more, with the integers of a base
// taken off those of floats. It is false where that isn't possible.
func (e *rollupEncoder) appendDifference(dst []byte, b *rollupBody, base *rollupRowsDecoder) ([]byte, bool) {
	if e.form != formDecimal || b.form != formDecimal || e.exponent != b.exponent {
		return dst, false
	}
	for column := range rollupFloatColumns {
		if e.has(column) && (e.byBits[column] || b.byBits(column) || b.heads[column] == headAbsent) {
			return dst, false
		}
	}
	e.undoStep()
	for column := range rollupFloatColumns {
		if !e.has(column) {
			continue
		}
		for i, k := range base.integers[column] {
			e.integers[column][i] -= k
		}
	}
	e.findStep()
	return e.write(dst), true
}

// undoStep turns steps back into integers.
func (e *rollupEncoder) undoStep() {
	if e.step == 1 {
		return
	}
	for column := range rollupFloatColumns {
		if !e.has(column) || e.byBits[column] {
			continue
		}
		for i := range e.integers[column] {
			e.integers[column][i] = e.many(column, i)*e.origin + int64(e.step)*e.integers[column][i]
		}
	}
}
