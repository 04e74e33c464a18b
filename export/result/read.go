package result

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/promql/parser"
)

// PointsMax is how many points of a series Prometheus answers at once.
const PointsMax = 11_000

// Bounds of the parts. One is made as long as it is expected to take partBytes; what takes partBytesMax is asked for in smaller ones.
const (
	partBytes    = 32 << 20
	partBytesMax = 256 << 20
	// growth is how much longer a part is than the one before, at most.
	growth = 4
	// ceilingGrowth is how slowly parts become longer again than what a refusal left: by one of so many. The refusal of a part may have
	// taken the time of a whole query.
	ceilingGrowth = 16
	// firstPoints is the first part of what can't be asked for at once.
	firstPoints = 1_000
	// remarksMax bounds the warnings that are kept.
	remarksMax = 20
	// QueriesMax bounds the queries of a Request.
	QueriesMax = 64
)

// niceSteps are those that a step is chosen from, in s.
var niceSteps = []int64{1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400}

// stepPoints is how many points a chosen step makes at most.
const stepPoints = 1_000

// NiceStep returns a step, ms, with which a time of so many ms has at most a thousand steps.
func NiceStep(spanMillis int64) int64 {
	for _, s := range niceSteps {
		if spanMillis <= s*1000*stepPoints {
			return s * 1000
		}
	}
	const day = 86_400_000
	return (spanMillis/(stepPoints*day) + 1) * day
}

// Read says what is read from where, in parts.
type Read struct {
	Source  Source
	Queries []string
	Grid    Grid
	// Parser reads the queries when they have to be taken apart; nil knows all of PromQL.
	Parser parser.Parser
	// PointsMax bounds the points of a request; 0 is the constant.
	PointsMax int64
	// Progress is called behind each part. It may be nil.
	Progress func(Progress)

	partBytes, partBytesMax int64 // 0: the constants
}

// Progress is how far a Read is.
type Progress struct {
	// Done is the part of the time that is done, 0 to 1.
	Done     float64
	Requests int
	// Values are the floats and histograms so far, Series those of the last part.
	Values uint64
	Series int
}

// Report is what a Read did.
type Report struct {
	Requests        int
	Values          uint64
	Warnings, Infos []string
	// Resolutions are what the answers are from, each once.
	Resolutions []string
	// Without are the queries that have no values at all.
	Without []string
}

// Validate tells what is wrong before anything is read.
func (r *Read) Validate() error {
	if r.Source == nil {
		return fmt.Errorf("%w: no source", ErrOption)
	}
	if len(r.Queries) == 0 || slices.Contains(r.Queries, "") {
		return fmt.Errorf("%w: no query, or an empty one", ErrOption)
	}
	if len(r.Queries) > QueriesMax {
		return fmt.Errorf("%w: %d queries, at most %d can be exported at once", ErrOption, len(r.Queries), QueriesMax)
	}
	for i, q := range r.Queries {
		if slices.Contains(r.Queries[:i], q) {
			return fmt.Errorf("%w: the query %q is given twice", ErrOption, q)
		}
	}
	return r.Grid.Validate()
}

// Parts calls f with one part after the other, in the order of time. Parts without values are passed over. ErrEmpty is
// returned if there was no other.
func (r *Read) Parts(ctx context.Context, f func(*Part) error) (Report, error) {
	if err := r.Validate(); err != nil {
		return Report{}, err
	}
	w := &reading{Read: *r, total: r.Grid.Points(), found: make([]bool, len(r.Queries))}
	if w.PointsMax <= 0 {
		w.PointsMax = PointsMax
	}
	if w.Parser == nil {
		w.Parser = anyParser
	}
	if w.partBytes == 0 {
		w.partBytes, w.partBytesMax = partBytes, partBytesMax
	}
	err := w.all(ctx, f)
	for i, q := range r.Queries {
		if !w.found[i] {
			w.report.Without = append(w.report.Without, q)
		}
	}
	if err == nil && w.report.Values == 0 {
		err = fmt.Errorf("%w: no series of %s has a value from %s to %s; look at the time, and at the spelling of names", ErrEmpty, strings.Join(r.Queries, ", "),
			timeText(r.Grid.First), timeText(r.Grid.Last))
	}
	return w.report, err
}

// reading is one call of Parts.
type reading struct {
	Read
	total  int64
	texts  []string // of the queries, for parts; nil until one is needed
	found  []bool   // by query: it has values
	report Report
}

// all reads as much as fits at a time, learning from each part how long the next may be. What is refused is asked for again with
// half of the points.
func (r *reading) all(ctx context.Context, f func(*Part) error) error {
	points := r.total
	if points > r.PointsMax {
		points = min(firstPoints, r.PointsMax)
	}
	ceiling := r.PointsMax
	for at := int64(0); at < r.total; {
		n := min(points, r.total-at)
		g := r.Grid.part(at, n)
		p, used, err := r.part(ctx, g)
		if errors.Is(err, ErrTooLarge) && n > 1 && ctx.Err() == nil {
			points = n / 2
			ceiling = points
			continue
		}
		if err == nil && len(p.Series) > 0 {
			err = f(&p.Part)
		}
		p.release()
		if err != nil {
			return err
		}
		at += n
		points = min(max(int64(float64(n)*float64(r.partBytes)/float64(used+1)), 1), n*growth, ceiling)
		ceiling = min(ceiling+ceiling/ceilingGrowth+1, r.PointsMax)
		if r.Progress != nil {
			r.Progress(Progress{Done: float64(at) / float64(r.total), Requests: r.report.Requests, Values: r.report.Values, Series: len(p.Series)})
		}
	}
	return nil
}

// heldPart is a Part with what holds its memory.
type heldPart struct {
	Part
	answers []Answer
}

func (p *heldPart) release() {
	for i := range p.answers {
		p.answers[i].release()
	}
	p.answers = nil
}

// part asks all queries for one stretch. It tells how many bytes that takes.
func (r *reading) part(ctx context.Context, g Grid) (p heldPart, used int64, err error) {
	p.Grid = g
	defer func() {
		if err != nil {
			p.release()
		}
	}()
	for i := range r.Queries {
		text, err := r.text(i, g)
		if err != nil {
			return p, 0, err
		}
		a, err := r.Source.Range(ctx, text, g, r.partBytesMax-used)
		r.report.Requests++
		if err != nil {
			return p, 0, fmt.Errorf("query %s: %w", r.Queries[i], err)
		}
		p.answers = append(p.answers, a)
		if err := a.check(g); err != nil {
			return p, 0, fmt.Errorf("query %s: %w", r.Queries[i], err)
		}
		r.remark(&a)
		for _, s := range a.Series {
			if len(s.Floats)+len(s.Histograms) == 0 {
				continue
			}
			s.Query = i
			used += s.bytes()
			p.Series = append(p.Series, s)
		}
	}
	for i := range p.Series {
		s := &p.Series[i]
		r.found[s.Query] = true
		r.report.Values += uint64(len(s.Floats) + len(s.Histograms))
	}
	return p, used, nil
}

// text is how a query is asked for a stretch.
func (r *reading) text(i int, g Grid) (string, error) {
	if g == r.Grid {
		return r.Queries[i], nil
	}
	if r.texts == nil {
		texts := make([]string, len(r.Queries))
		for j, q := range r.Queries {
			text, err := divisible(r.Parser, q, r.Grid)
			if err != nil {
				return "", fmt.Errorf("%w: query %s, %d points: %w. Or choose a longer step or less time", ErrOption, q, r.total, err)
			}
			texts[j] = text
		}
		r.texts = texts
	}
	return r.texts[i], nil
}

func (r *reading) remark(a *Answer) {
	add := func(to *[]string, texts ...string) {
		for _, t := range texts {
			if t != "" && len(*to) < remarksMax && !slices.Contains(*to, t) {
				*to = append(*to, t)
			}
		}
	}
	add(&r.report.Warnings, a.Warnings...)
	add(&r.report.Infos, a.Infos...)
	add(&r.report.Resolutions, a.Resolution)
}
