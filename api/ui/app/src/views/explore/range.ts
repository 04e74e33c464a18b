// Ranges of time: what is written, what it means, and at which points of it a query is evaluated. Pure.
import { durationText, parseDuration, rfc3339, time, type Zone } from '../../core/format';

/** Span is from start to end, both inclusive, in Unix milliseconds. */
export interface Span {
  start: number;
  end: number;
}

/** Grid is the points of a range query: start, start + step, ... up to end. Milliseconds. */
export interface Grid extends Span {
  step: number;
}

export interface Preset {
  text: string;
  from: string;
}

/** presets are the ranges that end now. */
export const presets: Preset[] = [
  { text: 'Last 5 minutes', from: 'now-5m' },
  { text: 'Last 15 minutes', from: 'now-15m' },
  { text: 'Last 1 hour', from: 'now-1h' },
  { text: 'Last 3 hours', from: 'now-3h' },
  { text: 'Last 6 hours', from: 'now-6h' },
  { text: 'Last 12 hours', from: 'now-12h' },
  { text: 'Last 1 day', from: 'now-1d' },
  { text: 'Last 2 days', from: 'now-2d' },
  { text: 'Last 7 days', from: 'now-7d' },
  { text: 'Last 30 days', from: 'now-30d' },
  { text: 'Last 90 days', from: 'now-90d' },
  { text: 'Last 1 year', from: 'now-1y' },
  { text: 'Last 2 years', from: 'now-2y' },
  { text: 'Last 5 years', from: 'now-5y' },
  { text: 'Last 10 years', from: 'now-10y' },
];

/** isRelative tells that a time moves with the clock. */
export function isRelative(text: string): boolean {
  return /^\s*now\b/.test(text);
}

/**
 * parseTime reads a time into Unix milliseconds; NaN if it is none:
 * now, now-1h30m, Unix seconds, RFC 3339, or 2026-11-20, 2026-11-20 14:00, 2026-11-20 14:00:05 in the zone.
 */
export function parseTime(text: string, now: number, zone: Zone): number {
  const t = text.trim();
  if (isRelative(t)) {
    const match = /^now(?:\s*([+-])\s*(\S+))?$/.exec(t);
    if (!match) return NaN;
    return match[1] ? now + (match[1] === '-' ? -1 : 1) * parseDuration(match[2]!) : now;
  }
  if (/^-?\d+(\.\d+)?$/.test(t)) return /^\d{4}$/.test(t) ? wall(t, '1', '1', '0', '0', '0', zone) : Math.round(Number(t) * 1000);
  const match = /^(\d{4})-(\d{1,2})(?:-(\d{1,2})(?:[T ]\s*(\d{1,2}):(\d{2})(?::(\d{2}(?:\.\d{1,9})?))?)?)?$/.exec(t);
  if (match) return wall(match[1]!, match[2]!, match[3] ?? '1', match[4] ?? '0', match[5] ?? '0', match[6] ?? '0', zone);
  return /^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}.*(Z|[+-]\d{2}:?\d{2})$/i.test(t) ? Date.parse(t.replace(' ', 'T')) : NaN;
}

function wall(y: string, mo: string, d: string, h: string, mi: string, s: string, zone: Zone): number {
  const [year, month, day, hour, minute] = [y, mo, d, h, mi].map(Number) as [number, number, number, number, number];
  const seconds = Number(s);
  const at = zone === 'utc' ? Date.UTC(year, month - 1, day, hour, minute) : new Date(year, month - 1, day, hour, minute).getTime();
  // A date such as the 31st of April would turn up in May.
  const back = new Date(at);
  const same = zone === 'utc' ? back.getUTCMonth() === month - 1 && back.getUTCDate() === day : back.getMonth() === month - 1 && back.getDate() === day;
  return same && hour < 24 && minute < 60 && seconds < 60 ? at + Math.round(seconds * 1000) : NaN;
}

/** parseRange reads both ends, or says what is wrong with which. */
export function parseRange(from: string, to: string, now: number, zone: Zone): { span: Span } | { error: string; which: 'from' | 'to' } {
  const start = parseTime(from, now, zone);
  const hint = 'is not a time. Write now-1h, 2026-11-20 14:00, or Unix seconds.';
  if (!Number.isFinite(start)) return { error: `“${from}” ${hint}`, which: 'from' };
  const end = parseTime(to, now, zone);
  if (!Number.isFinite(end)) return { error: `“${to}” ${hint}`, which: 'to' };
  if (end <= start) return { error: 'The range must end after it starts.', which: 'to' };
  return { span: { start, end } };
}

const second = 1000;
const minute = 60 * second;
const hour = 60 * minute;
const day = 24 * hour;

/** niceSteps are steps that divide minutes, hours and days; from 5 min on all are multiples of 5 min, from 1 h on of 1 h. */
const niceSteps = [
  ...[1, 2, 5, 10, 15, 20, 30].map((n) => n * second),
  ...[1, 2, 5, 10, 15, 20, 30].map((n) => n * minute),
  ...[1, 2, 3, 4, 6, 8, 12].map((n) => n * hour),
  ...[1, 2, 3, 7, 14, 28].map((n) => n * day),
];

/**
 * autoStep is the step for a range that is drawn over so many pixels: at most one point every two pixels, at most maxPoints, and from
 * the length of a resolution's buckets on a multiple of it, so that its buckets can answer exactly.
 */
export function autoStep(length: number, pixels: number, resolutions: readonly number[], maxPoints = 11000): number {
  const points = Math.max(50, Math.min(Math.floor(pixels / 2), maxPoints - 2));
  const least = length / points;
  const nice = niceSteps.find((s) => s >= least) ?? Math.ceil(least / (28 * day)) * 28 * day;
  const bucket = Math.max(0, ...resolutions.filter((r) => r <= nice));
  return bucket > 0 ? Math.ceil(nice / bucket) * bucket : nice;
}

/**
 * gridOf is the points for a range and a step. They are put on multiples of the step, so that points stay where they are as time goes by and
 * buckets can answer; a range and a step that were both written out are taken as they are.
 */
export function gridOf(span: Span, step: number, asWritten: boolean): Grid {
  if (asWritten) return { ...span, step };
  const start = Math.floor(span.start / step) * step;
  return { start, end: Math.max(start, Math.floor(span.end / step) * step), step };
}

/** pointsOf is how many points a grid has. */
export function pointsOf(grid: Grid): number {
  return Math.floor((grid.end - grid.start) / grid.step) + 1;
}

/** parseStep reads auto, or a length of time; 0 stands for auto and NaN for neither. */
export function parseStep(text: string): number {
  const t = text.trim();
  if (t === '' || t === 'auto') return 0;
  const step = parseDuration(t);
  return step >= 1 ? step : NaN;
}

/** shifted is a span moved by a part of its length. */
export function shifted(span: Span, by: number): Span {
  const move = Math.round((span.end - span.start) * by);
  return { start: span.start + move, end: span.end + move };
}

/** widened is a span of twice the length around the same middle, which does not end after now unless it did before. */
export function widened(span: Span, now: number): Span {
  const half = (span.end - span.start) / 2;
  const end = Math.min(span.end + half, Math.max(now, span.end));
  return { start: Math.round(end - 4 * half), end: Math.round(end) };
}

/** written is a time for the address: exact, and readable. */
export function written(millis: number): string {
  return rfc3339(Math.round(millis));
}

/** shown is what an input field says of a time: relative as it is, absolute in the zone. */
export function shown(text: string, zone: Zone): string {
  if (isRelative(text)) return text.trim();
  const at = parseTime(text, 0, zone);
  return Number.isFinite(at) ? time(at, zone, true) : text;
}

/** lengthText is how long a span is, for reading. */
export function lengthText(span: Span): string {
  return durationText(Math.round((span.end - span.start) / 1000) * 1000);
}
