package result

import (
	"fmt"
	"slices"
)

// Forward is what outputs do and cost.
type Forward struct {
	Sustained []Forwarding  `json:"sustained,omitempty"`
	CatchUp   []CatchUp     `json:"catch_up,omitempty"`
	Dead      []DeadOutputs `json:"dead,omitempty"`
}

// Forwarding is ingestion at one rate, without an output or with one that is alive.
type Forwarding struct {
	// Protocol is that of the output, 0 if there is none; ingestion is by 1.0.
	Protocol   int `json:"protocol"`
	Shards     int `json:"shards"`
	Repetition int `json:"repetition"`
	// OfferedPerSecond is the rate that samples were offered at, 0 for as many as were
	// taken.
	OfferedPerSecond int `json:"offered_per_s"`
	// Samples and Seconds are of ingestion, SentDuring what the peer had taken of them
	// when it ended, Sent when nothing was left, DrainSeconds later. Sent beyond Samples
	// came twice.
	Samples      int64   `json:"samples"`
	Seconds      float64 `json:"seconds"`
	SentDuring   int64   `json:"sent_during"`
	Sent         int64   `json:"sent"`
	DrainSeconds float64 `json:"drain_s"`
	// LagSamples and LagSeconds are what the server said as ingestion ended.
	LagSamples int64   `json:"lag_samples"`
	LagSeconds float64 `json:"lag_s"`

	P50Millis float64 `json:"p50_ms"`
	P99Millis float64 `json:"p99_ms"`
	// CPU is the server's until nothing was left, GeneratorCPU that of the benchmark,
	// which is the load and the peer: both in seconds a million samples ingested.
	CPU          float64 `json:"cpu_s_per_m"`
	GeneratorCPU float64 `json:"generator_cpu_s_per_m"`
	RSSBytes     int64   `json:"rss_bytes"`
	BodyBytes    float64 `json:"body_bytes_per_sample"`
}

// CatchUp is an output whose peer was away while samples came in at a live rate.
type CatchUp struct {
	// Source is where the backlog was read from: journal, gaps, or none if there was no
	// output.
	Source           string `json:"source"`
	Repetition       int    `json:"repetition"`
	OfferedPerSecond int    `json:"offered_per_s"`
	// IngestedPerSecond is over the whole time.
	IngestedPerSecond float64 `json:"ingested_per_s"`
	DownSeconds       float64 `json:"down_s"`
	// Backlog is what had been taken in and not sent when the peer came back, GapDays the
	// days of which parts were no longer in the journal.
	Backlog int64 `json:"backlog"`
	GapDays int   `json:"gap_days"`
	// WaitSeconds is from then to the first request, CatchUpSeconds from that until nothing
	// was behind, within which Sent samples came.
	WaitSeconds    float64 `json:"wait_s"`
	CatchUpSeconds float64 `json:"catch_up_s"`
	Sent           int64   `json:"sent"`
	// Ingested and Received are all samples, at the end. Received beyond Ingested came twice.
	Ingested int64 `json:"ingested"`
	Received int64 `json:"received"`
	// Memory is the resident memory of the server while the peer was away, at ten even
	// points in time, PeakBytes the most there was in the end.
	Memory    []int64 `json:"memory_bytes"`
	PeakBytes int64   `json:"peak_bytes"`
	P50Millis float64 `json:"p50_ms"`
	P99Millis float64 `json:"p99_ms"`
}

// Ratio is the rate of catching up over the rate of ingestion meanwhile.
func (c CatchUp) Ratio() float64 { return float64(c.Sent) / c.CatchUpSeconds / c.IngestedPerSecond }

// DeadOutputs is ingestion with outputs whose peers take nothing, or with none.
type DeadOutputs struct {
	Outputs          int     `json:"outputs"`
	Turn             int     `json:"turn"` // those with the same number are compared
	OfferedPerSecond int     `json:"offered_per_s"`
	Samples          int64   `json:"samples"`
	Seconds          float64 `json:"seconds"`
	P50Millis        float64 `json:"p50_ms"`
	P99Millis        float64 `json:"p99_ms"`
	MaxMillis        float64 `json:"max_ms"`
	CPU              float64 `json:"cpu_s_per_m"`
	RSSBytes         int64   `json:"rss_bytes"`
	// Attempts is how often the dead peers that can count were asked.
	Attempts int64 `json:"attempts"`
}

// forward writes what outputs do and cost.
func (p *page) forward(run []Entry) {
	run = slices.DeleteFunc(slices.Clone(run), func(e Entry) bool { return e.Forward == nil })
	p.WriteString("Samples come in by remote write 1.0, the peer of an output is in the process of the benchmark, which shares the cores. All rates are\n" +
		"thousands of samples a second.\n\n")
	for _, e := range run {
		p.sustained(e)
	}
	for _, e := range run {
		p.catchUp(e)
	}
	for _, e := range run {
		p.dead(e)
	}
}

// offered names a rate.
func offered(rate int) string {
	if rate == 0 {
		return "all"
	}
	return thousands(float64(rate))
}

// thousands writes a rate.
func thousands(rate float64) string { return number(rate / 1000) }

// sustained writes the medians of the repetitions, each beside what was measured without an output.
func (p *page) sustained(e Entry) {
	type at struct{ rate, protocol, shards int }
	points := map[at][]Forwarding{}
	var order []at
	for _, f := range e.Forward.Sustained {
		k := at{f.OfferedPerSecond, f.Protocol, f.Shards}
		if points[k] == nil {
			order = append(order, k)
		}
		points[k] = append(points[k], f)
	}
	if len(order) == 0 {
		return
	}
	fmt.Fprintf(p, "%s with one output, medians of %d repetitions in turns. CPU is the server's in seconds a million samples, until all were sent, \"more\" is what the output\n"+
		"adds to it. \"Twice\" are samples that the peer got more than once. Goal: 300 thousand samples/s beside ingestion.\n\n", e.Peer.Name, len(points[order[0]]))
	of := func(k at, figure func(Forwarding) float64) float64 {
		var values []float64
		for _, f := range points[k] {
			values = append(values, figure(f))
		}
		return median(values)
	}
	cpu := func(f Forwarding) float64 { return f.CPU }
	var rows [][]string
	for _, k := range order {
		name, more, twice := "no output", "-", "-"
		sent, drained, lag := "-", "-", "-"
		if k.protocol > 0 {
			name = fmt.Sprintf("%d.0, %d shards", k.protocol, k.shards)
			more = number(of(k, cpu) - of(at{rate: k.rate}, cpu))
			twice = number(of(k, func(f Forwarding) float64 { return float64(f.Sent - f.Samples) }))
			sent = thousands(of(k, func(f Forwarding) float64 { return float64(f.SentDuring) / f.Seconds }))
			lag = number(of(k, func(f Forwarding) float64 { return f.LagSeconds }))
			drained = number(of(k, func(f Forwarding) float64 { return f.DrainSeconds }))
		}
		rows = append(rows, []string{offered(k.rate), name,
			thousands(of(k, func(f Forwarding) float64 { return float64(f.Samples) / f.Seconds })), sent, lag, drained, twice,
			number(of(k, cpu)), more, number(of(k, func(f Forwarding) float64 { return f.GeneratorCPU })),
			number(of(k, func(f Forwarding) float64 { return f.P50Millis })), number(of(k, func(f Forwarding) float64 { return f.P99Millis })),
			mib(int64(of(k, func(f Forwarding) float64 { return float64(f.RSSBytes) }))), known(of(k, func(f Forwarding) float64 { return f.BodyBytes }))})
	}
	p.table([]string{"offered", "output", "ingested", "sent meanwhile", "lag at the end s", "then drained in s", "twice", "CPU s/M", "more", "benchmark s/M", "write p50 ms", "p99 ms", "RSS MiB", "B/sample sent"}, rows)
}

// catchUp writes one row a repetition.
func (p *page) catchUp(e Entry) {
	if len(e.Forward.CatchUp) == 0 {
		return
	}
	fmt.Fprintf(p, "The peer of %s is away, then comes back, while samples come in on and on. \"x\" is the rate of catching up over that of ingestion at the\n"+
		"same time; the goal is 3. From the journal, and from the archive by time where the journal was trimmed meanwhile. \"None\" is the same\n"+
		"ingestion without an output, for the memory.\n\n", e.Peer.Name)
	var rows [][]string
	for _, c := range e.Forward.CatchUp {
		row := []string{c.Source, fmt.Sprint(c.Repetition), thousands(c.IngestedPerSecond), number(c.DownSeconds)}
		if c.Source == "none" {
			row = append(row, "-", "-", "-", "-", "-", "-", "-")
		} else {
			row = append(row, number(float64(c.Backlog)/1e6), fmt.Sprint(c.GapDays), number(c.WaitSeconds), number(c.CatchUpSeconds),
				thousands(float64(c.Sent)/c.CatchUpSeconds), number(c.Ratio()), fmt.Sprint(c.Received-c.Ingested))
		}
		first, last := int64(0), int64(0)
		if n := len(c.Memory); n > 0 {
			first, last = c.Memory[0], c.Memory[n-1]
		}
		rows = append(rows, append(row, mib(first)+" to "+mib(last), mib(c.PeakBytes), number(c.P99Millis)))
	}
	p.table([]string{"read from", "turn", "ingested", "away s", "backlog M", "gap days", "first request after s", "caught up in s", "sent", "x", "twice",
		"RSS while away MiB", "peak MiB", "write p99 ms"}, rows)
}

// dead writes medians, and the median of what each turn gave as a ratio.
func (p *page) dead(e Entry) {
	if len(e.Forward.Dead) == 0 {
		return
	}
	fmt.Fprintf(p, "%s with no output and with five that are dead: connection refused, no answer, 500, 429 and 401. In turns, each on an empty directory. Medians;\n"+
		"the change is the median of the turns'. The goal is within 5 %%.\n\n", e.Peer.Name)
	var rates []int
	for _, d := range e.Forward.Dead {
		if !slices.Contains(rates, d.OfferedPerSecond) {
			rates = append(rates, d.OfferedPerSecond)
		}
	}
	figures := []func(DeadOutputs) float64{
		func(d DeadOutputs) float64 { return float64(d.Samples) / d.Seconds / 1000 }, func(d DeadOutputs) float64 { return d.P50Millis },
		func(d DeadOutputs) float64 { return d.P99Millis }, func(d DeadOutputs) float64 { return d.MaxMillis }, func(d DeadOutputs) float64 { return d.CPU },
		func(d DeadOutputs) float64 { return float64(d.RSSBytes) / (1 << 20) }, func(d DeadOutputs) float64 { return float64(d.Attempts) },
	}
	var rows [][]string
	for _, rate := range rates {
		none, five, change := []string{offered(rate), "0"}, []string{offered(rate), "5"}, []string{offered(rate), "change"}
		for _, figure := range figures {
			a, b, ratios := e.deadFigure(rate, figure)
			none, five = append(none, number(median(a))), append(five, number(median(b)))
			text := "-"
			if m := median(ratios); m == m {
				text = fmt.Sprintf("%+.1f %%", 100*(m-1))
			}
			change = append(change, text)
		}
		rows = append(rows, none, five, change)
	}
	p.table([]string{"offered", "dead outputs", "ingested", "p50 ms", "p99 ms", "max ms", "CPU s/M", "RSS MiB", "attempts"}, rows)
}

// deadFigure is a figure of all turns at a rate, without outputs, with them, and as ratios.
func (e Entry) deadFigure(rate int, figure func(DeadOutputs) float64) (none, five, ratios []float64) {
	turns := map[int]float64{}
	for _, d := range e.Forward.Dead {
		if d.OfferedPerSecond == rate && d.Outputs == 0 {
			turns[d.Turn] = figure(d)
			none = append(none, figure(d))
		}
	}
	for _, d := range e.Forward.Dead {
		if d.OfferedPerSecond != rate || d.Outputs == 0 {
			continue
		}
		five = append(five, figure(d))
		if a := turns[d.Turn]; a > 0 {
			ratios = append(ratios, figure(d)/a)
		}
	}
	return none, five, ratios
}
