package influxdb

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"varve/forward"
	"varve/forward/payload"
)

// post sends a batch over HTTP: see Sender for what becomes of an answer with faults.
func (s *Sender) post(ctx context.Context, e *encoder, b *forward.Batch) (forward.Outcome, error) {
	p := payload.Get()
	defer p.Put()
	if p.Data = e.encode(p.Data, b, &s.opts); len(p.Data) == 0 {
		return e.out, nil
	}
	r, err := p.Post(ctx, s.url, s.opts.Gzip)
	if err != nil {
		return forward.Outcome{}, fmt.Errorf("output %s: %w", s.opts.Name, err)
	}
	r.Header.Set("Content-Type", "text/plain; charset=utf-8")
	r.Header.Set("User-Agent", "varve")
	answer, err := forward.Do(s.client, r)
	if err != nil {
		return forward.Outcome{}, &forward.Retry{Err: fmt.Errorf("write to InfluxDB: %w", err)}
	}
	err = s.judge(answer)
	var refused *forward.Refused
	switch {
	case errors.As(err, &refused):
		e.out.Refusals = e.trace(answer, b, p.Data)
	case err != nil:
		return forward.Outcome{}, err
	}
	return e.out, err
}

// judge says what an answer means for the batch as a whole.
func (s *Sender) judge(a *forward.Answer) error {
	m := messageOf(a)
	said := *a
	said.Body = m.text
	err := said.Err(time.Now())
	switch {
	case a.Status == http.StatusInternalServerError && m.says("retention policy not found", "database not found"):
		// InfluxDB 1.x says this for what no retry mends.
		return &forward.Blocked{Err: errors.New(m.text)}
	case a.Status == http.StatusBadRequest && m.says("database is required", "invalid precision", "invalid consistency level"):
		return &forward.Blocked{Err: errors.New(m.text)}
	case a.Status == http.StatusUnprocessableEntity:
		return &forward.Refused{Err: errors.New(m.text)}
	case a.Status == http.StatusUnsupportedMediaType && s.opts.Gzip:
		return &forward.Blocked{Err: fmt.Errorf("%w; switch gzip off for this target", err)}
	}
	return err
}
