// What the server tells of its archive: shapes of the JSON of status/archive, status/days, status/cardinality and
// status/retention.

/** ArchiveStatus is status/archive. */
export interface ArchiveStatus {
  /** diskBytes are those of tables, otherBytes of the archive's other files: the log of what is not in tables yet, and the reserve. */
  diskBytes: number;
  otherBytes?: number;
  freeBytes: number;
  series: number;
  /** samples are those of sealed days. */
  samples: number;
  bytesPerSample: number;
  /** readOnly is why writes are refused at the moment, empty if they aren't. */
  readOnly: string | boolean;
  families: FamilySize[] | null;
  resolutions: ResolutionSize[] | null;
  integrity?: Integrity;
}

export interface FamilySize {
  name: string;
  bytes: number;
}

/** ResolutionSize is what is kept of samples (raw), or of the buckets of a length, which are counted as samples. */
export interface ResolutionSize {
  resolution: string;
  days: number;
  samples: number;
  bytes: number;
  oldest?: string | null;
  newest?: string | null;
}

export interface Integrity {
  faultsSinceStart: number;
  lastFault?: { at: string; text: string } | null;
  check?: Check | null;
}

/** Check is a check of the data, under way or the last one since the start. */
export interface Check {
  started: string;
  finished?: string | null;
  done: number;
  total: number;
  unit: string;
  faults: string[] | null;
  by: string;
  /** reading is the kind of data that is read. */
  reading?: string;
  /** faultCount counts all, faults are the first. */
  faultCount?: number;
  /** error is why it ended before it was done, empty if it didn't. */
  error?: string;
}

/** ArchiveDay is an entry of status/days, the newest first. */
export interface ArchiveDay {
  day: string;
  /**
   * state is open (not over), waiting (to be sealed), sealing, sealed, late (sealed, and samples came since) or expired
   * (only buckets are left).
   */
  state: string;
  samples: number;
  bytes: number;
  bytesPerSample: number;
  /** pendingBytes are those of runs that are not sealed. */
  pendingBytes: number;
  sealed?: string | null;
  /** held and owed say why the day can't be sealed, or expire, now: a delete, or the output that waits for samples of it. */
  held?: boolean;
  owed?: string;
  rollups?: { resolution: string; state: string; buckets: number; bytes: number }[] | null;
}

export type CardinalitySort = 'bytes' | 'series';

/** Cardinality is status/cardinality with a label. */
export interface Cardinality {
  label: string;
  series: number;
  bytes: number;
  /** days is how many days, up to today, were looked at. */
  days?: number;
  values: CardinalityValue[] | null;
  /** left is the number of values that are not listed. */
  left: number;
}

export interface CardinalityValue {
  value: string;
  series: number;
  bytes: number;
}

/** CardinalityLabels is status/cardinality without a label. */
export interface CardinalityLabels {
  series: number;
  bytes: number;
  days?: number;
  labels: { label: string; values: number; series: number; bytes: number }[] | null;
  left?: number;
}

/** RetentionStatus is status/retention. */
export interface RetentionStatus {
  today: string;
  rules: RetentionRule[] | null;
  levels: RetentionLevel[] | null;
  diskBytes: number;
  /** sizeLimit is retention_size, 0 for none. */
  sizeLimit: number;
  /** dropping tells that what has expired waits for queries that began before. */
  dropping: boolean;
  next?: { why: string; floors: RetentionLevel[] | null; trims: string[] | null; bytes: number; totalBytes: number; waits: string };
  kept: string;
}

export interface RetentionRule {
  match: string;
  keep: RetentionKeep[];
}

export interface RetentionKeep {
  level: string;
  for: string;
  before?: string;
  series: number;
  samples: number;
  bytes: number;
}

export interface RetentionLevel {
  level: string;
  floor?: string;
}

const families: Record<string, string> = {
  raw: 'Samples of sealed days',
  rollups: 'Buckets of rollups',
  hot: 'Samples of days that are not sealed',
  journal: 'Log of arrivals, which outputs read',
  clocks: 'Timestamps that series share',
  series: 'Label sets of series',
  symbols: 'Names and values of labels',
  lookup: 'Label sets to series',
  index: 'Labels to series, by month',
  active: 'Series with samples, by day',
  metadata: 'Types, units and help texts of metrics',
  exemplars: 'Exemplars',
  tombstones: 'Deletes',
  dirty: 'Series to roll up again',
  gaps: 'What outputs are owed',
  expired: 'Series that expired of days that stay',
  meta: 'The archive’s own records',
};

/** familyWord says what a column family holds; empty for those of a newer server. */
export function familyWord(name: string): string {
  const from = /^rollups_(.+)$/.exec(name)?.[1];
  if (from) return `Buckets of rollups${from === '1ms' ? '' : `, of ${from} and longer`}`;
  return families[name] ?? '';
}

/** levelWord is a resolution as people read it. */
export function levelWord(level: string): string {
  return level === 'raw' ? 'raw samples' : `buckets of ${level}`;
}

const states: Record<string, string> = {
  open: 'It is not over, and takes samples.',
  waiting: 'It is over, and waits to be sealed.',
  sealing: 'It is being sealed.',
  sealed: 'Its samples are one chunk a series.',
  late: 'It was sealed, and samples came since. They join it at the next sealing.',
  expired: 'Its samples are past their age. Buckets of it are left.',
};

/** dayStateHelp says what a state of a day means; empty for those of a newer server. */
export function dayStateHelp(state: string): string {
  return states[state] ?? '';
}
