package api_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"varve/api"
)

// deletes are deletes as plain values.
type deletes struct {
	asked  []api.DeleteRequest
	undone []string
	cleans [][]string
	id     string
	err    error
}

func (d *deletes) Delete(_ context.Context, r api.DeleteRequest) (string, error) {
	d.asked = append(d.asked, r)
	return d.id, d.err
}

func (d *deletes) Deletes() ([]api.Delete, error) {
	return []api.Delete{{ID: "01", State: "active", Match: []string{"up"}, Series: 2}}, d.err
}

func (d *deletes) Undelete(id string) (api.Delete, error) {
	d.undone = append(d.undone, id)
	return api.Delete{ID: id, State: "undone"}, d.err
}

func (d *deletes) Clean(_ context.Context, ids []string) ([]api.Delete, error) {
	d.cleans = append(d.cleans, ids)
	return []api.Delete{{ID: "01", State: "cleaned", FreedBytes: 7}}, d.err
}

// TestDeleteSeries shows that deleting takes what Prometheus takes and answers as it does, with the
// delete's id in a header.
func TestDeleteSeries(t *testing.T) {
	t.Parallel()
	d := &deletes{id: "01ABC"}
	f := newFixture(t, func(o *api.Options) { o.Deletes, o.EnableAdmin = d, true })
	const path = "/api/v1/admin/tsdb/delete_series"
	for _, method := range []string{http.MethodPost, http.MethodPut} {
		for query, want := range map[string]api.DeleteRequest{
			"match[]=up": {Selectors: []string{"up"}, MinMillis: math.MinInt64, MaxMillis: math.MaxInt64},
			"match[]=up&match[]=" + url.QueryEscape(`{job=~"a.*"}`) + "&start=1.5&end=2024-01-02T03:04:05.678Z&reason=test": {
				Selectors: []string{"up", `{job=~"a.*"}`}, MinMillis: 1500, MaxMillis: time.Date(2024, 1, 2, 3, 4, 5, 678e6, time.UTC).UnixMilli(), Reason: "test",
			},
			"match[]=up&start=-Inf&end=1e300":                    {Selectors: []string{"up"}, MinMillis: -1e15, MaxMillis: 1e15},
			"match[]=up&start=1700000000.123&end=1700000000.123": {Selectors: []string{"up"}, MinMillis: 1700000000123, MaxMillis: 1700000000123},
		} {
			d.asked = nil
			code, header, body := f.call(method, path+"?"+query, "")
			require.Equal(t, 204, code, body)
			require.Empty(t, body)
			require.Equal(t, "01ABC", header.Get("X-Varve-Delete"))
			require.Len(t, d.asked, 1)
			require.Len(t, d.asked[0].Matchers, len(want.Selectors))
			d.asked[0].Matchers = nil
			require.Equal(t, want, d.asked[0], query)
		}
	}
	d.asked = nil
	for query, want := range map[string]string{
		"":                         "no match[] parameter",
		"match[]=":                 "match[]",
		"match[]={job=~\".*\"}":    "match[]",
		"match[]=up&start=soon":    "cannot parse",
		"match[]=up&end=NaN":       "cannot parse",
		"match[]=up&start=2&end=1": "must not be before",
		"match[]=up&reason=" + strings.Repeat("x", 1<<10+1): "reason",
	} {
		code, _, body := f.call(http.MethodPost, path+"?"+strings.ReplaceAll(query, `{job=~".*"}`, url.QueryEscape(`{job=~".*"}`)), "")
		require.Equal(t, 400, code, query)
		require.Contains(t, body, want)
	}
	require.Empty(t, d.asked)
	code, body := f.get(path + "?match[]=up")
	require.Equal(t, 405, code, body)

	d.id = ""
	code, header, _ := f.call(http.MethodPost, path+"?match[]=none", "")
	require.Equal(t, 204, code)
	require.Empty(t, header.Get("X-Varve-Delete"), "nothing matched")
	for err, want := range map[error]int{errDisk: 500, errTooMuch: 422, errors.New("else"): 500} {
		d.err = err
		code, _, body = f.call(http.MethodPost, path+"?match[]=up", "")
		require.Equal(t, want, code)
		require.Contains(t, body, err.Error())
	}
}

// TestDeletes lists, undoes and cleans, with every kind of outcome.
func TestDeletes(t *testing.T) {
	t.Parallel()
	d := &deletes{}
	f := newFixture(t, func(o *api.Options) { o.Deletes, o.EnableAdmin = d, true })
	const base = "/api/v1/admin/tsdb/"
	code, body := f.get(base + "deletes")
	require.Equal(t, 200, code, body)
	require.Contains(t, body, `"id":"01","state":"active"`)
	require.Contains(t, body, `"freedSamples":0`)

	code, _, body = f.call(http.MethodPost, base+"undelete?id=01", "")
	require.Equal(t, 200, code, body)
	require.Contains(t, body, `"state":"undone"`)
	require.Equal(t, []string{"01"}, d.undone)
	code, _, body = f.call(http.MethodPost, base+"undelete", "")
	require.Equal(t, 400, code, body)

	code, _, body = f.call(http.MethodPost, base+"clean_tombstones", "")
	require.Equal(t, 204, code, body)
	require.Empty(t, body)
	code, _, body = f.call(http.MethodPut, base+"clean_tombstones?id=01&id=02", "")
	require.Equal(t, 200, code, body)
	require.Contains(t, body, `"freedBytes":7`)
	require.Equal(t, [][]string{nil, {"01", "02"}}, d.cleans)

	for err, want := range map[error]int{
		fmt.Errorf("%w: 01", api.ErrNoDelete): 404, fmt.Errorf("%w: it is cleaned", api.ErrDeleteEnded): 409, errDisk: 500, context.DeadlineExceeded: 503,
	} {
		d.err = err
		for _, path := range []string{"undelete?id=01", "clean_tombstones"} {
			code, header, body := f.call(http.MethodPost, base+path, "")
			require.Equal(t, want, code, path)
			require.Contains(t, body, err.Error())
			require.Equal(t, want == 503, header.Get("Retry-After") != "")
		}
	}
	code, body = f.get(base + "deletes")
	require.Equal(t, true, code >= 400, body)

	f = newFixture(t, func(o *api.Options) { o.Deletes = d })
	for _, path := range []string{"delete_series?match[]=up", "undelete?id=01", "clean_tombstones"} {
		code, _, body := f.call(http.MethodPost, base+path, "")
		require.Equal(t, 403, code)
		require.Contains(t, body, "--web.enable-admin-api")
	}
	code, _ = f.get(base + "deletes")
	require.Equal(t, 403, code)
}
