// What an answer says of itself: what it was made from, warnings, and what it took.
import { bytes, compact, count, duration } from '../../core/format';
import { queryName } from './state';
import type { Outcome } from './run';

/** resolutionText explains the header X-Varve-Resolution: raw; 5m,1h; raw,5m;approximate. */
export function resolutionText(header: string): { text: string; kind: 'raw' | 'exact' | 'approximate' } | undefined {
  const [list = '', ...marks] = header.split(';').map((s) => s.trim());
  const names = list.split(',').map((s) => s.trim()).filter((s) => s !== '');
  if (names.length === 0) return undefined;
  const buckets = names.filter((n) => n !== 'raw');
  if (buckets.length === 0) return { text: 'From raw samples: exact.', kind: 'raw' };
  const from = `From ${names.includes('raw') ? 'raw samples and ' : ''}buckets of ${buckets.join(' and ')}`;
  return marks.includes('approximate')
    ? { text: `${from}: approximate. Where raw samples are gone, windows were fitted to whole buckets, or buckets stand for their samples.`, kind: 'approximate' }
    : { text: `${from}: exact, the same as raw samples give.`, kind: 'exact' };
}

export function ResolutionNote(props: { outcomes: readonly Outcome[] }) {
  const said = props.outcomes.filter((o) => !o.error).map((o) => ({ o, note: resolutionText(o.resolution) })).filter((s) => s.note);
  if (said.length === 0) return <div data-testid="resolution-note" hidden />;
  const same = said.every((s) => s.o.resolution === said[0]!.o.resolution);
  const shown = same ? said.slice(0, 1) : said;
  return (
    <div class="resolution-note" data-testid="resolution-note">
      {shown.map(({ o, note }) => (
        <div key={o.index} class={`resolution resolution-${note!.kind}`}>
          <span class="resolution-mark" aria-hidden="true" />
          {!same && <strong>{queryName(o.index)}: </strong>}
          {note!.text}
        </div>
      ))}
    </div>
  );
}

export function Annotations(props: { outcomes: readonly Outcome[]; notes: readonly string[] }) {
  const several = props.outcomes.length > 1;
  const name = (o: Outcome) => (several ? `${queryName(o.index)}: ` : '');
  const warnings = props.outcomes.flatMap((o) => o.warnings.map((w) => name(o) + w));
  // What an exact answer was made from stands above the graph already.
  const infos = props.outcomes.flatMap((o) => o.infos.filter((w) => !/^PromQL info: answered from rollups of [\w,]+: exact$/.test(w)).map((w) => name(o) + w));
  return (
    <div class="annotations" data-testid="annotations" aria-live="polite">
      {warnings.map((text) => <div class="note-box note-warn" key={text}><strong>Warning:</strong> {text}</div>)}
      {props.notes.map((text) => <div class="note-box" key={text}>{text}</div>)}
      {infos.map((text) => <div class="annotation-info" key={text}>{text}</div>)}
    </div>
  );
}

/** stageNames say in words what the stages are, in the order of time. Those with a dot lie within the one before, and are added up over cores. */
const stageNames: readonly [string, string, string][] = [
  ['queue', 'execQueueTime', 'Waiting for a place'],
  ['prepare', 'queryPreparationTime', 'Preparing'],
  ['evaluate', 'innerEvalTime', 'Evaluating'],
  ['find', '', '· finding series'],
  ['load', '', '· reading chunks'],
  ['decode', '', '· decoding'],
  ['sort', 'resultSortTime', 'Sorting the result'],
  ['total', 'execTotalTime', 'All on the server'],
];

type Numbers = Record<string, number>;

/** numbersOf are the numbers of an object of which nothing is known for sure. */
export function numbersOf(value: unknown): Numbers {
  const out: Numbers = {};
  if (typeof value !== 'object' || value === null) return out;
  for (const [name, v] of Object.entries(value)) if (typeof v === 'number' && Number.isFinite(v)) out[name] = v;
  return out;
}

const part = (value: unknown, name: string): unknown => (typeof value === 'object' && value !== null ? (value as Record<string, unknown>)[name] : undefined);

interface Row {
  name: string;
  text: string;
}

/** statsRows lists what is known of what a query took. */
export function statsRows(o: Outcome): { counts: Row[]; times: Row[] } {
  const samples = numbersOf(part(o.stats, 'samples'));
  const timings = numbersOf(part(o.stats, 'timings'));
  const own = part(o.stats, 'varve');
  const facts = numbersOf(own);
  const stages = numbersOf(part(own, 'seconds'));
  const counts: Row[] = [];
  const add = (name: string, n: number | undefined, text: (n: number) => string) => {
    if (n !== undefined) counts.push({ name, text: text(n) });
  };
  add('Series read', facts['series'], count);
  add('Samples read', facts['samples'], compact);
  add('Chunks read', facts['chunks'], compact);
  add('Bytes read', facts['bytes'], bytes);
  add('Values taken from buckets', facts['rows'] || undefined, compact);
  add('Cores used', facts['parts'], count);
  add('Samples the engine saw', samples['totalQueryableSamples'], compact);
  add('Samples at a time, at most', samples['peakSamples'], compact);
  counts.push({ name: 'Answer', text: o.length < 1024 ? `${o.length} B` : bytes(o.length) });
  const rerun = part(own, 'rerun');
  if (typeof rerun === 'string' && rerun !== '') counts.push({ name: 'Evaluated again in one piece', text: rerun });
  const times: Row[] = [];
  for (const [key, upstream, name] of stageNames) {
    const seconds = stages[key] ?? timings[upstream];
    if (seconds !== undefined) times.push({ name, text: duration(seconds) });
  }
  const known = new Set(stageNames.map((s) => s[0]));
  for (const [name, seconds] of Object.entries(stages)) if (!known.has(name)) times.push({ name, text: duration(seconds) });
  times.push({ name: 'Until the page had it', text: duration(o.seconds) });
  return { counts, times };
}

export function QueryStats(props: { outcomes: readonly Outcome[] }) {
  const answered = props.outcomes.filter((o) => !o.error);
  if (answered.length === 0) return null;
  const slowest = Math.max(...answered.map((o) => o.seconds));
  const series = answered.reduce((sum, o) => sum + sizeOf(o), 0);
  return (
    <details class="card stats" data-testid="query-stats">
      <summary>
        Statistics <span class="dim">{count(series)} series, answered in {duration(slowest)}</span>
      </summary>
      <div class="stats-body">
        {answered.map((o) => {
          const rows = statsRows(o);
          return (
            <div key={o.index} class="stats-query">
              {answered.length > 1 && <h3>Query {queryName(o.index)}</h3>}
              <div class="stats-tables">
                <StatsTable caption="What was read" rows={rows.counts} />
                <StatsTable caption="Where the time went" rows={rows.times} />
              </div>
            </div>
          );
        })}
      </div>
    </details>
  );
}

function sizeOf(o: Outcome): number {
  if (o.range) return o.range.series.length + o.range.histograms.length + o.range.left;
  return o.instant && Array.isArray(o.instant.result) && (o.instant.resultType === 'vector' || o.instant.resultType === 'matrix') ? o.instant.result.length : 1;
}

function StatsTable(props: { caption: string; rows: Row[] }) {
  return (
    <table>
      <caption>{props.caption}</caption>
      <tbody>
        {props.rows.map((r) => <tr key={r.name}><th scope="row">{r.name}</th><td class="num">{r.text}</td></tr>)}
      </tbody>
    </table>
  );
}
