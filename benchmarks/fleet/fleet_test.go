package fleet_test

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/s2"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"varve/benchmarks/fleet"
	"varve/benchmarks/recording"
)

const (
	step  = 15_000
	slots = 15 * 40
)

// record makes the columns of an exporter with a counter in hundredths, a counter
// whose values are sums, one that restarts, a gauge, a constant, and a series that
// comes and goes. One scrape is missing.
func record(t *testing.T) *recording.Columns {
	t.Helper()
	path := filepath.Join(t.TempDir(), "app"+recording.Extension)
	w, err := recording.Create(path, "app")
	require.NoError(t, err)
	random := rand.New(rand.NewPCG(1, 2))
	cents, sum, restarting := 1000, 0.0, 0
	for slot := range slots {
		if slot == 123 {
			continue
		}
		cents += random.IntN(50)
		sum += random.Float64()
		restarting += random.IntN(9)
		if slot == 300 {
			restarting = 0
		}
		var text bytes.Buffer
		fmt.Fprintf(&text, "# TYPE cpu_seconds_total counter\ncpu_seconds_total %v\n", float64(cents)/100)
		fmt.Fprintf(&text, "# TYPE took_sum counter\ntook_sum %v\n# TYPE restarts_total counter\nrestarts_total %d\n", sum, restarting)
		fmt.Fprintf(&text, "# TYPE temperature gauge\ntemperature %v\nbuilt 1\n", float64(random.IntN(900))/10)
		if slot > 400 {
			fmt.Fprintf(&text, "# TYPE rare_total counter\nrare_total %d\n", slot)
		}
		require.NoError(t, w.Append(recording.Scrape{Millis: int64(1_000_000 + slot*1000 + random.IntN(4)), Text: text.Bytes()}))
	}
	require.NoError(t, w.Close())
	c, err := recording.Open(path, 1000)
	require.NoError(t, err)
	return c
}

func newFleet(t *testing.T, change func(*fleet.Config)) (*fleet.Fleet, *recording.Columns) {
	t.Helper()
	c := record(t)
	ring, err := fleet.Stitch(c, 1000, step)
	require.NoError(t, err)
	require.Equal(t, slots, ring.Len())
	config := fleet.Config{Seed: 1, Groups: []fleet.Group{{Ring: ring, Count: 7}}, StartMillis: 1_700_000_000_000, StepMillis: step, Rounds: 2 * slots}
	if change != nil {
		change(&config)
	}
	f, err := fleet.New(config)
	require.NoError(t, err)
	return f, c
}

// values are the samples of a series by round, stale markers left out.
func values(f *fleet.Fleet, t, i int) map[int]float64 {
	out := map[int]float64{}
	for round := range f.Config().Rounds {
		if v, ok := f.At(t, i, round); ok && !value.IsStaleNaN(v) {
			out[round] = v
		}
	}
	return out
}

// Shows that every increment of a counter within the fleet is one that the recording
// took in fifteen slots, in the same decimals, and that the counter goes on at the
// joints of phases and turns, where it gains a first increment of a phase.
func TestTrueIncrements(t *testing.T) {
	f, c := newFleet(t, nil)
	for i := range f.TargetSeries(0) {
		name := f.Labels(0, i).Get(model.MetricNameLabel)
		if name != "cpu_seconds_total" && name != "took_sum" {
			continue
		}
		true15 := map[int64]bool{}
		for _, s := range c.Series {
			if s.Labels.Get(model.MetricNameLabel) == name {
				for slot := 15; slot < slots; slot++ {
					if !recording.IsAbsent(s.Values[slot]) && !recording.IsAbsent(s.Values[slot-15]) {
						true15[int64(math.Round((s.Values[slot]-s.Values[slot-15])*1e6))] = true
					}
				}
			}
		}
		for target := range f.Targets() {
			got := values(f, target, i)
			for round := 1; round < 2*slots; round++ {
				v, here := got[round]
				before, there := got[round-1]
				if !here || !there {
					continue
				}
				require.True(t, true15[int64(math.Round((v-before)*1e6))], "%s, target %d, round %d: %v after %v", name, target, round, v, before)
				if name == "cpu_seconds_total" {
					require.Equal(t, math.Round(v*100)/100, v)
				}
			}
		}
	}
}

// Shows that counters only fall where the recording restarted them: once in each of
// the fifteen phases, on each of two turns.
func TestMonotonic(t *testing.T) {
	f, _ := newFleet(t, nil)
	for target := range f.Targets() {
		for i := range f.TargetSeries(target) {
			name := f.Labels(target, i).Get(model.MetricNameLabel)
			falls, last := 0, math.Inf(-1)
			for round := range f.Config().Rounds {
				v, ok := f.At(target, i, round)
				if !ok || value.IsStaleNaN(v) {
					continue
				}
				if v < last {
					falls++
				}
				last = v
			}
			switch name {
			case "restarts_total":
				require.InDelta(t, 30, falls, 1)
			case "temperature":
				require.Greater(t, falls, 100)
			default:
				require.Zero(t, falls, name)
			}
		}
	}
}

// Shows that no two targets send the same: neither values, nor times, nor names, and
// that more targets than steps are refused.
func TestNoCopies(t *testing.T) {
	f, _ := newFleet(t, nil)
	seen := map[string]bool{}
	instances := map[string]bool{}
	for target := range f.Targets() {
		instances[f.Instance(target)] = true
		var times strings.Builder
		for round := range 100 {
			fmt.Fprint(&times, f.Millis(target, round)-f.Millis(target, 0), " ")
		}
		require.False(t, seen[times.String()], "target %d has another's delays", target)
		seen[times.String()] = true
		for i := range f.TargetSeries(target) {
			if f.Labels(target, i).Get(model.MetricNameLabel) == "built" {
				continue
			}
			text := fmt.Sprint(i, values(f, target, i))
			require.False(t, seen[text], "target %d, %s", target, f.Labels(target, i))
			seen[text] = true
		}
	}
	require.Len(t, instances, f.Targets())
	config := f.Config()
	config.Groups[0].Count = slots + 1
	_, err := fleet.New(config)
	require.ErrorContains(t, err, "identical")
}

// Shows that the first value of a lap differs by one turn from that a lap before,
// and that the share of what repeats is told.
func TestRepeated(t *testing.T) {
	f, _ := newFleet(t, nil)
	require.InDelta(t, 0.5, f.Repeated(), 1e-9)
	for i := range f.TargetSeries(0) {
		got := values(f, 0, i)
		switch f.Labels(0, i).Get(model.MetricNameLabel) {
		case "temperature":
			require.Equal(t, got[7], got[7+slots])
		case "cpu_seconds_total":
			require.Greater(t, got[7+slots], got[7])
		}
	}
	once, _ := newFleet(t, func(c *fleet.Config) { c.Rounds = slots })
	require.Zero(t, once.Repeated())
}

// Shows that times lie in their rounds, ascend, and are found again.
func TestTimes(t *testing.T) {
	f, _ := newFleet(t, nil)
	for target := range f.Targets() {
		for round := range f.Config().Rounds {
			millis := f.Millis(target, round)
			require.GreaterOrEqual(t, millis, f.Config().StartMillis+int64(round)*step)
			require.Less(t, millis, f.Config().StartMillis+int64(round+1)*step)
			found, ok := f.Round(target, millis)
			require.True(t, ok)
			require.Equal(t, round, found)
			_, ok = f.Round(target, millis+1)
			require.False(t, ok)
		}
	}
	_, ok := f.Round(0, 0)
	require.False(t, ok)
}

// Shows that targets come and go, that each ends with stale markers, that as many
// live at a time as were asked for, and that Kubernetes' labels have their length.
func TestChurn(t *testing.T) {
	f, _ := newFleet(t, func(c *fleet.Config) {
		c.Rounds, c.LifeRounds, c.Naming, c.Groups[0].SeriesMax = 300, 60, fleet.Kubernetes, 3
	})
	require.Equal(t, 7*5+6, f.Targets())
	require.InDelta(t, 449, f.LabelBytesMean(), 60)
	alive := make([]int, 300)
	names := map[string]bool{}
	for target := range f.Targets() {
		require.Equal(t, 3, f.TargetSeries(target))
		from, to := f.Lives(target)
		for round := from; round < to; round++ {
			alive[round]++
		}
		for i := range 3 {
			names[f.Labels(target, i).String()] = true
			v, ok := f.At(target, i, to)
			last, had := f.At(target, i, to-1)
			if had && !value.IsStaleNaN(last) && to < 300 {
				require.True(t, ok && value.IsStaleNaN(v), "target %d ends without a marker", target)
			}
			_, ok = f.At(target, i, to+1)
			require.False(t, ok)
		}
	}
	require.Len(t, names, f.Series())
	for _, n := range alive {
		require.Equal(t, 7, n)
	}
}

// Shows that the requests hold exactly what At says, each sample once and each series
// in the order of time.
func TestFrames(t *testing.T) {
	f, _ := newFleet(t, func(c *fleet.Config) { c.Rounds, c.LifeRounds = 200, 90 })
	got, last := map[string]float64{}, map[string]int64{}
	count, full := int64(0), false
	for first := 0; first < 200; first += 64 {
		for _, lane := range f.Frames(3, 100, first, first+64) {
			for _, frame := range lane {
				require.LessOrEqual(t, frame.Samples, 100)
				full = full || frame.Samples == 100
				plain, err := s2.Decode(nil, frame.Body)
				require.NoError(t, err)
				var request prompb.WriteRequest
				require.NoError(t, request.Unmarshal(plain))
				for _, s := range request.Timeseries {
					builder := labels.NewScratchBuilder(len(s.Labels))
					for _, l := range s.Labels {
						builder.Add(l.Name, l.Value)
					}
					name := builder.Labels().String()
					require.Greater(t, s.Samples[0].Timestamp, last[name])
					last[name] = s.Samples[0].Timestamp
					got[fmt.Sprint(name, s.Samples[0].Timestamp)] = s.Samples[0].Value
					count++
				}
			}
		}
	}
	require.True(t, full)
	tally := f.Count(0, 200)
	require.Equal(t, tally.Samples, count)
	require.NotZero(t, tally.Stale)
	want := 0
	for target := range f.Targets() {
		for i := range f.TargetSeries(target) {
			for round := range 200 {
				v, ok := f.At(target, i, round)
				sent, was := got[fmt.Sprint(f.Labels(target, i).String(), f.Millis(target, round))]
				require.Equal(t, ok, was)
				if ok {
					want++
					require.Equal(t, math.Float64bits(v), math.Float64bits(sent))
				}
			}
		}
	}
	require.EqualValues(t, count, want)
	require.Len(t, got, want)
}

// Shows that a request of a small fleet spans few rounds, however many samples it
// might hold.
func TestFramesSpan(t *testing.T) {
	f, _ := newFleet(t, nil)
	sent := 0
	for _, frame := range f.Frames(1, 1_000_000, 0, 95)[0] {
		require.Equal(t, min(sent+10, 95)-1, frame.LastRound)
		sent += 10
	}
	require.Equal(t, 100, sent)
}

// Shows that recordings which are too short or too unsteady are refused.
func TestStitchRefuses(t *testing.T) {
	c := record(t)
	_, err := fleet.Stitch(c, 1000, 1500)
	require.Error(t, err)
	_, err = fleet.Stitch(c, 1000, 15_000_000)
	require.ErrorContains(t, err, "no two steps")
	c.DelayMillis[3] = 9000
	_, err = fleet.Stitch(c, 1000, step)
	require.ErrorContains(t, err, "too busy")
}
