// A field for a query: a plain one until CodeMirror is there, and where it can't be loaded.
import { useEffect, useRef, useState } from 'preact/hooks';
import type { EditorHandle, EditorOptions } from './codemirror';

type EditorModule = typeof import('./codemirror');

let loading: Promise<EditorModule> | undefined;
/** loadEditor fetches CodeMirror once for all fields. */
const loadEditor = () => (loading ??= import('./codemirror'));

export interface EditorProps extends EditorOptions {
  testid: string;
  fault?: { at: number; message: string } | undefined;
  focus?: boolean;
}

export function Editor(props: EditorProps) {
  const host = useRef<HTMLDivElement>(null);
  const handle = useRef<EditorHandle | undefined>(undefined);
  const latest = useRef(props);
  latest.current = props;
  const [ready, setReady] = useState(false);
  // What was typed and has not come back as the text yet: it comes later, when more may have been typed, and must not be put in again.
  const typed = useRef<string[]>([]);
  const plain = useRef<HTMLTextAreaElement>(null);

  useEffect(() => {
    let gone = false;
    loadEditor().then(
      (module) => {
        if (gone || !host.current) return;
        const hadFocus = plain.current !== null && plain.current === document.activeElement;
        handle.current = module.createEditor(host.current, {
          text: latest.current.text,
          label: latest.current.label,
          hint: latest.current.hint,
          onChange: (text) => {
            typed.current.push(text);
            latest.current.onChange(text);
          },
          onRun: () => latest.current.onRun(),
          span: () => latest.current.span(),
          past: () => latest.current.past(),
        });
        setReady(true);
        if (hadFocus || latest.current.focus) handle.current.focus();
      },
      () => {
        loading = undefined;
      },
    );
    return () => {
      gone = true;
      handle.current?.destroy();
      handle.current = undefined;
    };
  }, []);

  useEffect(() => {
    const own = typed.current.lastIndexOf(props.text);
    if (own >= 0) {
      typed.current.splice(0, own + 1);
      return;
    }
    typed.current = [];
    handle.current?.setText(props.text);
  }, [props.text]);
  useEffect(() => {
    if (typed.current.at(-1) === props.text) typed.current = [];
  });
  useEffect(() => handle.current?.setFault(props.fault), [props.fault?.at, props.fault?.message, ready]);

  return (
    <div class="editor">
      <div class="editor-host" ref={host} data-testid={props.testid} data-ready={ready} />
      {!ready && (
        <textarea
          class="editor-plain" ref={plain} rows={1} aria-label={props.label} placeholder={props.hint} spellcheck={false} value={props.text}
          onInput={(e) => props.onChange(e.currentTarget.value)}
          onKeyDown={(e) => {
            if (e.key !== 'Enter' || e.shiftKey) return;
            e.preventDefault();
            props.onRun();
          }}
        />
      )}
    </div>
  );
}
