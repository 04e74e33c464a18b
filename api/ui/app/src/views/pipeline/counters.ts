// Counters of the inputs, read from the server's own /metrics, and rates of what grows between two polls.

/** Sample is one line of the text format. */
export interface Sample {
  name: string;
  labels: Record<string, string>;
  value: number;
}

/** inputMetrics are the names that are asked for. The rest of /metrics stays on the server. */
export const inputMetrics = [
  'varve_ingest_written_total',
  'varve_ingest_rejected_total',
  'varve_ingest_dropped_total',
  'varve_ingest_bytes_total',
  'varve_ingest_requests_total',
  'varve_ingest_in_flight_bytes',
];

/**
 * parseMetrics reads the text format as client_golang writes it: no timestamps, labels in quotes. Lines that it
 * can't read it leaves out.
 */
export function parseMetrics(text: string): Sample[] {
  const samples: Sample[] = [];
  for (const line of text.split('\n')) {
    if (line === '' || line.startsWith('#')) continue;
    const sample = parseLine(line);
    if (sample) samples.push(sample);
  }
  return samples;
}

function parseLine(line: string): Sample | null {
  const brace = line.indexOf('{');
  const space = line.indexOf(' ');
  if (brace < 0 || (space >= 0 && space < brace)) {
    if (space < 0) return null;
    return finish(line.slice(0, space), {}, line.slice(space));
  }
  const labels: Record<string, string> = {};
  let at = brace + 1;
  while (line[at] !== '}') {
    const equals = line.indexOf('="', at);
    if (equals < 0) return null;
    const name = line.slice(at, equals);
    let value = '';
    at = equals + 2;
    for (; line[at] !== '"'; at++) {
      if (at >= line.length) return null;
      if (line[at] !== '\\') {
        value += line[at];
        continue;
      }
      at++;
      value += line[at] === 'n' ? '\n' : (line[at] ?? '');
    }
    labels[name] = value;
    at++;
    if (line[at] === ',') at++;
    else if (line[at] !== '}') return null;
  }
  return finish(line.slice(0, brace), labels, line.slice(at + 1));
}

function finish(name: string, labels: Record<string, string>, rest: string): Sample | null {
  const [text] = rest.trim().split(' ');
  if (!text) return null;
  const value = text === '+Inf' ? Infinity : text === '-Inf' ? -Infinity : Number(text);
  return { name, labels, value };
}

/** InputCounts are the counters of one input, all protocols together, since the server's start. */
export interface InputCounts {
  samples: number;
  exemplars: number;
  metadata: number;
  wireBytes: number;
  requests: number;
  failedRequests: number;
  inFlightBytes: number;
  rejected: Record<string, number>;
  dropped: Record<string, number>;
}

function none(): InputCounts {
  return { samples: 0, exemplars: 0, metadata: 0, wireBytes: 0, requests: 0, failedRequests: 0, inFlightBytes: 0, rejected: {}, dropped: {} };
}

/** countInputs adds up samples of inputMetrics by input. Histograms count as samples, which is what they are. */
export function countInputs(samples: Sample[]): Map<string, InputCounts> {
  const all = new Map<string, InputCounts>();
  for (const { name, labels, value } of samples) {
    const input = labels.input;
    if (input === undefined) continue;
    let c = all.get(input);
    if (!c) all.set(input, (c = none()));
    switch (name) {
      case 'varve_ingest_written_total':
        if (labels.kind === 'samples' || labels.kind === 'histograms') c.samples += value;
        else if (labels.kind === 'exemplars') c.exemplars += value;
        else if (labels.kind === 'metadata') c.metadata += value;
        break;
      case 'varve_ingest_rejected_total':
        add(c.rejected, labels.reason, value);
        break;
      case 'varve_ingest_dropped_total':
        add(c.dropped, labels.reason, value);
        break;
      case 'varve_ingest_bytes_total':
        if (labels.form === 'wire') c.wireBytes += value;
        break;
      case 'varve_ingest_requests_total':
        c.requests += value;
        if (!/^2/.test(labels.code ?? '2')) c.failedRequests += value;
        break;
      case 'varve_ingest_in_flight_bytes':
        c.inFlightBytes += value;
        break;
    }
  }
  return all;
}

function add(to: Record<string, number>, reason: string | undefined, value: number): void {
  if (reason === undefined || value === 0) return;
  to[reason] = (to[reason] ?? 0) + value;
}

export function total(counts: Record<string, number>): number {
  let sum = 0;
  for (const n of Object.values(counts)) sum += n;
  return sum;
}

/** historyMax bounds what is remembered of one counter: at a poll in 5 s, the last 10 minutes. */
const historyMax = 120;
/**
 * windowMillis is over how long a rate is taken. Scrapes come in bursts, most of them 15 s to 60 s apart: over less the
 * rate would jump between nothing and too much.
 */
const windowMillis = 60_000;
/** watchedMillis is after how long there is a rate at all. */
const watchedMillis = 9_000;

interface Counter {
  points: { at: number; value: number }[];
  rates: number[];
  missed: number;
}

/**
 * Rates remembers counters of the last polls and gives what they grow by a second, over the last minute.
 *
 * A counter that falls began anew (the server was restarted): what was before is forgotten. Counters that two polls in
 * a row don't have are forgotten too, so that the memory stays bounded.
 */
export class Rates {
  private readonly known = new Map<string, Counter>();

  /** observe takes the counters at a moment in ms. Moments that don't advance are ignored. */
  observe(at: number, counters: Map<string, number>): void {
    for (const [key, value] of counters) {
      let c = this.known.get(key);
      const last = c?.points.at(-1);
      if (!c || !last || value < last.value) {
        c = { points: [], rates: [], missed: 0 };
        this.known.set(key, c);
      } else if (at <= last.at) continue;
      c.missed = 0;
      c.points.push({ at, value });
      // The point at the beginning of the window, or the last before it, stays.
      while (c.points.length > 2 && at - c.points[1]!.at >= windowMillis) c.points.shift();
      const first = c.points[0]!;
      if (at - first.at < watchedMillis) continue;
      c.rates.push((value - first.value) / ((at - first.at) / 1000));
      if (c.rates.length > historyMax) c.rates.shift();
    }
    for (const [key, c] of this.known) {
      if (!counters.has(key) && ++c.missed > 1) this.known.delete(key);
    }
  }

  /** perSecond is the rate as of the last poll; undefined before the counter was watched for a while. */
  perSecond(key: string): number | undefined {
    return this.known.get(key)?.rates.at(-1);
  }

  /** history has the rates of the last polls, the oldest first. */
  history(key: string): readonly number[] {
    return this.known.get(key)?.rates ?? [];
  }
}
