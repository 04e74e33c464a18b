package chunk

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"slices"

	"github.com/prometheus/prometheus/model/value"
)

// rollupBody is a body of columns of floats, taken apart but for the streams.
type rollupBody struct {
	rows       int
	form       byte
	exponent   int
	heads      [rollupColumnCount]byte
	flags      byte
	step       int64
	origin     int64
	exceptions rollupExceptionReader
	streams    [rollupColumnCount][]byte
	residuals  [rollupFloatColumns][]byte
}

// parse reads a body of n rows, which is all of src.
func (b *rollupBody) parse(src []byte, n int) error {
	*b = rollupBody{rows: n, step: 1}
	r := runReader{rest: src}
	head := r.bytes(1 + headsBytes + 1)
	if r.broken {
		return fmt.Errorf("no columns: %w", ErrCorrupt)
	}
	b.form, b.exponent, b.flags = head[0]&formMask, int(head[0]>>formExponentShift), head[1+headsBytes]
	if b.form > formScaled || b.exponent > exponentMax || b.form == formBits && b.exponent != 0 || b.flags > 2*rollupHasStep-1 {
		return fmt.Errorf("columns of form %d with exponent %d and flags %x: %w", b.form, b.exponent, b.flags, ErrCorrupt)
	}
	for column := range b.heads {
		h := head[1+column/2] >> (4 * (column & 1)) & 15
		if int(h) >= headStream+guessesOf[column] || h == headAbsent && column <= columnLast {
			return fmt.Errorf("column %d with head %d: %w", column, h, ErrCorrupt)
		}
		b.heads[column] = h
	}
	if b.flags&rollupHasStep != 0 {
		b.step, b.origin = int64(r.uvarint()), r.varint()
	}
	if head[0]&formHasExceptions != 0 {
		if err := b.readExceptions(&r); err != nil {
			return err
		}
	}
	for column, h := range b.heads {
		if h >= headStream {
			b.streams[column] = r.bytes(r.uvarint())
		}
	}
	for column := range b.residuals {
		if b.flags>>column&1 != 0 {
			b.residuals[column] = r.bytes(r.uvarint())
		}
	}
	if r.broken || len(r.rest) > 0 {
		return fmt.Errorf("columns cut short, or %d bytes behind them: %w", len(r.rest), ErrCorrupt)
	}
	return nil
}

// readExceptions reads over the exceptions, and checks them.
func (b *rollupBody) readExceptions(r *runReader) error {
	const bytesMin = exceptionRunBytes + 1
	runs := r.uvarint()
	if r.broken || runs > uint64(len(r.rest)/bytesMin) {
		return fmt.Errorf("%d exceptions in %d bytes: %w", runs, len(r.rest), ErrCorrupt)
	}
	b.exceptions = rollupExceptionReader{r: *r, runs: int(runs), rows: b.rows, floats: b.rows * rollupFloatColumns}
	walk := b.exceptions
	var x rollupException
	for walk.next(&x) {
	}
	if walk.r.broken {
		return fmt.Errorf("exceptions of %d rows: %w", b.rows, ErrCorrupt)
	}
	*r = walk.r
	return nil
}

// rollupExceptionReader walks exceptions. It is broken for good where one doesn't begin at
// or behind the one before, isn't within the rows, or where there are more than floats.
type rollupExceptionReader struct {
	r           runReader
	runs        int // still to come
	rows, first int
	floats      int // still to come, so that time is bounded
	before      uint64
}

// next reads the next exception, if there is one.
func (w *rollupExceptionReader) next(x *rollupException) bool {
	if w.runs == 0 {
		return false
	}
	w.runs--
	gap, tagged, columns := w.r.uvarint(), w.r.uvarint(), w.r.bytes(1)
	more := tagged >> exceptionTagBits
	left := uint64(w.rows - w.first)
	if gap >= left || more >= left-gap || columns == nil || columns[0] >= 1<<rollupFloatColumns {
		w.r.broken, w.runs = true, 0
		return false
	}
	if w.floats -= int(more+1) * bits.OnesCount8(columns[0]); w.floats < 0 {
		w.r.broken, w.runs = true, 0
		return false
	}
	switch tagged & exceptionTagMask {
	case exceptionStale:
		x.bits = value.StaleNaN
	case exceptionNaN:
		x.bits = value.NormalNaN
	case exceptionBefore:
		x.bits = w.before
	default:
		if b := w.r.bytes(8); b != nil {
			w.before = binary.LittleEndian.Uint64(b)
		}
		x.bits = w.before
	}
	if w.r.broken {
		w.runs = 0
		return false
	}
	w.first += int(gap)
	x.first, x.length, x.columns = w.first, int(more)+1, columns[0]
	return true
}

// closure returns the wanted columns and all that are needed for them, as bits.
func (b *rollupBody) closure(wanted uint) uint {
	if b.flags&rollupHasStep != 0 && wanted>>columnCorrection&1 != 0 {
		wanted |= 1 << columnResets
	}
	// What a column needs comes before it, but for the first, which is of the lowest number.
	for _, column := range [...]int{columnCorrection, columnSum, columnMax, columnMin, columnFirst} {
		if wanted>>column&1 != 0 && b.heads[column] != headAbsent && (b.byBits(column) || !b.guessesNothing(column)) {
			wanted |= guessNeeds(column, b.guessOf(column))
		}
	}
	if b.flags&(1<<rollupValueColumns-1) != 0 {
		// Residuals are guessed from those of the first and the last.
		if wanted&(1<<columnMin|1<<columnMax) != 0 {
			wanted |= 1<<columnFirst | 1<<columnLast
		}
		if wanted>>columnFirst&1 != 0 {
			wanted |= 1 << columnLast
		}
	}
	return wanted
}

// guessesNothing tells that the guess of a column that is kept is all zeros.
func (b *rollupBody) guessesNothing(column int) bool {
	if column == columnCorrection && b.heads[columnResets] <= headGuess {
		return true // There are no resets.
	}
	return guessesNothing(column, b.guessOf(column))
}

// guessOf is the number of the guess of a column that is kept.
func (b *rollupBody) guessOf(column int) int { return max(int(b.heads[column])-headStream, 0) }

// byBits tells that a sum or correction is ordered bits.
func (b *rollupBody) byBits(column int) bool {
	return b.heads[column] == headStream+guessSumFloat && column == columnSum ||
		b.heads[column] == headStream+guessCorrectionFloat && column == columnCorrection
}

// rollupRowsDecoder decodes bodies of columns of floats. The zero value is ready; it keeps
// its memory and belongs to one goroutine.
type rollupRowsDecoder struct {
	rollupRows
	values valueDecoder
	// there are the columns that are decoded, as bits.
	there   uint
	guesses []int64
	lasts   []float64
}

// decode makes integers and residuals of the rows from lo on up to end, those of lo at index 0.
// counts are those of all rows. Only columns in the closure of the wanted ones are there, and
// what needs the row before lo is wrong in row lo, unless lo is 0.
func (d *rollupRowsDecoder) decode(b *rollupBody, counts []int64, lo, end int, wanted uint) error {
	d.there = b.closure(wanted)
	d.counts = counts[lo:end]
	n := end - lo
	d.guesses = slices.Grow(d.guesses[:0], n)[:n]
	for _, column := range [...]int{columnLast, columnFirst, columnMin, columnMax, columnResets, columnSum, columnCorrection, columnChanges} {
		if d.there>>column&1 == 0 {
			continue
		}
		x := slices.Grow(d.integers[column][:0], n)[:n]
		d.integers[column] = x
		switch h := b.heads[column]; {
		case h == headAbsent || h == headGuess && b.guessesNothing(column):
			clear(x)
		case h == headGuess:
			d.guess(column, 0, 0, x)
		default:
			if err := d.values.decodeIntegers(b.streams[column], b.rows, lo, x); err != nil {
				return fmt.Errorf("column %d: %w", column, err)
			}
			if b.guessesNothing(column) {
				continue
			}
			d.guess(column, b.guessOf(column), 0, d.guesses)
			for i, k := range d.guesses {
				x[i] += k
			}
		}
	}
	d.scaleSteps(b)
	return d.decodeResiduals(b, lo, n)
}

// scaleSteps turns steps into integers.
func (d *rollupRowsDecoder) scaleSteps(b *rollupBody) {
	if b.flags&rollupHasStep == 0 {
		return
	}
	for column := range rollupFloatColumns {
		if d.there>>column&1 == 0 || b.byBits(column) || b.heads[column] == headAbsent {
			continue
		}
		x := d.integers[column]
		switch column {
		case columnSum:
			for i, m := range d.counts {
				x[i] = m*b.origin + b.step*x[i]
			}
		case columnCorrection:
			for i, m := range d.integers[columnResets] {
				x[i] = m*b.origin + b.step*x[i]
			}
		default:
			for i, k := range x {
				x[i] = b.origin + b.step*k
			}
		}
	}
}

// hasResiduals tells whether a column's residuals may be other than 0.
func (b *rollupBody) hasResiduals(column int) bool {
	if column < rollupValueColumns {
		return b.flags&(1<<rollupValueColumns-1) != 0
	}
	return b.flags>>column&1 != 0
}

func (d *rollupRowsDecoder) decodeResiduals(b *rollupBody, lo, n int) error {
	for _, column := range [...]int{columnLast, columnFirst, columnMin, columnMax, columnSum, columnCorrection} {
		if d.there>>column&1 == 0 || !b.hasResiduals(column) {
			continue
		}
		x := slices.Grow(d.residuals[column][:0], n)[:n]
		d.residuals[column] = x
		if b.flags>>column&1 == 0 {
			clear(x)
		} else if err := d.values.decodeIntegers(b.residuals[column], b.rows, lo, x); err != nil {
			return fmt.Errorf("residuals of column %d: %w", column, err)
		}
		if column == columnFirst || column == columnMin || column == columnMax {
			for i := range x {
				x[i] += d.residualGuess(column, i)
			}
		}
	}
	return nil
}

// floats fills dst with the rows of a column from index skip on of those that were decoded,
// the first of which is row lo.
func (d *rollupRowsDecoder) floats(b *rollupBody, column, lo, skip int, dst []float64) {
	x := d.integers[column][skip:][:len(dst)]
	switch {
	case b.byBits(column):
		for i, k := range x {
			dst[i] = fromOrderedBits(k)
		}
		if column == columnSum {
			d.lasts = slices.Grow(d.lasts[:0], len(dst))[:len(dst)]
			d.floats(b, columnLast, lo, skip, d.lasts)
			for i, m := range d.counts[skip:] {
				dst[i] = fromOrderedBits(x[i] + orderedBits(sumOf(m, d.lasts[i])))
			}
		}
	case b.form == formBits:
		for i, k := range x {
			dst[i] = fromOrderedBits(k)
		}
	case b.hasResiduals(column):
		r := d.residuals[column][skip:][:len(dst)]
		for i, k := range x {
			dst[i] = fromOrderedBits(orderedBits(scaledFloat(k, b.exponent)) + r[i])
		}
	case b.exponent == 0:
		for i, k := range x {
			dst[i] = float64(k)
		}
	default:
		power := powersOfTen[b.exponent]
		for i, k := range x {
			dst[i] = float64(k) / power
		}
	}
	d.putExceptions(b, column, lo+skip, dst)
}

// putExceptions puts the exceptions of a column in their places among the rows from first on.
func (d *rollupRowsDecoder) putExceptions(b *rollupBody, column, first int, dst []float64) {
	var x rollupException
	for walk := b.exceptions; walk.next(&x) && x.first < first+len(dst); {
		if x.columns>>column&1 == 0 {
			continue
		}
		v := math.Float64frombits(x.bits)
		for i := max(x.first-first, 0); i < min(x.first+x.length-first, len(dst)); i++ {
			dst[i] = v
		}
	}
}
