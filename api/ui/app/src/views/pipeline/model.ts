// What the server tells of its pipeline: shapes of the JSON below api/v1/status and api/v1/admin, as
// forward/status.go, snapshot/status.go, api/compactor.go and cmd/varve/inputs.go write it.

/** InputStatus is an entry of status/inputs. */
export interface InputStatus {
  name: string;
  kind: string;
  /** address is the input's own; empty where paths are on the server's. */
  address?: string;
  paths?: string[];
  state: string;
  error?: string;
  detail?: unknown;
  /** refusals are what was refused to senders since the start, by reason. */
  refusals?: Refusal[];
}

/** Refusal is one reason for which something was not taken, and an example of what it was about. */
export interface Refusal {
  reason: string;
  count: number;
  example: string;
  at?: string;
}

export type OutputState = 'running' | 'catching_up' | 'retrying' | 'blocked' | 'failed' | 'paused' | 'stopped';

/** OutputStatus is an entry of status/outputs. */
export interface OutputStatus {
  name: string;
  kind: string;
  state: OutputState;
  error?: string;
  errorTime?: string;
  totals: { sent: number; dropped: number; refused: number; filtered: number };
  lag: { seconds: number; since?: string; samples: number; bytes: number; gapDays: number; wholeFrom?: string };
  inFlightBytes: number;
  shards: { state: OutputState; retries?: number; since?: string }[];
  queries?: { name: string; settled?: string; at?: string; state: OutputState }[];
  deadLetters: { path: string; bytes: number };
}

/** CompactorStatus is status/compactor. */
export interface CompactorStatus {
  running: string;
  runningSeconds: number;
  planned: string[];
  unforced: string;
  paused: boolean;
  heldDays: number;
  lastError: string;
  days: CompactorDay[];
}

export interface CompactorDay {
  day: string;
  sealed?: string;
  unsealed: boolean;
  runBytes: number;
  bundleBytes: number;
  sealedSamples: number;
  rolled: boolean;
  dirty: boolean;
}

/** SnapshotStatus is status/snapshots. */
export interface SnapshotStatus {
  configured: boolean;
  closed?: string;
  running?: SnapshotJob;
  lastSuccess?: { id: string; taken: string; seconds: number; files: number; bytes: number; sentBytes: number; reusedBytes: number };
  lastFailure?: { job: string; at: string; error: string };
  next?: string;
  snapshots: number;
}

export interface SnapshotJob {
  job: string;
  since: string;
  id?: string;
  phase: string;
  filesDone: number;
  filesTotal: number;
  bytesDone: number;
  bytesTotal: number;
  bytesSent: number;
  bytesReused: number;
}

/** Snapshot is an entry of GET admin/snapshots, the newest first. */
export interface Snapshot {
  id?: string;
  object: string;
  taken: string;
  varve?: string;
  last: number;
  series: number;
  days: number;
  files: number;
  bytes: number;
  sentBytes: number;
  damaged?: string;
  foreign?: boolean;
}

/** VerifyReport answers POST admin/snapshots/ID/verify. */
export interface VerifyReport {
  id: string;
  files: number;
  objects: number;
  bytes: number;
  readBytes: number;
  deep: boolean;
  faults: { path: string; object: string; text: string }[] | null;
  tookNanos: number;
}

/** RunningQuery is an entry of status/queries. */
export interface RunningQuery {
  id: string;
  query: string;
  kind: string;
  start: string;
  end: string;
  stepSeconds: number;
  since: string;
  seconds: number;
  phase: string;
  parts: number;
  client: string;
  series: number;
}

/** waitsFor says in words what a day waits for; empty if it doesn't. */
export function waitsFor(d: CompactorDay): string {
  const what: string[] = [];
  if (d.unsealed) what.push(d.sealed ? 'late samples' : 'sealing');
  if (d.dirty) what.push(d.rolled ? 'rolling up again' : 'rolling up');
  else if (!d.rolled && d.sealed) what.push('rolling up');
  return what.join(', ');
}

/** waitingDays are those that something is due of or will be, the newest first. */
export function waitingDays(days: CompactorDay[] | null | undefined): CompactorDay[] {
  return (days ?? []).filter((d) => waitsFor(d) !== '').sort((a, b) => (a.day < b.day ? 1 : a.day > b.day ? -1 : 0));
}

/** stateTone says how bad a state is, which badges show by their colour beside the word. */
export function stateTone(state: string): 'good' | 'busy' | 'warn' | 'bad' | 'off' {
  switch (state) {
    case 'running':
      return 'good';
    case 'catching_up':
    case 'leaving':
    case 'ending':
      return 'busy';
    case 'retrying':
      return 'warn';
    case 'blocked':
    case 'failed':
      return 'bad';
    default:
      return 'off';
  }
}

/** stateWord is a state as people read it. */
export function stateWord(state: string): string {
  return state.replaceAll('_', ' ');
}

const kinds: Record<string, string> = {
  remote_write: 'Prometheus remote write',
  influxdb: 'InfluxDB',
  opentsdb: 'OpenTSDB',
  otlp: 'OpenTelemetry (OTLP)',
  import: 'import of text',
  nats: 'NATS',
  scrape: 'scraping',
  cc_metric_store: 'ClusterCockpit',
};

/** kindWord is the kind of an input or an output as people read it. */
export function kindWord(kind: string): string {
  return kinds[kind] ?? stateWord(kind);
}

const reasons: Record<string, string> = {
  too_far_in_future: 'Too far ahead of the clock. Check the sender’s clock, or raise ingest.max_future.',
  out_of_retention: 'Older than the rule of retention of the series keeps.',
  series_limit: 'A new series beyond ingest.max_total_series, max_new_series_per_minute or the input’s max_active_series.',
  invalid_labels: 'Labels without a metric name, with a name twice or empty, with bad UTF-8, or longer than the limits.',
  invalid_symbols: 'The table of symbols of a remote write 2.0 request is broken.',
  invalid_histogram: 'A native histogram that contradicts itself.',
  invalid_exemplar: 'An exemplar that is too long or has bad labels.',
  invalid_series: 'A series or a scrape that is malformed in another way.',
  overwrite: 'Another value of the same series and time is stored, and ingest.overwrites is reject.',
  invalid_line: 'A line that can’t be read.',
  invalid_value: 'A value that is no number.',
  text: 'A field with text, and no rule that makes a label of it.',
  filtered: 'The input’s filters or relabelling leave the series out.',
  replica: 'Another replica of the cluster is elected.',
  thinned: 'A later sample of the same interval stands for it.',
  repeated: 'The same sample again.',
};

/** reasonHelp says what a reason means and what to do; empty for reasons of a newer server. */
export function reasonHelp(reason: string): string {
  return reasons[reason] ?? '';
}

/** sentence writes what the server says in passing as a sentence of its own. */
export function sentence(text: string): string {
  const t = text.trim();
  if (t === '') return '';
  return t[0]!.toUpperCase() + t.slice(1) + (/[.!?]$/.test(t) ? '' : '.');
}
