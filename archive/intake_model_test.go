package archive_test

import (
	"cmp"
	"context"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tombstones"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/archive/chunk"
	"varve/archive/format"
	"varve/arrival"
	"varve/digest"
)

// incoming are the chunks of a series that a day is taken in of.
type incoming struct {
	series int
	chunks []archive.IntakeChunk
}

// seen is a sample in a form that compares by bits, with what adds it to a digest.
type seen struct {
	text string
	add  func(*digest.Series)
}

// seenBy reads an iterator. Counter reset hints are left out, as in ask.
func seenBy(it chunkenc.Iterator, each func(at int64, s seen)) error {
	for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
		at := it.AtT()
		switch kind {
		case chunkenc.ValFloat:
			_, v := it.At()
			each(at, seen{floatText(v, it.AtST()), func(d *digest.Series) { d.Float(at, v) }})
		case chunkenc.ValHistogram:
			_, h := it.AtHistogram(nil)
			each(at, seen{"int" + histogramText(h.ToFloat(nil), it.AtST()), func(d *digest.Series) { d.Histogram(at, h) }})
		case chunkenc.ValFloatHistogram:
			_, h := it.AtFloatHistogram(nil)
			each(at, seen{"float" + histogramText(h, it.AtST()), func(d *digest.Series) { d.FloatHistogram(at, h) }})
		}
	}
	return it.Err()
}

// floatText is a float with its start timestamp. It isn't formatted by package fmt, for the reason that writeSample names.
func floatText(v float64, start int64) string {
	var room [48]byte
	text := strconv.AppendUint(room[:0], math.Float64bits(v), 16)
	return string(strconv.AppendInt(append(text, " st="...), start, 10))
}

// histogramText is all of a histogram but the hint of a counter reset, with its start timestamp, by bits.
func histogramText(h *histogram.FloatHistogram, start int64) string {
	number := func(to []byte, n int64) []byte { return append(strconv.AppendInt(to, n, 36), ',') }
	floats := func(to []byte, all ...float64) []byte {
		for _, v := range all {
			to = append(strconv.AppendUint(to, math.Float64bits(v), 36), ',')
		}
		return append(to, ';')
	}
	spans := func(to []byte, all []histogram.Span) []byte {
		for _, s := range all {
			to = number(number(to, int64(s.Offset)), int64(s.Length))
		}
		return append(to, ';')
	}
	text := make([]byte, 0, 256)
	text = strconv.AppendBool(number(number(text, start), int64(h.Schema)), h.CounterResetHint == histogram.GaugeType)
	text = floats(text, h.ZeroThreshold, h.ZeroCount, h.Count, h.Sum)
	text = floats(spans(text, h.PositiveSpans), h.PositiveBuckets...)
	text = floats(spans(text, h.NegativeSpans), h.NegativeBuckets...)
	return string(floats(text, h.CustomValues...))
}

// everything are the samples of series by number and time.
type everything map[int]map[int64]seen

func (e everything) put(series int, at int64, s seen) {
	if e[series] == nil {
		e[series] = map[int64]seen{}
	}
	e[series][at] = s
}

// take adds what of the chunks lies on the day and isn't deleted, except where there is a sample already.
func (e everything) take(t testing.TB, day format.Day, all []incoming) {
	for _, in := range all {
		own := everything{}
		for _, c := range in.chunks {
			require.NoError(t, seenBy(c.Chunk.Iterator(nil), func(at int64, s seen) {
				deleted := slices.ContainsFunc(c.Deleted, func(d tombstones.Interval) bool { return d.Mint <= at && at <= d.Maxt })
				if format.DayOf(at) == day && !deleted {
					own.put(in.series, at, s)
				}
			}))
		}
		for at, s := range own[in.series] {
			if _, ok := e[in.series][at]; !ok {
				e.put(in.series, at, s)
			}
		}
	}
}

// send adds samples that arrive, which are later than any that were taken in.
func (e everything) send(points []point) {
	for _, p := range points {
		e.put(p.series, p.t, seen{text: floatText(p.v, 0)})
	}
}

// writeSeen adds a sample to a line.
func writeSeen(line *strings.Builder, at int64, s seen) {
	var room [24]byte
	line.Write(append(strconv.AppendInt(append(room[:0], ' '), at, 10), '='))
	line.WriteString(s.text)
}

func (e everything) dump(mint, maxt int64) string {
	var lines []string
	for series, samples := range e {
		var line strings.Builder
		for _, at := range slices.Sorted(maps.Keys(samples)) {
			if at >= mint && at <= maxt {
				writeSeen(&line, at, samples[at])
			}
		}
		if line.Len() > 0 {
			lines = append(lines, seriesLabels(series).String()+line.String())
		}
	}
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}

// see reads the archive as everything.dump has it.
func see(t testing.TB, a storage.Queryable, mint, maxt int64) string {
	t.Helper()
	q, err := a.Querier(mint, maxt)
	require.NoError(t, err)
	defer func() { require.NoError(t, q.Close()) }()
	set := q.Select(context.Background(), true, nil, labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".+"))
	var lines []string
	for set.Next() {
		var line strings.Builder
		require.NoError(t, seenBy(set.At().Iterator(nil), func(at int64, s seen) { writeSeen(&line, at, s) }))
		if line.Len() > 0 {
			lines = append(lines, set.At().Labels().String()+line.String())
		}
	}
	require.NoError(t, set.Err())
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}

// xorChunk makes a chunk of upstream's plain encoding.
func xorChunk(t testing.TB, times []int64, values []float64) archive.IntakeChunk {
	c := chunkenc.NewXORChunk()
	app, err := c.Appender()
	require.NoError(t, err)
	for i, at := range times {
		app.Append(0, at, values[i])
	}
	return archive.IntakeChunk{Chunk: c, MinMillis: times[0], MaxMillis: times[len(times)-1]}
}

// drawChunks makes chunks of any encoding that lie about the day and overlap.
func drawChunks(t testing.TB, r *rand.Rand, day format.Day, kind int) (out []archive.IntakeChunk) {
	for range 1 + r.IntN(5) {
		at := day.StartMillis() + r.Int64N(format.DayMillis+4*3600_000) - 2*3600_000
		if r.IntN(4) == 0 {
			at = day.StartMillis() + int64(r.IntN(2))*format.DayMillis - 15_000*r.Int64N(4)
		}
		step := []int64{15_000, 15_000, 60_000, 1}[r.IntN(4)]
		var times []int64
		var values []float64
		for range 1 + r.IntN(120) {
			times, values = append(times, at), append(values, drawValue(r))
			if at += step; r.IntN(20) == 0 {
				at += r.Int64N(100_000)
			}
		}
		var made []archive.IntakeChunk
		if kind == 0 {
			made = append(made, xorChunk(t, times, values))
		} else {
			made = rareChunks(t, r, kind, times, values)
		}
		for i := range made {
			for range r.IntN(3) {
				from := made[i].MinMillis + r.Int64N(made[i].MaxMillis-made[i].MinMillis+20) - 10
				made[i].Deleted = append(made[i].Deleted, tombstones.Interval{Mint: from, Maxt: from + r.Int64N(600_000)})
			}
			if r.IntN(12) == 0 {
				made[i].Deleted = append(made[i].Deleted, tombstones.Interval{Mint: math.MinInt64, Maxt: math.MaxInt64})
			}
		}
		out = append(out, made...)
	}
	return out
}

func drawValue(r *rand.Rand) float64 {
	if r.IntN(30) == 0 {
		return oddValues[r.IntN(len(oddValues))]
	}
	return float64(r.IntN(4000)) / 8
}

// rareChunks makes chunks of histograms and of samples with start timestamps.
func rareChunks(t testing.TB, r *rand.Rand, kind int, times []int64, values []float64) (out []archive.IntakeChunk) {
	var b chunk.RareBuilder
	for i, at := range times {
		start := int64(0)
		if kind%2 == 0 {
			start = at - 1000 - r.Int64N(3)
		}
		h := tsdbutil.GenerateTestHistogram(int64(i))
		if i%17 == 5 {
			h.Sum = values[i]
		}
		switch kind / 2 {
		case 0:
			b.AppendFloat(at, max(start, 1), math.Float64bits(values[i]))
		case 1:
			require.NoError(t, b.AppendHistogram(at, start, h))
		default:
			require.NoError(t, b.AppendFloatHistogram(at, start, h.ToFloat(nil)))
		}
	}
	for _, p := range b.Pieces(nil) {
		c, err := chunkenc.FromData(p.Encoding, p.Data)
		require.NoError(t, err)
		out = append(out, archive.IntakeChunk{Chunk: c, MinMillis: p.MinMillis, MaxMillis: p.MaxMillis})
	}
	return out
}

// inOrder resolves the series and brings them into the order of an intake.
func inOrder(t testing.TB, a *archive.Archive, all []incoming) (refs []storage.SeriesRef, sorted []incoming) {
	unknown := make([]arrival.Unknown, len(all))
	for i := range all {
		unknown[i].Labels = seriesLabels(all[i].series)
	}
	require.NoError(t, a.Resolve(t.Context(), unknown))
	found := make([]storage.SeriesRef, len(all))
	places := make([]int, len(all))
	for i := range all {
		found[i], places[i] = unknown[i].Ref, i
	}
	metrics := make([]uint32, len(all))
	require.NoError(t, a.MetricsOf(t.Context(), found, metrics))
	slices.SortFunc(places, func(x, y int) int {
		return cmp.Or(cmp.Compare(metrics[x], metrics[y]), cmp.Compare(found[x], found[y]))
	})
	for _, i := range places {
		refs, sorted = append(refs, found[i]), append(sorted, all[i])
	}
	return refs, sorted
}

// takeIn brings a day in whole and holds what was read back against what was added.
func takeIn(t testing.TB, a *archive.Archive, day format.Day, all []incoming) archive.IntakeReport {
	t.Helper()
	refs, all := inOrder(t, a, all)
	i, err := a.OpenIntake(t.Context(), day)
	require.NoError(t, err)
	defer func() { require.NoError(t, i.Close()) }()
	addAll(t, i, refs, all)
	report, err := i.Commit(t.Context())
	require.NoError(t, err)
	requireDigests(t, i, day, refs, all, report)
	return report
}

func addAll(t testing.TB, i *archive.Intake, refs []storage.SeriesRef, all []incoming) {
	t.Helper()
	for n := range all {
		require.NoError(t, i.Add(refs[n], all[n].chunks))
	}
}

func requireDigests(t testing.TB, i *archive.Intake, day format.Day, refs []storage.SeriesRef, all []incoming, report archive.IntakeReport) {
	t.Helper()
	want := everything{}
	want.take(t, day, all)
	n, series, samples := 0, uint64(0), uint64(0)
	require.NoError(t, i.Digests(t.Context(), func(ref storage.SeriesRef, d digest.Series) error {
		for refs[n] != ref || len(want[all[n].series]) == 0 {
			require.Empty(t, want[all[n].series], "series %d isn't read back", all[n].series)
			n++
		}
		var sum digest.Series
		for _, s := range want[all[n].series] {
			s.add(&sum)
		}
		require.Equal(t, sum, d, "series %d", all[n].series)
		series, samples = series+1, samples+d.Samples
		n++
		return nil
	}))
	for ; n < len(all); n++ {
		require.Empty(t, want[all[n].series], "series %d isn't read back", all[n].series)
	}
	require.Equal(t, report.Series, series)
	require.Equal(t, report.Samples, samples)
}

// intakeDay is the day of day0.
var intakeDay = format.DayOf(day0)

// drawIncoming draws series of all kinds.
func drawIncoming(t testing.TB, r *rand.Rand, day format.Day, n int) (all []incoming) {
	for _, series := range r.Perm(60)[:n] {
		all = append(all, incoming{series, drawChunks(t, r, day, series%7%6)})
	}
	return all
}

// rolls seals and rolls up what waits for it.
func rolls(t testing.TB, a *archive.Archive) {
	t.Helper()
	sealAll(t, a, false)
	days, err := a.Days()
	require.NoError(t, err)
	for _, d := range days {
		if !d.Rolled || d.Dirty {
			_, err := a.Roll(t.Context(), d.Day, nil)
			require.NoError(t, err)
		}
	}
}

// regular is a series with a sample every 15 s of the day, in chunks of 120.
func regular(t testing.TB, day format.Day, series int) incoming {
	in := incoming{series: series}
	for at := day.StartMillis(); at < day.EndMillis(); at += 120 * 15_000 {
		var times []int64
		var values []float64
		for k := range int64(120) {
			times, values = append(times, at+k*15_000), append(values, float64(series)+float64((at/15_000+k)%977))
		}
		in.chunks = append(in.chunks, xorChunk(t, times, values))
	}
	return in
}
