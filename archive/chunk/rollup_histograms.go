package chunk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"

	"varve/archive/chunk/ints"
	"varve/rollup"
)

// The native histograms of a series' buckets are four integers a bucket, and lists of float
// histograms as a chunk of a bundle has them: those that are first in their bucket, those that
// are last, the sums, and the corrections.

// What a bucket has beside its first and last histogram.
const (
	rollupHasSum        = 1 << 0
	rollupHasCorrection = 1 << 1
	rollupHasKnown      = rollupHasSum | rollupHasCorrection
)

// rollupHistogramLists is how many lists of histograms there are.
const rollupHistogramLists = 4

// histogramsOf returns the histogram that a row has in a list, or nil.
func histogramsOf(r *rollup.HistogramRow, list int) *histogram.FloatHistogram {
	return [rollupHistogramLists]*histogram.FloatHistogram{r.First, r.Last, r.Sum, r.Correction}[list]
}

// rollupHistogramEncoder writes the histograms of a series. The zero value is ready; it keeps
// its memory and belongs to one goroutine.
type rollupHistogramEncoder struct {
	ints       ints.Encoder
	histograms histogramEncoder
	list       histograms
	rows       []int32
	integers   []int64
	scratch    []byte
}

// checkHistogramRow tells why a row can't be kept.
func checkHistogramRow(r *rollup.HistogramRow) error {
	if r.First == nil || r.Last == nil {
		return errors.New("bucket without its first or last histogram")
	}
	for list := range rollupHistogramLists {
		h := histogramsOf(r, list)
		switch {
		case h == nil:
		case value.IsStaleNaN(h.Sum):
			return errors.New("histogram that is a stale marker")
		case !histogram.IsValidSchema(h.Schema) || len(h.CustomValues) > 0 && !histogram.IsCustomBucketsSchema(h.Schema):
			return fmt.Errorf("histogram of schema %d with %d bounds", h.Schema, len(h.CustomValues))
		case h.CounterResetHint > hintMask:
			return fmt.Errorf("histogram with hint %d", h.CounterResetHint)
		case countBuckets(h.PositiveSpans) != uint64(len(h.PositiveBuckets)) || countBuckets(h.NegativeSpans) != uint64(len(h.NegativeBuckets)):
			return errors.New("histogram whose buckets don't fit its spans")
		}
	}
	return nil
}

// append writes the rows, which were checked and are at least one. It fails if there are too
// many buckets.
func (e *rollupHistogramEncoder) append(dst []byte, rows []rollup.HistogramRow) ([]byte, error) {
	for _, of := range [...]func(r *rollup.HistogramRow) int64{
		func(r *rollup.HistogramRow) int64 { return r.Resets },
		func(r *rollup.HistogramRow) int64 { return r.Changes },
		func(r *rollup.HistogramRow) int64 { return int64(r.Hints) },
		rollupPartsOf,
	} {
		e.integers = e.integers[:0]
		for i := range rows {
			e.integers = append(e.integers, of(&rows[i]))
		}
		e.scratch = e.ints.Append(e.scratch[:0], e.integers)
		dst = append(binary.AppendUvarint(dst, uint64(len(e.scratch))), e.scratch...)
	}
	for list := range rollupHistogramLists {
		if err := e.gather(rows, list); err != nil {
			return dst, err
		}
		if len(e.rows) == 0 {
			continue
		}
		e.scratch = e.histograms.append(e.scratch[:0], &e.list, e.rows, true)
		dst = append(binary.AppendUvarint(dst, uint64(len(e.scratch))), e.scratch...)
	}
	return dst, nil
}

// rollupPartsOf tells what a row has beside its first and last histogram.
func rollupPartsOf(r *rollup.HistogramRow) int64 {
	parts := int64(0)
	if r.Sum != nil {
		parts |= rollupHasSum
	}
	if r.Correction != nil {
		parts |= rollupHasCorrection
	}
	return parts
}

// gather makes list and rows the histograms of a list.
func (e *rollupHistogramEncoder) gather(rows []rollup.HistogramRow, list int) error {
	e.list.reset()
	e.rows = e.rows[:0]
	buckets, layoutBuckets := 0, 0
	for i := range rows {
		h := histogramsOf(&rows[i], list)
		if h == nil {
			continue
		}
		e.list.begin()
		e.rows = append(e.rows, e.list.addFloat(h))
		n := len(h.PositiveBuckets) + len(h.NegativeBuckets)
		buckets += n
		if at := len(e.list.layouts) - 1; at == 0 || !e.list.layouts[at].equal(&e.list.layouts[at-1]) {
			layoutBuckets += n + len(h.CustomValues)
		}
		if buckets > sealedBucketsMax || layoutBuckets > HistogramBucketsMax {
			return fmt.Errorf("more than %d buckets, or %d in layouts that differ", sealedBucketsMax, HistogramBucketsMax)
		}
	}
	return nil
}

// rollupHistogramDecoder reads the histograms of a series. The zero value is ready; it keeps
// its memory and belongs to one goroutine.
type rollupHistogramDecoder struct {
	histograms histogramDecoder
	list       histograms
	integers   []int64
	parts      []int64
}

// decode fills rows with what the body src has in its rows from first on, of n. Count and
// times are not looked at. Of the histograms it makes those of the wanted columns.
func (d *rollupHistogramDecoder) decode(values *valueDecoder, src []byte, n, first int, wanted RollupColumns, rows []rollup.HistogramRow) error {
	r := runReader{rest: src}
	end := first + len(rows)
	d.integers, d.parts = slices.Grow(d.integers[:0], n)[:n], slices.Grow(d.parts[:0], n)[:n]
	for column, set := range [...]func(r *rollup.HistogramRow, k int64) bool{
		func(r *rollup.HistogramRow, k int64) bool { r.Resets = k; return true },
		func(r *rollup.HistogramRow, k int64) bool { r.Changes = k; return true },
		func(r *rollup.HistogramRow, k int64) bool { r.Hints = rollup.Hints(k); return k>>8 == 0 },
	} {
		if err := values.decodeIntegers(r.bytes(r.uvarint()), n, 0, d.integers[:end]); err != nil {
			return fmt.Errorf("histograms, integers %d: %w", column, err)
		}
		for i, k := range d.integers[first:end] {
			if !set(&rows[i], k) {
				return fmt.Errorf("histograms, integers %d: %d: %w", column, k, ErrCorrupt)
			}
		}
	}
	if err := values.decodeIntegers(r.bytes(r.uvarint()), n, 0, d.parts); err != nil {
		return fmt.Errorf("histograms, parts: %w", err)
	}
	for list, column := range [rollupHistogramLists]RollupColumns{RollupFirst, RollupLast, RollupSums, RollupCorrections} {
		if err := d.decodeList(values, &r, list, wanted&column != 0, first, rows); err != nil {
			return fmt.Errorf("histograms, list %d: %w", list, err)
		}
	}
	if r.broken || len(r.rest) > 0 {
		return fmt.Errorf("%d bytes behind the histograms: %w", len(r.rest), ErrCorrupt)
	}
	return nil
}

// decodeList reads a list, and makes its histograms if they are wanted.
func (d *rollupHistogramDecoder) decodeList(values *valueDecoder, r *runReader, list int, wanted bool, first int, rows []rollup.HistogramRow) error {
	has := int64(0)
	if list >= 2 {
		has = 1 << (list - 2)
	}
	n, from, to := 0, 0, 0
	for i, parts := range d.parts {
		if parts&^rollupHasKnown != 0 {
			return fmt.Errorf("parts %d: %w", parts, ErrCorrupt)
		}
		if parts&has != has {
			continue
		}
		if n++; i < first {
			from++
		}
		if i < first+len(rows) {
			to++
		}
	}
	if n == 0 {
		return nil
	}
	body := r.bytes(r.uvarint())
	if !wanted || to == from {
		return nil
	}
	d.list.reset()
	chunk := histogramChunk{
		runReader: runReader{rest: body}, histogramDecoder: &d.histograms, values: values,
		window: window{samples: n, first: from, end: to}, to: &d.list, isFloat: true,
	}
	if err := chunk.decode(); err != nil {
		return err
	}
	row := int32(0)
	for i := range rows {
		if d.parts[first+i]&has != has {
			continue
		}
		if value.IsStaleNaN(d.list.records[row].sum) {
			return fmt.Errorf("stale marker: %w", ErrCorrupt)
		}
		h := d.list.floatAt(row, false, nil)
		*[rollupHistogramLists]**histogram.FloatHistogram{&rows[i].First, &rows[i].Last, &rows[i].Sum, &rows[i].Correction}[list] = h
		row++
	}
	return nil
}

// bytes is the memory held for reuse.
func (d *rollupHistogramDecoder) bytes() int {
	return d.histograms.bytes() + d.list.bytes() + 8*(cap(d.integers)+cap(d.parts))
}
