// Days as numbers, calendars and charts of them.
import type { ArchiveDay, RetentionKeep } from './model';

const dayMillis = 86_400_000;

/** parseDay reads 2026-11-20 into days since 1970-01-01 (UTC); NaN if it is none. */
export function parseDay(text: string | null | undefined): number {
  if (!text || !/^-?\d{4,6}-\d\d-\d\d/.test(text)) return NaN;
  return Math.floor(Date.parse(`${text.slice(0, 10)}T00:00:00Z`) / dayMillis);
}

/** dayText is the day as the server writes it. */
export function dayText(day: number): string {
  return new Date(day * dayMillis).toISOString().slice(0, 10);
}

export function daySeconds(day: number): number {
  return day * 86_400;
}

/** weekday is 0 for Monday. 1970-01-01 was a Thursday. */
export function weekday(day: number): number {
  return (((day + 3) % 7) + 7) % 7;
}

/** yearDays are the first day of a year and that of the next. */
export function yearDays(year: number): [number, number] {
  return [Date.UTC(year, 0, 1) / dayMillis, Date.UTC(year + 1, 0, 1) / dayMillis];
}

export function yearOf(day: number): number {
  return new Date(day * dayMillis).getUTCFullYear();
}

/** Cell is a day of a calendar: columns are weeks, rows days of the week from Monday. */
export interface Cell {
  day: number;
  column: number;
  row: number;
}

/** calendar lays out the days of a year. */
export function calendar(year: number): Cell[] {
  const [from, to] = yearDays(year);
  const shift = weekday(from);
  const cells: Cell[] = [];
  for (let day = from; day < to; day++) {
    const at = day - from + shift;
    cells.push({ day, column: Math.floor(at / 7), row: at % 7 });
  }
  return cells;
}

/** monthColumns are the columns in which the months of a year begin. */
export function monthColumns(year: number): number[] {
  const [from] = yearDays(year);
  const shift = weekday(from);
  return Array.from({ length: 12 }, (_, m) => Math.floor((Date.UTC(year, m, 1) / dayMillis - from + shift) / 7));
}

/** measures are what a calendar shows of a day by its shade. */
export const measures = ['bytes', 'samples', 'bytesPerSample'] as const;
export type Measure = (typeof measures)[number];

/** measured is a day's number of a measure, 0 where there is none. All that lies on the disk counts as bytes. */
export function measured(d: ArchiveDay, m: Measure): number {
  switch (m) {
    case 'bytes':
      return d.bytes + d.pendingBytes;
    case 'samples':
      return d.samples;
    case 'bytesPerSample':
      return d.samples > 0 ? d.bytesPerSample : 0;
  }
}

/**
 * shadeBounds are the least numbers of the shades 2, 3 and 4: shares of what all but a fiftieth of the days stay below,
 * so that a few huge days don't pale the others, and days that are nearly alike are of one shade.
 */
export function shadeBounds(numbers: number[], m: Measure): [number, number, number] {
  const sorted = numbers.filter((n) => n > 0).sort((a, b) => a - b);
  const top = sorted[Math.ceil(sorted.length * 0.98) - 1] ?? 0;
  // Sizes differ by factors, what a sample takes by parts.
  const shares = m === 'bytesPerSample' ? [0.6, 0.75, 0.9] : [1 / 8, 1 / 4, 1 / 2];
  return [top * shares[0]!, top * shares[1]!, top * shares[2]!];
}

/** shade is 0 for nothing, else 1 to 4. */
export function shade(n: number, bounds: readonly [number, number, number]): number {
  if (!(n > 0)) return 0;
  return 1 + bounds.filter((b) => n >= b).length;
}

/** DaySeries is what the chart draws: columns of equal length. */
export interface DaySeries {
  /** The first day of each point, in seconds. */
  seconds: number[];
  bytesPerSample: (number | null)[];
  /** Bytes and samples of the sealed days of each point. */
  bytes: number[];
  samples: number[];
  /** span is the number of days of a point. */
  span: number;
}

const spans = [1, 7, 14, 28, 91, 182, 364];

/** chartDays makes points of sealed days, several days a point where there are more than pointsMax of them. */
export function chartDays(days: readonly ArchiveDay[], pointsMax: number): DaySeries {
  const sealed = days
    .filter((d) => d.samples > 0 && d.bytes > 0)
    .map((d) => ({ day: parseDay(d.day), bytes: d.bytes, samples: d.samples }))
    .filter((d) => Number.isFinite(d.day))
    .sort((a, b) => a.day - b.day);
  const out: DaySeries = { seconds: [], bytesPerSample: [], bytes: [], samples: [], span: 1 };
  const first = sealed[0];
  const last = sealed.at(-1);
  if (!first || !last) return out;
  const length = last.day - first.day + 1;
  out.span = spans.find((n) => Math.ceil(length / n) <= pointsMax) ?? Math.ceil(length / pointsMax);
  let i = 0;
  for (let from = first.day; from <= last.day; from += out.span) {
    let bytes = 0;
    let samples = 0;
    for (; i < sealed.length; i++) {
      const d = sealed[i]!;
      if (d.day >= from + out.span) break;
      bytes += d.bytes;
      samples += d.samples;
    }
    out.seconds.push(daySeconds(from));
    out.bytes.push(bytes);
    out.samples.push(samples);
    out.bytesPerSample.push(samples > 0 ? bytes / samples : null);
  }
  return out;
}

/** mergeDays puts newer answers over what is known, the newest day first. */
export function mergeDays(known: readonly ArchiveDay[], fresh: readonly ArchiveDay[]): ArchiveDay[] {
  const all = new Map(known.map((d) => [d.day, d]));
  for (const d of fresh) all.set(d.day, d);
  return [...all.values()].sort((a, b) => (a.day < b.day ? 1 : a.day > b.day ? -1 : 0));
}

/**
 * refreshDays puts the newest days, of which limit were asked for, over what is known. They say all of the time that they are about:
 * a day of it that they don't have is gone.
 */
export function refreshDays(known: readonly ArchiveDay[], fresh: readonly ArchiveDay[], limit: number): ArchiveDay[] {
  if (fresh.length < limit) return mergeDays([], fresh);
  const oldest = fresh.reduce((day, d) => (d.day < day ? d.day : day), fresh[0]!.day);
  return mergeDays(known.filter((d) => d.day < oldest), fresh);
}

/**
 * nextExpiry is the first day on which something that a rule keeps now may be past its age, if the oldest that is
 * stored is of oldest; undefined if nothing ever is. What is older than keep.before is of other rules: this one has
 * nothing that is.
 */
export function nextExpiry(keep: RetentionKeep, oldest: string | null | undefined, today: string): string | undefined {
  const [before, first, now] = [parseDay(keep.before), parseDay(oldest), parseDay(today)];
  if (![before, first, now].every(Number.isFinite)) return undefined;
  return dayText(now + Math.max(0, first - before) + 1);
}
