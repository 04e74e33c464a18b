package text

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/storage"

	"varve/export"
)

// openMetrics writes OpenMetrics, metric by metric, those of one family together, with what is known of the family before it.
//
// It is what promtool tsdb create-blocks-from openmetrics reads. In one thing it isn't what the specification has: the
// parts of a classic histogram or summary come one after the other and not side by side, and each series has all of its
// times in a row.
func (w *writer) openMetrics(ctx context.Context) (err error) {
	// Series without a name are a metric too.
	metrics, err := w.metrics(ctx)
	if err != nil {
		return err
	}
	whole := w.o.Request
	last := ""
	for i, name := range metrics {
		family, m, known := w.family(name)
		if known && family != last {
			w.describe(family, m)
			last = family
		}
		w.o.Request.Selectors = nil
		for _, ms := range whole.Selectors {
			ms = append(slices.Clone(ms), labels.MustNewMatcher(labels.MatchEqual, model.MetricNameLabel, name))
			w.o.Request.Selectors = append(w.o.Request.Selectors, ms)
		}
		w.o.Walker.Request, w.series = w.o.Request, 0
		report := w.o.Progress
		if report != nil {
			w.o.Progress = func(p Progress) {
				p.Done = (float64(i) + p.Done) / float64(len(metrics))
				report(p)
			}
		}
		err := w.metric(ctx, name)
		w.o.Progress = report
		if err != nil {
			return err
		}
	}
	w.buf = append(w.buf, "# EOF\n"...)
	return w.put()
}

// metrics returns the names of the metrics of the request, those of a family together.
func (w *writer) metrics(ctx context.Context) (names []string, err error) {
	q, err := w.o.Source.Queryable.Querier(w.o.Request.MinMillis, w.o.Request.MaxMillis)
	if err != nil {
		return nil, fmt.Errorf("open storage: %w", err)
	}
	defer func() { err = errors.Join(err, q.Close()) }()
	hints := &storage.SelectHints{Start: w.o.Request.MinMillis, End: w.o.Request.MaxMillis, Func: "series"}
	known := map[string]struct{}{}
	for _, ms := range w.o.Request.Selectors {
		found := q.Select(ctx, true, hints, ms...)
		for found.Next() {
			name := found.At().Labels().Get(model.MetricNameLabel)
			if _, ok := known[name]; !ok {
				known[strings.Clone(name)] = struct{}{}
			}
		}
		if err := found.Err(); err != nil {
			return nil, fmt.Errorf("find metrics: %w", err)
		}
	}
	type named struct{ family, name string }
	var all []named
	for name := range known {
		family, _, _ := w.family(name)
		all = append(all, named{family, name})
	}
	slices.SortFunc(all, func(x, y named) int {
		if c := strings.Compare(x.family, y.family); c != 0 {
			return c
		}
		return strings.Compare(x.name, y.name)
	})
	for _, n := range all {
		names = append(names, n.name)
	}
	return names, nil
}

// suffixes are what the names of metrics have behind that of their family.
var suffixes = map[model.MetricType][]string{
	model.MetricTypeCounter:        {"_total", "_created"},
	model.MetricTypeHistogram:      {"_bucket", "_count", "_sum", "_created"},
	model.MetricTypeGaugeHistogram: {"_bucket", "_gcount", "_gsum"},
	model.MetricTypeSummary:        {"_count", "_sum", "_created", ""},
	model.MetricTypeInfo:           {"_info"},
}

// family finds the family of a metric as OpenMetrics has it, and what is known of it. Where nothing is known, or what is
// known can't be said in OpenMetrics of a metric with this name, the family is the name.
func (w *writer) family(name string) (string, metadata.Metadata, bool) {
	if w.o.Metadata == nil {
		return name, metadata.Metadata{}, false
	}
	if m, ok := w.o.Metadata(name); ok {
		// In Prometheus' older text form, counters and infos carry the suffix in the name of the family.
		for _, suffix := range suffixes[m.Type] {
			if base, has := strings.CutSuffix(name, suffix); has && suffix != "" && base != "" && (m.Type == model.MetricTypeCounter || m.Type == model.MetricTypeInfo) {
				return base, m, true
			}
		}
		if fits(name, name, m.Type) {
			return name, m, true
		}
		m.Type = model.MetricTypeUnknown
		return name, m, true
	}
	for _, kind := range []model.MetricType{model.MetricTypeCounter, model.MetricTypeHistogram, model.MetricTypeGaugeHistogram, model.MetricTypeSummary, model.MetricTypeInfo} {
		for _, suffix := range suffixes[kind] {
			base, has := strings.CutSuffix(name, suffix)
			if !has || suffix == "" || base == "" {
				continue
			}
			if m, ok := w.o.Metadata(base); ok && m.Type == kind {
				return base, m, true
			}
		}
	}
	return name, metadata.Metadata{}, false
}

// fits tells whether a family of a type may have a metric of this name.
func fits(family, name string, kind model.MetricType) bool {
	known, ok := suffixes[kind]
	return !ok || slices.Contains(known, strings.TrimPrefix(name, family))
}

// describe writes what is known of a family.
func (w *writer) describe(family string, m metadata.Metadata) {
	b := w.buf[:0]
	kind := string(m.Type)
	if kind == "" {
		kind = string(model.MetricTypeUnknown)
	}
	b = append(appendName(append(b, "# TYPE "...), family), ' ')
	b = append(append(b, kind...), '\n')
	// OpenMetrics wants the unit at the end of the name.
	if m.Unit != "" && strings.HasSuffix(family, "_"+m.Unit) {
		b = append(appendName(append(b, "# UNIT "...), family), ' ')
		b = append(append(b, m.Unit...), '\n')
	}
	if m.Help != "" {
		b = append(appendName(append(b, "# HELP "...), family), ' ')
		b = append(appendEscaped(b, m.Help), '\n')
	}
	w.buf = b
}

// metric writes the series of one metric.
func (w *writer) metric(ctx context.Context, name string) error {
	if err := w.put(); err != nil {
		return err
	}
	var head []byte
	return w.walk(ctx, nil, nil, func(p *export.Piece) error {
		if p.First {
			head = append(appendSeries(head[:0], name, p.Labels), ' ')
		}
		for {
			t, v, ok := w.next(p.Samples)
			if !ok {
				return p.Samples.Err()
			}
			b := append(w.buf[:0], head...)
			b = append(appendFloat(b, v), ' ')
			w.buf = append(appendOpenMetricsTime(b, t), '\n')
			if err := w.put(); err != nil {
				return err
			}
		}
	})
}

// appendSeries appends name and labels. A name that is no plain one stands among the labels, in quotes, as Prometheus 3
// has it.
func appendSeries(b []byte, name string, ls labels.Labels) []byte {
	plain := model.LegacyValidation.IsValidMetricName(name)
	if plain {
		b = append(b, name...)
	}
	first := true
	separate := func() {
		if first {
			b = append(b, '{')
		} else {
			b = append(b, ',')
		}
		first = false
	}
	if !plain && name != "" {
		separate()
		b = append(appendEscaped(append(b, '"'), name), '"')
	}
	ls.Range(func(l labels.Label) {
		if l.Name == model.MetricNameLabel {
			return
		}
		separate()
		if model.LegacyValidation.IsValidLabelName(l.Name) {
			b = append(b, l.Name...)
		} else {
			b = append(appendEscaped(append(b, '"'), l.Name), '"')
		}
		b = append(appendEscaped(append(b, '=', '"'), l.Value), '"')
	})
	if !first {
		return append(b, '}')
	}
	if name == "" {
		return append(b, '{', '}')
	}
	return b
}

// appendName appends the name of a family.
func appendName(b []byte, name string) []byte {
	if model.LegacyValidation.IsValidMetricName(name) {
		return append(b, name...)
	}
	return append(appendEscaped(append(b, '"'), name), '"')
}

// appendEscaped appends what stands between quotes, or behind HELP.
func appendEscaped(b []byte, s string) []byte {
	for i := range len(s) {
		switch c := s[i]; c {
		case '\\', '"':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		default:
			b = append(b, c)
		}
	}
	return b
}

// appendOpenMetricsTime appends ms as seconds. Prometheus multiplies the float with 1000 and cuts what is behind the point: where that
// would give the ms before, the next float is taken, which is less than a microsecond later.
func appendOpenMetricsTime(b []byte, millis int64) []byte {
	seconds := float64(millis) / 1000
	if int64(seconds*1000) == millis {
		return appendSeconds(b, millis)
	}
	for int64(seconds*1000) < millis {
		seconds = math.Nextafter(seconds, math.Inf(1))
	}
	for int64(seconds*1000) > millis {
		seconds = math.Nextafter(seconds, math.Inf(-1))
	}
	return strconv.AppendFloat(b, seconds, 'f', -1, 64)
}
