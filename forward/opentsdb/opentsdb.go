// Package opentsdb sends batches to OpenTSDB and to what takes its points: over HTTP (POST /api/put) or as put lines over TCP ("telnet").
//
// A metric's name is the metric and its labels are the tags, both in OpenTSDB's characters: see [AppendName], which [Name] undoes. The
// server takes 1 to 8 tags, so that series with more lose some ([Options.KeepLabels]) and series without any get [Options.DefaultTag].
//
// Over HTTP the server judges each point alone and says which it refused; the others count as taken. With [Options.Sync] it answers
// after they are stored, without it before. Over TCP it says nothing of points it took: see [Telnet] for what that means.
package opentsdb

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"varve/forward"
)

// Sender sends to one OpenTSDB.
type Sender struct {
	opts   Options
	url    string
	client *http.Client

	encoders              sync.Pool
	seriesCut, labelsLost atomic.Uint64

	// Over telnet:
	greeting greeting
	// askPause is how long a server has to keep the connection on which it is asked.
	askPause time.Duration
	// takenBytes is the longest line that the server takes, as far as that was seen.
	takenBytes atomic.Int64
}

// New makes a sender. No connection is made.
func New(opts Options) (*Sender, error) {
	if err := opts.check(); err != nil {
		return nil, err
	}
	s := &Sender{opts: opts, askPause: askPause, encoders: sync.Pool{New: func() any { return new(encoder) }}}
	if opts.Protocol == Telnet {
		return s, nil
	}
	var err error
	if s.url, err = opts.address(); err != nil {
		return nil, err
	}
	s.client, err = forward.NewClient(opts.HTTP, opts.Name, opts.Timeout)
	return s, err
}

// form is what stands around the time and the value of a point.
type form struct {
	// JSON: {"metric":M,"tags":{...},"timestamp":  Telnet: put M
	head []byte
	// Telnet only: the tags and the end of the line.
	tail []byte
}

var (
	errNoName  = errors.New("the series has no metric name")
	errTooLong = errors.New("the series' put line is longer than the server reads")
)

// Prepare implements forward.Sender.
func (s *Sender) Prepare(t *forward.Target) error {
	name := t.Labels.Get(model.MetricNameLabel)
	if name == "" {
		return errNoName
	}
	tags := s.tags(t.Labels)
	if s.opts.Protocol == HTTP {
		t.Form = &form{head: jsonHead(string(AppendName(nil, name)), tags)}
		return nil
	}
	f := &form{head: append(AppendName([]byte("put "), name), ' ')}
	for _, tag := range tags {
		f.tail = fmt.Appendf(f.tail, " %s=%s", tag.name, tag.value)
	}
	f.tail = append(f.tail, '\n')
	// Time and value take at most 13 and 24 bytes and the space between them.
	if len(f.head)+len(f.tail)+38 > s.opts.LineBytesMax {
		return fmt.Errorf("%w (%d bytes)", errTooLong, s.opts.LineBytesMax)
	}
	t.Form = f
	return nil
}

// tag is a tag in OpenTSDB's characters.
type tag struct{ name, value string }

// tags are those of the labels that are kept, at most TagsMax and at least one, in the order of their names.
func (s *Sender) tags(ls labels.Labels) []tag {
	var kept, others []tag
	ls.Range(func(l labels.Label) {
		if l.Name == model.MetricNameLabel || l.Name == "" || l.Value == "" {
			return
		}
		made := tag{string(AppendName(nil, l.Name)), string(AppendName(nil, l.Value))}
		if slices.Contains(s.opts.KeepLabels, l.Name) {
			kept = append(kept, made)
		} else {
			others = append(others, made)
		}
	})
	tags := append(kept, others...)
	if lost := len(tags) - s.opts.TagsMax; lost > 0 {
		s.seriesCut.Add(1)
		s.labelsLost.Add(uint64(lost))
		tags = tags[:s.opts.TagsMax]
	}
	if len(tags) == 0 {
		d := s.opts.DefaultTag
		tags = append(tags, tag{string(AppendName(nil, d.Name)), string(AppendName(nil, d.Value))})
	}
	slices.SortFunc(tags, byName)
	return tags
}

func byName(a, b tag) int { return cmp.Compare(a.name, b.name) }

// jsonHead is a point up to its time. Names in OpenTSDB's characters need no escaping in JSON.
func jsonHead(metric string, tags []tag) []byte {
	var head bytes.Buffer
	head.WriteString(`{"metric":` + strconv.Quote(metric) + `,"tags":{`)
	for i, t := range tags {
		if i > 0 {
			head.WriteByte(',')
		}
		head.WriteString(strconv.Quote(t.name) + ":" + strconv.Quote(t.value))
	}
	head.WriteString(`},"timestamp":`)
	return head.Bytes()
}

// Cut counts the series that were prepared with fewer labels than they have, and the labels that they lost. Two series that differ
// in these alone are one at the target.
func (s *Sender) Cut() (series, labels uint64) { return s.seriesCut.Load(), s.labelsLost.Load() }

// Send implements forward.Sender.
func (s *Sender) Send(ctx context.Context, b *forward.Batch) (forward.Outcome, error) {
	e := s.encoders.Get().(*encoder)
	defer s.encoders.Put(e)
	if s.opts.Protocol == Telnet {
		return s.put(ctx, e, b)
	}
	return s.post(ctx, e, b)
}

// Close implements forward.Sender.
func (s *Sender) Close() error {
	if s.client != nil {
		s.client.CloseIdleConnections()
	}
	return nil
}
