// The answers at one time, as a table.
import { useState } from 'preact/hooks';
import { Button, Empty } from '../../core/ui';
import { count, timeWithZone, useZone, value as valueText, type Zone } from '../../core/format';
import { seriesName, type HistogramSample, type QueryData } from './result';
import { queryName } from './state';
import type { Outcome } from './run';

/** pageRows is how many rows are shown first, and then at a time. */
const pageRows = 200;

interface Row {
  name: string;
  value: string;
  at: number;
}

/** histogramText says what is in a native histogram, in a line. */
export function histogramText(h: HistogramSample): string {
  const n = h.buckets?.length ?? 0;
  return `histogram: count ${h.count}, sum ${h.sum}, ${n} ${n === 1 ? 'bucket' : 'buckets'}`;
}

/** rowsOf lists what an answer has: of a vector one row a series, of a matrix one a sample. */
export function rowsOf(data: QueryData): Row[] {
  switch (data.resultType) {
    case 'vector':
      return data.result.map((s) => ({
        name: seriesName(s.metric),
        value: s.histogram ? histogramText(s.histogram[1]) : (s.value?.[1] ?? ''),
        at: (s.value?.[0] ?? s.histogram?.[0] ?? NaN) * 1000,
      }));
    case 'matrix':
      return data.result.flatMap((s) => {
        // One text for all samples of a series, of which there may be very many.
        const name = seriesName(s.metric);
        return [
          ...(s.values ?? []).map(([at, v]) => ({ name, value: v, at: at * 1000 })),
          ...(s.histograms ?? []).map(([at, h]) => ({ name, value: histogramText(h), at: at * 1000 })),
        ];
      });
    case 'scalar':
      return [{ name: 'scalar', value: data.result[1], at: data.result[0] * 1000 }];
    case 'string':
      return [{ name: 'string', value: data.result[1], at: data.result[0] * 1000 }];
  }
}

export function ResultTable(props: { outcomes: readonly Outcome[]; at: number }) {
  const zone = useZone();
  const answered = props.outcomes.filter((o) => o.instant);
  return (
    <div data-testid="result-table" class="stack">
      {answered.map((o) => <OneTable key={o.index} outcome={o} zone={zone} titled={answered.length > 1} at={props.at} />)}
    </div>
  );
}

function OneTable(props: { outcome: Outcome; zone: Zone; titled: boolean; at: number }) {
  const [shown, setShown] = useState(pageRows);
  const data = props.outcome.instant!;
  const rows = rowsOf(data);
  // A sample of a matrix has its own time; of a vector they are all that of the evaluation.
  const times = data.resultType === 'matrix';
  if (rows.length === 0) {
    return (
      <Empty title={props.titled ? `Query ${queryName(props.outcome.index)}: no series` : 'No series at this time'}>
        Nothing matched at {timeWithZone(props.at, props.zone)}. Look for the name with completion, or choose another time.
      </Empty>
    );
  }
  return (
    <div>
      <div class="table-scroll" tabIndex={0} role="region" aria-label={`Result of query ${queryName(props.outcome.index)}`}>
        <table class="result">
          <caption class={props.titled ? 'result-caption' : 'hidden-text'}>Query {queryName(props.outcome.index)}, {rows.length === 1 ? '1 row' : `${count(rows.length)} rows`}</caption>
          <thead>
            <tr>
              <th scope="col">Series</th>
              {times && <th scope="col">Time</th>}
              <th scope="col" class="num">Value</th>
            </tr>
          </thead>
          <tbody>
            {rows.slice(0, shown).map((r, i) => (
              <tr key={i}>
                <td class="mono wrap">{r.name}</td>
                {times && <td class="tabular nowrap">{timeWithZone(r.at, props.zone)}</td>}
                <td class="num mono" title={Number.isFinite(Number(r.value)) ? valueText(Number(r.value)) : undefined}>{r.value}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {rows.length > shown && (
        <div class="more">
          <span class="dim">{count(shown)} of {count(rows.length)} rows</span>
          <Button small onClick={() => setShown(shown + pageRows * 5)}>Show more</Button>
        </div>
      )}
    </div>
  );
}
