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

// lookMax bounds one look at a condition: a page that doesn't answer is asked again.
const lookMax = 20 * time.Second

// tryEval evaluates an expression in the page, which may be a promise.
func tryEval[T any](x *tab, expression string) (T, error) {
	ctx, cancel := context.WithTimeout(x.ctx, lookMax)
	defer cancel()
	return chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
}

// until waits for a condition of the page, which may be a promise. chromedp's Poll makes functions of text, which the page's policy forbids, so
// the question is asked from here.
func (x *tab) until(what, condition string) {
	x.t.Helper()
	x.wait(what, condition, func() (bool, error) {
		return tryEval[bool](x, "(async () => !!(await ("+condition+")))()")
	})
}

// wait waits until something holds, and where that never comes it shows the page.
func (x *tab) wait(what, condition string, holds func() (bool, error)) {
	x.t.Helper()
	var last error
	err := poll(x.ctx, func() bool {
		ok, err := holds()
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
	return pollFor(ctx, patience, condition)
}

// pollFor looks at a condition until it holds, or for so long, and then once more: this process may have stood still since the last look.
func pollFor(ctx context.Context, most time.Duration, condition func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for !condition() {
		select {
		case <-ctx.Done():
			if condition() {
				return nil
			}
			return ctx.Err()
		case <-ticker.C:
		}
	}
	return nil
}

// frames is a promise that is kept when the page has drawn so often, and has done what it puts off until it has drawn.
const frames = `((n) => new Promise(done => {
	const next = left => left > 0 ? requestAnimationFrame(() => setTimeout(() => next(left - 1))) : done(true);
	next(n);
}))`

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
	x.clickOn(element(id))
}

// clickOn presses the mouse in the middle of the element that an expression names, until a press has met it: see tryClick.
func (x *tab) clickOn(expression string) {
	x.t.Helper()
	x.wait("it is clicked", expression, func() (bool, error) {
		met, err := x.tryClick(expression)
		return met != "", err
	})
}

// aim is the place of an element that can be pressed, if it is there, enabled, stays where it is and lies under nothing else. A listener is left
// that notes at the press, before the page acts upon it, what the element is then.
const aim = `(async () => {
	const find = () => {
		try {
			return (%[1]s);
		} catch {
			return null;
		}
	};
	const at = e => JSON.stringify(e.getBoundingClientRect());
	const first = find();
	if (!first || first.disabled || first.getClientRects().length === 0) return null;
	const seen = first.getBoundingClientRect();
	if (seen.top < 0 || seen.bottom > innerHeight || seen.left < 0 || seen.right > innerWidth) first.scrollIntoView({block: 'center', inline: 'nearest'});
	const before = at(first);
	await %[2]s(2);
	const e = find();
	if (e !== first || e.disabled || at(e) !== before) return null;
	const r = e.getBoundingClientRect();
	const x = r.left + r.width / 2, y = r.top + r.height / 2;
	let hit = document.elementFromPoint(x, y);
	while (hit && hit.shadowRoot && hit.shadowRoot.elementFromPoint(x, y)) hit = hit.shadowRoot.elementFromPoint(x, y);
	let n = hit;
	while (n && n !== e) n = n.parentNode || n.host;
	if (!n) {
		e.scrollIntoView({block: 'center', inline: 'nearest'});
		return null;
	}
	const mine = window.aimed = (window.aimed || 0) + 1;
	window.pressed = '';
	window.addEventListener('click', press => {
		const now = find();
		if (mine === window.aimed && now && press.composedPath().includes(now)) window.pressed = 'pressed ' + now.getAttribute('class');
	}, {capture: true, once: true});
	return {X: r.left, Y: r.top, Width: r.width, Height: r.height};
})()`

// tryClick presses the mouse in the middle of the element that an expression names, and returns the element's classes at that moment, with a word
// before them. They are empty if it was not met: it isn't there or not enabled, the page moved it away since what is above it was still
// loading, something lies over it, or the page takes no input yet.
func (x *tab) tryClick(expression string) (met string, err error) {
	p, err := tryEval[*place](x, fmt.Sprintf(aim, expression, frames))
	if err != nil || p == nil {
		return "", err
	}
	if err := chromedp.Do(x.ctx, chromedp.MouseClickXY(p.X+p.Width/2, p.Y+p.Height/2)); err != nil {
		return "", err
	}
	// A press may lead elsewhere, where nobody knows of it.
	const noted = "window.pressed ?? 'pressed'"
	if met, err = tryEval[string](x, noted); met != "" || err != nil {
		return met, err
	}
	return tryEval[string](x, frames+"(2).then(() => "+noted+")")
}

// confirm presses a button that asks whether one is sure, and then again. It asks for some seconds, so that the second press may come too late and be
// a first one: what counts is one that met it asking.
func (x *tab) confirm(id string) {
	x.t.Helper()
	x.wait(id+" is pressed and confirmed", element(id), func() (bool, error) {
		met, err := x.tryClick(element(id))
		return strings.Contains(met, "button-danger"), err
	})
}

// choose chooses an option of a select element, as its owner's keyboard would, when there is such an option.
func (x *tab) choose(id, value string) {
	x.t.Helper()
	x.until(id+" offers "+value, fmt.Sprintf(`(e => {
		if (!e || e.disabled || e.getClientRects().length === 0 || ![...e.options].some(o => o.value === %[2]s)) return false;
		e.focus();
		e.value = %[2]s;
		e.dispatchEvent(new Event('input', {bubbles: true}));
		e.dispatchEvent(new Event('change', {bubbles: true}));
		return true;
	})(%[1]s)`, element(id), js(value)))
}

// keys presses keys where the focus is.
func (x *tab) keys(keys string, options ...chromedp.KeyOption) {
	x.t.Helper()
	x.must(nil, chromedp.Do(x.ctx, chromedp.KeyEvent(keys, options...)))
}

// replace puts a text in the place of that of a field, by keys, until the field has it: the page may be at work on the field meanwhile.
func (x *tab) replace(field, text, has string) {
	x.t.Helper()
	x.wait("it has the text "+text, field, func() (bool, error) {
		if met, err := x.tryClick(field); met == "" || err != nil {
			return false, err
		}
		x.keys("a", chromedp.KeyModifiers(chromedp.ModifierCtrl))
		x.keys(kb.Backspace)
		x.keys(text)
		return tryEval[bool](x, fmt.Sprintf("%s(2).then(() => (e => !!e && e.%s === %s)(%s))", frames, has, js(text), field))
	})
}

// fill replaces the text of a field and presses Enter.
func (x *tab) fill(id, text string) {
	x.t.Helper()
	x.replace(element(id), text, "value")
	x.keys(kb.Enter)
}

// editor is the expression of the editable part of a query's editor, which lives in a shadow root.
func editor(query int) string {
	return fmt.Sprintf(`(h => h && (h.shadowRoot || h.querySelector('*')?.shadowRoot || [...h.querySelectorAll('*')].map(e => e.shadowRoot).find(Boolean))?.querySelector('.cm-content'))(%s)`,
		element(fmt.Sprintf("query-editor-%d", query)))
}

// typeQuery replaces the text of a query's editor, key by key, and closes completion, which would lie over what is pressed next.
func (x *tab) typeQuery(query int, text string) {
	x.t.Helper()
	x.until("the editor is there", editor(query))
	x.replace(editor(query), text, "textContent")
	closed := "!" + editor(query) + ".getRootNode().querySelector('.cm-tooltip-autocomplete')"
	x.wait("completion is closed", closed, func() (bool, error) {
		x.keys(kb.Escape)
		return tryEval[bool](x, frames+"(2).then(() => "+closed+")")
	})
}

// run runs what is typed and waits for the answer.
func (x *tab) run() {
	x.t.Helper()
	x.click("query-run")
	x.answered()
}

// answered waits until no query is under way, and none is begun by what was done before, which may take the page until it has drawn.
func (x *tab) answered() {
	x.t.Helper()
	x.idle("the query is answered", element("query-run")+" && "+element("query-cancel")+" === null && "+
		"!document.querySelector('[aria-busy=true]') && !document.querySelector('.loading')")
}

// idle waits until a condition holds, and still does when the page has done what it put off.
func (x *tab) idle(what, condition string) {
	x.t.Helper()
	x.until(what, "(async () => { const idle = () => "+condition+"; return idle() && await "+frames+"(3) && idle(); })()")
}

// drag drags the mouse over an element that stays where it is, from and to a part of its width, at a part of its height.
func (x *tab) drag(expression string, from, to, height float64) {
	x.t.Helper()
	x.placeOf(expression)
	x.until("it stays where it is", fmt.Sprintf(`(async () => {
		const at = () => (e => e && JSON.stringify(e.getBoundingClientRect()))(%s);
		const before = at();
		return before && await %s(3) && at() === before;
	})()`, expression, frames))
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

// hover moves the mouse to and fro over the middle of an element until the page shows what it is to show there.
func (x *tab) hover(expression, what, condition string) {
	x.t.Helper()
	off := 0.
	x.wait(what, condition, func() (bool, error) {
		p := x.placeOf(expression)
		off = 1 - off
		if err := chromedp.Do(x.ctx, chromedp.MouseEvent(chromedp.MouseMoved, p.X+p.Width/2+off, p.Y+p.Height/2)); err != nil {
			return false, err
		}
		return tryEval[bool](x, "!!("+condition+")")
	})
}

// told does something after which the page says a text, which may be gone again before anybody looks.
func (x *tab) told(part string, act func()) {
	x.t.Helper()
	eval[bool](x, `(() => {
		window.told = false;
		const look = () => { window.told ||= document.body.innerText.includes(`+js(part)+`); };
		new MutationObserver(look).observe(document.body, {childList: true, subtree: true, characterData: true});
		return true;
	})()`)
	act()
	x.until("it says "+part, "window.told")
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

// drawn waits until a graph has colour, and is not drawn again at once.
func (x *tab) drawn(id string) {
	x.t.Helper()
	x.until(id+" is drawn", fmt.Sprintf(`(async () => {
		const find = () => %s;
		const before = %s(find()) > 100 && find().toDataURL();
		return before && await %s(2) && find()?.toDataURL() === before;
	})()`, canvas(id), inkScript, frames))
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
