package rocks_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"varve/rocks"
)

// Shows that Get uses the room in dst, makes more where there is too little and
// tells an empty value from none.
func TestGet(t *testing.T) {
	db := open(t, t.TempDir(), options())
	long := strings.Repeat("long", 1000)
	write(t, db, func(b *rocks.Batch) {
		b.Put(meta, []byte("empty"), nil)
		b.Put(meta, []byte("short"), []byte("value"))
		b.Put(meta, []byte("long"), []byte(long))
	})
	for range 2 {
		dst := make([]byte, 2, 5)
		v, found, err := db.Get(meta, []byte("short"), dst)
		require.NoError(t, err)
		require.True(t, found)
		require.Equal(t, "value", string(v))
		require.Same(t, &dst[0], &v[0])

		got, found := get(t, db, meta, "long")
		require.True(t, found)
		require.Equal(t, long, got)
		v, _, err = db.Get(meta, []byte("long"), dst)
		require.NoError(t, err)
		require.Equal(t, long, string(v))

		got, found = get(t, db, meta, "empty")
		require.True(t, found)
		require.Empty(t, got)
		_, found = get(t, db, meta, "missing")
		require.False(t, found)
		_, found = get(t, db, raw, "short")
		require.False(t, found)
		require.NoError(t, db.Flush())
	}
	_, _, err := db.Get(rocks.Family(9), []byte("a"), nil)
	require.ErrorContains(t, err, "no family 9")
}

// Shows that MultiGet answers every key in the order given, also unsorted,
// repeated and beyond the size of one engine call, and stops at the callback's
// error.
func TestMultiGet(t *testing.T) {
	db := open(t, t.TempDir(), options())
	const n = 3000
	write(t, db, func(b *rocks.Batch) {
		for i := range uint64(n) {
			if i%3 != 0 {
				b.Put(raw, key(i), fmt.Appendf(nil, "value %d", i))
			}
		}
	})
	var keys [][]byte
	for i := range uint64(n) {
		keys = append(keys, key(i*7919%n))
	}
	keys = append(keys, keys[1], keys[1], nil)
	for range 2 {
		next := 0
		require.NoError(t, db.MultiGet(raw, keys, func(i int, value []byte, found bool) error {
			require.Equal(t, next, i)
			next++
			want, ok, err := db.Get(raw, keys[i], nil)
			require.NoError(t, err)
			require.Equal(t, ok, found)
			require.Equal(t, string(want), string(value))
			return nil
		}))
		require.Equal(t, len(keys), next)
		require.NoError(t, db.Flush())
	}
	stop := errors.New("stop")
	calls := 0
	require.Equal(t, stop, db.MultiGet(raw, keys, func(int, []byte, bool) error { calls++; return stop }))
	require.Equal(t, 1, calls)
	require.NoError(t, db.MultiGet(raw, nil, nil))
}

// Shows that a snapshot does not see what is written, deleted, flushed or
// compacted after it, through any way of reading, and that an iterator outlives
// its snapshot.
func TestSnapshot(t *testing.T) {
	db := open(t, t.TempDir(), options())
	write(t, db, func(b *rocks.Batch) {
		b.Put(meta, []byte("a"), []byte("old"))
		b.Put(meta, []byte("b"), []byte("old"))
	})
	s := db.NewSnapshot()
	write(t, db, func(b *rocks.Batch) {
		b.Put(meta, []byte("a"), []byte("new"))
		b.DeleteRange(meta, []byte("b"), []byte("c"))
		b.Put(meta, []byte("d"), []byte("new"))
	})
	require.NoError(t, db.Flush())
	require.NoError(t, db.CompactRange(meta, nil, nil))
	require.Equal(t, []string{"a=new", "d=new"}, text(t, db, meta, rocks.IterOptions{}))
	require.Equal(t, []string{"a=old", "b=old"}, text(t, db, meta, rocks.IterOptions{Snapshot: s}))
	v, found, err := s.Get(meta, []byte("a"), nil)
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, "old", string(v))
	var got []string
	require.NoError(t, s.MultiGet(meta, [][]byte{[]byte("d"), []byte("b")}, func(_ int, v []byte, found bool) error {
		got = append(got, fmt.Sprint(string(v), found))
		return nil
	}))
	require.Equal(t, []string{"false", "oldtrue"}, got)

	require.Equal(t, 1, db.State().LiveSnapshots)
	require.False(t, db.State().OldestSnapshot.IsZero())
	it := db.NewIterator(meta, rocks.IterOptions{Snapshot: s})
	s.Release()
	s.Release()
	require.Equal(t, 1, db.State().LiveSnapshots, "the iterator holds it")
	require.NoError(t, db.CompactRange(meta, nil, nil))
	it.SeekToFirst()
	require.Equal(t, "old", string(it.Value()))
	it.Close()
	require.Zero(t, db.State().LiveSnapshots)

	_, _, err = s.Get(meta, []byte("a"), nil)
	require.ErrorIs(t, err, rocks.ErrClosed)
	late := db.NewIterator(meta, rocks.IterOptions{Snapshot: s})
	defer late.Close()
	late.SeekToFirst()
	require.False(t, late.Valid())
	require.ErrorIs(t, late.Err(), rocks.ErrClosed)
}

// Shows moves in both directions inside bounds, the meaning of both bounds and
// that moves which lead nowhere are harmless.
func TestIterator(t *testing.T) {
	db := open(t, t.TempDir(), options())
	write(t, db, func(b *rocks.Batch) {
		for _, k := range []string{"a", "b", "c", "d", "e"} {
			b.Put(raw, []byte(k), []byte("v"+k))
		}
		b.Delete(raw, []byte("d"))
	})
	for range 2 {
		lower, upper := []byte("b"), []byte("e")
		it := db.NewIterator(raw, rocks.IterOptions{Lower: lower, Upper: upper, ReadaheadBytes: 1 << 20, NoFillCache: true})
		lower[0], upper[0] = 'z', 'z'
		at := func(want string) {
			t.Helper()
			if want == "" {
				require.False(t, it.Valid())
				require.Nil(t, it.Key())
				require.Nil(t, it.Value())
			} else {
				require.True(t, it.Valid())
				require.Equal(t, want, string(it.Key()))
				require.Equal(t, "v"+want, string(it.Value()))
			}
			require.NoError(t, it.Err())
		}
		at("")
		it.Next()
		at("")
		it.SeekToFirst()
		at("b")
		it.Next()
		at("c")
		it.Prev()
		at("b")
		it.Prev()
		at("")
		it.Prev()
		it.Next()
		at("")
		it.SeekToLast()
		at("c")
		it.Next()
		at("")
		it.Seek([]byte("a"))
		at("b")
		it.Seek([]byte("bb"))
		at("c")
		it.Seek([]byte("d"))
		at("")
		it.SeekForPrev([]byte("zz"))
		at("c")
		it.SeekForPrev([]byte("bb"))
		at("b")
		it.SeekForPrev([]byte("a"))
		at("")
		it.Seek(nil)
		at("b")
		it.Close()
		it.Close()
		require.False(t, it.Valid())
		it.SeekToFirst()
		require.False(t, it.Valid())
		require.ErrorIs(t, it.Err(), rocks.ErrClosed)
		require.NoError(t, db.Flush())
	}
	empty := db.NewIterator(raw, rocks.IterOptions{Lower: []byte("x"), Upper: []byte("b")})
	defer empty.Close()
	empty.SeekToFirst()
	require.False(t, empty.Valid())
	require.NoError(t, empty.Err())

	unknown := db.NewIterator(rocks.Family(7), rocks.IterOptions{})
	defer unknown.Close()
	unknown.SeekToFirst()
	require.False(t, unknown.Valid())
	require.ErrorContains(t, unknown.Err(), "no family 7")
}
