//go:build !asan

package rocks_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"varve/rocks"
)

// Shows that walking and reading allocates nothing in Go. The address sanitizer
// does, so it is left out there.
func TestReadsDoNotAllocate(t *testing.T) {
	db := open(t, t.TempDir(), options())
	write(t, db, func(b *rocks.Batch) {
		for i := range uint64(3000) {
			b.Put(raw, key(i), key(i))
		}
	})
	it := db.NewIterator(raw, rocks.IterOptions{})
	defer it.Close()
	it.SeekToFirst()
	seek, dst := key(5), make([]byte, 8)
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		it.Next()
		if !it.Valid() || len(it.Key()) != 8 || len(it.Value()) != 8 || it.Err() != nil {
			panic("not at a key")
		}
	}))
	require.Zero(t, testing.AllocsPerRun(100, func() { it.Seek(seek) }))
	require.Zero(t, testing.AllocsPerRun(100, func() {
		if _, found, err := db.Get(raw, seek, dst); !found || err != nil {
			panic(err)
		}
	}))
}
