package opentsdb

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/common/config"
)

// Protocol is the way to an OpenTSDB.
type Protocol uint8

const (
	// HTTP is POST /api/put?details.
	HTTP Protocol = iota
	// Telnet is lines of "put METRIC TIME VALUE TAG=VALUE..." over TCP, a connection a batch: the end of the batch is the end of what is sent,
	// and a batch counts as taken when the server has read all and closed its side without a word. So a
	// batch cut off by the network is sent again: at least once between here and the server's memory. What the server fails to store later is lost:
	// it has no way to tell. Lines that it refuses it names by a text without the line, or it hangs up on them, so that the core cuts the batch
	// until it is found.
	Telnet
)

// Tag is a name and a value.
type Tag struct{ Name, Value string }

// Options of a Sender.
type Options struct {
	// Name is the output's, for errors.
	Name     string
	Protocol Protocol
	// URL is http://host:4242 or https; for telnet it is host:4242.
	URL string
	// HTTP is about TLS, proxies and credentials.
	HTTP config.HTTPClientConfig
	// Timeout bounds a request with its answer. Zero means DefaultTimeout.
	Timeout time.Duration

	// Sync has the server answer after points are stored; it takes longer.
	Sync bool
	// Milliseconds sends times in milliseconds, which servers since 2.0 take. Otherwise they are cut down to
	// seconds, so that of several samples of a series in a second the server keeps the last one.
	Milliseconds bool
	Gzip         bool

	// TagsMax is how many tags the server takes (tsd.storage.max_tags). Zero means DefaultTagsMax.
	TagsMax int
	// KeepLabels are kept first where a series has more labels than TagsMax; the others follow by name as far as there is room.
	KeepLabels []string
	// DefaultTag is given to series without labels. Zero means source=varve.
	DefaultTag Tag

	// LineBytesMax is the longest line that the server reads over telnet. Zero means DefaultLineBytesMax.
	LineBytesMax int
}

const (
	// DefaultTimeout is Prometheus' for remote write.
	DefaultTimeout = 30 * time.Second
	// DefaultTagsMax is OpenTSDB's.
	DefaultTagsMax = 8
	// DefaultLineBytesMax is what OpenTSDB's decoder of lines allows.
	DefaultLineBytesMax = 1024
)

func (o *Options) check() error {
	o.Timeout = cmp.Or(o.Timeout, DefaultTimeout)
	o.TagsMax = cmp.Or(o.TagsMax, DefaultTagsMax)
	o.LineBytesMax = cmp.Or(o.LineBytesMax, DefaultLineBytesMax)
	o.DefaultTag = cmp.Or(o.DefaultTag, Tag{Name: "source", Value: "varve"})
	if o.TagsMax < 1 {
		return fmt.Errorf("output %s: OpenTSDB needs at least one tag", o.Name)
	}
	if len(o.KeepLabels) > o.TagsMax {
		return fmt.Errorf("output %s: %d labels to keep, but the server takes %d tags", o.Name, len(o.KeepLabels), o.TagsMax)
	}
	if o.DefaultTag.Name == "" || o.DefaultTag.Value == "" {
		return fmt.Errorf("output %s: the default tag needs a name and a value", o.Name)
	}
	if o.Protocol == Telnet {
		if _, port, err := net.SplitHostPort(o.URL); err != nil || port == "" || strings.Contains(o.URL, "/") {
			return fmt.Errorf("output %s: the address for telnet has to be host:port", o.Name)
		}
		return nil
	}
	_, err := o.address()
	return err
}

// address is where requests go, with all parameters.
func (o *Options) address() (string, error) {
	u, err := url.Parse(o.URL)
	if err != nil {
		// The parser's own error shows the address, which may hold a password.
		var parse *url.Error
		if errors.As(err, &parse) {
			err = parse.Err
		}
		return "", fmt.Errorf("output %s: the address can't be read: %w", o.Name, err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return "", fmt.Errorf("output %s: the address has to begin with http:// or https:// and name a host", o.Name)
	}
	if !strings.HasSuffix(u.Path, "/api/put") {
		u.Path = strings.TrimSuffix(u.Path, "/") + "/api/put"
	}
	parameters := "details"
	if o.Sync {
		parameters = "sync&details"
	}
	if u.RawQuery != "" {
		parameters = u.RawQuery + "&" + parameters
	}
	u.RawQuery = parameters
	return u.String(), nil
}
