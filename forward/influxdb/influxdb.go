// Package influxdb sends batches to InfluxDB and to what speaks its line protocol: InfluxDB 1.x over HTTP and UDP, 2.x and later over
// /api/v2/write, QuestDB, VictoriaMetrics.
//
// A metric is a measurement with the labels as tags and one field called value, or a field of a row that it shares with other metrics
// ([Options.Route]). Numbers are always sent as floats.
// What line protocol can't express (NaN, infinities, native histograms unless asked for) is skipped and counted. Exemplars and metadata
// have no place there.
//
// Over HTTP a batch counts as taken when the target says so, and what it says of single points is understood: [Sender] says how. Over UDP
// nothing answers: what a full socket buffer drops, or a network loses, is gone, so that delivery is at most once.
package influxdb

import (
	"context"
	"net"
	"net/http"
	"sync"

	"github.com/prometheus/common/model"

	"varve/forward"
	"varve/forward/lineprotocol"
)

// Sender sends to one InfluxDB. Of an HTTP answer with faults it finds the samples like this: "unable to parse" carries the line,
// QuestDB and InfluxDB 3 the line's number, a field type conflict the measurement and field, and "points beyond retention policy" means
// the oldest ones. A count that comes with it has to agree.
//
// It names these beside forward.Refused, so that the core sends the rest again. That has to be, since InfluxDB 1.x
// names one kind of fault an answer, and others store nothing of a request with a fault; and it may be, since writing a point twice changes
// nothing. Where an answer can't be traced to samples none is named, and the core cuts the batch.
//
// Invariant: a batch without error means that each of its samples is stored or skipped.
type Sender struct {
	opts   Options
	url    string
	client *http.Client

	// udpMu guards udp, which is made with the first datagram, and anew after an error.
	udpMu sync.Mutex
	udp   net.Conn

	encoders sync.Pool
}

// New makes a sender. No connection is made.
func New(opts Options) (*Sender, error) {
	if err := opts.check(); err != nil {
		return nil, err
	}
	s := &Sender{opts: opts, encoders: sync.Pool{New: func() any { return new(encoder) }}}
	if opts.Protocol == UDP {
		return s, nil
	}
	var err error
	if s.url, err = opts.address(); err != nil {
		return nil, err
	}
	s.client, err = forward.NewClient(opts.httpConfig(), opts.Name, opts.Timeout)
	return s, err
}

// form is what a target's labels are as line protocol.
type form struct {
	// With one metric a measurement.
	prefix     []byte
	histograms *lineprotocol.HistogramSeries

	// With a route.
	row, field, countField, sumField string
}

// Prepare implements forward.Sender.
func (s *Sender) Prepare(t *forward.Target) error {
	if t.Labels.Get(model.MetricNameLabel) == "" {
		return lineprotocol.ErrNoName
	}
	if s.opts.Route == nil {
		t.Form = &form{
			prefix:     lineprotocol.AppendSeries(nil, t.Labels),
			histograms: lineprotocol.NewHistogramSeries(t.Labels, s.opts.Histograms),
		}
		return nil
	}
	row, field, err := s.opts.Route.Series(t.Labels)
	if err != nil {
		return err
	}
	t.Form = &form{
		row:        string(row),
		field:      fieldKey(field),
		countField: fieldKey(field + "_count"),
		sumField:   fieldKey(field + "_sum"),
	}
	return nil
}

func fieldKey(name string) string { return string(lineprotocol.AppendFieldKey(nil, name)) }

// Send implements forward.Sender.
func (s *Sender) Send(ctx context.Context, b *forward.Batch) (forward.Outcome, error) {
	e := s.encoders.Get().(*encoder)
	defer s.encoders.Put(e)
	if s.opts.Protocol == UDP {
		return s.sendDatagrams(ctx, e, b)
	}
	return s.post(ctx, e, b)
}

// Close implements forward.Sender.
func (s *Sender) Close() error {
	if s.opts.Protocol == UDP {
		s.hangUp(nil)
		return nil
	}
	s.client.CloseIdleConnections()
	return nil
}
