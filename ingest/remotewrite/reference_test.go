package remotewrite_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"

	"varve/arrival"
	"varve/ingest"
	"varve/ingest/ingesttest"
)

// reference says what a receiver has to store of a message that upstream's
// generated code decoded. It is written from the protocols and the limits, with
// upstream's own conversions and checks, and shares nothing with the decoder.
type reference struct {
	limits   ingest.Limits
	written  map[string]ingesttest.Series
	families map[string]metadata.Metadata
	// refused says that something has to be refused, so that the answer is 400.
	refused bool
}

func newReference() *reference {
	return &reference{
		limits:   ingest.Limits{}.WithDefaults(),
		written:  make(map[string]ingesttest.Series),
		families: make(map[string]metadata.Metadata),
	}
}

// pairs are label pairs as sent.
type pairs []labels.Label

// set returns the label set of the pairs, and whether it keeps the rules of all sets.
func (r *reference) set(p pairs) (labels.Labels, bool) {
	b := labels.NewScratchBuilder(len(p))
	ok := len(p) <= r.limits.LabelsMax
	for _, l := range p {
		b.Add(l.Name, l.Value)
		ok = ok && len(l.Name) <= r.limits.NameBytesMax && len(l.Value) <= r.limits.ValueBytesMax && l.Name != "" && utf8.ValidString(l.Name) && utf8.ValidString(l.Value)
	}
	if !ok {
		return labels.EmptyLabels(), false
	}
	b.Sort()
	ls := b.Labels()
	if _, twice := ls.HasDuplicateLabelNames(); twice {
		return labels.EmptyLabels(), false
	}
	return ls.WithoutEmpty(), true
}

func (r *reference) seriesSet(p pairs) (labels.Labels, bool) {
	ls, ok := r.set(p)
	return ls, ok && ls.Get(model.MetricNameLabel) != "" && ls.IsValid(model.UTF8Validation)
}

func (r *reference) exemplarSet(p pairs) (labels.Labels, bool) {
	ls, ok := r.set(p)
	chars := 0
	for _, l := range p {
		chars += utf8.RuneCountInString(l.Name) + utf8.RuneCountInString(l.Value)
	}
	return ls, ok && chars <= r.limits.ExemplarCharsMax
}

// series is a series message in the form both protocols share.
type seriesMessage struct {
	labels     pairs
	broken     bool // references of 2.0
	samples    []ingesttest.Sample
	histograms []arrival.Histogram
	exemplars  []exemplarMessage
}

type exemplarMessage struct {
	labels pairs
	broken bool
	value  float64
	millis int64
}

// add stores what is valid of the message and reports whether its series is.
func (r *reference) add(m *seriesMessage) bool {
	var s ingesttest.Series
	s.Samples = m.samples
	for _, h := range m.histograms {
		if checkHistogram(r.limits, &h) {
			s.Histograms = append(s.Histograms, h)
		} else {
			r.refused = true
		}
	}
	for _, e := range m.exemplars {
		ls, ok := r.exemplarSet(e.labels)
		out := exemplar.Exemplar{Labels: ls, Value: e.value, Ts: e.millis, HasTs: e.millis != 0}
		switch {
		case e.millis != 0:
		case len(s.Samples) > 0:
			out.Ts = s.Samples[len(s.Samples)-1].TimeMillis
		case len(s.Histograms) > 0:
			out.Ts = s.Histograms[len(s.Histograms)-1].TimeMillis
		default:
			ok = false
		}
		if !ok || e.broken {
			r.refused = true
			continue
		}
		s.Exemplars = append(s.Exemplars, out)
	}
	ls, ok := r.seriesSet(m.labels)
	if !ok || m.broken {
		r.refused = true
		return false
	}
	if len(s.Samples)+len(s.Histograms)+len(s.Exemplars) > 0 {
		was := r.written[ls.String()]
		was.Samples = append(was.Samples, s.Samples...)
		was.Histograms = append(was.Histograms, s.Histograms...)
		was.Exemplars = append(was.Exemplars, s.Exemplars...)
		r.written[ls.String()] = was
	}
	return true
}

func checkHistogram(l ingest.Limits, h *arrival.Histogram) bool {
	if h.Int != nil {
		if max(len(h.Int.PositiveBuckets), len(h.Int.NegativeBuckets), len(h.Int.PositiveSpans), len(h.Int.NegativeSpans), len(h.Int.CustomValues)) > l.BucketsMax {
			return false
		}
		if s := h.Int.Schema; s > histogram.ExponentialSchemaMax && s <= histogram.ExponentialSchemaMaxReserved && h.Int.ReduceResolution(histogram.ExponentialSchemaMax) != nil {
			return false
		}
		return h.Int.Validate() == nil
	}
	if max(len(h.Float.PositiveBuckets), len(h.Float.NegativeBuckets), len(h.Float.PositiveSpans), len(h.Float.NegativeSpans), len(h.Float.CustomValues)) > l.BucketsMax {
		return false
	}
	if s := h.Float.Schema; s > histogram.ExponentialSchemaMax && s <= histogram.ExponentialSchemaMaxReserved && h.Float.ReduceResolution(histogram.ExponentialSchemaMax) != nil {
		return false
	}
	return h.Float.Validate() == nil
}

func (r *reference) family(name string, m metadata.Metadata) {
	if name == "" || !utf8.ValidString(name) || !utf8.ValidString(m.Help) || !utf8.ValidString(m.Unit) || max(len(name), len(m.Help), len(m.Unit)) > r.limits.ValueBytesMax {
		r.refused = true
		return
	}
	r.families[name] = m
}

// request1 adds a request of 1.0.
func (r *reference) request1(req *prompb.WriteRequest) {
	for _, ts := range req.Timeseries {
		var m seriesMessage
		m.labels = pairs1(ts.Labels)
		for _, s := range ts.Samples {
			m.samples = append(m.samples, ingesttest.Sample{TimeMillis: s.Timestamp, Bits: math.Float64bits(s.Value)})
		}
		for _, e := range ts.Exemplars {
			m.exemplars = append(m.exemplars, exemplarMessage{labels: pairs1(e.Labels), value: e.Value, millis: e.Timestamp})
		}
		for _, h := range ts.Histograms {
			m.histograms = append(m.histograms, withHint(arrival.Histogram{TimeMillis: h.Timestamp, Int: h.ToIntHistogram(), Float: floatOf(h.IsFloatHistogram(), h.ToFloatHistogram())}, int32(h.ResetHint)))
		}
		r.add(&m)
	}
	for _, m := range req.Metadata {
		r.family(m.MetricFamilyName, metadata.Metadata{Type: metricType(int32(m.Type)), Help: m.Help, Unit: m.Unit})
	}
}

func pairs1(in []prompb.Label) pairs {
	var out pairs
	for _, l := range in {
		out = append(out, labels.Label{Name: l.Name, Value: l.Value})
	}
	return out
}

// request2 adds a request of 2.0.
func (r *reference) request2(req *writev2.Request) {
	bad := len(req.Symbols) == 0 || req.Symbols[0] != ""
	for _, ts := range req.Timeseries {
		if bad {
			r.refused = true
			continue
		}
		r.series2(req.Symbols, &ts)
	}
}

func (r *reference) series2(symbols []string, ts *writev2.TimeSeries) {
	var m seriesMessage
	m.labels, m.broken = pairs2(ts.LabelsRefs, symbols)
	n := uint32(len(symbols))
	if ts.Metadata.HelpRef >= n || ts.Metadata.UnitRef >= n {
		m.broken = true
	}
	for _, s := range ts.Samples {
		m.samples = append(m.samples, ingesttest.Sample{TimeMillis: s.Timestamp, StartMillis: s.StartTimestamp, Bits: math.Float64bits(s.Value)})
	}
	for _, e := range ts.Exemplars {
		x := exemplarMessage{value: e.Value, millis: e.Timestamp}
		x.labels, x.broken = pairs2(e.LabelsRefs, symbols)
		m.exemplars = append(m.exemplars, x)
	}
	for _, h := range ts.Histograms {
		m.histograms = append(m.histograms, withHint(arrival.Histogram{TimeMillis: h.Timestamp, StartMillis: h.StartTimestamp, Int: h.ToIntHistogram(), Float: floatOf(h.IsFloatHistogram(), h.ToFloatHistogram())}, int32(h.ResetHint)))
	}
	if len(ts.Samples) > 0 && len(ts.Histograms) > 0 {
		r.refused = true
		return
	}
	if !r.add(&m) {
		return
	}
	md := metadata.Metadata{Type: metricType(int32(ts.Metadata.Type)), Help: symbols[ts.Metadata.HelpRef], Unit: symbols[ts.Metadata.UnitRef]}
	named := md.Type != model.MetricTypeUnknown || ts.Metadata.HelpRef != 0 || ts.Metadata.UnitRef != 0
	if !named {
		if len(ts.Samples)+len(ts.Histograms)+len(ts.Exemplars) == 0 {
			r.refused = true
		}
		return
	}
	name := ""
	for _, l := range m.labels {
		if l.Name == model.MetricNameLabel {
			name = l.Value
		}
	}
	if len(ts.Histograms) == 0 {
		name = familyOf(name, md.Type)
	}
	if len(ts.Samples)+len(ts.Histograms)+len(ts.Exemplars) == 0 || r.kept(&m) {
		r.family(name, md)
	}
}

// kept says whether anything of a valid series message is stored.
func (r *reference) kept(m *seriesMessage) bool {
	probe := newReference()
	probe.add(m)
	return len(probe.written) > 0
}

func familyOf(name string, t model.MetricType) string {
	for _, suffix := range map[model.MetricType][]string{
		model.MetricTypeHistogram:      {"_bucket", "_count", "_sum"},
		model.MetricTypeGaugeHistogram: {"_bucket", "_gcount", "_gsum"},
		model.MetricTypeSummary:        {"_count", "_sum"},
	}[t] {
		if base := strings.TrimSuffix(name, suffix); base != name && base != "" {
			return base
		}
	}
	return name
}

func pairs2(refs []uint32, symbols []string) (out pairs, broken bool) {
	if len(refs)%2 != 0 {
		return nil, true
	}
	for i := 0; i < len(refs); i += 2 {
		if int(refs[i]) >= len(symbols) || int(refs[i+1]) >= len(symbols) {
			return nil, true
		}
		out = append(out, labels.Label{Name: symbols[refs[i]], Value: symbols[refs[i+1]]})
	}
	return out, false
}

func floatOf(is bool, h *histogram.FloatHistogram) *histogram.FloatHistogram {
	if is {
		return h
	}
	return nil
}

// withHint takes a reset hint that the enumeration has no name for as none.
func withHint(h arrival.Histogram, hint int32) arrival.Histogram {
	known := histogram.UnknownCounterReset
	if hint >= 0 && hint <= 3 {
		known = histogram.CounterResetHint(hint)
	}
	if h.Int != nil {
		h.Int.CounterResetHint = known
	} else {
		h.Float.CounterResetHint = known
	}
	return h
}

func metricType(n int32) model.MetricType {
	names := []model.MetricType{"unknown", "counter", "gauge", "histogram", "gaugehistogram", "summary", "info", "stateset"}
	if n < 0 || int(n) >= len(names) {
		return "unknown"
	}
	return names[n]
}

// dump writes what is stored as text, floats as their bits, so that it can be
// compared with NaN in it.
func dump(written map[string]ingesttest.Series, families map[string]metadata.Metadata) string {
	var lines []string
	for name, s := range written {
		var b strings.Builder
		fmt.Fprintf(&b, "series %s\n", name)
		for _, v := range s.Samples {
			fmt.Fprintf(&b, "  sample %d %d %x\n", v.TimeMillis, v.StartMillis, v.Bits)
		}
		for _, h := range s.Histograms {
			fmt.Fprintf(&b, "  histogram %d %d %s\n", h.TimeMillis, h.StartMillis, dumpHistogram(h))
		}
		for _, e := range s.Exemplars {
			fmt.Fprintf(&b, "  exemplar %s %x %d %t\n", e.Labels, math.Float64bits(e.Value), e.Ts, e.HasTs)
		}
		lines = append(lines, b.String())
	}
	for name, m := range families {
		lines = append(lines, fmt.Sprintf("family %q %s %q %q\n", name, m.Type, m.Help, m.Unit))
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

func dumpHistogram(h arrival.Histogram) string {
	if i := h.Int; i != nil {
		return fmt.Sprintf("int %d %d %x %d %d %x %v %v %v %v %x", i.CounterResetHint, i.Schema, math.Float64bits(i.ZeroThreshold), i.ZeroCount, i.Count,
			math.Float64bits(i.Sum), spans(i.PositiveSpans), spans(i.NegativeSpans), slices.Clip(i.PositiveBuckets), i.NegativeBuckets, bits(i.CustomValues))
	}
	f := h.Float
	return fmt.Sprintf("float %d %d %x %x %x %x %v %v %x %x %x", f.CounterResetHint, f.Schema, math.Float64bits(f.ZeroThreshold), math.Float64bits(f.ZeroCount),
		math.Float64bits(f.Count), math.Float64bits(f.Sum), spans(f.PositiveSpans), spans(f.NegativeSpans), bits(f.PositiveBuckets), bits(f.NegativeBuckets), bits(f.CustomValues))
}

func spans(in []histogram.Span) []histogram.Span { return append([]histogram.Span{}, in...) }

func bits(in []float64) []uint64 {
	out := []uint64{}
	for _, v := range in {
		out = append(out, math.Float64bits(v))
	}
	return out
}
