package snapshot_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"github.com/stretchr/testify/require"
	"github.com/thanos-io/objstore"

	"varve/bucket"
	"varve/snapshot"
)

// openBucket opens a bucket from its configuration.
func openBucket(t testing.TB, format string, args ...any) objstore.Bucket {
	t.Helper()
	b, err := bucket.Open(fmt.Appendf(nil, format, args...), "test", nil, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	return b
}

// wholeLife makes, damages nothing, verifies, restores and prunes in a bucket.
func wholeLife(t *testing.T, o snapshot.Options, src *source) {
	t.Helper()
	s := open(t, o)
	first, stats, err := s.Create(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, stats.Files, stats.SentFiles)
	was := tree(t, src.dir)
	src.shrink()
	src.grow()
	second, stats, err := s.Create(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, 2, stats.SentFiles)
	_, err = s.Verify(t.Context(), first.ID, snapshot.VerifyOptions{Contents: true}, nil)
	require.NoError(t, err)
	require.Equal(t, was, restored(t, s, first.ID))

	// A day later by our clock and not by the bucket's: files stay.
	o.Now = func() time.Time { return time.Now().Add(25 * time.Hour) }
	s = open(t, o)
	r, err := s.Prune(t.Context(), snapshot.Keep{Last: 1}, false)
	require.NoError(t, err)
	require.Len(t, r.Removed, 1)
	require.Zero(t, r.RemovedFiles)
	require.Equal(t, 2, r.YoungFiles)
	list, err := s.List(t.Context())
	require.NoError(t, err)
	require.Len(t, list, 1)
	require.Equal(t, second.ID, list[0].ID)
	require.Equal(t, tree(t, src.dir), restored(t, s, second.ID))
	_, err = s.Get(t.Context(), first.ID)
	require.ErrorIs(t, err, snapshot.ErrNotFound)
}

// All of it in a FILESYSTEM bucket.
func TestFilesystemBucket(t *testing.T) {
	src := newSource(t, 1)
	o := src.options(openBucket(t, "type: FILESYSTEM\nprefix: a/b\nconfig: {directory: %q}", t.TempDir()))
	o.Settle = -1
	wholeLife(t, o, src)
}

// All of it in S3, with files of several parts, where one answer of twenty is a 500, which the client is told not to try again
// itself, and one is cut.
func TestS3Bucket(t *testing.T) {
	backend := s3mem.New()
	require.NoError(t, backend.CreateBucket("bkt"))
	fake := gofakes3.New(backend, gofakes3.WithLogger(gofakes3.DiscardLog())).Server()
	var calls atomic.Int64
	// With TLS, since without it clients sign in between the bytes of parts, which the server doesn't know.
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch calls.Add(1) % 20 {
		case 5:
			w.WriteHeader(http.StatusInternalServerError)
		case 15:
			fake.ServeHTTP(&cutWriter{ResponseWriter: w, left: 1000}, r)
		default:
			fake.ServeHTTP(w, r)
		}
	}))
	defer server.Close()
	src := newSource(t, 1)
	src.write("db/000000.sst", 11<<20)
	o := src.options(openBucket(t, "type: S3\nprefix: p\nconfig: {bucket: bkt, endpoint: %q, access_key: a, secret_key: s3cr3t, region: us-east-1, part_size: 5242880, max_retries: 1, http_config: {insecure_skip_verify: true}}",
		strings.TrimPrefix(server.URL, "https://")))
	o.Settle = -1
	wholeLife(t, snapshot.NoSleep(o), src)
	require.Greater(t, calls.Load(), int64(100))
}

// cutWriter ends the connection after some bytes of a body.
type cutWriter struct {
	http.ResponseWriter
	left int
}

func (w *cutWriter) Write(p []byte) (int, error) {
	if w.left -= len(p); w.left < 0 {
		panic(http.ErrAbortHandler)
	}
	return w.ResponseWriter.Write(p)
}

// A restored snapshot of a FILESYSTEM bucket whose object was cut by hand is refused with the name of the file and of the object.
func TestCutObject(t *testing.T) {
	dir := t.TempDir()
	src := newSource(t, 1)
	s := open(t, src.options(openBucket(t, "type: FILESYSTEM\nconfig: {directory: %q}", dir)))
	m, _, err := s.Create(t.Context(), nil)
	require.NoError(t, err)
	f := m.Files[1]
	object := fmt.Sprintf("varve/files/%s/%s", f.SHA256.String()[:2], f.SHA256)
	writeFile(t, filepath.Join(dir, object), "cut")
	_, err = s.Restore(t.Context(), m.ID, filepath.Join(t.TempDir(), "x"), snapshot.RestoreOptions{}, nil)
	require.ErrorIs(t, err, snapshot.ErrDamaged)
	require.ErrorContains(t, err, f.Path)
	require.ErrorContains(t, err, object)
	// The next Create puts it right: whatever the newest manifest says, each object's size is looked at.
	next, stats, err := s.Create(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, 1, stats.SentFiles)
	require.Equal(t, tree(t, src.dir), restored(t, s, next.ID))
	require.Equal(t, tree(t, src.dir), restored(t, s, m.ID))
}
