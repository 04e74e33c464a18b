package ccms

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"varve/forward"
	"varve/forward/payload"
)

// post sends the lines over HTTP. The store may refuse a token that was changed a moment ago: then it is asked once
// more with the new one.
func (s *Sender) post(ctx context.Context, p *payload.Payload, _ *encoder) error {
	token, err := s.tokens.get("")
	if err != nil {
		return &forward.Blocked{Err: fmt.Errorf("output %s: %w", s.opts.Name, err)}
	}
	a, err := s.ask(ctx, p, token)
	if err != nil {
		return err
	}
	if a.Status == http.StatusUnauthorized {
		again, err := s.tokens.get(token)
		if err != nil {
			return &forward.Blocked{Err: fmt.Errorf("output %s: %w", s.opts.Name, err)}
		}
		if again != token {
			if a, err = s.ask(ctx, p, again); err != nil {
				return err
			}
		}
	}
	return a.Err(time.Now())
}

func (s *Sender) ask(ctx context.Context, p *payload.Payload, token string) (*forward.Answer, error) {
	// The store doesn't read compressed requests.
	r, err := p.Post(ctx, s.opts.URL, false)
	if err != nil {
		return nil, fmt.Errorf("output %s: %w", s.opts.Name, err)
	}
	r.Header.Set("Content-Type", "text/plain; charset=utf-8")
	r.Header.Set("User-Agent", "varve")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return forward.Do(s.client, r)
}
