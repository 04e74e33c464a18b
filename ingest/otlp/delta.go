package otlp

import (
	"errors"
	"fmt"
	"math"
	"sync"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"

	"varve/arrival"
	"varve/ingest"
)

// sums turns deltas into cumulative values: of each series, it knows the sum of all
// deltas that were stored.
//
// It works on what the converter makes of data points, one sum for each series: the
// buckets, the count and the sum of a classic histogram add up like counters do. The
// rules:
//
//  1. The first delta of a series is its first sum, and the start of its interval
//     the start of the sum.
//  2. A delta that is not later than the last one is refused: a place between sums
//     that are stored already can't be given to it. The same delta again is left
//     out, so that a request may be repeated. Times are milliseconds here, so two
//     deltas may end in the same one: the second begins where the first ended.
//  3. Sums change when what they were made for is durable, and not before. A request
//     that the archive could not write is repeated by its sender and adds up again.
//  4. What the archive would not take is not added: its time would have all that follow refused.
//  5. What is forgotten, by a restart or for want of memory, begins anew with a later
//     start: a reset of the counter, as when the program that counts restarts.
//
// The sums are held in two generations of at most half of bytesMax each: what is
// used moves to the young one, and when that is full the old one is forgotten.
type sums struct {
	limits   ingest.Limits
	seed     arrival.Seed
	bytesMax int64

	// mu guards the rest, and is held from the first delta of a request until its
	// sums are durable: two requests with deltas of one series must not overlap.
	mu         sync.Mutex
	young, old map[arrival.Key]*total
	youngBytes int64
	// staged are the sums of the request that holds mu.
	staged map[arrival.Key]*total
	// newest is the key that was staged last, displaced what it had before; newest is zero
	// where the last delta changed nothing.
	newest    arrival.Key
	displaced *total
	wire      []byte
}

// total is the sum of a series' deltas. It does not change once it is made.
type total struct {
	startMillis, lastMillis int64
	value                   float64
	// native is set for the sum of native histograms.
	native *histogram.FloatHistogram
	// delta tells the delta that was added last from others.
	delta uint64
}

func newSums(limits ingest.Limits, seed arrival.Seed, bytesMax int64) *sums {
	return &sums{
		limits: limits, seed: seed, bytesMax: bytesMax,
		young: make(map[arrival.Key]*total), staged: make(map[arrival.Key]*total),
	}
}

// begin starts a request. Each is ended with end.
func (s *sums) begin() { s.mu.Lock() }

// end ends a request, of which everything is durable or nothing may be relied on.
func (s *sums) end(durable bool) {
	if durable {
		for key, t := range s.staged {
			s.put(key, t)
		}
	}
	clear(s.staged)
	s.mu.Unlock()
}

// stage notes the sum that a delta makes.
func (s *sums) stage(key arrival.Key, t *total) {
	s.newest, s.displaced = key, s.staged[key]
	s.staged[key] = t
}

// unstage takes the last delta out again, which nobody stores.
func (s *sums) unstage() {
	if s.displaced != nil {
		s.staged[s.newest] = s.displaced
	} else {
		delete(s.staged, s.newest)
	}
	s.newest, s.displaced = arrival.Key{}, nil
}

func (s *sums) put(key arrival.Key, t *total) {
	size := t.bytes()
	if s.youngBytes+size > s.bytesMax/2 {
		s.old, s.young, s.youngBytes = s.young, make(map[arrival.Key]*total), 0
	}
	if was, ok := s.young[key]; ok {
		s.youngBytes -= was.bytes()
	}
	s.young[key] = t
	s.youngBytes += size
}

func (s *sums) get(key arrival.Key) *total {
	for _, generation := range [...]map[arrival.Key]*total{s.staged, s.young, s.old} {
		if t, ok := generation[key]; ok {
			return t
		}
	}
	return nil
}

// totalBytes is what a total takes with its place in a map, without a histogram.
const totalBytes = 128

func (t *total) bytes() int64 {
	if t.native == nil {
		return totalBytes
	}
	n := t.native
	return totalBytes + 200 + 8*int64(len(n.PositiveSpans)+len(n.NegativeSpans)+len(n.PositiveBuckets)+len(n.NegativeBuckets)+len(n.CustomValues))
}

// The errors of deltas.
var (
	errOldDelta    = errors.New("a delta that is not later than the one before")
	errFutureDelta = errors.New("a delta that ends too far ahead of the clock")
	errNoNumber    = errors.New("a delta that is no finite number")
	errBucketRange = errors.New("a delta that does not add up with those before")
	// errAgain says that a delta was added before.
	errAgain = errors.New("a delta that came before")
)

// addFloat adds a delta and returns the sum, with the start of the first.
func (s *sums) addFloat(ls labels.Labels, start, at int64, v float64) (sum float64, sumStart int64, err error) {
	s.newest, s.displaced = arrival.Key{}, nil
	if value.IsStaleNaN(v) {
		return v, start, nil
	}
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return 0, 0, errNoNumber
	}
	key, was, err := s.before(ls, start, at, math.Float64bits(v), false)
	if err != nil {
		return 0, 0, err
	}
	next := &total{startMillis: start, lastMillis: at, value: v, delta: math.Float64bits(v)}
	if was != nil {
		next.startMillis, next.value = was.startMillis, was.value+v
	}
	s.stage(key, next)
	return next.value, next.startMillis, nil
}

// addHistogram is addFloat for native histograms. It keeps no reference to h.
func (s *sums) addHistogram(ls labels.Labels, start, at int64, h *histogram.Histogram) (sum *histogram.Histogram, float *histogram.FloatHistogram, sumStart int64, err error) {
	s.newest, s.displaced = arrival.Key{}, nil
	if value.IsStaleNaN(h.Sum) {
		return h, nil, start, nil
	}
	if err := s.limits.CheckHistogram(h); err != nil {
		return nil, nil, 0, err
	}
	if math.IsNaN(h.Sum) || math.IsInf(h.Sum, 0) {
		return nil, nil, 0, errNoNumber
	}
	// Count and sum tell a repeated delta well enough: only one with the same time
	// is compared.
	mark := h.Count*0x9e3779b97f4a7c15 ^ math.Float64bits(h.Sum)
	key, was, err := s.before(ls, start, at, mark, true)
	if err != nil {
		return nil, nil, 0, err
	}
	next := &total{startMillis: start, lastMillis: at, native: h.ToFloat(nil), delta: mark}
	if was != nil {
		next.startMillis = was.startMillis
		if next.native, err = added(was.native, next.native); err != nil {
			return nil, nil, 0, err
		}
	}
	s.stage(key, next)
	sum, float = integral(next.native)
	return sum, float, next.startMillis, nil
}

// before returns the sum that a delta adds to, nil if it is the first.
func (s *sums) before(ls labels.Labels, start, at int64, delta uint64, native bool) (arrival.Key, *total, error) {
	s.wire = ls.Bytes(s.wire[:0])
	key := s.seed.Hash(s.wire)
	was := s.get(key)
	switch {
	case was == nil || (was.native != nil) != native:
		return key, nil, nil
	case at == was.lastMillis && start >= was.lastMillis:
		return key, was, nil
	case at == was.lastMillis && delta == was.delta:
		return key, nil, errAgain
	case at <= was.lastMillis:
		return key, nil, errOldDelta
	}
	return key, was, nil
}

// nativeBucketsMax bounds the buckets of a sum of exponential histograms, as 160 on
// each side do for those of the OpenTelemetry SDKs. Beyond it the resolution is halved.
const nativeBucketsMax = 320

// added returns the sum of two histograms, as a third.
func added(a, b *histogram.FloatHistogram) (*histogram.FloatHistogram, error) {
	if a.UsesCustomBuckets() != b.UsesCustomBuckets() {
		return b, nil
	}
	if a.UsesCustomBuckets() && !histogram.CustomBucketBoundsMatch(a.CustomValues, b.CustomValues) {
		// Other bounds can't be added up: the sum begins anew, as in the collector.
		return b, nil
	}
	sum, _, _, err := a.Copy().Add(b)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errBucketRange, err)
	}
	for !sum.UsesCustomBuckets() && len(sum.PositiveBuckets)+len(sum.NegativeBuckets) > nativeBucketsMax && sum.Schema > histogram.ExponentialSchemaMin {
		if err := sum.ReduceResolution(sum.Schema - 1); err != nil {
			return nil, fmt.Errorf("%w: %w", errBucketRange, err)
		}
	}
	return sum, nil
}

// exactMax is the largest count up to which float64 holds every integer.
const exactMax = 1 << 53

// integral returns a histogram of counts with integers, or f itself where they are
// too large for it to be exact. Spans are shared with f.
func integral(f *histogram.FloatHistogram) (*histogram.Histogram, *histogram.FloatHistogram) {
	if f.Count >= exactMax {
		return nil, f.Copy()
	}
	h := &histogram.Histogram{
		CounterResetHint: histogram.UnknownCounterReset, Schema: f.Schema, ZeroThreshold: f.ZeroThreshold,
		ZeroCount: uint64(f.ZeroCount), Count: uint64(f.Count), Sum: f.Sum,
		PositiveSpans: f.PositiveSpans, NegativeSpans: f.NegativeSpans,
		PositiveBuckets: differences(f.PositiveBuckets), NegativeBuckets: differences(f.NegativeBuckets),
		CustomValues: f.CustomValues,
	}
	return h, nil
}

// differences are the counts as an integer histogram has them: each minus the one
// before.
func differences(counts []float64) []int64 {
	if len(counts) == 0 {
		return nil
	}
	out := make([]int64, len(counts))
	last := int64(0)
	for i, c := range counts {
		out[i] = int64(c) - last
		last = int64(c)
	}
	return out
}
