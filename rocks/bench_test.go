package rocks_test

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"varve/rocks"
)

const benchKeys = 200_000

// benchDB holds benchKeys keys of 16 bytes with 128 byte values, flushed, in a
// family of each kind of reading.
func benchDB(b *testing.B) *rocks.DB {
	o := options()
	o.MemoryBytes = 512 << 20
	db := open(b, b.TempDir(), o)
	value := make([]byte, 128)
	rng := rand.NewChaCha8([32]byte{1})
	var batch rocks.Batch
	for i := range uint64(benchKeys) {
		_, err := rng.Read(value)
		require.NoError(b, err)
		batch.Put(meta, benchKey(i), value)
		batch.Put(raw, benchKey(i), value)
		if batch.Len() >= 10_000 {
			require.NoError(b, db.Write(&batch, false))
			batch.Reset()
		}
	}
	require.NoError(b, db.Write(&batch, false))
	require.NoError(b, db.Flush())
	require.NoError(b, db.CompactRange(meta, nil, nil))
	require.NoError(b, db.CompactRange(raw, nil, nil))
	return db
}

func benchKey(i uint64) []byte { return append(key(7), key(i)...) }

func BenchmarkGet(b *testing.B) {
	db := benchDB(b)
	var dst []byte
	b.ReportAllocs()
	k := benchKey(0)
	for b.Loop() {
		binary.BigEndian.PutUint64(k[8:], rand.Uint64N(benchKeys))
		v, found, err := db.Get(meta, k, dst)
		if err != nil || !found {
			b.Fatal(err, found)
		}
		dst = v
	}
}

func BenchmarkGetMissing(b *testing.B) {
	db := benchDB(b)
	b.ReportAllocs()
	k := append(benchKey(0), 1)
	for b.Loop() {
		binary.BigEndian.PutUint64(k[8:], rand.Uint64N(benchKeys))
		if _, found, err := db.Get(meta, k, nil); err != nil || found {
			b.Fatal(err, found)
		}
	}
}

func BenchmarkMultiGet100(b *testing.B) {
	for name, spread := range map[string]uint64{"neighbours": 1, "spread": 1999} {
		b.Run(name, func(b *testing.B) {
			db := benchDB(b)
			keys := make([][]byte, 100)
			for i := range keys {
				keys[i] = benchKey(0)
			}
			sum := 0
			each := func(_ int, v []byte, found bool) error {
				sum += len(v)
				return nil
			}
			b.ReportAllocs()
			for b.Loop() {
				at := rand.Uint64N(benchKeys)
				for i := range keys {
					binary.BigEndian.PutUint64(keys[i][8:], (at+uint64(i)*spread)%benchKeys)
				}
				if err := db.MultiGet(meta, keys, each); err != nil {
					b.Fatal(err)
				}
			}
			require.Equal(b, b.N*100*128, sum)
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*100), "ns/key")
		})
	}
}

func BenchmarkNext(b *testing.B) {
	db := benchDB(b)
	it := db.NewIterator(raw, rocks.IterOptions{})
	defer it.Close()
	b.ReportAllocs()
	sum := 0
	for b.Loop() {
		if !it.Valid() {
			it.SeekToFirst()
		}
		sum += len(it.Key()) + len(it.Value())
		it.Next()
	}
	require.NoError(b, it.Err())
	require.Equal(b, b.N*(16+128), sum)
}

func BenchmarkSeek(b *testing.B) {
	db := benchDB(b)
	it := db.NewIterator(raw, rocks.IterOptions{})
	defer it.Close()
	b.ReportAllocs()
	k := benchKey(0)
	for b.Loop() {
		binary.BigEndian.PutUint64(k[8:], rand.Uint64N(benchKeys))
		it.Seek(k)
		if !it.Valid() {
			b.Fatal(it.Err())
		}
	}
}

func BenchmarkNewIteratorSeekClose(b *testing.B) {
	db := benchDB(b)
	b.ReportAllocs()
	k := benchKey(0)
	upper := benchKey(benchKeys)
	for b.Loop() {
		binary.BigEndian.PutUint64(k[8:], rand.Uint64N(benchKeys))
		it := db.NewIterator(raw, rocks.IterOptions{Lower: k, Upper: upper})
		it.SeekToFirst()
		if !it.Valid() {
			b.Fatal(it.Err())
		}
		it.Close()
	}
}

// BenchmarkWrite30KiB is a commit of 300 records of 100 bytes, or of one record,
// without fsync.
func BenchmarkWrite30KiB(b *testing.B) {
	for name, records := range map[string]int{"300 records": 300, "1 record": 1} {
		b.Run(name, func(b *testing.B) {
			o := options()
			o.MemoryBytes = 512 << 20
			db := open(b, b.TempDir(), o)
			value := make([]byte, 30<<10/records-16)
			var batch rocks.Batch
			n := uint64(0)
			k := key(0)
			b.ReportAllocs()
			b.SetBytes(30 << 10)
			for b.Loop() {
				batch.Reset()
				for range records {
					n++
					binary.BigEndian.PutUint64(k, n)
					batch.Put(journal, k, value)
				}
				if err := db.Write(&batch, false); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkBatch is the building of such a batch alone.
func BenchmarkBatch(b *testing.B) {
	value := make([]byte, 84)
	var batch rocks.Batch
	k := key(0)
	b.ReportAllocs()
	for b.Loop() {
		batch.Reset()
		for range 300 {
			batch.Put(journal, k, value)
		}
	}
}
