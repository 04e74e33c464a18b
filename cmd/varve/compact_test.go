package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestSealing has the day before yesterday sealed on request, then yesterday by the verb, and
// a late sample join the former; what was written is answered all the time.
func TestSealing(t *testing.T) {
	dir := t.TempDir()
	p := start(t, dir, "--web.enable-admin-api")
	noon := time.Now().UTC().Truncate(24 * time.Hour).Add(-36 * time.Hour)
	earlier := noon.Add(-24 * time.Hour)
	require.Equal(t, 204, p.write("m", earlier, 1))

	code, body := p.call(http.MethodPost, "/api/v1/admin/compactor/run?wait=perhaps", nil)
	require.Equal(t, 400, code, body)
	code, body = p.call(http.MethodPost, "/api/v1/admin/compactor/run?wait=true", nil)
	require.Equal(t, 200, code, body)
	var run struct {
		Data struct {
			Done   bool
			Sealed []struct {
				Day     string
				Samples int
			}
		}
	}
	require.NoError(t, json.Unmarshal([]byte(body), &run))
	require.True(t, run.Data.Done)
	require.Len(t, run.Data.Sealed, 1, body)
	require.Equal(t, earlier.Format(time.DateOnly), run.Data.Sealed[0].Day)
	require.Equal(t, 1, run.Data.Sealed[0].Samples)
	p.awaitLine("A day was sealed.")
	require.Equal(t, "1", p.value("m", earlier))

	require.Equal(t, 204, p.write("m", earlier.Add(time.Hour), 2))
	require.Equal(t, 204, p.write("m", noon, 3))
	code, body = p.call(http.MethodGet, "/api/v1/status/compactor", nil)
	require.Equal(t, 200, code, body)
	require.Contains(t, body, fmt.Sprintf(`"day":%q`, earlier.Format(time.DateOnly)))
	require.Contains(t, body, `"sealedSamples":1`)
	_, metrics := p.call(http.MethodGet, "/metrics", nil)
	require.Contains(t, metrics, "varve_archive_sealed_days_total 1\n")
	require.Contains(t, metrics, "varve_compactor_failed 0\n")
	p.terminate()

	code, stdout, stderr := invoke(t, "seal", dir)
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, earlier.Format(time.DateOnly)+": 1 series, 2 samples")
	require.Contains(t, stdout, noon.Format(time.DateOnly)+": 1 series, 1 samples")
	_, stdout, _ = invoke(t, "seal", dir)
	require.Contains(t, stdout, "Nothing is due.")
	code, stdout, stderr = invoke(t, "check", "data", dir)
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "0 faults")

	p = start(t, dir)
	require.Equal(t, "1", p.value("m", earlier))
	require.Equal(t, "2", p.value("m", earlier.Add(time.Hour)))
	require.Equal(t, "3", p.value("m", noon))
	code, _ = p.call(http.MethodPost, "/api/v1/admin/compactor/run", nil)
	require.NotEqual(t, 200, code, "the admin API is off")
	p.terminate()
}

// TestOverwritesAreRefused has a server answer 400 for another value at the same time, and
// take the same value again.
func TestOverwritesAreRefused(t *testing.T) {
	file := writeFile(t, "varve.yml", "ingest:\n  overwrites: reject\n")
	p := start(t, t.TempDir(), "--config.file="+file)
	at := time.Now().Add(-time.Hour).Truncate(time.Second)
	require.Equal(t, 204, p.write("m", at, 1))
	require.Equal(t, 204, p.write("m", at, 1))
	require.Equal(t, 400, p.write("m", at, 2))
	require.Equal(t, "1", p.value("m", at))
	_, metrics := p.call(http.MethodGet, "/metrics", nil)
	require.Contains(t, metrics, `varve_archive_rejected_total{reason="overwrite"} 1`)
	p.terminate()
}
