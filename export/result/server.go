package result

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	jsoniter "github.com/json-iterator/go"
)

// Server is a Source over HTTP: anything that has Prometheus' query_range below the URL.
type Server struct {
	// URL is the base, with or without a slash at its end; its path and its parameters are kept. HTTP is a client that
	// knows credentials and doesn't follow redirects.
	URL  *url.URL
	HTTP *http.Client
	// Header is sent with each request.
	Header http.Header
	// Timeout bounds a request; 0 is none.
	Timeout time.Duration
	// Resolution is what Varve is asked to answer from; empty leaves it to the server.
	Resolution string
	// Wait waits before a request that failed is sent again; nil sleeps.
	Wait func(context.Context, time.Duration) error
	// Retrying is told why, and when, a request is sent again. It may be nil.
	Retrying func(err error, in time.Duration)

	// answered is set once the server said anything: one that never did is more likely not there than busy.
	answered atomic.Bool
}

var _ Source = (*Server)(nil)

// What a busy server is spared: five tries, with twice as long between them each time.
const (
	triesMax  = 5
	firstWait = time.Second
	waitMax   = 30 * time.Second
)

// Range implements Source.
func (s *Server) Range(ctx context.Context, query string, g Grid, bytesMax int64) (Answer, error) {
	for try, wait := 1, firstWait; ; try++ {
		a, err := s.once(ctx, query, g, bytesMax)
		busy, again := errors.AsType[*busyError](err)
		if err == nil || !again || try == triesMax || ctx.Err() != nil {
			return a, err
		}
		pause := max(wait, min(busy.after, waitMax))
		if s.Retrying != nil {
			s.Retrying(err, pause)
		}
		if err := s.wait(ctx, pause); err != nil {
			return Answer{}, errors.Join(err, busy)
		}
		wait = min(2*wait, waitMax)
	}
}

func (s *Server) wait(ctx context.Context, d time.Duration) error {
	if s.Wait != nil {
		return s.Wait(ctx, d)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// busyError is an error of which a later request may know nothing.
type busyError struct {
	err   error
	after time.Duration
}

func (e *busyError) Error() string { return e.err.Error() }
func (e *busyError) Unwrap() error { return e.err }

// once sends one request.
func (s *Server) once(ctx context.Context, query string, g Grid, bytesMax int64) (a Answer, err error) {
	within := ctx
	if s.Timeout > 0 {
		var cancel context.CancelFunc
		within, cancel = context.WithTimeout(ctx, s.Timeout)
		defer cancel()
	}
	defer func() {
		if err != nil && ctx.Err() == nil && within.Err() != nil {
			err = fmt.Errorf("%w: no whole answer within %s; a longer --timeout helps, or a longer step", ErrTooLarge, s.Timeout)
		}
	}()
	form := url.Values{
		"query": {query}, "start": {seconds(g.First)}, "end": {seconds(g.Last)}, "step": {seconds(g.Step)},
		// VictoriaMetrics moves the bounds to multiples of the step without it.
		"nocache": {"1"},
	}
	if s.Resolution != "" {
		form.Set("resolution", s.Resolution)
	}
	answer, err := s.send(within, http.MethodPost, form)
	if err == nil && (answer.StatusCode == http.StatusMethodNotAllowed || answer.StatusCode == http.StatusNotImplemented) {
		if err = answer.Body.Close(); err == nil {
			answer, err = s.send(within, http.MethodGet, form)
		}
	}
	if err != nil {
		if _, network := errors.AsType[net.Error](err); network && s.answered.Load() {
			return a, &busyError{err: err}
		}
		return a, err
	}
	s.answered.Store(true)
	defer func() { err = errors.Join(err, answer.Body.Close()) }()
	if answer.StatusCode != http.StatusOK {
		return a, s.refused(answer)
	}
	d := decoder{grid: g, bytesMax: bytesMax}
	if err := d.decode(answer.Body); err != nil {
		_, network := errors.AsType[net.Error](err)
		again := network || errors.Is(err, io.ErrUnexpectedEOF)
		err = fmt.Errorf("read the answer of %s: %w", s.URL.Redacted(), err)
		if again {
			return a, &busyError{err: err}
		}
		return a, err
	}
	a = d.answer
	a.Resolution = answer.Header.Get("X-Varve-Resolution")
	return a, nil
}

func (s *Server) send(ctx context.Context, method string, form url.Values) (*http.Response, error) {
	u := s.URL.JoinPath("api/v1/query_range")
	var body io.Reader
	if method == http.MethodGet {
		q := u.Query()
		for name, values := range form {
			q[name] = values
		}
		u.RawQuery = q.Encode()
	} else {
		body = strings.NewReader(form.Encode())
	}
	r, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, err
	}
	for name, values := range s.Header {
		r.Header[name] = values
	}
	r.Header.Set("Accept", "application/json")
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return s.HTTP.Do(r)
}

// seconds writes ms as the API takes them, without rounding.
func seconds(millis int64) string {
	sign := ""
	if millis < 0 {
		sign, millis = "-", -millis
	}
	if millis%1000 == 0 {
		return sign + strconv.FormatInt(millis/1000, 10)
	}
	return fmt.Sprintf("%s%d.%03d", sign, millis/1000, millis%1000)
}

// errorTextMax bounds what is shown of an answer that is no success.
const errorTextMax = 2 << 10

// refused turns an answer that is no success into an error that shows what the server said.
func (s *Server) refused(answer *http.Response) error {
	body, _ := io.ReadAll(io.LimitReader(answer.Body, errorTextMax)) // What it says is told, if it says something.
	var said struct{ ErrorType, Error string }
	text := ""
	if jsoniter.ConfigCompatibleWithStandardLibrary.Unmarshal(body, &said) == nil && said.Error != "" {
		text = said.Error
		if said.ErrorType != "" {
			text = said.ErrorType + ": " + text
		}
	} else {
		text = string(body)
	}
	text = Line(text)
	err := fmt.Errorf("%s answered %s: %s", s.URL.Redacted(), answer.Status, text)
	switch code := answer.StatusCode; {
	case code >= 300 && code < 400:
		return fmt.Errorf("%s answered %s: it wants to be asked at %s; give that as the URL, without api/v1/query_range", s.URL.Redacted(), answer.Status, Line(answer.Header.Get("Location")))
	case code == http.StatusNotFound && text == "" || code == http.StatusNotFound && said.Error == "":
		return fmt.Errorf("%w; is there a Prometheus API below that URL?", err)
	case tooMuch(text):
		return fmt.Errorf("%w: %w", ErrTooLarge, err)
	case code == http.StatusTooManyRequests, code == http.StatusBadGateway, code == http.StatusServiceUnavailable, code == http.StatusGatewayTimeout:
		after, _ := strconv.Atoi(answer.Header.Get("Retry-After")) // A date, or nothing, is no wait of its own.
		return &busyError{err, time.Duration(max(0, min(after, 3600))) * time.Second}
	}
	return err
}

// tooMuch tells whether a server refused an answer for its size or its time, in the words of Prometheus and Varve, of
// VictoriaMetrics, of Mimir and Cortex, and of Thanos.
func tooMuch(text string) bool {
	text = strings.ToLower(text)
	for _, words := range []string{
		"exceeded maximum resolution", "too many samples", "query timed out", "too many steps", "query limit exceeded",
		"too many points", "cannot select more than", "maxpointspertimeseries", "maxsamplesperquery", "maxmemoryperquery", "not enough memory",
		"exceeds the limit", "exceeded the maximum", "response too large", "sample limit", "bytes limit", "chunks limit", "context deadline exceeded",
	} {
		if strings.Contains(text, words) {
			return true
		}
	}
	return false
}
