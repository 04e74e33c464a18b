package forward

import (
	"errors"
	"log/slog"
	"sync"
	"weak"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/model/relabel"

	"github.com/prometheus/common/model"
)

// target is a Target at work. It belongs to one shard, by the hash of its labels, so that its samples are sent one after
// the other.
type target struct {
	Target
	// metric is the name of a series that became it, by which metadata is known.
	metric string
	shard  uint8
	// unwritable says why the sender can't write it, empty if it can.
	unwritable string

	// Of the goroutine of its shard: the batch that it is in and its place there, and metadata with the minute it is of.
	batch    uint64
	slot     int32
	meta     metadata.Metadata
	metaTurn int64
}

// unwanted stands for the target of a series that isn't sent.
var unwanted = new(target)

// targets make a Target of a series, the same one for the same labels as long as anything uses it. Safe for use by several
// goroutines.
type targets struct {
	o      *Output
	log    *slog.Logger
	sender Sender

	mu sync.Mutex
	// known finds targets by the hash of their labels. What nothing else refers to is swept out now and then.
	known   map[uint64]weak.Pointer[target]
	sweepAt int
	builder *labels.Builder
}

// sweepMin is the least number of targets that are looked through for those that are gone.
const sweepMin = 1024

func newTargets(o *output, sender Sender) *targets {
	return &targets{
		o: &o.Output, log: o.log, sender: sender, known: map[uint64]weak.Pointer[target]{}, sweepAt: sweepMin,
		builder: labels.NewBuilder(labels.EmptyLabels()),
	}
}

// wanted tells whether the filters let a series through.
func (o *Output) wanted(ls labels.Labels) bool {
	switch {
	case len(o.Include) > 0:
		return anyMatches(o.Include, ls)
	case len(o.Exclude) > 0:
		return !anyMatches(o.Exclude, ls)
	}
	return true
}

func anyMatches(selectors [][]*labels.Matcher, ls labels.Labels) bool {
next:
	for _, selector := range selectors {
		for _, m := range selector {
			if !m.Matches(ls.Get(m.Name)) {
				continue next
			}
		}
		return true
	}
	return false
}

// ofSeries is the target of a series of the archive. Empty labels are those of a series that is gone.
func (ts *targets) ofSeries(ls labels.Labels) *target {
	if ls.IsEmpty() || !ts.o.wanted(ls) {
		return unwanted
	}
	return ts.of(ls)
}

// of is the target that external labels and relabelling make of the labels, unwanted if they leave nothing.
func (ts *targets) of(ls labels.Labels) *target {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	metric := ls.Get(model.MetricNameLabel)
	b := ts.builder
	b.Reset(ls)
	ts.o.ExternalLabels.Range(func(l labels.Label) {
		if b.Get(l.Name) == "" {
			b.Set(l.Name, l.Value)
		}
	})
	if !relabel.ProcessBuilder(b, ts.o.Relabel...) {
		return unwanted
	}
	out := b.Labels().WithoutEmpty()
	if out.IsEmpty() {
		return unwanted
	}
	return ts.intern(out, metric)
}

// intern returns the target of the labels. Called with mu held.
func (ts *targets) intern(ls labels.Labels, metric string) *target {
	hash := ls.Hash()
	key := hash
	for {
		p, ok := ts.known[key]
		if !ok {
			break
		}
		t := p.Value()
		if t == nil {
			break
		}
		if labels.Equal(t.Labels, ls) {
			return t
		}
		key++ // Other labels of the same hash.
	}
	t := &target{Target: Target{Labels: ls}, metric: metric, shard: uint8(hash % uint64(ts.o.Shards)), metaTurn: -1}
	t.unwritable = ts.prepare(&t.Target)
	ts.known[key] = weak.Make(t)
	if len(ts.known) >= ts.sweepAt {
		ts.sweep()
	}
	return t
}

func (ts *targets) prepare(t *Target) (unwritable string) {
	err := func() (err error) {
		defer catch(&err)
		return ts.sender.Prepare(t)
	}()
	if p := (*panicked)(nil); errors.As(err, &p) {
		ts.log.Error("a series can't be sent", "series", t.Labels.String(), "err", err, "stack", string(p.stack))
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

// sweep forgets targets that nothing uses.
func (ts *targets) sweep() {
	for key, p := range ts.known {
		if p.Value() == nil {
			delete(ts.known, key)
		}
	}
	ts.sweepAt = max(sweepMin, 2*len(ts.known))
}
