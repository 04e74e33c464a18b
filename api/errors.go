package api

import (
	"context"
	"errors"
	"net/http"

	"varve/query"
)

// status decides the status of errors that upstream would answer as failures of
// the query although the storage failed, the request asked for too much, or came
// at a bad time. The second result is false for all others.
func (a *API) status(err error) (int, bool) {
	switch {
	case errors.Is(err, query.ErrTooManySeries), errors.Is(err, errTooManySeries):
		return http.StatusUnprocessableEntity, true
	case errors.Is(err, query.ErrTooManyQueries), errors.Is(err, query.ErrClosed), errors.Is(err, context.DeadlineExceeded):
		return http.StatusServiceUnavailable, true
	}
	code := a.o.StorageStatus(err)
	return code, code != 0
}

// asOverride gives f the type that upstream wants, whose first parameter has an
// unexported type.
func asOverride[F ~func(N, error) (int, bool), N ~int](f func(error) (int, bool)) F {
	return func(_ N, err error) (int, bool) { return f(err) }
}
