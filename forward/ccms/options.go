package ccms

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"
	"unicode"

	"github.com/prometheus/common/config"
	"github.com/prometheus/prometheus/model/labels"
)

// Options of a Sender.
type Options struct {
	// Name is the output's, for errors.
	Name string
	// URL is http://host:8082 or https; /api/write is put behind unless it ends so. Empty if Publish is set.
	URL string
	// HTTP is about TLS, proxies and other headers than the token's.
	HTTP config.HTTPClientConfig
	// Timeout bounds a request with its answer. Zero means DefaultTimeout.
	Timeout time.Duration
	// Publish sends a message on the NATS subject that the store listens to, instead of HTTP: at most once, since
	// nothing answers there. It must not keep the message.
	Publish func(ctx context.Context, message []byte) error
	// MessageBytesMax bounds such a message, where a line isn't longer. Zero means DefaultMessageBytesMax.
	MessageBytesMax int

	// Cluster is a tag of all lines.
	Cluster string
	// HostnameLabel is the label that names the host. Empty means instance.
	HostnameLabel string
	// HostnameRegex has to match that label's value as a whole; its first group is the host's name. If it is empty the value is, without
	// a port at its end.
	HostnameRegex string
	// Metrics is the table of what goes to the store. The first row that selects a series has it.
	Metrics []Metric

	// One of these at most makes the bearer token. TokenFile and SeedFile are read again when they change. A seed is the 32 bytes
	// of an Ed25519 key, or the 64 of seed and public key, in base64: of it a token is made that lives for TokenLife (zero
	// means DefaultTokenLife).
	Token     config.Secret
	TokenFile string
	Seed      config.Secret
	SeedFile  string
	TokenLife time.Duration
	// Now is the clock of tokens. Nil means time.Now.
	Now func() time.Time
}

// Metric is a row of the table: which series become which metric of the store.
type Metric struct {
	// Name is the store's.
	Name string
	// Selector are the matchers of series. Empty means that the metric's name is Name.
	Selector []*labels.Matcher
	// Type is the level that the values are of: node, socket, core, hwthread, accelerator... Empty means node.
	Type string
	// IDLabel is the label with the id within the type, such as cpu for hwthread. IDRegex is as HostnameRegex.
	IDLabel, IDRegex string
	// SubType, SubIDLabel and SubIDRegex are the same for the level below.
	SubType, SubIDLabel, SubIDRegex string
	// Scale is what values are multiplied with. Zero means 1.
	Scale float64
	// Frequency is the store's time from slot to slot, for CheckMetrics. Zero: not checked.
	Frequency time.Duration
}

const (
	// DefaultTimeout is Prometheus' for remote write.
	DefaultTimeout = 30 * time.Second
	// DefaultMessageBytesMax keeps what one bad line costs to some 700 lines.
	DefaultMessageBytesMax = 64 << 10
	// DefaultTokenLife is long enough for clocks that differ by minutes, and short for who steals a token.
	DefaultTokenLife = 10 * time.Minute
)

func (o *Options) check() error {
	o.Timeout = cmp.Or(o.Timeout, DefaultTimeout)
	o.MessageBytesMax = cmp.Or(o.MessageBytesMax, DefaultMessageBytesMax)
	o.TokenLife = cmp.Or(o.TokenLife, DefaultTokenLife)
	o.HostnameLabel = cmp.Or(o.HostnameLabel, "instance")
	if o.Now == nil {
		o.Now = time.Now
	}
	if err := checkHost(o.Cluster); err != nil {
		return fmt.Errorf("output %s: cluster: %w", o.Name, err)
	}
	if (o.URL == "") == (o.Publish == nil) {
		return fmt.Errorf("output %s: either an address or NATS", o.Name)
	}
	if err := o.address(); err != nil {
		return err
	}
	credentials := 0
	for _, s := range []string{string(o.Token), o.TokenFile, string(o.Seed), o.SeedFile} {
		if s != "" {
			credentials++
		}
	}
	if credentials > 1 {
		return fmt.Errorf("output %s: at most one of token, token_file, seed and seed_file", o.Name)
	}
	if o.Seed != "" {
		if _, err := keyOf(string(o.Seed)); err != nil {
			return fmt.Errorf("output %s: %w", o.Name, err)
		}
	}
	return o.checkMetrics()
}

// address checks the URL and completes it.
func (o *Options) address() error {
	if o.URL == "" {
		return nil
	}
	u, err := url.Parse(o.URL)
	if err != nil {
		// The parser's own error shows the address, which may hold a password.
		var parse *url.Error
		if errors.As(err, &parse) {
			err = parse.Err
		}
		return fmt.Errorf("output %s: the address can't be read: %w", o.Name, err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("output %s: the address has to begin with http:// or https:// and name a host", o.Name)
	}
	if path := strings.TrimSuffix(u.Path, "/"); !strings.HasSuffix(path, "/api/write") {
		u.Path = path + "/api/write"
	}
	o.URL = u.String()
	return nil
}

func (o *Options) checkMetrics() error {
	if len(o.Metrics) == 0 {
		return fmt.Errorf("output %s: the table of metrics is empty, so that nothing would be sent", o.Name)
	}
	for i := range o.Metrics {
		m := &o.Metrics[i]
		if m.Name == "" {
			return fmt.Errorf("output %s: row %d of the table has no name", o.Name, i+1)
		}
		if (m.SubType == "") != (m.SubIDLabel == "") {
			return fmt.Errorf("output %s: metric %s: a subtype needs a label for its id, and such a label a subtype", o.Name, m.Name)
		}
		if len(m.Selector) == 0 {
			m.Selector = []*labels.Matcher{nameOf(m.Name)}
		}
		m.Type = cmp.Or(m.Type, "node")
		m.Scale = cmp.Or(m.Scale, 1)
	}
	return nil
}

var errHost = errors.New("the store doesn't take this name")

// checkHost refuses names that the store drops, since it makes folders of them.
func checkHost(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%w: it is empty", errHost)
	case strings.Contains(name, ".."), strings.ContainsAny(name, `/\`), strings.ContainsFunc(name, unicode.IsControl):
		return fmt.Errorf("%w: %q", errHost, name)
	}
	return nil
}

// withoutPort takes a port off the end. An IPv6 address without brackets has none.
func withoutPort(instance string) string {
	if host, _, err := net.SplitHostPort(instance); err == nil {
		return host
	}
	return strings.TrimSuffix(strings.TrimPrefix(instance, "["), "]")
}

// CheckMetrics compares the table with the store's configuration file, in JSON: each name has to be there, and a row's
// frequency has to be the store's, since samples further apart leave empty slots and closer ones overwrite each other.
func CheckMetrics(storeConfig []byte, metrics []Metric) error {
	var c struct {
		Metrics map[string]struct {
			FrequencySeconds float64 `json:"frequency"`
		} `json:"metrics"`
	}
	if err := json.Unmarshal(storeConfig, &c); err != nil {
		return fmt.Errorf("read the metric store's configuration: %w", err)
	}
	var faults []error
	for _, m := range metrics {
		there, known := c.Metrics[m.Name]
		if !known {
			faults = append(faults, fmt.Errorf("metric %s: the store doesn't know it and would drop it", m.Name))
			continue
		}
		if m.Frequency != 0 && m.Frequency.Seconds() != there.FrequencySeconds {
			faults = append(faults, fmt.Errorf("metric %s: its frequency is %s, but the store's is %g s", m.Name, m.Frequency, there.FrequencySeconds))
		}
	}
	return errors.Join(faults...)
}
