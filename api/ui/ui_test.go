package ui

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

// scriptName is a file whose name has a hash.
const scriptName = "assets/index-Bx8_zQ4k.js"

var script = []byte(strings.Repeat("export const answer = 42;\n", 100))

func smallPage(t *testing.T) *Page {
	t.Helper()
	p, err := newPage(fstest.MapFS{
		indexName:             {Data: []byte("<!doctype html><title>Varve</title>" + strings.Repeat("<p>x</p>", 50))},
		scriptName:            {Data: script},
		"assets/plain.css":    {Data: []byte(strings.Repeat("a{color:red}", 20))},
		"assets/x-AAAAAAAA.q": {Data: []byte("tiny")},
		"favicon.svg":         {Data: []byte("<svg xmlns='http://www.w3.org/2000/svg'/>")},
		"dots.png":            {Data: bytes.Repeat([]byte{1}, 1000)},
		sourcesName:           {Data: []byte("0")},
	})
	require.NoError(t, err)
	return p
}

func ask(p http.Handler, method, path string, header ...string) *http.Response {
	r := httptest.NewRequest(method, path, nil)
	for pair := range slices.Chunk(header, 2) {
		r.Header.Add(pair[0], pair[1])
	}
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, r *http.Response) []byte {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	require.NoError(t, err)
	return b
}

// TestFiles serves every kind of file with its type, how long it may be kept, and a strong tag.
func TestFiles(t *testing.T) {
	t.Parallel()
	p := smallPage(t)
	for _, c := range []struct{ path, contentType, cache string }{
		{"/", "text/html; charset=utf-8", cacheOthers},
		{"/" + scriptName, "text/javascript; charset=utf-8", cacheHashed},
		{"/assets/plain.css", "text/css; charset=utf-8", cacheOthers},
		{"/assets/x-AAAAAAAA.q", "application/octet-stream", cacheHashed},
		{"/favicon.svg", "image/svg+xml", cacheOthers},
		{"/favicon.ico", "image/svg+xml", cacheOthers},
		{"/dots.png", "image/png", cacheOthers},
	} {
		r := ask(p, "GET", c.path)
		require.Equal(t, 200, r.StatusCode, c.path)
		require.Equal(t, c.contentType, r.Header.Get("Content-Type"), c.path)
		require.Equal(t, c.cache, r.Header.Get("Cache-Control"), c.path)
		require.Equal(t, "nosniff", r.Header.Get("X-Content-Type-Options"), c.path)
		require.Regexp(t, `^"[0-9a-f]{32}"$`, r.Header.Get("ETag"), c.path)
		require.Empty(t, r.Header.Get("Content-Encoding"), c.path)
		require.Equal(t, strconv.Itoa(len(body(t, r))), r.Header.Get("Content-Length"), c.path)
	}
}

// TestNothingElse finds no folder, no listing, no way out of the page, and not what the build left for the test.
func TestNothingElse(t *testing.T) {
	t.Parallel()
	p := smallPage(t)
	for _, path := range []string{"/assets", "/assets/", "/" + sourcesName, "/index.html", "/x", "/../ui.go", "/assets/../ui.go", "/%2e%2e/ui.go", "//", "/assets//plain.css"} {
		r := httptest.NewRequest("GET", "/", nil)
		r.URL.Path = path
		w := httptest.NewRecorder()
		p.ServeHTTP(w, r)
		require.Equal(t, 404, w.Code, path)
	}
	require.Equal(t, []string{"/", "/assets/index-Bx8_zQ4k.js", "/assets/plain.css", "/assets/x-AAAAAAAA.q", "/dots.png", "/favicon.svg"}, p.Paths())
}

// TestCompressed gives compressed text to who takes it, under a tag of its own, and other files and clients the file as it is.
func TestCompressed(t *testing.T) {
	t.Parallel()
	p := smallPage(t)
	plain := ask(p, "GET", "/"+scriptName)
	for _, accept := range []string{"gzip", "br;q=1, GZIP ; q=0.5", "deflate, *", "x-gzip", "identity;q=0, gzip;q=0.001"} {
		r := ask(p, "GET", "/"+scriptName, "Accept-Encoding", accept)
		require.Equal(t, "gzip", r.Header.Get("Content-Encoding"), accept)
		require.Equal(t, "Accept-Encoding", r.Header.Get("Vary"))
		require.NotEqual(t, plain.Header.Get("ETag"), r.Header.Get("ETag"))
		b := body(t, r)
		require.Equal(t, strconv.Itoa(len(b)), r.Header.Get("Content-Length"))
		z, err := gzip.NewReader(bytes.NewReader(b))
		require.NoError(t, err)
		content, err := io.ReadAll(z)
		require.NoError(t, err)
		require.Equal(t, script, content)
		require.Less(t, len(b), len(content)/4)
	}
	for _, accept := range []string{"", "br", "gzip;q=0", "gzip; q=0.0, *", "*;q=0", "gzip;q=x", "notgzip"} {
		r := ask(p, "GET", "/"+scriptName, "Accept-Encoding", accept)
		require.Empty(t, r.Header.Get("Content-Encoding"), accept)
		require.Equal(t, "Accept-Encoding", r.Header.Get("Vary"), accept)
		require.Equal(t, script, body(t, r), accept)
	}
	for _, path := range []string{"/dots.png", "/assets/x-AAAAAAAA.q"} {
		r := ask(p, "GET", path, "Accept-Encoding", "gzip")
		require.Empty(t, r.Header.Get("Content-Encoding"), "what is packed or would grow")
		require.Empty(t, r.Header.Get("Vary"))
	}
}

// TestSame answers 304 without a body to whoever has the same file in the same form, and the file to all others.
func TestSame(t *testing.T) {
	t.Parallel()
	p := smallPage(t)
	plain := ask(p, "GET", "/").Header.Get("ETag")
	packed := ask(p, "GET", "/", "Accept-Encoding", "gzip").Header.Get("ETag")
	for _, c := range []struct {
		accept, match string
		code          int
	}{
		{"", plain, 304}, {"gzip", packed, 304}, {"", packed, 200}, {"gzip", plain, 200},
		{"", `"other", ` + plain, 304}, {"", "W/" + plain, 304}, {"", "*", 304}, {"", `"other"`, 200}, {"", strings.Trim(plain, `"`), 200},
	} {
		r := ask(p, "GET", "/", "Accept-Encoding", c.accept, "If-None-Match", c.match)
		require.Equal(t, c.code, r.StatusCode, c)
		if c.code == 304 {
			require.Empty(t, body(t, r))
			require.Equal(t, map[bool]string{true: packed, false: plain}[c.accept != ""], r.Header.Get("ETag"))
			require.Equal(t, cacheOthers, r.Header.Get("Cache-Control"))
			require.Equal(t, "Accept-Encoding", r.Header.Get("Vary"))
		}
	}
}

// TestHead answers what GET answers, without the body.
func TestHead(t *testing.T) {
	t.Parallel()
	p := smallPage(t)
	for _, accept := range []string{"", "gzip"} {
		get, head := ask(p, "GET", "/", "Accept-Encoding", accept), ask(p, "HEAD", "/", "Accept-Encoding", accept)
		require.Equal(t, get.Header, head.Header)
		require.NotEmpty(t, body(t, get))
		require.Empty(t, body(t, head))
	}
	require.Equal(t, 404, ask(p, "HEAD", "/x").StatusCode)
}

// TestNoPage is told what to do when there is no page.
func TestNoPage(t *testing.T) {
	t.Parallel()
	_, err := newPage(fstest.MapFS{sourcesName: {Data: []byte("0")}})
	require.ErrorContains(t, err, "npm run build")
}

// TestBuilt serves what is in the binary: whatever the page names is there, nothing is fetched from elsewhere, and
// nothing in it needs more than the policy allows.
func TestBuilt(t *testing.T) {
	t.Parallel()
	p, err := New()
	require.NoError(t, err)
	index := string(body(t, ask(p, "GET", "/")))
	names := regexp.MustCompile(`<(?:script|link)\s[^>]*?(?:src|href)="([^"]*)"`).FindAllStringSubmatch(index, -1)
	require.NotEmpty(t, names)
	for _, n := range names {
		require.NotContains(t, n[1], "//", "an external request")
		require.False(t, strings.HasPrefix(n[1], "/"), "%s is not below the prefix of the external URL", n[1])
		require.Equal(t, 200, ask(p, "GET", "/"+strings.TrimPrefix(n[1], "./")).StatusCode, n[1])
	}
	require.NotRegexp(t, `<script(?:\s+(?:type|crossorigin|defer|async)(?:="[^"]*")?)*>`, index, "an inline script")
	require.NotRegexp(t, `(?:src|href)="(?:[a-z]+:|//)`, index, "an external request")
	require.NotRegexp(t, `<style|\sstyle="|\son[a-z]+="`, index)
	for _, path := range p.Paths() {
		require.Equal(t, 200, ask(p, "GET", path).StatusCode, path)
	}
}

// sourceHash is the hash over the sources of the page, as app/scripts/sources.mjs writes it to dist/SOURCES.
func sourceHash(app string) (string, error) {
	paths := []string{"package.json", "package-lock.json", "vite.config.ts", "tsconfig.json", "index.html"}
	test := regexp.MustCompile(`\.test\.tsx?$`)
	for _, folder := range []string{"src", "public"} {
		err := filepath.WalkDir(filepath.Join(app, folder), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || test.MatchString(path) {
				return err
			}
			relative, err := filepath.Rel(app, path)
			paths = append(paths, filepath.ToSlash(relative))
			return err
		})
		if err != nil {
			return "", err
		}
	}
	slices.Sort(paths)
	all := sha256.New()
	for _, path := range paths {
		content, err := os.ReadFile(filepath.Join(app, filepath.FromSlash(path)))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(all, "%x  %s\n", sha256.Sum256(content), path)
	}
	return hex.EncodeToString(all.Sum(nil)) + "\n", nil
}

// TestSources fails when the page in dist was built from other sources than those in app.
func TestSources(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("app"); os.IsNotExist(err) {
		t.Skip("THE SOURCES OF THE PAGE ARE NOT HERE: api/ui/app is missing, so nobody knows what dist was built from")
	}
	want, err := sourceHash("app")
	require.NoError(t, err)
	have, err := os.ReadFile("dist/" + sourcesName)
	require.NoError(t, err, "dist was not built: cd api/ui/app && npm ci && npm run build")
	require.Equal(t, want, string(have), "dist is older than its sources: cd api/ui/app && npm ci && npm run build, and commit dist")
}
