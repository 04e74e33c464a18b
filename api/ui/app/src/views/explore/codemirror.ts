// The editor of a query. It lives in a shadow root, where CodeMirror adopts its style sheets: the page's policy forbids it to write <style>.
import { autocompletion, closeBrackets, closeBracketsKeymap, closeCompletion, completionKeymap, completionStatus, selectedCompletion, type CompletionContext, type CompletionResult } from '@codemirror/autocomplete';
import { defaultKeymap, history as undoHistory, historyKeymap, insertNewlineAndIndent } from '@codemirror/commands';
import { bracketMatching, HighlightStyle, indentOnInput, syntaxHighlighting } from '@codemirror/language';
import { forceLinting, setDiagnostics, type Diagnostic } from '@codemirror/lint';
import { Annotation, EditorState, Prec } from '@codemirror/state';
import { drawSelection, EditorView, highlightSpecialChars, keymap, placeholder, tooltips } from '@codemirror/view';
import { tags as t } from '@lezer/highlight';
import { PromQLExtension, newCompleteStrategy } from '@prometheus-io/codemirror-promql';
import { Client } from './client';

export interface EditorOptions {
  text: string;
  label: string;
  hint: string;
  onChange: (text: string) => void;
  onRun: () => void;
  /** The range of time whose metrics and labels are offered. */
  span: () => { start: number; end: number } | undefined;
  /** Earlier queries, offered where a query begins. */
  past: () => readonly string[];
}

export interface EditorHandle {
  setText: (text: string) => void;
  /** Marks a place that the server found wrong; undefined takes the mark away. */
  setFault: (fault: { at: number; message: string } | undefined) => void;
  focus: () => void;
  destroy: () => void;
}

/** fromOutside marks a change that was not typed. */
const fromOutside = Annotation.define<boolean>();

let client: Client | undefined;
/** span is that of the newest editor: all editors of a page have the same. */
let span: EditorOptions['span'] | undefined;

const theme = EditorView.theme({
  '&': { color: 'var(--text)', backgroundColor: 'var(--surface)', fontSize: '13.5px', borderRadius: '4px' },
  '&.cm-focused': { outline: 'none' },
  '.cm-scroller': { fontFamily: 'var(--mono)', lineHeight: '1.5', maxHeight: '220px' },
  '.cm-content': { padding: '7px 0', caretColor: 'var(--text)' },
  '.cm-line': { padding: '0 10px' },
  '.cm-cursor, .cm-dropCursor': { borderLeftColor: 'var(--text)' },
  '&.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground, .cm-selectionBackground': { background: 'color-mix(in srgb, var(--accent) 28%, transparent)' },
  '.cm-placeholder': { color: 'var(--text-dim)' },
  '&.cm-focused .cm-matchingBracket': { backgroundColor: 'var(--accent-soft)', outline: '1px solid var(--accent)' },
  '&.cm-focused .cm-nonmatchingBracket': { backgroundColor: 'var(--bad-soft)' },
  '.cm-tooltip': { backgroundColor: 'var(--surface)', color: 'var(--text)', border: '1px solid var(--line-strong)', borderRadius: '6px', boxShadow: 'var(--shadow-pop)', zIndex: '30' },
  '.cm-tooltip.cm-tooltip-autocomplete > ul': { fontFamily: 'var(--mono)', fontSize: '12.5px', maxHeight: '260px', maxWidth: 'min(620px, 92vw)' },
  '.cm-tooltip.cm-tooltip-autocomplete > ul > li': { padding: '3px 8px', lineHeight: '1.5' },
  '.cm-tooltip.cm-tooltip-autocomplete > ul > li[aria-selected]': { backgroundColor: 'var(--accent-soft)', color: 'var(--text)' },
  '.cm-completionMatchedText': { textDecoration: 'none', color: 'var(--accent-text)', fontWeight: '700' },
  '.cm-completionDetail': { fontStyle: 'normal', color: 'var(--text-dim)', fontFamily: 'var(--sans)', fontSize: '11.5px', marginLeft: '12px' },
  '.cm-tooltip.cm-completionInfo': { padding: '8px 12px', maxWidth: '340px', fontFamily: 'var(--sans)', fontSize: '12.5px', lineHeight: '1.4', overflow: 'auto', maxHeight: '200px' },
  '.cm-completionInfo.cm-completionInfo-left-narrow, .cm-completionInfo.cm-completionInfo-right-narrow': { top: '100% !important', left: '0 !important', right: '0 !important', marginTop: '2px' },
  '.cm-completionIcon': { display: 'none' },
  '.cm-diagnostic': { fontFamily: 'var(--sans)', fontSize: '12.5px', padding: '5px 10px', borderLeft: '3px solid var(--bad)' },
  '.cm-diagnostic-error': { borderLeftColor: 'var(--bad)' },
  '.cm-lintRange-error': { backgroundImage: 'none', textDecoration: 'underline wavy var(--bad) 1px', textUnderlineOffset: '3px' },
  '.cm-lintRange-warning': { backgroundImage: 'none', textDecoration: 'underline wavy var(--warn) 1px', textUnderlineOffset: '3px' },
  '.cm-lintPoint::after': { borderBottomColor: 'var(--bad)' },
});

const colors = HighlightStyle.define([
  { tag: [t.keyword, t.operatorKeyword, t.modifier], color: 'var(--syntax-keyword)', fontWeight: '600' },
  { tag: t.function(t.variableName), color: 'var(--syntax-function)' },
  { tag: t.labelName, color: 'var(--syntax-label)' },
  { tag: [t.string, t.special(t.string)], color: 'var(--syntax-string)' },
  { tag: [t.number, t.integer, t.float], color: 'var(--syntax-number)' },
  { tag: t.comment, color: 'var(--text-dim)', fontStyle: 'italic' },
  { tag: t.invalid, color: 'var(--bad)' },
]);

/** chosenIsTyped tells that what the list would put in is what stands there, so that Enter means to run it. */
function chosenIsTyped(view: EditorView): boolean {
  const chosen = selectedCompletion(view.state);
  if (!chosen) return false;
  const head = view.state.selection.main.head;
  const before = view.state.sliceDoc(Math.max(0, head - chosen.label.length), head);
  const further = view.state.sliceDoc(Math.max(0, head - chosen.label.length - 1), head - chosen.label.length);
  return before === chosen.label && !/[a-zA-Z0-9_:]/.test(further);
}

export function createEditor(host: HTMLElement, o: EditorOptions): EditorHandle {
  span = o.span;
  client ??= new Client(() => span?.());
  const root = host.shadowRoot ?? host.attachShadow({ mode: 'open', delegatesFocus: true });
  const place = document.createElement('div');
  root.replaceChildren(place);

  const promql = new PromQLExtension().setComplete({ remote: client, maxMetricsMetadata: 20_000 });
  const upstream = newCompleteStrategy({ remote: client, maxMetricsMetadata: 20_000 });
  promql.setComplete({
    completeStrategy: {
      async promQL(context: CompletionContext): Promise<CompletionResult | null> {
        const found = await upstream.promQL(context);
        const typed = context.state.doc.toString().trim();
        if (!found || typed === '' || context.pos !== context.state.doc.length || context.state.doc.lines > 1) return found;
        const past = o.past().filter((q) => q !== typed && q.startsWith(typed)).slice(0, 5);
        if (past.length === 0 || found.from !== context.state.doc.length - context.state.doc.toString().trimStart().length) return found;
        return { ...found, options: [...found.options, ...past.map((q) => ({ label: q, detail: 'run before', type: 'text', boost: -1 }))] };
      },
    },
  });

  const run = (view: EditorView) => {
    closeCompletion(view);
    o.onRun();
    return true;
  };
  const view = new EditorView({
    root,
    parent: place,
    state: EditorState.create({
      doc: o.text,
      extensions: [
        // Before the completion's own keys, which are as high.
        Prec.highest(keymap.of([
          { key: 'Mod-Enter', run },
          { key: 'Shift-Enter', run: insertNewlineAndIndent },
          { key: 'Enter', run: (v) => completionStatus(v.state) === 'active' && chosenIsTyped(v) && run(v) },
        ])),
        theme,
        syntaxHighlighting(colors),
        highlightSpecialChars(),
        undoHistory(),
        drawSelection(),
        indentOnInput(),
        bracketMatching(),
        closeBrackets(),
        autocompletion({ closeOnBlur: true, maxRenderedOptions: 60, icons: false }),
        tooltips({ position: 'fixed', parent: place }),
        EditorView.lineWrapping,
        EditorView.contentAttributes.of({ 'aria-label': o.label, 'aria-multiline': 'true', spellcheck: 'false', autocapitalize: 'off', autocorrect: 'off' }),
        placeholder(o.hint),
        promql.asExtension(),
        keymap.of([...closeBracketsKeymap, ...completionKeymap, { key: 'Enter', run }, ...historyKeymap, ...defaultKeymap]),
        EditorView.updateListener.of((update) => {
          if (update.docChanged && !update.transactions.some((t) => t.annotation(fromOutside))) o.onChange(update.state.doc.toString());
        }),
      ],
    }),
  });

  // Focus that is given to the host lands on the scrolled box, which comes first, and is meant for the text.
  view.scrollDOM.addEventListener('focus', () => view.focus());

  return {
    setText(text) {
      const now = view.state.doc.toString();
      if (now !== text) view.dispatch({ changes: { from: 0, to: now.length, insert: text }, annotations: fromOutside.of(true) });
    },
    setFault(fault) {
      if (!fault) {
        forceLinting(view);
        return;
      }
      const from = Math.min(Math.max(0, fault.at), view.state.doc.length);
      const word = view.state.wordAt(from);
      const mark: Diagnostic = { from: word?.from ?? from, to: word?.to ?? Math.min(from + 1, view.state.doc.length), severity: 'error', message: fault.message };
      view.dispatch(setDiagnostics(view.state, [mark]));
    },
    focus: () => view.focus(),
    destroy: () => {
      view.destroy();
      root.replaceChildren();
    },
  };
}
