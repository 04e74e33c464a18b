package archive_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"varve/internal/testkit"
)

// labelAnswers are what the label APIs say of a range: label names, values of i, values
// of job, and series, each without matchers and with some.
type labelAnswers [6][]string

// askLabels asks the archive.
func askLabels(a storage.Queryable, mint, maxt int64) (got labelAnswers, err error) {
	q, err := a.Querier(mint, maxt)
	if err != nil {
		return got, err
	}
	defer func() { err = errors.Join(err, q.Close()) }()
	ctx := context.Background()
	metric := labels.MustNewMatcher(labels.MatchEqual, "__name__", "metric_1")
	host := labels.MustNewMatcher(labels.MatchRegexp, "instance", ".*[1-3]")
	var errs [5]error
	got[0], _, errs[0] = q.LabelNames(ctx, nil)
	got[1], _, errs[1] = q.LabelNames(ctx, nil, metric)
	got[2], _, errs[2] = q.LabelValues(ctx, "i", nil)
	got[3], _, errs[3] = q.LabelValues(ctx, "i", nil, host)
	got[4], _, errs[4] = q.LabelValues(ctx, "i", nil, metric)
	set := q.Select(ctx, true, &storage.SelectHints{Start: mint, End: maxt, Func: "series"}, metric)
	got[5] = []string{}
	for set.Next() {
		got[5] = append(got[5], set.At().Labels().Get("i"))
	}
	slices.Sort(got[5])
	return got, errors.Join(append(errs[:], set.Err())...)
}

// labels is what the archive should answer to askLabels.
func (m model) labels(mint, maxt int64) (want labelAnswers) {
	names := map[bool]bool{}
	want = labelAnswers{{}, {}, {}, {}, {}, {}}
	for i, samples := range m {
		within := false
		for at := range samples {
			within = within || at >= mint && at <= maxt
		}
		if !within {
			continue
		}
		text := fmt.Sprint(i)
		names[i%5 == 1] = true
		want[2] = append(want[2], text)
		if host := i % 7; host >= 1 && host <= 3 {
			want[3] = append(want[3], text)
		}
		if i%5 == 1 {
			want[4], want[5] = append(want[4], text), append(want[5], text)
		}
	}
	all := []string{"__name__", "i", "instance", "job"}
	if len(names) > 0 {
		want[0] = all
	}
	if names[true] {
		want[1] = all
	}
	for i := range want {
		slices.Sort(want[i])
	}
	return want
}

// labelPoints are the samples of series that begin and end within three days, some with
// a gap of hours, some seldom scraped, in any order.
func labelPoints(r *rand.Rand, series int) []point {
	var points []point
	for i := range series {
		begin := r.Int64N(3 * 86400_000)
		end := begin + r.Int64N(2*86400_000)
		step := []int64{60_000, 600_000, 7_000_000}[i%3]
		gap := begin + r.Int64N(86400_000)
		for at := begin / step * step; at < min(end, 3*86400_000); at += step {
			if at < gap || at > gap+7200_000 {
				points = append(points, point{series: i, t: day0 + at, v: float64(i)})
			}
		}
	}
	r.Shuffle(len(points), func(i, j int) { points[i], points[j] = points[j], points[i] })
	return points
}

// labelRanges are some time ranges with edges anywhere, on those of days and of the
// parts of a day that sightings know, and on samples.
func labelRanges(r *rand.Rand, n int) [][2]int64 {
	const part = 86400_000 / 64
	edge := func() int64 {
		at := r.Int64N(3 * 86400_000)
		switch r.IntN(4) {
		case 0:
			at = at / 86400_000 * 86400_000
		case 2:
			at = at / 600_000 * 600_000
		case 1:
			at = at / part * part
		}
		return day0 + at + r.Int64N(3) - 1
	}
	var ranges [][2]int64
	for range n {
		mint, maxt := edge(), edge()
		if r.IntN(3) == 0 {
			maxt = mint + r.Int64N(2*part)
		}
		ranges = append(ranges, [2]int64{min(mint, maxt), max(mint, maxt)})
	}
	return ranges
}

// TestLabelsModel shows that the label APIs are exact to the millisecond for ranges that cut
// days anywhere, whatever was asked before: with samples in memory, in runs, in bundles, and
// with late ones behind these.
func TestLabelsModel(t *testing.T) {
	for seed := range uint64(draws(2, 3)) {
		r := rand.New(rand.NewPCG(seed, 11))
		points := labelPoints(r, 120)
		m, a := model{}, testkit.Open(t, testkit.MemoryDir(t), options())
		ranges := labelRanges(r, draws(25, 40))
		check := func(stage string) {
			t.Helper()
			// Twice, as the second answer comes from what the first has seen.
			for k := range 2 * len(ranges) {
				mint, maxt := ranges[k%len(ranges)][0], ranges[k%len(ranges)][1]
				got, err := askLabels(a, mint, maxt)
				require.NoError(t, err)
				require.Equal(t, m.labels(mint, maxt), got, "seed %d, %s, question %d: %d to %d", seed, stage, k, mint-day0, maxt-day0)
			}
		}
		late := points[len(points)*9/10:]
		first := points[:len(points)*9/10]
		write(t, a, first)
		m.add(first)
		check("in memory")
		require.NoError(t, a.Maintain(true))
		require.NoError(t, a.Maintain(true))
		check("in runs")
		testkit.SealAll(t, a)
		check("sealed")
		write(t, a, late)
		m.add(late)
		check("late")
		require.NoError(t, a.Maintain(true))
		testkit.SealAll(t, a)
		check("sealed again")
	}
}

// TestLabelsManyValues shows that a label with far more values than series in the range
// is answered right, and that of series that ended all are tried.
func TestLabelsManyValues(t *testing.T) {
	a, m := testkit.Open(t, testkit.MemoryDir(t), options()), model{}
	var points []point
	for i := range 3000 {
		points = append(points, point{series: i, t: day0 + 1000})
	}
	points = append(points, point{series: 2999, t: day0 + 86400_000 + 1000}, point{series: 1, t: day0 + 2000}, point{series: 2998, t: day0 + 2000})
	write(t, a, points)
	m.add(points)
	require.NoError(t, a.Maintain(true))
	testkit.SealAll(t, a)
	for _, span := range [][2]int64{{1500, 86400_000 + 2000}, {86400_000, 86400_000 + 2000}, {1500, 3000}, {0, 1000}, {0, 999}} {
		got, err := askLabels(a, day0+span[0], day0+span[1])
		require.NoError(t, err)
		require.Equal(t, m.labels(day0+span[0], day0+span[1]), got, "%v", span)
	}
}

// TestLabelsTogether shows that questions asked at the same time, while samples move from
// memory to runs to bundles, are answered alike.
func TestLabelsTogether(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	points := labelPoints(r, 60)
	m, a := model{}, testkit.Open(t, testkit.MemoryDir(t), options())
	write(t, a, points)
	m.add(points)
	ranges := labelRanges(r, 10)
	const askers, turns = 3, 3
	var answers [askers][]labelAnswers
	var errs [askers]error
	var wg sync.WaitGroup
	for i := range askers {
		wg.Go(func() {
			for k := range turns * len(ranges) {
				got, err := askLabels(a, ranges[k%len(ranges)][0], ranges[k%len(ranges)][1])
				answers[i], errs[i] = append(answers[i], got), errors.Join(errs[i], err)
			}
		})
	}
	require.NoError(t, a.Maintain(true))
	testkit.SealAll(t, a)
	wg.Wait()
	for i := range askers {
		require.NoError(t, errs[i])
		for k, got := range answers[i] {
			mint, maxt := ranges[k%len(ranges)][0], ranges[k%len(ranges)][1]
			require.Equal(t, m.labels(mint, maxt), got, "%d to %d", mint-day0, maxt-day0)
		}
	}
}
