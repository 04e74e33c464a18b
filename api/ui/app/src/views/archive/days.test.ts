import { describe, expect, it } from 'vitest';
import { calendar, chartDays, dayText, measured, mergeDays, refreshDays, monthColumns, nextExpiry, parseDay, shade, shadeBounds, weekday, yearDays } from './days';
import type { ArchiveDay, RetentionKeep } from './model';

const day = (d: string, samples = 0, bytes = 0, more: Partial<ArchiveDay> = {}): ArchiveDay => ({
  day: d, state: samples > 0 ? 'sealed' : 'open', samples, bytes, bytesPerSample: samples > 0 ? bytes / samples : 0, pendingBytes: 0, sealed: null, rollups: [], ...more,
});

describe('days', () => {
  it('go to text and back, before 1970 too', () => {
    for (const text of ['1969-12-31', '1970-01-01', '2024-02-29', '2026-11-21']) expect(dayText(parseDay(text))).toBe(text);
    expect(parseDay('2026-11-21T23:59:59Z')).toBe(parseDay('2026-11-21'));
    expect(parseDay('')).toBeNaN();
    expect(parseDay(null)).toBeNaN();
  });

  it('begin their week on Monday', () => {
    expect(weekday(parseDay('2026-11-16'))).toBe(0);
    expect(weekday(parseDay('2026-11-22'))).toBe(6);
    expect(weekday(parseDay('1969-12-29'))).toBe(0);
  });
});

describe('calendar', () => {
  it('has every day of a year once, each under its day of the week', () => {
    for (const year of [2023, 2024, 2026]) {
      const cells = calendar(year);
      const [from, to] = yearDays(year);
      expect(cells.length).toBe(to - from);
      expect(new Set(cells.map((c) => `${c.column} ${c.row}`)).size).toBe(cells.length);
      expect(cells.every((c) => c.row === weekday(c.day))).toBe(true);
    }
  });

  it('puts months above their first day', () => {
    const cells = calendar(2026);
    const march = cells.find((c) => c.day === parseDay('2026-03-01'))!;
    expect(monthColumns(2026)[2]).toBe(march.column);
  });
});

describe('shades', () => {
  it('are by factors of what nearly all days stay below', () => {
    const bounds = shadeBounds([...Array.from({ length: 99 }, () => 800), 1_000_000, 0], 'bytes');
    expect([0, 50, 100, 200, 400, 800, 1_000_000].map((n) => shade(n, bounds))).toEqual([0, 1, 2, 3, 4, 4, 4]);
  });

  it('are one where days are nearly alike', () => {
    const days = Array.from({ length: 365 }, (_, i) => 1000 + (i % 100));
    const bounds = shadeBounds(days, 'samples');
    expect(new Set(days.map((n) => shade(n, bounds)))).toEqual(new Set([4]));
  });

  it('are finer for what a sample takes', () => {
    const bounds = shadeBounds([2, 2, 2, 1], 'bytesPerSample');
    expect([1, 1.3, 1.6, 2].map((n) => shade(n, bounds))).toEqual([1, 2, 3, 4]);
  });

  it('need no days', () => {
    expect(shade(0, shadeBounds([], 'bytes'))).toBe(0);
  });

  it('count what is not sealed as bytes too', () => {
    expect(measured(day('2026-01-01', 10, 20, { pendingBytes: 5 }), 'bytes')).toBe(25);
    expect(measured(day('2026-01-01', 0, 0), 'bytesPerSample')).toBe(0);
  });
});

describe('chartDays', () => {
  it('has a point a day, with none for a day in between without samples', () => {
    const s = chartDays([day('2026-01-03', 10, 30), day('2026-01-01', 10, 20), day('2026-01-04')], 100);
    expect(s.span).toBe(1);
    expect(s.seconds.map((t) => dayText(t / 86400))).toEqual(['2026-01-01', '2026-01-02', '2026-01-03']);
    expect(s.bytesPerSample).toEqual([2, null, 3]);
  });

  it('joins days where there are more than points, and weighs them by their samples', () => {
    const days = Array.from({ length: 3650 }, (_, i) => day(dayText(parseDay('2016-01-01') + i), i % 2 === 0 ? 100 : 300, 600));
    const s = chartDays(days, 420);
    expect(s.seconds.length).toBeLessThanOrEqual(420);
    expect(s.span).toBe(14);
    expect(s.bytesPerSample[0]).toBe((14 * 600) / (7 * 400));
    expect(s.bytes.reduce((a, b) => a + b, 0)).toBe(3650 * 600);
  });

  it('is empty without sealed days', () => {
    expect(chartDays([day('2026-01-01')], 10).seconds).toEqual([]);
  });
});

describe('mergeDays', () => {
  it('takes the fresh ones and keeps the newest first', () => {
    const merged = mergeDays([day('2026-01-02', 1, 1), day('2026-01-01', 1, 1)], [day('2026-01-03'), day('2026-01-02', 9, 9)]);
    expect(merged.map((d) => [d.day, d.samples])).toEqual([['2026-01-03', 0], ['2026-01-02', 9], ['2026-01-01', 1]]);
  });
});

describe('refreshDays', () => {
  const known = [day('2026-01-04'), day('2026-01-03'), day('2026-01-02'), day('2026-01-01')];
  it('lets go of days that are gone, within the time that was asked about', () => {
    expect(refreshDays(known, [day('2026-01-05'), day('2026-01-03')], 2).map((d) => d.day)).toEqual(['2026-01-05', '2026-01-03', '2026-01-02', '2026-01-01']);
  });
  it('knows all days where there are fewer than were asked for', () => {
    expect(refreshDays(known, [day('2026-01-04'), day('2026-01-03')], 45).map((d) => d.day)).toEqual(['2026-01-04', '2026-01-03']);
    expect(refreshDays(known, [], 45)).toEqual([]);
  });
});

describe('nextExpiry', () => {
  const keep = (before?: string): RetentionKeep => ({ level: 'raw', for: '90d', series: 0, samples: 0, bytes: 0, ...(before ? { before } : {}) });
  it('is the day on which the oldest is past its age', () => {
    // On 2026-11-21 days from 2026-08-23 on are kept; 2026-09-01 goes when the first that is kept is 2026-09-02, ten days later.
    expect(nextExpiry(keep('2026-08-23'), '2026-09-01T00:00:00Z', '2026-11-21')).toBe('2026-12-01');
    expect(nextExpiry(keep('2026-08-23'), '2026-08-23', '2026-11-21')).toBe('2026-11-22');
  });
  it('is tomorrow at the earliest where other rules keep older ones', () => {
    expect(nextExpiry(keep('2026-08-23'), '2020-01-01', '2026-11-21')).toBe('2026-11-22');
  });
  it('is never for what is kept forever, and unknown for an empty archive', () => {
    expect(nextExpiry(keep(), '2020-01-01', '2026-11-21')).toBeUndefined();
    expect(nextExpiry(keep('2026-08-23'), null, '2026-11-21')).toBeUndefined();
  });
});
