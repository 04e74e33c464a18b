package nats

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics count the messages of all inputs from NATS.
type Metrics struct {
	messages    *prometheus.CounterVec
	redelivered *prometheus.CounterVec
	retries     *prometheus.CounterVec
	dropped     *prometheus.CounterVec
	pending     *prometheus.GaugeVec
	connected   *prometheus.GaugeVec
}

// NewMetrics registers the metrics with reg, which may be nil.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	input := []string{"input"}
	m := &Metrics{
		messages: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "varve_ingest_nats_messages_total",
			Help: "Messages from NATS by what became of them: stored, partial (the rest was refused), poison (refused for good), repeated (refused before).",
		}, []string{"input", "outcome"}),
		redelivered: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "varve_ingest_nats_redelivered_total",
			Help: "Messages that JetStream brought again because it had no acknowledgement.",
		}, input),
		retries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "varve_ingest_nats_retries_total",
			Help: "Times that messages were held and received again because the archive could not take them, or their dead letter could not be written.",
		}, input),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "varve_ingest_nats_dropped_total",
			Help: "Messages of core NATS that came faster than they were stored and are lost.",
		}, input),
		pending: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "varve_ingest_nats_pending_messages",
			Help: "Messages in the stream that the consumer has not been brought yet.",
		}, input),
		connected: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "varve_ingest_nats_connected",
			Help: "1 while the input has a connection and its consumer or subscriptions, 0 otherwise.",
		}, input),
	}
	if reg != nil {
		reg.MustRegister(m.messages, m.redelivered, m.retries, m.dropped, m.pending, m.connected)
	}
	return m
}

// Forget removes what says how an input is at the moment, once it has ended. What it counted stays.
func (m *Metrics) Forget(input string) {
	m.pending.DeleteLabelValues(input)
	m.connected.DeleteLabelValues(input)
}

// outcome is what became of a message.
type outcome uint8

const (
	stored outcome = iota
	partial
	poison
	repeated
	outcomeCount
)

var outcomeTexts = [outcomeCount]string{"stored", "partial", "poison", "repeated"}

// Status is what an input tells of itself.
type Status struct {
	// Connected: there is a connection and the consumer or the subscriptions are at work.
	Connected bool
	// Server is where the connection leads, without credentials. Stream and Consumer are empty for core NATS.
	Server, Stream, Consumer string
	// Pending are messages that have not come yet, AckPending those that came and are not acknowledged, as the server said last.
	Pending, AckPending uint64
	// What became of messages since the start.
	Stored, Partial, Poison, Repeated, Redelivered, Retries, Dropped uint64
	// InFlightBytes are in the process.
	InFlightBytes int64
	// LastMessage is when the last one was done with.
	LastMessage time.Time
	// LastError is the last trouble, if there was any, and when it was.
	LastError     string
	LastErrorTime time.Time
}

// account counts an input's messages, for Status and for the metrics.
type account struct {
	outcomes                                 [outcomeCount]atomic.Uint64
	redelivered, retries, dropped            atomic.Uint64
	messages                                 [outcomeCount]prometheus.Counter
	redeliveredTotal, retriesTotal, dropsSum prometheus.Counter
	pending, connected                       prometheus.Gauge
	lastMillis                               atomic.Int64
	behind                                   atomic.Uint64

	mu     sync.Mutex // guards what follows
	status Status
}

func newAccount(m *Metrics, input string) *account {
	a := &account{
		redeliveredTotal: m.redelivered.WithLabelValues(input), retriesTotal: m.retries.WithLabelValues(input), dropsSum: m.dropped.WithLabelValues(input),
		pending: m.pending.WithLabelValues(input), connected: m.connected.WithLabelValues(input),
	}
	for o := range outcomeCount {
		a.messages[o] = m.messages.WithLabelValues(input, outcomeTexts[o])
	}
	return a
}

func (a *account) done(o outcome, now time.Time) {
	a.outcomes[o].Add(1)
	a.messages[o].Inc()
	a.lastMillis.Store(now.UnixMilli())
}

func (a *account) again() {
	a.redelivered.Add(1)
	a.redeliveredTotal.Inc()
}

func (a *account) retried() {
	a.retries.Add(1)
	a.retriesTotal.Inc()
}

func (a *account) lost(messages uint64) {
	a.dropped.Add(messages)
	a.dropsSum.Add(float64(messages))
}

func (a *account) trouble(err error, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.status.LastError, a.status.LastErrorTime = err.Error(), now
}

func (a *account) joined(server, stream, consumer string) {
	a.connected.Set(1)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.status.Connected, a.status.Server, a.status.Stream, a.status.Consumer = true, server, stream, consumer
}

func (a *account) parted() {
	a.connected.Set(0)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.status.Connected = false
}

// lag notes how many messages have not come yet, which each message tells.
func (a *account) lag(pending uint64) {
	a.behind.Store(pending)
	a.pending.Set(float64(pending))
}

func (a *account) unacknowledged(messages int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.status.AckPending = uint64(max(0, messages))
}

func (a *account) read() Status {
	a.mu.Lock()
	s := a.status
	a.mu.Unlock()
	s.Stored, s.Partial, s.Poison, s.Repeated = a.outcomes[stored].Load(), a.outcomes[partial].Load(), a.outcomes[poison].Load(), a.outcomes[repeated].Load()
	s.Pending = a.behind.Load()
	s.Redelivered, s.Retries, s.Dropped = a.redelivered.Load(), a.retries.Load(), a.dropped.Load()
	if millis := a.lastMillis.Load(); millis != 0 {
		s.LastMessage = time.UnixMilli(millis)
	}
	return s
}
