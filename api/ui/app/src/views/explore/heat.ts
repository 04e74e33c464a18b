// Heatmaps: how many observations fell between which bounds, over time. From classic buckets, which count all up to a bound, and from
// native histograms. Pure.
import { digits } from '../../core/format';
import { drawable, parseNumber, type RangeResult } from './result';

/** rowsMax bounds the rows: more are not told apart on a screen. */
const rowsMax = 96;

export interface Heat {
  times: number[];
  step: number;
  /** Bounds of the rows, ascending; one more than there are rows. The outermost may be infinite. */
  edges: number[];
  /** By row, then by point: what fell into it, null where nothing is known. */
  rows: (number | null)[][];
  max: number;
  /** What one should know of the picture. */
  notes: string[];
}

/** heatOf makes a heatmap of an answer, or undefined if it has neither histograms nor buckets. */
export function heatOf(result: RangeResult, step: number): Heat | undefined {
  if (result.histograms.length > 0) return fromNative(result, step);
  const buckets = result.series.filter((s) => s.labels['le'] !== undefined && !Number.isNaN(parseNumber(s.labels['le'])));
  return buckets.length > 0 ? fromClassic(result, buckets, step) : undefined;
}

function fromClassic(result: RangeResult, buckets: RangeResult['series'], step: number): Heat {
  const n = result.times.length;
  const notes: string[] = [];
  const byBound = new Map<number, (number | null)[]>();
  const groups = new Set<string>();
  for (const s of buckets) {
    const { le, ...rest } = s.labels;
    groups.add(JSON.stringify(Object.entries(rest).sort()));
    const bound = parseNumber(le!);
    const sum = byBound.get(bound) ?? new Array<number | null>(n).fill(null);
    byBound.set(bound, sum);
    for (let i = 0; i < n; i++) {
      const v = s.values[i];
      if (drawable(v)) sum[i] = (sum[i] ?? 0) + v;
    }
  }
  if (groups.size > 1) notes.push(`The buckets of ${groups.size} groups of series are added up.`);
  const bounds = [...byBound.keys()].sort((a, b) => a - b);
  let fell = false;
  const rows = bounds.map((bound, r) => {
    const here = byBound.get(bound)!;
    return here.map((v, i) => {
      if (v === null) return null;
      // The next lower bucket that has a value: one that is missing counts nothing of its own.
      let below = 0;
      for (let k = r - 1; k >= 0; k--) {
        const b = byBound.get(bounds[k]!)![i];
        if (drawable(b)) {
          below = b;
          break;
        }
      }
      // Rounding of rates may leave a speck below zero.
      if (v - below < -1e-9 * Math.max(Math.abs(v), Math.abs(below))) fell = true;
      return Math.max(0, v - below);
    });
  });
  if (fell) notes.push('Some buckets count less than the ones below them. They are shown empty.');
  const first = bounds[0]!;
  const edges = [first > 0 ? 0 : -Infinity, ...bounds];
  return finish({ times: result.times, step, edges, rows, max: 0, notes });
}

function fromNative(result: RangeResult, step: number): Heat {
  const n = result.times.length;
  const all = new Set<number>();
  const notes: string[] = [];
  let without = 0;
  for (const h of result.histograms) {
    for (const s of h.samples) {
      if (s && !s.buckets) without++;
      for (const b of s?.buckets ?? []) {
        all.add(parseNumber(b[1]));
        all.add(parseNumber(b[2]));
      }
    }
  }
  if (result.histograms.length > 1) notes.push(`The buckets of ${result.histograms.length} histograms are added up.`);
  if (without > 0) notes.push('Some histograms have no observations or no buckets.');
  const edges = [...all].filter((e) => !Number.isNaN(e)).sort((a, b) => a - b);
  const rank = new Map(edges.map((e, i) => [e, i]));
  const rows: (number | null)[][] = Array.from({ length: Math.max(0, edges.length - 1) }, () => new Array<number | null>(n).fill(null));
  for (const h of result.histograms) {
    h.samples.forEach((s, i) => {
      if (!s) return;
      for (const row of rows) row[i] ??= 0;
      for (const b of s.buckets ?? []) {
        const from = rank.get(parseNumber(b[1]));
        const to = rank.get(parseNumber(b[2]));
        const amount = parseNumber(b[3]);
        if (from === undefined || to === undefined || to <= from || !drawable(amount)) continue;
        // A bucket of a lower resolution covers several rows, and gives each its share.
        for (let r = from; r < to; r++) rows[r]![i] = (rows[r]![i] ?? 0) + amount / (to - from);
      }
    });
  }
  return finish({ times: result.times, step, edges, rows, max: 0, notes });
}

/** finish joins neighbouring rows until there are few enough, and finds the largest cell. */
function finish(heat: Heat): Heat {
  let { edges, rows } = heat;
  while (rows.length > rowsMax) {
    const joined: (number | null)[][] = [];
    const kept = [edges[0]!];
    for (let r = 0; r < rows.length; r += 2) {
      const a = rows[r]!;
      const b = rows[r + 1];
      joined.push(b ? a.map((v, i) => (v === null && b[i] === null ? null : (v ?? 0) + (b[i] ?? 0))) : a);
      kept.push(edges[Math.min(r + 2, edges.length - 1)]!);
    }
    rows = joined;
    edges = kept;
  }
  let max = 0;
  for (const row of rows) for (const v of row) if (v !== null && v > max) max = v;
  return { ...heat, edges, rows, max };
}

/** edgeText is a bound as a label. */
export function edgeText(edge: number): string {
  return Number.isFinite(edge) ? digits(edge, 3) : edge > 0 ? '+Inf' : '-Inf';
}

/** shade is how strong the colour of an amount is: its square root, since the tails of distributions matter. */
export function shade(amount: number, max: number): number {
  return max > 0 ? Math.sqrt(amount / max) : 0;
}

/** edgeSplits chooses bounds that have room for a label each. */
export function edgeSplits(rows: number, height: number): number[] {
  const every = Math.max(1, Math.ceil(((rows + 1) * 17) / Math.max(height, 17)));
  const out: number[] = [];
  for (let i = 0; i <= rows; i += every) out.push(i);
  return out;
}
