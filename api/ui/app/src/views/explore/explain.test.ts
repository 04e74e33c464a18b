import { describe, expect, it } from 'vitest';
import { resolutionText, statsRows } from './notes';
import { faultAt, type Outcome } from './run';
import { remembered } from './history';
import { selector } from './client';
import { pressed } from './legend';
import { niceTicks, timeMarks } from './figure';
import { escapeXML } from './surface';
import { fileName } from './save';
import { ApiError } from '../../core/api';

const outcome = (stats: unknown): Outcome => ({ index: 0, text: 'up', resolution: '', warnings: [], infos: [], stats, seconds: 0.1, length: 10 });

describe('resolutionText', () => {
  // Shows that each form of the header is explained, with its exactness.
  it.each([
    ['raw', 'raw'], ['5m,1h', 'exact'], ['raw,5m', 'exact'], ['raw,5m;approximate', 'approximate'],
  ])('%s', (header, kind) => expect(resolutionText(header)?.kind).toBe(kind));
  it('says nothing of nothing', () => expect(resolutionText('')).toBeUndefined());
});

describe('statsRows', () => {
  // Shows that statistics of any shape are read without a fault, and that those of the archive are listed.
  it('is careful', () => {
    for (const odd of [undefined, null, 1, 'x', [], { varve: 3, samples: null, timings: 'no' }]) expect(statsRows(outcome(odd)).counts).toHaveLength(1);
    const rows = statsRows(outcome({ timings: { execTotalTime: 0.2 }, samples: { peakSamples: 5 }, varve: { series: 3, samples: 1000, chunks: 7, bytes: 2048, parts: 2, rows: 0, rerun: '', seconds: { index: 0.01, find: 0.002 } } }));
    expect(rows.counts.map((r) => r.text)).toEqual(['3', '1k', '7', '2 KiB', '2', '5', '10 B']);
    expect(rows.times.map((r) => `${r.name} ${r.text}`)).toEqual(['· finding series 2 ms', 'All on the server 200 ms', 'index 10 ms', 'Until the page had it 100 ms']);
  });
});

describe('faultAt', () => {
  // Shows that the parser's place becomes an offset, in the second line too.
  it('finds places', () => {
    const error = (m: string) => new ApiError(400, 'bad_data', m);
    expect(faultAt('sum(up', error('invalid parameter "query": 1:7: parse error: unclosed left parenthesis'))).toEqual({ at: 6, message: 'parse error: unclosed left parenthesis' });
    expect(faultAt('sum(\nup', error('2:3: parse error: x'))?.at).toBe(7);
    expect(faultAt('up', error('too many samples'))).toBeUndefined();
  });
});

describe('remembered', () => {
  // Shows that the history is bounded and has each query once, the newest first.
  it('is bounded', () => {
    expect(remembered(['a', 'b'], ' b ')).toEqual(['b', 'a']);
    expect(remembered(['a'], '')).toEqual(['a']);
    expect(remembered(['a'], 'x'.repeat(5000))).toEqual(['a']);
    let list: string[] = [];
    for (let i = 0; i < 500; i++) list = remembered(list, `q${i}`);
    expect([list.length, list[0]]).toEqual([100, 'q499']);
  });
});

describe('selector', () => {
  // Shows that names that PromQL has to quote are quoted.
  it('quotes', () => {
    expect([selector(''), selector('up'), selector('a.b')]).toEqual(['', 'up', '{"a.b"}']);
  });
});

describe('pressed', () => {
  // Shows what a press on the legend does: alone, all again, and with Control one by one.
  it('isolates', () => {
    const all = ['a', 'b', 'c'];
    const alone = pressed(all, new Set(), 'b', false);
    expect([...alone]).toEqual(['a', 'c']);
    expect([...pressed(all, alone, 'b', false)]).toEqual([]);
    expect([...pressed(all, alone, 'a', true)]).toEqual(['c']);
    expect([...pressed(['a'], new Set(), 'a', true)]).toEqual([]);
  });
});

describe('axes of files', () => {
  // Shows that ticks are round and bounded in number, from a second to a century.
  it('are round', () => {
    expect(niceTicks(0, 1, 6)).toEqual([0, 0.2, 0.4, 0.6, 0.8, 1]);
    expect(niceTicks(5, 5, 6)).toEqual([5]);
    for (const length of [1, 60, 3600, 86400, 1e6, 3e7, 3e8, 3e9]) {
      const { ticks } = timeMarks(1.7e9, 1.7e9 + length, 8, 'utc');
      expect(ticks.length).toBeGreaterThan(0);
      expect(ticks.length).toBeLessThanOrEqual(10);
    }
  });
});

describe('text in files', () => {
  // Shows that no label can leave its element, and that names of files are plain.
  it('stays text', () => {
    expect(escapeXML('<a b="c">&\u0000\ud800')).toBe('&lt;a b=&quot;c&quot;&gt;&amp;\ufffd\ufffd');
    expect(fileName('../../<x> "y"', 0, 'csv')).toBe('varve-x-y-19700101-0000.csv');
  });
});
