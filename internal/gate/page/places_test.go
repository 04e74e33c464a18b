package page_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/fetch"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"
)

// views are the places of all views, each with a test id that it has when it is there.
var views = []struct{ name, place, id string }{
	{"explore", "", "legend"},
	{"archive", "#/archive", "archive-facts"},
	{"pipeline", "#/pipeline", "outputs-table"},
	{"configuration", "#/configuration", "config-yaml"},
}

// placeOfView is the place of a view that has something to see.
func (s *shared) placeOfView(place string) string {
	if place == "" {
		return explore([]string{cpuQuery}, "from", s.to.Add(-24*time.Hour).Format(time.RFC3339), "to", s.to.Format(time.RFC3339))
	}
	return place
}

// settled waits until a view has loaded what it shows.
func (x *tab) settled() {
	x.t.Helper()
	x.idle("all is loaded", "!document.querySelector('.loading, [aria-busy=true]')")
}

// TestViews photographs every view, light, dark and on a small telephone, where none of them is wider than the screen.
func TestViews(t *testing.T) {
	w := theWorld(t)
	for _, s := range []screen{desk, deskDark, telephone} {
		t.Run(s.name, func(t *testing.T) {
			x := newTab(t, w.archive.URL(""))
			x.look(s)
			for _, v := range views {
				x.open(w.placeOfView(v.place))
				x.shown(v.id)
				x.settled()
				x.photograph(v.name + "-" + s.name)
				wide := eval[[]string](x, `[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('.table-scroll, pre, .legend, .hidden-text, svg'))
					.slice(0, 8).map(e => e.tagName + '.' + e.className + ' ' + Math.round(e.getBoundingClientRect().right))`)
				require.NoError(t, poll(x.ctx, func() bool { return eval[int](x, "document.documentElement.scrollWidth") <= int(s.width) }), "%s scrolls sideways: %s", v.name, wide)
			}
		})
	}
}

// TestKeyboard goes through the page by keys alone: Tab and Enter to each view, and to the editor, where a query is typed and run; each
// place where the focus is can be seen.
func TestKeyboard(t *testing.T) {
	w := theWorld(t)
	x := newTab(t, w.archive.URL(""))
	x.open("#/explore")
	x.shown("query-run")
	// It takes the focus when it has come.
	x.until("the editor is there", editor(0))
	x.settled()
	tabTo := func(what, condition string) {
		t.Helper()
		for range 200 {
			x.keys(kb.Tab)
			if eval[bool](x, "!!("+condition+")") {
				return
			}
		}
		t.Fatalf("%s is not reached by Tab", what)
	}
	focused := func(id string) string { return "document.activeElement === " + element(id) }
	for _, v := range views[1:] {
		tabTo("nav-"+v.name, focused("nav-"+v.name))
		require.NotEqual(t, "none 0px", eval[string](x, "(s => s.outlineStyle + ' ' + s.outlineWidth)(getComputedStyle(document.activeElement))"), "the focus is seen")
		x.keys(kb.Enter)
		x.shown(v.id)
	}
	tabTo("nav-explore", focused("nav-explore"))
	x.keys(kb.Enter)
	x.until("the editor is there", editor(0))
	tabTo("the editor", element("query-editor-0")+".contains(document.activeElement) && ("+editor(0)+")?.getRootNode().activeElement")
	x.keys("node_load1")
	x.until("the query is typed", editor(0)+".textContent === 'node_load1'")
	x.keys(kb.Escape)
	x.keys(kb.Enter)
	x.drawn("graph")
	require.Len(t, x.legend(), 2)
	// Keys read values off the graph.
	tabTo("the graph", "document.activeElement.matches('.graph-host')")
	x.keys(kb.ArrowRight)
	x.keys(kb.ArrowRight)
	x.until("the value is read out", "[...document.querySelectorAll('[role=status]')].some(e => e.textContent.includes('node_load1'))")
}

// TestFirstSteps shows an empty server what to do, on every view, and that this goes when the first sample arrives, without a reload.
func TestFirstSteps(t *testing.T) {
	startChromium(t)
	a := start(t, t.TempDir(), "log: {level: warn}\nself_scrape: {interval: 1s}\n", "")
	t.Cleanup(a.Kill)
	x := newTab(t, a.URL(""))
	for _, v := range views {
		x.open(v.place)
		x.shown("first-steps")
		x.says("first-steps", "/api/v1/write")
	}
	x.open("#/explore")
	x.shown("first-steps")
	x.photograph("first-steps")
	empty := shared{archive: a}
	empty.more(t, 10)
	x.absent("first-steps")
}

// TestPrefix serves the page behind a prefix: nothing is asked for beside it, which newTab's listener would report, and links and
// examples have it.
func TestPrefix(t *testing.T) {
	startChromium(t)
	address := ""
	a := start(t, t.TempDir(), "log: {level: warn}\n", "/metrics-archive/-/ready", "--web.external-url", "https://archive.example/metrics-archive/")
	t.Cleanup(a.Kill)
	address = a.URL("/metrics-archive")
	x := newTab(t, address)
	x.open("")
	x.says("first-steps", "https://archive.example/metrics-archive/api/v1/write")
	x.open(explore([]string{"up"}, "from", "now-5m", "to", "now"))
	x.answered()
	for _, v := range views[1:] {
		x.click("nav-" + v.name)
		x.shown(v.id)
		x.settled()
	}
	require.Greater(t, len(x.made()), 10)
}

// TestBasicAuth logs in with a name and a password, as the browser's own dialog does, and is named by the page; without them there is
// nothing.
func TestBasicAuth(t *testing.T) {
	startChromium(t)
	const user, password = "ada", "correct horse"
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "web.yml"), fmt.Appendf(nil, "basic_auth_users: {%s: %q}\n", user, hash), 0o600))
	a := start(t, dir, "web: {config_file: web.yml}\nlog: {level: warn}\n", "-")
	t.Cleanup(a.Kill)
	require.NoError(t, poll(t.Context(), func() bool {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, a.URL("/-/ready"), http.NoBody)
		require.NoError(t, err)
		request.SetBasicAuth(user, password)
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			return false
		}
		return answer.Body.Close() == nil && answer.StatusCode == http.StatusOK
	}))
	x := newTab(t, a.URL(""))
	challenges := x.logIn(user, password)
	x.open("#/archive")
	x.shown("archive-facts")
	x.until("it says who is logged in", "document.body.innerText.includes("+js(user)+")")
	require.Positive(t, challenges())
	all := eval[string](x, "document.documentElement.outerHTML")
	require.NotContains(t, all, password)
}

// logIn answers the server's challenges as somebody would in the browser's dialog. The function that it returns tells how many there were.
func (x *tab) logIn(user, password string) (challenges func() int) {
	x.t.Helper()
	yes := true
	asked := make(chan int, 1)
	asked <- 0
	require.NoError(x.t, chromedp.Listen(x.ctx, func(event any) {
		// An answer is a command, which must not be given by the goroutine that reads events.
		switch e := event.(type) {
		case *fetch.EventRequestPaused:
			go func() {
				_, _ = chromedp.Call(x.ctx, fetch.ContinueRequest, fetch.ContinueRequestParams{RequestID: e.RequestID})
			}()
		case *fetch.EventAuthRequired:
			asked <- <-asked + 1
			go func() {
				_, _ = chromedp.Call(x.ctx, fetch.ContinueWithAuth, fetch.ContinueWithAuthParams{RequestID: e.RequestID, AuthChallengeResponse: &fetch.AuthChallengeResponse{
					Response: fetch.AuthChallengeResponseResponseProvideCredentials, Username: user, Password: password,
				}})
			}()
		}
	}))
	x.must(chromedp.Call(x.ctx, fetch.Enable, fetch.EnableParams{HandleAuthRequests: &yes}))
	return func() int {
		n := <-asked
		asked <- n
		return n
	}
}

// TestHostile shows label values and names that are code, in every place that shows them, and finds them to be text: no element is made of
// them, nothing runs, and the policy is not violated.
func TestHostile(t *testing.T) {
	w := theWorld(t)
	x := newTab(t, w.archive.URL(""))
	x.allow(fmt.Sprintf("status of %d", http.StatusBadRequest))
	harmless := func(where string) {
		t.Helper()
		require.Zero(t, eval[int](x, "document.querySelectorAll('img, iframe, object, embed, script:not([src]), [onerror]').length"), where)
		require.Zero(t, eval[int](x, "[...document.querySelectorAll('b, i')].filter(e => /bold|name/.test(e.textContent)).length"), where)
	}
	x.open(explore([]string{"hostile_gauge"}, "from", "now-1h", "to", "now"))
	x.drawn("graph")
	require.Contains(t, strings.Join(x.legend(), "\n"), "<img src=x onerror=alert(1)>")
	harmless("the legend")
	x.hover(canvas("graph"), "the box at the pointer has it", "(e => e && !e.hidden && e.innerText.includes('onerror'))(document.querySelector('.tip'))")
	harmless("the box at the pointer")
	x.photograph("hostile-graph")
	x.open(explore([]string{"hostile_gauge"}, "tab", "table"))
	x.says("result-table", "<img src=x onerror=alert(1)>")
	harmless("the table")
	x.open(explore([]string{"hostile_gauge{path=" + hostileValue}))
	x.shown("query-error")
	harmless("an error")
	x.open("#/archive")
	x.shown("cardinality-table")
	x.choose("cardinality-label", "path")
	x.says("cardinality-table", "onerror=alert(1)")
	harmless("the values of a label")
	x.choose("cardinality-label", `<i>"name"</i>`)
	x.until("the name is listed", "document.body.innerText.includes('<i>\"name\"</i>')")
	harmless("a label's name")
	x.photograph("hostile-cardinality")

	// An input's example of what it refused.
	w.refuse(t)
	x.open("#/pipeline")
	x.shown("inputs-table")
	x.settled()
	folded := `document.querySelector('[data-testid="inputs-table"] button[aria-expanded=false]')`
	for eval[bool](x, "!!"+folded) {
		x.clickOn(folded)
	}
	x.says("inputs-table", "too_far_in_future: {__name__=\"hostile_gauge\"")
	x.says("inputs-table", "onerror=alert(1)")
	harmless("an example of what was refused")
	x.photograph("hostile-refusal")
}

// refuse sends a sample that is refused: of a year from now, with a hostile label.
func (s *shared) refuse(t *testing.T) {
	t.Helper()
	all := []series{{labels: named("hostile_gauge", "job", "web", "path", hostileValue), value: func(float64) float64 { return 1 }}}
	m := requestOf(all, time.Now().AddDate(1, 0, 0), time.Minute, 0, 1)
	body, err := m.Marshal()
	require.NoError(t, err)
	require.ErrorContains(t, post(s.archive, packed(body)), "400")
}

// TestSecurityHeaders shows the policy of the page: nothing from elsewhere, nothing inline, no frame around it.
func TestSecurityHeaders(t *testing.T) {
	w := theWorld(t)
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, w.archive.URL("/"), http.NoBody)
	require.NoError(t, err)
	answer, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	require.NoError(t, answer.Body.Close())
	policy := answer.Header.Get("Content-Security-Policy")
	require.Contains(t, policy, "default-src 'self'")
	require.Contains(t, policy, "frame-ancestors 'none'")
	require.NotContains(t, policy, "unsafe")
	require.Equal(t, "nosniff", answer.Header.Get("X-Content-Type-Options"))
}
