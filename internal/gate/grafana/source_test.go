package grafana_test

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// source is a data source as Grafana has it in its configuration.
type source struct {
	t *testing.T
	// url may have a path of its own.
	url string
	// method is POST, or GET for the few who ask for that.
	method string
	// custom are the parameters of the configuration, which a middleware adds to every URL.
	custom url.Values
	// timeout is that of queries, "" for none.
	timeout string
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   map[string]any
	// methods are those that were tried.
	methods []string
}

// headers are those that Grafana forwards with a request of a panel.
var headers = http.Header{
	"User-Agent":       {"Grafana/12.1.0"},
	"X-Grafana-Org-Id": {"1"}, "X-Dashboard-Uid": {"varve"}, "X-Panel-Id": {"7"}, "X-Panel-Plugin-Id": {"timeseries"}, "X-Query-Group-Id": {"0b5c"},
	"X-Datasource-Uid": {"varve"}, "X-Plugin-Id": {"prometheus"}, "X-Grafana-Cache": {"private, max-age=600"}, "X-Grafana-User": {"admin"},
	"X-Forwarded-For": {"192.0.2.7"}, "Accept-Encoding": {"gzip"}, "Traceparent": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
}

// seconds writes a time as the client of the data source does.
func seconds(at time.Time) string {
	return strconv.FormatFloat(float64(at.Unix())+float64(at.Nanosecond())/1e9, 'f', -1, 64)
}

// align rounds down to a multiple of the step in the zone of whoever looks.
func align(at time.Time, step time.Duration, offset time.Duration) time.Time {
	n := math.Floor(float64(at.UnixNano()+offset.Nanoseconds()) / float64(step.Nanoseconds()))
	return time.Unix(0, int64(n)*step.Nanoseconds()-offset.Nanoseconds()).UTC()
}

func (g *source) send(method, endpoint string, query url.Values, form string) *answer {
	g.t.Helper()
	u, err := url.Parse(g.url)
	require.NoError(g.t, err)
	u.Path = path.Join(u.Path, endpoint)
	all := maps.Clone(query)
	if all == nil {
		all = url.Values{}
	}
	maps.Copy(all, g.custom)
	u.RawQuery = all.Encode()
	var body io.Reader = http.NoBody
	if method == http.MethodPost {
		body = strings.NewReader(form)
	}
	req, err := http.NewRequestWithContext(g.t.Context(), method, u.String(), body)
	require.NoError(g.t, err)
	maps.Copy(req.Header, headers)
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(g.t, err)
	defer resp.Body.Close()
	var text io.Reader = resp.Body
	if resp.Header.Get("Content-Encoding") == "gzip" {
		text, err = gzip.NewReader(resp.Body)
		require.NoError(g.t, err)
	}
	content, err := io.ReadAll(text)
	require.NoError(g.t, err)
	a := &answer{status: resp.StatusCode, header: resp.Header, methods: []string{method}}
	// What is no JSON shows in the status alone.
	_ = json.Unmarshal(content, &a.body)
	return a
}

// query is a call of a panel: a form, or a URL for those who chose GET.
func (g *source) query(endpoint string, form url.Values) *answer {
	g.t.Helper()
	if g.timeout != "" && endpoint != "api/v1/query_exemplars" {
		form.Set("timeout", g.timeout)
	}
	if g.method == http.MethodPost {
		return g.send(http.MethodPost, endpoint, nil, form.Encode())
	}
	return g.send(http.MethodGet, endpoint, form, "")
}

func (g *source) instant(expr string, at time.Time) *answer {
	g.t.Helper()
	return g.query("api/v1/query", url.Values{"query": {expr}, "time": {seconds(at)}})
}

func (g *source) span(expr string, from, to time.Time, step, offset time.Duration) *answer {
	g.t.Helper()
	return g.query("api/v1/query_range", url.Values{
		"query": {expr}, "start": {seconds(align(from, step, offset))}, "end": {seconds(align(to, step, offset))},
		"step": {strconv.FormatFloat(step.Seconds(), 'f', -1, 64)},
	})
}

func (g *source) exemplars(expr string, from, to time.Time, step time.Duration) *answer {
	g.t.Helper()
	return g.query("api/v1/query_exemplars", url.Values{"query": {expr}, "start": {seconds(align(from, step, 0))}, "end": {seconds(align(to, step, 0))}})
}

// getOnly are prefixes of paths that the backend asks for by GET at once. Most of its list begins with a slash, which paths
// don't, so that only these two work.
var getOnly = []string{"api/v1/label/", "api/v1/metadata"}

// byForm are the endpoints for which the page makes a POST request to Grafana; it asks for others by GET, with the parameters in the URL.
var byForm = []string{"api/v1/query", "api/v1/query_range", "api/v1/series", "api/v1/labels"}

// resource is a call of the page, through Grafana's backend.
func (g *source) resource(endpoint string, params url.Values) *answer {
	g.t.Helper()
	inURL, form := params, ""
	if g.method == http.MethodPost && slices.ContainsFunc(byForm, func(e string) bool { return strings.Contains(endpoint, e) }) {
		inURL, form = nil, params.Encode()
	}
	merged := maps.Clone(params)
	if g.method == http.MethodGet || slices.ContainsFunc(getOnly, func(e string) bool { return strings.HasPrefix(endpoint, e) }) {
		return g.send(http.MethodGet, endpoint, merged, "")
	}
	return g.either(endpoint, inURL, form, merged)
}

// suggest is how the backend asks when the page wants suggestions: by POST with everything in the URL, also for values of a label, since the
// path begins with a slash then.
func (g *source) suggest(label string, params url.Values) *answer {
	g.t.Helper()
	endpoint := "/api/v1/labels"
	if label != "" {
		endpoint = "/api/v1/label/" + label + "/values"
	}
	if g.method == http.MethodGet {
		return g.send(http.MethodGet, endpoint, params, "")
	}
	return g.either(endpoint, params, "", params)
}

// either asks by POST, and where that is not allowed or found bad, by GET.
func (g *source) either(endpoint string, inURL url.Values, form string, merged url.Values) *answer {
	g.t.Helper()
	a := g.send(http.MethodPost, endpoint, inURL, form)
	if a.status == http.StatusMethodNotAllowed || a.status == http.StatusBadRequest {
		again := g.send(http.MethodGet, endpoint, merged, "")
		again.methods = append(a.methods, again.methods...)
		return again
	}
	return a
}

// escapedLabel is a label's name in a path, as the page writes it: Prometheus' escaping for names beyond letters, digits and underscores.
func escapedLabel(name string) string {
	legacy := func(r rune, i int) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '_' || r == ':' || r >= '0' && r <= '9' && i > 0
	}
	plain := true
	for i, r := range name {
		plain = plain && legacy(r, i)
	}
	if plain {
		return name
	}
	var b strings.Builder
	b.WriteString("U__")
	for i, r := range name {
		switch {
		case r == '_':
			b.WriteString("__")
		case legacy(r, i):
			b.WriteRune(r)
		case r == utf8.RuneError:
			b.WriteString("_FFFD_")
		case r < 0x100:
			fmt.Fprintf(&b, "_%02x_", r)
		default:
			fmt.Fprintf(&b, "_%04x_", r)
		}
	}
	return b.String()
}
