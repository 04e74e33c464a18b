package chunk

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/value"

	"varve/archive/chunk/ints"
)

// valueDecoder reads streams of values. The zero valueDecoder is ready; it keeps its
// memory and belongs to one goroutine.
type valueDecoder struct {
	ints      ints.Decoder
	integers  []int64
	residuals []int64
}

// valueStream is a stream of values, taken apart but for the integers.
type valueStream struct {
	form     byte
	exponent int
	// exceptions are the runs, which are whole and lie within the stream's samples.
	exceptions exceptionReader
	// integers are what follows.
	integers []byte
}

// parseValues reads what stands before the integers of a stream of n values.
func parseValues(src []byte, n int) (valueStream, error) {
	r := runReader{rest: src}
	head := r.bytes(1)
	if r.broken {
		return valueStream{}, fmt.Errorf("no values: %w", ErrCorrupt)
	}
	s := valueStream{form: head[0] & formMask, exponent: int(head[0] >> formExponentShift)}
	if s.form > formScaled || s.exponent > exponentMax || s.form == formBits && s.exponent != 0 {
		return valueStream{}, fmt.Errorf("values of form %d with exponent %d: %w", s.form, s.exponent, ErrCorrupt)
	}
	if head[0]&formHasExceptions != 0 {
		runs := r.uvarint()
		if r.broken || runs > uint64(len(r.rest)/exceptionRunBytes) {
			return valueStream{}, fmt.Errorf("%d exceptions in %d bytes: %w", runs, len(r.rest), ErrCorrupt)
		}
		s.exceptions = exceptionReader{r: r, runs: int(runs), n: n}
		var run exceptionRun
		walk := s.exceptions
		for walk.next(&run) {
		}
		if walk.r.broken {
			return valueStream{}, fmt.Errorf("exceptions of %d values: %w", n, ErrCorrupt)
		}
		r = walk.r
	}
	s.integers = r.rest
	return s, nil
}

// exceptionReader walks runs of exceptions. It is broken for good where a run doesn't
// lie behind the one before and within n values.
type exceptionReader struct {
	r      runReader
	runs   int // still to come
	n, end int
	before uint64
}

// next reads the next run, if there is one.
func (x *exceptionReader) next(run *exceptionRun) bool {
	if x.runs == 0 {
		return false
	}
	x.runs--
	gap, tagged := x.r.uvarint(), x.r.uvarint()
	more := tagged >> exceptionTagBits
	left := uint64(x.n - x.end)
	if gap >= left || more >= left-gap {
		x.r.broken = true
	}
	switch tagged & exceptionTagMask {
	case exceptionStale:
		run.bits = value.StaleNaN
	case exceptionNaN:
		run.bits = value.NormalNaN
	case exceptionBefore:
		run.bits = x.before
	default:
		if b := x.r.bytes(8); b != nil {
			x.before = binary.LittleEndian.Uint64(b)
		}
		run.bits = x.before
	}
	if x.r.broken {
		x.runs = 0
		return false
	}
	run.first, run.length = x.end+int(gap), int(more)+1
	x.end = run.first + run.length
	return true
}

// decode fills values with the samples from index first on of a stream of n values;
// first+len(values) <= n. What lies behind those is not looked at, and what lies before
// them is passed over in large steps where the stream allows.
func (d *valueDecoder) decode(src []byte, n, first int, values []float64) error {
	s, err := parseValues(src, n)
	if err != nil {
		return err
	}
	d.integers = slices.Grow(d.integers[:0], len(values))[:len(values)]
	if s.form == formScaled {
		return d.decodeScaled(&s, n, first, values)
	}
	if err := d.decodeIntegers(s.integers, n, first, d.integers); err != nil {
		return err
	}
	s.toFloats(d.integers, first, values)
	return nil
}

// decodeIntegers decodes the integers from index first on of a stream of n, which is all
// of src.
func (d *valueDecoder) decodeIntegers(src []byte, n, first int, x []int64) error {
	used, err := d.ints.DecodeFrom(src, n, first, x)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if first+len(x) == n && len(x) > 0 && used != len(src) {
		return fmt.Errorf("%d bytes behind the values: %w", len(src)-used, ErrCorrupt)
	}
	return nil
}

// decimals decodes the integers of a stream of n decimals into dst[:0] and returns them.
func (d *valueDecoder) decimals(src []byte, n int, dst []int64) ([]int64, error) {
	s, err := parseValues(src, n)
	if err != nil {
		return dst[:0], err
	}
	if s.form != formDecimal {
		return dst[:0], fmt.Errorf("difference to values of form %d: %w", s.form, ErrCorrupt)
	}
	dst = slices.Grow(dst[:0], n)[:n]
	return dst, d.decodeIntegers(s.integers, n, 0, dst)
}

// toFloats makes values of integers in formDecimal or formBits. first is the index of
// their first in the stream.
func (s *valueStream) toFloats(integers []int64, first int, values []float64) {
	integers = integers[:len(values)]
	switch {
	case s.form == formBits:
		for i, k := range integers {
			values[i] = fromOrderedBits(k)
		}
	case s.exponent == 0:
		for i, k := range integers {
			values[i] = float64(k)
		}
	default:
		power := powersOfTen[s.exponent]
		for i, k := range integers {
			values[i] = float64(k) / power
		}
	}
	s.putExceptions(first, values)
}

func (d *valueDecoder) decodeScaled(s *valueStream, n, first int, values []float64) error {
	r := runReader{rest: s.integers}
	integers := r.bytes(r.uvarint())
	if r.broken {
		return fmt.Errorf("scaled values cut short: %w", ErrCorrupt)
	}
	d.residuals = slices.Grow(d.residuals[:0], len(values))[:len(values)]
	if err := d.decodeIntegers(integers, n, first, d.integers); err != nil {
		return err
	}
	if err := d.decodeIntegers(r.rest, n, first, d.residuals); err != nil {
		return err
	}
	power := powersOfTen[s.exponent]
	residuals := d.residuals[:len(values)]
	for i, k := range d.integers[:len(values)] {
		values[i] = fromOrderedBits(orderedBits(float64(k)/power) + residuals[i])
	}
	s.putExceptions(first, values)
	return nil
}

// putExceptions puts the exceptions in their places among values, the first of which
// has index first in the stream.
func (s *valueStream) putExceptions(first int, values []float64) {
	var run exceptionRun
	for walk := s.exceptions; walk.next(&run) && run.first < first+len(values); {
		v := math.Float64frombits(run.bits)
		for i := max(run.first-first, 0); i < min(run.first+run.length-first, len(values)); i++ {
			values[i] = v
		}
	}
}

// bytes is the memory held for reuse.
func (d *valueDecoder) bytes() int { return 8 * (cap(d.integers) + cap(d.residuals)) }
