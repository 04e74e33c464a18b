package ingest_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/model/relabel"
	"github.com/prometheus/prometheus/model/value"
	"github.com/stretchr/testify/require"

	"varve/arrival"
	"varve/ingest"
	"varve/ingest/ingesttest"
)

// pointsOf are the points of a series by time, the last written of each.
func pointsOf(sink *ingesttest.Sink, ls labels.Labels) map[int64]uint64 {
	out := map[int64]uint64{}
	for _, s := range sink.Written()[ls.String()].Samples {
		out[s.TimeMillis] = s.Bits
	}
	return out
}

var every10s = ingest.Thin{Interval: 10 * time.Second, TTL: 20 * time.Second, Delay: time.Second}

// TestThin shows that a series has its last sample of an interval at the end of it,
// once more while it is not older than the ttl, and then ends; that a stale marker ends
// it at once; and that late samples stand where they belong.
func TestThin(t *testing.T) {
	inner, c := ingesttest.NewSink(), newClock()
	d := newDoor(t, ingest.DoorOptions{Sink: inner, Thin: every10s, Notes: ingesttest.NewNotes(), Now: c.Now})
	begin := c.millis()
	b, _, err := batchOf(t.Context(), d, sample(up, begin+1000, 1), sample(up, begin+4000, 2), sample(up, begin+3000, 3), sample(up, begin+11_000_000, 1))
	require.NoError(t, err)
	b.Starts = []int64{0, 7, 0, 0}
	res, err := d.Write(t.Context(), b)
	require.NoError(t, err)
	want := arrival.Result{Samples: 2, DroppedSamples: 1}
	want.Dropped[arrival.ReasonThinned], want.Rejected[arrival.ReasonFuture] = 1, 1
	require.Equal(t, want, res)
	advance := func(seconds int) {
		t.Helper()
		c.add(time.Duration(seconds) * time.Second)
		require.NoError(t, d.Advance(t.Context()))
	}
	advance(10)
	require.Empty(t, inner.Written(), "the delay is not over")
	advance(1)
	require.Equal(t, []ingesttest.Sample{{TimeMillis: begin + 10_000, StartMillis: 7, Bits: math.Float64bits(2)}}, inner.Written()[upText].Samples)
	advance(40)
	bits := math.Float64bits
	require.Equal(t, map[int64]uint64{begin + 10_000: bits(2), begin + 20_000: bits(2)}, pointsOf(inner, up))
	// Now it is begin+51 s: one for an interval that is over, and one too old for it.
	_, err = send(t.Context(), d, sample(up, begin+35_000, 4))
	require.NoError(t, err)
	require.Equal(t, map[int64]uint64{begin + 10_000: bits(2), begin + 20_000: bits(2), begin + 40_000: bits(4), begin + 50_000: bits(4)}, pointsOf(inner, up))
	res, err = send(t.Context(), d, sample(up, begin+34_000, 5))
	require.NoError(t, err)
	require.Equal(t, 1, res.Dropped[arrival.ReasonThinned])
	_, err = send(t.Context(), d, one{up, begin + 52_000, value.StaleNaN})
	require.NoError(t, err)
	advance(60)
	require.Equal(t, map[int64]uint64{
		begin + 10_000: bits(2), begin + 20_000: bits(2), begin + 40_000: bits(4), begin + 50_000: bits(4), begin + 60_000: value.StaleNaN,
	}, pointsOf(inner, up))
}

// TestThinRestPasses shows that histograms, exemplars and metadata are stored at once
// and as they came, beside samples that wait.
func TestThinRestPasses(t *testing.T) {
	inner, c := ingesttest.NewSink(), newClock()
	d := newDoor(t, ingest.DoorOptions{Sink: inner, Thin: every10s, Notes: ingesttest.NewNotes(), Now: c.Now})
	b, _, err := batchOf(t.Context(), d, sample(up, c.millis(), 1))
	require.NoError(t, err)
	b.Histograms = []arrival.Histogram{{TimeMillis: 5, Int: &histogram.Histogram{}}}
	b.Exemplars = []arrival.Exemplar{{Exemplar: exemplar.Exemplar{Ts: 6}}}
	b.Metadata = []arrival.Metadata{{Family: "up", Metadata: metadata.Metadata{Help: "h"}}}
	res, err := d.Write(t.Context(), b)
	require.NoError(t, err)
	require.Equal(t, arrival.Result{Samples: 1, Histograms: 1, Exemplars: 1, Metadata: 1}, res)
	got := inner.Written()[upText]
	require.Empty(t, got.Samples)
	require.Len(t, got.Histograms, 1)
	require.Len(t, got.Exemplars, 1)
	require.Len(t, inner.Families(), 1)
}

// TestThinOldDays shows that what is brought of old days in the order of time comes out
// interval by interval, whatever the size of requests, without touching what lies
// behind its end, and while the series goes on.
func TestThinOldDays(t *testing.T) {
	for _, perRequest := range []int{1, 7, 1000} {
		inner, c := ingesttest.NewSink(), newClock()
		d := newDoor(t, ingest.DoorOptions{Sink: inner, Thin: every10s, Notes: ingesttest.NewNotes(), Now: c.Now})
		old := c.millis() - 30*86_400_000
		old -= old % 10_000
		write := func(all ...one) {
			t.Helper()
			res, err := send(t.Context(), d, all...)
			require.NoError(t, err)
			require.Equal(t, len(all), res.Samples)
		}
		write(sample(up, old+3_600_000, 77)) // somebody brought what comes after
		for range 20 {
			write(sample(up, c.millis(), 1))
			c.add(10 * time.Second)
			require.NoError(t, d.Advance(t.Context()))
		}
		var all []one
		for millis, i := old+1, 0; millis < old+3_600_000-10_000; i++ {
			all = append(all, sample(up, millis, float64(i)))
			millis += 1 + int64(i*7919%13_000)
		}
		for rest := all; len(rest) > 0; rest = rest[min(perRequest, len(rest)):] {
			write(rest[:min(perRequest, len(rest))]...)
			if len(rest)%50 == 0 {
				write(sample(up, c.millis(), 1))
				c.add(time.Second)
				require.NoError(t, d.Advance(t.Context()))
			}
		}
		got := pointsOf(inner, up)
		last := all[len(all)-1].millis
		for tick := old; tick < last; tick += 10_000 {
			require.Equal(t, modelPoint(all, tick, 20_000), got[tick], "%d requests, tick %d", perRequest, tick-old)
		}
		require.Equal(t, math.Float64bits(77), got[old+3_600_000])
	}
}

// modelPoint is the bits of the last sample in (tick-ttl, tick], zero if there is none.
func modelPoint(all []one, tick, ttl int64) uint64 {
	var bits uint64
	at := int64(math.MinInt64)
	for _, s := range all {
		if s.millis <= tick && s.millis > tick-ttl && s.millis >= at {
			at, bits = s.millis, s.bits
		}
	}
	return bits
}

// TestThinEnded shows that a series that ended leaves no note and no memory behind, and
// that it may come back.
func TestThinEnded(t *testing.T) {
	inner, c, notes := ingesttest.NewSink(), newClock(), ingesttest.NewNotes()
	thin := every10s
	thin.SeriesMax = 1
	d := newDoor(t, ingest.DoorOptions{Sink: inner, Thin: thin, Notes: notes, Now: c.Now})
	other := labels.FromStrings("__name__", "other")
	write := func(ls labels.Labels) arrival.Result {
		t.Helper()
		res, err := send(t.Context(), d, sample(ls, c.millis(), 1))
		require.NoError(t, err)
		return res
	}
	require.Equal(t, 1, write(up).Samples)
	require.Len(t, notes.Names(), 2)
	require.Equal(t, 1, write(other).Rejected[arrival.ReasonSeriesLimit])
	c.add(time.Minute)
	require.NoError(t, d.Advance(t.Context()))
	require.Len(t, notes.Names(), 2)
	c.add(11 * time.Minute)
	require.NoError(t, d.Advance(t.Context()))
	c.add(10 * time.Second)
	require.NoError(t, d.Advance(t.Context()))
	require.Len(t, notes.Names(), 1)
	require.Equal(t, 1, write(other).Samples)
	require.Len(t, notes.Names(), 2)
	require.Equal(t, 1, write(up).Rejected[arrival.ReasonSeriesLimit])
}

// TestThinTurnedOff shows that samples that were acknowledged come out although
// thinning, or its interval, is another after a restart, and that no note is left.
func TestThinTurnedOff(t *testing.T) {
	inner, c, notes := ingesttest.NewSink(), newClock(), ingesttest.NewNotes()
	o := ingest.DoorOptions{Sink: inner, Thin: every10s, Notes: notes, Now: c.Now}
	d := newDoor(t, o)
	begin := c.millis()
	_, err := send(t.Context(), d, sample(up, begin+1000, 1), sample(up, begin+12_000, 2))
	require.NoError(t, err)
	o.Thin.Interval = 0
	d = newDoor(t, o)
	_, err = send(t.Context(), d, sample(up, begin+5, 3))
	require.NoError(t, err)
	require.Equal(t, map[int64]uint64{begin + 5: math.Float64bits(3)}, pointsOf(inner, up), "no longer thinned")
	c.add(time.Minute)
	require.NoError(t, d.Advance(t.Context()))
	require.Equal(t, map[int64]uint64{
		begin + 5: math.Float64bits(3), begin + 10_000: math.Float64bits(1), begin + 20_000: math.Float64bits(2), begin + 30_000: math.Float64bits(2),
	}, pointsOf(inner, up))
	require.Empty(t, notes.Names())
	require.NoError(t, d.Advance(t.Context()))

	inner.Clear()
	o.Thin = every10s
	d = newDoor(t, o)
	begin = c.millis() / 20_000 * 20_000
	_, err = send(t.Context(), d, sample(up, begin+11_000, 1), sample(up, begin+21_000, 2), sample(up, begin+31_000, 3))
	require.NoError(t, err)
	o.Thin.Interval = 20 * time.Second
	d = newDoor(t, o)
	c.add(3 * time.Minute)
	require.NoError(t, d.Advance(t.Context()))
	require.Equal(t, map[int64]uint64{begin + 20_000: math.Float64bits(1), begin + 40_000: math.Float64bits(3)}, pointsOf(inner, up))
}

// TestThinDurable shows that a write is acknowledged when its notes are durable, and
// that concurrent ones share them.
func TestThinDurable(t *testing.T) {
	inner, c, notes := ingesttest.NewSink(), newClock(), ingesttest.NewNotes()
	var trouble error
	notes.Fail = func() error { return trouble }
	o := ingest.DoorOptions{Sink: inner, Thin: every10s, Notes: notes, Now: c.Now}
	d := newDoor(t, o)
	begin := c.millis()
	_, err := send(t.Context(), d, sample(up, begin+1, 1))
	require.NoError(t, err)
	trouble = errors.New("no space")
	_, err = send(t.Context(), d, sample(up, begin+2, 2))
	require.ErrorIs(t, err, trouble)
	trouble = nil
	_, err = send(t.Context(), d, sample(labels.FromStrings("__name__", "other"), begin+2, 3))
	require.NoError(t, err)
	notes.Lose()
	d = newDoor(t, o)
	c.add(11 * time.Second)
	require.NoError(t, d.Advance(t.Context()))
	require.Equal(t, math.Float64bits(2), pointsOf(inner, up)[begin+10_000], "a note that failed is saved with the next")
	require.Equal(t, math.Float64bits(3), pointsOf(inner, labels.FromStrings("__name__", "other"))[begin+10_000])
}

// TestThinOwed shows that a late sample that could not be written, and that nobody
// brings again, doesn't leave the place of its interval to an earlier one in vain.
func TestThinOwed(t *testing.T) {
	inner, c := ingesttest.NewSink(), newClock()
	d := newDoor(t, ingest.DoorOptions{Sink: inner, Thin: every10s, Notes: ingesttest.NewNotes(), Now: c.Now})
	tick := c.millis() - 30_000
	_, err := send(t.Context(), d, sample(up, c.millis(), 1))
	require.NoError(t, err)
	inner.Err = errFault
	_, err = send(t.Context(), d, sample(up, tick-1000, 2))
	require.ErrorIs(t, err, errFault)
	_, err = send(t.Context(), d, sample(up, tick-2000, 3))
	require.ErrorIs(t, err, errFault)
	inner.Err = nil
	res, err := send(t.Context(), d, sample(up, tick-3000, 4))
	require.NoError(t, err)
	require.Equal(t, 1, res.Dropped[arrival.ReasonThinned])
	require.Equal(t, math.Float64bits(2), pointsOf(inner, up)[tick])

	inner.Err = errFault
	_, err = send(t.Context(), d, sample(up, tick-500, 5))
	require.ErrorIs(t, err, errFault)
	inner.Err = nil
	require.NoError(t, d.Advance(t.Context()))
	require.Equal(t, math.Float64bits(5), pointsOf(inner, up)[tick])
}

// TestThinForgotten shows that a sample of an interval that is forgotten stands at its
// own tick and leaves those behind it, and that two in the wrong order beside each
// other come out right.
func TestThinForgotten(t *testing.T) {
	inner, c := ingesttest.NewSink(), newClock()
	d := newDoor(t, ingest.DoorOptions{Sink: inner, Thin: every10s, Notes: ingesttest.NewNotes(), Now: c.Now})
	begin := c.millis()
	for i := range int64(30) {
		_, err := send(t.Context(), d, sample(up, begin+i*10_000+1, float64(i)))
		require.NoError(t, err)
		c.add(10 * time.Second)
		require.NoError(t, d.Advance(t.Context()))
	}
	_, err := send(t.Context(), d, sample(up, begin+95_000, 100))
	require.NoError(t, err)
	got := pointsOf(inner, up)
	require.Equal(t, math.Float64bits(100), got[begin+100_000])
	require.Equal(t, math.Float64bits(10), got[begin+110_000])

	old := begin - 1_000_000
	for i, millis := range []int64{1000, 25_000, 9000} {
		_, err := send(t.Context(), d, sample(up, old+millis, float64(200+i)))
		require.NoError(t, err)
	}
	got = pointsOf(inner, up)
	require.Equal(t, math.Float64bits(202), got[old+10_000])
	require.Equal(t, math.Float64bits(202), got[old+20_000])
	require.Equal(t, math.Float64bits(201), got[old+30_000])
}

// TestThinLongSilence shows that a start after years closes no tick one by one.
func TestThinLongSilence(t *testing.T) {
	inner, c, notes := ingesttest.NewSink(), newClock(), ingesttest.NewNotes()
	o := ingest.DoorOptions{Sink: inner, Thin: every10s, Notes: notes, Now: c.Now}
	d := newDoor(t, o)
	begin := c.millis()
	_, err := send(t.Context(), d, sample(up, begin+1000, 1))
	require.NoError(t, err)
	c.add(10 * 365 * 24 * time.Hour)
	d = newDoor(t, o)
	now := c.millis()
	_, err = send(t.Context(), d, sample(up, now+1000, 2))
	require.NoError(t, err)
	saves := notes.Saves()
	c.add(time.Minute)
	require.NoError(t, d.Advance(t.Context()))
	bits := math.Float64bits
	require.Equal(t, map[int64]uint64{begin + 10_000: bits(1), begin + 20_000: bits(1), now + 10_000: bits(2), now + 20_000: bits(2)}, pointsOf(inner, up))
	require.Less(t, notes.Saves()-saves, 20)
}

// TestThinRandom compares points with those of a naive model over random samples, late
// ones among them, failures of the archive and of notes, and restarts that lose what
// is not durable. A sender brings what failed until it is taken.
func TestThinRandom(t *testing.T) {
	for seed := range uint64(150) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { (&thinRun{T: t, r: rand.New(rand.NewPCG(seed, 2))}).run() })
	}
}

// thinRun is one random run.
type thinRun struct {
	*testing.T
	r       *rand.Rand
	inner   *ingesttest.Sink
	notes   *ingesttest.Notes
	clock   *clock
	options ingest.DoorOptions
	door    *ingest.Door
	// failing is how many of the next calls fail with which chance in ten.
	failing int
	sent    map[string][]one
}

var errFault = &arrival.Unavailable{Reason: "fault", Err: errors.New("made by the test")}

func (w *thinRun) run() {
	const interval = 1000
	w.inner, w.notes, w.clock, w.sent = ingesttest.NewSink(), ingesttest.NewNotes(), newClock(), map[string][]one{}
	w.inner.OnWrite = w.notes.Sync
	w.notes.Fail = func() error {
		if w.failing > 0 && w.r.IntN(10) < w.failing {
			return errFault
		}
		return nil
	}
	ttl := time.Duration(interval+w.r.IntN(2*interval)) * time.Millisecond
	w.options = ingest.DoorOptions{
		Sink: w.inner, Notes: w.notes, Now: w.clock.Now,
		Thin: ingest.Thin{Interval: interval * time.Millisecond, TTL: ttl, Delay: 300 * time.Millisecond, Remembered: 8},
	}
	if w.r.IntN(2) == 0 {
		w.options.Rules.External = labels.FromStrings("a", "b")
	}
	w.door = newDoor(w, w.options)
	for range 300 {
		w.clock.add(time.Duration(w.r.IntN(400)) * time.Millisecond)
		if w.r.IntN(3) > 0 {
			w.write()
		}
		if w.r.IntN(3) == 0 {
			w.fault()
			_ = w.door.Advance(w.Context()) // what failed is done by a later one
			w.heal()
		}
		if w.r.IntN(25) == 0 {
			w.restart()
		}
	}
	w.clock.add(time.Minute)
	require.NoError(w, w.door.Advance(w.Context()))
	w.compare(interval, ttl.Milliseconds())
}

// fault has some of what comes fail.
func (w *thinRun) fault() {
	if w.r.IntN(4) == 0 {
		w.failing = 1 + w.r.IntN(8)
		if w.r.IntN(2) == 0 {
			w.inner.Err = errFault
		}
	}
}

func (w *thinRun) heal() { w.failing, w.inner.Err = 0, nil }

func (w *thinRun) restart() {
	w.notes.Lose()
	w.door = newDoor(w, w.options)
	if w.r.IntN(2) == 0 {
		w.inner.Forget()
	}
}

// write brings a few samples, up to two intervals late or a little ahead.
func (w *thinRun) write() {
	var all []one
	for range 1 + w.r.IntN(6) {
		ls := labels.FromStrings("__name__", "m", "i", fmt.Sprint(w.r.IntN(3)))
		millis := w.clock.millis() - w.r.Int64N(2000) + w.r.Int64N(500)
		bits := math.Float64bits(float64(millis))
		// The same time has the same value, since the order of failures is open.
		if millis%11 == 0 {
			bits = value.StaleNaN
		}
		all = append(all, one{ls, millis, bits})
	}
	w.fault()
	for {
		res, err := send(w.Context(), w.door, all...)
		if err == nil {
			require.Equal(w, len(all), res.Samples+res.DroppedSamples)
			require.Zero(w, res.Rejected.Total())
			break
		}
		require.ErrorIs(w, err, errFault)
		w.heal()
		if w.r.IntN(3) == 0 {
			w.restart()
		}
	}
	w.heal()
	for _, s := range all {
		w.sent[s.labels.Get("i")] = append(w.sent[s.labels.Get("i")], s)
	}
}

func (w *thinRun) compare(interval, ttl int64) {
	points := 0
	for i, all := range w.sent {
		ls := labels.FromStrings("__name__", "m", "i", i)
		if !w.options.Rules.External.IsEmpty() {
			ls = labels.FromStrings("__name__", "m", "i", i, "a", "b")
		}
		got := pointsOf(w.inner, ls)
		first := slices.MinFunc(all, func(a, b one) int { return int(a.millis - b.millis) }).millis
		for tick := first - first%interval - interval; tick < w.clock.millis(); tick += interval {
			want := modelPoint(all, tick, ttl)
			have, ok := got[tick]
			delete(got, tick)
			if want == value.StaleNaN && modelPoint(all, tick, interval) != value.StaleNaN || want == 0 {
				// The series has ended: no point, or a marker in the place of one.
				require.True(w, !ok || have == value.StaleNaN, "series %s has %v at %d and has ended", i, math.Float64frombits(have), tick)
				continue
			}
			require.Equal(w, want, have, "series %s at %d: want %v, have %v", i, tick, math.Float64frombits(want), math.Float64frombits(have))
			points++
		}
		require.Empty(w, got, "points beside the ticks")
	}
	require.Greater(w, points, 10)
}

// TestThinConcurrent shows that writers, late ones too, readers of keys and the ticks
// of the clock get along, and that nothing that was taken is missing.
func TestThinConcurrent(t *testing.T) {
	inner, c, notes := ingesttest.NewSink(), newClock(), ingesttest.NewNotes()
	d := newDoor(t, ingest.DoorOptions{
		Sink: inner, Notes: notes, Now: c.Now, SeriesMax: 100,
		Thin:  ingest.Thin{Interval: time.Second, TTL: time.Second, Delay: time.Millisecond, Remembered: 100},
		HA:    pair,
		Rules: ingest.Rules{Exclude: selectors(t, `{skip="yes"}`), Relabel: []*relabel.Config{rule(relabel.LabelDrop, "drop_me", "", "")}},
	})
	begin := c.millis()
	var writers sync.WaitGroup
	for i := range 6 {
		writers.Add(1)
		go func() {
			defer writers.Done()
			ls := labels.FromStrings("__name__", "m", "i", fmt.Sprint(i%3), "drop_me", fmt.Sprint(i), "cluster", "c", "replica", fmt.Sprint(i%2))
			for n := range int64(200) {
				_, err := send(t.Context(), d, sample(ls, begin+n*50+int64(i), float64(n)), sample(labels.FromStrings("__name__", "m", "skip", "yes"), begin, 1), sample(labels.FromStrings("__name__", "alone", "i", fmt.Sprint(i)), begin+n*50, float64(n)))
				if err != nil {
					t.Error(err)
					return
				}
				c.add(10 * time.Millisecond)
			}
		}()
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				if err := d.Advance(t.Context()); err != nil {
					t.Error(err)
					return
				}
			}
		}
	}()
	writers.Wait()
	close(stop)
	<-stopped
	c.add(time.Minute)
	require.NoError(t, d.Advance(t.Context()))
	for i := range 6 {
		got := pointsOf(inner, labels.FromStrings("__name__", "alone", "i", fmt.Sprint(i)))
		require.Len(t, got, 11)
		for tick := int64(0); tick <= 10; tick++ {
			want := min(tick*20, 199)
			require.Equal(t, math.Float64bits(float64(want)), got[begin+tick*1000], "tick %d", tick)
		}
	}
}

// FuzzNotes shows that a door reads notes of any content without a panic: it goes on
// with them, or says which is not readable.
func FuzzNotes(f *testing.F) {
	notes, c := ingesttest.NewNotes(), newClock()
	o := ingest.DoorOptions{Name: "test", Sink: ingesttest.NewSink(), Notes: notes, Now: c.Now, Thin: every10s, HA: pair}
	d, err := ingest.NewDoor(o)
	require.NoError(f, err)
	_, err = send(f.Context(), d, sample(ofReplica("c", "a"), c.millis(), 1))
	require.NoError(f, err)
	names := notes.Names()
	require.Len(f, names, 3)
	require.NoError(f, notes.EachNote("", func(name string, value []byte) error {
		for i, n := range names {
			if n == name {
				f.Add(uint8(i), value)
				f.Add(uint8(i), value[:len(value)/2])
			}
		}
		return nil
	}))
	f.Add(uint8(0), []byte("\x01\x0200\x1e00000000000000000000\xff00000000000")) // no UTF-8
	f.Add(uint8(2), []byte("\x01\xa0\x9c\x01\xc0\xb8\x02\xff\xff\xaa\xfe\xf9b")) // closed long ago
	f.Fuzz(func(t *testing.T, which uint8, value []byte) {
		changed := ingesttest.NewNotes()
		name := names[int(which)%len(names)]
		require.NoError(t, notes.EachNote("", func(n string, was []byte) error {
			if n == name {
				was = append([]byte{}, value...)
			}
			return changed.SaveNotes(t.Context(), []ingest.Note{{Name: n, Value: was}}, true)
		}))
		o := o
		o.Notes, o.Sink = changed, ingesttest.NewSink()
		d, err := ingest.NewDoor(o)
		if err != nil {
			require.True(t, strings.Contains(err.Error(), "note "), err.Error())
			return
		}
		require.NoError(t, d.Advance(t.Context()))
	})
}

// TestThinClockBack shows that samples are taken as before when the clock was ahead for a while and went back, in a running process
// and over a restart: intervals that were closed too soon are open again, and stay so after a crash.
func TestThinClockBack(t *testing.T) {
	for _, restarted := range []bool{false, true} {
		inner, c, notes := ingesttest.NewSink(), newClock(), ingesttest.NewNotes()
		open := func() *ingest.Door {
			return newDoor(t, ingest.DoorOptions{Sink: inner, Notes: notes, Now: c.Now, Thin: ingest.Thin{Interval: time.Hour}})
		}
		turn := func(by time.Duration) {
			c.add(by)
			inner.FutureMillis = c.millis() + 600_000
		}
		turn(0)
		d, begin := open(), c.millis()
		write := func(v float64) {
			t.Helper()
			res, err := send(t.Context(), d, sample(up, c.millis(), v))
			require.NoError(t, err)
			require.Equal(t, arrival.Result{Samples: 1}, res)
		}
		write(1)
		turn(24 * time.Hour)
		require.NoError(t, d.Advance(t.Context()))
		turn(-24*time.Hour + time.Minute)
		if restarted {
			d = open()
		}
		require.NoError(t, d.Advance(t.Context()))
		write(2)
		notes.Lose()
		d = open()
		turn(2 * time.Hour)
		require.NoError(t, d.Advance(t.Context()))
		tick := begin - begin%3_600_000 + 3_600_000
		require.Equal(t, math.Float64bits(2), pointsOf(inner, up)[tick])
	}
}
