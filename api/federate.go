package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"google.golang.org/protobuf/proto"
)

var errTooManySeries = errors.New("too many series: narrow match[]")

// federated is the newest sample of a series. Float is nil for plain floats.
type federated struct {
	metric     labels.Labels
	name       string
	timeMillis int64
	value      float64
	histogram  *histogram.FloatHistogram
}

// kind tells the samples apart that can't share a family of the exposition: the
// type belongs to the family, not to the metric.
func (s *federated) kind() dto.MetricType {
	switch {
	case s.histogram == nil:
		return dto.MetricType_UNTYPED
	case s.histogram.CounterResetHint == histogram.GaugeType:
		return dto.MetricType_GAUGE_HISTOGRAM
	default:
		return dto.MetricType_HISTOGRAM
	}
}

// federate answers the newest sample of every series that match[] selects, as
// Prometheus' federation does:
//
//  1. The newest sample within the lookback delta counts. If it is a stale marker
//     the series is left out, since the formats have no word for it.
//  2. A series that several selectors match appears once.
//  3. Families are sorted by name, series in them by labels. A name with floats
//     and histograms makes one family of each kind.
//  4. External labels are added where a series has no such label; an empty
//     instance label keeps the scraper from inventing one.
//  5. Native histograms need a protobuf format; with text they are left out,
//     except those with custom buckets, which have a classic form.
//
// All samples are gathered and the storage is let go before the first byte is
// sent, so that a slow client holds no view of it.
func (a *API) federate(w http.ResponseWriter, r *http.Request) {
	a.expose(w, r, r.Form["match[]"], a.newestSamples)
}

// expose answers, in a format that the client takes, the samples that gather finds for the
// series that the texts select.
func (a *API) expose(w http.ResponseWriter, r *http.Request, texts []string, gather func(context.Context, [][]*labels.Matcher) ([]federated, error)) {
	selectors, err := a.o.Parser.ParseMetricSelectors(texts)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if err := a.o.Actions.Ready(); err != nil {
		w.Header().Set("Retry-After", retryAfterSeconds)
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	samples, err := gather(r.Context(), selectors)
	if err != nil {
		a.metrics.federationErrors.Inc()
		code, known := a.status(err)
		if !known {
			code = http.StatusInternalServerError
		}
		http.Error(w, err.Error(), code)
		return
	}
	format := expfmt.NegotiateAccept(r.Header, expfmt.NewFormat(expfmt.TypeProtoDelim), expfmt.NewFormat(expfmt.TypeProtoText),
		expfmt.NewFormat(expfmt.TypeProtoCompact), expfmt.NewFormat(expfmt.TypeTextPlain))
	w.Header().Set("Content-Type", string(format))
	if err := a.exposeSamples(w, format, samples); err != nil {
		a.metrics.federationErrors.Inc()
	}
}

func (a *API) newestSamples(ctx context.Context, selectors [][]*labels.Matcher) (samples []federated, err error) {
	maxt := a.o.Now().UnixMilli()
	lookbackMillis := a.o.LookbackDelta.Milliseconds()
	hints := &storage.SelectHints{Start: maxt - lookbackMillis, End: maxt}
	q, err := a.o.Storage.Querier(hints.Start, hints.End)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, q.Close()) }()

	sets := make([]storage.SeriesSet, 0, len(selectors))
	for _, s := range selectors {
		sets = append(sets, q.Select(ctx, true, hints, s...))
	}
	set := storage.NewMergeSeriesSet(sets, 0, storage.ChainedSeriesMerge)
	buffer := storage.NewBuffer(lookbackMillis)
	var it chunkenc.Iterator
	for set.Next() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		series := set.At()
		it = series.Iterator(it)
		buffer.Reset(it)
		s, ok := newestSample(buffer, maxt)
		if err := buffer.Err(); err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		s.metric = series.Labels()
		if samples, err = a.appendFederated(samples, s); err != nil {
			return nil, err
		}
	}
	a.metrics.federationWarnings.Add(float64(len(set.Warnings())))
	return samples, set.Err()
}

// appendFederated adds the sample of another series, unless there are too many.
func (a *API) appendFederated(samples []federated, s federated) ([]federated, error) {
	if len(samples) == a.o.Limits.FederateSeries {
		return nil, fmt.Errorf("%w; at most %d are answered", errTooManySeries, a.o.Limits.FederateSeries)
	}
	s.name = s.metric.Get(model.MetricNameLabel)
	return append(samples, s), nil
}

// newestSample returns the last sample up to maxt, unless there is none or it
// ends the series.
func newestSample(it *storage.BufferedSeriesIterator, maxt int64) (s federated, ok bool) {
	switch it.Seek(maxt) {
	case chunkenc.ValFloat:
		s.timeMillis, s.value = it.At()
	case chunkenc.ValHistogram, chunkenc.ValFloatHistogram:
		s.timeMillis, s.histogram = it.AtFloatHistogram(nil)
	default:
		last, ok := it.PeekBack(1)
		if !ok {
			return s, false
		}
		s.timeMillis = last.T()
		switch last.Type() {
		case chunkenc.ValFloat:
			s.value = last.F()
		case chunkenc.ValHistogram:
			s.histogram = last.H().ToFloat(nil)
		case chunkenc.ValFloatHistogram:
			s.histogram = last.FH().Copy()
		default:
			return s, false
		}
	}
	if s.histogram != nil {
		return s, !value.IsStaleNaN(s.histogram.Sum)
	}
	return s, !value.IsStaleNaN(s.value)
}

// exposeSamples writes the samples as families, one at a time.
func (a *API) exposeSamples(w io.Writer, format expfmt.Format, samples []federated) error {
	// The order of labels within one name and kind is the storage's, so the sort
	// must be stable.
	slices.SortStableFunc(samples, func(x, y federated) int {
		return cmp.Or(strings.Compare(x.name, y.name), cmp.Compare(x.kind(), y.kind()))
	})
	native := format.FormatType() != expfmt.TypeTextPlain
	external := federationLabels(a.o.Actions.ExternalLabels())
	enc := expfmt.NewEncoder(w, format)
	var family *dto.MetricFamily
	for i := range samples {
		s := &samples[i]
		if s.name == "" || s.histogram != nil && !s.histogram.UsesCustomBuckets() && !native {
			continue
		}
		if family == nil || family.GetName() != s.name || family.GetType() != s.kind() {
			if family != nil {
				if err := enc.Encode(family); err != nil {
					return err
				}
			}
			family = &dto.MetricFamily{Name: proto.String(s.name), Type: s.kind().Enum()}
		}
		family.Metric = append(family.Metric, s.exposition(external))
	}
	if family == nil {
		return nil
	}
	return enc.Encode(family)
}

// federationLabels returns the external labels with an instance label among them.
func federationLabels(external labels.Labels) labels.Labels {
	if external.Has(model.InstanceLabel) {
		return external
	}
	b := labels.NewScratchBuilder(external.Len() + 1)
	external.Range(func(l labels.Label) { b.Add(l.Name, l.Value) })
	b.Add(model.InstanceLabel, "")
	b.Sort()
	return b.Labels()
}

func (s *federated) exposition(external labels.Labels) *dto.Metric {
	m := &dto.Metric{TimestampMs: proto.Int64(s.timeMillis), Label: make([]*dto.LabelPair, 0, s.metric.Len()+external.Len())}
	add := func(l labels.Label) {
		m.Label = append(m.Label, &dto.LabelPair{Name: proto.String(l.Name), Value: proto.String(l.Value)})
	}
	s.metric.Range(func(l labels.Label) {
		if l.Name != model.MetricNameLabel && l.Value != "" {
			add(l)
		}
	})
	external.Range(func(l labels.Label) {
		if s.metric.Get(l.Name) == "" {
			add(l)
		}
	})
	switch {
	case s.histogram == nil:
		m.Untyped = &dto.Untyped{Value: proto.Float64(s.value)}
	case s.histogram.UsesCustomBuckets():
		m.Histogram = classicHistogram(s.histogram)
	default:
		m.Histogram = nativeHistogram(s.histogram)
	}
	return m
}

// nativeHistogram returns the exposition of a histogram with a standard schema.
func nativeHistogram(h *histogram.FloatHistogram) *dto.Histogram {
	spans := func(in []histogram.Span) (out []*dto.BucketSpan) {
		for _, s := range in {
			out = append(out, &dto.BucketSpan{Offset: proto.Int32(s.Offset), Length: proto.Uint32(s.Length)})
		}
		return out
	}
	return &dto.Histogram{
		SampleCountFloat: proto.Float64(h.Count),
		SampleSum:        proto.Float64(h.Sum),
		Schema:           proto.Int32(h.Schema),
		ZeroThreshold:    proto.Float64(h.ZeroThreshold),
		ZeroCountFloat:   proto.Float64(h.ZeroCount),
		PositiveSpan:     spans(h.PositiveSpans),
		PositiveCount:    h.PositiveBuckets,
		NegativeSpan:     spans(h.NegativeSpans),
		NegativeCount:    h.NegativeBuckets,
	}
}

// classicHistogram returns the exposition of a histogram with custom buckets as
// cumulative ones. The +Inf bucket is left to the encoder, which adds it where a
// format needs it.
func classicHistogram(h *histogram.FloatHistogram) *dto.Histogram {
	out := &dto.Histogram{SampleCountFloat: proto.Float64(h.Count), SampleSum: proto.Float64(h.Sum)}
	counts := make([]float64, len(h.CustomValues)+1)
	for it := h.PositiveBucketIterator(); it.Next(); {
		if b := it.At(); b.Index >= 0 && int(b.Index) < len(counts) {
			counts[b.Index] += b.Count
		}
	}
	cumulative := 0.0
	for i, le := range h.CustomValues {
		cumulative += counts[i]
		out.Bucket = append(out.Bucket, &dto.Bucket{UpperBound: proto.Float64(le), CumulativeCountFloat: proto.Float64(cumulative)})
	}
	return out
}
