package otlp

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/storage/remote/otlptranslator/prometheusremotewrite"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"varve/arrival"
	"varve/ingest"
)

// vetting takes out of a request what upstream's converter would stop at: it
// returns at the first data point of a metric that it can't convert, and all that
// follow would be lost with it. What is left converts without an error, which the
// fuzz targets hold it to.
//
// It also takes out data points without a time or a value. The converter would
// store the first kind in 1970 and give the second kind the value 0.
type vetting struct {
	h *Handler
	d *ingest.Delivery
	// points counts the data points that came, refused those that were taken out.
	points, refused int
	// deltas tells that some are of delta temporality and to be converted.
	deltas bool
	// span is the longest time between two data points of a resource.
	span time.Duration
}

// refuse counts data points under a reason.
func (v *vetting) refuse(reason arrival.Reason, points int, err error) {
	v.refused += points
	v.d.Refuse(reason, max(points, 1), err)
}

// metrics vets a whole request.
func (v *vetting) metrics(md pmetric.Metrics) {
	for _, rm := range md.ResourceMetrics().All() {
		unlabelled := v.resource(rm.Resource().Attributes())
		first, last := pcommon.Timestamp(math.MaxInt64), pcommon.Timestamp(0)
		rm.ScopeMetrics().RemoveIf(func(sm pmetric.ScopeMetrics) bool {
			err := unlabelled
			if err == nil {
				err = v.scope(sm)
			}
			if err != nil {
				v.refuseAll(sm.Metrics(), err)
				return true
			}
			sm.Metrics().RemoveIf(func(m pmetric.Metric) bool { return !v.metric(m, &first, &last) })
			return false
		})
		if last > first {
			v.span = max(v.span, time.Duration(last-first))
		}
	}
}

// refuseAll counts all metrics of a scope that is taken out.
func (v *vetting) refuseAll(metrics pmetric.MetricSlice, err error) {
	for _, m := range metrics.All() {
		points := pointCount(m)
		v.points += points
		v.refuse(arrival.ReasonInvalidLabels, points, err)
	}
}

// resource takes out the attributes of a resource that can't become labels. Those of
// a scope always can: their labels have a prefix. The error says that all series of the
// resource would have labels beyond the limits.
func (v *vetting) resource(attributes pcommon.Map) (unlabelled error) {
	if v.h.options.PromoteAllResourceAttributes && attributes.Len() > v.h.limits.LabelsMax {
		unlabelled = fmt.Errorf("%d attributes of a resource would be labels, at most %d", attributes.Len(), v.h.limits.LabelsMax)
	}
	attributes.RemoveIf(func(name string, value pcommon.Value) bool {
		err := v.labelName(name)
		if err == nil {
			err = v.short(name, value)
			if err != nil && v.inEverySeries(name) {
				unlabelled = err
				return true
			}
		}
		if err != nil {
			v.refuse(arrival.ReasonInvalidLabels, 0, fmt.Errorf("of a resource: %w", err))
		}
		return err != nil
	})
	return unlabelled
}

// inEverySeries says whether an attribute of a resource is in the labels of all its series, and not
// of target_info alone.
func (v *vetting) inEverySeries(name string) bool {
	o := &v.h.options
	switch {
	case name == "service.name", name == "service.namespace", name == "service.instance.id":
		return true
	case o.PromoteAllResourceAttributes:
		return !slices.Contains(o.IgnoreResourceAttributes, name)
	}
	return slices.Contains(o.PromoteResourceAttributes, name)
}

// scope says whether the labels of a scope would be beyond the limits.
func (v *vetting) scope(sm pmetric.ScopeMetrics) error {
	if !v.h.options.PromoteScopeMetadata {
		return nil
	}
	scope, most := sm.Scope(), v.h.limits.ValueBytesMax
	attributes := scope.Attributes()
	if attributes.Len() > v.h.limits.LabelsMax {
		return fmt.Errorf("%d attributes of a scope would be labels, at most %d", attributes.Len(), v.h.limits.LabelsMax)
	}
	if max(len(scope.Name()), len(scope.Version()), len(sm.SchemaUrl())) > most {
		return fmt.Errorf("the name, version or schema URL of a scope has more than %d bytes", most)
	}
	for name, value := range attributes.All() {
		if err := v.short(name, value); err != nil {
			return fmt.Errorf("of a scope: %w", err)
		}
	}
	return nil
}

// short says whether an attribute is within the limits of a label. The converter makes labels of all, for each
// data point anew, and labels.Labels panics or mixes up labels that have more than 16 MiB.
func (v *vetting) short(name string, value pcommon.Value) error {
	bytes := 0
	switch value.Type() {
	case pcommon.ValueTypeStr:
		bytes = len(value.Str())
	case pcommon.ValueTypeMap, pcommon.ValueTypeSlice, pcommon.ValueTypeBytes:
		bytes = len(value.AsString())
	}
	switch {
	case len(name) > v.h.limits.NameBytesMax:
		return fmt.Errorf("the name of attribute %s has %d bytes, at most %d", quoted(name), len(name), v.h.limits.NameBytesMax)
	case bytes > v.h.limits.ValueBytesMax:
		return fmt.Errorf("the value of attribute %s has %d bytes, at most %d", quoted(name), bytes, v.h.limits.ValueBytesMax)
	}
	return nil
}

// labelName says whether a name can become one of a label. Only names of few letters
// and digits need a closer look: those of none, and those that would take the place
// of the metric's name. The converter lets that win, and writes a line to standard
// error for every data point.
func (v *vetting) labelName(name string) error {
	const reserved = "name" // the letters of model.MetricNameLabel
	letters := 0
	for i := range len(name) {
		if c := name[i]; c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' {
			if letters == len(reserved) || c != reserved[letters] {
				return nil
			}
			letters++
		}
	}
	built, err := v.h.labelNamer.Build(name)
	if err != nil {
		return fmt.Errorf("attribute %s has no name that a label could have", quoted(name))
	}
	if built == model.MetricNameLabel {
		return fmt.Errorf("attribute %s would become the metric's name", quoted(name))
	}
	return nil
}

// The errors of metrics and data points, without the name of the metric.
var (
	errNoData      = errors.New("no data of a kind that is known")
	errTemporality = errors.New("the aggregation temporality is not given")
	errDelta       = errors.New("delta temporality is not accepted: export cumulative values")
	errNoTime      = errors.New("a data point without a time")
	errNoValue     = errors.New("a data point without a value")
	errExemplar    = errors.New("an exemplar without a value, with an impossible time or too long a label")
	errScale       = fmt.Errorf("%w: a scale below %d", ingest.ErrInvalidHistogram, histogram.ExponentialSchemaMin)
	errBuckets     = fmt.Errorf("%w: too many buckets, bounds or quantiles", ingest.ErrInvalidHistogram)
)

// metric vets one metric and returns whether anything is left of it. It widens the
// range from first to last by the times of what is left.
func (v *vetting) metric(m pmetric.Metric, first, last *pcommon.Timestamp) bool {
	points := pointCount(m)
	v.points += points
	if err := v.whole(m); err != nil {
		v.refuse(arrival.ReasonInvalidSeries, points, fmt.Errorf("metric %s: %w", quoted(m.Name()), err))
		return false
	}
	take := func(at pcommon.Timestamp, reason arrival.Reason, err error) bool {
		if err != nil {
			v.refuse(reason, 1, fmt.Errorf("metric %s: %w", quoted(m.Name()), err))
			return false
		}
		*first, *last = min(*first, at), max(*last, at)
		return true
	}
	switch m.Type() {
	case pmetric.MetricTypeGauge:
		m.Gauge().DataPoints().RemoveIf(func(p pmetric.NumberDataPoint) bool { return !take(v.number(p, false)) })
	case pmetric.MetricTypeSum:
		m.Sum().DataPoints().RemoveIf(func(p pmetric.NumberDataPoint) bool { return !take(v.number(p, true)) })
	case pmetric.MetricTypeHistogram:
		m.Histogram().DataPoints().RemoveIf(func(p pmetric.HistogramDataPoint) bool { return !take(v.classic(p)) })
	case pmetric.MetricTypeExponentialHistogram:
		m.ExponentialHistogram().DataPoints().RemoveIf(func(p pmetric.ExponentialHistogramDataPoint) bool { return !take(v.exponential(p)) })
	case pmetric.MetricTypeSummary:
		m.Summary().DataPoints().RemoveIf(func(p pmetric.SummaryDataPoint) bool { return !take(v.summary(p)) })
	}
	return pointCount(m) > 0
}

// whole says what is wrong with a metric as a whole.
func (v *vetting) whole(m pmetric.Metric) error {
	if m.Type() == pmetric.MetricTypeEmpty {
		return errNoData
	}
	if most := v.h.limits.ValueBytesMax; max(len(m.Name()), len(m.Unit())) > most {
		return fmt.Errorf("its name or unit has more than %d bytes", most)
	}
	switch temporality, has := temporalityOf(m); {
	case !has, temporality == pmetric.AggregationTemporalityCumulative:
	case temporality != pmetric.AggregationTemporalityDelta:
		return errTemporality
	case v.h.options.Delta == DeltaRefuse:
		return errDelta
	case v.h.options.Delta == DeltaConvert:
		v.deltas = true
	}
	if _, err := v.h.metricNamer.Build(prometheusremotewrite.TranslatorMetricFromOtelMetric(m)); err != nil {
		return errors.New("its name has no character that a metric's name could have")
	}
	return nil
}

// number vets a data point and returns its time.
func (v *vetting) number(p pmetric.NumberDataPoint, withExemplars bool) (pcommon.Timestamp, arrival.Reason, error) {
	if p.ValueType() == pmetric.NumberDataPointValueTypeEmpty && !p.Flags().NoRecordedValue() {
		return 0, arrival.ReasonInvalidValue, errNoValue
	}
	if withExemplars {
		v.exemplars(p.Exemplars())
	}
	return v.point(p)
}

func (v *vetting) classic(p pmetric.HistogramDataPoint) (pcommon.Timestamp, arrival.Reason, error) {
	if max(p.BucketCounts().Len(), p.ExplicitBounds().Len()) > v.h.limits.BucketsMax {
		return 0, arrival.ReasonInvalidHistogram, errBuckets
	}
	v.exemplars(p.Exemplars())
	return v.point(p)
}

func (v *vetting) exponential(p pmetric.ExponentialHistogramDataPoint) (pcommon.Timestamp, arrival.Reason, error) {
	switch {
	case p.Scale() < histogram.ExponentialSchemaMin:
		return 0, arrival.ReasonInvalidHistogram, errScale
	case max(p.Positive().BucketCounts().Len(), p.Negative().BucketCounts().Len()) > v.h.limits.BucketsMax:
		return 0, arrival.ReasonInvalidHistogram, errBuckets
	}
	v.exemplars(p.Exemplars())
	return v.point(p)
}

func (v *vetting) summary(p pmetric.SummaryDataPoint) (pcommon.Timestamp, arrival.Reason, error) {
	if p.QuantileValues().Len() > v.h.limits.BucketsMax {
		return 0, arrival.ReasonInvalidHistogram, errBuckets
	}
	return v.point(p)
}

// point vets what all data points have.
func (v *vetting) point(p interface {
	Timestamp() pcommon.Timestamp
	StartTimestamp() pcommon.Timestamp
	SetStartTimestamp(pcommon.Timestamp)
	Attributes() pcommon.Map
}) (pcommon.Timestamp, arrival.Reason, error) {
	at := p.Timestamp()
	if at == 0 || at > math.MaxInt64 {
		return 0, arrival.ReasonInvalidSeries, errNoTime
	}
	if p.StartTimestamp() > math.MaxInt64 {
		p.SetStartTimestamp(0)
	}
	for name, value := range p.Attributes().All() {
		err := v.short(name, value)
		if err == nil && !v.h.settings.AllowUTF8 && name != model.MetricNameLabel { // which the converter leaves out
			err = v.labelName(name)
		}
		if err != nil {
			return 0, arrival.ReasonInvalidLabels, err
		}
	}
	return at, arrival.ReasonNone, nil
}

// exemplars takes out those that have no value or no possible time.
func (v *vetting) exemplars(es pmetric.ExemplarSlice) {
	if es.Len() == 0 {
		return
	}
	es.RemoveIf(func(e pmetric.Exemplar) bool {
		bad := e.ValueType() == pmetric.ExemplarValueTypeEmpty || e.Timestamp() > math.MaxInt64
		for name, value := range e.FilteredAttributes().All() {
			bad = bad || v.short(name, value) != nil
		}
		if bad {
			v.refuse(arrival.ReasonInvalidExemplar, 0, errExemplar)
		}
		return bad
	})
}

func temporalityOf(m pmetric.Metric) (temporality pmetric.AggregationTemporality, has bool) {
	switch m.Type() {
	case pmetric.MetricTypeSum:
		return m.Sum().AggregationTemporality(), true
	case pmetric.MetricTypeHistogram:
		return m.Histogram().AggregationTemporality(), true
	case pmetric.MetricTypeExponentialHistogram:
		return m.ExponentialHistogram().AggregationTemporality(), true
	}
	return 0, false
}

func setCumulative(m pmetric.Metric) {
	switch m.Type() {
	case pmetric.MetricTypeSum:
		m.Sum().SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	case pmetric.MetricTypeHistogram:
		m.Histogram().SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	case pmetric.MetricTypeExponentialHistogram:
		m.ExponentialHistogram().SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	}
}

func pointCount(m pmetric.Metric) int {
	switch m.Type() {
	case pmetric.MetricTypeGauge:
		return m.Gauge().DataPoints().Len()
	case pmetric.MetricTypeSum:
		return m.Sum().DataPoints().Len()
	case pmetric.MetricTypeHistogram:
		return m.Histogram().DataPoints().Len()
	case pmetric.MetricTypeExponentialHistogram:
		return m.ExponentialHistogram().DataPoints().Len()
	case pmetric.MetricTypeSummary:
		return m.Summary().DataPoints().Len()
	}
	return 0
}

// splitDeltas moves the metrics of delta temporality out of md, with copies of their
// resources and scopes, and calls them cumulative, which they will be.
func splitDeltas(md pmetric.Metrics) pmetric.Metrics {
	deltas := pmetric.NewMetrics()
	for _, rm := range md.ResourceMetrics().All() {
		var toResource pmetric.ResourceMetrics
		anyOfResource := false
		for _, sm := range rm.ScopeMetrics().All() {
			var toScope pmetric.ScopeMetrics
			anyOfScope := false
			sm.Metrics().RemoveIf(func(m pmetric.Metric) bool {
				if temporality, has := temporalityOf(m); !has || temporality != pmetric.AggregationTemporalityDelta {
					return false
				}
				if !anyOfResource {
					toResource = deltas.ResourceMetrics().AppendEmpty()
					rm.Resource().CopyTo(toResource.Resource())
					toResource.SetSchemaUrl(rm.SchemaUrl())
					anyOfResource = true
				}
				if !anyOfScope {
					toScope = toResource.ScopeMetrics().AppendEmpty()
					sm.Scope().CopyTo(toScope.Scope())
					toScope.SetSchemaUrl(sm.SchemaUrl())
					anyOfScope = true
				}
				setCumulative(m)
				m.MoveTo(toScope.Metrics().AppendEmpty())
				return true
			})
		}
	}
	return deltas
}

// quotedBytes keeps one hostile string from filling the text of an answer.
const quotedBytes = 48

func quoted(s string) string {
	if len(s) > quotedBytes {
		return strconv.QuoteToASCII(s[:quotedBytes]) + "..."
	}
	return strconv.QuoteToASCII(s)
}
