package wire_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	config_util "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tombstones"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"varve/digest"
	"varve/intake"
	"varve/intake/wire"
	"varve/internal/testkit/leaks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(leaks.Patient(m)) }

// memory is a target that keeps everything and can be told to fail.
type memory struct {
	mu     sync.Mutex
	names  []labels.Labels
	days   map[int64]*memoryDay
	writes []intake.SeriesSamples
	open   error
	fail   error // of everything else
	// failures is how often fail is answered; 0 is always.
	failures int
	calls    int
	// hold, if set, is received from within Commit.
	hold chan struct{}
	// abort breaks the connection off in the middle of the digests.
	abort bool
	// given gets something for each day that is closed without commit.
	given chan struct{}
}

func newMemory() *memory {
	return &memory{days: map[int64]*memoryDay{}, given: make(chan struct{}, 100)}
}

func (m *memory) failing() error {
	m.calls++
	if m.fail == nil || m.failures > 0 && m.calls > m.failures {
		return nil
	}
	return m.fail
}

func (m *memory) Resolve(_ context.Context, series []intake.Series) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.failing(); err != nil {
		return err
	}
	for i := range series {
		s := &series[i]
		if s.Labels.Get(model.MetricNameLabel) == "refused" {
			s.Refused = "not wanted"
			continue
		}
		at := slices.IndexFunc(m.names, func(ls labels.Labels) bool { return labels.Equal(ls, s.Labels) })
		if at < 0 {
			at = len(m.names)
			m.names = append(m.names, s.Labels)
		}
		s.Ref, s.Metric = uint64(at)+1, uint32(at)%3
	}
	return nil
}

type memoryDay struct {
	m         *memory
	start     int64
	refs      []uint64
	sums      map[uint64]digest.Series
	deleted   tombstones.Intervals
	samples   uint64
	committed bool
	closed    bool
}

func (m *memory) OpenDay(_ context.Context, start int64) (intake.Day, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.open != nil {
		return nil, m.open
	}
	if m.days[start] != nil {
		return nil, fmt.Errorf("%d: %w", start, intake.ErrDayTaken)
	}
	return &memoryDay{m: m, start: start, sums: map[uint64]digest.Series{}}, nil
}

func (d *memoryDay) Add(ref uint64, chunks []intake.Chunk) error {
	d.m.mu.Lock()
	defer d.m.mu.Unlock()
	if err := d.m.failing(); err != nil {
		return err
	}
	d.refs = append(d.refs, ref)
	sum := d.sums[ref]
	for _, c := range chunks {
		each(c.Chunk, &sum)
		d.deleted = append(d.deleted, c.Deleted...)
	}
	d.samples += sum.Samples
	d.sums[ref] = sum
	return nil
}

func each(c chunkenc.Chunk, sum *digest.Series) {
	it := c.Iterator(nil)
	for v := it.Next(); v != chunkenc.ValNone; v = it.Next() {
		switch v {
		case chunkenc.ValFloat:
			sum.Float(it.At())
		case chunkenc.ValHistogram:
			sum.Histogram(it.AtHistogram(nil))
		case chunkenc.ValFloatHistogram:
			sum.FloatHistogram(it.AtFloatHistogram(nil))
		}
	}
}

func (d *memoryDay) Commit(ctx context.Context) (intake.DayReport, error) {
	if d.m.hold != nil {
		select {
		case <-d.m.hold:
		case <-ctx.Done():
			return intake.DayReport{}, ctx.Err()
		}
	}
	d.m.mu.Lock()
	defer d.m.mu.Unlock()
	if err := d.m.failing(); err != nil {
		return intake.DayReport{}, err
	}
	d.committed = true
	d.m.days[d.start] = d
	return intake.DayReport{Series: uint64(len(d.refs)), Samples: d.samples, Bytes: 7, Expired: 9}, nil
}

func (d *memoryDay) Digests(_ context.Context, f func(uint64, digest.Series) error) error {
	for i, ref := range d.refs {
		if d.m.abort && i == len(d.refs)-1 {
			panic(http.ErrAbortHandler)
		}
		if err := f(ref, d.sums[ref]); err != nil {
			return err
		}
	}
	return nil
}

func (d *memoryDay) Close() error {
	if !d.closed && !d.committed {
		d.m.given <- struct{}{}
	}
	d.closed = true
	return nil
}

func (m *memory) Write(_ context.Context, samples []intake.SeriesSamples) (r intake.WriteReport, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.failing(); err != nil {
		return r, err
	}
	for _, s := range samples {
		kept := intake.SeriesSamples{Labels: s.Labels}
		for _, c := range s.Chunks {
			b := slices.Clone(c.Chunk.Bytes())
			c.Chunk, _ = chunkenc.FromData(c.Chunk.Encoding(), b)
			kept.Chunks = append(kept.Chunks, c)
			r.Samples += uint64(c.Chunk.NumSamples())
		}
		m.writes = append(m.writes, kept)
	}
	r.Refused, r.Reasons = 1, map[string]uint64{"too old": 1}
	return r, nil
}

func (m *memory) Querier(int64, int64) (storage.Querier, error) { return storage.NoopQuerier(), nil }

// served is a client of a server over target.
func served(t *testing.T, target intake.Target, o func(*wire.HandlerOptions, *wire.Options)) (*wire.Target, *httptest.Server) {
	t.Helper()
	ho := wire.HandlerOptions{Target: target}
	wo := wire.Options{HTTP: config_util.DefaultHTTPClientConfig, Wait: func(ctx context.Context, _ time.Duration) error { return ctx.Err() }}
	if o != nil {
		o(&ho, &wo)
	}
	mux := http.NewServeMux()
	for path, h := range wire.Handlers(ho) {
		mux.Handle("POST "+path, h)
	}
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	u, err := url.Parse(server.URL)
	require.NoError(t, err)
	wo.URL = u
	client, err := wire.New(wo)
	require.NoError(t, err)
	t.Cleanup(client.Close)
	return client, server
}

// lease opens a day. The server ends the lease before behind its answer, and behind what it tells a test: until then it is busy.
func lease(t testing.TB, client *wire.Target, start int64) intake.Day {
	t.Helper()
	day, err := client.OpenDay(t.Context(), start)
	for errors.Is(err, intake.ErrBusy) {
		day, err = client.OpenDay(t.Context(), start)
	}
	require.NoError(t, err)
	return day
}

// floats is a chunk of n samples from a time on.
func floats(t testing.TB, e chunkenc.Encoding, start int64, n int) intake.Chunk {
	c, err := chunkenc.NewEmptyChunk(e)
	require.NoError(t, err)
	app, err := c.Appender()
	require.NoError(t, err)
	for i := range n {
		v := float64(i) * 1.5
		if i%7 == 3 {
			v = math.Float64frombits(math.Float64bits(math.NaN()) + uint64(i))
		}
		app.Append(0, start+int64(i)*1000, v)
	}
	return intake.Chunk{Chunk: c, MinMillis: start, MaxMillis: start + int64(n-1)*1000}
}

func histograms(t testing.TB, start int64, n int, float bool) intake.Chunk {
	e := chunkenc.EncHistogram
	if float {
		e = chunkenc.EncFloatHistogram
	}
	c, err := chunkenc.NewEmptyChunk(e)
	require.NoError(t, err)
	app, err := c.Appender()
	require.NoError(t, err)
	for i := range n {
		at := start + int64(i)*1000
		if float {
			_, _, app, err = app.AppendFloatHistogram(nil, 0, at, tsdbutil.GenerateTestFloatHistogram(int64(i)), true)
		} else {
			_, _, app, err = app.AppendHistogram(nil, 0, at, tsdbutil.GenerateTestHistogram(int64(i)), true)
		}
		require.NoError(t, err)
	}
	return intake.Chunk{Chunk: c, MinMillis: start, MaxMillis: start + int64(n-1)*1000}
}

func digestOf(chunks []intake.Chunk) (d digest.Series) {
	for _, c := range chunks {
		each(c.Chunk, &d)
	}
	return d
}

// TestDay shows that a day arrives whole, in all encodings, with what is deleted of it, and that its report and digests
// come back.
func TestDay(t *testing.T) {
	m := newMemory()
	client, _ := served(t, m, nil)
	start := 10 * intake.DayMillis
	day, err := client.OpenDay(t.Context(), start)
	require.NoError(t, err)
	want := map[uint64]digest.Series{}
	for ref := uint64(1); ref <= 3000; ref++ {
		chunks := []intake.Chunk{floats(t, chunkenc.EncXOR, start, 120), floats(t, chunkenc.EncXOR2, start+200_000, 50)}
		if ref%100 == 0 {
			chunks = append(chunks, histograms(t, start+300_000, 20, false), histograms(t, start+400_000, 20, true))
		}
		if ref == 5 {
			chunks[1].Deleted = tombstones.Intervals{{Mint: 0, Maxt: 5}, {Mint: start + 210_000, Maxt: start + 220_000}, {Mint: math.MaxInt64 - 1, Maxt: math.MaxInt64}}
		}
		require.NoError(t, day.Add(ref, chunks))
		want[ref] = digestOf(chunks)
	}
	empty, err := chunkenc.NewEmptyChunk(chunkenc.EncXOR)
	require.NoError(t, err)
	require.NoError(t, day.Add(4000, []intake.Chunk{{Chunk: empty}}), "nothing to add")
	report, err := day.Commit(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 3000, report.Series)
	require.EqualValues(t, 7, report.Bytes)
	require.EqualValues(t, 9, report.Expired)
	got := map[uint64]digest.Series{}
	last := uint64(0)
	require.NoError(t, day.Digests(t.Context(), func(ref uint64, d digest.Series) error {
		require.Greater(t, ref, last)
		last, got[ref] = ref, d
		return nil
	}))
	require.Equal(t, want, got)
	require.NoError(t, day.Close())
	require.NoError(t, day.Close(), "twice")
	require.True(t, m.days[start].committed)
	require.Equal(t, tombstones.Intervals{{Mint: start + 210_000, Maxt: start + 220_000}}, m.days[start].deleted)

	// The server ends the lease behind its last frame.
	for err = intake.ErrBusy; errors.Is(err, intake.ErrBusy); {
		_, err = client.OpenDay(t.Context(), start)
	}
	require.ErrorIs(t, err, intake.ErrDayTaken)
}

// TestDayRefused shows that each answer of a target's OpenDay arrives as itself, and that a second intake is told to wait.
func TestDayRefused(t *testing.T) {
	m := newMemory()
	client, _ := served(t, m, nil)
	for _, err := range []error{intake.ErrDayTaken, intake.ErrBusy, intake.ErrDayRefused} {
		m.open = fmt.Errorf("a reason: %w", err)
		_, got := client.OpenDay(t.Context(), 0)
		require.ErrorIs(t, got, err)
		require.ErrorContains(t, got, "a reason")
	}
	m.open = nil
	day, err := client.OpenDay(t.Context(), 0)
	require.NoError(t, err)
	_, err = client.OpenDay(t.Context(), intake.DayMillis)
	require.ErrorIs(t, err, intake.ErrBusy)
	require.NoError(t, day.Close())
	<-m.given
	_, err = client.OpenDay(t.Context(), 5)
	require.ErrorContains(t, err, "first ms of a UTC day")
}

// TestDayErrors shows that what goes wrong in the middle, at commit and after is told, and that nothing is committed.
func TestDayErrors(t *testing.T) {
	m := newMemory()
	client, _ := served(t, m, nil)
	add := func(n int) (intake.Day, error) {
		day := lease(t, client, 0)
		for ref := range n {
			if err := day.Add(uint64(ref+1), []intake.Chunk{floats(t, chunkenc.EncXOR, 0, 1000)}); err != nil {
				return day, err
			}
		}
		return day, nil
	}
	m.fail = errors.New("the disk is on fire")
	day, err := add(20000)
	for errors.Is(err, intake.ErrReadAgain) {
		// The server closes a connection on which more comes than it reads. A client that is slow to read finds that out before it has seen the answer.
		require.NoError(t, day.Close())
		<-m.given
		day, err = add(20000)
	}
	require.ErrorContains(t, err, "the disk is on fire")
	require.NoError(t, day.Close())
	<-m.given

	m.fail = nil
	day, err = add(3)
	require.NoError(t, err)
	m.mu.Lock()
	m.fail = errors.New("no room")
	m.mu.Unlock()
	_, err = day.Commit(t.Context())
	require.ErrorContains(t, err, "no room")
	require.Error(t, day.Add(1, nil), "over")
	require.NoError(t, day.Close())
	<-m.given
	require.Empty(t, m.days)
}

// TestDayUnavailable shows that a server that says in the middle of a day, or at its commit, that it can't go on for now, as one that
// stops does, is asked for the day again, until patience ends.
func TestDayUnavailable(t *testing.T) {
	m := newMemory()
	errLater := errors.New("later")
	with := func(patience time.Duration) *wire.Target {
		client, _ := served(t, m, func(h *wire.HandlerOptions, c *wire.Options) {
			h.Unavailable = func(err error) (time.Duration, bool) { return time.Second, errors.Is(err, errLater) }
			c.Patience = patience
		})
		return client
	}
	client, impatient := with(time.Hour), with(time.Nanosecond)
	f := func(target *wire.Target, want string, again bool) {
		t.Helper()
		m.fail = nil
		day := lease(t, target, 0)
		require.NoError(t, day.Add(1, []intake.Chunk{floats(t, chunkenc.EncXOR, 0, 1000)}))
		m.mu.Lock()
		m.fail = errLater
		m.mu.Unlock()
		_, err := day.Commit(t.Context())
		require.ErrorContains(t, err, want)
		require.Equal(t, again, errors.Is(err, intake.ErrReadAgain), err)
		require.NoError(t, day.Close())
		<-m.given
	}
	f(client, "later", true)
	f(client, "later", true)
	f(impatient, "later", true) // Patience begins here.
	f(impatient, "gave up", false)
}

// TestMalformedChunk shows that a chunk that contradicts itself is the sender's fault and ends no server.
func TestMalformedChunk(t *testing.T) {
	m := newMemory()
	client, _ := served(t, m, nil)
	for name, change := range map[string]func(c *intake.Chunk){
		"count": func(c *intake.Chunk) { c.Chunk.Bytes()[1]++ },
		"range": func(c *intake.Chunk) { c.MaxMillis-- },
		"order": func(c *intake.Chunk) {
			app, err := c.Chunk.Appender()
			require.NoError(t, err)
			app.Append(0, 5, 1)
		},
	} {
		day := lease(t, client, 0)
		c := floats(t, chunkenc.EncXOR, 0, 10)
		change(&c)
		require.NoError(t, day.Add(1, []intake.Chunk{c}))
		_, err := day.Commit(t.Context())
		require.ErrorContains(t, err, "400 Bad Request", name)
		require.ErrorContains(t, err, "bad chunk", name)
		require.NoError(t, day.Close())
		<-m.given
	}
}

// TestStalledSource shows that a client that is there and has no samples to send loses the lease.
func TestStalledSource(t *testing.T) {
	m := newMemory()
	client, _ := served(t, m, func(h *wire.HandlerOptions, c *wire.Options) {
		h.Stalled, c.Alive = time.Millisecond, 10*time.Millisecond
	})
	day, err := client.OpenDay(t.Context(), 0)
	require.NoError(t, err)
	<-m.given
	err = day.Add(1, []intake.Chunk{floats(t, chunkenc.EncXOR, 0, 10)})
	if err == nil {
		_, err = day.Commit(t.Context())
	}
	require.ErrorContains(t, err, "no samples came for")
	require.NoError(t, day.Close())
	require.Empty(t, m.days)
}

// cutter is a proxy that cuts connections after so many bytes to the server.
type cutter struct {
	net.Listener
	after atomic.Int64
	to    string
	wg    sync.WaitGroup
}

func newCutter(t *testing.T, to string) *cutter {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	c := &cutter{Listener: l, to: to}
	c.wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", to)
			if err != nil {
				client.Close()
				continue
			}
			c.wg.Go(func() { _, _ = io.Copy(client, server); client.Close() })
			c.wg.Go(func() {
				_, _ = io.CopyN(server, client, c.after.Load())
				server.Close()
				client.Close()
			})
		}
	})
	t.Cleanup(func() { l.Close(); c.wg.Wait() })
	return c
}

// TestCutConnections shows that wherever a connection is cut, in the head, in any frame or before the end, the client learns of it
// and nothing is committed; and that where nothing is cut, all is.
func TestCutConnections(t *testing.T) {
	m := newMemory()
	_, server := served(t, m, nil)
	proxy := newCutter(t, server.Listener.Addr().String())
	u, err := url.Parse("http://" + proxy.Addr().String())
	require.NoError(t, err)
	chunk := floats(t, chunkenc.EncXOR, 0, 10)
	attempt := func(after int) bool {
		proxy.after.Store(int64(after))
		client, err := wire.New(wire.Options{
			URL: u, HTTP: config_util.DefaultHTTPClientConfig, Patience: time.Millisecond,
			Alive: time.Hour, // Each attempt sends the same bytes, however long it takes.
			Wait:  func(ctx context.Context, _ time.Duration) error { return ctx.Err() },
		})
		require.NoError(t, err)
		defer client.Close()
		day, err := client.OpenDay(t.Context(), 0)
		for errors.Is(err, intake.ErrBusy) { // The server has yet to learn of the last cut.
			day, err = client.OpenDay(t.Context(), 0)
		}
		if err != nil {
			require.ErrorContains(t, err, "gave up")
			return false
		}
		defer func() { require.NoError(t, day.Close()) }()
		for ref := uint64(1); ref < 4; ref++ {
			if err := day.Add(ref, []intake.Chunk{chunk}); err != nil {
				require.ErrorIs(t, err, intake.ErrReadAgain)
				return false
			}
		}
		if _, err := day.Commit(t.Context()); err != nil {
			require.ErrorIs(t, err, intake.ErrReadAgain)
			return false
		}
		return true
	}
	cut := 0
	for after := 100; ; after += 3 {
		if attempt(after) {
			break
		}
		cut++
		m.mu.Lock()
		require.Empty(t, m.days, "cut after %d bytes", after)
		m.mu.Unlock()
		require.Less(t, after, 5000)
	}
	require.Greater(t, cut, 50)
	require.True(t, m.days[0].committed)
}

// TestCutDigests shows that a connection that breaks behind the commit is no end of an import: the day is read again, and found to be there.
func TestCutDigests(t *testing.T) {
	m := newMemory()
	m.abort = true
	client, _ := served(t, m, nil)
	day, err := client.OpenDay(t.Context(), 0)
	require.NoError(t, err)
	for ref := uint64(1); ref < 4; ref++ {
		require.NoError(t, day.Add(ref, []intake.Chunk{floats(t, chunkenc.EncXOR, 0, 10)}))
	}
	_, err = day.Commit(t.Context())
	require.NoError(t, err)
	err = day.Digests(t.Context(), func(uint64, digest.Series) error { return nil })
	require.ErrorIs(t, err, intake.ErrReadAgain)
	require.NoError(t, day.Close())
}

// TestArchiveIsNamed shows that a client learns which archive it is that it brings samples to.
func TestArchiveIsNamed(t *testing.T) {
	for _, name := range []string{"", "0123abcd"} {
		client, _ := served(t, newMemory(), func(h *wire.HandlerOptions, _ *wire.Options) { h.Archive = name })
		got, err := client.Archive(t.Context())
		require.NoError(t, err)
		require.Equal(t, name, got)
	}
}

// TestResolve shows that series are resolved in requests of limited size, that refusals come back, that what no server would
// take isn't sent, and that a failure that passes is tried again.
func TestResolve(t *testing.T) {
	m := newMemory()
	m.fail, m.failures = errors.New("full"), 2
	retried := 0
	client, _ := served(t, m, func(h *wire.HandlerOptions, c *wire.Options) {
		h.Unavailable = func(err error) (time.Duration, bool) { return time.Second, err.Error() == "full" }
		c.Retrying = func(err error, wait time.Duration) {
			require.ErrorContains(t, err, "full")
			require.GreaterOrEqual(t, wait, 800*time.Millisecond)
			retried++
		}
	})
	long := make([]byte, 20000)
	for i := range long {
		long[i] = 'x'
	}
	var all []intake.Series
	for i := range 200 {
		all = append(all, intake.Series{Labels: labels.FromStrings(model.MetricNameLabel, "up", "i", fmt.Sprint(i), "long", string(long))})
	}
	all = append(all, intake.Series{Labels: labels.FromStrings(model.MetricNameLabel, "refused")},
		intake.Series{Labels: labels.FromStrings("a", string(make([]byte, 1<<17)))})
	require.NoError(t, client.Resolve(t.Context(), all))
	require.Equal(t, 2, retried)
	require.Greater(t, m.calls, 4, "several requests")
	for i := range 200 {
		require.EqualValues(t, i+1, all[i].Ref)
		require.EqualValues(t, i%3, all[i].Metric)
	}
	require.Equal(t, "not wanted", all[200].Refused)
	require.Equal(t, "labels too long", all[201].Refused)

	m.fail, m.failures = errors.New("broken"), 0
	require.ErrorContains(t, client.Resolve(t.Context(), all[:1]), "500 Internal Server Error: broken")
}

// TestWrite shows that samples arrive at the write port whole, a long series in parts, and that reports add up.
func TestWrite(t *testing.T) {
	m := newMemory()
	forwarded := newMemory()
	client, _ := served(t, m, func(h *wire.HandlerOptions, c *wire.Options) { h.Forwarding, c.Forward = forwarded, true })
	ls := labels.FromStrings(model.MetricNameLabel, "up")
	var chunks []intake.Chunk
	for i := range 300 {
		chunks = append(chunks, floats(t, chunkenc.EncXOR, int64(i)*intake.DayMillis, 5000))
	}
	r, err := client.Write(t.Context(), []intake.SeriesSamples{{Labels: ls, Chunks: chunks}, {Labels: labels.FromStrings("a", "b"), Chunks: chunks[:1]}})
	require.NoError(t, err)
	require.EqualValues(t, 301*5000, r.Samples)
	require.Equal(t, r.Refused, r.Reasons["too old"])
	require.Empty(t, m.writes)
	require.Greater(t, len(forwarded.writes), 2)
	var got []intake.Chunk
	for _, w := range forwarded.writes {
		if labels.Equal(w.Labels, ls) {
			got = append(got, w.Chunks...)
		}
	}
	require.Equal(t, digestOf(chunks), digestOf(got))

	client, _ = served(t, m, func(_ *wire.HandlerOptions, c *wire.Options) { c.Forward = true })
	_, err = client.Write(t.Context(), []intake.SeriesSamples{{Labels: ls, Chunks: chunks[:1]}})
	require.ErrorContains(t, err, "doesn't forward")
}
