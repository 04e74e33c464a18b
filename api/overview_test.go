package api_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"varve/api"
	"varve/api/access"
)

// hostile is a label value that is somebody else's program, somewhere.
const hostile = `"><script>alert(1)</script>` + "\x00\u2028"

// overview is what the archive tells, as plain values, and remembers what it was asked.
type overview struct {
	days        api.DaysRequest
	cardinality api.CardinalityRequest
	err         error
}

func (o *overview) HasData(context.Context) (bool, error) { return true, o.err }
func (o *overview) Resolutions() []time.Duration          { return []time.Duration{5 * time.Minute, time.Hour} }

func (o *overview) ArchiveStatus(context.Context) (api.ArchiveStatus, error) {
	return api.ArchiveStatus{Series: 7, Families: []api.FamilyBytes{{Name: "raw", Bytes: 1}}, Resolutions: []api.ResolutionBytes{{Resolution: "raw"}}}, o.err
}

func (o *overview) Days(_ context.Context, r api.DaysRequest) (api.DayList, error) {
	o.days = r
	return api.DayList{Days: []api.Day{{Day: "2026-11-20", State: "open", Rollups: []api.DayRollup{}}}, Left: 3}, o.err
}

func (o *overview) Cardinality(_ context.Context, r api.CardinalityRequest) (api.Cardinality, error) {
	o.cardinality = r
	return api.Cardinality{Label: r.Label, Series: 2, Days: r.Days, Values: &[]api.ValueCardinality{{Value: hostile, Series: 2}}}, o.err
}

// checker is a check as a plain value.
type checker struct {
	status *api.CheckStatus
	rate   int64
	err    error
}

func (c *checker) RunCheck(by string, rate int64) error {
	if c.err == nil {
		c.status, c.rate = &api.CheckStatus{Unit: "bytes", Faults: []string{hostile}, By: by}, rate
	}
	return c.err
}
func (c *checker) StopCheck() bool               { return c.status != nil }
func (c *checker) CheckStatus() *api.CheckStatus { return c.status }

// latestStorage is a Storage that knows newest samples, of which there are none.
type latestStorage struct{ api.Storage }

func (latestStorage) Latest(context.Context, [][]*labels.Matcher, func(labels.Labels, int64, float64, *histogram.FloatHistogram) error) error {
	return nil
}

// TestOverview answers what the page asks of the archive, passes parameters on, and tells what is wrong with them.
func TestOverview(t *testing.T) {
	t.Parallel()
	o, c := &overview{}, &checker{}
	f := newFixture(t, func(x *api.Options) { x.Overview, x.Checker, x.EnableAdmin = o, c, true })
	_, body := f.get("/api/v1/status/archive")
	archive := f.data(body).(map[string]any)
	require.EqualValues(t, 7, archive["series"])
	require.Nil(t, archive["integrity"].(map[string]any)["check"])

	code, body := f.get("/api/v1/status/days?start=2026-01-01&end=2026-11-20T12:00:00Z&limit=5")
	require.Equal(t, 200, code)
	require.Contains(t, body, "3 older days")
	require.Equal(t, api.DaysRequest{Start: time.UnixMilli(1767225600000), End: time.UnixMilli(1795176000000), Limit: 5}, o.days)

	_, body = f.get("/api/v1/status/cardinality?label=job&sort=series&limit=7&days=3&match[]=" + url.QueryEscape(`{a="b"}`) + "&match[]=up")
	require.Equal(t, "job", o.cardinality.Label)
	require.True(t, o.cardinality.BySeries)
	require.Equal(t, 7, o.cardinality.Limit)
	require.Equal(t, 3, o.cardinality.Days)
	require.Len(t, o.cardinality.Matchers, 2)
	require.NotContains(t, body, "<script>", "JSON escapes it")
	values := f.data(body).(map[string]any)["values"].([]any)
	require.Equal(t, hostile, values[0].(map[string]any)["value"])
	f.get("/api/v1/status/cardinality")
	require.Equal(t, api.CardinalityRequest{Limit: 100, Days: 30}, o.cardinality)
	code, _ = f.postForm("/api/v1/status/cardinality", url.Values{"label": {hostile}})
	require.Equal(t, 200, code)
	require.Equal(t, hostile, o.cardinality.Label)

	for target, want := range map[string]string{
		"days?limit=0": "positive", "days?limit=1000000": "exceed", "days?start=x": "start", "days?end=never": "end", "days?start=5&end=4": "before start",
		"cardinality?sort=name": "bytes or series", "cardinality?limit=-1": "positive", "cardinality?days=400": "exceed", "cardinality?days=x": "positive",
		"cardinality?match[]=" + url.QueryEscape(`{a=`): "match[]",
	} {
		code, body := f.get("/api/v1/status/" + target)
		require.Equal(t, 400, code, target)
		require.Contains(t, body, want, target)
		require.Contains(t, body, `"errorType":"bad_data"`)
	}
	for err, want := range map[error]int{
		errors.New("x"): 500, errDisk: 500, errTooMuch: 422, fmt.Errorf("slow: %w", context.DeadlineExceeded): 503,
	} {
		o.err = err
		for _, target := range []string{"archive", "days", "cardinality", "page"} {
			code, _ := f.get("/api/v1/status/" + target)
			require.Equal(t, want, code, "%s: %v", target, err)
		}
	}
}

// TestChecks begins and stops a check, tells of it, and refuses what is wrong.
func TestChecks(t *testing.T) {
	t.Parallel()
	c := &checker{}
	f := newFixture(t, func(x *api.Options) { x.Overview, x.Checker, x.EnableAdmin = &overview{}, c, true })
	post := func(path string) (int, string) {
		code, _, body := f.call("POST", "/api/v1/admin/check/"+path, "")
		return code, body
	}
	code, _ := post("stop")
	require.Equal(t, 404, code)
	for _, rate := range []string{"0", "x", "-5", "1.5", "99999999999999"} {
		code, body := post("run?rate=" + rate)
		require.Equal(t, 400, code, rate)
		require.Contains(t, body, "bytes a second")
	}
	code, body := post("run?rate=2097152")
	require.Equal(t, 200, code)
	require.NotContains(t, body, "<script>")
	require.EqualValues(t, 2097152, c.rate)
	_, body = f.get("/api/v1/status/archive")
	check := f.data(body).(map[string]any)["integrity"].(map[string]any)["check"].(map[string]any)
	require.Equal(t, []any{hostile}, check["faults"])
	require.Nil(t, check["finished"])
	code, _ = post("stop")
	require.Equal(t, 200, code)
	c.err = api.ErrChecking
	code, body = post("run")
	require.Equal(t, 409, code)
	require.Contains(t, body, "check/stop")
	c.err = errDisk
	code, _ = post("run")
	require.Equal(t, 500, code)
	code, _ = f.get("/api/v1/admin/check/run")
	require.Equal(t, 405, code)

	off := newFixture(t, func(x *api.Options) { x.Overview, x.Checker = &overview{}, &checker{} })
	for _, path := range []string{"run", "stop"} {
		code, _, body := off.call("POST", "/api/v1/admin/check/"+path, "")
		require.Equal(t, 403, code)
		require.Contains(t, body, "--web.enable-admin-api")
	}
}

// TestPage serves the page below a prefix, with the policy that it needs, to HEAD, with tags and compressed, and nothing that isn't of it.
func TestPage(t *testing.T) {
	t.Parallel()
	for prefix, external := range map[string]string{"": "", "/varve": "https://user:secret@metrics.example/varve/"} {
		f := newFixture(t, func(o *api.Options) {
			o.Overview, o.EnableLifecycle, o.Canary = &overview{}, true, func() bool { return true }
			if external != "" {
				var err error
				o.ExternalURL, err = url.Parse(external)
				require.NoError(t, err)
			}
		})
		code, header, body := f.call("GET", prefix+"/", "")
		require.Equal(t, 200, code)
		require.Contains(t, body, "<title>Varve</title>")
		require.Equal(t, access.ContentSecurityPolicy+"; img-src 'self' blob: data:", header.Get("Content-Security-Policy"))
		require.Equal(t, "nosniff", header.Get("X-Content-Type-Options"))
		require.Equal(t, "no-cache", header.Get("Cache-Control"))
		code, again, body := f.call("GET", prefix+"/", "", "If-None-Match", header.Get("ETag"))
		require.Equal(t, 304, code)
		require.Empty(t, body)
		require.Equal(t, header.Get("ETag"), again.Get("ETag"))
		code, head, body := f.call("HEAD", prefix+"/", "", "Accept-Encoding", "gzip")
		require.Equal(t, 200, code)
		require.Empty(t, body)
		require.NotEqual(t, header.Get("ETag"), head.Get("ETag"))
		code, _, _ = f.call("GET", prefix+"/favicon.ico", "")
		require.Equal(t, 200, code)
		for _, path := range []string{"/assets/", "/assets/x.js", "/index.html", "/SOURCES", "/assets/..%2f..%2fui.go"} {
			code, header, _ := f.call("GET", prefix+path, "")
			require.Equal(t, 404, code, path)
			require.NotContains(t, header.Get("Cache-Control"), "immutable", path)
		}
		code, _, _ = f.call("POST", prefix+"/", "")
		require.Equal(t, 405, code)

		_, header, body = f.call("GET", prefix+"/api/v1/status/page", "")
		require.Equal(t, access.ContentSecurityPolicy, header.Get("Content-Security-Policy"), "what isn't the page")
		require.NotContains(t, body, "secret")
		facts := f.data(body).(map[string]any)
		require.Equal(t, facts["externalURL"].(string)+"/api/v1/write", facts["writeURL"])
		require.True(t, strings.HasSuffix(facts["externalURL"].(string), prefix))
		require.Equal(t, []any{"5m", "1h"}, facts["resolutions"])
		require.Equal(t, true, facts["hasData"])
		require.Equal(t, true, facts["canary"])
		require.Equal(t, false, facts["admin"])
		require.Equal(t, true, facts["lifecycle"])
		require.EqualValues(t, now.UnixMilli(), facts["now"])
		require.EqualValues(t, 300, facts["lookbackSeconds"])
		require.EqualValues(t, 11000, facts["maxPoints"])
	}
}

// TestStatistics tells what a query took if that is asked for, beside what upstream tells, and counts nothing otherwise.
func TestStatistics(t *testing.T) {
	t.Parallel()
	asked := 0
	f := newFixture(t, func(o *api.Options) {
		o.ReadStatistics = func(ctx context.Context) (context.Context, func() api.ReadStatistics) {
			asked++
			return ctx, func() api.ReadStatistics {
				return api.ReadStatistics{Series: 1, Samples: 5, Chunks: 2, Bytes: 77, FindSeconds: 1, LoadSeconds: 2, DecodeSeconds: 3}
			}
		}
	})
	for i := range 3 {
		f.append(labels.FromStrings("__name__", "up", "job", fmt.Sprint(i)), sample{age: time.Minute, value: 1}, sample{age: 0, value: 1})
	}
	for _, target := range []string{"/api/v1/query?query=up&time=1800000000", "/api/v1/query_range?query=up&start=1799999900&end=1800000000&step=10"} {
		_, body := f.get(target)
		require.NotContains(t, f.data(body), "stats")
		for _, parameter := range []string{"1", "all"} {
			_, body = f.get(target + "&stats=" + parameter)
			stats := f.data(body).(map[string]any)["stats"].(map[string]any)
			require.Contains(t, stats, "timings")
			require.Positive(t, stats["samples"].(map[string]any)["totalQueryableSamples"])
			varve := stats["varve"].(map[string]any)
			require.EqualValues(t, 3, varve["series"])
			require.EqualValues(t, 5, varve["samples"])
			require.EqualValues(t, 2, varve["chunks"])
			require.EqualValues(t, 77, varve["bytes"])
			seconds := varve["seconds"].(map[string]any)
			require.EqualValues(t, 3, seconds["decode"])
			require.Positive(t, seconds["total"])
		}
	}
	require.Equal(t, 4, asked)
	code, _ := f.postForm("/api/v1/query", url.Values{"query": {"up"}, "stats": {"all"}})
	require.Equal(t, http.StatusOK, code)
	require.Equal(t, 5, asked)
}
