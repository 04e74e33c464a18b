package ingest

import (
	"errors"
	"net/http"
	"time"

	"varve/arrival"
)

// The classes of a request or message of which nothing more is stored. What is
// in none of them is not the sender's fault.
var (
	// ErrMalformed says that the bytes are not what the input reads. The same bytes
	// will never be taken.
	ErrMalformed = errors.New("malformed")
	// ErrTooBig says that there are more bytes than allowed.
	ErrTooBig = errors.New("request too big")
	// ErrOverload says that requests in flight hold all the memory that they may.
	ErrOverload = errors.New("too many bytes in flight")
	// ErrReading says that a body ended early or came too slowly.
	ErrReading = errors.New("read body")
	// ErrEncoding says that a body is compressed in a way that nobody here reads.
	ErrEncoding = errors.New("unknown encoding")
)

// RateLimited is the error of a write that is over the rate an input was given.
// Nothing of it is stored.
type RateLimited struct {
	// RetryAfter is when there is room for as much again.
	RetryAfter time.Duration
}

// Error implements error.
func (*RateLimited) Error() string { return "more samples a second than this input may bring" }

// defaultRetryAfter is the wait after trouble that says nothing about its length.
const defaultRetryAfter = 5 * time.Second

// ComesAgain says whether an HTTP status tells a sender to bring the same request again.
func ComesAgain(code int) bool {
	return code == http.StatusServiceUnavailable || code == http.StatusTooManyRequests
}

// Status returns the HTTP status of a request that ended in err, and for 429 and
// 503 how long its sender should wait.
func Status(err error) (code int, retryAfter time.Duration) {
	var unavailable *arrival.Unavailable
	var limited *RateLimited
	switch {
	case errors.Is(err, ErrTooBig):
		return http.StatusRequestEntityTooLarge, 0
	case errors.Is(err, ErrEncoding):
		return http.StatusUnsupportedMediaType, 0
	case errors.Is(err, ErrMalformed):
		return http.StatusBadRequest, 0
	case errors.As(err, &limited):
		return http.StatusTooManyRequests, max(limited.RetryAfter, time.Second)
	case errors.Is(err, ErrOverload):
		return http.StatusServiceUnavailable, time.Second
	case errors.As(err, &unavailable) && unavailable.RetryAfter > 0:
		return http.StatusServiceUnavailable, unavailable.RetryAfter
	}
	return http.StatusServiceUnavailable, defaultRetryAfter
}
