package opentsdb

import (
	"strconv"

	"varve/forward"
	"varve/forward/lineprotocol"
)

// encoder writes batches as points and remembers which sample each is. It is used again for the sake of its memory.
type encoder struct {
	refs []ref
	out  forward.Outcome
	// Of lines: where the shortest is, and how long the longest is.
	shortest     [2]int
	longestBytes int
}

// ref is a float sample of a batch.
type ref struct{ series, float int32 }

func (r ref) refusal(reason string) forward.Refusal {
	return forward.Refusal{Series: int(r.series), Float: int(r.float), Histogram: -1, Reason: reason}
}

// The times that OpenTSDB takes for what they are meant to be: what fits into 32 bits are seconds, and what does not are
// milliseconds, of at most 13 digits.
const (
	secondsMax = 1<<32 - 1
	millisMax  = 9_999_999_999_999
)

// time is what OpenTSDB is told, and whether it can be.
func (o *Options) time(millis int64) (t int64, ok bool) {
	if o.Milliseconds {
		return millis, millis > secondsMax && millis <= millisMax
	}
	return millis / 1_000, millis >= 1_000 && millis/1_000 <= secondsMax
}

// encode calls add for each sample that can be expressed, and counts in e.out those that can't.
func (e *encoder) encode(b *forward.Batch, o *Options, add func(f *form, t int64, v float64)) {
	e.refs, e.out = e.refs[:0], forward.Outcome{}
	for i := range b.Series {
		s := &b.Series[i]
		f := s.Form.(*form)
		for j := range s.Floats {
			sample := &s.Floats[j]
			if reason := lineprotocol.Reason(sample.Value, sample.TimeMillis); reason != "" {
				e.out.Skip(reason, 1)
				continue
			}
			t, ok := o.time(sample.TimeMillis)
			if !ok {
				e.out.Skip(lineprotocol.ReasonTime, 1)
				continue
			}
			add(f, t, sample.Value)
			e.refs = append(e.refs, ref{int32(i), int32(j)})
		}
		e.out.Skip(lineprotocol.ReasonHistogram, len(s.Histograms))
	}
}

// json appends the points as an array, or nothing if there are none.
func (e *encoder) json(body []byte, b *forward.Batch, o *Options) []byte {
	before := byte('[')
	e.encode(b, o, func(f *form, t int64, v float64) {
		body = append(body, before)
		before = ','
		body = append(body, f.head...)
		body = strconv.AppendInt(body, t, 10)
		body = append(body, `,"value":`...)
		body = lineprotocol.AppendValue(body, v)
		body = append(body, '}')
	})
	if len(body) > 0 {
		body = append(body, ']')
	}
	return body
}

// lines appends the points as put lines.
func (e *encoder) lines(body []byte, b *forward.Batch, o *Options) []byte {
	e.shortest, e.longestBytes = [2]int{}, 0
	e.encode(b, o, func(f *form, t int64, v float64) {
		from := len(body)
		body = append(body, f.head...)
		body = strconv.AppendInt(body, t, 10)
		body = append(body, ' ')
		body = lineprotocol.AppendValue(body, v)
		body = append(body, f.tail...)
		if size := len(body) - from; e.longestBytes == 0 || size < e.shortest[1]-e.shortest[0] {
			e.shortest = [2]int{from, len(body)}
		}
		e.longestBytes = max(e.longestBytes, len(body)-from)
	})
	return body
}
