package powercut_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"varve/internal/gate/powercut"
	"varve/internal/gate/server"
)

// program writes files by way of the C library, as the engine does, and syncs
// some of them: argv[1] is the directory.
const program = `
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static int make(const char *dir, const char *name, size_t bytes) {
  char path[4096], *data = malloc(bytes);
  snprintf(path, sizeof path, "%s/%s", dir, name);
  int fd = open(path, O_CREAT | O_WRONLY | O_APPEND, 0600);
  memset(data, 'x', bytes);
  if (fd < 0 || write(fd, data, bytes) != (ssize_t)bytes) exit(1);
  free(data);
  return fd;
}
int main(int argc, char **argv) {
  const char *dir = argv[1];
  int synced = make(dir, "synced", 5000), half = make(dir, "half", 5000), never = make(dir, "never", 5000);
  if (fdatasync(synced) || fsync(half)) return 1;
  int d = open(dir, O_RDONLY);
  if (fsync(d)) return 1;
  if (write(half, argv[0], 1) != 1 || ftruncate(half, 9000)) return 1;
  char from[4096], to[4096];
  if (fsync(make(dir, "beside", 100)) || fsync(make(dir, "temporary", 100))) return 1;
  snprintf(from, sizeof from, "%s/temporary", dir);
  snprintf(to, sizeof to, "%s/named", dir);
  if (rename(from, to)) return 1;
  int late = make(dir, "late", 100);
  if (fsync(late)) return 1;
  (void)never;
  return 0;
}
`

// build compiles the recorder and the program.
func build(t *testing.T) (*powercut.Recorder, string) {
	t.Helper()
	r, err := powercut.NewRecorder(t.TempDir())
	if errors.Is(err, powercut.ErrNoCompiler) {
		server.Lacking(t, "%v", err)
	}
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "program")
	cmd := exec.Command("gcc", "-x", "c", "-o", path, "-")
	cmd.Stdin = bytes.NewReader([]byte(program))
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return r, path
}

// TestCutLeavesWhatWasSynced shows that a cut keeps every synced byte, takes away
// unsynced ones, and lets files vanish whose directory saw neither a sync nor a rename since.
func TestCutLeavesWhatWasSynced(t *testing.T) {
	recorder, path := build(t)
	var removed, partly bool
	for seed := range uint64(32) {
		dir, log := t.TempDir(), filepath.Join(t.TempDir(), "log")
		cmd := exec.Command(path, dir)
		cmd.Env = append(os.Environ(), recorder.Env(dir, log)...)
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		unknown := filepath.Join(dir, "unknown")
		require.NoError(t, os.WriteFile(unknown, make([]byte, 77), 0o600))

		opts := powercut.Options{Random: rand.New(rand.NewPCG(seed, 0)), Exact: seed%4 == 0, Torn: seed%4 == 1}
		damage, err := powercut.Cut(dir, log, opts)
		require.NoError(t, err)
		require.Equal(t, 6, damage.Recorded)

		require.EqualValues(t, 5000, size(t, dir, "synced"))
		require.EqualValues(t, 77, size(t, dir, "unknown"))
		require.EqualValues(t, 100, size(t, dir, "beside"), "a file that was there before a rename")
		require.EqualValues(t, 100, size(t, dir, "named"))
		half := size(t, dir, "half")
		if opts.Exact {
			require.EqualValues(t, 5000, half)
			require.EqualValues(t, 0, size(t, dir, "never"))
		}
		require.GreaterOrEqual(t, half, int64(5000))
		require.LessOrEqual(t, half, int64(9000))
		partly = partly || half > 5000 && half < 9000
		data, err := os.ReadFile(filepath.Join(dir, "half"))
		require.NoError(t, err)
		require.Equal(t, bytes.Repeat([]byte("x"), 5000), data[:5000], "synced bytes were torn")
		if _, err := os.Stat(filepath.Join(dir, "late")); err != nil {
			require.ErrorIs(t, err, os.ErrNotExist)
			require.Equal(t, 1, damage.Removed)
			removed = true
		}
	}
	require.True(t, removed, "no draw removed the file whose directory was not synced")
	require.True(t, partly, "no draw kept a part of the unsynced bytes")
}

// TestCutWithoutRecordFails shows that a recorder which did not run is noticed:
// a power cut that changes nothing would pass every test.
func TestCutWithoutRecordFails(t *testing.T) {
	_, err := powercut.Cut(t.TempDir(), filepath.Join(t.TempDir(), "none"), powercut.Options{Random: rand.New(rand.NewPCG(1, 1))})
	require.ErrorIs(t, err, os.ErrNotExist)
}

func size(t *testing.T, dir, name string) int64 {
	t.Helper()
	info, err := os.Stat(filepath.Join(dir, name))
	require.NoError(t, err)
	return info.Size()
}
