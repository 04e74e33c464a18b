package snapshot_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"varve/internal/gate/server"
)

// freePort returns a port that nothing listens on.
func freePort(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	_, port, err := net.SplitHostPort(l.Addr().String())
	require.NoError(t, err)
	return port
}

// serve starts a program and waits until its port answers.
func serve(t testing.TB, port string, env []string, program string, args ...string) {
	t.Helper()
	var out bytes.Buffer
	c := exec.Command(program, args...)
	c.Env, c.Stdout, c.Stderr = append(os.Environ(), env...), &out, &out
	require.NoError(t, c.Start())
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
		if t.Failed() {
			t.Logf("%s: %s", program, out.String())
		}
	})
	require.Eventually(t, func() bool {
		conn, err := net.DialTimeout("tcp", "127.0.0.1:"+port, time.Second)
		return err == nil && conn.Close() == nil
	}, time.Minute, 50*time.Millisecond, program)
}

// All of it in a real S3 server that keeps objects as files, over plain HTTP with signatures between the bytes, with parts.
func TestVersityGateway(t *testing.T) {
	program, port, dir := server.Peer(t, "versitygw-"), freePort(t), t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "bkt"), 0o700))
	serve(t, port, []string{"ROOT_ACCESS_KEY=testkey", "ROOT_SECRET_KEY=testsecret123"}, program, "--port", "127.0.0.1:"+port, "posix", dir)
	src := newSource(t, 1)
	src.write("db/000000.sst", 40<<20)
	o := src.options(openBucket(t, "type: S3\nprefix: p\nconfig: {bucket: bkt, endpoint: '127.0.0.1:%s', access_key: testkey, secret_key: testsecret123, insecure: true, region: us-east-1}", port))
	o.Settle = -1
	wholeLife(t, o, src)
}

// All of it in Azure's emulator.
func TestAzurite(t *testing.T) {
	program, port := server.Peer(t, "azurite-"), freePort(t)
	if _, err := exec.LookPath("node"); err != nil {
		server.Lacking(t, "no node to run Azurite with: %v", err)
	}
	serve(t, port, nil, program, "--blobPort", port, "--location", t.TempDir(), "--skipApiVersionCheck", "--silent")
	// The emulator's account and key are the same everywhere and in its documentation.
	const account, key = "devstoreaccount1", "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
	src := newSource(t, 1)
	src.write("db/000000.sst", 40<<20)
	o := src.options(openBucket(t, "type: AZURE\nprefix: p\nconfig: {storage_account: %s, container: bkt, storage_connection_string: 'DefaultEndpointsProtocol=http;AccountName=%s;AccountKey=%s;BlobEndpoint=http://127.0.0.1:%s/%s;'}",
		account, account, key, port, account))
	o.Settle = -1
	wholeLife(t, o, src)
}

// All of it in an emulator of Google's storage.
func TestFakeGCS(t *testing.T) {
	program, port := server.Peer(t, "fake-gcs-server-"), freePort(t)
	serve(t, port, nil, program, "-scheme", "http", "-host", "127.0.0.1", "-port", port, "-backend", "memory", "-public-host", "127.0.0.1:"+port, "-log-level", "error")
	t.Setenv("STORAGE_EMULATOR_HOST", "127.0.0.1:"+port)
	made, err := http.Post("http://127.0.0.1:"+port+"/storage/v1/b?project=p", "application/json", bytes.NewReader([]byte(`{"name":"bkt"}`)))
	require.NoError(t, err)
	require.NoError(t, made.Body.Close())
	require.Equal(t, http.StatusOK, made.StatusCode)
	http.DefaultClient.CloseIdleConnections()
	tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"access_token":"x","token_type":"Bearer","expires_in":3600}`)
	}))
	t.Cleanup(tokens.Close)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	account, err := json.Marshal(map[string]string{
		"type": "service_account", "client_email": "a@b", "token_uri": tokens.URL,
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})),
	})
	require.NoError(t, err)
	src := newSource(t, 1)
	src.write("db/000000.sst", 40<<20)
	quoted, err := json.Marshal(string(account))
	require.NoError(t, err)
	o := src.options(openBucket(t, "type: GCS\nprefix: p\nconfig: {bucket: bkt, service_account: %s}", quoted))
	o.Settle = -1
	wholeLife(t, o, src)
}
