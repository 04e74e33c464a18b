package snapshot_test

import (
	"bytes"
	"context"
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

// serve starts a program at an address and waits until it answers.
func serve(t testing.TB, address string, env []string, program string, args ...string) {
	t.Helper()
	s, err := server.Start(server.Options{Binary: program, Address: address, Env: env, Args: args})
	require.NoError(t, err)
	t.Cleanup(func() {
		s.Kill()
		if t.Failed() {
			t.Logf("%s: %s", program, s.Output())
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	require.NoError(t, s.WaitListening(ctx))
}

// place is where a program may listen.
func place(t testing.TB) (address, host, port string) {
	t.Helper()
	address, err := server.FreeAddress()
	require.NoError(t, err)
	host, port, err = net.SplitHostPort(address)
	require.NoError(t, err)
	return address, host, port
}

// All of it in a real S3 server that keeps objects as files, over plain HTTP with signatures between the bytes, with parts.
func TestVersityGateway(t *testing.T) {
	program, dir := server.Peer(t, "versitygw-"), t.TempDir()
	address, _, _ := place(t)
	require.NoError(t, os.Mkdir(filepath.Join(dir, "bkt"), 0o700))
	serve(t, address, []string{"ROOT_ACCESS_KEY=testkey", "ROOT_SECRET_KEY=testsecret123"}, program, "--port", address, "posix", dir)
	src := newSource(t, 1)
	src.write("db/000000.sst", 40<<20)
	o := src.options(openBucket(t, "type: S3\nprefix: p\nconfig: {bucket: bkt, endpoint: '%s', access_key: testkey, secret_key: testsecret123, insecure: true, region: us-east-1}", address))
	o.Settle = -1
	wholeLife(t, o, src)
}

// All of it in Azure's emulator.
func TestAzurite(t *testing.T) {
	program := server.Peer(t, "azurite-")
	address, host, port := place(t)
	if _, err := exec.LookPath("node"); err != nil {
		server.Lacking(t, "no node to run Azurite with: %v", err)
	}
	serve(t, address, nil, program, "--blobHost", host, "--blobPort", port, "--location", t.TempDir(), "--skipApiVersionCheck", "--silent")
	// The emulator's account and key are the same everywhere and in its documentation.
	const account, key = "devstoreaccount1", "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
	src := newSource(t, 1)
	src.write("db/000000.sst", 40<<20)
	o := src.options(openBucket(t, "type: AZURE\nprefix: p\nconfig: {storage_account: %s, container: bkt, storage_connection_string: 'DefaultEndpointsProtocol=http;AccountName=%s;AccountKey=%s;BlobEndpoint=http://%s/%s;'}",
		account, account, key, address, account))
	o.Settle = -1
	wholeLife(t, o, src)
}

// All of it in an emulator of Google's storage.
func TestFakeGCS(t *testing.T) {
	program := server.Peer(t, "fake-gcs-server-")
	address, host, port := place(t)
	serve(t, address, nil, program, "-scheme", "http", "-host", host, "-port", port, "-backend", "memory", "-public-host", address, "-log-level", "error")
	t.Setenv("STORAGE_EMULATOR_HOST", address)
	made, err := http.Post("http://"+address+"/storage/v1/b?project=p", "application/json", bytes.NewReader([]byte(`{"name":"bkt"}`)))
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
