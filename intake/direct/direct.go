// Package direct is the target of package intake that is an archive in this process: in a server, behind its admin
// API, or in a command that has opened a data directory that no server has open.
//
// A leased day is an archive.Intake. The write port is the archive's Write, in batches; what an input refuses for its labels is
// refused here too, but an input's filters, relabelling and limits don't apply: what was stored once is history, not arrivals.
// A target is safe for several goroutines, a day for one. It neither opens nor closes the archive.
package direct

import (
	"context"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"varve/archive"
	"varve/archive/format"
	"varve/arrival"
	"varve/digest"
	"varve/intake"
)

// Options say what goes in.
type Options struct {
	// Forward lets outputs have all of it, as if it had arrived from a sender: no day is leased, all go through the write port.
	Forward bool
	// LabelsMax, NameBytesMax and ValueBytesMax bound the labels of a series, inclusive. Defaults 64, 1 KiB, 16 KiB: those of the inputs.
	LabelsMax, NameBytesMax, ValueBytesMax int
}

// target is an archive. It is safe for use by several goroutines.
type target struct {
	a *archive.Archive
	o Options
}

// New returns the archive as a target. Closing it stays the caller's.
func New(a *archive.Archive, o Options) intake.Target {
	if o.LabelsMax <= 0 {
		o.LabelsMax = 64
	}
	if o.NameBytesMax <= 0 {
		o.NameBytesMax = 1 << 10
	}
	if o.ValueBytesMax <= 0 {
		o.ValueBytesMax = 16 << 10
	}
	return &target{a, o}
}

// retryTries bounds how often an archive that can't take a write for now is asked again; with the waits that it
// suggests this is minutes.
const retryTries = 100

// retried calls f again for as long as the archive says that it can't for now.
func retried(ctx context.Context, f func() error) error {
	for try := 1; ; try++ {
		err := f()
		var u *arrival.Unavailable
		if !errors.As(err, &u) || u.RetryAfter <= 0 || u.Reason != "overload" || try == retryTries {
			return err
		}
		timer := time.NewTimer(u.RetryAfter)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
	}
}

// Resolve implements intake.Target.
func (t *target) Resolve(ctx context.Context, series []intake.Series) error {
	unknown := make([]arrival.Unknown, 0, len(series))
	rows := make([]arrival.Row, len(series))
	var room []byte
	for i := range series {
		s := &series[i]
		if s.Refused = t.refused(s.Labels); s.Refused != "" {
			continue
		}
		room = arrival.AppendLabels(room[:0], s.Labels)
		rows[i].Key = t.a.Seed().Hash(room)
	}
	t.a.Lookup(rows)
	var at []int
	for i := range series {
		if series[i].Refused == "" && rows[i].Ref == 0 {
			unknown, at = append(unknown, arrival.Unknown{Key: rows[i].Key, Labels: series[i].Labels}), append(at, i)
		}
	}
	if len(unknown) > 0 {
		if err := retried(ctx, func() error { return t.a.Resolve(ctx, unknown) }); err != nil {
			return err
		}
	}
	for k, i := range at {
		if rows[i].Ref = unknown[k].Ref; rows[i].Ref == 0 {
			series[i].Refused = unknown[k].Refused.String()
		}
	}
	refs := make([]storage.SeriesRef, 0, len(series))
	for i := range rows {
		if series[i].Ref = uint64(rows[i].Ref); rows[i].Ref != 0 {
			refs = append(refs, rows[i].Ref)
		}
	}
	metrics := make([]uint32, len(refs))
	if err := t.a.MetricsOf(ctx, refs, metrics); err != nil {
		return err
	}
	k := 0
	for i := range series {
		if series[i].Ref != 0 {
			series[i].Metric = metrics[k]
			k++
		}
	}
	return nil
}

// refused tells why the archive can't have such a series, "" if it can.
func (t *target) refused(ls labels.Labels) (why string) {
	if ls.Get(model.MetricNameLabel) == "" {
		return arrival.ReasonInvalidLabels.String() + ": no metric name"
	}
	n := 0
	ls.Range(func(l labels.Label) {
		n++
		switch {
		case l.Value == "":
			why = "a label without a value"
		case len(l.Name) > t.o.NameBytesMax || len(l.Value) > t.o.ValueBytesMax:
			why = "a label is too long"
		case !model.UTF8Validation.IsValidLabelName(l.Name) || !utf8.ValidString(l.Value):
			why = "a label is not UTF-8"
		}
	})
	if n > t.o.LabelsMax {
		why = "too many labels"
	}
	if name, twice := ls.HasDuplicateLabelNames(); twice {
		why = fmt.Sprintf("label %.50q is there twice", name)
	}
	if why != "" {
		return arrival.ReasonInvalidLabels.String() + ": " + why
	}
	return ""
}

// OpenDay implements intake.Target.
func (t *target) OpenDay(ctx context.Context, startMillis int64) (intake.Day, error) {
	if t.o.Forward {
		return nil, fmt.Errorf("%w, or might have: outputs read what comes through the write port", intake.ErrDayTaken)
	}
	if format.ClampTime(startMillis) != startMillis {
		return nil, fmt.Errorf("%w: the archive can't hold samples of %s", intake.ErrDayRefused, intake.DayName(startMillis))
	}
	var i *archive.Intake
	err := retried(ctx, func() (err error) {
		i, err = t.a.OpenIntake(ctx, format.DayOf(startMillis))
		return err
	})
	switch {
	case errors.Is(err, archive.ErrDayTaken):
		return nil, fmt.Errorf("%w: %w", intake.ErrDayTaken, err)
	case errors.Is(err, archive.ErrBusy):
		return nil, fmt.Errorf("%w: %w", intake.ErrBusy, err)
	case errors.Is(err, archive.ErrOutOfRetention):
		return nil, fmt.Errorf("%w: %w", intake.ErrDayRefused, err)
	case err != nil:
		return nil, err
	}
	return &day{i: i}, nil
}

// Querier implements intake.Target.
func (t *target) Querier(mint, maxt int64) (storage.Querier, error) { return t.a.Querier(mint, maxt) }

// day is a leased day.
type day struct {
	i      *archive.Intake
	chunks []archive.IntakeChunk
}

// Add implements intake.Day.
func (d *day) Add(ref uint64, chunks []intake.Chunk) error {
	d.chunks = d.chunks[:0]
	for _, c := range chunks {
		d.chunks = append(d.chunks, archive.IntakeChunk{Chunk: c.Chunk, MinMillis: c.MinMillis, MaxMillis: c.MaxMillis, Deleted: c.Deleted})
	}
	return d.i.Add(storage.SeriesRef(ref), d.chunks)
}

// Commit implements intake.Day.
func (d *day) Commit(ctx context.Context) (intake.DayReport, error) {
	r, err := d.i.Commit(ctx)
	if errors.Is(err, archive.ErrDayTaken) {
		err = fmt.Errorf("%w: %w", intake.ErrDayTaken, err)
	}
	return intake.DayReport{Series: r.Series, Samples: r.Samples, Bytes: r.Bytes, Expired: r.Expired}, err
}

// Digests implements intake.Day.
func (d *day) Digests(ctx context.Context, each func(uint64, digest.Series) error) error {
	return d.i.Digests(ctx, func(ref storage.SeriesRef, s digest.Series) error { return each(uint64(ref), s) })
}

// Close implements intake.Day.
func (d *day) Close() error { return d.i.Close() }
