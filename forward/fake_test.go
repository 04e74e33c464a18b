package forward_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/storage"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"varve/archive"
	"varve/arrival"
	"varve/forward"
	"varve/internal/testkit/leaks"
)

func TestMain(m *testing.M) {
	zerolog.SetGlobalLevel(zerolog.Disabled) // The proxy has a logger of its own.
	// The proxy leaves behind what had a connection when a fault was taken away.
	left := []goleak.Option{
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2/toxics.(*ToxicStub).Run"),
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2/stream.(*ChanWriter).Write"),
	}
	goleak.VerifyTestMain(leaks.Patient(m, left...), left...)
}

// The archive's cursor is what the fake stands for.
var (
	_ forward.Source   = (*archive.Cursor)(nil)
	_ forward.Replayer = (*archive.Cursor)(nil)
)

// record is one commit of the fake archive.
type record struct {
	refs       []storage.SeriesRef
	times      []int64
	values     []float64
	histograms []archive.ArrivedHistogram
	exemplars  []archive.ArrivedExemplar
	metadata   []arrival.Metadata
	arrived    time.Time
}

func (r *record) samples() int { return len(r.refs) + len(r.histograms) }

// recordBytes is what a sample takes of the fake's journal.
const recordBytes = 10

// fakeArchive keeps records and the saved places of cursors, through restarts of a Forwarder.
type fakeArchive struct {
	mu      sync.Mutex
	records []record
	more    chan struct{}
	series  map[storage.SeriesRef]labels.Labels
	saved   map[string]*savedCursor
	removed []string
	// perRead bounds the records of a Read.
	perRead int
	// fail, if it is set, is asked before each call of a cursor.
	fail func(call string) error
	// refused, if it is set, tells which floats the peer never takes.
	refused func(ref storage.SeriesRef, v float64) bool
	// faults are reads that were tallied wrong.
	faults []string
	// labelCalls counts the refs that were looked up.
	labelCalls int
	// known is the metadata of metrics and families, whatever arrives.
	known map[string]metadata.Metadata
}

type savedCursor struct {
	next  int
	tally archive.Tally
	open  *fakeCursor
}

func newFakeArchive() *fakeArchive {
	return &fakeArchive{more: make(chan struct{}), series: map[storage.SeriesRef]labels.Labels{}, saved: map[string]*savedCursor{}, perRead: 3}
}

// write commits a record.
func (a *fakeArchive) write(r record) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r.arrived.IsZero() {
		r.arrived = time.Now()
	}
	a.records = append(a.records, r)
	close(a.more)
	a.more = make(chan struct{})
}

// floats commits one sample of each ref, with the number of the sample as time and value.
func (a *fakeArchive) floats(from int, refs ...storage.SeriesRef) {
	r := record{refs: refs}
	for i := range refs {
		r.times = append(r.times, int64(from+i))
		r.values = append(r.values, float64(from+i))
	}
	a.write(r)
}

// named makes series 1 to n: m{i="1"} and so on.
func (a *fakeArchive) named(n int) []storage.SeriesRef {
	var refs []storage.SeriesRef
	for i := 1; i <= n; i++ {
		ref := storage.SeriesRef(i)
		a.series[ref] = labels.FromStrings("__name__", "m", "i", fmt.Sprint(i))
		refs = append(refs, ref)
	}
	return refs
}

func (a *fakeArchive) open(name string, start archive.Start) (forward.Source, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.saved[name]
	if s == nil {
		s = &savedCursor{next: len(a.records)}
		if start.All {
			s.next = 0
		}
		a.saved[name] = s
	}
	if s.open != nil {
		return nil, archive.ErrCursorOpen
	}
	s.open = &fakeCursor{a: a, s: s, ahead: s.next}
	return s.open, nil
}

func (a *fakeArchive) remove(name string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if s := a.saved[name]; s != nil && s.open != nil {
		return archive.ErrCursorOpen
	}
	delete(a.saved, name)
	a.removed = append(a.removed, name)
	return nil
}

// settled tells whether a cursor has settled all there is.
func (a *fakeArchive) settled(name string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.saved[name]
	return s != nil && s.next == len(a.records)
}

func (a *fakeArchive) tally(name string) archive.Tally {
	a.mu.Lock()
	defer a.mu.Unlock()
	if s := a.saved[name]; s != nil {
		return s.tally
	}
	return archive.Tally{}
}

// kill makes open cursors save nothing any more.
func (a *fakeArchive) kill() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, s := range a.saved {
		if s.open != nil {
			s.open.dead = true
			s.open = nil
		}
	}
}

// check compares what is said of a read with what was in it.
func (a *fakeArchive) check(records []record, t archive.Tally) {
	samples, refused := uint64(0), uint64(0)
	for i := range records {
		samples += uint64(records[i].samples())
		for j, ref := range records[i].refs {
			if a.refused != nil && a.refused(ref, records[i].values[j]) {
				refused++
			}
		}
	}
	if t.Sent+t.Dropped+t.Refused+t.Filtered != samples || a.refused != nil && t.Refused != refused {
		a.faults = append(a.faults, fmt.Sprintf("%d samples, %d to be refused, were tallied as %+v", samples, refused, t))
	}
}

func (a *fakeArchive) failing(call string) error {
	if a.fail == nil {
		return nil
	}
	return a.fail(call)
}

// fakeCursor is a Source.
type fakeCursor struct {
	a       *fakeArchive
	s       *savedCursor
	ahead   int
	pending []pendingRead
	dead    bool
	unsaved archive.Tally // what Done could not save yet
}

// pendingRead is where a Read that is not settled began and ended.
type pendingRead struct {
	begin, end int
	tallied    bool
}

func sum(a, b archive.Tally) archive.Tally {
	return archive.Tally{Sent: a.Sent + b.Sent, Dropped: a.Dropped + b.Dropped, Refused: a.Refused + b.Refused, Filtered: a.Filtered + b.Filtered}
}

func (c *fakeCursor) Read(ctx context.Context, into *archive.Arrivals) error {
	for {
		if err := c.a.failing("read"); err != nil {
			return err
		}
		c.a.mu.Lock()
		into.Reset()
		if end := min(len(c.a.records), c.ahead+c.a.perRead); c.ahead < end {
			for _, r := range c.a.records[c.ahead:end] {
				into.Refs = append(into.Refs, r.refs...)
				into.Times = append(into.Times, r.times...)
				for _, v := range r.values {
					into.Values = append(into.Values, math.Float64bits(v))
				}
				into.Histograms = append(into.Histograms, r.histograms...)
				into.Exemplars = append(into.Exemplars, r.exemplars...)
				into.Metadata = append(into.Metadata, r.metadata...)
				into.Arrived = r.arrived
			}
			into.First, into.Last = 1, 1
			into.Bytes = recordBytes * into.Samples()
			c.pending = append(c.pending, pendingRead{begin: c.ahead, end: end})
			c.ahead = end
			c.a.mu.Unlock()
			return nil
		}
		more := c.a.more
		c.a.mu.Unlock()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-more:
		}
	}
}

func (c *fakeCursor) Done(_ archive.Position, t archive.Tally) error {
	failed := c.a.failing("done")
	c.a.mu.Lock()
	defer c.a.mu.Unlock()
	if c.dead {
		return nil
	}
	if len(c.pending) == 0 {
		panic("Done without Read")
	}
	if r := &c.pending[0]; !r.tallied {
		r.tallied = true
		c.a.check(c.a.records[r.begin:r.end], t)
	} else if t != (archive.Tally{}) {
		panic("a tally was said twice")
	}
	c.unsaved = sum(c.unsaved, t)
	if failed != nil {
		return failed
	}
	c.s.tally, c.unsaved = sum(c.s.tally, c.unsaved), archive.Tally{}
	c.s.next, c.pending = c.pending[0].end, c.pending[1:]
	return nil
}

func (c *fakeCursor) Labels(refs []storage.SeriesRef, out []labels.Labels) error {
	if err := c.a.failing("labels"); err != nil {
		return err
	}
	c.a.mu.Lock()
	defer c.a.mu.Unlock()
	c.a.labelCalls += len(refs)
	for i, ref := range refs {
		out[i] = c.a.series[ref]
	}
	return nil
}

func (c *fakeCursor) Metadata(metric string) metadata.Metadata {
	c.a.mu.Lock()
	defer c.a.mu.Unlock()
	m, ok := c.a.known[metric]
	if base, cut := strings.CutSuffix(metric, "_count"); !ok && cut {
		m = c.a.known[base]
	}
	return m
}

func (c *fakeCursor) Lag() (archive.Lag, error) {
	c.a.mu.Lock()
	defer c.a.mu.Unlock()
	var l archive.Lag
	for i := c.s.next; i < len(c.a.records); i++ {
		if l.Since.IsZero() {
			l.Since = c.a.records[i].arrived
		}
		l.Samples += uint64(c.a.records[i].samples())
	}
	l.Bytes = recordBytes * l.Samples
	return l, nil
}

func (c *fakeCursor) Totals() archive.Tally {
	c.a.mu.Lock()
	defer c.a.mu.Unlock()
	return c.s.tally
}

func (c *fakeCursor) Incarnation() string { return "inc" }

func (c *fakeCursor) Rewind(start archive.Start) error {
	c.a.mu.Lock()
	defer c.a.mu.Unlock()
	c.s.next = len(c.a.records)
	if start.All {
		c.s.next = 0
	}
	c.ahead, c.pending = c.s.next, nil
	return nil
}

func (c *fakeCursor) Close() error {
	c.a.mu.Lock()
	defer c.a.mu.Unlock()
	if c.dead {
		return nil
	}
	if c.s.open != c {
		return errors.New("closed twice")
	}
	c.s.open = nil
	return nil
}

// sample is one that a peer has.
type sample struct {
	time  int64
	value float64
}

// peer is a Sender that keeps what it takes. answer, if it is set, is asked about each batch before.
type peer struct {
	mu      sync.Mutex
	series  map[string][]sample
	sends   int
	sizes   []int
	answer  func(ctx context.Context, n int, b *forward.Batch) (forward.Outcome, error)
	prepare func(t *forward.Target) error
	faults  []string
	closed  int
	last    forward.Batch
	exem    int
	fams    []string
}

func newPeer() *peer { return &peer{series: map[string][]sample{}} }

func (p *peer) Prepare(t *forward.Target) error {
	if p.prepare != nil {
		return p.prepare(t)
	}
	return nil
}

func (p *peer) Send(ctx context.Context, b *forward.Batch) (forward.Outcome, error) {
	p.mu.Lock()
	p.sends++
	n := p.sends
	p.sizes = append(p.sizes, b.Samples())
	p.check(b)
	answer := p.answer
	p.mu.Unlock()
	var out forward.Outcome
	if answer != nil {
		var err error
		if out, err = answer(ctx, n, b); err != nil {
			return out, err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.take(b, out.Refusals)
	return out, nil
}

// check finds what no batch may be.
func (p *peer) check(b *forward.Batch) {
	seen := map[string]bool{}
	for i := range b.Series {
		s := &b.Series[i]
		key := s.Labels.String()
		if seen[key] {
			p.faults = append(p.faults, "twice in a batch: "+key)
		}
		seen[key] = true
		if s.Samples() == 0 && len(s.Exemplars) == 0 {
			p.faults = append(p.faults, "nothing of "+key)
		}
		for j := 1; j < len(s.Floats); j++ {
			if s.Floats[j-1].TimeMillis >= s.Floats[j].TimeMillis {
				p.faults = append(p.faults, "not ascending: "+key)
			}
		}
		for j := 1; j < len(s.Histograms); j++ {
			if s.Histograms[j-1].TimeMillis >= s.Histograms[j].TimeMillis {
				p.faults = append(p.faults, "not ascending: "+key)
			}
		}
	}
	if len(b.Series) == 0 && len(b.Families) == 0 {
		p.faults = append(p.faults, "an empty batch")
	}
}

// take keeps the batch but for what is refused. What is new of a series must be later than what is there.
func (p *peer) take(b *forward.Batch, refusals []forward.Refusal) {
	p.last = *b
	for i := range b.Series {
		s := &b.Series[i]
		key := s.Labels.String()
		p.exem += len(s.Exemplars)
		for j, f := range s.Floats {
			refused := slices.ContainsFunc(refusals, func(r forward.Refusal) bool {
				return r.Series == i && (r.Float == j || r.Float < 0 && r.Histogram < 0)
			})
			if !refused {
				p.add(key, sample{f.TimeMillis, f.Value})
			}
		}
		for _, h := range s.Histograms {
			p.add(key, sample{h.TimeMillis, h.Float.Count})
		}
	}
	for _, f := range b.Families {
		p.fams = append(p.fams, f.Family)
	}
}

func (p *peer) add(key string, s sample) {
	have := p.series[key]
	if slices.Contains(have, s) {
		return
	}
	if n := len(have); n > 0 && have[n-1].time > s.time {
		p.faults = append(p.faults, fmt.Sprintf("%s: %v after %v", key, s, have[n-1]))
	}
	p.series[key] = append(have, s)
}

func (p *peer) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed++
	return nil
}

// samples is how many there are.
func (p *peer) samples() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.series {
		n += len(s)
	}
	return n
}

func (p *peer) sent() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sends
}

func (p *peer) faultless(t testing.TB) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	require.Empty(t, p.faults)
}

// rig is a Forwarder with a fake archive below, at work until the test ends.
type rig struct {
	*forward.Forwarder
	a    *fakeArchive
	dir  string
	stop func()
}

// start runs a Forwarder over the archive.
func start(t testing.TB, a *fakeArchive, dir string, outputs ...forward.Output) *rig {
	t.Helper()
	return startWith(t, a, forward.Options{DeadLetters: dir}, outputs...)
}

func startWith(t testing.TB, a *fakeArchive, o forward.Options, outputs ...forward.Output) *rig {
	t.Helper()
	o.Open, o.Remove = a.open, a.remove
	f := forward.New(o)
	require.NoError(t, f.Apply(outputs))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	var once sync.Once
	r := &rig{Forwarder: f, a: a, dir: o.DeadLetters}
	r.stop = func() {
		once.Do(func() {
			cancel()
			require.NoError(t, <-ended)
		})
	}
	t.Cleanup(func() {
		r.stop()
		require.Empty(t, a.faults)
	})
	return r
}

// output is one to the peer that begins at the beginning, with batches of ten.
func output(p *peer) forward.Output {
	return forward.Output{
		Name: "out", Kind: "fake", Start: archive.Start{All: true}, BatchSamples: 10, BatchDelay: 100 * time.Millisecond,
		NewSender: func() (forward.Sender, error) { return p, nil },
	}
}

// status is that of the only output.
func (r *rig) status(t testing.TB) forward.Status {
	t.Helper()
	all := r.Status()
	require.Len(t, all, 1)
	return all[0]
}

// pass lets time pass in the bubble of synctest, and then all work that there is be done.
func pass(d time.Duration) {
	<-time.NewTimer(d).C
	synctest.Wait()
}

// floatHistogram is a valid histogram with a count.
func floatHistogram(count float64) *histogram.FloatHistogram {
	return &histogram.FloatHistogram{
		Count: count, Sum: 1, PositiveSpans: []histogram.Span{{Length: 1}}, PositiveBuckets: []float64{count},
	}
}
