// The lines of a graph: the series of all queries with their colours. Pure.
import { seriesColor } from '../../core/color';
import { seriesMax, stack, type Layer, type Series } from './result';
import type { Outcome } from './run';

export interface Line {
  /** Stays the same while the series does, over refreshes. */
  key: string;
  series: Series;
  color: string;
}

export interface Lines {
  times: number[];
  lines: Line[];
  /** How many series are not drawn. */
  left: number;
  /** How many native histograms the answers have, which lines don't show. */
  histograms: number;
  /** How many values are NaN or infinite. */
  odd: number;
}

/** linesOf collects what is drawn, at most seriesMax lines in all. */
export function linesOf(outcomes: readonly Outcome[], dark: boolean): Lines {
  const ranges = outcomes.filter((o) => o.range);
  const alone = ranges.length <= 1;
  const out: Lines = { times: ranges[0]?.range?.times ?? [], lines: [], left: 0, histograms: 0, odd: 0 };
  // Each query has its part of the room, so that a large one does not push out the others.
  let room = seriesMax;
  const sizes = ranges.map((o) => o.range!.series.length);
  ranges.forEach((o, at) => {
    const waiting = sizes.slice(at + 1).reduce((a, b) => a + b, 0);
    const share = Math.max(Math.floor(room / (ranges.length - at)), room - waiting);
    const kept = o.range!.series.slice(0, share);
    room -= kept.length;
    out.left += o.range!.left + o.range!.series.length - kept.length;
    out.histograms += o.range!.histograms.length;
    kept.forEach((series, n) => {
      for (const v of series.values) if (v !== null && !Number.isFinite(v)) out.odd++;
      out.lines.push({ key: `${o.index} ${series.name}`, series, color: seriesColor(o.index, n, alone, dark) });
    });
  });
  return out;
}

/** layersOf stacks the lines that are shown. */
export function layersOf(lines: readonly Line[]): Layer[] {
  return stack(lines.map((l) => l.series.values));
}

/** runs are the stretches of indices between from and to where a list has values: [first, last]. */
export function runs(values: readonly (number | null | undefined)[], from: number, to: number): [number, number][] {
  const out: [number, number][] = [];
  let first = -1;
  for (let i = from; i <= to; i++) {
    const there = values[i] !== null && values[i] !== undefined && Number.isFinite(values[i]!);
    if (there && first < 0) first = i;
    if (!there && first >= 0) {
      out.push([first, i - 1]);
      first = -1;
    }
  }
  if (first >= 0) out.push([first, to]);
  return out;
}
