package result

import (
	"context"
	"errors"
	"fmt"
	"time"

	jsoniter "github.com/json-iterator/go"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/jsonutil"
)

// Engine is a Source in this process. The engine's limits hold for each part.
type Engine struct {
	Engine  promql.QueryEngine
	Storage storage.Queryable
	// Lookback is how far a query looks back; 0 is the engine's.
	Lookback time.Duration
	// TooLarge tells of an error of the storage that it would not have come with less time. Nil: of none.
	TooLarge func(error) bool
}

var _ Source = (*Engine)(nil)

// Range implements Source. What it returns belongs to the query, which Release closes.
func (e *Engine) Range(ctx context.Context, query string, g Grid, bytesMax int64) (Answer, error) {
	q, err := e.Engine.NewRangeQuery(ctx, e.Storage, promql.NewPrometheusQueryOpts(false, e.Lookback), query,
		time.UnixMilli(g.First), time.UnixMilli(g.Last), time.Duration(g.Step)*time.Millisecond)
	if err != nil {
		return Answer{}, &TextError{err}
	}
	a, err := e.exec(ctx, q, query, bytesMax)
	if err != nil {
		q.Close()
		return Answer{}, err
	}
	a.Release = q.Close
	return a, nil
}

func (e *Engine) exec(ctx context.Context, q promql.Query, query string, bytesMax int64) (Answer, error) {
	r := q.Exec(ctx)
	if r.Err != nil {
		if _, many := errors.AsType[promql.ErrTooManySamples](r.Err); many || e.TooLarge != nil && e.TooLarge(r.Err) {
			return Answer{}, fmt.Errorf("%w: %w", ErrTooLarge, r.Err)
		}
		return Answer{}, r.Err
	}
	m, err := r.Matrix()
	if err != nil {
		return Answer{}, err
	}
	var a Answer
	a.Warnings, a.Infos = r.Warnings.AsStrings(query, remarksMax, remarksMax)
	a.Series = make([]Series, len(m))
	used := int64(0)
	for i := range m {
		a.Series[i] = Series{Labels: m[i].Metric, Floats: m[i].Floats, Histograms: histogramTexts(m[i].Histograms)}
		if used += a.Series[i].bytes(); used > bytesMax {
			return Answer{}, fmt.Errorf("%w: more than %d MiB; narrow the query", ErrTooLarge, bytesMax>>20)
		}
	}
	return a, nil
}

func histogramTexts(points []promql.HPoint) []Histogram {
	if len(points) == 0 {
		return nil
	}
	out := make([]Histogram, len(points))
	stream := jsoniter.ConfigDefault.BorrowStream(nil)
	defer jsoniter.ConfigDefault.ReturnStream(stream)
	for i, p := range points {
		stream.Reset(nil)
		jsonutil.MarshalHistogram(p.H, stream)
		out[i] = Histogram{p.T, append([]byte(nil), stream.Buffer()...)}
	}
	return out
}

// TextError says that a query could not even begin: its text is wrong, or forbidden.
type TextError struct{ Err error }

// Error implements error.
func (e *TextError) Error() string { return e.Err.Error() }

// Unwrap returns what the engine said.
func (e *TextError) Unwrap() error { return e.Err }
