package archive_test

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/archive/format"
	"varve/arrival"
	"varve/internal/testkit"
)

// stages are where samples can be when they are deleted.
var stages = map[string]func(testing.TB, *archive.Archive){
	"memory": func(testing.TB, *archive.Archive) {},
	"runs":   func(t testing.TB, a *archive.Archive) { require.NoError(t, a.Maintain(true)) },
	"sealed": func(t testing.TB, a *archive.Archive) { testkit.SealAll(t, a) },
}

// TestDelete shows the life of a delete, wherever the samples are: it hides what had arrived and
// nothing that comes later, is undone whole, holds its days, and its receipt says what went.
func TestDelete(t *testing.T) {
	for name, stage := range stages {
		t.Run(name, func(t *testing.T) {
			registry := prometheus.NewRegistry()
			o := options()
			o.Registerer = registry
			dir := testkit.MemoryDir(t)
			a := testkit.Open(t, dir, o)
			m := model{}
			var points []point
			for i := range 20 {
				for k := range 100 {
					points = append(points, point{series: i, t: day0 + int64(k)*60_000, v: float64(k)})
				}
			}
			write(t, a, points)
			m.add(points)
			stage(t, a)
			all := m.dump(math.MinInt64, math.MaxInt64)
			require.Equal(t, all, read(t, a, math.MinInt64, math.MaxInt64))

			// From minute 10 to 19 of the series 0, 5, 10 and 15.
			mint, maxt := day0+600_000, day0+1140_000
			d, ok := deleteSeries(t, a, `metric_0`, mint, maxt)
			require.True(t, ok)
			require.Equal(t, format.TombstoneActive, d.State)
			require.EqualValues(t, 4, d.Series)
			require.Equal(t, 1, d.Days)
			require.Equal(t, []string{`metric_0`}, d.Selectors)
			require.Equal(t, "test", d.Author)
			remove := func() {
				for i := 0; i < 20; i += 5 {
					for k := int64(10); k < 20; k++ {
						delete(m[i], day0+k*60_000)
					}
				}
			}
			remove()
			requireSame(t, m.dump(math.MinInt64, math.MaxInt64), read(t, a, math.MinInt64, math.MaxInt64), "deleted")
			late := []point{{series: 5, t: day0 + 660_000, v: 77}}
			write(t, a, late)
			m.add(late)
			requireSame(t, m.dump(math.MinInt64, math.MaxInt64), read(t, a, math.MinInt64, math.MaxInt64), "written again")
			_, err := a.Seal(context.Background(), format.DayOf(day0), nil)
			require.ErrorIs(t, err, archive.ErrHeld)
			days, err := a.Days()
			require.NoError(t, err)
			require.True(t, days[len(days)-1].Held)

			_, err = a.Undelete(d.ID)
			require.NoError(t, err)
			m.add(points)
			m.add(late)
			requireSame(t, m.dump(math.MinInt64, math.MaxInt64), read(t, a, math.MinInt64, math.MaxInt64), "undone")
			_, err = a.Undelete(d.ID)
			require.ErrorIs(t, err, archive.ErrDeleteEnded)
			_, err = a.Undelete(format.TombstoneID{1})
			require.ErrorIs(t, err, archive.ErrNoDelete)

			d, ok = deleteSeries(t, a, `metric_0`, mint, maxt)
			require.True(t, ok)
			remove()
			require.NoError(t, a.Close())
			testkit.Check(t, dir)
			a = testkit.Open(t, dir, o)
			requireSame(t, m.dump(math.MinInt64, math.MaxInt64), read(t, a, math.MinInt64, math.MaxInt64), "after a restart")
			require.NoError(t, testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP varve_archive_deletes Deletes, by state: active ones can be undone, those being cleaned can't, cleaned and undone ones are receipts.
# TYPE varve_archive_deletes gauge
varve_archive_deletes{state="active"} 1
varve_archive_deletes{state="cleaned"} 0
varve_archive_deletes{state="cleaning"} 0
varve_archive_deletes{state="undone"} 1
# HELP varve_archive_masked_series Series of which a delete hides samples that are still on disk.
# TYPE varve_archive_masked_series gauge
varve_archive_masked_series 4
`), "varve_archive_deletes", "varve_archive_masked_series"))
			r, err := a.Clean(context.Background(), []format.TombstoneID{d.ID, d.ID, {2}}, nil)
			require.NoError(t, err)
			require.Len(t, r.Deletes, 1)
			// The sample that was written again lies beside the one that it overwrites, or with it.
			require.Contains(t, []uint64{40, 41}, r.Samples)
			require.Positive(t, r.Bytes)
			receipts, err := a.Deletes()
			require.NoError(t, err)
			require.Len(t, receipts, 2)
			require.Equal(t, r.Deletes[0], receipts[1])
			require.Equal(t, format.TombstoneCleaned, receipts[1].State)
			require.Equal(t, r.Samples, receipts[1].Samples)
			require.False(t, receipts[1].Ended.IsZero())
			_, err = a.Undelete(d.ID)
			require.ErrorIs(t, err, archive.ErrDeleteEnded)
			requireSame(t, m.dump(math.MinInt64, math.MaxInt64), read(t, a, math.MinInt64, math.MaxInt64), "cleaned")
			testkit.SealAll(t, a)
			requireSame(t, m.dump(math.MinInt64, math.MaxInt64), read(t, a, math.MinInt64, math.MaxInt64), "sealed")
		})
	}
}

// TestDeleteNothing shows that a delete that matches nothing in its time leaves no trace.
func TestDeleteNothing(t *testing.T) {
	a := testkit.Open(t, testkit.MemoryDir(t), options())
	write(t, a, []point{{series: 1, t: day0, v: 1}})
	for _, c := range []struct {
		selector   string
		mint, maxt int64
	}{{`none`, math.MinInt64, math.MaxInt64}, {`metric_1{i!~".*"}`, math.MinInt64, math.MaxInt64}, {`metric_1`, day0 + 86400_000, math.MaxInt64}, {`metric_1`, math.MinInt64, day0 - 1}} {
		_, ok := deleteSeries(t, a, c.selector, c.mint, c.maxt)
		require.False(t, ok, c)
	}
	all, err := a.Deletes()
	require.NoError(t, err)
	require.Empty(t, all)
	require.NotEmpty(t, read(t, a, math.MinInt64, math.MaxInt64))
}

// TestDeleteGrace shows that a delete can be undone up to the end of its grace, and not later.
func TestDeleteGrace(t *testing.T) {
	o := options()
	now := clock()
	o.Now = func() time.Time { return now }
	a := testkit.Open(t, testkit.MemoryDir(t), o)
	write(t, a, []point{{series: 1, t: day0, v: 1}})
	want := read(t, a, math.MinInt64, math.MaxInt64)
	remove := func() format.TombstoneID {
		d, ok, err := a.Delete(context.Background(), archive.DeleteRequest{
			Matchers: [][]*labels.Matcher{matchersOf(t, "metric_1")}, MinMillis: math.MinInt64, MaxMillis: math.MaxInt64, Grace: time.Hour,
		})
		require.NoError(t, err)
		require.True(t, ok)
		require.Empty(t, read(t, a, math.MinInt64, math.MaxInt64))
		return d.ID
	}
	id := remove()
	now = now.Add(time.Hour)
	_, err := a.Undelete(id)
	require.NoError(t, err)
	require.Equal(t, want, read(t, a, math.MinInt64, math.MaxInt64))
	id = remove()
	now = now.Add(time.Hour + time.Millisecond)
	_, err = a.Undelete(id)
	require.ErrorIs(t, err, archive.ErrDeleteEnded)
	require.Empty(t, read(t, a, math.MinInt64, math.MaxInt64))
}

// exemplarsOf lists the exemplars of all series.
func exemplarsOf(t testing.TB, a *archive.Archive) (out []string) {
	q, err := a.ExemplarQuerier(context.Background())
	require.NoError(t, err)
	results, err := q.Select(math.MinInt64, math.MaxInt64, matchersOf(t, `{__name__=~".+"}`))
	require.NoError(t, err)
	for _, r := range results {
		for _, e := range r.Exemplars {
			out = append(out, fmt.Sprintf("%s %d %v", r.SeriesLabels.Get("i"), e.Ts-day0, e.Value))
		}
	}
	return out
}

// TestDeleteExemplars shows that exemplars go with the samples of their time, and that later ones stay.
func TestDeleteExemplars(t *testing.T) {
	a := testkit.Open(t, testkit.MemoryDir(t), options())
	put := func(i int, at int64, v float64) {
		b := &arrival.Batch{
			Rows: []arrival.Row{{Ref: resolve(t, a, seriesLabels(i)), Count: 1}}, Times: []int64{day0 + at}, Values: []uint64{math.Float64bits(v)},
			Exemplars: []arrival.Exemplar{{Exemplar: exemplar.Exemplar{Labels: labels.FromStrings("trace", "x"), Value: v, Ts: day0 + at, HasTs: true}}},
		}
		res, err := a.Write(context.Background(), b)
		require.NoError(t, err)
		require.Equal(t, 1, res.Exemplars)
	}
	for i := range 3 {
		for at := range int64(5) {
			put(i, at*1000, float64(at))
		}
	}
	d, ok := deleteSeries(t, a, `{i="1"}`, day0+1000, day0+3000)
	require.True(t, ok)
	want := []string{
		"0 0 0", "0 1000 1", "0 2000 2", "0 3000 3", "0 4000 4", "1 0 0", "1 4000 4", "2 0 0", "2 1000 1", "2 2000 2", "2 3000 3", "2 4000 4",
	}
	require.Equal(t, want, exemplarsOf(t, a))
	put(1, 2000, 9)
	want = append(want[:6:6], append([]string{"1 2000 9"}, want[6:]...)...)
	require.Equal(t, want, exemplarsOf(t, a))
	r, err := a.Clean(context.Background(), []format.TombstoneID{d.ID}, nil)
	require.NoError(t, err)
	require.EqualValues(t, 3, r.Exemplars)
	require.Equal(t, want, exemplarsOf(t, a))
}

// TestDeleteHistograms cuts stretches out of native histograms of all kinds, through pieces and whole ones,
// and shows that queries before and after the cleaning, as samples and as chunks, see the same.
func TestDeleteHistograms(t *testing.T) {
	for name, stage := range stages {
		t.Run(name, func(t *testing.T) {
			a := testkit.Open(t, testkit.MemoryDir(t), options())
			for i := range 4 {
				ref := resolve(t, a, seriesLabels(i))
				for k := range int64(300) {
					h := arrival.Histogram{TimeMillis: day0 + k*15_000}
					switch {
					case i == 0:
						h.Int = tsdbutil.GenerateTestHistogram(k % 70)
					case i == 1:
						h.Float = tsdbutil.GenerateTestFloatHistogram(k % 70)
					case i == 2:
						h.Int, h.StartMillis = tsdbutil.GenerateTestCustomBucketsHistogram(k%70), day0-5
					default:
						h.Int = tsdbutil.GenerateTestGaugeHistogram(k % 70)
					}
					_, err := a.Write(context.Background(), &arrival.Batch{Rows: []arrival.Row{{Ref: ref}}, Histograms: []arrival.Histogram{h}})
					require.NoError(t, err)
				}
			}
			stage(t, a)
			full := strings.Split(ask(day0, day0+86400_000-1)(t, a), "\n")
			require.Len(t, full, 4)
			for _, k := range [][2]int64{{3, 3}, {10, 150}, {170, 171}, {290, 299}} {
				_, ok := deleteSeries(t, a, `{i=~".*"}`, day0+k[0]*15_000, day0+k[1]*15_000)
				require.True(t, ok)
			}
			samples := ask(day0, day0+86400_000-1)
			want := samples(t, a)
			for i, line := range strings.Split(want, "\n") {
				for _, sample := range strings.Split(line, " 17")[1:] {
					require.Contains(t, full[i], " 17"+sample)
				}
				require.Equal(t, 300-1-141-2-10, strings.Count(line, "schema="))
			}
			requireSame(t, want, askChunks(day0, day0+86400_000-1)(t, a), "chunks")
			var ids []format.TombstoneID
			for _, d := range a.LiveDeletes() {
				ids = append(ids, d.ID)
			}
			r, err := a.Clean(context.Background(), ids, nil)
			require.NoError(t, err)
			require.EqualValues(t, 4*154, r.Samples)
			for i, n := range []uint64{4, 564, 8, 40} {
				require.Equal(t, n, r.Deletes[i].Samples)
			}
			requireSame(t, want, samples(t, a), "cleaned")
			requireSame(t, want, askChunks(day0, day0+86400_000-1)(t, a), "chunks, cleaned")
			testkit.SealAll(t, a)
			requireSame(t, want, samples(t, a), "sealed")
		})
	}
}

// TestDeleteFreesNames shows that what only deleted series have is in no label answer, at once and after
// cleaning, for whole days and parts of them, and is back when it is written again.
func TestDeleteFreesNames(t *testing.T) {
	for name, stage := range stages {
		t.Run(name, func(t *testing.T) {
			dir := testkit.MemoryDir(t)
			a := testkit.Open(t, dir, options())
			special := labels.FromStrings("__name__", "special", "only", "here")
			put := func(at int64) {
				b := &arrival.Batch{Rows: []arrival.Row{{Ref: resolve(t, a, special), Count: 1}}, Times: []int64{at}, Values: []uint64{5}}
				_, err := a.Write(context.Background(), b)
				require.NoError(t, err)
			}
			names := func(mint, maxt int64) string {
				q, err := a.Querier(mint, maxt)
				require.NoError(t, err)
				defer q.Close()
				all, _, err := q.LabelNames(context.Background(), nil)
				require.NoError(t, err)
				metrics, _, err := q.LabelValues(context.Background(), "__name__", nil)
				require.NoError(t, err)
				return strings.Join(append(all, metrics...), " ")
			}
			for k := range int64(3) {
				write(t, a, []point{{series: 1, t: day0 + k*86400_000, v: 1}})
				put(day0 + k*86400_000 + 1000)
			}
			stage(t, a)
			with, without := "__name__ i instance job only metric_1 special", "__name__ i instance job metric_1"
			ranges := [][2]int64{{math.MinInt64, math.MaxInt64}, {day0, day0 + 3*86400_000 - 1}, {day0 - 5, day0 + 2*86400_000 + 5000}}
			check := func(want, when string) {
				t.Helper()
				for _, r := range ranges {
					require.Equal(t, want, names(r[0], r[1]), "%s %v", when, r)
				}
			}
			check(with, "before")
			d, _ := deleteSeries(t, a, `special`, day0, day0+2*86400_000)
			check(with, "partly deleted")
			require.Equal(t, without, names(day0, day0+2*86400_000-1))
			e, _ := deleteSeries(t, a, `special`, math.MinInt64, math.MaxInt64)
			check(without, "deleted")
			_, err := a.Undelete(e.ID)
			require.NoError(t, err)
			check(with, "partly undone")
			e, _ = deleteSeries(t, a, `special`, math.MinInt64, math.MaxInt64)
			_, err = a.Clean(context.Background(), []format.TombstoneID{d.ID, e.ID}, nil)
			require.NoError(t, err)
			check(without, "cleaned")
			put(day0 + 1500)
			check(with, "written again")
			b, _ := crash(t, dir, options())
			require.Equal(t, with, func() string { a, b = b, a; defer func() { a, b = b, a }(); return names(math.MinInt64, math.MaxInt64) }())
			require.NoError(t, b.Close())
			testkit.SealAll(t, a)
			check(with, "sealed")
		})
	}
}

// TestDeleteKilled kills at every step of deleting, undoing and cleaning: it was done or it was not, and
// what a cleaning has removed the receipt counts once.
func TestDeleteKilled(t *testing.T) {
	for name, stage := range stages {
		t.Run(name, func(t *testing.T) {
			dir := testkit.MemoryDir(t)
			o := options()
			a := testkit.Open(t, dir, o)
			a.SmallSeals()
			var points []point
			for i := range 60 {
				for k := range 40 {
					points = append(points, point{series: i, t: day0 - 86400_000 + int64(k)*4_000_000, v: float64(k * i)})
				}
			}
			write(t, a, points)
			stage(t, a)
			m := model{}
			m.add(points)
			full := m.dump(math.MinInt64, math.MaxInt64)
			removed := 0
			for i := range m {
				for at := range m[i] {
					if i%3 == 1 && at >= day0-40_000_000 && at <= day0+30_000_000 {
						delete(m[i], at)
						removed++
					}
				}
			}
			part := m.dump(math.MinInt64, math.MaxInt64)
			states := map[string]int{}
			a.OnStep(func(step string) {
				b, to := crash(t, dir, o)
				b.SmallSeals()
				got := read(t, b, math.MinInt64, math.MaxInt64)
				switch step {
				case "resolved", "cut", "undone":
					requireSame(t, full, got, step)
				default:
					requireSame(t, part, got, step)
					live := b.LiveDeletes()
					var ids []format.TombstoneID
					for _, d := range live {
						ids = append(ids, d.ID)
					}
					_, err := b.Clean(context.Background(), ids, nil)
					require.NoError(t, err)
					requireSame(t, part, read(t, b, math.MinInt64, math.MaxInt64), step)
					all, err := b.Deletes()
					require.NoError(t, err)
					require.EqualValues(t, removed, all[len(all)-1].Samples, step)
				}
				states[step]++
				require.NoError(t, b.Close())
				testkit.Check(t, to)
			})
			d, _ := deleteSeries(t, a, `{job="job1"}`, day0-40_000_000, day0+30_000_000)
			_, err := a.Undelete(d.ID)
			require.NoError(t, err)
			d, _ = deleteSeries(t, a, `{job="job1"}`, day0-40_000_000, day0+30_000_000)
			_, err = a.Clean(context.Background(), []format.TombstoneID{d.ID}, nil)
			require.NoError(t, err)
			requireSame(t, part, read(t, a, math.MinInt64, math.MaxInt64), "at the end")
			for _, step := range []string{"resolved", "cut", "deleted", "undone", "cleaning", "clean batch", "retracted", "cleaned"} {
				require.Positive(t, states[step], step)
			}
			require.Greater(t, states["clean batch"], 4)
		})
	}
}

// TestDeleteSpace shows that cleaning gives the disk back what a delete hid.
func TestDeleteSpace(t *testing.T) {
	a := testkit.Open(t, t.TempDir(), options())
	size := func() uint64 {
		require.NoError(t, a.Settle())
		days, err := a.Days()
		require.NoError(t, err)
		n := uint64(0)
		for _, d := range days {
			n += d.RawBytes + d.RunBytes
		}
		return n
	}
	for i := range 200 {
		var points []point
		for k := range 500 {
			points = append(points, point{series: i, t: day0 + int64(k)*60_000, v: float64((k*k*i + k*7919) % 100_003)})
		}
		write(t, a, points)
	}
	testkit.SealAll(t, a)
	before := size()
	d, _ := deleteSeries(t, a, `{job=~"job[01]"}`, math.MinInt64, math.MaxInt64)
	r, err := a.Clean(context.Background(), []format.TombstoneID{d.ID}, nil)
	require.NoError(t, err)
	require.EqualValues(t, 67000, r.Samples)
	requireFreed(t, before/2, size)
	after := size()
	require.Greater(t, r.Bytes, int64(before-after)/2, "before compression")
}

// TestDeleteOverwrites shows that a guard against overwrites takes new values for what was deleted.
func TestDeleteOverwrites(t *testing.T) {
	o := options()
	o.RejectOverwrites = true
	a := testkit.Open(t, testkit.MemoryDir(t), o)
	require.Equal(t, 1, write(t, a, []point{{series: 1, t: day0, v: 1}}).Samples)
	require.Equal(t, 0, write(t, a, []point{{series: 1, t: day0, v: 2}}).Samples)
	_, ok := deleteSeries(t, a, `metric_1`, day0, day0)
	require.True(t, ok)
	require.Equal(t, 1, write(t, a, []point{{series: 1, t: day0, v: 2}}).Samples)
	require.Equal(t, 2.0, valueAt(t, a, 1, day0))
}

// TestDeleteDamage shows that the check finds tombstones that can't be right, and that an archive with one that
// can't be read is not opened: it would show what was deleted.
func TestDeleteDamage(t *testing.T) {
	dir := testkit.MemoryDir(t)
	a := open(t, dir, options())
	write(t, a, []point{{series: 1, t: day0, v: 1}, {series: 2, t: day0, v: 1}})
	_, ok := deleteSeries(t, a, `metric_1`, day0, day0)
	require.True(t, ok)
	require.NoError(t, a.Close())
	whole := recordsOf(t, dir, format.FamilyTombstones)[0]
	report := testkit.Check(t, dir)
	require.Equal(t, 1, report.Deletes)

	var stone format.Tombstone
	require.NoError(t, stone.Parse(whole.value))
	unknown := stone
	unknown.Refs, unknown.Series = stone.Refs.Clone(), 2
	unknown.Refs.Add(77)
	ahead := stone
	ahead.Sequence += 1 << 30
	for want, value := range map[string][]byte{
		"names series 77, which does not exist": unknown.Append(nil),
		"are only known to be cut up to":        ahead.Append(nil),
		"tombstone ends early":                  whole.value[:len(whole.value)-1],
	} {
		change(t, dir, format.FamilyTombstones, whole.key, value)
		faults := faultsOf(t, dir)
		require.Len(t, faults, 1)
		require.Contains(t, faults[0].String(), want)
	}
	change(t, dir, format.FamilyTombstones, whole.key, whole.value[:5])
	_, err := archive.Open(dir, options())
	require.ErrorIs(t, err, archive.ErrCorrupt)
	require.ErrorContains(t, err, "varve check data")
	change(t, dir, format.FamilyTombstones, whole.key, whole.value)
	a = open(t, dir, options())
	require.NotContains(t, read(t, a, math.MinInt64, math.MaxInt64), "metric_1")
	require.NoError(t, a.Close())
}
