package ledger_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"varve/internal/gate/ledger"
	"varve/internal/gate/server"
	"varve/internal/testkit/leaks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(leaks.Patient(m)) }

const tolerantPrometheus = `
storage:
  tsdb:
    out_of_order_time_window: 1000d
`

// floatKinds are the kinds of writers that Prometheus 2.42 stores completely. It
// refuses overwriting, its label APIs do not know samples that came out of order,
// and histograms need a feature flag there.
var floatKinds = []ledger.Kind{ledger.Live, ledger.Churn}

// TestCheckAgreesWithPrometheus shows that the checker raises no false alarm: it
// runs against a server of other people that stores what it is given, and again
// after more was written.
func TestCheckAgreesWithPrometheus(t *testing.T) {
	target := startPrometheus(t)
	book, work := newBook()
	for round := range 2 {
		writeFor(t, target, book, work, 300*time.Millisecond)
		require.NotZero(t, book.Acked())
		for _, streamed := range []bool{true, false} {
			require.Empty(t, check(t, target, book, streamed), "round %d, streamed %v", round, streamed)
		}
	}
}

// TestCheckFindsContradictions shows that the checker sees each way in which a
// server may deviate from the book. The server is right and the book is forged,
// which comes to the same.
func TestCheckFindsContradictions(t *testing.T) {
	target := startPrometheus(t)
	book, work := newBook()
	writeFor(t, target, book, work, 200*time.Millisecond)
	require.Empty(t, check(t, target, book, true))

	const never = 30_000
	forge := func(kind ledger.Kind, seq ledger.Seq, change func([]ledger.Series)) []ledger.Series {
		request := work.Request(kind, ledger.WriterID(kind), seq)
		change(request)
		return request
	}
	for _, c := range []struct {
		name    string
		request []ledger.Series
		acked   bool
		want    ledger.Fault // none when empty
	}{
		{"acknowledged and absent", forge(ledger.Live, never, func([]ledger.Series) {}), true, ledger.Lost},
		{"pending and absent", forge(ledger.Live, never, func([]ledger.Series) {}), false, ""},
		{"a new series, acknowledged and absent", forge(ledger.Churn, never, func([]ledger.Series) {}), true, ledger.Lost},
		{"one bit of a value", forge(ledger.Live, 0, func(r []ledger.Series) { r[7].Samples[0].Bits ^= 1 }), true, ledger.Altered},
		{"pending overwrites what was acknowledged", forge(ledger.Live, 0, func(r []ledger.Series) { r[7].Samples[0].Bits ^= 1 }), false, ""},
		{"a float where a histogram was sent", forge(ledger.Live, 0, func(r []ledger.Series) {
			r[3].Histograms = []ledger.Histogram{{Millis: r[3].Samples[0].Millis, Float: floatHistogram()}}
			r[3].Samples = nil
		}), true, ledger.Altered},
	} {
		t.Run(c.name, func(t *testing.T) {
			book, work := newBook()
			replay(book, work, target.next)
			book.Sent("live", 0, c.request)
			if c.acked {
				book.Acknowledged("live", 0, c.request)
			}
			found := check(t, target, book, true)
			if c.want == "" {
				require.Empty(t, found)
				return
			}
			require.NotEmpty(t, found)
			require.Equal(t, c.want, found[0].Fault, "%v", found)
		})
	}
	t.Run("there and never sent", func(t *testing.T) {
		book, work := newBook()
		replay(book, work, map[ledger.Kind]ledger.Seq{ledger.Live: target.next[ledger.Live] / 2})
		found := check(t, target, book, true)
		require.NotEmpty(t, found)
		require.Equal(t, ledger.Invented, found[0].Fault)
	})
}

// TestRequestsAreReproducible shows that a request depends on its arguments only.
func TestRequestsAreReproducible(t *testing.T) {
	_, a := newBook()
	_, b := newBook()
	for _, kind := range ledger.Kinds {
		for _, seq := range []ledger.Seq{0, 1, 99, 1000} {
			require.Equal(t, describe(a.Request(kind, "w", seq)), describe(b.Request(kind, "w", seq)))
			require.NotEqual(t, describe(a.Request(kind, "w", seq)), describe(a.Request(kind, "w", seq+2)))
		}
	}
}

// describe gives the bits of a request as text, since NaN is unequal to itself.
func describe(request []ledger.Series) []string {
	var out []string
	for _, s := range request {
		text := fmt.Sprint(s.Labels, s.Samples, s.Exemplars, s.Metadata)
		for _, h := range s.Histograms {
			text += fmt.Sprint(h.Millis, h.Digest())
		}
		out = append(out, text)
	}
	return out
}

// TestHistogramsAreValid shows that no histogram of a workload is one that a
// server may refuse.
func TestHistogramsAreValid(t *testing.T) {
	_, work := newBook()
	ints, floats := 0, 0
	for seq := range ledger.Seq(200) {
		for _, s := range work.Request(ledger.Histograms, "w", seq) {
			for _, h := range s.Histograms {
				if h.Int != nil {
					require.NoError(t, h.Int.Validate())
					ints++
				} else {
					require.NoError(t, h.Float.Validate())
					floats++
				}
			}
		}
	}
	require.NotZero(t, ints)
	require.NotZero(t, floats)
}

func floatHistogram() *histogram.FloatHistogram {
	return &histogram.FloatHistogram{Count: 1, Sum: 1, ZeroCount: 1, ZeroThreshold: 0.1}
}

// target is a server with what was sent to it.
type target struct {
	*server.Server
	next map[ledger.Kind]ledger.Seq
}

func startPrometheus(t *testing.T) target {
	s := server.StartPrometheus(t, server.Prometheus2(t), tolerantPrometheus, "--web.enable-remote-write-receiver", "--storage.tsdb.retention.time=100y")
	return target{s, map[ledger.Kind]ledger.Seq{}}
}

// start is fixed so that the two books of a test speak of the same samples.
var start = time.Now()

func newBook() (*ledger.Ledger, *ledger.Workload) {
	return ledger.New(&bytes.Buffer{}), &ledger.Workload{Seed: 7, Start: start, Name: "test"}
}

const (
	// patience bounds the wait for answers, which only something that hangs outlasts.
	patience = 2 * time.Minute
	// writeLeast is how many requests each writer has acknowledged at least, however slow the machine is.
	writeLeast = 4
)

// writeFor writes with a writer of each kind at once, for a while and until each has written a little.
func writeFor(t *testing.T, target target, book *ledger.Ledger, work *ledger.Workload, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	enough := time.NewTimer(d)
	defer enough.Stop()
	written := make(chan struct{}, len(floatKinds))
	var wg sync.WaitGroup
	var mu sync.Mutex // guards target.next
	for i, kind := range floatKinds {
		requests := 0
		w := ledger.NewWriter(work, book, ledger.Options{
			Kind: kind, ID: ledger.WriterID(kind), Protocol: ledger.RemoteWrite1,
			URL: target.URL("/api/v1/write"), Random: rand.New(rand.NewPCG(1, uint64(i))), First: target.next[kind],
			Observe: func(status int, _ string) {
				if status/100 != 2 {
					return
				}
				if requests++; requests == writeLeast {
					written <- struct{}{}
				}
			},
		})
		wg.Go(func() {
			if err := w.Run(ctx); err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			target.next[kind] = w.Next()
		})
	}
	for range floatKinds {
		select {
		case <-written:
		case <-ctx.Done():
			t.Error("a writer is not answered")
		}
	}
	select {
	case <-enough.C:
	case <-ctx.Done():
	}
	cancel()
	wg.Wait()
}

// replay notes all requests before next as acknowledged.
func replay(book *ledger.Ledger, work *ledger.Workload, next map[ledger.Kind]ledger.Seq) {
	for kind, end := range next {
		for seq := range end {
			request := work.Request(kind, ledger.WriterID(kind), seq)
			book.Sent(ledger.WriterID(kind), seq, request)
			book.Acknowledged(ledger.WriterID(kind), seq, request)
		}
	}
}

func check(t *testing.T, target target, book *ledger.Ledger, streamed bool) []ledger.Violation {
	t.Helper()
	r := ledger.NewReader(target.URL(""))
	defer r.Close()
	return book.Check(t.Context(), r, ledger.CheckOptions{Gate: "test", Streamed: streamed, Restarted: true, FloatsOnly: true})
}
