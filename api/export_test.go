package api_test

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"image/png"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"varve/api"
	"varve/api/access"
	"varve/query"
)

// exportTarget is the export of a query over the last ten minutes.
func exportTarget(more ...string) string {
	v := url.Values{"query": {`up`}, "start": {strconv.FormatInt(now.Add(-10*time.Minute).Unix(), 10)}, "end": {now.Format(time.RFC3339)}, "step": {"15"}}
	for i := 0; i+1 < len(more); i += 2 {
		if i > 0 && more[i] == more[i-2] {
			v.Add(more[i], more[i+1])
		} else {
			v.Set(more[i], more[i+1])
		}
	}
	return "/api/v1/export/query?" + v.Encode()
}

// exportFixture has two series over ten minutes.
func exportFixture(t *testing.T, change func(*api.Options)) *fixture {
	f := newFixture(t, change)
	for i := range 41 {
		at := now.Add(-10 * time.Minute).Add(time.Duration(i) * 15 * time.Second)
		f.append(labels.FromStrings("__name__", "up", "job", `a,"b"`), sample{age: now.Sub(at), value: float64(i) / 3})
		if i > 20 {
			f.append(labels.FromStrings("__name__", "up", "job", "late\n"), sample{age: now.Sub(at), value: float64(i)})
		}
	}
	return f
}

// TestExportCSV shows that a CSV has exactly the values that query_range answers, in both forms.
func TestExportCSV(t *testing.T) {
	f := exportFixture(t, nil)
	_, answer := f.get(strings.Replace(exportTarget(), "export/query", "query_range", 1))
	var want struct {
		Data struct {
			Result []struct {
				Metric map[string]string
				Values [][2]any
			}
		}
	}
	require.NoError(t, json.Unmarshal([]byte(answer), &want))
	values := map[string]string{}
	for _, s := range want.Data.Result {
		for _, v := range s.Values {
			values[s.Metric["job"]+"|"+strconv.FormatInt(int64(v[0].(float64)), 10)] = v[1].(string)
		}
	}
	require.Len(t, values, 41+20)

	code, header, body := f.call(http.MethodGet, exportTarget("time", "unix"), "")
	require.Equal(t, http.StatusOK, code, body)
	require.Equal(t, "text/csv; charset=utf-8", header.Get("Content-Type"))
	require.Contains(t, header.Get("Content-Disposition"), `attachment; filename="varve-20270115T`)
	require.Equal(t, "raw", header.Get("X-Varve-Resolution"))
	records, err := csv.NewReader(strings.NewReader(body)).ReadAll()
	require.NoError(t, err)
	require.Equal(t, []string{"time", `up{job="a,\"b\""}`, `up{job="late\n"}`}, records[0])
	got := map[string]string{}
	for _, r := range records[1:] {
		for i, job := range []string{`a,"b"`, "late\n"} {
			if r[i+1] != "" {
				got[job+"|"+r[0]] = r[i+1]
			}
		}
	}
	require.Equal(t, values, got)

	code, body = f.postForm("/api/v1/export/query", url.Values{
		"query": {"up"}, "start": {strconv.FormatInt(now.Add(-10*time.Minute).Unix(), 10)}, "end": {now.Format(time.RFC3339)}, "step": {"15"}, "long": {"true"}, "header": {"false"}, "separator": {";"}, "time": {"unix"},
	})
	require.Equal(t, http.StatusOK, code, body)
	r := csv.NewReader(strings.NewReader(body))
	r.Comma = ';'
	records, err = r.ReadAll()
	require.NoError(t, err)
	got = map[string]string{}
	for _, r := range records {
		var metric map[string]string
		require.NoError(t, json.Unmarshal([]byte(r[1]), &metric))
		got[metric["job"]+"|"+r[0]] = r[2]
	}
	require.Equal(t, values, got)
}

// TestExportFormats shows that each format is what its type says, with several queries.
func TestExportFormats(t *testing.T) {
	f := exportFixture(t, nil)
	for format, want := range map[string]string{
		"csv": "text/csv; charset=utf-8", "jsonl": "application/x-ndjson", "gnuplot": "text/plain; charset=utf-8", "matplotlib": "text/x-python; charset=utf-8", "png": "image/png", "svg": "image/svg+xml",
	} {
		code, header, body := f.call(http.MethodGet, exportTarget("format", format, "title", "T", "unit", "s", "width", "640", "height", "400", "query", "up", "query", "sum(up)"), "")
		require.Equal(t, http.StatusOK, code, body)
		require.Equal(t, want, header.Get("Content-Type"))
		require.Equal(t, "nosniff", header.Get("X-Content-Type-Options"))
		switch format {
		case "png":
			img, err := png.Decode(strings.NewReader(body))
			require.NoError(t, err)
			require.Equal(t, 640, img.Bounds().Dx())
		case "svg":
			d := xml.NewDecoder(strings.NewReader(body))
			for {
				if _, err := d.Token(); err == io.EOF {
					break
				} else {
					require.NoError(t, err)
				}
			}
		case "jsonl":
			for line := range strings.Lines(body) {
				require.True(t, json.Valid([]byte(line)))
				require.Contains(t, line, `"query":`)
			}
		default:
			require.Contains(t, body, "sum(up)")
		}
	}
}

// TestExportLong shows that more points than query_range answers at once come in parts, as the same values, with the resolutions at the end.
func TestExportLong(t *testing.T) {
	f := exportFixture(t, nil)
	server := httptest.NewServer(f.handler)
	t.Cleanup(server.Close)
	target := exportTarget("step", "0.015", "format", "jsonl") // 40 001 points
	r, err := server.Client().Get(server.URL + target)
	require.NoError(t, err)
	body, err := io.ReadAll(r.Body)
	require.NoError(t, err)
	require.NoError(t, r.Body.Close())
	require.Equal(t, http.StatusOK, r.StatusCode, string(body))
	require.Equal(t, "raw", r.Trailer.Get("X-Varve-Resolution"))
	values := 0
	for line := range bytes.Lines(body) {
		var l struct {
			Values     []float64
			Timestamps []int64
		}
		require.NoError(t, json.Unmarshal(line, &l))
		values += len(l.Values)
	}
	require.Equal(t, 40_001+19_001, values, "the second series begins 285 s before the end")
	require.Empty(t, f.engine.Running())
}

// TestExportRefuses shows the status and the words of what can't be exported.
func TestExportRefuses(t *testing.T) {
	f := exportFixture(t, nil)
	for _, c := range []struct {
		more []string
		code int
		text string
	}{
		{[]string{"query", "up{"}, 400, "parse error"},
		{[]string{"query", ""}, 400, "no query"},
		{[]string{"query", "nonesuch"}, 404, "the result is empty"},
		{[]string{"query", "nonesuch", "format", "png"}, 404, "the result is empty"},
		{[]string{"query", `up * on() group_left() {__name__="up"}`}, 422, "many-to-many"},
		{[]string{"format", "xls"}, 400, "none of csv"},
		{[]string{"start", "yesterday"}, 400, "start"},
		{[]string{"end", "1"}, 400, "ends before"},
		{[]string{"step", "-1"}, 400, "step must be positive"},
		{[]string{"step", "x"}, 400, "step"},
		{[]string{"time", "x"}, 400, "rfc3339"},
		{[]string{"separator", "ab"}, 400, "separator"},
		{[]string{"separator", "1"}, 400, "separator"},
		{[]string{"width", "0"}, 400, "width"},
		{[]string{"width", "90000", "format", "svg"}, 400, "pixels"},
		{[]string{"width", "10000", "height", "10000", "format", "png"}, 400, "million pixels"},
		{[]string{"start", "0", "step", "0.001"}, 400, "points of time"},
		{[]string{"max_series", "501"}, 400, "max_series"},
		{[]string{"header", "perhaps"}, 400, "header"},
		{[]string{"resolution", "quick"}, 400, "resolution"},
		{[]string{"resolution", "1h"}, 422, "resolution"},
	} {
		code, body := f.get(exportTarget(c.more...))
		require.Equal(t, c.code, code, "%v: %s", c.more, body)
		require.Contains(t, body, c.text)
		require.Contains(t, body, `"status":"error"`)
	}
	code, header, _ := f.call(http.MethodPut, exportTarget(), "")
	require.Equal(t, http.StatusMethodNotAllowed, code)
	require.Equal(t, "GET, POST", header.Get("Allow"))
	err := fmt.Errorf("still reading")
	f.notReady.Store(&err)
	code, _ = f.get(exportTarget())
	require.Equal(t, http.StatusServiceUnavailable, code)

	f = newFixture(t, func(o *api.Options) { o.Storage = brokenStorage{errDisk} })
	code, body := f.get(exportTarget())
	require.Equal(t, http.StatusInternalServerError, code, body)
}

// TestExportRights shows that the export belongs to the group of queries.
func TestExportRights(t *testing.T) {
	policy, err := access.NewPolicy(access.PolicyOptions{
		Tokens: []access.Token{{Name: "q", Secret: "secret-q"}, {Name: "w", Secret: "secret-w"}},
		Rules:  []access.Rule{{Who: []string{"token:q"}, May: []access.Group{access.Query}}, {Who: []string{"token:w"}, May: []access.Group{access.Write, access.Metadata, access.Federate, access.Admin}}},
	})
	require.NoError(t, err)
	guard, err := access.NewGuard(policy, nil, nil)
	require.NoError(t, err)
	f := exportFixture(t, func(o *api.Options) { o.Guard = guard })
	for token, want := range map[string]int{"secret-q": http.StatusOK, "secret-w": http.StatusForbidden, "": http.StatusUnauthorized} {
		header := []string{}
		if token != "" {
			header = []string{"Authorization", "Bearer " + token}
		}
		code, _, body := f.call(http.MethodGet, exportTarget(), "", header...)
		require.Equal(t, want, code, body)
	}
}

// blocking is an engine whose queries wait until they are let go; after the first it fails.
type blocking struct {
	promql.QueryEngine
	begun, going chan struct{}
	queries      int
}

func (b *blocking) NewRangeQuery(ctx context.Context, s storage.Queryable, o promql.QueryOpts, text string, start, end time.Time, step time.Duration) (promql.Query, error) {
	if b.queries++; b.begun == nil && b.queries > 1 {
		return nil, fmt.Errorf("the second part fails")
	}
	if b.begun != nil {
		b.begun <- struct{}{}
		<-b.going
	}
	return b.QueryEngine.NewRangeQuery(ctx, s, o, text, start, end, step)
}

// TestExportBreaks shows that a file of which a part is missing is no whole answer: the connection breaks.
func TestExportBreaks(t *testing.T) {
	f := exportFixture(t, func(o *api.Options) { o.Engine = &blocking{QueryEngine: o.Engine} })
	server := httptest.NewServer(f.handler)
	t.Cleanup(server.Close)
	r, err := server.Client().Get(server.URL + exportTarget("step", "0.015", "format", "jsonl"))
	require.NoError(t, err)
	_, err = io.ReadAll(r.Body)
	require.Error(t, err)
	require.NoError(t, r.Body.Close())
}

// deadlines remembers the write deadlines that a handler sets.
type deadlines struct {
	*httptest.ResponseRecorder
	set []time.Time
}

// SetWriteDeadline is what http.ResponseController looks for.
func (d *deadlines) SetWriteDeadline(at time.Time) error {
	d.set = append(d.set, at)
	return nil
}

// TestExportDeadline shows that a client has a time for each piece, and that the deadline doesn't stay with the connection.
func TestExportDeadline(t *testing.T) {
	f := exportFixture(t, nil)
	d := &deadlines{ResponseRecorder: httptest.NewRecorder()}
	began := time.Now()
	f.handler.ServeHTTP(d, httptest.NewRequest(http.MethodGet, exportTarget("step", "0.1"), nil))
	require.Equal(t, http.StatusOK, d.Code)
	require.GreaterOrEqual(t, len(d.set), 2)
	for _, at := range d.set[:len(d.set)-1] {
		require.WithinRange(t, at, began.Add(time.Minute), time.Now().Add(time.Minute))
	}
	require.True(t, d.set[len(d.set)-1].IsZero())
}

// TestExportSlots shows that few exports are answered at once, and that more are told to come back.
func TestExportSlots(t *testing.T) {
	b := &blocking{begun: make(chan struct{}), going: make(chan struct{})}
	f := exportFixture(t, func(o *api.Options) { b.QueryEngine, o.Engine = o.Engine, b })
	done := make(chan int)
	for range 4 {
		go func() {
			w := httptest.NewRecorder()
			f.handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, exportTarget(), nil))
			done <- w.Code
		}()
		<-b.begun
	}
	code, header, _ := f.call(http.MethodGet, exportTarget(), "")
	require.Equal(t, http.StatusServiceUnavailable, code)
	require.Equal(t, "5", header.Get("Retry-After"))
	close(b.going)
	for range 4 {
		require.Equal(t, http.StatusOK, <-done)
	}
}

// TestExportResolution shows that an export names the resolution as queries do, and is told what was used.
func TestExportResolution(t *testing.T) {
	f := newFixture(t, func(o *api.Options) { o.Storage = rolledStorage{o.Storage} })
	hour := now.Truncate(time.Hour).Unix()
	target := "/api/v1/export/query?" + url.Values{"query": {"sum_over_time(up[1h])"}, "start": {strconv.FormatInt(hour, 10)}, "end": {strconv.FormatInt(hour, 10)}, "step": {"1h"}}.Encode()
	code, header, body := f.call(http.MethodGet, target+"&resolution=1h", "")
	require.Equal(t, http.StatusOK, code, body)
	require.Equal(t, "1h", header.Get("X-Varve-Resolution"))
	code, header, _ = f.call(http.MethodGet, target, "", "X-Varve-Resolution", "raw")
	require.Equal(t, http.StatusNotFound, code)
	require.Empty(t, header.Get("Trailer"))
	_, err := api.QuerySource(f.engine, f.store, "quick", nil)
	require.Error(t, err)
	require.NotEmpty(t, query.Auto.String())
}
