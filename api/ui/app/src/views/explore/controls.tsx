// Where in time, how fine, from what, and how often.
import { useEffect, useRef, useState } from 'preact/hooks';
import { Button, classes } from '../../core/ui';
import { durationText, time, timeWithZone, useZone, type Zone } from '../../core/format';
import { Icon, paths } from '../../shell/icons';
import { isRelative, lengthText, parseRange, parseStep, parseTime, presets, shifted, shown, widened, written, type Span } from './range';
import { refreshChoices, type ExploreState } from './state';

export interface ControlsProps {
  state: ExploreState;
  resolutions: readonly string[];
  /** The step that auto stands for, in milliseconds. */
  autoStep: number;
  onChange: (change: Partial<ExploreState>) => void;
}

export function RangeControls(props: ControlsProps) {
  const zone = useZone();
  const { from, to } = props.state;
  const range = parseRange(from, to, Date.now(), zone);
  const span: Span | undefined = 'span' in range ? range.span : undefined;
  const preset = to.trim() === 'now' ? presets.find((p) => p.from === from.trim()) : undefined;
  const set = (s: Span) => props.onChange({ from: written(s.start), to: written(s.end) });
  return (
    <div class="control-row" role="group" aria-label="Time range">
      <label class="control">
        <span class="control-name">Range</span>
        <select
          data-testid="range-select" value={preset?.from ?? ''}
          onChange={(e) => e.currentTarget.value !== '' && props.onChange({ from: e.currentTarget.value, to: 'now' })}
        >
          <option value="">{span ? `Custom, ${lengthText(span)}` : 'Custom'}</option>
          {presets.map((p) => <option key={p.from} value={p.from}>{p.text}</option>)}
        </select>
      </label>
      <div class="joined">
        <Button label="Back by half the range" title="Back by half the range" testid="range-back" disabled={!span} onClick={() => span && set(shifted(span, -0.5))}><Icon d={paths.back} /></Button>
        <Button label="Forward by half the range" title="Forward by half the range" testid="range-forward" disabled={!span} onClick={() => span && set(shifted(span, 0.5))}><Icon d={paths.forward} /></Button>
        <Button label="Twice the range" title="Twice the range" testid="range-widen" disabled={!span} onClick={() => span && set(widened(span, Date.now()))}><Icon d={paths.zoomOut} /></Button>
      </div>
      <TimeInput name="From" text={from} zone={zone} testid="range-start" check={(t) => wrong(t, to, zone, 'from')} onSet={(t) => props.onChange({ from: t })} />
      <TimeInput name="To" text={to} zone={zone} testid="range-end" check={(t) => wrong(from, t, zone, 'to')} onSet={(t) => props.onChange({ to: t })} />
    </div>
  );
}

function wrong(from: string, to: string, zone: Zone, which: 'from' | 'to'): string | undefined {
  const r = parseRange(from, to, Date.now(), zone);
  // What is wrong with the other field is said there; both in the wrong order is said where somebody types.
  return 'error' in r && (r.which === which || r.error.startsWith('The range')) ? r.error : undefined;
}

/** TimeInput takes a time as text, and from the browser's own picker. It is taken over on Enter and on leaving the field. */
export function TimeInput(props: { name: string; text: string; zone: Zone; testid: string; check: (text: string) => string | undefined; onSet: (text: string) => void; placeholder?: string }) {
  const display = props.text === '' ? '' : shown(props.text, props.zone);
  const [draft, setDraft] = useState(display);
  const [error, setError] = useState<string | undefined>();
  const picker = useRef<HTMLInputElement>(null);
  useEffect(() => {
    setDraft(display);
    setError(undefined);
  }, [display]);
  const take = (text: string) => {
    if (text.trim() === display) {
      setError(undefined);
      return;
    }
    const fault = text.trim() === '' && props.placeholder ? undefined : props.check(text);
    setError(fault);
    if (fault) return;
    const t = text.trim();
    props.onSet(t === '' || isRelative(t) ? t : written(parseTime(t, Date.now(), props.zone)));
  };
  const id = `${props.testid}-field`;
  return (
    <div class={classes('control', 'control-time', error && 'control-wrong')}>
      <label class="control-name" for={id}>{props.name}</label>
      <div class="time-input">
        <input
          id={id} type="text" size={20} data-testid={props.testid} value={draft} placeholder={props.placeholder} autocomplete="off" spellcheck={false}
          aria-invalid={!!error} aria-describedby={error ? `${id}-error` : undefined}
          onInput={(e) => setDraft(e.currentTarget.value)}
          onKeyDown={(e) => {
            if (e.key === 'Enter') take(e.currentTarget.value);
            if (e.key === 'Escape') setDraft(display);
          }}
          onBlur={(e) => take(e.currentTarget.value)}
        />
        <input
          ref={picker} class="time-picker" type="datetime-local" tabIndex={-1} aria-hidden="true" step={60}
          onChange={(e) => e.currentTarget.value && take(e.currentTarget.value.replace('T', ' '))}
        />
        <Button
          small kind="quiet" label={`Choose ${props.name.toLowerCase()} from a calendar`} title="Choose from a calendar"
          onClick={() => {
            const input = picker.current;
            if (!input) return;
            const at = parseTime(props.text || 'now', Date.now(), props.zone);
            input.value = time(Number.isFinite(at) ? at : Date.now(), props.zone).slice(0, 16).replace(' ', 'T');
            try {
              input.showPicker();
            } catch {
              input.focus();
            }
          }}
        >
          <Icon d="M2.5 4.5h11v9h-11zM2.5 7h11M5.5 2.5v3M10.5 2.5v3" />
        </Button>
      </div>
      {error && <div class="field-error" id={`${id}-error`} role="alert">{error}</div>}
    </div>
  );
}

export function DetailControls(props: ControlsProps) {
  const { step, resolution, refresh } = props.state;
  const [draft, setDraft] = useState(step);
  const [error, setError] = useState<string | undefined>();
  useEffect(() => setDraft(step), [step]);
  const take = (text: string) => {
    const n = parseStep(text);
    setError(Number.isNaN(n) ? 'Write auto, or a length of time such as 30s or 5m.' : undefined);
    if (Number.isNaN(n)) return;
    const next = n === 0 ? 'auto' : durationText(n);
    setDraft(next);
    if (next !== step) props.onChange({ step: next });
  };
  const choices = [...new Set(['auto', 'raw', 'strict', ...props.resolutions, resolution])];
  const names: Record<string, string> = { auto: 'auto', raw: 'raw samples', strict: 'strict: exact' };
  return (
    <div class="control-row" role="group" aria-label="How the query is answered">
      <div class={classes('control', error && 'control-wrong')}>
        <label class="control-name" for="step-field">Step</label>
        <input
          id="step-field" class="step" type="text" data-testid="step-input" value={draft} size={8} autocomplete="off" spellcheck={false}
          aria-invalid={!!error} aria-describedby="step-note" list="step-choices"
          onInput={(e) => setDraft(e.currentTarget.value)} onBlur={(e) => take(e.currentTarget.value)}
          onKeyDown={(e) => e.key === 'Enter' && take(e.currentTarget.value)}
        />
        <datalist id="step-choices">{['auto', '15s', '1m', '5m', '1h', '1d'].map((s) => <option key={s} value={s} />)}</datalist>
        <span class={error ? 'field-error' : 'control-after'} id="step-note" role={error ? 'alert' : undefined}>{error ?? (step === 'auto' && props.autoStep > 0 ? `is ${durationText(props.autoStep)}` : '')}</span>
      </div>
      <label class="control">
        <span class="control-name">Resolution</span>
        <select data-testid="resolution-select" value={resolution} onChange={(e) => props.onChange({ resolution: e.currentTarget.value })}>
          {choices.map((c) => <option key={c} value={c}>{names[c] ?? `buckets of ${c}`}</option>)}
        </select>
      </label>
      <label class="control">
        <span class="control-name">Refresh</span>
        <select data-testid="refresh-select" value={String(refresh)} onChange={(e) => props.onChange({ refresh: Number(e.currentTarget.value) })}>
          {refreshChoices.map((s) => <option key={s} value={String(s)}>{s === 0 ? 'off' : `every ${durationText(s * 1000)}`}</option>)}
        </select>
      </label>
    </div>
  );
}

/** rangeText is a span in words, for titles. */
export function rangeText(span: Span, zone: Zone): string {
  return `${time(span.start, zone)} to ${timeWithZone(span.end, zone)}`;
}
