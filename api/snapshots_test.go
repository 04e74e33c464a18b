package api_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"varve/api"
)

// copies are snapshots as plain values: what was asked of them is written down.
type copies struct {
	asked []string
	err   error
}

func (c *copies) note(format string, args ...any) (any, error) {
	c.asked = append(c.asked, fmt.Sprintf(format, args...))
	return map[string]int{"n": len(c.asked)}, c.err
}

func (c *copies) SnapshotStatus() any { return map[string]string{"phase": "idle"} }

func (c *copies) ListSnapshots(context.Context) (any, error) { return c.note("list") }

func (c *copies) CreateSnapshot(_ context.Context, wait bool) (any, error) {
	return c.note("create %v", wait)
}

func (c *copies) VerifySnapshot(_ context.Context, id string, contents bool) (any, error) {
	return c.note("verify %s %v", id, contents)
}

func (c *copies) PruneSnapshots(_ context.Context, dry bool) (any, error) {
	return c.note("prune %v", dry)
}

func (c *copies) LocalSnapshot(context.Context) (string, error) {
	_, err := c.note("local")
	return "01JD0000000000000000000000", err
}

// TestSnapshots asks for everything that can be had of snapshots, with every kind of outcome.
func TestSnapshots(t *testing.T) {
	t.Parallel()
	c := &copies{}
	intake := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) })
	f := newFixture(t, func(o *api.Options) {
		o.Snapshots, o.EnableAdmin = c, true
		o.Intake = map[string]http.Handler{"/api/v1/admin/intake/day": intake}
	})
	code, body := f.get("/api/v1/status/snapshots")
	require.Equal(t, 200, code)
	require.JSONEq(t, `{"status":"success","data":{"phase":"idle"}}`, body)
	post := func(path string) int {
		code, _, _ := f.call("POST", "/api/v1/admin/"+path, "")
		return code
	}
	code, body = f.get("/api/v1/admin/snapshots")
	require.Equal(t, 200, code)
	require.JSONEq(t, `{"status":"success","data":{"n":1}}`, body)
	require.Equal(t, 200, post("snapshots"))
	require.Equal(t, 200, post("snapshots?wait=true"))
	require.Equal(t, 400, post("snapshots?wait=perhaps"))
	require.Equal(t, 200, post("snapshots/ID/verify?contents=true"))
	require.Equal(t, 200, post("snapshots/prune?dry_run=1"))
	require.Equal(t, []string{"list", "create false", "create true", "verify ID true", "prune true"}, c.asked)
	code, _, body = f.call("POST", "/api/v1/admin/tsdb/snapshot", "")
	require.Equal(t, 200, code)
	require.JSONEq(t, `{"status":"success","data":{"name":"01JD0000000000000000000000"}}`, body)
	require.Equal(t, 202, post("intake/day"))

	for err, wanted := range map[error]int{api.ErrNoSnapshot: 404, api.ErrNoSnapshots: 404, api.ErrSnapshotBusy: 409, api.ErrSnapshotRule: 400, api.ErrSnapshotDamaged: 500, errors.New("the network is down"): 503} {
		c.err = fmt.Errorf("%w: why", err)
		require.Equal(t, wanted, post("snapshots?wait=true"), "%v", err)
	}
	c.err = errors.New("the network is down")
	_, header, _ := f.call("POST", "/api/v1/admin/tsdb/snapshot", "")
	require.NotEmpty(t, header.Get("Retry-After"))
}

// TestSnapshotsNeedAdmin shows that without the flag nothing is made or taken in.
func TestSnapshotsNeedAdmin(t *testing.T) {
	t.Parallel()
	c := &copies{}
	f := newFixture(t, func(o *api.Options) {
		o.Snapshots = c
		o.Intake = map[string]http.Handler{"/api/v1/admin/intake/day": http.NotFoundHandler()}
	})
	for _, path := range []string{"snapshots", "snapshots/prune", "snapshots/X/verify", "tsdb/snapshot", "intake/day"} {
		code, _, body := f.call("POST", "/api/v1/admin/"+path, "")
		require.Equal(t, 403, code, path)
		require.Contains(t, body, "--web.enable-admin-api")
	}
	require.Empty(t, c.asked)
}
