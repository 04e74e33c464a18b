package ingest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/storage"

	"varve/arrival"
)

// errEnded is the answer to an appender that was already committed or rolled back.
var errEnded = errors.New("appender is already committed or rolled back")

// appender implements storage.AppenderV2.
//
// Each row of the batch carries the key of its series' labels, and Commit looks
// the refs up again under it: a ref that Append gave out may be of a series that
// was deleted since.
type appender struct {
	to    *Appendable
	ctx   context.Context
	batch *arrival.Batch
	sets  *LabelSets
	// series runs beside batch.Rows.
	series []appended
	wire   []byte
	// held are the bytes taken from the budget, spent those that are in use.
	held, spent int64
	family      arrival.Metadata
	families    map[string]struct{}
	// report gets what becomes of the samples, instead of the meter, unless it is nil.
	report *arrival.Result
	// dropped counts what the batch leaves out by rule.
	dropped arrival.Result
	ended   bool
}

type appended struct {
	ref    storage.SeriesRef
	labels labels.Labels
}

// Append implements storage.AppenderV2.
func (a *appender) Append(ref storage.SeriesRef, ls labels.Labels, st, t int64, v float64, h *histogram.Histogram, fh *histogram.FloatHistogram, opts storage.AppendV2Options) (storage.SeriesRef, error) {
	row, ok := a.lastRow(ref, ls)
	if !ok {
		found, k, err := a.find(ref, ls)
		if err != nil {
			return 0, err
		}
		if a.to.skipRepeated && len(opts.Exemplars) == 0 && a.repeats(&k, st, t, v, h, fh) {
			a.leaveOut(h != nil || fh != nil)
			return found, nil
		}
		if row, err = a.addRow(found, k); err != nil {
			return 0, err
		}
	}
	ref = a.series[row].ref
	if opts.RejectOutOfOrder {
		if k, ok := a.to.known.get(ref); ok && t <= k.latestMillis {
			return 0, storage.ErrOutOfOrderSample
		}
	}
	var err error
	if h != nil || fh != nil {
		err = a.histogram(row, st, t, h, fh)
	} else {
		err = a.sample(row, st, t, v)
	}
	if err != nil {
		return 0, err
	}
	if err := a.metadata(a.series[row].labels, opts.MetricFamilyName, opts.Metadata); err != nil {
		return 0, err
	}
	return ref, a.exemplars(row, t, opts.Exemplars)
}

// Commit implements storage.AppenderTransaction. It returns once the samples are
// durable. When the archive refused some of them the error says so, and the
// others are written all the same.
func (a *appender) Commit() error {
	if a.ended {
		return errEnded
	}
	start := time.Now()
	var result arrival.Result
	err := a.write(&result)
	if err != nil {
		result = arrival.Result{}
	} else {
		result.Add(&a.dropped)
	}
	if a.report != nil {
		a.report.Add(&result)
		a.end()
		return err
	}
	code := http.StatusNoContent
	switch {
	case err != nil:
		code = http.StatusServiceUnavailable
	case result.Rejected.Total() > 0:
		code = http.StatusBadRequest
		err = fmt.Errorf("commit: the archive refused %s: %w", result.Refusals(), storage.ErrOutOfBounds)
	}
	a.to.meter.Answered(code, time.Since(start), 0, 0, &result)
	a.to.meter.Told(&result.Rejected, func() string { return err.Error() })
	a.end()
	return err
}

// Rollback implements storage.AppenderTransaction.
func (a *appender) Rollback() error {
	if a.ended {
		return errEnded
	}
	a.end()
	return nil
}

func (a *appender) write(result *arrival.Result) error {
	b := a.batch
	if len(b.Rows) == 0 && len(b.Metadata) == 0 {
		return nil
	}
	if a.to.sink.Lookup(b.Rows) > 0 {
		if err := a.resolveLost(&result.Rejected); err != nil {
			return fmt.Errorf("resolve series: %w", err)
		}
	}
	written, err := a.to.sink.Write(a.ctx, b)
	if err != nil {
		return fmt.Errorf("write samples: %w", err)
	}
	written.Rejected.Add(&result.Rejected)
	*result = written
	// What a filter leaves out it will leave out again. Anything else that was not
	// stored may be when it comes again.
	all := a.to.skipRepeated && result.Rejected.Total() == 0 && result.Dropped.Total() == result.Dropped[arrival.ReasonFiltered]
	a.to.known.committed(b, a.series, all)
	return nil
}

// resolveLost finds refs for rows whose series the archive forgot between Append
// and Commit.
func (a *appender) resolveLost(rejected *arrival.Rejected) error {
	var lost []arrival.Unknown
	var rows []int
	for i, r := range a.batch.Rows {
		if r.Ref == 0 {
			lost = append(lost, arrival.Unknown{Key: r.Key, Labels: a.series[i].labels})
			rows = append(rows, i)
		}
	}
	if err := a.to.sink.Resolve(a.ctx, lost); err != nil {
		return err
	}
	for i, u := range lost {
		row := &a.batch.Rows[rows[i]]
		row.Ref = u.Ref
		if u.Ref == 0 {
			rejected[u.Refused] += a.itemsOf(rows[i])
		}
	}
	return nil
}

func (a *appender) itemsOf(row int) int {
	n := int(a.batch.Rows[row].Count)
	for _, h := range a.batch.Histograms {
		if int(h.Row) == row {
			n++
		}
	}
	for _, e := range a.batch.Exemplars {
		if int(e.Row) == row {
			n++
		}
	}
	return n
}

// batchSamplesKept bounds the memory that a batch keeps for the next appender.
const batchSamplesKept = 1 << 16

func (a *appender) end() {
	a.ended = true
	a.to.limits.InFlight.Release(a.held)
	a.to.meter.Held(-a.held)
	a.held = 0
	if cap(a.batch.Times) <= batchSamplesKept && cap(a.batch.Histograms) <= batchSamplesKept {
		a.batch.Reset()
		a.to.batches.Put(a.batch)
	}
	a.batch, a.series, a.families = nil, nil, nil
}

// row returns the index of a row for the series that ref and ls name, the last row
// where it is the same series.
func (a *appender) row(ref storage.SeriesRef, ls labels.Labels) (int, error) {
	if row, ok := a.lastRow(ref, ls); ok {
		return row, nil
	}
	ref, k, err := a.find(ref, ls)
	if err != nil {
		return 0, err
	}
	return a.addRow(ref, k)
}

// lastRow returns the index of the last row if ref and ls name its series.
func (a *appender) lastRow(ref storage.SeriesRef, ls labels.Labels) (int, bool) {
	last := len(a.series) - 1
	if last < 0 {
		return 0, false
	}
	same := ls.IsEmpty() && ref == a.series[last].ref || !ls.IsEmpty() && labels.Equal(ls, a.series[last].labels)
	return last, same
}

// find returns the series that ref and ls name. It trusts ref only where it is
// known to be of ls.
func (a *appender) find(ref storage.SeriesRef, ls labels.Labels) (storage.SeriesRef, known, error) {
	if a.ended {
		return 0, known{}, errEnded
	}
	if ref != 0 {
		k, ok := a.to.known.get(ref)
		if ok && (ls.IsEmpty() || labels.Equal(k.labels, ls)) {
			return ref, k, nil
		}
	}
	return a.identify(ls)
}

func (a *appender) addRow(ref storage.SeriesRef, k known) (int, error) {
	if err := a.spend(rowBytes); err != nil {
		return 0, err
	}
	a.batch.Rows = append(a.batch.Rows, arrival.Row{Key: k.key, First: uint32(len(a.batch.Times))})
	a.series = append(a.series, appended{ref: ref, labels: k.labels})
	return len(a.series) - 1, nil
}

// identify finds or creates the series of ls.
func (a *appender) identify(ls labels.Labels) (storage.SeriesRef, known, error) {
	// A set in the archive's own form needs no copy where its key is known: only what
	// was found valid is remembered under a key.
	a.wire = arrival.AppendLabels(a.wire[:0], ls)
	rows := [1]arrival.Row{{Key: a.to.sink.Seed().Hash(a.wire)}}
	if !ls.IsEmpty() && a.to.sink.Lookup(rows[:]) == 0 {
		if k, ok := a.to.known.get(rows[0].Ref); ok && k.key == rows[0].Key {
			return rows[0].Ref, k, nil
		}
	}
	ls.Range(func(l labels.Label) { a.sets.Add(l.Name, l.Value) })
	valid, err := a.sets.Series()
	if err != nil {
		return 0, known{}, a.refuse(arrival.ReasonInvalidLabels, err)
	}
	a.wire = arrival.AppendLabels(a.wire[:0], valid)
	k := known{labels: valid, key: a.to.sink.Seed().Hash(a.wire), latestMillis: math.MinInt64}
	rows[0] = arrival.Row{Key: k.key}
	if a.to.sink.Lookup(rows[:]) > 0 {
		unknown := [1]arrival.Unknown{{Key: k.key, Labels: valid}}
		if err := a.to.sink.Resolve(a.ctx, unknown[:]); err != nil {
			return 0, known{}, fmt.Errorf("resolve series: %w", err)
		}
		if unknown[0].Ref == 0 {
			return 0, known{}, a.refuse(unknown[0].Refused, fmt.Errorf("series %s", quoted(valid.Get(model.MetricNameLabel))))
		}
		rows[0].Ref = unknown[0].Ref
	}
	a.to.known.put(rows[0].Ref, k)
	// What a door's filters leave out has one ref.
	if was, ok := a.to.known.get(rows[0].Ref); ok && was.key == k.key {
		k = was
	}
	return rows[0].Ref, k, nil
}

func (a *appender) sample(row int, st, t int64, v float64) error {
	if err := a.spend(sampleBytes); err != nil {
		return err
	}
	if row != len(a.series)-1 {
		panic("ingest: a sample for a row that is not the last")
	}
	b := a.batch
	if st != 0 || len(b.Starts) > 0 {
		for len(b.Starts) < len(b.Times) {
			b.Starts = append(b.Starts, 0)
		}
		b.Starts = append(b.Starts, st)
	}
	b.Times = append(b.Times, t)
	b.Values = append(b.Values, math.Float64bits(v))
	b.Rows[row].Count++
	return nil
}

func (a *appender) histogram(row int, st, t int64, h *histogram.Histogram, fh *histogram.FloatHistogram) error {
	var err error
	buckets := 0
	if fh != nil {
		if tooFine(fh.Schema) {
			fh = fh.Copy()
		}
		err = a.to.limits.CheckFloatHistogram(fh)
		buckets = len(fh.PositiveBuckets) + len(fh.NegativeBuckets)
		h = nil
	} else {
		if tooFine(h.Schema) {
			h = h.Copy()
		}
		err = a.to.limits.CheckHistogram(h)
		buckets = len(h.PositiveBuckets) + len(h.NegativeBuckets)
	}
	if err != nil {
		return a.refuse(arrival.ReasonInvalidHistogram, err)
	}
	if err := a.spend(histogramBytes + 8*int64(buckets)); err != nil {
		return err
	}
	a.batch.Histograms = append(a.batch.Histograms, arrival.Histogram{Row: uint32(row), TimeMillis: t, StartMillis: st, Int: h, Float: fh})
	return nil
}

// exemplars adds those that are valid and names the others in an *storage.AppendPartialError.
func (a *appender) exemplars(row int, t int64, es []exemplar.Exemplar) error {
	var partial *storage.AppendPartialError
	for _, e := range es {
		err := a.exemplar(row, t, e)
		if err == nil {
			continue
		}
		if partial == nil {
			partial = &storage.AppendPartialError{}
		}
		partial.ExemplarErrors = append(partial.ExemplarErrors, err)
	}
	return partial.ToError()
}

func (a *appender) exemplar(row int, t int64, e exemplar.Exemplar) error {
	e.Labels.Range(func(l labels.Label) { a.sets.Add(l.Name, l.Value) })
	ls, err := a.sets.Exemplar()
	if err != nil {
		return a.refuse(arrival.ReasonInvalidExemplar, err)
	}
	if err := a.spend(exemplarBytes); err != nil {
		return err
	}
	e.Labels = ls
	if !e.HasTs && e.Ts == 0 {
		e.Ts = t
	}
	a.batch.Exemplars = append(a.batch.Exemplars, arrival.Exemplar{Row: uint32(row), Exemplar: e})
	return nil
}

// metadata adds what is said of a metric family, once in a batch: a scrape repeats
// it with every sample.
func (a *appender) metadata(ls labels.Labels, family string, m metadata.Metadata) error {
	if m.IsEmpty() {
		return nil
	}
	// Prometheus' scrape loop marks the families of its own samples, such as up, with a byte that no text has.
	family = strings.TrimSuffix(family, "\xff")
	if family == "" {
		family = ls.Get(model.MetricNameLabel)
	}
	if family == a.family.Family && m == a.family.Metadata {
		return nil
	}
	if _, ok := a.families[family]; ok {
		return nil
	}
	if !a.sayable(family, m) {
		_ = a.refuse(arrival.ReasonInvalidSeries, errFamily)
		return nil
	}
	if err := a.spend(int64(len(family) + len(m.Help) + len(m.Unit))); err != nil {
		return err
	}
	if a.families == nil {
		a.families = make(map[string]struct{})
	}
	// The family's name lives in the scraper's buffer.
	a.family = arrival.Metadata{Family: strings.Clone(family), Metadata: m}
	a.families[a.family.Family] = struct{}{}
	a.batch.Metadata = append(a.batch.Metadata, a.family)
	return nil
}

var errFamily = errors.New("metadata of a metric family is not UTF-8, too long or without a name")

// sayable says whether the archive takes what is said of a metric family.
func (a *appender) sayable(family string, m metadata.Metadata) bool {
	most := a.to.limits.ValueBytesMax
	return family != "" && len(family) <= most && len(m.Help) <= most && len(m.Unit) <= most &&
		utf8.ValidString(family) && utf8.ValidString(m.Help) && utf8.ValidString(m.Unit)
}

// What an item costs in memory while it waits for Commit.
const (
	rowBytes       = 64
	sampleBytes    = 24
	histogramBytes = 320
	exemplarBytes  = 256
	// budgetStepBytes is taken at once, so that the budget's counter is not touched
	// for every sample.
	budgetStepBytes = 64 << 10
)

// spend accounts for bytes of the batch.
func (a *appender) spend(bytes int64) error {
	a.spent += bytes
	if a.spent <= a.held {
		return nil
	}
	step := max(budgetStepBytes, a.spent-a.held)
	if !a.to.limits.InFlight.TryAcquire(step) {
		return &arrival.Unavailable{Reason: "overload", RetryAfter: time.Second, Err: errors.New("too many bytes in flight")}
	}
	a.held += step
	a.to.meter.Held(step)
	return nil
}

// refuse counts something that will not be stored and returns the error for it.
func (a *appender) refuse(reason arrival.Reason, err error) error {
	if a.report != nil {
		a.report.Rejected[reason]++
	} else {
		a.to.meter.refused(reason, err)
	}
	return &refusal{reason: reason, err: err}
}

// refusal is the error of one series or sample that the archive will never take. It
// passes for storage.ErrOutOfBounds, which a scrape counts without giving up the
// rest.
type refusal struct {
	reason arrival.Reason
	err    error
}

func (r *refusal) Error() string { return r.reason.String() + ": " + r.err.Error() }

func (r *refusal) Unwrap() error { return r.err }

func (r *refusal) Is(target error) bool { return target == storage.ErrOutOfBounds }
