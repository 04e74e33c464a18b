package export_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gogo/protobuf/proto"
	"github.com/klauspost/compress/s2"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"varve/benchmarks/export"
	"varve/benchmarks/fleet"
	"varve/benchmarks/peer"
	"varve/benchmarks/recording"
	"varve/internal/testkit/leaks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(leaks.Patient(m)) }

// newFleet is two targets with a counter and a gauge that ends.
func newFleet(t *testing.T) *fleet.Fleet {
	t.Helper()
	path := filepath.Join(t.TempDir(), "app"+recording.Extension)
	w, err := recording.Create(path, "app")
	require.NoError(t, err)
	for slot := range 60 {
		text := fmt.Sprintf("# TYPE c counter\nc %d\n", slot*slot)
		if slot < 50 {
			text += fmt.Sprintf("g %v\n", float64(slot)/3)
		}
		require.NoError(t, w.Append(recording.Scrape{Millis: int64(slot) * 1000, Text: []byte(text)}))
	}
	require.NoError(t, w.Close())
	columns, err := recording.Open(path, 1000)
	require.NoError(t, err)
	ring, err := fleet.Stitch(columns, 1000, 15_000)
	require.NoError(t, err)
	f, err := fleet.New(fleet.Config{Groups: []fleet.Group{{Ring: ring, Count: 2}}, StartMillis: 1_700_000_000_000, StepMillis: 15_000, Rounds: 40})
	require.NoError(t, err)
	return f
}

// edit changes what a fake server stores; ok false drops the sample.
type edit func(l labels.Labels, round int, v float64) (changed float64, ok bool)

// serve is a server that stores the fleet, as edited, and answers as the kind does.
func serve(t *testing.T, kind peer.Kind, f *fleet.Fleet, change edit) *peer.Server {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for target := range f.Targets() {
			if !strings.Contains(askedFor(t, r), f.Instance(target)) {
				continue
			}
			for i := range f.TargetSeries(target) {
				var times []int64
				var values []float64
				for round := range f.Config().Rounds {
					if v, ok := f.At(target, i, round); ok {
						if v, ok = change(f.Labels(target, i), round, v); ok {
							times, values = append(times, f.Millis(target, round)), append(values, v)
						}
					}
				}
				if kind == peer.VictoriaMetrics {
					writeLine(t, w, f.Labels(target, i), times, values)
				} else {
					writeFrame(t, w, f.Labels(target, i), times, values)
				}
			}
		}
	}))
	t.Cleanup(server.Close)
	return &peer.Server{Spec: peer.Spec{Name: "fake", Kind: kind}, Address: strings.TrimPrefix(server.URL, "http://")}
}

// askedFor is the text of a request, whatever its form.
func askedFor(t *testing.T, r *http.Request) string {
	if r.Method == http.MethodGet {
		return r.FormValue("match[]")
	}
	body, err := io.ReadAll(r.Body)
	require.NoError(t, err)
	r.Body = io.NopCloser(bytes.NewReader(body))
	plain, err := s2.Decode(nil, body)
	require.NoError(t, err)
	return string(plain)
}

func writeLine(t *testing.T, w io.Writer, l labels.Labels, times []int64, values []float64) {
	var metric, numbers []string
	l.Range(func(l labels.Label) { metric = append(metric, fmt.Sprintf("%q:%q", l.Name, l.Value)) })
	for _, v := range values {
		switch {
		case math.IsNaN(v):
			numbers = append(numbers, "null")
		case math.IsInf(v, 0):
			numbers = append(numbers, `"Infinity"`)
		default:
			numbers = append(numbers, fmt.Sprint(v))
		}
	}
	stamps := strings.ReplaceAll(fmt.Sprint(times), " ", ",")
	_, err := fmt.Fprintf(w, "{\"metric\":{%s},\"values\":[%s],\"timestamps\":%s}\n", strings.Join(metric, ","), strings.Join(numbers, ","), stamps)
	require.NoError(t, err)
}

func writeFrame(t *testing.T, w http.ResponseWriter, l labels.Labels, times []int64, values []float64) {
	chunk := chunkenc.NewXORChunk()
	appender, err := chunk.Appender()
	require.NoError(t, err)
	for i := range times {
		appender.Append(0, times[i], values[i])
	}
	var pairs []prompb.Label
	l.Range(func(l labels.Label) { pairs = append(pairs, prompb.Label{Name: l.Name, Value: l.Value}) })
	frame, err := proto.Marshal(&prompb.ChunkedReadResponse{ChunkedSeries: []*prompb.ChunkedSeries{{
		Labels: pairs, Chunks: []prompb.Chunk{{Type: prompb.Chunk_XOR, Data: chunk.Bytes(), MinTimeMs: times[0], MaxTimeMs: times[len(times)-1]}},
	}}})
	require.NoError(t, err)
	stream := remote.NewChunkedWriter(w, w.(http.Flusher))
	_, err = stream.Write(frame)
	require.NoError(t, err)
	stream.Close()
}

// Shows for both ways of reading that what is kept is exact, stale markers included,
// and that each fault is counted as what it is.
func TestCompare(t *testing.T) {
	f := newFleet(t)
	all := f.Count(0, 40)
	require.NotZero(t, all.Stale)
	client := &http.Client{}
	defer client.CloseIdleConnections()
	at := func(l labels.Labels, name string) bool {
		return l.Get(model.MetricNameLabel) == name && strings.Contains(l.Get("instance"), "0001")
	}
	for _, kind := range []peer.Kind{peer.Varve, peer.VictoriaMetrics} {
		for name, c := range map[string]struct {
			change edit
			want   export.Verdict
			tells  string
		}{
			"kept": {func(_ labels.Labels, _ int, v float64) (float64, bool) { return v, true }, export.Verdict{Exact: all.Samples}, ""},
			"changed by one bit": {func(l labels.Labels, round int, v float64) (float64, bool) {
				if at(l, "g") && round == 3 {
					v = math.Nextafter(v, 1e9)
				}
				return v, true
			}, export.Verdict{Exact: all.Samples - 1, Changed: 1}, "instead of"},
			"lost": {func(l labels.Labels, round int, v float64) (float64, bool) { return v, !at(l, "c") || round != 39 },
				export.Verdict{Exact: all.Samples - 1, Missing: 1}, "missing"},
			"stale markers lost": {func(_ labels.Labels, _ int, v float64) (float64, bool) { return v, !math.IsNaN(v) },
				export.Verdict{Exact: all.Samples - all.Stale, Missing: all.Stale, MissingNaN: all.Stale}, "stale marker"},
			"infinite": {func(l labels.Labels, round int, v float64) (float64, bool) {
				if at(l, "c") && round == 7 {
					v = math.Inf(1)
				}
				return v, true
			}, export.Verdict{Exact: all.Samples - 1, Changed: 1}, "+Inf"},
		} {
			verdict, err := export.Compare(context.Background(), client, serve(t, kind, f, c.change), f, nil)
			require.NoError(t, err, "%s, %s", kind, name)
			require.Contains(t, verdict.Difference, c.tells)
			require.Equal(t, c.tells == "", verdict.Difference == "")
			c.want.Sent, verdict.Difference = all.Samples, ""
			require.Equal(t, c.want, verdict, "%s, %s", kind, name)
		}
	}
}

// Shows that samples which were never sent, or come twice, are counted, and that a
// plain NaN is not taken for a stale marker where the bits are known.
func TestCompareExtra(t *testing.T) {
	f := newFleet(t)
	all := f.Count(0, 40)
	keep := func(_ labels.Labels, _ int, v float64) (float64, bool) { return v, true }
	client := &http.Client{}
	defer client.CloseIdleConnections()
	// A server that answers for both targets whichever is asked for.
	both := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for target := range f.Targets() {
			for i := range f.TargetSeries(target) {
				for range 2 {
					writeFrame(t, w, f.Labels(target, i), []int64{f.Millis(target, 2), f.Millis(target, 2) + 1}, []float64{0, 1})
				}
			}
		}
	}))
	defer both.Close()
	verdict, err := export.Compare(context.Background(), client, &peer.Server{Spec: peer.Spec{Kind: peer.Prometheus}, Address: strings.TrimPrefix(both.URL, "http://")}, f, nil)
	require.NoError(t, err)
	// Of eight samples for each of four series, one is the series' own.
	require.EqualValues(t, 4*8-4, verdict.Extra)
	require.Equal(t, all.Samples, verdict.Sent)

	nan := func(_ labels.Labels, _ int, v float64) (float64, bool) {
		if math.IsNaN(v) {
			v = math.NaN()
		}
		return v, true
	}
	verdict, err = export.Compare(context.Background(), client, serve(t, peer.Prometheus, f, nan), f, nil)
	require.NoError(t, err)
	require.Equal(t, all.Stale, verdict.ChangedNaN)
	verdict, err = export.Compare(context.Background(), client, serve(t, peer.Prometheus, f, keep), f, nil)
	require.NoError(t, err)
	require.Zero(t, verdict.ChangedNaN)
}

// Shows that refusals and nonsense are errors with the server's words.
func TestSamplesErrors(t *testing.T) {
	client := &http.Client{}
	defer client.CloseIdleConnections()
	for _, kind := range []peer.Kind{peer.Varve, peer.VictoriaMetrics} {
		for _, c := range []struct {
			status int
			body   string
		}{{http.StatusBadRequest, "too much"}, {http.StatusOK, "nonsense"}, {http.StatusOK, `{"metric":{},"values":[1,2],"timestamps":[1]}`}} {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(c.status)
				fmt.Fprint(w, c.body)
			}))
			err := export.Samples(context.Background(), client, &peer.Server{Spec: peer.Spec{Name: "fake", Kind: kind}, Address: strings.TrimPrefix(server.URL, "http://")},
				export.Range{Instance: "x", MaxMillis: 10}, func(labels.Labels, int64, float64) {})
			require.ErrorContains(t, err, "export x from fake")
			if c.status != http.StatusOK {
				require.ErrorContains(t, err, "too much")
			}
			server.Close()
		}
	}
}
