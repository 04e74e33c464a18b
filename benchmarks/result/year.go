package result

import (
	"fmt"
	"slices"
	"strings"
)

// Year is a long history on one server: what its rollups take, and what a dashboard
// over all of it takes with them and without.
type Year struct {
	Days   int    `json:"days"`
	Replay Replay `json:"replay"`
	// FillSeconds is how long the samples took to send, beside their encoding.
	FillSeconds float64 `json:"fill_s"`
	// Sealed and Rolled are what the compactor said of its work on all days.
	Sealed Compaction `json:"sealed"`
	Rolled Compaction `json:"rolled"`

	// Families are the sizes of the files of the column families once all was rolled up.
	Families map[string]int64 `json:"families"`
	// RSSBytes is the resident memory before the first query, PeakBytes the most that
	// there ever was until then, QueriesPeakBytes the most after a restart with all
	// queries asked.
	RSSBytes         int64 `json:"rss_bytes"`
	PeakBytes        int64 `json:"peak_bytes"`
	QueriesPeakBytes int64 `json:"queries_peak_bytes"`

	Queries []YearQuery `json:"queries"`
}

// Compaction is the sum of a compactor's reports on days that have samples.
type Compaction struct {
	Days    int     `json:"days"`
	Samples int64   `json:"samples"`
	Buckets int64   `json:"buckets,omitempty"`
	Bytes   int64   `json:"bytes"`
	Seconds float64 `json:"seconds"`
}

// YearQuery is one query over the whole history.
type YearQuery struct {
	Name  string `json:"name"`
	Query string `json:"query"`
	SpanS int64  `json:"span_s"`
	StepS int64  `json:"step_s"`
	// Aligned says that ranges and steps are multiples of the buckets.
	Aligned bool  `json:"aligned"`
	Series  int   `json:"series"` // of the answer, as are the points
	Points  int64 `json:"points"`

	Auto YearTimes `json:"auto"`
	Raw  YearTimes `json:"raw"`
	// Identical says that both answers have the same series, times and value strings.
	// Else WorstRelative is the largest difference of two values over the greater one,
	// negative if series or times differ, and Difference the first.
	Identical     bool    `json:"identical"`
	WorstRelative float64 `json:"worst_relative"`
	Difference    string  `json:"difference,omitempty"`
}

// YearTimes is what a query takes at one choice of resolution.
type YearTimes struct {
	ColdSeconds []float64 `json:"cold_s"`
	WarmSeconds []float64 `json:"warm_s"`
	WarmCPU     []float64 `json:"warm_cpu_s"`
	// Source is what the server said that it answered from.
	Source string `json:"source"`
	Error  string `json:"error,omitempty"`
}

// YearRatioGoal is by how much rollups are to be faster than raw samples,
// YearSecondsGoal how long a query may take for 500 series.
const (
	YearRatioGoal   = 20
	YearSecondsGoal = 1
)

// WarmRatio is the time on raw samples over that with rollups, warm; NaN if one is
// not known.
func (q YearQuery) WarmRatio() float64 { return median(q.Raw.WarmSeconds) / median(q.Auto.WarmSeconds) }

// ColdRatio is WarmRatio of the first requests, CPURatio that of the server's processor
// time, which other work on the machine disturbs less.
func (q YearQuery) ColdRatio() float64 { return median(q.Raw.ColdSeconds) / median(q.Auto.ColdSeconds) }

// CPURatio is described at ColdRatio.
func (q YearQuery) CPURatio() float64 { return median(q.Raw.WarmCPU) / median(q.Auto.WarmCPU) }

// year writes what a long history takes.
func (p *page) year(run []Entry) {
	run = slices.DeleteFunc(slices.Clone(run), func(e Entry) bool { return e.Year == nil })
	for _, e := range run {
		y := e.Year
		fmt.Fprintf(p, "%d days in the past. ", y.Days)
		p.replay(y.Replay)
		p.yearWork(e)
		p.yearQueries(e)
	}
}

// RollupBytes adds up the families that hold rollups: one until November 2026, one for each length of buckets since.
func RollupBytes(families map[string]int64) (sum int64) {
	for name, bytes := range families {
		if strings.HasPrefix(name, rollupFamilies) {
			sum += bytes
		}
	}
	return sum
}

const rollupFamilies = "rollups"

// yearWork writes what sealing and rolling up took, and the bytes.
func (p *page) yearWork(e Entry) {
	y := e.Year
	raw, rollups := y.Families["raw"]+y.Families["clocks"], RollupBytes(y.Families)
	samples := float64(max(1, y.Replay.Samples))
	fmt.Fprintf(p, "Sent by remote write in %.0f s, hour by hour and series by series. Every few days the compactor sealed and rolled up what was there, at\n"+
		"full speed and with nothing else to do. Seconds are the compactor's own report, bytes those of the files. Raw are the families raw and\n"+
		"clocks. Goals: rollups of 5m and 1h together at most 25 %% of raw, then 15 %%.\n\n", y.FillSeconds)
	rate := func(c Compaction) string { return number(float64(c.Samples) / c.Seconds / 1e6) }
	p.table([]string{"server", "sealed M samples/s", "rolled up M samples/s", "buckets", "raw MiB", "raw B/sample", "rollups MiB", "rollups B/sample", "B/bucket",
		"rollups of raw", "peak MiB", "peak of queries MiB"}, [][]string{{e.Peer.Name, rate(y.Sealed), rate(y.Rolled), fmt.Sprint(y.Rolled.Buckets), mib(raw),
		number(float64(raw) / samples), mib(rollups), number(float64(rollups) / samples), number(float64(rollups) / float64(max(1, y.Rolled.Buckets))),
		fmt.Sprintf("%.1f %%", 100*float64(rollups)/float64(max(1, raw))), mib(y.PeakBytes), mib(y.QueriesPeakBytes)}})
	p.families(e.Peer.Name, y.Families)
}

// yearQueries writes the dashboard.
func (p *page) yearQueries(e Entry) {
	y := e.Year
	fmt.Fprintf(p, "Queries over all of it, with the default resolution (auto) and with `resolution=raw`, by turns on the same server with its default\n"+
		"limits, but for a timeout of ten minutes. Milliseconds, median of the warm passes, in parentheses that of the first requests after a restart with\n"+
		"the data files' pages dropped. \"x\" is raw over auto. Source is what the server says it answered from. \"=\" marks answers with the same value\n"+
		"strings; else the worst relative difference of two values stands there. Goals: x at least %d and auto below %d s for 500 series.\n\n",
		YearRatioGoal, YearSecondsGoal)
	for _, aligned := range []bool{true, false} {
		var rows [][]string
		for _, q := range y.Queries {
			if q.Aligned == aligned {
				rows = append(rows, []string{"`" + q.Query + "`", fmt.Sprintf("%dd / %ds", q.SpanS/86400, q.StepS), fmt.Sprint(q.Points), q.Auto.text(), number(1000 * median(q.Auto.WarmCPU)),
					q.Auto.Source, q.Raw.text(), number(1000 * median(q.Raw.WarmCPU)), number(q.WarmRatio()), number(q.ColdRatio()), number(q.CPURatio()), q.verdict()})
			}
		}
		if len(rows) == 0 {
			continue
		}
		if !aligned {
			p.WriteString("What Grafana makes of `$__rate_interval`: a range of a step and a scrape interval, which fits no bucket.\n\n")
		}
		p.table([]string{"query", "span / step", "points", "auto ms", "CPU ms", "source", "raw ms", "CPU ms", "x", "x first", "x CPU", "same"}, rows)
		if aligned {
			p.yearSummary(y.Queries)
		}
	}
}

// text is the time of a query.
func (t YearTimes) text() string {
	if t.Error != "" {
		return "error"
	}
	return fmt.Sprintf("%s (%s)", number(1000*median(t.WarmSeconds)), number(1000*median(t.ColdSeconds)))
}

// verdict says how the answers compare.
func (q YearQuery) verdict() string {
	switch {
	case q.Auto.Error != "":
		return q.Auto.Error
	case q.Raw.Error != "":
		return q.Raw.Error
	case q.Identical:
		return "="
	case q.WorstRelative < 0:
		return "**" + q.Difference + "**"
	default:
		return fmt.Sprintf("%.1e", q.WorstRelative)
	}
}

// yearSummary writes how the aligned queries did together.
func (p *page) yearSummary(queries []YearQuery) {
	var warm, cold, cpu, slowest []float64
	reached, answered := 0, 0
	for _, q := range queries {
		if !q.Aligned || q.Auto.Error != "" || q.Raw.Error != "" {
			continue
		}
		answered++
		warm, cold, cpu = append(warm, q.WarmRatio()), append(cold, q.ColdRatio()), append(cpu, q.CPURatio())
		slowest = append(slowest, median(q.Auto.WarmSeconds))
		if q.WarmRatio() >= YearRatioGoal {
			reached++
		}
	}
	if answered == 0 {
		return
	}
	fmt.Fprintf(p, "Geometric mean of x: %s warm, %s first, %s of CPU; smallest %s warm. %d of %d queries reach %d. The slowest answer of auto took %s ms, warm.\n\n",
		number(geomean(warm)), number(geomean(cold)), number(geomean(cpu)), number(slices.Min(warm)), reached, answered, YearRatioGoal, number(1000*slices.Max(slowest)))
}
