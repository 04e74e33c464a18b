package access

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	toolkit "github.com/prometheus/exporter-toolkit/web"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/time/rate"
	"gopkg.in/yaml.v3"
)

// WebFile is a web configuration file in the format of exporter-toolkit, read
// once. It is immutable; certificates and keys that it names as files are read
// again at each TLS handshake.
type WebFile struct {
	tls     *tls.Config
	http2   bool
	headers map[string]string
	limiter *rate.Limiter
	// users maps a name to the bcrypt hash of its password.
	users                      map[string]string
	clientCertificatesRequired bool
}

// headersAllowed are the response headers that the format lets a file set, with
// the values that each may have; an empty list means any.
var headersAllowed = map[string][]string{
	"Strict-Transport-Security": nil,
	"X-Content-Type-Options":    {"nosniff"},
	"X-Frame-Options":           {"deny", "sameorigin"},
	"X-XSS-Protection":          nil,
	"Content-Security-Policy":   nil,
}

// ReadWebFile reads and checks a web configuration file and everything it names.
// Unknown keys are mistakes.
func ReadWebFile(path string) (*WebFile, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read web configuration: %w", err)
	}
	defer f.Close()
	c := toolkit.Config{
		TLSConfig: toolkit.TLSConfig{
			MinVersion: toolkit.TLSVersion(tls.VersionTLS12),
			MaxVersion: toolkit.TLSVersion(tls.VersionTLS13),
		},
		HTTPConfig: toolkit.HTTPConfig{HTTP2: true},
	}
	dec := yaml.NewDecoder(f)
	dec.KnownFields(true)
	if err := dec.Decode(&c); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("web configuration %s: %w", path, err)
	}
	w, err := newWebFile(&c, filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("web configuration %s: %w", path, err)
	}
	return w, nil
}

func newWebFile(c *toolkit.Config, dir string) (*WebFile, error) {
	w := &WebFile{http2: c.HTTPConfig.HTTP2, headers: c.HTTPConfig.Header, users: map[string]string{}}
	for name, value := range c.HTTPConfig.Header {
		values, ok := headersAllowed[name]
		if !ok {
			return nil, fmt.Errorf("header %q can't be configured", name)
		}
		if len(values) > 0 && !slices.Contains(values, value) {
			return nil, fmt.Errorf("header %s: %q is not one of %q", name, value, values)
		}
	}
	for name, hash := range c.Users {
		if _, err := bcrypt.Cost([]byte(hash)); err != nil {
			return nil, fmt.Errorf("user %q: the password is not a bcrypt hash; make one with htpasswd -nBC 10 %q", name, name)
		}
		if bcrypt.CompareHashAndPassword([]byte(hash), nil) == nil {
			return nil, fmt.Errorf("user %q has an empty password", name)
		}
		w.users[name] = string(hash)
	}
	if c.RateLimiterConfig.Interval != 0 {
		w.limiter = rate.NewLimiter(rate.Every(c.RateLimiterConfig.Interval), c.RateLimiterConfig.Burst)
	}
	if !c.TLSConfig.IsEnabled() {
		return w, nil
	}
	if c.TLSConfig.MinVersion < tls.VersionTLS12 {
		return nil, errors.New("min_version below TLS12 is not supported")
	}
	c.TLSConfig.SetDirectory(dir)
	conf, err := toolkit.ConfigToTLSConfig(&c.TLSConfig)
	if err != nil {
		return nil, err
	}
	conf.NextProtos = []string{"http/1.1"}
	if w.http2 {
		conf.NextProtos = []string{"h2", "http/1.1"}
	}
	w.tls = conf
	w.clientCertificatesRequired = conf.ClientAuth == tls.RequireAndVerifyClientCert
	return w, nil
}

// TLS reports whether the file asks for TLS.
func (w *WebFile) TLS() bool { return w != nil && w.tls != nil }
