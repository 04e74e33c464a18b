package config

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestSnapshots shows a section that is taken, with the file beside the configuration, and those that are not.
func TestSnapshots(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "bucket.yml"), []byte("type: FILESYSTEM\n"), 0o600))
	read := func(text string) (*Config, error) {
		file := filepath.Join(dir, "varve.yml")
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		return Read(file, nil)
	}
	c, err := read("snapshots: {objstore_config_file: bucket.yml, every: 1d, offset: 2h, keep: {daily: 7}, max_upload_rate: 10MiB}\n")
	require.NoError(t, err)
	require.Equal(t, filepath.Join(dir, "bucket.yml"), c.Snapshots.ObjstoreConfigFile)
	require.Equal(t, KeepSnapshots{Daily: 7}, c.Snapshots.Keep)
	require.Equal(t, 4, c.Snapshots.Parallel)
	for text, wanted := range map[string]string{
		"{objstore_config_file: none.yml}":                          "is not a file that can be read",
		"{every: 1d}":                                               "there is no objstore_config_file",
		"{objstore_config_file: bucket.yml, every: 1s}":             "out of bounds",
		"{objstore_config_file: bucket.yml, every: 1h, offset: 2h}": "snapshots.offset",
		"{objstore_config_file: bucket.yml, keep: {weekly: -1}}":    "snapshots.keep.weekly",
		"{objstore_config_file: bucket.yml, parallel: 0}":           "snapshots.parallel",
		"{objstore_config_file: bucket.yml, type: FILESYSTEM}":      "type",
	} {
		_, err := read("snapshots: " + text + "\n")
		require.ErrorContains(t, err, wanted, text)
	}
}

// TestLookBack shows that nothing comes in or goes out, whatever the file says.
func TestLookBack(t *testing.T) {
	c, err := parse([]byte(`
inputs: [{name: a, path: /a, influxdb: {}}]
outputs: [{name: b, remote_write: {url: "http://127.0.0.1:1/"}}]
retention: [{raw: 7d}]
retention_size: 1GiB
`), t.TempDir(), func(c *Config) error { c.LookBack("copy"); return nil })
	require.NoError(t, err)
	require.Empty(t, c.AllInputs())
	require.Empty(t, c.Outputs)
	require.Empty(t, c.Retention)
	require.Zero(t, c.RetentionSize)
	require.False(t, c.SelfScrape.Enabled)
	require.Equal(t, "copy", c.Storage.Path)
}
