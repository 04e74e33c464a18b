package nats_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"varve/ingest/nats"
)

// A file that is full is put aside, instead of the one before; both are remembered, and a line that was cut is taken away.
func TestLetterFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "er")
	opts := nats.DeadLetters{Directory: dir, FileBytes: 1000}
	grave := func(n uint64) nats.Grave {
		return nats.Grave{Subject: "s", Stream: "S", Sequence: n, Reason: "because\n", Data: bytes.Repeat([]byte{byte(n)}, 300)}
	}
	require.NoError(t, nats.Bury("in put", opts, grave(1), grave(2), grave(3)))
	path := filepath.Join(dir, "in%20put.jsonl")
	old, err := os.ReadFile(path + ".old")
	require.NoError(t, err)
	require.Len(t, bytes.Split(bytes.TrimSpace(old), []byte("\n")), 1)
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteString(`{"time":"cut`)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	n, err := nats.KnownLetters("in put", dir)
	require.NoError(t, err)
	require.Equal(t, 2, n)
	require.NoError(t, nats.Bury("in put", nats.DeadLetters{Directory: dir, FileBytes: 1 << 20}, grave(4)))
	now, err := os.ReadFile(path)
	require.NoError(t, err)
	lines := bytes.Split(bytes.TrimSpace(now), []byte("\n"))
	require.Len(t, lines, 2)
	for _, line := range lines {
		require.True(t, json.Valid(line))
	}
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	// A letter that is larger than a file is allowed to be is kept all the same.
	require.NoError(t, nats.Bury("in put", nats.DeadLetters{Directory: dir, FileBytes: 1}, grave(5)))
	require.NoError(t, nats.Bury("in put", nats.DeadLetters{Directory: dir, FileBytes: 1}, grave(6)))
}

// FuzzLetters shows that whatever a file of dead letters holds, it is read, and the next letter is a line of its own that reads back.
func FuzzLetters(f *testing.F) {
	f.Add([]byte(""), []byte("data"), "because")
	f.Add([]byte("{\"stream\":\"S\",\"sequence\":1}\n{\"str"), []byte("\x00\xff"), "\x1b\n\"")
	f.Add([]byte("\n\n[]\nnull\n{\"sequence\":\"x\"}"), []byte(nil), "")
	f.Fuzz(func(t *testing.T, before, data []byte, reason string) {
		dir := t.TempDir()
		path := filepath.Join(dir, "n.jsonl")
		require.NoError(t, os.WriteFile(path, before, 0o600))
		known, err := nats.KnownLetters("n", dir)
		require.NoError(t, err)
		g := nats.Grave{Subject: "never before", Stream: "S", Sequence: 1 << 60, Reason: reason, Data: data}
		require.NoError(t, nats.Bury("n", nats.DeadLetters{Directory: dir, FileBytes: 1 << 30}, g))
		now, err := os.ReadFile(path)
		require.NoError(t, err)
		kept := before[:bytes.LastIndexByte(before, '\n')+1]
		require.True(t, bytes.HasPrefix(now, kept))
		line := now[len(kept):]
		require.Equal(t, 1, bytes.Count(line, []byte("\n")))
		var l struct{ Payload []byte }
		require.NoError(t, json.Unmarshal(line, &l))
		require.True(t, bytes.Equal(data, l.Payload))
		after, err := nats.KnownLetters("n", dir)
		require.NoError(t, err)
		// A line that was cut may have told of a place.
		require.Contains(t, []int{known, known + 1}, after)
	})
}
