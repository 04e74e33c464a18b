// Days: bytes a sample and sizes over time, a calendar, and the table of one year.
import { useCallback, useEffect, useMemo, useState } from 'preact/hooks';
import { Chart } from '../../core/chart';
import { bytes, bytesPerSample, compact, count, time, useZone } from '../../core/format';
import { usePoll } from '../../core/poll';
import { href } from '../../core/router';
import { Badge, Button, Card, Empty, ErrorBox, Field, Loading, Table, type BadgeKind } from '../../core/ui';
import { missing } from '../pipeline/action';
import { Calendar, Legend, measureWords } from './calendar';
import { chartDays, dayText, measures, parseDay, yearDays, yearOf, type Measure } from './days';
import { forgetDays, loadDays } from './daysload';
import { dayStateHelp, type ArchiveDay } from './model';

const pollSeconds = 60;
const pageRows = 14;
/** pointsMax keeps a chart readable: more points are joined to weeks or months. */
const pointsMax = 420;

export function Days() {
  const { data, error, reload, loading } = usePoll(loadDays, pollSeconds);
  return (
    <Card
      title="Days" note="what a sample takes, without the timestamps that series share, and how large each day is"
      actions={<Button small kind="quiet" disabled={loading} onClick={() => { forgetDays(); reload(); }}>Read all again</Button>}
    >
      {!missing(error) && <ErrorBox error={error} retry={reload} title={data ? 'Not up to date:' : undefined} />}
      {missing(error) ? <Empty>Not available in this build of the server.</Empty>
        : !data ? !error && <Loading />
        : data.length === 0 ? <Empty title="No day has samples on disk yet">Samples wait in memory and in the journal for up to 15 minutes. A day is sealed when it is over.</Empty>
        : <Known days={data} />}
    </Card>
  );
}

function Known(props: { days: ArchiveDay[] }) {
  const { days } = props;
  const byNumber = useMemo(() => new Map(days.map((d) => [parseDay(d.day), d])), [days]);
  const newest = parseDay(days[0]!.day);
  const oldest = parseDay(days.at(-1)!.day);
  const [selected, setSelected] = useState<number | undefined>();
  const [year, setYear] = useState(yearOf(newest));
  const [measure, setMeasure] = useState<Measure>('bytes');
  const years = useMemo(() => {
    const all: number[] = [];
    for (let y = yearOf(newest); y >= yearOf(oldest); y--) all.push(y);
    return all;
  }, [newest, oldest]);
  const select = useCallback((day: number | undefined) => {
    setSelected(day);
    if (day !== undefined) setYear(yearOf(day));
  }, []);
  return (
    <div class="stack">
      <Charts days={days} />
      <div class="days-bar">
        <div class="row">
          <Button small kind="quiet" label="The year before" disabled={year <= years.at(-1)!} onClick={() => setYear(year - 1)}>◀</Button>
          <Field label="Year" hideLabel>
            {(ids) => (
              <select id={ids.id} value={String(year)} data-testid="days-year" onChange={(e) => setYear(Number(e.currentTarget.value))}>
                {years.map((y) => <option key={y} value={String(y)}>{y}</option>)}
              </select>
            )}
          </Field>
          <Button small kind="quiet" label="The year after" disabled={year >= years[0]!} onClick={() => setYear(year + 1)}>▶</Button>
        </div>
        <Field label="Shade by" class="field-line">
          {(ids) => (
            <select id={ids.id} value={measure} onChange={(e) => setMeasure(e.currentTarget.value as Measure)}>
              {measures.map((m) => <option key={m} value={m}>{measureWords[m]}</option>)}
            </select>
          )}
        </Field>
      </div>
      <Calendar year={year} days={byNumber} measure={measure} selected={selected} onSelect={select} />
      <Legend measure={measure} days={days} />
      {selected !== undefined && <Selected day={selected} found={byNumber.get(selected)} onClose={() => setSelected(undefined)} />}
      <YearTable days={days} year={year} onSelect={select} />
    </div>
  );
}

const asBytes = (v: number) => bytes(v);
const asBytesPerSample = (v: number) => `${v.toFixed(2)} B`;

function Charts(props: { days: ArchiveDay[] }) {
  // Only what is sealed is drawn, so that refreshes that bring nothing new don't draw again.
  const drawn = props.days.map((d) => `${d.day} ${d.bytes} ${d.samples}`).join('\n');
  const points = useMemo(() => chartDays(props.days, pointsMax), [drawn]);
  const perSample = useMemo(() => [{ label: 'bytes a sample', values: points.bytesPerSample }], [points]);
  const sizes = useMemo(() => [{ label: points.span === 1 ? 'bytes of the day' : `bytes of ${points.span} days`, values: points.bytes }], [points]);
  if (points.seconds.length === 0) return <p class="dim" data-testid="bps-chart">No day is sealed yet: the graph begins with the first, an hour after it is over.</p>;
  const span = points.span === 1 ? 'by day' : `by ${points.span} days`;
  return (
    <div class="columns">
      <figure>
        <figcaption class="dim">Bytes a sample, {span}</figcaption>
        <Chart times={points.seconds} series={perSample} kind="lines" stepSeconds={points.span * 86400} format={asBytesPerSample} height={190} label={`Bytes a sample ${span}`} testid="bps-chart" />
      </figure>
      <figure>
        <figcaption class="dim">Size of sealed days, {span}</figcaption>
        <Chart times={points.seconds} series={sizes} kind="bars" stepSeconds={points.span * 86400} format={asBytes} height={190} label={`Size of sealed days ${span}`} testid="days-chart" />
      </figure>
    </div>
  );
}

const stateKinds: Record<string, BadgeKind> = { sealed: 'good', open: 'accent', sealing: 'accent', waiting: 'warn', late: 'warn' };

export function DayState(props: { state: string }) {
  return <Badge kind={stateKinds[props.state] ?? 'neutral'} title={dayStateHelp(props.state)}>{props.state.replaceAll('_', ' ')}</Badge>;
}

function Selected(props: { day: number; found: ArchiveDay | undefined; onClose: () => void }) {
  const { found: d } = props;
  useZone();
  const text = dayText(props.day);
  return (
    <div class="day-panel" role="region" aria-label={`Day ${text}`} aria-live="polite">
      <header class="row">
        <strong>{text}</strong>
        {d ? <DayState state={d.state} /> : <span class="dim">no samples</span>}
        {d && <a href={href('explore', new URLSearchParams({ from: `${text}T00:00:00Z`, to: `${dayText(props.day + 1)}T00:00:00Z` }))}>Explore this day</a>}
        <span class="push"><Button small kind="quiet" label="Close" onClick={props.onClose}>✕</Button></span>
      </header>
      {d && dayStateHelp(d.state) !== '' && <p class="dim">{dayStateHelp(d.state)}</p>}
      {d?.held && <p class="note-box note-warn">A delete hides samples of this day. It is not sealed until that can’t be undone any more.</p>}
      {d?.owed && <p class="note-box note-warn">The output <strong>{d.owed}</strong> waits for samples of this day, so they don’t expire yet.</p>}
      {d && (
        <dl class="pairs">
          <Pair name="Samples">{count(d.samples)}</Pair>
          <Pair name="Sealed bytes">{bytes(d.bytes)}{d.samples > 0 && <span class="dim">, {bytesPerSample(d.bytesPerSample)}</span>}</Pair>
          <Pair name="Runs that wait">{d.pendingBytes > 0 ? bytes(d.pendingBytes) : 'none'}</Pair>
          <Pair name="Last sealed">{d.sealed ? time(d.sealed) : 'never'}</Pair>
          {(d.rollups ?? []).map((r) => <Pair key={r.resolution} name={`Rollups of ${r.resolution}`}>{r.state.replaceAll('_', ' ')}{r.buckets > 0 && `, ${compact(r.buckets)} buckets`}{r.bytes > 0 && `, ${bytes(r.bytes)}`}</Pair>)}
        </dl>
      )}
    </div>
  );
}

function Pair(props: { name: string; children: preact.ComponentChildren }) {
  return <div class="pair"><dt>{props.name}</dt><dd>{props.children}</dd></div>;
}

function YearTable(props: { days: ArchiveDay[]; year: number; onSelect: (day: number) => void }) {
  const [state, setState] = useState('');
  const [page, setPage] = useState(0);
  useEffect(() => setPage(0), [props.year, state]);
  const ofYear = useMemo(() => {
    const [first, next] = yearDays(props.year);
    const [a, b] = [dayText(first), dayText(next)];
    return props.days.filter((d) => d.day >= a && d.day < b);
  }, [props.days, props.year]);
  const states = useMemo(() => [...new Set(ofYear.map((d) => d.state))].sort(), [ofYear]);
  const rows = useMemo(() => ofYear.filter((d) => state === '' || d.state === state), [ofYear, state]);
  const pages = Math.max(1, Math.ceil(rows.length / pageRows));
  const at = Math.min(page, pages - 1);
  const shown = rows.slice(at * pageRows, (at + 1) * pageRows);
  const sum = rows.reduce((total, d) => total + d.bytes + d.pendingBytes, 0);
  return (
    <div class="stack">
      <div class="days-bar">
        <span class="dim">{count(rows.length)} days of {props.year}, {bytes(sum)}</span>
        <Field label="State" class="field-line">
          {(ids) => (
            <select id={ids.id} value={state} data-testid="days-state" onChange={(e) => setState(e.currentTarget.value)}>
              <option value="">any</option>
              {states.map((s) => <option key={s} value={s}>{s.replaceAll('_', ' ')}</option>)}
            </select>
          )}
        </Field>
      </div>
      <Table
        caption={`Days of ${props.year}, the newest first`} testid="days-table" rows={shown} rowKey={(d) => d.day} empty="No day of this year is in this state."
        columns={[
          { key: 'day', title: 'Day (UTC)', class: 'col-tight', render: (d) => <button type="button" class="link" onClick={() => props.onSelect(parseDay(d.day))}>{d.day}</button> },
          { key: 'state', title: 'State', render: (d) => <DayState state={d.state} /> },
          { key: 'samples', title: 'Samples', numeric: true, render: (d) => count(d.samples) },
          { key: 'bytes', title: 'Sealed', numeric: true, render: (d) => bytes(d.bytes) },
          { key: 'bps', title: 'Bytes a sample', numeric: true, render: (d) => (d.samples > 0 ? `${d.bytesPerSample.toFixed(3)} B` : '–') },
          { key: 'pending', title: 'Not sealed', numeric: true, render: (d) => (d.pendingBytes > 0 ? bytes(d.pendingBytes) : <span class="dim">–</span>) },
          { key: 'rollups', title: 'Rollups', class: 'col-tight', render: (d) => <Rollups day={d} /> },
          { key: 'sealed', title: 'Last sealed', class: 'col-tight', render: (d) => (d.sealed ? time(d.sealed) : <span class="dim">never</span>) },
        ]}
      />
      {pages > 1 && (
        <nav class="pager" aria-label="Pages of days">
          <Button small disabled={at === 0} onClick={() => setPage(at - 1)}>Newer</Button>
          <span class="dim tabular" aria-live="polite">Page {at + 1} of {pages}</span>
          <Button small disabled={at >= pages - 1} onClick={() => setPage(at + 1)}>Older</Button>
        </nav>
      )}
    </div>
  );
}

function Rollups(props: { day: ArchiveDay }) {
  const rollups = props.day.rollups ?? [];
  if (rollups.length === 0) return <span class="dim">–</span>;
  return <>{rollups.map((r) => <span key={r.resolution} class="rollup">{r.resolution} <span class={r.state === 'dirty' ? 'tone-warn' : 'dim'}>{r.bytes > 0 ? bytes(r.bytes) : ''}{r.bytes > 0 && r.state === 'rolled' ? '' : ` ${r.state.replaceAll('_', ' ')}`}</span></span>)}</>;
}
