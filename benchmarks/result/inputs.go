package result

import (
	"fmt"
	"math"
	"slices"
)

// Input is one repetition at one point of one way in. As at Ingest, times are without
// the first round, in which the series are new.
type Input struct {
	// Part is influx, otlp, nats, opentsdb or text, Shape what rows look like, Format how
	// they are written, which says more than Part for a queue alone.
	Part   string `json:"part"`
	Shape  string `json:"shape"`
	Format string `json:"format"`
	Gzip   bool   `json:"gzip"`
	// Connections is 0 for a queue, whose messages were there before. Rows is how many a
	// request or message has: lines of line protocol. SamplesPerRow are of each.
	Connections   int `json:"connections"`
	Rows          int `json:"rows"`
	SamplesPerRow int `json:"samples_per_row"`
	Repetition    int `json:"repetition"`

	Samples int64   `json:"samples"`
	Seconds float64 `json:"seconds"`
	// P50Millis, P99Millis and MaxMillis are of requests, 0 for a queue.
	P50Millis float64 `json:"p50_ms"`
	P99Millis float64 `json:"p99_ms"`
	MaxMillis float64 `json:"max_ms"`
	// CPU, CPUSettled and GeneratorCPU are those of Ingest.
	CPU          float64 `json:"cpu_s_per_m"`
	CPUSettled   float64 `json:"cpu_settled_s_per_m"`
	GeneratorCPU float64 `json:"generator_cpu_s_per_m"`
	RSSBytes     int64   `json:"rss_bytes"`
	PeakBytes    int64   `json:"peak_bytes"`
	BodyBytes    float64 `json:"body_bytes_per_sample"`
	DiskBytes    float64 `json:"written_bytes_per_sample"`

	NewSeriesPerSecond float64 `json:"new_series_per_s"`
	NewSeriesCPU       float64 `json:"new_series_cpu_s_per_m"`
	SamplesPerCommit   float64 `json:"samples_per_commit,omitempty"`
	Allocations        float64 `json:"allocations_per_sample,omitempty"`
	SyncP50Millis      float64 `json:"fdatasync_p50_ms"`
	SyncP99Millis      float64 `json:"fdatasync_p99_ms"`

	// Sent is how many samples were acknowledged in all, each of another series or time,
	// Found how many the server had of them in the end.
	Sent  int64 `json:"sent"`
	Found int64 `json:"found"`
}

// SamplesPerSecond is the rate.
func (i Input) SamplesPerSecond() float64 { return float64(i.Samples) / i.Seconds }

// Valid says that the server has what it acknowledged, no more and no less.
func (i Input) Valid() bool { return i.Found == i.Sent }

// inputPoint is where an input was measured.
type inputPoint struct {
	shape, format     string
	gzip              bool
	connections, rows int
}

func (i Input) at() inputPoint {
	return inputPoint{i.Shape, i.Format, i.Gzip, i.Connections, i.Rows}
}

// name says what came in at the point.
func (at inputPoint) name(part string) string {
	name := at.shape
	if at.format != part {
		name += ", " + at.format
	}
	name += fmt.Sprintf(", %d rows", at.rows)
	if at.connections > 0 {
		name += fmt.Sprintf(" x %d", at.connections)
	}
	if at.gzip {
		name += ", gzip"
	}
	return name
}

// inputParts are the tables of the section, in order.
var inputParts = []struct{ part, head string }{
	{"influx", "Line protocol at /write: ten tags and ten fields a line (devops), or two tags and one field (short). Goal for Varve: no slower than VictoriaMetrics."},
	{"otlp", "OTLP in protobuf, one resource a request, gauges and cumulative sums by halves. Rows have ten points, thus a request 1000."},
	{"nats", "A stream of NATS JetStream that is full before the input starts, until every message is acknowledged. Beside the server runs NATS, on the same cores;\n" +
		"CPU is the server's alone. A row of the format prometheus is ten series of remote write 1.0, compressed with snappy."},
	{"opentsdb", "OpenTSDB's JSON at /api/put. Rows have ten objects."},
	{"text", "The exposition format with times, at /api/v1/import/prometheus. Rows have ten lines."},
}

// inputs writes a table for each part.
func (p *page) inputs(run []Entry) {
	p.WriteString("The same bodies for all servers, encoded beforehand. Medians of the repetitions in turns, each on an empty data directory; the first round,\n" +
		"in which all series are new, is apart. Each sample is of another series or time, and afterwards the server is asked how many it has: a point\n" +
		"where that is not what was acknowledged is invalid. \"x\" is the first server's samples/s over this one's. CPU and written bytes are the server's.\n\n")
	for _, part := range inputParts {
		p.inputPart(run, part.part, part.head)
	}
}

// inputPart writes one row for each point and server.
func (p *page) inputPart(run []Entry, part, head string) {
	var points []inputPoint
	for _, e := range run {
		for _, i := range e.Inputs {
			if i.Part == part && !slices.Contains(points, i.at()) {
				points = append(points, i.at())
			}
		}
	}
	if len(points) == 0 {
		return
	}
	fmt.Fprintf(p, "### %s\n\n%s\n\n", part, head)
	var rows [][]string
	ratios := map[string][]float64{}
	for _, at := range points {
		first := math.NaN()
		for n, e := range run {
			repetitions := e.inputsAt(part, at)
			if len(repetitions) == 0 {
				continue
			}
			row := append([]string{at.name(part), e.Peer.Name}, inputCells(repetitions, first)...)
			rows = append(rows, row)
			rate := inputRate(repetitions)
			if n == 0 {
				first = rate
			} else if x := first / rate; x == x {
				ratios[e.Peer.Name] = append(ratios[e.Peer.Name], x)
			}
		}
	}
	p.table([]string{"request", "server", "k samples/s", "k rows/s", "x", "CPU s/M", "CPU s/M settled", "generator s/M", "p50 ms", "p99 ms", "max ms", "RSS MiB", "B/sample sent",
		"written B/sample", "samples a commit", "allocations/sample", "k new series/s", "fdatasync p50 / p99 ms"}, rows)
	for _, e := range run[1:] {
		if list := ratios[e.Peer.Name]; len(list) > 0 {
			fmt.Fprintf(p, "Over all points %s takes in %s times as much as %s (geometric mean), from %s to %s.\n\n", run[0].Peer.Name, number(geomean(list)), e.Peer.Name,
				number(slices.Min(list)), number(slices.Max(list)))
		}
	}
}

// inputsAt are the repetitions at a point.
func (e Entry) inputsAt(part string, at inputPoint) []Input {
	var list []Input
	for _, i := range e.Inputs {
		if i.Part == part && i.at() == at {
			list = append(list, i)
		}
	}
	return list
}

// inputRate is the median rate, NaN if a repetition is invalid.
func inputRate(repetitions []Input) float64 {
	var rates []float64
	for _, i := range repetitions {
		if !i.Valid() {
			return math.NaN()
		}
		rates = append(rates, i.SamplesPerSecond())
	}
	return median(rates)
}

// inputCells are the figures of a row. First is the rate of the first server, NaN for
// itself.
func inputCells(repetitions []Input, first float64) []string {
	for _, i := range repetitions {
		if !i.Valid() {
			return append([]string{fmt.Sprintf("invalid: has %d of %d", i.Found, i.Sent)}, slices.Repeat([]string{"-"}, 15)...)
		}
	}
	of := func(figure func(Input) float64) float64 {
		var values []float64
		for _, i := range repetitions {
			values = append(values, figure(i))
		}
		return median(values)
	}
	rate := inputRate(repetitions)
	x := "1.00"
	if first == first {
		x = ratio(first, rate)
	}
	return []string{
		thousands(rate), thousands(rate / float64(repetitions[0].SamplesPerRow)), x,
		number(of(func(i Input) float64 { return i.CPU })), number(of(func(i Input) float64 { return i.CPUSettled })),
		number(of(func(i Input) float64 { return i.GeneratorCPU })), known(of(func(i Input) float64 { return i.P50Millis })),
		known(of(func(i Input) float64 { return i.P99Millis })), known(of(func(i Input) float64 { return i.MaxMillis })),
		mib(int64(of(func(i Input) float64 { return float64(i.RSSBytes) }))), number(of(func(i Input) float64 { return i.BodyBytes })),
		number(of(func(i Input) float64 { return i.DiskBytes })), known(of(func(i Input) float64 { return i.SamplesPerCommit })),
		known(of(func(i Input) float64 { return i.Allocations })), thousands(of(func(i Input) float64 { return i.NewSeriesPerSecond })),
		number(of(func(i Input) float64 { return i.SyncP50Millis })) + " / " + number(of(func(i Input) float64 { return i.SyncP99Millis })),
	}
}
