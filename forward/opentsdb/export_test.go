package opentsdb

import "varve/forward"

// Trace is what an answer says of the points of b, which must be prepared by s.
func (s *Sender) Trace(answer string, b *forward.Batch) []forward.Refusal {
	var e encoder
	e.json(nil, b, &s.opts)
	return e.trace(pointErrors(answer), b, &s.opts)
}
