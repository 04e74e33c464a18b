package snapshot_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/thanos-io/objstore"

	"varve/snapshot"
)

// advance moves the bubble's clock.
func advance(d time.Duration) {
	t := time.NewTimer(d)
	<-t.C
}

// Rules keep the newest of each period, and any of them is enough; another archive in the same bucket has places of its own, and what is
// stamped with a time to come takes none.
func TestKeep(t *testing.T) {
	at := func(s, archive string) snapshot.Listed {
		taken, err := time.Parse("2006-01-02T15", s)
		require.NoError(t, err)
		return snapshot.Listed{ID: s + archive, Taken: taken, Incarnation: archive}
	}
	var all []snapshot.Listed
	for _, s := range []string{"2024-12-30T01", "2024-12-31T01", "2025-01-01T01", "2025-01-01T13", "2025-02-01T01", "2025-02-03T01"} {
		all = append(all, at(s, "a"))
	}
	all = append(all, at("2020-01-01T00", "b"))
	for _, c := range []struct {
		keep snapshot.Keep
		want string
	}{
		{snapshot.Keep{Last: 2}, "2020-01-01T00b 2025-02-01T01a 2025-02-03T01a"},
		{snapshot.Keep{Daily: 3}, "2020-01-01T00b 2025-01-01T13a 2025-02-01T01a 2025-02-03T01a"},
		// 30 December 2024 to 1 January 2025 are one week.
		{snapshot.Keep{Weekly: 3}, "2020-01-01T00b 2025-01-01T13a 2025-02-01T01a 2025-02-03T01a"},
		{snapshot.Keep{Monthly: 2}, "2020-01-01T00b 2025-01-01T13a 2025-02-03T01a"},
		{snapshot.Keep{Yearly: 9}, "2020-01-01T00b 2024-12-31T01a 2025-02-03T01a"},
		{snapshot.Keep{Last: 1, Yearly: 2}, "2020-01-01T00b 2024-12-31T01a 2025-02-03T01a"},
	} {
		var got []string
		for id := range snapshot.Choose(c.keep, all, at("2025-02-03T00", "").Taken) {
			got = append(got, id)
		}
		slices.Sort(got)
		require.Equal(t, c.want, strings.Join(got, " "), "%+v", c.keep)
	}
	kept := snapshot.Choose(snapshot.Keep{Last: 1}, append(all, at("2031-02-03T00", "a")), at("2025-02-04T00", "").Taken)
	require.Equal(t, []string{"of a time to come"}, kept["2031-02-03T00a"], "a clock was wrong")
	require.Equal(t, []string{"last"}, kept["2025-02-03T01a"])
}

// Against a model: over random growth, snapshots, prunes, deletes and kills in between, the snapshots that there are are those
// of the model, each restores to what it was made of, and after a day without a Create the bucket holds no file that none of
// them needs.
func TestPruneAgainstModel(t *testing.T) {
	for seed := range uint64(12) {
		synctest.Test(t, func(t *testing.T) {
			src, b := newSource(t, seed), newMemory()
			random := rand.New(rand.NewPCG(seed, 2))
			o := src.options(b)
			type copied struct {
				listed snapshot.Listed
				tree   map[string]string
			}
			var model []copied
			for range 40 {
				advance(time.Duration(1+random.IntN(40)) * time.Hour)
				s := open(t, o)
				switch random.IntN(6) {
				case 0:
					src.grow()
				case 1:
					src.shrink()
				case 2, 3:
					m, _, err := s.Create(t.Context(), nil)
					require.NoError(t, err)
					model = append(model, copied{snapshot.Listed{ID: m.ID, Taken: m.Taken, Incarnation: m.Incarnation}, tree(t, src.dir)})
				case 4:
					// A Create that is killed.
					src.grow()
					ctx, kill := context.WithCancel(t.Context())
					stop := b.calls + 1 + random.IntN(12)
					b.plan = func(c call) fault {
						if c.number < stop {
							return none
						}
						kill()
						return before
					}
					_, _, err := s.Create(ctx, nil)
					require.Error(t, err)
					b.plan = nil
					kill()
				case 5:
					keep := snapshot.Keep{Last: 1 + random.IntN(3), Daily: random.IntN(3), Monthly: random.IntN(2)}
					var all []snapshot.Listed
					for _, c := range model {
						all = append(all, c.listed)
					}
					kept := snapshot.Choose(keep, all, time.Now())
					dry, err := s.Prune(t.Context(), keep, true)
					require.NoError(t, err)
					model = slices.DeleteFunc(model, func(c copied) bool { return kept[c.listed.ID] == nil })
					before := len(b.names("varve/files/"))
					r, err := s.Prune(t.Context(), keep, false)
					require.NoError(t, err)
					require.Equal(t, dry.RemovedFiles, r.RemovedFiles)
					require.Equal(t, dry.Removed, r.Removed)
					require.Equal(t, before-r.RemovedFiles, len(b.names("varve/files/")))
					require.Equal(t, len(kept), len(r.Kept))
				}
				list, err := s.List(t.Context())
				require.NoError(t, err)
				require.Len(t, list, len(model))
				for i, c := range model {
					require.Equal(t, c.listed.ID, list[i].ID)
					_, err := s.Verify(t.Context(), c.listed.ID, snapshot.VerifyOptions{}, nil)
					require.NoError(t, err)
				}
			}
			s := open(t, o)
			for _, c := range model {
				require.Equal(t, c.tree, restored(t, s, c.listed.ID))
			}
			advance(49 * time.Hour)
			if len(model) > 0 {
				_, err := s.Prune(t.Context(), snapshot.Keep{Last: 1000}, false)
				require.NoError(t, err)
			}
			needed := map[string]bool{}
			for _, c := range model {
				m, err := s.Get(t.Context(), c.listed.ID)
				require.NoError(t, err)
				for _, f := range m.Files {
					needed[fmt.Sprintf("varve/files/%s/%s", f.SHA256.String()[:2], f.SHA256)] = true
				}
			}
			if len(model) > 0 {
				require.Len(t, b.names("varve/files/"), len(needed))
				require.Empty(t, b.names("varve/uploads/"))
			}
		})
	}
}

// Nothing is removed while a manifest can't be read, nor while a claim can't; rules that keep nothing are refused; a dry run
// writes nothing; objects that Varve didn't write stay.
func TestPruneRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, b := newSource(t, 1), newMemory()
		s := open(t, src.options(b))
		var ids []string
		for range 3 {
			m, _, err := s.Create(t.Context(), nil)
			require.NoError(t, err)
			ids = append(ids, m.ID)
			src.shrink()
			src.grow()
			advance(48 * time.Hour)
		}
		_, err := s.Prune(t.Context(), snapshot.Keep{}, false)
		require.ErrorIs(t, err, snapshot.ErrKeep)
		objects := b.names("")
		r, err := s.Prune(t.Context(), snapshot.Keep{Last: 1}, true)
		require.NoError(t, err)
		require.Len(t, r.Removed, 2)
		require.Positive(t, r.RemovedFiles)
		require.Equal(t, objects, b.names(""))

		object := "varve/snapshots/" + ids[1] + ".json"
		whole := b.objects[object].content
		b.change(object, damages["a flipped bit"])
		_, err = s.Prune(t.Context(), snapshot.Keep{Last: 1}, false)
		require.ErrorContains(t, err, object)
		require.Equal(t, objects, b.names(""))
		b.change(object, func([]byte) []byte { return whole })

		broken := "varve/uploads/" + snapshot.NewID(time.Now()) + ".json"
		b.objects[broken] = object_("{", time.Now())
		r, err = s.Prune(t.Context(), snapshot.Keep{Last: 1}, false)
		require.ErrorContains(t, err, broken)
		require.Empty(t, r.Removed, "what would have gone, and has not")
		require.Subset(t, b.names(""), objects)

		// Half written claims don't last for ever.
		advance(25 * time.Hour)
		b.objects["varve/files/README"] = object_("mine", time.Now())
		advance(25 * time.Hour)
		r, err = s.Prune(t.Context(), snapshot.Keep{Last: 1}, false)
		require.NoError(t, err)
		require.Equal(t, []string{"varve/files/README"}, r.Foreign)
		require.Contains(t, b.names(""), "varve/files/README")
		require.NotContains(t, b.names(""), broken)
		list, err := s.List(t.Context())
		require.NoError(t, err)
		require.Len(t, list, 1)
		require.Equal(t, 1, s.Status().Snapshots)
	})
}

func object_(content string, modified time.Time) object { return object{[]byte(content), modified} }

// Delete removes the snapshots that it is given, and no file that another needs.
func TestDelete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, b := newSource(t, 1), newMemory()
		s := open(t, src.options(b))
		first, _, err := s.Create(t.Context(), nil)
		require.NoError(t, err)
		src.grow()
		second, _, err := s.Create(t.Context(), nil)
		require.NoError(t, err)
		r, err := s.Delete(t.Context(), []string{second.ID}, true)
		require.NoError(t, err)
		require.Equal(t, 2, r.YoungFiles)
		require.Zero(t, r.RemovedFiles)
		advance(25 * time.Hour)
		_, err = s.Delete(t.Context(), []string{first.ID, snapshot.NewID(time.Now())}, false)
		require.ErrorIs(t, err, snapshot.ErrNotFound)
		r, err = s.Delete(t.Context(), []string{second.ID}, false)
		require.NoError(t, err)
		require.Equal(t, 2, r.RemovedFiles)
		_, err = s.Verify(t.Context(), first.ID, snapshot.VerifyOptions{Contents: true}, nil)
		require.NoError(t, err)
		_, err = s.Get(t.Context(), second.ID)
		require.ErrorIs(t, err, snapshot.ErrNotFound)
	})
}

// A prune that is killed at each call of the bucket leaves snapshots that are whole, and the next one finishes.
func TestPruneKilledAtEveryCall(t *testing.T) {
	for n, reached := 1, true; reached; n++ {
		synctest.Test(t, func(t *testing.T) {
			src, b := newSource(t, 1), newMemory()
			o := src.options(b)
			s := open(t, o)
			for range 3 {
				_, _, err := s.Create(t.Context(), nil)
				require.NoError(t, err)
				src.shrink()
				src.grow()
				advance(30 * time.Hour)
			}
			ctx, kill := context.WithCancel(t.Context())
			first := b.calls
			b.plan = func(c call) fault {
				if c.number < first+n {
					return none
				}
				kill()
				if c.number == first+n {
					return after
				}
				return before
			}
			_, _ = s.Prune(ctx, snapshot.Keep{Last: 1}, false)
			reached = b.calls >= first+n
			kill()
			b.plan = nil
			list, err := s.List(t.Context())
			require.NoError(t, err)
			require.NotEmpty(t, list)
			for _, l := range list {
				_, err := s.Verify(t.Context(), l.ID, snapshot.VerifyOptions{Contents: true}, nil)
				require.NoError(t, err)
			}
			// A new process doesn't wait for the one that was killed.
			s = open(t, o)
			began := time.Now()
			_, _, err = s.Create(t.Context(), nil)
			require.NoError(t, err)
			require.Zero(t, time.Since(began))
			_, err = s.Prune(t.Context(), snapshot.Keep{Last: 1}, false)
			require.NoError(t, err)
			list, err = s.List(t.Context())
			require.NoError(t, err)
			require.Len(t, list, 1)
		})
	}
}

// Creates and prunes of several processes at once, over and over, with old snapshots whose files come back: whatever their
// calls' order, each snapshot that is listed at the end is whole, and so is each that a Create said it made and no prune removed.
func TestCreateBesidePrune(t *testing.T) {
	for seed := range uint64(60) {
		lag := time.Duration(seed%3) * 400 * time.Millisecond
		synctest.Test(t, func(t *testing.T) {
			src, b := newSource(t, seed), newMemory()
			var random sync.Mutex
			r := rand.New(rand.NewPCG(seed, 3))
			dice := func(n int) int {
				random.Lock()
				defer random.Unlock()
				return r.IntN(n)
			}
			was := tree(t, src.dir)
			o := src.options(b)
			_, _, err := open(t, o).Create(t.Context(), nil)
			require.NoError(t, err)
			for range 4 {
				src.shrink()
			}
			advance(48 * time.Hour)
			_, _, err = open(t, o).Create(t.Context(), nil)
			require.NoError(t, err)
			advance(48 * time.Hour)
			// The old files are the source again: a Create wants what a prune removes.
			for path, content := range was {
				writeFile(t, filepath.Join(src.dir, path), content)
			}
			// Each call takes its time, and listings lag behind.
			slow := &slowly{memory: b, wait: func() { advance(time.Duration(dice(300)) * time.Millisecond) }}
			b.hidden = func(name string) bool {
				return !strings.HasPrefix(name, "varve/files/") && time.Since(b.modified(name)) < lag
			}
			var wait sync.WaitGroup
			for range 2 {
				mine := src.options(slow)
				wait.Go(func() {
					advance(time.Duration(dice(3000)) * time.Millisecond)
					s := open(t, mine)
					for range 2 {
						_, _, err := s.Create(t.Context(), nil)
						assert.NoError(t, err)
					}
				})
				other := mine
				other.Scratch = ""
				other.Settle = 2*lag + time.Second
				wait.Go(func() {
					advance(time.Duration(dice(3000)) * time.Millisecond)
					s := open(t, other)
					for range 2 {
						_, err := s.Prune(t.Context(), snapshot.Keep{Last: 1}, false)
						if !errors.Is(err, snapshot.ErrNotFound) { // the other one took what this one had listed, which might need any file
							assert.NoError(t, err)
						}
					}
				})
			}
			wait.Wait()
			b.hidden = nil
			s := open(t, o)
			list, err := s.List(t.Context())
			require.NoError(t, err)
			require.NotEmpty(t, list)
			for _, l := range list {
				_, err := s.Verify(t.Context(), l.ID, snapshot.VerifyOptions{Contents: true}, nil)
				require.NoError(t, err, "seed %d", seed)
			}
		})
	}
}

// A Create and a Prune that begin at the same moment, where listings lag by a second and removing takes long: neither can see the
// other's claim, so that all depends on Prune looking again later.
func TestPruneSettles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, b := newSource(t, 1), newMemory()
		o := src.options(b)
		was := tree(t, src.dir)
		for range 2 {
			_, _, err := open(t, o).Create(t.Context(), nil)
			require.NoError(t, err)
			for range 4 {
				src.shrink()
			}
			advance(48 * time.Hour)
		}
		for path, content := range was {
			writeFile(t, filepath.Join(src.dir, path), content)
		}
		const lag = time.Second
		b.hidden = func(name string) bool {
			return !strings.HasPrefix(name, "varve/files/") && time.Since(b.modified(name)) < lag
		}
		other := src.options(&tardy{b})
		other.Scratch, other.Settle = "", 2*lag
		var wait sync.WaitGroup
		wait.Go(func() {
			_, err := open(t, other).Prune(t.Context(), snapshot.Keep{Last: 1}, false)
			assert.NoError(t, err)
		})
		wait.Go(func() {
			_, _, err := open(t, o).Create(t.Context(), nil)
			assert.NoError(t, err)
		})
		wait.Wait()
		b.hidden = nil
		s := open(t, o)
		list, err := s.List(t.Context())
		require.NoError(t, err)
		require.Len(t, list, 2)
		for _, l := range list {
			_, err := s.Verify(t.Context(), l.ID, snapshot.VerifyOptions{}, nil)
			require.NoError(t, err)
		}
	})
}

// A Prune between the last look that a Create takes and its manifest finds the claim, and spares the files.
func TestPruneBeforeManifest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, b := newSource(t, 1), newMemory()
		o := src.options(b)
		was := tree(t, src.dir)
		for range 2 {
			_, _, err := open(t, o).Create(t.Context(), nil)
			require.NoError(t, err)
			for range 4 {
				src.shrink()
			}
			advance(48 * time.Hour)
		}
		for path, content := range was {
			writeFile(t, filepath.Join(src.dir, path), content)
		}
		pruned := false
		o.Bucket = &hooked{b, func(name string) {
			if !strings.HasPrefix(name, "varve/snapshots/") || pruned {
				return
			}
			pruned = true
			other := src.options(b)
			r, err := open(t, other).Prune(t.Context(), snapshot.Keep{Last: 1}, false)
			require.NoError(t, err)
			require.Len(t, r.Removed, 1)
			require.Positive(t, r.ClaimedFiles)
			require.Zero(t, r.RemovedFiles)
		}}
		s := open(t, o)
		m, _, err := s.Create(t.Context(), nil)
		require.NoError(t, err)
		require.True(t, pruned)
		require.Equal(t, was, restored(t, s, m.ID))
	})
}

// hooked is a bucket that calls a func before each upload.
type hooked struct {
	*memory
	upload func(name string)
}

func (b *hooked) Upload(ctx context.Context, name string, r io.Reader, o ...objstore.ObjectUploadOption) error {
	b.upload(name)
	return b.memory.Upload(ctx, name, r, o...)
}

// tardy is a bucket in which removing takes long.
type tardy struct{ *memory }

func (b *tardy) Delete(ctx context.Context, name string) error {
	advance(500 * time.Millisecond)
	return b.memory.Delete(ctx, name)
}

// A Create waits for a prune that is about to remove a file it needs, and for no other; one whose process is gone is waited for
// as long as its claim is good, and then the Create goes on without being told.
func TestCreateWaitsForPrune(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, b := newSource(t, 1), newMemory()
		o := src.options(b)
		o.Patience = 3 * time.Hour
		s := open(t, o)
		m, _, err := s.Create(t.Context(), nil)
		require.NoError(t, err)
		other := open(t, src.options(b))
		require.NoError(t, other.Claim(t.Context(), "prune", snapshot.NewID(time.Now()), []snapshot.Sum{{1}}))
		began := time.Now()
		_, _, err = s.Create(t.Context(), nil)
		require.NoError(t, err)
		require.Zero(t, time.Since(began))

		require.NoError(t, other.Claim(t.Context(), "prune", snapshot.NewID(time.Now()), []snapshot.Sum{m.Files[0].SHA256}))
		_, _, err = s.Create(t.Context(), nil)
		require.NoError(t, err)
		require.InDelta(t, time.Hour, time.Since(began), float64(time.Minute))

		began = time.Now()
		require.NoError(t, other.Claim(t.Context(), "prune", snapshot.NewID(time.Now()), []snapshot.Sum{m.Files[0].SHA256}))
		o.Patience = 10 * time.Minute
		_, _, err = open(t, o).Create(t.Context(), nil)
		require.ErrorIs(t, err, snapshot.ErrBusy)
		require.InDelta(t, 10*time.Minute, time.Since(began), float64(time.Minute))
	})
}
