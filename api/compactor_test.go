package api_test

import (
	"context"
	"errors"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"varve/api"
)

// jobs is a compactor as plain values.
type jobs struct {
	run    api.CompactorRun
	status api.CompactorStatus
	paused []bool
	err    error
	waits  []bool
	forces []bool
	kept   api.RetentionStatus
}

func (j *jobs) RetentionStatus(context.Context) (api.RetentionStatus, error) {
	return j.kept, j.err
}

func (j *jobs) Compact(_ context.Context, r api.CompactRequest) (api.CompactorRun, error) {
	j.waits, j.forces = append(j.waits, r.Wait), append(j.forces, r.Force)
	return j.run, j.err
}

func (j *jobs) Pause()  { j.paused = append(j.paused, true) }
func (j *jobs) Resume() { j.paused = append(j.paused, false) }

func (j *jobs) CompactorStatus() (api.CompactorStatus, error) { return j.status, j.err }

// TestCompactor asks for work and for what is under way, with every kind of outcome.
func TestCompactor(t *testing.T) {
	t.Parallel()
	j := &jobs{
		run:    api.CompactorRun{Done: true, Sealed: []api.SealedDay{{Day: "2026-01-02", Samples: 7}}},
		status: api.CompactorStatus{Running: "2026-01-03", Planned: []string{"2026-01-04"}},
	}
	starting := errors.New("starting")
	f := newFixture(t, func(o *api.Options) {
		o.Compactor, o.EnableAdmin = j, true
		o.StorageStatus = func(err error) int {
			if errors.Is(err, starting) {
				return http.StatusServiceUnavailable
			}
			return 0
		}
	})
	const path = "/api/v1/admin/compactor/run"
	for _, c := range []struct {
		query string
		wait  bool
	}{{"", false}, {"?wait=false", false}, {"?wait=true", true}, {"?wait=1", true}} {
		code, _, body := f.call(http.MethodPost, path+c.query, "")
		require.Equal(t, 200, code, body)
		require.Contains(t, body, `"day":"2026-01-02"`)
		require.Equal(t, c.wait, j.waits[len(j.waits)-1])
	}
	for query, force := range map[string]bool{"": false, "?force=true": true, "?wait=true&force=1": true, "?force=false": false} {
		code, _, body := f.call(http.MethodPost, path+query, "")
		require.Equal(t, 200, code, body)
		require.Equal(t, force, j.forces[len(j.forces)-1], query)
	}
	code, _, body := f.call(http.MethodPost, path+"?force=perhaps", "")
	require.Equal(t, 400, code)
	require.Contains(t, body, "force: ")
	j.kept = api.RetentionStatus{Today: "2026-01-05", Next: &api.RetentionPass{Bytes: 7, Waits: "too much"}}
	code, _, body = f.call(http.MethodGet, "/api/v1/status/retention", "")
	require.Equal(t, 200, code)
	require.Contains(t, body, `"today":"2026-01-05"`)
	require.Contains(t, body, `"waits":"too much"`)
	code, _, body = f.call(http.MethodPost, path+"?wait=soon", "")
	require.Equal(t, 400, code, body)
	code, body = f.get(path)
	require.Equal(t, 405, code, body)
	code, body = f.get("/api/v1/status/compactor")
	require.Equal(t, 200, code, body)
	require.Contains(t, body, `"running":"2026-01-03"`)

	for _, action := range []string{"pause", "resume"} {
		code, _, body = f.call(http.MethodPost, "/api/v1/admin/compactor/"+action, "")
		require.Equal(t, 200, code, body)
	}
	require.Equal(t, []bool{true, false}, j.paused)

	j.err = starting
	code, header, _ := f.call(http.MethodPost, path, "")
	require.Equal(t, 503, code)
	require.NotEmpty(t, header.Get("Retry-After"))
	code, _ = f.get("/api/v1/status/compactor")
	require.Equal(t, 503, code)
	j.err = errors.New("seal 2026-01-02: broken")
	code, _, body = f.call(http.MethodPost, path, "")
	require.Equal(t, 500, code)
	require.Contains(t, body, "seal 2026-01-02: broken")

	f = newFixture(t, func(o *api.Options) { o.Compactor = j })
	code, _, body = f.call(http.MethodPost, path, "")
	require.Equal(t, 403, code)
	require.Contains(t, body, "--web.enable-admin-api")
}
