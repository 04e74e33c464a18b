// Numbers, bytes, lengths of time and times as people read them. Pure, but for the choice between UTC and local time.
import { createStore, useStore } from './store';

export type Zone = 'utc' | 'local';

/** zone is in which time is shown, kept over visits. */
export const zone = createStore<Zone>('utc', 'zone', (v) => v === 'utc' || v === 'local');
export const useZone = () => useStore(zone);

const none = '–';
const grouped = new Intl.NumberFormat('en-US', { maximumFractionDigits: 0 });

/** count is a whole number with separators: 12,345. */
export function count(n: number | null | undefined): string {
  return n === null || n === undefined || !Number.isFinite(n) ? none : grouped.format(n);
}

/** compact is a number with three digits and an SI prefix: 1.23M. */
export function compact(n: number | null | undefined): string {
  if (n === null || n === undefined) return none;
  if (!Number.isFinite(n)) return special(n);
  const a = Math.abs(n);
  if (a < 999.5) return digits(n, 3);
  const units = ['', 'k', 'M', 'G', 'T', 'P', 'E'];
  let i = Math.min(Math.floor(Math.log10(a) / 3), units.length - 1);
  // What would be rounded to 1000 of a unit is 1 of the next.
  if (a / 1000 ** i >= 999.5 && i < units.length - 1) i++;
  return digits(n / 1000 ** i, 3) + units[i];
}

function special(n: number): string {
  return Number.isNaN(n) ? 'NaN' : n > 0 ? '+Inf' : '-Inf';
}

/** digits is a number with so many significant digits, without trailing zeros. */
export function digits(n: number, significant = 4): string {
  if (!Number.isFinite(n)) return special(n);
  if (n === 0) return '0';
  const a = Math.abs(n);
  if (a < 1e-4 || a >= 1e15) return n.toExponential(significant - 1).replace(/\.?0+e/, 'e').replace('e+', 'e');
  const places = Math.max(0, significant - 1 - Math.floor(Math.log10(a)));
  const text = n.toFixed(Math.min(places, 20));
  return text.includes('.') ? text.replace(/\.?0+$/, '') : text;
}

/** value is the value of a sample in a legend: six digits and an SI prefix from a million on. */
export function value(n: number | null | undefined): string {
  if (n === null || n === undefined) return none;
  const a = Math.abs(n);
  return a >= 1e6 && a < 1e21 ? compact(n) : digits(n, 5);
}

const binary = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'];

/** bytes is a size: 1.23 MiB. */
export function bytes(n: number | null | undefined): string {
  if (n === null || n === undefined || !Number.isFinite(n)) return none;
  const a = Math.abs(n);
  let i = a < 1 ? 0 : Math.min(Math.floor(Math.log2(a) / 10), binary.length - 1);
  if (a / 1024 ** i >= 999.5 && i < binary.length - 1) i++;
  return `${i === 0 ? digits(n, 3) : digits(n / 1024 ** i, 3)} ${binary[i]}`;
}

/** bytesPerSample has its unit too: 1.234 B/sample. */
export function bytesPerSample(n: number | null | undefined): string {
  return n === null || n === undefined || !Number.isFinite(n) ? none : `${n.toFixed(n < 10 ? 3 : 1)} B/sample`;
}

/** ratio is a share in per cent: 12.3 %. */
export function ratio(n: number | null | undefined): string {
  return n === null || n === undefined || !Number.isFinite(n) ? none : `${digits(n * 100, 3)} %`;
}

/** duration is a length of time for reading: 1.2 ms, 3.4 s, 2 min 5 s, 3 h 20 min, 12 d 4 h. */
export function duration(seconds: number | null | undefined): string {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return none;
  if (seconds < 0) return `-${duration(-seconds)}`;
  if (seconds === 0) return '0 s';
  if (seconds < 1e-3) return `${digits(seconds * 1e6, 3)} µs`;
  if (seconds < 1) return `${digits(seconds * 1e3, 3)} ms`;
  if (seconds < 60) return `${digits(seconds, 3)} s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return pair(Math.floor(whole / 60), 'min', whole % 60, 's');
  if (whole < 86400) return pair(Math.floor(whole / 3600), 'h', Math.floor((whole % 3600) / 60), 'min');
  return pair(Math.floor(whole / 86400), 'd', Math.floor((whole % 86400) / 3600), 'h');
}

function pair(a: number, unitA: string, b: number, unitB: string): string {
  return b === 0 ? `${a} ${unitA}` : `${a} ${unitA} ${b} ${unitB}`;
}

const unitMillis: [string, number][] = [
  ['y', 365 * 86400e3], ['w', 7 * 86400e3], ['d', 86400e3], ['h', 3600e3], ['m', 60e3], ['s', 1e3], ['ms', 1],
];

/** durationText is a length of time as PromQL writes it: 1h30m. */
export function durationText(millis: number): string {
  let rest = Math.round(Math.abs(millis));
  if (rest === 0) return '0s';
  let text = millis < 0 ? '-' : '';
  for (const [unit, length] of unitMillis) {
    // As Prometheus prints them: years and weeks only where nothing is left over.
    if ((unit === 'y' || unit === 'w') && rest % length !== 0) continue;
    const n = Math.floor(rest / length);
    if (n > 0) text += `${n}${unit}`;
    rest -= n * length;
  }
  return text;
}

/** parseDuration reads 1h30m, 15s, 250ms, or a number of seconds, into milliseconds; NaN if it is none of these. */
export function parseDuration(text: string): number {
  const trimmed = text.trim();
  if (/^\d+(\.\d+)?$/.test(trimmed)) return Number(trimmed) * 1000;
  const match = /^(?:(\d+)y)?(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?(?:(\d+)ms)?$/.exec(trimmed);
  if (trimmed === '' || !match) return NaN;
  let sum = 0;
  unitMillis.forEach(([, length], i) => {
    sum += Number(match[i + 1] ?? 0) * length;
  });
  return sum;
}

const two = (n: number) => String(n).padStart(2, '0');

interface Parts {
  year: number; month: number; day: number; hour: number; minute: number; second: number; milli: number;
}

function parts(millis: number, z: Zone): Parts {
  const d = new Date(millis);
  return z === 'utc'
    ? { year: d.getUTCFullYear(), month: d.getUTCMonth() + 1, day: d.getUTCDate(), hour: d.getUTCHours(), minute: d.getUTCMinutes(), second: d.getUTCSeconds(), milli: d.getUTCMilliseconds() }
    : { year: d.getFullYear(), month: d.getMonth() + 1, day: d.getDate(), hour: d.getHours(), minute: d.getMinutes(), second: d.getSeconds(), milli: d.getMilliseconds() };
}

/** offsetText is how far a zone is from UTC at a time: Z, +02:00. */
export function offsetText(millis: number, z: Zone): string {
  if (z === 'utc') return 'Z';
  const minutes = -new Date(millis).getTimezoneOffset();
  const a = Math.abs(minutes);
  return `${minutes < 0 ? '-' : '+'}${two(Math.floor(a / 60))}:${two(a % 60)}`;
}

/** time is a moment: 2026-11-20 14:03:05, in UTC or local time. Milliseconds show if there are any and exact asks for them. */
export function time(millis: number | string | null | undefined, z: Zone = zone.get(), exact = false): string {
  const ms = typeof millis === 'string' ? Date.parse(millis) : millis;
  if (ms === null || ms === undefined || !Number.isFinite(ms) || Math.abs(ms) > 8.64e15) return none;
  const p = parts(ms, z);
  const tail = exact && p.milli !== 0 ? `.${String(p.milli).padStart(3, '0')}` : '';
  return `${p.year}-${two(p.month)}-${two(p.day)} ${two(p.hour)}:${two(p.minute)}:${two(p.second)}${tail}`;
}

/** zoneName is what stands behind times: UTC, or the offset of local time. */
export function zoneName(z: Zone = zone.get(), millis = Date.now()): string {
  return z === 'utc' ? 'UTC' : `UTC${offsetText(millis, z)}`;
}

/** timeWithZone is a moment with its zone: 2026-11-20 14:03:05 UTC. */
export function timeWithZone(millis: number | string | null | undefined, z: Zone = zone.get()): string {
  const text = time(millis, z);
  const ms = typeof millis === 'string' ? Date.parse(millis) : (millis ?? NaN);
  return text === none ? none : `${text} ${zoneName(z, ms)}`;
}

/** day is a date: 2026-11-20. */
export function day(millis: number, z: Zone = zone.get()): string {
  const p = parts(millis, z);
  return `${p.year}-${two(p.month)}-${two(p.day)}`;
}

/** rfc3339 is a moment for machines, with milliseconds where there are any: 2026-11-20T14:03:05Z. */
export function rfc3339(millis: number, z: Zone = 'utc'): string {
  return time(millis, z, true).replace(' ', 'T') + offsetText(millis, z);
}

/** ago is how long ago a moment was: 3 min ago. */
export function ago(millis: number | string | null | undefined, now = Date.now()): string {
  const ms = typeof millis === 'string' ? Date.parse(millis) : millis;
  if (ms === null || ms === undefined || !Number.isFinite(ms)) return none;
  const seconds = (now - ms) / 1000;
  if (Math.abs(seconds) < 1) return 'now';
  return seconds < 0 ? `in ${duration(Math.round(-seconds))}` : `${duration(Math.round(seconds))} ago`;
}
