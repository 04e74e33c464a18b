package canary_test

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/stretchr/testify/require"

	"varve/arrival"
	"varve/canary"
)

// sample is what a memory keeps.
type sample struct {
	t int64
	v float64
	h *histogram.Histogram
	f *histogram.FloatHistogram
}

// memory is an archive of maps, which may be told to lie. It is a canary.Writer, Reader and Past.
type memory struct {
	refs   map[arrival.Key]storage.SeriesRef
	sets   []labels.Labels
	data   [][]sample
	fail   error
	reject bool
	// refuse refuses histograms one by one.
	refuse bool
	// forwarded counts batches that outputs would send on.
	forwarded int
	// lie changes what is read.
	lie     func(ls labels.Labels, s []sample) []sample
	unread  error
	damage  error
	days    []canary.Day
	since   int64
	deletes []canary.Delete
	// aggregate answers queries.
	aggregate func(query string, at time.Time, resolution time.Duration) (promql.Vector, bool, error)
	reads     int
}

func newMemory() *memory { return &memory{refs: map[arrival.Key]storage.SeriesRef{}} }

func (*memory) Seed() arrival.Seed { return 7 }

func (m *memory) Lookup(rows []arrival.Row) (unknown int) {
	for i := range rows {
		if rows[i].Ref = m.refs[rows[i].Key]; rows[i].Ref == 0 {
			unknown++
		}
	}
	return unknown
}

func (m *memory) Resolve(_ context.Context, unknown []arrival.Unknown) error {
	for i := range unknown {
		if m.reject {
			unknown[i].Refused = arrival.ReasonSeriesLimit
			continue
		}
		m.sets, m.data = append(m.sets, unknown[i].Labels), append(m.data, nil)
		unknown[i].Ref = storage.SeriesRef(len(m.sets))
		m.refs[unknown[i].Key] = unknown[i].Ref
	}
	return nil
}

func (m *memory) Write(_ context.Context, b *arrival.Batch) (r arrival.Result, err error) {
	if m.fail != nil {
		return r, m.fail
	}
	if !b.Unforwarded {
		m.forwarded++
	}
	for _, row := range b.Rows {
		for k := row.First; k < row.First+row.Count; k++ {
			m.data[row.Ref-1] = append(m.data[row.Ref-1], sample{t: b.Times[k], v: math.Float64frombits(b.Values[k])})
			r.Samples++
		}
	}
	for _, h := range b.Histograms {
		if m.refuse {
			r.Rejected[arrival.ReasonInvalidHistogram]++
			continue
		}
		ref := b.Rows[h.Row].Ref
		m.data[ref-1] = append(m.data[ref-1], sample{t: h.TimeMillis, h: h.Int, f: h.Float})
		r.Histograms++
	}
	return r, nil
}

func (m *memory) Days() ([]canary.Day, error)                           { return m.days, nil }
func (m *memory) KeptSince(labels.Labels, time.Duration) (int64, error) { return m.since, nil }
func (m *memory) Deletes(labels.Labels, int64, int64) ([]canary.Delete, error) {
	return m.deletes, nil
}

func (m *memory) Aggregate(_ context.Context, query string, at time.Time, resolution time.Duration) (promql.Vector, bool, error) {
	if m.aggregate == nil {
		return nil, false, nil
	}
	return m.aggregate(query, at, resolution)
}

var errDamage = errors.New("damage")

func (m *memory) Querier(mint, maxt int64) (storage.Querier, error) {
	m.reads++
	if m.damage != nil && mint >= noon.UnixMilli()-7_200_000 && maxt < noon.UnixMilli() {
		return nil, m.damage
	}
	return memoryQuerier{m: m, mint: mint, maxt: maxt}, m.unread
}

type memoryQuerier struct {
	storage.Querier
	m          *memory
	mint, maxt int64
}

func (memoryQuerier) Close() error { return nil }

func (q memoryQuerier) Select(_ context.Context, _ bool, _ *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	var all []storage.Series
	for i, ls := range q.m.sets {
		if !labels.Selector(matchers).Matches(ls) {
			continue
		}
		samples := q.m.data[i]
		if q.m.lie != nil {
			samples = q.m.lie(ls, samples)
		}
		var within []sample
		for _, s := range samples {
			if s.t >= q.mint && s.t <= q.maxt {
				within = append(within, s)
			}
		}
		if len(within) > 0 {
			all = append(all, &storage.SeriesEntry{Lset: ls, SampleIteratorFn: func(chunkenc.Iterator) chunkenc.Iterator {
				return &memoryIterator{samples: within, at: -1}
			}})
		}
	}
	return &memorySet{all: all}
}

type memorySet struct {
	all []storage.Series
	at  storage.Series
}

func (s *memorySet) Next() bool {
	if len(s.all) == 0 {
		return false
	}
	s.at, s.all = s.all[0], s.all[1:]
	return true
}
func (s *memorySet) At() storage.Series              { return s.at }
func (*memorySet) Err() error                        { return nil }
func (*memorySet) Warnings() annotations.Annotations { return nil }

type memoryIterator struct {
	chunkenc.Iterator
	samples []sample
	at      int
}

func (i *memoryIterator) Next() chunkenc.ValueType {
	if i.at++; i.at >= len(i.samples) {
		return chunkenc.ValNone
	}
	switch s := &i.samples[i.at]; {
	case s.h != nil:
		return chunkenc.ValHistogram
	case s.f != nil:
		return chunkenc.ValFloatHistogram
	}
	return chunkenc.ValFloat
}
func (i *memoryIterator) At() (int64, float64) { return i.samples[i.at].t, i.samples[i.at].v }
func (i *memoryIterator) AtT() int64           { return i.samples[i.at].t }
func (*memoryIterator) Err() error             { return nil }
func (i *memoryIterator) AtHistogram(*histogram.Histogram) (int64, *histogram.Histogram) {
	return i.samples[i.at].t, i.samples[i.at].h
}

func (i *memoryIterator) AtFloatHistogram(*histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	return i.samples[i.at].t, i.samples[i.at].f
}

// bird is a canary over a memory, with a clock that moves by a minute a step.
type bird struct {
	*canary.Canary
	t   *testing.T
	m   *memory
	reg *prometheus.Registry
	now time.Time
}

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func newBird(t *testing.T, m *memory, now time.Time) *bird {
	b := &bird{t: t, m: m, reg: prometheus.NewRegistry(), now: now}
	b.Canary = canary.New(canary.Options{
		Writer: m, Reader: m, Past: m, Interval: time.Minute, CutAge: 20 * time.Minute, Resolutions: []time.Duration{time.Hour},
		Now: func() time.Time { return b.now }, Registerer: b.reg, Damaged: func(err error) bool { return errors.Is(err, errDamage) },
	})
	return b
}

func (b *bird) steps(n int) {
	for range n {
		b.Step(b.t.Context())
		b.now = b.now.Add(time.Minute)
	}
}

// value is that of a metric, summed over its labels unless one is named.
func (b *bird) value(name string, label string) float64 {
	families, err := b.reg.Gather()
	require.NoError(b.t, err)
	sum := 0.0
	for _, f := range families {
		for _, m := range f.Metric {
			if f.GetName() == name && (label == "" || m.Label[0].GetValue() == label) {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

func (b *bird) mismatches() float64 { return b.value("varve_canary_mismatches_total", "") }

const rounds = 9 // samples of one

// TestHonestMemory shows that what is written is read back at once and when it is cut, counted, and that nothing is amiss: with
// time switched off, times without a successful write and a round twice in between.
func TestHonestMemory(t *testing.T) {
	m := newMemory()
	b := newBird(t, m, noon)
	b.steps(60)
	require.Equal(t, 60.0*rounds, b.value("varve_canary_written_samples_total", ""))
	require.Equal(t, 60.0*rounds, b.value("varve_canary_checked_samples_total", "fresh"))
	require.Equal(t, 40.0*rounds, b.value("varve_canary_checked_samples_total", "cut"))
	require.Zero(t, b.mismatches())
	m.fail = &arrival.Unavailable{Reason: "disk_full", Err: errors.New("full")}
	b.steps(10)
	require.Equal(t, 10.0, b.value("varve_canary_failures_total", "write"))
	m.fail = nil
	b.steps(5)
	b.now = b.now.Add(-time.Minute)
	b.steps(1) // A round that there is.
	b.now = b.now.Add(3 * time.Hour)
	b.steps(30)
	require.Equal(t, 95.0*rounds, b.value("varve_canary_written_samples_total", ""))

	again := newBird(t, m, b.now.Add(24*time.Hour))
	again.steps(30)
	require.Zero(t, b.mismatches()+again.mismatches())
	require.Equal(t, 30.0*rounds, again.value("varve_canary_checked_samples_total", "restart"))
	require.Zero(t, m.forwarded)
	require.Zero(t, b.value("varve_canary_failures_total", "read")+again.value("varve_canary_failures_total", "read"))
	problems, err := testutil.GatherAndLint(b.reg)
	require.NoError(t, err)
	require.Empty(t, problems)
}

// TestLies shows that each kind of wrong answer makes the metric rise: bits, a sample that is gone, a kind, a
// part of a histogram, a round that is gone.
func TestLies(t *testing.T) {
	of := func(name string, f func(s []sample) []sample) func(labels.Labels, []sample) []sample {
		return func(ls labels.Labels, s []sample) []sample {
			if ls.Get("pattern") != name {
				return s
			}
			return f(append([]sample(nil), s...))
		}
	}
	last := func(f func(s *sample)) func([]sample) []sample {
		return func(s []sample) []sample {
			f(&s[len(s)-1])
			return s
		}
	}
	flip := last(func(s *sample) { s.v = math.Float64frombits(math.Float64bits(s.v) ^ 1) })
	drop := func(s []sample) []sample { return s[:len(s)-1] }
	for name, test := range map[string]struct {
		lie     func(labels.Labels, []sample) []sample
		missing float64
		count   float64
	}{
		"a bit":          {of("bits", flip), 0, 1},
		"a NaN's":        {of("awkward", last(func(s *sample) { s.v = math.NaN() })), 0, 1},
		"one is gone":    {of("steps", drop), 1, 1},
		"histogram gone": {of("histogram", drop), 1, 1},
		"all are gone":   {func(_ labels.Labels, s []sample) []sample { return s[:len(s)-1] }, rounds, rounds},
		"a kind":         {of("constant", last(func(s *sample) { s.h = &histogram.Histogram{} })), 0, 1},
		"a histogram's sum": {of("histogram", last(func(s *sample) {
			s.h = s.h.Copy()
			s.h.Sum++
		})), 0, 1},
		"a bucket": {of("float_histogram", last(func(s *sample) {
			s.f = s.f.Copy()
			s.f.PositiveBuckets[0] = math.Nextafter(s.f.PositiveBuckets[0], 1000)
		})), 0, 1},
		"what it vouches for": {of("previous", last(func(s *sample) { s.v = 0.5 })), 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMemory()
			b := newBird(t, m, noon)
			b.steps(5)
			require.Zero(t, b.mismatches())
			m.lie = test.lie
			b.steps(1)
			require.Equal(t, test.count, b.value("varve_canary_mismatches_total", "fresh"))
			require.Equal(t, test.missing, b.value("varve_canary_missing_samples_total", "fresh"))
		})
	}
}

// gone lies by leaving out the samples from one time to another, both inclusive.
func gone(from, to time.Time) func(labels.Labels, []sample) []sample {
	return func(_ labels.Labels, s []sample) (kept []sample) {
		for _, one := range s {
			if one.t < from.UnixMilli() || one.t > to.UnixMilli() {
				kept = append(kept, one)
			}
		}
		return kept
	}
}

// TestWholeRoundsLost shows that rounds that are gone whole are missed, by the process that wrote them, and by the next
// one through the round that vouches for them; and that they are not where retention or a delete explains it, or where
// history begins.
func TestWholeRoundsLost(t *testing.T) {
	m := newMemory()
	b := newBird(t, m, noon)
	b.steps(40)
	end := b.now
	lost := gone(noon.Add(10*time.Minute), noon.Add(12*time.Minute))
	look := func(b *bird, from, to time.Time) (mismatches float64) {
		was := b.mismatches()
		require.True(t, b.Look(t.Context(), "old", from.UnixMilli()-1, to.UnixMilli()))
		return b.mismatches() - was
	}
	require.Zero(t, look(b, noon, end))
	m.lie = lost
	require.Equal(t, 3.0*rounds, look(b, noon, end))

	next := newBird(t, m, end)
	next.steps(1)
	require.Equal(t, 1.0*rounds, look(next, noon, end), "the last of the three is vouched for")
	require.Equal(t, 1.0, look(next, noon.Add(13*time.Minute), end), "also from outside of what was read")
	require.Zero(t, look(next, noon.Add(14*time.Minute), end))

	m.lie = gone(noon.Add(39*time.Minute), noon.Add(39*time.Minute))
	require.Equal(t, 1.0, look(next, end, next.now), "what was last before a restart is vouched for after it")
	m.lie = lost

	m.deletes = []canary.Delete{{Created: noon}}
	require.Zero(t, look(b, noon, end)+look(next, noon, end), "a delete explains it")
	m.deletes[0].Undone = end.Add(-time.Hour)
	require.NotZero(t, look(b, noon, end), "one that was undone does not")
	m.deletes[0].Undone = next.now.Add(time.Hour)
	require.Zero(t, look(b, noon, end), "unless that was meanwhile")
	m.deletes = nil

	m.lie = gone(noon, noon.Add(12*time.Minute))
	require.NotZero(t, look(b, noon, end))
	require.Zero(t, look(next, noon, end), "history begins there")
	m.since = noon.Add(20 * time.Minute).UnixMilli()
	require.Zero(t, look(b, noon, end), "retention explains it")
	m.since = 0
	require.Zero(t, look(b, noon, end), "also when the rule was taken back")
}

// TestFailures shows that what can't be read or written is counted as that and not as a mismatch, that nothing is written before the
// last round is known, and that what is refused counts as a failure.
func TestFailures(t *testing.T) {
	m := newMemory()
	m.unread = errors.New("no view")
	b := newBird(t, m, noon)
	b.steps(3)
	require.Equal(t, 3.0, b.value("varve_canary_failures_total", "read"))
	require.Empty(t, m.sets)
	m.unread, m.reject = nil, true
	b.steps(2)
	require.Equal(t, 2.0, b.value("varve_canary_failures_total", "write"))
	m.reject, m.refuse = false, true
	b.steps(1)
	require.Equal(t, 3.0, b.value("varve_canary_failures_total", "write"))
	m.sets, m.data, m.refs, m.refuse = nil, nil, map[arrival.Key]storage.SeriesRef{}, false
	b.steps(3)
	require.Zero(t, b.mismatches())
	require.Equal(t, 3.0*rounds, b.value("varve_canary_written_samples_total", ""))
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	m.fail, m.unread = context.Canceled, context.Canceled
	b.Step(cancelled)
	require.Equal(t, 3.0, b.value("varve_canary_failures_total", "read"))
	require.Equal(t, 3.0, b.value("varve_canary_failures_total", "write"))
}

// TestDamage shows that damage counts as a mismatch of the age that was looked at, and is not asked for again and again, while another
// failure is tried a few times.
func TestDamage(t *testing.T) {
	for _, damaged := range []bool{true, false} {
		m := newMemory()
		b := newBird(t, m, noon.Add(-12*time.Hour))
		b.steps(12 * 60)
		b.now = noon.Add(14 * time.Hour)
		m.days = []canary.Day{{StartMillis: noon.Add(-12 * time.Hour).UnixMilli(), Sealed: b.now}}
		m.damage = errors.New("busy")
		if damaged {
			m.damage = errDamage
		}
		b.steps(24)
		if damaged {
			require.NotZero(t, b.value("varve_canary_mismatches_total", "sealed"))
			require.Zero(t, b.value("varve_canary_failures_total", "read"))
			continue
		}
		require.Zero(t, b.mismatches())
		require.NotZero(t, b.value("varve_canary_failures_total", "read"))
		m.damage = nil
		was := b.value("varve_canary_checked_samples_total", "sealed")
		b.steps(2)
		require.Equal(t, was+2*60*rounds, b.value("varve_canary_checked_samples_total", "sealed"), "the two hours")
	}
}

// TestAggregates shows that wrong aggregates of a day are found, with and without the samples they are of, and that answers that are not
// from the buckets alone are passed over.
func TestAggregates(t *testing.T) {
	m := newMemory()
	b := newBird(t, m, noon.Add(-12*time.Hour))
	b.steps(100)
	m.days = []canary.Day{{StartMillis: noon.Add(-12 * time.Hour).UnixMilli(), Sealed: noon.Add(14 * time.Hour), Rolled: true}}
	count := 99.0 // The first round is of the bucket that ends with the day.
	m.aggregate = func(query string, _ time.Time, resolution time.Duration) (promql.Vector, bool, error) {
		require.Equal(t, time.Hour, resolution)
		if !strings.HasPrefix(query, "count_over_time(varve_canary{") {
			return nil, resolution != time.Hour, nil
		}
		return nil, false, nil
	}
	b.steps(1)
	require.Zero(t, b.mismatches()+b.value("varve_canary_checked_samples_total", "rolled_up"))
	answers := func(want float64) func(string, time.Time, time.Duration) (promql.Vector, bool, error) {
		return func(query string, _ time.Time, _ time.Duration) (promql.Vector, bool, error) {
			if !strings.HasPrefix(query, "count_over_time(") && !strings.HasPrefix(query, "sum_over_time(") {
				return nil, true, nil
			}
			return promql.Vector{{F: want, Metric: labels.FromStrings("pattern", "constant")}}, true, nil
		}
	}
	m.since = noon.Add(-12*time.Hour).UnixMilli() + 1
	m.aggregate = answers(count)
	b.steps(1)
	require.Zero(t, b.value("varve_canary_checked_samples_total", "rolled_up"), "the buckets are past their age")

	fresh := newBird(t, m, b.now)
	m.since = 0
	fresh.steps(1)
	require.NotZero(t, fresh.value("varve_canary_mismatches_total", "rolled_up"), "most answers are missing")
}
