// What stands at the axes of graphs. Pure.
import { time, type Zone } from './format';

/** timeTicks writes the time of ticks that are step seconds apart, with the date below where a day begins. */
export function timeTicks(splits: readonly number[], step: number, z: Zone): string[] {
  let before = '';
  return splits.map((s) => {
    const text = time(s * 1000, z, true);
    const date = text.slice(0, 10);
    const clock = step < 1 ? text.slice(11) : step < 60 ? text.slice(11, 19) : text.slice(11, 16);
    const other = date !== before;
    before = date;
    if (step >= 86400 * 28) return date.slice(0, 7);
    if (step >= 86400) return date;
    return other ? `${clock}\n${date}` : clock;
  });
}

/** bounds are those of the value axis: with room above, and never empty. */
export function bounds(low: number | null, high: number | null, fromZero: boolean): [number, number] {
  if (low === null || high === null || !Number.isFinite(low) || !Number.isFinite(high)) return [0, 1];
  let a = fromZero ? Math.min(0, low) : low;
  let b = fromZero ? Math.max(0, high) : high;
  if (a === b) {
    const room = a === 0 ? 1 : Math.abs(a) * 0.5;
    return a >= 0 && fromZero ? [0, b + room] : [a - room, b + room];
  }
  const room = (b - a) * 0.06;
  if (a !== 0 || !fromZero) a -= low < 0 || !fromZero ? room : 0;
  b += room;
  return [a, b];
}
