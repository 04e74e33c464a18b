package result

import (
	"fmt"
	"math"

	"varve/benchmarks/chart"
)

// ChartFolder is where the page expects its pictures, relative to the page.
const ChartFolder = "benchmarks"

// Charts draws the pictures of the newest run of each verb that has one, by file
// name.
func Charts(entries []Entry) (map[string][]byte, error) {
	pictures := map[string][]byte{}
	for name, bars := range bars(entries) {
		text, err := bars.SVG()
		if err != nil {
			return nil, err
		}
		pictures[name] = text
	}
	return pictures, nil
}

// bars are the charts by file name.
func bars(entries []Entry) map[string]chart.Bars {
	charts := map[string]chart.Bars{}
	if run := newest(entries, "ingest"); len(run) > 0 {
		charts["ingest.svg"] = ingestBars(run)
	}
	if run := newest(entries, "fleet"); len(run) > 0 && run[0].Fleet != nil {
		charts["fleet-disk.svg"] = diskBars(run)
		if run[0].Query != nil && len(run[0].Query.Queries) > 0 {
			charts["fleet-queries.svg"] = queryBars(run)
		}
	}
	if run := newest(entries, "query"); len(run) > 0 && run[0].Query != nil && len(run[0].Query.Queries) > 0 {
		charts["query.svg"] = queryBars(run)
	}
	if run := newest(entries, "churn"); len(run) > 0 && len(run[0].Churn) > 0 {
		charts["churn.svg"] = depositBars(run, "Index of series that come and go", "bytes/series", func(e Entry) []Deposit { return e.Churn },
			func(d Deposit) float64 { return float64(d.Disk.IndexBytes) / float64(max(1, d.Replay.Series)) })
	}
	if run := newest(entries, "exporters"); len(run) > 0 && len(run[0].Exporters) > 0 {
		charts["exporters.svg"] = depositBars(run, "Disk of recorded exporters, settled, without fixed files", "bytes/sample", func(e Entry) []Deposit { return e.Exporters },
			func(d Deposit) float64 {
				return float64(d.Disk.Bytes-d.Disk.FixedBytes) / float64(max(1, d.Replay.Samples))
			})
	}
	return charts
}

// picture puts a chart into the page, if there is one.
func (p *page) picture(charts map[string]chart.Bars, name string) {
	if bars, drawn := charts[name]; drawn {
		fmt.Fprintf(p, "![%s](%s/%s)\n\n", bars.Title, ChartFolder, name)
	}
}

// ingestBars are the rates at every point.
func ingestBars(run []Entry) chart.Bars {
	b := chart.Bars{Title: "Ingestion by remote write", Unit: "million samples/s"}
	points := ingestPoints(run)
	for _, at := range points {
		b.Places = append(b.Places, fmt.Sprintf("%d x %d, %d.0", at.batch, at.connections, at.protocol))
	}
	for _, e := range run {
		server := chart.Server{Name: e.Peer.Name}
		for _, at := range points {
			server.Figures = append(server.Figures, e.ingestMedian(at, func(i Ingest) float64 { return i.SamplesPerSecond / 1e6 }))
		}
		b.Servers = append(b.Servers, server)
	}
	return b
}

// diskBars are the bytes of a fleet.
func diskBars(run []Entry) chart.Bars {
	b := chart.Bars{Title: "Disk of a fleet of recorded exporters, settled", Unit: "bytes/sample", Places: []string{"without fixed files", "whole directory", "index"}}
	for _, e := range run {
		server := chart.Server{Name: e.Peer.Name, Figures: []float64{math.NaN(), math.NaN(), math.NaN()}}
		if f := e.Fleet; f != nil && f.Disk.Bytes > 0 {
			samples := float64(f.Replay.Samples)
			server.Figures = []float64{float64(f.Disk.Bytes-f.Disk.FixedBytes) / samples, float64(f.Disk.Bytes) / samples, float64(f.Disk.IndexBytes) / samples}
		}
		b.Servers = append(b.Servers, server)
	}
	return b
}

// queryBars are the warm times of every query, relative to the slowest server's, so
// that long and short ones fit one picture.
func queryBars(run []Entry) chart.Bars {
	b := chart.Bars{Title: "Warm queries, time relative to the slowest server", Unit: "share of the slowest"}
	slowest := make([]float64, len(run[0].Query.Queries))
	times := func(e Entry, k int) float64 {
		if e.Query == nil || k >= len(e.Query.Queries) || e.Query.Queries[k].Error != "" {
			return math.NaN()
		}
		return median(e.Query.Queries[k].WarmSeconds)
	}
	for k, q := range run[0].Query.Queries {
		b.Places = append(b.Places, q.Name)
		for _, e := range run {
			if t := times(e, k); t > slowest[k] {
				slowest[k] = t
			}
		}
	}
	for _, e := range run {
		server := chart.Server{Name: e.Peer.Name}
		for k := range slowest {
			server.Figures = append(server.Figures, times(e, k)/slowest[k])
		}
		b.Servers = append(b.Servers, server)
	}
	return b
}

// depositBars are a figure of several fleets.
func depositBars(run []Entry, title, unit string, of func(Entry) []Deposit, figure func(Deposit) float64) chart.Bars {
	b := chart.Bars{Title: title, Unit: unit}
	for _, d := range of(run[0]) {
		b.Places = append(b.Places, d.Name)
	}
	for _, e := range run {
		server := chart.Server{Name: e.Peer.Name}
		for k := range b.Places {
			value := math.NaN()
			if k < len(of(e)) {
				value = figure(of(e)[k])
			}
			server.Figures = append(server.Figures, value)
		}
		b.Servers = append(b.Servers, server)
	}
	return b
}
