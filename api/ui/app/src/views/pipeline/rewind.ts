// Rewinding an output, in words: what will happen is said before it is asked for.
import { bytes, count, rfc3339, timeWithZone } from '../../core/format';
import type { OutputStatus } from './model';

export type RewindTo = 'time' | 'beginning' | 'now';

/** rewindParam is the parameter to of the request; empty if the time can't be read. */
export function rewindParam(to: RewindTo, millis: number): string {
  if (to !== 'time') return to;
  return Number.isFinite(millis) ? rfc3339(millis) : '';
}

/** rewindWords says what a rewind does to an output, sentence by sentence. */
export function rewindWords(o: OutputStatus, to: RewindTo, millis: number): string[] {
  const words: string[] = [];
  switch (to) {
    case 'beginning':
      words.push('Everything that the archive keeps is read from its oldest day and sent, then what arrives from now on.');
      break;
    case 'time':
      words.push(
        Number.isFinite(millis)
          ? `What is stored of times from ${timeWithZone(millis, 'utc')} on is read from the archive and sent, then what arrives from now on.`
          : 'Give a time first.',
      );
      break;
    case 'now':
      words.push(
        o.lag.samples > 0 || o.lag.gapDays > 0 || o.lag.wholeFrom
          ? `What waits for this output is given up: ${backlogWords(o)}. It stays in the archive, and another rewind can send it.`
          : 'Nothing waits for this output. It goes on with what arrives from now on.',
      );
      return words;
  }
  words.push('The peer gets samples again that it has already. Most systems keep one of each; message queues hand on both.');
  words.push('It may take long, and the output counts as behind until it is done. The archive is only read.');
  return words;
}

/** backlogWords is what waits for an output. */
export function backlogWords(o: OutputStatus): string {
  const parts = [`${count(o.lag.samples)} samples (${bytes(o.lag.bytes)} in the journal)`];
  if (o.lag.gapDays > 0) parts.push(`${count(o.lag.gapDays)} days of the archive`);
  if (o.lag.wholeFrom) parts.push(`the archive from ${timeWithZone(o.lag.wholeFrom, 'utc')} on`);
  return parts.join(', ');
}

/** localInput is a time for an input of type datetime-local, read as UTC: 2026-11-20T14:03. */
export function localInput(millis: number): string {
  return rfc3339(Math.floor(millis / 60_000) * 60_000).slice(0, 16);
}

/** readLocalInput reads what such an input holds, as UTC; NaN for nothing. */
export function readLocalInput(text: string): number {
  return /^\d{4,6}-\d\d-\d\dT\d\d:\d\d/.test(text) ? Date.parse(`${text}Z`) : NaN;
}
