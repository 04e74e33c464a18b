package opentsdb

import (
	"time"

	"varve/forward"
)

// Patient has a target that is asked for the first time keep the connection for so long.
func (s *Sender) Patient(pause time.Duration) { s.askPause = pause }

// Trace is what an answer says of the points of b, which must be prepared by s.
func (s *Sender) Trace(answer string, b *forward.Batch) []forward.Refusal {
	var e encoder
	e.json(nil, b, &s.opts)
	return e.trace(pointErrors(answer), b, &s.opts)
}
