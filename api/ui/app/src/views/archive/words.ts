// Spans of time and moments of retention in words.
import { count } from '../../core/format';
import { nextExpiry, parseDay } from './days';
import type { ResolutionSize, RetentionKeep, RetentionLevel, RetentionStatus } from './model';

/** daysWords is a number of days, as years where there are more than two of them. */
export function daysWords(days: number): string {
  if (days < 730) return `${count(days)} ${days === 1 ? 'day' : 'days'}`;
  return `${(days / 365.2425).toFixed(1)} years`;
}

/** spanOf are the first and the last day of anything that is kept, as day numbers. */
export function spanOf(resolutions: readonly ResolutionSize[]): [number, number] | undefined {
  let first = Infinity;
  let last = -Infinity;
  for (const r of resolutions) {
    const [a, b] = [parseDay(r.oldest), parseDay(r.newest)];
    if (Number.isFinite(a)) first = Math.min(first, a);
    if (Number.isFinite(b)) last = Math.max(last, b);
  }
  return first <= last ? [first, last] : undefined;
}

/** when says when a rule frees what it is about to, or the earliest day on which it will have something to free. */
export function when(keep: RetentionKeep, status: RetentionStatus, resolutions: readonly ResolutionSize[] | undefined): string {
  if (!keep.before) return 'never';
  if (keep.samples > 0 || keep.bytes > 0) {
    if (status.next?.waits) return 'waits to be forced, see above';
    if (status.next) return 'when the compactor looks next';
    if (status.dropping) return 'when queries that began before have ended';
    return status.kept !== '' ? 'is held for now, see above' : 'once its days are rolled up';
  }
  const oldest = resolutions?.find((r) => r.resolution === keep.level)?.oldest;
  const day = nextExpiry(keep, oldest, status.today);
  return day === undefined ? 'there is nothing to free yet' : `not before ${day}`;
}

/** reaches tells whether days are stored that lie before a floor, as far as is known. */
export function reaches(level: RetentionLevel, resolutions: readonly ResolutionSize[] | undefined): boolean {
  const found = resolutions?.find((r) => r.resolution === level.level);
  if (!level.floor) return false;
  return !found || (found.oldest !== null && found.oldest !== undefined && parseDay(found.oldest) < parseDay(level.floor));
}
