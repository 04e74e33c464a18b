package snapshot_test

import (
	"crypto/sha256"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"varve/snapshot"
)

func sample() snapshot.Manifest {
	return snapshot.Manifest{
		ID: "01JD9X9T6K4Z3YQ4N8M2V7C5BR", Taken: time.Unix(1e9, 123456789), Incarnation: strings.Repeat("ab", 16), Last: 1 << 60, Bytes: 7,
		Stats: snapshot.Stats{Families: map[string]snapshot.Total{"raw": {Files: 1}}},
		Days:  []snapshot.Day{{Day: time.Unix(86400, 0), Digest: 1<<64 - 1}},
		Files: []snapshot.File{
			{Path: "db/000001.sst", Bytes: 4, SHA256: sha256.Sum256([]byte("a")), Family: "raw"},
			{Path: "acknowledged", Bytes: 3, SHA256: sha256.Sum256([]byte("b"))},
		},
	}
}

// What was encoded is read back, in order of paths.
func TestManifestRoundTrip(t *testing.T) {
	m := sample()
	b, err := snapshot.Encode(&m)
	require.NoError(t, err)
	got, err := snapshot.ParseManifest(b)
	require.NoError(t, err)
	require.Equal(t, m, got)
	require.Equal(t, "acknowledged", got.Files[0].Path)
	require.Contains(t, string(b), `"digest":"ffffffffffffffff"`)
}

// A manifest whose paths leave the folder, or that contradicts itself, is refused, though its root is right.
func TestManifestRefused(t *testing.T) {
	for name, change := range map[string]func(*snapshot.Manifest){
		"path up":         func(m *snapshot.Manifest) { m.Files[0].Path = "../x" },
		"path inside up":  func(m *snapshot.Manifest) { m.Files[0].Path = "db/../../x" },
		"absolute":        func(m *snapshot.Manifest) { m.Files[0].Path = "/etc/passwd" },
		"backslash":       func(m *snapshot.Manifest) { m.Files[0].Path = `db\x` },
		"dot":             func(m *snapshot.Manifest) { m.Files[0].Path = "." },
		"hidden":          func(m *snapshot.Manifest) { m.Files[0].Path = ".restoring" },
		"empty path":      func(m *snapshot.Manifest) { m.Files[0].Path = "" },
		"empty name":      func(m *snapshot.Manifest) { m.Files[0].Path = "db//x" },
		"NUL":             func(m *snapshot.Manifest) { m.Files[0].Path = "db/x\x00" },
		"newline":         func(m *snapshot.Manifest) { m.Files[0].Path = "db/x\n" },
		"deep":            func(m *snapshot.Manifest) { m.Files[0].Path = "a/b/c/d/e/f/g" },
		"twice":           func(m *snapshot.Manifest) { m.Files[0].Path = m.Files[1].Path },
		"file and folder": func(m *snapshot.Manifest) { m.Files[0].Path = "acknowledged/x" },
		"negative size":   func(m *snapshot.Manifest) { m.Files[0].Bytes = -4; m.Bytes = -1 },
		"wrong sum":       func(m *snapshot.Manifest) { m.Bytes++ },
		"two sizes":       func(m *snapshot.Manifest) { m.Files[0].SHA256 = m.Files[1].SHA256 },
		"no files":        func(m *snapshot.Manifest) { m.Files, m.Bytes = nil, 0 },
		"family":          func(m *snapshot.Manifest) { m.Files[0].Family = "../x" },
		"id":              func(m *snapshot.Manifest) { m.ID = "../../01JD9X9T6K4Z3YQ4N8M2" },
		"incarnation":     func(m *snapshot.Manifest) { m.Incarnation = "abc" },
	} {
		m := sample()
		change(&m)
		_, err := snapshot.Encode(&m)
		require.Error(t, err, name)
		m.Format = 1
		b, err := json.Marshal(m)
		require.NoError(t, err)
		_, err = snapshot.ParseManifest(append(b, '\n'))
		require.ErrorIs(t, err, snapshot.ErrDamaged, name)
	}
}

// A manifest of a later format is told apart from a damaged one, whatever else is in it.
func TestManifestOfLaterFormat(t *testing.T) {
	_, err := snapshot.ParseManifest([]byte(`{"format":2,"anything":{}}`))
	require.ErrorIs(t, err, snapshot.ErrFormat)
	require.NotErrorIs(t, err, snapshot.ErrDamaged)
}

// No bytes make the parser panic, and what it takes is written again byte for byte and has only paths that stay below the
// folder.
func FuzzParseManifest(f *testing.F) {
	m := sample()
	b, err := snapshot.Encode(&m)
	require.NoError(f, err)
	f.Add(b)
	f.Add([]byte(`{"format":1}`))
	f.Add([]byte(`{"format":1,"files":[{"path":"../x"}]}`))
	f.Add([]byte(strings.Repeat("[", 10000)))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := snapshot.ParseManifest(b)
		if err != nil {
			return
		}
		again, err := snapshot.Encode(&m)
		require.NoError(t, err)
		require.Equal(t, string(b), string(again))
		for _, file := range m.Files {
			require.True(t, filepath.IsLocal(file.Path))
		}
	})
}

// No bytes make the readers of claims and of the file of hashes panic.
func FuzzDecodeClaim(f *testing.F) {
	f.Add([]byte(`{"format":1,"kind":"create","id":"01JD9X9T6K4Z3YQ4N8M2V7C5BR","files":[]}`))
	f.Add([]byte(strings.Repeat("0", 64) + "\n{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := snapshot.DecodeClaim(b); err == nil {
			require.True(t, snapshot.ValidID(c.ID))
		}
		if c, err := snapshot.DecodeHashCache(b); err == nil {
			require.NotNil(t, c)
		}
	})
}
