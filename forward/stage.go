package forward

import (
	"context"
	"fmt"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"varve/archive"
)

// What is in flight is counted in bytes: a float is its target, its place in a batch and itself. The rest is an estimate from above.
const (
	floatBytes    = 64
	exemplarBytes = 256
	familyBytes   = 256
	partBytes     = 512
)

// histogramBytes is about what a histogram holds.
func histogramBytes(h *Histogram) int64 {
	const fixed, span, bucket = 256, 8, 8
	n := int64(fixed)
	if h.Int != nil {
		n += int64(span*(len(h.Int.PositiveSpans)+len(h.Int.NegativeSpans)) + bucket*(len(h.Int.PositiveBuckets)+len(h.Int.NegativeBuckets)+len(h.Int.CustomValues)))
	}
	if h.Float != nil {
		n += int64(span*(len(h.Float.PositiveSpans)+len(h.Float.NegativeSpans)) + bucket*(len(h.Float.PositiveBuckets)+len(h.Float.NegativeBuckets)+len(h.Float.CustomValues)))
	}
	return n
}

// part is what one read has for one shard, in the order of arrival. Who has it cuts batches off its front.
type part struct {
	read   *read
	staged time.Time
	// targets are those of floats, one each.
	targets    []*target
	floats     []Float
	histograms []targetHistogram
	exemplars  []targetExemplar
	families   []FamilyMetadata
	// cut is how much of each is in batches.
	cut struct{ floats, histograms, exemplars, families int }
}

type targetHistogram struct {
	target *target
	Histogram
}

type targetExemplar struct {
	target *target
	exemplar.Exemplar
}

func (p *part) samples() int { return len(p.floats) + len(p.histograms) }
func (p *part) items() int   { return p.samples() + len(p.exemplars) + len(p.families) }

func (p *part) left() int {
	return p.items() - p.cut.floats - p.cut.histograms - p.cut.exemplars - p.cut.families
}

func (p *part) bytes() int64 {
	n := partBytes + floatBytes*int64(len(p.floats)) + exemplarBytes*int64(len(p.exemplars)) + familyBytes*int64(len(p.families))
	for i := range p.histograms {
		n += histogramBytes(&p.histograms[i].Histogram)
	}
	return n
}

var parts = sync.Pool{New: func() any { return new(part) }}

// recycle gives back the memory of a part that is cut whole.
func (p *part) recycle() {
	clear(p.targets)
	clear(p.histograms)
	clear(p.exemplars)
	clear(p.families)
	*p = part{
		targets: p.targets[:0], floats: p.floats[:0], histograms: p.histograms[:0],
		exemplars: p.exemplars[:0], families: p.families[:0],
	}
	parts.Put(p)
}

// stage turns what was read into parts for shards: filtered, with its targets. One goroutine at a time.
type stage struct {
	o      *output
	made   *targets
	source Source
	cache  *refCache
	// parts under way, by shard, nil where there is nothing.
	parts []*part
	// metrics are the names of metrics of which a series is sent under the same name, fresh those of them that are new.
	metrics map[string]struct{}
	fresh   []string

	hits    []*target
	unknown []unknown
}

// unknown is a hit that is missing.
type unknown struct {
	hit int
	ref storage.SeriesRef
}

func newStage(o *output, made *targets, source Source) *stage {
	return &stage{
		o: o, made: made, source: source, cache: newRefCache(o.CacheSeries), parts: make([]*part, o.Shards),
		metrics: map[string]struct{}{},
	}
}

// split makes parts of what was read, and returns them by shard, nil where there is nothing, with the number of samples that aren't
// wanted. The slice is the stage's. After an error it may be called again with the same.
func (s *stage) split(in *archive.Arrivals, now time.Time) (out []*part, filtered int, err error) {
	if err := s.resolve(in); err != nil {
		return nil, 0, err
	}
	clear(s.parts)
	filtered = s.splitFloats(in, now)
	hits := s.hits[len(in.Refs):]
	for i := range in.Histograms {
		t := hits[i]
		if t == unwanted {
			filtered++
			continue
		}
		h := &in.Histograms[i]
		p := s.part(t.shard, now)
		p.histograms = append(p.histograms, targetHistogram{t, Histogram{
			TimeMillis: h.TimeMillis, StartMillis: h.StartMillis, Int: h.Int, Float: h.Float,
		}})
	}
	hits = hits[len(in.Histograms):]
	for i := range in.Exemplars {
		if t := hits[i]; t != unwanted {
			p := s.part(t.shard, now)
			p.exemplars = append(p.exemplars, targetExemplar{t, in.Exemplars[i].Exemplar})
		}
	}
	s.splitFamilies(in, now)
	return s.parts, filtered, nil
}

// splitFamilies gives out metadata that arrived, and that of metrics of which the first series is sent: it may have arrived before the output
// was there, or when it had no series of it yet.
func (s *stage) splitFamilies(in *archive.Arrivals, now time.Time) {
	told := map[string]struct{}{}
	for _, metric := range s.fresh {
		f := s.family(metric)
		if _, again := told[f.Family]; again || f.Metadata.IsEmpty() {
			continue
		}
		told[f.Family] = struct{}{}
		p := s.part(0, now)
		p.families = append(p.families, f)
	}
	s.fresh = s.fresh[:0]
	for i := range in.Metadata {
		if m := &in.Metadata[i]; s.wantsFamily(m.Family) {
			p := s.part(0, now)
			p.families = append(p.families, FamilyMetadata{Family: m.Family, Metadata: m.Metadata})
		}
	}
}

// family is what is known of the family of a metric.
func (s *stage) family(metric string) FamilyMetadata {
	f := FamilyMetadata{Family: metric, Metadata: s.source.Metadata(metric)}
	for _, suffix := range familySuffixes[1:] {
		if base, cut := strings.CutSuffix(metric, suffix); cut && s.source.Metadata(base) == f.Metadata {
			f.Family = base
		}
	}
	return f
}

// splitFloats is the hot path: a few loads and stores a sample. With one shard it doesn't look at targets, which are anywhere in memory.
func (s *stage) splitFloats(in *archive.Arrivals, now time.Time) (filtered int) {
	starts := len(in.Starts) == len(in.Times)
	var p *part
	at := -1
	for i, t := range s.hits[:len(in.Refs)] {
		if t == unwanted {
			filtered++
			continue
		}
		shard := 0
		if len(s.parts) > 1 {
			shard = int(t.shard)
		}
		if shard != at {
			at = shard
			p = s.part(uint8(shard), now)
		}
		f := Float{TimeMillis: in.Times[i], Value: math.Float64frombits(in.Values[i])}
		if starts {
			f.StartMillis = in.Starts[i]
		}
		p.targets = append(p.targets, t)
		p.floats = append(p.floats, f)
	}
	return filtered
}

func (s *stage) part(shard uint8, now time.Time) *part {
	p := s.parts[shard]
	if p == nil {
		p = parts.Get().(*part)
		p.staged = now
		s.parts[shard] = p
	}
	return p
}

// resolve sets hits to the targets of the floats, the histograms and the exemplars, in this order.
func (s *stage) resolve(in *archive.Arrivals) error {
	s.hits, s.unknown = s.hits[:0], s.unknown[:0]
	for _, ref := range in.Refs {
		s.hit(ref)
	}
	for i := range in.Histograms {
		s.hit(in.Histograms[i].Ref)
	}
	for i := range in.Exemplars {
		s.hit(in.Exemplars[i].Ref)
	}
	if len(s.unknown) == 0 {
		return nil
	}
	found := make(map[storage.SeriesRef]*target, len(s.unknown))
	refs := make([]storage.SeriesRef, 0, len(s.unknown))
	for _, u := range s.unknown {
		if _, ok := found[u.ref]; !ok {
			found[u.ref] = nil
			refs = append(refs, u.ref)
		}
	}
	all := make([]labels.Labels, len(refs))
	if err := s.source.Labels(refs, all); err != nil {
		return fmt.Errorf("look up series: %w", err)
	}
	for i, ref := range refs {
		found[ref] = s.remember(ref, all[i])
	}
	for _, u := range s.unknown {
		s.hits[u.hit] = found[u.ref]
	}
	return nil
}

func (s *stage) hit(ref storage.SeriesRef) {
	t := s.cache.get(ref)
	if t == nil {
		s.unknown = append(s.unknown, unknown{len(s.hits), ref})
	}
	s.hits = append(s.hits, t)
}

// metricsMax bounds the names of metrics that are remembered. Metadata of others isn't sent.
const metricsMax = 1 << 20

func (s *stage) remember(ref storage.SeriesRef, ls labels.Labels) *target {
	t := s.made.ofSeries(ls)
	s.cache.put(ref, t)
	if t != unwanted && len(s.metrics) < metricsMax {
		if name := ls.Get(model.MetricNameLabel); t.Labels.Get(model.MetricNameLabel) == name {
			if _, known := s.metrics[name]; !known {
				s.metrics[name] = struct{}{}
				s.fresh = append(s.fresh, name)
			}
		}
	}
	return t
}

// familySuffixes are what the names of a family's series may end with.
var familySuffixes = []string{"", "_total", "_count", "_bucket", "_sum", "_created", "_info"}

// wantsFamily tells whether a series of the family was sent.
func (s *stage) wantsFamily(family string) bool {
	base := strings.TrimSuffix(family, "_total")
	for _, suffix := range familySuffixes {
		if _, ok := s.metrics[base+suffix]; ok {
			return true
		}
	}
	_, ok := s.metrics[family]
	return ok
}

// stream reads the cursor and hands out parts until ctx ends.
func (s *session) stream(ctx context.Context) {
	st := newStage(s.output, s.made, s.source)
	var in archive.Arrivals
	read := false // whether in has what isn't handed out
	for tries := 0; s.gate.pass(ctx) == nil && s.room.wait(ctx) == nil; {
		var err error
		if !read {
			s.reader.attempt()
			err = s.source.Read(ctx, &in)
		}
		if err == nil {
			read = true
			err = s.dispatch(ctx, st, &in)
		}
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			read, tries = false, 0
			s.reader.calm()
		default:
			s.reader.fail(err)
			if wait(ctx, s.backoff(tries)) != nil {
				return
			}
			tries++
		}
	}
}

// dispatch hands what was read to the shards. After an error nothing of it was.
func (s *session) dispatch(ctx context.Context, st *stage, in *archive.Arrivals) error {
	split, filtered, err := st.split(in, time.Now())
	if err != nil {
		return err
	}
	r := &read{
		first: uint64(in.First), last: uint64(in.Last), arrived: in.Arrived, bytes: int64(in.Bytes),
	}
	position := in.Position
	var untold archive.Tally // while the letters aren't durable
	r.save = func(t archive.Tally) error {
		if t != (archive.Tally{}) {
			untold = t
		}
		if err := s.letters.sync(); err != nil {
			return err
		}
		t, untold = untold, archive.Tally{}
		err := s.source.Done(position, t)
		if err == nil {
			s.saver.calm()
		}
		return err
	}
	s.m.filtered.Add(float64(filtered))
	s.hand(ctx, s.ledger, r, split, archive.Tally{Filtered: uint64(filtered)})
	return nil
}

// hand notes a read in its ledger and gives its parts to their shards.
func (s *session) hand(ctx context.Context, l *ledger, r *read, split []*part, t archive.Tally) {
	items := 0
	for _, p := range split {
		if p != nil {
			p.read = r
			items += p.items()
			bytes := p.bytes()
			s.room.take(bytes)
			s.m.inFlight.Add(float64(bytes))
		}
	}
	l.begin(r, int64(items), t)
	for shard, p := range split {
		if p == nil {
			continue
		}
		select {
		case s.shards[shard].in <- p:
		case <-ctx.Done():
			return
		}
	}
}
