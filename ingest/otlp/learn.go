package otlp

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/storage/remote/otlptranslator/prometheusremotewrite"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"varve/arrival"
	"varve/ingest"
)

// memory is what walks know beside the series: what the converter makes of metrics' descriptions and of resources.
// It has two generations, as sums have: what is used moves to the young one, and when that is full the old one goes.
type memory struct {
	mu         sync.Mutex
	young, old map[arrival.Key]remembered
	bytes      int
}

// remembered is the metadata of a metric, or the target_info of a resource.
type remembered struct {
	metadata arrival.Metadata
	// target tells that a resource has a target_info, whose labels hash to this.
	target bool
	labels uint64
}

// memoryBytesMax bounds each generation, rememberedBytes is an entry without its strings.
const (
	memoryBytesMax  = 16 << 20
	rememberedBytes = 128
)

func (m *memory) get(key arrival.Key) (remembered, bool) {
	if r, ok := m.young[key]; ok {
		return r, true
	}
	r, ok := m.old[key]
	if ok {
		m.put(key, r)
	}
	return r, ok
}

func (m *memory) put(key arrival.Key, r remembered) {
	size := rememberedBytes + len(r.metadata.Family) + len(r.metadata.Help) + len(r.metadata.Unit)
	if m.young == nil || m.bytes+size > memoryBytesMax {
		m.old, m.young, m.bytes = m.young, make(map[arrival.Key]remembered), 0
	}
	m.young[key] = r
	m.bytes += size
}

// quick writes a request by a walk. It returns false where that can't be, having written nothing; w is then what the long
// way may learn from, or nil.
func (h *Handler) quick(ctx context.Context, body []byte, d *ingest.Delivery) (a answer, w *walk, done bool) {
	w, _ = h.walks.Get().(*walk)
	if w == nil {
		w = &walk{h: h, families: make(map[string]struct{})}
	}
	if !w.request(body) {
		h.forget(w)
		return answer{}, nil, false
	}
	samples := len(w.batch.Rows)
	if !w.known() {
		w.batch.Rows = w.batch.Rows[:samples]
		return answer{}, w, false
	}
	defer h.forget(w)
	bytes := int64(len(w.batch.Rows)) * walkedBytes
	if !h.limits.InFlight.TryAcquire(bytes) {
		return failed(ingest.ErrOverload), nil, true
	}
	h.meter.Held(bytes)
	defer h.release(bytes)
	if len(w.batch.Rows) == 0 {
		return answer{code: http.StatusOK}, nil, true
	}
	written, err := h.sink.Write(ctx, &w.batch)
	if err != nil {
		return failed(fmt.Errorf("write samples: %w", err)), nil, true
	}
	d.Result().Add(&written)
	return answer{code: http.StatusOK, rejected: min(refusedPoints(&written), w.points), text: d.Refusals()}, nil, true
}

// walkedBytes is what a row with its sample takes in memory.
const walkedBytes = 40 + 8 + 8 + 8

// walkedRowsKept bounds the memory that a walk keeps for the next one.
const walkedRowsKept = 40_000

// forget gives a walk back.
func (h *Handler) forget(w *walk) {
	if cap(w.batch.Rows) > walkedRowsKept {
		return
	}
	w.batch.Reset()
	w.resources, w.metrics, w.points = w.resources[:0], w.metrics[:0], 0
	clear(w.families)
	w.pairing = pairing{}
	h.walks.Put(w)
}

// known adds the samples of target_info and the metadata, and tells whether everything of the request is known.
func (w *walk) known() bool {
	h := w.h
	if h.sink.Lookup(w.batch.Rows) > 0 {
		return false
	}
	samples := len(w.batch.Rows)
	span := uint64(0)
	for i := range w.resources {
		r := &w.resources[i]
		span = max(span, r.last-r.first)
	}
	interval := uint64(max(h.options.LookbackDelta, time.Duration(span)/(targetInfoMax/2)) / 2)
	seen := make(map[targetSample]struct{}, len(w.resources))
	h.memory.mu.Lock()
	defer h.memory.mu.Unlock()
	described := 0
	for i := range w.resources {
		r := &w.resources[i]
		for _, m := range w.metrics[described:r.metrics] {
			was, ok := h.memory.get(m.key)
			if !ok {
				return false
			}
			w.describe(was.metadata)
		}
		described = r.metrics
		if h.options.DisableTargetInfo {
			continue
		}
		was, ok := h.memory.get(r.key)
		if !ok {
			return false
		}
		if was.target {
			w.targetInfo(r, was.labels, interval, seen)
		}
	}
	return h.sink.Lookup(w.batch.Rows[samples:]) == 0
}

// targetSample tells samples of target_info from one another, as the converter does: of equal ones it makes one.
type targetSample struct {
	labels uint64
	millis int64
}

// targetInfo adds the samples of target_info of a resource, whose labels hash to labels: one each interval from its
// first data point on, and one with its last.
func (w *walk) targetInfo(r *walkedResource, labels, interval uint64, seen map[targetSample]struct{}) {
	key := w.sealed(w.begin(keyTargetInfo, &r.key))
	for at := r.first; ; at = min(at+interval, r.last) {
		s := targetSample{labels, int64(at / 1_000_000)}
		if _, was := seen[s]; !was {
			seen[s] = struct{}{}
			w.addSample(key, 0, s.millis, math.Float64bits(1))
			w.describe(targetInfo)
		}
		if at == r.last {
			return
		}
	}
}

// targetInfo is what the converter says of target_info.
var targetInfo = arrival.Metadata{Family: "target_info", Metadata: metadata.Metadata{Type: "gauge", Help: "Target metadata"}}

// describe adds the metadata of a family, the first of each.
func (w *walk) describe(m arrival.Metadata) {
	if _, ok := w.families[m.Family]; !ok {
		w.families[m.Family] = struct{}{}
		w.batch.Metadata = append(w.batch.Metadata, m)
	}
}

// pairing follows what the converter makes of a request that was walked: the same samples in the same order.
type pairing struct {
	row, described int
	unequal        bool
	unknown        []arrival.Unknown
	labelBytes     uint64
	learned        map[arrival.Key]remembered
}

// pair takes note of a sample of the converter.
func (w *walk) pair(ls labels.Labels, st, at int64, v float64, opts *storage.AppendV2Options) {
	if w.unequal || isTargetInfo(*opts) {
		return
	}
	if ls.Get(model.MetricNameLabel) == targetInfo.Family {
		// A metric of that name may be the same series as that of a resource before it in the request, and the later sample wins: a
		// walk adds those of resources at the end. It isn't learned, so that the request always goes the long way.
		w.unequal = true
		return
	}
	b := &w.batch
	k := w.row
	if k >= len(b.Rows) || b.Times[k] != at || b.Values[k] != math.Float64bits(v) || len(b.Starts) > 0 && b.Starts[k] != st || len(b.Starts) == 0 && st != 0 {
		w.unequal = true
		return
	}
	if w.described < len(w.metrics) && w.metrics[w.described].row == k {
		if w.learned == nil {
			w.learned = make(map[arrival.Key]remembered)
		}
		w.learned[w.metrics[w.described].key] = remembered{metadata: arrival.Metadata{Family: opts.MetricFamilyName, Metadata: opts.Metadata}}
		w.described++
	}
	// What is too much to keep is learned from the next request.
	if b.Rows[k].Ref == 0 && w.labelBytes < labelBytesMax {
		w.labelBytes += ls.ByteSize()
		w.unknown = append(w.unknown, arrival.Unknown{Key: b.Rows[k].Key, Labels: ls})
	}
	w.row++
}

// learn remembers what the converter made of a request of which everything was taken.
func (w *walk) learn(ctx context.Context, md pmetric.Metrics) error {
	if w.unequal || w.row != len(w.batch.Rows) || w.described != len(w.metrics) || md.ResourceMetrics().Len() != len(w.resources) {
		return nil
	}
	if !w.h.options.DisableTargetInfo {
		for i := range w.resources {
			if err := w.learnResource(ctx, w.resources[i].key, md.ResourceMetrics().At(i)); err != nil {
				return err
			}
		}
	}
	sets := ingest.NewLabelSets(w.h.limits)
	unknown := w.unknown[:0]
	for _, u := range w.unknown {
		u.Labels.Range(func(l labels.Label) { sets.Add(l.Name, l.Value) })
		ls, err := sets.Series()
		if err != nil {
			return fmt.Errorf("learn: %w", err)
		}
		unknown = append(unknown, arrival.Unknown{Key: u.Key, Labels: ls})
	}
	if err := w.h.sink.Resolve(ctx, unknown); err != nil {
		return fmt.Errorf("learn: %w", err)
	}
	m := &w.h.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	for key, r := range w.learned {
		r.metadata.Family, r.metadata.Help, r.metadata.Unit = strings.Clone(r.metadata.Family), strings.Clone(r.metadata.Help), strings.Clone(r.metadata.Unit)
		m.put(key, r)
	}
	return nil
}

// learnResource has the converter make the target_info of a resource, of a data point of its own, as it tells only for whole
// requests which it left out as seen before.
func (w *walk) learnResource(ctx context.Context, key arrival.Key, rm pmetric.ResourceMetrics) error {
	h := w.h
	h.memory.mu.Lock()
	was, ok := h.memory.get(key)
	h.memory.mu.Unlock()
	target := w.sealed(w.begin(keyTargetInfo, &key))
	if ok && (!was.target || h.sink.Lookup([]arrival.Row{{Key: target}}) == 0) {
		return nil
	}
	md := pmetric.NewMetrics()
	one := md.ResourceMetrics().AppendEmpty()
	rm.Resource().CopyTo(one.Resource())
	m := one.ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
	m.SetName("a")
	m.SetEmptyGauge().DataPoints().AppendEmpty().SetTimestamp(pcommon.Timestamp(1e9))
	var info infoTaker
	if _, err := prometheusremotewrite.NewPrometheusConverter(&info).FromMetrics(ctx, md, h.settings); err != nil {
		return fmt.Errorf("learn: %w", err)
	}
	if info.samples == 2 {
		w.unknown = append(w.unknown, arrival.Unknown{Key: target, Labels: info.labels})
	}
	if w.learned == nil {
		w.learned = make(map[arrival.Key]remembered)
	}
	w.learned[key] = remembered{target: info.samples == 2, labels: info.labels.Hash()}
	return nil
}

// infoTaker keeps the labels of the last sample: of two the second is target_info.
type infoTaker struct {
	storage.AppenderV2
	samples int
	labels  labels.Labels
}

// Append implements storage.AppenderV2.
func (t *infoTaker) Append(_ storage.SeriesRef, ls labels.Labels, _, _ int64, _ float64, _ *histogram.Histogram, _ *histogram.FloatHistogram, _ storage.AppendV2Options) (storage.SeriesRef, error) {
	t.samples++
	t.labels = ls
	return 0, nil
}

// walkEncoding names what decides which labels the same bytes stand for, and whether they are valid.
func walkEncoding(o *Options, l *ingest.Limits) string {
	return fmt.Sprintf("otlp walk %q %q %t %q %t %t %t %t %t %t %d %d %d", o.TranslationStrategy, o.PromoteResourceAttributes, o.PromoteAllResourceAttributes,
		o.IgnoreResourceAttributes, o.KeepIdentifyingResourceAttributes, o.DisableTargetInfo, o.PromoteScopeMetadata, o.TypeAndUnitLabels,
		o.NoLabelNameUnderscoreSanitization, o.SqueezeUnderscores, l.LabelsMax, l.NameBytesMax, l.ValueBytesMax)
}
