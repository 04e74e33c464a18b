package ledger

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
)

// Ledger is the book of what was sent and what was acknowledged.
//
// Every sample has a mark of 64 bits, its float's bits or its histogram's
// digest. For each series and time the book holds the mark that was last
// acknowledged, if any, and those that are pending after it. Valid in the
// server is the acknowledged mark or any pending one; nothing at all is valid
// too where none was acknowledged.
//
// A Ledger may be used by several goroutines.
type Ledger struct {
	mu       sync.Mutex // guards everything below
	lines    map[string]*line
	families map[string]*family
	log      *bufio.Writer
	logErr   error

	acked, requests int
}

// line is the book of one series.
type line struct {
	labels    labels.Labels
	writer    WriterID
	acked     map[int64]mark
	pending   map[int64][]mark
	exemplars map[exemplarKey]bool // true: acknowledged
}

// family is the book of one metric family's metadata.
type family struct {
	metadata metadata.Metadata
	acked    bool
}

// mark stands for a sample's value, exactly.
type mark struct {
	bits      uint64
	histogram bool
}

// exemplarKey is all that an exemplar consists of.
type exemplarKey struct {
	labels string
	millis int64
	value  float64
}

// New returns an empty ledger that writes its entries to log as well.
func New(log io.Writer) *Ledger {
	return &Ledger{lines: map[string]*line{}, families: map[string]*family{}, log: bufio.NewWriterSize(log, 1<<16)}
}

// Flush writes the buffered part of the log. It returns the first error of any
// write to the log.
func (l *Ledger) Flush() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(l.logErr, l.log.Flush())
}

// Acked is the number of samples, histograms included, acknowledged so far.
func (l *Ledger) Acked() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.acked
}

// Requests is the number of requests acknowledged so far.
func (l *Ledger) Requests() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.requests
}

// Sent notes a request as pending. It is called before the request is sent,
// once or again.
func (l *Ledger) Sent(id WriterID, seq Seq, request []Series) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.note("pending", id, seq)
	for i := range request {
		s := &request[i]
		n := l.line(id, s.Labels)
		for at, m := range s.marks() {
			if !slices.Contains(n.pending[at], m) {
				n.pending[at] = append(n.pending[at], m)
			}
		}
		for j := range s.Exemplars {
			key := keyOf(&s.Exemplars[j])
			n.exemplars[key] = n.exemplars[key] || false
		}
		name := s.Labels.Get(model.MetricNameLabel)
		if l.families[name] == nil {
			l.families[name] = &family{metadata: s.Metadata}
		}
	}
}

// Acknowledged notes that the server answered 2xx to the request.
func (l *Ledger) Acknowledged(id WriterID, seq Seq, request []Series) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.note("acked", id, seq)
	l.requests++
	for i := range request {
		s := &request[i]
		n := l.line(id, s.Labels)
		for at, m := range s.marks() {
			n.acked[at] = m
			// Writers send one request at a time, so whatever else was pending here
			// is older than what was just acknowledged, and overwritten.
			delete(n.pending, at)
			l.acked++
		}
		for j := range s.Exemplars {
			n.exemplars[keyOf(&s.Exemplars[j])] = true
		}
		l.families[s.Labels.Get(model.MetricNameLabel)].acked = true
	}
}

func (l *Ledger) note(what string, id WriterID, seq Seq) {
	_, err := fmt.Fprintf(l.log, "%s %s %d\n", what, id, seq)
	l.logErr = cmp.Or(l.logErr, err)
}

func (l *Ledger) line(id WriterID, lset labels.Labels) *line {
	key := string(lset.Bytes(nil))
	n := l.lines[key]
	if n == nil {
		n = &line{
			labels: lset, writer: id,
			acked: map[int64]mark{}, pending: map[int64][]mark{}, exemplars: map[exemplarKey]bool{},
		}
		l.lines[key] = n
	}
	return n
}

// marks gives the times and marks of the series' samples and histograms.
func (s *Series) marks() func(yield func(int64, mark) bool) {
	return func(yield func(int64, mark) bool) {
		for _, sample := range s.Samples {
			if !yield(sample.Millis, mark{bits: sample.Bits}) {
				return
			}
		}
		for _, h := range s.Histograms {
			if !yield(h.Millis, mark{bits: h.Digest(), histogram: true}) {
				return
			}
		}
	}
}

func keyOf(e *exemplar.Exemplar) exemplarKey {
	return exemplarKey{labels: e.Labels.String(), millis: e.Ts, value: e.Value}
}
