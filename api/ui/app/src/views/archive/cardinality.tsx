// The cardinality explorer: which labels and values make the series, and what those take. A click on a label lists its
// values, a click on a value looks at the series that have it. What it shows is in the address.
import { useEffect, useState } from 'preact/hooks';
import { ApiError, get } from '../../core/api';
import { bytes, compact, count, ratio } from '../../core/format';
import { usePoll } from '../../core/poll';
import { href, navigate, useRoute } from '../../core/router';
import { Bar, Button, Card, Empty, ErrorBox, errorText, Field, Loading, Table } from '../../core/ui';
import { missing } from '../pipeline/action';
import { Breakable } from '../pipeline/details';
import { SortChoice } from './metrics';
import type { Cardinality, CardinalityLabels, CardinalitySort } from './model';
import { exploreQuery, labelName, matchOf, quote, readExploration, windows, within, writeExploration, type Exploration } from './selectors';

/** It may read much of the index, so it is asked for rarely by itself. */
const pollSeconds = 300;
const steps = [20, 100, 500, 2000];

interface Answer {
  /** of is the exploration that was asked about: the answer may be of the one before while the next is under way. */
  of: string;
  labels?: CardinalityLabels;
  values?: Cardinality;
}

function go(e: Exploration): void {
  navigate('archive', writeExploration(e));
}

export function CardinalityExplorer() {
  const route = useRoute();
  const e = readExploration(route.params);
  const match = matchOf(e);
  const [limit, setLimit] = useState(steps[0]!);
  const key = writeExploration(e).toString();
  useEffect(() => setLimit(steps[0]!), [e.label, e.typed, key]);
  const { data, error, loading, reload } = usePoll(async (signal): Promise<Answer> => {
    const params = { 'match[]': match ?? undefined, sort: e.sort, days: e.days, limit };
    if (e.label === '') return { of: key, labels: await get<CardinalityLabels>('status/cardinality', params, signal) };
    return { of: key, values: await get<Cardinality>('status/cardinality', { ...params, label: e.label }, signal) };
  }, pollSeconds, [key, limit]);
  const names = usePoll((signal) => get<string[]>('labels', { limit: 5000 }, signal), 0);

  if (missing(error)) {
    return <Card title="Cardinality"><Empty testid="cardinality-table">Not available in this build of the server.</Empty></Card>;
  }
  const wrong = match === null ? 'Only a plain selector, such as up{job="node"}, can be narrowed by clicks. Remove the values below, or type a selector.'
    : error instanceof ApiError && error.status === 400 ? errorText(error) : undefined;
  const fresh = data?.of === key;
  const total = data?.values ?? data?.labels;
  return (
    <Card
      title="Cardinality" note={total && fresh ? `${compact(total.series)} series, ${bytes(total.bytes)}` : undefined}
      actions={<SortChoice sort={e.sort} onChange={(sort) => go({ ...e, sort })} />}
    >
      <div class="stack">
        <Controls e={e} names={names.data ?? []} wrong={wrong} />
        <Trail e={e} />
        {!wrong && <ErrorBox error={error} retry={reload} title={data ? 'Not up to date:' : undefined} />}
        <div class={fresh ? '' : 'stale'} aria-busy={loading && !fresh}>
          {!data || (error && !fresh) ? !error && <Loading text="Counting series…" />
            : data.values ? <Values e={e} answer={data.values} />
            : data.labels && <Labels e={e} answer={data.labels} limit={limit} />}
          {data && fresh && <More left={left(data, limit)} limit={limit} onMore={setLimit} />}
        </div>
        <p class="dim foot-note">Bytes are an estimate of what the samples of these days take: each series has an equal part of its metric.{total && total.bytes === 0 && total.series > 0 && ' Nothing of these days is in files yet, so they are 0.'}</p>
      </div>
    </Card>
  );
}

/** drawnBy is by what rows are drawn: by series where nothing is in files yet, whose bytes could be told. */
function drawnBy(e: Exploration, total: { bytes: number }): CardinalitySort {
  return total.bytes > 0 ? e.sort : 'series';
}

/** left is how many rows are not listed. */
function left(a: Answer, limit: number): number {
  return a.values ? a.values.left : Math.max(0, (a.labels?.labels?.length ?? 0) - limit) + (a.labels?.left ?? 0);
}

function More(props: { left: number; limit: number; onMore: (n: number) => void }) {
  const next = steps.find((n) => n > props.limit);
  if (props.left <= 0) return null;
  return (
    <p class="foot-note dim">
      and {count(props.left)} more.{' '}
      {next ? <Button small kind="quiet" onClick={() => props.onMore(next)}>Show {count(next)}</Button> : 'Narrow the selector to see them.'}
    </p>
  );
}

function Controls(props: { e: Exploration; names: string[]; wrong: string | undefined }) {
  const { e } = props;
  const [text, setText] = useState(e.typed);
  useEffect(() => setText(e.typed), [e.typed]);
  const names = e.label !== '' && !props.names.includes(e.label) ? [e.label, ...props.names] : props.names;
  const apply = () => text.trim() !== e.typed && go({ ...e, typed: text.trim() });
  return (
    <form
      class="cardinality-controls"
      onSubmit={(event) => {
        event.preventDefault();
        apply();
      }}
    >
      <Field label="Of series like" error={props.wrong} class="grow">
        {(ids) => (
          <input
            id={ids.id} type="text" class="mono" spellcheck={false} autocomplete="off" autocapitalize="off" placeholder={'all, or a selector: {job="node"}'} value={text} data-testid="cardinality-selector"
            aria-describedby={ids.describedBy} aria-invalid={ids.invalid} onInput={(event) => setText(event.currentTarget.value)} onBlur={apply}
          />
        )}
      </Field>
      <Field label="With samples in">
        {(ids) => (
          <select id={ids.id} value={String(e.days)} data-testid="cardinality-days" onChange={(event) => go({ ...e, days: Number(event.currentTarget.value) })}>
            {windows.map((n) => <option key={n} value={String(n)}>{n === 1 ? 'today' : n === 366 ? 'the last year' : `the last ${n} days`}</option>)}
          </select>
        )}
      </Field>
      <Field label="List">
        {(ids) => (
          <select id={ids.id} value={e.label} data-testid="cardinality-label" onChange={(event) => go({ ...e, label: event.currentTarget.value })}>
            <option value="">all labels</option>
            {names.map((n) => <option key={n} value={n}>values of {n}</option>)}
          </select>
        )}
      </Field>
    </form>
  );
}

/** Trail are the values that were clicked, each of which can be taken back. */
function Trail(props: { e: Exploration }) {
  const { e } = props;
  if (e.filters.length === 0 && e.label === '' && e.typed === '') return null;
  return (
    <div class="trail" data-testid="cardinality-trail">
      <Button small kind="quiet" onClick={() => go({ ...e, label: '', typed: '', filters: [] })}>All series</Button>
      {e.filters.map((f, i) => (
        <span key={`${f.name}\n${f.value}`} class="trail-chip">
          <code>{labelName(f.name)}={quote(f.value)}</code>
          <button type="button" class="chip-remove" aria-label={`Take back ${f.name} ${f.value}`} onClick={() => go({ ...e, filters: e.filters.filter((_, n) => n !== i) })}>✕</button>
        </span>
      ))}
      {e.label !== '' && <span class="dim">values of <code>{e.label}</code></span>}
    </div>
  );
}

function Labels(props: { e: Exploration; answer: CardinalityLabels; limit: number }) {
  const { e, answer } = props;
  const by = drawnBy(e, answer);
  const rows = [...(answer.labels ?? [])].sort((a, b) => b[by] - a[by] || b.values - a.values).slice(0, props.limit);
  return (
    <Table
      key={by} caption="Labels" testid="cardinality-table" rows={rows} rowKey={(l) => l.label} rowTestid={() => 'cardinality-row'} empty="No series is like this."
      sort={{ key: by, descending: true }}
      columns={[
        { key: 'label', title: 'Label', class: 'col-name', value: (l) => l.label, render: (l) => <button type="button" class="link" title={`List the values of ${l.label}`} onClick={() => go({ ...e, label: l.label })}><code><Breakable text={l.label} /></code></button> },
        { key: 'values', title: 'Values', numeric: true, value: (l) => l.values, render: (l) => count(l.values) },
        { key: 'bar', title: <span class="hidden-text">Share, drawn</span>, class: 'col-bar', render: (l) => <Bar value={l[by]} max={answer[by]} label={ratio(l[by] / answer[by])} /> },
        { key: 'series', title: 'Series', numeric: true, value: (l) => l.series, render: (l) => count(l.series) },
        { key: 'bytes', title: 'Bytes', numeric: true, value: (l) => l.bytes, render: (l) => bytes(l.bytes) },
        { key: 'share', title: 'Of these', numeric: true, render: (l) => ratio(answer[by] > 0 ? l[by] / answer[by] : 0) },
      ]}
    />
  );
}

function Values(props: { e: Exploration; answer: Cardinality }) {
  const { e, answer } = props;
  const by = drawnBy(e, answer);
  const rows = answer.values ?? [];
  const most = Math.max(1, ...rows.map((v) => v[by]));
  return (
    <Table
      key={`${answer.label} ${by}`} caption={`Values of ${answer.label}`} testid="cardinality-table" rows={rows} rowKey={(v) => v.value} rowTestid={() => 'cardinality-row'} empty={`No series that is like this has the label ${answer.label}.`}
      sort={{ key: by, descending: true }}
      columns={[
        {
          key: 'value', title: <>Value of {answer.label}</>, class: 'col-name', value: (v) => v.value,
          render: (v) => (
            <button type="button" class="link" title="Look at the series that have it" onClick={() => go({ ...e, label: '', filters: [...e.filters.filter((f) => f.name !== answer.label), { name: answer.label, value: v.value }] })}>
              {v.value === '' ? <em>without it</em> : <code><Breakable text={v.value} /></code>}
            </button>
          ),
        },
        { key: 'bar', title: <span class="hidden-text">Share, drawn</span>, class: 'col-bar', render: (v) => <Bar value={v[by]} max={most} label={ratio(v[by] / answer[by])} /> },
        { key: 'series', title: 'Series', numeric: true, value: (v) => v.series, render: (v) => count(v.series) },
        { key: 'bytes', title: 'Bytes', numeric: true, value: (v) => v.bytes, render: (v) => bytes(v.bytes) },
        { key: 'share', title: 'Of these', numeric: true, render: (v) => ratio(answer[by] > 0 ? v[by] / answer[by] : 0) },
        { key: 'explore', title: <span class="hidden-text">Explore</span>, class: 'col-actions', render: (v) => <ExploreLink e={e} label={answer.label} value={v.value} /> },
      ]}
    />
  );
}

function ExploreLink(props: { e: Exploration; label: string; value: string }) {
  const filters = [...props.e.filters.filter((f) => f.name !== props.label), { name: props.label, value: props.value }];
  const match = within(props.e.typed, filters);
  if (match === null) return null;
  const q = exploreQuery(match, filters.some((f) => f.name === '__name__') || /^[a-zA-Z_:]/.test(match));
  return <a href={href('explore', new URLSearchParams({ q, from: `now-${Math.min(30, props.e.days)}d` }))} aria-label={`Explore ${props.label} ${props.value}`}>Explore</a>;
}
