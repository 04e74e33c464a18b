package blocks

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzMeta shows that any meta.json is read or refused, and that what is read makes a block with sane times and labels.
func FuzzMeta(f *testing.F) {
	f.Add([]byte(`{"ulid":"01BKGV7JBM69T2G1BGBGM6KB12","minTime":1,"maxTime":2,"version":1,"compaction":{"level":1,"sources":["01BKGV7JBM69T2G1BGBGM6KB12"]}}`))
	f.Add([]byte(`{"ulid":"01BKGV7JBM69T2G1BGBGM6KB12","version":1,"thanos":{"labels":{"a":"b"},"downsample":{"resolution":300000},"files":[{"rel_path":"index","size_bytes":5}]}}`))
	f.Add([]byte(`{"version":1}`))
	f.Add([]byte(`{`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		b, err := newBlock(raw)
		if err != nil {
			return
		}
		require.LessOrEqual(t, b.meta.MinTime, b.maxMillis())
		require.Equal(t, len(b.meta.Thanos.Labels), b.external.Len())
		require.Empty(t, superseded([]*block{b}))
	})
}
