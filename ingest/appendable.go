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
	// skipRepeated is set before the first appender is taken.
	skipRepeated bool
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

// SkipRepeated makes the appenders leave out a sample that equals, in time, start
// timestamp and value, the one of its series that they wrote last, and count it as
// dropped. It is for sources that give timestamps of their own and repeat a sample
// until they have a new one. Only what was committed through this Appendable is
// recognised, in a batch of which everything was stored that no filter leaves out:
// the first sample after a restart is written again, which changes nothing. A sample with
// exemplars is never left out. Call it before the first appender is taken.
func (a *Appendable) SkipRepeated() { a.skipRepeated = true }

// ReportingTo returns an appender that adds what becomes of its samples to result
// and counts no request: it is for an input whose requests hold more than one
// transaction's worth of things to count. Commit's error then only says that the
// samples could not be written through no fault of theirs. Result is the appender's
// until it is committed or rolled back.
func (a *Appendable) ReportingTo(ctx context.Context, result *arrival.Result) storage.AppenderV2 {
	app := a.appender(ctx)
	app.report = result
	return app
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

// knownSeriesMax and knownLabelBytesMax bound knownSeries: at about 140 bytes each, 70 MiB in
// each of two generations, and as much for labels, unless the caller holds them anyway.
const (
	knownSeriesMax     = 1 << 19
	knownLabelBytesMax = 64 << 20
)

// known is a series that came through an Appendable before.
type known struct {
	labels labels.Labels
	key    arrival.Key
	// latestMillis is the time of the latest sample that was committed.
	latestMillis int64
	// last is the sample that was committed last, where repeated ones are left out.
	last sampleMark
}

// knownSeries remembers series by the ref that Append gave out. It holds two
// generations: what is used moves to the young one, and when that is full the
// old one is forgotten.
type knownSeries struct {
	mu         sync.Mutex // guards the maps
	young, old map[storage.SeriesRef]known
	// youngBytes is the size of the labels in young.
	youngBytes int
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
	if was, ok := s.locked(ref); ok && was.key == k.key {
		k.latestMillis = max(k.latestMillis, was.latestMillis)
		k.last = was.last
	}
	s.putLocked(ref, k)
}

func (s *knownSeries) putLocked(ref storage.SeriesRef, k known) {
	if len(s.young) >= knownSeriesMax || s.youngBytes >= knownLabelBytesMax {
		s.old, s.young, s.youngBytes = s.young, make(map[storage.SeriesRef]known), 0
	}
	if was, ok := s.young[ref]; ok {
		s.youngBytes -= int(was.labels.ByteSize())
	}
	s.youngBytes += int(k.labels.ByteSize())
	s.young[ref] = k
}

// committed notes the samples of a batch that are durable. series runs beside the
// batch's rows; rows without a ref were not written. With all, every sample of the
// others is, and the last of each is noted too.
func (s *knownSeries) committed(b *arrival.Batch, series []appended, all bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, r := range b.Rows {
		if r.Count == 0 || r.Ref == 0 {
			continue
		}
		k, ok := s.locked(series[i].ref)
		if !ok {
			continue
		}
		for _, t := range b.Times[r.First : r.First+r.Count] {
			k.latestMillis = max(k.latestMillis, t)
		}
		if all {
			n := r.First + r.Count - 1
			k.last = sampleMark{timeMillis: b.Times[n], bits: b.Values[n], kind: sampleFloat}
			if len(b.Starts) > 0 {
				k.last.startMillis = b.Starts[n]
			}
		}
		s.putLocked(series[i].ref, k)
	}
	var scratch []byte
	for i := range b.Histograms {
		h := &b.Histograms[i]
		if b.Rows[h.Row].Ref == 0 {
			continue
		}
		k, ok := s.locked(series[h.Row].ref)
		if !ok {
			continue
		}
		k.latestMillis = max(k.latestMillis, h.TimeMillis)
		if all {
			k.last, scratch = markOf(h, scratch)
		}
		s.putLocked(series[h.Row].ref, k)
	}
}
