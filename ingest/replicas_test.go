package ingest_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"varve/arrival"
	"varve/ingest"
	"varve/ingest/ingesttest"
)

var pair = ingest.HA{ClusterLabel: "cluster", ReplicaLabel: "replica", FailoverTimeout: 3 * time.Second}

func ofReplica(cluster, replica string) labels.Labels {
	return labels.FromStrings("__name__", "up", "cluster", cluster, "replica", replica)
}

// times are those of what is stored of cluster c.
func times(sink *ingesttest.Sink) (out []int64) {
	for _, s := range sink.Written()[`{__name__="up", cluster="c"}`].Samples {
		out = append(out, s.TimeMillis)
	}
	return out
}

// TestReplicas shows the election, what passes and is dropped, the failover with its
// gap filled, and that the old replica is dropped in its turn.
func TestReplicas(t *testing.T) {
	inner, c := ingesttest.NewSink(), newClock()
	d := newDoor(t, ingest.DoorOptions{Sink: inner, HA: pair, Notes: ingesttest.NewNotes(), Now: c.Now, Registerer: prometheus.NewRegistry()})
	begin := c.millis()
	at := func(replica string, millis ...int64) arrival.Result {
		t.Helper()
		var all []one
		for _, m := range millis {
			all = append(all, sample(ofReplica("c", replica), begin+m, 1))
		}
		res, err := send(t.Context(), d, all...)
		require.NoError(t, err)
		require.Equal(t, len(millis), res.Samples+res.DroppedSamples)
		require.Equal(t, res.DroppedSamples, res.Dropped[arrival.ReasonReplica])
		return res
	}
	require.Equal(t, 2, at("a", 0, 1000).Samples)
	require.Equal(t, 0, at("b", 500, 1500).Samples)
	c.add(time.Second)
	require.Equal(t, 1, at("a", 2000).Samples)
	c.add(time.Second)
	require.Equal(t, 0, at("b", 2500).Samples)
	c.add(time.Second)
	require.Equal(t, 0, at("b", 3500).Samples)
	require.Equal(t, []int64{begin, begin + 1000, begin + 2000}, times(inner))
	c.add(time.Second)
	require.Equal(t, 1, at("b", 4500).Samples)
	require.Equal(t, []int64{begin, begin + 1000, begin + 2000, begin + 2500, begin + 3500, begin + 4500}, times(inner))
	require.Equal(t, 0, at("a", 2100, 5000).Samples, "it is back, and dropped")
	require.Equal(t, 1, at("b", 1700, 5500).Samples, "what is before the cut is another's")
	c.add(4 * time.Second)
	require.Equal(t, 1, at("a", 6000).Samples)
	require.Equal(t, []int64{begin + 5500, begin + 6000}, times(inner)[6:], "what is before the cut is not filled in")
	require.Equal(t, []string{`{__name__="up", cluster="c"}`}, keys(stored(inner)))

	// Without both labels there is no replica.
	for _, ls := range []labels.Labels{labels.FromStrings("__name__", "up", "replica", "x"), labels.FromStrings("__name__", "up", "cluster", "x"), up} {
		res, err := send(t.Context(), d, sample(ls, begin, 1))
		require.NoError(t, err)
		require.Equal(t, 1, res.Samples)
		require.Contains(t, stored(inner), ls.String())
	}
}

func keys(m map[string]int) (out []string) {
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// TestReplicasFailoverOfAdvance shows that the gap is filled by the clock, without
// another arrival, with histograms too.
func TestReplicasFailoverOfAdvance(t *testing.T) {
	inner, c := ingesttest.NewSink(), newClock()
	d := newDoor(t, ingest.DoorOptions{Sink: inner, HA: pair, Notes: ingesttest.NewNotes(), Now: c.Now})
	begin := c.millis()
	_, err := send(t.Context(), d, sample(ofReplica("c", "a"), begin, 1))
	require.NoError(t, err)
	c.add(time.Second)
	b, _, err := batchOf(t.Context(), d, sample(ofReplica("c", "b"), begin+900, 1))
	require.NoError(t, err)
	h := &histogram.Histogram{Count: 1, PositiveSpans: []histogram.Span{{Length: 1}}, PositiveBuckets: []int64{1}}
	b.Histograms = append(b.Histograms, arrival.Histogram{TimeMillis: begin + 950, Int: h})
	res, err := d.Write(t.Context(), b)
	require.NoError(t, err)
	require.Equal(t, 2, res.Dropped[arrival.ReasonReplica])
	h.PositiveBuckets[0] = 5 // the sender's memory
	require.NoError(t, d.Advance(t.Context()))
	require.Len(t, times(inner), 1)
	c.add(2 * time.Second)
	inner.Err = &arrival.Unavailable{Reason: "disk_full", Err: errors.New("no space")}
	require.Error(t, d.Advance(t.Context()))
	inner.Err = nil
	require.NoError(t, d.Advance(t.Context()), "it is tried again")
	require.Equal(t, []int64{begin, begin + 900}, times(inner))
	got := inner.Written()[`{__name__="up", cluster="c"}`].Histograms
	require.Len(t, got, 1)
	require.Equal(t, []int64{1}, got[0].Int.PositiveBuckets)
}

// TestReplicasRestart shows that a restart goes on with the elected replica and its
// cut, that the timeout counts from the start, and that nothing interleaves even if
// what is not durable is lost.
func TestReplicasRestart(t *testing.T) {
	inner, c, notes := ingesttest.NewSink(), newClock(), ingesttest.NewNotes()
	inner.OnWrite = notes.Sync
	open := func() *ingest.Door {
		notes.Lose()
		return newDoor(t, ingest.DoorOptions{Sink: inner, HA: pair, Notes: notes, Now: c.Now})
	}
	begin := c.millis()
	d := open()
	at := func(replica string, millis int64) int {
		t.Helper()
		res, err := send(t.Context(), d, sample(ofReplica("c", replica), begin+millis, 1))
		require.NoError(t, err)
		return res.Samples
	}
	require.Equal(t, 1, at("a", 1000))
	c.add(time.Hour)
	d = open()
	require.Equal(t, 0, at("b", 2000), "the timeout begins anew")
	c.add(2 * time.Second)
	require.Equal(t, 0, at("b", 900))
	c.add(time.Second)
	require.Equal(t, 1, at("b", 3000))
	require.Equal(t, []int64{begin + 1000, begin + 2000, begin + 3000}, times(inner))
	d = open()
	require.Equal(t, 0, at("a", 4000))
	require.Equal(t, 0, at("b", 1000), "the cut is known")
	require.Equal(t, 1, at("b", 4000))

	// What fills a gap is known to be there too.
	require.Equal(t, 0, at("a", 9000))
	c.add(2 * time.Second)
	require.Equal(t, 0, at("a", 9500))
	c.add(time.Second)
	require.NoError(t, d.Advance(t.Context()))
	d = open()
	c.add(time.Second)
	require.Equal(t, 0, at("b", 9200))
	c.add(2 * time.Second)
	require.Equal(t, 1, at("b", 10_000))
	require.Equal(t, []int64{begin + 4000, begin + 9000, begin + 9500, begin + 10_000}, times(inner)[3:])
}

// TestReplicasInFlight shows that a replica whose write takes long is not silent, and
// that it is when its write has failed.
func TestReplicasInFlight(t *testing.T) {
	inner, c := ingesttest.NewSink(), newClock()
	d := newDoor(t, ingest.DoorOptions{Sink: inner, HA: pair, Notes: ingesttest.NewNotes(), Now: c.Now})
	begin := c.millis()
	_, err := send(t.Context(), d, sample(ofReplica("c", "b"), begin-9, 1))
	require.NoError(t, err)
	c.add(4 * time.Second)
	writing, goOn, done := make(chan struct{}), make(chan struct{}), make(chan error)
	inner.OnWrite = func() {
		inner.OnWrite = nil
		close(writing)
		<-goOn
	}
	go func() {
		_, err := send(t.Context(), d, sample(ofReplica("c", "b"), begin, 1))
		done <- err
	}()
	<-writing
	c.add(time.Minute)
	res, err := send(t.Context(), d, sample(ofReplica("c", "a"), begin+60_000, 1))
	require.NoError(t, err)
	require.Equal(t, 1, res.DroppedSamples)
	close(goOn)
	require.NoError(t, <-done)

	// What is known not to be stored of the elected one leaves its place to the other.
	inner.Err = &arrival.Unavailable{Reason: "disk_full", Err: errors.New("no space")}
	_, err = send(t.Context(), d, sample(ofReplica("c", "b"), begin+90_000, 1))
	require.Error(t, err)
	inner.Err = nil
	c.add(time.Minute)
	_, err = send(t.Context(), d, sample(ofReplica("c", "a"), begin+80_000, 1))
	require.NoError(t, err)
	require.Equal(t, []int64{begin - 9, begin, begin + 60_000, begin + 80_000}, times(inner))
}

// TestReplicasBuffer shows that the buffer has a bound and that the newest stays.
func TestReplicasBuffer(t *testing.T) {
	inner, c := ingesttest.NewSink(), newClock()
	ha := pair
	ha.BufferBytesMax = 10 * 150
	d := newDoor(t, ingest.DoorOptions{Sink: inner, HA: ha, Notes: ingesttest.NewNotes(), Now: c.Now})
	begin := c.millis()
	_, err := send(t.Context(), d, sample(ofReplica("c", "a"), begin, 1))
	require.NoError(t, err)
	for i := range int64(100) {
		c.add(30 * time.Millisecond)
		_, err := send(t.Context(), d, sample(ofReplica("c", "b"), begin+1+i, 1))
		require.NoError(t, err)
	}
	got := times(inner)
	require.Greater(t, len(got), 5)
	require.Less(t, len(got), 20)
	require.Equal(t, begin+100, got[len(got)-1])
	require.Equal(t, begin+99, got[len(got)-2])
}

// TestReplicasBounded shows that clusters and replicas have a bound, beyond which
// series are refused, and that those that are silent make room.
func TestReplicasBounded(t *testing.T) {
	inner, c, notes := ingesttest.NewSink(), newClock(), ingesttest.NewNotes()
	ha := pair
	ha.ClustersMax = 2
	d := newDoor(t, ingest.DoorOptions{Sink: inner, HA: ha, Notes: notes, Now: c.Now})
	try := func(cluster, replica string) arrival.Result {
		t.Helper()
		res, err := send(t.Context(), d, sample(ofReplica(cluster, replica), c.millis(), 1))
		require.NoError(t, err)
		return res
	}
	require.Equal(t, 1, try("c1", "a").Samples)
	require.Equal(t, 1, try("c2", "a").Samples)
	require.Equal(t, 1, try("c3", "a").Rejected[arrival.ReasonSeriesLimit])
	for i := range 63 {
		require.Equal(t, 1, try("c2", fmt.Sprint(i)).DroppedSamples)
	}
	require.Equal(t, 1, try("c2", "more").Rejected[arrival.ReasonSeriesLimit])
	c.add(2 * time.Hour)
	require.Equal(t, 1, try("c2", "a").Samples)
	require.Equal(t, 1, try("c2", "more").DroppedSamples)
	require.Equal(t, 1, try("c3", "a").Samples, "c1 made room")
	require.Len(t, notes.Names(), 2)
	require.Equal(t, 1, try("c3", "b").DroppedSamples)
	require.Equal(t, 1, try("c2", "a").Samples, "its key was forgotten and is found again")
}

// sent is a sample that a replica sent, with its place in the order.
type sent struct {
	millis  int64
	replica int
}

// TestReplicasRandom compares a long random run of three replicas that are silent now
// and then with what must hold: samples of two replicas never interleave in time, of a
// replica nothing is missing within its reign, and there is no gap between two reigns
// longer than the replicas' own interval, since one of them is always there.
func TestReplicasRandom(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { randomReplicas(t, rand.New(rand.NewPCG(seed, 1)), seed%3 == 2) })
	}
}

func randomReplicas(t *testing.T, r *rand.Rand, restarts bool) {
	const scrape, replicaCount, steps = 1000, 3, 1500
	inner, c, notes := ingesttest.NewSink(), newClock(), ingesttest.NewNotes()
	inner.OnWrite = notes.Sync
	o := ingest.DoorOptions{Sink: inner, HA: pair, Notes: notes, Now: c.Now}
	d := newDoor(t, o)
	begin := c.millis()
	var all []sent
	var queue [replicaCount][]one
	next, silentUntil := [replicaCount]int64{}, [replicaCount]int64{}
	for i := range next {
		next[i] = begin + r.Int64N(scrape)
	}
	for range steps {
		c.add(time.Duration(r.Int64N(200)) * time.Millisecond)
		for i := range replicaCount {
			// One is silent at a time, so that some replica is there.
			if r.IntN(100) == 0 && (restarts || slices.Max(silentUntil[:]) < c.millis()) {
				silentUntil[i] = c.millis() + r.Int64N(12_000)
			}
			for ; next[i] < c.millis(); next[i] += scrape/2 + r.Int64N(scrape/2) {
				if silentUntil[i] <= next[i] {
					millis := next[i] - next[i]%replicaCount + int64(i) // told by its time
					all = append(all, sent{millis, i})
					queue[i] = append(queue[i], sample(ofReplica("c", fmt.Sprint(i)), millis, float64(i)))
				}
			}
			if len(queue[i]) > 0 && r.IntN(3) > 0 {
				_, err := send(t.Context(), d, queue[i]...)
				require.NoError(t, err)
				queue[i] = nil
			}
		}
		if r.IntN(5) == 0 {
			require.NoError(t, d.Advance(t.Context()))
		}
		if restarts && r.IntN(200) == 0 {
			notes.Lose()
			d = newDoor(t, o)
		}
	}
	checkReigns(t, inner, all, restarts)
}

func checkReigns(t *testing.T, inner *ingesttest.Sink, all []sent, restarts bool) {
	var got []sent
	for _, s := range inner.Written()[`{__name__="up", cluster="c"}`].Samples {
		got = append(got, sent{s.TimeMillis, int(math.Float64frombits(s.Bits))})
	}
	require.NotEmpty(t, got)
	// As they were written the reigns follow each other; in time they must do the same.
	byTime := slices.Clone(got)
	slices.SortStableFunc(byTime, func(a, b sent) int { return int(a.millis - b.millis) })
	reigns := func(of []sent) (out []int) {
		for i, s := range of {
			if i == 0 || of[i-1].replica != s.replica {
				out = append(out, s.replica)
			}
		}
		return out
	}
	require.Equal(t, reigns(got), reigns(byTime), "samples of replicas interleave")
	require.Greater(t, len(reigns(got)), 1, "there are failovers")
	stored := map[sent]bool{}
	for _, s := range got {
		stored[s] = true
	}
	if !restarts {
		for i := 1; i < len(byTime); i++ {
			// A replica that is silent for less than the timeout stays elected.
			most := pair.FailoverTimeout.Milliseconds() + 1500
			if byTime[i].replica != byTime[i-1].replica {
				most = 1500
			}
			require.LessOrEqual(t, byTime[i].millis-byTime[i-1].millis, most, "a gap that the buffer could fill")
		}
	}
	from := int64(math.MinInt64)
	for i, s := range byTime {
		if i+1 < len(byTime) && byTime[i+1].replica == s.replica {
			continue
		}
		for _, a := range all {
			if !restarts && a.replica == s.replica && a.millis > from && a.millis <= s.millis {
				require.True(t, stored[a], "sample of %d at %d is missing in its reign", a.replica, a.millis)
			}
		}
		from = s.millis
	}
}

// TestReplicaAhead shows that a failover loses nothing when the replica before it has brought a sample that lies far ahead of the clock.
func TestReplicaAhead(t *testing.T) {
	inner, c := ingesttest.NewSink(), newClock()
	d := newDoor(t, ingest.DoorOptions{Sink: inner, HA: pair, Notes: ingesttest.NewNotes(), Now: c.Now})
	begin := c.millis()
	want := []int64{begin, begin + 590_000}
	_, err := send(t.Context(), d, sample(ofReplica("c", "a"), want[0], 1), sample(ofReplica("c", "a"), want[1], 1))
	require.NoError(t, err)
	for range 10 {
		c.add(time.Second)
		want = append(want, c.millis())
		_, err := send(t.Context(), d, sample(ofReplica("c", "b"), c.millis(), 1))
		require.NoError(t, err)
	}
	require.Equal(t, want, times(inner))
}

// TestReplicasGapWithStarts shows that a gap is filled from requests with start timestamps and without, in any order.
func TestReplicasGapWithStarts(t *testing.T) {
	inner, c := ingesttest.NewSink(), newClock()
	d := newDoor(t, ingest.DoorOptions{Sink: inner, HA: pair, Notes: ingesttest.NewNotes(), Now: c.Now})
	begin := c.millis()
	_, err := send(t.Context(), d, sample(ofReplica("c", "a"), begin, 1))
	require.NoError(t, err)
	want := []ingesttest.Sample{{TimeMillis: begin, Bits: math.Float64bits(1)}}
	c.add(2 * time.Second)
	for i, start := range []int64{0, 7, 0} {
		s := sample(ofReplica("c", "b"), begin+1000+int64(i), float64(i))
		b, _, err := batchOf(t.Context(), d, s)
		require.NoError(t, err)
		if start != 0 {
			b.Starts = []int64{start}
		}
		_, err = d.Write(t.Context(), b)
		require.NoError(t, err)
		want = append(want, ingesttest.Sample{TimeMillis: s.millis, StartMillis: start, Bits: s.bits})
	}
	c.add(time.Second)
	require.NoError(t, d.Advance(t.Context()))
	require.Equal(t, want, inner.Written()[`{__name__="up", cluster="c"}`].Samples)
}

// TestReplicasOfDeadClusters shows that what is kept of a cluster that is gone for good makes room.
func TestReplicasOfDeadClusters(t *testing.T) {
	c, reg := newClock(), prometheus.NewRegistry()
	d := newDoor(t, ingest.DoorOptions{Sink: ingesttest.NewSink(), HA: pair, Notes: ingesttest.NewNotes(), Now: c.Now, Registerer: reg})
	buffered := func() float64 {
		t.Helper()
		require.NoError(t, d.Advance(t.Context()))
		families, err := reg.Gather()
		require.NoError(t, err)
		for _, f := range families {
			if f.GetName() == "varve_ingest_replica_buffer_bytes" {
				return f.GetMetric()[0].GetGauge().GetValue()
			}
		}
		return -1
	}
	for _, replica := range []string{"a", "b"} {
		_, err := send(t.Context(), d, sample(ofReplica("c", replica), c.millis(), 1), sample(ofReplica("c", replica), c.millis()+1+int64(replica[0]), 1))
		require.NoError(t, err)
	}
	require.Positive(t, buffered())
	c.add(time.Hour)
	require.Zero(t, buffered())
}
