// Selectors as the cardinality explorer builds them: equality with a value that was clicked, beside what was typed.
import type { CardinalitySort } from './model';

/** Filter is one label with the value that it must have. */
export interface Filter {
  name: string;
  value: string;
}

/** quote is a string of PromQL. */
export function quote(text: string): string {
  let out = '"';
  for (const c of text) {
    const code = c.codePointAt(0)!;
    if (c === '"' || c === '\\') out += `\\${c}`;
    else if (c === '\n') out += '\\n';
    else if (code < 0x20 || code === 0x7f) out += `\\x${code.toString(16).padStart(2, '0')}`;
    else out += c;
  }
  return `${out}"`;
}

/** labelName is a label as it stands in a selector: in quotes where it isn't of letters, digits and underscores. */
export function labelName(name: string): string {
  return /^[a-zA-Z_][a-zA-Z0-9_]*$/.test(name) ? name : quote(name);
}

/**
 * selector is what series must be like: name{a="b"}, with the name in the braces where it isn't a plain one. A selector
 * that only says what is not there matches series without labels too, which servers refuse: then any name is asked for.
 */
export function selector(filters: readonly Filter[]): string {
  if (filters.length > 0 && filters.every((f) => f.value === '')) {
    return `{__name__!="",${filters.map((f) => `${labelName(f.name)}=""`).join(',')}}`;
  }
  const metric = filters.find((f) => f.name === '__name__');
  const plain = metric && /^[a-zA-Z_:][a-zA-Z0-9_:]*$/.test(metric.value);
  const inside = filters
    .filter((f) => !(plain && f === metric))
    .map((f) => `${labelName(f.name)}=${quote(f.value)}`)
    .join(',');
  if (!plain) return `{${inside}}`;
  return inside === '' ? metric.value : `${metric.value}{${inside}}`;
}

/**
 * within joins filters to a selector that was typed. Filters go into its last braces, or behind its name. What can't be
 * joined so, such as an expression, comes back as null.
 */
export function within(typed: string, filters: readonly Filter[]): string | null {
  const text = typed.trim();
  if (text === '') return filters.length === 0 ? '' : selector(filters);
  if (filters.length === 0) return text;
  const inside = filters.map((f) => `${labelName(f.name)}=${quote(f.value)}`).join(',');
  if (/^[a-zA-Z_:][a-zA-Z0-9_:]*$/.test(text)) return `${text}{${inside}}`;
  if (!/^[a-zA-Z_:]*[a-zA-Z0-9_:]*\s*\{/.test(text) || !text.endsWith('}')) return null;
  const body = text.slice(0, -1).trimEnd();
  const gap = body.endsWith('{') || body.endsWith(',') ? '' : ',';
  return `${body}${gap}${inside}}`;
}

/** Exploration is what the explorer shows, kept in the address. */
export interface Exploration {
  /** label whose values are listed; empty lists labels. */
  label: string;
  typed: string;
  filters: Filter[];
  sort: CardinalitySort;
  /** days is how many days, up to today, are looked at. */
  days: number;
}

/** windows are the choices of days. The server looks at a year at most. */
export const windows = [1, 7, 30, 90, 366] as const;
const windowWithout = 30;

/** readExploration reads the parameters of the address: label, match, where=name=value (repeated), sort and days. */
export function readExploration(p: URLSearchParams): Exploration {
  const filters: Filter[] = [];
  for (const where of p.getAll('where')) {
    // A name may hold "=" only as %3D, a value may hold any.
    const mark = where.indexOf('=');
    if (mark > 0) filters.push({ name: decode(where.slice(0, mark)), value: where.slice(mark + 1) });
  }
  return {
    label: p.get('label') ?? '',
    typed: p.get('match') ?? '',
    filters,
    sort: p.get('sort') === 'series' ? 'series' : 'bytes',
    days: windows.find((n) => String(n) === p.get('days')) ?? windowWithout,
  };
}

function decode(text: string): string {
  return text.replaceAll('%3D', '=').replaceAll('%25', '%');
}

export function writeExploration(e: Exploration): URLSearchParams {
  const p = new URLSearchParams();
  if (e.label !== '') p.set('label', e.label);
  if (e.typed !== '') p.set('match', e.typed);
  for (const f of e.filters) p.append('where', `${f.name.replaceAll('%', '%25').replaceAll('=', '%3D')}=${f.value}`);
  if (e.sort !== 'bytes') p.set('sort', e.sort);
  if (e.days !== windowWithout) p.set('days', String(e.days));
  return p;
}

/** matchOf is the selector of an exploration, empty for all series, null if what was typed can't be narrowed. */
export function matchOf(e: Exploration): string | null {
  return within(e.typed, e.filters);
}

/** exploreQuery is what Explore should be asked about series of a selector: themselves if they are of one metric, else how many of each. */
export function exploreQuery(match: string, ofOneMetric: boolean): string {
  if (ofOneMetric) return match;
  return `topk(20, count by (__name__) (${match === '' ? '{__name__!=""}' : match}))`;
}
