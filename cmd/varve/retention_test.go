package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestRetention has rules hide samples at once, refuse older ones, free nothing of much until it is forced, and be
// read again; offline, plan shows what seal then does.
func TestRetention(t *testing.T) {
	// Rules and tests count in days, so that none may end in between.
	require.Eventually(t, func() bool {
		now := time.Now().UTC()
		return now.Day() == now.Add(patience).Day()
	}, 2*patience, time.Second, "midnight has passed")
	dir := t.TempDir()
	file := filepath.Join(dir, "varve.yaml")
	rules := func(text string) {
		require.NoError(t, os.WriteFile(file, []byte("compactor: {seal_delay: 0s, max_drop_share: 0.2}\n"+text), 0o600))
	}
	rules("retention: []\n")
	p := start(t, filepath.Join(dir, "data"), "--web.enable-admin-api", "--web.enable-lifecycle", "--config.file="+file)
	today := time.Now().UTC().Truncate(24 * time.Hour)
	noon := func(ago int) time.Time { return today.Add(-time.Duration(ago)*24*time.Hour + 12*time.Hour) }
	for ago := 8; ago > 0; ago-- {
		require.Equal(t, 204, p.write("m", noon(ago), float64(ago)))
		require.Equal(t, 204, p.write("staging", noon(ago), float64(ago)))
	}
	require.Equal(t, 204, p.write("m", today.Add(time.Second), 0))
	run := func(query string) (out struct {
		Expired []struct {
			Level, Before string
			Samples       int
		}
		Trimmed []struct {
			Day             string
			Samples, Series int
		}
		Rolled []struct{}
	}) {
		code, body := p.call(http.MethodPost, "/api/v1/admin/compactor/run?wait=true"+query, nil)
		require.Equal(t, 200, code, body)
		answer := struct{ Data any }{&out}
		require.NoError(t, json.Unmarshal([]byte(body), &answer))
		return out
	}
	require.NotEmpty(t, run("").Rolled)
	require.Empty(t, run("").Expired)

	rules("retention: [{raw: 1d, 5m: 30d}]\n")
	code, body := p.call(http.MethodPost, "/-/reload", nil)
	require.Equal(t, 500, code)
	require.Contains(t, body, "varve.yaml:2: retention.0.raw: 1d is too short where buckets are kept for 30d")
	require.Equal(t, "8", p.value("m", noon(8)), "nothing has changed")

	rules("retention: [{match: staging, raw: 2d}, {raw: 3d, 5m: 6d}]\n")
	code, body = p.call(http.MethodPost, "/-/reload", nil)
	require.Equal(t, 200, code, body)
	require.Equal(t, "", p.value("staging", noon(4)))
	require.Equal(t, "3", p.value("m", noon(3)))
	require.Equal(t, 400, p.write("m", noon(4), 1), "older than it is kept")
	require.Equal(t, "6", p.value("count_over_time(m[10d])", today), "three days of samples, and buckets before")
	_, body = p.call(http.MethodGet, "/api/v1/status/runtimeinfo", nil)
	require.Contains(t, body, `"storageRetention":"staging: raw 2d; every series: raw 3d, 5m 6d"`)
	code, body = p.call(http.MethodGet, "/api/v1/status/retention", nil)
	require.Equal(t, 200, code, body)
	require.Contains(t, body, `"match":"staging"`)
	require.Contains(t, body, fmt.Sprintf(`"floors":[{"level":"raw","floor":%q}`, today.Add(-3*24*time.Hour).Format(time.DateOnly)))
	require.Contains(t, body, "more than compactor.max_drop_share allows")
	require.Empty(t, run("").Expired)
	code, body = p.call(http.MethodGet, "/api/v1/status/compactor", nil)
	require.Equal(t, 200, code, body)
	require.Contains(t, body, "force it")
	p.terminate()

	code, stdout, stderr := invoke(t, "plan", "--config.file="+file, filepath.Join(dir, "data"))
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "staging")
	require.Contains(t, stdout, "Nothing expires now: it would drop")
	code, stdout, stderr = invoke(t, "seal", "--config.file="+file, filepath.Join(dir, "data"))
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "What is past its age stays")
	code, stdout, stderr = invoke(t, "seal", "--force", "--config.file="+file, filepath.Join(dir, "data"))
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "raw before "+today.Add(-3*24*time.Hour).Format(time.DateOnly)+" expired: 5 days, 10 samples")
	require.Contains(t, stdout, today.Add(-3*24*time.Hour).Format(time.DateOnly)+": 1 series lost 1 samples")
	code, stdout, stderr = invoke(t, "plan", "--config.file="+file, filepath.Join(dir, "data"))
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "Nothing expires now.")
	code, stdout, stderr = invoke(t, "check", "data", filepath.Join(dir, "data"))
	require.Zero(t, code, stdout+stderr)
	require.Contains(t, stdout, "0 faults")

	p = start(t, filepath.Join(dir, "data"), "--config.file="+file)
	require.Equal(t, "6", p.value("count_over_time(m[10d])", today))
	require.Equal(t, "2", p.value("count_over_time(staging[10d])", today))
	_, body = p.call(http.MethodGet, "/api/v1/label/__name__/values?start="+noon(20).Format(time.RFC3339)+"&end="+noon(3).Format(time.RFC3339), nil)
	require.Contains(t, body, `"m"`)
	require.NotContains(t, body, "staging", "names without data are gone")
	_, metrics := p.call(http.MethodGet, "/metrics", nil)
	require.True(t, strings.Contains(metrics, "varve_archive_expired_samples_total"))
	p.terminate()
}
