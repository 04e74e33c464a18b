package page_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"
)

// js returns a value as an expression of JavaScript.
func js(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// element is the expression of the element with a test id.
func element(id string) string {
	return "document.querySelector(" + js(fmt.Sprintf("[data-testid=%q]", id)) + ")"
}

// eval evaluates an expression in the page.
func eval[T any](x *tab, expression string) T {
	x.t.Helper()
	v, err := chromedp.Run(x.ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	require.NoError(x.t, err, "%s", expression)
	return v
}

// until waits for a condition of the page. chromedp's Poll makes functions of text, which the page's policy forbids, so the question is
// asked from here.
func (x *tab) until(what, condition string) {
	x.t.Helper()
	var last error
	err := poll(x.ctx, func() bool {
		ok, err := chromedp.Run(x.ctx, chromedp.Evaluate[bool]("!!("+condition+")", chromedp.EvalAwaitPromise))
		last = err
		return err == nil && ok
	})
	if err != nil {
		x.photograph("failed-" + strings.NewReplacer("/", "-", " ", "-").Replace(x.t.Name()))
		x.reportFaults()
		require.NoError(x.t, errors.Join(err, last), "wait until %s: %s\n%.2000s", what, condition, eval[string](x, "document.querySelector('main')?.innerText || document.body.innerText"))
	}
}

// poll looks at a condition until it holds, or for as long as patience lasts.
func poll(ctx context.Context, condition func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for !condition() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
	return nil
}

// shown waits until an element is there and has a size.
func (x *tab) shown(id string) {
	x.t.Helper()
	x.until(id+" is shown", "(e => e && e.getClientRects().length > 0)("+element(id)+")")
}

// absent waits until an element is gone.
func (x *tab) absent(id string) {
	x.t.Helper()
	x.until(id+" is gone", element(id)+" === null")
}

// text is what an element shows.
func (x *tab) text(id string) string {
	x.t.Helper()
	x.shown(id)
	return eval[string](x, element(id)+".innerText")
}

// says waits until an element shows a text.
func (x *tab) says(id, part string) {
	x.t.Helper()
	x.until(fmt.Sprintf("%s says %q", id, part), fmt.Sprintf("(e => e && e.innerText.includes(%s))(%s)", js(part), element(id)))
}

// place is where an element is on the screen, in CSS pixels.
type place struct{ X, Y, Width, Height float64 }

// placeOf scrolls to the element that an expression names and returns its place.
func (x *tab) placeOf(expression string) place {
	x.t.Helper()
	return eval[place](x, `(e => {
		const seen = e.getBoundingClientRect();
		if (seen.top < 0 || seen.bottom > innerHeight || seen.left < 0 || seen.right > innerWidth) e.scrollIntoView({block: 'center', inline: 'nearest'});
		const r = e.getBoundingClientRect();
		return {X: r.left, Y: r.top, Width: r.width, Height: r.height};
	})(`+expression+`)`)
}

// click presses the mouse on an element that is there and enabled.
func (x *tab) click(id string) {
	x.t.Helper()
	x.until(id+" can be clicked", "(e => e && e.getClientRects().length > 0 && !e.disabled)("+element(id)+")")
	x.clickOn(element(id))
}

// clickOn presses the mouse in the middle of the element that an expression names, and again if the page moved it away in
// between, since what is above it was still loading.
func (x *tab) clickOn(expression string) {
	x.t.Helper()
	x.until("it stays where it is", `new Promise(done => {
		const at = () => (e => e && JSON.stringify(e.getBoundingClientRect()))(`+expression+`);
		const before = at();
		requestAnimationFrame(() => requestAnimationFrame(() => done(before && at() === before)));
	})`)
	const triesMax = 3
	for range triesMax {
		eval[bool](x, `(e => {
			window.pressed = false;
			e.addEventListener('mousedown', () => { window.pressed = true; }, {once: true, capture: true});
			return true;
		})(`+expression+`)`)
		p := x.placeOf(expression)
		x.must(nil, chromedp.Do(x.ctx, chromedp.MouseClickXY(p.X+p.Width/2, p.Y+p.Height/2)))
		// A click may lead elsewhere, where nobody knows of it.
		if eval[bool](x, "window.pressed !== false") {
			return
		}
	}
}

// confirm presses a button that asks whether one is sure, and then again.
func (x *tab) confirm(id string) {
	x.t.Helper()
	x.click(id)
	x.until(id+" asks", "(e => e && e.classList.contains('button-danger'))("+element(id)+")")
	x.click(id)
}

// choose chooses an option of a select element, as its owner's keyboard would.
func (x *tab) choose(id, value string) {
	x.t.Helper()
	x.shown(id)
	x.must(nil, chromedp.Do(x.ctx, chromedp.Evaluate[chromedp.Void](fmt.Sprintf(`(e => {
		e.focus();
		if (![...e.options].some(o => o.value === %[2]s)) throw new Error('no option ' + %[2]s + ' of ' + [...e.options].map(o => o.value));
		e.value = %[2]s;
		e.dispatchEvent(new Event('input', {bubbles: true}));
		e.dispatchEvent(new Event('change', {bubbles: true}));
	})(%[1]s)`, element(id), js(value)))))
}

// keys presses keys where the focus is.
func (x *tab) keys(keys string, options ...chromedp.KeyOption) {
	x.t.Helper()
	x.must(nil, chromedp.Do(x.ctx, chromedp.KeyEvent(keys, options...)))
}

// fill replaces the text of a field and presses Enter.
func (x *tab) fill(id, text string) {
	x.t.Helper()
	x.click(id)
	x.keys("a", chromedp.KeyModifiers(chromedp.ModifierCtrl))
	x.keys(kb.Backspace)
	x.keys(text)
	x.keys(kb.Enter)
}

// editor is the expression of the editable part of a query's editor, which lives in a shadow root.
func editor(query int) string {
	return fmt.Sprintf(`(h => h && (h.shadowRoot || h.querySelector('*')?.shadowRoot || [...h.querySelectorAll('*')].map(e => e.shadowRoot).find(Boolean))?.querySelector('.cm-content'))(%s)`,
		element(fmt.Sprintf("query-editor-%d", query)))
}

// typeQuery replaces the text of a query's editor, key by key, and closes completion.
func (x *tab) typeQuery(query int, text string) {
	x.t.Helper()
	x.until("the editor is there", editor(query))
	x.clickOn(editor(query))
	x.keys("a", chromedp.KeyModifiers(chromedp.ModifierCtrl))
	x.keys(kb.Backspace)
	x.keys(text)
}

// run runs what is typed and waits for the answer.
func (x *tab) run() {
	x.t.Helper()
	x.click("query-run")
	x.answered()
}

// answered waits until no query is under way.
func (x *tab) answered() {
	x.t.Helper()
	x.until("the query is answered", element("query-run")+" && "+element("query-cancel")+" === null && "+
		"!document.querySelector('[aria-busy=true]') && !document.querySelector('.loading')")
}

// drag drags the mouse over an element, from and to a part of its width, at a part of its height.
func (x *tab) drag(expression string, from, to, height float64) {
	x.t.Helper()
	p := x.placeOf(expression)
	y := p.Y + p.Height*height
	at := func(part float64) float64 { return p.X + p.Width*part }
	left := chromedp.ButtonLeft
	steps := []chromedp.Action[chromedp.Void]{
		chromedp.MouseEvent(chromedp.MouseMoved, at(from), y),
		chromedp.MouseEvent(chromedp.MousePressed, at(from), y, left, chromedp.ClickCount(1)),
	}
	for i := range 5 {
		steps = append(steps, chromedp.MouseEvent(chromedp.MouseMoved, at(from+(to-from)*float64(i+1)/5), y, left))
	}
	steps = append(steps, chromedp.MouseEvent(chromedp.MouseReleased, at(to), y, left, chromedp.ClickCount(1)))
	x.must(nil, chromedp.Do(x.ctx, steps...))
}

// canvas is the expression of the canvas of an element.
func canvas(id string) string { return "(e => e && e.querySelector('canvas'))(" + element(id) + ")" }

// inkScript counts the points of a canvas that have a colour which is not of the axes: whose parts differ by more than a shade of grey.
const inkScript = `(c => {
	if (!c || !c.width || !c.height) return 0;
	const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
	let n = 0;
	for (let i = 0; i < d.length; i += 4) if (d[i + 3] > 40 && Math.max(d[i], d[i + 1], d[i + 2]) - Math.min(d[i], d[i + 1], d[i + 2]) > 40) n++;
	return n;
})`

// ink is how many coloured points a graph has.
func (x *tab) ink(id string) int {
	x.t.Helper()
	return eval[int](x, inkScript+"("+canvas(id)+")")
}

// drawn waits until a graph has colour.
func (x *tab) drawn(id string) {
	x.t.Helper()
	x.until(id+" is drawn", inkScript+"("+canvas(id)+") > 100")
}

// pixels is a fingerprint of what a canvas shows.
func (x *tab) pixels(id string) string {
	x.t.Helper()
	sum := sha256.Sum256([]byte(eval[string](x, canvas(id)+".toDataURL()")))
	return hex.EncodeToString(sum[:8])
}

// changed waits until a graph shows something else than before, and returns its fingerprint.
func (x *tab) changed(id, before string) (now string) {
	x.t.Helper()
	require.NoError(x.t, poll(x.ctx, func() bool {
		if eval[bool](x, "!"+canvas(id)) {
			return false
		}
		now = x.pixels(id)
		return now != before
	}), "%s shows the same", id)
	return now
}

// download waits for a file of the extension that begun does not have, and returns what is in it.
func (x *tab) download(extension string, begin func()) []byte {
	x.t.Helper()
	before, err := filepath.Glob(filepath.Join(x.dir, "*"+extension))
	require.NoError(x.t, err)
	known := map[string]bool{}
	for _, name := range before {
		known[name] = true
	}
	var data []byte
	begin()
	require.NoError(x.t, poll(x.ctx, func() bool {
		now, _ := filepath.Glob(filepath.Join(x.dir, "*"+extension))
		unfinished, _ := filepath.Glob(filepath.Join(x.dir, "*.crdownload"))
		for _, name := range now {
			if !known[name] && len(unfinished) == 0 {
				data, err = os.ReadFile(name)
				return err == nil && len(data) > 0
			}
		}
		return false
	}), "no file %s was downloaded", extension)
	return data
}
