package ledger

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// jobTimeout is longer than a server under test is at work for one request: it may have days to seal.
const jobTimeout = 5 * time.Minute

// Sender sends the requests of a History, one at a time. It belongs to one goroutine.
type Sender struct {
	history *History
	base    string
	client  *http.Client
}

// NewSender returns a sender to the server at the base URL, without a slash at its end.
func NewSender(h *History, base string) *Sender {
	return &Sender{history: h, base: base, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1}, Timeout: jobTimeout}}
}

// Close lets go of idle connections.
func (s *Sender) Close() { s.client.CloseIdleConnections() }

// Write sends a piece until it is acknowledged or the context ends, which an answer under way is waited for. A refusal is
// an error.
func (s *Sender) Write(ctx context.Context, protocol Protocol, p Piece) error {
	if p.Empty() {
		return nil
	}
	body, contentType, err := encode(protocol, p.request())
	if err != nil {
		return err
	}
	s.history.sending(&p)
	for ctx.Err() == nil {
		answer, err := post(s.client, s.base+"/api/v1/write", protocol, body, contentType)
		switch {
		case err != nil: // It may be stored or not.
		case answer.StatusCode/100 == 2:
			s.history.acknowledged(&p)
			return nil
		case answer.StatusCode/100 == 4 && answer.StatusCode != http.StatusTooManyRequests:
			return &Refused{Status: answer.StatusCode, Body: answer.Status}
		}
		pause(ctx, retryPause)
	}
	return nil
}

// Delete asks for a delete, once.
func (s *Sender) Delete(ctx context.Context, d *Deletion) error {
	answer, err := s.admin(ctx, "delete_series", url.Values{
		"match[]": {d.Selector}, "start": {seconds(d.FromMillis)}, "end": {seconds(d.ToMillis)}, "reason": {d.Reason},
	})
	if err == nil {
		s.history.Deleted(d, answer.Header.Get("X-Varve-Delete") != "")
	}
	return unanswered(err)
}

// Undelete asks for the end of a delete, once.
func (s *Sender) Undelete(ctx context.Context, d *Deletion) error {
	list, err := s.list(ctx)
	if err != nil {
		return unanswered(err)
	}
	s.history.Undoing(d)
	_, err = s.admin(ctx, "undelete", url.Values{"id": {list[d.Reason]}})
	refused := &Refused{}
	switch {
	case err == nil:
		s.history.Undone(d, true)
	case errors.As(err, &refused) && refused.Status == http.StatusConflict:
		s.history.Undone(d, false)
		return nil // Its grace is over.
	}
	return unanswered(err)
}

// list returns the ids of deletes by their reasons.
func (s *Sender) list(ctx context.Context) (map[string]string, error) {
	r := NewReader(s.base)
	defer r.Close()
	var listed []struct{ ID, Reason string }
	err := r.api(ctx, "/api/v1/admin/tsdb/deletes", nil, &listed)
	out := map[string]string{}
	for _, d := range listed {
		out[d.Reason] = d.ID
	}
	return out, err
}

// Clean has all deletes cleaned, and returns when that is done.
func (s *Sender) Clean(ctx context.Context) error {
	_, err := s.admin(ctx, "clean_tombstones", nil)
	return err
}

// Compact has the compactor do all that is due, and returns when that is done.
func (s *Sender) Compact(ctx context.Context) error {
	_, err := s.post(ctx, "/api/v1/admin/compactor/run?wait=true&force=true", nil)
	return err
}

func (s *Sender) admin(ctx context.Context, name string, form url.Values) (*http.Response, error) {
	return s.post(ctx, "/api/v1/admin/tsdb/"+name, form)
}

// post sends a form, again if the server puts it off, as one does whose disk has not answered for some seconds. Any other answer but 2xx is an
// error, a Refused.
func (s *Sender) post(ctx context.Context, path string, form url.Values) (*http.Response, error) {
	for {
		resp, err := s.postOnce(ctx, path, form)
		refused := &Refused{}
		if !errors.As(err, &refused) || refused.Status != http.StatusServiceUnavailable || ctx.Err() != nil {
			return resp, err
		}
		pause(ctx, retryPause)
	}
}

func (s *Sender) postOnce(ctx context.Context, path string, form url.Values) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.base+path, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, fmt.Errorf("post %s: %w", path, err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("post %s: %w", path, err)
	}
	text, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return nil, fmt.Errorf("post %s: %w", path, err)
	}
	if resp.StatusCode/100 != 2 {
		return nil, fmt.Errorf("post %s: %w", path, &Refused{Status: resp.StatusCode, Body: string(text)})
	}
	return resp, nil
}

// unanswered leaves of errors those that are an answer: without one nothing is known, which a check settles.
func unanswered(err error) error {
	if errors.As(err, new(*Refused)) {
		return err
	}
	return nil
}
