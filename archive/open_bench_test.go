package archive_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/internal/testkit"
)

// BenchmarkOpen opens an archive that is empty, and closes it: what RocksDB and its families cost at the least.
func BenchmarkOpen(b *testing.B) {
	dir := testkit.MemoryDir(b)
	for b.Loop() {
		a, err := archive.Open(dir, testkit.Options())
		require.NoError(b, err)
		<-a.Started()
		require.NoError(b, a.Close())
	}
}
