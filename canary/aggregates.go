package canary

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// aggregate is a function of PromQL over a range, and the same done here.
type aggregate struct {
	function string
	// whole tells that it is exact of whole numbers alone.
	whole bool
	of    func(values []float64) float64
}

var aggregatesKnown = []aggregate{
	{"count_over_time", false, func(v []float64) float64 { return float64(len(v)) }},
	{"last_over_time", false, func(v []float64) float64 { return v[len(v)-1] }},
	{"min_over_time", false, slices.Min[[]float64]},
	{"max_over_time", false, slices.Max[[]float64]},
	{"changes", false, func(v []float64) float64 { return steps(v, func(a, b float64) bool { return a != b }) }},
	{"resets", false, func(v []float64) float64 { return steps(v, func(a, b float64) bool { return b < a }) }},
	{"sum_over_time", true, func(v []float64) float64 {
		sum := 0.0
		for _, x := range v {
			sum += x
		}
		return sum
	}},
}

// steps counts the neighbours for which f is true.
func steps(v []float64, f func(a, b float64) bool) float64 {
	n := 0.0
	for i := 1; i < len(v); i++ {
		if f(v[i-1], v[i]) {
			n++
		}
	}
	return n
}

// aggregates compares what the buckets of a day say with what its samples say, where there are samples still; and else with what
// the number of samples says.
func (c *Canary) aggregates(ctx context.Context, day Day, resolution time.Duration) {
	s := &sight{c: c, age: ageRolledUp, began: c.o.Now(), times: make([][]int64, len(c.series))}
	if err := s.aggregates(ctx, day, resolution); err != nil {
		c.readFailed(ctx, ageRolledUp, err)
		return
	}
	s.done()
}

func (s *sight) aggregates(ctx context.Context, day Day, resolution time.Duration) error {
	// Buckets, like ranges of PromQL, begin after their start and end with their end.
	from, to := day.StartMillis, day.StartMillis+dayLength.Milliseconds()
	answers := make([]map[int]float64, len(aggregatesKnown))
	for i := range aggregatesKnown {
		found, ok, err := s.ask(ctx, &aggregatesKnown[i], to, resolution)
		if err != nil || !ok {
			return err
		}
		answers[i] = found
	}
	alike := true
	for place := range s.c.series {
		of := &s.c.series[place]
		if !of.pattern.plain {
			continue
		}
		since, err := s.c.keptSince(of.labels, resolution)
		if err != nil || since > from {
			return err
		}
		times, known, err := s.timesOf(ctx, of, from, to)
		if err != nil {
			return err
		}
		if changed, err := s.deleted(of.labels, from, to, true); err != nil || changed {
			return err
		}
		if known {
			s.compareAggregates(of, place, answers, times, to, resolution)
		}
		deleted, err := s.deleted(of.labels, from, to, false)
		if err != nil {
			return err
		}
		alike = alike && !deleted
	}
	if alike {
		s.compareCounts(answers, to, resolution)
	}
	return nil
}

// ask evaluates a function over the day before a time, of all series of which it is exact. ok is false if the buckets of the
// resolution don't answer it.
func (s *sight) ask(ctx context.Context, a *aggregate, at int64, resolution time.Duration) (found map[int]float64, ok bool, err error) {
	vector, ok, err := s.c.o.Reader.Aggregate(ctx, s.c.queryOf(a), time.UnixMilli(at), resolution)
	if err != nil || !ok {
		return nil, false, err
	}
	found = map[int]float64{}
	for i := range vector {
		name := vector[i].Metric.Get(labelPattern)
		place := slices.IndexFunc(s.c.series, func(of series) bool { return of.pattern.name == name })
		if place >= 0 {
			found[place] = vector[i].F
		}
	}
	return found, true, nil
}

func (c *Canary) queryOf(a *aggregate) string {
	var names []string
	for i := range c.series {
		if p := c.series[i].pattern; p.whole || p.plain && !a.whole {
			names = append(names, p.name)
		}
	}
	return fmt.Sprintf("%s(%s{%s=%q,%s=%q,%s=~%q}[%s])", a.function, metricName, model.JobLabel, jobName, labelSet, currentSet,
		labelPattern, strings.Join(names, "|"), model.Duration(dayLength))
}

// timesOf are the times of a series' samples later than from, up to and including to. known is false where rules hide samples.
func (s *sight) timesOf(ctx context.Context, of *series, from, to int64) (times []int64, known bool, err error) {
	since, err := s.c.keptSince(of.labels, 0)
	if err != nil || since > from {
		return nil, false, err
	}
	err = s.c.selectSeries(ctx, of.pattern.name, from+1, to, func(_ int, it chunkenc.Iterator) error {
		for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
			if at := it.AtT(); kind == chunkenc.ValFloat && at > from && at <= to {
				times = append(times, at)
			}
		}
		return nil
	})
	return times, true, err
}

// compareAggregates compares with what follows from the times of the samples.
func (s *sight) compareAggregates(of *series, place int, answers []map[int]float64, times []int64, at int64, resolution time.Duration) {
	values := make([]float64, len(times))
	for i, t := range times {
		values[i] = math.Float64frombits(of.pattern.float(t))
	}
	for i := range aggregatesKnown {
		a := &aggregatesKnown[i]
		if a.whole && !of.pattern.whole {
			continue
		}
		got, there := answers[i][place]
		if !there && len(values) == 0 {
			continue
		}
		want := "no answer, since there are no samples"
		if len(values) > 0 {
			want = bitsText(math.Float64bits(a.of(values)))
		}
		s.compareAggregate(a, of.labels, at, resolution, want, got, there)
	}
}

func (s *sight) compareAggregate(a *aggregate, ls labels.Labels, at int64, resolution time.Duration, want string, got float64, there bool) {
	s.checked++
	text := "no answer"
	if there {
		text = bitsText(math.Float64bits(got))
	}
	if want != text {
		s.mismatch(ls, at, want, fmt.Sprintf("%s from %s over a day, in buckets of %s", text, a.function, model.Duration(resolution)))
	}
}

// compareCounts compares the series with each other, which needs no samples: rounds are whole, so all counts are one number, and
// the sum of a constant 1 is that too.
func (s *sight) compareCounts(answers []map[int]float64, at int64, resolution time.Duration) {
	constant := slices.IndexFunc(s.c.series, func(of series) bool { return of.pattern.name == constantName })
	for i := range aggregatesKnown {
		a := &aggregatesKnown[i]
		for place, got := range answers[i] {
			if a.function == "count_over_time" || a.whole && place == constant {
				s.compareAggregate(a, s.c.series[place].labels, at, resolution, bitsText(math.Float64bits(answers[0][constant])), got, true)
			}
		}
	}
}
