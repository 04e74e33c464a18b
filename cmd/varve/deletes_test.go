package main

import (
	"encoding/json"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestDeletes deletes over HTTP, looks after a restart, undoes, deletes again, and cleans.
func TestDeletes(t *testing.T) {
	dir := t.TempDir()
	p := start(t, dir, "--web.enable-admin-api")
	noon := time.Now().UTC().Truncate(24 * time.Hour).Add(-36 * time.Hour)
	require.Equal(t, 204, p.write("m", noon, 1))
	require.Equal(t, 204, p.write("kept", noon, 2))
	const base = "/api/v1/admin/tsdb/"
	remove := func() {
		t.Helper()
		code, body := p.call(http.MethodPost, base+"delete_series?reason=test&match[]="+url.QueryEscape(`{__name__="m"}`), nil)
		require.Equal(t, 204, code, body)
		require.Empty(t, body)
	}
	list := func() (all []struct {
		ID, State, Reason string
		FreedSamples      int
	}) {
		t.Helper()
		code, body := p.call(http.MethodGet, base+"deletes", nil)
		require.Equal(t, 200, code, body)
		answer := struct{ Data any }{&all}
		require.NoError(t, json.Unmarshal([]byte(body), &answer))
		return all
	}
	names := func() string {
		t.Helper()
		_, body := p.call(http.MethodGet, "/api/v1/label/__name__/values", nil)
		return body
	}
	remove()
	require.Equal(t, "", p.value("m", noon))
	require.Equal(t, "2", p.value("kept", noon))
	require.NotContains(t, names(), `"m"`)
	p.terminate()

	p = start(t, dir, "--web.enable-admin-api")
	require.Equal(t, "", p.value("m", noon))
	all := list()
	require.Len(t, all, 1)
	require.Equal(t, "active", all[0].State)
	require.Equal(t, "test", all[0].Reason)
	code, body := p.call(http.MethodPost, base+"undelete?id="+all[0].ID, nil)
	require.Equal(t, 200, code, body)
	require.Equal(t, "1", p.value("m", noon))
	code, body = p.call(http.MethodPost, base+"undelete?id="+all[0].ID, nil)
	require.Equal(t, 409, code, body)
	code, body = p.call(http.MethodPost, base+"undelete?id=01ARZ3NDEKTSV4RRFFQ69G5FAV", nil)
	require.Equal(t, 404, code, body)
	code, body = p.call(http.MethodPost, base+"clean_tombstones?id=nonsense", nil)
	require.Equal(t, 404, code, body)

	remove()
	all = list()
	require.Len(t, all, 2)
	code, body = p.call(http.MethodPost, base+"clean_tombstones", nil)
	require.Equal(t, 204, code, body)
	all = list()
	require.Equal(t, "cleaned", all[1].State)
	require.Equal(t, 1, all[1].FreedSamples)
	p.awaitLine("Deletes were cleaned.")
	require.Equal(t, "", p.value("m", noon))
	require.Equal(t, "2", p.value("kept", noon))
	require.NotContains(t, names(), `"m"`)
	code, body = p.call(http.MethodPost, base+"clean_tombstones?id="+all[1].ID, nil)
	require.Equal(t, 200, code, body)
	require.Contains(t, body, `"cleaned"`)
	require.Equal(t, 204, p.write("m", noon, 3))
	require.Equal(t, "3", p.value("m", noon))
	p.terminate()
	code, stdout, stderr := invoke(t, "check", "data", dir)
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "2 deletes: 0 faults")
}
