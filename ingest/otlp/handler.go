// Package otlp receives metrics over OTLP/HTTP.
//
// Handler is for POST on /v1/metrics, under whatever prefix: Prometheus has it at
// /api/v1/otlp/v1/metrics. It takes protobuf and JSON, plain or compressed with gzip
// or zstd, and answers in the request's encoding, as the protocol has it:
//
//   - 200 with an ExportMetricsServiceResponse when everything is on disk that can
//     be. Data points that were refused are counted in its partial_success, with
//     reasons and examples. Exporters never send them again.
//   - 400, 413 and 415 with a google.rpc.Status when nothing of the body was read.
//   - 429 and 503 with Retry-After for what is not the sender's fault.
//
// The translation to series is upstream's converter, so that a series has the name
// and the labels here that it has in Prometheus.
//
// The steps, where a walk (see there) can't write the series of a request straight from its bytes:
//
//  1. measure: the body is walked before it is decoded, since a small one can need
//     much memory. What it needs is taken from the budget of all requests.
//  2. decode: by pdata, the collector's own.
//  3. vet: what the converter would stop at is taken out, counted and named.
//  4. store: the converter hands samples to a taker, which writes them. Deltas are
//     added up on the way (sums).
//
// Sums are in memory. After a restart the cumulative series of deltas begin again,
// with a later start timestamp, which is a reset of the counter: rate and increase
// lose nothing by it.
//
// A Handler is safe for use by several goroutines, and starts none.
package otlp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"mime"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/otlptranslator"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/storage/remote/otlptranslator/prometheusremotewrite"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"

	"varve/arrival"
	"varve/ingest"
)

// Delta says what becomes of sums and histograms of delta temporality.
type Delta uint8

const (
	// DeltaConvert adds them up to cumulative ones.
	DeltaConvert Delta = iota
	// DeltaRefuse refuses them.
	DeltaRefuse
	// DeltaKeep stores them as they are, with the type unknown, as Prometheus does with
	// its feature otlp-native-delta-ingestion.
	DeltaKeep
)

// Options are the rules of translation. The zero Options are Prometheus' defaults,
// except that deltas are converted. The names are those of the otlp section in its
// configuration.
type Options struct {
	// TranslationStrategy is UnderscoreEscapingWithSuffixes (the default),
	// UnderscoreEscapingWithoutSuffixes, NoUTF8EscapingWithSuffixes or NoTranslation.
	TranslationStrategy string
	// PromoteResourceAttributes become labels of every series of the resource. With
	// PromoteAllResourceAttributes all do but IgnoreResourceAttributes.
	PromoteResourceAttributes    []string
	PromoteAllResourceAttributes bool
	IgnoreResourceAttributes     []string
	// KeepIdentifyingResourceAttributes leaves service.name, service.namespace and
	// service.instance.id in target_info, beside job and instance.
	KeepIdentifyingResourceAttributes bool
	// DisableTargetInfo leaves target_info out.
	DisableTargetInfo bool
	// ConvertHistogramsToNHCB stores histograms with explicit bounds as native ones.
	ConvertHistogramsToNHCB bool
	// PromoteScopeMetadata makes labels of the scope's name, version, schema URL and
	// attributes.
	PromoteScopeMetadata bool
	// TypeAndUnitLabels adds __type__ and __unit__.
	TypeAndUnitLabels bool
	// NoLabelNameUnderscoreSanitization leaves names of labels that begin with an
	// underscore as they are: with a strategy that escapes, they get the prefix key
	// otherwise.
	NoLabelNameUnderscoreSanitization bool
	// SqueezeUnderscores makes one underscore of several in names of labels.
	SqueezeUnderscores bool
	// Delta is for delta temporality. DeltaStateBytesMax bounds the sums that
	// DeltaConvert holds; zero means 64 MiB, enough for some 250 000 series of floats.
	Delta              Delta
	DeltaStateBytesMax int64
	// FutureMax is how far ahead of the clock a delta may end that is added up: what the archive
	// takes. Zero means 10 minutes, which is its default.
	FutureMax time.Duration
	// LookbackDelta is how far a query looks back for a sample: target_info gets one
	// each half of it. Zero means 5 minutes.
	LookbackDelta time.Duration
}

// deltaStateBytesMax is the default of Options.DeltaStateBytesMax.
const deltaStateBytesMax = 64 << 20

// defaultFutureMax is the archive's.
const defaultFutureMax = 10 * time.Minute

// defaultLookbackDelta is upstream's default of its flag query.lookback-delta.
const defaultLookbackDelta = 5 * time.Minute

// Handler is the OTLP endpoint for metrics.
type Handler struct {
	port       *ingest.Port
	sink       ingest.Sink
	limits     ingest.Limits
	meter      *ingest.Meter
	appendable *ingest.Appendable
	logger     *slog.Logger
	now        func() time.Time

	options     Options
	settings    prometheusremotewrite.Settings
	metricNamer otlptranslator.MetricNamer
	labelNamer  otlptranslator.LabelNamer
	converters  sync.Pool // of *prometheusremotewrite.PrometheusConverter
	decoders    sync.Pool // of *zstd.Decoder
	sums        *sums
	seed        arrival.Seed // of the keys of walks
	walks       sync.Pool    // of *walk
	memory      memory
	longWay     bool // a test's: no walks

	lines ingest.RareLines
}

// New returns a handler that writes to sink. now is the clock of durations and of
// the rate of log lines. The error is about the options.
func New(sink ingest.Sink, limits ingest.Limits, metrics *ingest.Metrics, logger *slog.Logger, now func() time.Time, o Options) (*Handler, error) {
	strategy := otlptranslator.TranslationStrategyOption(o.TranslationStrategy)
	switch strategy {
	case "":
		strategy = otlptranslator.UnderscoreEscapingWithSuffixes
	case otlptranslator.UnderscoreEscapingWithSuffixes, otlptranslator.UnderscoreEscapingWithoutSuffixes,
		otlptranslator.NoUTF8EscapingWithSuffixes, otlptranslator.NoTranslation:
	default:
		return nil, fmt.Errorf("translation strategy %q: want UnderscoreEscapingWithSuffixes, UnderscoreEscapingWithoutSuffixes, NoUTF8EscapingWithSuffixes or NoTranslation", o.TranslationStrategy)
	}
	if o.PromoteAllResourceAttributes && len(o.PromoteResourceAttributes) > 0 {
		return nil, errors.New("promote all resource attributes, or those of a list, not both")
	}
	if !o.PromoteAllResourceAttributes && len(o.IgnoreResourceAttributes) > 0 {
		return nil, errors.New("resource attributes are ignored only where all are promoted")
	}
	if o.LookbackDelta <= 0 {
		o.LookbackDelta = defaultLookbackDelta
	}
	if o.DeltaStateBytesMax <= 0 {
		o.DeltaStateBytesMax = deltaStateBytesMax
	}
	if o.FutureMax <= 0 {
		o.FutureMax = defaultFutureMax
	}
	limits = limits.WithDefaults()
	meter := metrics.Meter("otlp")
	port := ingest.NewPort(sink, limits, meter, now)
	h := &Handler{
		port: port, sink: sink, limits: limits, meter: meter, logger: logger, now: now, options: o,
		appendable: ingest.NewAppendable(sink, limits, metrics, "otlp"),
		seed:       port.Seed(walkEncoding(&o, &limits)),
		sums:       newSums(limits, port.Seed("otlp deltas"), o.DeltaStateBytesMax),
		converters: sync.Pool{New: func() any { return prometheusremotewrite.NewPrometheusConverter(nil) }},
	}
	h.settings = prometheusremotewrite.Settings{
		DisableTargetInfo: o.DisableTargetInfo,
		AddMetricSuffixes: strategy.ShouldAddSuffixes(),
		AllowUTF8:         !strategy.ShouldEscape(),
		PromoteResourceAttributes: prometheusremotewrite.NewPromoteResourceAttributes(config.OTLPConfig{
			PromoteAllResourceAttributes: o.PromoteAllResourceAttributes,
			PromoteResourceAttributes:    o.PromoteResourceAttributes,
			IgnoreResourceAttributes:     o.IgnoreResourceAttributes,
		}),
		KeepIdentifyingResourceAttributes:    o.KeepIdentifyingResourceAttributes,
		ConvertHistogramsToNHCB:              o.ConvertHistogramsToNHCB,
		AllowDeltaTemporality:                o.Delta == DeltaKeep,
		PromoteScopeMetadata:                 o.PromoteScopeMetadata,
		EnableTypeAndUnitLabels:              o.TypeAndUnitLabels,
		LabelNameUnderscoreSanitization:      !o.NoLabelNameUnderscoreSanitization,
		LabelNamePreserveMultipleUnderscores: !o.SqueezeUnderscores,
	}
	h.metricNamer = otlptranslator.MetricNamer{WithMetricSuffixes: h.settings.AddMetricSuffixes, UTF8Allowed: h.settings.AllowUTF8}
	h.labelNamer = otlptranslator.LabelNamer{
		UTF8Allowed: h.settings.AllowUTF8,
		//lint:ignore SA1019 The converter of v0.315 has the option, and names must be those that it makes.
		UnderscoreLabelSanitization: h.settings.LabelNameUnderscoreSanitization,
		PreserveMultipleUnderscores: h.settings.LabelNamePreserveMultipleUnderscores,
	}
	return h, nil
}

// answer is what a request gets.
type answer struct {
	code       int
	retryAfter time.Duration
	// rejected counts data points, where the code is 200.
	rejected int
	text     string
}

// ServeHTTP handles one export request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e, ok := negotiate(r.Header.Get("Content-Type"))
	d := h.port.Delivery()
	a := answer{code: http.StatusServiceUnavailable}
	// After a panic too: what it holds of the budget would be lost.
	defer func() { d.End(a.code) }()
	switch {
	case r.Method != http.MethodPost:
		w.Header().Set("Allow", http.MethodPost)
		a = answer{code: http.StatusMethodNotAllowed, text: "only POST is allowed"}
	case !ok:
		a = answer{code: http.StatusUnsupportedMediaType, text: "want Content-Type " + contentTypeProto + " or " + contentTypeJSON}
	default:
		a = h.handle(r, e, d)
	}
	h.log(r, &a)
	h.reply(w, e, &a)
}

// negotiate finds the encoding that a Content-Type names. Parameters are left aside.
func negotiate(contentType string) (encoding, bool) {
	mediaType, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return encodingProto, false
	}
	switch mediaType {
	case contentTypeProto, "application/protobuf":
		return encodingProto, true
	case contentTypeJSON:
		return encodingJSON, true
	}
	return encodingProto, false
}

// handle reads, decodes and stores one request.
func (h *Handler) handle(r *http.Request, e encoding, d *ingest.Delivery) answer {
	body, err := h.readBody(r, d)
	if err != nil {
		return failed(err)
	}
	var w *walk
	if e == encodingProto && !h.longWay {
		var a answer
		var done bool
		if a, w, done = h.quick(r.Context(), body, d); done {
			return a
		}
		if w != nil {
			defer h.forget(w)
		}
	}
	md, bytes, err := h.decode(body, e)
	defer h.release(bytes)
	if err != nil {
		return failed(err)
	}
	v := &vetting{h: h, d: d}
	v.metrics(md)
	refused, err := h.store(r.Context(), md, v, w)
	if err != nil {
		return failed(err)
	}
	if w != nil && d.Result().Rejected.Total() == 0 {
		// What it has learned is for later requests: this one is stored, and the next one tries again.
		_ = w.learn(r.Context(), md)
	}
	return answer{code: http.StatusOK, rejected: min(v.refused+refused, v.points), text: d.Refusals()}
}

// decode returns the metrics of a body, and what was taken from the budget for them.
func (h *Handler) decode(body []byte, e encoding) (pmetric.Metrics, int64, error) {
	measure := measureProto
	if e == encodingJSON {
		measure = measureJSON
	}
	bytes, err := measure(body)
	if err != nil {
		return pmetric.Metrics{}, 0, err
	}
	if most := expansionMax * h.limits.DecodedBytesMax; bytes > most {
		return pmetric.Metrics{}, 0, fmt.Errorf("%w: its decoded form needs %d bytes, at most %d", ingest.ErrTooBig, bytes, most)
	}
	if !h.limits.InFlight.TryAcquire(bytes) {
		return pmetric.Metrics{}, 0, ingest.ErrOverload
	}
	h.meter.Held(bytes)
	request := pmetricotlp.NewExportRequest()
	if e == encodingJSON {
		err = request.UnmarshalJSON(body)
	} else {
		err = request.UnmarshalProto(body)
	}
	if err != nil {
		return pmetric.Metrics{}, bytes, fmt.Errorf("%w: %s", ingest.ErrMalformed, printable(err))
	}
	return request.Metrics(), bytes, nil
}

func (h *Handler) release(bytes int64) {
	h.meter.Held(-bytes)
	h.limits.InFlight.Release(bytes)
}

// failed is the answer to a request of which nothing may be relied on.
func failed(err error) answer {
	code, retryAfter := ingest.Status(err)
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		code = http.StatusServiceUnavailable
	}
	return answer{code: code, retryAfter: retryAfter, text: err.Error()}
}

// reply writes the answer in the request's encoding.
func (h *Handler) reply(w http.ResponseWriter, e encoding, a *answer) {
	var body []byte
	var err error
	if len(a.text) > h.limits.ErrorBytesMax {
		a.text = a.text[:h.limits.ErrorBytesMax]
	}
	if a.code == http.StatusOK {
		body, err = e.success(int64(a.rejected), a.text)
	} else {
		body, err = e.failure(a.code, a.text)
	}
	if err != nil {
		a.code, body = http.StatusInternalServerError, nil
	}
	switch a.code {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", strconv.Itoa(max(1, int(math.Ceil(a.retryAfter.Seconds())))))
	}
	w.Header().Set("Content-Type", e.contentType())
	w.WriteHeader(a.code)
	// The sender is gone if this fails; what it sent is stored all the same.
	_, _ = w.Write(body)
}

// log writes a line about an answer that is not a full success, unless there was one
// not long ago: the metrics count them all.
func (h *Handler) log(r *http.Request, a *answer) {
	if a.code == http.StatusOK && a.text == "" {
		return
	}
	level, class := slog.LevelWarn, ingest.LogRefusals
	if a.code == http.StatusServiceUnavailable {
		level, class = slog.LevelError, ingest.LogFailures
	}
	if !h.lines.Due(class, h.now()) {
		return
	}
	h.logger.Log(r.Context(), level, "OTLP request not accepted in full", "code", a.code, "rejected_data_points", a.rejected,
		"remote", r.RemoteAddr, "sender", quoted(r.UserAgent()), "reason", a.text)
}
