package forward

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"

	"varve/archive"
)

// Source is the durable place of an output in what arrived: an archive.Cursor. Read is called by one goroutine at a
// time, all else by any.
type Source interface {
	// Read waits for what comes next. Its slices are the caller's until the next Read; what histograms point to stays.
	Read(ctx context.Context, into *archive.Arrivals) error
	// Done is called once for each Read, in their order. After an error it is called again with an empty tally.
	Done(p archive.Position, t archive.Tally) error
	// Labels sets out[i] to the labels of refs[i], empty if the series is gone.
	Labels(refs []storage.SeriesRef, out []labels.Labels) error
	Metadata(metric string) metadata.Metadata
	Lag() (archive.Lag, error)
	Totals() archive.Tally
	Incarnation() string
	// Rewind makes Read begin elsewhere. What was read before is not settled any more. After an error Read begins behind what is
	// settled.
	Rewind(start archive.Start) error
	Close() error
}

// Replayer is a Source that can read again what arrived a while ago, for a Rewinder.
type Replayer interface {
	// KeepBehind keeps what arrived less than d ago though it is settled.
	KeepBehind(d time.Duration)
	// RewindArrivals makes Read begin with what arrived at since, or a little earlier, and at the latest, even after an error, behind
	// what is settled.
	RewindArrivals(since time.Time) error
}

// Evaluator answers PromQL. It is safe for use by several goroutines.
type Evaluator interface {
	Query(ctx context.Context, expr string, at time.Time) (promql.Vector, error)
}

// Times keep how far the queries of outputs have come. They are safe for use by several goroutines.
type Times interface {
	// SavedTime is the last step that is settled, and whether there is one.
	SavedTime(output, query string) (time.Time, bool, error)
	// SaveTime is durable when it returns, or soon after. The zero time removes what was saved.
	SaveTime(output, query string, t time.Time) error
}

// Options of a Forwarder.
type Options struct {
	// Open opens the cursor of an output, and makes it begin at start if there is none.
	Open func(name string, start archive.Start) (Source, error)
	// Remove removes the cursor of an output that is no longer wanted. It may be nil.
	Remove func(name string) error
	// Evaluator and Times are needed by outputs with queries.
	Evaluator Evaluator
	Times     Times
	// DeadLetters is the directory of the files with what peers refused. It is made when the first letter is written.
	DeadLetters string
	// Registerer takes the metrics. Default: none.
	Registerer prometheus.Registerer
	// Logger is told when an output begins and ceases to have trouble. Default: none.
	Logger *slog.Logger
	// Now is the wall clock, for ages and for what is shown. Default time.Now. Waiting is by the monotonic clock.
	Now func() time.Time
	// Grace is how long a batch that is being sent may take when its output has to stop. Default 5 s.
	Grace time.Duration
}

// Forwarder runs outputs. Its methods are safe for use by several goroutines.
type Forwarder struct {
	o Options
	m *metrics

	mu sync.Mutex
	// ctx is that of Run, nil before.
	ctx     context.Context
	outputs map[string]*output
	// ended has for each name the end of the last output that had it: the next one begins after it.
	ended map[string]<-chan struct{}
	wg    sync.WaitGroup
}

// ErrUnknownOutput is wrapped by the error of steering an output that there is not.
var ErrUnknownOutput = errors.New("there is no output of this name")

// ErrNotRunning is wrapped by the error of rewinding an output that has no cursor at the moment.
var ErrNotRunning = errors.New("the output is not running")

// New returns a Forwarder without outputs.
func New(o Options) *Forwarder {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Grace <= 0 {
		o.Grace = 5 * time.Second
	}
	f := &Forwarder{o: o, outputs: map[string]*output{}, ended: map[string]<-chan struct{}{}}
	f.m = newMetrics(f, o.Registerer)
	return f
}

// Run runs the outputs until ctx ends and all of them have stopped. It is called once.
func (f *Forwarder) Run(ctx context.Context) error {
	f.mu.Lock()
	if f.ctx != nil {
		f.mu.Unlock()
		return errors.New("forwarder: Run was called before")
	}
	f.ctx = ctx
	for _, out := range f.outputs {
		f.start(out)
	}
	f.mu.Unlock()
	<-ctx.Done()
	// Nothing is started any more: start looks at ctx with mu held.
	f.mu.Lock()
	//lint:ignore SA2001 whoever holds the lock is waited for
	f.mu.Unlock()
	f.wg.Wait()
	return nil
}

// Apply makes the outputs be those given. Those that are there already with the same fingerprint go on undisturbed, those with
// another begin again where they were, and those that are not given end and lose their cursors. An error means that nothing has changed. It does
// not wait for outputs to end.
func (f *Forwarder) Apply(wanted []Output) error {
	names := map[string]bool{}
	for i := range wanted {
		w := &wanted[i]
		if err := w.check(&f.o); err != nil {
			return fmt.Errorf("output %q: %w", w.Name, err)
		}
		if names[w.Name] {
			return fmt.Errorf("output %q: the name is there twice", w.Name)
		}
		names[w.Name] = true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, out := range f.outputs {
		if !names[name] {
			delete(f.outputs, name)
			f.end(out, true)
			f.m.forget(name)
		}
	}
	for i := range wanted {
		w := &wanted[i]
		old := f.outputs[w.Name]
		if old != nil && old.Fingerprint == w.Fingerprint {
			continue
		}
		out := newOutput(f, *w)
		if old != nil {
			if old.gate.closed() {
				out.gate.shut()
			}
			// One that only sends queries from now on needs no cursor: it would hold the journal, and days that are about to expire.
			old.needless.Store(w.QueriesOnly)
			f.end(old, false)
		}
		f.outputs[w.Name] = out
		f.start(out)
	}
	return nil
}

// start runs an output, if outputs run. Called with mu held.
func (f *Forwarder) start(out *output) {
	if f.ctx == nil || f.ctx.Err() != nil {
		return
	}
	ctx, cancel := context.WithCancel(f.ctx)
	out.cancel, out.ended = cancel, make(chan struct{})
	after := f.ended[out.Name]
	f.ended[out.Name] = out.ended
	f.wg.Add(1)
	go func() {
		defer f.wg.Done()
		defer close(out.ended)
		defer cancel()
		if after != nil {
			<-after
		}
		out.main(ctx)
	}()
}

// end makes an output end by itself. Called with mu held.
func (f *Forwarder) end(out *output, remove bool) {
	if out.cancel == nil {
		return
	}
	out.removed.Store(remove)
	out.cancel()
}

// Status lists the outputs by name.
func (f *Forwarder) Status() []Status {
	all := f.all()
	out := make([]Status, len(all))
	for i, o := range all {
		out[i] = o.status()
	}
	return out
}

func (f *Forwarder) all() []*output {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]*output, 0, len(f.outputs))
	for _, o := range f.outputs {
		out = append(out, o)
	}
	slices.SortFunc(out, func(a, b *output) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func (f *Forwarder) named(name string) (*output, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if out := f.outputs[name]; out != nil {
		return out, nil
	}
	return nil, fmt.Errorf("output %q: %w", name, ErrUnknownOutput)
}

// Pause makes an output send nothing until Resume. A batch that is being sent is not taken back. A pause survives Apply, not
// the end of the process.
func (f *Forwarder) Pause(name string) error {
	out, err := f.named(name)
	if err == nil {
		out.gate.shut()
	}
	return err
}

// Resume ends a Pause.
func (f *Forwarder) Resume(name string) error {
	out, err := f.named(name)
	if err == nil {
		out.gate.open()
	}
	return err
}

// Rewind makes an output begin at start again, its queries too unless start is All. It waits until that is durable, at most about Options.Grace.
func (f *Forwarder) Rewind(name string, start archive.Start) error {
	out, err := f.named(name)
	if err != nil {
		return err
	}
	if err := out.rewind(start); err != nil {
		return fmt.Errorf("output %q: rewind: %w", name, err)
	}
	return nil
}
