package remotewrite

import (
	"context"
	"fmt"

	"varve/arrival"
	"varve/ingest"
)

// Receiver returns what takes messages that hold what is the body of a request: a block of
// snappy, in it a message of 1.0 or of 2.0. They count under the same names as requests.
func (h *Handler) Receiver(second bool) ingest.Receiver {
	if second {
		return messages{h, version2}
	}
	return messages{h, version1}
}

// messages implements ingest.Receiver for one version.
type messages struct {
	h     *Handler
	proto protocol
}

// Receive implements ingest.Receiver. All that a message holds says its time.
func (m messages) Receive(ctx context.Context, message []byte, _ []ingest.Sent) (arrival.Result, error) {
	h := m.h
	start := h.now()
	a, err := h.take(ctx, m.proto, nil, message)
	counted := a
	if err != nil {
		counted = answerTo(err)
		counted.received, counted.decoded = a.received, a.decoded
	}
	h.log(ctx, nil, m.proto, &counted)
	h.meters[m.proto].Answered(counted.code, h.now().Sub(start), counted.received, counted.decoded, &counted.result)
	h.meters[m.proto].Told(&counted.result.Rejected, func() string { return counted.text })
	return a.result, err
}

// open decompresses a message.
func (q *request) open(message []byte) error {
	q.received = len(message)
	if most := q.limits.CompressedBytesMax; int64(len(message)) > most {
		return fmt.Errorf("%w: %d bytes compressed, at most %d", ingest.ErrTooBig, len(message), most)
	}
	return q.decompress(message)
}
