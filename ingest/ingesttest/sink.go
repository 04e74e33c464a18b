// Package ingesttest holds an ingest.Sink in memory, for tests of inputs.
//
// Sink stores what an archive stores, so that a test can compare it with what was
// sent, and checks what an archive trusts: the shape of a batch, that rows name
// known series, and above all that a key stands for one label set only. It panics
// where an input breaks one of these rules.
//
// It is durable in no way, and is no place for a second set of rules about labels:
// those are in package ingest. A Sink may be used by several goroutines; its fields
// are set before its first use and read after its last.
package ingesttest

import (
	"context"
	"fmt"
	"sync"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/storage"

	"varve/arrival"
	"varve/ingest"
)

// Sample is a float sample as it was written.
type Sample struct {
	TimeMillis, StartMillis int64
	Bits                    uint64
}

// Series is what was written of a series, in the order it came.
type Series struct {
	Samples    []Sample
	Histograms []arrival.Histogram
	Exemplars  []exemplar.Exemplar
}

// Sink implements ingest.Sink.
type Sink struct {
	// FutureMillis refuses later samples, unless it is zero.
	FutureMillis int64
	// SeriesMax refuses new series beyond it, unless it is zero.
	SeriesMax int
	// Err is returned by Write, ResolveErr by Resolve.
	Err, ResolveErr error
	// OnWrite is called after each Write that succeeded, unless it is nil.
	OnWrite func()

	mu       sync.Mutex // guards what follows
	byKey    map[arrival.Key]storage.SeriesRef
	labels   []labels.Labels // by ref-1
	byLabels map[string]storage.SeriesRef
	series   map[storage.SeriesRef]*Series
	families map[string]metadata.Metadata
	writes   int
}

var _ ingest.Sink = (*Sink)(nil)

// NewSink returns an empty sink.
func NewSink() *Sink {
	s := &Sink{byKey: make(map[arrival.Key]storage.SeriesRef), byLabels: make(map[string]storage.SeriesRef)}
	s.Clear()
	return s
}

// Clear drops what was written and keeps the series and their keys.
func (s *Sink) Clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.series, s.families, s.writes = make(map[storage.SeriesRef]*Series), make(map[string]metadata.Metadata), 0
}

// Written returns what was written, by the text of the series' labels.
func (s *Sink) Written() map[string]Series {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]Series, len(s.series))
	for ref, series := range s.series {
		out[s.labels[ref-1].String()] = *series
	}
	return out
}

// Families returns the metadata written by family.
func (s *Sink) Families() map[string]metadata.Metadata {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.families
}

// Writes returns how often Write succeeded.
func (s *Sink) Writes() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.writes
}

// SeriesCount returns the number of series that were created.
func (s *Sink) SeriesCount() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.labels)
}

// Forget makes the sink forget all keys, as an archive may after a restart.
func (s *Sink) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.byKey)
}

// Seed implements ingest.Sink.
func (*Sink) Seed() arrival.Seed { return 0x5eed }

// Lookup implements ingest.Sink.
func (s *Sink) Lookup(rows []arrival.Row) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	missing := 0
	for i := range rows {
		if ref := s.byKey[rows[i].Key]; ref != 0 {
			rows[i].Ref = ref
		}
		if rows[i].Ref == 0 {
			missing++
		}
	}
	return missing
}

// Resolve implements ingest.Sink.
func (s *Sink) Resolve(_ context.Context, unknown []arrival.Unknown) error {
	if s.ResolveErr != nil {
		return s.ResolveErr
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range unknown {
		s.resolve(&unknown[i])
	}
	return nil
}

func (s *Sink) resolve(u *arrival.Unknown) {
	key := string(u.Labels.Bytes(nil))
	ref := s.byLabels[key]
	if ref == 0 && s.SeriesMax > 0 && len(s.labels) >= s.SeriesMax {
		u.Refused = arrival.ReasonSeriesLimit
		return
	}
	if ref == 0 {
		s.labels = append(s.labels, u.Labels)
		ref = storage.SeriesRef(len(s.labels))
		s.byLabels[key] = ref
	}
	if u.Key != (arrival.Key{}) {
		if was := s.byKey[u.Key]; was != 0 && was != ref {
			panic(fmt.Sprintf("one key for %s and %s", s.labels[was-1], u.Labels))
		}
		s.byKey[u.Key] = ref
	}
	u.Ref = ref
}

// Write implements ingest.Sink.
func (s *Sink) Write(ctx context.Context, b *arrival.Batch) (arrival.Result, error) {
	var result arrival.Result
	if err := ctx.Err(); err != nil {
		return result, err
	}
	if s.Err != nil {
		return result, s.Err
	}
	check(b)
	result = s.store(b)
	if s.OnWrite != nil {
		s.OnWrite()
	}
	return result, nil
}

func (s *Sink) store(b *arrival.Batch) (result arrival.Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes++
	for _, r := range b.Rows {
		for i := r.First; i < r.First+r.Count && r.Ref != 0; i++ {
			if s.future(r.Ref, b.Times[i], &result) {
				continue
			}
			v := Sample{TimeMillis: b.Times[i], Bits: b.Values[i]}
			if len(b.Starts) > 0 {
				v.StartMillis = b.Starts[i]
			}
			at := s.at(r.Ref)
			at.Samples = append(at.Samples, v)
			result.Samples++
		}
	}
	for _, h := range b.Histograms {
		if ref := b.Rows[h.Row].Ref; ref != 0 && !s.future(ref, h.TimeMillis, &result) {
			at := s.at(ref)
			h.Row = 0
			at.Histograms = append(at.Histograms, h)
			result.Histograms++
		}
	}
	for _, e := range b.Exemplars {
		if ref := b.Rows[e.Row].Ref; ref != 0 && !s.future(ref, e.Ts, &result) {
			at := s.at(ref)
			at.Exemplars = append(at.Exemplars, e.Exemplar)
			result.Exemplars++
		}
	}
	for _, m := range b.Metadata {
		s.families[m.Family] = m.Metadata
		result.Metadata++
	}
	return result
}

func (s *Sink) future(ref storage.SeriesRef, millis int64, result *arrival.Result) bool {
	if s.FutureMillis == 0 || millis <= s.FutureMillis {
		return false
	}
	result.Rejected[arrival.ReasonFuture]++
	if result.Example == "" {
		result.Example = arrival.ExampleOf(arrival.ReasonFuture, s.labels[ref-1], millis)
	}
	return true
}

func (s *Sink) at(ref storage.SeriesRef) *Series {
	if int(ref) > len(s.labels) {
		panic(fmt.Sprintf("no series %d", ref))
	}
	at := s.series[ref]
	if at == nil {
		at = new(Series)
		s.series[ref] = at
	}
	return at
}

// check panics where a batch has not the shape that an archive relies on.
func check(b *arrival.Batch) {
	next := uint32(0)
	for i, r := range b.Rows {
		if r.First != next {
			panic(fmt.Sprintf("row %d starts at sample %d, want %d", i, r.First, next))
		}
		next += r.Count
	}
	if int(next) != len(b.Times) || len(b.Times) != len(b.Values) || len(b.Starts) != 0 && len(b.Starts) != len(b.Times) {
		panic(fmt.Sprintf("%d samples in rows, %d times, %d values, %d starts", next, len(b.Times), len(b.Values), len(b.Starts)))
	}
	for _, h := range b.Histograms {
		if int(h.Row) >= len(b.Rows) || (h.Int == nil) == (h.Float == nil) {
			panic("a histogram of no row, or not of one kind")
		}
	}
	for _, e := range b.Exemplars {
		if int(e.Row) >= len(b.Rows) {
			panic("an exemplar of no row")
		}
	}
}
