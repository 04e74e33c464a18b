package natsconn_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/common/config"
	"github.com/stretchr/testify/require"

	"varve/natsconn"
)

// Options that contradict themselves are refused, without a secret in the error.
func TestCheck(t *testing.T) {
	good := natsconn.Options{URLs: []string{"host:4222", "tls://user:hidden@host"}}
	require.NoError(t, good.Check())
	require.Equal(t, 2*time.Second, good.ConnectTimeout)
	require.Equal(t, 2*time.Second, good.ReconnectWait)
	require.Equal(t, "host:4222,tls://user:hidden@host", good.Servers())
	for want, o := range map[string]natsconn.Options{
		"no url":              {},
		"can't be parsed":     {URLs: []string{"nats://user:hidden@%zz"}},
		"want nats":           {URLs: []string{"http://user:hidden@host"}},
		"http://":             {URLs: []string{"http://hidden@host"}},
		"exclude each other":  {URLs: []string{"host"}, User: "a", Token: "hidden"},
		"given twice":         {URLs: []string{"host"}, Token: "hidden", TokenFile: "x"},
		"a password without":  {URLs: []string{"host"}, Password: "hidden"},
		"is given twice, in ": {URLs: []string{"host"}, User: "a", Password: "hidden", PasswordFile: "x"},
	} {
		err := o.Check()
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "hidden")
	}
}

// Files of secrets are read with each connection, and those of keys and certificates at once.
func TestClient(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	o := natsconn.Options{URLs: []string{"host"}, User: "a", PasswordFile: file}
	opts, err := o.Client()
	require.NoError(t, err)
	var made nats.Options
	for _, opt := range opts {
		require.NoError(t, opt(&made))
	}
	_, password := made.UserInfo()
	require.Empty(t, password)
	require.NoError(t, os.WriteFile(file, []byte("one\n"), 0o600))
	_, password = made.UserInfo()
	require.Equal(t, "one", password)
	require.Equal(t, -1, made.MaxReconnect)

	_, err = (&natsconn.Options{NKeyFile: file}).Client()
	require.ErrorContains(t, err, "read the nkey")
	_, err = (&natsconn.Options{TLS: &config.TLSConfig{CAFile: file}}).Client()
	require.ErrorContains(t, err, "tls")
}

// Names and subjects are checked, and patterns are compared.
func TestSubjects(t *testing.T) {
	require.NoError(t, natsconn.CheckStream("VARVE-1_a"))
	require.Error(t, natsconn.CheckStream("a.b"))
	for _, s := range []string{"a", "a.*.b", "a.>", ">", "*"} {
		require.NoError(t, natsconn.CheckSubject(s))
	}
	for _, s := range []string{"", "a..b", ".a", "a.", "a b", ">.a"} {
		require.Error(t, natsconn.CheckSubject(s))
	}
	for _, c := range [][2]string{{"a", "a"}, {"*", "a"}, {">", "a.b"}, {"a.*", "a.*"}, {"a.>", "a.>"}, {"a.>", "a.b.*"}} {
		require.True(t, natsconn.Covers(c[0], c[1]), c)
	}
	for _, c := range [][2]string{{"a", "b"}, {"a", "*"}, {"a.>", "a"}, {"a.*", "a.>"}, {"*", "a.b"}, {"a.b", "a"}} {
		require.False(t, natsconn.Covers(c[0], c[1]), c)
	}
}
