package archive_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/arrival"
	"varve/internal/testkit"
)

// countedValues is what a model has of a label: the series of each value.
func countedValues(have []int, label string) map[string]uint64 {
	values := map[string]uint64{}
	for _, i := range have {
		if v := seriesLabels(i).Get(label); v != "" {
			values[v]++
		}
	}
	return values
}

func requireCardinality(t *testing.T, a *archive.Archive, have []int, r archive.CardinalityRequest) {
	t.Helper()
	c, err := a.Cardinality(t.Context(), r)
	require.NoError(t, err)
	require.Equal(t, uint64(len(have)), c.Series)
	bytes := uint64(0)
	for i, e := range c.Entries {
		bytes += e.Bytes
		if i > 0 && r.BySeries {
			require.LessOrEqual(t, e.Series, c.Entries[i-1].Series)
		} else if i > 0 {
			require.LessOrEqual(t, e.Bytes, c.Entries[i-1].Bytes)
		}
	}
	if r.Label == "" {
		want := map[string]uint64{}
		for _, l := range []string{"__name__", "job", "instance", "i"} {
			if n := len(countedValues(have, l)); n > 0 {
				want[l] = uint64(n)
			}
		}
		got := map[string]uint64{}
		for _, e := range c.Entries {
			got[e.Name] = e.Values
			require.Equal(t, c.Series, e.Series)
			require.InDelta(t, c.Bytes, e.Bytes, 1)
		}
		require.Equal(t, want, got)
		return
	}
	want, got := countedValues(have, r.Label), map[string]uint64{}
	for _, e := range c.Entries {
		got[e.Name] = e.Series
		require.Zero(t, e.Values)
		require.Equal(t, want[e.Name], e.Series, e.Name)
	}
	require.Equal(t, len(want), len(got)+c.Left)
	require.LessOrEqual(t, len(got), r.Limit)
	if c.Left == 0 && len(want) > 0 {
		require.InDelta(t, c.Bytes, bytes, float64(len(got)+1), "what the values take adds up, since each series has one")
	}
}

// TestCardinality counts series by label and value as a model does: for days in memory, in runs and in bundles, over the end of a
// month, with selectors that are answered from postings and by looking at labels.
func TestCardinality(t *testing.T) {
	t.Parallel()
	dir := testkit.MemoryDir(t)
	a := testkit.Open(t, dir, options())
	r := rand.New(rand.NewPCG(1, 2))
	first := day0 - 86400_000
	byDay := map[int][]int{}
	for day := range 5 {
		var points []point
		for i := range 60 {
			if r.IntN(3) == 0 {
				continue
			}
			byDay[day] = append(byDay[day], i)
			for n := range 10 {
				points = append(points, point{i, first + int64(day)*86400_000 + int64(n)*60_000, r.Float64()})
			}
		}
		write(t, a, points)
		switch day {
		case 0, 1:
			require.NoError(t, a.Maintain(true))
			sealAll(t, a, false)
		case 2:
			require.NoError(t, a.Maintain(true))
		case 3:
			require.NoError(t, a.CutAll())
		}
	}
	having := func(days int, ok func(i int) bool) (have []int) {
		for i := range 60 {
			for d := 5 - days; d < 5; d++ {
				if d >= 0 && slices.Contains(byDay[d], i) && ok(i) {
					have = append(have, i)
					break
				}
			}
		}
		return have
	}
	all := func(int) bool { return true }
	for _, days := range []int{1, 2, 3, 4, 5, archive.CardinalityDaysMax} {
		for _, label := range []string{"", "__name__", "job", "instance", "i", "absent"} {
			for _, bySeries := range []bool{false, true} {
				for _, limit := range []int{1, 4, 1000} {
					if label == "" && limit < 1000 {
						continue
					}
					requireCardinality(t, a, having(days, all), archive.CardinalityRequest{Label: label, Days: days, BySeries: bySeries, Limit: limit})
				}
			}
		}
	}
	for selector, ok := range map[string]func(i int) bool{
		`{job="job1"}`:                        func(i int) bool { return i%3 == 1 },
		`{job!="job1",instance=~"host[0-2]"}`: func(i int) bool { return i%3 != 1 && i%7 < 3 },
		`{i=~".*7"}`:                          func(i int) bool { return i%10 == 7 },
		`metric_2{i!~"1.*"}`:                  func(i int) bool { return i%5 == 2 && fmt.Sprint(i)[0] != '1' },
		`{job="none"}`:                        func(int) bool { return false },
	} {
		for _, label := range []string{"", "job", "i"} {
			requireCardinality(t, a, having(4, ok), archive.CardinalityRequest{Label: label, Days: 4, Limit: 1000, Matchers: [][]*labels.Matcher{matchersOf(t, selector)}})
		}
	}
	two := [][]*labels.Matcher{matchersOf(t, `{job="job1"}`), matchersOf(t, `{instance="host2"}`)}
	requireCardinality(t, a, having(5, func(i int) bool { return i%3 == 1 || i%7 == 2 }), archive.CardinalityRequest{Label: "i", Days: 5, Limit: 1000, Matchers: two})

	for _, bad := range []archive.CardinalityRequest{{Days: 0, Limit: 1}, {Days: archive.CardinalityDaysMax + 1, Limit: 1}, {Days: 1}} {
		_, err := a.Cardinality(t.Context(), bad)
		require.Error(t, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := a.Cardinality(ended, archive.CardinalityRequest{Days: 5, Limit: 1})
	require.ErrorIs(t, err, context.Canceled)
}

// TestCardinalityBytes gives what bundles take to the metric whose bundles they are.
func TestCardinalityBytes(t *testing.T) {
	t.Parallel()
	a := testkit.Open(t, testkit.MemoryDir(t), options())
	r := rand.New(rand.NewPCG(3, 4))
	var points []point
	for n := range 2000 {
		for _, i := range []int{0, 1, 6} { // metric_0 is constant, metric_1 is noise
			v := 1.0
			if i%5 == 1 {
				v = r.Float64()
			}
			points = append(points, point{i, day0 + int64(n)*15_000, v})
		}
	}
	write(t, a, points)
	require.NoError(t, a.Maintain(true))
	sealAll(t, a, false)
	require.NoError(t, a.FlushAll())
	c, err := a.Cardinality(t.Context(), archive.CardinalityRequest{Label: "__name__", Days: 5, Limit: 10})
	require.NoError(t, err)
	days, err := a.Days()
	require.NoError(t, err)
	require.InDelta(t, days[len(days)-1].Bytes, c.Bytes, 2, "all of the day's bundles")
	require.Equal(t, "metric_1", c.Entries[0].Name)
	require.Greater(t, c.Entries[0].Bytes, c.Bytes*9/10)
}

// BenchmarkCardinality asks about many series, a few of each of a thousand metrics.
func BenchmarkCardinality(b *testing.B) {
	const metrics, instances = 1000, 200
	o := options()
	o.MemoryBytes = 256 << 20
	a := testkit.Open(b, b.TempDir(), o)
	for i := range instances {
		batch := &arrival.Batch{}
		var unknown []arrival.Unknown
		for m := range metrics {
			unknown = append(unknown, arrival.Unknown{Labels: labels.FromStrings("__name__", fmt.Sprintf("metric_%d_total", m), "job", fmt.Sprintf("job%d", i%10),
				"instance", fmt.Sprintf("host%d:9100", i), "path", fmt.Sprintf("/a/%d", m%50), "id", fmt.Sprintf("%d-%d", i, m))})
		}
		require.NoError(b, a.Resolve(b.Context(), unknown))
		for _, u := range unknown {
			batch.Rows = append(batch.Rows, arrival.Row{Ref: u.Ref, First: uint32(len(batch.Times)), Count: 2})
			batch.Times = append(batch.Times, clock().UnixMilli()-60_000, clock().UnixMilli()-30_000)
			batch.Values = append(batch.Values, 0, uint64(i))
		}
		_, err := a.Write(b.Context(), batch)
		require.NoError(b, err)
	}
	require.NoError(b, a.Maintain(true))
	require.NoError(b, a.FlushAll())
	for _, label := range []string{"", "__name__", "id", "instance"} {
		b.Run("label="+label, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c, err := a.Cardinality(b.Context(), archive.CardinalityRequest{Label: label, Days: 30, Limit: 100})
				require.NoError(b, err)
				require.EqualValues(b, metrics*instances, c.Series)
			}
		})
	}
}
