package influxdb

import "varve/forward"

// Trace is what an answer that refuses b says of its samples, which must be prepared by s.
func (s *Sender) Trace(a *forward.Answer, b *forward.Batch) []forward.Refusal {
	var e encoder
	return e.trace(a, b, e.encode(nil, b, &s.opts))
}
