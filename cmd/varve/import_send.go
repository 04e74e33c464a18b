package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// importSender sends pieces to a server.
type importSender struct {
	client     *http.Client
	target     *url.URL
	parameters url.Values
	compress   bool
	// patience is how long the same piece may fail for reasons that pass.
	patience time.Duration
	now      func() time.Time
	wait     func(ctx context.Context, d time.Duration) error
	// retried is told before each wait.
	retried func(err error, wait time.Duration)
}

// importAnswer is what the server says of a piece.
type importAnswer struct {
	Lines    int64    `json:"lines"`
	Samples  int64    `json:"samples"`
	Refused  int64    `json:"refused"`
	Examples []string `json:"examples"`
	Error    string   `json:"error"`
}

// passing is a failure that may be over soon.
type passing struct {
	err   error
	after time.Duration // the server's wish
}

func (p *passing) Error() string { return p.err.Error() }
func (p *passing) Unwrap() error { return p.err }

// Waits between tries double from the first to the longest, ±20 %.
const (
	importWaitFirst = time.Second
	importWaitMax   = 30 * time.Second
)

// send sends a piece until the server takes it, refuses it for good, or patience ends.
func (s *importSender) send(ctx context.Context, piece []byte, header int) (importAnswer, error) {
	body := piece
	if s.compress {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, err := z.Write(piece)
		if err = errors.Join(err, z.Close()); err != nil {
			return importAnswer{}, err
		}
		body = b.Bytes()
	}
	began, wait := s.now(), importWaitFirst
	for {
		a, err := s.post(ctx, body, header)
		var p *passing
		if err == nil || !errors.As(err, &p) {
			return a, err
		}
		if err := ctx.Err(); err != nil {
			return a, err
		}
		if s.now().Sub(began) >= s.patience {
			return a, fmt.Errorf("%w; gave up after %s: run the same command again to go on", err, s.patience)
		}
		next := max(p.after, time.Duration(float64(wait)*(0.8+0.4*rand.Float64())))
		if s.retried != nil {
			s.retried(err, next)
		}
		if err := s.wait(ctx, next); err != nil {
			return a, err
		}
		wait = min(2*wait, importWaitMax)
	}
}

func (s *importSender) post(ctx context.Context, body []byte, header int) (a importAnswer, err error) {
	u := *s.target
	q := url.Values{"verbose": {"1"}}
	for name, values := range s.parameters {
		q[name] = values
	}
	if header > 0 {
		q.Set("header", strconv.Itoa(header))
	}
	u.RawQuery = q.Encode()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(body))
	if err != nil {
		return a, err
	}
	if s.compress {
		r.Header.Set("Content-Encoding", "gzip")
	}
	answer, err := s.client.Do(r)
	if err != nil {
		return a, &passing{err: err}
	}
	text, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err = errors.Join(err, answer.Body.Close()); err != nil {
		return a, &passing{err: err}
	}
	parsed := json.Unmarshal(text, &a) == nil
	switch code := answer.StatusCode; {
	case code == http.StatusNoContent:
		return importAnswer{}, nil
	case (code == http.StatusOK || code == http.StatusBadRequest) && parsed && a.Error == "":
		return a, nil
	case code == http.StatusTooManyRequests, code >= 500:
		seconds, _ := strconv.Atoi(answer.Header.Get("Retry-After"))
		return a, &passing{err: statusError(answer, text, &a), after: time.Duration(seconds) * time.Second}
	default:
		return a, statusError(answer, text, &a)
	}
}

func statusError(answer *http.Response, text []byte, a *importAnswer) error {
	said := a.Error
	if said == "" {
		said = strings.TrimSpace(string(text[:min(len(text), 300)]))
	}
	return fmt.Errorf("the server answered %s: %s", answer.Status, strconv.QuoteToGraphic(said))
}
