package snapshot_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"varve/internal/testkit"
	"varve/snapshot"
)

// damages are ways in which an object can be wrong.
var damages = map[string]func([]byte) []byte{
	"a flipped bit": func(b []byte) []byte { b[len(b)/2] ^= 16; return b },
	"first byte":    func(b []byte) []byte { b[0] ^= 1; return b },
	"last byte":     func(b []byte) []byte { b[len(b)-1] ^= 1; return b },
	"short":         func(b []byte) []byte { return b[:len(b)-1] },
	"long":          func(b []byte) []byte { return append(b, 0) },
	"empty":         func([]byte) []byte { return []byte{} },
	"missing":       func([]byte) []byte { return nil },
}

// Whatever is done to one object of a snapshot, Verify and Restore refuse it and name the file; a restored folder doesn't
// appear, and another snapshot that doesn't need the object is as good as ever.
func TestDamageIsNamed(t *testing.T) {
	for name, damage := range damages {
		for _, path := range []string{"acknowledged", "db/CURRENT", "db/000001.sst"} {
			synctest.Test(t, func(t *testing.T) {
				src, b := newSource(t, 1), newMemory()
				s := open(t, src.options(b))
				m, _, err := s.Create(t.Context(), nil)
				require.NoError(t, err)
				var object string
				for _, f := range m.Files {
					if f.Path == path {
						object = fmt.Sprintf("varve/files/%s/%s", f.SHA256.String()[:2], f.SHA256)
					}
				}
				b.change(object, damage)
				r, err := s.Verify(t.Context(), m.ID, snapshot.VerifyOptions{Contents: true}, nil)
				require.ErrorIs(t, err, snapshot.ErrDamaged, name)
				require.Len(t, r.Faults, 1)
				require.Equal(t, path, r.Faults[0].Path)
				require.Equal(t, object, r.Faults[0].Object)
				require.ErrorContains(t, err, path)
				r, err = s.Verify(t.Context(), m.ID, snapshot.VerifyOptions{}, nil)
				if strings.Contains(name, "b") { // a wrong bit or byte has the right size
					require.NoError(t, err)
					require.Empty(t, r.Faults)
				} else {
					require.ErrorIs(t, err, snapshot.ErrDamaged, name)
				}
				dir := filepath.Join(testkit.MemoryDir(t), "restored")
				_, err = s.Restore(t.Context(), m.ID, dir, snapshot.RestoreOptions{}, nil)
				require.ErrorIs(t, err, snapshot.ErrDamaged, name)
				require.ErrorContains(t, err, path)
				require.ErrorContains(t, err, object)
				require.NoDirExists(t, dir)
				require.DirExists(t, dir+".partial")
			})
		}
	}
}

// Every single byte of a manifest counts: with any of them changed it is listed as damaged, and neither verified nor restored;
// other snapshots still are.
func TestDamagedManifest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, b := newSource(t, 1), newMemory()
		s := open(t, src.options(b))
		m, _, err := s.Create(t.Context(), nil)
		require.NoError(t, err)
		src.grow()
		other, _, err := s.Create(t.Context(), nil)
		require.NoError(t, err)
		object := "varve/snapshots/" + m.ID + ".json"
		whole := b.objects[object].content
		for i := range whole {
			for _, bit := range []byte{1, 32} {
				changed := bytes.Clone(whole)
				changed[i] ^= bit
				_, err := snapshot.ParseManifest(changed)
				require.Error(t, err, "byte %d", i)
			}
			_, err := snapshot.ParseManifest(whole[:i])
			require.Error(t, err)
		}
		b.change(object, damages["a flipped bit"])
		b.change("varve/snapshots/README", func([]byte) []byte { return []byte("mine") })
		s = open(t, src.options(b))
		list, err := s.List(t.Context())
		require.NoError(t, err)
		require.Len(t, list, 3)
		require.True(t, list[0].Foreign)
		require.NotEmpty(t, list[1].Damaged)
		require.Equal(t, other.ID, list[2].ID)
		require.Empty(t, list[2].Damaged)
		_, err = s.Restore(t.Context(), m.ID, filepath.Join(testkit.MemoryDir(t), "x"), snapshot.RestoreOptions{}, nil)
		require.ErrorIs(t, err, snapshot.ErrDamaged)
		require.ErrorContains(t, err, object)
		_, err = s.Verify(t.Context(), m.ID, snapshot.VerifyOptions{}, nil)
		require.ErrorIs(t, err, snapshot.ErrDamaged)
		require.Equal(t, tree(t, src.dir), restored(t, s, other.ID))

		// A manifest of another snapshot under this one's name.
		b.change(object, func([]byte) []byte { return b.objects["varve/snapshots/"+other.ID+".json"].content })
		_, err = open(t, src.options(b)).Get(t.Context(), m.ID)
		require.ErrorIs(t, err, snapshot.ErrDamaged)
	})
}

// A Restore that is cut off at each call of the bucket in turn leaves no folder of the right name; the same call goes on and
// doesn't fetch again what is whole.
func TestRestoreResumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, b := newSource(t, 1), newMemory()
		o := src.options(b)
		o.Parallel = 1
		s := open(t, o)
		m, stats, err := s.Create(t.Context(), nil)
		require.NoError(t, err)
		for n := 2; ; n++ {
			dir := filepath.Join(testkit.MemoryDir(t), "restored")
			ctx, kill := context.WithCancel(t.Context())
			first := b.calls
			b.plan = func(c call) fault {
				if c.number < first+n {
					return none
				}
				kill()
				return cut
			}
			adopted := 0
			_, err := s.Restore(ctx, m.ID, dir, snapshot.RestoreOptions{}, nil)
			reached := ctx.Err() != nil
			kill()
			b.plan = nil
			if !reached {
				require.NoError(t, err)
				require.Greater(t, n, stats.Files)
				break
			}
			require.Error(t, err)
			require.NoDirExists(t, dir)
			require.NoError(t, os.MkdirAll(filepath.Join(dir+".partial", "db"), 0o700))
			require.NoError(t, os.WriteFile(filepath.Join(dir+".partial", "db", "stray"), nil, 0o600))
			r, err := s.Restore(t.Context(), m.ID, dir, snapshot.RestoreOptions{Adopt: func(partial string) error {
				adopted++
				require.Equal(t, dir+".partial", partial)
				require.Equal(t, tree(t, src.dir), tree(t, partial))
				return nil
			}}, nil)
			require.NoError(t, err)
			require.Equal(t, 1, adopted)
			require.LessOrEqual(t, r.FetchedFiles, stats.Files-n+2)
			require.Equal(t, tree(t, src.dir), tree(t, dir))
		}
	})
}

// Adopt that fails leaves the partial folder; the next attempt puts right what Adopt had changed in it and calls it again.
func TestAdoptFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newSource(t, 1)
		s := open(t, src.options(newMemory()))
		m, _, err := s.Create(t.Context(), nil)
		require.NoError(t, err)
		dir := filepath.Join(testkit.MemoryDir(t), "restored")
		require.NoError(t, os.Mkdir(dir, 0o700))
		errAdopt := errors.New("no")
		_, err = s.Restore(t.Context(), m.ID, dir, snapshot.RestoreOptions{Adopt: func(dir string) error {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "acknowledged"), []byte("new"), 0o600))
			require.NoError(t, os.WriteFile(filepath.Join(dir, "db/LOCK"), nil, 0o600))
			return errAdopt
		}}, nil)
		require.ErrorIs(t, err, errAdopt)
		require.ErrorContains(t, err, dir+".partial")
		r, err := s.Restore(t.Context(), m.ID, dir, snapshot.RestoreOptions{Adopt: func(dir string) error {
			require.Equal(t, tree(t, src.dir), tree(t, dir))
			return os.WriteFile(filepath.Join(dir, "acknowledged"), []byte("new"), 0o600)
		}}, nil)
		require.NoError(t, err)
		require.Equal(t, 1, r.FetchedFiles)
		b, err := os.ReadFile(filepath.Join(dir, "acknowledged"))
		require.NoError(t, err)
		require.Equal(t, "new", string(b))
	})
}

// Restore touches nothing that is somebody's: a folder that isn't empty, a file, a partial folder of another snapshot or of
// nobody's. IDs that are none are refused before anything is asked.
func TestRestoreRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, b := newSource(t, 1), newMemory()
		s := open(t, src.options(b))
		m, _, err := s.Create(t.Context(), nil)
		require.NoError(t, err)
		restore := func(id, dir string) error {
			_, err := s.Restore(t.Context(), id, dir, snapshot.RestoreOptions{}, nil)
			return err
		}
		full, file := testkit.MemoryDir(t), filepath.Join(testkit.MemoryDir(t), "file")
		require.NoError(t, os.WriteFile(filepath.Join(full, "x"), nil, 0o600))
		require.NoError(t, os.WriteFile(file, nil, 0o600))
		require.ErrorIs(t, restore(m.ID, full), snapshot.ErrTarget)
		require.ErrorIs(t, restore(m.ID, file), snapshot.ErrTarget)

		foreign := filepath.Join(testkit.MemoryDir(t), "d")
		require.NoError(t, os.MkdirAll(foreign+".partial/x", 0o700))
		require.ErrorIs(t, restore(m.ID, foreign), snapshot.ErrTarget)
		require.DirExists(t, foreign+".partial/x")

		src.grow()
		other, _, err := s.Create(t.Context(), nil)
		require.NoError(t, err)
		dir := filepath.Join(testkit.MemoryDir(t), "d")
		ctx, kill := context.WithCancel(t.Context())
		_, err = s.Restore(ctx, m.ID, dir, snapshot.RestoreOptions{Adopt: func(string) error { kill(); return ctx.Err() }}, nil)
		require.ErrorIs(t, err, context.Canceled)
		err = restore(other.ID, dir)
		require.ErrorIs(t, err, snapshot.ErrTarget)
		require.ErrorContains(t, err, m.ID)
		require.NoError(t, os.RemoveAll(dir+".partial"))
		require.NoError(t, restore(other.ID, dir))

		calls := b.calls
		for _, id := range []string{"", "../../etc/passwd", m.ID + "/..", strings.ToLower(m.ID), m.ID[:25] + "I", m.ID + "\n"} {
			require.ErrorIs(t, restore(id, filepath.Join(testkit.MemoryDir(t), "x")), snapshot.ErrID, "%q", id)
			_, err := s.Get(t.Context(), id)
			require.ErrorIs(t, err, snapshot.ErrID)
			_, err = s.Delete(t.Context(), []string{id}, false)
			require.ErrorIs(t, err, snapshot.ErrID)
		}
		require.Equal(t, calls, b.calls)
		require.ErrorIs(t, restore(snapshot.NewID(time.Now()), filepath.Join(testkit.MemoryDir(t), "x")), snapshot.ErrNotFound)
	})
}

// Verify with Deep hands a restored copy to the caller's check, removes it, and reports what the check says.
func TestVerifyDeep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newSource(t, 1)
		o := src.options(newMemory())
		s := open(t, o)
		m, _, err := s.Create(t.Context(), nil)
		require.NoError(t, err)
		var was string
		r, err := s.Verify(t.Context(), m.ID, snapshot.VerifyOptions{Deep: func(dir string) error {
			was = dir
			require.Equal(t, tree(t, src.dir), tree(t, dir))
			return nil
		}}, nil)
		require.NoError(t, err)
		require.Equal(t, m.Bytes, r.ReadBytes)
		require.NoDirExists(t, was)
		errCheck := errors.New("a series is missing")
		_, err = s.Verify(t.Context(), m.ID, snapshot.VerifyOptions{Deep: func(string) error { return errCheck }}, nil)
		require.ErrorIs(t, err, errCheck)
		require.ErrorIs(t, err, snapshot.ErrDamaged)
		entries, err := os.ReadDir(o.Scratch)
		require.NoError(t, err)
		require.Len(t, entries, 1)
	})
}
