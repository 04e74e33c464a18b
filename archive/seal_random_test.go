package archive_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/archive/format"
	"varve/arrival"
	"varve/internal/testkit"
)

// TestSealUnderLoad overwrites samples with ever higher values while a day is cut, sealed,
// ended, sealed on and reclaimed, all at once: a query shows at least what was
// acknowledged before it began, and what it showed before.
func TestSealUnderLoad(t *testing.T) {
	seed := seeds(t, "SEAL_SEED", 1)[0]
	t.Logf("SEAL_SEED=%d", seed)
	dir := testkit.MemoryDir(t)
	o := options()
	o.MemtableBytes = 64 << 10
	a := testkit.Open(t, dir, o)
	a.SmallSeals()
	const series, times = 30, 120
	var acked [series][times]float64
	var mu sync.Mutex
	var refs [series]storage.SeriesRef
	for i := range series {
		refs[i] = resolve(t, a, seriesLabels(i))
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var wg sync.WaitGroup
	for w := range 3 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), seed))
			v := 0.0
			for ctx.Err() == nil {
				b := &arrival.Batch{}
				type put struct{ s, k int }
				var puts []put
				used := map[put]bool{}
				v++
				for range 1 + r.IntN(20) {
					p := put{r.IntN(series/3)*3 + w, r.IntN(times)}
					if used[p] {
						continue
					}
					used[p] = true
					puts = append(puts, p)
					b.Rows = append(b.Rows, arrival.Row{Ref: refs[p.s], First: uint32(len(b.Times)), Count: 1})
					b.Times = append(b.Times, day0+int64(p.k)*700_000)
					b.Values = append(b.Values, math.Float64bits(v))
				}
				if _, err := a.Write(context.Background(), b); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				for _, p := range puts {
					acked[p.s][p.k] = v
				}
				mu.Unlock()
			}
		})
	}
	wg.Go(func() {
		for ctx.Err() == nil {
			if err := a.Maintain(true); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Go(func() {
		r := rand.New(rand.NewPCG(9, seed))
		n := 0
		for ctx.Err() == nil && n < 40 {
			k := r.IntN(12)
			_, err := a.Seal(ctx, format.DayOf(day0), func(context.Context, time.Duration) error {
				if k--; k == 0 {
					return fmt.Errorf("enough")
				}
				return nil
			})
			if err == nil {
				n++
			}
			if r.IntN(3) == 0 {
				if _, err := a.Reclaim(); err != nil {
					t.Error(err)
				}
			}
		}
		cancel()
	})
	var queries int
	for range 2 {
		wg.Go(func() {
			// Once at least, even if it comes to run when all is sealed.
			for more := true; more; more = ctx.Err() == nil {
				mu.Lock()
				want := acked
				mu.Unlock()
				q, err := a.Querier(day0, day0+86400_000-1)
				if err != nil {
					t.Error(err)
					return
				}
				for pass := range 2 {
					set := q.Select(context.Background(), true, nil, labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".+"))
					var got [series][times]float64
					for set.Next() {
						s := set.At()
						i, _ := strconv.Atoi(s.Labels().Get("i"))
						it := s.Iterator(nil)
						for it.Next() != 0 {
							ts, v := it.At()
							got[i][(ts-day0)/700_000] = v
						}
						if it.Err() != nil {
							t.Error(it.Err())
						}
					}
					if set.Err() != nil {
						t.Error(set.Err())
					}
					for i := range want {
						for k := range want[i] {
							if got[i][k] < want[i][k] {
								t.Errorf("pass %d series %d time %d: %v, acknowledged %v", pass, i, k, got[i][k], want[i][k])
								cancel()
							}
						}
					}
					if pass == 0 {
						want = got
					}
				}
				q.Close()
				mu.Lock()
				queries++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	require.Positive(t, queries)
}

// TestSealAtRandom does everything that can happen around a sealing, in one thread and at its
// every step: full disks, kills, sealings that are ended, queries that stay open. SEAL_SEED
// repeats one.
func TestSealAtRandom(t *testing.T) {
	for _, seed := range seeds(t, "SEAL_SEED", 2) {
		t.Run(fmt.Sprint("SEAL_SEED=", seed), func(t *testing.T) { sealAtRandom(t, seed) })
	}
}

// pin is a query that stays open, with what it has to show.
type pin struct {
	q    storage.Querier
	want string
}

func sealAtRandom(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 3))
	dir := testkit.MemoryDir(t)
	o := options()
	o.MemtableBytes = 64 << 10
	full := false
	free := func(string) (int64, int64, error) {
		if full {
			return 0, 1 << 40, nil
		}
		return 1 << 39, 1 << 40, nil
	}
	open := func(dir string) *archive.Archive {
		a, err := archive.Open(dir, o)
		require.NoError(t, err)
		<-a.Started()
		require.NoError(t, a.StartError())
		a.SmallSeals()
		a.SetFree(free)
		return a
	}
	a := open(dir)
	m := model{}
	mint, maxt := day0-86400_000, day0+86400_000-1
	var pins []pin
	v := 0.0
	first := true
	write := func() {
		var points []point
		if first {
			first = false
			for i := range 42 {
				points = append(points, point{series: i, t: mint, v: 5}, point{series: i, t: day0, v: 6})
			}
		}
		seen := map[[2]int64]bool{}
		for range 1 + r.IntN(60) {
			p := point{series: r.IntN(40), v: v}
			v++
			switch r.IntN(10) {
			case 0:
				p.t = day0 - 86400_000 + r.Int64N(86400_000)
			case 1:
				p.series = 41 // stretches
				p.t = day0 + r.Int64N(86400_000)
			default:
				p.t = day0 + r.Int64N(300)*288_000
			}
			k := [2]int64{int64(p.series), p.t}
			if seen[k] {
				continue
			}
			seen[k] = true
			points = append(points, p)
		}
		for {
			b := &arrival.Batch{}
			ok := true
			for _, p := range points {
				u := []arrival.Unknown{{Labels: seriesLabels(p.series)}}
				if err := a.Resolve(context.Background(), u); err != nil {
					ok = false
					break
				}
				b.Rows = append(b.Rows, arrival.Row{Ref: u[0].Ref, First: uint32(len(b.Times)), Count: 1})
				b.Times = append(b.Times, p.t)
				b.Values = append(b.Values, math.Float64bits(p.v))
			}
			if ok {
				if _, err := a.Write(context.Background(), b); err == nil {
					break
				}
			}
			full = false // The probe waits a second of the clock.
		}
		m.add(points)
	}
	look := func(q storage.Querier) string {
		return read(t, storage.QueryableFunc(func(int64, int64) (storage.Querier, error) { return unclosed{q}, nil }), mint, maxt)
	}
	check := func(when string) {
		requireSame(t, m.dump(mint, maxt), read(t, a, mint, maxt), fmt.Sprint(seed, " ", when))
	}
	closePins := func() {
		for _, p := range pins {
			requireSame(t, p.want, look(p.q), fmt.Sprint(seed, " pinned at close"))
			require.NoError(t, p.q.Close())
		}
		pins = nil
	}
	now := o.Now
	tick := time.Duration(0)
	o.Now = func() time.Time { tick += 50 * time.Millisecond; return now().Add(tick) }
	require.NoError(t, a.Close())
	a = open(dir)
	inReclaim := false
	var act func(inSeal bool)
	stepped := func(string) {
		if r.IntN(3) == 0 {
			act(true)
		}
	}
	act = func(inSeal bool) {
		switch k := r.IntN(20); {
		case k < 6:
			write()
		case k < 9:
			wasFull := full
			err := a.Maintain(true)
			if !wasFull {
				require.NoError(t, err)
			}
		case k < 11:
			if len(pins) < 4 {
				q, err := a.Querier(mint, maxt)
				require.NoError(t, err)
				pins = append(pins, pin{q, m.dump(mint, maxt)})
				requireSame(t, m.dump(mint, maxt), look(q), fmt.Sprint(seed, " new query"))
			}
		case k < 13:
			for _, p := range pins {
				requireSame(t, p.want, look(p.q), fmt.Sprint(seed, " pinned"))
			}
			if r.IntN(2) == 0 {
				closePins()
			}
		case k < 14:
			check("now")
		case k < 15:
			full = r.IntN(2) == 0 && !inReclaim
		case k < 16:
			// a kill, looked at aside
			b, to := crash(t, dir, o)
			b.SmallSeals()
			requireSame(t, m.dump(mint, maxt), read(t, b, mint, maxt), fmt.Sprint(seed, " after a kill"))
			testkit.SealAll(t, b)
			requireSame(t, m.dump(mint, maxt), read(t, b, mint, maxt), fmt.Sprint(seed, " after a kill, sealed"))
			require.NoError(t, b.Close())
			testkit.Check(t, to)
		case inSeal:
		case k < 17:
			closePins()
			b, to := crash(t, dir, o)
			full = false
			require.NoError(t, a.Close())
			a, dir = b, to
			a.SmallSeals()
			a.SetFree(free)
			a.OnStep(stepped)
			check("after a kill for good")
		default:
			d := format.DayOf(day0)
			if r.IntN(4) == 0 {
				d--
			}
			left := 1 + r.IntN(30)
			ctx, cancel := context.WithCancel(context.Background())
			_, _ = a.Seal(ctx, d, func(context.Context, time.Duration) error {
				if left--; left == 0 {
					if r.IntN(2) == 0 {
						cancel()
					} else {
						full = true
					}
				}
				return nil
			})
			cancel()
			if r.IntN(2) == 0 {
				full = false
				inReclaim = true
				_, err := a.Reclaim()
				inReclaim = false
				require.NoError(t, err)
			}
		}
	}
	write()
	require.NoError(t, a.Maintain(true))
	a.OnStep(stepped)
	for range 120 {
		act(false)
	}
	full = false
	closePins()
	a.OnStep(nil)
	check("end")
	tick += time.Hour
	testkit.SealAll(t, a)
	check("sealed end")
	require.NoError(t, a.Close())
	testkit.Check(t, dir)
}
