package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
)

// importTarget is a server that remembers the pieces it took and answers as it is told.
type importTarget struct {
	*httptest.Server
	mu     sync.Mutex
	pieces []string
	query  []url.Values
	// answer returns what to say to a piece before it is taken; nil takes it.
	answer func(n int, piece string, w http.ResponseWriter) bool
	calls  int
}

func newImportTarget(t *testing.T) *importTarget {
	s := &importTarget{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		body := io.Reader(r.Body)
		if r.Header.Get("Content-Encoding") == "gzip" {
			z, err := gzip.NewReader(body)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			body = z
		}
		b, err := io.ReadAll(body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		s.calls++
		if s.answer != nil && s.answer(s.calls, string(b), w) {
			return
		}
		s.pieces, s.query = append(s.pieces, string(b)), append(s.query, r.URL.Query())
		_ = json.NewEncoder(w).Encode(map[string]int{"lines": 1, "samples": strings.Count(string(b), "\n")})
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *importTarget) all() string { return strings.Join(s.pieces, "") }

// testImport is an importer of small pieces whose waits take no time.
func testImport(t *testing.T, s *importTarget, path string, cut cutter) (*importer, *bytes.Buffer, *bytes.Buffer) {
	target, err := url.Parse(s.URL + path)
	require.NoError(t, err)
	var out, errs bytes.Buffer
	now := time.Unix(0, 0)
	client, err := importClient("")
	require.NoError(t, err)
	t.Cleanup(client.CloseIdleConnections)
	sender := &importSender{
		client: client, target: target, parameters: url.Values{"p": {"1"}}, patience: time.Minute, now: func() time.Time { return now },
		wait: func(_ context.Context, d time.Duration) error { now = now.Add(d); return nil },
	}
	return &importer{sender: sender, cut: cut, pieceBytes: 100, out: &out, errors: &errs, progress: newImportProgress(&errs, time.Now)}, &out, &errs
}

func numbered(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "m{i=\"%d\"} %d %d\n", i, i, i)
	}
	return b.String()
}

// TestImportPieces shows that files of all kinds arrive whole, cut at the ends of records, and once.
func TestImportPieces(t *testing.T) {
	text := numbered(100)
	dir := t.TempDir()
	write := func(name string, wrap func(io.Writer) io.WriteCloser) string {
		path := filepath.Join(dir, name)
		f, err := os.Create(path)
		require.NoError(t, err)
		w := wrap(f)
		_, err = io.WriteString(w, text)
		require.NoError(t, err)
		require.NoError(t, w.Close())
		require.NoError(t, f.Close())
		return path
	}
	plain := writeFile(t, "a.om", text)
	zipped := write("a.om.gz", func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) })
	zstded := write("a.om.zst", func(w io.Writer) io.WriteCloser { z, _ := zstd.NewWriter(w); return z })
	for _, name := range []string{plain, zipped, zstded} {
		for _, compress := range []bool{false, true} {
			s := newImportTarget(t)
			i, out, errs := testImport(t, s, "/api/v1/import/influx", cutLines)
			i.sender.compress = compress
			require.NoError(t, i.files(t.Context(), []string{name}))
			require.Equal(t, text, s.all())
			require.Greater(t, len(s.pieces), 10)
			for _, piece := range s.pieces {
				require.True(t, strings.HasSuffix(piece, "\n"))
			}
			require.Equal(t, "1", s.query[0].Get("p"))
			require.Contains(t, out.String(), "100 samples stored, 0 refused")
			require.Empty(t, errs)
			// It is done: a second time nothing is sent.
			before := len(s.pieces)
			require.NoError(t, i.files(t.Context(), []string{name}))
			require.Len(t, s.pieces, before)
		}
	}
}

// TestImportGoesOn shows that an import that ended in the middle goes on where it was, also of compressed files, whenever it
// ended; that a file that has grown is sent on; and that one that has changed is not.
func TestImportGoesOn(t *testing.T) {
	text := numbered(60)
	path := writeFile(t, "a.om", text)
	s := newImportTarget(t)
	for n := 1; ; n++ {
		i, _, _ := testImport(t, s, "/x", cutLines)
		i.sender.patience = 0
		left := 3
		s.answer = func(_ int, _ string, w http.ResponseWriter) bool {
			if left--; left == 0 {
				http.Error(w, "stopping", http.StatusServiceUnavailable)
				return true
			}
			return false
		}
		err := i.files(t.Context(), []string{path})
		if err == nil {
			require.GreaterOrEqual(t, n, 5)
			break
		}
		require.ErrorContains(t, err, "run the same command again")
		require.Less(t, n, 1000)
	}
	require.Equal(t, text, s.all())
	s.answer = nil
	more := "m{i=\"more\"} 1 1\n"
	require.NoError(t, os.WriteFile(path, []byte(text+more), 0o600))
	i, _, _ := testImport(t, s, "/x", cutLines)
	require.NoError(t, i.files(t.Context(), []string{path}))
	require.Equal(t, text+more, s.all())
	require.NoError(t, os.WriteFile(path, []byte("x"+text+more), 0o600))
	require.ErrorIs(t, i.files(t.Context(), []string{path}), errChanged)
	i.restart = true
	require.NoError(t, i.files(t.Context(), []string{path}))
	require.Equal(t, text+more+"x"+text+more, s.all())
	require.NoError(t, os.WriteFile(path+importStateSuffix, []byte("{"), 0o600))
	require.ErrorContains(t, i.files(t.Context(), []string{path}), "remove it")
}

// TestImportRetries shows which answers are waited out, and for how long, and which end an import.
func TestImportRetries(t *testing.T) {
	path := writeFile(t, "a.om", numbered(20))
	s := newImportTarget(t)
	i, _, errs := testImport(t, s, "/x", cutLines)
	i.stateFile = filepath.Join(t.TempDir(), "state")
	var waits []time.Duration
	wait := i.sender.wait
	i.sender.wait = func(ctx context.Context, d time.Duration) error { waits = append(waits, d); return wait(ctx, d) }
	s.answer = func(n int, _ string, w http.ResponseWriter) bool {
		switch n {
		case 1:
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(http.StatusServiceUnavailable)
		case 2:
			w.WriteHeader(http.StatusTooManyRequests)
		case 3:
			w.WriteHeader(http.StatusBadGateway)
		case 4:
			panic(http.ErrAbortHandler)
		default:
			return false
		}
		return true
	}
	require.NoError(t, i.files(t.Context(), []string{path}))
	require.Equal(t, numbered(20), s.all())
	require.Len(t, waits, 4)
	require.Equal(t, 7*time.Second, waits[0])
	require.Greater(t, waits[3], waits[1])
	require.Contains(t, errs.String(), "503")
	for _, code := range []int{301, 401, 403, 404, 405, 413, 415} {
		s.answer = func(_ int, _ string, w http.ResponseWriter) bool {
			w.Header().Set("Location", "/")
			w.WriteHeader(code)
			return true
		}
		i.restart = true
		err := i.files(t.Context(), []string{path})
		require.ErrorContains(t, err, fmt.Sprint(code))
		require.ErrorContains(t, err, "lines from 1 on")
	}
	s.answer = func(_ int, _ string, w http.ResponseWriter) bool {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"lines":0,"samples":0,"refused":0,"error":"malformed format"}`)
		return true
	}
	require.ErrorContains(t, i.files(t.Context(), []string{path}), "malformed format")
	s.answer = func(_ int, _ string, w http.ResponseWriter) bool { w.WriteHeader(503); return true }
	require.ErrorContains(t, i.files(t.Context(), []string{path}), "gave up after 1m0s")
}

// TestImportRefusals shows that what is refused is named by file and line, counted, and makes the exit code 1, and that the
// rest is sent, unless it is to stop.
func TestImportRefusals(t *testing.T) {
	var text strings.Builder
	for n := range 100 {
		if n == 0 {
			text.WriteString("# TYPE m gauge\n# HELP m Help.\n")
		}
		if n%7 == 3 {
			text.WriteString("bad\n")
		}
		fmt.Fprintf(&text, "m{i=\"%d\"} %d\n", n, n)
	}
	path := writeFile(t, "a.om", text.String())
	lines := strings.Split(text.String(), "\n")
	s := newImportTarget(t)
	s.answer = func(_ int, piece string, w http.ResponseWriter) bool {
		var examples []string
		for n, line := range strings.Split(piece, "\n") {
			if line == "bad" {
				examples = append(examples, fmt.Sprintf("line %d: no value", n+1))
			}
		}
		s.pieces = append(s.pieces, piece)
		if len(examples) > 0 {
			w.WriteHeader(http.StatusBadRequest)
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"refused": len(examples), "examples": examples, "samples": 1})
		return true
	}
	i, out, errs := testImport(t, s, "/api/v1/import/prometheus", cutExposition)
	require.ErrorIs(t, i.files(t.Context(), []string{path}), errFound)
	shown := 0
	for line := range strings.SplitSeq(strings.TrimSpace(errs.String()), "\n") {
		var n int
		if _, err := fmt.Sscanf(strings.TrimPrefix(line, path), ":%d: no value", &n); err != nil {
			require.Contains(t, line, "14 refused in all")
			continue
		}
		require.Equal(t, "bad", lines[n-1])
		shown++
	}
	require.Equal(t, shownMax, shown)
	require.Contains(t, out.String(), "14 refused")
	// What was said of the family goes with every piece.
	for _, piece := range s.pieces {
		require.True(t, strings.HasPrefix(piece, "# TYPE m gauge\n# HELP m Help.\n"), piece)
	}
	i, _, _ = testImport(t, s, "/api/v1/import/prometheus", cutExposition)
	i.restart, i.stop = true, true
	s.pieces = nil
	require.ErrorContains(t, i.files(t.Context(), []string{path}), "the next run goes on behind it")
	require.Less(t, len(s.pieces), 5)
	stops := 1
	for i.restart = false; ; stops++ {
		if err := i.files(t.Context(), []string{path}); errors.Is(err, errFound) {
			break
		}
		require.LessOrEqual(t, stops, 14)
	}
	require.Equal(t, 14, stops, "each run goes on behind the piece that ended the one before")
}

// TestImportOfOpenEnd shows that a record which a file ended in is sent again when the file has grown: it may have
// been in the middle of being written.
func TestImportOfOpenEnd(t *testing.T) {
	for whole, cut := range map[string]cutter{"a 1 1\nb 2 2\nc 3 3": cutExposition, "a b=1 1\nc d=\"x\ny\" 2": cutInflux, "a,1\n\"b\nc\",2": cutCSV} {
		for n := range len(whole) {
			path := writeFile(t, "grows", whole[:n])
			s := newImportTarget(t)
			i, _, _ := testImport(t, s, "/x", cut)
			require.NoError(t, i.files(t.Context(), []string{path}))
			require.NoError(t, os.WriteFile(path, []byte(whole+"\n"), 0o600))
			require.NoError(t, i.files(t.Context(), []string{path}))
			from := cut([]byte(whole[:n]))
			if n > 0 && whole[n-1] == '\n' {
				from = n
			}
			require.Equal(t, whole[:n]+whole[from:]+"\n", s.all())
		}
	}
}

// TestImportCuts shows where pieces are cut.
func TestImportCuts(t *testing.T) {
	f := func(cut cutter, whole, want string) {
		t.Helper()
		require.Equal(t, want, whole[:cut([]byte(whole))])
	}
	f(cutLines, "a\nb\nc", "a\nb\n")
	f(cutLines, "a", "")
	f(cutExposition, "a 1\nb 2\nc", "a 1\nb 2\n")
	f(cutExposition, "a 1\nb 2\n# TYPE c counter\nc_total 1\n", "a 1\nb 2\n")
	f(cutExposition, "a_total 1\na_total 2\na_total 3\na_created 2\na_total 4\nx", "a_total 1\na_total 2\na_total 3\na_created 2\n")
	f(cutExposition, "a_created{x=\"y\"} 2\na_total 4\nxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\nx", "a_created{x=\"y\"} 2\na_total 4\nxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n")
	f(cutExposition, "# TYPE a counter\na 1", "# TYPE a counter\n")
	f(cutExposition, "no end", "")
	f(cutCSV, "a,b\nc,d\ne", "a,b\nc,d\n")
	f(cutCSV, "a,b\n\"c\nd\",e\n\"f\n", "a,b\n\"c\nd\",e\n")
	f(cutCSV, "\"a\nb\nc", "\"a\nb\n")
	f(cutCSV, "\"a\"\"b\n\",1\nx", "\"a\"\"b\n\",1\n")
	f(cutCSV, "5\" disk,1\nb,2\n\"c\nd\",3\n\"e\n", "5\" disk,1\nb,2\n\"c\nd\",3\n")
	f(cutInflux, "a b=1\nc d=\"x\ny e=1\"", "a b=1\n")
	f(cutInflux, "a b=1\nc d=\"x\ny e=1\",f=2\ng", "a b=1\nc d=\"x\ny e=1\",f=2\n")
	f(cutInflux, "a,t=\" b=1\nc d=1\n", "a,t=\" b=1\nc d=1\n")
	open := "c d=\"" + strings.Repeat("x\n", influxLineBytesMax/2)
	f(cutInflux, open+"y", open)
}

// TestImportHeader shows that a header is passed over at the start of a file, and not of a piece.
func TestImportHeader(t *testing.T) {
	path := writeFile(t, "a.csv", "h\n"+numbered(20))
	s := newImportTarget(t)
	i, _, _ := testImport(t, s, "/csv", cutCSV)
	i.header = 1
	require.NoError(t, i.files(t.Context(), []string{path}))
	for n, q := range s.query {
		require.Equal(t, map[bool]string{true: "1", false: ""}[n == 0], q.Get("header"))
	}
}

// TestImportOddFiles shows that files that end early, hold one long record, or nothing, are what they are.
func TestImportOddFiles(t *testing.T) {
	s := newImportTarget(t)
	i, _, _ := testImport(t, s, "/x", cutLines)
	long := strings.Repeat("x", 1000)
	require.NoError(t, i.files(t.Context(), []string{writeFile(t, "long", "a\n"+long+"\nb"), writeFile(t, "empty", "")}))
	require.Equal(t, "a\n"+long+"\nb", s.all())
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := io.WriteString(z, numbered(2000))
	require.NoError(t, err)
	require.NoError(t, z.Close())
	cut := writeFile(t, "cut.gz", b.String()[:b.Len()-100])
	require.ErrorContains(t, i.files(t.Context(), []string{cut}), "the file ends early")
	require.Error(t, i.files(t.Context(), []string{filepath.Join(t.TempDir(), "none")}))
}

// TestImportState shows that the state is on disk when a piece was stored, and that state and data of two targets don't mix.
func TestImportState(t *testing.T) {
	path := writeFile(t, "a.om", numbered(30))
	s := newImportTarget(t)
	i, _, _ := testImport(t, s, "/x", cutLines)
	s.answer = func(n int, _ string, _ http.ResponseWriter) bool {
		if n == 1 {
			return false
		}
		state, err := readImportState(path + importStateSuffix)
		require.NoError(t, err)
		require.Len(t, state.Files, 1)
		for _, m := range state.Files {
			require.Equal(t, int64(len(s.all())), m.Offset)
			require.False(t, m.Done)
		}
		return false
	}
	require.NoError(t, i.files(t.Context(), []string{path}))
	left, err := filepath.Glob(filepath.Join(filepath.Dir(path), "*.tmp"))
	require.NoError(t, err)
	require.Empty(t, left)
	s.answer = nil
	i.sender.parameters.Set("p", "2")
	n := len(s.pieces)
	require.NoError(t, i.files(t.Context(), []string{path}))
	require.Len(t, s.pieces, 2*n)
}

// TestImportIntoServer imports a file by the built command into a running server, with authentication from a file, and finds
// the samples.
func TestImportIntoServer(t *testing.T) {
	dir := t.TempDir()
	p := start(t, filepath.Join(dir, "data"))
	if code, _ := p.call(http.MethodPost, "/api/v1/import/prometheus", nil); code == http.StatusNotFound {
		t.Skip("NOT RUN: this server has no path /api/v1/import/prometheus")
	}
	at := time.Date(2015, 3, 1, 0, 0, 0, 0, time.UTC)
	var text strings.Builder
	text.WriteString("# TYPE old_total counter\n")
	for n := range 1000 {
		fmt.Fprintf(&text, "old_total{i=\"1\"} %d %d.500\n", n, at.Unix()+int64(n)*15)
	}
	text.WriteString("# EOF\n")
	file := writeFile(t, "old.om", text.String())
	config := writeFile(t, "http.yml", "basic_auth: {username: a, password: b}\n")
	code, stdout, stderr := invoke(t, "import", "openmetrics", "--url="+p.base, "--http.config.file="+config, file)
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "1000 samples stored, 0 refused")
	require.Equal(t, "999", p.value(`max_over_time(old_total[1d])`, at.Add(12*time.Hour)))
	csv := writeFile(t, "old.csv", fmt.Sprintf("host,cpu,time\na,1.5,%d\nb,x,%d\n", at.Unix(), at.Unix()))
	code, stdout, stderr = invoke(t, "import", "csv", "--format=1:label:host,2:metric:old_cpu,3:time:unix_s", "--header=1", "--url="+p.base, csv)
	require.Equal(t, 1, code)
	require.Contains(t, stdout, "1 samples stored, 1 refused")
	require.Contains(t, stderr, csv+":3: ")
	p.terminate()
}
