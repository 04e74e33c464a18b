package result

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// Page makes the tables of the newest run of each verb, in Markdown.
func Page(entries []Entry) string {
	p := &page{}
	p.WriteString(pageHead)
	charts := bars(entries)
	for _, section := range []struct {
		verb, title string
		fill        func(*page, []Entry)
		pictures    []string
	}{
		{"ingest", "Ingestion by remote write", (*page).ingest, []string{"ingest.svg"}},
		{"memory", "Memory", (*page).memory, nil},
		{"restart", "After kill -9", (*page).restart, nil},
		{"query", "Dashboard queries", (*page).query, []string{"query.svg"}},
		{"fleet", "A fleet of recorded exporters", (*page).fleet, []string{"fleet-disk.svg", "fleet-queries.svg"}},
		{"exporters", "Recorded exporters one by one", (*page).exporters, []string{"exporters.svg"}},
		{"churn", "Series that come and go", (*page).churn, []string{"churn.svg"}},
		{"year", "A year and its rollups", (*page).year, nil},
		{"pass", "Ingestion while the compactor works", (*page).pass, nil},
		{"forward", "Forwarding", (*page).forward, nil},
		{"inputs", "Other ways in", (*page).inputs, nil},
		{"blocks", "Import of Prometheus' blocks", (*page).blocks, nil},
		{"snapshots", "Snapshots", (*page).snapshots, nil},
	} {
		run := newest(entries, section.verb)
		if len(run) == 0 {
			continue
		}
		fmt.Fprintf(p, "\n## %s\n\n", section.title)
		p.provenance(run)
		for _, name := range section.pictures {
			p.picture(charts, name)
		}
		section.fill(p, run)
	}
	p.WriteString(pageFoot)
	return p.String()
}

const pageHead = `# Benchmarks

This page is generated from ` + "`benchmarks/results.jsonl`" + ` by ` + "`go run ./benchmarks render`" + `; edit neither by hand.
Each section shows the newest run of its verb: all servers on the same machine, in the same invocation, in turns.
Ratios never mix runs.
`

const pageFoot = `
## What these numbers do not show

- The load generator runs on the same cores as the server. It bounds the throughput; its own CPU is in the ingestion
  table. The CPU columns are the server process alone, from the kernel's accounting.
- VictoriaMetrics and Prometheus answer before their samples are safe on the disk: neither calls fsync before the
  answer. Varve does, in the mode that each section names. A kill -9 proves the path, not the disk: power loss is
  another test.
- The operating system's file cache is warm in all but the first pass of the queries. That pass follows a restart and
  the dropping of the data files' pages; its queries run one after the other, so the later ones may find what the
  earlier ones loaded.
- Ingestion, memory, restarts and the dashboard use synthetic series and values. Throughput and memory depend on the
  labels, bytes on the disk on the values.
- The fleet replays three real exporters of one machine, recorded while it was busy. All targets share these recordings,
  shifted against each other: what depends on how different real hosts are is not shown. Gauges and increments are
  real; counters are shifted by decimals of their own, and where two phases of the recording meet there is a step that
  no machine made. Its scrapes hardly ever fail, and it has no native histograms.
- The data lie in whole past days and arrive as fast as they are taken, in order. Late and unordered samples are not
  measured here. Days that are not over stay as they arrive, and are larger.
- The pods of the last section live under names that resemble Kubernetes'; their values are those of the recordings.
- VictoriaMetrics' export writes every NaN alike; it counts as the stale marker it most likely was.
- All requests come over the loopback. Latencies have no network in them.
- VictoriaMetrics' queries bypass its cache of results; the others have none. Its answers differ by design (it
  extrapolates otherwise), so its times are for another computation.
- Other work on the machine is not excluded. The load average before the run is given; compare ratios of one run, not
  figures of two.
`

// page gathers the text.
type page struct{ strings.Builder }

// newest are the entries of the last run of a verb, in the order of the file.
func newest(entries []Entry, verb string) []Entry {
	last := ""
	for _, entry := range entries {
		if entry.Verb == verb {
			last = entry.Run
		}
	}
	return slices.DeleteFunc(slices.Clone(entries), func(e Entry) bool { return e.Verb != verb || e.Run != last })
}

// provenance says where and how the run took place.
func (p *page) provenance(run []Entry) {
	e, m := run[0], run[0].Machine
	fmt.Fprintf(p, "`%s`, %s, commit %s. %d cores (%s), %.0f GiB, %s, %s; load average %.1f before. Data: seed %d, %.1f labels and %.0f label bytes a series, every %d s.\n",
		e.Command, e.Date, e.Commit, m.Cores, m.CPU, float64(m.MemoryBytes)/(1<<30), m.FileSystem, m.Go, m.Load,
		e.Dataset.Seed, e.Dataset.LabelsMean, e.Dataset.LabelBytesMean, e.Dataset.StepMillis/1000)
	if e.Note != "" {
		fmt.Fprintf(p, "Note: %s.\n", e.Note)
	}
	p.WriteString("\n")
	rows := [][]string{}
	for _, e := range run {
		version := e.Peer.Version
		if e.Peer.RocksDB != "" {
			version += ", RocksDB " + e.Peer.RocksDB
		}
		rows = append(rows, []string{e.Peer.Name, version, e.Peer.Sync})
	}
	p.table([]string{"server", "version", "sync"}, rows)
}

// table writes a Markdown table.
func (p *page) table(head []string, rows [][]string) {
	line := func(cells []string) { fmt.Fprintf(p, "| %s |\n", strings.Join(cells, " | ")) }
	line(head)
	line(slices.Repeat([]string{"---"}, len(head)))
	for _, row := range rows {
		for i := range row {
			row[i] = strings.ReplaceAll(row[i], "|", "\\|")
		}
		line(row)
	}
	p.WriteString("\n")
}

// names are the peers in order.
func names(run []Entry) []string {
	var list []string
	for _, e := range run {
		list = append(list, e.Peer.Name)
	}
	return list
}

// median is the middle value, or the mean of the middle two; NaN for none.
func median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

// geomean is the geometric mean of positive values; NaN for none.
func geomean(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += math.Log(v)
	}
	return math.Exp(sum / float64(len(values)))
}

// number writes a figure with three significant digits.
func number(v float64) string {
	switch {
	case math.IsNaN(v):
		return "-"
	case v == 0:
		return "0"
	case math.Abs(v) >= 100:
		return fmt.Sprintf("%.0f", v)
	default:
		return fmt.Sprintf("%.*f", max(0, 2-int(math.Floor(math.Log10(math.Abs(v))))), v)
	}
}

// known writes a figure that only some servers publish.
func known(v float64) string {
	if v == 0 {
		return "-"
	}
	return number(v)
}

// ratio writes how many times b goes into a.
func ratio(a, b float64) string {
	if b == 0 || math.IsNaN(a) || math.IsNaN(b) {
		return "-"
	}
	return fmt.Sprintf("%.2f", a/b)
}

// mib writes bytes in MiB.
func mib(bytes int64) string { return fmt.Sprintf("%.0f", float64(bytes)/(1<<20)) }
