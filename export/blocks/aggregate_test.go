package blocks

import (
	"context"
	"math"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/export"
	"varve/internal/testkit"
)

// rolledSource is an archive's as cmd/varve has it.
func rolledSource(a *archive.Archive) *export.Source {
	return &export.Source{Queryable: a, Rolled: func(mint, maxt int64) (export.RolledQuerier, error) {
		q, err := a.Querier(mint, maxt)
		return rolledQuerier{q.(archiveView)}, err
	}}
}

type archiveView interface {
	storage.Querier
	Resolutions() []int64
	SelectArchived(ctx context.Context, mint, maxt int64, ms ...*labels.Matcher) *archive.ArchivedSet
}

type rolledQuerier struct{ archiveView }

func (q rolledQuerier) SelectRolled(ctx context.Context, mint, maxt int64, ms ...*labels.Matcher) export.RolledSet {
	return rolledSet{q.SelectArchived(ctx, mint, maxt, ms...)}
}

type rolledSet struct{ *archive.ArchivedSet }

func (s rolledSet) At() export.RolledSeries { return s.ArchivedSet.At() }

// aggregated reads all aggregates of all series of the blocks in a folder: of each the pairs of time and value.
func aggregated(t testing.TB, dir string) map[string][aggregates][][2]float64 {
	out := map[string][aggregates][][2]float64{}
	for _, name := range names(t, dir) {
		b, err := tsdb.OpenBlock(discard, filepath.Join(dir, name), NewPool(), nil)
		require.NoError(t, err)
		ir, err := b.Index()
		require.NoError(t, err)
		cr, err := b.Chunks()
		require.NoError(t, err)
		n, v := index.AllPostingsKey()
		p, err := ir.Postings(t.Context(), n, v)
		require.NoError(t, err)
		var builder labels.ScratchBuilder
		var metas []chunks.Meta
		for p.Next() {
			require.NoError(t, ir.Series(p.At(), &builder, &metas))
			all := out[builder.Labels().String()]
			for _, m := range metas {
				c, _, err := cr.ChunkOrIterable(m)
				require.NoError(t, err)
				require.LessOrEqual(t, c.NumSamples(), chunkSamplesMax)
				for a := range aggregates {
					part, err := (*c.(*AggregateChunk)).Get(a)
					require.NoError(t, err)
					it := part.Iterator(nil)
					for it.Next() == chunkenc.ValFloat {
						at, v := it.At()
						require.LessOrEqual(t, at, m.MaxTime)
						all[a] = append(all[a], [2]float64{float64(at), v})
					}
				}
			}
			out[builder.Labels().String()] = all
		}
		require.NoError(t, p.Err())
		require.NoError(t, cr.Close())
		require.NoError(t, ir.Close())
		require.NoError(t, b.Close())
	}
	return out
}

// rolledArchive returns an archive with buckets of 5 minutes of the first day, and none yet of the others.
func rolledArchive(t testing.TB) *archive.Archive {
	o := testkit.Options()
	o.FutureMax = 1 << 62
	o.Resolutions = []time.Duration{5 * time.Minute}
	s := testkit.NewStorage(t, testkit.Runs)
	fill(t, s)
	dir := filepath.Join(testkit.MemoryDir(t), "copy")
	_, err := s.Archive().Checkpoint(t.Context(), dir)
	require.NoError(t, err)
	require.NoError(t, s.Close())
	a := testkit.Open(t, dir, o)
	testkit.SealAll(t, a)
	days, err := a.Days()
	require.NoError(t, err)
	_, err = a.Roll(t.Context(), days[0].Day, nil)
	require.NoError(t, err)
	return a
}

// TestAggregates shows that aggregates, from rollups of 5 minutes where there are some and from samples where there are none,
// or from samples alone, are those of the samples of each stretch; at both resolutions.
func TestAggregates(t *testing.T) {
	a := rolledArchive(t)
	for _, resolution := range []time.Duration{FiveMinutes, OneHour} {
		t.Run(resolution.String(), func(t *testing.T) {
			mixed, plain := t.TempDir(), t.TempDir()
			o := options(t, a, mixed)
			o.Source, o.Resolution = rolledSource(a), resolution
			// A bound inside of a bucket is widened to it.
			o.Request.MinMillis = start + 1
			report, err := Run(t.Context(), o)
			require.NoError(t, err)
			require.Len(t, report.Blocks, 3)
			require.Positive(t, report.Stats.HistogramBuckets)
			require.Zero(t, report.Stats.Incomplete)
			o = options(t, a, plain)
			o.Resolution = resolution
			_, err = Run(t.Context(), o)
			require.NoError(t, err)
			got := aggregated(t, mixed)
			r := resolution.Milliseconds()
			for _, instance := range []string{"a", "b", "c"} {
				name := `{__name__="requests_total", instance="` + instance + `", job="api"}`
				want := naive(read(t, a, start, start+62*hour)[name], r)
				require.Equal(t, want[:Counter], sliced(got[name]), instance)
				require.Equal(t, want[:Counter], sliced(aggregated(t, plain)[name]))
				// What Thanos makes of it: the increase with resets made up for.
				require.InDelta(t, increase(read(t, a, start, start+62*hour)[name]), counterIncrease(got[name][Counter]), 1e-6)
			}
			require.NotContains(t, got, `{__name__="durations"}`)
			require.Contains(t, got, `{__name__="odd"}`)
		})
	}
}

// sliced are all aggregates but the counter.
func sliced(all [aggregates][][2]float64) [][][2]float64 { return all[:Counter] }

// naive aggregates samples as documented: later than the start up to and including the end, standing a ms before the end.
func naive(samples []sample, r int64) [aggregates][][2]float64 {
	var out [aggregates][][2]float64
	for i := 0; i < len(samples); {
		end := floor(samples[i].t+r-1, r)
		n, sum, lo, hi := 0.0, 0.0, math.Inf(1), math.Inf(-1)
		for ; i < len(samples) && samples[i].t <= end; i++ {
			v := math.Float64frombits(samples[i].f)
			n, sum, lo, hi = n+1, sum+v, min(lo, v), max(hi, v)
		}
		for a, v := range []float64{n, sum, lo, hi} {
			out[a] = append(out[a], [2]float64{float64(end - 1), v})
		}
	}
	return out
}

func increase(samples []sample) float64 {
	total, last := 0.0, math.Float64frombits(samples[0].f)
	for _, s := range samples[1:] {
		v := math.Float64frombits(s.f)
		if v < last {
			total += v
		} else {
			total += v - last
		}
		last = v
	}
	return total
}

// counterIncrease reads counters as Thanos' documentation of its chunks says: a time that comes again tells the value that
// the counter really had.
func counterIncrease(pairs [][2]float64) float64 {
	total, last, lastTime := 0.0, pairs[0][1], pairs[0][0]
	for _, p := range pairs[1:] {
		switch {
		case p[0] <= lastTime:
		case p[1] >= last:
			total += p[1] - last
		default:
			total += p[1]
		}
		last, lastTime = p[1], max(lastTime, p[0])
	}
	return total
}

// TestAggregateChunk shows the bytes of a chunk, and that a part that isn't there is told.
func TestAggregateChunk(t *testing.T) {
	var parts [aggregates]chunkenc.Chunk
	c := chunkenc.NewXORChunk()
	app, err := c.Appender()
	require.NoError(t, err)
	app.Append(0, 1000, 1)
	parts[Count], parts[Max] = c, c
	data := AppendAggregateChunk(nil, &parts)
	require.Equal(t, byte(len(c.Bytes())), data[0])
	require.Equal(t, byte(chunkenc.EncXOR), data[1])
	require.Equal(t, byte(0), data[2+len(c.Bytes())])
	chunk := AggregateChunk(data)
	got, err := chunk.Get(Max)
	require.NoError(t, err)
	require.Equal(t, c.Bytes(), got.Bytes())
	got, err = chunk.Get(Sum)
	require.NoError(t, err)
	require.Nil(t, got)
	require.Equal(t, 1, chunk.NumSamples())
	for n := range data {
		_, err := AggregateChunk(data[:n]).All()
		require.ErrorIs(t, err, ErrCorrupt)
	}
}

// FuzzAggregateChunk shows that any bytes are an error or a chunk that its parts make again.
func FuzzAggregateChunk(f *testing.F) {
	var parts [aggregates]chunkenc.Chunk
	c := chunkenc.NewXORChunk()
	app, err := c.Appender()
	require.NoError(f, err)
	app.Append(0, 1000, 1)
	app.Append(0, 2000, 3)
	parts[Count], parts[Counter] = c, c
	f.Add(AppendAggregateChunk(nil, &parts))
	f.Add([]byte{0, 0, 0, 0, 0})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		chunk := AggregateChunk(data)
		all, err := chunk.All()
		if err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
			return
		}
		again, err := AggregateChunk(AppendAggregateChunk(nil, &all)).All()
		require.NoError(t, err)
		for i := range all {
			if all[i] == nil {
				require.Nil(t, again[i])
				continue
			}
			require.Equal(t, all[i].Bytes(), again[i].Bytes())
			require.Equal(t, all[i].Encoding(), again[i].Encoding())
		}
		_ = chunk.NumSamples()
	})
}
