package bucket_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/thanos-io/objstore"
	"go.uber.org/goleak"

	"varve/bucket"
	"varve/internal/testkit/leaks"
)

func TestMain(m *testing.M) {
	// Started by an import of the client of GCS, for as long as the process lives.
	ignored := goleak.IgnoreTopFunction("go.opencensus.io/stats/view.(*worker).start")
	goleak.VerifyTestMain(leaks.Patient(m, ignored), ignored)
}

func open(t testing.TB, format string, args ...any) objstore.Bucket {
	t.Helper()
	b, err := bucket.Open(fmt.Appendf(nil, format, args...), "test", nil, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	return b
}

func put(t testing.TB, b objstore.Bucket, name, content string) {
	t.Helper()
	require.NoError(t, b.Upload(t.Context(), name, strings.NewReader(content)))
}

func get(t testing.TB, b objstore.Bucket, name string) string {
	t.Helper()
	r, err := b.Get(t.Context(), name)
	require.NoError(t, err)
	content, err := io.ReadAll(r)
	require.NoError(t, errors.Join(err, r.Close()))
	return string(content)
}

func list(t testing.TB, b objstore.Bucket, dir string, o ...objstore.IterOption) []string {
	t.Helper()
	var names []string
	require.NoError(t, b.Iter(t.Context(), dir, func(name string) error {
		names = append(names, name)
		return nil
	}, o...))
	return names
}

// What is wrong with a configuration is said with the key it is about, and never with a value; it is the operator's to mend.
func TestConfigurationErrors(t *testing.T) {
	for config, want := range map[string]string{
		"":                              `type: "" is none of`,
		"type: SWIFT\nconfig: {}":       `type: "SWIFT" is none of FILESYSTEM, S3, GCS, AZURE`,
		"type: S3":                      "config.bucket: is missing",
		"type: s3\nconfig: {bucket: b}": "config.endpoint: is missing",
		"type: S3\nconfig: {bucket: b, endpoint: e, acess_key: canary}":                                    `config.acess_key: key "acess_key" is not known`,
		"type: S3\nconfig: {bucket: b, endpoint: e, insecure: canary}":                                     "config.insecure: cannot unmarshal !!str a value into bool",
		"type: S3\nconfig: {bucket: b, endpoint: e, http_config: {idle: canary}}":                          `config.http_config: key "idle" is not known`,
		"type: S3\nconfig: {bucket: b, endpoint: e, secret_key: canary}":                                   "no s3 access_key",
		"type: S3\nconfig: {bucket: b, endpoint: e, bucket_lookup_type: canary}":                           "config.bucket_lookup_type",
		"type: S3\nconfig: {bucket: b, endpoint: 'http://u:canary@h/', access_key: a, secret_key: canary}": "",
		"type: GCS\nconfig: {}":                                                                      "config.bucket: is missing",
		"type: GCS\nconfig: {bucket: b, service_account: canary}":                                    "open the GCS bucket",
		"type: AZURE\nconfig: {storage_account: a}":                                                  "config.container: is missing",
		"type: AZURE\nconfig: {storage_account: a, container: c, storage_connection_string: canary}": "open the AZURE bucket",
		"type: FILESYSTEM\nconfig: {dir: canary}":                                                    `config.dir: key "dir" is not known`,
		"type: FILESYSTEM\nconfig: {directory: ''}":                                                  "config.directory: is missing",
		"type: FILESYSTEM\nprefix: a/../b\nconfig: {directory: x}":                                   "prefix",
		"type: FILESYSTEM\nprefixes: a\nconfig: {directory: x}":                                      `key "prefixes" is not known`,
		"type: [\n": "yaml",
		"canary":    "cannot unmarshal",
	} {
		_, err := bucket.Open([]byte(config), "test", nil, nil)
		require.ErrorIs(t, err, bucket.ErrConfig, config)
		require.ErrorContains(t, err, want, config)
		require.NotContains(t, err.Error(), "canary", config)
	}
}

// An object in a FILESYSTEM bucket can be seen when it is whole and not before; an upload that ends in an error leaves what was
// there.
func TestFilesAreWhole(t *testing.T) {
	dir := t.TempDir()
	b := open(t, "type: FILESYSTEM\nprefix: a/b/\nconfig: {directory: %q}", dir)
	put(t, b, "x/y", "first")
	r, w := io.Pipe()
	var wait sync.WaitGroup
	wait.Go(func() {
		err := b.Upload(t.Context(), "x/y", r)
		assert.ErrorContains(t, err, "cut")
	})
	_, err := w.Write([]byte("sec"))
	require.NoError(t, err)
	require.Equal(t, "first", get(t, b, "x/y"))
	require.Equal(t, []string{"x/y"}, list(t, b, "", objstore.WithRecursiveIter()))
	require.NoError(t, w.CloseWithError(errors.New("cut")))
	wait.Wait()
	require.Equal(t, "first", get(t, b, "x/y"))
	put(t, b, "x/y", "second")
	require.Equal(t, "second", get(t, b, "x/y"))

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, b.Upload(ctx, "x/z", strings.NewReader("z")), context.Canceled)
	ok, err := b.Exists(t.Context(), "x/z")
	require.NoError(t, err)
	require.False(t, ok)

	// Nothing is left, and modes let nobody else read.
	require.NoError(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		require.NoError(t, err)
		info, err := e.Info()
		require.NoError(t, err)
		if path != dir {
			require.Zero(t, info.Mode().Perm()&0o077, path)
		}
		if !e.IsDir() {
			require.Equal(t, filepath.Join(dir, "a/b/x/y"), path)
		}
		return nil
	}))
	require.NoError(t, b.Delete(t.Context(), "x/y"))
	require.NoError(t, b.Delete(t.Context(), "x/y"), "one that isn't there")
	_, err = b.Get(t.Context(), "x/y")
	require.True(t, b.IsObjNotFoundErr(err))
	require.Empty(t, list(t, b, "", objstore.WithRecursiveIter()))
}

// What a killed upload left is removed when the bucket is opened a day later, and not before.
func TestUnfinishedFilesAreSwept(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, ".unfinished"), 0o700))
	old, young := filepath.Join(dir, ".unfinished/old"), filepath.Join(dir, ".unfinished/young")
	for _, path := range []string{old, young} {
		require.NoError(t, os.WriteFile(path, nil, 0o600))
	}
	require.NoError(t, os.Chtimes(old, time.Time{}, time.Now().Add(-25*time.Hour)))
	open(t, "type: FILESYSTEM\nconfig: {directory: %q}", dir)
	require.NoFileExists(t, old)
	require.FileExists(t, young)
}

// Names that would leave the folder are refused.
func TestFileNames(t *testing.T) {
	dir := t.TempDir()
	b := open(t, "type: FILESYSTEM\nconfig: {directory: %q}", filepath.Join(dir, "b"))
	for _, name := range []string{"../x", "/etc/x", "a/../../x", "", ".", ".unfinished/x"} {
		require.Error(t, b.Upload(t.Context(), name, strings.NewReader("x")), name)
		require.Error(t, b.Delete(t.Context(), name), name)
		_, err := b.Get(t.Context(), name)
		require.Error(t, err, name)
	}
	require.NoFileExists(t, filepath.Join(dir, "x"))
}

// Uploads into a folder whose objects are removed at the same time succeed.
func TestFilesSideBySide(t *testing.T) {
	b := open(t, "type: FILESYSTEM\nconfig: {directory: %q}", t.TempDir())
	var wait sync.WaitGroup
	for i := range 4 {
		wait.Go(func() {
			for j := range 50 {
				name := fmt.Sprintf("d/%d/%d", j, i)
				assert.NoError(t, b.Upload(t.Context(), name, strings.NewReader(name)))
				assert.NoError(t, b.Delete(t.Context(), name))
			}
		})
	}
	wait.Wait()
}

// objstore's own acceptance test holds for a FILESYSTEM bucket.
func TestAcceptanceFiles(t *testing.T) {
	b := open(t, "type: FILESYSTEM\nconfig: {directory: %q}", t.TempDir())
	objstore.AcceptanceTest(t, b)
}

// serveS3 is an S3 in memory. With TLS, since without it clients sign in between the bytes of parts, which it doesn't know.
func serveS3(t testing.TB) (address string) {
	t.Helper()
	backend := s3mem.New()
	require.NoError(t, backend.CreateBucket("bkt"))
	server := httptest.NewTLSServer(gofakes3.New(backend, gofakes3.WithLogger(gofakes3.DiscardLog())).Server())
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "https://")
}

// S3 works through the same form, with parts when an object is larger than one, under its prefix.
func TestS3(t *testing.T) {
	address := serveS3(t)
	config := fmt.Sprintf("type: S3\nprefix: p\nconfig: {bucket: bkt, endpoint: %q, access_key: a, secret_key: s3cr3t, http_config: {insecure_skip_verify: true}, region: us-east-1, part_size: 5242880}", address)
	registry := prometheus.NewRegistry()
	b, err := bucket.Open([]byte(config), "test", nil, registry)
	require.NoError(t, err)
	large := strings.Repeat("0123456789abcdef", 12<<20/16) + "end"
	put(t, b, "x/large", large)
	require.Equal(t, large, get(t, b, "x/large"))
	a, err := b.Attributes(t.Context(), "x/large")
	require.NoError(t, err)
	require.Equal(t, int64(len(large)), a.Size)
	require.Equal(t, []string{"x/large"}, list(t, b, "x/"))
	_, err = b.Attributes(t.Context(), "x/none")
	require.True(t, b.IsObjNotFoundErr(err), err)
	families, err := registry.Gather()
	require.NoError(t, err)
	require.NotEmpty(t, families)
	require.True(t, strings.HasPrefix(families[0].GetName(), "varve_objstore_"), families[0].GetName())

	// The same metrics twice are an error and no panic; they are free again after Close.
	_, err = bucket.Open([]byte(config), "test", nil, registry)
	require.Error(t, err)
	require.NoError(t, b.Close())
	b, err = bucket.Open([]byte(config), "test", nil, registry)
	require.NoError(t, err)
	require.NoError(t, b.Close())
}

// Errors and log lines of a store that answers nonsense hold no secret, and a not-found through them is still one.
func TestSecretsAreHidden(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/xml")
		if strings.Contains(r.URL.Path, "none") {
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, "<Error><Code>NoSuchKey</Code><Message>canarycanary</Message></Error>")
			return
		}
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, "<Error><Code>AccessDenied</Code><Message>user canarycanary at /?sig=sigsig</Message></Error>")
	})}
	var wait sync.WaitGroup
	wait.Go(func() { _ = server.Serve(l) })
	defer wait.Wait()
	defer func() { require.NoError(t, server.Close()) }()
	var logged bytes.Buffer
	config := fmt.Sprintf("type: S3\nconfig: {bucket: bkt, endpoint: %q, access_key: acc, secret_key: canarycanary, insecure: true, region: r, max_retries: 1, trace: {enable: true}}", l.Addr())
	b, err := bucket.Open([]byte(config), "test", slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug})), nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, b.Close()) }()
	_, err = b.Get(t.Context(), "denied")
	require.ErrorContains(t, err, "<secret>")
	require.True(t, b.IsAccessDeniedErr(err), err)
	_, err = b.Get(t.Context(), "none")
	require.True(t, b.IsObjNotFoundErr(err), err)
	for _, text := range []string{fmt.Sprint(err), fmt.Sprint(b.Upload(t.Context(), "denied", strings.NewReader("x"))), fmt.Sprint(b.Delete(t.Context(), "denied")), logged.String()} {
		require.NotContains(t, text, "canarycanary")
		require.NotContains(t, text, "sigsig")
	}
	require.NotEmpty(t, logged.String())
}

// Redact shows all but secrets.
func TestRedact(t *testing.T) {
	got := bucket.Redact([]byte("type: S3\nprefix: p\nconfig:\n  bucket: b\n  access_key: canary1\n  secret_key: canary2\n  session_token: canary3\n  sse_config: {encryption_key: canary4}\n  http_config: {tls_config: {key_file: /x}}\n"))
	require.NotContains(t, got, "canary")
	for _, want := range []string{"type: S3", "prefix: p", "bucket: b", "secret_key: <secret>", "encryption_key: <secret>", "key_file: /x"} {
		require.Contains(t, got, want)
	}
	got = bucket.Redact([]byte("type: GCS\nconfig: {service_account: '{\"private_key\": \"canary\"}'}"))
	require.NotContains(t, got, "canary")
	got = bucket.Redact([]byte("type: AZURE\nconfig: {storage_account: acc, storage_account_key: canary, storage_connection_string: canary, client_secret: canary}"))
	require.NotContains(t, got, "canary")
	require.NotContains(t, bucket.Redact([]byte("canary: [")), "canary")
}

// No configuration makes Redact or Open panic.
func FuzzOpen(f *testing.F) {
	f.Add([]byte("type: S3\nconfig: {bucket: b, endpoint: e, secret_key: s}"))
	f.Add([]byte("type: FILESYSTEM\nconfig: [a]"))
	f.Add([]byte("config: {1: {2: 3}}"))
	f.Fuzz(func(t *testing.T, config []byte) {
		bucket.Redact(config)
		if upper := strings.ToUpper(string(config)); strings.Contains(upper, "AZURE") || strings.Contains(upper, "GCS") || strings.Contains(upper, "FILESYSTEM") {
			return // these look for credentials elsewhere, or touch the disk
		}
		if b, err := bucket.Open(config, "fuzz", nil, nil); err == nil {
			require.NoError(t, b.Close())
		}
	})
}
