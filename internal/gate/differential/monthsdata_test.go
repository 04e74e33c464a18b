package differential_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/prompb"
)

// What the month consists of: a sample a minute, up to a full hour. Targets fall
// silent for up to silenceMinutesMax, and restart, but not near a silence.
const (
	monthDays          = 30
	monthMinutes       = monthDays * dayMinutes
	dayMinutes         = 24 * 60
	minuteMillis       = 60_000
	jitterMillisMax    = 5
	restartsPerMonth   = 25
	silencesPerMonth   = 40
	silenceMinutesMax  = 45
	restartMarginFront = 5
	restartMarginBack  = 90
)

// Instance b ends midway, with stale markers, c is away for a day and d begins
// midway. None of it is aligned to anything.
const (
	endOfB     = 20*dayMinutes + 437
	awayFromC  = 9*dayMinutes + 61
	awayUntilC = awayFromC + 26*60
	beginOfD   = 14*dayMinutes + 727
	// releaseOfA is when it has another version.
	releaseOfA = 17*dayMinutes + 13
)

// sliceMinutes is how much one request holds.
const sliceMinutes = 120

// lateFrom and lateUntil bound the minutes of which Varve gets instance b after
// their days were sealed and rolled up.
const (
	lateFrom  = 58 * sliceMinutes
	lateUntil = 75 * sliceMinutes
)

// month is the generated data. Minute m of it is at begin + m+1 minutes, less the
// phase of the instance: (begin, end] holds all of it.
type month struct {
	begin, end time.Time
	// today is the day by which ages are counted.
	today     time.Time
	instances []*monthInstance
	series    []*monthSeries
}

// monthInstance is a target: when it was silent and when it restarted.
type monthInstance struct {
	name string
	// phaseMillis keeps its samples off the full minutes, on which windows begin
	// and end: 2.42 counts a sample on the left edge in, which later ones don't.
	phaseMillis int64
	silent      []bool
	restart     []bool
	jitter      []int64
	random      *rand.Rand
}

// monthSeries makes the samples of a series, minute by minute.
type monthSeries struct {
	labels   []prompb.Label
	instance *monthInstance
	// One of float and native is set. It is called once for every minute, in order.
	float  func(minute int) float64
	native func(minute int) *histogram.Histogram
	// absent tells when there is no series though there is the instance.
	absent func(minute int) bool
}

// newMonth makes the targets and their series. A seed always makes the same.
func newMonth(end, today time.Time, seed uint64) *month {
	m := &month{begin: end.AddDate(0, 0, -monthDays), end: end, today: today}
	for i, name := range []string{"a", "b", "c", "d"} {
		instance := newMonthInstance(name, rand.New(rand.NewPCG(seed, uint64(i))))
		instance.phaseMillis = 7_123 + 11_000*int64(i)
		m.instances = append(m.instances, instance)
		m.addInstance(instance)
	}
	// Samples on the full minute: at midnight, and on the bounds of every bucket.
	edge := newMonthInstance("edge", rand.New(rand.NewPCG(seed, 9)))
	clear(edge.jitter)
	m.instances = append(m.instances, edge)
	m.add(edge, "month_edge_level", walk(edge.random, 500, 20, 1))
	m.add(edge, "month_edge_ratio", walk(edge.random, 50, 3, 0.01))
	return m
}

// newMonthInstance draws when a target is silent and when it restarts.
func newMonthInstance(name string, random *rand.Rand) *monthInstance {
	t := &monthInstance{
		name: name, random: random,
		silent: make([]bool, monthMinutes), restart: make([]bool, monthMinutes), jitter: make([]int64, monthMinutes),
	}
	for range silencesPerMonth {
		from := random.IntN(monthMinutes)
		for i := from; i < min(from+1+random.IntN(silenceMinutesMax), monthMinutes); i++ {
			t.silent[i] = true
		}
	}
	for i := range t.silent {
		switch name {
		case "b":
			t.silent[i] = t.silent[i] && i < endOfB-10 || i > endOfB
		case "c":
			t.silent[i] = t.silent[i] || awayFromC <= i && i < awayUntilC
		case "d":
			t.silent[i] = t.silent[i] || i < beginOfD
		}
		t.jitter[i] = int64(random.IntN(jitterMillisMax + 1))
	}
	for range restartsPerMonth {
		at := restartMarginFront + random.IntN(monthMinutes-restartMarginFront-restartMarginBack)
		// A counter that is near zero after a silence is extrapolated otherwise by
		// 2.42: since 2.52 back to zero within half of an interval only.
		if !slices.Contains(t.silent[at-restartMarginFront:at+restartMarginBack], true) {
			t.restart[at] = true
		}
	}
	return t
}

// steady tells that an instance had all samples from well before to well after a
// time, and if so wanted did not restart.
func (m *month) steady(instance string, at time.Time, margin time.Duration, restarts bool) bool {
	t := m.instances[slices.IndexFunc(m.instances, func(t *monthInstance) bool { return t.name == instance })]
	from, until := int(at.Add(-margin).Sub(m.begin)/time.Minute), min(int(at.Add(margin).Sub(m.begin)/time.Minute), monthMinutes)
	return from >= 0 && !slices.Contains(t.silent[from:until], true) && !(restarts && slices.Contains(t.restart[from:until], true))
}

// day is the number of the UTC day, since the first, in which a minute is.
func (m *month) day(minute int) int {
	first := m.begin.Truncate(24 * time.Hour)
	return int(m.begin.Add(time.Duration(minute)*time.Minute).Sub(first) / (24 * time.Hour))
}

// swing is between 0.7 and 1.3 and goes up and down every day.
func swing(minute int) float64 {
	return 1 + 0.3*math.Sin(2*math.Pi*float64(minute)/dayMinutes)
}

// addInstance adds the series of one target.
func (m *month) addInstance(t *monthInstance) {
	for i, code := range []string{"200", "500"} {
		perMinute := 600 / math.Pow(20, float64(i))
		m.add(t, "month_requests_total", t.counter(perMinute, 1), "code", code)
	}
	for i, mode := range []string{"user", "idle"} {
		m.add(t, "month_cpu_seconds_total", t.counter(10+30*float64(i), 0.01), "mode", mode)
	}
	m.add(t, "month_memory_bytes", walk(t.random, 1<<20, 64, 4096))
	m.add(t, "month_temperature_celsius", func(minute int) float64 {
		return math.Round(10*(20*swing(minute)+t.random.Float64())) / 10
	})
	m.add(t, "month_up", func(int) float64 { return float64(min(1, t.random.IntN(100))) })
	m.add(t, "month_info", func(int) float64 { return 1 }, "version", "1.0").absent = func(minute int) bool { return t.name == "a" && minute >= releaseOfA }
	if t.name == "a" {
		m.add(t, "month_info", func(int) float64 { return 1 }, "version", "1.1").absent = func(minute int) bool { return minute < releaseOfA }
	}
	if t.name == "a" || t.name == "c" {
		m.addLatency(t)
		m.addNative(t)
	}
}

// counter returns a counter in multiples of the unit that grows by perMinute
// units or so, within a tenth of its swing, and begins anew with each restart of t.
func (t *monthInstance) counter(perMinute, unit float64) func(int) float64 {
	perUnit := math.Round(1 / unit)
	// All begin far from zero, for the same reason as restarts are far from silences.
	ticks := 1e6 + math.Round(1000*t.random.Float64())
	return func(minute int) float64 {
		if t.restart[minute] {
			ticks = 0
		}
		ticks += math.Round(perMinute * perUnit * swing(minute) * (0.9 + 0.2*t.random.Float64()))
		return ticks / perUnit
	}
}

// walk returns a gauge that moves by up to step units a minute, between 0 and two
// times its start.
func walk(random *rand.Rand, start, step int, unit float64) func(int) float64 {
	level := start
	perUnit := math.Round(1 / unit)
	return func(int) float64 {
		level = max(0, min(2*start, level+random.IntN(2*step+1)-step))
		if perUnit > 1 {
			return float64(level) / perUnit
		}
		return float64(level) * unit
	}
}

// addLatency adds a classic histogram: each bucket holds those below it too.
func (m *month) addLatency(t *monthInstance) {
	total := make([]float64, monthMinutes)
	perMinute := []float64{100, 80, 60, 40, 2}
	for i, le := range []string{"0.1", "0.5", "1", "5", "+Inf"} {
		grow := t.counter(perMinute[i], 1)
		m.add(t, "month_latency_seconds_bucket", func(minute int) float64 {
			total[minute] += grow(minute)
			return total[minute]
		}, "le", le)
	}
	m.add(t, "month_latency_seconds_count", func(minute int) float64 { return total[minute] })
	m.add(t, "month_latency_seconds_sum", t.counter(70, 0.001))
}

// addNative adds a native histogram. It begins with many observations and never
// begins anew: since 2.52 rates of histograms are limited near zero too.
func (m *month) addNative(t *monthInstance) {
	buckets := []int64{50_000, 90_000, 120_000, 70_000, 20_000, 4_000}
	sum := 1e5
	s := m.add(t, "month_native_seconds", nil)
	s.native = func(minute int) *histogram.Histogram {
		h := &histogram.Histogram{Schema: 1, ZeroThreshold: 0.001, PositiveSpans: []histogram.Span{{Offset: -3, Length: uint32(len(buckets))}}}
		var before int64
		for i := range buckets {
			buckets[i] += int64(t.random.IntN(20))
			h.PositiveBuckets = append(h.PositiveBuckets, buckets[i]-before)
			before = buckets[i]
			h.Count += uint64(buckets[i])
		}
		sum += math.Round(1000*t.random.Float64()*swing(minute)) / 100
		h.Sum = sum
		return h
	}
}

// add adds a series of a target, with pairs of names and values as further labels.
func (m *month) add(t *monthInstance, name string, float func(int) float64, pairs ...string) *monthSeries {
	all := append([]string{model.MetricNameLabel, name, "instance", t.name, "job", "month"}, pairs...)
	s := &monthSeries{labels: prompb.FromLabels(labels.FromStrings(all...), nil), instance: t, float: float}
	m.series = append(m.series, s)
	return s
}

// holds tells that Varve gets the slice of an instance late: some of b when its
// days have been sealed and rolled up, four hours of c on the first day that keeps its
// samples when those before have expired.
func (m *month) holds(instance string, from int) bool {
	kept := m.today.AddDate(0, 0, -2).Add(8 * time.Hour)
	latest := int(kept.Sub(m.begin)/time.Minute) / sliceMinutes * sliceMinutes
	return instance == "b" && lateFrom <= from && from < lateUntil || instance == "c" && latest <= from && from < latest+2*sliceMinutes
}

// slice returns the samples of the minutes [from, until) and, among them, how many
// of its last series Varve gets late. Slices must be asked for in order.
func (m *month) slice(from, until int) (all []prompb.TimeSeries, late int) {
	var held []prompb.TimeSeries
	for _, s := range m.series {
		made := prompb.TimeSeries{Labels: s.labels}
		for minute := from; minute < until; minute++ {
			s.sample(m.begin, minute, &made)
		}
		switch {
		case len(made.Samples)+len(made.Histograms) == 0:
		case m.holds(s.instance.name, from):
			held = append(held, made)
		default:
			all = append(all, made)
		}
	}
	return append(all, held...), len(held)
}

// sample moves the series on by a minute and adds its sample, if there is one.
func (s *monthSeries) sample(begin time.Time, minute int, to *prompb.TimeSeries) {
	t := s.instance
	at := begin.UnixMilli() + int64(minute+1)*minuteMillis - t.phaseMillis + t.jitter[minute]
	silent := t.silent[minute] || s.absent != nil && s.absent(minute)
	if s.native != nil {
		h := s.native(minute)
		if !silent {
			to.Histograms = append(to.Histograms, prompb.FromIntHistogram(at, h))
		}
		return
	}
	v := s.float(minute)
	if t.name == "b" && minute == endOfB {
		v = math.Float64frombits(value.StaleNaN)
	}
	if !silent {
		to.Samples = append(to.Samples, prompb.Sample{Timestamp: at, Value: v})
	}
}

// count is the number of samples.
func count(list []prompb.TimeSeries) int {
	n := 0
	for _, s := range list {
		n += len(s.Samples) + len(s.Histograms)
	}
	return n
}
