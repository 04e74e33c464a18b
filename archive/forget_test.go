package archive_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/archive/format"
	"varve/arrival"
	"varve/internal/testkit"
)

// forgetOptions are those of an archive without rollups whose clock tests move.
func forgetOptions() (archive.Options, *atomic.Int64) {
	now := &atomic.Int64{}
	now.Store(day0 + 3*dayMillis + 3600_000)
	o := testkit.Options()
	o.Now = func() time.Time { return time.UnixMilli(now.Load()) }
	return o, now
}

// expireBefore lets everything before a day expire, after it was sealed.
func expireBefore(t testing.TB, a *archive.Archive, day format.Day) {
	t.Helper()
	require.NoError(t, a.Maintain(true))
	sealAll(t, a, false)
	kept, err := a.Retention()
	require.NoError(t, err)
	floors := make([]format.Day, len(kept.Levels))
	for i := range floors {
		floors[i] = day
	}
	_, err = a.Expire(context.Background(), floors)
	require.NoError(t, err)
	_, err = a.Reclaim()
	require.NoError(t, err)
	require.NoError(t, a.Maintain(true))
}

func forget(t testing.TB, a *archive.Archive) archive.ForgetReport {
	t.Helper()
	r, err := a.Forget(context.Background(), nil)
	require.NoError(t, err)
	return r
}

// requireRecords tells how many series, pairs and groups there are.
func requireRecords(t testing.TB, a *archive.Archive, series, pairs, groups int) {
	t.Helper()
	require.Equal(t, series, a.CountKeys(format.FamilySeries, ""), "series")
	require.Equal(t, series, a.CountKeys(format.FamilyLookup, ""), "lookups")
	require.Equal(t, pairs, a.CountKeys(format.FamilySymbols, "p"), "pairs")
	require.Equal(t, pairs, a.CountKeys(format.FamilySymbols, "n"), "pairs by text")
	require.Equal(t, groups, a.CountKeys(format.FamilySymbols, "g"), "groups")
}

// churned are the labels of a series of a pod that lives for a day.
func churned(pod, i int) labels.Labels {
	return labels.FromStrings("__name__", fmt.Sprintf("churn_%d_total", i%4), "job", "churn", "instance", fmt.Sprintf("pod%d", pod), "i", fmt.Sprint(i))
}

// writeTo writes one sample to each of the series, by refs that were looked up before.
func writeTo(t testing.TB, a *archive.Archive, refs []uint64, at int64, v float64) {
	t.Helper()
	b := &arrival.Batch{}
	for _, ref := range refs {
		b.Rows = append(b.Rows, arrival.Row{Ref: format.Ref(ref), First: uint32(len(b.Times)), Count: 1})
		b.Times, b.Values = append(b.Times, at), append(b.Values, math.Float64bits(v))
	}
	res, err := a.Write(context.Background(), b)
	require.NoError(t, err)
	require.Equal(t, len(refs), res.Samples)
}

func resolveAll(t testing.TB, a *archive.Archive, sets ...labels.Labels) (refs []uint64) {
	t.Helper()
	unknown := make([]arrival.Unknown, len(sets))
	for i := range sets {
		unknown[i].Labels = sets[i]
	}
	require.NoError(t, a.Resolve(context.Background(), unknown))
	for i := range unknown {
		require.NotZero(t, unknown[i].Ref)
		refs = append(refs, uint64(unknown[i].Ref))
	}
	return refs
}

// churn makes series of some pods, with samples at a time.
func churn(t testing.TB, a *archive.Archive, pods, series int, at int64) (refs []uint64) {
	t.Helper()
	for pod := range pods {
		var sets []labels.Labels
		for i := range series {
			sets = append(sets, churned(pod, i))
		}
		own := resolveAll(t, a, sets...)
		writeTo(t, a, own, at, 1)
		refs = append(refs, own...)
	}
	return refs
}

// TestForget shows that nothing is left of series whose last day has expired: no record, no label, no group, no
// metadata; that those with data stay; and that one that is written again is a new one, also after a restart.
func TestForget(t *testing.T) {
	dir := testkit.MemoryDir(t)
	o, now := forgetOptions()
	a := open(t, dir, o)
	_, err := a.Write(context.Background(), &arrival.Batch{Metadata: []arrival.Metadata{
		{Family: "churn_1", Metadata: metadata.Metadata{Help: "goes"}}, {Family: "metric_1", Metadata: metadata.Metadata{Help: "stays"}},
	}})
	require.NoError(t, err)
	old := churn(t, a, 5, 30, day0+5)
	for i := range 7 {
		write(t, a, []point{{i, day0 + 6, 1}, {i, day0 + 2*dayMillis, 2}})
	}
	requireRecords(t, a, 157, 4+1+5+30+5+3+7, 12)
	require.Zero(t, forget(t, a).Series)
	expireBefore(t, a, format.DayOf(day0+2*dayMillis))
	kept, err := a.Retention()
	require.NoError(t, err)
	require.True(t, kept.Forget.Due)
	require.Zero(t, forget(t, a).Series, "they were made less than an hour ago")
	now.Add(2 * 3600_000)
	r := forget(t, a)
	require.Equal(t, uint64(150), r.Series)
	require.Zero(t, r.Waits)
	require.Equal(t, uint64(4+1+5+23), r.Pairs)
	require.Equal(t, uint64(1), r.Metadata)
	requireRecords(t, a, 7, 5+3+7+7, 7)
	_, known := a.MetadataOf("churn_1")
	require.False(t, known)
	_, known = a.MetadataOf("metric_1")
	require.True(t, known)
	kept, err = a.Retention()
	require.NoError(t, err)
	require.False(t, kept.Forget.Due)
	require.Equal(t, 5+3+7+7, a.CountKeys(format.FamilyIndex, ""), "postings")
	require.NoError(t, a.Close())
	require.Zero(t, testkit.Check(t, dir).Stale)

	a = open(t, dir, o)
	again := churn(t, a, 1, 30, day0+2*dayMillis+7)
	for _, ref := range again {
		require.NotContains(t, old, ref)
	}
	require.Equal(t, 30, strings.Count(read(t, a, 0, math.MaxInt64, matcher("job=churn")), "churn_"))
	require.NoError(t, a.Close())
	testkit.Check(t, dir)
}

// TestForgetRefs shows that refs of a group that goes on are not given out again, also when its newest series were
// forgotten and the archive was opened anew.
func TestForgetRefs(t *testing.T) {
	dir := testkit.MemoryDir(t)
	o, now := forgetOptions()
	a := open(t, dir, o)
	refs := churn(t, a, 1, 20, day0+5)
	writeTo(t, a, refs[:3], day0+2*dayMillis, 1)
	now.Add(2 * 3600_000)
	expireBefore(t, a, format.DayOf(day0+2*dayMillis))
	require.Equal(t, uint64(17), forget(t, a).Series)
	for range 2 {
		var sets []labels.Labels
		for i := range 10 {
			sets = append(sets, churned(0, 100+len(refs)+i))
		}
		next := resolveAll(t, a, sets...)
		for _, ref := range next {
			require.NotContains(t, refs, ref)
		}
		refs = append(refs, next...)
		writeTo(t, a, next, day0+2*dayMillis, 1)
		require.NoError(t, a.Close())
		a = open(t, dir, o)
	}
	require.NoError(t, a.Close())
	testkit.Check(t, dir)
}

// TestForgetStays shows what keeps a series: an exemplar, a delete that can be undone, and that what is written to it. When that is over it
// goes.
func TestForgetStays(t *testing.T) {
	dir := testkit.MemoryDir(t)
	o, now := forgetOptions()
	a := open(t, dir, o)
	refs := churn(t, a, 1, 4, day0+2*dayMillis)
	_, err := a.Write(context.Background(), &arrival.Batch{
		Rows:      []arrival.Row{{Ref: format.Ref(refs[0])}},
		Exemplars: []arrival.Exemplar{{Row: 0, Exemplar: exemplar.Exemplar{Labels: labels.FromStrings("trace", "x"), Value: 1, Ts: day0 + 3*dayMillis, HasTs: true}}},
	})
	require.NoError(t, err)
	now.Add(2 * 3600_000)
	require.NoError(t, a.Maintain(true))
	d, ok := deleteSeries(t, a, `{i=~"0|1"}`, math.MinInt64, math.MaxInt64)
	require.True(t, ok)
	later, ok := deleteSeries(t, a, `{i="2"}`, math.MinInt64, math.MaxInt64)
	require.True(t, ok)
	_, err = a.Clean(context.Background(), []format.TombstoneID{d.ID}, nil)
	require.NoError(t, err)
	require.Equal(t, uint64(1), forget(t, a).Series, "series 1; 0 has an exemplar on another day, 2 a delete, 3 samples")
	_, err = a.Clean(context.Background(), []format.TombstoneID{later.ID}, nil)
	require.NoError(t, err)
	require.NoError(t, a.Maintain(true))
	require.Equal(t, uint64(1), forget(t, a).Series, "series 2")
	// The day of the exemplar expires, and with it series 3.
	now.Add(3 * dayMillis)
	write(t, a, []point{{1, now.Load(), 1}})
	expireBefore(t, a, format.DayOf(now.Load()))
	require.Equal(t, uint64(2), forget(t, a).Series)
	requireRecords(t, a, 1, 4, 1)
	require.NoError(t, a.Close())
	testkit.Check(t, dir)
}

// TestForgetWaits shows that readers of before are waited for, that they see their series all the while, and that in the
// background the journal is waited for, not cut short.
func TestForgetWaits(t *testing.T) {
	dir := testkit.MemoryDir(t)
	o, now := forgetOptions()
	a := open(t, dir, o)
	churn(t, a, 2, 10, day0+5)
	now.Add(2 * 3600_000)
	write(t, a, []point{{1, day0 + 2*dayMillis, 1}})
	require.NoError(t, a.Maintain(true))
	sealAll(t, a, false)
	q, err := a.Querier(math.MinInt64, math.MaxInt64)
	require.NoError(t, err)
	before := read(t, fixedView{q}, 0, 0)
	_, err = a.Expire(context.Background(), []format.Day{format.DayOf(day0 + 2*dayMillis)})
	require.NoError(t, err)
	pace := func(context.Context, time.Duration) error { return nil }
	r, err := a.Forget(context.Background(), pace)
	require.NoError(t, err)
	require.Equal(t, archive.ForgetReport{Leaving: 20, Waits: "the journal still has records of before", Took: r.Took}, r)
	require.NoError(t, a.Maintain(true))
	r = forget(t, a)
	require.Equal(t, archive.ForgetReport{Leaving: 20, Waits: "a query began before", Took: r.Took}, r)
	kept, err := a.Retention()
	require.NoError(t, err)
	require.Equal(t, archive.ForgetStatus{Leaving: 20, Waits: "a query began before"}, kept.Forget)
	requireSame(t, before, read(t, fixedView{q}, 0, 0), "the view")
	require.NoError(t, q.Close())
	kept, err = a.Retention()
	require.NoError(t, err)
	require.Equal(t, archive.ForgetStatus{Due: true, Leaving: 20}, kept.Forget)
	r, err = a.Forget(context.Background(), pace)
	require.NoError(t, err)
	require.Equal(t, uint64(20), r.Series)
	requireRecords(t, a, 1, 4, 1)
	require.NoError(t, a.Close())
	testkit.Check(t, dir)
}

// TestForgetIdle shows that the journal moves on without arrivals while series wait to be forgotten.
func TestForgetIdle(t *testing.T) {
	o, now := forgetOptions()
	a := testkit.Open(t, testkit.MemoryDir(t), o)
	churn(t, a, 2, 10, day0+5)
	now.Add(2 * 3600_000)
	write(t, a, []point{{1, day0 + 2*dayMillis, 1}})
	expireBefore(t, a, format.DayOf(day0+2*dayMillis))
	pace := func(context.Context, time.Duration) error { return nil }
	write(t, a, []point{{1, day0 + 2*dayMillis + 1, 1}})
	for range 100 {
		now.Add(60_000)
		require.NoError(t, a.Maintain(false))
		r, err := a.Forget(context.Background(), pace)
		require.NoError(t, err)
		if r.Series == 20 {
			return
		}
	}
	t.Fatal("the series still wait")
}

// TestForgetWriters shows that a writer which has looked a series up writes to it whatever becomes of it: while it leaves, when it is gone,
// and when the labels were forgotten as well.
func TestForgetWriters(t *testing.T) {
	dir := testkit.MemoryDir(t)
	o, now := forgetOptions()
	a := open(t, dir, o)
	refs := churn(t, a, 1, 10, day0+5)
	now.Add(2 * 3600_000)
	write(t, a, []point{{1, day0 + 2*dayMillis, 1}})
	expireBefore(t, a, format.DayOf(day0+2*dayMillis))
	at := day0 + 2*dayMillis + 1000
	a.OnStep(func(step string) {
		switch step {
		case "series leave":
			writeTo(t, a, refs[:1], at, 1)
		case "series left":
			writeTo(t, a, refs[1:2], at, 2)
			// To be looked up alone doesn't keep it.
			require.Equal(t, refs[2:3], resolveAll(t, a, churned(0, 2)))
		case "pairs swept":
			writeTo(t, a, refs[4:6], at, 3)
		}
	})
	require.Equal(t, uint64(8), forget(t, a).Series)
	a.OnStep(nil)
	writeTo(t, a, refs[5:8], at+1, 4)
	require.Equal(t, 1+2+4, a.CountKeys(format.FamilySeries, ""))
	got := read(t, a, at, at+1, matcher("job=churn"))
	for _, i := range []int{0, 1, 4, 5, 6, 7} {
		require.Equal(t, 1, strings.Count(got, churned(0, i).String()), got)
	}
	require.NoError(t, a.Close())
	testkit.Check(t, dir)
	a = open(t, dir, o)
	requireSame(t, got, read(t, a, at, at+1, matcher("job=churn")), "after a restart")
	require.NoError(t, a.Close())
}

// TestForgetBeforeDrop shows that a delete doesn't name series that were forgotten, though the index of their expired month is not dropped yet.
func TestForgetBeforeDrop(t *testing.T) {
	dir := testkit.MemoryDir(t)
	o, now := forgetOptions()
	a := open(t, dir, o)
	churn(t, a, 1, 10, day0-50*dayMillis)
	write(t, a, []point{{1, day0 + 2*dayMillis, 1}})
	now.Add(2 * 3600_000)
	require.NoError(t, a.Maintain(true))
	sealAll(t, a, false)
	_, err := a.Expire(context.Background(), []format.Day{format.DayOf(day0 + 2*dayMillis)})
	require.NoError(t, err)
	require.Equal(t, uint64(10), forget(t, a).Series)
	d, ok := deleteSeries(t, a, `{i="1"}`, math.MinInt64, math.MaxInt64)
	require.True(t, ok)
	require.Equal(t, uint64(1), d.Series)
	require.NoError(t, a.Close())
	testkit.Check(t, dir)
}

// TestForgetWithinWrite forgets the series of a batch when the batch is prepared and not yet in the journal: the clock, which is asked just
// then, does it.
func TestForgetWithinWrite(t *testing.T) {
	dir := testkit.MemoryDir(t)
	o, now := forgetOptions()
	clock, asked := o.Now, 0
	var a *archive.Archive
	var at int
	o.Now = func() time.Time {
		if asked++; asked == at {
			forget(t, a)
		}
		return clock()
	}
	a = open(t, dir, o)
	for at = range 3 { // Later it is asked by who holds the lock of the archive.
		sets := []labels.Labels{churned(at, 0), churned(at, 1)}
		asked = -1000
		refs := resolveAll(t, a, sets...)
		require.NoError(t, a.Maintain(true))
		now.Add(2 * 3600_000)
		asked = 0
		writeTo(t, a, refs, day0+2*dayMillis, 1)
		asked = -1000
		require.Equal(t, 2, strings.Count(read(t, a, 0, math.MaxInt64, matcher(fmt.Sprintf("instance=pod%d", at))), "churn_"))
	}
	asked = -1000
	require.NoError(t, a.Close())
	testkit.Check(t, dir)
}

// TestForgetAmongWriters has many writers write to series that are being forgotten, by refs of before and by labels: no sample is lost,
// and none has a twin.
func TestForgetAmongWriters(t *testing.T) {
	dir := testkit.MemoryDir(t)
	o, now := forgetOptions()
	a := open(t, dir, o)
	at := day0 + 2*dayMillis
	rounds, series := 12, 600
	for round := range rounds {
		var sets []labels.Labels
		for i := range series {
			sets = append(sets, churned(round, i))
		}
		refs := resolveAll(t, a, sets...)
		require.NoError(t, a.Maintain(true))
		now.Add(2 * 3600_000)
		var wg sync.WaitGroup
		for w := range 3 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				r := rand.New(rand.NewPCG(uint64(round), uint64(w)))
				for _, i := range r.Perm(series / 2) {
					if r.IntN(3) == 0 {
						writeTo(t, a, resolveAll(t, a, sets[i]), at+int64(w), float64(w))
					} else {
						writeTo(t, a, refs[i:i+1], at+int64(w), float64(w))
					}
				}
			}()
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range 4 {
				resolveAll(t, a, sets[series/2:]...)
			}
		}()
		for range 3 {
			_, err := a.Forget(context.Background(), nil)
			require.NoError(t, err)
		}
		wg.Wait()
		for _, ref := range resolveAll(t, a, sets...) {
			require.True(t, a.HasRecord(format.Ref(ref)), "series %d is found by its labels and has no record", ref)
		}
		got := read(t, a, at, at+10, matcher(fmt.Sprintf("instance=pod%d", round)))
		require.Len(t, strings.Split(strings.TrimSpace(got), "\n"), series/2, "round %d", round)
		for i := range series / 2 {
			require.Equal(t, 1, strings.Count(got, sets[i].String()), "%s", sets[i])
		}
	}
	require.NoError(t, a.Maintain(true))
	now.Add(2 * 3600_000)
	forget(t, a)
	require.Equal(t, rounds*series/2, a.CountKeys(format.FamilySeries, ""))
	require.NoError(t, a.Close())
	testkit.Check(t, dir)
}

// TestKeyTableForget shows that keys that were forgotten are unknown, that others are found beyond them, and that one that comes back is
// found at once and takes no other place.
func TestKeyTableForget(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	table := archive.NewKeyTable()
	var keys []arrival.Key
	for i := range 2000 {
		k := arrival.Key{Hi: r.Uint64(), Lo: r.Uint64() & 0x3ff} // Long chains.
		if i%500 == 0 {
			k.Hi &= 1<<32 - 1
		}
		keys = append(keys, k)
		table.Put(k, format.Ref(i+1))
	}
	table.Forget(func(ref format.Ref) bool { return ref%3 == 1 })
	for i, k := range keys {
		want := format.Ref(i + 1)
		if want%3 == 1 {
			want = 0
		}
		require.Equal(t, want, table.Get(k))
	}
	bytes := table.Bytes()
	for range 20 {
		for i, k := range keys {
			if table.Get(k) == 0 {
				table.Put(k, format.Ref(i+1))
			}
		}
		table.Forget(func(ref format.Ref) bool { return ref%3 == 1 })
	}
	require.LessOrEqual(t, table.Bytes(), bytes*2)
}

// TestForgetFreesDisk has 25,000 series of pods expire (100,000 with VARVE_LONG=1), while 1,000 go on: the families of what names them are as small then as
// those of an archive that never had more. It prints what it took.
func TestForgetFreesDisk(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED, what forgetting frees on disk is not measured: it takes some seconds, and runs without -short")
	}
	pods, series := draws(50, 200), 500
	families := []string{"series", "symbols", "lookup", "index"}
	sizes := func(a *archive.Archive) map[string]uint64 {
		s, err := a.Survey(context.Background(), 1)
		require.NoError(t, err)
		out := map[string]uint64{}
		for _, f := range s.Families {
			out[f.Name] = f.Bytes
		}
		return out
	}
	dir := t.TempDir()
	o, now := forgetOptions()
	a := testkit.Open(t, dir, o)
	for pod := range pods {
		var sets []labels.Labels
		for i := range series {
			sets = append(sets, labels.FromStrings("__name__", fmt.Sprintf("churn_%d_total", i%100), "job", "churn", "instance", fmt.Sprintf("pod%d", pod), "id", fmt.Sprintf("%d-%d", pod, i)))
		}
		writeTo(t, a, resolveAll(t, a, sets...), day0+5, 1)
	}
	var stay []labels.Labels
	for i := range 1000 {
		stay = append(stay, seriesLabels(i))
	}
	refs := resolveAll(t, a, stay...)
	writeTo(t, a, refs, day0+6, 1)
	writeTo(t, a, refs, day0+2*dayMillis, 1)
	now.Add(2 * 3600_000)
	require.NoError(t, a.Maintain(true))
	require.NoError(t, a.Settle())
	before := sizes(a)
	expireBefore(t, a, format.DayOf(day0+2*dayMillis))
	r := forget(t, a)
	require.Equal(t, uint64(pods*series), r.Series)
	require.Equal(t, uint64(100+1+pods+pods*series), r.Pairs)
	require.NoError(t, a.Settle())
	after := sizes(a)
	t.Logf("%d series and %d pairs in %s, %.1f us a series", r.Series, r.Pairs, r.Took, float64(r.Took.Microseconds())/float64(r.Series))
	for _, f := range families {
		t.Logf("%s: %d bytes before, %d after", f, before[f], after[f])
		require.Less(t, after[f]*10, before[f], f)
	}
	requireRecords(t, a, 1000, 5+3+7+1000, 21)
	require.Equal(t, 1000, strings.Count(read(t, a, math.MinInt64, math.MaxInt64), "metric_"))
}
