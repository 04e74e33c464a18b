package nats_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/stretchr/testify/require"

	"varve/arrival"
	"varve/ingest"
	"varve/ingest/ingesttest"
	"varve/ingest/nats"
	"varve/internal/testkit/race"
)

func newJSON(sink ingest.Sink, limits ingest.Limits) *nats.JSON {
	return nats.NewJSON(sink, limits, ingest.NewMetrics(nil), discard, time.Now)
}

// All that the forwarder writes as JSON is stored as it was: values, stale markers, start timestamps and histograms of both kinds.
func TestJSON(t *testing.T) {
	sink := ingesttest.NewSink()
	message := strings.Join([]string{
		`{"labels":{"__name__":"up","job":"a"},"timestamp_ms":1700000000000,"value":"1.5"}`,
		`{"labels":{"__name__":"up","job":"a"},"timestamp_ms":1700000000001,"value":"-0"}`,
		`{"labels":{"__name__":"up","job":"a"},"timestamp_ms":1700000000002,"start_ms":1699999999999,"value":"+Inf"}`,
		`{"labels":{"__name__":"up","job":"a"},"timestamp_ms":1700000000003,"value":"NaN"}`,
		`{"labels":{"__name__":"up","job":"a"},"timestamp_ms":1700000000004,"value":"NaN","stale":true}`,
		`  `,
		`{"labels":{"__name__":"h"},"timestamp_ms":5,"start_ms":4,"histogram":{"kind":"int","schema":2,"count":"9","zero_count":"2","sum":"12.5","zero_threshold":"0.001","reset_hint":"reset","positive_spans":[[-2,2],[3,1]],"positive_buckets":["1","2","1"],"negative_spans":[[0,2]],"negative_buckets":["1","2"]}}`,
		`{"labels":{"__name__":"h"},"timestamp_ms":6,"histogram":{"kind":"float","schema":-53,"count":"3.5","zero_count":"0","sum":"1","zero_threshold":"0","custom_values":["-1","0.5","2"],"positive_spans":[[1,2]],"positive_buckets":["1.25","2.25"]}}`,
		`{"labels":{"__name__":"h"},"timestamp_ms":7,"histogram":{"kind":"int","schema":0,"count":"0","zero_count":"0","sum":"NaN","zero_threshold":"0"},"stale":true}`,
		`{"other":[{}],"value":2e0,"labels":{"__name__":"up","job":"\u0062"},"timestamp_ms":"-7"}`,
	}, "\n")
	result, err := newJSON(sink, ingest.Limits{}).Receive(t.Context(), []byte(message), nil)
	require.NoError(t, err)
	require.Equal(t, arrival.Result{Samples: 6, Histograms: 3}, result)
	got := sink.Written()
	require.Equal(t, []ingesttest.Sample{
		{TimeMillis: 1700000000000, Bits: math.Float64bits(1.5)}, {TimeMillis: 1700000000001, Bits: 1 << 63},
		{TimeMillis: 1700000000002, StartMillis: 1699999999999, Bits: math.Float64bits(math.Inf(1))},
		{TimeMillis: 1700000000003, Bits: value.NormalNaN}, {TimeMillis: 1700000000004, Bits: value.StaleNaN},
	}, got[`{__name__="up", job="a"}`].Samples)
	require.Equal(t, []ingesttest.Sample{{TimeMillis: -7, Bits: math.Float64bits(2)}}, got[`{__name__="up", job="b"}`].Samples)
	h := got[`{__name__="h"}`].Histograms
	require.Equal(t, []arrival.Histogram{
		{TimeMillis: 5, StartMillis: 4, Int: &histogram.Histogram{
			CounterResetHint: histogram.CounterReset, Schema: 2, Count: 9, Sum: 12.5, ZeroThreshold: 0.001, ZeroCount: 2,
			PositiveSpans: []histogram.Span{{Offset: -2, Length: 2}, {Offset: 3, Length: 1}}, PositiveBuckets: []int64{1, 1, -1},
			NegativeSpans: []histogram.Span{{Offset: 0, Length: 2}}, NegativeBuckets: []int64{1, 1},
		}},
		{TimeMillis: 6, Float: &histogram.FloatHistogram{
			Schema: histogram.CustomBucketsSchema, Count: 3.5, Sum: 1, CustomValues: []float64{-1, 0.5, 2}, PositiveSpans: []histogram.Span{{Offset: 1, Length: 2}}, PositiveBuckets: []float64{1.25, 2.25},
		}},
	}, h[:2])
	require.Equal(t, value.StaleNaN, math.Float64bits(h[2].Int.Sum))
}

// Each kind of bad line is refused alone, with its reason, and those around it are stored.
func TestJSONRefused(t *testing.T) {
	f := func(line string, want arrival.Reason) {
		t.Helper()
		sink := ingesttest.NewSink()
		j := newJSON(sink, ingest.Limits{LabelsMax: 3})
		for range 2 {
			sink.Clear()
			result, err := j.Receive(t.Context(), []byte(`{"labels":{"__name__":"a"},"timestamp_ms":1,"value":"1"}`+"\n"+line+"\n"+`{"labels":{"__name__":"b"},"timestamp_ms":1,"value":1}`+"\n"), nil)
			require.NoError(t, err)
			require.Equal(t, 2, result.Samples)
			require.Equal(t, 1, result.Rejected[want], result.Rejected.String())
			require.Equal(t, 1, result.Rejected.Total())
			require.Len(t, sink.Written(), 2)
		}
	}
	f(`{`, arrival.ReasonInvalidLine)
	f(`[]`, arrival.ReasonInvalidLine)
	f(`{} x`, arrival.ReasonInvalidLine)
	f("{}\x00", arrival.ReasonInvalidLine)
	f(`{"labels":{"__name__":"m"},"timestamp_ms":1,"value":"1"`, arrival.ReasonInvalidLine)
	f(`{"labels":{"__name__":"m"},"timestamp_ms":1.5,"value":"1"}`, arrival.ReasonInvalidLine)
	f(`{"labels":{"__name__":"m"},"timestamp_ms":99999999999999999999,"value":"1"}`, arrival.ReasonInvalidLine)
	f(`{"labels":{"__name__":"m"},"timestamp_ms":1,"start_ms":"x","value":"1"}`, arrival.ReasonInvalidLine)
	f(`{"labels":{"__name__":"m"},"value":"1"}`, arrival.ReasonInvalidLine)
	f(`{"labels":{"__name__":"m"},"timestamp_ms":1}`, arrival.ReasonInvalidLine)
	f(`{"labels":{"__name__":"m"},"timestamp_ms":1,"value":"1","histogram":{}}`, arrival.ReasonInvalidLine)
	f(`{"labels":{"__name__":"m"},"timestamp_ms":1,"value":"x"}`, arrival.ReasonInvalidValue)
	f(`{"labels":{"__name__":"m"},"timestamp_ms":1,"value":1e999}`, arrival.ReasonInvalidValue)
	f(`{"labels":{"__name__":"m"},"timestamp_ms":1,"value":true}`, arrival.ReasonInvalidValue)
	f(`{"timestamp_ms":1,"value":"1"}`, arrival.ReasonInvalidLabels)
	f(`{"labels":[],"timestamp_ms":1,"value":"1"}`, arrival.ReasonInvalidLabels)
	f(`{"labels":{},"timestamp_ms":1,"value":"1"}`, arrival.ReasonInvalidLabels)
	f(`{"labels":{"__name__":7},"timestamp_ms":1,"value":"1"}`, arrival.ReasonInvalidLabels)
	f(`{"labels":{"__name__":"m","a":"1","a":"2"},"timestamp_ms":1,"value":"1"}`, arrival.ReasonInvalidLabels)
	f(`{"labels":{"__name__":"m","a":"1","b":"2","c":"3"},"timestamp_ms":1,"value":"1"}`, arrival.ReasonInvalidLabels)
	f("{\"labels\":{\"__name__\":\"m\",\"a\":\"\xff\"},\"timestamp_ms\":1,\"value\":\"1\"}", arrival.ReasonInvalidLabels)
	const good = `"kind":"int","schema":0,"count":"1","sum":"1"`
	for _, h := range []string{
		`7`, `{}`, `{"kind":"other"}`, `{"kind":"int","schema":"x"}`, `{"kind":"int","count":"-1"}`, `{"kind":"int","count":"5"}`, `{"kind":"int","schema":99999999999}`, `{` + good + `,"reset_hint":"x"}`,
		`{` + good + `,"positive_spans":[[0,1]]}`, `{` + good + `,"positive_spans":[[0]],"positive_buckets":["1"]}`, `{` + good + `,"positive_spans":[[0,1,2]],"positive_buckets":["1"]}`, `{` + good + `,"positive_spans":7}`,
		`{` + good + `,"positive_spans":[[0,4294967296]],"positive_buckets":["1"]}`, `{` + good + `,"positive_spans":[[0,1]],"positive_buckets":["-1"]}`, `{` + good + `,"positive_spans":[[0,1]],"positive_buckets":[[]]}`, `{"kind":"float","count":"NaN","sum":"x"}`,
	} {
		f(`{"labels":{"__name__":"m"},"timestamp_ms":1,"histogram":`+h+`}`, arrival.ReasonInvalidHistogram)
	}
	f(`{"labels":{},"timestamp_ms":1,"histogram":{`+good+`,"zero_count":"1"}}`, arrival.ReasonInvalidLabels)
}

// A message of which no line can be read is malformed, one that is too large is said to be, and trouble of the archive is none of it.
func TestJSONErrors(t *testing.T) {
	sink := ingesttest.NewSink()
	budget := ingest.NewBudget(1 << 20)
	j := newJSON(sink, ingest.Limits{DecodedBytesMax: 1000, InFlight: budget})
	_, err := j.Receive(t.Context(), []byte("no\njson"), nil)
	require.ErrorIs(t, err, ingest.ErrMalformed)
	_, err = j.Receive(t.Context(), make([]byte, 1001), nil)
	require.ErrorIs(t, err, ingest.ErrTooBig)
	result, err := j.Receive(t.Context(), []byte("\n \n"), nil)
	require.NoError(t, err)
	require.Equal(t, arrival.Result{}, result)
	good := []byte(`{"labels":{"__name__":"a"},"timestamp_ms":1,"value":"1"}`)
	sink.ResolveErr = errors.New("resolve")
	_, err = j.Receive(t.Context(), good, nil)
	require.ErrorIs(t, err, sink.ResolveErr)
	sink.ResolveErr = nil
	sink.Err = errAway
	_, err = j.Receive(t.Context(), good, nil)
	require.ErrorIs(t, err, errAway)
	require.Zero(t, budget.Used())
	_, err = newJSON(sink, ingest.Limits{InFlight: ingest.NewBudget(1)}).Receive(t.Context(), good, nil)
	require.ErrorIs(t, err, ingest.ErrOverload)
	sink.Err, sink.SeriesMax = nil, 1
	result, err = j.Receive(t.Context(), []byte(`{"labels":{"__name__":"new"},"timestamp_ms":1,"value":"1"}`), nil)
	require.NoError(t, err)
	require.Equal(t, 1, result.Rejected[arrival.ReasonSeriesLimit])
}

// jsonLines are samples of n series.
func jsonLines(n int) []byte {
	var b strings.Builder
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range n {
		fmt.Fprintf(&b, `{"labels":{"__name__":"node_cpu_seconds_total_%d","instance":"host-%03d.example.org:9100","job":"node","mode":"idle"},"timestamp_ms":%d,"value":"%s"}`+"\n",
			i%50, i/50, 1_700_000_000_000+i, strconv.FormatFloat(rng.Float64()*1e6, 'g', -1, 64))
	}
	return []byte(b.String())
}

// Float samples of known series allocate nothing.
func TestJSONAllocations(t *testing.T) {
	for _, n := range []int{100, 2000} {
		message := jsonLines(n)
		j := newJSON(ingesttest.NewTable(), ingest.Limits{})
		allocs := testing.AllocsPerRun(100, func() {
			result, err := j.Receive(context.Background(), message, nil)
			require.NoError(t, err)
			require.Equal(t, n, result.Samples)
		})
		// The race detector makes sync.Pool drop a part of what it is given.
		if !race.Enabled {
			require.LessOrEqual(t, allocs, 6.0)
		}
	}
}

// FuzzJSON shows that no message does harm: what is counted is what is stored, a good line among any others is always stored, and the second
// time, when series are known, all is as the first time.
func FuzzJSON(f *testing.F) {
	f.Add([]byte(`{"labels":{"__name__":"up"},"timestamp_ms":1,"value":"NaN","stale":true}`))
	f.Add([]byte(`{"labels":{"__name__":"h","a":""},"timestamp_ms":1,"start_ms":2,"histogram":{"kind":"int","schema":2,"count":"3","sum":"1","positive_spans":[[0,1],[2,1]],"positive_buckets":["1","2"]}}`))
	f.Add([]byte(`{"labels":{"__name__":"h"},"timestamp_ms":1,"histogram":{"kind":"float","schema":-53,"count":"3.5","custom_values":["1"],"negative_spans":[[-1,4294967295]]}}`))
	f.Add([]byte("{}\n[]\n{\"labels\":{\"__name__\":\"\\ud800\"},\"timestamp_ms\":-1,\"value\":-0}\n\xff"))
	f.Fuzz(func(t *testing.T, message []byte) {
		sink := ingesttest.NewSink()
		budget := ingest.NewBudget(1 << 30)
		j := newJSON(sink, ingest.Limits{InFlight: budget})
		message = append(append([]byte{}, message...), "\n{\"labels\":{\"__name__\":\"good point\"},\"timestamp_ms\":77,\"value\":\"5\"}\n"...)
		var first arrival.Result
		for i := range 2 {
			sink.Clear()
			result, err := j.Receive(t.Context(), message, nil)
			require.NoError(t, err)
			require.Zero(t, budget.Used())
			require.NotEmpty(t, sink.Written()[`{__name__="good point"}`].Samples)
			samples, histograms := 0, 0
			for _, s := range sink.Written() {
				samples += len(s.Samples)
				histograms += len(s.Histograms)
			}
			require.Equal(t, [2]int{samples, histograms}, [2]int{result.Samples, result.Histograms})
			if i == 0 {
				first = result
			}
			require.Equal(t, first, result)
		}
	})
}
