// One query: its colour, its editor, and what can be done with it.
import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import { familyColor } from '../../core/color';
import { useStore } from '../../core/store';
import { useDark } from '../../core/theme';
import { Button, classes, errorText } from '../../core/ui';
import { Icon, paths } from '../../shell/icons';
import { Editor } from './editor';
import { history } from './history';
import { faultAt, type Outcome } from './run';
import { queryName, type QueryState } from './state';
import type { Span } from './range';

export interface QueryRowProps {
  index: number;
  query: QueryState;
  outcome: Outcome | undefined;
  removable: boolean;
  focus: boolean;
  span: () => Span | undefined;
  onText: (text: string) => void;
  onSwitch: () => void;
  onRemove: () => void;
  onRun: (text?: string) => void;
}

export function QueryRow(props: QueryRowProps) {
  const dark = useDark();
  const name = queryName(props.index);
  const [open, setOpen] = useState(false);
  const error = props.outcome && props.outcome.text === props.query.text ? props.outcome.error : undefined;
  const fault = useMemo(() => (error ? faultAt(props.query.text, error) : undefined), [error, props.query.text]);
  return (
    <div class={classes('query', !props.query.on && 'query-off')}>
      <button
        type="button" class="query-name" aria-pressed={props.query.on} data-testid={`query-toggle-${props.index}`}
        aria-label={`Query ${name} is ${props.query.on ? 'on' : 'off'}. Switch it ${props.query.on ? 'off' : 'on'}.`}
        title={props.query.on ? 'Switch this query off' : 'Switch this query on'} onClick={props.onSwitch}
        style={{ '--family': familyColor(props.index, dark) }}
      >
        {name}
      </button>
      <div class="query-field">
        <Editor
          text={props.query.text} label={`Query ${name}, PromQL. Enter runs it.`} hint="PromQL, for example up" testid={`query-editor-${props.index}`}
          onChange={props.onText} onRun={() => props.onRun()} span={props.span} past={() => history.get()} fault={fault} focus={props.focus}
        />
        <div aria-live="assertive" role="alert">
          {error !== undefined && <div class="query-fault" data-testid="query-error">{errorText(error)}</div>}
        </div>
      </div>
      <div class="query-actions">
        <Button kind="quiet" small label={`Earlier queries for ${name}`} title="Earlier queries" testid={`query-history-${props.index}`} pressed={open} onClick={() => setOpen(!open)}><Icon d={paths.history} /></Button>
        <Button kind="quiet" small label={`Remove query ${name}`} title="Remove" testid={`query-remove-${props.index}`} disabled={!props.removable} onClick={props.onRemove}><Icon d={paths.cross} /></Button>
      </div>
      {open && (
        <Past
          onClose={() => setOpen(false)}
          onChoose={(text) => {
            setOpen(false);
            props.onRun(text);
          }}
        />
      )}
    </div>
  );
}

/** Past lists earlier queries, found by a part of their text. */
function Past(props: { onChoose: (text: string) => void; onClose: () => void }) {
  const all = useStore(history);
  const [filter, setFilter] = useState('');
  const box = useRef<HTMLDivElement>(null);
  const shown = all.filter((q) => q.toLowerCase().includes(filter.toLowerCase()));
  useEffect(() => {
    box.current?.querySelector('input')?.focus();
  }, []);
  const key = (e: KeyboardEvent) => {
    if (e.key === 'Escape') props.onClose();
    if (e.key !== 'ArrowDown' && e.key !== 'ArrowUp') return;
    e.preventDefault();
    const stops = [...(box.current?.querySelectorAll<HTMLElement>('input, .past-item') ?? [])];
    const at = stops.indexOf(document.activeElement as HTMLElement);
    stops[Math.max(0, Math.min(stops.length - 1, at + (e.key === 'ArrowDown' ? 1 : -1)))]?.focus();
  };
  return (
    <div class="past" ref={box} role="dialog" aria-label="Earlier queries" onKeyDown={key} data-testid="query-history">
      <div class="past-head">
        <input type="search" placeholder="Find an earlier query" aria-label="Find an earlier query" value={filter} onInput={(e) => setFilter(e.currentTarget.value)} />
        <Button small kind="quiet" disabled={all.length === 0} confirm="Forget all?" onClick={() => history.set([])}>Forget all</Button>
        <Button small kind="quiet" label="Close" onClick={props.onClose}><Icon d={paths.cross} /></Button>
      </div>
      {shown.length === 0 ? (
        <p class="dim past-none">{all.length === 0 ? 'No query has been run in this browser yet.' : 'No earlier query has this text.'}</p>
      ) : (
        <ul>
          {shown.map((q) => <li key={q}><button type="button" class="past-item mono" onClick={() => props.onChoose(q)}>{q}</button></li>)}
        </ul>
      )}
    </div>
  );
}
