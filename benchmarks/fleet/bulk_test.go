package fleet_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/klauspost/compress/s2"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"varve/benchmarks/fleet"
)

// Shows that bulk requests hold exactly what At says, each sample once, each series in the
// order of time and in few pieces, and that they are counted.
func TestBulk(t *testing.T) {
	f, _ := newFleet(t, func(c *fleet.Config) { c.Rounds, c.LifeRounds = 700, 300 })
	got, last := map[string]float64{}, map[string]int64{}
	pieces := 0
	var counted fleet.Tally
	for first := 0; first < 700; first += 400 {
		lanes, tally := f.Bulk(3, 500, first, first+400)
		require.Len(t, lanes, 3)
		counted.Samples, counted.Stale = counted.Samples+tally.Samples, counted.Stale+tally.Stale
		for _, lane := range lanes {
			round := 0
			for i, frame := range lane {
				require.Less(t, frame.Samples, 500+240)
				require.True(t, frame.Samples >= 500 || i == len(lane)-1)
				require.GreaterOrEqual(t, frame.LastRound, round)
				round = frame.LastRound
				plain, err := s2.Decode(nil, frame.Body)
				require.NoError(t, err)
				var request prompb.WriteRequest
				require.NoError(t, request.Unmarshal(plain))
				pieces += len(request.Timeseries)
				samples := 0
				for _, s := range request.Timeseries {
					builder := labels.NewScratchBuilder(len(s.Labels))
					for _, l := range s.Labels {
						builder.Add(l.Name, l.Value)
					}
					name := builder.Labels().String()
					for _, sample := range s.Samples {
						require.Greater(t, sample.Timestamp, last[name])
						last[name] = sample.Timestamp
						got[fmt.Sprint(name, sample.Timestamp)] = sample.Value
						samples++
					}
				}
				require.Equal(t, frame.Samples, samples)
			}
		}
	}
	require.Equal(t, f.Count(0, 700), counted)
	require.Len(t, got, int(counted.Samples))
	require.Less(t, pieces, int(counted.Samples)/20)
	for target := range f.Targets() {
		for i := range f.TargetSeries(target) {
			for round := range 700 {
				if v, ok := f.At(target, i, round); ok {
					sent, was := got[fmt.Sprint(f.Labels(target, i).String(), f.Millis(target, round))]
					require.True(t, was)
					require.Equal(t, math.Float64bits(v), math.Float64bits(sent))
				}
			}
		}
	}
}

// Shows that a narrow ring keeps what is wanted before it keeps anything else, and never
// more than it may.
func TestNarrow(t *testing.T) {
	ring, err := fleet.Stitch(record(t), 1000, step)
	require.NoError(t, err)
	wanted := func(l labels.Labels) bool {
		name := l.Get(model.MetricNameLabel)
		return name == "temperature" || name == "took_sum"
	}
	for count := range ring.Series() + 2 {
		narrow := ring.Narrow(count, wanted)
		require.Equal(t, min(count, ring.Series()), narrow.Series())
		require.Equal(t, ring.Len(), narrow.Len())
		if count == 0 {
			continue
		}
		f, err := fleet.New(fleet.Config{Groups: []fleet.Group{{Ring: narrow, Count: 1}}, StepMillis: step, Rounds: 9})
		require.NoError(t, err)
		kept, names := 0, map[string]bool{}
		for i := range f.TargetSeries(0) {
			names[f.Labels(0, i).Get(model.MetricNameLabel)] = true
			if wanted(f.Labels(0, i)) {
				kept++
			}
		}
		require.Len(t, names, narrow.Series())
		require.Equal(t, min(count, 2), kept)
	}
}
