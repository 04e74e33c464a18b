// Answers of the engine, turned into what graphs, tables and files are made of. Pure.
import type { Grid } from './range';
import { pointsOf } from './range';

export type Labels = Record<string, string>;

/** HistogramSample is a native histogram as the API writes it: each bucket is the rule of its bounds, lower, upper, count. */
export interface HistogramSample {
  count: string;
  sum: string;
  buckets?: [number, string, string, string][];
}

export interface MatrixSeries {
  metric: Labels;
  values?: [number, string][];
  histograms?: [number, HistogramSample][];
}

export interface VectorSample {
  metric: Labels;
  value?: [number, string];
  histogram?: [number, HistogramSample];
}

export type QueryData =
  | { resultType: 'matrix'; result: MatrixSeries[]; stats?: unknown }
  | { resultType: 'vector'; result: VectorSample[]; stats?: unknown }
  | { resultType: 'scalar' | 'string'; result: [number, string]; stats?: unknown };

/** seriesMax bounds the series of a query that are kept and drawn. */
export const seriesMax = 500;

/** Series is one line: a value for each point of the grid, null where there is none. NaN and infinities are values. */
export interface Series {
  name: string;
  labels: Labels;
  values: (number | null)[];
  /** Which query it answers. */
  query: number;
}

/** Histogram is a series of native histograms, by point of the grid. */
export interface Histogram {
  name: string;
  labels: Labels;
  samples: (HistogramSample | null)[];
}

export interface RangeResult {
  grid: Grid;
  /** Unix seconds of the points. */
  times: number[];
  series: Series[];
  histograms: Histogram[];
  /** How many series the answer had that are not kept. */
  left: number;
}

/** parseNumber reads a value of the API. */
export function parseNumber(text: string): number {
  switch (text) {
    case '+Inf':
    case 'Inf':
      return Infinity;
    case '-Inf':
      return -Infinity;
    case 'NaN':
      return NaN;
  }
  return Number(text);
}

/** printNumber is the inverse of parseNumber, with the shortest digits that mean the same number. */
export function printNumber(n: number): string {
  return Number.isNaN(n) ? 'NaN' : n === Infinity ? '+Inf' : n === -Infinity ? '-Inf' : Object.is(n, -0) ? '-0' : String(n);
}

const plainName = /^[a-zA-Z_][a-zA-Z0-9_]*$/;
const metricName = /^[a-zA-Z_:][a-zA-Z0-9_:]*$/;

/** quote writes a string as PromQL does. */
export function quote(text: string): string {
  const inner = text.replace(/[\\"\n\r\t]/g, (c) => ({ '\\': '\\\\', '"': '\\"', '\n': '\\n', '\r': '\\r', '\t': '\\t' })[c]!);
  // What can't be seen, or turns the direction of what follows, is written out.
  return `"${inner.replace(/[\u0000-\u001f\u007f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`)}"`;
}

/** seriesName writes labels as a selector that chooses the series: up{job="node"}. */
export function seriesName(labels: Labels): string {
  const name = labels['__name__'] ?? '';
  const plain = metricName.test(name);
  const pairs = Object.keys(labels)
    .filter((k) => k !== '__name__')
    .sort()
    .map((k) => `${plainName.test(k) ? k : quote(k)}=${quote(labels[k]!)}`);
  if (name !== '' && !plain) pairs.unshift(quote(name));
  if (pairs.length === 0) return plain ? name : '{}';
  return `${plain ? name : ''}{${pairs.join(', ')}}`;
}

/** readMatrix puts a matrix onto its grid. */
export function readMatrix(result: readonly MatrixSeries[], grid: Grid, query: number): RangeResult {
  const n = pointsOf(grid);
  const times = Array.from({ length: n }, (_, i) => (grid.start + i * grid.step) / 1000);
  const place = (seconds: number) => Math.round((seconds * 1000 - grid.start) / grid.step);
  const out: RangeResult = { grid, times, series: [], histograms: [], left: Math.max(0, result.length - seriesMax) };
  for (const s of result.slice(0, seriesMax)) {
    const name = seriesName(s.metric);
    if (s.values && s.values.length > 0) {
      const values: (number | null)[] = new Array(n).fill(null);
      for (const [at, text] of s.values) {
        const i = place(at);
        if (i >= 0 && i < n) values[i] = parseNumber(text);
      }
      out.series.push({ name, labels: s.metric, values, query });
    }
    if (s.histograms && s.histograms.length > 0) {
      const samples: (HistogramSample | null)[] = new Array(n).fill(null);
      for (const [at, h] of s.histograms) {
        const i = place(at);
        if (i >= 0 && i < n) samples[i] = h;
      }
      out.histograms.push({ name, labels: s.metric, samples });
    }
  }
  return out;
}

/** drawable is a value that has a place on an axis. */
export function drawable(v: number | null | undefined): v is number {
  return v !== null && v !== undefined && Number.isFinite(v);
}

export interface Summary {
  last: number | null;
  min: number | null;
  max: number | null;
  mean: number | null;
  /** How many values are NaN or infinite. */
  odd: number;
}

/** summarize says of values what a legend shows. NaN and infinities don't count. */
export function summarize(values: readonly (number | null)[]): Summary {
  let last: number | null = null;
  let min = Infinity;
  let max = -Infinity;
  let mean = 0;
  let n = 0;
  let odd = 0;
  for (const v of values) {
    if (v === null) continue;
    if (!Number.isFinite(v)) {
      odd++;
      continue;
    }
    n++;
    last = v;
    if (v < min) min = v;
    if (v > max) max = v;
    // The running mean can't overflow where a sum could.
    mean += (v - mean) / n;
  }
  return n === 0 ? { last: null, min: null, max: null, mean: null, odd } : { last, min, max, mean, odd };
}

/** Layer is what a series takes of a stack: from lower to upper, null where it has no value. */
export interface Layer {
  lower: (number | null)[];
  upper: (number | null)[];
}

/** stack puts series onto each other, what is negative below zero. A gap takes no room, and is no zero. */
export function stack(series: readonly (readonly (number | null)[])[]): Layer[] {
  const n = series[0]?.length ?? 0;
  const above: number[] = new Array(n).fill(0);
  const below: number[] = new Array(n).fill(0);
  return series.map((values) => {
    const lower: (number | null)[] = new Array(n).fill(null);
    const upper: (number | null)[] = new Array(n).fill(null);
    for (let i = 0; i < n; i++) {
      const v = values[i];
      if (!drawable(v)) continue;
      const base = v < 0 ? below : above;
      lower[i] = base[i]!;
      base[i] = base[i]! + v;
      upper[i] = base[i]!;
    }
    return { lower, upper };
  });
}
