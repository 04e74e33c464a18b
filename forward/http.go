package forward

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/config"
)

// ErrRedirect is wrapped by the error of a peer that answered with another address. It is not followed: credentials
// and samples go where the configuration says.
var ErrRedirect = errors.New("the target redirects, which is not followed; configure the address it points to")

// answerMax bounds what is read of a peer's answer, in bytes.
const answerMax = 64 << 10

// NewClient makes the HTTP client of an output. Redirects are not followed, files with secrets are read again when they change.
// timeout bounds a request with its answer.
func NewClient(c config.HTTPClientConfig, name string, timeout time.Duration) (*http.Client, error) {
	c.FollowRedirects = false
	client, err := config.NewClientFromConfig(c, "output_"+name)
	if err != nil {
		return nil, fmt.Errorf("output %s: %w", name, err)
	}
	client.Timeout = timeout
	return client, nil
}

// Answer is a peer's answer, read whole up to 64 KiB.
type Answer struct {
	Status int
	Header http.Header
	Body   string
}

// Do sends the request and reads the answer. An error is of the network, and worth a retry.
func Do(client *http.Client, r *http.Request) (*Answer, error) {
	resp, err := client.Do(r)
	if err != nil {
		return nil, &Retry{Err: withoutAddress(err, r)}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, answerMax))
	if err != nil {
		return nil, &Retry{Err: fmt.Errorf("read the answer with status %d: %w", resp.StatusCode, err)}
	}
	// The rest is read off so that the connection can be used again, but not without bound.
	_, _ = io.CopyN(io.Discard, resp.Body, answerMax)
	return &Answer{Status: resp.StatusCode, Header: resp.Header, Body: strings.TrimSpace(string(body))}, nil
}

// withoutAddress names the host instead of the address, whose parameters may be secret.
func withoutAddress(err error, r *http.Request) error {
	e, ok := errors.AsType[*url.Error](err)
	if !ok {
		return err
	}
	// Inside may be another one, that of asking for a token.
	for inner, ok := e, true; ok; inner, ok = errors.AsType[*url.Error](inner.Err) {
		e = inner
	}
	return fmt.Errorf("%s to %s: %w", e.Op, hostOf(e.URL, r.URL.Host), e.Err)
}

// hostOf is the host of an address, or otherwise if it has none.
func hostOf(address, otherwise string) string {
	if u, err := url.Parse(address); err == nil && u.Host != "" {
		return u.Host
	}
	return otherwise
}

// withoutSecrets leaves the user and the parameters out of an address.
func withoutSecrets(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// Err says what a status means where the protocol says nothing else: nil for 2xx; Retry for 408, 425, 429 and 5xx; ErrTooLarge for
// 413; Blocked for redirects and for what is about the address or the credentials (401, 402, 403, 404, 405, 407, 415);
// Refused for all other 4xx. now is for a Retry-After that names a time.
func (a *Answer) Err(now time.Time) error {
	if a.Status/100 == 2 {
		return nil
	}
	said := a.said()
	switch {
	case a.Status/100 == 3:
		return &Blocked{Err: fmt.Errorf("%w: %s to %q", ErrRedirect, said, withoutSecrets(a.Header.Get("Location")))}
	case a.Status == http.StatusRequestEntityTooLarge:
		return TooLarge(said)
	case a.Status == http.StatusTooManyRequests, a.Status == http.StatusRequestTimeout, a.Status == http.StatusTooEarly, a.Status/100 == 5:
		return &Retry{After: retryAfter(a.Header.Get("Retry-After"), now), Err: errors.New(said)}
	}
	switch a.Status {
	case http.StatusUnauthorized, http.StatusPaymentRequired, http.StatusForbidden, http.StatusNotFound,
		http.StatusMethodNotAllowed, http.StatusProxyAuthRequired, http.StatusUnsupportedMediaType:
		return &Blocked{Err: errors.New(said)}
	}
	return &Refused{Err: errors.New(said)}
}

// saidMax bounds what of an answer's body goes to errors, in bytes.
const saidMax = 1024

func (a *Answer) said() string {
	body := a.Body
	if len(body) > saidMax {
		body = strings.ToValidUTF8(body[:saidMax], "") + "..."
	}
	return fmt.Sprintf("the target answered %d %s: %s", a.Status, http.StatusText(a.Status), body)
}

// retryAfter reads the header: seconds, or an HTTP date. Zero if there is none or it can't be read.
func retryAfter(header string, now time.Time) time.Duration {
	if header == "" {
		return 0
	}
	if s, err := strconv.ParseUint(header, 10, 31); err == nil {
		return time.Duration(s) * time.Second
	}
	if t, err := http.ParseTime(header); err == nil {
		return max(0, t.Sub(now))
	}
	return 0
}
