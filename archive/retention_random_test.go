package archive_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/archive/format"
	"varve/arrival"
	"varve/internal/testkit"
	"varve/rollup"
)

// TestRetentionAtRandom writes, late and on time, seals, rolls up, changes rules, expires, moves the clock, restarts and
// kills between any two steps at random, and compares samples, buckets and labels with a model. RETENTION_SEED repeats one.
func TestRetentionAtRandom(t *testing.T) {
	for _, seed := range seeds(t, "RETENTION_SEED", draws(2, 4)) {
		t.Run(fmt.Sprint("RETENTION_SEED=", seed), func(t *testing.T) { retentionAtRandom(t, seed) })
	}
}

// keptPolicies are rules, each with how many days series of job0, job1 and job2 keep of samples and both resolutions.
var keptPolicies = []struct {
	rules []archive.RetentionRule
	days  [3][3]int
}{
	{nil, [3][3]int{{-1, -1, -1}, {-1, -1, -1}, {-1, -1, -1}}},
	{[]archive.RetentionRule{keptRule("", 3, 5, 7)}, [3][3]int{{3, 5, 7}, {3, 5, 7}, {3, 5, 7}}},
	{[]archive.RetentionRule{keptRule("", 2, 2, -1)}, [3][3]int{{2, 2, -1}, {2, 2, -1}, {2, 2, -1}}},
	{[]archive.RetentionRule{keptRule("job=job0", 2, 4, 4), keptRule("", 4, 6, 8)}, [3][3]int{{2, 4, 4}, {4, 6, 8}, {4, 6, 8}}},
	{[]archive.RetentionRule{keptRule("job=job0", 2, 2, 2), keptRule("job=job1", 5, 3, -1)}, [3][3]int{{2, 2, 2}, {5, 3, -1}, {-1, -1, -1}}},
	{[]archive.RetentionRule{keptRule("job=~job[01]", 3, 3, 6), keptRule("", 6, 3, 3)}, [3][3]int{{3, 3, 6}, {3, 3, 6}, {6, 3, 3}}},
}

var keptResolutions = []int64{300_000, 3600_000}

// keptWorld is an archive under retention, and its model.
type keptWorld struct {
	t      testing.TB
	r      *rand.Rand
	now    *atomic.Int64
	o      archive.Options
	dir    string
	a      *archive.Archive
	m      model
	policy int
	newest format.Day
	// floors are the first days kept, by level.
	floors [3]format.Day
	// rows are buckets whose samples have expired, as they were then: by series, resolution and end.
	rows map[keptRow]string
	// gone are days of series of which a rule removed the samples.
	gone map[keptDay]bool
	pins []keptPin
}

type keptDay struct {
	series int
	day    format.Day
}

type keptRow struct {
	series          int
	resolution, end int64
}

// keptPin is a view that stays open, and what it saw.
type keptPin struct {
	q    storage.Querier
	seen string
}

// keptSeries are written to on a day.
const keptSeries = 12

func retentionAtRandom(t *testing.T, seed uint64) {
	w := &keptWorld{t: t, r: rand.New(rand.NewPCG(seed, 9)), m: model{}, rows: map[keptRow]string{}, gone: map[keptDay]bool{}, dir: testkit.MemoryDir(t), newest: format.MinDay}
	w.o, w.now = keptOptions(3)
	w.floors = [3]format.Day{format.MinDay, format.MinDay, format.MinDay}
	w.open(w.dir)
	for range 200 {
		w.act()
		w.check()
	}
	w.closePins()
	require.NoError(t, w.a.Close())
	testkit.Check(t, w.dir)
}

func (w *keptWorld) open(dir string) {
	w.dir = dir
	w.o.Retention = archive.Retention{Rules: keptPolicies[w.policy].rules}
	a, err := archive.Open(dir, w.o)
	require.NoError(w.t, err)
	<-a.Started()
	require.NoError(w.t, a.StartError())
	a.SmallSeals()
	a.ForgetEasily()
	w.a = a
}

func (w *keptWorld) closePins() {
	for _, p := range w.pins {
		// It may see more, of series that it found nothing of before: what is in memory.
		seen := strings.Split(w.look(p.q), "\n")
		for _, line := range strings.Split(p.seen, "\n") {
			require.Contains(w.t, seen, line, "a view that stays open")
		}
		require.NoError(w.t, p.q.Close())
	}
	w.pins = nil
}

// look is what a view sees of samples and buckets.
func (w *keptWorld) look(q storage.Querier) string {
	return read(w.t, fixedView{q}, 0, 0) + "\n" + bucketsIn(w.t, q)
}

func (w *keptWorld) act() {
	switch w.r.IntN(18) {
	case 16, 17:
		w.forget()
	case 0, 1, 2:
		w.write()
	case 3:
		w.now.Add(dayMillis / 4 * int64(1+w.r.IntN(8)))
	case 4:
		require.NoError(w.t, w.a.Maintain(true))
	case 5, 6:
		require.NoError(w.t, w.a.Maintain(true))
		sealAll(w.t, w.a, w.r.IntN(4) == 0)
	case 7, 8:
		w.roll()
	case 9, 10:
		w.expire()
	case 14, 15:
		w.trim()
	case 11:
		w.policy = w.r.IntN(len(keptPolicies))
		require.NoError(w.t, w.a.SetRetention(archive.Retention{Rules: keptPolicies[w.policy].rules}))
	case 12:
		if w.r.IntN(2) == 0 && len(w.pins) < 3 {
			q, err := w.a.Querier(math.MinInt64, math.MaxInt64)
			require.NoError(w.t, err)
			w.pins = append(w.pins, keptPin{q, w.look(q)})
		} else {
			w.closePins()
		}
	default:
		w.closePins()
		if w.r.IntN(2) == 0 {
			require.NoError(w.t, w.a.Close())
			testkit.Check(w.t, w.dir)
			w.open(w.dir)
			return
		}
		w.kill()
	}
}

// kill goes on with what a kill leaves.
func (w *keptWorld) kill() {
	w.closePins()
	w.o.Retention = archive.Retention{Rules: keptPolicies[w.policy].rules}
	b, to := crash(w.t, w.dir, w.o)
	require.NoError(w.t, w.a.Close())
	b.SmallSeals()
	b.ForgetEasily()
	w.a, w.dir = b, to
}

func (w *keptWorld) today() format.Day { return min(format.DayOf(w.now.Load()), w.newest+1) }

// since is the first day that the archive shows of a series at a level.
func (w *keptWorld) since(series, level int) format.Day {
	since := w.cut(series, level)
	for k := range w.gone {
		if level == 0 && k.series == series {
			since = max(since, k.day+1)
		}
	}
	return since
}

// cut is the first day that the rules and floors show.
func (w *keptWorld) cut(series, level int) format.Day {
	keep := keptPolicies[w.policy].days[series%3][level]
	if keep < 0 || w.newest == format.MinDay {
		return w.floors[level]
	}
	return max(w.floors[level], w.today()-format.Day(keep))
}

func (w *keptWorld) write() {
	var points []point
	for range 1 + w.r.IntN(60) {
		at := w.now.Load() - w.r.Int64N(dayMillis)
		switch w.r.IntN(8) {
		case 0:
			at = w.now.Load() - w.r.Int64N(9*dayMillis)
		case 1:
			at = format.DayOf(at).StartMillis()
		}
		points = append(points, point{series: w.born() + w.r.IntN(keptSeries), t: at, v: float64(w.r.IntN(1000))})
	}
	var good []point
	for _, p := range points {
		if p.t >= sinceOf(w.since(p.series, 0)) {
			good = append(good, p)
		}
	}
	res := write(w.t, w.a, points)
	require.Equal(w.t, len(points)-len(good), res.Rejected[arrival.ReasonRetention])
	w.m.add(good)
	for _, p := range good {
		w.newest = max(w.newest, format.DayOf(p.t))
	}
}

// born is the first of the series that are written to: some end every day, and others begin.
func (w *keptWorld) born() int { return int((w.now.Load()-day0)/dayMillis) * 3 }

func sinceOf(d format.Day) int64 { return d.StartMillis() }

// roll rolls up the days that are ready, all the way or up to some batch.
func (w *keptWorld) roll() {
	days, err := w.a.Days()
	require.NoError(w.t, err)
	batches := -1
	if w.r.IntN(3) == 0 {
		batches = 1 + w.r.IntN(3)
	}
	for i, d := range days {
		if d.Runs && d.Sealed.IsZero() || d.Rolled && !d.Dirty || i+1 < len(days) && days[i+1].Runs && days[i+1].Sealed.IsZero() {
			continue
		}
		_, err := w.a.Roll(context.Background(), d.Day, func(context.Context, time.Duration) error {
			if batches--; batches == 0 {
				return errEnough
			}
			return nil
		})
		if !errors.Is(err, errEnough) {
			require.NoError(w.t, err)
		}
	}
}

// expire lets expire what may, as a planner would, and may be killed at any step of that.
func (w *keptWorld) expire() {
	days, err := w.a.Days()
	require.NoError(w.t, err)
	kept, err := w.a.Retention()
	require.NoError(w.t, err)
	var floors [3]format.Day
	for level, l := range kept.Levels {
		want := w.floors[level]
		least := format.Day(math.MaxInt32)
		for s := range 3 {
			least = min(least, w.cut(s, level))
		}
		require.Equal(w.t, max(want, least), max(l.Floor, l.Cutoff), "level %d", level)
		floors[level] = max(l.Floor, l.Cutoff)
	}
	for _, d := range days {
		if d.Day < floors[0] && d.Needed(d.Day >= floors[1] || d.Day >= floors[2]) != "" {
			floors[0] = max(d.Day, kept.Levels[0].Floor)
			break
		}
	}
	// The buckets as they are now are those that stay.
	frozen := w.freeze(floors[0])
	written := false
	steps, die := 0, -1
	if w.r.IntN(2) == 0 {
		die = 1 + w.r.IntN(12)
	}
	var killed *archive.Archive
	var to string
	w.a.OnStep(func(step string) {
		if step == "floors written" {
			written = true
		}
		if steps++; steps == die && killed == nil {
			w.o.Retention = archive.Retention{Rules: keptPolicies[w.policy].rules}
			killed, to = crash(w.t, w.dir, w.o)
		}
	})
	diedBefore := func() bool { return killed != nil && !written }
	_, err = w.a.Expire(context.Background(), floors[:])
	if errors.Is(err, archive.ErrKept) {
		// Rows that a rule removed are wanted again, and can be made.
		w.a.OnStep(nil)
		w.goOn(killed, to)
		return
	}
	require.NoError(w.t, err)
	before := diedBefore()
	if !before {
		maps.Copy(w.rows, frozen)
		w.floors = floors
	}
	for range w.r.IntN(3) {
		_, err = w.a.Reclaim()
		require.NoError(w.t, err)
	}
	w.a.OnStep(nil)
	w.goOn(killed, to)
}

// goOn goes on with what a kill left, if there was one.
func (w *keptWorld) goOn(killed *archive.Archive, to string) {
	if killed == nil {
		return
	}
	for _, p := range w.pins {
		require.NoError(w.t, p.q.Close())
	}
	w.pins = nil
	require.NoError(w.t, w.a.Close())
	killed.SmallSeals()
	killed.ForgetEasily()
	w.a, w.dir = killed, to
}

// trim removes what rules keep no longer of some days, and may be killed, or ended, at any step of that.
func (w *keptWorld) trim() {
	// What is in memory stays, hidden, until it is in runs.
	require.NoError(w.t, w.a.Maintain(true))
	kept, err := w.a.Retention()
	require.NoError(w.t, err)
	for _, trim := range kept.Trims {
		// A trim that was interrupted may have rolled days up before it was done again.
		days, err := w.a.Days()
		require.NoError(w.t, err)
		i := slices.IndexFunc(days, func(d archive.DayStatus) bool { return d.Day == trim.Day })
		// The oldest first: the sample at midnight that a bucket holds tells of whom it is.
		if trim.Held || w.r.IntN(6) == 0 {
			return
		}
		if trim.Raw && i >= 0 && days[i].Needed(true) != "" {
			_, err := w.a.Trim(context.Background(), trim.Day, nil)
			require.ErrorIs(w.t, err, archive.ErrKept)
			return
		}
		if !w.trimDay(trim.Day) {
			return
		}
	}
}

// trimDay trims a day. It is false if there was a kill.
func (w *keptWorld) trimDay(day format.Day) bool {
	rows := w.freeze(day + 1)
	steps, die, end := 0, -1, -1
	switch w.r.IntN(4) {
	case 0:
		die = 1 + w.r.IntN(10)
	case 1:
		end = w.r.IntN(5)
	}
	noted := false
	var killed *archive.Archive
	var to string
	w.a.OnStep(func(step string) {
		noted = noted || step == "trim noted"
		if steps++; steps == die && killed == nil {
			w.o.Retention = archive.Retention{Rules: keptPolicies[w.policy].rules}
			killed, to = crash(w.t, w.dir, w.o)
		}
	})
	_, err := w.a.Trim(context.Background(), day, func(context.Context, time.Duration) error {
		if end--; end == -1 {
			return errEnough
		}
		return nil
	})
	ended := err == nil
	if errors.Is(err, archive.ErrKept) {
		w.a.OnStep(nil)
		w.goOn(killed, to)
		return killed == nil
	}
	if err != nil {
		require.ErrorIs(w.t, err, errEnough)
	}
	w.a.OnStep(nil)
	if killed != nil && !noted {
		w.goOn(killed, to)
		return false
	}
	w.trimmed(day, rows)
	w.goOn(killed, to)
	if killed != nil || !ended {
		// It is done again before rules change: what was removed until now nobody can tell.
		_, err := w.a.Trim(context.Background(), day, nil)
		for range 3 {
			if !errors.Is(err, archive.ErrKept) {
				break
			}
			require.NoError(w.t, w.a.Maintain(true))
			sealAll(w.t, w.a, false)
			days, err2 := w.a.Days()
			require.NoError(w.t, err2)
			for _, d := range days {
				_, err2 = w.a.Roll(context.Background(), d.Day, nil)
				require.NoError(w.t, err2)
			}
			_, err = w.a.Trim(context.Background(), day, nil)
		}
		require.NoError(w.t, err)
	}
	return killed == nil
}

// trimmed takes from the model what rules keep no longer of the day. rows are its buckets before.
func (w *keptWorld) trimmed(day format.Day, rows map[keptRow]string) {
	for s := range w.m {
		raw := day < w.cut(s, 0)
		all := (raw || w.gone[keptDay{s, day}]) && day < w.cut(s, 1) && day < w.cut(s, 2)
		for k, row := range rows {
			if k.series != s || format.DayOf(k.end-1) != day {
				continue
			}
			if day < w.cut(s, slices.Index(keptResolutions, k.resolution)+1) {
				delete(w.rows, k)
			} else if raw {
				w.rows[k] = row
			}
		}
		switch {
		case all:
			delete(w.gone, keptDay{s, day})
			for at := range w.m[s] {
				if format.DayOf(at) == day {
					delete(w.m[s], at)
				}
			}
		case raw && day >= w.floors[0] && w.active(s, day):
			w.gone[keptDay{s, day}] = true
		}
	}
}

// active tells whether the series had samples on the day.
func (w *keptWorld) active(series int, day format.Day) bool {
	for at := range w.m[series] {
		if format.DayOf(at) == day {
			return true
		}
	}
	return false
}

// freeze adds to the rows those that end before the floor, as they are without rules.
func (w *keptWorld) freeze(floor format.Day) map[keptRow]string {
	require.NoError(w.t, w.a.SetRetention(archive.Retention{}))
	defer func() {
		require.NoError(w.t, w.a.SetRetention(archive.Retention{Rules: keptPolicies[w.policy].rules}))
	}()
	out := map[keptRow]string{}
	for k, row := range w.bucketRows() {
		if k.end <= sinceOf(floor) {
			out[k] = row
		}
	}
	return out
}

// bucketRows are all buckets that a planner finds.
func (w *keptWorld) bucketRows() map[keptRow]string {
	q, err := w.a.Querier(math.MinInt64, math.MaxInt64)
	require.NoError(w.t, err)
	defer func() { require.NoError(w.t, q.Close()) }()
	v := q.(archived)
	out := map[keptRow]string{}
	set := v.SelectArchived(context.Background(), math.MinInt64, math.MaxInt64, matcher(`__name__=~.+`))
	for set.Next() {
		s := set.At()
		series, err := strconv.Atoi(s.Labels().Get("i"))
		require.NoError(w.t, err)
		for _, resolution := range v.Resolutions() {
			var c rollup.Columns
			require.NoError(w.t, s.Buckets(resolution, math.MinInt64, math.MaxInt64, &c))
			for i := range c.Ends {
				out[keptRow{series, resolution, c.Ends[i]}] = fmt.Sprintf("%+v", c.Row(i))
			}
		}
	}
	require.NoError(w.t, set.Err())
	return out
}

// shown is what is seen of the samples.
func (w *keptWorld) shown() model {
	out := model{}
	for s, samples := range w.m {
		out[s] = map[int64]uint64{}
		for at, v := range samples {
			if at >= sinceOf(w.since(s, 0)) {
				out[s][at] = v
			}
		}
	}
	return out
}

func (w *keptWorld) check() {
	shown := w.shown()
	requireSame(w.t, shown.dump(math.MinInt64, math.MaxInt64), read(w.t, w.a, math.MinInt64, math.MaxInt64), "samples")
	// Wherever there are samples, buckets that are said to be complete are what they give.
	requireRolled(w.t, w.a, sinceOf(max(w.floors[0], w.allSince())), w.now.Load()+dayMillis)
	var want, got []string
	for k, row := range w.rows {
		level := slices.Index(keptResolutions, k.resolution) + 1
		if k.end > sinceOf(w.since(k.series, level)) && w.frozen(k) {
			want = append(want, fmt.Sprint(k, row))
		}
	}
	for k, row := range w.bucketRows() {
		level := slices.Index(keptResolutions, k.resolution) + 1
		require.Greater(w.t, k.end, sinceOf(w.since(k.series, level)), "a bucket past its age")
		if w.frozen(k) {
			got = append(got, fmt.Sprint(k, row))
		}
	}
	sort.Strings(want)
	sort.Strings(got)
	requireSame(w.t, strings.Join(want, "\n"), strings.Join(got, "\n"), "buckets whose samples expired")
	for range 4 {
		w.checkLabels(shown)
	}
}

// frozen tells whether the samples of a bucket have expired.
func (w *keptWorld) frozen(k keptRow) bool {
	return k.end <= sinceOf(w.floors[0]) || w.gone[keptDay{k.series, format.DayOf(k.end - 1)}]
}

// allSince is the first day of which all series show samples.
func (w *keptWorld) allSince() format.Day {
	return max(w.since(0, 0), w.since(1, 0), w.since(2, 0))
}

func (w *keptWorld) checkLabels(shown model) {
	mint := w.now.Load() - w.r.Int64N(12*dayMillis)
	if w.r.IntN(3) == 0 {
		mint = format.DayOf(mint).StartMillis()
	}
	maxt := mint + w.r.Int64N(4*dayMillis)
	if w.r.IntN(3) == 0 {
		maxt = format.DayOf(maxt).EndMillis() - 1
	}
	seen := model{}
	for s, samples := range w.m {
		for at := range samples {
			_, visible := shown[s][at]
			d := format.DayOf(at)
			// Of days with buckets alone nobody knows the hour. Where another rule removed samples, it takes a trim to tell that
			// nothing is left.
			rolled := d < w.since(s, 0) && d >= min(w.cut(s, 0), w.cut(s, 1), w.cut(s, 2)) && d >= format.DayOf(mint) && d <= format.DayOf(maxt)
			if visible && at >= mint && at <= maxt || rolled {
				seen[s] = map[int64]uint64{mint: 1}
			}
		}
	}
	got, err := askLabels(w.a, mint, maxt)
	require.NoError(w.t, err)
	want := seen.labels(mint, maxt)
	for i := range got {
		require.Equal(w.t, append([]string{}, want[i]...), append([]string{}, got[i]...), "answer %d from day %d to %d of %d", i, format.DayOf(mint), format.DayOf(maxt), format.DayOf(w.now.Load()))
	}
}
