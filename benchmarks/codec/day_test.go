package codec_test

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"varve/archive/chunk"
	"varve/archive/format"
	"varve/benchmarks/fleet"
	"varve/benchmarks/recording"
)

const (
	recordedMillis = 1000
	stepMillis     = 15_000
	dayRounds      = format.DayMillis / stepMillis
	// dayNumber is any day.
	dayNumber format.Day = 20_000
)

// day is what one target said on a day.
type day struct {
	// clock are the times of its scrapes.
	clock []int64
	// series are in the order in which an exporter writes them.
	series  []series
	samples int
}

// series is one series of the target, with what a sealer knows of it.
type series struct {
	metric string
	// family are the labels that a bucket shares with the other buckets of its histogram,
	// bound is its upper bound; NaN if the series is no bucket.
	family string
	bound  float64
	column chunk.Column
}

// newDay brings a recording to steps of 15 s. What is too short for a day gives a shorter
// day, in which nothing repeats.
func newDay(c *recording.Columns) (*day, error) {
	ring, err := fleet.Stitch(c, recordedMillis, stepMillis)
	if err != nil {
		return nil, err
	}
	f, err := fleet.New(fleet.Config{
		Seed: 1, Groups: []fleet.Group{{Ring: ring, Count: 1}},
		StartMillis: dayNumber.StartMillis(), StepMillis: stepMillis, Rounds: min(dayRounds, ring.Len()),
	})
	if err != nil {
		return nil, err
	}
	d := &day{}
	for i := range f.TargetSeries(0) {
		s := newSeries(f.Labels(0, i))
		for round := range f.Config().Rounds {
			if v, ok := f.At(0, i, round); ok {
				s.column.Times = append(s.column.Times, f.Millis(0, round))
				s.column.Values = append(s.column.Values, v)
			}
		}
		if len(s.column.Times) > 0 {
			d.series = append(d.series, s)
			d.samples += len(s.column.Times)
			d.clock = append(d.clock, s.column.Times...)
		}
	}
	slices.Sort(d.clock)
	d.clock = slices.Compact(d.clock)
	if len(d.clock) == 0 {
		return nil, fmt.Errorf("%s: no samples", c.Name)
	}
	// A fleet's series are in the order of their labels, where the bucket of 10 comes
	// before that of 2.5.
	slices.SortStableFunc(d.series, func(x, y series) int {
		if c := cmp.Compare(x.metric, y.metric); c != 0 || math.IsNaN(x.bound) || math.IsNaN(y.bound) {
			return c
		}
		return cmp.Or(cmp.Compare(x.family, y.family), cmp.Compare(x.bound, y.bound))
	})
	return d, nil
}

func newSeries(l labels.Labels) series {
	s := series{metric: l.Get(model.MetricNameLabel), bound: math.NaN()}
	if !strings.HasSuffix(s.metric, "_bucket") {
		return s
	}
	if bound, err := strconv.ParseFloat(l.Get(model.BucketLabel), 64); err == nil {
		s.bound, s.family = bound, labels.NewBuilder(l).Del(model.BucketLabel).Labels().String()
	}
	return s
}
