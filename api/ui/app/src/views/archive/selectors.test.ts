import { describe, expect, it } from 'vitest';
import { exploreQuery, matchOf, quote, readExploration, selector, within, writeExploration } from './selectors';

describe('quote', () => {
  it('escapes what would end the string or break the line', () => {
    expect(quote('a"b\\c\nd\te')).toBe('"a\\"b\\\\c\\nd\\x09e"');
    expect(quote('<script>ä😀')).toBe('"<script>ä😀"');
  });
});

describe('selector', () => {
  it('writes a plain metric before the braces, and any other into them', () => {
    expect(selector([{ name: '__name__', value: 'up' }])).toBe('up');
    expect(selector([{ name: '__name__', value: 'up' }, { name: 'job', value: 'a"b' }])).toBe('up{job="a\\"b"}');
    expect(selector([{ name: '__name__', value: 'a.b' }])).toBe('{__name__="a.b"}');
    expect(selector([{ name: 'my.label', value: 'v' }])).toBe('{"my.label"="v"}');
  });
  it('asks for any name where nothing else says what is there', () => {
    expect(selector([{ name: 'env', value: '' }])).toBe('{__name__!="",env=""}');
    expect(selector([{ name: 'env', value: '' }, { name: 'job', value: 'x' }])).toBe('{env="",job="x"}');
  });
});

describe('within', () => {
  it('joins filters to what was typed', () => {
    const f = [{ name: 'job', value: 'x' }];
    expect(within('', [])).toBe('');
    expect(within('', f)).toBe('{job="x"}');
    expect(within('up', f)).toBe('up{job="x"}');
    expect(within('up{a="b"}', f)).toBe('up{a="b",job="x"}');
    expect(within('{a="b",}', f)).toBe('{a="b",job="x"}');
    expect(within(' { } ', f)).toBe('{job="x"}');
  });
  it('leaves alone what it cannot narrow', () => {
    expect(within('up or down', [{ name: 'job', value: 'x' }])).toBeNull();
    expect(within('rate(up[5m])', [{ name: 'job', value: 'x' }])).toBeNull();
    expect(within('rate(up[5m])', [])).toBe('rate(up[5m])');
  });
});

describe('exploration', () => {
  it('survives the address, with any text in names and values', () => {
    const e = { label: 'job', typed: '{a="b"}', filters: [{ name: 'a=%3Db', value: 'c=d&e%' }, { name: 'empty', value: '' }], sort: 'series' as const, days: 7 };
    expect(readExploration(new URLSearchParams(writeExploration(e).toString()))).toEqual(e);
  });
  it('is of all series by default', () => {
    const e = readExploration(new URLSearchParams('sort=other&where=nonsense&days=12'));
    expect(e).toEqual({ label: '', typed: '', filters: [], sort: 'bytes', days: 30 });
    expect(matchOf(e)).toBe('');
  });
});

describe('exploreQuery', () => {
  it('shows one metric itself, and many by their number', () => {
    expect(exploreQuery('up{job="x"}', true)).toBe('up{job="x"}');
    expect(exploreQuery('{job="x"}', false)).toBe('topk(20, count by (__name__) ({job="x"}))');
    expect(exploreQuery('', false)).toBe('topk(20, count by (__name__) ({__name__!=""}))');
  });
});
