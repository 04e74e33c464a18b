// The parts that every view is made of. Text given to them stays text.
import type { ComponentChildren, TargetedKeyboardEvent } from 'preact';
import { useEffect, useId, useMemo, useRef, useState } from 'preact/hooks';
import { ApiError } from './api';

type Children = { children?: ComponentChildren };

/** classes joins class names, leaving out what is false. */
export function classes(...names: (string | false | null | undefined)[]): string {
  return names.filter(Boolean).join(' ');
}

/** Card is a titled section. */
export function Card(props: Children & { title?: ComponentChildren; note?: ComponentChildren; actions?: ComponentChildren; testid?: string; class?: string }) {
  const id = useId();
  return (
    <section class={classes('card', props.class)} data-testid={props.testid} aria-labelledby={props.title ? id : undefined}>
      {(props.title || props.actions) && (
        <header class="card-head">
          {props.title && <h2 id={id}>{props.title}</h2>}
          {props.note && <span class="card-note">{props.note}</span>}
          {props.actions && <div class="card-actions">{props.actions}</div>}
        </header>
      )}
      <div class="card-body">{props.children}</div>
    </section>
  );
}

export interface Column<T> {
  key: string;
  title: ComponentChildren;
  /** Numbers stand to the right, with tabular figures. */
  numeric?: boolean;
  /** What the column is sorted by; without it the column is not sorted. */
  value?: (row: T) => number | string;
  render: (row: T) => ComponentChildren;
  class?: string;
}

export interface TableProps<T> {
  caption: string;
  columns: Column<T>[];
  rows: readonly T[];
  rowKey: (row: T) => string;
  /** What stands there without rows. */
  empty?: ComponentChildren;
  sort?: { key: string; descending?: boolean };
  testid?: string;
  rowTestid?: (row: T) => string | undefined;
  /** Shows the caption, which is else for screen readers alone. */
  showCaption?: boolean;
}

/** Table sorts by a click or Enter on a heading, and scrolls sideways by itself where it is wider than its place. */
export function Table<T>(props: TableProps<T>) {
  const [sort, setSort] = useState(props.sort);
  const column = props.columns.find((c) => c.key === sort?.key);
  const rows = useMemo(() => {
    const by = column?.value;
    if (!by) return props.rows;
    const sign = sort?.descending ? -1 : 1;
    return [...props.rows].sort((a, b) => sign * compare(by(a), by(b)));
  }, [props.rows, column, sort?.descending]);
  if (props.rows.length === 0 && props.empty !== undefined) {
    return <div data-testid={props.testid}>{typeof props.empty === 'string' ? <Empty>{props.empty}</Empty> : props.empty}</div>;
  }
  return (
    <div class="table-scroll" tabIndex={0} role="region" aria-label={props.caption}>
      <table data-testid={props.testid}>
        <caption class={props.showCaption ? undefined : 'hidden-text'}>{props.caption}</caption>
        <thead>
          <tr>
            {props.columns.map((c) => {
              const sorted = sort?.key === c.key && c.value;
              return (
                <th key={c.key} scope="col" class={classes(c.numeric && 'num', c.class)} aria-sort={sorted ? (sort.descending ? 'descending' : 'ascending') : undefined}>
                  {c.value ? (
                    <button type="button" class="sort" onClick={() => setSort({ key: c.key, descending: sorted ? !sort.descending : !!c.numeric })}>
                      {c.title}
                      <span aria-hidden="true" class="sort-mark">{sorted ? (sort.descending ? '▼' : '▲') : ''}</span>
                    </button>
                  ) : c.title}
                </th>
              );
            })}
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr key={props.rowKey(row)} data-testid={props.rowTestid?.(row)}>
              {props.columns.map((c) => <td key={c.key} class={classes(c.numeric && 'num', c.class)}>{c.render(row)}</td>)}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function compare(a: number | string, b: number | string): number {
  if (typeof a === 'number' && typeof b === 'number') return Number.isNaN(a) ? -1 : Number.isNaN(b) ? 1 : a - b;
  return String(a) < String(b) ? -1 : String(a) > String(b) ? 1 : 0;
}

/** Bar is a share of a whole, drawn. Its label is read out in its place. */
export function Bar(props: { value: number; max: number; label: string }) {
  const share = props.max > 0 ? Math.min(1, Math.max(0, props.value / props.max)) : 0;
  return (
    <span class="bar" role="img" aria-label={props.label} title={props.label}>
      <span class="bar-fill" style={{ width: `${(share * 100).toFixed(2)}%` }} />
    </span>
  );
}

export type BadgeKind = 'neutral' | 'good' | 'warn' | 'bad' | 'accent';

export function Badge(props: Children & { kind?: BadgeKind; title?: string; testid?: string }) {
  return <span class={`badge badge-${props.kind ?? 'neutral'}`} title={props.title} data-testid={props.testid}>{props.children}</span>;
}

export interface ButtonProps extends Children {
  kind?: 'plain' | 'primary' | 'danger' | 'quiet';
  /** Asks this in place, and acts upon the second press alone. */
  confirm?: string;
  onClick?: () => void | Promise<unknown>;
  disabled?: boolean;
  testid?: string;
  label?: string;
  title?: string;
  type?: 'button' | 'submit';
  pressed?: boolean;
  small?: boolean;
}

/** Button is busy, and takes no other press, until what it started is over. */
export function Button(props: ButtonProps) {
  const [asked, setAsked] = useState(false);
  const [busy, setBusy] = useState(false);
  const alive = useRef(true);
  useEffect(() => {
    alive.current = true;
    return () => {
      alive.current = false;
    };
  }, []);
  useEffect(() => {
    if (!asked) return;
    const timer = setTimeout(() => setAsked(false), 6000);
    return () => clearTimeout(timer);
  }, [asked]);
  const press = async () => {
    if (props.confirm && !asked) {
      setAsked(true);
      return;
    }
    setAsked(false);
    const result = props.onClick?.();
    if (!(result instanceof Promise)) return;
    setBusy(true);
    try {
      await result;
    } finally {
      if (alive.current) setBusy(false);
    }
  };
  return (
    <button
      type={props.type ?? 'button'}
      class={classes('button', `button-${asked ? 'danger' : (props.kind ?? 'plain')}`, props.small && 'button-small')}
      disabled={props.disabled || busy}
      aria-busy={busy}
      aria-pressed={props.pressed}
      aria-label={asked ? props.confirm : props.label}
      title={props.title}
      data-testid={props.testid}
      onClick={() => void press()}
      onBlur={() => setAsked(false)}
      onKeyDown={(e) => e.key === 'Escape' && setAsked(false)}
    >
      {asked ? props.confirm : props.children}
    </button>
  );
}

/** Empty says that there is nothing, and what to do. */
export function Empty(props: Children & { title?: string; testid?: string }) {
  return (
    <div class="empty" data-testid={props.testid}>
      {props.title && <strong>{props.title}</strong>}
      <div>{props.children}</div>
    </div>
  );
}

/** errorText is what an error says, with its type where the server named one. */
export function errorText(error: unknown): string {
  if (error instanceof ApiError) return error.message;
  return error instanceof Error ? error.message : String(error);
}

/** ErrorBox shows an error and reads it out. It is there, and empty, without one, so that screen readers watch it. */
export function ErrorBox(props: { error: unknown; retry?: () => void; testid?: string; title?: string }) {
  const shown = props.error !== undefined && props.error !== null;
  return (
    <div aria-live="assertive" role="alert">
      {shown && (
        <div class="error-box" data-testid={props.testid}>
          <div class="error-text">
            {props.title && <strong>{props.title} </strong>}
            {errorText(props.error)}
            {props.error instanceof ApiError && props.error.status > 0 && <span class="error-type"> ({props.error.type}, HTTP {props.error.status})</span>}
          </div>
          {props.retry && <Button small onClick={props.retry}>Try again</Button>}
        </div>
      )}
    </div>
  );
}

/** Loading is shown after a moment, so that quick answers don't flicker. */
export function Loading(props: { text?: string }) {
  return <div class="loading" role="status">{props.text ?? 'Loading…'}</div>;
}

export interface TabItem {
  key: string;
  title: ComponentChildren;
  testid?: string;
}

/** Tabs are moved through by the arrow keys. The caller renders the panel with TabPanel. */
export function Tabs(props: { items: TabItem[]; active: string; onChange: (key: string) => void; label: string; id: string }) {
  const list = useRef<HTMLDivElement>(null);
  const move = (e: TargetedKeyboardEvent<HTMLElement>) => {
    const at = props.items.findIndex((i) => i.key === props.active);
    const n = props.items.length;
    const to = e.key === 'ArrowRight' ? (at + 1) % n : e.key === 'ArrowLeft' ? (at + n - 1) % n : e.key === 'Home' ? 0 : e.key === 'End' ? n - 1 : -1;
    const item = props.items[to];
    if (!item) return;
    e.preventDefault();
    props.onChange(item.key);
    (list.current?.children[to] as HTMLElement | undefined)?.focus();
  };
  return (
    <div class="tabs" role="tablist" aria-label={props.label} ref={list} onKeyDown={move}>
      {props.items.map((item) => (
        <button
          type="button" key={item.key} role="tab" id={`${props.id}-tab-${item.key}`} aria-controls={`${props.id}-panel`}
          aria-selected={item.key === props.active} tabIndex={item.key === props.active ? 0 : -1}
          data-testid={item.testid} onClick={() => props.onChange(item.key)}
        >
          {item.title}
        </button>
      ))}
    </div>
  );
}

export function TabPanel(props: Children & { id: string; active: string }) {
  return <div role="tabpanel" id={`${props.id}-panel`} aria-labelledby={`${props.id}-tab-${props.active}`}>{props.children}</div>;
}

/** Field gives a control its label, and says what is wrong with its value. */
export function Field(props: { label: string; hint?: ComponentChildren; error?: string | undefined; hideLabel?: boolean; class?: string; children: (ids: { id: string; describedBy: string | undefined; invalid: boolean }) => ComponentChildren }) {
  const id = useId();
  const described = props.error || props.hint ? `${id}-note` : undefined;
  return (
    <div class={classes('field', props.class)}>
      <label for={id} class={props.hideLabel ? 'hidden-text' : undefined}>{props.label}</label>
      {props.children({ id, describedBy: described, invalid: !!props.error })}
      {described && <div id={described} class={props.error ? 'field-error' : 'field-hint'} role={props.error ? 'alert' : undefined}>{props.error ?? props.hint}</div>}
    </div>
  );
}

/** Fact is a name with a value, for lists of facts in a dl class="facts". */
export function Fact(props: Children & { name: string; hint?: string; testid?: string }) {
  return (
    <div class="fact" data-testid={props.testid}>
      <dt>{props.name}</dt>
      <dd>{props.children}</dd>
      {props.hint && <dd class="fact-hint">{props.hint}</dd>}
    </div>
  );
}

/** CopyText is text that is copied by a button beside it. */
export function CopyText(props: { text: string; label: string; block?: boolean }) {
  const [done, setDone] = useState('');
  const copy = async () => {
    setDone((await copyText(props.text)) ? 'Copied' : 'Select the text and copy it');
    setTimeout(() => setDone(''), 2000);
  };
  return (
    <span class={classes('copy', props.block && 'copy-block')}>
      {props.block ? <pre tabIndex={0}>{props.text}</pre> : <code>{props.text}</code>}
      <Button small kind="quiet" label={`Copy ${props.label}`} onClick={copy}>{done || 'Copy'}</Button>
    </span>
  );
}

/** copyText puts text on the clipboard and reports whether that worked: without TLS browsers offer the old way alone. */
export async function copyText(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement('textarea');
    area.value = text;
    area.className = 'hidden-text';
    document.body.append(area);
    const focused = document.activeElement as HTMLElement | null;
    area.select();
    let done = false;
    try {
      done = document.execCommand('copy');
    } catch {
      done = false;
    }
    area.remove();
    focused?.focus();
    return done;
  }
}
