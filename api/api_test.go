package api_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang/snappy"
	config_util "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/storage/remote"
	v1 "github.com/prometheus/prometheus/web/api/v1"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"varve/api"
	"varve/api/access"
	"varve/internal/testkit/leaks"
	"varve/query"
)

func TestMain(m *testing.M) {
	// Upstream's test storage leaves the write loop of its head to the process.
	goleak.VerifyTestMain(leaks.Patient(m))
}

// filled returns a fixture with two series, an exemplar and metadata.
func filled(t testing.TB, change func(*api.Options)) *fixture {
	f := newFixture(t, change)
	f.append(labels.FromStrings("__name__", "up", "job", "a"), sample{age: time.Minute, value: 1}, sample{age: 0, value: 2})
	f.append(labels.FromStrings("__name__", "up", "job", "b"), sample{age: time.Minute, value: 3})
	f.appendExemplar(labels.FromStrings("__name__", "requests_total", "job", "a"),
		exemplar.Exemplar{Labels: labels.FromStrings("trace_id", "t1"), Value: 7, Ts: now.UnixMilli(), HasTs: true})
	f.catalogue.metadata = map[string][]metadata.Metadata{
		"up":             {{Type: model.MetricTypeGauge, Help: "Is it up.", Unit: ""}},
		"requests_total": {{Type: model.MetricTypeCounter, Help: "Requests."}, {Type: model.MetricTypeCounter, Help: "All requests."}},
	}
	f.catalogue.status = api.StorageStatus{
		TSDBStatus:        v1.TSDBStatus{HeadStats: v1.HeadStats{NumSeries: 3}},
		BytesByMetricName: []v1.TSDBStat{{Name: "up", Value: 100}, {Name: "requests_total", Value: 50}},
		DiskBytes:         150,
	}
	return f
}

func TestPrometheusAPI(t *testing.T) {
	// Every endpoint that clients of a Prometheus use answers 2xx with what is
	// stored, by GET and by POST where both exist.
	t.Parallel()
	f := filled(t, nil)
	at := fmt.Sprint(now.Unix())
	span := "&start=" + fmt.Sprint(now.Add(-time.Hour).Unix()) + "&end=" + at
	for _, c := range []struct{ target, contains string }{
		{"/api/v1/query?query=up&time=" + at, `"result":[{"metric":{"__name__":"up","job":"a"},"value":[1800000000,"2"]}`},
		{"/api/v1/query?query=sum(up)&stats=all&time=" + at, `"totalQueryableSamples"`},
		{"/api/v1/query_range?query=up&step=60" + span, `"resultType":"matrix"`},
		{"/api/v1/query_exemplars?query=requests_total" + span, `"trace_id":"t1"`},
		{"/api/v1/series?match[]=up" + span, `{"__name__":"up","job":"b"}`},
		{"/api/v1/labels?match[]=up" + span, `["__name__","job"]`},
		{"/api/v1/label/job/values?match[]=up" + span, `["a","b"]`},
		{"/api/v1/format_query?query=sum(up)by(job)", `sum by (job) (up)`},
		{"/api/v1/parse_query?query=up", `"vectorSelector"`},
		{"/api/v1/metadata", `"help":"Is it up."`},
		{"/api/v1/metadata?metric=up", `{"up":[{"type":"gauge","unit":"","help":"Is it up."}]}`},
		{"/api/v1/status/buildinfo", `"version":"3.15.0"`},
		{"/api/v1/status/runtimeinfo", `"hostname":"here"`},
		{"/api/v1/status/flags", `"storage.path":"data"`},
		{"/api/v1/status/config", `"yaml":"storage:\n  path: data\n"`},
		{"/api/v1/status/tsdb?limit=1", `"bytesByMetricName":[{"name":"up","value":100}]`},
		{"/api/v1/status/tsdb", `"headStats":{"numSeries":3`},
		{"/api/v1/status/queries", `"data":[]`},
		{"/api/v1/status/self_metrics", `varve_http_requests_total`},
		{"/api/v1/features", `"remote_write_receiver":true`},
		{"/api/v1/targets", `"activeTargets":[]`},
		{"/api/v1/targets/metadata", `"data":[]`},
		{"/api/v1/rules", `"groups":[]`},
		{"/api/v1/alerts", `"alerts":[]`},
		{"/api/v1/alertmanagers", `"activeAlertmanagers":[]`},
		{"/-/healthy", "healthy"},
		{"/-/ready", "ready"},
		{"/metrics", `varve_http_request_duration_seconds`},
		{"/", "<title>Varve</title>"},
		{"/api/v1/status/page", "127.0.0.1:9095/api/v1/write"},
		{"/federate?match[]=up", `up{job="a",instance=""} 2`},
	} {
		code, body := f.get(c.target)
		require.Equal(t, http.StatusOK, code, "%s: %s", c.target, body)
		require.Contains(t, body, c.contains, c.target)
	}
	for target, form := range map[string]url.Values{
		"/api/v1/query":           {"query": {"up"}, "time": {at}},
		"/api/v1/query_range":     {"query": {"up"}, "start": {at}, "end": {at}, "step": {"1"}},
		"/api/v1/query_exemplars": {"query": {"requests_total"}, "start": {at}, "end": {at}},
		"/api/v1/series":          {"match[]": {"up"}},
		"/api/v1/labels":          {},
		"/api/v1/format_query":    {"query": {"up"}},
		"/api/v1/parse_query":     {"query": {"up"}},
	} {
		code, body := f.postForm(target, form)
		require.Equal(t, http.StatusOK, code, "%s: %s", target, body)
		require.NotNil(t, f.data(body), target)
	}
}

func TestErrorsHaveTheStatusTheyDeserve(t *testing.T) {
	// Bad input is 400, too much is 413 or 422, what isn't there is 404, and every
	// answer below /api is Prometheus' envelope.
	t.Parallel()
	f := filled(t, nil)
	long := strings.Repeat("x", 20<<10)
	for _, c := range []struct {
		target, contains string
		want             int
	}{
		{"/api/v1/query?query=up(", "parse error", 400},
		{"/api/v1/query?query=" + long, "too long", 400},
		{"/api/v1/query?query=" + strings.Repeat("(", 300) + "1" + strings.Repeat(")", 300), "deep", 400},
		{"/api/v1/query?query=up" + url.QueryEscape(`{job=~"`+strings.Repeat("a", 2000)+`"}`), "regular expression", 400},
		{"/api/v1/series", "no match[]", 400},
		{"/api/v1/series?" + strings.Repeat("match[]=up&", 300), "300 match[] selectors", 400},
		{"/api/v1/metadata?limit=x", "must be numbers", 400},
		{"/api/v1/status/tsdb?limit=0", "positive", 400},
		{"/api/v1/status/tsdb?limit=10001", "exceed", 400},
		{"/api/v1/no_such", "no such endpoint", 404},
		{"/api/v1/admin/tsdb/snapshot", "no such endpoint", 404},
		{"/api/v1/otlp/v1/metrics", "no such endpoint", 404},
	} {
		code, body := f.get(c.target)
		require.Equal(t, c.want, code, "%.80s: %s", c.target, body)
		require.Contains(t, body, c.contains, "%.80s", c.target)
		require.Contains(t, body, `"status":"error"`)
	}
	code, _ := f.get("/nowhere")
	require.Equal(t, 404, code)
	code, body := f.postForm("/api/v1/query", url.Values{"query": {"up"}, "x": {strings.Repeat("y", 2<<20)}})
	require.Equal(t, 413, code, body)

	var form bytes.Buffer
	m := multipart.NewWriter(&form)
	require.NoError(t, m.WriteField("query", "up"))
	require.NoError(t, m.Close())
	code, _, body = f.call(http.MethodPost, "/api/v1/query", form.String(), "Content-Type", m.FormDataContentType())
	require.Equal(t, 200, code, body)
}

func TestStorageErrorsAreToldApart(t *testing.T) {
	// A failing disk is 500, a limit 422 and a deadline 503, in every endpoint that
	// reads, and never an empty answer.
	t.Parallel()
	for want, err := range map[int]error{500: errDisk, 422: errTooMuch, 503: context.DeadlineExceeded} {
		f := newFixture(t, func(o *api.Options) { o.Storage = brokenStorage{fmt.Errorf("read: %w", err)} })
		for _, target := range []string{"/api/v1/query?query=up", "/federate?match[]=up"} {
			code, body := f.get(target)
			require.Equal(t, want, code, "%s: %s", target, body)
			require.Contains(t, body, err.Error())
		}
	}
	f := newFixture(t, nil)
	f.catalogue.err = errDisk
	for _, target := range []string{"/api/v1/metadata", "/api/v1/status/tsdb"} {
		code, body := f.get(target)
		require.Equal(t, 500, code)
		require.Contains(t, body, "disk on fire")
	}
}

func TestNotReadyIsUnavailable(t *testing.T) {
	// While the storage can't answer, readers get 503 with a time to come back, and
	// the process still counts as alive.
	t.Parallel()
	f := filled(t, nil)
	starting := errors.New("replaying the journal")
	f.notReady.Store(&starting)
	for _, target := range []string{"/api/v1/query?query=up", "/api/v1/labels", "/federate?match[]=up", "/-/ready"} {
		code, header, body := f.call(http.MethodGet, target, "")
		require.Equal(t, 503, code, target)
		require.Contains(t, body, "replaying the journal")
		if target != "/-/ready" {
			require.NotEmpty(t, header.Get("Retry-After"), target)
		}
	}
	code, _ := f.get("/-/healthy")
	require.Equal(t, 200, code)
	f.notReady.Store(nil)
	code, _ = f.get("/api/v1/labels")
	require.Equal(t, 200, code)
}

func TestInputsAreServedUntilTheServerDrains(t *testing.T) {
	// What has a path reaches its handler, with a slash at the end too; a draining server
	// answers 503, which senders retry, while reads and probes go on.
	t.Parallel()
	f := filled(t, nil)
	paths := []string{"/api/v1/write", "/api/v1/write/", "/write", "/write/"}
	for _, path := range paths {
		code, _, _ := f.call(http.MethodPost, path, "body")
		require.Equal(t, 204, code, path)
	}
	require.EqualValues(t, len(paths), f.written.Load())
	code, _, _ := f.call(http.MethodPost, "/receive", "body")
	require.Equal(t, 404, code)
	f.handler.Drain()
	for _, path := range paths {
		code, header, _ := f.call(http.MethodPost, path, "body")
		require.Equal(t, 503, code)
		require.NotEmpty(t, header.Get("Retry-After"))
	}
	require.EqualValues(t, len(paths), f.written.Load())
	code, _ = f.get("/api/v1/query?query=up")
	require.Equal(t, 200, code)
	code, _ = f.get("/ping")
	require.Equal(t, 204, code)
	code, body := f.get("/api/v1/status/inputs")
	require.Equal(t, 200, code)
	require.JSONEq(t, `{"status":"success","data":3}`, string(body))
}

func TestInputsOwnAddress(t *testing.T) {
	// An input's own address has its own guard, and nothing else than the input.
	t.Parallel()
	f := filled(t, nil)
	p, err := access.NewPolicy(access.PolicyOptions{Tokens: []access.Token{{Name: "telegraf", Secret: "s3cret"}}})
	require.NoError(t, err)
	g, err := access.NewGuard(p, nil, nil)
	require.NoError(t, err)
	h := f.handler.InputHandler("telegraf", g, f.options.Inputs.Endpoint)
	ask := func(path, token string) int {
		r := httptest.NewRequest(http.MethodPost, path, strings.NewReader("x"))
		r.Header.Set("Authorization", "Token "+token)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code
	}
	require.Equal(t, 204, ask("/write?db=x", "s3cret"))
	require.Equal(t, 401, ask("/write?db=x", "other"))
	require.Equal(t, 401, ask("/api/v1/write", "s3cret"), "it takes no token of InfluxDB's")
	require.Equal(t, 404, ask("/api/v1/query", "s3cret"))
	require.Equal(t, 204, ask("/ping", ""))
}

func TestMetadataLimits(t *testing.T) {
	// limit counts families and limit_per_metric the entries of one, as in Prometheus.
	t.Parallel()
	f := filled(t, nil)
	count := func(target string) int {
		code, body := f.get(target)
		require.Equal(t, 200, code)
		return len(f.data(body).(map[string]any))
	}
	require.Equal(t, 2, count("/api/v1/metadata"))
	require.Equal(t, 1, count("/api/v1/metadata?limit=1"))
	require.Equal(t, 0, count("/api/v1/metadata?limit=0"))
	require.Equal(t, 0, count("/api/v1/metadata?metric=nothing"))
	_, body := f.get("/api/v1/metadata?metric=requests_total&limit_per_metric=1")
	require.Len(t, f.data(body).(map[string]any)["requests_total"], 1)
}

func TestAdminAndLifecycleAreOffByDefault(t *testing.T) {
	// Without their flags the endpoints refuse and name the flag; with them they
	// work, by POST and PUT alone.
	t.Parallel()
	f := filled(t, nil)
	for target, flag := range map[string]string{"/-/reload": "--web.enable-lifecycle", "/-/quit": "--web.enable-lifecycle"} {
		for _, method := range []string{http.MethodPost, http.MethodPut} {
			code, _, body := f.call(method, target, "")
			require.Equal(t, 403, code)
			require.Contains(t, body, flag)
		}
	}
	code, _, body := f.call(http.MethodDelete, "/api/v1/status/queries/x", "")
	require.Equal(t, 403, code)
	require.Contains(t, body, "--web.enable-admin-api")
	code, body = f.get("/debug/pprof/")
	require.Equal(t, 403, code, body)
	require.Zero(t, f.reloads.Load()+f.quits.Load())

	f = filled(t, func(o *api.Options) { o.EnableAdmin, o.EnableLifecycle = true, true })
	for i, method := range []string{http.MethodPost, http.MethodPut} {
		code, _, _ := f.call(method, "/-/reload", "")
		require.Equal(t, 200, code)
		code, _, _ = f.call(method, "/-/quit", "")
		require.Equal(t, 200, code)
		require.EqualValues(t, i+1, f.reloads.Load())
		require.EqualValues(t, i+1, f.quits.Load())
	}
	f.reloadErr = errors.New("line 3: unknown key")
	code, _, body = f.call(http.MethodPost, "/-/reload", "")
	require.Equal(t, 500, code)
	require.Contains(t, body, "line 3: unknown key")
	code, _ = f.get("/-/reload")
	require.Equal(t, 405, code)
	code, _, _ = f.call(http.MethodDelete, "/api/v1/status/queries/x", "")
	require.Equal(t, 404, code)
	code, body = f.get("/debug/pprof/")
	require.Equal(t, 200, code)
	require.Contains(t, body, "goroutine")
}

// blockingStorage lets a query begin and then waits for its end, and for going if that isn't nil.
type blockingStorage struct {
	api.Storage
	begun, going chan struct{}
}

func (b *blockingStorage) Querier(mint, maxt int64) (storage.Querier, error) {
	q, err := b.Storage.Querier(mint, maxt)
	return &blockingQuerier{q, b}, err
}

type blockingQuerier struct {
	storage.Querier
	b *blockingStorage
}

func (q *blockingQuerier) Select(ctx context.Context, _ bool, _ *storage.SelectHints, _ ...*labels.Matcher) storage.SeriesSet {
	q.b.begun <- struct{}{}
	<-ctx.Done()
	if q.b.going != nil {
		<-q.b.going
	}
	return storage.ErrSeriesSet(ctx.Err())
}

func TestRunningQueriesAreListedAndCancelled(t *testing.T) {
	// A query that runs is listed with its text and who asked, and ends at once when
	// it is cancelled.
	t.Parallel()
	begun := make(chan struct{})
	policy, err := access.NewPolicy(access.PolicyOptions{Tokens: []access.Token{{Name: "grafana", Secret: "s"}}})
	require.NoError(t, err)
	f := newFixture(t, func(o *api.Options) {
		o.EnableAdmin = true
		o.Storage = &blockingStorage{Storage: o.Storage, begun: begun}
		o.Guard.Set(policy)
	})
	answered := make(chan int)
	go func() {
		code, _ := f.get("/api/v1/query?query=slow_metric", "Authorization", "Bearer s")
		answered <- code
	}()
	<-begun
	_, body := f.get("/api/v1/status/queries", "Authorization", "Bearer s")
	list := f.data(body).([]any)
	require.Len(t, list, 1)
	entry := list[0].(map[string]any)
	require.Equal(t, "slow_metric", entry["query"])
	require.Equal(t, "token:grafana", entry["client"])
	code, _, _ := f.call(http.MethodDelete, "/api/v1/status/queries/"+entry["id"].(string), "", "Authorization", "Bearer s")
	require.Equal(t, 204, code)
	require.Equal(t, query.Status(promql.ErrQueryCanceled("")), <-answered)
	_, body = f.get("/api/v1/status/queries", "Authorization", "Bearer s")
	require.Empty(t, f.data(body))
}

func TestReadsBesideTheEngineAreBounded(t *testing.T) {
	// With all slots taken a further reader waits, and is answered 503 at the end
	// of its time rather than piling up.
	t.Parallel()
	begun, going := make(chan struct{}), make(chan struct{})
	f := newFixture(t, func(o *api.Options) {
		o.Storage = &blockingStorage{o.Storage, begun, going}
		o.Limits.Concurrency = 1
		o.Limits.Timeout = 50 * time.Millisecond
	})
	answered := make(chan int)
	for reading := false; !reading; {
		go func() {
			code, _ := f.get("/federate?match[]=up")
			answered <- code
		}()
		select {
		case <-begun:
			reading = true
		case code := <-answered:
			require.Equal(t, 503, code, "its time was over before it began")
		}
	}
	code, body := f.get("/api/v1/labels")
	require.Equal(t, 503, code)
	require.Contains(t, body, "waiting to read")
	close(going)
	require.Equal(t, 503, <-answered)
}

// secured returns an API where each of the tokens q, w, f and a has one right.
func secured(t *testing.T) *fixture {
	return filled(t, func(o *api.Options) {
		tokens, rules := []access.Token{}, []access.Rule{}
		for name, groups := range map[string][]access.Group{
			"q": {access.Query, access.Metadata}, "w": {access.Write}, "f": {access.Federate}, "a": {access.Admin, access.Lifecycle, access.Debug},
		} {
			tokens = append(tokens, access.Token{Name: name, Secret: "secret-" + name})
			rules = append(rules, access.Rule{Who: []string{"token:" + name}, May: groups})
		}
		policy, err := access.NewPolicy(access.PolicyOptions{Tokens: tokens, Rules: rules})
		require.NoError(t, err)
		o.Guard.Set(policy)
		o.Compactor, o.Outputs = &jobs{}, &peers{}
		o.EnableAdmin, o.EnableLifecycle = true, true
	})
}

func TestEveryEndpointAsksForItsGroup(t *testing.T) {
	// Each endpoint is open to the one token whose group it is in, closed to the
	// other three and to nobody's, except the two probes.
	t.Parallel()
	f := secured(t)
	for _, c := range []struct{ method, target, who string }{
		{"GET", "/api/v1/query?query=up", "q"},
		{"POST", "/api/v1/query?query=up", "q"},
		{"GET", "/api/v1/query_range?query=up&start=1&end=2&step=1", "q"},
		{"GET", "/api/v1/query_exemplars?query=up&start=1&end=2", "q"},
		{"GET", "/api/v1/format_query?query=up", "q"},
		{"GET", "/api/v1/parse_query?query=up", "q"},
		{"GET", "/api/v1/series?match[]=up", "q"},
		{"GET", "/api/v1/labels", "q"},
		{"GET", "/api/v1/label/job/values", "q"},
		{"GET", "/api/v1/metadata", "q"},
		{"GET", "/api/v1/targets", "q"},
		{"GET", "/api/v1/rules", "q"},
		{"GET", "/api/v1/alerts", "q"},
		{"GET", "/api/v1/features", "q"},
		{"GET", "/api/v1/status/buildinfo", "q"},
		{"GET", "/api/v1/status/runtimeinfo", "q"},
		{"GET", "/api/v1/status/flags", "q"},
		{"GET", "/api/v1/status/config", "q"},
		{"GET", "/api/v1/status/tsdb", "q"},
		{"GET", "/api/v1/status/queries", "q"},
		{"GET", "/api/v1/status/compactor", "q"},
		{"POST", "/api/v1/admin/compactor/run", "a"},
		{"GET", "/api/v1/status/outputs", "q"},
		{"POST", "/api/v1/admin/outputs/x/pause", "a"},
		{"POST", "/api/v1/admin/outputs/x/resume", "a"},
		{"POST", "/api/v1/admin/outputs/x/rewind?to=now", "a"},
		{"GET", "/", "q"},
		{"GET", "/nowhere", "q"},
		{"GET", "/federate?match[]=up", "f"},
		{"POST", "/api/v1/read", "f"},
		{"POST", "/api/v1/write", "w"},
		{"POST", "/api/v1/write/", "w"},
		{"DELETE", "/api/v1/status/queries/1", "a"},
		{"POST", "/-/reload", "a"},
		{"PUT", "/-/quit", "a"},
		{"GET", "/metrics", "a"},
		{"GET", "/api/v1/status/self_metrics", "a"},
		{"GET", "/debug/pprof/", "a"},
		{"GET", "/debug/pprof/heap", "a"},
		{"GET", "/debug/pprof/cmdline", "a"},
	} {
		for _, who := range []string{"q", "w", "f", "a", ""} {
			header := []string{}
			if who != "" {
				header = []string{"Authorization", "Bearer secret-" + who}
			}
			code, _, _ := f.call(c.method, c.target, "", header...)
			switch who {
			case c.who:
				require.NotContains(t, []int{401, 403}, code, "%s %s as %s", c.method, c.target, who)
			case "":
				require.Equal(t, 401, code, "%s %s", c.method, c.target)
			default:
				require.Equal(t, 403, code, "%s %s as %s", c.method, c.target, who)
			}
		}
	}
	for _, probe := range []string{"/-/healthy", "/-/ready"} {
		code, _ := f.get(probe)
		require.Equal(t, 200, code)
	}
}

func TestCrossSiteWritesAreRefused(t *testing.T) {
	// A page of another site can't write, reload or stop the server through a
	// visitor's browser.
	t.Parallel()
	f := filled(t, func(o *api.Options) { o.EnableAdmin, o.EnableLifecycle = true, true })
	for _, target := range []string{"/api/v1/write", "/-/reload", "/-/quit"} {
		code, _, _ := f.call(http.MethodPost, target, "", "Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site")
		require.Equal(t, 403, code, target)
	}
	require.Zero(t, f.written.Load()+f.reloads.Load()+f.quits.Load())
	_, header, _ := f.call(http.MethodGet, "/api/v1/query?query=up", "", "Origin", "https://evil.example")
	require.Empty(t, header.Get("Access-Control-Allow-Origin"))
}

func TestExternalURLIsThePrefixOfAllRoutes(t *testing.T) {
	// Behind a proxy everything lives under the URL's path, the probes at the root
	// as well, and the start page shows addresses that users can reach.
	t.Parallel()
	f := filled(t, func(o *api.Options) {
		o.ExternalURL = &url.URL{Scheme: "https", Host: "metrics.example", Path: "/varve/"}
	})
	for target, want := range map[string]int{
		"/varve/api/v1/query?query=up": 200, "/api/v1/query?query=up": 404, "/varve/-/ready": 200, "/-/ready": 200, "/": 302, "/varve/": 200,
	} {
		code, _ := f.get(target)
		require.Equal(t, want, code, target)
	}
	_, body := f.get("/varve/api/v1/status/page")
	require.Contains(t, body, "https://metrics.example/varve/api/v1/write")
}

func TestRemoteRead(t *testing.T) {
	// Upstream's own client reads the samples through streamed chunks and as plain
	// samples, external labels attached; too large requests are refused.
	t.Parallel()
	f := filled(t, nil)
	f.external = labels.FromStrings("site", "x")
	server := httptest.NewServer(f.handler)
	defer server.Close()
	u, err := url.Parse(server.URL + "/api/v1/read")
	require.NoError(t, err)
	client, err := remote.NewReadClient("test", &remote.ClientConfig{
		URL: &config_util.URL{URL: u}, Timeout: model.Duration(2 * time.Minute), ChunkedReadLimit: 1 << 20,
	})
	require.NoError(t, err)
	q, err := remote.ToQuery(now.Add(-time.Hour).UnixMilli(), now.UnixMilli(), []*labels.Matcher{
		labels.MustNewMatcher(labels.MatchRegexp, "job", "a|b"), labels.MustNewMatcher(labels.MatchEqual, "__name__", "up"),
	}, nil)
	require.NoError(t, err)
	want := map[string]int{`{__name__="up", job="a", site="x"}`: 2, `{__name__="up", job="b", site="x"}`: 1}

	set, err := client.Read(t.Context(), q, true)
	require.NoError(t, err)
	got := map[string]int{}
	for set.Next() {
		samples, err := storage.ExpandSamples(set.At().Iterator(nil), nil)
		require.NoError(t, err)
		got[set.At().Labels().String()] = len(samples)
	}
	require.NoError(t, set.Err())
	require.Equal(t, want, got)

	read := func(req *prompb.ReadRequest) (int, string) {
		wire, err := req.Marshal()
		require.NoError(t, err)
		code, _, body := f.call(http.MethodPost, "/api/v1/read", string(snappy.Encode(nil, wire)))
		return code, body
	}
	code, body := read(&prompb.ReadRequest{Queries: []*prompb.Query{q}})
	require.Equal(t, 200, code)
	plain, err := snappy.Decode(nil, []byte(body))
	require.NoError(t, err)
	var resp prompb.ReadResponse
	require.NoError(t, resp.Unmarshal(plain))
	got = map[string]int{}
	builder := labels.NewScratchBuilder(0)
	for _, series := range resp.Results[0].Timeseries {
		got[series.ToLabels(&builder, nil).String()] = len(series.Samples)
	}
	require.Equal(t, want, got)

	long := &prompb.Query{Matchers: []*prompb.LabelMatcher{{Type: prompb.LabelMatcher_RE, Name: "job", Value: strings.Repeat("a", 2000)}}}
	code, body = read(&prompb.ReadRequest{Queries: []*prompb.Query{long}})
	require.Equal(t, 400, code)
	require.Contains(t, body, "2000 bytes long")
	code, body = read(&prompb.ReadRequest{Queries: slices.Repeat([]*prompb.Query{{}}, 300)})
	require.Equal(t, 400, code, body)
	code, _, _ = f.call(http.MethodPost, "/api/v1/read", "not snappy")
	require.Equal(t, 400, code)
	bomb := append(binary.AppendUvarint(nil, 1<<31), 0)
	code, _, body = f.call(http.MethodPost, "/api/v1/read", string(bomb))
	require.Equal(t, 400, code)
	require.Contains(t, body, "when decompressed")
	code, _, _ = f.call(http.MethodPost, "/api/v1/read", strings.Repeat("x", 2<<20))
	require.Equal(t, 413, code)
}

func TestOptionsAreChecked(t *testing.T) {
	// A limit of zero would mean no limit, so it is refused, and so is a hole in the options.
	t.Parallel()
	f := newFixture(t, nil)
	o := f.options
	o.Limits.FederateSeries = 0
	_, err := api.New(o)
	require.ErrorContains(t, err, "limit")
	o = f.options
	o.Inputs = nil
	_, err = api.New(o)
	require.ErrorContains(t, err, "missing")
	o = f.options
	o.Actions.Quit = nil
	_, err = api.New(o)
	require.ErrorContains(t, err, "missing")
}
