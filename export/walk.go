package export

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/grafana/regexp"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// Defaults of a Walker. A sample takes two to sixteen bytes while it waits, so four million are tens of MB; two thousand
// series make requests of some hundred kB.
const (
	samplesBudget  = 4 << 20
	sliceSeriesMax = 2000
	// firstInterval is how many ms lie between samples until some were seen: dense, so that the first slice isn't too large.
	firstInterval = 1000
)

// Walker reads the samples of listed series. Its fields are set before Walk; it is for one goroutine.
type Walker struct {
	Source *Source
	// Request is that of the list. Samples outside of its time are not read.
	Request Request
	// SamplesBudget is about how many samples are held at a time, SliceSeriesMax how many series are asked for in one
	// Select. 0 is a default.
	SamplesBudget  int64
	SliceSeriesMax int

	// perMilli is how many samples a series had a ms lately, at most.
	perMilli float64
}

// Piece is a series in a stretch of time.
type Piece struct {
	Labels labels.Labels
	// Samples are in order. The iterator is good until the function it was given to returns.
	Samples chunkenc.Iterator
	// First and Last tell whether it is the first and the last piece of its series.
	First, Last bool
}

// Walk calls f for every series of the list in its order, for each one or several times with consecutive stretches of
// the time of the request. f must read the iterator to its end, and its error.
// A series that lost its samples since it was listed comes with none.
func (w *Walker) Walk(ctx context.Context, l *List, f func(Piece) error) error {
	if w.SamplesBudget <= 0 {
		w.SamplesBudget = samplesBudget
	}
	if w.SliceSeriesMax <= 0 {
		w.SliceSeriesMax = sliceSeriesMax
	}
	if w.perMilli == 0 {
		w.perMilli = 1.0 / firstInterval
	}
	in := &peekReader{reader: l.Reader()}
	for {
		slice, err := in.slice(w.sliceSize())
		if err != nil {
			return err
		}
		if len(slice) == 0 {
			return nil
		}
		if err := w.slice(ctx, slice, f); err != nil {
			return err
		}
	}
}

// Expect tells how many ms lie between the samples of a series about, before the first Walk.
func (w *Walker) Expect(intervalMillis int64) { w.perMilli = 1 / float64(max(intervalMillis, 1)) }

func (w *Walker) span() int64 { return w.Request.MaxMillis - w.Request.MinMillis + 1 }

func (w *Walker) sliceSize() int {
	n := float64(w.SamplesBudget) / (w.perMilli * float64(w.span()))
	return int(min(max(n, 1), float64(w.SliceSeriesMax)))
}

// slice reads some series, in halves if they are too many.
func (w *Walker) slice(ctx context.Context, sets []labels.Labels, f func(Piece) error) error {
	if len(sets) == 1 {
		return w.long(ctx, sets[0], f)
	}
	given, err := w.read(ctx, sets, w.Request.MinMillis, w.Request.MaxMillis, true, true, f)
	if err == nil || given > 0 || !w.Source.tooLarge(err) {
		return err
	}
	half := len(sets) / 2
	if err := w.slice(ctx, sets[:half], f); err != nil {
		return err
	}
	return w.slice(ctx, sets[half:], f)
}

// long reads one series, stretch by stretch if it has to be.
func (w *Walker) long(ctx context.Context, set labels.Labels, f func(Piece) error) error {
	mint, last := w.Request.MinMillis, w.Request.MaxMillis
	stretch := w.stretch()
	for first := true; ; {
		maxt := last
		if stretch < last-mint+1 {
			maxt = mint + stretch - 1
		}
		given, err := w.read(ctx, []labels.Labels{set}, mint, maxt, first, maxt == last, f)
		if err != nil {
			if given > 0 || maxt == mint || !w.Source.tooLarge(err) {
				return err
			}
			stretch = (maxt - mint + 1) / 2
			continue
		}
		if maxt == last {
			return nil
		}
		mint, first, stretch = maxt+1, false, min(w.stretch(), 4*stretch)
	}
}

// stretch is how many ms of one series the budget allows.
func (w *Walker) stretch() int64 {
	return int64(min(max(float64(w.SamplesBudget)/w.perMilli, 60_000), math.MaxInt64/8))
}

// read calls f for each of the sets, with samples from mint to maxt, both inclusive. given is how many f was called for.
func (w *Walker) read(ctx context.Context, sets []labels.Labels, mint, maxt int64, first, last bool, f func(Piece) error) (given int, err error) {
	samples := int64(0)
	err = withQuerier(w.Source.Queryable, mint, maxt, func(q storage.Querier) error {
		hints := &storage.SelectHints{Start: mint, End: maxt}
		found := rawSets{q.Select(ctx, true, hints, w.matchers(sets)...)}
		var it countingIterator
		return pick(ctx, found, sets, func(i int, present bool) error {
			it.Iterator = chunkenc.NewNopIterator()
			if present {
				it.reuse = found.At().Iterator(it.reuse)
				it.Iterator = it.reuse
			}
			given++
			return f(Piece{Labels: sets[i], Samples: &it, First: first, Last: last})
		}, func() { samples = it.samples })
	})
	if err != nil {
		return given, fmt.Errorf("read %d series beginning with %s: %w", len(sets), sets[0], err)
	}
	w.learn(samples, len(sets), maxt-mint+1)
	return given, nil
}

// learn notes how dense samples are. What comes next is taken for about as dense, and at most twice as.
func (w *Walker) learn(samples int64, series int, span int64) {
	seen := 2 * float64(samples) / float64(series) / float64(span)
	// One sample a day is the least that is reckoned with.
	w.perMilli = max(seen, w.perMilli/4, 1.0/86_400_000)
}

// pick calls f for each of sets in order, telling whether the series is at the head of found, which may have others
// between. Both are sorted.
func pick(ctx context.Context, found labelSets, sets []labels.Labels, f func(i int, present bool) error, done func()) error {
	i := 0
	for n := 0; i < len(sets) && found.Next(); n++ {
		if n&255 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		at := found.Labels()
		for i < len(sets) {
			c := labels.Compare(sets[i], at)
			if c > 0 {
				break
			}
			if err := f(i, c == 0); err != nil {
				return err
			}
			i++
			if c == 0 {
				break
			}
		}
	}
	if err := found.Err(); err != nil {
		return err
	}
	for ; i < len(sets); i++ {
		if err := f(i, false); err != nil {
			return err
		}
	}
	done()
	return nil
}

// matchers returns matchers that all of sets meet, and not many others.
func (w *Walker) matchers(sets []labels.Labels) []*labels.Matcher {
	var ms []*labels.Matcher
	if len(w.Request.Selectors) == 1 {
		ms = append(ms, w.Request.Selectors[0]...)
	}
	return append(ms, Narrow(sets)...)
}

// alternativesBytesMax bounds the regular expression for one label.
const alternativesBytesMax = 256 << 10

// Narrow returns matchers that all of sets meet: for each label an equality, or a list of its values unless that is
// very long.
func Narrow(sets []labels.Labels) []*labels.Matcher {
	type seen struct {
		values []string // each once
		known  map[string]struct{}
		count  int
		bytes  int
	}
	names := map[string]*seen{}
	for _, ls := range sets {
		ls.Range(func(l labels.Label) {
			s := names[l.Name]
			if s == nil {
				s = &seen{known: map[string]struct{}{}}
				names[l.Name] = s
			}
			s.count++
			if _, ok := s.known[l.Value]; !ok {
				s.known[l.Value] = struct{}{}
				s.values = append(s.values, l.Value)
				s.bytes += len(l.Value)
			}
		})
	}
	ordered := make([]string, 0, len(names))
	for name := range names {
		ordered = append(ordered, name)
	}
	slices.Sort(ordered)
	var ms []*labels.Matcher
	for _, name := range ordered {
		s := names[name]
		if s.count < len(sets) {
			s.values = append(s.values, "")
		}
		if len(s.values) == 1 {
			ms = append(ms, labels.MustNewMatcher(labels.MatchEqual, name, s.values[0]))
			continue
		}
		if s.bytes > alternativesBytesMax {
			continue
		}
		for i, v := range s.values {
			s.values[i] = regexp.QuoteMeta(v)
		}
		// A value that is no UTF-8 makes no expression: then this label narrows nothing.
		if m, err := labels.NewMatcher(labels.MatchRegexp, name, strings.Join(s.values, "|")); err == nil {
			ms = append(ms, m)
		}
	}
	if len(ms) == 0 {
		ms = append(ms, labels.MustNewMatcher(labels.MatchRegexp, model.MetricNameLabel, ".*"))
	}
	return ms
}

// countingIterator counts samples. Seek isn't used.
type countingIterator struct {
	chunkenc.Iterator
	reuse   chunkenc.Iterator
	samples int64
}

// Next implements chunkenc.Iterator.
func (it *countingIterator) Next() chunkenc.ValueType {
	t := it.Iterator.Next()
	if t != chunkenc.ValNone {
		it.samples++
	}
	return t
}

// peekReader reads slices of a list.
type peekReader struct {
	reader *ListReader
	next   labels.Labels
	full   bool
}

// slice returns the next series, at most n. It ends where another metric begins if it has a fair number, so that
// only metrics too large for a slice are read in parts.
func (r *peekReader) slice(n int) ([]labels.Labels, error) {
	var sets []labels.Labels
	name := ""
	for len(sets) < n {
		if !r.full {
			ls, err := r.reader.Next()
			if errors.Is(err, io.EOF) {
				return sets, nil
			}
			if err != nil {
				return nil, fmt.Errorf("read scratch file: %w", err)
			}
			r.next, r.full = ls, true
		}
		metric := r.next.Get(model.MetricNameLabel)
		if len(sets) >= (n+3)/4 && metric != name {
			return sets, nil
		}
		name = metric
		sets = append(sets, r.next)
		r.full = false
	}
	return sets, nil
}
