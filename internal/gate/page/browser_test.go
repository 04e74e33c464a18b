package page_test

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/audits"
	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"varve/internal/gate/server"
)

// patience bounds each wait for a condition. It is long since CI machines are slow and stand still at times, and a test that waits that long has failed.
const patience = 2 * time.Minute

// pollInterval is the pause between two looks at a condition.
const pollInterval = 15 * time.Millisecond

// chromium is the browser of this process. Each tab has a profile of its own in it.
var chromium struct {
	once sync.Once
	ctx  context.Context
	stop func()
	err  error
}

// startChromium starts the browser with the first tab of the process.
func startChromium(t testing.TB) context.Context {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		server.Lacking(t, "no chromium in PATH: apt-get install chromium")
	}
	chromium.once.Do(func() {
		chromium.ctx, chromium.stop = chromedp.NewContext(context.Background(), chromedp.WithAllocatorOptions(
			chromedp.ExecPath(path),
			// A tab that is not in front is as awake as one that is.
			chromedp.Flag("enable-precise-memory-info", true),
		))
		chromium.err = chromedp.Do(chromium.ctx)
	})
	require.NoError(t, chromium.err, "start %s", path)
	return chromium.ctx
}

// stopChromium ends the browser, if there is one.
func stopChromium() {
	if chromium.stop != nil {
		chromium.stop()
	}
}

// request is one that the page made.
type request struct {
	url    string
	kind   network.ResourceType
	status int64
	// bytes is what came over the wire, headers included.
	bytes int64
	// ended tells that all of the answer has come, or will not.
	ended bool
}

// tab is a tab with what it has seen.
type tab struct {
	t    *testing.T
	ctx  context.Context
	base string // of the page, without a slash at its end
	dir  string // of downloads

	mu       sync.Mutex // guards those below
	faults   []string
	allowed  []string
	requests map[network.RequestID]*request
	order    []network.RequestID
}

// screen is what the tab is looked at on.
type screen struct {
	name          string
	width, height int64
	dark          bool
}

// Screens: of a desk, and of a small telephone.
var (
	desk      = screen{"light", 1280, 900, false}
	deskDark  = screen{"dark", 1280, 900, true}
	telephone = screen{"narrow", 360, 740, false}
)

// newTab opens a tab with an empty profile, on which what the page does wrong fails the test at its end. base is the page's address.
func newTab(t *testing.T, base string) *tab {
	t.Helper()
	parent := startChromium(t)
	ctx, cancel := chromedp.NewContext(parent, chromedp.WithNewBrowserContext())
	x := &tab{t: t, ctx: ctx, base: strings.TrimRight(base, "/"), dir: t.TempDir(), requests: map[network.RequestID]*request{}}
	t.Cleanup(func() {
		x.reportFaults()
		cancel()
	})
	require.NoError(t, chromedp.Listen(ctx, x.hear))
	own := chromedp.FromContext(ctx).BrowserContextID
	yes := true
	x.must(chromedp.CallBrowser(ctx, browser.SetDownloadBehavior, browser.SetDownloadBehaviorParams{
		Behavior: browser.SetDownloadBehaviorBehaviorAllow, BrowserContextID: own, DownloadPath: x.dir, EventsEnabled: &yes,
	}))
	for _, name := range []string{"clipboard-read", "clipboard-write"} {
		x.must(chromedp.CallBrowser(ctx, browser.SetPermission, browser.SetPermissionParams{
			Permission: &browser.PermissionDescriptor{Name: name}, Setting: browser.PermissionSettingGranted, BrowserContextID: own,
		}))
	}
	x.must(chromedp.Call(ctx, network.Enable, network.EnableParams{}))
	x.must(chromedp.Call(ctx, runtime.Enable, cdp.Empty{}))
	x.must(chromedp.Call(ctx, cdplog.Enable, cdp.Empty{}))
	x.must(chromedp.Call(ctx, audits.Enable, cdp.Empty{}))
	x.must(chromedp.Call(ctx, page.Enable, page.EnableParams{}))
	x.must(chromedp.Call(ctx, emulation.SetFocusEmulationEnabled, emulation.SetFocusEmulationEnabledParams{Enabled: true}))
	x.look(desk)
	return x
}

// must fails the test with an error of the protocol.
func (x *tab) must(_ any, err error) {
	x.t.Helper()
	require.NoError(x.t, err)
}

// allow names a part of a fault that the test is about.
func (x *tab) allow(part string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.allowed = append(x.allowed, part)
}

func (x *tab) fault(format string, args ...any) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.faults = append(x.faults, fmt.Sprintf(format, args...))
}

// reportFaults fails the test with what was collected and not allowed.
func (x *tab) reportFaults() {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, f := range x.faults {
		expected := false
		for _, part := range x.allowed {
			expected = expected || strings.Contains(f, part)
		}
		if !expected {
			x.t.Errorf("the page: %s", f)
		}
	}
}

// hear is called for every event of the tab, by the goroutine that reads them.
func (x *tab) hear(event any) {
	switch e := event.(type) {
	case *runtime.EventConsoleAPICalled:
		switch e.Type {
		case runtime.ConsoleAPICalledTypeError, runtime.ConsoleAPICalledTypeWarning, runtime.ConsoleAPICalledTypeAssert:
			var words []string
			for _, a := range e.Args {
				words = append(words, strings.TrimSpace(string(a.Value)+" "+a.Description))
			}
			x.fault("console.%s: %s", e.Type, strings.Join(words, " "))
		}
	case *runtime.EventExceptionThrown:
		x.fault("exception: %s", (&chromedp.ExceptionError{ExceptionDetails: e.ExceptionDetails}).Error())
	case *cdplog.EventEntryAdded:
		// That a canvas is read back is the doing of these tests.
		if (e.Entry.Level == cdplog.EntryLevelError || e.Entry.Level == cdplog.EntryLevelWarning) && !strings.Contains(e.Entry.Text, "willReadFrequently") {
			x.fault("log of %s: %s %s", e.Entry.Source, e.Entry.Text, e.Entry.URL)
		}
	case *audits.EventIssueAdded:
		switch e.Issue.Code {
		case audits.InspectorIssueCodeContentSecurityPolicyIssue, audits.InspectorIssueCodeMixedContentIssue, audits.InspectorIssueCodeBlockedByResponseIssue:
			x.fault("issue %s: %+v", e.Issue.Code, *e.Issue.Details)
		}
	case *page.EventJavascriptDialogOpening:
		x.fault("dialog: %s", e.Message)
	case *network.EventRequestWillBeSent:
		x.sent(e)
	case *network.EventResponseReceived:
		x.mu.Lock()
		defer x.mu.Unlock()
		if r := x.requests[e.RequestID]; r != nil {
			r.status = e.Response.Status
		}
	case *network.EventLoadingFinished:
		x.mu.Lock()
		defer x.mu.Unlock()
		if r := x.requests[e.RequestID]; r != nil {
			r.bytes, r.ended = int64(e.EncodedDataLength), true
		}
	case *network.EventLoadingFailed:
		x.mu.Lock()
		defer x.mu.Unlock()
		if r := x.requests[e.RequestID]; r != nil {
			r.ended = true
		}
	}
}

// sent notes a request. One to anywhere but the page's own server is a fault.
func (x *tab) sent(e *network.EventRequestWillBeSent) {
	if at, err := url.Parse(e.Request.URL); err == nil && at.Scheme != "blob" && at.Scheme != "data" && at.Scheme != "about" {
		if own, err := url.Parse(x.base); err != nil || own.Host != at.Host {
			x.fault("request to another host: %s", e.Request.URL)
		} else if at.Path != "/favicon.ico" && !strings.HasPrefix(at.Path, own.Path+"/") {
			x.fault("request beside the prefix: %s", e.Request.URL)
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.requests[e.RequestID] = &request{url: e.Request.URL, kind: e.Type}
	x.order = append(x.order, e.RequestID)
}

// made returns the requests until now, in order.
func (x *tab) made() []request {
	x.mu.Lock()
	defer x.mu.Unlock()
	var out []request
	for _, id := range x.order {
		out = append(out, *x.requests[id])
	}
	return out
}

// look changes the screen.
func (x *tab) look(s screen) {
	x.t.Helper()
	x.must(chromedp.Call(x.ctx, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
		Width: s.width, Height: s.height, DeviceScaleFactor: 1, Mobile: s.width < 600,
	}))
	scheme := "light"
	if s.dark {
		scheme = "dark"
	}
	x.must(chromedp.Call(x.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	}))
}

// open loads the page anew at a place, such as #/archive.
func (x *tab) open(place string) {
	x.t.Helper()
	x.must(nil, chromedp.Do(x.ctx, chromedp.Navigate("about:blank"), chromedp.Navigate(x.base+"/"+place)))
}

// artefacts is where pictures and measurements go.
func artefacts(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("VARVE_ARTEFACTS")
	if dir == "" {
		dir = filepath.Join(t.TempDir(), "page")
	} else {
		dir = filepath.Join(dir, "page")
	}
	require.NoError(t, os.MkdirAll(dir, 0o755))
	return dir
}

// photograph writes a picture of the whole page.
func (x *tab) photograph(name string) {
	x.t.Helper()
	png, err := chromedp.Run(x.ctx, chromedp.FullScreenshot(100))
	require.NoError(x.t, err)
	path := filepath.Join(artefacts(x.t), name+".png")
	require.NoError(x.t, os.WriteFile(path, png, 0o644))
	x.t.Logf("picture %s", path)
}
