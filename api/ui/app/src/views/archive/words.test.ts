import { describe, expect, it } from 'vitest';
import { parseDay } from './days';
import type { RetentionStatus } from './model';
import { daysWords, reaches, spanOf, when } from './words';

describe('facts', () => {
  it('write a span of time', () => {
    expect(daysWords(1)).toBe('1 day');
    expect(daysWords(729)).toBe('729 days');
    expect(daysWords(2027)).toBe('5.5 years');
  });
  it('span from the oldest to the newest of all resolutions', () => {
    const r = (oldest: string | null, newest: string | null) => ({ resolution: 'raw', days: 1, samples: 1, bytes: 1, oldest, newest });
    expect(spanOf([r('2026-01-05T00:00:00Z', '2026-02-01T00:00:00Z'), r('2020-01-01T00:00:00Z', '2026-01-31T00:00:00Z'), r(null, null)])).toEqual([parseDay('2020-01-01'), parseDay('2026-02-01')]);
    expect(spanOf([r(null, null)])).toBeUndefined();
  });
});

describe('when', () => {
  const status: RetentionStatus = { today: '2026-11-21', rules: [], levels: [], diskBytes: 0, sizeLimit: 0, dropping: false, kept: '' };
  const keep = { level: 'raw', for: '90d', before: '2026-08-23', series: 3, samples: 10, bytes: 20 };
  const next = { why: 'it is old', floors: [], trims: [], bytes: 1, totalBytes: 2, waits: '' };
  it('says when something goes that is past its age', () => {
    expect(when(keep, { ...status, next }, [])).toBe('when the compactor looks next');
    expect(when(keep, { ...status, next: { ...next, waits: 'too much' } }, [])).toMatch(/forced/);
    expect(when(keep, { ...status, kept: 'an output owes it' }, [])).toMatch(/held/);
    expect(when(keep, { ...status, dropping: true }, [])).toMatch(/queries/);
    expect(when(keep, status, [])).toBe('once its days are rolled up');
  });
  it('says when the first will be', () => {
    const nothing = { ...keep, series: 0, samples: 0, bytes: 0 };
    expect(when(nothing, status, [{ resolution: 'raw', days: 1, samples: 1, bytes: 1, oldest: '2026-09-01T00:00:00Z', newest: '2026-11-20T00:00:00Z' }])).toBe('not before 2026-12-01');
    expect(when(nothing, status, undefined)).toBe('there is nothing to free yet');
    const { before: _, ...forever } = nothing;
    expect(when(forever, status, [])).toBe('never');
  });
});

describe('reaches', () => {
  const raw = { resolution: 'raw', days: 1, samples: 1, bytes: 1, oldest: '2026-01-05T00:00:00Z', newest: null };
  it('is so where older days are stored', () => {
    expect(reaches({ level: 'raw', floor: '2026-01-06' }, [raw])).toBe(true);
    expect(reaches({ level: 'raw', floor: '2026-01-05' }, [raw])).toBe(false);
    expect(reaches({ level: 'raw' }, [raw])).toBe(false);
    expect(reaches({ level: 'raw', floor: '2026-01-06' }, [{ ...raw, oldest: null }])).toBe(false);
  });
  it('is taken for so where that is not known', () => {
    expect(reaches({ level: '5m', floor: '2026-01-06' }, undefined)).toBe(true);
  });
});
