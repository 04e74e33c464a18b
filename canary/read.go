package canary

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// toldMax bounds the mismatches of one look that are logged one by one.
const toldMax = 20

// roundsMax bounds the rounds of one look: those of an hour at one a second, and as many again for what an earlier
// configuration wrote between them.
const roundsMax = 7200

// sight is what one look saw.
type sight struct {
	c   *Canary
	age string
	// began is when the look began: deletes that were in force since then explain what is missing.
	began time.Time
	// times are those that were read, by the place of the pattern, ascending.
	times [][]int64
	// previous are the rounds that others vouch for.
	previous                     []int64
	checked, mismatched, missing int
}

// look reads the rounds later than from, up to and including to, and compares them. It is false if they
// could not be read, so that nothing is known of them.
func (c *Canary) look(ctx context.Context, age string, fromMillis, toMillis int64) bool {
	s := &sight{c: c, age: age, began: c.o.Now(), times: make([][]int64, len(c.series))}
	err := s.read(ctx, fromMillis+1, toMillis)
	if err == nil {
		err = s.findMissing(ctx, fromMillis, toMillis)
	}
	if err != nil {
		return c.readFailed(ctx, age, err)
	}
	s.done()
	return true
}

// readFailed tells of what could not be read, unless that is because the server stops. It is true if that is for good, since
// what is there is damaged: trying again would not help.
func (c *Canary) readFailed(ctx context.Context, age string, err error) bool {
	if errors.Is(ctx.Err(), context.Canceled) {
		return false
	}
	if c.o.Damaged(err) {
		c.m.mismatches.WithLabelValues(age).Inc()
		c.o.Logger.Error("The canary met damage where its samples are. Run varve check data on a copy or a stopped server, and see docs/troubleshooting.md.", "age", age, "err", err)
		return true
	}
	c.m.failures.WithLabelValues("read").Inc()
	c.o.Logger.Error("The canary could not read its samples. If this goes on, run varve check data on a stopped server.", "age", age, "err", err)
	return false
}

// done counts what was seen.
func (s *sight) done() {
	m := s.c.m
	m.checked.WithLabelValues(s.age).Add(float64(s.checked))
	m.mismatches.WithLabelValues(s.age).Add(float64(s.mismatched))
	m.missing.WithLabelValues(s.age).Add(float64(s.missing))
	m.readSeconds.Observe(s.c.o.Now().Sub(s.began).Seconds())
	if s.mismatched == 0 && s.checked > 0 {
		m.lastRead.Set(float64(s.c.o.Now().UnixMilli()) / 1000)
	}
}

// mismatch logs one, the first ones of a look by name.
func (s *sight) mismatch(ls labels.Labels, atMillis int64, want, got string) {
	if s.mismatched++; s.mismatched <= toldMax {
		s.c.o.Logger.Error("The canary read what it did not write. Run varve check data on a copy or a stopped server, and see docs/troubleshooting.md.",
			"age", s.age, "series", ls.String(), "time", time.UnixMilli(atMillis).UTC().Format("2006-01-02T15:04:05.000Z07:00"), "want", want, "got", got)
	}
}

// matchers select the canary's series, or the one of a pattern.
func matchers(patternName string) []*labels.Matcher {
	ms := []*labels.Matcher{
		labels.MustNewMatcher(labels.MatchEqual, model.MetricNameLabel, metricName),
		labels.MustNewMatcher(labels.MatchEqual, model.JobLabel, jobName),
		labels.MustNewMatcher(labels.MatchEqual, labelSet, currentSet),
	}
	if patternName != "" {
		ms = append(ms, labels.MustNewMatcher(labels.MatchEqual, labelPattern, patternName))
	}
	return ms
}

// selectSeries calls each for the canary's series with samples between two times, both inclusive.
func (c *Canary) selectSeries(ctx context.Context, patternName string, mint, maxt int64, each func(place int, it chunkenc.Iterator) error) (err error) {
	q, err := c.o.Reader.Querier(mint, maxt)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, q.Close()) }()
	set := q.Select(ctx, true, &storage.SelectHints{Start: mint, End: maxt}, matchers(patternName)...)
	var it chunkenc.Iterator
	for set.Next() {
		place := slices.IndexFunc(c.series, func(s series) bool { return labels.Equal(s.labels, set.At().Labels()) })
		if place < 0 {
			continue // Somebody else's, with labels of their own.
		}
		it = set.At().Iterator(it)
		if err := each(place, it); err != nil {
			return err
		}
		if err := it.Err(); err != nil {
			return err
		}
	}
	return set.Err()
}

// read compares the values of all samples between two times, both inclusive.
func (s *sight) read(ctx context.Context, mint, maxt int64) error {
	return s.c.selectSeries(ctx, "", mint, maxt, func(place int, it chunkenc.Iterator) error {
		for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
			at := it.AtT()
			if at < mint || at > maxt {
				continue
			}
			if len(s.times[place]) >= roundsMax {
				return fmt.Errorf("more than %d samples of %s in an hour", roundsMax, s.c.series[place].labels)
			}
			s.times[place] = append(s.times[place], at)
			s.compare(&s.c.series[place], at, kind, it)
		}
		return nil
	})
}

// compare compares a sample with the one that was written.
func (s *sight) compare(of *series, at int64, kind chunkenc.ValueType, it chunkenc.Iterator) {
	s.checked++
	want, got := "", ""
	p := of.pattern
	switch {
	case p.ints != nil && kind == chunkenc.ValHistogram:
		_, h := it.AtHistogram(nil)
		want, got = intText(p.ints(at)), intText(h)
	case p.floats != nil && kind == chunkenc.ValFloatHistogram:
		_, h := it.AtFloatHistogram(nil)
		want, got = floatText(p.floats(at)), floatText(h)
	case p.ints == nil && p.floats == nil && kind == chunkenc.ValFloat:
		_, v := it.At()
		if p.float == nil {
			want, got = s.vouched(at, v), bitsText(math.Float64bits(v))
		} else if bits := p.float(at); bits != math.Float64bits(v) {
			want, got = bitsText(bits), bitsText(math.Float64bits(v))
		}
	default:
		want, got = "a sample of the kind of its pattern", "one of the kind "+kind.String()
	}
	if want != got {
		s.mismatch(of.labels, at, want, got)
	}
}

// vouched notes the round that a sample of the pattern previous vouches for. It returns what the bits
// should look like.
func (s *sight) vouched(at int64, v float64) string {
	if v < 0 || v > 1<<53 || v != math.Trunc(v) {
		return "a time in Unix ms"
	}
	// After the clock was set back a round may come before the one that it vouches for.
	if v > 0 && int64(v) < at {
		s.previous = append(s.previous, int64(v))
	}
	return bitsText(math.Float64bits(v))
}

func bitsText(bits uint64) string { return fmt.Sprintf("%#016x", bits) }

// intText has all of a histogram but the hint of a reset, which depends on where reading began.
func intText(h *histogram.Histogram) string {
	return fmt.Sprintf("schema %d, zero %#016x %d, count %d, sum %#016x, positive %v %v, negative %v %v, custom %s", h.Schema,
		math.Float64bits(h.ZeroThreshold), h.ZeroCount, h.Count, math.Float64bits(h.Sum), h.PositiveSpans, h.PositiveBuckets,
		h.NegativeSpans, h.NegativeBuckets, bitsTexts(h.CustomValues))
}

// floatText is intText for histograms of floats.
func floatText(h *histogram.FloatHistogram) string {
	return fmt.Sprintf("schema %d, zero %#016x %#016x, count %#016x, sum %#016x, positive %v %s, negative %v %s, custom %s", h.Schema,
		math.Float64bits(h.ZeroThreshold), math.Float64bits(h.ZeroCount), math.Float64bits(h.Count), math.Float64bits(h.Sum),
		h.PositiveSpans, bitsTexts(h.PositiveBuckets), h.NegativeSpans, bitsTexts(h.NegativeBuckets), bitsTexts(h.CustomValues))
}

func bitsTexts(values []float64) string {
	bits := make([]uint64, len(values))
	for i, v := range values {
		bits[i] = math.Float64bits(v)
	}
	return fmt.Sprintf("%#x", bits)
}

// lastRound is the newest round that is there, 0 if there is none.
func (c *Canary) lastRound(ctx context.Context, now time.Time) (int64, error) {
	days, err := c.o.Past.Days()
	if err != nil {
		return 0, err
	}
	// What is on no day's list yet is in memory. It is of any day, most likely of today. So all of time is read, day by day and
	// the newest first, until there is something.
	starts := []int64{math.MinInt64, now.UTC().Truncate(dayLength).UnixMilli()}
	for _, d := range days {
		starts = append(starts, d.StartMillis)
	}
	slices.Sort(starts)
	starts = slices.Compact(starts)
	last := int64(0)
	maxt := int64(math.MaxInt64)
	for i := len(starts) - 1; i >= 0 && last == 0; i-- {
		err := c.selectSeries(ctx, previousName, starts[i], maxt, func(_ int, it chunkenc.Iterator) error {
			for it.Next() != chunkenc.ValNone {
				last = max(last, it.AtT())
			}
			return nil
		})
		if err != nil {
			return 0, err
		}
		maxt = starts[i] - 1
	}
	return last, nil
}
