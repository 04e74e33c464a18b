package block_test

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/stretchr/testify/require"

	"varve/benchmarks/block"
	"varve/benchmarks/fleet"
	"varve/benchmarks/recording"
)

const step = 15_000

// newFleet is three targets of a short recording in which a series comes and goes, over 31 hours from midnight.
func newFleet(t *testing.T) *fleet.Fleet {
	t.Helper()
	path := filepath.Join(t.TempDir(), "app"+recording.Extension)
	w, err := recording.Create(path, "app")
	require.NoError(t, err)
	for slot := range 150 {
		var text bytes.Buffer
		fmt.Fprintf(&text, "# TYPE served_total counter\nserved_total %d\n# TYPE wait gauge\nwait NaN\n", 3*slot)
		if slot > 60 {
			fmt.Fprintf(&text, "# TYPE rare gauge\nrare %v\n", float64(slot)/7)
		}
		require.NoError(t, w.Append(recording.Scrape{Millis: int64(slot * 1000), Text: text.Bytes()}))
	}
	require.NoError(t, w.Close())
	columns, err := recording.Open(path, 1000)
	require.NoError(t, err)
	ring, err := fleet.Stitch(columns, 1000, step)
	require.NoError(t, err)
	f, err := fleet.New(fleet.Config{
		Seed: 1, Groups: []fleet.Group{{Ring: ring, Count: 3}}, StartMillis: 1_700_006_400_000, StepMillis: step, Rounds: 31 * 240, LifeRounds: 5000,
	})
	require.NoError(t, err)
	return f
}

// Shows that upstream reads out of the blocks every sample of the fleet by all bits, and nothing else; that blocks are aligned and
// do not overlap; and that chunks are as long as a Prometheus makes them.
func TestWrite(t *testing.T) {
	f, dir := newFleet(t), t.TempDir()
	calls := 0
	const hours18 = 18 * 3600_000
	made, err := block.Write(t.Context(), dir, f, hours18, func(block.Made) { calls++ })
	require.NoError(t, err)
	tally := f.Count(0, f.Config().Rounds)
	require.Equal(t, tally.Samples, made.Samples)
	require.Equal(t, tally.Stale, made.Stale)
	require.Positive(t, made.NaN)
	require.Equal(t, made.Blocks, calls)
	want := map[string]uint64{}
	for target := range f.Targets() {
		for i := range f.TargetSeries(target) {
			for round := range f.Config().Rounds {
				if v, ok := f.At(target, i, round); ok {
					want[fmt.Sprint(f.Labels(target, i), f.Millis(target, round))] = math.Float64bits(v)
				}
			}
		}
	}
	folders, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, folders, made.Blocks)
	var bytes, last int64
	for _, folder := range folders {
		b, err := tsdb.OpenBlock(promslog.NewNopLogger(), filepath.Join(dir, folder.Name()), nil, nil)
		require.NoError(t, err)
		meta := b.Meta()
		require.Equal(t, meta.MinTime/hours18, (meta.MaxTime-1)/hours18)
		require.GreaterOrEqual(t, meta.MinTime, last)
		last = meta.MaxTime
		bytes += b.Size()
		readBlock(t, b, want)
		require.NoError(t, b.Close())
	}
	require.Empty(t, want)
	require.Equal(t, bytes, made.Bytes)
	require.Less(t, made.IndexBytes, made.Bytes)
}

// readBlock takes every sample of a block out of what is wanted.
func readBlock(t *testing.T, b *tsdb.Block, want map[string]uint64) {
	t.Helper()
	indexes, err := b.Index()
	require.NoError(t, err)
	contents, err := b.Chunks()
	require.NoError(t, err)
	names, err := indexes.SortedLabelValues(t.Context(), model.MetricNameLabel, nil)
	require.NoError(t, err)
	postings, err := indexes.Postings(t.Context(), model.MetricNameLabel, names...)
	require.NoError(t, err)
	builder := labels.NewScratchBuilder(0)
	var metas []chunks.Meta
	for postings.Next() {
		require.NoError(t, indexes.Series(postings.At(), &builder, &metas))
		series := builder.Labels()
		for _, meta := range metas {
			chunk, _, err := contents.ChunkOrIterable(meta)
			require.NoError(t, err)
			require.LessOrEqual(t, chunk.NumSamples(), 120)
			require.Equal(t, meta.MinTime/(2*3600_000), meta.MaxTime/(2*3600_000))
			samples := chunk.Iterator(nil)
			for samples.Next() == chunkenc.ValFloat {
				millis, v := samples.At()
				key := fmt.Sprint(series, millis)
				bits, known := want[key]
				require.True(t, known, key)
				require.Equal(t, bits, math.Float64bits(v), key)
				require.True(t, millis >= b.Meta().MinTime && millis < b.Meta().MaxTime)
				delete(want, key)
			}
			require.NoError(t, samples.Err())
		}
	}
	require.NoError(t, postings.Err())
	require.NoError(t, contents.Close())
	require.NoError(t, indexes.Close())
}

// Shows that ranges that no Prometheus has are refused.
func TestWriteRange(t *testing.T) {
	for _, millis := range []int64{0, 3600_000, -7200_000} {
		_, err := block.Write(t.Context(), t.TempDir(), newFleet(t), millis, nil)
		require.ErrorContains(t, err, "no multiple of two hours")
	}
}
