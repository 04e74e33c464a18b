package remoteread_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"sync/atomic"
	"testing"
	"time"

	config_util "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"varve/digest"
	"varve/intake"
	"varve/intake/remoteread"
	"varve/internal/testkit/leaks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(leaks.Patient(m)) }

// begin is the first time of the test data: noon of a day.
const begin = 20000*intake.DayMillis + intake.DayMillis/2

// minutes is how long the data are: from noon to the noon after the next.
const minutes = 48 * 60

// database is a TSDB of upstream with a day and two halves of floats and histograms, NaNs among them.
func database(t *testing.T) *tsdb.DB {
	o := tsdb.DefaultOptions()
	o.RetentionDuration = 0
	db, err := tsdb.Open(t.TempDir(), slog.New(slog.DiscardHandler), nil, o, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	db.DisableCompactions()
	app := db.Appender(t.Context())
	for i := range int64(minutes) {
		at := begin + i*60_000
		for s := range 5 {
			v := float64(i) / float64(s+3)
			if i%50 == 7 {
				v = math.Float64frombits(value.StaleNaN)
			}
			if i%50 == 9 {
				v = math.Float64frombits(value.NormalNaN | uint64(i))
			}
			_, err = app.Append(0, labels.FromStrings(model.MetricNameLabel, "f", "s", fmt.Sprint(s)), at, v)
			require.NoError(t, err)
		}
		_, err = app.AppendHistogram(0, labels.FromStrings(model.MetricNameLabel, "h"), at, tsdbutil.GenerateTestHistogram(i%100), nil)
		require.NoError(t, err)
		_, err = app.AppendHistogram(0, labels.FromStrings(model.MetricNameLabel, "i"), at, nil, tsdbutil.GenerateTestFloatHistogram(i))
		require.NoError(t, err)
	}
	require.NoError(t, app.Commit())
	return db
}

// expected is what a queryable has in a range, by series.
func expected(t *testing.T, q storage.Queryable, from, to int64, matchers ...*labels.Matcher) map[string]digest.Series {
	querier, err := q.Querier(from, to)
	require.NoError(t, err)
	defer querier.Close()
	if matchers == nil {
		matchers = []*labels.Matcher{labels.MustNewMatcher(labels.MatchNotEqual, model.MetricNameLabel, "")}
	}
	all := map[string]digest.Series{}
	set := querier.Select(t.Context(), false, nil, matchers...)
	for set.Next() {
		var d digest.Series
		add(&d, set.At().Iterator(nil), nil)
		all[set.At().Labels().String()] = d
	}
	require.NoError(t, set.Err())
	return all
}

func add(d *digest.Series, it chunkenc.Iterator, wanted func(t int64) bool) {
	for v := it.Next(); v != chunkenc.ValNone; v = it.Next() {
		if wanted != nil && !wanted(it.AtT()) {
			continue
		}
		switch v {
		case chunkenc.ValFloat:
			d.Float(it.At())
		case chunkenc.ValHistogram:
			d.Histogram(it.AtHistogram(nil))
		case chunkenc.ValFloatHistogram:
			d.FloatHistogram(it.AtFloatHistogram(nil))
		}
	}
}

// fetched is what a source has of a day, by series: samples that come more than once count once.
func fetched(t *testing.T, s intake.Source, start int64) map[string]digest.Series {
	day, err := s.OpenDay(t.Context(), start)
	require.NoError(t, err)
	defer func() { require.NoError(t, day.Close()) }()
	type named struct {
		name   string
		handle uint64
	}
	var handles []named
	require.NoError(t, day.Series(t.Context(), func(ls labels.Labels, handle uint64) error {
		handles = append(handles, named{ls.String(), handle})
		return nil
	}))
	all := map[string]digest.Series{}
	seen := map[string]map[int64]bool{}
	for _, h := range handles {
		chunks, err := day.Chunks(t.Context(), h.handle, nil)
		require.NoError(t, err)
		require.NotEmpty(t, chunks)
		d := all[h.name]
		if seen[h.name] == nil {
			seen[h.name] = map[int64]bool{}
		}
		for _, c := range chunks {
			add(&d, c.Chunk.Iterator(nil), func(at int64) bool {
				require.GreaterOrEqual(t, at, c.MinMillis)
				require.LessOrEqual(t, at, c.MaxMillis)
				if at < start || at >= start+intake.DayMillis || seen[h.name][at] {
					return false
				}
				for _, gone := range c.Deleted {
					if at >= gone.Mint && at <= gone.Maxt {
						return false
					}
				}
				seen[h.name][at] = true
				return true
			})
		}
		all[h.name] = d
	}
	for name, d := range all {
		if d.Samples == 0 {
			delete(all, name)
		}
	}
	return all
}

// readServer is upstream's handler of remote read, with an answer before it.
type readServer struct {
	*httptest.Server
	requests atomic.Int64
	// before answers a request if it returns true.
	before func(n int64, w http.ResponseWriter) bool
}

func serve(t *testing.T, q storage.SampleAndChunkQueryable, sampleLimit int) *readServer {
	s := &readServer{}
	h := remote.NewReadHandler(slog.New(slog.DiscardHandler), nil, q, func() config.Config { return config.Config{} }, sampleLimit, 10, 4096)
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := s.requests.Add(1)
		if s.before != nil && s.before(n, w) {
			return
		}
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *readServer) open(t *testing.T, change func(*remoteread.Options)) *remoteread.Source {
	u, err := url.Parse(s.URL + "/api/v1/read")
	require.NoError(t, err)
	o := remoteread.Options{
		URL: u, HTTP: config_util.DefaultHTTPClientConfig,
		Selection: remoteread.Selection{Start: begin, End: begin + minutes*60_000},
		Wait:      func(ctx context.Context, _ time.Duration) error { return ctx.Err() },
	}
	if change != nil {
		change(&o)
	}
	source, err := remoteread.Open(o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, source.Close()) })
	return source
}

// TestFetch shows that what is fetched in chunks, in samples, from memory and from a file, and of a storage in this process is what
// the server has, bit for bit, day by day.
func TestFetch(t *testing.T) {
	db := database(t)
	server := serve(t, db, 0)
	scratch := t.TempDir()
	local, err := remoteread.FromQueryable(db, "db", remoteread.Selection{Start: begin, End: begin + minutes*60_000})
	require.NoError(t, err)
	for name, source := range map[string]*remoteread.Source{
		"chunks":  server.open(t, nil),
		"samples": server.open(t, func(o *remoteread.Options) { o.SamplesOnly = true }),
		"file":    server.open(t, func(o *remoteread.Options) { o.Scratch, o.MemoryBytes = scratch, 1000 }),
		"local":   local,
	} {
		mint, maxt, ok := source.Span()
		require.True(t, ok)
		require.EqualValues(t, begin, mint)
		require.EqualValues(t, begin+minutes*60_000, maxt)
		for day := range int64(3) {
			start := intake.DayStart(begin) + day*intake.DayMillis
			want := expected(t, db, start, start+intake.DayMillis-1)
			require.Len(t, want, 7)
			require.Equal(t, want, fetched(t, source, start), "%s day %d", name, day)
		}
		require.Empty(t, fetched(t, source, intake.DayStart(begin)+5*intake.DayMillis))
	}
	left, err := os.ReadDir(scratch)
	require.NoError(t, err)
	require.Empty(t, left)
}

// TestSelection shows that selectors and a range within days choose, and that the state of an intake tells one from another.
func TestSelection(t *testing.T) {
	db := database(t)
	server := serve(t, db, 0)
	f1 := labels.MustNewMatcher(labels.MatchEqual, "s", "1")
	h := labels.MustNewMatcher(labels.MatchEqual, model.MetricNameLabel, "h")
	part := server.open(t, func(o *remoteread.Options) {
		o.Start, o.End = begin+3_600_000, begin+7_200_000
		o.Selectors = [][]*labels.Matcher{{f1}, {h}}
	})
	want := expected(t, db, begin+3_600_000, begin+7_200_000, f1)
	for name, d := range expected(t, db, begin+3_600_000, begin+7_200_000, h) {
		want[name] = d
	}
	require.Len(t, want, 2)
	start := intake.DayStart(begin)
	require.Equal(t, want, fetched(t, part, start))
	whole := server.open(t, nil)
	require.NotEqual(t, whole.Identity(start), part.Identity(start))
	require.NotEqual(t, whole.Identity(start), whole.Identity(start+intake.DayMillis))
	require.Equal(t, whole.Identity(start), server.open(t, nil).Identity(start))
	_, err := remoteread.FromQueryable(db, "x", remoteread.Selection{Start: 1, End: 0})
	require.Error(t, err)
}

// TestTooMuch shows that a day over the server's limit is fetched in narrower windows, and the next day too from the start.
func TestTooMuch(t *testing.T) {
	db := database(t)
	server := serve(t, db, 1000)
	narrowed := 0
	source := server.open(t, func(o *remoteread.Options) {
		o.SamplesOnly = true
		o.Retrying = func(err error, _ time.Duration) {
			require.ErrorContains(t, err, "in windows of")
			narrowed++
		}
	})
	start := intake.DayStart(begin) + intake.DayMillis
	require.Equal(t, expected(t, db, start, start+intake.DayMillis-1), fetched(t, source, start))
	require.Equal(t, 4, narrowed, "to a sixteenth of a day")
	start -= intake.DayMillis
	require.Equal(t, expected(t, db, start, start+intake.DayMillis-1), fetched(t, source, start))
	require.Equal(t, 4, narrowed)

	server = serve(t, db, 1)
	source = server.open(t, func(o *remoteread.Options) { o.SamplesOnly = true })
	_, err := source.OpenDay(t.Context(), start)
	require.ErrorContains(t, err, "exceeded sample limit")
}

// TestFailures shows that failures that pass, an answer that breaks off among them, are tried again without samples twice or lost, that others
// end the day, and that patience ends.
func TestFailures(t *testing.T) {
	db := database(t)
	server := serve(t, db, 0)
	server.before = func(n int64, w http.ResponseWriter) bool {
		switch n {
		case 1:
			w.Header().Set("Retry-After", "7")
			http.Error(w, "later", http.StatusServiceUnavailable)
		case 2:
			w.Header().Set("Content-Type", "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse")
			_, _ = w.Write([]byte{100, 1, 2})
		default:
			return false
		}
		return true
	}
	var waits []time.Duration
	source := server.open(t, func(o *remoteread.Options) {
		o.Retrying = func(_ error, wait time.Duration) { waits = append(waits, wait) }
	})
	start := intake.DayStart(begin)
	require.Equal(t, expected(t, db, start, start+intake.DayMillis-1), fetched(t, source, start))
	require.Len(t, waits, 2)
	require.Equal(t, 7*time.Second, waits[0])

	for text, answer := range map[string]http.HandlerFunc{
		"403 Forbidden": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusForbidden) },
		"content type":  func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") },
		"malformed": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/x-protobuf")
			fmt.Fprint(w, "xx")
		},
		"gave up": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) },
	} {
		server.before = func(_ int64, w http.ResponseWriter) bool { answer(w, nil); return true }
		source := server.open(t, func(o *remoteread.Options) { o.Patience = time.Nanosecond })
		_, err := source.OpenDay(t.Context(), start)
		require.ErrorContains(t, err, text)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := server.open(t, nil).OpenDay(ctx, start)
	require.ErrorIs(t, err, context.Canceled)
	full := server.open(t, func(o *remoteread.Options) { o.Scratch, o.MemoryBytes = "/nowhere/at/all", 1000 })
	server.before = nil
	_, err = full.OpenDay(t.Context(), start)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.False(t, errors.Is(err, context.Canceled))
}
