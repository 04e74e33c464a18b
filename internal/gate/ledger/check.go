package ledger

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/value"
)

// Fault is the kind of a Violation.
type Fault string

// The kinds. Each is a broken promise by itself.
const (
	// Lost: acknowledged and not there.
	Lost Fault = "lost"
	// Altered: there with another value than any that was sent.
	Altered Fault = "altered"
	// Invented: there and never sent.
	Invented Fault = "invented"
	// Disordered: returned twice, or out of order.
	Disordered Fault = "disordered"
	// Unlisted: samples are there, and a label API or a query does not know them.
	Unlisted Fault = "unlisted"
	// Returned: deleted or too old, and there.
	Returned Fault = "returned"
	// Unreadable: the server did not answer a read.
	Unreadable Fault = "unreadable"
)

// Violation is one broken promise.
type Violation struct {
	Fault Fault
	Text  string
}

// String implements fmt.Stringer.
func (v Violation) String() string { return string(v.Fault) + ": " + v.Text }

// violationsMax bounds what one check reports: the rest is more of the same.
const violationsMax = 50

// CheckOptions choose what Check looks at.
type CheckOptions struct {
	// Gate is the name of the workload.
	Gate string
	// Streamed reads chunks rather than samples.
	Streamed bool
	// Restarted says that the server was started since the last write. What it has
	// of pending requests is durable then and may not change its mind later, while
	// before it may be something that is in memory only.
	Restarted bool
	// FloatsOnly leaves out exemplars and metadata, for servers that keep them
	// for a while only.
	FloatsOnly bool
}

// Check compares what the server has with the book, writer by writer, and
// returns what contradicts it, at most violationsMax of it. When nothing does, and
// the server was restarted, pending entries are settled as they were found. Nobody
// may write meanwhile.
func (l *Ledger) Check(ctx context.Context, r *Reader, opts CheckOptions) []Violation {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := &check{ctx: ctx, reader: r, ledger: l, opts: opts, writers: map[WriterID]*span{}}
	for _, n := range l.lines {
		s := c.writers[n.writer]
		if s == nil {
			s = &span{mint: math.MaxInt64, maxt: math.MinInt64}
			c.writers[n.writer] = s
		}
		s.add(n)
	}
	for _, id := range slices.Sorted(maps.Keys(c.writers)) {
		c.samples(id)
		c.lists(id)
		if !opts.FloatsOnly {
			c.exemplars(id)
		}
	}
	if !opts.FloatsOnly {
		c.metadata()
	}
	if len(c.violations) == 0 && opts.Restarted {
		c.settle()
	}
	return c.violations
}

// check is one run of Check.
type check struct {
	ctx        context.Context
	reader     *Reader
	ledger     *Ledger
	opts       CheckOptions
	writers    map[WriterID]*span
	settled    []settlement
	violations []Violation
}

// span is the time range of a writer's entries and the lines of its series.
type span struct {
	mint, maxt int64
	lines      []*line
	present    map[*line]*presence
}

// presence is what a check found of a series.
type presence struct {
	acked   int // samples that the book has as acknowledged
	samples int
	floats  int // samples that are floats and no stale markers
	last    int64
	times   map[int64]struct{}
}

// settlement is a pending sample that was found.
type settlement struct {
	line   *line
	millis int64
	mark   mark
}

func (s *span) add(n *line) {
	s.lines = append(s.lines, n)
	for at := range n.acked {
		s.mint, s.maxt = min(s.mint, at), max(s.maxt, at)
	}
	for at := range n.pending {
		s.mint, s.maxt = min(s.mint, at), max(s.maxt, at)
	}
}

func (c *check) report(fault Fault, format string, args ...any) {
	if len(c.violations) < violationsMax {
		c.violations = append(c.violations, Violation{fault, fmt.Sprintf(format, args...)})
	}
}

// samples compares every sample of a writer. A margin on both sides of the time
// range finds what was invented just outside.
func (c *check) samples(id WriterID) {
	const marginMillis = 2 * dayMillis
	s := c.writers[id]
	s.present = make(map[*line]*presence, len(s.lines))
	for f, err := range c.reader.samples(c.ctx, c.opts.Gate, id, s.mint-marginMillis, s.maxt+marginMillis, c.opts.Streamed) {
		if err != nil {
			c.report(Unreadable, "%v", err)
			return
		}
		n := c.ledger.lines[string(f.labels.Bytes(nil))]
		if n == nil {
			c.report(Invented, "series %s was never sent", f.labels)
			continue
		}
		c.sample(s, n, f)
	}
	for _, n := range s.lines {
		c.missing(s, n)
	}
}

func (c *check) sample(s *span, n *line, f found) {
	p := s.present[n]
	if p == nil {
		p = &presence{last: math.MinInt64, times: map[int64]struct{}{}}
		s.present[n] = p
	}
	if f.millis <= p.last {
		c.report(Disordered, "%s has a sample at %d after one at %d", n.labels, f.millis, p.last)
	}
	p.last = f.millis
	p.samples++
	p.times[f.millis] = struct{}{}
	if !f.mark.histogram && !value.IsStaleNaN(math.Float64frombits(f.mark.bits)) {
		p.floats++
	}
	acked, wasAcked := n.acked[f.millis]
	pending := n.pending[f.millis]
	if wasAcked {
		p.acked++
	}
	switch {
	case wasAcked && acked == f.mark && len(pending) == 0:
	case wasAcked && acked == f.mark, slices.Contains(pending, f.mark):
		c.settled = append(c.settled, settlement{n, f.millis, f.mark})
	case wasAcked || len(pending) > 0:
		c.report(Altered, "%s at %d is %v, acknowledged %v, pending %v", n.labels, f.millis, f.mark, acked, pending)
	default:
		c.report(Invented, "%s has %v at %d, which was never sent", n.labels, f.mark, f.millis)
	}
}

// missing reports what was acknowledged and not found in a series.
func (c *check) missing(s *span, n *line) {
	p := s.present[n]
	if p == nil {
		p = &presence{}
	}
	if p.acked >= len(n.acked) {
		return
	}
	lost := 0
	example := int64(0)
	for at := range n.acked {
		if _, ok := p.times[at]; !ok {
			lost++
			example = at
		}
	}
	c.report(Lost, "%s lacks %d of %d acknowledged samples, such as the one at %d", n.labels, lost, len(n.acked), example)
}

// lists compares the label APIs and a query with what remote read returned.
func (c *check) lists(id WriterID) {
	s := c.writers[id]
	listed, err := c.reader.series(c.ctx, c.opts.Gate, id, s.mint, s.maxt)
	if err != nil {
		c.report(Unreadable, "%v", err)
		return
	}
	known := map[string]bool{}
	for _, lset := range listed {
		key := string(lset.Bytes(nil))
		if known[key] {
			c.report(Disordered, "series %s is listed twice", lset)
		}
		known[key] = true
		if c.ledger.lines[key] == nil {
			c.report(Invented, "the series API lists %s, which was never sent", lset)
		}
	}
	values := map[string]map[string]bool{model.MetricNameLabel: {}, "series": {}, "instance": {}}
	floats := 0
	for n, p := range s.present {
		floats += p.floats
		if !known[string(n.labels.Bytes(nil))] {
			c.report(Unlisted, "the series API lacks %s, which has %d samples", n.labels, p.samples)
		}
		for label := range values {
			if v := n.labels.Get(label); v != "" {
				values[label][v] = true
			}
		}
	}
	for label, want := range values {
		c.labelValues(id, label, want)
	}
	c.count(id, floats)
}

func (c *check) labelValues(id WriterID, label string, want map[string]bool) {
	s := c.writers[id]
	got, err := c.reader.labelValues(c.ctx, label, c.opts.Gate, id, s.mint, s.maxt)
	if err != nil {
		c.report(Unreadable, "%v", err)
		return
	}
	for _, v := range got {
		delete(want, v)
	}
	for v := range want {
		c.report(Unlisted, "the values of label %s lack %q of writer %s", label, v, id)
	}
}

// count asks the query engine for the number of samples that remote read gave.
func (c *check) count(id WriterID, floats int) {
	s := c.writers[id]
	// Engines leave out stale markers, and count histograms like floats.
	histograms := 0
	for _, n := range s.lines {
		for _, m := range n.acked {
			if m.histogram {
				histograms++
			}
		}
	}
	if histograms > 0 || len(s.present) == 0 {
		return
	}
	query := fmt.Sprintf("sum(count_over_time(%s[%dms]))", selector(c.opts.Gate, id), s.maxt-s.mint+1000)
	got, err := c.reader.count(c.ctx, query, s.maxt)
	if err != nil {
		c.report(Unreadable, "%v", err)
		return
	}
	if got != float64(floats) {
		c.report(Unlisted, "%s is %v at %d, remote read has %d samples", query, got, s.maxt, floats)
	}
}

func (c *check) exemplars(id WriterID) {
	s := c.writers[id]
	// Exemplars are a little later than the samples beside them.
	got, err := c.reader.exemplars(c.ctx, c.opts.Gate, id, s.mint, s.maxt+60_000)
	if err != nil {
		c.report(Unreadable, "%v", err)
		return
	}
	for _, n := range s.lines {
		present := map[exemplarKey]bool{}
		for _, e := range got[string(n.labels.Bytes(nil))] {
			if _, sent := n.exemplars[e]; !sent {
				c.report(Invented, "%s has exemplar %v, which was never sent", n.labels, e)
			}
			present[e] = true
		}
		for e, acked := range n.exemplars {
			if acked && !present[e] {
				c.report(Lost, "%s lacks exemplar %v", n.labels, e)
			}
		}
	}
}

func (c *check) metadata() {
	got, err := c.reader.metadata(c.ctx)
	if err != nil {
		c.report(Unreadable, "%v", err)
		return
	}
	for name, f := range c.ledger.families {
		want := familyEntry{Type: string(f.metadata.Type), Help: f.metadata.Help, Unit: f.metadata.Unit}
		if entries := got[name]; f.acked && !slices.Contains(entries, want) {
			c.report(Lost, "metadata of %s is %v, acknowledged %v", name, entries, want)
		}
	}
}

// settle makes what was found of pending entries the acknowledged state, and
// forgets what was not found.
func (c *check) settle() {
	for _, s := range c.settled {
		s.line.acked[s.millis] = s.mark
	}
	for _, n := range c.ledger.lines {
		clear(n.pending)
	}
}

// Summary counts violations by fault, for a line of a report.
func Summary(violations []Violation) string {
	counts := map[Fault]int{}
	for _, v := range violations {
		counts[v.Fault]++
	}
	text := ""
	for _, f := range slices.SortedFunc(maps.Keys(counts), cmp.Compare[Fault]) {
		text += fmt.Sprintf("%s %d ", f, counts[f])
	}
	return text
}
