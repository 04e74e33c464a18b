package query_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
)

const scrapeMillis = 15_000

// churning makes an hour of series that come and go, with and without stale
// markers, restart, change from floats to histograms, and hold values of very
// different magnitudes, so that the order of a sum shows in its last bits.
func churning(seed uint64) *arrays {
	rnd := rand.New(rand.NewPCG(seed, 1))
	a := &arrays{}
	add := func(next func(i int) sample, kv ...string) {
		s := &arraySeries{labels: labels.FromStrings(kv...)}
		on := rnd.IntN(2) == 0
		for i := range 240 {
			at := int64(i) * scrapeMillis
			if rnd.IntN(25) == 0 {
				if on = !on; !on && len(s.samples) > 0 && rnd.IntN(2) == 0 {
					s.samples = append(s.samples, stale(next(i), at))
				}
				continue
			}
			if on && rnd.IntN(30) > 0 {
				x := next(i)
				x.t = at
				s.samples = append(s.samples, x)
			}
		}
		a.series = append(a.series, s)
	}
	counter := func() func(int) sample {
		total := 0.0
		return func(int) sample {
			if rnd.IntN(60) == 0 {
				total = 0
			}
			total += math.Exp(rnd.Float64()*30 - 15)
			return sample{v: total}
		}
	}
	for i := range 4 {
		host, zone := fmt.Sprint("h", i), fmt.Sprint("z", i%2)
		for p := range 3 {
			disk := fmt.Sprint("d", p)
			at := func(name string) []string {
				return []string{"__name__", name, "host", host, "disk", disk, "zone", zone, "job", "j"}
			}
			add(counter(), at("reads_total")...)
			add(counter(), at("writes_total")...)
			add(func(int) sample { return sample{v: (rnd.Float64() - .5) * math.Exp(rnd.Float64()*60-30)} }, at("load")...)
			add(func(int) sample { return sample{v: 1} }, at("one")...)
			add(func(i int) sample { return sample{float: tsdbutil.GenerateTestFloatHistogram(int64(i % 37))} }, at("latency")...)
			add(func(int) sample {
				return sample{whole: tsdbutil.GenerateTestGaugeHistogram(int64(rnd.IntN(50)))}
			}, at("sizes")...)
			add(func(i int) sample {
				if i/50%2 == 0 {
					return sample{v: rnd.Float64()}
				}
				return sample{whole: tsdbutil.GenerateTestHistogram(int64(i))}
			}, at("mixed")...)
		}
		for _, le := range []string{"0.1", "1", "10", "+Inf"} {
			add(counter(), "__name__", "seconds_bucket", "host", host, "job", "j", "le", le, "instance", host)
		}
		add(func(int) sample { return sample{v: 1} }, "__name__", "target_info", "instance", host, "job", "j", "version", fmt.Sprint("v", i%2))
	}
	sortSeries(a.series)
	return a
}

// stale returns a stale marker of the kind of like.
func stale(like sample, at int64) sample {
	marker := math.Float64frombits(value.StaleNaN)
	if like.whole != nil || like.float != nil {
		return sample{t: at, float: &histogram.FloatHistogram{Sum: marker}}
	}
	return sample{t: at, v: marker}
}

// corpus puts every aggregation around every kind of operand, and adds what does
// not fit that scheme.
func corpus() []string {
	operands := []string{
		"load", "one", "mixed", "latency", "rate(reads_total[5m])", "increase(latency[3m])", "load > 0", "reads_total / writes_total",
		"sum by (host) (load)", "count by (zone) (one)", "avg without (disk) (rate(writes_total[4m]))", "-load",
		`label_replace(load, "pair", "$1", "host", "(h[01])")`, "avg_over_time(load[7m])", "load offset 7m", "max_over_time(load[6m:45s])",
	}
	aggregations := []string{
		"%s", "sum(%s)", "avg by (zone) (%s)", "stddev by (zone) (%s)", "stdvar(%s)", "max by (zone) (%s)", "min(%s)", "count by (host) (%s)",
		"group(%s)", "quantile(0.7, %s)", "topk(2, %s)", "bottomk by (zone) (1, %s)", "limitk(2, %s)", "limit_ratio(0.4, %s)",
		`count_values("v", round(%s, 0.5))`, "sum_over_time((%s)[5m:1m])",
	}
	var all []string
	for _, a := range aggregations {
		for _, o := range operands {
			all = append(all, fmt.Sprintf(a, o))
		}
	}
	return append(all, strings.Split(strings.TrimSpace(`
quantile(scalar(sum(one))/20, load)
topk(scalar(count(one))/5, load)
topk(2, one + one)
topk(1, sum(one) by (disk) + 0)
sum(topk(3, load))
label_replace(load, "disk", "same", "disk", ".*")
label_replace(load, "disk", "$1", "disk", "(.*")
label_replace({__name__=~"reads_total|writes_total"}, "__name__", "x", "", "")
label_join(one, "host", "-", "zone", "job")
{__name__=~"reads_total|writes_total"} * 2
-{__name__=~"reads_total|writes_total"}
rate({__name__=~"reads_total|writes_total"}[5m])
last_over_time({__name__=~"reads_total|writes_total"}[5m])
rate({__name__=~"reads_total|load", host="h1"}[2m])
max_over_time(({__name__=~"reads_total|writes_total"})[5m:1m])
max_over_time(count_values("__name__", one)[5m:1m])
max_over_time((load * on (host) group_left(__name__) sum by (host) (one))[5m:1m])
absent(load{host="h3", disk="d2"})
absent(nothing)
absent_over_time(load{host="h3", disk="d2"}[2m])
absent_over_time(nothing[2m])
present_over_time(load[3m])
sort(load)
sort_desc(sum by (zone) (load))
sort_by_label(load, "disk")
reads_total and writes_total
reads_total or writes_total
reads_total unless writes_total
load or sum by (host) (load)
reads_total / on (host, disk) writes_total
reads_total / on (host) writes_total
reads_total * on (host) group_left sum by (host) (writes_total)
seconds_bucket * on (instance) group_left (version) target_info
reads_total > bool writes_total
reads_total == writes_total
load + on (host, disk) fill(0) one
load + on (host, disk) fill_left(1) one
histogram_quantile(0.9, sum by (le) (rate(seconds_bucket[5m])))
histogram_quantile(0.9, rate(seconds_bucket[5m]))
histogram_quantile(0.5, seconds_bucket)
histogram_quantile(0.9, sum(latency))
histogram_quantile(0.9, rate(latency[5m]))
histogram_count(rate(latency[5m]))
histogram_count(sum(latency))
histogram_count(latency)
histogram_sum(sum_over_time(latency[5m]))
histogram_avg(sum by (zone) (rate(latency[4m])))
histogram_stddev(sizes)
histogram_fraction(0, 2, sizes)
avg(sizes)
sum_over_time(sizes[5m])
rate(mixed[5m])
resets(latency[10m])
changes(sizes[5m])
quantile_over_time(0.9, load[5m])
quantile_over_time(scalar(count(one))/20, load[5m])
stddev_over_time(load[5m])
predict_linear(load[5m], 600)
deriv(load[5m])
double_exponential_smoothing(load[5m], 0.3, 0.6)
mad_over_time(load[5m])
ts_of_max_over_time(load[5m])
first_over_time(load[5m])
irate(reads_total[5m])
idelta(load[5m])
max_over_time(sum by (zone) (rate(reads_total[2m]))[10m:45s])
sum_over_time(sum by (zone) (load)[5m:])
sum(sum_over_time(sum by (disk) (load)[5m:1m]))
avg_over_time(topk(2, one)[4m:30s])
rate((reads_total + writes_total)[5m:30s])
rate(reads_total[5m:17s] offset 3m)
sum_over_time(load[20s:7s])
max_over_time(max_over_time(load[2m:20s])[5m:1m])
sum_over_time((load offset 90s)[5m:40s] offset -2m)
load offset -10m
load @ 1800
load @ end()
rate(reads_total[5m] @ start())
load - load @ start()
rate(reads_total[5m]) / rate(reads_total[5m] @ end())
sum(load) - sum(load @ 1234.5 offset 2m)
one and topk(2, one @ end())
load * on () group_left topk(1, one @ 1800 + one @ 1800)
topk(2, sum_over_time((one @ 1800 + one @ 1800)[5m:1m]))
max_over_time(load[10m:1m] @ end()) + load
sum_over_time((load @ start())[5m:1m]) + load
quantile_over_time(scalar(count(one))/20, load[5m] @ 1800)
timestamp(load)
timestamp(load offset 1m)
timestamp(load @ end()) + load
timestamp(-load)
load - start()
load * range()
sum_over_time(load[step()])
sum_over_time(load[range() / 10])
rate(reads_total[step() * 3 + 1m])
load offset (step() * 2)
time() - load
vector(time()) + on () group_right load
scalar(sum(load)) + load
day_of_week(load)
info(seconds_bucket)
info(rate(seconds_bucket[5m]), {version=~".+"})
sum by (version) (info(seconds_bucket))
load smoothed
rate(reads_total[5m] smoothed)
increase(reads_total[5m] anchored)
sum(rate(reads_total[5m])) by (zone) / ignoring(disk) group_left sum(rate(writes_total[5m])) by (zone)
(sum by (zone) (load) > 0) or (sum by (zone) (load) < 0)
clamp(load, scalar(min(load)), 0)
sgn(load)
topk(2, histogram_quantile(0.9, sum by (le, host) (rate(seconds_bucket[5m]))))
12
vector(1)
nothing
`), "\n")...)
}

// Over churning series every query of the corpus has upstream's answer to the
// bit, whatever the number of parts, the grid, and what the storage can do.
func TestChurningSeries(t *testing.T) {
	seeds, grids := uint64(1), [][3]int64{{0, 3600, 60}, {300, 3590, 97}}
	variants := func(delayed bool) []variant {
		v := []variant{{"3 parts, thinned view", forced(t, 3, delayed), asIs}, {"2 parts, queriers", forced(t, 2, delayed), hideView}}
		if long() {
			v = append(v, variant{"7 parts, thinned view", forced(t, 7, delayed), asIs}, variant{"2 parts, view", forced(t, 2, delayed), hideThin},
				variant{"7 parts, queriers", forced(t, 7, delayed), hideView}, variant{"1 part, thinned", forced(t, 1, delayed), asIs})
		}
		return v
	}
	if long() {
		seeds = 3
		grids = append(grids, [3]int64{600, 3000, 300}, [3]int64{1795, 2105, 15}, [3]int64{0, 3600, 7})
	}
	for _, delayed := range []bool{false, true} {
		if delayed && !long() {
			grids = grids[1:]
		}
		c := newComparer(t, delayed, variants(delayed)...)
		for seed := range seeds {
			store := churning(seed + 1)
			for _, text := range corpus() {
				for _, g := range grids {
					c.compare(store, text, time.Unix(g[0], 0), time.Unix(g[1], 0), time.Duration(g[2])*time.Second)
				}
			}
			if n := store.queriers.Load(); n != 0 {
				t.Errorf("%d queriers were not closed", n)
			}
			if store.thinned.Load() == 0 {
				t.Error("nothing was thinned")
			}
		}
	}
}
