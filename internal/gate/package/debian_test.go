package packages_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"varve/internal/gate/server"
)

// release is the Debian that packages are made for.
const release = "bookworm"

// envLong asks for the tests that take minutes, or a Debian of their own.
const envLong = "VARVE_LONG"

// long ends the test unless the long ones were asked for.
func long(t testing.TB) {
	t.Helper()
	if os.Getenv(envLong) == "" {
		t.Skipf("SKIPPED: %s is tried with %s=1 make gate", t.Name(), envLong)
	}
}

// debian is a Debian in a folder, that a test may change.
type debian struct {
	t    testing.TB
	root string
	// others are the files that have the product's name before there is a package.
	others []string
}

// newDebian returns a clean Debian in long tests, and else the machine's own one, of which the test gets a view that takes
// its changes and goes with it. The latter takes no time and needs no mirror, but has the libraries already.
func newDebian(t testing.TB, file string) *debian {
	t.Helper()
	if os.Getenv(envLong) != "" {
		return cleanDebian(t, file)
	}
	asRoot(t)
	need(t, "dpkg", "chroot", "unshare")
	dir := t.TempDir()
	// What is laid over a file system can't be a folder in it.
	require.NoError(t, unix.Mount("varve-gate", dir, "tmpfs", 0, "mode=755"))
	t.Cleanup(func() { require.NoError(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	d := &debian{t: t, root: filepath.Join(dir, "root")}
	for _, name := range []string{"root", "upper", "work"} {
		require.NoError(t, os.Mkdir(filepath.Join(dir, name), 0o755))
	}
	if err := unix.Mount("overlay", d.root, "overlay", 0, "lowerdir=/,upperdir="+dir+"/upper,workdir="+dir+"/work"); err != nil {
		server.Lacking(t, "the machine's root can't be laid under a view of it: %v", err)
	}
	t.Cleanup(func() { require.NoError(t, unix.Unmount(d.root, unix.MNT_DETACH)) })
	// Devices are mounts of their own, and below /run is what says that a systemd runs.
	if err := unix.Mknod(d.path("dev/null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); !errors.Is(err, os.ErrExist) {
		require.NoError(t, err)
	}
	require.NoError(t, os.RemoveAll(d.path("run/systemd")))
	// The index of the machine's manual pages would be made again each time.
	require.NoError(t, os.RemoveAll(d.path("usr/bin/mandb")))
	d.hasten()
	d.others = d.files()
	return d
}

// hasten keeps dpkg from syncing what nobody will need after the test.
func (d *debian) hasten() {
	d.t.Helper()
	require.NoError(d.t, os.WriteFile(d.path("etc/dpkg/dpkg.cfg.d/gate"), []byte("force-unsafe-io\n"), 0o644))
}

func asRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		server.Lacking(t, "only root can install packages in a Debian of their own")
	}
}

// cleanDebian unpacks a Debian for the test alone, with systemd, and with the packages that ours needs downloaded and not
// installed, so that apt finds them without a network.
func cleanDebian(t testing.TB, file string) *debian {
	t.Helper()
	asRoot(t)
	need(t, "tar", "chroot", "unshare")
	// Not below t.TempDir, of which a path is too long for the sockets in it.
	root, err := os.MkdirTemp("", "varve-debian-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(root)) })
	require.NoError(t, os.Chmod(root, 0o755))
	output(t, "tar", "-C", root, "-xf", tarball(t, strings.Fields(needed(t, file))))
	d := &debian{t: t, root: root}
	d.hasten()
	return d
}

// install installs a package: in a clean Debian with all that it needs.
func (d *debian) install(file string) {
	d.t.Helper()
	if os.Getenv(envLong) != "" {
		d.run("apt-get", "install", "--yes", "--no-install-recommends", file)
	} else {
		d.run("dpkg", "--install", file)
	}
}

// needed are the names of the packages that a package depends on.
func needed(t testing.TB, file string) string {
	t.Helper()
	return regexp.MustCompile(`\([^)]*\)|,|\|`).ReplaceAllString(output(t, "dpkg-deb", "-f", file, "Depends"), " ")
}

// tarball returns a Debian from the cache, which is made once for each set of packages: 20 to 40 s, and 320 MB.
func tarball(t testing.TB, packages []string) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	require.NoError(t, err)
	dir := filepath.Join(cache, "varve-debian")
	require.NoError(t, os.MkdirAll(dir, 0o755))
	sum := sha256.Sum256([]byte(strings.Join(packages, " ")))
	path := filepath.Join(dir, fmt.Sprintf("%s-%s-%s.tar", release, runtime.GOARCH, hex.EncodeToString(sum[:4])))
	if _, err := os.Stat(path); err == nil {
		return path
	}
	need(t, "mmdebstrap", "apt-get", "apt-config")
	sources := mirrors(t)
	if sources == "" {
		server.Lacking(t, "the machine's apt knows no mirror of Debian %s, or was not updated: apt-get update", release)
	}
	made := path + fmt.Sprintf(".%d.tmp", os.Getpid())
	defer func() { _ = os.Remove(made) }()
	args := []string{
		"--quiet", "--variant=apt", "--include=systemd,systemd-sysv,dbus", "--skip=cleanup/apt", "--format=tar",
		"--customize-hook=rm -f \"$1\"/var/cache/apt/archives/*.deb",
		"--customize-hook=APT_CONFIG=\"$MMDEBSTRAP_APT_CONFIG\" apt-get install --yes --quiet --no-install-recommends --download-only " + strings.Join(packages, " "),
	}
	for line := range strings.Lines(output(t, "apt-config", "dump", "--no-empty")) {
		if proxy := strings.TrimSpace(line); regexp.MustCompile(`^Acquire::https?::Proxy `).MatchString(proxy) {
			args = append(args, "--aptopt="+proxy)
		}
	}
	cmd := exec.Command("mmdebstrap", append(args, release, made, "-")...)
	cmd.Stdin = strings.NewReader(sources)
	if out, err := cmd.CombinedOutput(); err != nil {
		server.Lacking(t, "no Debian %s could be made: %v\n%s", release, err, out)
	}
	require.NoError(t, os.Rename(made, path))
	return path
}

// mirrors are the lines of a sources.list with what the machine itself takes the release from.
func mirrors(t testing.TB) string {
	t.Helper()
	var b strings.Builder
	seen := map[string]bool{}
	for line := range strings.Lines(output(t, "apt-get", "indextargets", "--format", "$(ORIGIN)|$(CREATED_BY)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)")) {
		f := strings.Split(strings.TrimSpace(line), "|")
		if len(f) != 5 || f[0] != "Debian" || f[1] != "Packages" || !strings.HasPrefix(f[3], release) || seen[line] {
			continue
		}
		seen[line] = true
		fmt.Fprintf(&b, "deb %s %s %s\n", f[2], f[3], f[4])
	}
	return b.String()
}

// path is where a file of the Debian is for the test.
func (d *debian) path(name string) string { return filepath.Join(d.root, name) }

// quiet keeps maintainer scripts from asking.
var quiet = []string{"DEBIAN_FRONTEND=noninteractive", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8"}

// run runs a command in the Debian, without a network, and returns what it wrote.
func (d *debian) run(name string, args ...string) string {
	d.t.Helper()
	out, err := d.try(name, args...)
	require.NoError(d.t, err, "%s %s\n%s", name, strings.Join(args, " "), out)
	return out
}

func (d *debian) try(name string, args ...string) (string, error) {
	all := append([]string{"--net", "chroot", d.root, "/usr/bin/env"}, quiet...)
	out, err := exec.Command("unshare", append(append(all, name), args...)...).CombinedOutput()
	return string(out), err
}

// give puts a package into the Debian and returns its name there.
func (d *debian) give(file, name string) string {
	d.t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(d.t, err)
	require.NoError(d.t, os.WriteFile(d.path(name), text, 0o644))
	return name
}

// state is dpkg's word on the package, such as "install ok installed", or empty if it knows none.
func (d *debian) state() string {
	out, err := d.try("dpkg-query", "-W", "-f", "${Status}", "varve")
	if err != nil {
		return ""
	}
	return out
}

// remains are the files with the product's name below the folders that packages write to.
func (d *debian) remains() []string {
	d.t.Helper()
	return slices.DeleteFunc(d.files(), func(f string) bool { return slices.Contains(d.others, f) })
}

func (d *debian) files() []string {
	d.t.Helper()
	// Some of the folders may be missing, which find takes for a failure.
	out, _ := d.try("find", "/etc", "/lib/systemd", "/usr/bin", "/usr/lib/systemd", "/usr/share/doc", "/usr/share/man", "/usr/share/bash-completion",
		"/usr/share/zsh", "/usr/share/fish", "/usr/share/lintian", "/var/lib/systemd", "/var/lib/dpkg/info", "/var/lib/varve", "-xdev", "-name", "*varve*", "-print")
	var found []string
	for line := range strings.Lines(out) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "/") {
			found = append(found, line)
		}
	}
	return found
}
