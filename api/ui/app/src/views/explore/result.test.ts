import { describe, expect, it } from 'vitest';
import { parseNumber, printNumber, quote, readMatrix, seriesMax, seriesName, stack, summarize } from './result';
import { runs } from './lines';

describe('values', () => {
  // Shows that every float comes back from its text as the same bits, also those that JSON doesn't have.
  it('come back', () => {
    for (const v of [0, -0, 1, 0.1, 1e300, 5e-324, -123456789.25, Infinity, -Infinity]) expect(Object.is(parseNumber(printNumber(v)), v)).toBe(true);
    expect(parseNumber(printNumber(NaN))).toBeNaN();
  });
});

describe('seriesName', () => {
  // Shows that names are valid selectors, with odd names and values quoted.
  it.each([
    [{ __name__: 'up' }, 'up'],
    [{}, '{}'],
    [{ __name__: 'up', job: 'b', a: 'c' }, 'up{a="c", job="b"}'],
    [{ __name__: 'a.b', x: 'y' }, '{"a.b", x="y"}'],
    [{ 'k.l': 'v' }, '{"k.l"="v"}'],
    [{ a: 'x"\\\n<b>' }, '{a="x\\"\\\\\\n<b>"}'],
  ])('%j', (labels, want) => expect(seriesName(labels as Record<string, string>)).toBe(want));
  it('writes out what would turn text around', () => expect(quote('a\u202eb\u0000')).toBe('"a\\u202eb\\u0000"'));
});

describe('readMatrix', () => {
  const grid = { start: 1000_000, end: 1040_000, step: 10_000 };
  // Shows that gaps stay gaps and values land on their points.
  it('keeps gaps', () => {
    const r = readMatrix([{ metric: { a: 'b' }, values: [[1000, '1'], [1030, 'NaN']] }], grid, 0);
    expect(r.times).toEqual([1000, 1010, 1020, 1030, 1040]);
    expect(r.series[0]!.values).toEqual([1, null, null, NaN, null]);
  });
  // Shows that series are bounded, and what is left out is counted.
  it('bounds', () => {
    const many = Array.from({ length: seriesMax + 7 }, (_, i) => ({ metric: { i: String(i) }, values: [[1000, '1']] as [number, string][] }));
    const r = readMatrix(many, grid, 0);
    expect([r.series.length, r.left]).toEqual([seriesMax, 7]);
  });
});

describe('summarize', () => {
  // Shows that NaN and infinities are counted apart, and that sums which overflow don't spoil the mean.
  it('is right', () => {
    expect(summarize([1, null, 3, NaN, Infinity, 2])).toEqual({ last: 2, min: 1, max: 3, mean: 2, odd: 2 });
    expect(summarize([null])).toEqual({ last: null, min: null, max: null, mean: null, odd: 0 });
    expect(summarize([1.5e308, 1.5e308]).mean).toBe(1.5e308);
  });
});

describe('stack', () => {
  // Shows that a gap takes no room and is not drawn, and that what is negative goes below zero.
  it('is honest with gaps', () => {
    const [a, b, c] = stack([[1, null, 2], [10, 10, null], [-1, -2, -3]]);
    expect(a).toEqual({ lower: [0, null, 0], upper: [1, null, 2] });
    expect(b).toEqual({ lower: [1, 0, null], upper: [11, 10, null] });
    expect(c).toEqual({ lower: [0, 0, 0], upper: [-1, -2, -3] });
    expect(runs(b!.upper, 0, 2)).toEqual([[0, 1]]);
    expect(runs([null, 1, null, 2, 3], 0, 4)).toEqual([[1, 1], [3, 4]]);
  });
});
