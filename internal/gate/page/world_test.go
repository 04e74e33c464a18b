package page_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"varve/internal/gate/server"
	"varve/internal/testkit/leaks"
)

func TestMain(m *testing.M) {
	code := m.Run()
	stopChromium()
	world.stop()
	server.RemoveBinaries()
	http.DefaultClient.CloseIdleConnections()
	if err := leaks.Find(); err != nil && code == 0 {
		os.Stderr.WriteString(err.Error())
		code = 1
	}
	os.Exit(code)
}

// Secrets of the configuration, which no page and no answer may show.
const (
	secretPassword = "s3cret-of-central"
	secretToken    = "t0ken-of-away"
)

// configuration has something for every view: outputs of which one's target is away, a bucket, rules of retention, a compactor that is
// done soon.
const configuration = `
storage:
  memory: 64MiB
compactor: {interval: 1s, seal_delay: 0s, quiet: 0s, reseal_after: 0s, cpu_share: 1}
retention:
  - {match: '{job="web"}', raw: 30d, 5m: 1y}
  - {raw: 90d, 5m: 2y, 1h: forever}
snapshots:
  objstore_config_file: bucket.yml
outputs:
  - name: central
    start: beginning
    # Nothing comes but what tests send, so that they know when all of it has gone out.
    filter_include: ['{job=~"node|web"}']
    remote_write:
      url: %[1]s
      basic_auth: {username: varve, password: ` + secretPassword + `}
  - name: away
    external_labels: {from: varve}
    remote_write:
      url: http://%[2]s/api/v1/write
      authorization: {credentials: ` + secretToken + `}
web: {enable_admin_api: true}
log: {level: warn}
`

// archive is a running server.
type archive struct {
	*server.Server
	dir     string
	address string
}

// start starts a server on a folder, with a configuration and flags, and waits until its
// readyPath, /-/ready if empty, says so; - is for one that tells nobody who asks without credentials.
func start(t testing.TB, dir, configuration, readyPath string, flags ...string) *archive {
	t.Helper()
	address, err := server.FreeAddress()
	require.NoError(t, err)
	file := filepath.Join(dir, "varve.yml")
	require.NoError(t, os.WriteFile(file, []byte(configuration), 0o600))
	args := append([]string{"serve", "--config.file", file, "--storage.path", filepath.Join(dir, "data"), "--web.listen-address", address}, flags...)
	s, err := server.Start(server.Options{Binary: server.Binary(t, ""), Address: address, Args: args, ReadyPath: readyPath})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	wait := s.WaitReady
	if readyPath == "-" {
		wait = s.WaitListening
	}
	if err := wait(ctx); err != nil {
		s.Kill()
		require.NoError(t, err)
	}
	return &archive{Server: s, dir: dir, address: address}
}

// get reads the data of an answer of the API.
func get[T any](t testing.TB, a *archive, path string, params url.Values) T {
	t.Helper()
	out, err := tryGet[T](a, path, params)
	require.NoError(t, err)
	return out
}

func tryGet[T any](a *archive, path string, params url.Values) (out T, err error) {
	at := a.URL("/api/v1/" + path)
	if len(params) > 0 {
		at += "?" + params.Encode()
	}
	status, body, err := server.Get(context.Background(), at)
	if err != nil {
		return out, err
	}
	if status != http.StatusOK {
		return out, fmt.Errorf("%s answered %d: %s", at, status, body)
	}
	if err := json.Unmarshal(body, &struct{ Data *T }{&out}); err != nil {
		return out, fmt.Errorf("%s: %w: %.300s", at, err, body)
	}
	return out, nil
}

// becomes waits until an answer of the API is as it should be.
func becomes[T any](t testing.TB, a *archive, what, path string, params url.Values, good func(T) bool) T {
	t.Helper()
	return becomesWithin(t, patience, a, what, path, params, good)
}

// becomesWithin is becomes for what is a lot of work.
func becomesWithin[T any](t testing.TB, most time.Duration, a *archive, what, path string, params url.Values, good func(T) bool) T {
	t.Helper()
	var last T
	var err error
	if pollFor(t.Context(), most, func() bool {
		last, err = tryGet[T](a, path, params)
		return err == nil && good(last)
	}) != nil {
		require.FailNow(t, "the API never said that "+what, "%s: %+v, %v\n%s", path, last, err, a.Output())
	}
	return last
}

// target is a receiver of remote write that takes everything and counts it.
type target struct {
	*httptest.Server
	samples atomic.Int64
	fault   atomic.Pointer[string]
}

func newTarget() *target {
	x := &target{}
	x.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, password, _ := r.BasicAuth(); password != secretPassword {
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		body, err := io.ReadAll(r.Body)
		if err == nil {
			body, err = snappy.Decode(nil, body)
		}
		var m prompb.WriteRequest
		if err == nil {
			err = m.Unmarshal(body)
		}
		if err != nil {
			text := err.Error()
			x.fault.Store(&text)
			http.Error(w, text, http.StatusBadRequest)
			return
		}
		for i := range m.Timeseries {
			x.samples.Add(int64(len(m.Timeseries[i].Samples) + len(m.Timeseries[i].Histograms)))
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	return x
}

// world is the server with data that most tests share, for as long as the process lives.
var world shared

type shared struct {
	once    sync.Once
	archive *archive
	target  *target
	dir     string
	series  []series
	// from and to are the first and the last time of the data, to is on a minute.
	from, to time.Time
	// sent is how many samples were written.
	sent int64
}

func (s *shared) stop() {
	if s.archive != nil {
		s.archive.Kill()
	}
	if s.target != nil {
		s.target.Close()
	}
	if s.dir != "" {
		_ = os.RemoveAll(s.dir)
	}
}

// worldDays is how many days of data there are before today's.
const worldDays = 3

// theWorld starts the server with the data, once.
func theWorld(t *testing.T) *shared {
	t.Helper()
	startChromium(t) // Without a browser there is no need for the rest.
	world.once.Do(func() { world.begin(t) })
	require.NotNil(t, world.archive, "the server did not start, see the first test")
	return &world
}

func (s *shared) begin(t *testing.T) {
	dir, err := os.MkdirTemp("", "varve-page-")
	require.NoError(t, err)
	s.dir, s.target = dir, newTarget()
	closed, err := server.FreeAddress()
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "bucket.yml"), []byte("type: FILESYSTEM\nconfig: {directory: "+filepath.Join(dir, "bucket")+"}\n"), 0o600))
	a := start(t, dir, fmt.Sprintf(configuration, s.target.URL+"/api/v1/write", closed), "")
	s.to = time.Now().UTC().Truncate(time.Minute)
	s.from = s.to.Truncate(24*time.Hour).AddDate(0, 0, -worldDays)
	s.series = fleet(2)
	began := time.Now()
	s.sent = send(t, a, s.series, s.from, s.to, time.Minute)
	t.Logf("%d samples of %d series sent in %s", s.sent, len(s.series), time.Since(began).Round(time.Millisecond))
	s.archive = a
	began = time.Now()
	becomesWithin(t, sealingPatience, a, "past days are sealed and rolled up", "status/compactor", nil, func(c compactorStatus) bool { return c.done(worldDays) })
	t.Logf("sealed and rolled up %s later", time.Since(began).Round(time.Millisecond))
}

// sealingPatience bounds the wait for days to be sealed and rolled up, which is seconds of work for a year of them where nothing else is at work.
const sealingPatience = 8 * time.Minute

// compactorStatus is what is asked of status/compactor.
type compactorStatus struct {
	Running string
	Days    []struct {
		Day      string
		Sealed   *time.Time
		Unsealed bool
		Rolled   bool
		Dirty    bool
	}
}

// done tells whether so many days are sealed and all of them but the last are rolled up, which waits for the day behind it to be sealed.
func (c compactorStatus) done(days int) bool {
	sealed, rolled := 0, 0
	for _, d := range c.Days {
		if d.Sealed != nil && !d.Unsealed {
			sealed++
			if d.Rolled && !d.Dirty {
				rolled++
			}
		}
	}
	return sealed >= days && rolled >= days-1
}
