package query

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
)

// archive is what a planned query reads from.
type archive struct {
	view        Archived
	policy      policy
	resolutions []int64 // that may be used, ascending
	lookback    int64
	typed       bool // the types of metrics are labels
	limits      *Limits
	logger      *slog.Logger
	workers     int
	used        *usage
	// rows and points count what planned selects read, and what they hold.
	rows, points atomic.Int64
	ctx          context.Context // of Exec
}

// count counts rows and raw samples that were read. It fails beyond Limits.RowsMax.
func (a *archive) count(n int) error {
	if n == 0 {
		return nil
	}
	if a.rows.Add(int64(n)) > int64(a.limits.RowsMax) {
		return fmt.Errorf("%w: more than %d; ask for a shorter time, fewer series or a coarser resolution", ErrTooManyRows, a.limits.RowsMax)
	}
	return a.interrupted()
}

// sampleCounter is an Archived that knows about how many samples it has.
type sampleCounter interface {
	// SamplesBetween returns about how many raw samples lie between two times, of all series; those
	// that arrived of late may be missing.
	SamplesBetween(mint, maxt int64) int64
}

// edgeGain is how many times more samples a query may read if it holds only those at the edges of
// its windows: passing over the others costs their decoding, and that is a day of a series at a time.
const edgeGain = 10

// recentMillis is of how much time samples may be missing in SamplesBetween.
const recentMillis = 2 * 24 * 3600 * 1000

// tooMany tells whether the windows of some series seem to have more raw samples than a query may
// read: as many as there are, or as the usual interval gives.
func (a *archive) tooMany(p *plan, series int) bool {
	most, span := int64(a.limits.SamplesMax), p.spanMillis()
	if p.resolution > 0 {
		most *= edgeGain
	}
	n := int64(series) * (span / assumedIntervalMillis)
	if counter, ok := a.view.(sampleCounter); ok && n > most {
		recent := int64(series) * (min(span, recentMillis) / assumedIntervalMillis)
		n = min(n, counter.SamplesBetween(p.grid.first-p.rangeMillis, p.grid.last)+recent)
	}
	return n > most
}

// interrupted returns why the query is over, if it is.
func (a *archive) interrupted() error { return a.ctx.Err() }

// hold counts points that stay in memory, as upstream does.
func (a *archive) hold(points []point) error {
	n := len(points)
	for _, p := range points {
		if p.h != nil {
			n += (p.h.Size() + 8) / 16
		}
	}
	if a.points.Add(int64(n)) > int64(a.limits.SamplesMax) {
		return promql.ErrTooManySamples("query execution")
	}
	return nil
}

// answerer answers a selector for one series after the other. It belongs to one worker.
type answerer interface {
	series(s ArchivedSeries) (storage.Series, annotations.Annotations, error)
	usage() *usage
}

func (w *windowReader) series(s ArchivedSeries) (storage.Series, annotations.Annotations, error) {
	out, annos, err := w.read(s)
	if out == nil {
		return nil, annos, err
	}
	return out, annos, err
}

func (r *instantReader) series(s ArchivedSeries) (storage.Series, annotations.Annotations, error) {
	out, err := r.read(s)
	if out == nil {
		return nil, nil, err
	}
	return out, nil, err
}

func (r *lastReader) series(s ArchivedSeries) (storage.Series, annotations.Annotations, error) {
	out, err := r.read(s)
	return out, nil, err
}

func (r *seriesReader) usage() *usage { return &r.used }

// selectPlanned answers a selector of a planned statement.
func (a *archive) selectPlanned(ctx context.Context, p *plan, count *seriesCount, matchers []*labels.Matcher) storage.SeriesSet {
	reach := max(p.rangeMillis, p.lookback) + a.resolutions[len(a.resolutions)-1]
	set := &plannedSet{archive: a, count: count, at: -1}
	set.from = a.view.SelectArchived(ctx, p.grid.first-reach, p.grid.last+a.resolutions[len(a.resolutions)-1], matchers...)
	tooMany := sync.OnceValue(func() bool { return p.thrifty && a.tooMany(p, len(set.all)) })
	set.reader = func() answerer {
		if !p.windows {
			return newInstantReader(a, p)
		}
		w := newWindowReader(a, p)
		w.skipRaw = tooMany()
		return w
	}
	return set
}

// selectLasts answers a selector that is not planned, of which raw samples may be gone.
func (a *archive) selectLasts(ctx context.Context, hints *storage.SelectHints, count *seriesCount, matchers []*labels.Matcher) storage.SeriesSet {
	set := &plannedSet{archive: a, count: count, at: -1}
	set.from = a.view.SelectArchived(ctx, hints.Start, hints.End+a.resolutions[len(a.resolutions)-1], matchers...)
	set.reader = func() answerer { return newLastReader(a, hints) }
	return set
}

// plannedSet is a set of series that are evaluated when the first is asked for, by several
// workers at once: the engine expands every set before it reads a sample, and asks for the annotations
// then.
type plannedSet struct {
	archive *archive
	from    ArchivedSet
	reader  func() answerer // for one worker
	count   *seriesCount
	all     []ArchivedSeries

	at       int
	series   []storage.Series
	warnings annotations.Annotations
	err      error
}

// Next implements storage.SeriesSet.
func (s *plannedSet) Next() bool {
	if s.at < 0 {
		if s.err = s.load(); s.err != nil {
			s.count.fail(s.err)
		}
	}
	s.at++
	return s.err == nil && s.at < len(s.series)
}

// At implements storage.SeriesSet.
func (s *plannedSet) At() storage.Series { return s.series[s.at] }

// Err implements storage.SeriesSet.
func (s *plannedSet) Err() error { return s.err }

// Warnings implements storage.SeriesSet.
func (s *plannedSet) Warnings() annotations.Annotations { return s.warnings }

func (s *plannedSet) load() error {
	for s.from.Next() {
		if err := s.archive.interrupted(); err != nil {
			return err
		}
		series := s.from.At()
		if err := s.count.add(series.Labels()); err != nil {
			return err
		}
		s.all = append(s.all, series)
	}
	s.warnings.Merge(s.from.Warnings())
	if err := s.from.Err(); err != nil {
		return err
	}
	found := make([]storage.Series, len(s.all))
	if err := s.evaluate(found); err != nil {
		return err
	}
	for _, series := range found {
		if series != nil {
			s.series = append(s.series, series)
		}
	}
	return nil
}

// evaluate fills found with the series that have points.
func (s *plannedSet) evaluate(found []storage.Series) error {
	var (
		next  atomic.Int64
		stop  atomic.Bool
		wg    sync.WaitGroup
		mu    sync.Mutex // guards first and s.warnings
		first error
	)
	work := func() (err error) {
		defer func() {
			if e := recover(); e != nil {
				s.archive.logger.Error("panic during a planned select", "err", e, "stacktrace", string(debug.Stack()))
				err = fmt.Errorf("unexpected error: %v", e)
			}
		}()
		r := s.reader()
		for !stop.Load() {
			i := int(next.Add(1)) - 1
			if i >= len(s.all) {
				break
			}
			if err := s.archive.interrupted(); err != nil {
				return err
			}
			series, annos, err := r.series(s.all[i])
			if err != nil {
				return err
			}
			if s.archive.policy == policyStrict && r.usage().approximate {
				return fmt.Errorf("%w: raw samples are gone, and the buckets of no resolution have all of what is asked for", ErrInexact)
			}
			found[i] = series
			mu.Lock()
			s.warnings.Merge(annos)
			mu.Unlock()
		}
		s.archive.used.add(r.usage())
		return nil
	}
	for range min(s.archive.workers, len(s.all)) {
		wg.Go(func() {
			if err := work(); err != nil {
				stop.Store(true)
				mu.Lock()
				defer mu.Unlock()
				if first == nil {
					first = err
				}
			}
		})
	}
	wg.Wait()
	return first
}
