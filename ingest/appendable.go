package ingest

import (
	"context"
	"sync"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"varve/arrival"
)

// Appendable is the way into a Sink for callers inside the process that know
// upstream's interfaces: the scrape manager, rules, test scripts. It implements
// storage.AppendableV2 and storage.Appendable and is safe for use by several
// goroutines; each appender it returns is for one.
//
// An appender gathers samples in an arrival.Batch and hands it over at Commit,
// which returns when they are durable. Two things are unlike upstream's TSDB:
//
//   - The archive takes samples of any age. Only RejectOutOfOrder (version 1:
//     DiscardOutOfOrder) compares with earlier ones, and it knows only those that
//     came through the same Appendable: it serves the scrape manager's stale
//     markers, which must not fall between the samples of a newer scrape loop.
//   - What the archive refuses at Commit does not undo the rest; the error says how
//     much it was.
//
// Refusals that concern one series or sample wrap storage.ErrOutOfBounds, so that
// a scrape goes on with the others.
type Appendable struct {
	sink    Sink
	limits  Limits
	meter   *Meter
	known   knownSeries
	batches sync.Pool // of *arrival.Batch
}

var (
	_ storage.AppendableV2 = (*Appendable)(nil)
	_ storage.Appendable   = (*Appendable)(nil)
)

// NewAppendable returns an Appendable that writes to sink and counts under protocol.
func NewAppendable(sink Sink, limits Limits, metrics *Metrics, protocol string) *Appendable {
	return &Appendable{
		sink:    sink,
		limits:  limits.WithDefaults(),
		meter:   metrics.Meter(protocol),
		known:   knownSeries{young: make(map[storage.SeriesRef]known)},
		batches: sync.Pool{New: func() any { return new(arrival.Batch) }},
	}
}

// AppenderV2 implements storage.AppendableV2. The context bounds Commit too.
func (a *Appendable) AppenderV2(ctx context.Context) storage.AppenderV2 {
	return a.appender(ctx)
}

// Appender implements storage.Appendable. The context bounds Commit too.
func (a *Appendable) Appender(ctx context.Context) storage.Appender {
	return &firstAppender{appender: a.appender(ctx)}
}

func (a *Appendable) appender(ctx context.Context) *appender {
	return &appender{to: a, ctx: ctx, batch: a.batches.Get().(*arrival.Batch), sets: NewLabelSets(a.limits)}
}

// knownSeriesMax bounds knownSeries: at about 100 bytes each, not counting labels
// that the caller holds anyway, 50 MiB in each of two generations.
const knownSeriesMax = 1 << 19

// known is a series that came through an Appendable before.
type known struct {
	labels labels.Labels
	key    arrival.Key
	// latestMillis is the time of the latest sample that was committed.
	latestMillis int64
}

// knownSeries remembers series by the ref that Append gave out. It holds two
// generations: what is used moves to the young one, and when that is full the
// old one is forgotten.
type knownSeries struct {
	mu         sync.Mutex // guards the maps
	young, old map[storage.SeriesRef]known
}

func (s *knownSeries) get(ref storage.SeriesRef) (known, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.locked(ref)
}

func (s *knownSeries) locked(ref storage.SeriesRef) (known, bool) {
	if k, ok := s.young[ref]; ok {
		return k, true
	}
	k, ok := s.old[ref]
	if ok {
		s.putLocked(ref, k)
	}
	return k, ok
}

func (s *knownSeries) put(ref storage.SeriesRef, k known) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if was, ok := s.locked(ref); ok {
		k.latestMillis = max(k.latestMillis, was.latestMillis)
	}
	s.putLocked(ref, k)
}

func (s *knownSeries) putLocked(ref storage.SeriesRef, k known) {
	if len(s.young) >= knownSeriesMax {
		s.old, s.young = s.young, make(map[storage.SeriesRef]known)
	}
	s.young[ref] = k
}

// committed notes the times of samples that are durable.
func (s *knownSeries) committed(latest map[storage.SeriesRef]int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ref, millis := range latest {
		if k, ok := s.locked(ref); ok && millis > k.latestMillis {
			k.latestMillis = millis
			s.young[ref] = k
		}
	}
}
