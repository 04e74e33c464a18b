// What Explore shows, as the address says it. Pure.
import { parseStep } from './range';

export type Mode = 'lines' | 'stacked' | 'heatmap';
export type Tab = 'table' | 'graph';

export interface QueryState {
  text: string;
  on: boolean;
}

export interface ExploreState {
  queries: QueryState[];
  from: string;
  to: string;
  /** auto or a length of time. */
  step: string;
  /** auto, raw, strict, or a length of buckets. */
  resolution: string;
  mode: Mode;
  tab: Tab;
  /** The time of the table; empty for the end of the range. */
  at: string;
  /** Seconds between refreshes, 0 for none. */
  refresh: number;
}

/** queriesMax bounds the queries of a page. */
export const queriesMax = 16;

export const refreshChoices = [0, 5, 10, 30, 60, 300];

export const initialState: ExploreState = {
  queries: [{ text: '', on: true }],
  from: 'now-1h',
  to: 'now',
  step: 'auto',
  resolution: 'auto',
  mode: 'lines',
  tab: 'graph',
  at: '',
  refresh: 0,
};

const oneOf = <T extends string>(text: string | null, choices: readonly T[], otherwise: T): T => choices.find((c) => c === text) ?? otherwise;

/** readState reads an address. What it doesn't say, or says wrongly, is as at the beginning. */
export function readState(params: URLSearchParams): ExploreState {
  const texts = params.getAll('q').slice(0, queriesMax);
  const off = new Set((params.get('off') ?? '').split(',').filter((s) => s !== '').map(Number));
  const queries = texts.map((text, i) => ({ text, on: !off.has(i) }));
  const step = params.get('step') ?? '';
  const resolution = params.get('res') ?? '';
  const refresh = Number(params.get('refresh') ?? 0);
  return {
    queries: queries.length > 0 ? queries : [{ text: '', on: true }],
    from: params.get('from') || initialState.from,
    to: params.get('to') || initialState.to,
    step: step !== '' && !Number.isNaN(parseStep(step)) ? step : 'auto',
    resolution: /^[a-z0-9]{1,20}$/.test(resolution) ? resolution : 'auto',
    mode: oneOf(params.get('mode'), ['lines', 'stacked', 'heatmap'], 'lines'),
    tab: oneOf(params.get('tab'), ['table', 'graph'], 'graph'),
    at: params.get('at') ?? '',
    refresh: refreshChoices.includes(refresh) ? refresh : 0,
  };
}

/** writeState is the address of a state. What is as at the beginning is left out. */
export function writeState(s: ExploreState): URLSearchParams {
  const out = new URLSearchParams();
  const last = s.queries.length === 1 && s.queries[0]!.text === '' ? [] : s.queries;
  for (const q of last) out.append('q', q.text);
  const off = last.flatMap((q, i) => (q.on ? [] : [i]));
  if (off.length > 0) out.set('off', off.join(','));
  if (s.from !== initialState.from || s.to !== initialState.to) {
    out.set('from', s.from);
    out.set('to', s.to);
  }
  if (s.step !== 'auto') out.set('step', s.step);
  if (s.resolution !== 'auto') out.set('res', s.resolution);
  if (s.mode !== 'lines') out.set('mode', s.mode);
  if (s.tab !== 'graph') out.set('tab', s.tab);
  if (s.at !== '') out.set('at', s.at);
  if (s.refresh !== 0) out.set('refresh', String(s.refresh));
  return out;
}

/** queryName is what a query is called: A, B, C. */
export function queryName(index: number): string {
  return String.fromCharCode(65 + index);
}
