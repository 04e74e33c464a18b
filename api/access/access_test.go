package access_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/crypto/bcrypt"

	"varve/api/access"
	"varve/internal/testkit/leaks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(leaks.Patient(m)) }

var allGroups = []access.Group{access.Write, access.Query, access.Federate, access.Metadata, access.Admin, access.Lifecycle, access.Debug}

func hash(t testing.TB, password string) string {
	t.Helper()
	h, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	require.NoError(t, err)
	return string(h)
}

func writeFile(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func webFile(t testing.TB, text string) *access.WebFile {
	t.Helper()
	w, err := access.ReadWebFile(writeFile(t, "web.yml", text))
	require.NoError(t, err)
	return w
}

func users(t testing.TB) *access.WebFile {
	t.Helper()
	return webFile(t, fmt.Sprintf("basic_auth_users:\n  alice: %s\n  bob: %s\n", hash(t, "wonder"), hash(t, "builder")))
}

func guard(t testing.TB, o access.PolicyOptions) *access.Guard {
	t.Helper()
	p, err := access.NewPolicy(o)
	require.NoError(t, err)
	g, err := access.NewGuard(p, nil, nil)
	require.NoError(t, err)
	return g
}

// ask sends one request through the guard and returns the answer.
func ask(g *access.Guard, group access.Group, method string, set func(*http.Request)) *http.Response {
	r := httptest.NewRequest(method, "http://varve.example/x", nil)
	if set != nil {
		set(r)
	}
	w := httptest.NewRecorder()
	g.Protect(group, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, access.Caller(r.Context())) })).ServeHTTP(w, r)
	return w.Result()
}

func basic(user, password string) func(*http.Request) {
	return func(r *http.Request) { r.SetBasicAuth(user, password) }
}

func bearer(token string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }
}

func TestWhoMayDoWhat(t *testing.T) {
	// The matrix: every kind of sender against every group, under each kind of
	// policy. A group that is missing from a row must be refused with the status.
	tokens := []access.Token{{Name: "grafana", Secret: "t-grafana"}, {Name: "sender", Secret: "t-sender"}}
	rules := []access.Rule{
		{Who: []string{"token:grafana", "user:bob"}, May: []access.Group{access.Query, access.Metadata}},
		{Who: []string{"token:sender"}, May: []access.Group{access.Write}},
		{Who: []string{"user:alice"}, May: allGroups},
		{Who: []string{"authenticated"}, May: []access.Group{access.Federate}},
		{Who: []string{"anonymous"}, May: []access.Group{access.Debug}},
	}
	open := access.PolicyOptions{}
	withUsers := access.PolicyOptions{WebFile: users(t)}
	withAll := access.PolicyOptions{WebFile: users(t), Tokens: tokens}
	withRules := access.PolicyOptions{WebFile: users(t), Tokens: tokens, Rules: rules}
	onlyAnonymous := access.PolicyOptions{Rules: []access.Rule{{Who: []string{"anonymous"}, May: []access.Group{access.Query}}}}

	f := func(o access.PolicyOptions, sender func(*http.Request), refusal int, allowed ...access.Group) {
		t.Helper()
		g := guard(t, o)
		for _, group := range allGroups {
			want := refusal
			for _, a := range allowed {
				if a == group {
					want = http.StatusOK
				}
			}
			require.Equal(t, want, ask(g, group, http.MethodGet, sender).StatusCode, "group %s", group)
		}
	}
	f(open, nil, 0, allGroups...)
	f(open, basic("who", "ever"), 0, allGroups...)

	f(withUsers, nil, 401)
	f(withUsers, basic("alice", "wonder"), 0, allGroups...)
	f(withUsers, basic("alice", "builder"), 401)
	f(withUsers, basic("alice", ""), 401)
	f(withUsers, basic("", ""), 401)
	f(withUsers, bearer("t-grafana"), 401)
	require.Equal(t, 401, ask(guard(t, withUsers), access.Query, http.MethodGet, basic("carol", "wonder")).StatusCode)

	f(withAll, bearer("t-grafana"), 0, allGroups...)
	f(withAll, basic("bob", "builder"), 0, allGroups...)
	f(withAll, bearer(""), 401)
	f(withAll, bearer("t-grafan"), 401)
	f(withAll, bearer("t-grafana "+"x"), 401)
	f(withAll, func(r *http.Request) { r.Header.Set("Authorization", "t-grafana") }, 401)
	f(withAll, func(r *http.Request) { r.Header.Set("Authorization", "bearer t-grafana") }, 0, allGroups...)

	f(withRules, nil, 401, access.Debug)
	f(withRules, bearer("t-grafana"), 403, access.Query, access.Metadata, access.Federate, access.Debug)
	f(withRules, basic("bob", "builder"), 403, access.Query, access.Metadata, access.Federate, access.Debug)
	f(withRules, bearer("t-sender"), 403, access.Write, access.Federate, access.Debug)
	f(withRules, basic("alice", "wonder"), 0, allGroups...)
	f(withRules, bearer("wrong"), 401)

	f(onlyAnonymous, nil, 401, access.Query)
}

func TestCallerIsTold(t *testing.T) {
	// A handler learns who asked, by the credential that was shown.
	g := guard(t, access.PolicyOptions{WebFile: users(t), Tokens: []access.Token{{Name: "grafana", Secret: "s"}}})
	body, err := io.ReadAll(ask(g, access.Query, http.MethodGet, bearer("s")).Body)
	require.NoError(t, err)
	require.Equal(t, "token:grafana", string(body))
	body, err = io.ReadAll(ask(g, access.Query, http.MethodGet, basic("bob", "builder")).Body)
	require.NoError(t, err)
	require.Equal(t, "user:bob", string(body))
}

// TestMayTellsOfOtherGroups tells a handler what else its caller may do, so that a page need not offer what will be refused.
func TestMayTellsOfOtherGroups(t *testing.T) {
	may := func(o access.PolicyOptions, sender func(*http.Request)) (query, admin bool) {
		t.Helper()
		r := httptest.NewRequest(http.MethodGet, "http://varve.example/x", nil)
		if sender != nil {
			sender(r)
		}
		w := httptest.NewRecorder()
		guard(t, o).Protect(access.Metadata, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			query, admin = access.May(r.Context(), access.Query), access.May(r.Context(), access.Admin)
		})).ServeHTTP(w, r)
		require.Equal(t, http.StatusOK, w.Code)
		return query, admin
	}
	f := func(o access.PolicyOptions, sender func(*http.Request), wantQuery, wantAdmin bool) {
		t.Helper()
		query, admin := may(o, sender)
		require.Equal(t, wantQuery, query)
		require.Equal(t, wantAdmin, admin)
	}
	rules := access.PolicyOptions{WebFile: users(t), Rules: []access.Rule{
		{Who: []string{"user:bob"}, May: []access.Group{access.Query, access.Metadata}},
		{Who: []string{"user:alice"}, May: allGroups},
		{Who: []string{"anonymous"}, May: []access.Group{access.Metadata}},
	}}
	f(access.PolicyOptions{}, nil, true, true)
	f(rules, nil, false, false)
	f(rules, basic("bob", "builder"), true, false)
	f(rules, basic("alice", "wonder"), true, true)
	require.False(t, access.May(t.Context(), access.Query), "what no guard let through")
}

func TestPolicyRefusesWhatCannotBeMeant(t *testing.T) {
	// Empty secrets, doubled names and rules for nobody are mistakes, and their
	// texts hold no secret.
	f := func(o access.PolicyOptions, contains string) {
		t.Helper()
		_, err := access.NewPolicy(o)
		require.ErrorContains(t, err, contains)
		require.NotContains(t, err.Error(), "s3cret")
	}
	f(access.PolicyOptions{Tokens: []access.Token{{Name: "a"}}}, "empty")
	f(access.PolicyOptions{Tokens: []access.Token{{Secret: "s3cret"}}}, "no name")
	f(access.PolicyOptions{Tokens: []access.Token{{Name: "a", Secret: "s3cret"}, {Name: "a", Secret: "x"}}}, "twice")
	f(access.PolicyOptions{Rules: []access.Rule{{Who: []string{"user:alice"}, May: allGroups}}}, `"user:alice" is not known`)
	f(access.PolicyOptions{Rules: []access.Rule{{Who: []string{"san:"}, May: allGroups}}}, "not known")
	f(access.PolicyOptions{Rules: []access.Rule{{Who: []string{"anonymous"}}}}, "grants nothing")
	f(access.PolicyOptions{Rules: []access.Rule{{Who: []string{"anonymous"}, May: []access.Group{99}}}}, "unknown")
}

func TestWebFileRefusesMistakes(t *testing.T) {
	// Keys that don't exist, plain-text or empty passwords, old TLS and other
	// headers are refused, and no password is repeated.
	f := func(text, contains string) {
		t.Helper()
		_, err := access.ReadWebFile(writeFile(t, "web.yml", text))
		require.ErrorContains(t, err, contains)
		require.NotContains(t, err.Error(), "s3cret")
	}
	f("basic_users: {}\n", "line 1: field basic_users not found")
	f("basic_auth_users: {alice: s3cret}\n", `user "alice": the password is not a bcrypt hash`)
	f(fmt.Sprintf("basic_auth_users: {alice: '%s'}\n", hash(t, "")), "empty password")
	f("http_server_config: {headers: {X-Other: y}}\n", "can't be configured")
	f("http_server_config: {headers: {X-Frame-Options: maybe}}\n", "is not one of")
	f("tls_server_config: {cert_file: missing.pem, key_file: missing.key, min_version: TLS10}\n", "min_version")
	f("tls_server_config: {cert_file: missing.pem, key_file: missing.key}\n", "missing.pem")
	f("tls_server_config: {key_file: missing.key}\n", "missing one of cert or cert_file")
	_, err := access.ReadWebFile(filepath.Join(t.TempDir(), "none.yml"))
	require.ErrorIs(t, err, os.ErrNotExist)
	empty := webFile(t, "")
	require.False(t, empty.TLS())
}

func TestGuessingIsSlowedButRightCredentialsPass(t *testing.T) {
	// After ten wrong passwords an address is told to come back later, and so is a
	// user whose password wasn't seen before; one that was, and tokens, still pass.
	g := guard(t, access.PolicyOptions{WebFile: users(t), Tokens: []access.Token{{Name: "a", Secret: "right"}}})
	// A second more would be another try.
	clock := time.Now()
	g.SetClock(func() time.Time { return clock })
	require.Equal(t, 200, ask(g, access.Query, http.MethodGet, basic("alice", "wonder")).StatusCode)
	codes := map[int]int{}
	for i := range 30 {
		codes[ask(g, access.Query, http.MethodGet, bearer(fmt.Sprint("wrong", i))).StatusCode]++
	}
	require.Equal(t, map[int]int{401: 10, 503: 20}, codes)
	refused := ask(g, access.Query, http.MethodGet, basic("bob", "builder"))
	require.Equal(t, 503, refused.StatusCode)
	require.Equal(t, "5", refused.Header.Get("Retry-After"))
	require.Equal(t, 200, ask(g, access.Query, http.MethodGet, basic("alice", "wonder")).StatusCode)
	require.Equal(t, 200, ask(g, access.Query, http.MethodGet, bearer("right")).StatusCode)
	other := ask(g, access.Query, http.MethodGet, func(r *http.Request) {
		r.RemoteAddr = "192.0.2.77:1"
		r.SetBasicAuth("bob", "builder")
	})
	require.Equal(t, 200, other.StatusCode)
}

func TestMemoryForFailuresIsBounded(t *testing.T) {
	// Wrong tokens from many more addresses than are remembered are all refused.
	g := guard(t, access.PolicyOptions{Tokens: []access.Token{{Name: "a", Secret: "right"}}})
	for i := range 5000 {
		code := ask(g, access.Query, http.MethodGet, func(r *http.Request) {
			r.RemoteAddr = fmt.Sprintf("10.0.%d.%d:9", i/250, i%250)
			r.Header.Set("Authorization", "Bearer wrong")
		}).StatusCode
		require.Equal(t, 401, code)
	}
}

func TestReloadReplacesThePolicy(t *testing.T) {
	// A changed password works at once and the old one no longer, although it was
	// remembered as right.
	g := guard(t, access.PolicyOptions{WebFile: users(t)})
	require.Equal(t, 200, ask(g, access.Query, http.MethodGet, basic("alice", "wonder")).StatusCode)
	p, err := access.NewPolicy(access.PolicyOptions{WebFile: webFile(t, "basic_auth_users:\n  alice: "+hash(t, "changed")+"\n")})
	require.NoError(t, err)
	g.Set(p)
	require.Equal(t, 401, ask(g, access.Query, http.MethodGet, basic("alice", "wonder")).StatusCode)
	require.Equal(t, 200, ask(g, access.Query, http.MethodGet, basic("alice", "changed")).StatusCode)
}

func TestCrossSiteRequestsThatChangeSomethingAreRefused(t *testing.T) {
	// What a page of another site makes a browser send is refused unless it only
	// reads; requests of programs, which say nothing of sites, pass.
	p, err := access.NewPolicy(access.PolicyOptions{})
	require.NoError(t, err)
	g, err := access.NewGuard(p, &url.URL{Scheme: "https", Host: "metrics.example"}, nil)
	require.NoError(t, err)
	f := func(method string, header map[string]string, want int) {
		t.Helper()
		got := ask(g, access.Write, method, func(r *http.Request) {
			for k, v := range header {
				r.Header.Set(k, v)
			}
		})
		require.Equal(t, want, got.StatusCode, "%s %v", method, header)
	}
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete} {
		f(method, nil, 200)
		f(method, map[string]string{"Sec-Fetch-Site": "same-origin"}, 200)
		f(method, map[string]string{"Sec-Fetch-Site": "none"}, 200)
		f(method, map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}, 403)
		f(method, map[string]string{"Sec-Fetch-Site": "same-site", "Origin": "https://other.example"}, 403)
		f(method, map[string]string{"Origin": "https://evil.example"}, 403)
		f(method, map[string]string{"Origin": "null"}, 403)
		f(method, map[string]string{"Origin": "http://varve.example"}, 200)
		f(method, map[string]string{"Origin": "https://metrics.example", "Sec-Fetch-Site": "cross-site"}, 200)
	}
	f(http.MethodGet, map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}, 200)
}

func TestHeadersOfEveryAnswer(t *testing.T) {
	// Refusals have the protective headers too, and the web configuration may set
	// its own.
	f := func(g *access.Guard, name, want string) {
		t.Helper()
		require.Equal(t, want, ask(g, access.Query, http.MethodGet, nil).Header.Get(name))
	}
	for _, o := range []access.PolicyOptions{{}, {Tokens: []access.Token{{Name: "a", Secret: "b"}}}} {
		g := guard(t, o)
		f(g, "X-Content-Type-Options", "nosniff")
		f(g, "X-Frame-Options", "deny")
		f(g, "Content-Security-Policy", "default-src 'self'; frame-ancestors 'none'; form-action 'self'; base-uri 'none'")
	}
	g := guard(t, access.PolicyOptions{WebFile: webFile(t, "http_server_config: {headers: {Strict-Transport-Security: max-age=1}}\n")})
	f(g, "Strict-Transport-Security", "max-age=1")
	both := guard(t, access.PolicyOptions{WebFile: users(t), Tokens: []access.Token{{Name: "a", Secret: "b"}}})
	require.Equal(t, []string{`Basic realm="varve"`, `Bearer realm="varve"`}, ask(both, access.Query, http.MethodGet, nil).Header["Www-Authenticate"])
}

func TestRateLimitOfTheWebFile(t *testing.T) {
	// The burst passes, then requests are refused.
	g := guard(t, access.PolicyOptions{WebFile: webFile(t, "rate_limit: {interval: 1h, burst: 3}\n")})
	codes := []int{}
	for range 5 {
		codes = append(codes, ask(g, access.Query, http.MethodGet, nil).StatusCode)
	}
	require.Equal(t, []int{200, 200, 200, 429, 429}, codes)
}

// authority is a certificate authority for one test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	dir  string
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	a := &authority{cert: cert, key: key, dir: t.TempDir()}
	a.write(t, "ca.pem", "CERTIFICATE", der)
	return a
}

func (a *authority) write(t testing.TB, name, kind string, der []byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(a.dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
}

// issue writes NAME.pem and NAME.key and returns the pair.
func (a *authority) issue(t testing.TB, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	require.NoError(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	a.write(t, name+".pem", "CERTIFICATE", der)
	a.write(t, name+".key", "PRIVATE KEY", keyDER)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (a *authority) client(certificates ...tls.Certificate) *http.Client {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: certificates}, DisableKeepAlives: true, ForceAttemptHTTP2: true}}
}

func TestCertificatesAreReadAgainAndNameTheirHolder(t *testing.T) {
	// With client certificates required, one of the authority is let in under its
	// name, a stranger's handshake fails, and a server certificate that was renewed
	// on disk is used by the next connection.
	ca := newAuthority(t)
	ca.issue(t, "server")
	sender := ca.issue(t, "sender.example")
	other := ca.issue(t, "other.example")
	path := filepath.Join(ca.dir, "web.yml")
	require.NoError(t, os.WriteFile(path, []byte("tls_server_config: {cert_file: server.pem, key_file: server.key, client_ca_file: ca.pem, client_auth_type: RequireAndVerifyClientCert}\n"), 0o600))
	file, err := access.ReadWebFile(path)
	require.NoError(t, err)
	g := guard(t, access.PolicyOptions{WebFile: file, Rules: []access.Rule{{Who: []string{"san:sender.example"}, May: []access.Group{access.Write}}}})

	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: g.Protect(access.Write, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, access.Caller(r.Context()), " ", r.Proto)
	}))}
	server.ErrorLog = nil
	done := make(chan error, 1)
	go func() { done <- server.Serve(g.Listener(l)) }()
	defer func() {
		require.NoError(t, server.Close())
		require.ErrorIs(t, <-done, http.ErrServerClosed)
	}()
	target := "https://" + l.Addr().String() + "/"

	answer, err := ca.client(sender).Get(target)
	require.NoError(t, err)
	body, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	require.NoError(t, answer.Body.Close())
	require.Equal(t, "san:sender.example HTTP/2.0", string(body))
	serial := answer.TLS.PeerCertificates[0].SerialNumber

	answer, err = ca.client(other).Get(target)
	require.NoError(t, err)
	require.NoError(t, answer.Body.Close())
	require.Equal(t, 403, answer.StatusCode)

	_, err = ca.client().Get(target)
	require.Error(t, err)
	_, err = ca.client(newAuthority(t).issue(t, "sender.example")).Get(target)
	require.Error(t, err)

	ca.issue(t, "server")
	answer, err = ca.client(sender).Get(target)
	require.NoError(t, err)
	require.NoError(t, answer.Body.Close())
	require.NotEqual(t, serial, answer.TLS.PeerCertificates[0].SerialNumber)
}

func TestCertificateAloneWithoutRules(t *testing.T) {
	// A verified certificate is enough where nothing else is configured, and not
	// where users are, as with exporter-toolkit.
	verified := func(r *http.Request) {
		cert := &x509.Certificate{DNSNames: []string{"sender.example"}}
		r.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{cert}}}
	}
	unverified := func(r *http.Request) {
		r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{DNSNames: []string{"sender.example"}}}}
	}
	ca := newAuthority(t)
	ca.issue(t, "server")
	tlsPart := fmt.Sprintf("tls_server_config: {cert_file: %[1]s/server.pem, key_file: %[1]s/server.key, client_ca_file: %[1]s/ca.pem, client_auth_type: RequireAndVerifyClientCert}\n", ca.dir)
	alone := guard(t, access.PolicyOptions{WebFile: webFile(t, tlsPart)})
	require.Equal(t, 200, ask(alone, access.Write, http.MethodPost, verified).StatusCode)
	require.Equal(t, 401, ask(alone, access.Write, http.MethodPost, unverified).StatusCode)
	both := guard(t, access.PolicyOptions{WebFile: webFile(t, tlsPart+"basic_auth_users: {alice: '"+hash(t, "wonder")+"'}\n")})
	require.Equal(t, 401, ask(both, access.Write, http.MethodPost, verified).StatusCode)
	require.Equal(t, 200, ask(both, access.Write, http.MethodPost, func(r *http.Request) {
		verified(r)
		r.SetBasicAuth("alice", "wonder")
	}).StatusCode)
}

func TestGroupNames(t *testing.T) {
	// Every group is found under its name and nothing else is.
	for _, g := range allGroups {
		got, err := access.ParseGroup(g.String())
		require.NoError(t, err)
		require.Equal(t, g, got)
	}
	_, err := access.ParseGroup("all")
	require.ErrorContains(t, err, "write, query, federate")
	require.True(t, strings.HasPrefix(access.Group(42).String(), "group("))
}
