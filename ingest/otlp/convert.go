package otlp

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/storage/remote/otlptranslator/prometheusremotewrite"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"varve/arrival"
	"varve/ingest"
)

// targetInfoMax bounds the samples of target_info that are made of one resource in a
// request. Upstream makes one for each half of the lookback between the first and the
// last data point: two points fifty years apart would make ten million.
const targetInfoMax = 64

// store converts what vetting left of a request and writes it. It returns how many
// data points were refused. w, unless it is nil, learns from it.
func (h *Handler) store(ctx context.Context, md pmetric.Metrics, v *vetting, w *walk) (refused int, err error) {
	settings := h.settings
	settings.LookbackDelta = max(h.options.LookbackDelta, v.span/(targetInfoMax/2))
	t := &taker{h: h, ctx: ctx, d: v.d, result: v.d.Result(), walk: w}
	t.begin()
	if !v.deltas {
		err = h.convert(md, settings, t)
		return t.refused, errors.Join(err, t.end(err == nil))
	}
	deltas := splitDeltas(md)
	if err := h.convert(md, settings, t); err != nil {
		return t.refused, errors.Join(err, t.end(false))
	}
	h.sums.begin()
	durable := false
	// Also after a panic of the converter: all other deltas would wait for ever.
	defer func() { h.sums.end(durable) }()
	t.sums, t.latestMillis = h.sums, h.now().Add(h.options.FutureMax).UnixMilli()
	err = h.convert(deltas, settings, t)
	err = errors.Join(err, t.end(err == nil))
	durable = err == nil
	return t.refused, err
}

// convert hands what upstream's converter makes of md to t.
func (h *Handler) convert(md pmetric.Metrics, settings prometheusremotewrite.Settings, t *taker) error {
	converter := h.converters.Get().(*prometheusremotewrite.PrometheusConverter)
	defer func() {
		converter.Reset(nil)
		h.converters.Put(converter)
	}()
	converter.Reset(t)
	_, err := converter.FromMetrics(t.ctx, md, settings)
	switch {
	case t.failed != nil:
		return t.failed
	case t.ctx.Err() != nil:
		return t.ctx.Err()
	case err != nil:
		// Vetting should have taken this out. What it was in is lost, so say so.
		t.refused++
		t.d.Refuse(arrival.ReasonInvalidSeries, 1, errors.New(printable(err)))
	}
	return nil
}

// taker takes the samples that the converter makes, in place of an archive, and
// writes them in pieces. What concerns one series it notes and answers with success,
// since the converter would give up the metric's other data points. It refuses
// everything once the archive is in trouble.
type taker struct {
	h      *Handler
	ctx    context.Context
	d      *ingest.Delivery
	result *arrival.Result
	next   storage.AppenderV2
	// piece is the number of samples in next, labelBytes what their labels take.
	piece      int
	labelBytes uint64
	// sums is set while the samples are deltas, and latestMillis is when one may end.
	sums         *sums
	latestMillis int64
	// refused counts the data points of which something was refused.
	refused int
	failed  error
	// walk, unless it is nil, learns from what the converter makes.
	walk *walk
}

var _ storage.AppenderV2 = (*taker)(nil)

// samplesMax is how many samples are written at a time, labelBytesMax how much of labels: a histogram gives its own
// to thousands of buckets.
const (
	samplesMax    = 1 << 16
	labelBytesMax = 32 << 20
)

func (t *taker) begin() {
	t.next = t.h.appendable.ReportingTo(t.ctx, t.result)
	t.piece, t.labelBytes = 0, 0
}

// Append implements storage.AppenderV2.
func (t *taker) Append(_ storage.SeriesRef, ls labels.Labels, st, at int64, v float64, h *histogram.Histogram, fh *histogram.FloatHistogram, opts storage.AppendV2Options) (storage.SeriesRef, error) {
	if t.failed != nil {
		return 0, t.failed
	}
	if t.piece >= samplesMax || t.labelBytes >= labelBytesMax {
		if t.failed = t.commit(); t.failed != nil {
			return 0, t.failed
		}
		t.begin()
	}
	if t.sums != nil && !isTargetInfo(opts) {
		var err error
		float := h == nil
		if at > t.latestMillis {
			err = errFutureDelta
		} else if !float {
			h, fh, st, err = t.sums.addHistogram(ls, st, at, h)
		} else {
			v, st, err = t.sums.addFloat(ls, st, at, v)
		}
		switch {
		case errors.Is(err, errAgain):
			t.d.Drop(arrival.ReasonRepeated, 1)
			return 0, nil
		case err != nil:
			t.refuse(ls, opts, float)
			t.d.Refuse(reasonOf(err), 1, fmt.Errorf("series %s: %w", quoted(ls.Get(model.MetricNameLabel)), err))
			return 0, nil
		}
	}
	if t.walk != nil {
		t.walk.pair(ls, st, at, v, &opts)
	}
	t.piece++
	t.labelBytes += ls.ByteSize()
	_, err := t.next.Append(0, ls, st, at, v, h, fh, opts)
	var partial *storage.AppendPartialError
	switch {
	case err == nil:
	case errors.As(err, &partial):
		for _, e := range partial.ExemplarErrors {
			t.d.Refuse(arrival.ReasonInvalidExemplar, 0, e)
		}
	case errors.Is(err, storage.ErrOutOfBounds):
		// The appender has counted it under its reason.
		if t.sums != nil && !isTargetInfo(opts) {
			t.sums.unstage()
		}
		t.refuse(ls, opts, h == nil && fh == nil)
		t.d.Refuse(arrival.ReasonNone, 0, err)
	default:
		t.failed = err
		return 0, err
	}
	return 0, nil
}

// refuse counts the data point of a series that was refused. The series of a classic
// histogram or a summary are one data point, which always has a count.
func (t *taker) refuse(ls labels.Labels, opts storage.AppendV2Options, float bool) {
	many := float && (opts.Metadata.Type == model.MetricTypeHistogram || opts.Metadata.Type == model.MetricTypeSummary)
	switch {
	case isTargetInfo(opts):
	case many && ls.Get(model.MetricNameLabel) != opts.MetricFamilyName+"_count":
	default:
		t.refused++
	}
}

// isTargetInfo says whether a sample is one that the converter adds of its own.
func isTargetInfo(opts storage.AppendV2Options) bool {
	return opts.MetricFamilyName == "target_info" && opts.Metadata.Help == "Target metadata"
}

func reasonOf(err error) arrival.Reason {
	switch {
	case errors.Is(err, ingest.ErrInvalidHistogram), errors.Is(err, errBucketRange):
		return arrival.ReasonInvalidHistogram
	case errors.Is(err, errNoNumber):
		return arrival.ReasonInvalidValue
	case errors.Is(err, errFutureDelta):
		return arrival.ReasonFuture
	}
	return arrival.ReasonInvalidSeries
}

// Commit implements storage.AppenderTransaction and is never called by a converter.
func (t *taker) Commit() error { return t.end(true) }

// Rollback implements storage.AppenderTransaction.
func (t *taker) Rollback() error { return t.end(false) }

// end writes the last piece, or drops it.
func (t *taker) end(write bool) error {
	if t.next == nil {
		return nil
	}
	if write {
		return t.commit()
	}
	next := t.next
	t.next = nil
	return next.Rollback()
}

// commit writes a piece and counts the data points that the archive refused. Of a
// data point with several series it counts each.
func (t *taker) commit() error {
	next := t.next
	t.next = nil
	before := refusedPoints(t.result)
	if err := next.Commit(); err != nil {
		return err
	}
	t.refused += refusedPoints(t.result) - before
	return nil
}

func refusedPoints(r *arrival.Result) int {
	return r.Rejected.Total() - r.Rejected[arrival.ReasonInvalidExemplar]
}

// printable is an error's text without control characters, cut to a line.
func printable(err error) string {
	return strings.Trim(quoted(err.Error()), `"`)
}
