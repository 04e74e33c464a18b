// Package remotewrite sends batches by Prometheus remote write 1.0 and 2.0 over HTTP.
//
// A batch is one request. With 2.0 configured, a peer that turns out to speak 1.0 alone is spoken to in 1.0, and asked again after an
// hour. It turns out when the peer answers
//
//   - 415, which is how it should;
//   - 2xx without any of the headers that count what was written: a receiver of 1.0 that did not look at the content type has decoded an
//     empty message and stored nothing;
//   - 400 without these headers, if it then takes the same batch in 1.0.
//
// The batch itself is sent again in 1.0 at once.
//
// In 2.0 what the peer counts decides, not the status alone. A 2xx with fewer samples written than were sent is a refusal, since the
// protocol wants a 400 there: the batch is bisected until what is missing is known. A 4xx with all samples written is a
// success: then it is about exemplars, which Prometheus refuses when they come again, or without a sample in their series.
//
// A Sender is safe for use by several goroutines. It logs nothing and retries nothing.
package remotewrite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/common/config"

	"varve/forward"
	"varve/forward/writerequest"
)

// The messages, named as protobuf_message is in Prometheus.
const (
	Message1 = "prometheus.WriteRequest"
	Message2 = "io.prometheus.write.v2.Request"
)

// askAgain is how long a peer that refused 2.0 is spoken to in 1.0, unless Options say otherwise: a new version of it may know more.
const askAgain = time.Hour

// Options of a Sender.
type Options struct {
	// Name is the output's, for metrics of the HTTP client. URL is the address to post to.
	Name, URL string
	// Message is Message1 or Message2; empty: Message1.
	Message string
	// HTTP and Timeout make the client, unless Client is set. Timeout bounds a request with its answer; zero: 30 s.
	HTTP    config.HTTPClientConfig
	Timeout time.Duration
	Client  *http.Client
	// Headers are sent besides those of the protocol, which can't be set here. UserAgent is sent if it is not empty.
	Headers   map[string]string
	UserAgent string
	// Metadata, Exemplars and Histograms are left out unless set. Native histograms are counted as skipped then.
	Metadata, Exemplars, Histograms bool
	// AskAgain is how long 1.0 is spoken to a peer that does not know 2.0; zero: an hour.
	AskAgain time.Duration
	// Now is the clock; nil: the system's.
	Now func() time.Time
}

// Sender writes to one receiver. It implements forward.Sender.
type Sender struct {
	o      Options
	client *http.Client
	parts  writerequest.Parts
	header [2]http.Header // by version
	// speak1Until is when 2.0 is tried again, in Unix ns; zero if the peer speaks it.
	speak1Until atomic.Int64
	// confirmed says that the peer has once counted what it wrote, so that it speaks 2.0.
	confirmed atomic.Bool
}

var _ forward.Sender = (*Sender)(nil)

// New returns a sender. Nothing is sent yet.
func New(o Options) (*Sender, error) {
	switch o.Message {
	case "":
		o.Message = Message1
	case Message1, Message2:
	default:
		return nil, fmt.Errorf("protobuf_message is %q, not %s or %s", o.Message, Message1, Message2)
	}
	u, err := url.Parse(o.URL)
	if err != nil {
		// The error of url.Parse has the address, which may hold a password.
		return nil, errors.New("url can't be parsed")
	}
	if u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("url %q is not one of http or https with a host", u.Redacted())
	}
	if o.Timeout == 0 {
		o.Timeout = 30 * time.Second
	}
	if o.AskAgain == 0 {
		o.AskAgain = askAgain
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Sender{o: o, client: o.Client, parts: writerequest.Parts{Histograms: o.Histograms, Exemplars: o.Exemplars, Metadata: o.Metadata}}
	if s.client == nil {
		if s.client, err = forward.NewClient(o.HTTP, o.Name, o.Timeout); err != nil {
			return nil, err
		}
	}
	for v := range s.header {
		if s.header[v], err = headers(&o, version(v)); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// version is an index of what there is for each version.
type version int

const (
	version1 version = iota
	version2
)

// fixed are headers that are the protocol's or the connection's, in canonical form.
var fixed = map[string]bool{
	"Content-Encoding": true, "Content-Type": true, "Content-Length": true, "X-Prometheus-Remote-Write-Version": true, "Host": true,
	"User-Agent": true, "Connection": true, "Keep-Alive": true, "Transfer-Encoding": true, "Te": true, "Trailer": true, "Upgrade": true,
	"Proxy-Authenticate": true, "Proxy-Authorization": true, "Www-Authenticate": true, "Authorization": true,
}

// headers are those of every request.
func headers(o *Options, v version) (http.Header, error) {
	h := http.Header{}
	for name, value := range o.Headers {
		if fixed[http.CanonicalHeaderKey(name)] {
			return nil, fmt.Errorf("header %s can't be set: it is the protocol's, or has a setting of its own", name)
		}
		h.Set(name, value)
	}
	h.Set("Content-Encoding", "snappy")
	h.Set("Content-Type", "application/x-protobuf")
	h.Set("X-Prometheus-Remote-Write-Version", "0.1.0")
	if v == version2 {
		h.Set("Content-Type", "application/x-protobuf;proto="+Message2)
		h.Set("X-Prometheus-Remote-Write-Version", "2.0.0")
	}
	// An empty one keeps Go's own from being sent.
	h.Set("User-Agent", o.UserAgent)
	return h, nil
}

// form is what Prepare makes of labels: those of 1.0 encoded, or the hashes of their strings for 2.0.
type form struct {
	encoded []byte
	hashes  []uint32
}

// Prepare implements forward.Sender. There is no series that can't be written.
func (s *Sender) Prepare(t *forward.Target) error {
	if s.o.Message == Message2 {
		t.Form = &form{hashes: writerequest.AppendHashes(make([]uint32, 0, 2*t.Labels.Len()), t.Labels)}
		return nil
	}
	t.Form = &form{encoded: bytes.Clone(writerequest.AppendLabels(nil, t.Labels))}
	return nil
}

// Send implements forward.Sender.
func (s *Sender) Send(ctx context.Context, b *forward.Batch) (forward.Outcome, error) {
	var o forward.Outcome
	if !s.o.Histograms {
		n := 0
		for i := range b.Series {
			n += len(b.Series[i].Histograms)
		}
		o.Skip("native histogram", n)
	}
	v := s.version()
	a, err := s.post(ctx, b, v)
	if err != nil || a == nil {
		return o, err
	}
	if v == version2 {
		switch doubt := s.doubt(a); doubt {
		case none:
			return o, s.judge2(a)
		default:
			if a, err = s.post(ctx, b, version1); err != nil {
				return o, err
			}
			if doubt == certain || a == nil || a.Status/100 == 2 {
				s.speak1Until.Store(s.o.Now().Add(s.o.AskAgain).UnixNano())
			}
			if a == nil {
				return o, nil
			}
		}
	}
	return o, a.Err(s.o.Now())
}

// Close implements forward.Sender.
func (s *Sender) Close() error {
	s.client.CloseIdleConnections()
	return nil
}

// version is what is spoken now. One Send asks again when the time has come, and others go on in 1.0 for a minute.
func (s *Sender) version() version {
	if s.o.Message == Message1 {
		return version1
	}
	until := s.speak1Until.Load()
	if until == 0 {
		return version2
	}
	now := s.o.Now()
	if now.UnixNano() < until || !s.speak1Until.CompareAndSwap(until, now.Add(time.Minute).UnixNano()) {
		return version1
	}
	return version2
}

// doubts are about whether a peer that was spoken to in 2.0 knows it.
type doubts int

const (
	none doubts = iota
	some
	certain
)

const (
	writtenSamples    = "X-Prometheus-Remote-Write-Samples-Written"
	writtenHistograms = "X-Prometheus-Remote-Write-Histograms-Written"
	writtenExemplars  = "X-Prometheus-Remote-Write-Exemplars-Written"
)

func (s *Sender) doubt(a *answer) doubts {
	if a.Status == http.StatusUnsupportedMediaType {
		return certain
	}
	if a.Header.Get(writtenSamples) != "" || a.Header.Get(writtenHistograms) != "" || a.Header.Get(writtenExemplars) != "" {
		s.confirmed.Store(true)
		s.speak1Until.Store(0)
		return none
	}
	switch {
	case a.Status/100 == 2:
		return certain
	case a.Status == http.StatusBadRequest && !s.confirmed.Load():
		return some
	}
	return none
}

// judge2 says what an answer of a peer that speaks 2.0 means.
func (s *Sender) judge2(a *answer) error {
	err := a.Err(s.o.Now())
	var refused *forward.Refused
	if err != nil && !errors.As(err, &refused) {
		return err
	}
	sent, written := a.floats+a.histograms, count(a, writtenSamples)+count(a, writtenHistograms)
	switch {
	case written >= sent && s.confirmed.Load():
		return nil
	case err == nil:
		return &forward.Refused{Err: fmt.Errorf("the target answered %d and counts %d samples written of %d", a.Status, written, sent)}
	}
	return err
}

// count reads a header; one that is missing or no number is zero, as the protocol has it.
func count(a *answer, header string) int {
	n := 0
	for _, c := range strings.TrimSpace(a.Header.Get(header)) {
		if c < '0' || c > '9' || n > 1<<40 {
			return 0
		}
		n = 10*n + int(c-'0')
	}
	return n
}
