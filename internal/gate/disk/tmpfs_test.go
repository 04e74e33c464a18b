package disk_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"varve/internal/gate/server"
)

// envInside is set in the environment of a test that runs in namespaces of its own.
const envInside = "GATE_DISK_INSIDE"

// mount mounts a tmpfs and removes it with the test. It returns false where the
// test was run completely in namespaces of its own instead, for want of the right
// to mount.
func mount(t *testing.T, bytesMax int64) (dir string, here bool) {
	t.Helper()
	dir = t.TempDir()
	err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", bytesMax))
	if errors.Is(err, unix.EPERM) && os.Getenv(envInside) == "" {
		runInside(t)
		return "", false
	}
	if errors.Is(err, unix.EPERM) {
		server.Lacking(t, "no right to mount a tmpfs, not even in a user namespace: run it as root")
	}
	require.NoError(t, err)
	// Registered after t.TempDir, so it is unmounted before that is removed.
	t.Cleanup(func() { require.NoError(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	return dir, true
}

// runInside runs the same test as root of a new user namespace.
func runInside(t *testing.T) {
	t.Helper()
	unshare, err := exec.LookPath("unshare")
	if err != nil {
		server.Lacking(t, "no right to mount a tmpfs, and no unshare: run it as root")
	}
	cmd := exec.Command(unshare, "-Urm", os.Args[0], "-test.v", "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), envInside+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil && bytes.Contains(out, []byte("unshare failed")) {
		server.Lacking(t, "no right to mount a tmpfs, and no user namespaces: run it as root")
	}
	t.Logf("in namespaces of its own:\n%s", out)
	require.NoError(t, err)
}

// ballast is a file that takes the space of a disk.
type ballast struct{ path string }

// fill grows the ballast until not more than leave bytes are free.
func (b ballast) fill(leave int64) (err error) {
	f, err := os.OpenFile(b.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for {
		left, err := free(filepath.Dir(b.path))
		if err != nil || left <= leave {
			return err
		}
		_, err = f.Write(make([]byte, min(left-leave, 1<<20)))
		if errors.Is(err, unix.ENOSPC) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// remove gives the space back.
func (b ballast) remove(t *testing.T) {
	t.Helper()
	require.NoError(t, os.Remove(b.path))
}

// free is the number of bytes free on the disk of a directory.
func free(dir string) (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, fmt.Errorf("statfs %s: %w", dir, err)
	}
	return int64(s.Bavail) * s.Bsize, nil
}
