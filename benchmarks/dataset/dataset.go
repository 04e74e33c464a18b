// Package dataset makes the series and samples which the benchmarks send: a
// fleet of hosts, each with a node exporter and an application, named and valued
// like the real ones, and the same for the same seed on every machine.
//
// A host has HostSeries series, of two targets: one exporter of the machine
// (processors, disks, networks, file systems) and one application (requests with
// their classic histograms, the Go runtime, the process). Hosts gather in
// clusters. Series are numbered host after host. A round is one scrape of all
// series: one sample of each, StepMillis after the round before; every target
// has a phase of its own within the step, as scraped targets do.
//
// A Dataset is immutable and safe for use by several goroutines. An Encoder and
// a Walk have state and belong to one goroutine.
//
// The values imitate counters that idle, counters that restart, gauges that
// wander and histograms whose buckets agree. They imitate no particular recording:
// what a store needs on disk for them says little about a real fleet.
package dataset

import (
	"fmt"

	"varve/benchmarks/wire"
)

// Config names a dataset. Equal configurations give equal bytes.
type Config struct {
	Seed   uint64
	Series int
	// StartMillis is when round 0 begins, StepMillis the time between rounds.
	StartMillis, StepMillis int64
	// HostsPerCluster is how many hosts share a cluster label, at least 1.
	HostsPerCluster int
}

// Dataset is the fixed part of the load: the names of all series.
type Dataset struct {
	config  Config
	symbols []string
	// refs holds, for each series, its label symbols in pairs of name and value,
	// sorted by name; series i has refs[refsAt[i]:refsAt[i+1]].
	refs   []uint32
	refsAt []uint32
	// labels1 holds the same labels in the encoding of remote write 1.0.
	labels1   []byte
	labels1At []uint32
	phase     []int64
	bytes     int64
}

// New names the series of a dataset.
func New(config Config) (*Dataset, error) {
	if config.Series < 1 || config.HostsPerCluster < 1 || config.StepMillis < 1 {
		return nil, fmt.Errorf("dataset: series, hosts a cluster and step must be at least 1: %+v", config)
	}
	d := &Dataset{config: config, symbols: []string{""}}
	ids := map[string]uint32{"": 0}
	intern := func(s string) uint32 {
		id, known := ids[s]
		if !known {
			id = uint32(len(d.symbols))
			ids[s] = id
			d.symbols = append(d.symbols, s)
		}
		return id
	}
	for i := range config.Series {
		d.refsAt = append(d.refsAt, uint32(len(d.refs)))
		d.labels1At = append(d.labels1At, uint32(len(d.labels1)))
		host, template := i/HostSeries, &hostTemplate[i%HostSeries]
		for _, pair := range template.labelsOn(host, config.HostsPerCluster) {
			d.refs = append(d.refs, intern(pair[0]), intern(pair[1]))
			d.labels1 = wire.AppendLabel(d.labels1, pair[0], pair[1])
			d.bytes += int64(len(pair[0]) + len(pair[1]))
		}
		d.phase = append(d.phase, int64(mix(config.Seed^uint64(host)<<1^uint64(template.target))%uint64(config.StepMillis)))
	}
	d.refsAt = append(d.refsAt, uint32(len(d.refs)))
	d.labels1At = append(d.labels1At, uint32(len(d.labels1)))
	return d, nil
}

// Config is what the dataset was made from.
func (d *Dataset) Config() Config { return d.config }

// Len is the number of series.
func (d *Dataset) Len() int { return d.config.Series }

// LabelBytesMean is the mean length of a series' label names and values.
func (d *Dataset) LabelBytesMean() float64 { return float64(d.bytes) / float64(d.Len()) }

// LabelsMean is the mean number of labels of a series, its name included.
func (d *Dataset) LabelsMean() float64 { return float64(len(d.refs)) / 2 / float64(d.Len()) }

// Label is the value of a label of series i, empty if it has none.
func (d *Dataset) Label(i int, name string) string {
	pairs := d.refs[d.refsAt[i]:d.refsAt[i+1]]
	for k := 0; k < len(pairs); k += 2 {
		if d.symbols[pairs[k]] == name {
			return d.symbols[pairs[k+1]]
		}
	}
	return ""
}

// Labels are all labels of series i by name. The map is the caller's.
func (d *Dataset) Labels(i int) map[string]string {
	labels := map[string]string{}
	pairs := d.refs[d.refsAt[i]:d.refsAt[i+1]]
	for k := 0; k < len(pairs); k += 2 {
		labels[d.symbols[pairs[k]]] = d.symbols[pairs[k+1]]
	}
	return labels
}

// Time is when series i is sampled in a round, in milliseconds.
func (d *Dataset) Time(i, round int) int64 {
	return d.config.StartMillis + int64(round)*d.config.StepMillis + d.phase[i]
}

// Values are the different values of a label, in the order of the series.
func (d *Dataset) Values(name string) []string {
	var values []string
	seen := map[string]bool{}
	for i := range d.Len() {
		if value := d.Label(i, name); value != "" && !seen[value] {
			seen[value] = true
			values = append(values, value)
		}
	}
	return values
}

// mix spreads the bits of x (the finaliser of splitmix64).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
