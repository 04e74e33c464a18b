package ingest

import (
	"slices"
	"strings"
	"sync"
	"time"

	"varve/arrival"
)

// Refusal is what an input refused for one reason since the start.
type Refusal struct {
	Reason string `json:"reason"`
	Count  uint64 `json:"count"`
	// Example is what a sender was told, not long ago, of something that was refused for the reason: text from outside. It is empty
	// if no more is known than the reason.
	Example string `json:"example"`
	// At is when that was, Last when something was refused last.
	At   *time.Time `json:"at,omitempty"`
	Last time.Time  `json:"last"`
}

const (
	// exampleBytesMax bounds an example.
	exampleBytesMax = 500
	// exampleEvery is how long an example stays before another takes its place: a sender with bad data repeats it with every request.
	exampleEvery = 10 * time.Second
)

// refusals are those of one input, by all its protocols.
type refusals struct {
	mu  sync.Mutex
	all map[arrival.Reason]*Refusal
}

// count counts what was refused at a time. text returns what the sender was told; it is asked only if that is to be kept.
func (r *refusals) count(rejected *arrival.Rejected, text func() string, now time.Time) {
	if rejected.Total() == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	told := ""
	for i, n := range rejected {
		if n == 0 {
			continue
		}
		reason := arrival.Reason(i)
		if r.all == nil {
			r.all = map[arrival.Reason]*Refusal{}
		}
		f := r.all[reason]
		if f == nil {
			f = &Refusal{Reason: reason.String()}
			r.all[reason] = f
		}
		f.Count += uint64(n)
		f.Last = now.UTC()
		if text == nil || f.At != nil && now.Sub(*f.At) < exampleEvery {
			continue
		}
		if told == "" {
			told = shortened(text())
		}
		if told != "" {
			at := now.UTC()
			f.Example, f.At = told, &at
		}
	}
}

// shortened cuts a text to exampleBytesMax, between two characters.
func shortened(text string) string {
	if len(text) > exampleBytesMax {
		text = text[:exampleBytesMax-3] + "..."
	}
	return strings.ToValidUTF8(text, "")
}

// list returns a copy, the most frequent first.
func (r *refusals) list() []Refusal {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := []Refusal{}
	for _, f := range r.all {
		out = append(out, *f)
	}
	slices.SortFunc(out, func(x, y Refusal) int {
		if x.Count != y.Count {
			return map[bool]int{true: -1, false: 1}[x.Count > y.Count]
		}
		return strings.Compare(x.Reason, y.Reason)
	})
	return out
}

// inputRefusals has those of each input by name. They stay over a change of the configuration, as the counters do.
type inputRefusals struct {
	mu  sync.Mutex
	all map[string]*refusals
}

func (i *inputRefusals) of(input string) *refusals {
	i.mu.Lock()
	defer i.mu.Unlock()
	r := i.all[input]
	if r == nil {
		r = &refusals{}
		if i.all == nil {
			i.all = map[string]*refusals{}
		}
		i.all[input] = r
	}
	return r
}

// Refusals tells what the input that the metrics are of refused since the start.
func (m *Metrics) Refusals() []Refusal { return m.refusals.of(m.input).list() }

// Told notes what a sender was told of what was refused. text is asked only if an example is wanted; it quotes what came from the sender in
// printable characters.
func (m *Meter) Told(rejected *arrival.Rejected, text func() string) {
	m.refusals.count(rejected, text, time.Now())
}
