package archive_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/archive/format"
	"varve/arrival"
	"varve/internal/testkit"
)

// TestNotes shows that notes are kept over a restart, found by prefix in the order of names, replaced and removed, and that
// a check of the archive reads them.
func TestNotes(t *testing.T) {
	dir := testkit.MemoryDir(t) + "/a"
	a, err := archive.Open(dir, options())
	require.NoError(t, err)
	require.NoError(t, a.SaveNotes(t.Context(), []arrival.Note{{Name: "b/1", Value: []byte("x")}, {Name: "a/2", Value: []byte{}}, {Name: "a/1", Value: []byte("y")}}, true))
	require.NoError(t, a.SaveNotes(t.Context(), []arrival.Note{{Name: "b/1", Value: []byte("z")}, {Name: "a/1"}}, false))
	require.NoError(t, a.Close())
	_, err = archive.Check(dir, func(f archive.Fault) { t.Error(f) })
	require.NoError(t, err)
	a, err = archive.Open(dir, options())
	require.NoError(t, err)
	defer a.Close()
	notes := func(prefix string) map[string]string {
		got := map[string]string{}
		require.NoError(t, a.EachNote(prefix, func(name string, value []byte) error {
			got[name] = string(value)
			return nil
		}))
		return got
	}
	require.Equal(t, map[string]string{"a/2": "", "b/1": "z"}, notes(""))
	require.Equal(t, map[string]string{"a/2": ""}, notes("a/"))
	stop := errors.New("stop")
	require.ErrorIs(t, a.EachNote("", func(string, []byte) error { return stop }), stop)
}

// TestNotesRefused shows that notes out of bounds are refused, that a full disk is told as it is of samples, and that it heals.
func TestNotesRefused(t *testing.T) {
	a, err := archive.Open(testkit.MemoryDir(t)+"/a", options())
	require.NoError(t, err)
	defer a.Close()
	one := func(name string, size int) []arrival.Note {
		return []arrival.Note{{Name: name, Value: make([]byte, size)}}
	}
	for _, bad := range [][]arrival.Note{one("", 1), one(strings.Repeat("n", 513), 1), one("n", 1<<20+1)} {
		require.Error(t, a.SaveNotes(t.Context(), bad, true))
	}
	a.SetFree(func(string) (int64, int64, error) { return 0, 1 << 40, nil })
	var unavailable *arrival.Unavailable
	require.ErrorAs(t, a.SaveNotes(t.Context(), one("n", 1), true), &unavailable)
	require.Equal(t, "disk_full", unavailable.Reason)
}

// FuzzParseNote shows that a note whose record was changed is not read.
func FuzzParseNote(f *testing.F) {
	f.Add([]byte("note/a"), []byte("value"), uint16(3))
	f.Fuzz(func(t *testing.T, key, value []byte, bit uint16) {
		record := format.AppendNote(nil, key, value)
		got, err := format.ParseNote(key, record)
		require.NoError(t, err)
		require.Equal(t, string(value), string(got))
		record[int(bit/8)%len(record)] ^= 1 << (bit % 8)
		_, err = format.ParseNote(key, record)
		require.ErrorIs(t, err, format.ErrCorrupt)
		_, _ = format.ParseNote(key, value)
	})
}
