package ingest

import (
	"context"

	"varve/arrival"
)

// Sent says when a part of a message was sent: the bytes behind the part before it and before To.
type Sent struct {
	To     int
	Millis int64 // Unix
}

// Receiver takes messages that come by other means than HTTP, in the form that an
// input reads as the body of a request. It is safe for use by several goroutines.
type Receiver interface {
	// Receive stores a message and returns once it is durable. It reads the message
	// during the call only. sent says when its parts were sent, in their order: that is
	// the time of what says none itself, so that a message that comes again is the same
	// samples again. What is in no part counts as sent when it came. A result with something in Rejected means that the rest
	// is stored. The error's class (ErrMalformed, ErrTooBig) tells messages that will
	// never be taken; after any other the same message should be brought again, which
	// harms nothing if a part of it was stored.
	Receive(ctx context.Context, message []byte, sent []Sent) (arrival.Result, error)
}
