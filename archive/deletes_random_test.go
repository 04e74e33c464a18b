package archive_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/archive/format"
	"varve/arrival"
	"varve/internal/testkit"
)

// history is a model that knows of deletes: every version of every sample, and what was deleted when.
type history struct {
	now      int
	versions map[int]map[int64][]version
	deletes  []*deletion
}

type version struct {
	bits uint64
	at   int
}

type deletion struct {
	id         format.TombstoneID
	hides      func(series int) bool
	mint, maxt int64
	at         int
	undone     bool
	cleaned    bool
}

func (h *history) add(points []point) {
	h.now++
	for _, p := range points {
		if h.versions[p.series] == nil {
			h.versions[p.series] = map[int64][]version{}
		}
		h.versions[p.series][p.t] = append(h.versions[p.series][p.t], version{math.Float64bits(p.v), h.now})
	}
}

// visible is what a query must see.
func (h *history) visible() model {
	m := model{}
	for series, times := range h.versions {
		for t, versions := range times {
			last := versions[len(versions)-1]
			hidden := slices.ContainsFunc(h.deletes, func(d *deletion) bool {
				return !d.undone && last.at < d.at && d.hides(series) && t >= d.mint && t <= d.maxt
			})
			if hidden {
				continue
			}
			if m[series] == nil {
				m[series] = map[int64]uint64{}
			}
			m[series][t] = last.bits
		}
	}
	return m
}

// drawSelector draws a selector and what it means.
func drawSelector(r *rand.Rand) (string, func(series int) bool) {
	n := r.IntN(40)
	switch r.IntN(6) {
	case 0:
		return fmt.Sprintf(`{i="%d"}`, n), func(i int) bool { return i == n }
	case 1:
		return fmt.Sprintf(`metric_%d`, n%5), func(i int) bool { return i%5 == n%5 }
	case 2:
		return fmt.Sprintf(`{__name__=~"metric_.*",job!="job%d",instance=~"host[0-3]"}`, n%3), func(i int) bool { return i%3 != n%3 && i%7 <= 3 }
	case 3:
		return fmt.Sprintf(`metric_%d{instance=~".*%d"}`, n%5, n%7), func(i int) bool { return i%5 == n%5 && i%7 == n%7 }
	case 4:
		return fmt.Sprintf(`{job="job%d"}`, n%3), func(i int) bool { return i%3 == n%3 }
	}
	return fmt.Sprintf(`{instance="host%d"}`, n%7), func(i int) bool { return i%7 == n%7 }
}

// drawSpan draws times with edges on samples, days, slots and anywhere.
func drawSpan(r *rand.Rand, first, last int64) (mint, maxt int64) {
	edge := func() int64 {
		t := first + r.Int64N(last-first)
		switch r.IntN(4) {
		case 0:
			t = t / 86400_000 * 86400_000
		case 1:
			t = t / 7200_000 * 7200_000
		case 2:
			t = t/288_000*288_000 + r.Int64N(3) - 1
		}
		return t
	}
	if r.IntN(5) == 0 {
		return math.MinInt64, math.MaxInt64
	}
	x, y := edge(), edge()
	return min(x, y), max(x, y)
}

func matchersOf(t testing.TB, selector string) []*labels.Matcher {
	ms, err := parser.NewParser(parser.Options{}).ParseMetricSelector(selector)
	require.NoError(t, err)
	return ms
}

func deleteSeries(t testing.TB, a *archive.Archive, selector string, mint, maxt int64) (archive.Delete, bool) {
	d, ok, err := a.Delete(context.Background(), archive.DeleteRequest{
		Matchers: [][]*labels.Matcher{matchersOf(t, selector)}, Selectors: []string{selector},
		MinMillis: mint, MaxMillis: maxt, Grace: 365 * 24 * time.Hour, Author: "test", Reason: "a test",
	})
	require.NoError(t, err)
	return d, ok
}

// TestDeletesAtRandom writes, deletes, undeletes, seals, cleans, restarts and kills at random, in
// one thread and at every step of each, and compares samples and labels with a model. DELETE_SEED repeats one.
func TestDeletesAtRandom(t *testing.T) {
	for _, seed := range seeds(t, "DELETE_SEED", draws(2, 4)) {
		t.Run(fmt.Sprint("DELETE_SEED=", seed), func(t *testing.T) { deletesAtRandom(t, seed) })
	}
}

// deleteWorld is an archive, its model, and the queries that stay open.
type deleteWorld struct {
	t          testing.TB
	r          *rand.Rand
	seed       uint64
	o          archive.Options
	dir        string
	a          *archive.Archive
	h          history
	mint, maxt int64
	pins       []*deletePin
	v          float64
	inside     bool // something else is under way
	changing   bool // that is a change of deletes, of which there is one at a time
}

func deletesAtRandom(t *testing.T, seed uint64) {
	o := options()
	o.MemtableBytes = 64 << 10
	w := &deleteWorld{
		t: t, r: rand.New(rand.NewPCG(seed, 17)), seed: seed, o: o, dir: testkit.MemoryDir(t),
		h: history{versions: map[int]map[int64][]version{}}, mint: day0 - 2*86400_000, maxt: day0 + 2*86400_000 - 1,
	}
	w.use(open(t, w.dir, o))
	w.write()
	for range 110 {
		w.act()
	}
	w.closePins()
	w.a.OnStep(nil)
	w.check("end")
	_, err := w.a.Clean(context.Background(), w.live(), nil)
	require.NoError(t, err)
	w.check("cleaned")
	testkit.SealAll(t, w.a)
	w.check("sealed")
	require.Empty(t, w.a.LiveDeletes())
	w.forgetAll(w.h.visible())
	w.check("forgotten")
	require.NoError(t, w.a.Close())
	testkit.Check(t, w.dir)
}

func open(t testing.TB, dir string, o archive.Options) *archive.Archive {
	a, err := archive.Open(dir, o)
	require.NoError(t, err)
	<-a.Started()
	require.NoError(t, a.StartError())
	return a
}

// use makes the archive the one that all is done to.
func (w *deleteWorld) use(a *archive.Archive) {
	w.a = a
	a.SmallSeals()
	a.ForgetEasily()
	a.OnStep(w.step)
}

// step does something else at a step of what is being done.
func (w *deleteWorld) step(name string) {
	if w.inside || w.r.IntN(3) > 0 {
		return
	}
	w.inside, w.changing = true, name == "cleaned"
	w.actInside()
	w.inside, w.changing = false, false
}

func (w *deleteWorld) fatal(format string, args ...any) string {
	return fmt.Sprintf("DELETE_SEED=%d: %s", w.seed, fmt.Sprintf(format, args...))
}

func (w *deleteWorld) check(when string) { w.checkOf(w.a, when) }

// checkOf compares samples and labels of an archive with the model.
func (w *deleteWorld) checkOf(a *archive.Archive, when string) {
	m := w.h.visible()
	mint, maxt := w.mint, w.maxt
	requireSame(w.t, m.dump(mint, maxt), read(w.t, a, mint, maxt), w.fatal("%s", when))
	for range 2 {
		if w.r.IntN(2) == 0 {
			mint, maxt = drawSpan(w.r, w.mint, w.maxt)
			mint, maxt = max(mint, w.mint), min(maxt, w.maxt)
		}
		got, err := askLabels(a, mint, maxt)
		require.NoError(w.t, err)
		require.Equal(w.t, m.labels(mint, maxt), got, w.fatal("labels %s from %d to %d", when, mint, maxt))
	}
}

func (w *deleteWorld) look(q storage.Querier) string {
	return read(w.t, storage.QueryableFunc(func(int64, int64) (storage.Querier, error) { return unclosed{q}, nil }), w.mint, w.maxt)
}

// checkPin looks again with a query that stayed open. A series that the index did not have when it
// was opened may show what was written since.
func (w *deleteWorld) checkPin(p *deletePin, when string) {
	known := map[string]bool{}
	for _, line := range strings.Split(p.want, "\n") {
		known[line[:strings.IndexByte(line, '}')+1]] = true
	}
	var lines []string
	for _, line := range strings.Split(w.look(p.q), "\n") {
		name, samples, _ := strings.Cut(line, "} ")
		if known[name+"}"] {
			lines = append(lines, line)
			continue
		}
		for _, sample := range strings.Fields(samples) {
			require.False(w.t, p.before[name+"} "+sample], w.fatal("%s: %s has %s, which it did not see", when, name, sample))
		}
	}
	requireSame(w.t, p.want, strings.Join(lines, "\n"), w.fatal("%s", when))
}

// pin opens a query that stays open.
func (w *deleteWorld) pin() {
	q, err := w.a.Querier(w.mint, w.maxt)
	require.NoError(w.t, err)
	p := &deletePin{q: q, want: w.h.visible().dump(w.mint, w.maxt), before: map[string]bool{}}
	for series, times := range w.h.versions {
		name := seriesLabels(series).String()
		for t, versions := range times {
			for _, v := range versions {
				p.before[fmt.Sprintf("%s %d=%x", name, t, v.bits)] = true
			}
		}
	}
	w.pins = append(w.pins, p)
	// What it sees in memory is settled by the first look.
	w.checkPin(p, "new query")
}

func (w *deleteWorld) closePins() {
	for _, p := range w.pins {
		w.checkPin(p, "pinned at close")
		require.NoError(w.t, p.q.Close())
	}
	w.pins = nil
}

// deletePin is a query that stays open.
type deletePin struct {
	q    storage.Querier
	want string
	// before are all samples that were ever written before it was opened.
	before map[string]bool
}

func (w *deleteWorld) write() {
	var points []point
	seen := map[[2]int64]bool{}
	for range 1 + w.r.IntN(80) {
		w.v++
		p := point{series: w.r.IntN(42), v: w.v, t: day0 + w.r.Int64N(300)*288_000}
		switch w.r.IntN(10) {
		case 0, 1:
			p.t = w.mint + w.r.Int64N(w.maxt-w.mint)
		case 2:
			p.series = 41 // stretches
			p.t = day0 + w.r.Int64N(86400_000)
		}
		if k := [2]int64{int64(p.series), p.t}; !seen[k] {
			seen[k] = true
			points = append(points, p)
		}
	}
	write(w.t, w.a, points)
	w.h.add(points)
}

func (w *deleteWorld) live() (ids []format.TombstoneID) {
	for _, d := range w.a.LiveDeletes() {
		ids = append(ids, d.ID)
	}
	return ids
}

func (w *deleteWorld) delete() {
	selector, hides := drawSelector(w.r)
	mint, maxt := drawSpan(w.r, w.mint, w.maxt)
	// What is written while the delete is made may be on either side, so nothing is.
	inside := w.inside
	w.inside = true
	d, ok := deleteSeries(w.t, w.a, selector, mint, maxt)
	w.inside = inside
	w.h.now++
	if ok {
		w.h.deletes = append(w.h.deletes, &deletion{id: d.ID, hides: hides, mint: mint, maxt: maxt, at: w.h.now})
	}
}

func (w *deleteWorld) undelete() {
	var open []*deletion
	for _, d := range w.h.deletes {
		if !d.undone && !d.cleaned {
			open = append(open, d)
		}
	}
	if len(open) == 0 {
		return
	}
	d := open[w.r.IntN(len(open))]
	inside := w.inside
	w.inside = true
	_, err := w.a.Undelete(d.id)
	w.inside = inside
	require.NoError(w.t, err)
	d.undone = true
}

// clean cleans some deletes, perhaps not to the end.
func (w *deleteWorld) clean() {
	ids := w.live()
	w.r.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	ids = ids[:w.r.IntN(len(ids)+1)]
	for _, d := range w.h.deletes {
		d.cleaned = d.cleaned || slices.Contains(ids, d.id)
	}
	left := 1 + w.r.IntN(40)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	_, err := w.a.Clean(ctx, ids, func(context.Context, time.Duration) error {
		if left--; left == 0 {
			cancel()
		}
		return nil
	})
	if ctx.Err() == nil {
		require.NoError(w.t, err)
		for _, d := range w.a.LiveDeletes() {
			require.NotContains(w.t, ids, d.ID)
		}
	}
}

func (w *deleteWorld) seal() {
	days, err := w.a.Days()
	require.NoError(w.t, err)
	if len(days) == 0 {
		return
	}
	d := days[w.r.IntN(len(days))]
	_, err = w.a.Seal(context.Background(), d.Day, nil)
	if d.Held && !d.Folding {
		require.ErrorIs(w.t, err, archive.ErrHeld)
	} else {
		require.NoError(w.t, err)
	}
	_, err = w.a.Reclaim()
	require.NoError(w.t, err)
}

// kill looks at what a kill would leave, and perhaps goes on with that.
func (w *deleteWorld) kill(forGood bool) {
	b, to := crash(w.t, w.dir, w.o)
	if forGood {
		w.closePins()
		require.NoError(w.t, w.a.Close())
		w.dir = to
		w.use(b)
		w.check("after a kill for good")
		return
	}
	b.SmallSeals()
	w.checkOf(b, "after a kill")
	testkit.SealAll(w.t, b)
	w.checkOf(b, "after a kill, sealed")
	var ids []format.TombstoneID
	for _, d := range b.LiveDeletes() {
		ids = append(ids, d.ID)
	}
	_, err := b.Clean(context.Background(), ids, nil)
	require.NoError(w.t, err)
	w.checkOf(b, "after a kill, cleaned")
	require.NoError(w.t, b.Close())
	testkit.Check(w.t, to)
}

// actInside does what may come between two steps of something else.
func (w *deleteWorld) actInside() {
	switch k := w.r.IntN(16); {
	case k < 4:
		w.write()
	case k < 6:
		require.NoError(w.t, w.a.Maintain(w.r.IntN(2) == 0))
	case k < 8:
		if len(w.pins) < 4 {
			w.pin()
		}
	case k < 10:
		for _, p := range w.pins {
			w.checkPin(p, "pinned")
		}
		if w.r.IntN(2) == 0 {
			w.closePins()
		}
	case k < 13:
		w.check("now")
	case k < 15 && !w.changing:
		w.delete()
	default:
		w.kill(false)
	}
}

func (w *deleteWorld) act() {
	switch k := w.r.IntN(33); {
	case k >= 30:
		w.forget()
	case k < 12:
		w.actInside()
	case k < 16:
		w.write()
	case k < 19:
		w.delete()
	case k < 21:
		w.undelete()
	case k < 24:
		w.clean()
	case k < 27:
		w.seal()
	case k < 28:
		w.kill(true)
	case k < 29:
		w.closePins()
		require.NoError(w.t, w.a.Close())
		testkit.Check(w.t, w.dir)
		w.use(open(w.t, w.dir, w.o))
		w.check("after a restart")
	default:
		w.check("now")
	}
}

// TestDeleteUnderLoad deletes while others write, cut, seal, clean and read: a query that begins after
// a delete sees nothing that was acknowledged before the delete began, all that was acknowledged since
// it returned, and nothing else; and so does a start after a kill.
func TestDeleteUnderLoad(t *testing.T) {
	seed := seeds(t, "DELETE_SEED", 1)[0]
	t.Logf("DELETE_SEED=%d", seed)
	dir := testkit.MemoryDir(t)
	o := options()
	o.MemtableBytes = 64 << 10
	a := testkit.Open(t, dir, o)
	a.SmallSeals()
	const series, times, writers = 30, 60, 3
	type grid [series][times]float64
	var (
		mu    sync.Mutex
		acked grid // since the last delete
		gone  grid // values up to this must not be seen
		gate  sync.RWMutex
		refs  [series]storage.SeriesRef
		kills atomic.Int64
	)
	timeOf := func(k int) int64 { return day0 + int64(k)*1_400_000 }
	for i := range series {
		refs[i] = resolve(t, a, seriesLabels(i))
	}
	lookAt := func(a *archive.Archive, want, floor *grid, when string) {
		q, err := a.Querier(day0, day0+86400_000-1)
		if err != nil {
			t.Error(err)
			return
		}
		defer q.Close()
		var got grid
		set := q.Select(context.Background(), true, nil, labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".+"))
		for set.Next() {
			i, _ := strconv.Atoi(set.At().Labels().Get("i"))
			it := set.At().Iterator(nil)
			for it.Next() != 0 {
				ts, v := it.At()
				got[i][(ts-day0)/1_400_000] = v
			}
			if it.Err() != nil {
				t.Error(it.Err())
			}
		}
		if set.Err() != nil {
			t.Error(set.Err())
		}
		for i := range got {
			for k := range got[i] {
				if got[i][k] < want[i][k] || got[i][k] != 0 && got[i][k] <= floor[i][k] {
					t.Errorf("%s: series %d time %d: %v, acknowledged %v, deleted %v", when, i, k, got[i][k], want[i][k], floor[i][k])
				}
			}
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), seed))
			for v := 1.0; ctx.Err() == nil; v++ {
				b := &arrival.Batch{}
				puts := map[[2]int]bool{}
				for range 1 + r.IntN(20) {
					p := [2]int{r.IntN(series/writers)*writers + w, r.IntN(times)}
					if puts[p] {
						continue
					}
					puts[p] = true
					b.Rows = append(b.Rows, arrival.Row{Ref: refs[p[0]], First: uint32(len(b.Times)), Count: 1})
					b.Times = append(b.Times, timeOf(p[1]))
					b.Values = append(b.Values, math.Float64bits(v))
				}
				gate.RLock()
				_, err := a.Write(context.Background(), b)
				mu.Lock()
				for p := range puts {
					acked[p[0]][p[1]] = v
				}
				mu.Unlock()
				gate.RUnlock()
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Go(func() {
		for ctx.Err() == nil {
			gate.RLock()
			if err := a.Maintain(true); err != nil {
				t.Error(err)
			}
			gate.RUnlock()
		}
	})
	wg.Go(func() {
		for ctx.Err() == nil {
			gate.RLock()
			// Held by a delete, or a query that is still open.
			_, _ = a.Seal(ctx, format.DayOf(day0), nil)
			var ids []format.TombstoneID
			for _, d := range a.LiveDeletes() {
				ids = append(ids, d.ID)
			}
			if _, err := a.Clean(ctx, ids, nil); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
			if _, err := a.Reclaim(); err != nil {
				t.Error(err)
			}
			gate.RUnlock()
		}
	})
	for range 2 {
		wg.Go(func() {
			for ctx.Err() == nil {
				mu.Lock()
				floor := gone
				mu.Unlock()
				// What a delete that is made meanwhile hides need not be seen.
				lookAt(a, &grid{}, &floor, "meanwhile")
			}
		})
	}
	r := rand.New(rand.NewPCG(5, seed))
	for n := range 16 {
		selector, hides := drawSelector(r)
		mint, maxt := drawSpan(r, day0, day0+86400_000)
		mu.Lock()
		before := acked
		for i := range acked {
			for k := range acked[i] {
				if hides(i) && timeOf(k) >= mint && timeOf(k) <= maxt {
					acked[i][k] = 0
				}
			}
		}
		mu.Unlock()
		_, ok := deleteSeries(t, a, selector, mint, maxt)
		gate.Lock() // no write is under way
		mu.Lock()
		for i := range before {
			for k := range before[i] {
				if ok && hides(i) && timeOf(k) >= mint && timeOf(k) <= maxt {
					gone[i][k] = max(gone[i][k], before[i][k])
				}
			}
		}
		// A write under way when the delete was made may be hidden by it although it was acknowledged later.
		for i := range acked {
			for k := range acked[i] {
				if hides(i) && timeOf(k) >= mint && timeOf(k) <= maxt {
					acked[i][k] = 0
				}
			}
		}
		want, floor := acked, gone
		mu.Unlock()
		lookAt(a, &want, &floor, "after a delete")
		if n%4 == 0 {
			b, to := crash(t, dir, o)
			lookAt(b, &want, &floor, "after a kill")
			require.NoError(t, b.Close())
			testkit.Check(t, to)
			kills.Add(1)
		}
		gate.Unlock()
	}
	cancel()
	wg.Wait()
	require.Positive(t, kills.Load())
}
