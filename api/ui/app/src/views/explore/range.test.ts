import { describe, expect, it } from 'vitest';
import { autoStep, gridOf, parseRange, parseStep, parseTime, pointsOf, shifted, widened, written } from './range';

const now = Date.UTC(2026, 10, 20, 12, 0, 0);
const hour = 3600_000;
const day = 24 * hour;

describe('parseTime', () => {
  // Shows that every form that the field takes means what it says, and that the rest is refused.
  it.each([
    ['now', now],
    ['now-1h', now - hour],
    ['now-1h30m', now - 1.5 * hour],
    ['now - 1d', now - day],
    ['now+5m', now + 300_000],
    ['now-1y', now - 365 * day],
    ['1795176000', 1795176000_000],
    ['1795176000.5', 1795176000_500],
    ['2026', Date.UTC(2026, 0, 1)],
    ['2026-11', Date.UTC(2026, 10, 1)],
    ['2026-11-20', Date.UTC(2026, 10, 20)],
    ['2026-11-20 14:00', Date.UTC(2026, 10, 20, 14)],
    ['2026-11-20T14:00:05', Date.UTC(2026, 10, 20, 14, 0, 5)],
    ['2026-11-20T14:00:05Z', Date.UTC(2026, 10, 20, 14, 0, 5)],
    ['2026-11-20T14:00:05.250+02:00', Date.UTC(2026, 10, 20, 12, 0, 5, 250)],
  ])('%s', (text, want) => expect(parseTime(text, now, 'utc')).toBe(want));
  it.each(['', 'yesterday', 'now-', 'now-x', 'nowhere', '2026-04-31', '2026-13-01', '2026-11-20 25:00', '-'])('refuses %j', (text) => {
    expect(parseTime(text, now, 'utc')).toBeNaN();
  });
});

describe('parseRange', () => {
  // Shows that a range that makes no sense names the field that is wrong.
  it('names the wrong end', () => {
    expect(parseRange('x', 'now', now, 'utc')).toMatchObject({ which: 'from' });
    expect(parseRange('now-1h', 'x', now, 'utc')).toMatchObject({ which: 'to' });
    expect(parseRange('now', 'now-1h', now, 'utc')).toMatchObject({ which: 'to' });
    expect(parseRange('now-1h', 'now', now, 'utc')).toEqual({ span: { start: now - hour, end: now } });
  });
});

describe('autoStep', () => {
  // Shows that a graph never has more points than pixels or than the server answers, and that buckets fit.
  it('bounds points and fits resolutions', () => {
    for (const length of [60_000, hour, 6 * hour, day, 30 * day, 365 * day, 3650 * day]) {
      for (const pixels of [240, 900, 2400]) {
        const step = autoStep(length, pixels, [300_000, hour]);
        expect(length / step).toBeLessThanOrEqual(pixels / 2);
        if (step >= hour) expect(step % hour).toBe(0);
        else if (step >= 300_000) expect(step % 300_000).toBe(0);
      }
    }
    expect(autoStep(hour, 1200, [])).toBe(10_000);
    // An odd resolution is respected as well.
    expect(autoStep(30 * day, 900, [420_000]) % 420_000).toBe(0);
  });
});

describe('gridOf', () => {
  // Shows that points stay on multiples of the step while the clock moves, and that a written grid is kept.
  it('aligns', () => {
    const a = gridOf({ start: now - hour + 1234, end: now + 1234 }, 30_000, false);
    expect([a.start % 30_000, a.end % 30_000]).toEqual([0, 0]);
    expect(a.end).toBeLessThanOrEqual(now + 1234);
    expect(gridOf({ start: 5, end: 1005 }, 100, true)).toEqual({ start: 5, end: 1005, step: 100 });
    expect(pointsOf({ start: 0, end: 1000, step: 300 })).toBe(4);
  });
});

describe('moving', () => {
  // Shows that shifting keeps the length, and that widening doubles it without leaving the present behind.
  it('keeps lengths', () => {
    const span = { start: now - hour, end: now };
    expect(shifted(span, -0.5)).toEqual({ start: now - 1.5 * hour, end: now - 0.5 * hour });
    const wide = widened(span, now);
    expect(wide.end - wide.start).toBe(2 * hour);
    expect(wide.end).toBe(now);
    expect(parseTime(written(now + 250), now, 'local')).toBe(now + 250);
  });
});

describe('parseStep', () => {
  // Shows what a step may be.
  it('reads', () => {
    expect([parseStep('auto'), parseStep(''), parseStep('30s'), parseStep('1h30m'), parseStep('15')]).toEqual([0, 0, 30_000, 1.5 * hour, 15_000]);
    expect([parseStep('0'), parseStep('x'), parseStep('-5m')].every(Number.isNaN)).toBe(true);
  });
});
