package api

import (
	"net/http"
	"runtime"
	"strings"

	"github.com/prometheus/common/model"

	"varve/api/access"
	"varve/api/ui"
)

// pointsMax is how many points of a series upstream answers at most.
const pointsMax = 11_000

// addPage serves the page, file by file: what it doesn't have is not found like everything else.
func (a *API) addPage(t *table, page *ui.Page) {
	h := ownPolicy(page)
	for _, path := range page.Paths() {
		switch {
		case path == "/":
			t.add("/{$}", access.Metadata, h, http.MethodGet, http.MethodHead)
		case !strings.HasPrefix(path, assetsPath):
			t.add(path, access.Metadata, h, http.MethodGet, http.MethodHead)
			t.served = t.served[:len(t.served)-1] // What they are called is the build's business.
		}
	}
	// One name in the metrics for all files whose names change with every build.
	t.add(assetsPath, access.Metadata, h, http.MethodGet, http.MethodHead)
	t.add("/favicon.ico", access.Metadata, h, http.MethodGet, http.MethodHead)
	t.add("/api/v1/status/page", access.Metadata, http.HandlerFunc(a.servePageFacts), http.MethodGet)
}

// assetsPath is where the files are whose names have a hash.
const assetsPath = "/assets/"

// ownPolicy lets the page make images of its own, to save a graph as one. A policy that the web configuration sets is left alone.
func ownPolicy(next http.Handler) http.Handler {
	const header = "Content-Security-Policy"
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if w.Header().Get(header) == access.ContentSecurityPolicy {
			w.Header().Set(header, access.ContentSecurityPolicy+"; img-src 'self' blob: data:")
		}
		next.ServeHTTP(w, r)
	})
}

// pageFacts is what the page asks first.
type pageFacts struct {
	Version   string `json:"version"`
	Revision  string `json:"revision"`
	GoVersion string `json:"goVersion"`
	// ExternalURL is where Grafana is pointed to, WriteURL where Prometheus writes to.
	ExternalURL string `json:"externalURL"`
	WriteURL    string `json:"writeURL"`
	// Admin and Lifecycle tell whether the endpoints of those groups are on, and whoever asks may use them.
	Admin     bool `json:"admin"`
	Lifecycle bool `json:"lifecycle"`
	// Caller is who asks, empty without credentials.
	Caller string `json:"caller"`
	// HasData tells that there are samples of anything but the server itself.
	HasData bool `json:"hasData"`
	// Now is the server's clock, Unix ms.
	Now             int64    `json:"now"`
	Resolutions     []string `json:"resolutions"`
	LookbackSeconds float64  `json:"lookbackSeconds"`
	// MaxPoints is how many points of a series a range query may ask for.
	MaxPoints int `json:"maxPoints"`
	// Canary tells that the server writes and reads samples of its own to try itself.
	Canary bool `json:"canary"`
}

func (a *API) servePageFacts(w http.ResponseWriter, r *http.Request) {
	u := *a.o.ExternalURL
	u.User = nil
	external := strings.TrimRight(u.String(), "/")
	f := pageFacts{
		Version: a.o.Version.Version, Revision: a.o.Version.Revision, GoVersion: runtime.Version(), ExternalURL: external, WriteURL: external + "/api/v1/write",
		Admin:     a.o.EnableAdmin && access.May(r.Context(), access.Admin),
		Lifecycle: a.o.EnableLifecycle && access.May(r.Context(), access.Lifecycle),
		Caller:    access.Caller(r.Context()), Now: a.o.Now().UnixMilli(), Resolutions: []string{},
		LookbackSeconds: a.o.LookbackDelta.Seconds(), MaxPoints: pointsMax, Canary: a.o.Canary != nil && a.o.Canary(),
	}
	if a.o.Overview != nil {
		for _, d := range a.o.Overview.Resolutions() {
			f.Resolutions = append(f.Resolutions, model.Duration(d).String())
		}
		var err error
		// While the archive starts nobody knows; the page asks again.
		if f.HasData, err = a.o.Overview.HasData(r.Context()); err != nil {
			a.respondOverview(w, r, err)
			return
		}
	}
	w.Header().Set("Cache-Control", "no-store")
	respond(w, f)
}
