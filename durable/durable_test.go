package durable_test

import (
	"bytes"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"varve/durable"
)

// TestReplace shows that a file is made and replaced, by several at once too, that only its owner can read it, and
// that nothing stays beside it, nor of it if it can't take its place.
func TestReplace(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state")
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() { assert.NoError(t, durable.Replace(path, bytes.Repeat([]byte{byte('0' + i)}, 1000*(i+1)))) })
	}
	all.Wait()
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, bytes.Repeat(got[:1], 1000*int(got[0]-'0'+1)), got, "one of them, whole")
	for _, content := range []string{"first", "second", ""} {
		require.NoError(t, durable.Replace(path, []byte(content)))
		got, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, content, string(got))
	}
	st, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), st.Mode())
	require.NoError(t, os.Mkdir(filepath.Join(dir, "folder"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "folder", "full"), nil, 0o600))
	require.Error(t, durable.Replace(filepath.Join(dir, "folder"), []byte("x")))
	require.ErrorIs(t, durable.Replace(filepath.Join(dir, "none", "state"), nil), os.ErrNotExist)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 2)
}

// TestSync shows that files and folders can be synced, and that one that isn't there is an error.
func TestSync(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	require.ErrorIs(t, durable.Sync(path), os.ErrNotExist)
	require.NoError(t, os.WriteFile(path, []byte("x"), 0o600))
	require.NoError(t, durable.Sync(path))
	require.NoError(t, durable.Sync(filepath.Dir(path)))
}
