package intake_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/stretchr/testify/require"

	"varve/digest"
	"varve/intake"
)

// samples are by labels and time; later puts win.
type samples map[string]map[int64]float64

func (s samples) put(name string, at int64, v float64) {
	if s[name] == nil {
		s[name] = map[int64]float64{}
	}
	s[name][at] = v
}

// fakeSource holds chunks of floats; handles are places in series.
type fakeSource struct {
	series []fakeSeries
	opened atomic.Int32
	// again makes that many reads of chunks fail with ErrReadAgain.
	again atomic.Int32
	open  atomic.Int32
}

type fakeSeries struct {
	labels labels.Labels
	chunks []intake.Chunk
}

func chunkOf(t testing.TB, times []int64, values []float64) intake.Chunk {
	c := chunkenc.NewXORChunk()
	app, err := c.Appender()
	require.NoError(t, err)
	for i := range times {
		app.Append(0, times[i], values[i])
	}
	return intake.Chunk{Chunk: c, MinMillis: times[0], MaxMillis: times[len(times)-1]}
}

func (s *fakeSource) Span() (mint, maxt int64, ok bool) {
	mint, maxt = math.MaxInt64, math.MinInt64
	for _, x := range s.series {
		for _, c := range x.chunks {
			mint, maxt = min(mint, c.MinMillis), max(maxt, c.MaxMillis)
		}
	}
	return mint, maxt, len(s.series) > 0
}
func (s *fakeSource) Size() (uint64, uint64) { return 0, 1000 }
func (s *fakeSource) Identity(int64) string  { return "fake" }
func (s *fakeSource) Close() error           { return nil }
func (s *fakeSource) OpenDay(ctx context.Context, start int64) (intake.SourceDay, error) {
	s.opened.Add(1)
	s.open.Add(1)
	return &fakeSourceDay{s, start}, ctx.Err()
}

type fakeSourceDay struct {
	s     *fakeSource
	start int64
}

func (d *fakeSourceDay) overlaps(c intake.Chunk) bool {
	return c.MaxMillis >= d.start && c.MinMillis < d.start+intake.DayMillis
}

func (d *fakeSourceDay) Series(_ context.Context, f func(labels.Labels, uint64) error) error {
	for i, x := range d.s.series {
		if slices.ContainsFunc(x.chunks, d.overlaps) {
			if err := f(x.labels, uint64(i)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *fakeSourceDay) Chunks(ctx context.Context, handle uint64, dst []intake.Chunk) ([]intake.Chunk, error) {
	if d.s.again.Add(-1) >= 0 {
		return dst, intake.ErrReadAgain
	}
	for _, c := range d.s.series[handle].chunks {
		if d.overlaps(c) {
			dst = append(dst, c)
		}
	}
	return dst, ctx.Err()
}
func (d *fakeSourceDay) Close() error { d.s.open.Add(-1); return nil }

// fakeTarget keeps samples in memory, decoded in the most plain way.
type fakeTarget struct {
	mu     sync.Mutex
	refs   map[string]uint64
	names  []labels.Labels
	stored samples
	taken  map[int64]bool
	busy   int // how many more OpenDays are
	// harm changes what is on a day before it is committed or written; live is called after each write.
	harm    func(samples)
	live    func(samples)
	commits int
	// expires is a series of which nothing is kept.
	expires string
	writes  int
	stop    func(call string) error
}

func newFakeTarget() *fakeTarget {
	return &fakeTarget{refs: map[string]uint64{}, stored: samples{}, taken: map[int64]bool{}}
}

func (t *fakeTarget) called(name string) error {
	if t.stop != nil {
		return t.stop(name)
	}
	return nil
}

// metricOf is so that the order is another one than that of refs.
func metricOf(ls labels.Labels) uint32 { return 100 - uint32(ls.Get(model.MetricNameLabel)[0]%50) }

func (t *fakeTarget) Resolve(_ context.Context, series []intake.Series) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.called("resolve"); err != nil {
		return err
	}
	for i := range series {
		ls := series[i].Labels
		if ls.Has("refuse") {
			series[i].Refused = "not wanted"
			continue
		}
		if t.refs[ls.String()] == 0 {
			t.names = append(t.names, ls)
			t.refs[ls.String()] = uint64(len(t.names))
		}
		series[i].Ref, series[i].Metric = t.refs[ls.String()], metricOf(ls)
	}
	return nil
}

func (t *fakeTarget) OpenDay(_ context.Context, start int64) (intake.Day, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.called("open"); err != nil {
		return nil, err
	}
	if t.busy > 0 {
		t.busy--
		return nil, fmt.Errorf("sealing: %w", intake.ErrBusy)
	}
	if t.taken[start] {
		return nil, intake.ErrDayTaken
	}
	return &fakeDay{t: t, start: start, got: samples{}}, nil
}

type fakeDay struct {
	t     *fakeTarget
	start int64
	got   samples
	order []uint64
	last  [2]uint64
}

func (d *fakeDay) Add(ref uint64, chunks []intake.Chunk) error {
	d.t.mu.Lock()
	defer d.t.mu.Unlock()
	ls := d.t.names[ref-1]
	place := [2]uint64{uint64(metricOf(ls)), ref}
	if slices.Compare(place[:], d.last[:]) <= 0 {
		return errors.New("out of order")
	}
	d.last = place
	d.order = append(d.order, ref)
	decode(d.got, ls.String(), chunks, d.start, d.start+intake.DayMillis)
	return d.t.called("add")
}

func decode(into samples, name string, chunks []intake.Chunk, from, to int64) {
	for _, c := range chunks {
		it := c.Chunk.Iterator(nil)
	next:
		for it.Next() != chunkenc.ValNone {
			at, v := it.At()
			for _, x := range c.Deleted {
				if at >= x.Mint && at <= x.Maxt {
					continue next
				}
			}
			if at >= from && at < to {
				into.put(name, at, v)
			}
		}
	}
}

func (d *fakeDay) Commit(context.Context) (intake.DayReport, error) {
	d.t.mu.Lock()
	defer d.t.mu.Unlock()
	if err := d.t.called("commit"); err != nil {
		return intake.DayReport{}, err
	}
	d.t.commits++
	if d.t.harm != nil {
		d.t.harm(d.got)
	}
	expired := uint64(len(d.got[d.t.expires]))
	delete(d.got, d.t.expires)
	for name, of := range d.got {
		for at, v := range of {
			d.t.stored.put(name, at, v)
		}
	}
	d.t.taken[d.start] = true
	return intake.DayReport{Bytes: 10, Expired: expired}, nil
}

func (d *fakeDay) Digests(_ context.Context, each func(uint64, digest.Series) error) error {
	d.t.mu.Lock()
	defer d.t.mu.Unlock()
	for _, ref := range d.order {
		var s digest.Series
		for at, v := range d.got[d.t.names[ref-1].String()] {
			s.Float(at, v)
		}
		if s.Samples == 0 {
			continue
		}
		if err := errors.Join(d.t.called("digest"), each(ref, s)); err != nil {
			return err
		}
	}
	return nil
}
func (d *fakeDay) Close() error { return nil }

func (t *fakeTarget) Write(_ context.Context, all []intake.SeriesSamples) (r intake.WriteReport, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.called("write"); err != nil {
		return r, err
	}
	got := samples{}
	for _, s := range all {
		decode(got, s.Labels.String(), s.Chunks, math.MinInt64, math.MaxInt64)
	}
	if t.harm != nil {
		t.harm(got)
	}
	t.writes++
	if n := uint64(len(got[t.expires])); n > 0 {
		r.Refused, r.Reasons = n, map[string]uint64{"out_of_retention": n}
		delete(got, t.expires)
	}
	for name, of := range got {
		for at, v := range of {
			t.stored.put(name, at, v)
			r.Samples++
		}
	}
	if t.live != nil {
		t.live(t.stored)
	}
	return r, nil
}

func (t *fakeTarget) Querier(mint, maxt int64) (storage.Querier, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return &fakeQuerier{t: t, mint: mint, maxt: maxt}, t.called("query")
}

type fakeQuerier struct {
	storage.LabelQuerier
	t          *fakeTarget
	mint, maxt int64
}

func (q *fakeQuerier) Select(_ context.Context, _ bool, _ *storage.SelectHints, ms ...*labels.Matcher) storage.SeriesSet {
	q.t.mu.Lock()
	defer q.t.mu.Unlock()
	var found []storage.Series
	for _, ls := range q.t.names {
		if !slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return !m.Matches(ls.Get(m.Name)) }) {
			of := q.t.stored[ls.String()]
			times := slices.Sorted(maps.Keys(of))
			var fs []fSample
			for _, at := range times {
				if at >= q.mint && at <= q.maxt {
					fs = append(fs, fSample{at, of[at]})
				}
			}
			found = append(found, listSeries(ls, fs))
		}
	}
	return &fakeSet{found, -1}
}
func (q *fakeQuerier) Close() error { return nil }

type fSample struct {
	at int64
	v  float64
}

func listSeries(ls labels.Labels, fs []fSample) storage.Series {
	c := chunkenc.NewXORChunk()
	app, _ := c.Appender()
	for _, f := range fs {
		app.Append(0, f.at, f.v)
	}
	return &storage.SeriesEntry{Lset: ls, SampleIteratorFn: func(chunkenc.Iterator) chunkenc.Iterator { return c.Iterator(nil) }}
}

type fakeSet struct {
	all []storage.Series
	at  int
}

func (s *fakeSet) Next() bool                        { s.at++; return s.at < len(s.all) }
func (s *fakeSet) At() storage.Series                { return s.all[s.at] }
func (s *fakeSet) Err() error                        { return nil }
func (s *fakeSet) Warnings() annotations.Annotations { return nil }

// randomSource makes series with chunks that overlap, span midnights and have deleted stretches, and what they come to.
func randomSource(t testing.TB, seed uint64, days int) (*fakeSource, samples) {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 2))
	s, want := &fakeSource{}, samples{}
	for i := range 40 {
		ls := labels.FromStrings(model.MetricNameLabel, string(rune('a'+i%5)), "i", fmt.Sprint(i%30))
		x := fakeSeries{labels: ls}
		for range 1 + random.IntN(8) {
			at := begin + random.Int64N(int64(days)*intake.DayMillis)
			var times []int64
			var values []float64
			for range 1 + random.IntN(100) {
				if at >= begin+int64(days)*intake.DayMillis {
					break
				}
				times, values = append(times, at), append(values, random.NormFloat64())
				at += 60_000 * (1 + random.Int64N(10))
				at -= at % 60_000
			}
			c := chunkOf(t, times, values)
			if random.IntN(4) == 0 {
				mid := times[random.IntN(len(times))]
				c.Deleted = c.Deleted.Add(interval(mid, mid+600_000)).Add(interval(mid+2_000_000, mid+2_600_000))
			}
			x.chunks = append(x.chunks, c)
		}
		s.series = append(s.series, x)
	}
	for _, x := range s.series {
		decode(want, x.labels.String(), x.chunks, math.MinInt64, math.MaxInt64)
	}
	return s, want
}

func count(s samples) (n uint64) {
	for _, of := range s {
		n += uint64(len(of))
	}
	return n
}

func first(s samples) (name string, at int64) {
	name = slices.MinFunc(slices.Collect(maps.Keys(s)), cmp.Compare[string])
	return name, slices.Min(slices.Collect(maps.Keys(s[name])))
}
