package ingest

import (
	"errors"
	"fmt"

	"github.com/prometheus/prometheus/model/histogram"
)

// ErrInvalidHistogram is the class of every native histogram that a sender got wrong.
var ErrInvalidHistogram = errors.New("invalid histogram")

// CheckHistogram says whether the archive can take h. Spans are compared with
// the number of buckets and never expanded, so that a length of 2^31 costs
// nothing. One of a schema finer than upstream stores is brought down to the
// finest it does, in place: pass a copy of a histogram that others hold. The
// error wraps ErrInvalidHistogram.
func (l Limits) CheckHistogram(h *histogram.Histogram) error {
	if err := l.checkSizes(h.PositiveSpans, h.NegativeSpans, len(h.PositiveBuckets), len(h.NegativeBuckets), len(h.CustomValues)); err != nil {
		return err
	}
	return settle(h, h.Schema)
}

// CheckFloatHistogram is CheckHistogram for float histograms.
func (l Limits) CheckFloatHistogram(h *histogram.FloatHistogram) error {
	if err := l.checkSizes(h.PositiveSpans, h.NegativeSpans, len(h.PositiveBuckets), len(h.NegativeBuckets), len(h.CustomValues)); err != nil {
		return err
	}
	return settle(h, h.Schema)
}

// settle brings a histogram to a schema that upstream stores and validates it.
func settle(h interface {
	ReduceResolution(schema int32) error
	Validate() error
}, schema int32) error {
	if tooFine(schema) {
		if err := h.ReduceResolution(histogram.ExponentialSchemaMax); err != nil {
			return fmt.Errorf("%w: %w", ErrInvalidHistogram, err)
		}
	}
	if err := h.Validate(); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalidHistogram, err)
	}
	return nil
}

func (l Limits) checkSizes(positive, negative []histogram.Span, positiveBuckets, negativeBuckets, bounds int) error {
	for _, n := range [...]int{len(positive), len(negative), positiveBuckets, negativeBuckets, bounds} {
		if n > l.BucketsMax {
			return fmt.Errorf("%w: %d buckets, spans or bounds, at most %d", ErrInvalidHistogram, n, l.BucketsMax)
		}
	}
	return nil
}

// tooFine says that upstream knows the schema and stores it at a lower resolution.
func tooFine(schema int32) bool {
	return schema > histogram.ExponentialSchemaMax && histogram.IsExponentialSchemaReserved(schema)
}
