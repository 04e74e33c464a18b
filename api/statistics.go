package api

import (
	"context"
	"net/http"

	"github.com/prometheus/prometheus/util/stats"
	v1 "github.com/prometheus/prometheus/web/api/v1"

	"varve/query"
)

// ReadStatistics is what a query read from the storage.
type ReadStatistics struct {
	Series, Samples, Chunks, Bytes int64
	// FindSeconds is the time that it took to find the series, LoadSeconds to read what is coded, DecodeSeconds to decode it: the sum
	// over goroutines.
	FindSeconds, LoadSeconds, DecodeSeconds float64
}

// queryStatistics is data.stats of a query: upstream's own, and what Varve knows besides.
type queryStatistics struct {
	stats.BuiltinStats
	Varve varveStatistics `json:"varve"`
}

type varveStatistics struct {
	// Series were read, Samples decoded out of Chunks of so many Bytes.
	Series  int64 `json:"series"`
	Samples int64 `json:"samples"`
	Chunks  int64 `json:"chunks"`
	Bytes   int64 `json:"bytes"`
	// Parts is how many cores were used, Rows what planned selectors read of buckets and of samples between them.
	Parts int   `json:"parts"`
	Rows  int64 `json:"rows"`
	// Rerun says why the query was evaluated again in one piece, absent if it wasn't.
	Rerun   string       `json:"rerun,omitempty"`
	Seconds stageSeconds `json:"seconds"`
}

// stageSeconds is where the time went. Find, load and decode lie within evaluate, and are added up over the goroutines that do them at once.
type stageSeconds struct {
	Queue    float64 `json:"queue"`
	Prepare  float64 `json:"prepare"`
	Find     float64 `json:"find"`
	Load     float64 `json:"load"`
	Decode   float64 `json:"decode"`
	Evaluate float64 `json:"evaluate"`
	Sort     float64 `json:"sort"`
	Total    float64 `json:"total"`
}

type statisticsKey struct{}

// counted tells what a request's query took.
type counted struct {
	executed func() query.Statistics
	read     func() ReadStatistics
}

// countQuery has a query counted whose request asks for statistics. Nothing is counted for all others.
func (a *API) countQuery(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("stats") != "" {
			var c counted
			ctx := r.Context()
			ctx, c.executed = query.WithStatistics(ctx)
			if a.o.ReadStatistics != nil {
				ctx, c.read = a.o.ReadStatistics(ctx)
			}
			r = r.WithContext(context.WithValue(ctx, statisticsKey{}, &c))
		}
		next.ServeHTTP(w, r)
	})
}

// renderStatistics implements upstream's StatsRenderer.
func renderStatistics(ctx context.Context, s *stats.Statistics, parameter string) stats.QueryStats {
	builtin := v1.DefaultStatsRenderer(ctx, s, parameter)
	c, ok := ctx.Value(statisticsKey{}).(*counted)
	if builtin == nil || !ok {
		return builtin
	}
	out := &queryStatistics{BuiltinStats: builtin.Builtin()}
	executed := c.executed()
	t := &out.Timings
	out.Varve = varveStatistics{
		Series: executed.Series, Parts: executed.Parts, Rows: executed.Rows, Rerun: executed.Rerun,
		Seconds: stageSeconds{
			Queue: t.ExecQueueTime, Prepare: t.QueryPreparationTime, Evaluate: t.InnerEvalTime, Sort: t.ResultSortTime, Total: t.ExecTotalTime,
		},
	}
	if c.read != nil {
		read := c.read()
		v := &out.Varve
		v.Samples, v.Chunks, v.Bytes = read.Samples, read.Chunks, read.Bytes
		v.Seconds.Find, v.Seconds.Load, v.Seconds.Decode = read.FindSeconds, read.LoadSeconds, read.DecodeSeconds
	}
	return out
}
