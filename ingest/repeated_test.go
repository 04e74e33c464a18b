package ingest_test

import (
	"errors"
	"math"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/model/relabel"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"varve/arrival"
	"varve/ingest"
	"varve/ingest/ingesttest"
)

// repeating is an Appendable that leaves out repeated samples, with what it writes to.
type repeating struct {
	t    *testing.T
	sink *ingesttest.Sink
	reg  *prometheus.Registry
	a    *ingest.Appendable
	refs map[string]storage.SeriesRef
}

func newRepeating(t *testing.T) *repeating {
	r := &repeating{t: t, sink: ingesttest.NewSink(), reg: prometheus.NewRegistry(), refs: make(map[string]storage.SeriesRef)}
	r.a = ingest.NewAppendable(r.sink, ingest.Limits{}, ingest.NewMetrics(r.reg).For("x"), "scrape")
	r.a.SkipRepeated()
	return r
}

// commit appends one sample as a scrape does, by the ref of the one before, and
// returns how many were written.
func (r *repeating) commit(ls labels.Labels, st, t int64, v float64, h *histogram.Histogram, opts storage.AppendV2Options) int {
	r.t.Helper()
	before := r.count()
	app := r.a.AppenderV2(r.t.Context())
	ref, err := app.Append(r.refs[ls.String()], ls, st, t, v, h, nil, opts)
	require.NoError(r.t, err)
	require.NotZero(r.t, ref)
	r.refs[ls.String()] = ref
	_ = app.Commit()
	return r.count() - before
}

func (r *repeating) count() int {
	n := 0
	for _, s := range r.sink.Written() {
		n += len(s.Samples) + len(s.Histograms)
	}
	return n
}

// TestSkipRepeated shows which samples are left out as repeated: those that equal, in
// time, start and bits of the value, what was written last of their series.
func TestSkipRepeated(t *testing.T) {
	r := newRepeating(t)
	none := storage.AppendV2Options{}
	require.Equal(t, 1, r.commit(up, 0, 10, 1, nil, none))
	for range 3 {
		require.Equal(t, 0, r.commit(up, 0, 10, 1, nil, none))
	}
	require.Equal(t, 1, r.sink.Writes(), "nothing left is nothing to sync")
	require.Equal(t, 1, r.commit(up, 0, 10, 2, nil, none), "another value")
	require.Equal(t, 1, r.commit(up, 0, 11, 2, nil, none), "another time")
	require.Equal(t, 1, r.commit(up, 5, 11, 2, nil, none), "another start")
	require.Equal(t, 0, r.commit(up, 5, 11, 2, nil, none))
	require.Equal(t, 1, r.commit(up, 0, 12, 0, nil, none))
	require.Equal(t, 1, r.commit(up, 0, 12, math.Copysign(0, -1), nil, none), "other bits")
	require.Equal(t, 1, r.commit(up, 0, 13, math.NaN(), nil, none))
	require.Equal(t, 0, r.commit(up, 0, 13, math.NaN(), nil, none), "the same bits")
	require.Equal(t, 1, r.commit(up, 0, 13, math.NaN(), nil, storage.AppendV2Options{Exemplars: []exemplar.Exemplar{{Value: 1, Ts: 13}}}))
	require.Equal(t, 1, r.commit(up, 0, 9, 1, nil, none), "older than the last")
	require.Equal(t, 0, r.commit(up, 0, 9, 1, nil, none))
	delete(r.refs, up.String())
	require.Equal(t, 0, r.commit(up, 0, 9, 1, nil, none), "by its labels, without a ref")

	native := labels.FromStrings("__name__", "native")
	h := func(n int64) *histogram.Histogram {
		return &histogram.Histogram{Count: uint64(n), PositiveSpans: []histogram.Span{{Length: 1}}, PositiveBuckets: []int64{n}}
	}
	require.Equal(t, 1, r.commit(native, 0, 10, 0, h(1), none))
	require.Equal(t, 0, r.commit(native, 0, 10, 0, h(1), none))
	require.Equal(t, 1, r.commit(native, 0, 10, 0, h(2), none))
	require.Equal(t, 1, r.commit(native, 0, 10, 0, nil, none), "a float in its place")
	require.Equal(t, 1, r.commit(native, 0, 10, 0, h(2), none))

	families, err := r.reg.Gather()
	require.NoError(t, err)
	dropped := 0.
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "varve_ingest_dropped_total" {
				dropped += m.GetCounter().GetValue()
			}
		}
	}
	require.EqualValues(t, 8, dropped)
}

// TestRepeatedUntilStored shows that a sample is not taken for repeated before it is
// stored: not after a rollback, a write that failed, or a refusal.
func TestRepeatedUntilStored(t *testing.T) {
	r := newRepeating(t)
	none := storage.AppendV2Options{}
	app := r.a.AppenderV2(t.Context())
	_, err := app.Append(0, up, 0, 10, 1, nil, nil, none)
	require.NoError(t, err)
	require.NoError(t, app.Rollback())
	r.sink.Err = errors.New("no disk")
	require.Equal(t, 0, r.commit(up, 0, 10, 1, nil, none))
	r.sink.Err = nil
	r.sink.FutureMillis = 9
	require.Equal(t, 0, r.commit(up, 0, 10, 1, nil, none))
	r.sink.FutureMillis = 0
	require.Equal(t, 1, r.commit(up, 0, 10, 1, nil, none))
	require.Equal(t, 0, r.commit(up, 0, 10, 1, nil, none))
}

// TestReportingTo shows that an appender for an input that counts its own requests
// adds what became of everything to the result and counts nothing itself.
func TestReportingTo(t *testing.T) {
	sink := ingesttest.NewSink()
	sink.FutureMillis = 100
	reg := prometheus.NewRegistry()
	a := ingest.NewAppendable(sink, ingest.Limits{}, ingest.NewMetrics(reg), "otlp")
	var result arrival.Result
	app := a.ReportingTo(t.Context(), &result)
	_, err := app.Append(0, up, 0, 10, 1, nil, nil, storage.AppendV2Options{Metadata: metadata.Metadata{Type: "gauge", Help: "h"}})
	require.NoError(t, err)
	_, err = app.Append(0, up, 0, 101, 1, nil, nil, storage.AppendV2Options{})
	require.NoError(t, err)
	_, err = app.Append(0, labels.FromStrings("job", "x"), 0, 10, 1, nil, nil, storage.AppendV2Options{})
	require.ErrorIs(t, err, storage.ErrOutOfBounds)
	_, err = app.Append(0, labels.FromStrings("__name__", "b"), 0, 10, 1, nil, nil, storage.AppendV2Options{Metadata: metadata.Metadata{Type: "gauge", Help: "\xff"}})
	require.NoError(t, err, "metadata that is wrong costs no sample")
	require.NoError(t, app.Commit(), "refusals are in the result")
	want := arrival.Result{Samples: 2, Metadata: 1, Example: `too_far_in_future: {__name__="up", job="node"} at 1970-01-01T00:00:00.101Z`}
	want.Rejected[arrival.ReasonInvalidLabels] = 1
	want.Rejected[arrival.ReasonInvalidSeries] = 1
	want.Rejected[arrival.ReasonFuture] = 1
	require.Equal(t, want, result)

	sink.Err = errors.New("no disk")
	app = a.ReportingTo(t.Context(), &result)
	_, err = app.Append(0, up, 0, 11, 1, nil, nil, storage.AppendV2Options{})
	require.NoError(t, err)
	require.ErrorIs(t, app.Commit(), sink.Err)
	require.Equal(t, want, result)
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			require.Zero(t, m.GetCounter().GetValue(), f.GetName())
		}
	}
}

// TestBehindDoor shows that an Appendable goes well with a door: what its filters
// leave out is dropped and counted, labels are those the rules make, two series that
// become one by them are written alike, and repeated samples are still recognised.
func TestBehindDoor(t *testing.T) {
	sink := ingesttest.NewSink()
	withoutPod := relabel.DefaultRelabelConfig
	withoutPod.Action, withoutPod.Regex = relabel.LabelDrop, relabel.MustNewRegexp("pod")
	door, err := ingest.NewDoor(ingest.DoorOptions{
		Name: "x", Sink: sink, Now: time.Now,
		Rules: ingest.Rules{
			Exclude: [][]*labels.Matcher{{labels.MustNewMatcher(labels.MatchEqual, "__name__", "noise")}},
			Relabel: []*relabel.Config{&withoutPod},
		},
	})
	require.NoError(t, err)
	a := ingest.NewAppendable(door, ingest.Limits{}, ingest.NewMetrics(nil), "scrape")
	a.SkipRepeated()
	refs := make(map[string]storage.SeriesRef)
	commit := func(sets ...labels.Labels) (result arrival.Result) {
		t.Helper()
		app := a.ReportingTo(t.Context(), &result)
		for _, ls := range sets {
			ref, err := app.Append(refs[ls.String()], ls, 0, 10, 1, nil, nil, storage.AppendV2Options{})
			require.NoError(t, err)
			refs[ls.String()] = ref
		}
		require.NoError(t, app.Commit())
		return result
	}
	noise, other := labels.FromStrings("__name__", "noise", "pod", "a"), labels.FromStrings("__name__", "noise", "pod", "b")
	first := commit(up, noise, other)
	require.Equal(t, 1, first.Samples)
	require.Equal(t, 2, first.Dropped[arrival.ReasonFiltered])
	for range 2 {
		again := commit(up, noise, other)
		require.Zero(t, again.Samples)
		require.Equal(t, 1, again.Dropped[arrival.ReasonRepeated])
		require.Equal(t, 2, again.Dropped[arrival.ReasonFiltered])
	}
	require.Len(t, sink.Written(), 1)

	a1, a2 := labels.FromStrings("__name__", "one", "pod", "a"), labels.FromStrings("__name__", "one", "pod", "b")
	require.Equal(t, 2, commit(a1, a2).Samples)
	require.Contains(t, sink.Written(), `{__name__="one"}`)
}
