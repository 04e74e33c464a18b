import { describe, expect, it } from 'vitest';
import { heatOf } from './heat';
import { readMatrix, type MatrixSeries } from './result';

const grid = { start: 0, end: 10_000, step: 10_000 };
const heat = (series: MatrixSeries[]) => heatOf(readMatrix(series, grid, 0), grid.step);
const bucket = (le: string, a: string, b: string, more = {}): MatrixSeries => ({ metric: { le, ...more }, values: [[0, a], [10, b]] });

describe('classic buckets', () => {
  // Shows that cumulative counts become those of each bucket, in the order of the bounds and not of the text.
  it('are taken apart', () => {
    const h = heat([bucket('10', '7', '9'), bucket('2', '4', '4'), bucket('+Inf', '8', '9'), bucket('0.5', '1', '0')])!;
    expect(h.edges).toEqual([0, 0.5, 2, 10, Infinity]);
    expect(h.rows).toEqual([[1, 0], [3, 4], [3, 5], [1, 0]]);
    expect(h.max).toBe(5);
    expect(h.notes).toEqual([]);
  });
  // Shows that groups are added up and that it is said, and that buckets that fall are not drawn as something else.
  it('say what was done', () => {
    const h = heat([bucket('1', '5', '5', { job: 'a' }), bucket('1', '1', '1', { job: 'b' }), bucket('+Inf', '4', '9', { job: 'a' })])!;
    expect(h.rows).toEqual([[6, 6], [0, 3]]);
    expect(h.notes).toHaveLength(2);
  });
  it('are not there without le', () => expect(heat([{ metric: { a: 'b' }, values: [[0, '1']] }])).toBeUndefined());
});

describe('native histograms', () => {
  // Shows that buckets of two resolutions share their rows without losing observations.
  it('share rows', () => {
    const h = heat([{ metric: {}, histograms: [
      [0, { count: '6', sum: '9', buckets: [[0, '1', '2', '2'], [0, '2', '4', '4']] }],
      [10, { count: '8', sum: '9', buckets: [[0, '1', '4', '8']] }],
    ] }])!;
    expect(h.edges).toEqual([1, 2, 4]);
    expect(h.rows).toEqual([[2, 4], [4, 4]]);
  });
  // Shows that many rows are joined and that all observations stay.
  it('join rows', () => {
    const buckets = Array.from({ length: 400 }, (_, i) => [0, String(i), String(i + 1), '1'] as [number, string, string, string]);
    const h = heat([{ metric: {}, histograms: [[0, { count: '400', sum: '1', buckets }]] }])!;
    expect(h.rows.length).toBeLessThanOrEqual(96);
    expect(h.edges).toHaveLength(h.rows.length + 1);
    expect(h.rows.reduce((sum, r) => sum + (r[0] ?? 0), 0)).toBe(400);
  });
});
