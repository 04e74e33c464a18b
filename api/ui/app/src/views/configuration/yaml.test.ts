import { describe, expect, it } from 'vitest';
import { addressesOf, senders } from './senders';
import { find, marked, sections, tokens } from './yaml';

const kinds = (line: string) => tokens(line).filter((t) => t.kind !== 'plain').map((t) => [t.kind, t.text]);

describe('tokens', () => {
  it('joined are the line, whatever it is', () => {
    for (const line of ['', 'a: b', '    - name: "x: y" # why', "  - {match: ['{env=\"s\"}'], raw: 1w}", 'password: <secret>', 'url: http://a:1/b#c', '<img src=x onerror=1>', ': :: #', '"k": v']) {
      expect(tokens(line).map((t) => t.text).join('')).toBe(line);
    }
  });
  it('know keys, texts, comments and hidden secrets', () => {
    expect(kinds('  - name: "x: y" # why')).toEqual([['key', 'name'], ['text', '"x: y"'], ['comment', '# why']]);
    expect(kinds('      password: <secret>')).toEqual([['key', 'password'], ['secret', '<secret>']]);
    expect(kinds('url: http://a:1/b#c')).toEqual([['key', 'url']]);
  });
});

describe('search', () => {
  const lines = ['storage:', '    path: data', 'web:', '    Path: x'];
  it('finds lines in any case', () => {
    expect(find(lines, ' PATH ')).toEqual([1, 3]);
    expect(find(lines, '  ')).toEqual([]);
  });
  it('marks what was found at every place', () => {
    expect(marked('a path, a Path', 'path')).toEqual(['a ', 'path', ', a ', 'Path', '']);
    expect(marked('İx', 'x')).toEqual(['İx']);
  });
  it('lists sections', () => {
    expect(sections(lines)).toEqual([{ name: 'storage', line: 0 }, { name: 'web', line: 2 }]);
  });
});

describe('senders', () => {
  it('take what the server says of itself', () => {
    const a = addressesOf({ externalURL: 'https://metrics.example/varve/', writeURL: 'https://metrics.example/varve/api/v1/write' }, 'http://x/');
    expect(a).toEqual({ base: 'https://metrics.example/varve', write: 'https://metrics.example/varve/api/v1/write' });
    for (const s of senders(a).filter((s) => s.key !== 'scrape')) expect(s.text).toContain('https://metrics.example/varve');
  });
  it('else the address of the page, below its prefix and without its route', () => {
    expect(addressesOf(undefined, 'http://host:9095/varve/#/configuration?a=b')).toEqual({ base: 'http://host:9095/varve', write: 'http://host:9095/varve/api/v1/write' });
  });
});
