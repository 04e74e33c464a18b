import { describe, expect, it } from 'vitest';
import { countInputs, parseMetrics, Rates, total } from './counters';

describe('parseMetrics', () => {
  it('reads names, labels and values, and leaves out comments', () => {
    const text = '# HELP a b\n# TYPE a counter\na 1\na_total{x="y",z=""} 2.5e+06\nb{le="+Inf"} +Inf\n';
    expect(parseMetrics(text)).toEqual([
      { name: 'a', labels: {}, value: 1 },
      { name: 'a_total', labels: { x: 'y', z: '' }, value: 2.5e6 },
      { name: 'b', labels: { le: '+Inf' }, value: Infinity },
    ]);
  });

  it('undoes the escapes of values, with braces, commas and quotes in them', () => {
    expect(parseMetrics('a{x="q\\"}, {y=\\\\ \\n"} 3')[0]).toEqual({ name: 'a', labels: { x: 'q"}, {y=\\ \n' }, value: 3 });
  });

  it('leaves out lines that are cut off', () => {
    expect(parseMetrics('a{x="y\na{x=\na{x="y" 1\nname\n')).toEqual([]);
  });
});

describe('countInputs', () => {
  it('adds up protocols of an input, histograms as samples, and keeps reasons that happened alone', () => {
    const counts = countInputs(
      parseMetrics(
        [
          'varve_ingest_written_total{input="in",kind="samples",protocol="a"} 10',
          'varve_ingest_written_total{input="in",kind="histograms",protocol="a"} 5',
          'varve_ingest_written_total{input="in",kind="samples",protocol="b"} 1',
          'varve_ingest_rejected_total{input="in",protocol="a",reason="overwrite"} 2',
          'varve_ingest_rejected_total{input="in",protocol="b",reason="overwrite"} 3',
          'varve_ingest_rejected_total{input="in",protocol="b",reason="text"} 0',
          'varve_ingest_bytes_total{form="wire",input="in",protocol="a"} 100',
          'varve_ingest_bytes_total{form="decoded",input="in",protocol="a"} 900',
          'varve_ingest_requests_total{code="204",input="in",protocol="a"} 7',
          'varve_ingest_requests_total{code="400",input="in",protocol="a"} 2',
          'varve_other_total{protocol="a"} 2',
        ].join('\n'),
      ),
    ).get('in')!;
    expect(counts).toMatchObject({ samples: 16, wireBytes: 100, requests: 9, failedRequests: 2, rejected: { overwrite: 5 } });
    expect(total(counts.rejected)).toBe(5);
  });
});

describe('Rates', () => {
  const a = (value: number) => new Map([['a', value]]);

  it('gives what a counter grew by a second, once it was watched for a while', () => {
    const r = new Rates();
    r.observe(0, a(10));
    r.observe(5000, a(60));
    expect(r.perSecond('a')).toBeUndefined();
    r.observe(10_000, a(110));
    expect(r.perSecond('a')).toBe(10);
  });

  it('is steady for what comes in bursts', () => {
    const r = new Rates();
    for (let t = 0; t <= 300_000; t += 5000) r.observe(t, a(Math.floor(t / 15_000) * 150));
    for (const rate of r.history('a').slice(12)) expect(rate).toBe(10);
  });

  it('takes the last minute alone', () => {
    const r = new Rates();
    for (let t = 0; t <= 60_000; t += 5000) r.observe(t, a(1000 * t));
    for (let t = 65_000; t <= 120_000; t += 5000) r.observe(t, a(60_000_000));
    expect(r.perSecond('a')).toBe(0);
  });

  it('takes all of a pause, such as of a hidden tab', () => {
    const r = new Rates();
    r.observe(0, a(0));
    r.observe(600_000, a(6000));
    expect(r.perSecond('a')).toBe(10);
  });

  it('begins anew when a counter falls, without a negative rate', () => {
    const r = new Rates();
    r.observe(0, a(100));
    r.observe(10_000, a(200));
    r.observe(20_000, a(5));
    expect(r.perSecond('a')).toBeUndefined();
    r.observe(30_000, a(15));
    expect(r.perSecond('a')).toBe(1);
  });

  it('ignores a moment that was observed already', () => {
    const r = new Rates();
    r.observe(10_000, a(1));
    r.observe(10_000, a(9));
    r.observe(20_000, a(11));
    expect(r.perSecond('a')).toBe(1);
  });

  it('keeps a bounded history and forgets what is gone', () => {
    const r = new Rates();
    for (let i = 0; i < 500; i++) r.observe(i * 10_000, a(i));
    expect(r.history('a').length).toBe(120);
    r.observe(5_000_000, new Map());
    expect(r.history('a').length).toBe(120);
    r.observe(5_010_000, new Map());
    expect(r.history('a')).toEqual([]);
  });
});
