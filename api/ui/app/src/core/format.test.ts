import { describe, expect, it } from 'vitest';
import { bytes, compact, day, digits, duration, durationText, parseDuration, ratio, rfc3339, time, value } from './format';

describe('numbers', () => {
  // Shows how numbers read, at the edges between units too.
  it('reads', () => {
    expect([compact(0), compact(999), compact(999.9), compact(1234567), compact(1e21), compact(NaN), compact(-1500)]).toEqual(['0', '999', '1k', '1.23M', '1000E', 'NaN', '-1.5k']);
    expect([digits(0.1 + 0.2), digits(123456), digits(1e-9), digits(-0.00123)]).toEqual(['0.3', '123456', '1e-9', '-0.00123']);
    expect([bytes(0), bytes(1), bytes(1023.9), bytes(1536), bytes(1024 ** 3 * 1.5), bytes(undefined)]).toEqual(['0 B', '1 B', '1 KiB', '1.5 KiB', '1.5 GiB', '–']);
    expect([ratio(0.1234), ratio(1), value(1234567890), value(0.000012)]).toEqual(['12.3 %', '100 %', '1.23G', '1.2e-5']);
  });
});

describe('lengths of time', () => {
  // Shows that PromQL's form comes back, and how lengths read.
  it('come back', () => {
    for (const ms of [1, 250, 15_000, 5_400_000, 86400_000, 7 * 86400_000, 365 * 86400_000, 90_061_001]) expect(parseDuration(durationText(ms))).toBe(ms);
    expect([parseDuration('15'), parseDuration('1h30m')]).toEqual([15_000, 5_400_000]);
    expect([parseDuration(''), parseDuration('5x'), parseDuration('1m1h')].every(Number.isNaN)).toBe(true);
    expect([duration(0.0000005), duration(0.25), duration(125), duration(7260), duration(90000), duration(-5)]).toEqual(['0.5 µs', '250 ms', '2 min 5 s', '2 h 1 min', '1 d 1 h', '-5 s']);
  });
});

describe('times', () => {
  // Shows the forms of a moment in UTC, and that local time names its offset.
  it('reads', () => {
    const at = Date.UTC(2026, 10, 5, 4, 3, 2, 7);
    expect([time(at, 'utc'), time(at, 'utc', true), day(at, 'utc'), rfc3339(at)]).toEqual(['2026-11-05 04:03:02', '2026-11-05 04:03:02.007', '2026-11-05', '2026-11-05T04:03:02.007Z']);
    expect(Date.parse(rfc3339(at, 'local'))).toBe(at);
    expect(time(NaN, 'utc')).toBe('–');
  });
});
