// Inputs: what comes in by each, how fast, and what is refused and why.
import { useEffect, useMemo, useState } from 'preact/hooks';
import { get, isAbort } from '../../core/api';
import { ago, bytes, compact, count } from '../../core/format';
import { usePoll } from '../../core/poll';
import { Badge, Card, CopyText, Empty, ErrorBox, Loading, Table, type Column } from '../../core/ui';
import { missing } from './action';
import { countInputs, inputMetrics, parseMetrics, Rates, total, type InputCounts } from './counters';
import { DetailTable, Spark } from './details';
import { kindWord, reasonHelp, stateTone, stateWord, type InputStatus, type Refusal } from './model';

const pollSeconds = 5;

/** rates outlives a visit of the view, so that coming back shows figures at once. */
const rates = new Rates();

interface Loaded {
  inputs: InputStatus[];
  /** counts are undefined where the caller may not read /metrics. */
  counts: Map<string, InputCounts> | undefined;
}

async function load(signal: AbortSignal): Promise<Loaded> {
  const [inputs, counts] = await Promise.all([get<InputStatus[] | null>('status/inputs', undefined, signal), loadCounts(signal)]);
  if (counts) {
    const flat = new Map<string, number>();
    for (const [name, c] of counts) {
      flat.set(`${name}\nsamples`, c.samples);
      flat.set(`${name}\nbytes`, c.wireBytes);
      flat.set(`${name}\nrequests`, c.requests);
      flat.set(`${name}\nrejected`, total(c.rejected));
    }
    rates.observe(Date.now(), flat);
  }
  return { inputs: inputs ?? [], counts };
}

/** loadCounts reads the few metrics that it needs. Without the right to, or where /metrics is elsewhere, there are none. */
async function loadCounts(signal: AbortSignal): Promise<Map<string, InputCounts> | undefined> {
  const query = new URLSearchParams(inputMetrics.map((name) => ['name[]', name]));
  try {
    const response = await fetch(`metrics?${query}`, { signal, headers: { Accept: 'text/plain' }, cache: 'no-store', credentials: 'same-origin' });
    return response.ok ? countInputs(parseMetrics(await response.text())) : undefined;
  } catch (error) {
    if (isAbort(error)) throw error;
    return undefined;
  }
}

interface Row extends InputStatus {
  counts: InputCounts | undefined;
  /** ended is an input that counters tell of and that is not there any more. */
  ended: boolean;
}

export function Inputs() {
  const { data, error, reload } = usePoll(load, pollSeconds);
  const rows = useMemo(() => (data ? makeRows(data) : []), [data]);
  const columns = useMemo(() => makeColumns(data?.counts !== undefined), [data?.counts !== undefined]);
  return (
    <Card title="Inputs" note="what comes in, and what is refused">
      {!missing(error) && <ErrorBox error={error} retry={reload} title={data ? 'Not up to date:' : undefined} />}
      {missing(error) ? <Empty testid="inputs-table">Not available in this build of the server.</Empty>
        : !data ? !error && <Loading />
        : (
          <>
            <DetailTable
              caption="What each input takes and refuses" testid="inputs-table" columns={columns} rows={rows} rowKey={(r) => r.name} details={(r) => <InputDetails row={r} />}
              empty={<Empty title="No inputs">Every way in is closed. The section inputs of the configuration opens them.</Empty>}
            />
            {data.counts === undefined && (
              <p class="dim foot-note">Rates and refusals are read from <code>metrics</code>, which this user may not read: give the group debug in web.rules.</p>
            )}
          </>
        )}
    </Card>
  );
}

function makeRows(data: Loaded): Row[] {
  const rows: Row[] = data.inputs.map((i) => ({ ...i, counts: data.counts?.get(i.name), ended: false }));
  const there = new Set(rows.map((r) => r.name));
  for (const [name, counts] of data.counts ?? []) {
    if (there.has(name) || (counts.samples === 0 && total(counts.rejected) === 0)) continue;
    rows.push({ name, kind: name === 'varve' ? 'self_scrape' : '', state: name === 'varve' ? 'running' : 'ended', counts, ended: name !== 'varve' });
  }
  return rows;
}

function makeColumns(counted: boolean): Column<Row>[] {
  const rate = (r: Row, of: string) => rates.perSecond(`${r.name}\n${of}`);
  const columns: Column<Row>[] = [
    { key: 'name', title: 'Input', value: (r) => r.name, render: (r) => <strong>{r.name}</strong> },
    { key: 'kind', title: 'Kind', class: 'col-wide', value: (r) => r.kind, render: (r) => kindText(r) },
    { key: 'state', title: 'State', value: (r) => r.state, render: (r) => <StateBadge state={r.state} error={r.error} /> },
  ];
  if (!counted) return columns;
  return [
    ...columns,
    { key: 'rate', title: <span title="over the last minute">Samples/s</span>, numeric: true, value: (r) => rate(r, 'samples') ?? -1, render: (r) => perSecond(rate(r, 'samples')) },
    { key: 'spark', title: <span class="hidden-text">Samples a second of late</span>, class: 'col-spark col-wide', render: (r) => <Spark values={rates.history(`${r.name}\nsamples`)} /> },
    { key: 'bytes', title: 'Bytes/s', numeric: true, value: (r) => rate(r, 'bytes') ?? -1, render: (r) => byteRate(r.counts?.wireBytes ? rate(r, 'bytes') : undefined) },
    { key: 'requests', title: 'Requests/s', numeric: true, value: (r) => rate(r, 'requests') ?? -1, render: (r) => perSecond(rate(r, 'requests')) },
    { key: 'samples', title: 'Samples', numeric: true, value: (r) => r.counts?.samples ?? 0, render: (r) => <span title={count(r.counts?.samples)}>{compact(r.counts?.samples ?? 0)}</span> },
    {
      key: 'refused', title: 'Refused', numeric: true, value: (r) => total(r.counts?.rejected ?? {}),
      render: (r) => {
        const n = total(r.counts?.rejected ?? {});
        return <span class={n > 0 ? 'tone-warn' : 'dim'} title={count(n)}>{compact(n)}</span>;
      },
    },
  ];
}

function kindText(r: Row): string {
  return r.kind === 'self_scrape' ? 'the server’s own metrics' : kindWord(r.kind);
}

/** perSecond is a rate, with a dash before there is one. */
function perSecond(r: number | undefined): string {
  return r === undefined ? '–' : compact(Number(r.toPrecision(3)));
}

/** byteRate has a dash for inputs that don't count bytes, such as scraping. */
function byteRate(r: number | undefined): string {
  return r === undefined ? '–' : bytes(r);
}

const badgeKinds = { good: 'good', busy: 'accent', warn: 'warn', bad: 'bad', off: 'neutral' } as const;

export function StateBadge(props: { state: string; error?: string }) {
  return <Badge kind={badgeKinds[stateTone(props.state)]} {...(props.error ? { title: props.error } : {})}>{stateWord(props.state)}</Badge>;
}

interface ReasonRow {
  reason: string;
  count: number;
  told: boolean;
  example: string;
  at: string | undefined;
}

/** reasonRows joins counters with the examples that the server keeps. */
function reasonRows(row: Row): ReasonRow[] {
  const examples = new Map<string, Refusal>((row.refusals ?? []).map((r) => [r.reason, r]));
  const out: ReasonRow[] = [];
  const rejected = { ...row.counts?.rejected };
  for (const r of row.refusals ?? []) rejected[r.reason] ??= r.count;
  for (const [reason, n] of Object.entries(rejected)) out.push({ reason, count: n, told: true, example: examples.get(reason)?.example ?? '', at: examples.get(reason)?.at });
  for (const [reason, n] of Object.entries(row.counts?.dropped ?? {})) out.push({ reason, count: n, told: false, example: '', at: undefined });
  return out.sort((a, b) => Number(b.told) - Number(a.told) || b.count - a.count);
}

function InputDetails(props: { row: Row }) {
  const { row } = props;
  const reasons = reasonRows(row);
  return (
    <div class="details">
      {row.error && <p class="note-box note-bad">{row.error}</p>}
      <dl class="pairs">
        {row.kind !== '' && <Pair name="Kind">{kindText(row)}</Pair>}
        {row.address && <Pair name="Address"><CopyText text={row.address} label="the address" /></Pair>}
        {row.paths && row.paths.length > 0 && <Pair name="Paths">{row.paths.map((p) => <code key={p} class="chip">{p}</code>)}</Pair>}
        {row.counts && <Pair name="Requests">{count(row.counts.requests)}{row.counts.failedRequests > 0 && <span class="tone-warn">, {count(row.counts.failedRequests)} not taken</span>}</Pair>}
        {row.counts && <Pair name="Also written">{count(row.counts.exemplars)} exemplars, {count(row.counts.metadata)} metadata</Pair>}
        {row.counts && <Pair name="In flight">{bytes(row.counts.inFlightBytes)}</Pair>}
      </dl>
      {reasons.length > 0 ? (
        <Table
          caption={`Refusals of ${row.name}, since the server started`} showCaption rows={reasons} rowKey={(r) => `${r.told}${r.reason}`}
          columns={[
            { key: 'reason', title: 'Reason', render: (r) => <><code>{r.reason}</code>{!r.told && <span class="dim"> by your rules, the sender was not told</span>}</> },
            { key: 'count', title: 'Samples', numeric: true, render: (r) => count(r.count) },
            { key: 'help', title: 'Means', render: (r) => reasonHelp(r.reason), class: 'col-text' },
            { key: 'example', title: 'What a sender was told', render: (r) => (r.example ? <><code class="example">{r.example}</code>{r.at && <span class="sub">{ago(r.at)}</span>}</> : <span class="dim">–</span>), class: 'col-text' },
          ]}
        />
      ) : row.counts && <p class="dim">Nothing was refused since the server started.</p>}
      {row.detail !== undefined && row.detail !== null && <RawDetail detail={row.detail} />}
    </div>
  );
}

/** RawDetail is what an input of its kind tells beyond the rest, as the server writes it. */
function RawDetail(props: { detail: unknown }) {
  const [shown, setShown] = useState(false);
  const [text, setText] = useState('');
  useEffect(() => {
    if (shown) setText(JSON.stringify(props.detail, null, 2).slice(0, 20_000));
  }, [shown, props.detail]);
  return (
    <details onToggle={(e) => setShown((e.currentTarget as HTMLDetailsElement).open)}>
      <summary>All that the input tells</summary>
      <pre tabIndex={0}>{text}</pre>
    </details>
  );
}

function Pair(props: { name: string; children: preact.ComponentChildren }) {
  return <div class="pair"><dt>{props.name}</dt><dd>{props.children}</dd></div>;
}
