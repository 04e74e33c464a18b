package dataset_test

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/s2"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"

	"varve/benchmarks/dataset"
)

func make2Hosts(t *testing.T, seed uint64) *dataset.Dataset {
	t.Helper()
	d, err := dataset.New(dataset.Config{
		Seed: seed, Series: 2 * dataset.HostSeries, StartMillis: 1_700_000_000_000, StepMillis: 15_000, HostsPerCluster: 1,
	})
	require.NoError(t, err)
	return d
}

// Shows that equal configurations give equal bytes, and another seed others.
func TestDeterministic(t *testing.T) {
	bodies := func(seed uint64) [][]byte {
		var all [][]byte
		for _, lane := range make2Hosts(t, seed).NewEncoder(1, 300).Rounds(3, 0, 2*dataset.HostSeries, 0, 4) {
			for _, frame := range lane {
				all = append(all, frame.Body)
			}
		}
		return all
	}
	require.Equal(t, bodies(7), bodies(7))
	require.NotEqual(t, bodies(7), bodies(8))
}

// Shows that no two series share their labels, that labels are sorted and that
// their sizes are those of a real fleet.
func TestNames(t *testing.T) {
	d := make2Hosts(t, 1)
	seen := map[string]bool{}
	for i := range d.Len() {
		var parts []string
		for name, value := range d.Labels(i) {
			require.NotEmpty(t, value)
			parts = append(parts, name+"="+value)
		}
		slices.Sort(parts)
		seen[strings.Join(parts, ",")] = true
	}
	require.Len(t, seen, d.Len())
	require.InDelta(t, 6, d.LabelsMean(), 1)
	require.InDelta(t, 150, d.LabelBytesMean(), 25)
	require.Equal(t, []string{dataset.ClusterName(0), dataset.ClusterName(1)}, d.Values("cluster"))
}

// Shows that a body of remote write 1.0 is what upstream's marshaller makes of
// the same series, byte for byte, with the values of a fresh walk.
func TestBody1(t *testing.T) {
	d := make2Hosts(t, 3)
	walk := d.NewWalk()
	next, round := 0, 5
	for _, frame := range d.NewEncoder(1, 450).Rounds(1, 0, d.Len(), round, 2)[0] {
		plain, err := s2.Decode(nil, frame.Body)
		require.NoError(t, err)
		var request prompb.WriteRequest
		require.NoError(t, request.Unmarshal(plain))
		again, err := request.Marshal()
		require.NoError(t, err)
		require.Equal(t, again, plain)
		require.Len(t, request.Timeseries, frame.Samples)
		for _, series := range request.Timeseries {
			labels := d.Labels(next)
			require.Len(t, series.Labels, len(labels))
			require.True(t, slices.IsSortedFunc(series.Labels, func(a, b prompb.Label) int { return strings.Compare(a.Name, b.Name) }))
			for _, label := range series.Labels {
				require.Equal(t, labels[label.Name], label.Value)
			}
			require.Len(t, series.Samples, 1)
			require.Equal(t, d.Time(next, round), series.Samples[0].Timestamp)
			require.Equal(t, math.Float64bits(walk.Next(next, round)), math.Float64bits(series.Samples[0].Value))
			if next++; next == d.Len() {
				next, round = 0, round+1
			}
		}
	}
	require.Equal(t, 7, round)
}

// Shows that a body of remote write 2.0 holds the same series and samples as
// one of 1.0, and that upstream's decoder takes it.
func TestBody2(t *testing.T) {
	d := make2Hosts(t, 3)
	walk := d.NewWalk()
	next := 0
	for _, frame := range d.NewEncoder(2, 450).Rounds(1, 0, d.Len(), 0, 1)[0] {
		plain, err := s2.Decode(nil, frame.Body)
		require.NoError(t, err)
		var request writev2.Request
		require.NoError(t, request.Unmarshal(plain))
		require.Empty(t, request.Symbols[0])
		require.Len(t, request.Timeseries, frame.Samples)
		for _, series := range request.Timeseries {
			labels := map[string]string{}
			for k := 0; k < len(series.LabelsRefs); k += 2 {
				labels[request.Symbols[series.LabelsRefs[k]]] = request.Symbols[series.LabelsRefs[k+1]]
			}
			require.Equal(t, d.Labels(next), labels)
			require.Equal(t, walk.Next(next, 0), series.Samples[0].Value)
			require.Equal(t, d.Time(next, 0), series.Samples[0].Timestamp)
			next++
		}
	}
	require.Equal(t, d.Len(), next)
}

// Shows that every lane sends each of its series in the order of time, that the
// lanes together send each sample once, and that all bodies but the last of a
// lane are full.
func TestLanes(t *testing.T) {
	d := make2Hosts(t, 3)
	type key struct {
		series string
		at     int64
	}
	seen := map[key]bool{}
	for _, lane := range d.NewEncoder(1, 300).Rounds(4, 100, 1900, 2, 3) {
		last := map[string]int64{}
		for k, frame := range lane {
			if k < len(lane)-1 {
				require.Equal(t, 300, frame.Samples)
			}
			plain, err := s2.Decode(nil, frame.Body)
			require.NoError(t, err)
			var request prompb.WriteRequest
			require.NoError(t, request.Unmarshal(plain))
			for _, series := range request.Timeseries {
				var name strings.Builder
				for _, label := range series.Labels {
					name.WriteString(label.Name + "\xff" + label.Value + "\xff")
				}
				require.Greater(t, series.Samples[0].Timestamp, last[name.String()])
				last[name.String()] = series.Samples[0].Timestamp
				seen[key{name.String(), series.Samples[0].Timestamp}] = true
			}
		}
	}
	require.Len(t, seen, 1800*3)
}

// Shows that the buckets of a histogram rise with their bounds in every round
// and that the last one equals its count.
func TestHistogramsAgree(t *testing.T) {
	d := make2Hosts(t, 11)
	walk := d.NewWalk()
	for round := range 3 {
		last, buckets := 0.0, 0
		for i := range d.Len() {
			value := walk.Next(i, round)
			switch d.Label(i, "__name__") {
			case "http_request_duration_seconds_bucket":
				require.GreaterOrEqual(t, value, last)
				last = value
				buckets++
			case "http_request_duration_seconds_count":
				require.Equal(t, last, value)
				last = 0
			}
		}
		require.NotZero(t, buckets)
	}
}
