package remotewrite

import (
	"context"
	"fmt"
	"sync"

	"github.com/klauspost/compress/s2"

	"varve/forward"
	"varve/forward/payload"
	"varve/forward/writerequest"
)

// answer is a peer's, with what was sent to it.
type answer struct {
	forward.Answer
	floats, histograms int
}

// post sends the batch as one request. There is no answer and no error if the message would be empty.
func (s *Sender) post(ctx context.Context, b *forward.Batch, v version) (*answer, error) {
	m := messages.Get().(*message)
	a := &answer{}
	if v == version2 {
		a.floats, a.histograms = m.encode2(b, s.parts)
	} else {
		m.encode1(b, s.parts)
	}
	if len(m.plain) == 0 {
		messages.Put(m)
		return nil, nil
	}
	body := payload.Get()
	defer body.Put()
	body.Data = compress(body.Data, m.plain)
	messages.Put(m)
	r, err := body.Post(ctx, s.o.URL, false)
	if err != nil {
		return nil, fmt.Errorf("make the request: %w", err)
	}
	r.Header = s.header[v].Clone()
	got, err := forward.Do(s.client, r)
	if err != nil {
		return nil, err
	}
	a.Answer = *got
	return a, nil
}

// compress makes a block of snappy in buf, or in new memory if that is too small.
func compress(buf, plain []byte) []byte {
	if n := s2.MaxEncodedLen(len(plain)); cap(buf) < n {
		buf = make([]byte, n)
	}
	return s2.EncodeSnappy(buf[:cap(buf)], plain)
}

// message is a message in the making.
type message struct {
	plain    []byte
	request2 writerequest.Request
}

var messages = sync.Pool{New: func() any { return new(message) }}

func (m *message) encode1(b *forward.Batch, parts writerequest.Parts) {
	m.plain = m.plain[:0]
	for i := range b.Series {
		series := &b.Series[i]
		if !parts.Empty(series) {
			m.plain = writerequest.AppendSeries(m.plain, formOf(series).encoded, series, parts)
		}
	}
	if parts.Metadata {
		for i := range b.Families {
			m.plain = writerequest.AppendFamily(m.plain, &b.Families[i])
		}
	}
}

// encode2 returns how many samples are in the message.
func (m *message) encode2(b *forward.Batch, parts writerequest.Parts) (floats, histograms int) {
	m.plain = m.plain[:0]
	for i := range b.Series {
		series := &b.Series[i]
		if !parts.Empty(series) {
			m.request2.Add(series, formOf(series).hashes, parts)
		}
	}
	floats, histograms, exemplars := m.request2.Counts()
	if floats+histograms+exemplars > 0 {
		m.plain = m.request2.Append(m.plain)
	}
	// What the pool keeps must not hold on to strings of the batch.
	m.request2.Reset()
	return floats, histograms
}

// formOf is what Prepare made of the target, or nothing if it is another sender's.
func formOf(s *forward.Series) *form {
	f, ok := s.Form.(*form)
	if !ok {
		return &form{}
	}
	return f
}
