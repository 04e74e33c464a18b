package query

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/util/annotations"
)

// Resolution says from what a query may be answered. The zero value is Auto.
type Resolution struct {
	policy policy
	millis int64
}

type policy int

const (
	policyAuto policy = iota
	policyRaw
	policyStrict
	policyFixed
)

// The policies. A resolution such as 5m, which ParseResolution returns, is another: all that can be
// answered from its buckets is, windows that don't fit are fitted to whole buckets, and raw samples are
// read only where its buckets aren't complete.
var (
	// Auto answers exactly where that is possible, from buckets where they are cheaper; else from raw
	// samples while they exist and are not too many; else from the coarsest buckets of which at least
	// one fits into a step. What is not exact is marked.
	Auto = Resolution{policy: policyAuto}
	// Raw reads raw samples only, as if there were no rollups.
	Raw = Resolution{policy: policyRaw}
	// Strict is Auto, but fails with ErrInexact where Auto would not be exact.
	Strict = Resolution{policy: policyStrict}
)

// ParseResolution reads auto, raw, strict or a resolution such as 5m.
func ParseResolution(text string) (Resolution, error) {
	switch text {
	case "auto":
		return Auto, nil
	case "raw":
		return Raw, nil
	case "strict":
		return Strict, nil
	}
	d, err := model.ParseDuration(text)
	if err != nil || d < model.Duration(time.Millisecond) {
		return Resolution{}, fmt.Errorf("resolution %q is none of auto, raw, strict, or a length of buckets such as 5m", text)
	}
	return Resolution{policyFixed, time.Duration(d).Milliseconds()}, nil
}

// String is the inverse of ParseResolution.
func (r Resolution) String() string {
	switch r.policy {
	case policyRaw:
		return "raw"
	case policyStrict:
		return "strict"
	case policyFixed:
		return duration(r.millis)
	}
	return "auto"
}

func duration(millis int64) string {
	return model.Duration(time.Duration(millis) * time.Millisecond).String()
}

type resolutionKey struct{}

// WithResolution returns a context in which Exec follows r rather than Options.Resolution.
func WithResolution(ctx context.Context, r Resolution) context.Context {
	return context.WithValue(ctx, resolutionKey{}, r)
}

func (e *Engine) resolutionOf(ctx context.Context) Resolution {
	if r, ok := ctx.Value(resolutionKey{}).(Resolution); ok {
		return r
	}
	return e.options.Resolution
}

// ErrRollup is what the annotation of answers from rollups is, for errors.Is.
var ErrRollup = fmt.Errorf("%w: answered from rollups", annotations.PromQLInfo)

// Sources tells what an executed query was answered from.
type Sources struct {
	// Raw tells that raw samples were read, or nothing at all.
	Raw bool
	// Millis are the resolutions of the buckets that were read, ascending.
	Millis []int64
	// Approximate tells that some value may not be that of the raw samples.
	Approximate bool
}

// String lists the sources, finest first, as in "raw,5m,1h;approximate".
func (s Sources) String() string {
	var names []string
	if s.Raw || len(s.Millis) == 0 {
		names = append(names, "raw")
	}
	for _, r := range s.Millis {
		names = append(names, duration(r))
	}
	list := strings.Join(names, ",")
	if s.Approximate {
		list += ";approximate"
	}
	return list
}

// annotation is what an answer from rollups says of itself.
func (s Sources) annotation() error {
	exact := "exact"
	if s.Approximate {
		exact = "approximate, since where raw samples are gone windows were fitted to whole buckets, or buckets stand for their samples"
	}
	return fmt.Errorf("%w of %s: %s", ErrRollup, strings.TrimSuffix(s.String(), ";approximate"), exact)
}

// SourcesOf tells what a query of an Engine was answered from. It has a meaning after Exec.
func SourcesOf(q promql.Query) Sources {
	if own, ok := q.(*query); ok {
		return own.used.sources()
	}
	return Sources{Raw: true}
}

type reportKey struct{}

// report holds the Sources of the queries that were executed under a context.
type report struct {
	mu   sync.Mutex // guards used
	used *Sources
}

// WithReport returns a context and a function that tells the Sources of the last query that
// was executed in it; ok is false if there was none.
func WithReport(ctx context.Context) (within context.Context, executed func() (s Sources, ok bool)) {
	r := &report{}
	return context.WithValue(ctx, reportKey{}, r), func() (Sources, bool) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.used == nil {
			return Sources{}, false
		}
		return *r.used, true
	}
}

func reportTo(ctx context.Context, s Sources) {
	if r, ok := ctx.Value(reportKey{}).(*report); ok {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.used = &s
	}
}

// usage collects what the workers of a query read.
type usage struct {
	mu          sync.Mutex // guards the rest
	raw         bool
	resolutions []int64
	approximate bool
	rows        int64 // rows and raw samples read by planned selects
}

// add takes over what one worker read.
func (u *usage) add(o *usage) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.raw = u.raw || o.raw
	u.approximate = u.approximate || o.approximate
	u.rows += o.rows
	for _, r := range o.resolutions {
		u.note(r)
	}
}

// note remembers a resolution that was read. mu is held, or u belongs to one goroutine.
func (u *usage) note(r int64) {
	if !slices.Contains(u.resolutions, r) {
		u.resolutions = append(u.resolutions, r)
	}
}

func (u *usage) sources() Sources {
	u.mu.Lock()
	defer u.mu.Unlock()
	s := Sources{Raw: u.raw || len(u.resolutions) == 0, Millis: slices.Clone(u.resolutions), Approximate: u.approximate}
	slices.Sort(s.Millis)
	return s
}

// The caller's faults that have to do with rollups.
var (
	// ErrInexact: the query could only be approximated, and was to be answered strictly.
	ErrInexact = errors.New("the answer would be approximate")
	// ErrNoResolution: there are no buckets of the resolution that was asked for.
	ErrNoResolution = errors.New("no rollups of this resolution")
	// ErrTooManyRows: planned selectors read more rows and samples than Limits.RowsMax.
	ErrTooManyRows = errors.New("query reads too many rows of rollups")
)

// timeMax is beyond all times that are planned, so that sums of a few don't overflow.
const timeMax = math.MaxInt64 / 8
