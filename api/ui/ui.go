// Package ui is the page that Varve shows people: the files that app builds into
// dist, in the binary, and the handler that serves them.
//
// dist is committed, so that the program builds without node; a test fails when it
// is older than its sources. Files below assets carry a hash of their content in
// their names and may be kept for ever by whoever fetched them; all others are
// asked for again each time, and answered 304 while they are the same. Text is
// compressed once, by the first request that takes it so.
//
// A Page answers with one of its files or 404: there are no folders to list. It
// knows nothing of who may ask and of headers that all answers have: that is the
// caller's. It is safe for use by several goroutines.
package ui

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

//go:embed all:dist
var dist embed.FS

// sourcesName is a file of dist with the hash of what it was built from. It is not served.
const sourcesName = "SOURCES"

// indexName is the file that is the page.
const indexName = "index.html"

// Page serves the files of the page.
type Page struct {
	files map[string]*file
}

// New returns the page that is in the binary.
func New() (*Page, error) {
	files, err := fs.Sub(dist, "dist")
	if err != nil {
		return nil, fmt.Errorf("the page: %w", err)
	}
	return newPage(files)
}

func newPage(from fs.FS) (*Page, error) {
	p := &Page{files: map[string]*file{}}
	err := fs.WalkDir(from, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || name == sourcesName {
			return err
		}
		content, err := fs.ReadFile(from, name)
		if err == nil {
			p.files[name] = newFile(name, content)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("the page: %w", err)
	}
	if p.files[indexName] == nil {
		return nil, fmt.Errorf("the page: dist has no %s: build it with npm ci && npm run build in api/ui/app", indexName)
	}
	return p, nil
}

// Paths lists where the files are, each beginning with a slash: the page itself is "/".
func (p *Page) Paths() []string {
	paths := []string{"/"}
	for name := range p.files {
		if name != indexName {
			paths = append(paths, "/"+name)
		}
	}
	slices.Sort(paths)
	return paths
}

// iconNames are what a browser that asks for /favicon.ico is given, the first that there is.
var iconNames = []string{"favicon.ico", "favicon.svg", "logo.svg"}

// find returns the file at a path, nil if there is none.
func (p *Page) find(at string) *file {
	name := strings.TrimPrefix(at, "/")
	switch name {
	case "":
		return p.files[indexName]
	case indexName:
		// It is at "/" alone, so that no cache has it twice.
		return nil
	case iconNames[0]:
		for _, icon := range iconNames {
			if f := p.files[icon]; f != nil {
				return f
			}
		}
	}
	return p.files[name]
}

// ServeHTTP answers GET and HEAD with the file at the path of the request.
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f := p.find(r.URL.Path)
	if f == nil {
		http.NotFound(w, r)
		return
	}
	f.serve(w, r)
}

// file is one file of the page.
type file struct {
	content []byte
	// hash is that of the content, without the quotes of an ETag.
	hash        string
	contentType string
	// hashed tells that the name changes with the content.
	hashed bool
	// compressed is the content by gzip, nil where that is of no use.
	compressed func() []byte
}

// contentTypes are those of the files that a build may make. Systems have tables of their own, which differ.
var contentTypes = map[string]string{
	".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".mjs": "text/javascript; charset=utf-8",
	".css": "text/css; charset=utf-8", ".json": "application/json", ".map": "application/json", ".webmanifest": "application/manifest+json",
	".svg": "image/svg+xml", ".png": "image/png", ".ico": "image/x-icon", ".txt": "text/plain; charset=utf-8", ".woff2": "font/woff2",
}

// packed are the types that are compressed already.
var packed = []string{"image/png", "image/x-icon", "font/woff2"}

// hashedName is what a build calls a file after its content: name-hash.type, the hash of eight characters or more.
var hashedName = regexp.MustCompile(`^assets/.+-[A-Za-z0-9_-]{8,}\.[a-z0-9]+$`)

func newFile(name string, content []byte) *file {
	sum := sha256.Sum256(content)
	f := &file{content: content, hash: hex.EncodeToString(sum[:16]), contentType: contentTypes[path.Ext(name)], hashed: hashedName.MatchString(name)}
	if f.contentType == "" {
		f.contentType = "application/octet-stream"
	}
	f.compressed = func() []byte { return nil }
	if !slices.Contains(packed, f.contentType) {
		f.compressed = sync.OnceValue(f.compress)
	}
	return f
}

// gainMin is the share of a file that compression must save to be worth a client's work.
const gainMin = 0.05

func (f *file) compress() []byte {
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil
	}
	// A buffer takes everything.
	_, writeErr := z.Write(f.content)
	if closeErr := z.Close(); writeErr != nil || closeErr != nil || float64(b.Len()) > (1-gainMin)*float64(len(f.content)) {
		return nil
	}
	return b.Bytes()
}

// Cache-Control of files. What needs credentials is nothing for caches that others share.
const (
	cacheHashed = "private, max-age=31536000, immutable"
	cacheOthers = "no-cache"
)

func (f *file) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", f.contentType)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", cacheOthers)
	if f.hashed {
		h.Set("Cache-Control", cacheHashed)
	}
	body, etag := f.content, f.hash
	if z := f.compressed(); z != nil {
		h.Add("Vary", "Accept-Encoding")
		if takesGzip(r.Header.Values("Accept-Encoding")) {
			body, etag = z, f.hash+"-gzip"
			h.Set("Content-Encoding", "gzip")
			// net/http leaves it out for what is encoded.
			h.Set("Content-Length", strconv.Itoa(len(z)))
		}
	}
	// The two forms differ byte by byte, and so must strong tags.
	h.Set("ETag", `"`+etag+`"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
}

// takesGzip tells whether a client takes gzip, by its Accept-Encoding (RFC 9110, 12.5.3).
func takesGzip(accept []string) bool {
	takesAny := false
	for _, line := range accept {
		for part := range strings.SplitSeq(line, ",") {
			coding, parameters, _ := strings.Cut(part, ";")
			coding = strings.ToLower(strings.TrimSpace(coding))
			if coding != "gzip" && coding != "x-gzip" && coding != "*" {
				continue
			}
			wanted := weight(parameters) > 0
			if coding != "*" {
				return wanted
			}
			takesAny = wanted
		}
	}
	return takesAny
}

// weight is the q of a coding, 1 without one and 0 for one that is none.
func weight(parameters string) float64 {
	name, value, found := strings.Cut(parameters, "=")
	if !found || !strings.EqualFold(strings.TrimSpace(name), "q") {
		return 1
	}
	q, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
	if err != nil {
		return 0
	}
	return q
}
