// Outputs: how far each is behind, what it is in trouble with, and the levers.
import { useMemo, useState } from 'preact/hooks';
import { get, post } from '../../core/api';
import { ago, bytes, compact, count, duration, timeWithZone } from '../../core/format';
import { usePoll } from '../../core/poll';
import { Button, Card, CopyText, Empty, ErrorBox, Field, Loading, Table, type Column } from '../../core/ui';
import { Dialog, missing, OutcomeLine, useActions, useAdminOff, type Actions } from './action';
import { Backlog } from './backlog';
import { Rates } from './counters';
import { DetailTable, Spark } from './details';
import { StateBadge } from './inputs';
import { kindWord, stateWord, type OutputStatus } from './model';
import { backlogWords, localInput, readLocalInput, rewindParam, rewindWords, type RewindTo } from './rewind';

const pollSeconds = 5;

// They outlive a visit of the view, so that coming back shows figures at once.
const rates = new Rates();
const backlogs = new Map<string, Backlog>();

async function load(signal: AbortSignal): Promise<OutputStatus[]> {
  const outputs = (await get<OutputStatus[] | null>('status/outputs', undefined, signal)) ?? [];
  const now = Date.now();
  rates.observe(now, new Map(outputs.map((o) => [o.name, o.totals.sent])));
  for (const name of backlogs.keys()) if (!outputs.some((o) => o.name === name)) backlogs.delete(name);
  for (const o of outputs) {
    let b = backlogs.get(o.name);
    if (!b) backlogs.set(o.name, (b = new Backlog()));
    b.observe(now, o.lag.samples);
  }
  return outputs;
}

const path = (name: string, verb: string) => `admin/outputs/${encodeURIComponent(name)}/${verb}`;

export function Outputs() {
  const { data, error, reload } = usePoll(load, pollSeconds);
  const actions = useActions();
  const off = useAdminOff();
  const [rewinding, setRewinding] = useState<string | undefined>();
  const columns = useMemo(() => makeColumns(actions, off, reload, setRewinding), [actions.run, off, reload]);
  const shown = data?.find((o) => o.name === rewinding);
  return (
    <Card title="Outputs" note="systems that what comes in is forwarded to">
      {!missing(error) && <ErrorBox error={error} retry={reload} title={data ? 'Not up to date:' : undefined} />}
      <OutcomeLine actions={actions} testid="outputs-outcome" />
      {missing(error) ? <Empty testid="outputs-table">Not available in this build of the server.</Empty>
        : !data ? !error && <Loading />
        : (
          <DetailTable
            caption="What each output sends and owes" testid="outputs-table" columns={columns} rows={data} rowKey={(o) => o.name} details={(o) => <OutputDetails o={o} />}
            empty={<Empty title="No outputs">The section outputs of the configuration names systems to forward to. Each reads the archive from a place of its own, so one that is away costs nothing but lag.</Empty>}
          />
        )}
      {shown && (
        <Rewind
          o={shown} actions={actions}
          onClose={() => {
            setRewinding(undefined);
            reload();
          }}
        />
      )}
    </Card>
  );
}

function makeColumns(actions: Actions, off: string, reload: () => void, rewind: (name: string) => void): Column<OutputStatus>[] {
  const steer = (o: OutputStatus, verb: 'pause' | 'resume', done: string) => async () => {
    await actions.run(`${o.name} could not be ${verb}d`, () => post(path(o.name, verb)), done);
    reload();
  };
  return [
    { key: 'name', title: 'Output', value: (o) => o.name, render: (o) => <strong>{o.name}</strong> },
    { key: 'kind', title: 'Kind', class: 'col-wide', value: (o) => o.kind, render: (o) => kindWord(o.kind) },
    { key: 'state', title: 'State', value: (o) => o.state, render: (o) => <StateBadge state={o.state} {...(o.error ? { error: o.error } : {})} /> },
    { key: 'lag', title: 'Behind', numeric: true, value: (o) => o.lag.seconds, render: (o) => <Lag o={o} /> },
    { key: 'waiting', title: 'Waiting', numeric: true, value: (o) => o.lag.samples, render: (o) => <Waiting o={o} /> },
    { key: 'rate', title: <span title="samples a second, over the last minute">Sent/s</span>, numeric: true, value: (o) => rates.perSecond(o.name) ?? -1, render: (o) => perSecond(rates.perSecond(o.name)) },
    { key: 'spark', title: <span class="hidden-text">Samples sent a second of late</span>, class: 'col-spark col-wide', render: (o) => <Spark values={rates.history(o.name)} /> },
    { key: 'sent', title: 'Sent', numeric: true, value: (o) => o.totals.sent, render: (o) => <span title={`${count(o.totals.sent)} samples`}>{compact(o.totals.sent)}</span> },
    { key: 'refused', title: 'Refused', numeric: true, value: (o) => o.totals.refused, render: (o) => <Trouble n={o.totals.refused} title={`${count(o.totals.refused)} samples refused by the peer`} /> },
    { key: 'letters', title: 'Dead letters', numeric: true, value: (o) => o.deadLetters.bytes, render: (o) => (o.deadLetters.bytes > 0 ? <span class="tone-warn" title={o.deadLetters.path}>{bytes(o.deadLetters.bytes)}</span> : <span class="dim">none</span>) },
    {
      key: 'actions', title: <span class="hidden-text">Actions</span>, class: 'col-actions',
      render: (o) => (
        <div class="row-actions">
          {o.state === 'paused' ? (
            <Button small disabled={off !== ''} title={off} testid={`output-resume-${o.name}`} label={`Resume ${o.name}`} confirm="Resume it?" onClick={steer(o, 'resume', `${o.name} goes on.`)}>Resume</Button>
          ) : (
            <Button
              small disabled={off !== ''} title={off || 'Stop sending until it is resumed, or until the server is started again'} testid={`output-pause-${o.name}`} label={`Pause ${o.name}`} confirm="Pause it?"
              onClick={steer(o, 'pause', `${o.name} is paused. What arrives waits in the journal.`)}
            >
              Pause
            </Button>
          )}
          <Button small disabled={off !== ''} title={off} testid={`output-rewind-${o.name}`} label={`Rewind ${o.name}`} onClick={() => rewind(o.name)}>Rewind…</Button>
        </div>
      ),
    },
  ];
}

function perSecond(r: number | undefined): string {
  return r === undefined ? '–' : compact(Number(r.toPrecision(3)));
}

function Trouble(props: { n: number; title: string }) {
  return <span class={props.n > 0 ? 'tone-warn' : 'dim'} title={props.title}>{compact(props.n)}</span>;
}

function Lag(props: { o: OutputStatus }) {
  const { lag } = props.o;
  if (lag.wholeFrom) return <span class="tone-busy" title={`It reads the archive from ${timeWithZone(lag.wholeFrom, 'utc')} on.`}>reads the past</span>;
  if (lag.seconds < 1 && lag.gapDays === 0) return <span class="dim">up to date</span>;
  return (
    <span class={lag.seconds > 60 ? 'tone-warn' : ''} {...(lag.since ? { title: `since ${timeWithZone(lag.since)}` } : {})}>
      {duration(lag.seconds < 60 ? lag.seconds : Math.round(lag.seconds))}
      {lag.gapDays > 0 && <span class="sub">{count(lag.gapDays)} days owed</span>}
    </span>
  );
}

function Waiting(props: { o: OutputStatus }) {
  const { lag, name } = props.o;
  const left = backlogs.get(name)?.secondsLeft();
  return (
    <span title={backlogWords(props.o)}>
      {compact(lag.samples)}
      <span class="sub">{bytes(lag.bytes)}{left !== undefined && lag.seconds > 60 ? `, ${duration(Math.ceil(left))} left` : ''}</span>
    </span>
  );
}

function OutputDetails(props: { o: OutputStatus }) {
  const { o } = props;
  const trend = backlogs.get(o.name)?.trend();
  return (
    <div class="details">
      {o.error && (
        <p class={o.state === 'running' || o.state === 'catching_up' ? 'note-box' : 'note-box note-bad'}>
          {o.error}
          {o.errorTime && <span class="dim"> ({ago(o.errorTime)}{o.state === 'running' ? ', over since' : ''})</span>}
        </p>
      )}
      <dl class="pairs">
        <Pair name="Kind">{kindWord(o.kind)}</Pair>
        <Pair name="Waiting">{backlogWords(o)}{trend !== undefined && Math.abs(trend) >= 1 && <span class="dim">, {trend > 0 ? 'growing' : 'shrinking'} by {compact(Math.abs(trend))} samples/s</span>}</Pair>
        <Pair name="In flight">{bytes(o.inFlightBytes)}</Pair>
        <Pair name="Sent">{count(o.totals.sent)} samples</Pair>
        <Pair name="Refused by the peer">{count(o.totals.refused)} samples</Pair>
        <Pair name="Left out by filters">{count(o.totals.filtered)} samples</Pair>
        <Pair name="Given up">{count(o.totals.dropped)} samples, by the policy of the backlog</Pair>
        <Pair name="Dead letters"><CopyText text={o.deadLetters.path} label="the path of the dead letters" /> <span class="dim">{bytes(o.deadLetters.bytes)}</span></Pair>
      </dl>
      <div class="columns">
        {o.shards.length > 0 && (
          <Table
            caption={`Shards of ${o.name}: batches that are sent at once`} showCaption rows={o.shards.map((s, i) => ({ ...s, i }))} rowKey={(s) => String(s.i)}
            columns={[
              { key: 'i', title: 'Shard', render: (s) => s.i + 1 },
              { key: 'state', title: 'State', render: (s) => <StateBadge state={s.state} /> },
              { key: 'retries', title: 'Attempts of this batch', numeric: true, render: (s) => (s.retries ? count(s.retries + 1) : '–') },
              { key: 'since', title: 'Trouble since', render: (s) => (s.since ? ago(s.since) : '–') },
            ]}
          />
        )}
        {o.queries && o.queries.length > 0 && (
          <Table
            caption={`Queries whose results ${o.name} sends`} showCaption rows={o.queries} rowKey={(q) => q.name}
            columns={[
              { key: 'name', title: 'Query', render: (q) => q.name },
              { key: 'state', title: 'State', render: (q) => <StateBadge state={q.state} /> },
              { key: 'settled', title: 'Settled up to', render: (q) => (q.settled ? timeWithZone(q.settled) : '–') },
              { key: 'at', title: 'At work on', render: (q) => (q.at ? timeWithZone(q.at) : '–') },
            ]}
          />
        )}
      </div>
    </div>
  );
}

function Pair(props: { name: string; children: preact.ComponentChildren }) {
  return <div class="pair"><dt>{props.name}</dt><dd>{props.children}</dd></div>;
}

const choices: { to: RewindTo; title: string }[] = [
  { to: 'time', title: 'To a time' },
  { to: 'beginning', title: 'To the beginning' },
  { to: 'now', title: 'To now: give up what waits' },
];

function Rewind(props: { o: OutputStatus; actions: Actions; onClose: () => void }) {
  const { o, actions } = props;
  const [to, setTo] = useState<RewindTo>('time');
  const [text, setText] = useState(() => localInput(Date.now() - 86_400_000));
  const millis = readLocalInput(text);
  const param = rewindParam(to, millis);
  const wrong = to !== 'time' ? undefined : !Number.isFinite(millis) ? 'Give a day and a time.' : millis > Date.now() ? 'That is in the future.' : undefined;
  return (
    <Dialog
      title={`Rewind ${o.name}`} testid="rewind" confirm={to === 'now' ? 'Give up what waits' : 'Send again'} danger={to === 'now'} disabled={param === '' || wrong !== undefined}
      onClose={props.onClose}
      onConfirm={() => actions.run(`${o.name} was not rewound`, () => post(`${path(o.name, 'rewind')}?${new URLSearchParams({ to: param })}`), to === 'now' ? `${o.name} goes on with what arrives from now on.` : `${o.name} was rewound and sends again.`)}
    >
      <p class="dim">It is {stateWord(o.state)}; {backlogWords(o)} wait for it.</p>
      <fieldset class="choices">
        <legend class="hidden-text">Where to</legend>
        {choices.map((c) => (
          <label key={c.to} class="choice">
            <input type="radio" name="rewind-to" value={c.to} checked={to === c.to} data-testid={`rewind-to-${c.to}`} onChange={() => setTo(c.to)} />
            {c.title}
          </label>
        ))}
      </fieldset>
      {to === 'time' && (
        <Field label="Time, UTC" error={wrong}>
          {(ids) => <input id={ids.id} type="datetime-local" value={text} aria-describedby={ids.describedBy} aria-invalid={ids.invalid} data-testid="rewind-time" onInput={(e) => setText(e.currentTarget.value)} />}
        </Field>
      )}
      <ul class="consequences" aria-live="polite" data-testid="rewind-words">
        {rewindWords(o, to, millis).map((w) => <li key={w}>{w}</li>)}
      </ul>
    </Dialog>
  );
}
