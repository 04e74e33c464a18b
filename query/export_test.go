package query

import "github.com/prometheus/prometheus/promql"

// ForceSplit makes an engine split whatever the audit allows, into as many parts
// as there may be, however little that gains.
func (o *Options) ForceSplit() {
	o.private.stepsMin, o.private.anyReach, o.private.anyCore = 2, true, true
}

// Split tells into how many parts an executed query was evaluated, why it was
// not split, and why its parts were given up.
func Split(q promql.Query) (parts int, unsplit, rerun string) {
	own := q.(*query)
	return own.parts, own.unsplit, own.rerun
}

// Waiting returns the length of the queue.
func (e *Engine) Waiting() int { return e.gate.waiting() }

// BusyCores returns the number of cores that queries occupy.
func (e *Engine) BusyCores() int {
	e.cores.mu.Lock()
	defer e.cores.mu.Unlock()
	return e.cores.busy
}
