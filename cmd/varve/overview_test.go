package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"varve/api"
	"varve/archive"
	"varve/compactor"
)

// data reads the data of an answer of the API into out.
func (p *process) data(path string, out any) {
	p.t.Helper()
	code, body := p.call("GET", "/api/v1/"+path, nil)
	require.Equal(p.t, 200, code, body)
	var envelope struct{ Data json.RawMessage }
	require.NoError(p.t, json.Unmarshal([]byte(body), &envelope))
	require.NoError(p.t, json.Unmarshal(envelope.Data, out), body)
}

// TestOverview drives a real server as the page does: from a first start without data, over samples of days that are sealed and rolled up, with a
// label value that is markup and lines that are refused, to a check of all that.
func TestOverview(t *testing.T) {
	dir := t.TempDir()
	left := filepath.Join(dir, checkingDir)
	require.NoError(t, os.MkdirAll(left+".partial", 0o700))
	require.NoError(t, os.MkdirAll(filepath.Join(left, "db"), 0o700))
	p := start(t, dir, "--web.enable-admin-api")
	require.NoDirExists(t, left, "what a check left that was killed")
	require.NoDirExists(t, left+".partial")

	var facts struct {
		HasData, Admin bool
		WriteURL       string
		Resolutions    []string
	}
	p.data("status/page", &facts)
	require.False(t, facts.HasData, "but for what the server scrapes of itself")
	require.True(t, facts.Admin)
	require.Equal(t, []string{"5m", "1h"}, facts.Resolutions)

	const hostile = `<img src=x onerror=alert(1)>`
	day := time.Now().UTC().Add(-72 * time.Hour).Truncate(24 * time.Hour)
	var lines strings.Builder
	for n := range 500 {
		for _, path := range []string{hostile, "/a", "/b"} {
			fmt.Fprintf(&lines, "requests_total{job=\"web\",path=%q} %d %d\n", path, n, day.Add(time.Duration(n)*15*time.Second).UnixMilli())
		}
	}
	code, body := p.call("POST", "/api/v1/import/prometheus", []byte(lines.String()))
	require.Equal(t, 204, code, body)
	code, _ = p.call("POST", "/api/v1/import/prometheus", []byte("up{a=\""+hostile+"\"\nbroken line here\n"))
	require.Equal(t, 400, code)
	p.data("status/page", &facts)
	require.True(t, facts.HasData)

	var inputs []struct {
		Name     string
		Refusals []struct {
			Reason, Example string
			Count           int
		}
	}
	p.data("status/inputs", &inputs)
	refused := 0
	for _, in := range inputs {
		require.NotNil(t, in.Refusals, in.Name)
		for _, r := range in.Refusals {
			require.Equal(t, "import", in.Name)
			require.NotEmpty(t, r.Example)
			refused += r.Count
		}
	}
	require.Positive(t, refused)

	// A start brings what the journal has to disk, so that the day can be sealed.
	p.terminate()
	p = start(t, dir, "--web.enable-admin-api")
	var days []api.Day
	require.Eventually(t, func() bool {
		code, body := p.call("POST", "/api/v1/admin/compactor/run?wait=true", nil)
		require.Equal(t, 200, code, body)
		p.data("status/days?end="+day.Format(time.DateOnly), &days)
		return len(days) > 0 && days[0].State == "sealed" && days[0].Rollups[0].State == "rolled"
	}, patience, 200*time.Millisecond)
	require.Equal(t, day.Format(time.DateOnly), days[0].Day)
	require.EqualValues(t, 1500, days[0].Samples)
	require.Positive(t, days[0].BytesPerSample)
	require.NotNil(t, days[0].Sealed)
	require.Equal(t, "5m", days[0].Rollups[0].Resolution)
	require.Positive(t, days[0].Rollups[0].Buckets)

	var c api.Cardinality
	p.data("status/cardinality?label=path&match[]="+url.QueryEscape(`{job="web"}`), &c)
	require.EqualValues(t, 3, c.Series)
	require.Len(t, *c.Values, 3)
	found := false
	for _, v := range *c.Values {
		found = found || v.Value == hostile
	}
	require.True(t, found)
	var all api.Cardinality
	p.data("status/cardinality", &all)
	require.GreaterOrEqual(t, all.Series, c.Series)
	require.NotEmpty(t, *all.Labels)

	var query struct {
		Stats struct {
			Varve struct {
				Series, Samples, Chunks, Bytes int
				Seconds                        map[string]float64
			}
		}
	}
	p.data(fmt.Sprintf("query?stats=1&query=requests_total&time=%d", day.Add(500*15*time.Second).Unix()), &query)
	require.Equal(t, 3, query.Stats.Varve.Series)
	require.Positive(t, query.Stats.Varve.Samples)
	require.Positive(t, query.Stats.Varve.Bytes)
	require.Positive(t, query.Stats.Varve.Seconds["total"])

	code, body = p.call("POST", "/api/v1/admin/check/run", nil)
	require.Equal(t, 200, code, body)
	var status api.ArchiveStatus
	require.Eventually(t, func() bool {
		p.data("status/archive", &status)
		return status.Integrity.Check.Finished != nil
	}, patience, 20*time.Millisecond)
	require.Empty(t, status.Integrity.Check.Error)
	require.Empty(t, status.Integrity.Check.Faults)
	require.Zero(t, status.Integrity.FaultsSinceStart)
	require.NotEmpty(t, status.Families)
	require.EqualValues(t, 1500, status.Samples)
	require.Equal(t, "raw", status.Resolutions[0].Resolution)
	require.Equal(t, 1, status.Resolutions[0].Days)
	require.Equal(t, day, *status.Resolutions[0].Oldest)
	require.Positive(t, status.Resolutions[1].Samples)
	require.NoDirExists(t, left)
	code, _ = p.call("POST", "/api/v1/admin/check/stop", nil)
	require.Equal(t, 404, code)
	_, body = p.call("GET", "/metrics", nil)
	require.Contains(t, body, "varve_check_faults_total 0")
	require.Contains(t, body, "varve_check_running 0")
	code, body = p.call("GET", "/", nil)
	require.Equal(t, 200, code)
	require.Contains(t, body, "<title>Varve</title>")
	p.terminate()
}

// TestFaults counts damage that is met, each once, and nothing else.
func TestFaults(t *testing.T) {
	t.Parallel()
	// What is the same within a second is on a clock that stands.
	synctest.Test(t, func(t *testing.T) {
		var f faultLog
		require.Nil(t, f.integrity().LastFault)
		f.note(nil)
		f.note(errors.New("a query that was wrong"))
		require.Zero(t, f.total())
		require.Equal(t, 500, f.status(fmt.Errorf("family raw: %w", archive.ErrCorrupt)))
		require.Equal(t, 500, f.status(fmt.Errorf("family raw: %w", archive.ErrCorrupt)), "the same on its way up")
		require.EqualValues(t, 1, f.total())
		told := false
		f.jobs(func(compactor.Outcome) { told = true })(compactor.Outcome{Err: fmt.Errorf("family hot: %w", archive.ErrCorrupt)})
		require.True(t, told)
		i := f.integrity()
		require.EqualValues(t, 2, i.FaultsSinceStart)
		require.Contains(t, i.LastFault.Text, "family hot")
		f.add(strings.Repeat("é", faultTextMax), time.Now())
		require.LessOrEqual(t, len(f.integrity().LastFault.Text), faultTextMax+3)
	})
}

// TestDayStates names what a day and its rollups are at.
func TestDayStates(t *testing.T) {
	t.Parallel()
	sealed := archive.DayStatus{Day: 5, Sealed: time.Now()}
	late, sealing, waiting := sealed, archive.DayStatus{Day: 5, Folding: true, Runs: true}, archive.DayStatus{Day: 5, Runs: true}
	late.Runs = true
	for want, d := range map[string]archive.DayOverview{
		"sealed": {DayStatus: sealed}, "late": {DayStatus: late}, "sealing": {DayStatus: sealing}, "waiting": {DayStatus: waiting},
		"open": {DayStatus: archive.DayStatus{Day: 9, Runs: true}}, "expired": {DayStatus: archive.DayStatus{Day: 5}, Expired: true},
	} {
		require.Equal(t, want, dayState(&d, 9))
	}
	for want, r := range map[string]archive.RolledStatus{
		"waiting": {}, "rolling": {Begun: true, Rolling: true, Dirty: true}, "dirty": {Begun: true, Dirty: true}, "rolled": {Begun: true},
	} {
		require.Equal(t, want, rollState(&r))
	}
}
