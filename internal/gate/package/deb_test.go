package packages_test

import (
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"varve/internal/gate/server"
	"varve/internal/testkit/leaks"
)

// patience bounds what should take seconds: only something that hangs takes as long.
const patience = 5 * time.Minute

// built is a folder for packages, that all tests share.
var built string

func TestMain(m *testing.M) {
	var err error
	if built, err = os.MkdirTemp("", "varve-packages-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(built)
	server.RemoveBinaries()
	http.DefaultClient.CloseIdleConnections()
	if err := leaks.Find(); err != nil && code == 0 {
		os.Stderr.WriteString(err.Error())
		code = 1
	}
	os.Exit(code)
}

// need ends the test unless the programs are on this machine.
func need(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			server.Lacking(t, "there is no %s on the PATH", p)
		}
	}
}

// output runs a command and returns what it wrote to standard output. Any other end than 0 ends the test.
func output(t testing.TB, name string, args ...string) string {
	t.Helper()
	return outputOf(t, exec.Command(name, args...))
}

func outputOf(t testing.TB, cmd *exec.Cmd) string {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s%s", strings.Join(cmd.Args, " "), err, out.String(), errs.String())
	}
	return out.String()
}

// Versions of packages that upgrade each other. Any version of the product is between them.
const (
	versionOld = "0.0.1-1"
	versionNew = "1:9.9.9-1"
)

// deb returns a package of the version, made of the binary under test. It is not compressed, which takes long.
func deb(t testing.TB, version string) string {
	t.Helper()
	need(t, "dpkg-deb", "dpkg-shlibdeps", "strip", "go")
	dir := filepath.Join(built, strings.NewReplacer(":", "_").Replace(version))
	if found, _ := filepath.Glob(filepath.Join(dir, "*.deb")); len(found) == 1 {
		return found[0]
	}
	return buildDeb(t, dir, "DEB_VERSION="+version)
}

func buildDeb(t testing.TB, dir string, env ...string) string {
	t.Helper()
	cmd := exec.Command(filepath.Join(server.ModuleRoot(t), "packaging/debian/build"), server.Binary(t, ""), dir)
	cmd.Env = append(os.Environ(), "DEB_COMPRESSION=none", "SOURCE_DATE_EPOCH=1790000000")
	cmd.Env = append(cmd.Env, env...)
	return strings.TrimSpace(outputOf(t, cmd))
}

func TestPackageHasWhatItSays(t *testing.T) {
	// The package names the libraries that it needs, has every file that the documents promise with the
	// rights that it should have, sums that are right, and as configuration files those below /etc.
	file := deb(t, versionOld)
	field := func(name string) string { return strings.TrimSpace(output(t, "dpkg-deb", "-f", file, name)) }
	require.Equal(t, "varve", field("Package"))
	require.Equal(t, versionOld, field("Version"))
	require.Equal(t, strings.TrimSpace(output(t, "dpkg", "--print-architecture")), field("Architecture"))
	require.Regexp(t, `\blibrocksdb7\.8 \(>= 7\.8`, field("Depends"))
	require.Regexp(t, `\blibc6 \(>= `, field("Depends"))
	require.Contains(t, field("Depends"), "adduser")

	root := t.TempDir()
	output(t, "dpkg-deb", "-R", file, root)
	listing := output(t, "dpkg-deb", "-c", file)
	for path, mode := range map[string]string{
		"usr/bin/varve": "-rwxr-xr-x", "lib/systemd/system/varve.service": "-rw-r--r--",
		"etc/varve/": "drwxr-x---", "etc/varve/varve.yml": "-rw-r-----", "etc/default/varve": "-rw-r--r--",
		"usr/share/man/man1/varve.1.gz": "-rw-r--r--", "usr/share/bash-completion/completions/varve": "-rw-r--r--",
		"usr/share/zsh/vendor-completions/_varve": "-rw-r--r--", "usr/share/fish/vendor_completions.d/varve.fish": "-rw-r--r--",
		"usr/share/doc/varve/copyright": "-rw-r--r--", "usr/share/doc/varve/changelog.Debian.gz": "-rw-r--r--",
		"usr/share/doc/varve/NOTICE": "-rw-r--r--", "usr/share/doc/varve/third-party-licences.txt.gz": "-rw-r--r--",
	} {
		require.Regexp(t, `(?m)^`+mode+` root/root .* \./`+regexp.QuoteMeta(path)+`$`, listing)
	}
	require.Equal(t, "/etc/default/varve\n/etc/varve/varve.yml\n", read(t, root, "DEBIAN/conffiles"))
	requireSums(t, root)
	for _, script := range []string{"postinst", "prerm", "postrm"} {
		output(t, "sh", "-n", filepath.Join(root, "DEBIAN", script))
	}

	// The binary is the one under test, and its configuration is valid and all that it prints, but for the place of the data.
	binary := filepath.Join(root, "usr/bin/varve")
	require.Equal(t, output(t, server.Binary(t, ""), "version"), output(t, binary, "version"))
	output(t, binary, "check", "config", filepath.Join(root, "etc/varve/varve.yml"))
	require.Equal(t, strings.Replace(output(t, binary, "config"), "\n  path: data\n", "\n  path: /var/lib/varve\n", 1), read(t, root, "etc/varve/varve.yml"))
	require.Equal(t, read(t, server.ModuleRoot(t), "packaging/systemd/varve.service"), read(t, root, "lib/systemd/system/varve.service"))

	// Whatever is linked has its licence there, and the engine's is that of its own package.
	licences := output(t, "zcat", filepath.Join(root, "usr/share/doc/varve/third-party-licences.txt.gz"))
	modules := regexp.MustCompile(`(?m)^\tdep\t(\S+)\t(\S+)`).FindAllStringSubmatch(output(t, "go", "version", "-m", binary), -1)
	require.Greater(t, len(modules), 20)
	for _, m := range modules {
		require.True(t, strings.Contains(licences, "== "+m[1]+"@"+m[2]+": "), "no licence of %s", m[1])
	}
}

func read(t testing.TB, root, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, path))
	require.NoError(t, err)
	return string(text)
}

// requireSums compares every file outside /etc with DEBIAN/md5sums, both ways.
func requireSums(t testing.TB, root string) {
	t.Helper()
	sums := map[string]string{}
	for line := range strings.Lines(read(t, root, "DEBIAN/md5sums")) {
		sum, path, ok := strings.Cut(strings.TrimSpace(line), "  ")
		require.True(t, ok, line)
		sums[path] = sum
	}
	require.NoError(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(root, path)
		if err != nil || !d.Type().IsRegular() || strings.HasPrefix(rel, "DEBIAN/") || strings.HasPrefix(rel, "etc/") {
			return err
		}
		sum := md5.Sum([]byte(read(t, root, rel)))
		require.Equal(t, hex.EncodeToString(sum[:]), sums[rel], rel)
		delete(sums, rel)
		return nil
	}))
	require.Empty(t, sums)
}

func TestPackageIsReproducible(t *testing.T) {
	// The same binary and the same time make the same bytes, wherever and with whatever file mode mask it is built.
	first := deb(t, versionOld)
	second := buildDeb(t, t.TempDir(), "DEB_VERSION="+versionOld, "TZ=Asia/Kathmandu", "LANG=de_DE.UTF-8")
	a, err := os.ReadFile(first)
	require.NoError(t, err)
	b, err := os.ReadFile(second)
	require.NoError(t, err)
	require.True(t, bytes.Equal(a, b), "%s and %s differ", first, second)
}

func TestPackageVersions(t *testing.T) {
	// Packages of later states of the product have later versions in dpkg's order, and each is one that dpkg takes.
	need(t, "dpkg")
	script := read(t, server.ModuleRoot(t), "packaging/debian/build")
	function := regexp.MustCompile(`(?ms)^debian_version\(\) \{.*?^\}$`).FindString(script)
	require.NotEmpty(t, function)
	var last string
	for _, version := range []struct{ product, epoch string }{
		{"0.1.0-dev", "1700000000"}, {"0.1.0-dev", "1700009999"}, {"0.1.0-rc.1", "0"}, {"0.1.0-rc.1-3-gabcdef0", "0"}, {"0.1.0", "0"},
		{"0.1.0-5-gabcdef0", "0"}, {"0.1.0-12-g0000000", "0"}, {"0.2.0", "0"},
	} {
		cmd := exec.Command("bash", "-euc", function+"\ndebian_version "+version.product)
		cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH="+version.epoch, "TZ=UTC")
		next := strings.TrimSpace(outputOf(t, cmd))
		output(t, "dpkg", "--validate-version", next)
		if last != "" {
			output(t, "dpkg", "--compare-versions", last, "lt", next)
		}
		last = next
	}
}

func TestLintian(t *testing.T) {
	// Debian's own check finds neither errors nor warnings beyond those that packaging/debian/lintian-overrides explains.
	long(t)
	need(t, "lintian")
	out, err := exec.Command("lintian", "--no-cfg", "--allow-root", "--tag-display-limit", "0", "--fail-on", "error,warning",
		"--suppress-tags", "uses-no-compression-for-control-tarball,uses-no-compression-for-data-tarball", deb(t, versionOld)).CombinedOutput()
	require.NoError(t, err, "%s", out)
	t.Logf("%s", out)
}
