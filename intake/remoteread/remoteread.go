// Package remoteread reads samples for an intake from a live server, by Prometheus' remote read
// protocol, and from any storage.ChunkQueryable in this process.
//
// A day is fetched whole before any of it is handed on, to a spool: memory up to a limit, then a file that has
// no name. So memory doesn't grow with the day, and a fetch that fails in the middle is begun anew
// without anybody having seen half of it. If the server says that a day is too much, or keeps failing, the day is
// fetched in windows of half the length, down to minutes, and the following days too.
//
// Chunks are taken as the server streams them, so every bit stays; servers that only send samples have them
// encoded here. Prometheus adds its external labels to what it answers; so they become labels of the
// imported series.
//
// A Source may be used by several goroutines, a day of it by one at a time.
package remoteread

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	config_util "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/tombstones"

	"varve/intake"
)

// Selection says which samples of a source are wanted, and where they wait.
type Selection struct {
	// Start and End are times in ms, both inclusive.
	Start, End int64
	// Selectors are the series, those that match any of them. None: all.
	Selectors [][]*labels.Matcher
	// Scratch is the folder for what doesn't fit in memory. "": the system's.
	Scratch string
	// MemoryBytes is how much of a day waits in memory. 0: 64 MiB.
	MemoryBytes int
}

// Options is what a Source over a live server is made of.
type Options struct {
	Selection
	// URL is that of remote read, such as http://prometheus:9090/api/v1/read.
	URL *url.URL
	// HTTP is how to connect: authentication, TLS, proxies.
	HTTP config_util.HTTPClientConfig
	// Patience is how long a window may fail for reasons that pass. 0: ten minutes.
	Patience time.Duration
	// Stalled is how long the server may send nothing. 0: five minutes.
	Stalled time.Duration
	// SamplesOnly asks for samples where chunks are preferred.
	SamplesOnly bool
	// Retrying, if set, is told before each wait and each narrower window.
	Retrying func(err error, wait time.Duration)
	// Wait waits, unless the context ends first. nil: on the clock.
	Wait func(ctx context.Context, d time.Duration) error
}

// Usual values of options.
const (
	patienceUsual = 10 * time.Minute
	stalledUsual  = 5 * time.Minute
	memoryUsual   = 64 << 20
)

// Windows are whole days at first and never shorter than the least, so that they fit into a day without a rest.
const (
	windowWhole = intake.DayMillis
	windowLeast = intake.DayMillis / 256 // 5 min 37.5 s
)

// fetcher gets samples from where they are.
type fetcher interface {
	// fetch calls emit for the series of a selector that have samples in [from, to], both inclusive, in ms. What it hands over is the
	// fetcher's again when emit returns. Chunks may reach beyond the range.
	fetch(ctx context.Context, from, to int64, selector []*labels.Matcher, emit func(ls labels.Labels, chunks []intake.Chunk) error) error
	close()
}

// Source implements intake.Source.
type Source struct {
	selection Selection
	from      fetcher
	name      string
	window    atomic.Int64 // length in ms
	patience  time.Duration
	retrying  func(err error, wait time.Duration)
	wait      func(ctx context.Context, d time.Duration) error
}

var _ intake.Source = (*Source)(nil)

// Open returns a source over a live server. It connects to nothing yet.
func Open(o Options) (*Source, error) {
	if o.Patience == 0 {
		o.Patience = patienceUsual
	}
	if o.Stalled == 0 {
		o.Stalled = stalledUsual
	}
	if o.Wait == nil {
		o.Wait = waitFor
	}
	f, err := newHTTPFetcher(&o)
	if err != nil {
		return nil, err
	}
	s, err := newSource(o.Selection, f, "remote read of "+o.URL.Redacted())
	if err != nil {
		return nil, err
	}
	s.patience, s.wait = o.Patience, o.Wait
	if o.Retrying != nil {
		s.retrying = o.Retrying
	}
	return s, nil
}

// FromQueryable returns a source over what q has. name is that of q in the state file of an intake. q is the
// caller's to close.
func FromQueryable(q storage.ChunkQueryable, name string, selection Selection) (*Source, error) {
	return newSource(selection, &queryFetcher{q: q}, name)
}

func newSource(selection Selection, f fetcher, name string) (*Source, error) {
	if selection.Start > selection.End {
		return nil, fmt.Errorf("the end %s is before the start %s", at(selection.End), at(selection.Start))
	}
	if selection.MemoryBytes == 0 {
		selection.MemoryBytes = memoryUsual
	}
	if len(selection.Selectors) == 0 {
		selection.Selectors = [][]*labels.Matcher{{labels.MustNewMatcher(labels.MatchNotEqual, model.MetricNameLabel, "")}}
	}
	s := &Source{selection: selection, from: f, name: name + " " + selectorsText(selection.Selectors), retrying: func(error, time.Duration) {}}
	s.window.Store(windowWhole)
	return s, nil
}

func selectorsText(all [][]*labels.Matcher) string {
	var b strings.Builder
	for _, matchers := range all {
		b.WriteByte('{')
		for i, m := range matchers {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(m.String())
		}
		b.WriteByte('}')
	}
	return b.String()
}

func at(millis int64) string { return time.UnixMilli(millis).UTC().Format(time.RFC3339Nano) }

func waitFor(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// Span implements intake.Source. It is what was asked for: nobody knows what the server has of it.
func (s *Source) Span() (mint, maxt int64, ok bool) {
	return s.selection.Start, s.selection.End, true
}

// Size implements intake.Source.
func (s *Source) Size() (samples, bytes uint64) { return 0, 0 }

// Identity implements intake.Source. The range is in it, so that the rest of a day which was not over the last time
// is fetched the next.
func (s *Source) Identity(startMillis int64) string {
	from, to := s.clip(startMillis)
	return fmt.Sprintf("%s from %s to %s", s.name, at(from), at(to))
}

// clip returns what of a day is asked for, both inclusive.
func (s *Source) clip(startMillis int64) (from, to int64) {
	return max(startMillis, s.selection.Start), min(startMillis+intake.DayMillis-1, s.selection.End)
}

// Close implements intake.Source.
func (s *Source) Close() error {
	s.from.close()
	return nil
}

// OpenDay implements intake.Source: it fetches the day.
func (s *Source) OpenDay(ctx context.Context, startMillis int64) (_ intake.SourceDay, err error) {
	d := &day{spool: spool{dir: s.selection.Scratch, memoryBytes: s.selection.MemoryBytes}, from: s.selection.Start, to: s.selection.End}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("fetch the samples of %s: %w", time.UnixMilli(startMillis).UTC().Format(time.DateOnly), err), d.Close())
		}
	}()
	from, to := s.clip(startMillis)
	for from <= to {
		next, err := s.fetchWindow(ctx, &d.spool, startMillis, from, to)
		if err != nil {
			return nil, err
		}
		from = next
	}
	return d, nil
}

// Waits between tries double from the first to the longest, give or take 20 %.
const (
	waitFirst = time.Second
	waitMax   = 30 * time.Second
)

// triesWhole is how often a window fails for reasons that pass before a narrower one is tried: what passes may be a
// timeout, or a proxy's.
const triesWhole = 2

// fetchWindow fetches the window that from lies in, however long windows are by then, and returns where the next one begins.
func (s *Source) fetchWindow(ctx context.Context, sp *spool, dayStart, from, to int64) (next int64, err error) {
	began, wait := time.Now(), waitFirst
	place := sp.size
	for tries := 1; ; tries++ {
		window := s.window.Load()
		end := min(to, dayStart+((from-dayStart)/window+1)*window-1)
		err := s.fetch(ctx, sp, from, end)
		if err == nil {
			return end + 1, nil
		}
		if back := sp.rewind(place); back != nil || ctx.Err() != nil {
			return 0, errors.Join(err, back)
		}
		passes, tooMuch, after := classify(err)
		narrower := (tooMuch || passes && tries%triesWhole == 0) && window > windowLeast
		if narrower {
			s.window.CompareAndSwap(window, window/2)
		}
		next := max(after, time.Duration(float64(wait)*(0.8+0.4*rand.Float64())))
		switch {
		case narrower && tooMuch:
			next = 0
		case !passes:
			return 0, err
		case time.Since(began)+next > s.patience:
			return 0, fmt.Errorf("%w; gave up after %s: run the same command again to go on", err, s.patience)
		}
		if narrower {
			err = fmt.Errorf("%w; from now on in windows of %s", err, time.Duration(window/2)*time.Millisecond)
		}
		s.retrying(err, next)
		if next > 0 {
			if waiting := s.wait(ctx, next); waiting != nil {
				return 0, errors.Join(waiting, err)
			}
			wait = min(2*wait, waitMax)
		}
	}
}

func (s *Source) fetch(ctx context.Context, sp *spool, from, to int64) error {
	for _, selector := range s.selection.Selectors {
		if err := s.from.fetch(ctx, from, to, selector, sp.add); err != nil {
			return err
		}
	}
	return nil
}

// day is a fetched day. It implements intake.SourceDay.
type day struct {
	spool spool
	// from and to are the selection's: chunks may reach beyond them.
	from, to int64
}

// Series implements intake.SourceDay.
func (d *day) Series(ctx context.Context, f func(ls labels.Labels, handle uint64) error) error {
	return d.spool.each(ctx, f)
}

// Chunks implements intake.SourceDay.
func (d *day) Chunks(_ context.Context, handle uint64, dst []intake.Chunk) ([]intake.Chunk, error) {
	had := len(dst)
	dst, err := d.spool.chunks(handle, dst)
	for i := had; i < len(dst); i++ {
		c := &dst[i]
		if c.MinMillis < d.from {
			c.Deleted = append(c.Deleted, tombstones.Interval{Mint: math.MinInt64, Maxt: d.from - 1})
		}
		if c.MaxMillis > d.to {
			c.Deleted = append(c.Deleted, tombstones.Interval{Mint: d.to + 1, Maxt: math.MaxInt64})
		}
	}
	return dst, err
}

// Close implements intake.SourceDay.
func (d *day) Close() error { return d.spool.close() }
