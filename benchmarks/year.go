package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"varve/benchmarks/fleet"
	"varve/benchmarks/load"
	"varve/benchmarks/peer"
	"varve/benchmarks/result"
	"varve/benchmarks/wire"
)

const (
	roundsPerDay = 24 * roundsPerHour
	yearBatch    = 4000
	// yearQueryLimit is how long a query may take, also for the server: raw samples of a
	// year take longer than its default allows.
	yearQueryLimit = 10 * time.Minute
	// rawSeconds is how long a query is asked for on raw samples again and again, warm: the
	// pass in which it goes beyond is the last.
	rawSeconds = 20
	// resolutionHeader tells what an answer was made from.
	resolutionHeader = "X-Varve-Resolution"
)

// yearConfig keeps the compactor from working on its own while queries are measured, and
// lets queries run on.
const yearConfig = "self_scrape: {enabled: false}\ncompactor: {interval: 24h}\nquery: {timeout: 10m}\n"

// yearPanel is one query over the year. RANGE in it stands for the step or, if the
// panel is Grafana's, for a step and a scrape interval, which is what Grafana makes of
// $__rate_interval.
type yearPanel struct {
	name, query string
	grafana     bool
	stepSeconds []int64
}

// yearSteps are those of aligned panels.
var yearSteps = []int64{3600, 6 * 3600}

// yearBoard is asked at each of the panels' steps, over all of the data.
var yearBoard = []yearPanel{
	{"processors by mode", `sum by (mode) (rate(node_cpu_seconds_total[RANGE]))`, false, yearSteps},
	{"traffic by host", `sum by (instance) (increase(node_network_receive_bytes_total[RANGE]))`, false, yearSteps},
	{"memory of processes", `avg_over_time(process_resident_memory_bytes[RANGE])`, false, yearSteps},
	{"most goroutines", `max by (job) (max_over_time(go_goroutines[RANGE]))`, false, yearSteps},
	{"latency of queries", `histogram_quantile(0.99, sum by (le, handler) (rate(prometheus_http_request_duration_seconds_bucket[RANGE])))`, false, yearSteps},
	{"memory in use", `1 - node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes`, false, yearSteps},
	{"plain selector", `node_load1`, false, yearSteps},
	{"join", `rate(process_cpu_seconds_total[RANGE]) * on (instance) group_left (version) go_info`, false, yearSteps},
	{"every series, now", `count by (job) ({job=~".+"})`, false, yearSteps},
	{"every series, last", `count by (job) (last_over_time({job=~".+"}[RANGE]))`, false, yearSteps},
	{"Grafana, rates", `sum by (mode) (rate(node_cpu_seconds_total[RANGE]))`, true, yearSteps},
	{"Grafana, latency", `histogram_quantile(0.99, sum by (le, handler) (rate(prometheus_http_request_duration_seconds_bucket[RANGE])))`, true, yearSteps},
}

// yearMetrics are those that the panels ask for: each target has all of them.
var yearMetrics = map[string]bool{
	"node_cpu_seconds_total": true, "node_network_receive_bytes_total": true, "process_resident_memory_bytes": true, "go_goroutines": true,
	"prometheus_http_request_duration_seconds_bucket": true, "node_memory_MemAvailable_bytes": true, "node_memory_MemTotal_bytes": true,
	"node_load1": true, "process_cpu_seconds_total": true, "go_info": true,
}

// text is the query as it is sent.
func (p yearPanel) text(stepSeconds int64) string {
	span := time.Duration(stepSeconds) * time.Second
	if p.grafana {
		span += stepMillis * time.Millisecond
	}
	return strings.ReplaceAll(p.query, "RANGE", model.Duration(span).String())
}

// yearRun is the passage of one server through the year.
type yearRun struct {
	*bench
	fleet  *fleet.Fleet
	entry  *result.Entry
	point  *result.Year
	server *peer.Server
	dir    string
}

// year fills a Varve with a long history, day after day, has it sealed and rolled up on
// the way, and asks a dashboard over all of it, from rollups and from raw samples.
func year(ctx context.Context, b *bench) error {
	if err := b.varvesOnly(); err != nil {
		return err
	}
	e, err := b.openExporters(ctx)
	if err != nil {
		return err
	}
	f, err := b.yearFleet(e)
	if err != nil {
		return err
	}
	b.describeFleet(f)
	for i := range b.specs {
		b.specs[i].Config = yearConfig
		r := &yearRun{bench: b, fleet: f, entry: &b.entries[i], point: &result.Year{Days: b.settings.days}, dir: "year-" + b.specs[i].Name}
		r.entry.Year = r.point
		if err := r.measure(ctx, e, b.specs[i]); err != nil {
			return err
		}
	}
	return nil
}

// varvesOnly leaves out all servers but the Varves that are started here: the others
// have no rollups.
func (b *bench) varvesOnly() error {
	specs, entries := b.specs, b.entries
	b.specs, b.entries = nil, nil
	for i, spec := range specs {
		if spec.Kind != peer.Varve || spec.Address != "" {
			b.say("year: %s is left out, as is all but a varve that is started here", spec.Name)
			continue
		}
		b.specs, b.entries = append(b.specs, spec), append(b.entries, entries[i])
	}
	if len(b.specs) == 0 {
		return errors.New("there is no varve to start among --peers")
	}
	return nil
}

// yearFleet is eight targets of about the same size: each has what the panels ask for,
// and other series of its recording.
func (b *bench) yearFleet(e *exporters) (*fleet.Fleet, error) {
	const targets = 8
	wanted := func(l labels.Labels) bool { return yearMetrics[l.Get(model.MetricNameLabel)] }
	each := max(1, b.settings.yearSeries/targets)
	// What the division leaves goes to the four nodes, as far as four divides it.
	nodes := (b.settings.yearSeries - 4*each) / 4
	var groups []fleet.Group
	for _, name := range recordedTargets {
		group := fleet.Group{Ring: e.rings[name].Narrow(each, wanted), Count: 2}
		if name == recordedTargets[0] {
			group = fleet.Group{Ring: e.rings[name].Narrow(max(1, nodes), wanted), Count: 4}
		}
		groups = append(groups, group)
	}
	rounds := b.settings.days * roundsPerDay
	return fleet.New(fleet.Config{
		Seed: b.settings.seed, Groups: groups, StartMillis: startOfData(time.Now().Add(-24*time.Hour), rounds).UnixMilli(), StepMillis: stepMillis,
		Rounds: rounds, Naming: fleet.Short,
	})
}

// measure does all with one server.
func (r *yearRun) measure(ctx context.Context, e *exporters, spec peer.Spec) (err error) {
	if r.server, err = r.start(ctx, spec, r.dir); err != nil {
		return err
	}
	defer func() { r.server.Kill() }()
	tally, err := r.fill(ctx)
	if err != nil {
		return err
	}
	r.point.Replay = e.replayCounted(r.fleet, tally)
	r.server.Settle(ctx, settleLimit)
	if r.point.Families, err = r.server.FamilyBytes(ctx); err != nil {
		return err
	}
	r.tellBytes()
	cost, _ := r.reading(ctx, r.server)
	r.point.RSSBytes, r.point.PeakBytes = cost.RSSBytes, cost.PeakBytes
	if err := r.ask(ctx); err != nil {
		return err
	}
	cost, _ = r.reading(ctx, r.server)
	r.point.QueriesPeakBytes = cost.PeakBytes
	r.tellYear()
	return nil
}

// bulk is what is sent next.
type bulk struct {
	frames [][]wire.Frame
	tally  fleet.Tally
}

// fill sends all days, each encoded while the one before is sent, and runs the compactor
// every few days.
func (r *yearRun) fill(ctx context.Context) (fleet.Tally, error) {
	var total fleet.Tally
	encode := func(day int) chan bulk {
		ready := make(chan bulk, 1)
		go func() {
			frames, tally := r.fleet.Bulk(replayConnections, yearBatch, day*roundsPerDay, (day+1)*roundsPerDay)
			ready <- bulk{frames, tally}
		}()
		return ready
	}
	days := r.settings.days
	next := encode(0)
	began, sent := time.Now(), 0.0
	for day := range days {
		now := <-next
		if day+1 < days {
			next = encode(day + 1)
		}
		report, err := r.push(ctx, r.server, 1, now.frames, load.Options{})
		if err != nil {
			return total, err
		}
		total.Samples, total.Stale = total.Samples+now.tally.Samples, total.Stale+now.tally.Stale
		sent += report.Elapsed.Seconds()
		r.point.FillSeconds = sent
		if (day+1)%r.settings.compactDays == 0 || day+1 == days {
			if err := r.compact(ctx, day+1, total.Samples, time.Since(began)); err != nil {
				return total, err
			}
		}
	}
	return total, nil
}

// compact has the days so far sealed and rolled up.
func (r *yearRun) compact(ctx context.Context, day int, samples int64, elapsed time.Duration) error {
	r.show("day %d of %d: sealing and rolling up", day, r.settings.days)
	done, err := r.server.Compact(ctx)
	if err != nil {
		return err
	}
	sealed, rolled := sumDays(done.Sealed), sumDays(done.Rolled)
	addWork(&r.point.Sealed, sealed)
	addWork(&r.point.Rolled, rolled)
	left := time.Duration(float64(elapsed) / float64(day) * float64(r.settings.days-day))
	r.say("day %d of %d: %.1f M samples at %.2f M/s; sealed %d days at %.2f M/s, rolled up %d at %.2f M/s; about %s to go", day, r.settings.days,
		float64(samples)/1e6, float64(samples)/1e6/r.point.FillSeconds, sealed.Days, float64(sealed.Samples)/1e6/sealed.Seconds,
		rolled.Days, float64(rolled.Samples)/1e6/rolled.Seconds, left.Round(time.Second))
	if r.point.Rolled.Days < day {
		return fmt.Errorf("the compactor has rolled up %d of %d days; its report: %+v", r.point.Rolled.Days, day, done)
	}
	return nil
}

// sumDays adds up reports. The day before the first, whose last bucket would have a sample
// of midnight, is reported too, and left out.
func sumDays(days []peer.CompactedDay) result.Compaction {
	var sum result.Compaction
	for _, d := range days {
		if d.Samples == 0 {
			continue
		}
		addWork(&sum, result.Compaction{Days: 1, Samples: d.Samples, Buckets: d.Buckets, Bytes: d.BundleBytes, Seconds: d.Seconds})
	}
	return sum
}

// addWork adds what was done.
func addWork(sum *result.Compaction, c result.Compaction) {
	sum.Days, sum.Samples, sum.Buckets = sum.Days+c.Days, sum.Samples+c.Samples, sum.Buckets+c.Buckets
	sum.Bytes, sum.Seconds = sum.Bytes+c.Bytes, sum.Seconds+c.Seconds
}

// question is a query of the year with what is known of it.
type question struct {
	point      *result.YearQuery
	parameters url.Values
}

// questions are all queries at all steps. The grid lies on whole steps, the first point
// is one step after the first sample's day began, the last is the end of the last day.
func (r *yearRun) questions() []question {
	config := r.fleet.Config()
	start, end := config.StartMillis/1000, (config.StartMillis+int64(config.Rounds)*config.StepMillis)/1000
	for _, p := range yearBoard {
		for _, step := range p.stepSeconds {
			r.point.Queries = append(r.point.Queries, result.YearQuery{
				Name: p.name, Query: p.text(step), SpanS: end - start, StepS: step, Aligned: !p.grafana,
			})
		}
	}
	var list []question
	for i := range r.point.Queries {
		q := &r.point.Queries[i]
		list = append(list, question{q, url.Values{
			"query": {q.Query}, "start": {strconv.FormatInt(start+q.StepS, 10)}, "end": {strconv.FormatInt(end, 10)}, "step": {strconv.FormatInt(q.StepS, 10)},
		}})
	}
	return list
}

// ask asks all questions: first cold, each way after a restart of its own, then warm by turns.
func (r *yearRun) ask(ctx context.Context) error {
	questions := r.questions()
	autos, raws := make([]answer, len(questions)), make([]answer, len(questions))
	for pass := range r.settings.repetitions {
		for _, raw := range []bool{false, true} {
			if err := r.restartCold(ctx); err != nil {
				return err
			}
			for k := range questions {
				body, took, _ := r.askOne(ctx, &questions[k], raw)
				times := questions[k].times(raw)
				if times.Error != "" {
					continue
				}
				times.ColdSeconds = append(times.ColdSeconds, took)
				if pass > 0 {
					continue
				}
				parsed, err := parseAnswer(body)
				if err != nil {
					return err
				}
				if raw {
					raws[k] = parsed
				} else {
					autos[k] = parsed
				}
			}
		}
	}
	for k, q := range questions {
		q.point.Series, q.point.Points = len(autos[k].series), autos[k].points()
		if q.point.Auto.Error == "" && q.point.Raw.Error == "" {
			q.point.Identical, q.point.WorstRelative, q.point.Difference = widestGap(autos[k], raws[k])
		}
	}
	for range r.settings.passes {
		for k := range questions {
			r.askWarm(ctx, &questions[k], false)
			if total(questions[k].point.Raw.WarmSeconds) < rawSeconds {
				r.askWarm(ctx, &questions[k], true)
			}
		}
	}
	return ctx.Err()
}

// restartCold starts the server anew with its files out of the kernel's cache.
func (r *yearRun) restartCold(ctx context.Context) error {
	spec := r.server.Spec
	if err := r.server.Stop(stopLimit); err != nil {
		return err
	}
	if err := peer.DropCached(filepath.Join(r.root, r.dir)); err != nil {
		return fmt.Errorf("drop cached files of %s: %w", spec.Name, err)
	}
	server, err := r.start(ctx, spec, r.dir)
	if err != nil {
		return err
	}
	r.server = server
	r.server.Settle(ctx, settleLimit)
	return nil
}

// times are those of a choice of resolution.
func (q *question) times(raw bool) *result.YearTimes {
	if raw {
		return &q.point.Raw
	}
	return &q.point.Auto
}

// askWarm asks once more, if it was answered before.
func (r *yearRun) askWarm(ctx context.Context, q *question, raw bool) {
	times := q.times(raw)
	if times.Error != "" || ctx.Err() != nil {
		return
	}
	if _, took, cpu := r.askOne(ctx, q, raw); times.Error == "" {
		times.WarmSeconds, times.WarmCPU = append(times.WarmSeconds, took), append(times.WarmCPU, cpu)
	}
}

// askOne asks once and gives the answer, seconds, and CPU seconds of the server. It notes
// the source or the error.
func (r *yearRun) askOne(ctx context.Context, q *question, raw bool) (body []byte, seconds, cpu float64) {
	times, parameters := q.times(raw), q.parameters
	how := "auto"
	if raw {
		how = "raw"
		parameters = url.Values{"resolution": {"raw"}}
		for name, values := range q.parameters {
			parameters[name] = values
		}
	}
	r.show("%s, step %d s, %s", q.point.Name, q.point.StepS, how)
	before := r.server.CPUSecondsFine()
	body, header, took, err := askHeader(ctx, r.server, "query_range", parameters, yearQueryLimit)
	cpu = r.server.CPUSecondsFine() - before
	if err != nil {
		times.Error = err.Error()
		return nil, took.Seconds(), cpu
	}
	times.Source = cmp.Or(header.Get(resolutionHeader), "not said")
	return body, took.Seconds(), cpu
}

// total adds up.
func total(seconds []float64) float64 {
	sum := 0.0
	for _, s := range seconds {
		sum += s
	}
	return sum
}

// widestGap compares two answers: whether they are the same to the last character, the
// worst relative difference of two values, -1 if series, times or special values
// differ, and the first difference.
func widestGap(got, want answer) (identical bool, worst float64, difference string) {
	identical, _, difference = compareAnswers(got, want)
	if identical {
		return true, 0, ""
	}
	if !slices.EqualFunc(got.series, want.series, func(g, w answerSeries) bool {
		return g.name == w.name && slices.EqualFunc(g.samples, w.samples, func(a, b answerSample) bool { return a.millis == b.millis })
	}) {
		return false, -1, difference
	}
	for i, g := range got.series {
		for k, sample := range g.samples {
			gap := relativeGap(sample.value, want.series[i].samples[k].value)
			if gap < 0 {
				return false, -1, difference
			}
			worst = max(worst, gap)
		}
	}
	return false, worst, difference
}

// relativeGap is the difference of two value strings over the greater absolute value, or
// -1 if only one is finite or they are no numbers.
func relativeGap(a, b string) float64 {
	if a == b {
		return 0
	}
	x, err1 := strconv.ParseFloat(a, 64)
	y, err2 := strconv.ParseFloat(b, 64)
	gap := math.Abs(x-y) / max(math.Abs(x), math.Abs(y))
	if err1 != nil || err2 != nil || math.IsNaN(gap) || math.IsInf(gap, 0) {
		return -1
	}
	return gap
}

// tellBytes prints what the history takes.
func (r *yearRun) tellBytes() {
	p, samples := r.point, float64(max(1, r.point.Replay.Samples))
	raw, rollups := p.Families["raw"]+p.Families["clocks"], result.RollupBytes(p.Families)
	r.say("year %s: %d series, %.1f M samples; raw %.1f MiB (%.3f B/sample), rollups %.1f MiB (%.1f %% of raw, %.2f B/bucket); sealed at %.2f M/s, rolled up at %.2f M/s",
		r.server.Spec.Name, p.Replay.Series, samples/1e6, float64(raw)/(1<<20), float64(raw)/samples, float64(rollups)/(1<<20), 100*float64(rollups)/float64(max(1, raw)),
		float64(rollups)/float64(max(1, p.Rolled.Buckets)), float64(p.Sealed.Samples)/1e6/p.Sealed.Seconds, float64(p.Rolled.Samples)/1e6/p.Rolled.Seconds)
}

// tellYear prints how queries were answered.
func (r *yearRun) tellYear() {
	for _, q := range r.point.Queries {
		same := "identical"
		if !q.Identical {
			same = fmt.Sprintf("worst %.1e: %s", q.WorstRelative, q.Difference)
		}
		r.say("%-20s %5d s: auto %s (%s) ms from %s; raw %s (%s) ms from %s; x %.1f; %s %s%s", q.Name, q.StepS, milliseconds(q.Auto.WarmSeconds), milliseconds(q.Auto.ColdSeconds),
			q.Auto.Source, milliseconds(q.Raw.WarmSeconds), milliseconds(q.Raw.ColdSeconds), q.Raw.Source, q.WarmRatio(), same, q.Auto.Error, q.Raw.Error)
	}
}
