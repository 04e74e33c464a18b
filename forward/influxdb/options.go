package influxdb

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/common/config"

	"varve/forward/lineprotocol"
)

// Protocol is the way to an InfluxDB.
type Protocol uint8

const (
	// V1 is POST /write, of InfluxDB 1.x, QuestDB and many others.
	V1 Protocol = iota
	// V2 is POST /api/v2/write, of InfluxDB 1.8, 2 and 3.
	V2
	// UDP is InfluxDB 1.x's service of that name. At most once: nothing answers.
	UDP
)

// Options of a Sender.
type Options struct {
	// Name is the output's, for errors.
	Name     string
	Protocol Protocol
	// URL is http://host:8086 or https, with or without the path of the protocol; udp://host:8089 for UDP. A path of
	// another name is kept and the protocol's path put behind.
	URL string
	// HTTP is about TLS, proxies and credentials; basic_auth is how 1.x wants its user.
	HTTP config.HTTPClientConfig
	// Timeout bounds a request with its answer. Zero means DefaultTimeout.
	Timeout time.Duration

	// Database has to be set for 1.x over HTTP, except for targets without databases (QuestDB). RetentionPolicy and
	// Consistency (any, one, quorum, all) are the target's default when empty.
	Database        string
	RetentionPolicy string
	Consistency     string
	// User and Password go into the address as u and p, for targets that don't know basic auth. They are never in an error.
	User     string
	Password config.Secret

	// Org, Bucket (or DATABASE/POLICY for 1.8) and the token are of 2.x. TokenFile is read again when it changes. At most
	// one of Token and TokenFile.
	Org       string
	Bucket    string
	Token     config.Secret
	TokenFile string

	Precision lineprotocol.Precision
	// Gzip compresses requests. QuestDB refuses that.
	Gzip bool
	// Route writes rows of several metrics; nil writes one measurement a metric.
	Route      *lineprotocol.Route
	Histograms lineprotocol.Histograms

	// DatagramBytesMax bounds a datagram's content. Zero means DefaultDatagramBytesMax.
	DatagramBytesMax int
}

const (
	// DefaultTimeout is Prometheus' for remote write.
	DefaultTimeout = 30 * time.Second
	// DefaultDatagramBytesMax is what an Ethernet frame of 1500 bytes carries behind the headers of IPv6 and UDP, so
	// that no datagram is cut into fragments, of which losing one loses all.
	DefaultDatagramBytesMax = 1452
	// datagramBytesMax is what a datagram of IPv4 can carry.
	datagramBytesMax = 65507
)

func (o *Options) check() error {
	o.Timeout = cmp.Or(o.Timeout, DefaultTimeout)
	o.DatagramBytesMax = cmp.Or(o.DatagramBytesMax, DefaultDatagramBytesMax)
	u, err := o.parsed()
	if err != nil {
		return err
	}
	switch scheme := u.Scheme; {
	case o.Protocol == UDP && scheme != "udp":
		return o.fault("UDP needs an address like udp://host:8089")
	case o.Protocol != UDP && scheme != "http" && scheme != "https":
		return o.fault("the address has to begin with http:// or https://")
	case u.Host == "" || o.Protocol == UDP && u.Port() == "":
		return o.fault("the address names no host and port")
	}
	if o.Protocol == V2 && o.Bucket == "" {
		return o.fault("InfluxDB 2 needs a bucket")
	}
	if o.Token != "" && o.TokenFile != "" {
		return o.fault("at most one of token and token_file")
	}
	if (o.Token != "" || o.TokenFile != "") && (o.HTTP.Authorization != nil || o.HTTP.BasicAuth != nil || o.HTTP.OAuth2 != nil) {
		return o.fault("a token beside other credentials")
	}
	if o.Route != nil && o.Histograms == lineprotocol.ClassicBuckets {
		return o.fault("classic buckets can't share rows: use count_sum or skip for native histograms")
	}
	if o.DatagramBytesMax < 0 || o.DatagramBytesMax > datagramBytesMax {
		return o.fault(fmt.Sprintf("datagrams of %d bytes: a datagram carries 1 to %d", o.DatagramBytesMax, datagramBytesMax))
	}
	switch o.Consistency {
	case "", "any", "one", "quorum", "all":
	default:
		return o.fault(fmt.Sprintf("consistency %q: use any, one, quorum or all", o.Consistency))
	}
	return nil
}

func (o *Options) fault(text string) error { return fmt.Errorf("output %s: %s", o.Name, text) }

func (o *Options) parsed() (*url.URL, error) {
	u, err := url.Parse(o.URL)
	if err != nil {
		// The parser's own error shows the address, which may hold a password.
		var parse *url.Error
		if errors.As(err, &parse) {
			err = parse.Err
		}
		return nil, fmt.Errorf("output %s: the address can't be read: %w", o.Name, err)
	}
	return u, nil
}

// address is where requests go, with all parameters.
func (o *Options) address() (string, error) {
	u, err := o.parsed()
	if err != nil {
		return "", err
	}
	path := "/write"
	if o.Protocol == V2 {
		path = "/api/v2/write"
	}
	if !strings.HasSuffix(u.Path, path) {
		u.Path = strings.TrimSuffix(u.Path, "/") + path
	}
	q := u.Query()
	set := func(key, value string) {
		if value != "" {
			q.Set(key, value)
		}
	}
	if o.Protocol == V2 {
		set("org", o.Org)
		set("bucket", o.Bucket)
	} else {
		set("db", o.Database)
		set("rp", o.RetentionPolicy)
		set("consistency", o.Consistency)
		set("u", o.User)
		set("p", string(o.Password))
	}
	set("precision", o.precision())
	u.RawQuery = q.Encode()
	return u.String(), nil
}

// precision is the parameter's value: 1.x has names of its own for two of them.
func (o *Options) precision() string {
	if o.Protocol == V1 {
		switch o.Precision {
		case lineprotocol.Nanoseconds:
			return "n"
		case lineprotocol.Microseconds:
			return "u"
		}
	}
	return o.Precision.String()
}

func (o *Options) httpConfig() config.HTTPClientConfig {
	c := o.HTTP
	if o.Token != "" || o.TokenFile != "" {
		c.Authorization = &config.Authorization{Type: "Token", Credentials: o.Token, CredentialsFile: o.TokenFile}
	}
	return c
}
