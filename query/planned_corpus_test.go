package query_test

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"varve/rollup"
)

// planCorpus are the queries that are held against raw samples. %[1]s is a time within the data.
func planCorpus() []string {
	at := fmt.Sprint(begin/1000 + 7200)
	var all []string
	for _, f := range []string{
		"rate", "increase", "delta", "sum_over_time", "avg_over_time", "min_over_time", "max_over_time", "count_over_time", "last_over_time",
		"first_over_time", "changes", "resets", "present_over_time", "absent_over_time", "ts_of_first_over_time", "ts_of_last_over_time",
	} {
		for _, m := range []string{"req_total", "cpu", "temp", "load"} {
			all = append(all, f+"("+m+"[1h])", f+"("+m+"[5m])", f+"("+m+"[20m] offset 1h)")
		}
		all = append(all, f+"(latency[1h])", f+"(sizes[10m])", f+"(mixed[1h])", f+"(req_total[1h17s])")
		all = append(all, "histogram_count("+f+"(latency[1h]))", "histogram_sum("+f+"(sizes[10m]))", "histogram_avg("+f+"(mixed[20m]))")
	}
	return append(all, strings.Split(strings.TrimSpace(strings.ReplaceAll(`
sum by (a)(rate(req_total[1h]))
sum(increase(cpu[10m]))
avg by (a)(avg_over_time(temp[30m]))
topk(2, rate(req_total[1h]))
bottomk by (a) (1, max_over_time(temp[1h]))
limitk(3, rate(req_total[1h]))
limit_ratio(0.5, rate(req_total[1h]))
quantile by (a)(0.9, rate(cpu[1h]))
count_values("v", changes(load[1h]))
topk(scalar(sum(max_over_time(load[1h]))) > bool 3, rate(req_total[1h]))
rate(req_total[1h]) / on(a,i) rate(cpu[1h])
rate(req_total[1h]) > 1
-rate(req_total[1h])
rate(req_total[1h]) and on(a,i) (load > 3)
rate(req_total[5m]) or rate(cpu[5m])
rate(req_total[5m]) unless on(i) temp > 100
sum by (a)(rate(req_total[10m])) / ignoring(i) group_left sum by (a)(rate(cpu[10m]))
max_over_time(rate(req_total[10m])[1h:5m])
avg_over_time(rate(cpu[10m])[1h:10m] offset 20m)
min_over_time(rate(req_total[10m] offset 5m)[1h:5m] offset 10m)
max_over_time(max_over_time(rate(req_total[10m])[30m:5m])[2h:15m])
sum_over_time(temp[1h:5m])
rate(req_total[2h:10m])
last_over_time(rate(req_total[10m])[1h:5m])
max_over_time(temp[1h:])
max_over_time(rate(req_total[5m])[30m:])
max_over_time(rate(req_total[10m])[1h:5m] @ T)
max_over_time(rate(req_total[10m] @ T)[1h:5m])
max_over_time(rate(req_total[10m] @ T)[1h:5m] @ end() offset 10m)
max_over_time(rate(req_total[10m] @ T)[15m:5m] offset -10m)
sum_over_time((rate(req_total[10m] @ T) + load)[30m:5m] offset -10m)
max_over_time(max_over_time(rate(req_total[10m] @ T)[30m:5m])[1h:10m] @ start() offset 5m)
max_over_time(max_over_time(rate(req_total[10m])[30m:5m] @ T)[1h:10m] offset 5m)
rate(req_total[1h] @ T)
rate(req_total[1h] @ start())
rate(req_total[1h] @ end() offset 30m)
rate(req_total[1h] offset -30m)
rate(req_total[1h] @ end()) - rate(req_total[1h])
req_total
req_total offset 10m
req_total @ T
temp @ end() offset 5m
timestamp(req_total)
timestamp(req_total offset 10m)
timestamp(req_total @ T)
timestamp(req_total @ T offset 10m)
absent(req_total)
absent(load{i="0"})
sum(load)
sort_desc(load)
latency
histogram_quantile(0.9, latency)
histogram_quantile(0.9, sum(rate(latency[1h])))
histogram_quantile(0.9, sum by (le) (rate(seconds_bucket[10m])))
histogram_count(latency)
histogram_count(rate(latency[1h]))
histogram_avg(sum_over_time(sizes[10m]))
histogram_sum(sum(increase(latency[1h])))
histogram_count(sum by (a) (rate(latency[5m]))) / histogram_sum(sum by (a) (rate(latency[5m])))
histogram_sum(sum(latency))
histogram_count(sum(sizes))
histogram_count(sum(last_over_time(latency[20m])))
histogram_avg(latency + latency offset 10m)
histogram_count(latency == latency)
histogram_count(sum(rate(latency[10m]))) > histogram_count(sum(rate(latency[10m] offset 1h)))
histogram_count(irate(latency[5m]))
histogram_sum(idelta(sizes[5m]))
histogram_count(last_over_time(mixed[1h]))
max_over_time(histogram_count(rate(latency[10m]))[1h:5m])
mixed
timestamp(rate(req_total[1h]))
timestamp(rate(req_total[1h] offset 10m))
timestamp(last_over_time(req_total[1h] offset 10m))
absent(rate(req_total{a="x",i="0"}[5m]))
absent(rate(nope{b="1"}[1h]))
absent_over_time(req_total{a="x",i="0"}[5m] offset 10m)
absent_over_time(nope{z="1"}[1h])
sum(absent_over_time(req_total{i="0"}[5m]))
max_over_time(absent_over_time(req_total{i="3"}[5m])[1h:5m])
label_replace(rate(req_total[1h]), "n", "$1", "__name__", "(.*)")
sum by (__name__)(rate(req_total[1h]))
label_join(max_over_time(temp[1h]), "j", "-", "a", "i")
sort_by_label(rate(req_total[1h]), "i")
rate(req_total[1h]) == rate(req_total[1h])
rate({__name__=~"req.*"}[1h])
sum(rate({__name__=~"req.*"}[1h]))
last_over_time({__name__=~"req.*"}[1h])
changes({__name__=~"req.*"}[1h]) or vector(1)
{__name__=~"req.*"}
-max_over_time({__name__=~"req2?_total",i="0"}[5m])
rate(req_total[1h] anchored)
rate(req_total[1h] smoothed)
irate(req_total[1h])
irate(latency[5m])
irate(mixed[10m])
sum by (a)(irate(req_total[5m]))
idelta(temp[10m])
idelta(sizes[5m])
deriv(mixed[1h])
quantile_over_time(0.9, temp[1h])
stddev_over_time(temp[1h])
deriv(temp[1h])
predict_linear(temp[1h] @ T, 3600)
rate(req_total[30m * 2])
rate(req_total[step()*2])
clamp_max(rate(req_total[1h]), 0.1)
scalar(sum(rate(req_total[1h])))
vector(scalar(max(rate(cpu[1h]))))
info(rate(req_total[1h]))
((rate(req_total[1h])))+1
count by (a) (rate(req_total[1h]) > bool 0.5)
hour(timestamp(last_over_time(temp[1h])))
`, "@ T", "@ "+at)), "\n")...)
}

// anyCalls are calls over any range, with any offset.
func anyCalls(rnd *rand.Rand) (all []string) {
	for f := rollup.Rate; f <= rollup.PredictLinear; f++ {
		for _, m := range []string{"req_total", "temp", "latency", "mixed", "sizes"} {
			of := fmt.Sprintf("%s[%dms] offset %dms", m, anyLength(rnd, 5*hourMillis), anyLength(rnd, 2*hourMillis)-hourMillis)
			if f == rollup.PredictLinear {
				of += ", 2 * (600 - 30)"
			}
			all = append(all, fmt.Sprintf("%s(%s)", f, of))
			if m == "latency" || m == "sizes" {
				all = append(all, fmt.Sprintf("histogram_count(%s(%s))", f, of))
			}
		}
	}
	return append(all, fmt.Sprintf("load offset %dms", anyLength(rnd, 2*hourMillis)), fmt.Sprintf("max_over_time(rate(cpu[%dms])[1h:10m])", anyLength(rnd, hourMillis)))
}
