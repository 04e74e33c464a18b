package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// snapshotKit is a bucket.
type snapshotKit struct {
	t           *testing.T
	dir, bucket string
}

func newSnapshotKit(t *testing.T) *snapshotKit {
	k := &snapshotKit{t: t, dir: t.TempDir()}
	k.bucket = filepath.Join(k.dir, "bucket.yml")
	require.NoError(t, os.WriteFile(k.bucket, []byte("type: FILESYSTEM\nconfig: {directory: "+filepath.Join(k.dir, "bucket")+"}\n"), 0o600))
	return k
}

// run runs a verb of snapshots.
func (k *snapshotKit) run(verb string, args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = execute(append([]string{"snapshot", verb, "--quiet", "--objstore.config-file", k.bucket}, args...), &out, &errs)
	return code, out.String(), errs.String()
}

// must runs one that succeeds.
func (k *snapshotKit) must(verb string, args ...string) string {
	k.t.Helper()
	code, stdout, stderr := k.run(verb, args...)
	require.Zero(k.t, code, stderr)
	return stdout
}

// refused runs one that doesn't, and returns why.
func (k *snapshotKit) refused(verb string, args ...string) string {
	k.t.Helper()
	code, stdout, stderr := k.run(verb, args...)
	require.NotZero(k.t, code, stdout)
	return stderr
}

// create makes a snapshot of a data directory.
func (k *snapshotKit) create(data string) (id string) {
	k.t.Helper()
	id, _, _ = strings.Cut(k.must("create", data), " ")
	return id
}

// names are what lies in a folder.
func names(t *testing.T, dir string) (out []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

// TestVerifyLeavesOthersAlone shows that the folder for a deep look is used beside what lies in it, also if that is named as blocks and
// snapshots are.
func TestVerifyLeavesOthersAlone(t *testing.T) {
	k := newSnapshotKit(t)
	id := k.create(exportedData(t))
	scratch := filepath.Join(k.dir, "scratch")
	block := filepath.Join(scratch, "01BX5ZZKBKACTAV9WEVGEMMVRZ")
	require.NoError(t, os.MkdirAll(block, 0o700))
	require.Contains(t, k.must("verify", "--deep", "--scratch", scratch, id), "the archive in them is sound")
	require.Contains(t, k.must("verify", "--scratch", scratch, id), "are there.")
	require.Equal(t, []string{filepath.Base(block)}, names(t, scratch))
}

// TestRestorePart shows that a part is restored once, under its name with or without a slash, and that what an interrupted run left is
// used for the same part of the same snapshot and nothing else.
func TestRestorePart(t *testing.T) {
	k := newSnapshotKit(t)
	data := exportedData(t)
	id, other := k.create(data), k.create(data)
	place := filepath.Join(k.dir, "restored")
	require.NoError(t, os.Mkdir(place, 0o700))
	dir := filepath.Join(place, "part")
	match := `{instance="a"}`

	require.Contains(t, k.must("restore", "--match", match, id, dir+"/"), "2160 samples of 2 days")
	require.Equal(t, []string{"part"}, names(t, place))
	lines, _ := exportRun(t, "jsonl", "--all", "--data", dir)
	require.Equal(t, 1, strings.Count(lines, "\n"), lines)
	require.Contains(t, k.refused("restore", "--match", match, id, dir), "is not empty")
	require.Equal(t, []string{"part"}, names(t, place))
	require.Contains(t, k.refused("restore", "--match", match, "01BX5ZZKBKACTAV9WEVGEMMVRZ", dir+"2"), "no such snapshot")
	require.Equal(t, []string{"part"}, names(t, place))

	// What an interrupted run leaves: the whole snapshot, a part of the part, and what says so.
	interrupted := func(id, match string, copied bool, endings ...string) {
		t.Helper()
		require.NoError(t, os.RemoveAll(place))
		require.NoError(t, os.Mkdir(place, 0o700))
		p, err := newPartOf([]string{match}, "", "")
		require.NoError(t, err)
		b, err := json.Marshal(partMarked{id, p.String(), copied})
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(dir+partMarkEnding, b, 0o600))
		for _, ending := range endings {
			k.must("restore", "--match", match, id, filepath.Join(k.dir, "part"))
			require.NoError(t, os.Rename(filepath.Join(k.dir, "part"), dir+ending))
		}
	}
	interrupted(id, match, false, partEnding)
	require.Contains(t, k.must("restore", "--match", match, id, dir), "2160 samples of 2 days")
	require.Equal(t, []string{"part"}, names(t, place))

	interrupted(id, match, false, partEnding)
	for _, args := range [][]string{{other, dir, "--match", match}, {id, dir, "--match", `{instance!="a"}`}, {id, dir, "--match", match, "--start=1700000000"}} {
		require.Regexp(t, regexp.QuoteMeta(fmt.Sprintf("left of snapshot %q, of {instance=\"a\"}", id)), k.refused("restore", args...))
		require.DirExists(t, dir+partEnding)
	}
	// Without a beginning of the part, another part of the snapshot may be made, and none of another.
	interrupted(id, match, false)
	require.NoError(t, os.Mkdir(dir+wholeEnding, 0o700))
	require.Contains(t, k.refused("restore", "--match", match, other, dir), "left of snapshot")
	require.NoError(t, os.RemoveAll(dir+wholeEnding))
	k.must("restore", id, dir+wholeEnding)
	require.Contains(t, k.must("restore", "--match", "odd", id, dir), "1 samples of 1 days")
	require.Equal(t, []string{"part"}, names(t, place))

	// Interrupted while it cleaned up: the part has its name already.
	interrupted(id, match, true, "")
	require.NoError(t, os.Mkdir(dir+wholeEnding, 0o700))
	require.Contains(t, k.must("restore", "--match", match, id, dir), "was restored")
	require.Equal(t, []string{"part"}, names(t, place))
	// The same, and then somebody moved it away: half of the snapshot is no source.
	interrupted(id, match, true)
	require.NoError(t, os.Mkdir(dir+wholeEnding, 0o700))
	require.Contains(t, k.must("restore", "--match", match, id, dir), "2160 samples")
	require.Equal(t, []string{"part"}, names(t, place))

	// Nobody knows what these are.
	require.NoError(t, os.RemoveAll(dir))
	require.NoError(t, os.Mkdir(dir+wholeEnding, 0o700))
	require.Contains(t, k.refused("restore", "--match", match, id, dir), "in the way")
	require.Equal(t, []string{"part" + wholeEnding}, names(t, place))
}

// TestPruneTells shows that what a prune leaves is told, and that a snapshot can be removed by its name.
func TestPruneTells(t *testing.T) {
	k := newSnapshotKit(t)
	data := exportedData(t)
	first := k.create(data)
	k.create(data)
	require.Contains(t, k.must("delete", "--dry-run", first), first+"\n1 of 2 snapshots would go")
	third := k.create(data)
	require.Contains(t, k.must("delete", third), "1 of 3 snapshots are gone")
	require.NotContains(t, k.must("list"), third)
	require.Contains(t, k.refused("delete", third), "no such snapshot")
	require.Regexp(t, `(?s)1 of 2 snapshots would go, and 0 files.*\n\d+ more files stay until they are a day old`, k.must("prune", "--keep-last=1", "--dry-run"))
	require.Contains(t, k.must("prune", "--keep-last=1"), "1 of 2 snapshots are gone")
}

// TestClearCopies shows that of the copies of hard links those that a kill left are removed, and nothing else.
func TestClearCopies(t *testing.T) {
	dir := t.TempDir()
	const whole = "01BX5ZZKBKACTAV9WEVGEMMVRZ"
	for _, name := range []string{whole, whole + ".partial", "mine", "mine.partial"} {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, name, "db"), 0o700))
	}
	require.NoError(t, clearCopies(dir, false))
	require.Equal(t, []string{whole, "mine", "mine.partial"}, names(t, dir))
	require.NoError(t, clearCopies(dir, true))
	require.Equal(t, []string{"mine", "mine.partial"}, names(t, dir))
	require.NoError(t, clearCopies(filepath.Join(dir, "absent"), true))
}

// TestNoArchive shows that what is asked of a folder that is no data directory makes it none.
func TestNoArchive(t *testing.T) {
	k := newSnapshotKit(t)
	dir := filepath.Join(k.dir, "wrong")
	require.NoError(t, os.Mkdir(dir, 0o700))
	require.Contains(t, k.refused("create", dir), "there is no archive")
	for _, args := range [][]string{{"export", "csv", "--all", "--data", dir}, {"seal", dir}, {"outputs", dir}} {
		var out, errs bytes.Buffer
		require.NotZero(t, execute(args, &out, &errs))
		require.Contains(t, errs.String(), "there is no archive", args[0])
	}
	require.Empty(t, names(t, dir))
	require.NotContains(t, k.must("list"), "Z")
}
