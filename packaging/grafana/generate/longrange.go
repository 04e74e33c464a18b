package main

import "strings"

// leastStep is the least step of the dashboard's queries. Grafana chooses steps of 1h, 2h, 3h, 6h,
// 12h, 1d, 7d, 30d or 1y from there on, all multiples of an hour.
const leastStep = "1h"

// longRange is the dashboard of node_exporter over months and years.
//
// Each query is made so that buckets of an hour answer it exactly: its range is $__interval, which
// is the step, and the step is a multiple of an hour. Grafana begins a range at a multiple of
// the step, in UTC since the dashboard is. $__rate_interval is of no use here: it is the step and
// a scrape interval more, and no resolution divides that.
func longRange() dashboard {
	d := dashboard{
		uid: "varve-node-long-range", title: "Node exporter over months and years", tags: []string{"varve", "node"}, from: "now-1y", utc: true,
		description: "Machines over months and years, in steps of an hour and more: Varve answers each query exactly from its rollups of 1h.",
		variables: []variable{
			{name: "job", label: "Job", description: "Jobs that scrape node_exporter.", query: "label_values(node_uname_info, job)"},
			{name: "instance", label: "Instance", description: "Machines.", query: `label_values(node_uname_info{job=~"$job"}, instance)`},
		},
		rows: []row{about(), processors(), memories(), fileSystems(), disks(), networks(), machines()},
	}
	for _, r := range d.rows {
		for i := range r.panels {
			p := &r.panels[i]
			p.interval = leastStep
			if p.kind != words {
				p.description += " Answered exactly from rollups of 1h."
			}
			for j := range p.queries {
				p.queries[j].expr = strings.ReplaceAll(p.queries[j].expr, "@", chosen)
			}
		}
	}
	return d
}

const aboutText = `Every graph here asks for steps and ranges of **one hour or a multiple of it**, aligned to UTC. Varve answers such
queries **exactly** from its buckets of **1h**, also of time of which it keeps no samples any more, and says so: each answer carries an info
annotation (the small mark at a panel's corner) and the header X-Varve-Resolution.

* A finer look: zoom in as far as samples are kept, and use a dashboard with $__rate_interval.
* To be told instead of getting a near answer: give the data source the custom query parameter resolution=strict, as "Varve (strict)" of the provisioned ones has.
* Keep 1h buckets for as long as you want to look back: retention in the configuration, for example {raw: 90d, 5m: 2y, 1h: forever}.`

func about() row {
	return row{title: "What answers", panels: []panel{{
		kind: words, title: "Resolution", description: "Which resolution answers, and how to know.", width: 24, height: 5, markdown: aboutText,
	}}}
}

func processors() row {
	return row{title: "Processors", panels: []panel{
		share("Busy", "Part of all cores that was not idle, as a mean of each step.",
			query{expr: `1 - avg by (instance) (rate(node_cpu_seconds_total{mode="idle",@}[$__interval]))`, legend: "{{instance}}"}),
		share("Time by mode", "Mean of all chosen machines' cores.",
			query{expr: `avg by (mode) (rate(node_cpu_seconds_total{mode!="idle",@}[$__interval]))`, legend: "{{mode}}"}),
		line("Load", "short", "Mean and highest load of each step.",
			query{expr: `avg_over_time(node_load1{@}[$__interval])`, legend: "{{instance}} mean"},
			query{expr: `max_over_time(node_load1{@}[$__interval])`, legend: "{{instance}} highest"}),
	}}
}

// share is a graph of parts of a whole.
func share(title, description string, q ...query) panel {
	p := line(title, "percentunit", description, q...)
	p.maximum = 1
	return p
}

func memories() row {
	return row{title: "Memory", panels: []panel{
		share("Memory in use", "What is not available to programs, as a mean of each step.",
			query{expr: `1 - avg_over_time(node_memory_MemAvailable_bytes{@}[$__interval]) / avg_over_time(node_memory_MemTotal_bytes{@}[$__interval])`, legend: "{{instance}}"}),
		line("Least memory available", "bytes", "The tightest moment of each step.",
			query{expr: `min_over_time(node_memory_MemAvailable_bytes{@}[$__interval])`, legend: "{{instance}}"}),
		line("Swap in use", "bytes", "Mean and highest of each step.",
			query{expr: `avg_over_time(node_memory_SwapTotal_bytes{@}[$__interval]) - avg_over_time(node_memory_SwapFree_bytes{@}[$__interval])`, legend: "{{instance}} mean"},
			query{expr: `max_over_time(node_memory_SwapTotal_bytes{@}[$__interval]) - min_over_time(node_memory_SwapFree_bytes{@}[$__interval])`, legend: "{{instance}} highest"}),
	}}
}

// kept are file systems on disks.
const kept = `fstype!~"tmpfs|ramfs|squashfs|iso9660|overlay|nsfs",@`

func fileSystems() row {
	return row{title: "File systems", panels: []panel{
		share("Space in use", "As a mean of each step. The slope says when a disk will be full.",
			query{expr: `1 - avg_over_time(node_filesystem_avail_bytes{` + kept + `}[$__interval]) / avg_over_time(node_filesystem_size_bytes{` + kept + `}[$__interval])`, legend: "{{instance}} {{mountpoint}}"}),
		line("Least space free", "bytes", "The tightest moment of each step.",
			query{expr: `min_over_time(node_filesystem_avail_bytes{` + kept + `}[$__interval])`, legend: "{{instance}} {{mountpoint}}"}),
		share("Inodes in use", "As a mean of each step.",
			query{expr: `1 - avg_over_time(node_filesystem_files_free{` + kept + `}[$__interval]) / (avg_over_time(node_filesystem_files{` + kept + `}[$__interval]) > 0)`, legend: "{{instance}} {{mountpoint}}"}),
	}}
}

func disks() row {
	return row{title: "Disks", panels: []panel{
		line("Read and written", "Bps", "Mean of each step.",
			query{expr: `sum by (instance) (rate(node_disk_read_bytes_total{@}[$__interval]))`, legend: "{{instance}} read"},
			query{expr: `sum by (instance) (rate(node_disk_written_bytes_total{@}[$__interval]))`, legend: "{{instance}} written"}),
		line("Written in a step", "bytes", "Bytes written within each step: what wears flash out.",
			query{expr: `sum by (instance) (increase(node_disk_written_bytes_total{@}[$__interval]))`, legend: "{{instance}}"}),
		line("Busy", "percentunit", "Part of the time in which a disk had something to do.",
			query{expr: `rate(node_disk_io_time_seconds_total{@}[$__interval])`, legend: "{{instance}} {{device}}"}),
	}}
}

// wires are network devices that lead somewhere.
const wires = `device!~"lo|veth.*|docker.*|br-.*|cali.*",@`

func networks() row {
	return row{title: "Network", panels: []panel{
		line("Traffic", "Bps", "Mean of each step.",
			query{expr: `sum by (instance) (rate(node_network_receive_bytes_total{` + wires + `}[$__interval]))`, legend: "{{instance}} received"},
			query{expr: `sum by (instance) (rate(node_network_transmit_bytes_total{` + wires + `}[$__interval]))`, legend: "{{instance}} sent"}),
		line("Traffic in a step", "bytes", "Bytes within each step.",
			query{expr: `sum by (instance) (increase(node_network_receive_bytes_total{` + wires + `}[$__interval]))`, legend: "{{instance}} received"},
			query{expr: `sum by (instance) (increase(node_network_transmit_bytes_total{` + wires + `}[$__interval]))`, legend: "{{instance}} sent"}),
		line("Errors in a step", "short", "Packets with errors, and packets dropped, within each step.",
			query{expr: `sum by (instance) (increase(node_network_receive_errs_total{` + wires + `}[$__interval])) + sum by (instance) (increase(node_network_transmit_errs_total{` + wires + `}[$__interval]))`, legend: "{{instance}} errors"},
			query{expr: `sum by (instance) (increase(node_network_receive_drop_total{` + wires + `}[$__interval])) + sum by (instance) (increase(node_network_transmit_drop_total{` + wires + `}[$__interval]))`, legend: "{{instance}} dropped"}),
	}}
}

func machines() row {
	return row{title: "Machines", panels: []panel{
		share("Availability", "Part of the scrapes of each step that the machine answered.",
			query{expr: `avg_over_time(up{@}[$__interval])`, legend: "{{instance}}"}),
		line("Starts", "short", "How often a machine was started within each step.",
			query{expr: `changes(node_boot_time_seconds{@}[$__interval])`, legend: "{{instance}}"}),
		line("Context switches and forks", "ops", "Mean of each step.",
			query{expr: `rate(node_context_switches_total{@}[$__interval])`, legend: "{{instance}} switches"},
			query{expr: `rate(node_forks_total{@}[$__interval])`, legend: "{{instance}} forks"}),
		line("Processes", "short", "Highest number in each step of those that run, and that wait for a disk.",
			query{expr: `max_over_time(node_procs_running{@}[$__interval])`, legend: "{{instance}} running"},
			query{expr: `max_over_time(node_procs_blocked{@}[$__interval])`, legend: "{{instance}} blocked"}),
		line("Open files", "short", "Highest number in each step.",
			query{expr: `max_over_time(node_filefd_allocated{@}[$__interval])`, legend: "{{instance}}"}),
		signed("Clock", "s", "Mean offset of the clock in each step.",
			query{expr: `avg_over_time(node_timex_offset_seconds{@}[$__interval])`, legend: "{{instance}}"}),
	}}
}

// signed is a graph of what may be negative.
func signed(title, unit, description string, q ...query) panel {
	p := line(title, unit, description, q...)
	p.signed = true
	return p
}
