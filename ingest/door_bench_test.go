package ingest_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	"github.com/stretchr/testify/require"

	"varve/arrival"
	"varve/ingest"
	"varve/ingest/ingesttest"
	"varve/internal/testkit/race"
)

const benchSeries = 10_000

func benchDoors(tb testing.TB) map[string]ingest.Sink {
	ha := ingest.HA{ClusterLabel: "cluster", ReplicaLabel: "replica", FailoverTimeout: time.Minute}
	rules := ingest.Rules{
		Exclude: selectors(tb, `{i=~"1..."}`), External: labels.FromStrings("dc", "east"),
		Relabel: []*relabel.Config{rule(relabel.LabelDrop, "replica", "", "")},
	}
	return map[string]ingest.Sink{
		"none":     ingesttest.NewTable(),
		"plain":    newDoor(tb, ingest.DoorOptions{Sink: ingesttest.NewTable()}),
		"rules":    newDoor(tb, ingest.DoorOptions{Sink: ingesttest.NewTable(), Rules: rules}),
		"limits":   newDoor(tb, ingest.DoorOptions{Sink: ingesttest.NewTable(), SeriesMax: 1 << 20, SamplesPerSecondMax: 1e12}),
		"replicas": newDoor(tb, ingest.DoorOptions{Sink: ingesttest.NewTable(), HA: ha, Notes: ingesttest.NewNotes()}),
		"thin":     newDoor(tb, ingest.DoorOptions{Sink: ingesttest.NewTable(), Thin: ingest.Thin{Interval: time.Minute}, Notes: ingesttest.NewNotes()}),
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
	if race.Enabled {
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
