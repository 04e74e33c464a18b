// Package ccms sends batches to ClusterCockpit's metric store (cc-metric-store), over HTTP or NATS.
//
// The store takes lines of a fixed form, METRIC,cluster=C,hostname=H,type=T[,type-id=I] value=V SECONDS, and keeps the metrics of its
// configuration only; what it doesn't know it drops with status 200. So a table says which series become which of its metrics,
// a rule makes the host's name of a label, and what has no place there is skipped and counted. [CheckMetrics] compares the
// table with the store's configuration.
//
// The store's own mistakes shape what is sent. One line that it can't read costs the rest of the request, so that only finite
// numbers go there. A line without a host or cluster is booked on another one's, so that no such line is ever sent. A host called
// .. or with a slash in it is refused by Prepare. A sample older than a series' first buffer is dropped, so that samples of a series stay in order.
package ccms

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"sync"

	"github.com/grafana/regexp"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"varve/forward"
	"varve/forward/lineprotocol"
	"varve/forward/payload"
)

// Why samples are not sent. The texts are values of a metric's label.
const (
	// ReasonUnmapped is a series that no row of the table selects.
	ReasonUnmapped = "unmapped"
	// ReasonNoHost is one without a host's name.
	ReasonNoHost = "no_hostname"
	// ReasonNoID is one without the id that its type needs.
	ReasonNoID = "no_type_id"
)

// Sender sends to one metric store.
type Sender struct {
	opts   Options
	host   rule
	rows   []row
	tokens *tokens
	client *http.Client

	encoders sync.Pool
}

// row is a Metric made ready.
type row struct {
	Metric
	id, subID rule
}

// encoder is the scratch of a batch: where its lines end.
type encoder struct {
	ends []int
	out  forward.Outcome
}

// New makes a sender. No connection is made, and no file is read.
func New(opts Options) (*Sender, error) {
	if err := opts.check(); err != nil {
		return nil, err
	}
	s := &Sender{opts: opts, encoders: sync.Pool{New: func() any { return new(encoder) }}}
	var err error
	if s.host, err = newRule(opts.HostnameLabel, opts.HostnameRegex); err != nil {
		return nil, fmt.Errorf("output %s: hostname: %w", opts.Name, err)
	}
	for _, m := range opts.Metrics {
		r := row{Metric: m}
		if r.id, err = newRule(m.IDLabel, m.IDRegex); err != nil {
			return nil, fmt.Errorf("output %s: metric %s: %w", opts.Name, m.Name, err)
		}
		if r.subID, err = newRule(m.SubIDLabel, m.SubIDRegex); err != nil {
			return nil, fmt.Errorf("output %s: metric %s: %w", opts.Name, m.Name, err)
		}
		s.rows = append(s.rows, r)
	}
	s.tokens = newTokens(&opts)
	if opts.Publish == nil {
		s.client, err = forward.NewClient(opts.HTTP, opts.Name, opts.Timeout)
	}
	return s, err
}

// rule makes a name of a label's value.
type rule struct {
	label string
	regex *regexp.Regexp
}

func newRule(label, regex string) (rule, error) {
	if regex == "" {
		return rule{label: label}, nil
	}
	re, err := regexp.Compile("^(?s:" + regex + ")$")
	return rule{label, re}, err
}

// apply returns the first group of the regex, or all that it matched if it has none, and nothing if the value doesn't
// match as a whole. Without a regex it is the value.
func (r rule) apply(ls labels.Labels) string {
	v := ls.Get(r.label)
	if r.regex == nil || v == "" {
		return v
	}
	groups := r.regex.FindStringSubmatch(v)
	switch len(groups) {
	case 0:
		return ""
	case 1:
		return groups[0]
	}
	return groups[1]
}

// form is what a target is in the store, or why it has no place there.
type form struct {
	prefix []byte
	scale  float64
	reason string
}

// Prepare implements forward.Sender.
func (s *Sender) Prepare(t *forward.Target) error {
	f := &form{}
	t.Form = f
	row := s.row(t.Labels)
	if row == nil {
		f.reason = ReasonUnmapped
		return nil
	}
	host := s.hostname(t.Labels)
	if host == "" {
		f.reason = ReasonNoHost
		return nil
	}
	if err := checkHost(host); err != nil {
		return err
	}
	tags := []labels.Label{{Name: "cluster", Value: s.opts.Cluster}, {Name: "hostname", Value: host}, {Name: "type", Value: row.Type}}
	tags, ok := appendID(tags, "type-id", row.id, t.Labels)
	if ok && row.SubType != "" {
		tags = append(tags, labels.Label{Name: "stype", Value: row.SubType})
		tags, ok = appendID(tags, "stype-id", row.subID, t.Labels)
	}
	if !ok {
		f.reason = ReasonNoID
		return nil
	}
	f.scale = row.Scale
	f.prefix = lineprotocol.AppendMeasurement(nil, row.Name)
	for _, tag := range tags {
		f.prefix = append(append(f.prefix, ','), tag.Name...)
		f.prefix = lineprotocol.AppendTagValue(append(f.prefix, '='), tag.Value)
	}
	return nil
}

// appendID appends the id of a level, if there is a rule for it. It returns false if the series has none.
func appendID(tags []labels.Label, name string, id rule, ls labels.Labels) ([]labels.Label, bool) {
	if id.label == "" {
		return tags, true
	}
	v := id.apply(ls)
	return append(tags, labels.Label{Name: name, Value: v}), v != ""
}

// row is the first one of the table that selects a series.
func (s *Sender) row(ls labels.Labels) *row {
next:
	for i := range s.rows {
		for _, m := range s.rows[i].Selector {
			if !m.Matches(ls.Get(m.Name)) {
				continue next
			}
		}
		return &s.rows[i]
	}
	return nil
}

// hostname is the host of a series. Without a regex the port is taken off.
func (s *Sender) hostname(ls labels.Labels) string {
	if s.host.regex != nil {
		return s.host.apply(ls)
	}
	return withoutPort(ls.Get(s.host.label))
}

// lines appends the lines of a batch, those of a series in the order of time.
func (e *encoder) lines(body []byte, b *forward.Batch) []byte {
	e.ends, e.out = e.ends[:0], forward.Outcome{}
	for i := range b.Series {
		s := &b.Series[i]
		f := s.Form.(*form)
		if f.reason != "" {
			e.out.Skip(f.reason, s.Samples())
			continue
		}
		for j := range s.Floats {
			sample := &s.Floats[j]
			v := sample.Value * f.scale
			if sample.TimeMillis < 1_000 {
				// The store takes zero and less for now.
				e.out.Skip(lineprotocol.ReasonTime, 1)
				continue
			}
			var ok bool
			if body, ok = lineprotocol.AppendSample(body, f.prefix, v, sample.TimeMillis, lineprotocol.Seconds); !ok {
				// Scaling makes of a stale marker just any NaN.
				e.out.Skip(cmp.Or(lineprotocol.Reason(sample.Value, sample.TimeMillis), lineprotocol.Reason(v, sample.TimeMillis)), 1)
				continue
			}
			e.ends = append(e.ends, len(body))
		}
		e.out.Skip(lineprotocol.ReasonHistogram, len(s.Histograms))
	}
	return body
}

// Send implements forward.Sender.
func (s *Sender) Send(ctx context.Context, b *forward.Batch) (forward.Outcome, error) {
	e := s.encoders.Get().(*encoder)
	defer s.encoders.Put(e)
	p := payload.Get()
	defer p.Put()
	if p.Data = e.lines(p.Data, b); len(p.Data) == 0 {
		return e.out, nil
	}
	send := s.post
	if s.opts.Publish != nil {
		send = s.publish
	}
	if err := send(ctx, p, e); err != nil {
		return forward.Outcome{}, err
	}
	return e.out, nil
}

// publish sends the lines in messages. Nothing answers, and one bad line would cost the rest of its message, so they are small.
func (s *Sender) publish(ctx context.Context, p *payload.Payload, e *encoder) error {
	from, to := 0, 0
	for _, end := range append(e.ends, len(p.Data)+s.opts.MessageBytesMax+1) {
		if to > from && end-from > s.opts.MessageBytesMax {
			if err := s.opts.Publish(ctx, p.Data[from:to]); err != nil {
				return &forward.Retry{Err: fmt.Errorf("publish to cc-metric-store: %w", err)}
			}
			from = to
		}
		to = end
	}
	return nil
}

// Close implements forward.Sender.
func (s *Sender) Close() error {
	if s.client != nil {
		s.client.CloseIdleConnections()
	}
	return nil
}

// nameOf is a matcher for a metric's name.
func nameOf(name string) *labels.Matcher {
	return labels.MustNewMatcher(labels.MatchEqual, model.MetricNameLabel, name)
}
