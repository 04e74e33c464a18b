package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"

	"varve/api"
	"varve/archive"
	"varve/arrival"
	"varve/internal/gate/server"
	"varve/internal/testkit"
)

// latestFixture is an API over an archive in dir whose clock stands at now.
func latestFixture(t testing.TB, dir string, change func(*api.Options)) (*fixture, *archive.Archive) {
	o := testkit.Options()
	o.Now = func() time.Time { return now }
	a := testkit.Open(t, dir, o)
	f := newFixture(t, func(o *api.Options) {
		o.Storage = a
		if change != nil {
			change(o)
		}
	})
	return f, a
}

// put stores samples of one series in an archive, from ages and values in turn.
func put(t testing.TB, a *archive.Archive, ls labels.Labels, samples ...sample) {
	t.Helper()
	u := []arrival.Unknown{{Labels: ls}}
	require.NoError(t, a.Resolve(context.Background(), u))
	b := &arrival.Batch{Rows: []arrival.Row{{Ref: u[0].Ref}}}
	for _, s := range samples {
		at := now.Add(-s.age).UnixMilli()
		if s.histogram != nil {
			b.Histograms = append(b.Histograms, arrival.Histogram{TimeMillis: at, Int: s.histogram})
			continue
		}
		b.Rows[0].Count++
		b.Times, b.Values = append(b.Times, at), append(b.Values, math.Float64bits(s.value))
	}
	_, err := a.Write(context.Background(), b)
	require.NoError(t, err)
}

func latestTarget(selectors ...string) string {
	return "/latest?" + url.Values{"match[]": selectors}.Encode()
}

// TestLatest shows in a table what is answered, and that a restart changes nothing.
func TestLatest(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	dir := testkit.MemoryDir(t)
	f, a := latestFixture(t, dir, nil)
	stale := math.Float64frombits(value.StaleNaN)
	put(t, a, labels.FromStrings("__name__", "b_metric", "instance", "i", "a", "2"), sample{age: day, value: 1}, sample{age: time.Minute, value: 2})
	put(t, a, labels.FromStrings("__name__", "b_metric", "instance", "i", "a", "1"), sample{age: time.Minute, value: 1})
	put(t, a, labels.FromStrings("__name__", "a_silent"), sample{age: 100 * day, value: 7})
	put(t, a, labels.FromStrings("__name__", "c_ended"), sample{age: 2 * time.Minute, value: 5}, sample{age: time.Minute, value: stale})
	put(t, a, labels.FromStrings("__name__", "c_only_ended"), sample{age: time.Minute, value: stale})
	put(t, a, labels.FromStrings("__name__", "d_deleted"), sample{age: 3 * day, value: 3}, sample{age: time.Minute, value: 4})
	put(t, a, labels.FromStrings("__name__", "e_escaped", "text", "a\"b\\c\nd"), sample{age: time.Minute, value: math.Inf(-1)})
	put(t, a, labels.FromStrings("__name__", "f_native"), sample{age: time.Minute, histogram: tsdbutil.GenerateTestHistogram(3)})
	deleted, err := f.engine.Parser().ParseMetricSelector("d_deleted")
	require.NoError(t, err)
	_, _, err = a.Delete(context.Background(), archive.DeleteRequest{
		Matchers: [][]*labels.Matcher{deleted}, MinMillis: now.Add(-day).UnixMilli(), MaxMillis: now.UnixMilli(),
	})
	require.NoError(t, err)
	want := func(f *fixture) {
		for _, c := range []struct{ target, want string }{
			{"/latest", `
# TYPE a_silent untyped
a_silent{instance=""} 7 1791360000000
# TYPE b_metric untyped
b_metric{a="1",instance="i"} 1 1799999940000
b_metric{a="2",instance="i"} 2 1799999940000
# TYPE c_ended untyped
c_ended{instance=""} 5 1799999880000
# TYPE d_deleted untyped
d_deleted{instance=""} 3 1799740800000
# TYPE e_escaped untyped
e_escaped{text="a\"b\\c\nd",instance=""} -Inf 1799999940000`},
			{latestTarget(`b_metric{a="1"}`, `b_metric`, `a_silent`), `
# TYPE a_silent untyped
a_silent{instance=""} 7 1791360000000
# TYPE b_metric untyped
b_metric{a="1",instance="i"} 1 1799999940000
b_metric{a="2",instance="i"} 2 1799999940000`},
			{latestTarget(`nothing`), ""},
			{latestTarget(`c_only_ended`), ""},
		} {
			code, body := f.get(c.target)
			require.Equal(t, http.StatusOK, code, body)
			require.Equal(t, strings.TrimPrefix(c.want, "\n"), strings.TrimSuffix(body, "\n"), c.target)
		}
		code, header, body := f.call(http.MethodGet, latestTarget("f_native"), "", "Accept", protobufAccept)
		require.Equal(t, http.StatusOK, code)
		got := scrape(t, header.Get("Content-Type"), body)
		require.Len(t, got, 1)
		for _, s := range got {
			require.Equal(t, tsdbutil.GenerateTestHistogram(3).ToFloat(nil).Count, s.histogram.Count)
		}
	}
	want(f)
	require.NoError(t, a.Close())
	f, _ = latestFixture(t, dir, nil)
	want(f)
	code, body := f.get(latestTarget("up{"))
	require.Equal(t, http.StatusBadRequest, code, body)
	code, _, _ = f.call(http.MethodPost, "/latest", "")
	require.Equal(t, http.StatusMethodNotAllowed, code)
	starting := archive.ErrStarting
	f.notReady.Store(&starting)
	code, body = f.get("/latest")
	require.Equal(t, http.StatusServiceUnavailable, code, body)
}

// TestLatestLimit shows that an answer of too many series is refused and not cut.
func TestLatestLimit(t *testing.T) {
	t.Parallel()
	f, a := latestFixture(t, testkit.MemoryDir(t), func(o *api.Options) { o.Limits.FederateSeries = 2 })
	for i := range 3 {
		put(t, a, labels.FromStrings("__name__", "m", "i", strconv.Itoa(i)), sample{age: time.Minute})
	}
	code, body := f.get("/latest")
	require.Equal(t, http.StatusUnprocessableEntity, code, body)
	code, body = f.get(latestTarget(`m{i=~"[01]"}`))
	require.Equal(t, http.StatusOK, code, body)
}

// TestLatestNeedsStorage shows that a storage that does not know newest samples has no such path.
func TestLatestNeedsStorage(t *testing.T) {
	t.Parallel()
	code, _ := newFixture(t, nil).get("/latest")
	require.Equal(t, http.StatusNotFound, code)
}

// TestPrometheusScrapesLatest lets a real Prometheus scrape the last values of 10 000 series with honoured labels
// and timestamps, and finds all of them in it, with the value and time that they had.
func TestPrometheusScrapesLatest(t *testing.T) {
	binary := server.Prometheus2(t)
	dir := testkit.MemoryDir(t)
	// The clock of the archive is that of Prometheus, which takes no samples older than an hour.
	at := time.Now().Truncate(time.Second).Add(-10 * time.Minute)
	o := testkit.Options()
	a := testkit.Open(t, dir, o)
	const series = 10_000
	unknown := make([]arrival.Unknown, series)
	batch := &arrival.Batch{}
	for i := range unknown {
		unknown[i].Labels = labels.FromStrings("__name__", "source_value", "instance", fmt.Sprint("host", i%7), "job", "heros", "key", fmt.Sprintf("k \"%d\"\n", i))
	}
	require.NoError(t, a.Resolve(context.Background(), unknown))
	for i, u := range unknown {
		batch.Rows = append(batch.Rows, arrival.Row{Ref: u.Ref, First: uint32(i), Count: 1})
		batch.Times = append(batch.Times, at.UnixMilli()+int64(i%1000))
		batch.Values = append(batch.Values, math.Float64bits(float64(i)+0.5))
	}
	_, err := a.Write(context.Background(), batch)
	require.NoError(t, err)
	f := newFixture(t, func(o *api.Options) { o.Storage, o.Now = a, time.Now })
	web := httptest.NewServer(f.handler)
	defer web.Close()
	p := server.StartPrometheus(t, binary, fmt.Sprintf(`
scrape_configs:
- job_name: varve
  metrics_path: /latest
  honor_labels: true
  honor_timestamps: true
  scrape_interval: 5s
  static_configs: [{targets: [%q]}]
`, strings.TrimPrefix(web.URL, "http://")))
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	query := p.URL("/api/v1/query?" + url.Values{"query": {"source_value[1h]"}}.Encode())
	require.NoError(t, server.Wait(ctx, "all series are there", func() (bool, error) {
		code, body, err := server.Get(ctx, query)
		if err != nil || code != http.StatusOK {
			return false, err
		}
		var answer struct {
			Data struct {
				Result []struct {
					Metric map[string]string
					Values [][2]any
				}
			}
		}
		if err := json.Unmarshal(body, &answer); err != nil || len(answer.Data.Result) < series {
			return false, err
		}
		for _, r := range answer.Data.Result {
			var i int
			if _, err := fmt.Sscanf(r.Metric["key"], "k \"%d\"", &i); err != nil {
				return false, err
			}
			require.Equal(t, fmt.Sprint("host", i%7), r.Metric["instance"])
			require.Equal(t, "heros", r.Metric["job"])
			require.Len(t, r.Values, 1)
			require.InDelta(t, float64(at.UnixMilli()+int64(i%1000))/1000, r.Values[0][0], 1e-4)
			require.Equal(t, fmt.Sprint(float64(i)+0.5), r.Values[0][1])
		}
		return true, nil
	}))
}
