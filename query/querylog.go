package query

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/util/stats"
	"go.opentelemetry.io/otel/trace"
)

// queryLog writes one line a query, with upstream's message and attributes.
type queryLog struct {
	mu sync.RWMutex // guards to
	to promql.QueryLogger
}

// set replaces the logger and closes the former.
func (l *queryLog) set(to promql.QueryLogger) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	former := l.to
	l.to = to
	if former == nil {
		return nil
	}
	return former.Close()
}

// write logs a query that ended.
func (l *queryLog) write(ctx context.Context, r Running, s *stats.Statistics, err error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.to == nil {
		return
	}
	const iso8601 = "2006-01-02T15:04:05.000Z07:00"
	attrs := []slog.Attr{slog.Any("params", map[string]any{
		"query": r.Text,
		"start": r.Start.UTC().Format(iso8601),
		"end":   r.End.UTC().Format(iso8601),
		"step":  int64(r.Step / time.Second),
	})}
	if err != nil {
		attrs = append(attrs, slog.Any("error", err))
	}
	attrs = append(attrs, slog.Any("stats", stats.NewQueryStats(s)))
	span := trace.SpanFromContext(ctx).SpanContext()
	attrs = append(attrs, slog.Any("spanID", span.SpanID()), slog.Any("traceID", span.TraceID()))
	if origin, ok := ctx.Value(promql.QueryOrigin{}).(map[string]any); ok {
		for k, v := range origin {
			attrs = append(attrs, slog.Any(k, v))
		}
	}
	slog.New(l.to).LogAttrs(context.Background(), slog.LevelInfo, "promql query logged", attrs...)
}
