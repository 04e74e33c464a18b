package query

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
)

// The caller's faults, and the states in which a query is turned away.
var (
	// ErrTextTooLong: the text has more bytes than Limits.TextBytesMax.
	ErrTextTooLong = errors.New("query text too long")
	// ErrTooDeep: the expression nests deeper than Limits.DepthMax.
	ErrTooDeep = errors.New("query nests too deep")
	// ErrRegexTooLarge: a regular expression is longer than
	// Limits.RegexBytesMax, or all of them compile to more than
	// Limits.RegexStepsMax.
	ErrRegexTooLarge = errors.New("regular expression too large")
	// ErrTooManySteps: the query or a subquery has more steps than
	// Limits.StepsMax.
	ErrTooManySteps = errors.New("query has too many steps")
	// ErrTooManySeries: the selectors return more than Limits.SeriesMax.
	ErrTooManySeries = errors.New("query selects too many series")
	// ErrTooManyQueries: no slot became free, or the queue is full. To callers
	// that know upstream's errors it is a promql.ErrQueryTimeout, which the
	// upstream API answers with 503.
	ErrTooManyQueries = errors.New("too many queries")
	// ErrClosed: the engine was closed.
	ErrClosed = errors.New("query engine is closed")
)

// statusClientClosed is what upstream's API answers when the client went away.
const statusClientClosed = 499

// Status returns the HTTP status that the query API of Prometheus gives to an
// error of NewInstantQuery, NewRangeQuery, the Parser or a result: 400 for the
// text itself, 422 for this query over this data, 503 for overload, timeout and
// shutdown, 499 for a cancelled query, 500 for the storage, 200 for nil.
func Status(err error) int {
	var (
		timeout  promql.ErrQueryTimeout
		canceled promql.ErrQueryCanceled
		storage  promql.ErrStorage
		syntax   parser.ParseErrors
	)
	switch {
	case err == nil:
		return http.StatusOK
	case errors.Is(err, ErrTextTooLong), errors.Is(err, ErrTooDeep), errors.Is(err, ErrRegexTooLarge),
		errors.Is(err, ErrTooManySteps), errors.As(err, &syntax):
		return http.StatusBadRequest
	case errors.Is(err, ErrTooManyQueries), errors.Is(err, ErrClosed), errors.As(err, &timeout), errors.Is(err, context.DeadlineExceeded):
		return http.StatusServiceUnavailable
	case errors.As(err, &canceled), errors.Is(err, context.Canceled):
		return statusClientClosed
	case errors.As(err, &storage):
		return http.StatusInternalServerError
	}
	return http.StatusUnprocessableEntity
}

// busyError is ErrTooManyQueries with its reason.
type busyError struct{ reason string }

func (e busyError) Error() string {
	return fmt.Sprintf("%v: %s; try again later, or raise the query concurrency or its queue", ErrTooManyQueries, e.reason)
}

func (busyError) Is(target error) bool { return target == ErrTooManyQueries }

// As lets upstream's API, which knows nothing of this package, answer 503.
func (e busyError) As(target any) bool {
	if t, ok := target.(*promql.ErrQueryTimeout); ok {
		*t = promql.ErrQueryTimeout("query queue")
		return true
	}
	return false
}

// stopped returns upstream's error for a context that is done.
func stopped(ctx context.Context, where string) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return promql.ErrQueryTimeout(where)
	}
	return promql.ErrQueryCanceled(where)
}
