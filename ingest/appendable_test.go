package ingest_test

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"varve/arrival"
	"varve/ingest"
	"varve/ingest/ingesttest"
	"varve/internal/testkit/leaks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(leaks.Patient(m)) }

func newAppendable(sink ingest.Sink, limits ingest.Limits) *ingest.Appendable {
	return ingest.NewAppendable(sink, limits, ingest.NewMetrics(prometheus.NewRegistry()), "scrape")
}

var up = labels.FromStrings("__name__", "up", "job", "node")

const upText = `{__name__="up", job="node"}`

// TestAppendAllKinds shows that floats, both kinds of native histograms, exemplars,
// metadata and start timestamps reach the sink as they were appended.
func TestAppendAllKinds(t *testing.T) {
	sink := ingesttest.NewSink()
	app := newAppendable(sink, ingest.Limits{}).AppenderV2(t.Context())
	stale := math.Float64frombits(value.StaleNaN)
	ref, err := app.Append(0, up, 0, 10, 1.5, nil, nil, storage.AppendV2Options{
		Metadata:  metadata.Metadata{Type: "gauge", Help: "h"},
		Exemplars: []exemplar.Exemplar{{Labels: labels.FromStrings("trace_id", "x"), Value: 2}, {Value: 3, Ts: 7, HasTs: true}},
	})
	require.NoError(t, err)
	require.NotZero(t, ref)
	again, err := app.Append(ref, up, 5, 20, stale, nil, nil, storage.AppendV2Options{MetricFamilyName: "family", Metadata: metadata.Metadata{Type: "counter"}})
	require.NoError(t, err)
	require.Equal(t, ref, again)
	native := labels.FromStrings("__name__", "native")
	h := &histogram.Histogram{Count: 1, PositiveSpans: []histogram.Span{{Length: 1}}, PositiveBuckets: []int64{1}}
	_, err = app.Append(0, native, 5, 10, 0, h, nil, storage.AppendV2Options{})
	require.NoError(t, err)
	_, err = app.Append(0, native, 0, 20, 0, nil, h.ToFloat(nil), storage.AppendV2Options{})
	require.NoError(t, err)
	require.Empty(t, sink.Written(), "nothing before Commit")
	require.NoError(t, app.Commit())
	require.Equal(t, 1, sink.Writes())

	got := sink.Written()
	require.Equal(t, []ingesttest.Sample{
		{TimeMillis: 10, Bits: math.Float64bits(1.5)},
		{TimeMillis: 20, StartMillis: 5, Bits: value.StaleNaN},
	}, got[upText].Samples)
	require.Equal(t, []exemplar.Exemplar{{Labels: labels.FromStrings("trace_id", "x"), Value: 2, Ts: 10}, {Value: 3, Ts: 7, HasTs: true}}, got[upText].Exemplars)
	require.Equal(t, []arrival.Histogram{{TimeMillis: 10, StartMillis: 5, Int: h}, {TimeMillis: 20, Float: h.ToFloat(nil)}}, got[`{__name__="native"}`].Histograms)
	require.Equal(t, map[string]metadata.Metadata{"up": {Type: "gauge", Help: "h"}, "family": {Type: "counter"}}, sink.Families())
}

// TestFirstInterface shows that storage.Appender writes the same, with a start
// timestamp where it asks for a zero sample.
func TestFirstInterface(t *testing.T) {
	sink := ingesttest.NewSink()
	app := newAppendable(sink, ingest.Limits{}).Appender(t.Context())
	ref, err := app.AppendSTZeroSample(0, up, 10, 4)
	require.NoError(t, err)
	_, err = app.Append(ref, up, 10, 1)
	require.NoError(t, err)
	_, err = app.Append(ref, labels.EmptyLabels(), 20, 2)
	require.NoError(t, err)
	_, err = app.AppendSTZeroSample(ref, up, 10, 10)
	require.ErrorIs(t, err, storage.ErrSTNewerThanSample)
	_, err = app.AppendExemplar(ref, up, exemplar.Exemplar{Value: 1, Ts: 9, HasTs: true})
	require.NoError(t, err)
	_, err = app.UpdateMetadata(ref, up, metadata.Metadata{Type: "gauge"})
	require.NoError(t, err)
	native := labels.FromStrings("__name__", "native")
	_, err = app.AppendHistogramSTZeroSample(0, native, 10, 3, &histogram.Histogram{}, nil)
	require.NoError(t, err)
	_, err = app.AppendHistogram(0, native, 10, &histogram.Histogram{}, nil)
	require.NoError(t, err)
	require.NoError(t, app.Commit())
	got := sink.Written()
	require.Equal(t, []ingesttest.Sample{{TimeMillis: 10, StartMillis: 4, Bits: math.Float64bits(1)}, {TimeMillis: 20, Bits: math.Float64bits(2)}}, got[upText].Samples)
	require.Len(t, got[upText].Exemplars, 1)
	require.Equal(t, int64(3), got[`{__name__="native"}`].Histograms[0].StartMillis)
	require.Contains(t, sink.Families(), "up")
}

// TestEnding shows that Rollback drops everything, that an appender ends once, and
// that the budget gets its bytes back either way.
func TestEnding(t *testing.T) {
	sink := ingesttest.NewSink()
	budget := ingest.NewBudget(1 << 20)
	a := newAppendable(sink, ingest.Limits{InFlight: budget})
	for _, end := range []func(storage.AppenderV2) error{storage.AppenderV2.Rollback, storage.AppenderV2.Commit} {
		app := a.AppenderV2(t.Context())
		_, err := app.Append(0, up, 0, 10, 1, nil, nil, storage.AppendV2Options{})
		require.NoError(t, err)
		require.NotZero(t, budget.Used())
		require.NoError(t, end(app))
		require.Zero(t, budget.Used())
		require.Error(t, app.Commit())
		require.Error(t, app.Rollback())
		_, err = app.Append(0, up, 0, 10, 1, nil, nil, storage.AppendV2Options{})
		require.Error(t, err)
	}
	require.Equal(t, 1, sink.Writes())
	require.NoError(t, a.AppenderV2(t.Context()).Commit(), "an empty one")
	require.Equal(t, 1, sink.Writes())
}

// TestRefs shows that a ref that belongs to other labels, or to nothing, is not
// trusted, and that a series that the sink forgot is found again at Commit.
func TestRefs(t *testing.T) {
	sink := ingesttest.NewSink()
	a := newAppendable(sink, ingest.Limits{})
	other := labels.FromStrings("__name__", "other")
	app := a.AppenderV2(t.Context())
	ref, err := app.Append(0, up, 0, 10, 1, nil, nil, storage.AppendV2Options{})
	require.NoError(t, err)
	wrong, err := app.Append(ref, other, 0, 10, 2, nil, nil, storage.AppendV2Options{})
	require.NoError(t, err)
	require.NotEqual(t, ref, wrong)
	_, err = app.Append(12345, up, 0, 20, 3, nil, nil, storage.AppendV2Options{})
	require.NoError(t, err)
	_, err = app.Append(777, labels.EmptyLabels(), 0, 20, 3, nil, nil, storage.AppendV2Options{})
	require.Error(t, err)
	sink.Forget()
	require.NoError(t, app.Commit())
	require.Len(t, sink.Written()[upText].Samples, 2)
	require.Len(t, sink.Written()[`{__name__="other"}`].Samples, 1)
}

// TestKeyIsWireForm shows that an appended series and the same series of a remote
// write 1.0 request have one key: the hash of upstream's encoding.
func TestKeyIsWireForm(t *testing.T) {
	sink := ingesttest.NewSink()
	ls := labels.FromStrings("__name__", "up", "long", strings.Repeat("x", 300), "é", "v")
	app := newAppendable(sink, ingest.Limits{}).AppenderV2(t.Context())
	ref, err := app.Append(0, ls, 0, 10, 1, nil, nil, storage.AppendV2Options{})
	require.NoError(t, err)
	require.NoError(t, app.Rollback())
	wire, err := (&prompb.TimeSeries{Labels: prompb.FromLabels(ls, nil)}).Marshal()
	require.NoError(t, err)
	rows := []arrival.Row{{Key: sink.Seed().Hash(wire)}}
	require.Zero(t, sink.Lookup(rows))
	require.Equal(t, ref, rows[0].Ref)
}

// TestRefusals shows which error each refusal is, that the appender goes on, and
// that Commit writes the rest and names what the archive refused.
func TestRefusals(t *testing.T) {
	sink := ingesttest.NewSink()
	sink.FutureMillis = 100
	sink.SeriesMax = 2
	app := newAppendable(sink, ingest.Limits{}).AppenderV2(t.Context())
	add := func(ls labels.Labels, ts int64, h *histogram.Histogram, opts storage.AppendV2Options) error {
		_, err := app.Append(0, ls, 0, ts, 1, h, nil, opts)
		return err
	}
	require.NoError(t, add(up, 10, nil, storage.AppendV2Options{}))
	require.NoError(t, add(up, 101, nil, storage.AppendV2Options{}))
	err := add(labels.FromStrings("job", "x"), 10, nil, storage.AppendV2Options{})
	require.ErrorIs(t, err, ingest.ErrInvalidLabels)
	require.ErrorIs(t, err, storage.ErrOutOfBounds)
	err = add(labels.FromStrings("__name__", "native"), 10, &histogram.Histogram{Count: 5}, storage.AppendV2Options{})
	require.ErrorIs(t, err, ingest.ErrInvalidHistogram)
	require.ErrorIs(t, err, storage.ErrOutOfBounds)
	err = add(labels.FromStrings("__name__", "third"), 10, nil, storage.AppendV2Options{})
	require.ErrorIs(t, err, storage.ErrOutOfBounds)
	require.ErrorContains(t, err, "series_limit")
	var partial *storage.AppendPartialError
	err = add(up, 20, nil, storage.AppendV2Options{Exemplars: []exemplar.Exemplar{{Labels: labels.FromStrings("x", strings.Repeat("y", 200)), Ts: 20}}})
	require.ErrorAs(t, err, &partial)
	require.Len(t, partial.ExemplarErrors, 1)

	err = app.Commit()
	require.ErrorIs(t, err, storage.ErrOutOfBounds)
	require.ErrorContains(t, err, "too_far_in_future: 1, such as too_far_in_future: {")
	require.Equal(t, []int64{10, 20}, []int64{sink.Written()[upText].Samples[0].TimeMillis, sink.Written()[upText].Samples[1].TimeMillis})
}

// TestRejectOutOfOrder shows that a sample that must not be out of order is compared
// with what was committed through the same Appendable, and with nothing rolled back.
func TestRejectOutOfOrder(t *testing.T) {
	sink := ingesttest.NewSink()
	a := newAppendable(sink, ingest.Limits{})
	add := func(ts int64, reject bool, end func(storage.AppenderV2) error) error {
		app := a.AppenderV2(t.Context())
		_, err := app.Append(0, up, 0, ts, 1, nil, nil, storage.AppendV2Options{RejectOutOfOrder: reject})
		require.NoError(t, end(app))
		return err
	}
	commit, rollback := storage.AppenderV2.Commit, storage.AppenderV2.Rollback
	require.NoError(t, add(10, true, commit))
	require.NoError(t, add(30, true, rollback))
	require.NoError(t, add(20, true, commit))
	require.ErrorIs(t, add(20, true, commit), storage.ErrOutOfOrderSample)
	require.ErrorIs(t, add(15, true, commit), storage.ErrOutOfOrderSample)
	require.NoError(t, add(15, false, commit))
	first := a.Appender(t.Context())
	first.SetOptions(&storage.AppendOptions{DiscardOutOfOrder: true})
	_, err := first.Append(0, up, 16, 1)
	require.ErrorIs(t, err, storage.ErrOutOfOrderSample)
	require.NoError(t, first.Rollback())
}

// TestUnavailable shows that an archive that cannot write makes Commit fail with its
// error, and a full budget an Append with one of the same kind.
func TestUnavailable(t *testing.T) {
	sink := ingesttest.NewSink()
	sink.Err = &arrival.Unavailable{Reason: "disk_full", Err: errors.New("no space")}
	budget := ingest.NewBudget(100 << 10)
	a := newAppendable(sink, ingest.Limits{InFlight: budget})
	app := a.AppenderV2(context.Background())
	_, err := app.Append(0, up, 0, 10, 1, nil, nil, storage.AppendV2Options{})
	require.NoError(t, err)
	var unavailable *arrival.Unavailable
	require.ErrorAs(t, app.Commit(), &unavailable)
	require.Equal(t, "disk_full", unavailable.Reason)

	app = a.AppenderV2(context.Background())
	for i := 0; err == nil; i++ {
		_, err = app.Append(0, up, 0, int64(i), 1, nil, nil, storage.AppendV2Options{})
	}
	require.ErrorAs(t, err, &unavailable)
	require.Equal(t, "overload", unavailable.Reason)
	require.NoError(t, app.Rollback())
	require.Zero(t, budget.Used())
}

// TestFineHistogram shows that a histogram of a finer schema than upstream stores is
// brought down in a copy: the caller's is not touched.
func TestFineHistogram(t *testing.T) {
	sink := ingesttest.NewSink()
	app := newAppendable(sink, ingest.Limits{}).AppenderV2(t.Context())
	fine := &histogram.Histogram{Schema: 10, Count: 3, PositiveSpans: []histogram.Span{{Offset: 1, Length: 2}}, PositiveBuckets: []int64{1, 1}}
	before := fine.Copy()
	_, err := app.Append(0, up, 0, 10, 0, fine, nil, storage.AppendV2Options{})
	require.NoError(t, err)
	_, err = app.Append(0, up, 0, 20, 0, nil, fine.ToFloat(nil), storage.AppendV2Options{})
	require.NoError(t, err)
	require.NoError(t, app.Commit())
	require.Equal(t, before, fine)
	got := sink.Written()[upText].Histograms
	require.Equal(t, int32(8), got[0].Int.Schema)
	require.Equal(t, int32(8), got[1].Float.Schema)
}
