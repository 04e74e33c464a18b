package ingest

import (
	"context"

	"varve/arrival"
)

// Receiver takes messages that come by other means than HTTP, in the form that an
// input reads as the body of a request. It is safe for use by several goroutines.
type Receiver interface {
	// Receive stores a message and returns once it is durable. It reads the message
	// during the call only. A result with something in Rejected means that the rest
	// is stored. The error's class (ErrMalformed, ErrTooBig) tells messages that will
	// never be taken; after any other the same message should be brought again, which
	// harms nothing if a part of it was stored.
	Receive(ctx context.Context, message []byte) (arrival.Result, error)
}
