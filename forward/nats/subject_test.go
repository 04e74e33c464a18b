package nats_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"varve/forward"
	"varve/forward/nats"
	"varve/natsconn"
)

// TestSubject shows what becomes of labels in subjects.
func TestSubject(t *testing.T) {
	ls := labels.FromStrings("__name__", "node_load1", "job", "node", "path", "/a.b/*", "q", "100% >$\t\n\x00\x7f", "ü", "é")
	f := func(template, want string) {
		t.Helper()
		got, err := nats.Subject(t, template, ls)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	f("varve", "varve")
	f("varve.{__name__}.{job}", "varve.node_load1.node")
	f("{path}", "/a%2Eb/%2A")
	f("v.x-{job}-{path}.z", "v.x-node-/a%2Eb/%2A.z")
	f("v.{q}", "v.100%25%20%3E%24%09%0A%00%7F")
	f("v.{missing}.{ü}", "v.%-.é")
	f("{job}{job}", "nodenode")
}

// TestTemplates shows which templates are refused.
func TestTemplates(t *testing.T) {
	for _, bad := range []string{"", ".", "a..b", "a.", ".a", "a b", "a.*", "a.>", "{", "a.{", "a.{}", "a}", "a.{b}}", "a.{b{c}}", "$JS.{a}", "$SYS", "a\n"} {
		_, err := nats.New(nats.Options{Options: natsconn.Options{URLs: []string{"localhost"}}, Subject: bad})
		require.Error(t, err, bad)
	}
	_, err := nats.Subject(t, "a.{b}", labels.FromStrings("b", strings.Repeat("x", 5000)))
	require.ErrorContains(t, err, "3072 bytes")
}

// TestPattern shows the patterns of templates, and which pattern covers which.
func TestPattern(t *testing.T) {
	f := func(template, want string) {
		t.Helper()
		got, err := nats.Pattern(template)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	f("varve", "varve")
	f("varve.{__name__}.{job}", "varve.*.*")
	f("a-{b}.c", "*.c")
	f("{a}{b}.x{c}y.z", "*.*.z")
}

// unescape reads a token back as the package comment describes it.
func unescape(token string) (string, error) {
	if token == "%-" {
		return "", nil
	}
	var out []byte
	for i := 0; i < len(token); i++ {
		if token[i] != '%' {
			out = append(out, token[i])
			continue
		}
		if i+3 > len(token) {
			return "", fmt.Errorf("%q ends in an escape", token)
		}
		c, err := strconv.ParseUint(token[i+1:i+3], 16, 8)
		if err != nil {
			return "", err
		}
		out = append(out, byte(c))
		i += 2
	}
	return string(out), nil
}

// FuzzToken shows that every value makes one token that a server takes, and that can be read back.
func FuzzToken(f *testing.F) {
	for _, s := range []string{"", "a", ".", "a.b", "*", ">", "%", "%-", "%2E", " ", "\x00", "é", "\xff", "$JS"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		token := nats.Token(value)
		require.NotContains(t, token, ".")
		require.True(t, natsserver.IsValidLiteralSubject("a."+token))
		require.True(t, natsserver.IsValidPublishSubject("a."+token))
		got, err := unescape(token)
		require.NoError(t, err)
		require.Equal(t, value, got)
	})
}

// TestPrepareRefuses shows that a series whose subject is too long is refused by itself.
func TestPrepareRefuses(t *testing.T) {
	s := newSender(t, "localhost")
	require.Error(t, s.Prepare(&forward.Target{Labels: labels.FromStrings("__name__", "up", "job", strings.Repeat("x", 5000))}))
	require.NoError(t, s.Prepare(&forward.Target{Labels: labels.FromStrings("__name__", "up", "other", strings.Repeat("x", 5000))}))
}
