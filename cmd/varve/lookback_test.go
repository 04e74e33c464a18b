package main

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestPlaceForSnapshots shows that a server takes samples while the place for its snapshots can't be opened, and says so; and that a
// mistake in the file that names the place is told at the start.
func TestPlaceForSnapshots(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	conf, place := filepath.Join(dir, "varve.yml"), filepath.Join(dir, "bucket.yml")
	require.NoError(t, os.WriteFile(conf, []byte("snapshots: {objstore_config_file: bucket.yml}\n"), 0o600))
	require.NoError(t, os.WriteFile(place, []byte("type: FILESYSTEM\nconfig: {directory: "+filepath.Join(file, "below")+"}\n"), 0o600))
	p := start(t, filepath.Join(dir, "data"), "--config.file="+conf, "--web.enable-admin-api")
	require.Contains(t, p.awaitLine("The place for snapshots can't be opened"), file)
	require.Equal(t, http.StatusNoContent, p.write("m", time.Now(), 1))
	code, body := p.call("GET", "/api/v1/status/snapshots", nil)
	require.Equal(t, http.StatusOK, code)
	require.Contains(t, body, `"configured":true`)
	require.Contains(t, body, `"closed":"`)
	code, body = p.call("POST", "/api/v1/admin/snapshots?wait=true", nil)
	require.Equal(t, http.StatusServiceUnavailable, code, body)
	require.Contains(t, body, "can't be opened")
	p.terminate()

	require.NoError(t, os.WriteFile(place, []byte("type: FLOPPY\n"), 0o600))
	q := &process{t: t, cmd: command("serve", "--storage.path="+filepath.Join(dir, "data"), "--config.file="+conf, "--web.listen-address=127.0.0.1:0")}
	out, err := q.cmd.CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "FLOPPY")
}

// TestLookBack shows a server over a snapshot: it answers queries, takes nothing in, and finds its copy the next time
// without the storage.
func TestLookBack(t *testing.T) {
	t.Parallel()
	k := newSnapshotKit(t)
	data := filepath.Join(k.dir, "data")
	at := time.Now().Add(-time.Hour).Truncate(time.Second)
	p := start(t, data)
	require.Equal(t, http.StatusNoContent, p.write("m", at, 42))
	p.terminate()
	id := k.create(data)

	copies := filepath.Join(k.dir, "copies")
	for _, args := range [][]string{{"--objstore.config-file=" + k.bucket, "--quiet"}, nil} {
		p := start(t, filepath.Join(k.dir, "unused"), append([]string{"--snapshot=" + id, "--snapshot.dir=" + copies, "--web.enable-admin-api", "--web.enable-lifecycle"}, args...)...)
		require.Equal(t, "42", p.value("m", at))
		for _, path := range []string{"/api/v1/write", "/api/v1/admin/tsdb/delete_series", "/api/v1/admin/compactor/run", "/api/v1/admin/intake/day", "/write"} {
			code, _ := p.call("POST", path, nil)
			require.Equal(t, http.StatusNotFound, code, path)
		}
		code, _ := p.call("POST", "/-/reload", nil)
		require.Equal(t, http.StatusOK, code)
		code, _ = p.call("POST", "/api/v1/write", nil)
		require.Equal(t, http.StatusNotFound, code)
		p.terminate()
	}
	require.NoDirExists(t, filepath.Join(k.dir, "unused"))
}
