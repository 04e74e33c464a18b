package result

import (
	"fmt"
	"slices"
)

// Pass is ingestion at a fixed rate while the compactor has much to do.
type Pass struct {
	Days             int         `json:"days"`
	Replay           Replay      `json:"replay"`
	OfferedPerSecond int         `json:"offered_per_s"`
	Stretches        []PassWrite `json:"stretches"`
}

// PassWrite is a stretch of time of one server.
type PassWrite struct {
	Server int `json:"server"` // each begins with an empty directory
	// Work is what the compactor did meanwhile, empty for nothing.
	Work             string  `json:"work"`
	Seconds          float64 `json:"seconds"`
	SamplesPerSecond float64 `json:"samples_per_s"`
	P50Millis        float64 `json:"p50_ms"`
	P90Millis        float64 `json:"p90_ms"`
	P99Millis        float64 `json:"p99_ms"`
	MaxMillis        float64 `json:"max_ms"`
	Requests         int     `json:"requests"`
	CPUSeconds       float64 `json:"cpu_s"`
	// WorkSeconds is how long the work took, which may be longer.
	WorkSeconds float64 `json:"work_s"`
	SyncP99     float64 `json:"fdatasync_p99_ms"`
}

// pass writes the stretches in order, each of work beside the idle one before it.
func (p *page) pass(run []Entry) {
	run = slices.DeleteFunc(slices.Clone(run), func(e Entry) bool { return e.Pass == nil })
	for _, e := range run {
		fmt.Fprintf(p, "%d days were written beforehand. ", e.Pass.Days)
		p.replay(e.Pass.Replay)
		fmt.Fprintf(p, "Then samples of now came in at %d thousand a second, while the compactor had nothing to do and while it worked on those days: at\n"+
			"full speed, as a request makes it (run), or in the background within its share of a core. \"x\" is over the stretch without work before.\n"+
			"Goal: p99 at most twice the usual.\n\n", e.Pass.OfferedPerSecond/1000)
		var rows [][]string
		idle := PassWrite{}
		for _, w := range e.Pass.Stretches {
			x50, x99 := "-", "-"
			if w.Work == "" {
				idle = w
			} else if idle.Server == w.Server {
				x50, x99 = ratio(w.P50Millis, idle.P50Millis), ratio(w.P99Millis, idle.P99Millis)
			}
			work := w.Work
			if work == "" {
				work = "nothing"
			}
			rows = append(rows, []string{fmt.Sprint(w.Server), work, number(w.WorkSeconds), thousands(w.SamplesPerSecond), fmt.Sprint(w.Requests),
				number(w.P50Millis), x50, number(w.P90Millis), number(w.P99Millis), x99, number(w.MaxMillis), number(w.CPUSeconds / w.Seconds), number(w.SyncP99)})
		}
		p.table([]string{e.Peer.Name, "work", "took s", "k samples/s", "requests", "p50 ms", "x", "p90 ms", "p99 ms", "x", "max ms", "cores", "fdatasync p99 ms"}, rows)
	}
}
