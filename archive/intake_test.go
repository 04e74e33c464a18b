package archive_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/archive/format"
	"varve/arrival"
	"varve/internal/testkit"
)

// TestIntakeAgainstModel takes days in at random, before and behind each other, with samples that arrive of them meanwhile and
// later, and holds what is read against a model: at once, after a kill, after a restart, sealed with what is late, and rolled up.
func TestIntakeAgainstModel(t *testing.T) {
	for seed := range uint64(draws(4, 8)) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 3))
			dir := testkit.MemoryDir(t)
			o := options()
			o.MemtableBytes = 64 << 10
			o.Resolutions = []time.Duration{5 * time.Minute, time.Hour}
			a := testkit.Open(t, dir, o)
			want := everything{}
			compare := func(a *archive.Archive, when string) {
				t.Helper()
				requireSame(t, want.dump(math.MinInt64, math.MaxInt64), see(t, a, math.MinInt64, math.MaxInt64), fmt.Sprintf("seed %d %s", seed, when))
				mint := day0 - 3*format.DayMillis + r.Int64N(5*format.DayMillis)
				maxt := mint + r.Int64N(format.DayMillis)
				requireSame(t, want.dump(mint, maxt), see(t, a, mint, maxt), fmt.Sprintf("seed %d %s, a part", seed, when))
			}
			send := func(day format.Day) {
				var points []point
				for range 1 + r.IntN(40) {
					at := day.StartMillis() + r.Int64N(format.DayMillis)
					points = append(points, point{series: r.IntN(60), t: at - at%15_000, v: float64(r.IntN(100))})
				}
				write(t, a, points)
				want.send(points)
			}
			for _, offset := range r.Perm(5) {
				day := intakeDay - 3 + format.Day(offset)
				if r.IntN(2) == 0 {
					a.SmallSeals()
				}
				all := drawIncoming(t, r, day, r.IntN(50))
				if r.IntN(5) == 0 {
					send(day)
					_, err := a.OpenIntake(t.Context(), day)
					require.ErrorIs(t, err, archive.ErrDayTaken)
					continue
				}
				refs, all := inOrder(t, a, all)
				i, err := a.OpenIntake(t.Context(), day)
				require.NoError(t, err)
				compare(a, "leased")
				addAll(t, i, refs, all)
				compare(a, "added")
				if r.IntN(2) == 0 {
					send(day)
					require.NoError(t, a.Maintain(r.IntN(2) == 0))
					compare(a, "sent")
				}
				if r.IntN(4) == 0 {
					require.NoError(t, i.Close())
					compare(a, "given up")
					continue
				}
				report, err := i.Commit(t.Context())
				require.NoError(t, err)
				requireDigests(t, i, day, refs, all, report)
				require.NoError(t, i.Close())
				want.take(t, day, all)
				compare(a, "committed")
				_, err = a.OpenIntake(t.Context(), day)
				if report.Samples > 0 {
					require.ErrorIs(t, err, archive.ErrDayTaken)
				}
				switch r.IntN(5) {
				case 0:
					send(day)
				case 1:
					b, to := crash(t, dir, o)
					compare(b, "after a kill")
					require.NoError(t, b.Close())
					testkit.Check(t, to)
				case 2:
					require.NoError(t, a.Close())
					testkit.Check(t, dir)
					a = testkit.Open(t, dir, o)
					compare(a, "opened again")
				case 3:
					sealAll(t, a, false)
					compare(a, "sealed")
				}
			}
			require.NoError(t, a.Maintain(true))
			rolls(t, a)
			compare(a, "rolled up")
			send(intakeDay)
			send(intakeDay - 1)
			sealAll(t, a, false)
			rolls(t, a)
			compare(a, "late")
			require.NoError(t, a.Close())
			testkit.Check(t, dir)
			a = testkit.Open(t, dir, o)
			compare(a, "at the end")
		})
	}
}

// TestIntakeKilled kills at every step of an intake, opens what is left and finds all of the day or nothing, no faults, and that the day
// can be brought in again, with the same result.
func TestIntakeKilled(t *testing.T) {
	dir := testkit.MemoryDir(t)
	o := options()
	o.Resolutions = []time.Duration{time.Hour}
	a := testkit.Open(t, dir, o)
	var all []incoming
	for series := range 12 {
		all = append(all, regular(t, intakeDay, series))
	}
	neighbours := []point{{series: 1, t: day0 - 1, v: 1}, {series: 50, t: day0 + format.DayMillis, v: 2}}
	write(t, a, neighbours)
	rolls(t, a)
	before := everything{}
	before.send(neighbours)
	after := everything{}
	after.send(neighbours)
	after.take(t, intakeDay, all)
	nothing, whole := before.dump(math.MinInt64, math.MaxInt64), after.dump(math.MinInt64, math.MaxInt64)
	a.SmallSeals()
	refs, all := inOrder(t, a, all)
	steps := map[string]bool{}
	a.OnStep(func(step string) {
		if steps[step] {
			return
		}
		steps[step] = true
		b, to := crash(t, dir, o)
		defer func() {
			require.NoError(t, b.Close())
			testkit.Check(t, to)
		}()
		require.NoDirExists(t, filepath.Join(to, "intake"))
		want := nothing
		if step == "entered" {
			want = whole
		}
		requireSame(t, want, see(t, b, math.MinInt64, math.MaxInt64), step)
		requireSame(t, want, see(t, a, math.MinInt64, math.MaxInt64), "without a kill, "+step)
		if step == "entered" {
			return
		}
		takeIn(t, b, intakeDay, all)
		requireSame(t, whole, see(t, b, math.MinInt64, math.MaxInt64), "again, "+step)
	})
	i, err := a.OpenIntake(t.Context(), intakeDay)
	require.NoError(t, err)
	addAll(t, i, refs, all)
	_, err = i.Commit(t.Context())
	require.NoError(t, err)
	a.OnStep(nil)
	require.NoError(t, i.Close())
	requireSame(t, whole, see(t, a, math.MinInt64, math.MaxInt64), "at the end")
	require.Equal(t, map[string]bool{
		"leased": true, "intake clocks": true, "intake file": true, "intake written": true, "ingested": true, "entered": true,
	}, steps)
}

// TestIntakeGivenUp shows that an intake that isn't committed leaves nothing, at whatever step it ends, that the day can be brought in then, and
// that of its lease nothing stays.
func TestIntakeGivenUp(t *testing.T) {
	for _, at := range []string{"leased", "intake file", "intake clocks", "intake written", "ingested"} {
		t.Run(at, func(t *testing.T) {
			dir := testkit.MemoryDir(t)
			a := testkit.Open(t, dir, options())
			a.SmallSeals()
			var all []incoming
			for series := range 12 {
				all = append(all, regular(t, intakeDay, series))
			}
			refs, all := inOrder(t, a, all)
			ctx, cancel := context.WithCancel(t.Context())
			a.OnStep(func(step string) {
				if step == at {
					if step == "ingested" {
						a.SetFree(func(string) (int64, int64, error) { return 0, 1 << 40, nil })
					}
					cancel()
				}
			})
			i, err := a.OpenIntake(ctx, intakeDay)
			require.NoError(t, err)
			addAll(t, i, refs, all)
			_, err = i.Commit(ctx)
			require.Error(t, err)
			a.OnStep(nil)
			_, err = i.Commit(t.Context())
			require.ErrorIs(t, err, archive.ErrIntakeClosed)
			require.ErrorIs(t, i.Add(refs[0], all[0].chunks), archive.ErrIntakeClosed)
			require.ErrorIs(t, i.Digests(t.Context(), nil), archive.ErrIntakeClosed)
			require.NoError(t, i.Close())
			require.NoError(t, i.Close())
			a.SetFree(func(string) (int64, int64, error) { return 1 << 39, 1 << 40, nil })
			require.Empty(t, see(t, a, math.MinInt64, math.MaxInt64))
			require.NoError(t, a.Close())
			require.NoDirExists(t, filepath.Join(dir, "intake"))
			r := testkit.Check(t, dir)
			require.Zero(t, r.Bundles)
			require.Zero(t, r.Clocks)
			a = testkit.Open(t, dir, options())
			want := everything{}
			want.take(t, intakeDay, all)
			takeIn(t, a, intakeDay, all)
			requireSame(t, want.dump(math.MinInt64, math.MaxInt64), see(t, a, math.MinInt64, math.MaxInt64), "brought in then")
		})
	}
}

// TestIntakeTaken shows of which days no intake is begun, and why: those with samples in memory, in the journal that is read back, in runs
// or in bundles, those that a delete hides, the present one, and one that has expired.
func TestIntakeTaken(t *testing.T) {
	dir := testkit.MemoryDir(t)
	o := options()
	a := testkit.Open(t, dir, o)
	taken := func(why string) {
		t.Helper()
		i, err := a.OpenIntake(t.Context(), intakeDay)
		require.ErrorIs(t, err, archive.ErrDayTaken)
		require.ErrorContains(t, err, why)
		require.Nil(t, i)
	}
	write(t, a, []point{{series: 1, t: day0 + 5, v: 1}})
	taken("arrived lately")
	b, to := crash(t, dir, o)
	_, err := b.OpenIntake(t.Context(), intakeDay)
	require.True(t, errors.Is(err, archive.ErrDayTaken) || errors.Is(err, archive.ErrStarting), "%v", err)
	require.NoError(t, b.Maintain(false))
	_, err = b.OpenIntake(t.Context(), intakeDay)
	require.ErrorIs(t, err, archive.ErrDayTaken)
	require.NoError(t, b.Close())
	testkit.Check(t, to)
	require.NoError(t, a.Maintain(true))
	taken("wait to be sealed")
	testkit.SealAll(t, a)
	taken("sealed samples")
	d, ok, err := a.Delete(t.Context(), archive.DeleteRequest{
		Matchers: [][]*labels.Matcher{{matcher("i=1")}}, MinMillis: day0, MaxMillis: day0 + 100, Grace: 0,
	})
	require.NoError(t, err)
	require.True(t, ok)
	taken("delete")
	_, err = a.Clean(t.Context(), []format.TombstoneID{d.ID}, nil)
	require.NoError(t, err)
	takeIn(t, a, intakeDay, []incoming{regular(t, intakeDay, 1)})
	taken("sealed samples")

	_, err = a.OpenIntake(t.Context(), format.DayOf(clock().UnixMilli()))
	require.ErrorIs(t, err, archive.ErrDayTaken)
	require.ErrorContains(t, err, "has not ended")
	require.NoError(t, a.SetRetention(archive.Retention{Rules: []archive.RetentionRule{{Keep: []time.Duration{3 * 24 * time.Hour}}}}))
	write(t, a, []point{{series: 1, t: clock().UnixMilli(), v: 1}})
	_, err = a.OpenIntake(t.Context(), intakeDay-1)
	require.ErrorIs(t, err, archive.ErrOutOfRetention)
	require.ErrorContains(t, err, archive.Date(intakeDay))
}

// TestIntakeIsAJob shows that no other job is done while an intake is open, and no intake while a job is.
func TestIntakeIsAJob(t *testing.T) {
	a := testkit.Open(t, testkit.MemoryDir(t), options())
	write(t, a, []point{{series: 1, t: day0 + format.DayMillis, v: 1}})
	require.NoError(t, a.Maintain(true))
	i, err := a.OpenIntake(t.Context(), intakeDay)
	require.NoError(t, err)
	_, err = a.Seal(t.Context(), intakeDay+1, nil)
	require.ErrorIs(t, err, archive.ErrBusy)
	_, err = a.Roll(t.Context(), intakeDay+1, nil)
	require.ErrorIs(t, err, archive.ErrBusy)
	_, err = a.OpenIntake(t.Context(), intakeDay-1)
	require.ErrorIs(t, err, archive.ErrBusy)
	require.NoError(t, i.Close())
	a.OnStep(func(step string) {
		if step == "raised" {
			_, err = a.OpenIntake(t.Context(), intakeDay)
		}
	})
	testkit.SealAll(t, a)
	require.ErrorIs(t, err, archive.ErrBusy)
}

// TestIntakeFaults shows that series out of order end an intake, and that a chunk that isn't what is said of it costs its series alone.
func TestIntakeFaults(t *testing.T) {
	a := testkit.Open(t, testkit.MemoryDir(t), options())
	all := []incoming{regular(t, intakeDay, 5), regular(t, intakeDay, 10), regular(t, intakeDay, 15)}
	refs, all := inOrder(t, a, all)
	i, err := a.OpenIntake(t.Context(), intakeDay)
	require.NoError(t, err)
	lying := all[0].chunks[3]
	lying.MaxMillis++
	require.ErrorIs(t, i.Add(refs[0], []archive.IntakeChunk{lying}), archive.ErrIntakeChunk)
	require.ErrorIs(t, i.Add(refs[0], []archive.IntakeChunk{{MinMillis: day0, MaxMillis: day0}}), archive.ErrIntakeChunk)
	bytes := slices.Clone(all[0].chunks[3].Chunk.Bytes())
	cut, err := chunkenc.FromData(chunkenc.EncXOR, bytes[:len(bytes)/2])
	require.NoError(t, err)
	torn := all[0].chunks[3]
	torn.Chunk = cut
	err = i.Add(refs[0], []archive.IntakeChunk{torn})
	require.ErrorIs(t, err, archive.ErrIntakeChunk)
	require.NotErrorIs(t, err, archive.ErrCorrupt, "the archive isn't")
	require.NoError(t, i.Add(refs[1], all[1].chunks))
	require.NoError(t, i.Add(refs[2], nil), "without samples")
	report, err := i.Commit(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 1, report.Series)
	require.EqualValues(t, 5760, report.Samples)
	_, err = i.Commit(t.Context())
	require.ErrorIs(t, err, archive.ErrIntakeClosed)
	require.NoError(t, i.Close())

	i, err = a.OpenIntake(t.Context(), intakeDay-1)
	require.NoError(t, err)
	require.NoError(t, i.Add(refs[1], nil))
	require.ErrorContains(t, i.Add(refs[1], nil), "out of order")
	_, err = i.Commit(t.Context())
	require.ErrorIs(t, err, archive.ErrIntakeClosed)
	require.NoError(t, i.Close())
	i, err = a.OpenIntake(t.Context(), intakeDay-1)
	require.NoError(t, err)
	require.Error(t, i.Add(99_999, nil), "there is no such series")
	require.NoError(t, i.Close())
	require.Error(t, a.MetricsOf(t.Context(), []storage.SeriesRef{99_999}, make([]uint32, 1)))
	require.Error(t, a.MetricsOf(t.Context(), refs, nil))
}

// TestIntakeClosing closes an archive with an intake open: it is ended, and nothing of it stays.
func TestIntakeClosing(t *testing.T) {
	dir := testkit.MemoryDir(t)
	a := testkit.Open(t, dir, options())
	refs, all := inOrder(t, a, []incoming{regular(t, intakeDay, 1)})
	i, err := a.OpenIntake(t.Context(), intakeDay)
	require.NoError(t, err)
	addAll(t, i, refs, all)
	require.NoError(t, a.Close())
	_, unavailable := errors.AsType[*arrival.Unavailable](i.Add(refs[0], nil))
	require.True(t, unavailable)
	_, err = i.Commit(t.Context())
	require.Error(t, err)
	require.NoError(t, i.Close())
	require.Zero(t, testkit.Check(t, dir).Bundles)
	_, err = a.OpenIntake(t.Context(), intakeDay)
	require.Error(t, err)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		require.NotEqual(t, "intake", e.Name())
	}
}

// TestIntakeUnderDelete shows that a delete which is made while a day is leased, of samples of it that arrived, makes the intake fail,
// because it would hide what comes after it; and that the day is taken then.
func TestIntakeUnderDelete(t *testing.T) {
	for _, at := range []string{"", "ingested"} {
		a := testkit.Open(t, testkit.MemoryDir(t), options())
		all := []incoming{regular(t, intakeDay, 1), regular(t, intakeDay, 2)}
		refs, all := inOrder(t, a, all)
		i, err := a.OpenIntake(t.Context(), intakeDay)
		require.NoError(t, err)
		addAll(t, i, refs, all)
		write(t, a, []point{{series: 1, t: day0 + 7, v: 1}, {series: 3, t: day0 + 7, v: 1}})
		del := func() {
			_, ok, err := a.Delete(t.Context(), archive.DeleteRequest{
				Matchers: [][]*labels.Matcher{{matcher("i=1")}}, MinMillis: day0, MaxMillis: day0 + 100_000, Grace: time.Hour,
			})
			require.NoError(t, err)
			require.True(t, ok)
		}
		if at == "" {
			del()
		}
		a.OnStep(func(step string) {
			if step == at {
				del()
			}
		})
		_, err = i.Commit(t.Context())
		require.ErrorIs(t, err, archive.ErrDayTaken)
		a.OnStep(nil)
		require.NoError(t, i.Close())
		_, err = a.OpenIntake(t.Context(), intakeDay)
		require.ErrorIs(t, err, archive.ErrDayTaken)
		want := everything{}
		want.send([]point{{series: 3, t: day0 + 7, v: 1}})
		requireSame(t, want.dump(day0, day0+format.DayMillis), see(t, a, day0, day0+format.DayMillis), at)
	}
}
