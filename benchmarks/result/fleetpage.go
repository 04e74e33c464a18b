package result

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// settleText is how each server gets to the state that its disk is measured in.
const settleText = `How each server settles before its disk is measured, once all samples are in:

- Varve: ` + "`POST /api/v1/admin/compactor/run?wait=true`" + ` seals the days that are over.
- VictoriaMetrics: ` + "`/internal/force_flush`, `/internal/force_merge`" + `, until no merge is under way.
- Prometheus: one sample of the present moves the head beyond the data; then until the head
  begins behind the data and no compaction runs.
- All: then ten seconds without a change of the directory's size and with less than 5 % of a core.

`

// fleet writes what became of a fleet of recorded exporters.
func (p *page) fleet(run []Entry) {
	run = slices.DeleteFunc(slices.Clone(run), func(e Entry) bool { return e.Fleet == nil })
	if len(run) == 0 {
		return
	}
	p.replay(run[0].Fleet.Replay)
	p.WriteString(settleText)
	p.fleetLoad(run)
	p.fleetDisk(run)
	p.exact(run)
	if run[0].Query != nil {
		p.queries(run)
	}
	p.labels(run)
	p.crash(run)
}

// replay says what was sent.
func (p *page) replay(r Replay) {
	var groups []string
	for _, g := range r.Groups {
		groups = append(groups, fmt.Sprintf("%d of %s (%d series each)", g.Targets, g.Name, g.Series))
	}
	fmt.Fprintf(p, "%d targets, %d series, %d distinct samples over %.1f h, %d of them stale markers: %s. The recordings hold %d scrapes, one a second,\n"+
		"whose phases joined end to end give %d true steps of 15 s. Every target walks through them from another place, with its own offsets on\n"+
		"counters and its own scrape times.", r.Targets, r.Series, r.Samples, r.SpanSeconds/3600, r.Stale, strings.Join(groups, ", "), r.Scrapes, r.Positions)
	if r.Repeated > 0 {
		fmt.Fprintf(p, " **%.0f %% of the steps repeat earlier increments of the same target, which flatters compression over long blocks.**\n\n", 100*r.Repeated)
		return
	}
	p.WriteString(" No target repeats an increment of its own.\n\n")
}

// fleetLoad writes the costs of taking the fleet in.
func (p *page) fleetLoad(run []Entry) {
	var rows [][]string
	for _, e := range run {
		f := e.Fleet
		rows = append(rows, []string{e.Peer.Name, fmt.Sprintf("%d x %d", f.Batch, f.Connections), number(f.SamplesPerSecond / 1e6), number(f.CPU), number(f.CPUSettled),
			number(f.P50Millis), number(f.P99Millis), mib(f.PeakBytes), mib(f.RSSBytes), number(f.SettleSeconds), remark(f.Remark, f.Disk)})
	}
	p.table([]string{"server", "samples x connections", "M samples/s", "CPU s/M", "CPU s/M settled", "p50 ms", "p99 ms", "peak MiB", "RSS settled MiB",
		"settled after s", "remark"}, rows)
}

// fleetDisk writes the bytes.
func (p *page) fleetDisk(run []Entry) {
	p.WriteString("Bytes that the file system allocated for the whole data directory, settled. Fixed is what does not grow with the data: logs, reserves and\n" +
		"the engine's own bookkeeping. Varve's family journal is one of these logs. \"x\" is the server's bytes without them over the first server's.\n\n")
	var rows [][]string
	for _, e := range run {
		d, samples := e.Fleet.Disk, float64(e.Fleet.Replay.Samples)
		first := run[0].Fleet.Disk
		rows = append(rows, []string{e.Peer.Name, mib(d.Bytes), mib(d.FixedBytes), mib(d.IndexBytes), number(float64(d.Bytes) / samples),
			number(float64(d.Bytes-d.FixedBytes) / samples), ratio(float64(d.Bytes-d.FixedBytes), float64(first.Bytes-first.FixedBytes)),
			number(float64(d.IndexBytes) / float64(e.Fleet.Replay.Series))})
	}
	p.table([]string{"server", "MiB", "of it fixed", "of it index", "B/sample", "B/sample without fixed", "x", "index B/series"}, rows)
	for _, e := range run {
		p.families(e.Peer.Name, e.Fleet.Disk.Families)
	}
}

// families writes the sizes of Varve's column families in a line.
func (p *page) families(name string, families map[string]int64) {
	if len(families) == 0 {
		return
	}
	var parts []string
	for _, family := range slices.Sorted(maps.Keys(families)) {
		parts = append(parts, fmt.Sprintf("%s %d", family, families[family]))
	}
	fmt.Fprintf(p, "Families of %s, bytes: %s.\n\n", name, strings.Join(parts, ", "))
}

// exact writes how the samples came back.
func (p *page) exact(run []Entry) {
	p.WriteString("All samples read back, by remote read or VictoriaMetrics' export, and compared by all 64 bits of the value and the millisecond.\n\n")
	var rows [][]string
	for _, e := range run {
		x := e.Fleet.Exact
		if x == nil {
			continue
		}
		rows = append(rows, []string{e.Peer.Name, fmt.Sprint(x.Sent), fmt.Sprint(x.Changed), fmt.Sprintf("%.4f %%", 100*float64(x.Changed)/float64(max(1, x.Sent))),
			fmt.Sprint(x.ChangedNaN), fmt.Sprint(x.Missing), fmt.Sprint(x.MissingNaN), fmt.Sprint(x.Extra), dash(x.Difference)})
	}
	p.table([]string{"server", "sent", "changed", "share", "of these NaN", "missing", "of these NaN", "never sent", "first difference"}, rows)
}

// labels writes the times of the label API.
func (p *page) labels(run []Entry) {
	if len(run[0].Fleet.Labels) == 0 {
		return
	}
	p.WriteString("Labels and series over the whole span. Milliseconds, median of the warm requests, the first after a restart in parentheses; \"=\"\n" +
		"marks the answers with the same entries as the reference's.\n\n")
	head := []string{"request", "entries"}
	for _, name := range names(run) {
		head = append(head, name+" ms")
	}
	var rows [][]string
	for k, l := range run[0].Fleet.Labels {
		row := []string{"`" + l.Path + "`", fmt.Sprint(l.Count)}
		for _, e := range run {
			if k >= len(e.Fleet.Labels) || e.Fleet.Labels[k].Error != "" {
				row = append(row, "error")
				continue
			}
			mark, point := "", e.Fleet.Labels[k]
			if point.Identical {
				mark = " ="
			}
			row = append(row, fmt.Sprintf("%s (%s)%s", number(1000*median(point.WarmSeconds)), number(1000*median(point.ColdSeconds)), mark))
		}
		rows = append(rows, row)
	}
	p.table(head, rows)
}

// crash writes the return from kill -9 with all of the data on the disk.
func (p *page) crash(run []Entry) {
	var rows [][]string
	for _, e := range run {
		answered := number(e.Fleet.AnsweredSeconds)
		if e.Fleet.AnsweredSeconds < 0 {
			answered = "never"
		}
		rows = append(rows, []string{e.Peer.Name, number(e.Fleet.ReadySeconds), answered})
	}
	p.WriteString("Started again after kill -9 while idle, with all of the data; seconds from the start of the process.\n\n")
	p.table([]string{"server", "ready after s", "answers for all targets after s"}, rows)
}

// exporters writes what each recording takes by itself.
func (p *page) exporters(run []Entry) {
	p.WriteString("Fleets of one recording each, settled as above. Goals for Varve at 24 h, without fixed files: 0.50 B/sample for a busy node exporter,\n" +
		"0.15 for Go applications.\n\n")
	p.deposits(run, "exporter", func(e Entry) []Deposit { return e.Exporters })
}

// churn writes what names cost.
func (p *page) churn(run []Entry) {
	p.WriteString("Pods that live for two hours, or for the whole day, each under new names, settled as above. The index is what names series and finds\n" +
		"them: column families of Varve, files of the others.\n\n")
	p.deposits(run, "labels, life", func(e Entry) []Deposit { return e.Churn })
}

// deposits writes one row for each fleet and server. B/sample is without fixed files.
func (p *page) deposits(run []Entry, what string, of func(Entry) []Deposit) {
	var rows [][]string
	for k, first := range of(run[0]) {
		p.span(first)
		for _, e := range run {
			if k >= len(of(e)) {
				continue
			}
			d := of(e)[k]
			data, series, samples := d.Disk.Bytes-d.Disk.FixedBytes, float64(d.Replay.Series), float64(d.Replay.Samples)
			rows = append(rows, []string{d.Name, e.Peer.Name, number(d.LabelBytes), fmt.Sprint(d.Replay.Series), fmt.Sprint(d.Replay.Samples),
				number(float64(data) / samples), mib(d.Disk.FixedBytes), number(float64(d.Disk.IndexBytes) / series), number(float64(d.Disk.IndexBytes) / samples),
				number(d.CPU), number(d.CPUSettled), mib(d.RSSBytes), remark(d.Remark, d.Disk)})
		}
	}
	p.WriteString("\n")
	p.table([]string{what, "server", "label bytes", "series", "samples", "B/sample", "fixed MiB", "index B/series", "index B/sample", "CPU s/M",
		"CPU s/M settled", "RSS MiB", "remark"}, rows)
	for _, e := range run {
		for _, d := range of(e) {
			p.families(e.Peer.Name+", "+d.Name, d.Disk.Families)
		}
	}
}

// span says how long a fleet's data are and what they repeat.
func (p *page) span(d Deposit) {
	fmt.Fprintf(p, "- %s: %d targets over %.1f h, living for %.1f h", d.Name, d.Replay.Targets, d.Replay.SpanSeconds/3600, float64(d.LifeS)/3600)
	if d.Replay.Repeated > 0 {
		fmt.Fprintf(p, "; **%.0f %% of the steps repeat earlier increments of the same target**", 100*d.Replay.Repeated)
	}
	p.WriteString("\n")
}

// remark adds what the directory has to say.
func remark(text string, d Disk) string {
	const logged = "**not settled: data in the write-ahead log, which counts**"
	switch {
	case !d.Logged:
		return dash(text)
	case text == "":
		return logged
	default:
		return text + "; " + logged
	}
}

// dash stands for an empty text.
func dash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}
