package ingest_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/model/relabel"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"varve/arrival"
	"varve/ingest"
	"varve/ingest/ingesttest"
)

// clock is one that a test turns.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Unix(1_700_000_000, 0)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func (c *clock) millis() int64 { return c.Now().UnixMilli() }

// one is a series with one sample, as an input has it.
type one struct {
	labels labels.Labels
	millis int64
	bits   uint64
}

func sample(ls labels.Labels, millis int64, v float64) one {
	return one{ls, millis, math.Float64bits(v)}
}

// batchOf looks the series up as an input does, and returns what is to be written. A
// row is without a ref where the sink refused it; refused has the reasons.
func batchOf(ctx context.Context, sink ingest.Sink, all ...one) (b *arrival.Batch, refused arrival.Rejected, err error) {
	b = new(arrival.Batch)
	for i, s := range all {
		key := sink.Seed().Hash(arrival.AppendLabels(nil, s.labels))
		b.Rows = append(b.Rows, arrival.Row{Key: key, First: uint32(i), Count: 1})
		b.Times, b.Values = append(b.Times, s.millis), append(b.Values, s.bits)
	}
	missing := sink.Lookup(b.Rows)
	var unknown []arrival.Unknown
	var at []int
	for i := range b.Rows {
		if b.Rows[i].Ref == 0 {
			unknown, at = append(unknown, arrival.Unknown{Key: b.Rows[i].Key, Labels: all[i].labels}), append(at, i)
		}
	}
	if missing != len(unknown) {
		return nil, refused, fmt.Errorf("%d rows are missing and Lookup says %d", len(unknown), missing)
	}
	if len(unknown) > 0 {
		if err := sink.Resolve(ctx, unknown); err != nil {
			return nil, refused, err
		}
	}
	for j, i := range at {
		if b.Rows[i].Ref = unknown[j].Ref; b.Rows[i].Ref == 0 {
			refused[unknown[j].Refused]++
		}
	}
	return b, refused, nil
}

// send writes as an input does. What was refused is in Rejected.
func send(ctx context.Context, sink ingest.Sink, all ...one) (arrival.Result, error) {
	b, refused, err := batchOf(ctx, sink, all...)
	if err != nil {
		return arrival.Result{}, err
	}
	res, err := sink.Write(ctx, b)
	res.Rejected.Add(&refused)
	return res, err
}

func newDoor(t testing.TB, o ingest.DoorOptions) *ingest.Door {
	if o.Name == "" {
		o.Name = "test"
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	d, err := ingest.NewDoor(o)
	require.NoError(t, err)
	return d
}

func selectors(t testing.TB, texts ...string) [][]*labels.Matcher {
	var out [][]*labels.Matcher
	for _, text := range texts {
		m, err := parser.NewParser(parser.Options{}).ParseMetricSelector(text)
		require.NoError(t, err)
		out = append(out, m)
	}
	return out
}

// rule is a rule of relabelling with upstream's defaults where a text is empty.
func rule(action relabel.Action, regex, target, replacement string, source ...model.LabelName) *relabel.Config {
	c := relabel.DefaultRelabelConfig
	c.Action, c.TargetLabel, c.SourceLabels = action, target, source
	if regex != "" {
		c.Regex = relabel.MustNewRegexp(regex)
	}
	if replacement != "" {
		c.Replacement = replacement
	}
	return &c
}

func stored(sink *ingesttest.Sink) map[string]int {
	out := map[string]int{}
	for name, s := range sink.Written() {
		out[name] = len(s.Samples)
	}
	return out
}

// TestFilters shows that filters choose as PromQL does, the table of empty matchers
// included, and that what they leave out is counted and not stored.
func TestFilters(t *testing.T) {
	has := labels.FromStrings("__name__", "m", "l", "x")
	lacks := labels.FromStrings("__name__", "m")
	for _, c := range []struct {
		include, exclude []string
		has, lacks       bool
	}{
		{nil, nil, true, true},
		{[]string{`{__name__="m",l="x"}`}, nil, true, false},
		{[]string{`{__name__="m",l=""}`}, nil, false, true},
		{[]string{`{__name__="m",l=~".*"}`}, nil, true, true},
		{[]string{`{__name__="m",l!="x"}`}, nil, false, true},
		{[]string{`{__name__="m",l!~"x"}`}, nil, false, true},
		{[]string{`{__name__="m",l!=""}`}, nil, true, false},
		{[]string{`{__name__="m",l!~".*"}`}, nil, false, false},
		{[]string{`{__name__="m",l=~"x|y"}`}, nil, true, false},
		{[]string{`{__name__="m",l=~"a"}`, `{l="x"}`}, nil, true, false},
		{nil, []string{`{l="x"}`}, false, true},
		{nil, []string{`{__name__="m",l=""}`}, true, false},
		{[]string{`m`}, []string{`{__name__="m",l!=""}`}, false, true},
		{[]string{`other`}, nil, false, false},
	} {
		inner := ingesttest.NewSink()
		d := newDoor(t, ingest.DoorOptions{Sink: inner, Rules: ingest.Rules{Include: selectors(t, c.include...), Exclude: selectors(t, c.exclude...)}})
		for round := range 2 { // known the second time
			res, err := send(t.Context(), d, sample(has, int64(round), 1), sample(lacks, int64(round), 1))
			require.NoError(t, err)
			dropped := 0
			for _, kept := range []bool{c.has, c.lacks} {
				if !kept {
					dropped++
				}
			}
			require.Equal(t, 2-dropped, res.Samples, "%v", c)
			require.Equal(t, dropped, res.Dropped[arrival.ReasonFiltered], "%v", c)
			require.Equal(t, dropped, res.DroppedSamples)
			require.Zero(t, res.Rejected.Total())
		}
		require.Equal(t, c.has, stored(inner)[has.String()] == 2, "%v", c)
		require.Equal(t, c.lacks, stored(inner)[lacks.String()] == 2, "%v", c)
		if !c.has && !c.lacks {
			require.Zero(t, inner.Writes(), "nothing is left to write")
		}
	}
}

// TestRelabelling shows external labels, relabelling behind them, a series that
// relabelling drops, and two that it makes invalid.
func TestRelabelling(t *testing.T) {
	inner := ingesttest.NewSink()
	d := newDoor(t, ingest.DoorOptions{Sink: inner, Rules: ingest.Rules{
		External: labels.FromStrings("dc", "east", "job", "none"),
		Relabel: []*relabel.Config{
			rule(relabel.Drop, "drop_.*", "", "", "__name__"),
			rule(relabel.Replace, "both;(.*)", "seen", "", "__name__", "dc"),
			rule(relabel.LabelDrop, "noise", "", ""),
			rule(relabel.Replace, "nameless(.*)", "__name__", "", "__name__"),
			rule(relabel.Replace, "long", "huge", "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "__name__"),
		},
	}, Limits: ingest.Limits{ValueBytesMax: 20}})
	for range 2 {
		res, err := send(t.Context(), d,
			sample(labels.FromStrings("__name__", "both", "noise", "1"), 1, 1),
			sample(labels.FromStrings("__name__", "own", "job", "mine", "dc", "west"), 1, 1),
			sample(labels.FromStrings("__name__", "drop_this"), 1, 1),
			sample(labels.FromStrings("__name__", "nameless"), 1, 1),
			sample(labels.FromStrings("__name__", "long"), 1, 1))
		require.NoError(t, err)
		require.Equal(t, 2, res.Samples)
		require.Equal(t, 1, res.Dropped[arrival.ReasonFiltered])
		require.Equal(t, 2, res.Rejected[arrival.ReasonInvalidLabels])
	}
	require.Equal(t, map[string]int{
		`{__name__="both", dc="east", job="none", seen="east"}`: 2,
		`{__name__="own", dc="west", job="mine"}`:               2,
	}, stored(inner))
}

// TestLeftOutWhole shows that the histograms and exemplars of a series that is left out
// are left out and counted too, and its neighbour's are stored.
func TestLeftOutWhole(t *testing.T) {
	inner := ingesttest.NewSink()
	d := newDoor(t, ingest.DoorOptions{Sink: inner, Rules: ingest.Rules{Exclude: selectors(t, `{l="x"}`)}})
	b, _, err := batchOf(t.Context(), d, sample(labels.FromStrings("__name__", "m", "l", "x"), 1, 1), sample(labels.FromStrings("__name__", "m"), 1, 1))
	require.NoError(t, err)
	for row := range uint32(2) {
		b.Histograms = append(b.Histograms, arrival.Histogram{Row: row, TimeMillis: 2, Int: &histogram.Histogram{}})
		b.Exemplars = append(b.Exemplars, arrival.Exemplar{Row: row, Exemplar: exemplar.Exemplar{Ts: 2}})
	}
	require.NotZero(t, b.Rows[0].Ref, "to an input it is a series like any other")
	res, err := d.Write(t.Context(), b)
	require.NoError(t, err)
	require.Zero(t, b.Rows[0].Ref)
	want := arrival.Result{Samples: 1, Histograms: 1, Exemplars: 1, DroppedSamples: 1, DroppedHistograms: 1, DroppedExemplars: 1}
	want.Dropped[arrival.ReasonFiltered] = 3
	require.Equal(t, want, res)
	got := inner.Written()
	require.Len(t, got, 1)
	require.Len(t, got[`{__name__="m"}`].Histograms, 1)
	require.Len(t, got[`{__name__="m"}`].Exemplars, 1)
}

// TestSeeds shows that doors without rules share the keys of the archive, and that
// doors with different rules share none.
func TestSeeds(t *testing.T) {
	inner := ingesttest.NewSink()
	seen := map[arrival.Seed]string{inner.Seed(): "the archive"}
	plain := newDoor(t, ingest.DoorOptions{Sink: inner, SeriesMax: 10, SamplesPerSecondMax: 5})
	require.Equal(t, inner.Seed(), plain.Seed())
	for name, o := range map[string]ingest.DoorOptions{
		"include":  {Rules: ingest.Rules{Include: selectors(t, `{a="b"}`)}},
		"exclude":  {Rules: ingest.Rules{Exclude: selectors(t, `{a="b"}`)}},
		"matcher":  {Rules: ingest.Rules{Include: selectors(t, `{a=~"b"}`)}},
		"two":      {Rules: ingest.Rules{Include: selectors(t, `{a="b"}`, `{c="d"}`)}},
		"both":     {Rules: ingest.Rules{Include: selectors(t, `{a="b",c="d"}`)}},
		"external": {Rules: ingest.Rules{External: labels.FromStrings("a", "b")}},
		"relabel":  {Rules: ingest.Rules{Relabel: []*relabel.Config{rule(relabel.Replace, "", "a", "b")}}},
		"text":     {Rules: ingest.Rules{Relabel: []*relabel.Config{rule(relabel.Replace, "", "a", "c")}}},
		"replicas": {HA: ingest.HA{ClusterLabel: "c", ReplicaLabel: "r", FailoverTimeout: 1}},
		"others":   {HA: ingest.HA{ClusterLabel: "c", ReplicaLabel: "s", FailoverTimeout: 1}},
	} {
		o.Sink, o.Notes = inner, ingesttest.NewNotes()
		seed := newDoor(t, o).Seed()
		require.Empty(t, seen[seed], name)
		seen[seed] = name
		require.Equal(t, seed, newDoor(t, o).Seed(), "the same after a restart")
	}
}

// TestBadOptions shows what a door refuses to be made of.
func TestBadOptions(t *testing.T) {
	notes := ingesttest.NewNotes()
	for _, o := range []ingest.DoorOptions{
		{Name: ""}, {Name: "a/b"},
		{Name: "a", HA: ingest.HA{ReplicaLabel: "r"}, Notes: notes},
		{Name: "a", HA: ingest.HA{ReplicaLabel: "r", ClusterLabel: "r", FailoverTimeout: 1}, Notes: notes},
		{Name: "a", HA: ingest.HA{ReplicaLabel: "r", ClusterLabel: "c"}, Notes: notes},
		{Name: "a", HA: ingest.HA{ReplicaLabel: "r", ClusterLabel: "c", FailoverTimeout: 1}},
		{Name: "a", Thin: ingest.Thin{Interval: time.Second}},
		{Name: "a", Thin: ingest.Thin{Interval: time.Microsecond}, Notes: notes},
		{Name: "a", Thin: ingest.Thin{Interval: time.Second, TTL: time.Millisecond}, Notes: notes},
		{Name: "a", Thin: ingest.Thin{Interval: time.Second, TTL: time.Hour}, Notes: notes},
		{Name: "a", Rules: ingest.Rules{Relabel: []*relabel.Config{{}}}},
		{Name: "a", Rules: ingest.Rules{Include: [][]*labels.Matcher{{}}}},
	} {
		o.Sink, o.Now = ingesttest.NewSink(), time.Now
		_, err := ingest.NewDoor(o)
		require.Error(t, err, "%+v", o)
	}
}

// TestRate shows that a batch over the rate is refused whole with the wait that helps,
// and that one larger than the burst passes and is owed.
func TestRate(t *testing.T) {
	inner, c := ingesttest.NewSink(), newClock()
	d := newDoor(t, ingest.DoorOptions{Sink: inner, SamplesPerSecondMax: 10, Burst: 5, Now: c.Now})
	many := func(n int) []one {
		out := make([]one, n)
		for i := range out {
			out[i] = sample(up, int64(i), 1)
		}
		return out
	}
	wait := func(n int) time.Duration {
		_, err := send(t.Context(), d, many(n)...)
		if err == nil {
			return 0
		}
		var limited *ingest.RateLimited
		require.ErrorAs(t, err, &limited)
		return limited.RetryAfter
	}
	require.Zero(t, wait(5))
	require.Equal(t, 100*time.Millisecond, wait(1))
	require.Equal(t, 1, inner.Writes(), "nothing is stored")
	c.add(100 * time.Millisecond)
	require.Zero(t, wait(1))
	require.Equal(t, 500*time.Millisecond, wait(20))
	c.add(500 * time.Millisecond)
	require.Zero(t, wait(20))
	require.Equal(t, 1600*time.Millisecond, wait(1), "twenty take two seconds, half of one was saved")
	// In the long run it is the rate.
	begin, n := c.Now(), 0
	for c.Now().Sub(begin) < 100*time.Second {
		size := 1 + n%17
		for w := wait(size); w > 0; w = wait(size) {
			c.add(w)
		}
		n += size
	}
	require.InDelta(t, 1000, n, 40)
}

// TestSeriesMax shows that an input has no more series active than allowed: those it
// has go on, new ones are refused and not created, and room comes with time.
func TestSeriesMax(t *testing.T) {
	inner, c := ingesttest.NewSink(), newClock()
	d := newDoor(t, ingest.DoorOptions{Sink: inner, SeriesMax: 3, Now: c.Now})
	series := func(from, to int) (all []one) {
		for i := from; i < to; i++ {
			all = append(all, sample(labels.FromStrings("__name__", "m", "i", fmt.Sprint(i)), c.millis(), 1))
		}
		return all
	}
	check := func(all []one, refused int) {
		t.Helper()
		res, err := send(t.Context(), d, all...)
		require.NoError(t, err)
		require.Equal(t, refused, res.Rejected[arrival.ReasonSeriesLimit])
		require.Equal(t, len(all)-refused, res.Samples)
	}
	check(series(0, 2), 0)
	check(append(series(2, 6), series(2, 3)...), 3)
	require.Equal(t, 3, inner.SeriesCount())
	check(series(0, 6), 3)
	// A series that the archive has of elsewhere is new to the input.
	_, err := send(t.Context(), inner, series(9, 10)...)
	require.NoError(t, err)
	check(series(9, 10), 1)
	c.add(time.Hour)
	check(series(0, 2), 0)
	check(series(3, 4), 1)
	c.add(time.Hour)
	check(series(0, 1), 0)
	check(series(3, 5), 1)
	c.add(3 * time.Hour)
	check(series(6, 9), 0)
}

// TestAppendableThroughDoor shows that what writes through upstream's interfaces passes
// a door: what is left out is no error.
func TestAppendableThroughDoor(t *testing.T) {
	inner := ingesttest.NewSink()
	d := newDoor(t, ingest.DoorOptions{Sink: inner, Rules: ingest.Rules{Exclude: selectors(t, `{job="no"}`), External: labels.FromStrings("a", "b")}})
	a := newAppendable(d, ingest.Limits{})
	var refs [3]storage.SeriesRef
	for round := range 3 {
		app := a.AppenderV2(t.Context())
		for i, job := range []string{"no", "yes", "no"} {
			ref, err := app.Append(refs[i], labels.FromStrings("__name__", "up", "job", job, "i", fmt.Sprint(i)), 0, int64(round), 1, nil, nil, storage.AppendV2Options{})
			require.NoError(t, err)
			refs[i] = ref
		}
		require.NoError(t, app.Commit())
	}
	require.Equal(t, map[string]int{`{__name__="up", a="b", i="1", job="yes"}`: 3}, stored(inner))
}

// TestErrorsPass shows that the archive's trouble comes out of a door as it is, and
// that metadata goes through.
func TestErrorsPass(t *testing.T) {
	inner := ingesttest.NewSink()
	d := newDoor(t, ingest.DoorOptions{Sink: inner, Rules: ingest.Rules{External: labels.FromStrings("a", "b")}})
	res, err := d.Write(t.Context(), &arrival.Batch{Metadata: []arrival.Metadata{{Family: "f", Metadata: metadata.Metadata{Type: model.MetricTypeGauge}}}})
	require.NoError(t, err)
	require.Equal(t, 1, res.Metadata)
	inner.ResolveErr = errors.New("no")
	_, err = send(t.Context(), d, sample(up, 1, 1))
	require.ErrorIs(t, err, inner.ResolveErr)
	inner.ResolveErr = nil
	inner.Err = &arrival.Unavailable{Reason: "disk_full", Err: errors.New("no space")}
	_, err = send(t.Context(), d, sample(up, 1, 1))
	require.ErrorIs(t, err, inner.Err)
}

// TestDoorsShareMetrics shows that doors of one registry don't get in each other's way,
// nor does one that is made again.
func TestDoorsShareMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	for _, name := range []string{"a", "b", "a"} {
		d := newDoor(t, ingest.DoorOptions{Name: name, Sink: ingesttest.NewSink(), SeriesMax: 5, Registerer: reg})
		_, err := send(t.Context(), d, sample(up, 1, 1))
		require.NoError(t, err)
	}
	n, err := testutil.GatherAndCount(reg, "varve_ingest_active_series")
	require.NoError(t, err)
	require.Equal(t, 2, n)
}

// TestRun shows that Run closes intervals and fails over by the clock, and ends with its context.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := ingesttest.NewSink()
		d := newDoor(t, ingest.DoorOptions{
			Sink: inner, Notes: ingesttest.NewNotes(), Now: time.Now,
			Thin: ingest.Thin{Interval: 10 * time.Second},
			HA:   ingest.HA{ClusterLabel: "cluster", ReplicaLabel: "replica", FailoverTimeout: 5 * time.Second},
		})
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- d.Run(ctx) }()
		of := func(replica string) labels.Labels {
			return labels.FromStrings("__name__", "up", "cluster", "c", "replica", replica)
		}
		begin := time.Now().UnixMilli()
		_, err := send(ctx, d, sample(of("a"), begin+1, 1))
		require.NoError(t, err)
		ticker := time.NewTicker(time.Second)
		defer ticker.Stop()
		for range 8 {
			<-ticker.C
			_, err = send(ctx, d, sample(of("b"), time.Now().UnixMilli(), 2))
			require.NoError(t, err)
		}
		for range 30 {
			<-ticker.C
		}
		stop()
		require.NoError(t, <-done)
		got := inner.Written()[`{__name__="up", cluster="c"}`].Samples
		require.Equal(t, []ingesttest.Sample{
			{TimeMillis: begin + 10_000, Bits: math.Float64bits(2)}, {TimeMillis: begin + 20_000, Bits: math.Float64bits(2)},
		}, got)
	})
}

// TestRateOfPieces shows that a delivery of which the beginning passed goes on, however slow the rate: its sender would bring all of
// TestRateOfAll shows that two inputs share a rate, and that each keeps its own besides.
func TestRateOfAll(t *testing.T) {
	inner, c := ingesttest.NewSink(), newClock()
	all := ingest.NewPace(10, 0)
	one := newDoor(t, ingest.DoorOptions{Sink: inner, Pace: all, SamplesPerSecondMax: 4, Now: c.Now})
	other := newDoor(t, ingest.DoorOptions{Sink: inner, Pace: all, Now: c.Now})
	taken := func(d *ingest.Door) (n int) {
		for ; n < 100; n++ {
			if _, err := send(t.Context(), d, sample(up, int64(n), 1)); err != nil {
				var limited *ingest.RateLimited
				require.ErrorAs(t, err, &limited)
				return n
			}
		}
		return n
	}
	require.Equal(t, 4, taken(one))
	require.Equal(t, 6, taken(other))
	c.add(time.Second)
	require.Equal(t, 10, taken(other))
	require.Zero(t, taken(one), "nothing is left of what all may")
}

// it again, and never get to the end. What comes next waits for all of it.
func TestRateOfPieces(t *testing.T) {
	inner, c := ingesttest.NewSink(), newClock()
	const rows, perSecond = 200_000, 10_000
	d := newDoor(t, ingest.DoorOptions{Sink: inner, SamplesPerSecondMax: perSecond, Now: c.Now})
	p, _ := newPort(d, ingest.Limits{})
	request := func(rows int) error {
		v := p.Delivery()
		defer v.End(0)
		for i := range rows {
			require.NoError(t, v.Add(keyOf(p, 1), 1, int64(i), 1))
			if v.Full() {
				if err := v.Write(t.Context(), named); err != nil {
					return err
				}
			}
		}
		return v.Write(t.Context(), named)
	}
	require.NoError(t, request(rows))
	var limited *ingest.RateLimited
	require.ErrorAs(t, request(1), &limited)
	require.InDelta(t, (rows-perSecond)/perSecond, limited.RetryAfter.Seconds(), 0.01)
	c.add(limited.RetryAfter)
	require.NoError(t, request(1))
}

// TestDoorClosed shows that a door that was closed takes nothing any more: what another of the same name has read of its notes
// would lack it.
func TestDoorClosed(t *testing.T) {
	inner, c, notes := ingesttest.NewSink(), newClock(), ingesttest.NewNotes()
	open := func() *ingest.Door {
		return newDoor(t, ingest.DoorOptions{Sink: inner, Notes: notes, Now: c.Now, Thin: every10s})
	}
	begin, old := c.millis(), open()
	_, err := send(t.Context(), old, sample(up, begin+1000, 1))
	require.NoError(t, err)
	old.Close()
	young := open()
	_, err = send(t.Context(), old, sample(up, begin+5000, 5))
	var unavailable *arrival.Unavailable
	require.ErrorAs(t, err, &unavailable)
	_, err = send(t.Context(), young, sample(up, begin+5000, 5))
	require.NoError(t, err)
	c.add(time.Minute)
	require.NoError(t, young.Advance(t.Context()))
	bits := math.Float64bits
	require.Equal(t, map[int64]uint64{begin + 10_000: bits(5), begin + 20_000: bits(5)}, pointsOf(inner, up))
}
