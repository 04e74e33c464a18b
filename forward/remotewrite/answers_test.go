package remotewrite_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"

	"varve/forward"
	"varve/forward/remotewrite"
)

// got is a request that a scripted peer had.
type got struct {
	header http.Header
	body   []byte // decompressed
}

// peer answers requests by a script, and keeps them.
type peer struct {
	*httptest.Server
	mu       sync.Mutex
	requests []got
	answer   func(w http.ResponseWriter, g got)
}

func newPeer(t testing.TB, answer func(w http.ResponseWriter, g got)) *peer {
	t.Helper()
	p := &peer{answer: answer}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		wire, err := io.ReadAll(r.Body)
		if err != nil {
			panic(err)
		}
		body, err := snappy.Decode(nil, wire)
		if err != nil {
			panic(err)
		}
		g := got{r.Header.Clone(), body}
		p.mu.Lock()
		p.requests = append(p.requests, g)
		p.mu.Unlock()
		p.answer(w, g)
	}))
	t.Cleanup(p.Close)
	return p
}

// versions lists what each request was.
func (p *peer) versions() (out []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.requests {
		out = append(out, r.header.Get("X-Prometheus-Remote-Write-Version"))
	}
	p.requests = nil
	return out
}

func is2(g got) bool { return g.header.Get("X-Prometheus-Remote-Write-Version") == "2.0.0" }

// writeCounts answers in the way of 2.0.
func writeCounts(w http.ResponseWriter, status, floats, histograms, exemplars int) {
	for kind, n := range map[string]int{"Samples": floats, "Histograms": histograms, "Exemplars": exemplars} {
		w.Header().Set("X-Prometheus-Remote-Write-"+kind+"-Written", strconv.Itoa(n))
	}
	w.WriteHeader(status)
}

// TestHeaders shows the headers of both versions, those of the user among them.
func TestHeaders(t *testing.T) {
	for name, message := range versions {
		t.Run(name, func(t *testing.T) {
			p := newPeer(t, func(w http.ResponseWriter, _ got) { writeCounts(w, 204, 33, 0, 0) })
			s := newSender(t, p.URL, message, func(o *remotewrite.Options) { o.Headers = map[string]string{"x-scope-orgid": "tenant"} })
			_, err := s.Send(t.Context(), prepare(t, s, floats()))
			require.NoError(t, err)
			h := p.requests[0].header
			want := map[string]string{
				"Content-Encoding": "snappy", "Content-Type": "application/x-protobuf", "X-Prometheus-Remote-Write-Version": "0.1.0",
				"User-Agent": "varve/test", "X-Scope-Orgid": "tenant",
			}
			if message == remotewrite.Message2 {
				want["Content-Type"], want["X-Prometheus-Remote-Write-Version"] = "application/x-protobuf;proto=io.prometheus.write.v2.Request", "2.0.0"
			}
			for name, value := range want {
				require.Equal(t, []string{value}, h.Values(name), name)
			}
		})
	}
}

// TestFallsBack shows in which ways a peer can say that it speaks 1.0 alone, that the batch goes again in 1.0 at once, that 2.0 is asked
// for again after the time set, and that a peer which knows it by then is spoken to in it.
func TestFallsBack(t *testing.T) {
	for name, first := range map[string]func(w http.ResponseWriter){
		"415":       func(w http.ResponseWriter) { w.WriteHeader(415) },
		"no counts": func(w http.ResponseWriter) { w.WriteHeader(204) },
		"400":       func(w http.ResponseWriter) { w.WriteHeader(400) },
	} {
		t.Run(name, func(t *testing.T) {
			knows2 := false
			p := newPeer(t, func(w http.ResponseWriter, g got) {
				switch {
				case !is2(g):
					w.WriteHeader(204)
				case knows2:
					writeCounts(w, 204, 33, 0, 0)
				default:
					first(w)
				}
			})
			now := time.UnixMilli(start)
			s := newSender(t, p.URL, remotewrite.Message2, func(o *remotewrite.Options) { o.Now = func() time.Time { return now } })
			b := prepare(t, s, floats())
			send := func(want ...string) {
				t.Helper()
				_, err := s.Send(t.Context(), b)
				require.NoError(t, err)
				require.Equal(t, want, p.versions())
			}
			send("2.0.0", "0.1.0")
			send("0.1.0")
			now = now.Add(time.Hour)
			send("2.0.0", "0.1.0")
			send("0.1.0")
			knows2 = true
			send("0.1.0")
			now = now.Add(time.Hour)
			send("2.0.0")
			send("2.0.0")
		})
	}
}

// TestFallbackIsComplete shows that a receiver of 1.0 which decodes 2.0 as an empty message has everything in the end.
func TestFallbackIsComplete(t *testing.T) {
	var series int
	p := newPeer(t, func(w http.ResponseWriter, g got) {
		var r prompb.WriteRequest
		require.NoError(t, r.Unmarshal(g.body))
		series += len(r.Timeseries)
	})
	s := newSender(t, p.URL, remotewrite.Message2)
	_, err := s.Send(t.Context(), prepare(t, s, floats()))
	require.NoError(t, err)
	require.Equal(t, 3, series)
}

// TestDoubtNeedsProof shows that a 400 without counts is a refusal if the peer does not take the batch in 1.0 either, and if it has
// shown before that it knows 2.0.
func TestDoubtNeedsProof(t *testing.T) {
	status := 400
	p := newPeer(t, func(w http.ResponseWriter, g got) {
		if status == 204 {
			writeCounts(w, 204, 33, 0, 0)
			return
		}
		http.Error(w, "out of order sample", status)
	})
	s := newSender(t, p.URL, remotewrite.Message2)
	b := prepare(t, s, floats())
	var refused *forward.Refused
	for range 2 {
		_, err := s.Send(t.Context(), b)
		require.ErrorAs(t, err, &refused)
		require.Equal(t, []string{"2.0.0", "0.1.0"}, p.versions())
	}
	status = 204
	_, err := s.Send(t.Context(), b)
	require.NoError(t, err)
	status = 400
	p.versions()
	_, err = s.Send(t.Context(), b)
	require.ErrorAs(t, err, &refused)
	require.ErrorContains(t, err, "out of order sample")
	require.Equal(t, []string{"2.0.0"}, p.versions())
}

// TestCountsDecide shows that in 2.0 the counts decide: a 2xx that wrote less is a refusal, and a 400 that wrote all samples is none.
func TestCountsDecide(t *testing.T) {
	for _, c := range []struct {
		status, floats, histograms, exemplars int
		refused                               bool
	}{
		{204, 34, 5, 2, false},
		{200, 34, 5, 0, false},
		{204, 33, 5, 2, true},
		{204, 34, 4, 2, true},
		{204, 0, 0, 0, true},
		{400, 34, 5, 1, false},
		{400, 33, 5, 2, true},
	} {
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) {
			p := newPeer(t, func(w http.ResponseWriter, _ got) { writeCounts(w, c.status, c.floats, c.histograms, c.exemplars) })
			s := newSender(t, p.URL, remotewrite.Message2)
			_, err := s.Send(t.Context(), prepare(t, s, rich()))
			var refused *forward.Refused
			require.Equal(t, c.refused, errors.As(err, &refused), err)
			require.Equal(t, c.refused, err != nil)
		})
	}
}

// TestExemplarsAlone shows that a refusal of exemplars without samples, as Prometheus makes it, is no error in 2.0: no sample is lost.
func TestExemplarsAlone(t *testing.T) {
	p := newPeer(t, func(w http.ResponseWriter, g got) { writeCounts(w, 400, 0, 0, 0) })
	s := newSender(t, p.URL, remotewrite.Message2)
	alone := series("up")
	alone.Exemplars = []exemplar.Exemplar{{Labels: labels.FromStrings("trace_id", "x"), Value: 1, Ts: start, HasTs: true}}
	_, err := s.Send(t.Context(), prepare(t, s, &forward.Batch{Series: []forward.Series{alone}}))
	require.NoError(t, err)
	var r writev2.Request
	require.NoError(t, r.Unmarshal(p.requests[0].body))
	require.Len(t, r.Timeseries[0].Exemplars, 1)
}

// TestClasses shows which error becomes of which answer, in both versions.
func TestClasses(t *testing.T) {
	class := func(err error) string {
		var retry *forward.Retry
		var refused *forward.Refused
		var blocked *forward.Blocked
		switch {
		case err == nil:
			return "sent"
		case errors.As(err, &retry):
			return fmt.Sprintf("retry after %s", retry.After)
		case errors.As(err, &refused):
			return "refused"
		case errors.As(err, &blocked):
			return "blocked"
		case errors.Is(err, forward.ErrTooLarge):
			return "too large"
		}
		return err.Error()
	}
	for status, want := range map[int]string{
		200: "sent", 302: "blocked", 400: "refused", 401: "blocked", 404: "blocked", 409: "refused", 413: "too large", 415: "blocked", 422: "refused",
		429: "retry after 7s", 500: "retry after 7s", 503: "retry after 7s",
	} {
		for name, message := range versions {
			t.Run(fmt.Sprintf("%d in %s", status, name), func(t *testing.T) {
				p := newPeer(t, func(w http.ResponseWriter, g got) {
					w.Header().Set("Retry-After", "7")
					w.Header().Set("Location", "/elsewhere")
					if is2(g) && status == 200 {
						writeCounts(w, status, 33, 0, 0)
						return
					}
					w.WriteHeader(status)
				})
				s := newSender(t, p.URL, message)
				_, err := s.Send(t.Context(), prepare(t, s, floats()))
				require.Equal(t, want, class(err))
			})
		}
	}
}

// TestNetwork shows that a peer that is away or hangs up is a reason to retry.
func TestNetwork(t *testing.T) {
	p := newPeer(t, func(http.ResponseWriter, got) { panic(http.ErrAbortHandler) })
	s := newSender(t, p.URL, remotewrite.Message1)
	b := prepare(t, s, floats())
	var retry *forward.Retry
	_, err := s.Send(t.Context(), b)
	require.ErrorAs(t, err, &retry)
	p.Close()
	_, err = s.Send(t.Context(), b)
	require.ErrorAs(t, err, &retry)
}

// TestNothingToSend shows that a batch of which nothing is left makes no request.
func TestNothingToSend(t *testing.T) {
	p := newPeer(t, func(http.ResponseWriter, got) { t.Error("a request") })
	for name, message := range versions {
		t.Run(name, func(t *testing.T) {
			s := newSender(t, p.URL, message, func(o *remotewrite.Options) { o.Histograms, o.Exemplars = false, false })
			b := rich()
			b.Series, b.Families = b.Series[3:4], nil
			o, err := s.Send(t.Context(), prepare(t, s, b))
			require.NoError(t, err)
			require.Equal(t, map[string]int{"native histogram": 4}, o.Skipped)
		})
	}
}

// TestOptions shows that nonsense is refused, without the password that an address may hold.
func TestOptions(t *testing.T) {
	for _, o := range []remotewrite.Options{
		{URL: "http://a/", Message: "prometheus.ReadRequest"},
		{URL: "ftp://user:secret@a/"},
		{URL: "http://user:secret@%zz/"},
		{URL: "://user:secret@a"},
		{URL: ""},
		{URL: "http://a/", Headers: map[string]string{"content-type": "x"}},
		{URL: "http://a/", Headers: map[string]string{"authorization": "secret"}},
	} {
		_, err := remotewrite.New(o)
		require.Error(t, err)
		require.NotContains(t, err.Error(), "secret")
	}
}

// TestBodiesAreNotReused shows that a request's memory is not used again while the transport may still read it: a peer that answers before it has
// read the body gets whole bodies all the same, while other batches are sent.
func TestBodiesAreNotReused(t *testing.T) {
	early := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(503) }))
	defer early.Close()
	var bad sync.Map
	p := newPeer(t, func(w http.ResponseWriter, g got) {
		var r prompb.WriteRequest
		if err := r.Unmarshal(g.body); err != nil || len(r.Timeseries) != 500 {
			bad.Store(err, true)
			return
		}
		for _, ts := range r.Timeseries {
			if ts.Labels[1].Value != r.Timeseries[0].Labels[1].Value {
				bad.Store(ts.String(), true)
			}
		}
	})
	var wg sync.WaitGroup
	for i := range 4 {
		url := p.URL
		if i%2 == 0 {
			url = early.URL
		}
		s := newSender(t, url, remotewrite.Message1)
		b := &forward.Batch{}
		for range 500 {
			one := series("up", "job", fmt.Sprint(i))
			one.Floats = []forward.Float{{TimeMillis: start, Value: float64(i)}}
			b.Series = append(b.Series, one)
		}
		prepare(t, s, b)
		wg.Go(func() {
			for range 50 {
				_, _ = s.Send(t.Context(), b)
			}
		})
	}
	wg.Wait()
	bad.Range(func(what, _ any) bool { t.Errorf("%v", what); return true })
}
