package rocks_test

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"varve/rocks"
)

// Shows that each kind of record of a batch built in Go does in RocksDB what it
// says, across families and in order, and that the log replays it alike.
func TestBatchRecords(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir, options())
	var b rocks.Batch
	b.Put(meta, []byte("a"), []byte("1"))
	b.Put(raw, []byte("a"), nil)
	b.PutParts(raw, []byte("b"), []byte("one "), nil, []byte("two"))
	b.Put(journal, key(1), bytes.Repeat([]byte("x"), 300))
	b.Put(journal, key(2), []byte("gone"))
	b.Put(journal, key(3), []byte("stays"))
	b.DeleteRange(journal, key(2), key(3))
	b.Put(meta, []byte("gone"), []byte("1"))
	b.Delete(meta, []byte("gone"))
	b.Delete(meta, []byte("a"))
	b.Put(meta, []byte("a"), []byte("2"))
	b.Put(meta, nil, []byte("the empty key"))
	require.Equal(t, 12, b.Len())
	require.NoError(t, db.Write(&b, true))
	require.EqualValues(t, 12, db.SequenceNumber(), "one sequence number a record")

	check := func(db *rocks.DB) {
		require.Equal(t, []string{"=the empty key", "a=2"}, text(t, db, meta, rocks.IterOptions{}))
		require.Equal(t, []string{"a=", "b=one two"}, text(t, db, raw, rocks.IterOptions{}))
		require.Equal(t, []string{
			string(key(1)) + "=" + string(bytes.Repeat([]byte("x"), 300)), string(key(3)) + "=stays",
		}, text(t, db, journal, rocks.IterOptions{}))
	}
	check(db)
	require.NoError(t, db.Close())
	db = open(t, dir, options())
	check(db)
	require.NoError(t, db.Flush())
	check(db)
}

// Shows that an empty batch is nothing to write, that Reset forgets everything and
// that a family nobody opened is refused before anything is written.
func TestBatchReset(t *testing.T) {
	db := open(t, t.TempDir(), options())
	var b rocks.Batch
	require.NoError(t, db.Write(&b, true))
	require.Zero(t, db.SequenceNumber())
	require.Equal(t, 12, b.Bytes())

	b.Put(meta, []byte("a"), []byte("1"))
	b.Put(rocks.Family(3), []byte("b"), []byte("1"))
	require.ErrorContains(t, db.Write(&b, true), "no family 3")
	b.Put(rocks.Family(200), []byte("b"), []byte("1"))
	require.ErrorContains(t, db.Write(&b, true), "family 200")
	require.Zero(t, db.SequenceNumber())

	b.Reset()
	require.Zero(t, b.Len())
	b.Put(meta, []byte("c"), []byte("1"))
	require.NoError(t, db.Write(&b, true))
	require.NoError(t, db.Write(&b, true), "a batch can be written again")
	require.Equal(t, []string{"c=1"}, text(t, db, meta, rocks.IterOptions{}))
}

// Shows that a range delete with its bounds the wrong way round deletes nothing and
// leaves no record, as RocksDB would refuse to replay one.
func TestBatchEmptyRange(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir, options())
	var b rocks.Batch
	b.Put(meta, []byte("b"), []byte("1"))
	b.DeleteRange(meta, []byte("c"), []byte("a"))
	b.DeleteRange(meta, []byte("b"), []byte("b"))
	require.Equal(t, 1, b.Len())
	require.NoError(t, db.Write(&b, true))
	require.NoError(t, db.Close())
	require.Equal(t, []string{"b=1"}, text(t, open(t, dir, options()), meta, rocks.IterOptions{}))
}

// Shows that a family keeps its data whatever its index in Options: the batch is
// translated when RocksDB's ids are in another order, also beyond one byte.
func TestBatchFamilyOrder(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir, options())
	write(t, db, func(b *rocks.Batch) {
		for f, spec := range families() {
			b.Put(rocks.Family(f), []byte("name"), []byte(spec.Name))
		}
	})
	require.NoError(t, db.Close())

	specs := families()
	slices.Reverse(specs)
	specs = slices.Insert(specs, 1, rocks.FamilySpec{Name: "late"})
	o := options()
	o.Families = specs
	for round := range 2 {
		db = open(t, dir, o)
		write(t, db, func(b *rocks.Batch) {
			for f, spec := range specs {
				b.Put(rocks.Family(f), fmt.Appendf(nil, "round %d", round), []byte(spec.Name))
				b.Put(rocks.Family(f), []byte("a"), []byte("gone"))
				b.Put(rocks.Family(f), []byte("b"), []byte("gone"))
				b.Delete(rocks.Family(f), []byte("a"))
				b.DeleteRange(rocks.Family(f), []byte("b"), []byte("c"))
			}
		})
		for f, spec := range specs {
			var want []string
			if spec.Name != "late" {
				want = append(want, "name="+spec.Name)
			}
			for r := range round + 1 {
				want = append(want, fmt.Sprintf("round %d=%s", r, spec.Name))
			}
			require.Equal(t, want, text(t, db, rocks.Family(f), rocks.IterOptions{}))
		}
		require.NoError(t, db.Close())
	}
}

// Shows by random lists of batches, flushes and reopenings that the database is
// the map that the records describe, for Get, MultiGet and iterators.
func TestBatchModel(t *testing.T) {
	defer requireNothingLive(t)
	rapid.Check(t, func(rt *rapid.T) {
		dir := t.TempDir()
		o := options()
		o.MemtableBytes = 64 << 10
		db, err := rocks.Open(dir, o)
		require.NoError(rt, err)
		defer func() { require.NoError(rt, db.Close()) }()
		model := map[rocks.Family]map[string]string{meta: {}, raw: {}, journal: {}}
		keys := rapid.SampledFrom([]string{"", "a", "a\x00", "aa", "b", "b\xff", "c", "d\x00\x00", "\xff", "\xff\xff"})
		var b rocks.Batch
		rt.Repeat(map[string]func(*rapid.T){
			"write": func(rt *rapid.T) {
				b.Reset()
				for range rapid.IntRange(0, 6).Draw(rt, "records") {
					f := rapid.SampledFrom([]rocks.Family{meta, raw, journal}).Draw(rt, "family")
					drawRecord(rt, &b, f, model[f], keys)
				}
				require.NoError(rt, db.Write(&b, rapid.Bool().Draw(rt, "sync")))
			},
			"flush":   func(rt *rapid.T) { require.NoError(rt, db.Flush()) },
			"compact": func(rt *rapid.T) { require.NoError(rt, db.CompactRange(raw, nil, nil)) },
			"reopen": func(rt *rapid.T) {
				require.NoError(rt, db.Close())
				db, err = rocks.Open(dir, o)
				require.NoError(rt, err)
			},
			"": func(rt *rapid.T) {
				for f, want := range model {
					requireModel(rt, db, f, want)
				}
			},
		})
	})
}

func drawRecord(rt *rapid.T, b *rocks.Batch, f rocks.Family, model map[string]string, keys *rapid.Generator[string]) {
	k := keys.Draw(rt, "key")
	switch rapid.IntRange(0, 3).Draw(rt, "record") {
	case 0, 1:
		v := rapid.StringN(0, 40, -1).Draw(rt, "value")
		b.PutParts(f, []byte(k), []byte(v[:len(v)/2]), []byte(v[len(v)/2:]))
		model[k] = v
	case 2:
		b.Delete(f, []byte(k))
		delete(model, k)
	case 3:
		upper := keys.Draw(rt, "upper")
		if upper < k {
			k, upper = upper, k
		}
		b.DeleteRange(f, []byte(k), []byte(upper))
		maps.DeleteFunc(model, func(s, _ string) bool { return s >= k && s < upper })
	}
}

func requireModel(rt *rapid.T, db *rocks.DB, f rocks.Family, want map[string]string) {
	it := db.NewIterator(f, rocks.IterOptions{})
	defer it.Close()
	got := map[string]string{}
	last := ""
	for it.SeekToFirst(); it.Valid(); it.Next() {
		require.True(rt, len(got) == 0 || last < string(it.Key()), "keys ascend")
		last = string(it.Key())
		got[last] = string(it.Value())
	}
	require.NoError(rt, it.Err())
	require.Equal(rt, want, got)
	var keys [][]byte
	for _, k := range []string{"b", "", "a", "zz", "\xff", "a"} {
		keys = append(keys, []byte(k))
	}
	require.NoError(rt, db.MultiGet(f, keys, func(i int, value []byte, found bool) error {
		v, ok := want[string(keys[i])]
		require.Equal(rt, ok, found)
		require.Equal(rt, v, string(value))
		value, found, err := db.Get(f, keys[i], make([]byte, 3))
		require.NoError(rt, err)
		require.Equal(rt, ok, found)
		require.Equal(rt, v, string(value))
		return nil
	}))
}
