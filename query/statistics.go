package query

import (
	"context"
	"sync/atomic"
)

// Statistics is what an executed query took, beyond what promql.Query.Stats tells.
type Statistics struct {
	// Series were returned to its selectors.
	Series int64
	// Parts is how many parts of it were evaluated at once, or how many workers answered its planned selectors.
	Parts int
	// Rows are rows of rollups, and raw samples between them, that planned selectors read.
	Rows int64
	// Rerun says why it was evaluated again in one piece, empty if it wasn't.
	Rerun string
}

type statisticsKey struct{}

// WithStatistics returns a context and a function that tells what the last query that was executed in it took, the zero
// Statistics if there was none.
func WithStatistics(ctx context.Context) (within context.Context, executed func() Statistics) {
	var last atomic.Pointer[Statistics]
	return context.WithValue(ctx, statisticsKey{}, &last), func() Statistics {
		if s := last.Load(); s != nil {
			return *s
		}
		return Statistics{}
	}
}

// countTo tells whoever asked what the query took.
func (q *query) countTo(ctx context.Context, t *ticket) {
	if last, ok := ctx.Value(statisticsKey{}).(*atomic.Pointer[Statistics]); ok {
		q.used.mu.Lock()
		defer q.used.mu.Unlock()
		last.Store(&Statistics{Series: t.series.Load(), Parts: int(t.parts.Load()), Rows: q.used.rows, Rerun: q.rerun})
	}
}
