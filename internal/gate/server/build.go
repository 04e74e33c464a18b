package server

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// EnvBinary names the environment variable with the path of a varve binary to
// be tested instead of one built from the checkout.
const EnvBinary = "VARVE_BINARY"

// EnvBuildFlags names the environment variable with further flags of go build,
// separated by spaces, such as -race.
const EnvBuildFlags = "VARVE_BUILD_FLAGS"

// builds remembers what this process built already, by build tag.
var builds = struct {
	sync.Mutex
	paths map[string]string
}{paths: map[string]string{}}

// Binary returns the path of a varve binary built from the checkout with the
// build tag, which may be empty. It is built once a test process, below the
// directory for temporary files of the caller's first request. EnvBinary
// replaces the build without a tag.
func Binary(t testing.TB, tag string) string {
	t.Helper()
	if path := os.Getenv(EnvBinary); path != "" && tag == "" {
		return path
	}
	builds.Lock()
	defer builds.Unlock()
	if path, ok := builds.paths[tag]; ok {
		return path
	}
	// Not t.TempDir: the binary outlives the test that asked for it first.
	dir, err := os.MkdirTemp("", "varve-gate-")
	if err != nil {
		t.Fatalf("make a directory for the binary: %v", err)
	}
	path := filepath.Join(dir, "varve")
	args := []string{"build", "-buildvcs=false", "-o", path}
	if tag != "" {
		args = append(args, "-tags", tag)
	}
	args = append(args, strings.Fields(os.Getenv(EnvBuildFlags))...)
	args = append(args, "./cmd/varve")
	cmd := exec.Command("go", args...)
	cmd.Dir = ModuleRoot(t)
	if out, err := cmd.CombinedOutput(); err != nil {
		_ = os.RemoveAll(dir)
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	builds.paths[tag] = path
	return path
}

// RemoveBinaries deletes what Binary built. It belongs at the end of TestMain.
func RemoveBinaries() {
	builds.Lock()
	defer builds.Unlock()
	for tag, path := range builds.paths {
		_ = os.RemoveAll(filepath.Dir(path))
		delete(builds.paths, tag)
	}
}

// ModuleRoot returns the directory of go.mod.
func ModuleRoot(t testing.TB) string {
	t.Helper()
	_, file, _, ok := runtime.Caller(0)
	if !ok {
		t.Fatal("find the module: the test binary carries no source paths")
	}
	for dir := filepath.Dir(file); dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
	}
	t.Fatalf("find the module: no go.mod above %s", file)
	return ""
}

// EnvStrict names the environment variable that, when 1, turns the loud skips of
// the gates into failures: for machines that ought to have everything.
const EnvStrict = "GATE_STRICT"

// Lacking ends the test because the machine lacks something. It skips, loudly,
// and fails where EnvStrict asks for that.
func Lacking(t testing.TB, format string, args ...any) {
	t.Helper()
	text := "GATE NOT RUN: " + fmt.Sprintf(format, args...)
	if os.Getenv(EnvStrict) == "1" {
		t.Fatal(text)
	}
	fmt.Fprintln(os.Stderr, text)
	t.Skip(text)
}
