package result

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/stretchr/testify/require"
)

// ask returns a Server at a handler, which waits for nothing.
func ask(t testing.TB, path string, h http.HandlerFunc) (*Server, *[]time.Duration) {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL + path)
	require.NoError(t, err)
	var waits []time.Duration
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return &Server{URL: u, HTTP: client, Wait: func(_ context.Context, d time.Duration) error {
		waits = append(waits, d)
		return nil
	}}, &waits
}

const oneSeries = `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"__name__":"up"},"values":[[1000,"1"],[1000.5,"NaN"],[1001,"-Inf"]],"histograms":[]}]},"warnings":["w"],"infos":["i"]}`

var oneGrid = Grid{First: 1_000_000, Last: 1_001_000, Step: 500}

// TestServerURL shows that the path of the base and its parameters are kept, with and without a slash at the end, that times are exact to the
// ms, and what is sent along.
func TestServerURL(t *testing.T) {
	for _, path := range []string{"", "/", "/prom", "/prom/", "/a/b/?tenant=7", "/select/0/prometheus"} {
		s, _ := ask(t, path, func(w http.ResponseWriter, r *http.Request) {
			want, query, _ := strings.Cut(path, "?")
			require.Equal(t, strings.TrimSuffix(want, "/")+"/api/v1/query_range", r.URL.Path)
			require.Equal(t, query, r.URL.RawQuery)
			require.NoError(t, r.ParseForm())
			require.Equal(t, url.Values{"query": {"up"}, "start": {"1000"}, "end": {"1001"}, "step": {"0.500"}, "nocache": {"1"}, "resolution": {"1h"}}, r.PostForm)
			require.Equal(t, "x", r.Header.Get("X-Scope-OrgID"))
			w.Header().Set("X-Varve-Resolution", "raw,1h")
			_, _ = io.WriteString(w, oneSeries)
		})
		s.Header, s.Resolution = http.Header{"X-Scope-Orgid": {"x"}}, "1h"
		a, err := s.Range(t.Context(), "up", oneGrid, 1<<20)
		require.NoError(t, err)
		require.NoError(t, a.check(oneGrid))
		require.Len(t, a.Series[0].Floats, 3)
		require.Equal(t, int64(1_000_500), a.Series[0].Floats[1].T)
		require.Equal(t, []string{"w"}, a.Warnings)
		require.Equal(t, []string{"i"}, a.Infos)
		require.Equal(t, "raw,1h", a.Resolution)
	}
}

// TestServerRefuses shows how answers that are no success are told: with what the server said, in one line, and what to do; and
// which are asked for again, how often and after what time, or in smaller parts.
func TestServerRefuses(t *testing.T) {
	for _, c := range []struct {
		status       int
		header, body string
		tries        int
		tooLarge     bool
		text         string
	}{
		{400, "", `{"status":"error","errorType":"bad_data","error":"parse error\nhere"}`, 1, false, "bad_data: parse error here"},
		{400, "", `{"status":"error","errorType":"bad_data","error":"exceeded maximum resolution of 11,000 points per timeseries"}`, 1, true, "11,000"},
		{422, "", `{"status":"error","errorType":"execution","error":"query processing would load too many samples into memory in query execution"}`, 1, true, "samples"},
		{422, "", `{"status":"error","errorType":"execution","error":"division"}`, 1, false, "execution: division"},
		{503, "", `{"status":"error","errorType":"timeout","error":"query timed out in expression evaluation"}`, 1, true, "timed out"},
		{503, "7", "busy", 5, false, "busy"},
		{429, "", "slow down", 5, false, "slow down"},
		{502, "", "<html>bad gateway</html>", 5, false, "bad gateway"},
		{401, "", "who are you", 1, false, "401"},
		{404, "", "404 page not found", 1, false, "is there a Prometheus API"},
		{302, "", "", 1, false, "wants to be asked at"},
		{200, "", `{"status":"error","error":"no"}`, 1, false, "no"},
		{200, "", `{"status":"success","data":{"resultType":"vector","result":[]}}`, 1, false, "vector"},
		{200, "", `<html></html>`, 1, false, "read the answer"},
		{200, "", `{}`, 1, false, "none of Prometheus"},
		{200, "", oneSeries[:len(oneSeries)-60], 1, false, "read the answer"},
		{200, "", oneSeries[:len(oneSeries)-10], 1, false, "read the answer"},
		{200, "", strings.Replace(oneSeries, `"1"`, `"one"`, 1), 1, false, "no value"},
		{200, "", strings.Replace(oneSeries, `[1000,`, `["x",`, 1), 1, false, ""},
	} {
		n := 0
		s, waits := ask(t, "", func(w http.ResponseWriter, r *http.Request) {
			n++
			w.Header().Set("Retry-After", c.header)
			w.Header().Set("Location", "http://elsewhere/")
			w.WriteHeader(c.status)
			_, _ = io.WriteString(w, c.body)
		})
		_, err := s.Range(t.Context(), "up", oneGrid, 1<<20)
		require.ErrorContains(t, err, c.text)
		require.NotContains(t, err.Error(), "\n")
		require.Equal(t, c.tries, n, c.body)
		require.Equal(t, c.tooLarge, errors.Is(err, ErrTooLarge), c.body)
		if c.header == "7" {
			require.Equal(t, []time.Duration{7 * time.Second, 7 * time.Second, 7 * time.Second, 8 * time.Second}, *waits)
		}
	}
}

// TestServerMethods shows that a server that takes no POST is asked by GET, and that a compressed answer is read.
func TestServerMethods(t *testing.T) {
	s, _ := ask(t, "/x?a=b", func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		require.Equal(t, "up", r.URL.Query().Get("query"))
		require.Equal(t, "b", r.URL.Query().Get("a"))
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		_, _ = io.WriteString(z, oneSeries)
		require.NoError(t, z.Close())
	})
	a, err := s.Range(t.Context(), "up", oneGrid, 1<<20)
	require.NoError(t, err)
	require.Len(t, a.Series, 1)
}

// TestServerTimes shows that a server that answers for other times than it was asked for, or twice for a series, is not believed.
func TestServerTimes(t *testing.T) {
	for _, body := range []string{
		strings.Replace(oneSeries, "[1000.5,", "[1000.4,", 1), strings.Replace(oneSeries, "[1000,", "[999.5,", 1), strings.Replace(oneSeries, "[1000.5,", "[1000,", 1),
		strings.Replace(oneSeries, `"result":[`, `"result":[{"metric":{"__name__":"up"},"values":[[1000,"1"]]},`, 1),
	} {
		s, _ := ask(t, "", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) })
		a, err := s.Range(t.Context(), "up", oneGrid, 1<<20)
		require.NoError(t, err)
		require.Error(t, a.check(oneGrid))
	}
}

// TestServerHangs shows that the time of a request is bounded, which a shorter range may cure, and that the end of the context ends it.
func TestServerHangs(t *testing.T) {
	hang := func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // The end of a connection is noticed once the body was read.
		<-r.Context().Done()
	}
	s, _ := ask(t, "", hang)
	s.Timeout = 10 * time.Millisecond
	_, err := s.Range(t.Context(), "up", oneGrid, 1<<20)
	require.ErrorIs(t, err, ErrTooLarge)
	require.ErrorContains(t, err, "--timeout")
	ctx, cancel := context.WithCancel(t.Context())
	s.Timeout = 0
	time.AfterFunc(10*time.Millisecond, cancel)
	_, err = s.Range(ctx, "up", oneGrid, 1<<20)
	require.ErrorIs(t, err, context.Canceled)
	require.NotErrorIs(t, err, ErrTooLarge)
}

// TestServerLimits shows that a server with a low limit of its own gives the same file, in more requests.
func TestServerLimits(t *testing.T) {
	e := newEngine(t)
	requests := 0
	serve := func(most int64) *Server {
		s, _ := ask(t, "", func(w http.ResponseWriter, r *http.Request) {
			requests++
			require.NoError(t, r.ParseForm())
			var g Grid
			for name, to := range map[string]*int64{"start": &g.First, "end": &g.Last, "step": &g.Step} {
				seconds, err := strconv.ParseFloat(r.Form.Get(name), 64)
				require.NoError(t, err)
				*to = int64(seconds * 1000)
			}
			if g.Points() > most {
				w.WriteHeader(http.StatusBadRequest)
				_, _ = io.WriteString(w, `{"status":"error","errorType":"bad_data","error":"exceeded maximum resolution"}`)
				return
			}
			a, err := e.Range(r.Context(), r.Form.Get("query"), g, 1<<30)
			require.NoError(t, err)
			_, _ = w.Write(answerText(a))
			a.release()
		})
		return s
	}
	read := Read{Queries: queriesOfAll, Grid: all()}
	read.Source = serve(1 << 30)
	whole, _ := written(t, Options{Read: read})
	first := requests
	read.Source = serve(30)
	parts, _ := written(t, Options{Read: read})
	require.Equal(t, whole, parts)
	require.Greater(t, requests-first, 16*first)
	read.Source = e
	own, _ := written(t, Options{Read: read})
	require.Equal(t, own, whole)
}

// answerText writes an answer as the API does.
func answerText(a Answer) []byte {
	b := []byte(`{"status":"success","data":{"resultType":"matrix","result":[`)
	for i, s := range a.Series {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendMetric(append(b, `{"metric":`...), s.Labels), `,"values":[`...)
		for j, p := range s.Floats {
			b = appendPair(b, j, p.T, `"`+string(appendValue(nil, p.F))+`"`)
		}
		b = append(b, `],"histograms":[`...)
		for j, h := range s.Histograms {
			b = appendPair(b, j, h.T, string(h.JSON))
		}
		b = append(b, `]}`...)
	}
	return append(b, `]}}`...)
}

func appendPair(b []byte, i int, at int64, value string) []byte {
	if i > 0 {
		b = append(b, ',')
	}
	return append(b, "["+seconds(at)+","+value+"]"...)
}

// TestDecodeBounds shows that an answer beyond the bound is given up while it is read.
func TestDecodeBounds(t *testing.T) {
	a := Answer{Series: []Series{{Floats: make([]promql.FPoint, 1000)}}}
	for i := range a.Series[0].Floats {
		a.Series[0].Floats[i].T = int64(i) * 1000
	}
	body := answerText(a)
	d := decoder{bytesMax: 1 << 20}
	require.NoError(t, d.decode(bytes.NewReader(body)))
	d = decoder{bytesMax: 8000}
	err := d.decode(bytes.NewReader(body))
	require.ErrorIs(t, err, ErrTooLarge)
}

// TestMillis shows that times are read exactly.
func TestMillis(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "1.5": 1500, "1.05": 1050, "1.005": 1005, "-1.5": -1500, "-0.5": -500, "1700000000.123": 1700000000123, "1.7e9": 1700000000000, "1.0000": 1000} {
		got, err := millisOf(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
		if !strings.ContainsAny(text, "e") {
			back, err := millisOf(seconds(got))
			require.NoError(t, err)
			require.Equal(t, want, back)
		}
	}
	for _, text := range []string{"", "x", "1e300", "NaN", "1.2.3"} {
		_, err := millisOf(text)
		require.Error(t, err, text)
	}
}

// FuzzDecode shows that no answer makes the decoder panic or keep more than it may, and that what it takes is well formed.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(oneSeries))
	f.Add([]byte(`{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"histograms":[[1,{"count":"1","buckets":[[0,"1","2","3"]]}]]}]},"isPartial":true}`))
	f.Add([]byte(`{"status":"success","data":null}`))
	f.Add([]byte(`[[[[`))
	f.Fuzz(func(t *testing.T, b []byte) {
		d := decoder{bytesMax: 1 << 16}
		if d.decode(bytes.NewReader(b)) != nil {
			return
		}
		used := int64(0)
		for i := range d.answer.Series {
			used += d.answer.Series[i].bytes()
		}
		require.LessOrEqual(t, used, int64(1<<16)+int64(len(d.answer.Series))*seriesBytes)
		if d.answer.check(oneGrid) == nil {
			again := decoder{bytesMax: 1 << 17}
			require.NoError(t, again.decode(bytes.NewReader(answerText(d.answer))))
			require.Len(t, again.answer.Series, len(d.answer.Series))
		}
	})
}
