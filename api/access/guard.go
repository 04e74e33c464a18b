package access

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync/atomic"
	"time"
)

// retryAfterFailures is what a client is told to wait that may not try further
// credentials yet. It is answered with 503 and not 429, since a Prometheus whose
// address is shared with a guesser would drop its samples on 429.
const retryAfterFailures = 5 * time.Second

// Guard applies the policy of the moment to requests.
type Guard struct {
	policy   atomic.Pointer[Policy]
	verifier *verifier
	// crossSite refuses what a page of another site makes a browser send.
	crossSite *http.CrossOriginProtection
	onDenied  func(Group, int)
}

// NewGuard returns a guard with that policy. Requests from pages of externalURL,
// which may be nil, count as same-site besides those of the address that was
// asked. onDenied, which may be nil, hears of every refusal with its status.
func NewGuard(p *Policy, externalURL *url.URL, onDenied func(Group, int)) (*Guard, error) {
	if onDenied == nil {
		onDenied = func(Group, int) {}
	}
	g := &Guard{verifier: newVerifier(time.Now), crossSite: http.NewCrossOriginProtection(), onDenied: onDenied}
	if externalURL != nil {
		if err := g.crossSite.AddTrustedOrigin(externalURL.Scheme + "://" + externalURL.Host); err != nil {
			return nil, err
		}
	}
	g.policy.Store(p)
	return g, nil
}

// Set replaces the policy for all requests that begin from now on.
func (g *Guard) Set(p *Policy) { g.policy.Store(p) }

// Policy returns the policy of the moment.
func (g *Guard) Policy() *Policy { return g.policy.Load() }

// Protect returns a handler that lets requests through to next if their sender
// may use the group.
func (g *Guard) Protect(group Group, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := g.policy.Load()
		setHeaders(w.Header(), p.webFile)
		if p.webFile != nil && p.webFile.limiter != nil && !p.webFile.limiter.Allow() {
			g.deny(w, group, http.StatusTooManyRequests)
			return
		}
		if err := g.crossSite.Check(r); err != nil {
			g.deny(w, group, http.StatusForbidden)
			return
		}
		principals, err := g.verifier.principals(r, p)
		switch {
		case errors.Is(err, errTooManyFailures):
			w.Header().Set("Retry-After", strconv.Itoa(int(retryAfterFailures.Seconds())))
			g.deny(w, group, http.StatusServiceUnavailable)
		case err == nil && p.allows(principals, group):
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, &caller{principals, p})))
		case err == nil && slices.Contains(principals, principalAuthenticated):
			g.deny(w, group, http.StatusForbidden)
		default:
			challenge(w.Header(), p)
			g.deny(w, group, http.StatusUnauthorized)
		}
	})
}

type callerKey struct{}

// caller is whoever sent a guarded request, and the policy that let it through.
type caller struct {
	principals []string
	policy     *Policy
}

// Caller returns the principal that a guarded request showed, such as
// "user:alice", or "" if it showed none.
func Caller(ctx context.Context) string {
	if c, _ := ctx.Value(callerKey{}).(*caller); c != nil && len(c.principals) > 0 {
		return c.principals[0]
	}
	return ""
}

// May reports whether the sender of a guarded request may also use another group.
// It is false for a request that no guard let through.
func May(ctx context.Context, group Group) bool {
	c, _ := ctx.Value(callerKey{}).(*caller)
	return c != nil && c.policy.allows(c.principals, group)
}

// Public returns a handler for what everybody may ask, such as whether the
// server is alive; it still sets the response headers.
func (g *Guard) Public(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		setHeaders(w.Header(), g.policy.Load().webFile)
		next.ServeHTTP(w, r)
	})
}

// Listener returns l with TLS as the policy of the moment of each handshake has
// it. A server that began without TLS can't be turned to it by a reload, nor
// back, so it returns l itself if the policy has none now.
func (g *Guard) Listener(l net.Listener) net.Listener {
	file := g.policy.Load().webFile
	if !file.TLS() {
		return l
	}
	conf := file.tls.Clone()
	conf.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		if f := g.policy.Load().webFile; f.TLS() {
			return f.tls, nil
		}
		return nil, errors.New("TLS was removed from the web configuration: restart to serve plain HTTP")
	}
	return tls.NewListener(l, conf)
}

func (g *Guard) deny(w http.ResponseWriter, group Group, code int) {
	g.onDenied(group, code)
	http.Error(w, http.StatusText(code), code)
}

func challenge(h http.Header, p *Policy) {
	if len(p.users) > 0 {
		h.Add("WWW-Authenticate", `Basic realm="varve"`)
	}
	if len(p.tokens) > 0 {
		h.Add("WWW-Authenticate", `Bearer realm="varve"`)
	}
}

// ContentSecurityPolicy is what every answer has, unless the web configuration or the answer sets another.
const ContentSecurityPolicy = "default-src 'self'; frame-ancestors 'none'; form-action 'self'; base-uri 'none'"

// setHeaders gives every answer the headers that keep a browser from running
// what a label value may contain. The web configuration may set others on top.
func setHeaders(h http.Header, f *WebFile) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "deny")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Content-Security-Policy", ContentSecurityPolicy)
	if f == nil {
		return
	}
	for name, value := range f.headers {
		h.Set(name, value)
	}
}
