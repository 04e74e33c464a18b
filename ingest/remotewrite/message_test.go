package remotewrite_test

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"varve/arrival"
	"varve/ingest"
	"varve/ingest/ingesttest"
	"varve/ingest/remotewrite"
)

// TestReceiver shows that messages of both versions are stored as the bodies of requests are, and in which class
// their errors are.
func TestReceiver(t *testing.T) {
	good1, good2 := wire1(t, one1(1, "__name__", "up")), wire2(t, symbols2, one2(1, 2))
	for name, c := range map[string]struct {
		message  []byte
		second   bool
		err      error
		samples  int
		rejected int
	}{
		"1.0":                  {good1, false, nil, 1, 0},
		"2.0":                  {good2, true, nil, 1, 0},
		"1.0 partly":           {wire1(t, one1(1, "__name__", "up"), one1(1, "no", "name")), false, nil, 1, 1},
		"2.0 partly":           {wire2(t, symbols2, one2(1, 2), one2(1, 99)), true, nil, 1, 1},
		"no snappy":            {[]byte("hello, world"), false, ingest.ErrMalformed, 0, 0},
		"cut":                  {good1[:len(good1)-3], false, ingest.ErrMalformed, 0, 0},
		"empty":                {nil, true, ingest.ErrMalformed, 0, 0},
		"too big on the wire":  {make([]byte, 2000), false, ingest.ErrTooBig, 0, 0},
		"too big when decoded": {wire1(t, one1(1, "__name__", string(make([]byte, 5000)))), false, ingest.ErrTooBig, 0, 0},
	} {
		budget := ingest.NewBudget(1 << 20)
		r := newLimitedReceiver(ingest.Limits{CompressedBytesMax: 1000, DecodedBytesMax: 2000, InFlight: budget})
		result, err := r.Receiver(c.second).Receive(t.Context(), c.message, nil)
		if c.err != nil {
			require.ErrorIs(t, err, c.err, name)
		} else {
			require.NoError(t, err, name)
		}
		require.Equal(t, c.samples, result.Samples, name)
		require.Equal(t, c.rejected, result.Rejected.Total(), name)
		require.Zero(t, budget.Used(), name)
	}
	r := newReceiver()
	r.sink.Err = &arrival.Unavailable{Reason: "disk_full", Err: errors.New("full")}
	_, err := r.Receiver(false).Receive(t.Context(), good1, nil)
	var unavailable *arrival.Unavailable
	require.ErrorAs(t, err, &unavailable)
	require.NotErrorIs(t, err, ingest.ErrMalformed)
	full := ingest.NewBudget(1)
	_, err = newLimitedReceiver(ingest.Limits{InFlight: full}).Receiver(false).Receive(t.Context(), good1, nil)
	require.ErrorIs(t, err, ingest.ErrOverload)
}

// TestReceiverKeepsNothing shows that a message may be overwritten when it was received.
func TestReceiverKeepsNothing(t *testing.T) {
	r := newReceiver()
	for i := range 50 {
		message := wire1(t, one1(float64(i), "__name__", "up", "i", strconv.Itoa(i)))
		_, err := r.Receiver(false).Receive(t.Context(), message, nil)
		require.NoError(t, err)
		clear(message)
	}
	require.Len(t, r.sink.Written(), 50)
	require.Contains(t, r.sink.Written(), `{__name__="up", i="7"}`)
}

// dropping is a sink behind rules that leave everything out.
type dropping struct {
	*ingesttest.Sink
	result arrival.Result
	err    error
}

func (d *dropping) Write(context.Context, *arrival.Batch) (arrival.Result, error) {
	return d.result, d.err
}

func ruledReceiver(result arrival.Result, err error) *receiver {
	sink := &dropping{ingesttest.NewSink(), result, err}
	return &receiver{remotewrite.New(sink, ingest.Limits{}, ingest.NewMetrics(nil), discard, fixedNow, remotewrite.Options{}), sink.Sink}
}

// TestDroppedByRule shows that what rules leave out is a success, and counts as written in the headers of 2.0: a sender
// takes less for a loss.
func TestDroppedByRule(t *testing.T) {
	var result arrival.Result
	result.Samples = 1
	result.Dropped[arrival.ReasonFiltered] = 9
	result.DroppedSamples, result.DroppedHistograms, result.DroppedExemplars = 2, 3, 4
	r := ruledReceiver(result, nil)
	answer := r.post(t, contentType2, wire2(t, symbols2, one2(1, 2)))
	require.Equal(t, http.StatusNoContent, answer.code)
	require.Equal(t, []int{3, 3, 4}, answer.written)
	require.Equal(t, http.StatusNoContent, r.post(t, contentType1, wire1(t, one1(1, "__name__", "up"))).code)
}

// TestRateLimited shows that more than the configured rate is 429 with the wait, and nothing else.
func TestRateLimited(t *testing.T) {
	r := ruledReceiver(arrival.Result{}, &ingest.RateLimited{RetryAfter: 2500 * time.Millisecond})
	for _, c := range []struct {
		contentType string
		wire        []byte
	}{{contentType1, wire1(t, one1(1, "__name__", "up"))}, {contentType2, wire2(t, symbols2, one2(1, 2))}} {
		answer := r.post(t, c.contentType, c.wire)
		require.Equal(t, http.StatusTooManyRequests, answer.code)
		require.Equal(t, "3", answer.header.Get("Retry-After"))
	}
}
