package writerequest_test

import (
	"fmt"
	"math"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/model/value"
	"pgregory.net/rapid"

	"varve/forward"
	_ "varve/internal/testkit/draws"
)

// drawn is where random batches come from.
type drawn struct{ *rapid.T }

func (d drawn) pick(n int) int { return rapid.IntRange(0, n-1).Draw(d.T, "pick") }

func (d drawn) float() float64 {
	return rapid.OneOf(
		rapid.SampledFrom([]float64{0, 1, math.NaN(), math.Inf(1), math.Inf(-1), math.Copysign(0, -1), math.Float64frombits(value.StaleNaN), math.Float64frombits(0x7ff8_0000_dead_beef)}),
		rapid.Float64(),
	).Draw(d.T, "float")
}

func (d drawn) millis() int64 {
	return rapid.OneOf(
		rapid.Int64Range(1_600_000_000_000, 1_800_000_000_000),
		rapid.SampledFrom([]int64{0, 1, -1, math.MinInt64, math.MaxInt64, 1 << 35}),
	).Draw(d.T, "millis")
}

func (d drawn) text() string {
	long := rapid.Custom(func(t *rapid.T) string {
		return string(make([]byte, rapid.IntRange(100, 20000).Draw(t, "length")))
	})
	return rapid.OneOf(rapid.SampledFrom([]string{"a", "b", "é", "\n", "job"}), rapid.StringN(1, 20, -1), long).Draw(d.T, "text")
}

func (d drawn) labels() labels.Labels {
	b := labels.NewBuilder(labels.EmptyLabels())
	b.Set(model.MetricNameLabel, fmt.Sprintf("metric_%d", d.pick(5)))
	for range d.pick(8) {
		b.Set(d.text(), d.text())
	}
	return b.Labels()
}

func (d drawn) spans(n int) (spans []histogram.Span) {
	for n > 0 {
		length := 1 + d.pick(n)
		spans = append(spans, histogram.Span{Offset: int32(d.pick(2000) - 1000), Length: uint32(length)})
		n -= length
	}
	return spans
}

func (d drawn) floats(n int) (out []float64) {
	for range n {
		out = append(out, d.float())
	}
	return out
}

func (d drawn) histogram() forward.Histogram {
	h := forward.Histogram{TimeMillis: d.millis(), StartMillis: d.millis()}
	schema, bounds := int32(d.pick(13)-4), []float64(nil)
	if d.pick(3) == 0 {
		schema, bounds = -53, d.floats(d.pick(30))
	}
	positive, negative := d.pick(60), d.pick(4)
	hint := histogram.CounterResetHint(d.pick(4))
	if d.pick(2) == 0 {
		h.Float = &histogram.FloatHistogram{
			CounterResetHint: hint, Schema: schema, ZeroThreshold: d.float(), ZeroCount: d.float(), Count: d.float(), Sum: d.float(),
			PositiveSpans: d.spans(positive), NegativeSpans: d.spans(negative),
			PositiveBuckets: d.floats(positive), NegativeBuckets: d.floats(negative), CustomValues: bounds,
		}
		return h
	}
	deltas := rapid.OneOf(rapid.Int64Range(-5, 5), rapid.Int64())
	draw := func(n int) (out []int64) {
		for range n {
			out = append(out, deltas.Draw(d.T, "delta"))
		}
		return out
	}
	counts := rapid.OneOf(rapid.Uint64Range(0, 3), rapid.Uint64())
	h.Int = &histogram.Histogram{
		CounterResetHint: hint, Schema: schema, ZeroThreshold: d.float(), ZeroCount: counts.Draw(d.T, "zero"), Count: counts.Draw(d.T, "count"), Sum: d.float(),
		PositiveSpans: d.spans(positive), NegativeSpans: d.spans(negative),
		PositiveBuckets: draw(positive), NegativeBuckets: draw(negative), CustomValues: bounds,
	}
	return h
}

func (d drawn) exemplar() exemplar.Exemplar {
	e := exemplar.Exemplar{Labels: labels.FromStrings("trace_id", d.text()), Value: d.float(), Ts: d.millis()}
	e.HasTs = e.Ts != 0
	if d.pick(4) == 0 {
		e.Labels = labels.EmptyLabels()
	}
	return e
}

func (d drawn) metadata() metadata.Metadata {
	types := []model.MetricType{
		"", model.MetricTypeUnknown, model.MetricTypeCounter, model.MetricTypeGauge, model.MetricTypeHistogram, model.MetricTypeGaugeHistogram,
		model.MetricTypeSummary, model.MetricTypeInfo, model.MetricTypeStateset,
	}
	m := metadata.Metadata{Type: types[d.pick(len(types))]}
	if d.pick(2) == 0 {
		m.Help, m.Unit = d.text(), d.text()
	}
	return m
}

// series draws a series with a sample or an exemplar at least. Times need not ascend for an encoder.
func (d drawn) series() forward.Series {
	s := forward.Series{Target: &forward.Target{Labels: d.labels()}, Metadata: d.metadata()}
	for range []int{1, 1, 2, 0, 12}[d.pick(5)] {
		s.Floats = append(s.Floats, forward.Float{TimeMillis: d.millis(), StartMillis: d.millis(), Value: d.float()})
	}
	for range []int{0, 0, 1, 3}[d.pick(4)] {
		s.Histograms = append(s.Histograms, d.histogram())
	}
	for range []int{0, 0, 1, 2}[d.pick(4)] {
		s.Exemplars = append(s.Exemplars, d.exemplar())
	}
	if s.Samples() == 0 && len(s.Exemplars) == 0 {
		s.Exemplars = append(s.Exemplars, d.exemplar())
	}
	return s
}

func (d drawn) batch() *forward.Batch {
	b := &forward.Batch{}
	for range d.pick(12) {
		b.Series = append(b.Series, d.series())
	}
	for range d.pick(4) {
		b.Families = append(b.Families, forward.FamilyMetadata{Family: d.text(), Metadata: d.metadata()})
	}
	return b
}
