package snapshots_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"varve/internal/gate/ledger"
	"varve/internal/gate/server"
	"varve/internal/testkit/leaks"
)

func TestMain(m *testing.M) {
	code := m.Run()
	server.RemoveBinaries()
	http.DefaultClient.CloseIdleConnections()
	if err := leaks.Find(); err != nil && code == 0 {
		os.Stderr.WriteString(err.Error())
		code = 1
	}
	os.Exit(code)
}

// patience bounds what should take seconds: only something that hangs takes as long.
const patience = 5 * time.Minute

// envSeed names the environment variable with a seed of what is written, 1 without it.
const envSeed = "SNAPSHOTS_SEED"

// configuration makes files small and the compactor busy, so that a snapshot meets flushes,
// sealings and cleanings.
const configuration = `
storage:
  memory: 64MiB
  runs: {max_age: 2s, max_size: 4MiB}
compactor: {interval: 1s, seal_delay: 0s, quiet: 0s, reseal_after: 0s, cpu_share: 1}
deletes: {grace: 1s}
self_scrape: {enabled: false}
web: {enable_admin_api: true}
snapshots:
  objstore_config_file: bucket.yml
  max_upload_rate: %s
log: {level: warn}
`

// rig is a server with a bucket.
type rig struct {
	t       *testing.T
	dir     string
	binary  string
	address string
	*server.Server
}

func newRig(t *testing.T, rate string) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), binary: server.Binary(t, "")}
	require.NoError(t, os.WriteFile(filepath.Join(r.dir, "bucket.yml"), []byte("type: FILESYSTEM\nconfig: {directory: "+r.bucket()+"}\n"), 0o600))
	r.configure(rate)
	r.start(filepath.Join(r.dir, "data"))
	t.Cleanup(func() { r.Kill() })
	return r
}

func (r *rig) configure(rate string) {
	require.NoError(r.t, os.WriteFile(filepath.Join(r.dir, "varve.yml"), fmt.Appendf(nil, configuration, rate), 0o600))
}

func (r *rig) bucket() string { return filepath.Join(r.dir, "bucket") }

// start starts the server on a data directory.
func (r *rig) start(data string) {
	r.t.Helper()
	var err error
	r.address, err = server.FreeAddress()
	require.NoError(r.t, err)
	r.Server, err = server.Start(server.Options{Binary: r.binary, Address: r.address, Args: []string{
		"serve", "--config.file", filepath.Join(r.dir, "varve.yml"), "--storage.path", data, "--web.listen-address", r.address,
	}})
	require.NoError(r.t, err)
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	require.NoError(r.t, r.WaitReady(ctx), "%s", r.Output())
}

func (r *rig) stop() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	require.NoError(r.t, r.Terminate(ctx), "%s", r.Output())
}

// write writes with a writer of each kind until ctx ends.
func (r *rig) write(ctx context.Context, work *ledger.Workload, book *ledger.Ledger) {
	ended := make(chan error, len(ledger.Kinds))
	for i, kind := range ledger.Kinds {
		w := ledger.NewWriter(work, book, ledger.Options{
			Kind: kind, ID: ledger.WriterID(kind), Protocol: ledger.RemoteWrite2, URL: r.URL("/api/v1/write"),
			PauseMax: 4 * time.Millisecond, Random: rand.New(rand.NewPCG(work.Seed, uint64(i))),
		})
		go func() { ended <- w.Run(ctx) }()
	}
	for range ledger.Kinds {
		if err := <-ended; err != nil {
			r.t.Errorf("%v\n%s", err, r.Output())
		}
	}
}

// writeSome writes for a while, and on until so many samples are acknowledged.
func (r *rig) writeSome(work *ledger.Workload, book *ledger.Ledger, while time.Duration, least int) {
	r.t.Helper()
	ctx, stop := context.WithTimeout(r.t.Context(), patience)
	defer stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.write(ctx, work, book)
	}()
	began := time.Now()
	err := server.Wait(ctx, "enough is written", func() (bool, error) {
		return time.Since(began) >= while && book.Acked() >= least, fmt.Errorf("%d of %d samples", book.Acked(), least)
	})
	stop()
	<-done
	require.NoError(r.t, err, "%s", r.Output())
}

// post asks for something and reads the data of the answer into out.
func (r *rig) post(path string, form url.Values, out any) error {
	answer, err := http.PostForm(r.URL(path), form)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode/100 != 2 {
		return fmt.Errorf("%s answered %d: %s", path, answer.StatusCode, body)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(body, &struct{ Data any }{out})
}

// varve runs a verb.
func (r *rig) varve(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, r.binary, args...).CombinedOutput()
	return string(out), err
}

// snapshot runs a verb of snapshots over the bucket.
func (r *rig) snapshot(verb string, args ...string) (string, error) {
	return r.varve(append([]string{"snapshot", verb, "--objstore.config-file", filepath.Join(r.dir, "bucket.yml")}, args...)...)
}

// made is what the server says of a snapshot that it made.
type made struct {
	ID    string
	Files struct{ Bytes, SentBytes int64 }
}

// TestSnapshotsUnderLoad shows that snapshots of a server at work hold all that was acknowledged before,
// each for itself, and that its restored copy is sound and takes samples.
func TestSnapshotsUnderLoad(t *testing.T) {
	r := newRig(t, "0B")
	seed := uint64(1)
	if text := os.Getenv(envSeed); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		require.NoError(t, err, "%s", envSeed)
	}
	t.Logf("%s=%d", envSeed, seed)
	random := rand.New(rand.NewPCG(seed, 1))
	start := time.Now()

	type stage struct {
		book *ledger.Ledger
		name string
		id   string
	}
	var stages []stage
	for n := range 3 {
		name := fmt.Sprintf("stage-%d", n)
		book := ledger.New(io.Discard)
		work := &ledger.Workload{Seed: random.Uint64(), Start: start, Name: name}
		r.writeSome(work, book, 2*time.Second, 1000)

		// Others write, delete and ask while the snapshot is made.
		meanwhile, stop := context.WithCancel(t.Context())
		done := make(chan struct{}, 3)
		others := &ledger.Workload{Seed: random.Uint64(), Start: start, Name: name + "-meanwhile"}
		go func() {
			r.write(meanwhile, others, ledger.New(io.Discard))
			done <- struct{}{}
		}()
		go func() {
			for meanwhile.Err() == nil {
				if err := r.post("/api/v1/query_range", url.Values{
					"query": {`sum by (writer) (count_over_time({gate=~"stage.*"}[10m]))`}, "start": {fmt.Sprint(start.Add(-2 * time.Hour).Unix())},
					"end": {fmt.Sprint(start.Unix())}, "step": {"60"},
				}, nil); err != nil {
					t.Error(err)
					break
				}
			}
			done <- struct{}{}
		}()
		go func() {
			for meanwhile.Err() == nil {
				if err := r.post("/api/v1/admin/tsdb/delete_series", url.Values{"match[]": {fmt.Sprintf(`{gate="%s-meanwhile",writer="steady"}`, name)}}, nil); err != nil {
					t.Error(err)
					break
				}
				if err := r.post("/api/v1/admin/tsdb/clean_tombstones", nil, nil); err != nil {
					t.Error(err)
					break
				}
			}
			done <- struct{}{}
		}()
		var m made
		err := r.post("/api/v1/admin/snapshots?wait=true", nil, &m)
		stop()
		for range cap(done) {
			<-done
		}
		require.NoError(t, err, "%s", r.Output())
		require.Len(t, m.ID, 26)
		t.Logf("%s: %s, %d bytes, %d of them sent, %d samples acknowledged before", name, m.ID, m.Files.Bytes, m.Files.SentBytes, book.Acked())
		stages = append(stages, stage{book, name, m.ID})
	}
	r.stop()

	list, err := r.snapshot("list")
	require.NoError(t, err, list)
	for n, s := range stages {
		require.Contains(t, list, s.id)
		out, err := r.snapshot("verify", "--deep", s.id)
		require.NoError(t, err, out)
		data := filepath.Join(r.dir, "restored-"+s.name)
		out, err = r.snapshot("restore", s.id, data)
		require.NoError(t, err, out)
		out, err = r.varve("check", "data", data)
		require.NoError(t, err, out)
		r.start(data)
		for _, before := range stages[:n+1] {
			r.check(before.name, before.book)
		}
		// The copy goes on by itself.
		book := ledger.New(io.Discard)
		r.writeSome(&ledger.Workload{Seed: 1, Start: start, Name: "after"}, book, 500*time.Millisecond, 100)
		r.check("after", book)
		r.stop()
		out, err = r.varve("check", "data", data)
		require.NoError(t, err, out)
	}
}

func (r *rig) check(name string, book *ledger.Ledger) {
	r.t.Helper()
	reader := ledger.NewReader(r.URL(""))
	defer reader.Close()
	violations := book.Check(r.t.Context(), reader, ledger.CheckOptions{Gate: name, Restarted: true})
	require.Empty(r.t, violations, "%s: %s", name, ledger.Summary(violations))
}

// TestKilledUpload shows that a server that is killed while it uploads leaves nothing that looks like a
// snapshot, and that the next one sends only what is missing.
func TestKilledUpload(t *testing.T) {
	// Slow enough that a pause of some seconds before the kill doesn't let it come to its end.
	r := newRig(t, "32KiB")
	book := ledger.New(io.Discard)
	work := &ledger.Workload{Seed: 7, Start: time.Now(), Name: "killed"}
	r.writeSome(work, book, 3*time.Second, 1000)
	asked := make(chan error, 1)
	go func() { asked <- r.post("/api/v1/admin/snapshots?wait=true", nil, nil) }()
	// Files of the snapshot appear, and there is more to come.
	require.Eventually(t, func() bool { return len(r.objects("varve/files")) >= 2 }, patience, 10*time.Millisecond, "%s", r.Output())
	r.Kill()
	require.Error(t, <-asked)
	there := r.objects("varve/files")
	list, err := r.snapshot("list")
	require.NoError(t, err, list)
	require.NotRegexp(t, `[0-9A-HJKMNP-TV-Z]{26}`, list, "a snapshot that was not finished")

	r.configure("0B")
	r.start(filepath.Join(r.dir, "data"))
	var m made
	require.NoError(t, r.post("/api/v1/admin/snapshots?wait=true", nil, &m), "%s", r.Output())
	r.stop()
	t.Logf("%d files of %d bytes were there after the kill; then %d of %d bytes were sent", len(there), sum(there), m.Files.SentBytes, m.Files.Bytes)
	data := filepath.Join(r.dir, "restored")
	out, err := r.snapshot("restore", m.ID, data)
	require.NoError(t, err, out)
	out, err = r.varve("check", "data", data)
	require.NoError(t, err, out)
	left, err := filepath.Glob(filepath.Join(r.dir, "data", "*", "*.partial"))
	require.NoError(t, err)
	require.Empty(t, left)
	r.start(data)
	r.check("killed", book)
	r.stop()

	t.Run("damage", func(t *testing.T) { r.damage(t, m.ID) })
}

// damage shows that one changed byte in any file of a snapshot is found, by the name of the file, and not restored.
func (r *rig) damage(t *testing.T, id string) {
	random := rand.New(rand.NewPCG(3, 4))
	files := r.objects("varve/files")
	var paths []string
	for path, size := range files {
		if size > 0 {
			paths = append(paths, path)
		}
	}
	slices.Sort(paths)
	for n := range 3 {
		path := paths[random.IntN(len(paths))]
		content, err := os.ReadFile(path)
		require.NoError(t, err)
		changed := append([]byte(nil), content...)
		changed[random.IntN(len(changed))] ^= 1 << random.IntN(8)
		require.NoError(t, os.WriteFile(path, changed, 0o600))
		needed := r.needs(id, filepath.Base(path))
		out, err := r.snapshot("verify", "--contents", id)
		target := filepath.Join(r.dir, fmt.Sprintf("damaged-%d", n))
		restored, restoreErr := r.snapshot("restore", id, target)
		if needed {
			require.Error(t, err, out)
			require.Contains(t, out, filepath.Base(path))
			require.Error(t, restoreErr, restored)
			require.Contains(t, restored, filepath.Base(path))
			require.NoDirExists(t, target)
		} else {
			require.NoError(t, err, out)
			require.NoError(t, restoreErr, restored)
		}
		require.NoError(t, os.WriteFile(path, content, 0o600))
	}
	out, err := r.snapshot("verify", "--contents", id)
	require.NoError(t, err, out)
}

// needs tells whether the manifest of a snapshot names the hash.
func (r *rig) needs(id, hash string) bool {
	for path := range r.objects("varve/snapshots") {
		if !strings.Contains(path, id) {
			continue
		}
		text, err := os.ReadFile(path)
		require.NoError(r.t, err)
		return strings.Contains(string(text), hash)
	}
	r.t.Fatalf("no manifest of %s", id)
	return false
}

// objects are the sizes of the objects below a folder of the bucket, by path.
func (r *rig) objects(below string) map[string]int64 {
	out := map[string]int64{}
	err := filepath.WalkDir(filepath.Join(r.bucket(), below), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return nil // Folders come and go.
		}
		if info, err := e.Info(); err == nil {
			out[path] = info.Size()
		}
		return nil
	})
	require.NoError(r.t, err)
	return out
}

func sum(sizes map[string]int64) (n int64) {
	for _, size := range sizes {
		n += size
	}
	return n
}
