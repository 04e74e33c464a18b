package ingest_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"varve/arrival"
	"varve/ingest"
	"varve/ingest/ingesttest"
)

// void is a sink that knows keys and keeps nothing, so that a benchmark sees the door.
type void struct {
	known map[arrival.Key]storage.SeriesRef
}

func (*void) Seed() arrival.Seed { return 1 }

func (v *void) Lookup(rows []arrival.Row) (missing int) {
	for i := range rows {
		if rows[i].Ref = v.known[rows[i].Key]; rows[i].Ref == 0 {
			missing++
		}
	}
	return missing
}

func (v *void) Resolve(_ context.Context, unknown []arrival.Unknown) error {
	for i := range unknown {
		unknown[i].Ref = storage.SeriesRef(len(v.known) + 1)
		v.known[unknown[i].Key] = unknown[i].Ref
	}
	return nil
}

func (*void) Write(_ context.Context, b *arrival.Batch) (arrival.Result, error) {
	return arrival.Result{Samples: len(b.Times)}, nil
}

const benchSeries = 10_000

func benchDoors(tb testing.TB) map[string]ingest.Sink {
	ha := ingest.HA{ClusterLabel: "cluster", ReplicaLabel: "replica", FailoverTimeout: time.Minute}
	sink := func() *void { return &void{known: make(map[arrival.Key]storage.SeriesRef)} }
	rules := ingest.Rules{
		Exclude: selectors(tb, `{i=~"1..."}`), External: labels.FromStrings("dc", "east"),
		Relabel: []*relabel.Config{rule(relabel.LabelDrop, "replica", "", "")},
	}
	return map[string]ingest.Sink{
		"none":     sink(),
		"plain":    newDoor(tb, ingest.DoorOptions{Sink: sink()}),
		"rules":    newDoor(tb, ingest.DoorOptions{Sink: sink(), Rules: rules}),
		"limits":   newDoor(tb, ingest.DoorOptions{Sink: sink(), SeriesMax: 1 << 20, SamplesPerSecondMax: 1e12}),
		"replicas": newDoor(tb, ingest.DoorOptions{Sink: sink(), HA: ha, Notes: ingesttest.NewNotes()}),
		"thin":     newDoor(tb, ingest.DoorOptions{Sink: sink(), Thin: ingest.Thin{Interval: time.Minute}, Notes: ingesttest.NewNotes()}),
	}
}

// benchRequest is a request of known series.
type benchRequest struct {
	keys  []arrival.Key
	batch arrival.Batch
}

func newBenchRequest(tb testing.TB, sink ingest.Sink) *benchRequest {
	var all []one
	q := new(benchRequest)
	for i := range benchSeries {
		ls := labels.FromStrings("__name__", "m", "i", fmt.Sprint(i), "cluster", "c", "replica", "a")
		all = append(all, sample(ls, time.Now().UnixMilli(), 1))
		q.keys = append(q.keys, sink.Seed().Hash(arrival.AppendLabels(nil, ls)))
	}
	b, _, err := batchOf(tb.Context(), sink, all...)
	require.NoError(tb, err)
	q.batch = *b
	return q
}

func (q *benchRequest) send(tb testing.TB, sink ingest.Sink) {
	for i := range q.batch.Rows {
		q.batch.Rows[i].Key, q.batch.Rows[i].Ref = q.keys[i], 0
	}
	if sink.Lookup(q.batch.Rows) > 0 {
		tb.Fatal("a known series is not known")
	}
	if _, err := sink.Write(tb.Context(), &q.batch); err != nil {
		tb.Fatal(err)
	}
}

// BenchmarkDoor measures what a door costs for a sample of a known series; none is
// without a door.
func BenchmarkDoor(b *testing.B) {
	doors := benchDoors(b)
	for _, name := range []string{"none", "plain", "rules", "limits", "replicas", "thin"} {
		b.Run(name, func(b *testing.B) {
			q := newBenchRequest(b, doors[name])
			b.ReportAllocs()
			for b.Loop() {
				q.send(b, doors[name])
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchSeries, "ns/row")
		})
	}
}

// TestDoorAllocates shows that a door with rules allocates nothing for known series,
// those left out included.
func TestDoorAllocates(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for name, sink := range benchDoors(t) {
		if name == "replicas" || name == "thin" {
			continue
		}
		q := newBenchRequest(t, sink)
		q.send(t, sink)
		require.Zero(t, testing.AllocsPerRun(10, func() { q.send(t, sink) }), name)
	}
}
