package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/teststorage"
	v1 "github.com/prometheus/prometheus/web/api/v1"
	"github.com/stretchr/testify/require"

	"varve/api"
	"varve/api/access"
	"varve/internal/testkit"
	"varve/query"
)

// now is the time of every test.
var now = time.UnixMilli(1_800_000_000_000)

// catalogue is what the archive tells the API, as plain values.
type catalogue struct {
	metadata map[string][]metadata.Metadata
	status   api.StorageStatus
	err      error
}

func (c *catalogue) Metadata(_ context.Context, metric string, limit int) (map[string][]metadata.Metadata, error) {
	out := map[string][]metadata.Metadata{}
	for name, list := range c.metadata {
		if (metric == "" || metric == name) && (limit <= 0 || len(out) < limit) {
			out[name] = list
		}
	}
	return out, c.err
}

func (c *catalogue) Status(_ context.Context, limit int) (api.StorageStatus, error) {
	s := c.status
	s.BytesByMetricName = s.BytesByMetricName[:min(limit, len(s.BytesByMetricName))]
	return s, c.err
}

// fixture is an API over a real upstream database and the real engine.
type fixture struct {
	t         testing.TB
	store     *teststorage.TestStorage
	engine    *query.Engine
	catalogue *catalogue
	external  labels.Labels
	notReady  atomic.Pointer[error]
	reloadErr error
	reloads   atomic.Int32
	quits     atomic.Int32
	written   atomic.Int32
	options   api.Options
	handler   *api.API
}

// newFixture returns an API with its options changed by change, which may be nil.
func newFixture(t testing.TB, change func(*api.Options)) *fixture {
	t.Helper()
	f := &fixture{t: t, store: testkit.Upstream(t), catalogue: &catalogue{}}
	var err error
	f.engine, err = query.NewEngine(query.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.engine.Close()) })
	policy, err := access.NewPolicy(access.PolicyOptions{})
	require.NoError(t, err)
	guard, err := access.NewGuard(policy, nil, nil)
	require.NoError(t, err)
	f.options = api.Options{
		Guard: guard, Engine: f.engine, Storage: f.store, Catalogue: f.catalogue, Queries: f.engine,
		StorageStatus: func(err error) int {
			switch {
			case errors.Is(err, errDisk):
				return http.StatusInternalServerError
			case errors.Is(err, errTooMuch):
				return http.StatusUnprocessableEntity
			}
			return 0
		},
		Actions: api.Actions{
			Ready: func() error {
				if e := f.notReady.Load(); e != nil {
					return *e
				}
				return nil
			},
			Reload:         func() error { f.reloads.Add(1); return f.reloadErr },
			Quit:           func() { f.quits.Add(1) },
			ConfigYAML:     func() string { return "storage:\n  path: data\n" },
			ExternalLabels: func() labels.Labels { return f.external },
			RuntimeInfo:    func() (v1.RuntimeInfo, error) { return v1.RuntimeInfo{Hostname: "here"}, nil },
		},
		Inputs: inputs{
			"/api/v1/write": {Handler: http.HandlerFunc(f.write)}, "/write": {Handler: http.HandlerFunc(f.write), Influx: true},
			"/ping": {Public: true, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })},
		},
		Limits: api.DefaultLimits(), Parser: f.engine.Parser(), LookbackDelta: 5 * time.Minute,
		Registry: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler),
		Version: api.Version{Version: "0.1.0", Revision: "abc"}, Flags: map[string]string{"storage.path": "data"},
		ListenAddress: "127.0.0.1:9095", Now: func() time.Time { return now },
	}
	if change != nil {
		change(&f.options)
	}
	f.handler, err = api.New(f.options)
	require.NoError(t, err)
	return f
}

// write takes anything.
func (f *fixture) write(w http.ResponseWriter, r *http.Request) {
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	f.written.Add(1)
	w.WriteHeader(http.StatusNoContent)
}

// inputs are endpoints by their paths.
type inputs map[string]api.Endpoint

// Endpoint implements api.Inputs.
func (i inputs) Endpoint(path string) (api.Endpoint, bool) {
	e, ok := i[path]
	e.Path = path
	return e, ok
}

// InputsStatus implements api.Inputs.
func (i inputs) InputsStatus() (any, error) { return len(i), nil }

// append stores samples of one series, given as pairs of age and value.
func (f *fixture) append(series labels.Labels, samples ...sample) {
	f.t.Helper()
	app := f.store.Appender(f.t.Context())
	for _, s := range samples {
		at := now.Add(-s.age).UnixMilli()
		var err error
		if s.histogram != nil || s.float != nil {
			_, err = app.AppendHistogram(0, series, at, s.histogram, s.float)
		} else {
			_, err = app.Append(0, series, at, s.value)
		}
		require.NoError(f.t, err)
	}
	require.NoError(f.t, app.Commit())
}

func (f *fixture) appendExemplar(series labels.Labels, e exemplar.Exemplar) {
	f.t.Helper()
	app := f.store.Appender(f.t.Context())
	ref, err := app.Append(0, series, e.Ts, 1)
	require.NoError(f.t, err)
	_, err = app.AppendExemplar(ref, series, e)
	require.NoError(f.t, err)
	require.NoError(f.t, app.Commit())
}

type sample struct {
	age       time.Duration
	value     float64
	histogram *histogram.Histogram
	float     *histogram.FloatHistogram
}

// call sends one request and returns the status, the header and the body.
func (f *fixture) call(method, target, body string, header ...string) (int, http.Header, string) {
	f.t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	for pair := range slices.Chunk(header, 2) {
		r.Header.Set(pair[0], pair[1])
	}
	w := httptest.NewRecorder()
	f.handler.ServeHTTP(w, r)
	b, err := io.ReadAll(w.Result().Body)
	require.NoError(f.t, err)
	return w.Code, w.Result().Header, string(b)
}

func (f *fixture) get(target string, header ...string) (int, string) {
	f.t.Helper()
	code, _, body := f.call(http.MethodGet, target, "", header...)
	return code, body
}

func (f *fixture) postForm(target string, form url.Values) (int, string) {
	f.t.Helper()
	code, _, body := f.call(http.MethodPost, target, form.Encode(), "Content-Type", "application/x-www-form-urlencoded")
	return code, body
}

// data returns the data of a successful answer in Prometheus' envelope.
func (f *fixture) data(body string) any {
	f.t.Helper()
	var envelope struct {
		Status string
		Data   any
	}
	require.NoError(f.t, json.Unmarshal([]byte(body), &envelope), body)
	require.Equal(f.t, "success", envelope.Status, body)
	return envelope.Data
}

// brokenStorage fails every read with err.
type brokenStorage struct{ err error }

func (b brokenStorage) Querier(int64, int64) (storage.Querier, error)           { return nil, b.err }
func (b brokenStorage) ChunkQuerier(int64, int64) (storage.ChunkQuerier, error) { return nil, b.err }
func (b brokenStorage) ExemplarQuerier(context.Context) (storage.ExemplarQuerier, error) {
	return nil, b.err
}

var (
	errDisk    = errors.New("disk on fire")
	errTooMuch = errors.New("too many bytes")
)

// writer is an input at the usual path of remote write.
func writer(h http.HandlerFunc) inputs { return inputs{"/api/v1/write": {Handler: h}} }
