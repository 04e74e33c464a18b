import { describe, expect, it } from 'vitest';
import { Backlog } from './backlog';
import { kindWord, sentence, stateTone, waitingDays, waitsFor, type CompactorDay, type OutputStatus } from './model';
import { localInput, readLocalInput, rewindParam, rewindWords } from './rewind';

const day = (d: string, more: Partial<CompactorDay> = {}): CompactorDay => ({
  day: d, unsealed: false, runBytes: 0, bundleBytes: 0, sealedSamples: 0, rolled: true, dirty: false, sealed: '2026-01-02T00:00:00Z', ...more,
});

describe('waitsFor', () => {
  it('says what a day waits for', () => {
    expect(waitsFor(day('2026-01-01'))).toBe('');
    const { sealed: _, ...never } = day('2026-01-01', { unsealed: true, rolled: false });
    expect(waitsFor(never)).toBe('sealing');
    expect(waitsFor(day('2026-01-01', { unsealed: true }))).toBe('late samples');
    expect(waitsFor(day('2026-01-01', { rolled: false }))).toBe('rolling up');
    expect(waitsFor(day('2026-01-01', { unsealed: true, dirty: true }))).toBe('late samples, rolling up again');
  });

  it('lists the days that wait, the newest first', () => {
    expect(waitingDays([day('2026-01-01', { dirty: true }), day('2026-01-02'), day('2026-01-03', { unsealed: true })]).map((d) => d.day)).toEqual(['2026-01-03', '2026-01-01']);
    expect(waitingDays(null)).toEqual([]);
  });
});

describe('words', () => {
  it('knows states and kinds, and copes with those of a newer server', () => {
    expect(stateTone('blocked')).toBe('bad');
    expect(stateTone('something_new')).toBe('off');
    expect(kindWord('otlp')).toBe('OpenTelemetry (OTLP)');
    expect(kindWord('a_new_one')).toBe('a new one');
  });
});

describe('sentence', () => {
  it('begins large and ends with a stop', () => {
    expect(sentence('it would drop 5 bytes')).toBe('It would drop 5 bytes.');
    expect(sentence('Why?')).toBe('Why?');
    expect(sentence(' ')).toBe('');
  });
});

describe('Backlog', () => {
  it('tells when nothing waits any more, once it was watched for long enough', () => {
    const b = new Backlog();
    b.observe(0, 1000);
    b.observe(10_000, 900);
    expect(b.secondsLeft()).toBeUndefined();
    b.observe(20_000, 800);
    expect(b.trend()).toBe(-10);
    expect(b.secondsLeft()).toBe(80);
  });

  it('promises nothing where the backlog grows', () => {
    const b = new Backlog();
    b.observe(0, 10);
    b.observe(60_000, 70);
    expect(b.trend()).toBe(1);
    expect(b.secondsLeft()).toBeUndefined();
  });
});

const output: OutputStatus = {
  name: 'central', kind: 'remote_write', state: 'running', totals: { sent: 0, dropped: 0, refused: 0, filtered: 0 },
  lag: { seconds: 0, samples: 0, bytes: 0, gapDays: 0 }, inFlightBytes: 0, shards: [], deadLetters: { path: '', bytes: 0 },
};

describe('rewind', () => {
  it('makes the parameter of the request', () => {
    expect(rewindParam('now', NaN)).toBe('now');
    expect(rewindParam('beginning', NaN)).toBe('beginning');
    expect(rewindParam('time', Date.UTC(2026, 10, 20, 14, 3))).toBe('2026-11-20T14:03:00Z');
    expect(rewindParam('time', NaN)).toBe('');
  });

  it('reads and writes what a field for a time holds as UTC', () => {
    expect(readLocalInput('2026-11-20T14:03')).toBe(Date.UTC(2026, 10, 20, 14, 3));
    expect(readLocalInput('2026-11-20T14:03:05')).toBe(Date.UTC(2026, 10, 20, 14, 3, 5));
    expect(readLocalInput('')).toBeNaN();
    expect(localInput(Date.UTC(2026, 10, 20, 14, 3, 59))).toBe('2026-11-20T14:03');
  });

  it('says what is given up', () => {
    expect(rewindWords(output, 'now', NaN)[0]).toMatch(/Nothing waits/);
    const behind = { ...output, lag: { ...output.lag, samples: 1234, bytes: 2048, gapDays: 2 } };
    expect(rewindWords(behind, 'now', NaN)[0]).toBe(
      'What waits for this output is given up: 1,234 samples (2 KiB in the journal), 2 days of the archive. It stays in the archive, and another rewind can send it.',
    );
    expect(rewindWords(output, 'time', Date.UTC(2026, 0, 1))[0]).toMatch(/from 2026-01-01 00:00:00 UTC on/);
  });
});
