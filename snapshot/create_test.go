package snapshot_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math/rand/v2"
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

// A snapshot comes back byte for byte. A second one after some growth sends only what is new, hashes only what is new, and
// the first can still be restored as it was.
func TestCreateAndRestore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, b := newSource(t, 1), newMemory()
		s := open(t, src.options(b))
		var steps []snapshot.Step
		first, stats, err := s.Create(t.Context(), func(s snapshot.Step) { steps = append(steps, s) })
		require.NoError(t, err)
		require.Equal(t, stats.Files, stats.SentFiles)
		require.Equal(t, stats.Bytes, stats.SentBytes)
		require.Equal(t, stats.Bytes, stats.HashedBytes)
		require.Equal(t, first.Bytes, steps[len(steps)-1].BytesSent)
		require.Equal(t, first.ID, steps[len(steps)-1].ID)
		was := tree(t, src.dir)
		require.Equal(t, was, restored(t, s, first.ID))

		src.shrink()
		src.grow()
		second, stats, err := s.Create(t.Context(), nil)
		require.NoError(t, err)
		// One table and CURRENT.
		require.Equal(t, 2, stats.SentFiles)
		require.Equal(t, 1, stats.Families["raw"].SentFiles)
		require.Equal(t, 4, stats.Families["raw"].ReusedFiles)
		require.Less(t, stats.HashedBytes, stats.Bytes/2)
		require.Equal(t, tree(t, src.dir), restored(t, s, second.ID))
		require.Equal(t, was, restored(t, s, first.ID))

		list, err := s.List(t.Context())
		require.NoError(t, err)
		require.Len(t, list, 2)
		require.Equal(t, second.ID, list[1].ID)
		require.Empty(t, b.names("varve/uploads/"))
		require.Equal(t, 2, s.Status().Snapshots)
		require.Equal(t, second.ID, s.Status().LastSuccess.ID)
		require.Nil(t, s.Status().Running)
	})
}

// A list that began before a snapshot was made and ends after it doesn't make the status forget the snapshot.
func TestListedBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, b := newSource(t, 4), newMemory()
		s := open(t, src.options(b))
		_, _, err := s.Create(t.Context(), nil)
		require.NoError(t, err)
		src.grow()
		made := false
		b.hidden = func(string) bool {
			if !made {
				made = true
				_, _, err := s.Create(t.Context(), nil)
				require.NoError(t, err)
			}
			return false
		}
		list, err := s.List(t.Context())
		require.NoError(t, err)
		require.True(t, made)
		require.Len(t, list, 1, "it was listed before")
		require.Equal(t, 2, s.Status().Snapshots)
		list, err = s.List(t.Context())
		require.NoError(t, err)
		require.Len(t, list, 2)
		require.Equal(t, 2, s.Status().Snapshots)
	})
}

// A Create is killed at each call of the bucket in turn, before it takes effect and after. No snapshot can be seen then that
// can't be restored; the next Create, by a process that knows nothing of the first, succeeds, restores to the source byte
// for byte, and no file was sent twice.
func TestCreateKilledAtEveryCall(t *testing.T) {
	for _, kind := range []fault{before, after, cut} {
		killed := 0
		for n := 1; ; n++ {
			reached := true
			synctest.Test(t, func(t *testing.T) {
				src, b := newSource(t, 2), newMemory()
				o := src.options(b)
				_, _, err := open(t, o).Create(t.Context(), nil)
				require.NoError(t, err)
				src.grow()
				src.grow()
				first := b.calls
				ctx, kill := context.WithCancel(t.Context())
				defer kill()
				b.plan = func(c call) fault {
					if c.number < first+n {
						return none
					}
					kill()
					if c.number == first+n {
						return kind
					}
					return before
				}
				_, _, err = open(t, o).Create(ctx, nil)
				b.mu.Lock()
				reached = b.calls >= first+n
				b.plan = nil
				b.mu.Unlock()
				if reached && err != nil {
					killed++
				}

				o.HashCache = ""
				s := open(t, o)
				m, _, err := s.Create(t.Context(), nil)
				require.NoError(t, err)
				require.Equal(t, tree(t, src.dir), restored(t, s, m.ID))
				for name, count := range b.uploads {
					if strings.HasPrefix(name, "varve/files/") {
						require.Equal(t, 1, count, "call %d: %s was sent %d times", n, name, count)
					}
				}
				list, err := s.List(t.Context())
				require.NoError(t, err)
				for _, l := range list {
					_, err := s.Verify(t.Context(), l.ID, snapshot.VerifyOptions{Contents: true}, nil)
					require.NoError(t, err)
				}
			})
			if !reached {
				require.Greater(t, killed, 20, "calls of a Create")
				break
			}
		}
	}
}

// A store that fails at random in every way that it can, for a while, makes snapshots slower and never wrong: what Create
// says is there can be restored, and what Restore brings is right.
func TestStoreThatFailsAtRandom(t *testing.T) {
	for seed := range uint64(40) {
		synctest.Test(t, func(t *testing.T) {
			src, b := newSource(t, seed), newMemory()
			random := rand.New(rand.NewPCG(seed, 1))
			b.plan = func(c call) fault {
				if random.IntN(4) > 0 {
					return none
				}
				return fault(1 + random.IntN(int(flipped)))
			}
			o := src.options(b)
			// Which call fails depends on the order in which goroutines come to call. However many do in a row, nothing is given up.
			o.Patience = 10_000 * time.Hour
			s := open(t, o)
			for range 3 {
				src.grow()
				m, _, err := s.Create(t.Context(), nil)
				if err != nil {
					// Bits that flip on their way twice in a row are told of as damage, which ends it.
					require.ErrorIs(t, err, snapshot.ErrDamaged, "seed %d", seed)
					continue
				}
				dir := filepath.Join(testkit.MemoryDir(t), "restored")
				for range 50 {
					if _, err = s.Restore(t.Context(), m.ID, dir, snapshot.RestoreOptions{}, nil); err == nil {
						break
					}
				}
				require.NoError(t, err, "seed %d", seed)
				require.Equal(t, tree(t, src.dir), tree(t, dir))
			}
		})
	}
}

// A store that is down for good ends in an error after the patience, not in a hang, and the status says so.
func TestStoreThatIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, b := newSource(t, 1), newMemory()
		b.plan = func(c call) fault { return before }
		o := src.options(b)
		s := open(t, o)
		started := time.Now()
		_, _, err := s.Create(t.Context(), nil)
		require.ErrorIs(t, err, errInternal)
		require.Less(t, time.Since(started), 20*time.Minute)
		require.Equal(t, "create", s.Status().LastFailure.Job)
		entries, err := os.ReadDir(o.Scratch)
		require.NoError(t, err)
		require.Len(t, entries, 1, "but the lock")
	})
}

// What killed runs left in Scratch is removed at start, and nothing else in it.
func TestScratchIsCleared(t *testing.T) {
	src := newSource(t, 1)
	o := src.options(newMemory())
	id := snapshot.NewID(time.Now())
	for _, name := range []string{id, id + ".partial", "mine"} {
		require.NoError(t, os.MkdirAll(filepath.Join(o.Scratch, name, "db"), 0o700))
	}
	open(t, o)
	entries, err := os.ReadDir(o.Scratch)
	require.NoError(t, err)
	require.Len(t, entries, 2)
	require.Equal(t, "lock", entries[0].Name())
	require.Equal(t, "mine", entries[1].Name())
}

// One Create or Prune runs at a time, in a process and between processes that share Scratch.
func TestOneAtATime(t *testing.T) {
	src := newSource(t, 1)
	o := src.options(newMemory())
	s := open(t, o)
	inside := 0
	src.taken = func() {
		inside++
		_, _, err := s.Create(t.Context(), nil)
		require.ErrorIs(t, err, snapshot.ErrBusy)
		_, err = s.Prune(t.Context(), snapshot.Keep{Last: 1}, true)
		require.ErrorIs(t, err, snapshot.ErrBusy)
		_, _, err = open(t, o).Create(t.Context(), nil)
		require.ErrorIs(t, err, snapshot.ErrBusy)
		require.Equal(t, "create", s.Status().Running.Job)
	}
	_, _, err := s.Create(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, 1, inside)
}

// The file of hashes is only a hint: one that is damaged is as none, one that lies of a file that the bucket doesn't hold is
// found out while sending, and RehashAll reads everything.
func TestHashCacheIsAHint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newSource(t, 3)
		o := src.options(newMemory())
		create := func(o snapshot.Options) (*snapshot.Store, snapshot.Manifest, snapshot.Stats) {
			s := open(t, o)
			m, stats, err := s.Create(t.Context(), nil)
			require.NoError(t, err)
			require.Equal(t, tree(t, src.dir), restored(t, s, m.ID))
			return s, m, stats
		}
		_, _, stats := create(o)
		all := stats.HashedBytes
		_, _, stats = create(o)
		require.Less(t, stats.HashedBytes, all)
		o.RehashAll = true
		_, _, stats = create(o)
		require.Equal(t, all, stats.HashedBytes)
		o.RehashAll = false

		b, err := os.ReadFile(o.HashCache)
		require.NoError(t, err)
		b[len(b)/2] ^= 1
		require.NoError(t, os.WriteFile(o.HashCache, b, 0o600))
		_, _, stats = create(o)
		require.Equal(t, all, stats.HashedBytes)

		// The same size and time under another inode is another file.
		path := filepath.Join(src.dir, "db/000001.sst")
		info, err := os.Stat(path)
		require.NoError(t, err)
		require.NoError(t, os.Rename(path, path+".old"))
		require.NoError(t, os.WriteFile(path, make([]byte, info.Size()), 0o600))
		require.NoError(t, os.Chtimes(path, info.ModTime(), info.ModTime()))
		require.NoError(t, os.Remove(path+".old"))
		create(o)

		// A file that was written to in place under its old time, which is against the rules, and an empty bucket.
		path = filepath.Join(src.dir, "db/000002.sst")
		info, err = os.Stat(path)
		require.NoError(t, err)
		file, err := os.OpenFile(path, os.O_WRONLY, 0)
		require.NoError(t, err)
		_, err = file.WriteAt([]byte("other"), 10)
		require.NoError(t, errors.Join(err, file.Close()))
		require.NoError(t, os.Chtimes(path, info.ModTime(), info.ModTime()))
		o.Bucket = newMemory()
		var log bytes.Buffer
		o.Logger = slog.New(slog.NewTextHandler(&log, nil))
		create(o)
		require.Contains(t, log.String(), "the bucket has no snapshot, though one was made")
		log.Reset()
		create(o)
		require.NotContains(t, log.String(), "the bucket has no snapshot")
	})
}

// A file of the checkpoint that changes after it was hashed ends the Create, and nothing is under its name in the bucket.
func TestFileThatChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, b := newSource(t, 4), newMemory()
		o := src.options(b)
		o.HashCache = ""
		b.plan = func(c call) fault {
			if c.op == "upload" && strings.HasPrefix(c.name, "varve/uploads/") {
				paths, err := filepath.Glob(filepath.Join(o.Scratch, "*/acknowledged"))
				require.NoError(t, err)
				require.NoError(t, os.WriteFile(paths[0], make([]byte, 4132), 0o600))
			}
			return none
		}
		_, _, err := open(t, o).Create(t.Context(), nil)
		require.ErrorContains(t, err, "acknowledged has other bytes than when it was hashed")
		require.Empty(t, b.names("varve/snapshots/"))
	})
}

// What goes up is bounded by BytesPerSecond.
func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newSource(t, 5)
		src.write("db/100000.sst", 2<<20)
		o := src.options(newMemory())
		o.BytesPerSecond = 100 << 10
		started := time.Now()
		_, _, err := open(t, o).Create(t.Context(), nil)
		require.NoError(t, err)
		// Without the burst that is free.
		require.InDelta(t, (2<<20-256<<10)/(100<<10), time.Since(started).Seconds(), 3)
	})
}

// Take and Before that fail end a Create with their error, and leave nothing.
func TestCheckpointFails(t *testing.T) {
	src := newSource(t, 1)
	o := src.options(newMemory())
	errDisk := errors.New("disk full")
	o.Before = func(context.Context) error { return errDisk }
	_, _, err := open(t, o).Create(t.Context(), nil)
	require.ErrorIs(t, err, errDisk)
	o.Before = nil
	o.Take = func(_ context.Context, dir string) (snapshot.Taken, error) {
		return snapshot.Taken{}, errors.Join(errDisk, os.Mkdir(dir, 0o700))
	}
	_, _, err = open(t, o).Create(t.Context(), nil)
	require.ErrorIs(t, err, errDisk)
	entries, err := os.ReadDir(o.Scratch)
	require.NoError(t, err)
	require.Len(t, entries, 1)
	b, err := json.Marshal(open(t, o).Status())
	require.NoError(t, err)
	require.JSONEq(t, `{"snapshots":0}`, string(b))
}
