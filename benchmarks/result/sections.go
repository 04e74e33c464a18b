package result

import (
	"fmt"
	"slices"
)

// point is where ingestion was measured.
type point struct{ protocol, batch, connections int }

// ingestPoints are where a run measured, in order.
func ingestPoints(run []Entry) []point {
	var points []point
	for _, e := range run {
		for _, i := range e.Ingest {
			if at := (point{i.Protocol, i.Batch, i.Connections}); !slices.Contains(points, at) {
				points = append(points, at)
			}
		}
	}
	return points
}

// ingestMedian is the median of a figure over the repetitions at a point.
func (e Entry) ingestMedian(at point, figure func(Ingest) float64) float64 {
	var values []float64
	for _, i := range e.Ingest {
		if (point{i.Protocol, i.Batch, i.Connections}) == at {
			values = append(values, figure(i))
		}
	}
	return median(values)
}

// ingest writes one row for each point and server, the median of the repetitions.
func (p *page) ingest(run []Entry) {
	points := ingestPoints(run)
	repetitions := 0
	for _, e := range run {
		for _, i := range e.Ingest {
			repetitions = max(repetitions, i.Repetition)
		}
	}
	fmt.Fprintf(p, "Medians of %d repetitions in turns, each on an empty data directory. CPU and written bytes are the server's. "+
		"\"x\" is the first server's samples/s over this one's.\n"+
		"Goals for Varve: 1.5 times VictoriaMetrics at every point and 2 times at 2000 x 16, 4 times Prometheus; CPU at most 0.45 s a million samples at\n"+
		"500 samples a request and 0.30 at 2000.\n\n", repetitions)
	var rows [][]string
	for _, at := range points {
		first := 0.0
		for n, e := range run {
			of := func(figure func(Ingest) float64) float64 { return e.ingestMedian(at, figure) }
			rate := of(func(i Ingest) float64 { return i.SamplesPerSecond })
			if n == 0 {
				first = rate
			}
			if rate != rate {
				continue
			}
			rows = append(rows, []string{
				fmt.Sprintf("%d x %d, %d.0", at.batch, at.connections, at.protocol), e.Peer.Name,
				fmt.Sprintf("%.2f", rate/1e6), ratio(first, rate),
				number(of(func(i Ingest) float64 { return i.CPU })), number(of(func(i Ingest) float64 { return i.CPUSettled })),
				number(of(func(i Ingest) float64 { return i.GeneratorCPU })),
				number(of(func(i Ingest) float64 { return i.P50Millis })), number(of(func(i Ingest) float64 { return i.P99Millis })),
				number(of(func(i Ingest) float64 { return i.MaxMillis })),
				mib(int64(of(func(i Ingest) float64 { return float64(i.RSSBytes) }))), mib(int64(of(func(i Ingest) float64 { return float64(i.PeakBytes) }))),
				number(of(func(i Ingest) float64 { return i.DiskBytes })),
				known(of(func(i Ingest) float64 { return i.SamplesPerCommit })), known(of(func(i Ingest) float64 { return i.Allocations })),
				number(of(func(i Ingest) float64 { return i.NewSeriesPerSecond / 1000 })),
				number(of(func(i Ingest) float64 { return i.SyncP50Millis })) + " / " + number(of(func(i Ingest) float64 { return i.SyncP99Millis })),
			})
		}
	}
	p.table([]string{"samples x connections, protocol", "server", "M samples/s", "x", "CPU s/M", "CPU s/M settled", "generator s/M", "p50 ms", "p99 ms",
		"max ms", "RSS MiB", "peak MiB", "written B/sample", "samples a commit", "allocations/sample", "k new series/s", "fdatasync p50 / p99 ms"}, rows)
}

// memory writes what each number of series takes.
func (p *page) memory(run []Entry) {
	p.WriteString("\"Less caches\" is the resident memory without what the engine's configured caches hold at that moment, as the server\n" +
		"itself says; the rest of their configured size is not resident and not subtracted. The goal is 100 MiB and 1 KiB a series.\n\n")
	var rows [][]string
	for _, e := range run {
		for _, m := range e.Memory {
			less := m.RSSBytes - m.CacheBytes
			cache := "-"
			if m.CacheBytesMax > 0 {
				cache = mib(m.CacheBytes) + " of " + mib(m.CacheBytesMax)
			}
			rows = append(rows, []string{fmt.Sprint(m.Series), e.Peer.Name, fmt.Sprint(m.Rounds), mib(m.IdleBytes), mib(m.RSSBytes), mib(m.PeakBytes), cache, mib(less), mib(100<<20 + int64(m.Series)<<10),
				number(float64(less-100<<20) / float64(m.Series))})
		}
	}
	slices.SortStableFunc(rows, func(a, b []string) int { return len(a[0]) - len(b[0]) })
	p.table([]string{"series", "server", "rounds", "idle MiB", "RSS MiB", "peak MiB", "caches MiB", "less caches MiB", "goal MiB", "B/series beyond 100 MiB"}, rows)
}

// restart writes how each server came back.
func (p *page) restart(run []Entry) {
	p.WriteString("Killed under load, then started again on the same data. Times begin with the start of the process. The first full scrape is\n" +
		"measured in a second cycle, before any query. Samples under way at the kill count for the server. Goals for Varve at 1 M series: writes after 5 s,\n" +
		"all answers after 20 s, a first full scrape of at most twice the usual CPU.\n\n")
	var rows [][]string
	for _, e := range run {
		for _, r := range e.Restart {
			query := number(r.QuerySeconds)
			if r.QuerySeconds < 0 {
				query = "never"
			}
			rows = append(rows, []string{fmt.Sprint(r.Series), e.Peer.Name, fmt.Sprintf("%d k/s for %.0f s", r.SamplesPerSecond/1000, r.LoadSeconds), number(r.WriteSeconds), query,
				number(r.UsualCPU), number(r.FirstCPU), ratio(r.FirstCPU, r.UsualCPU), fmt.Sprint(r.Acknowledged), fmt.Sprint(max(0, r.Acknowledged-r.Found))})
		}
	}
	slices.SortStableFunc(rows, func(a, b []string) int { return len(a[0]) - len(b[0]) })
	p.table([]string{"series", "server", "load before", "accepts writes after s", "answers all after s", "usual scrape CPU s", "first scrape CPU s", "x",
		"samples acknowledged", "of these lost"}, rows)
}

// query writes the dashboard, servers side by side.
func (p *page) query(run []Entry) {
	if run[0].Query == nil {
		return
	}
	fmt.Fprintf(p, "%d samples loaded. The goal for Varve is a geometric mean of at most 0.5 of Prometheus' times, then 0.36, with identical answers.\n\n", run[0].Query.Samples)
	p.queries(run)
}

// queries writes the times of every query.
func (p *page) queries(run []Entry) {
	fmt.Fprintf(p, "Queries in milliseconds, median of the warm passes, the first pass after a restart in parentheses; \"=\" marks the answers whose\n"+
		"JSON has the same series, times and value strings as those of %s, \"~\" those within 1e-9 of them. CPU is the server's, warm.\n\n", run[0].Query.Reference)
	head := []string{"query", "range / step", "points"}
	for _, name := range names(run) {
		head = append(head, name+" ms", "CPU ms")
	}
	var rows [][]string
	for k, q := range run[0].Query.Queries {
		row := []string{"`" + q.Query + "`", fmt.Sprintf("%dm / %ds", q.RangeS/60, q.StepS), fmt.Sprint(q.Points)}
		for _, e := range run {
			if e.Query == nil || k >= len(e.Query.Queries) || e.Query.Queries[k].Error != "" {
				row = append(row, "error", "-")
				continue
			}
			q := e.Query.Queries[k]
			mark := ""
			if q.Identical {
				mark = " ="
			} else if q.Close {
				mark = " ~"
			}
			row = append(row, fmt.Sprintf("%s (%s)%s", number(1000*median(q.WarmSeconds)), number(1000*median(q.ColdSeconds)), mark), number(1000*median(q.WarmCPU)))
		}
		rows = append(rows, row)
	}
	p.table(head, rows)
	p.queryRatios(run)
}

// queryRatios writes the geometric means of every server's times over each
// Prometheus' of the run.
func (p *page) queryRatios(run []Entry) {
	figures := []func(QueryPoint) float64{
		func(q QueryPoint) float64 { return median(q.WarmSeconds) },
		func(q QueryPoint) float64 { return median(q.ColdSeconds) },
		func(q QueryPoint) float64 { return median(q.WarmCPU) },
	}
	var rows [][]string
	for _, base := range run {
		if base.Peer.Kind != "prometheus" || base.Query == nil {
			continue
		}
		for _, e := range run {
			if e.Query == nil || e.Peer.Name == base.Peer.Name {
				continue
			}
			identical, answered := 0, 0
			ratios := make([][]float64, len(figures))
			for k, q := range e.Query.Queries {
				if q.Error != "" || base.Query.Queries[k].Error != "" {
					continue
				}
				answered++
				if q.Identical {
					identical++
				}
				for f, figure := range figures {
					if a, b := figure(q), figure(base.Query.Queries[k]); a > 0 && b > 0 {
						ratios[f] = append(ratios[f], a/b)
					}
				}
			}
			rows = append(rows, []string{e.Peer.Name, base.Peer.Name, number(geomean(ratios[0])), number(geomean(ratios[1])), number(geomean(ratios[2])),
				fmt.Sprintf("%d of %d", identical, len(e.Query.Queries)), fmt.Sprint(answered)})
		}
	}
	p.table([]string{"server", "over", "warm time", "first time", "warm CPU", "identical answers", "answered"}, rows)
}
