// The metrics that take most.
import { useState } from 'preact/hooks';
import { get } from '../../core/api';
import { bytes, compact, count, ratio } from '../../core/format';
import { usePoll } from '../../core/poll';
import { href } from '../../core/router';
import { Bar, Button, Card, Empty, ErrorBox, Loading, Table } from '../../core/ui';
import { missing } from '../pipeline/action';
import { Breakable } from '../pipeline/details';
import type { Cardinality, CardinalitySort } from './model';
import { exploreQuery, selector } from './selectors';

const pollSeconds = 120;
const windowDays = 30;
const steps = [12, 50, 200, 1000];

export function Metrics() {
  const [sort, setSort] = useState<CardinalitySort>('bytes');
  const [limit, setLimit] = useState(steps[0]!);
  const { data, error, reload } = usePoll((signal) => get<Cardinality>('status/cardinality', { label: '__name__', sort, limit, days: windowDays }, signal), pollSeconds, [sort, limit]);
  const rows = data?.values ?? [];
  // Before anything is in files there are no bytes to draw.
  const by = data && data.bytes > 0 ? sort : 'series';
  const most = Math.max(1, ...rows.map((v) => v[by]));
  const more = steps.find((n) => n > limit);
  return (
    <Card
      title="Bytes by metric" note={data && `${compact(rows.length + data.left)} metrics`}
      actions={<SortChoice sort={sort} onChange={setSort} />}
    >
      {!missing(error) && <ErrorBox error={error} retry={reload} title={data ? 'Not up to date:' : undefined} />}
      {missing(error) ? <Empty testid="metrics-table">Not available in this build of the server.</Empty> : !data ? !error && <Loading /> : (
        <>
          <Table
            caption="Metrics, the largest first" testid="metrics-table" rows={rows} rowKey={(v) => v.value} empty="There is no metric yet."
            columns={[
              {
                key: 'metric', title: 'Metric', class: 'col-name',
                render: (v) => <a href={href('explore', new URLSearchParams({ q: exploreQuery(selector([{ name: '__name__', value: v.value }]), true), from: 'now-1d' }))} title="Explore it"><code><Breakable text={v.value} /></code></a>,
              },
              { key: 'bar', title: <span class="hidden-text">Share, drawn</span>, class: 'col-bar', render: (v) => <Bar value={v[by]} max={most} label={ratio(v[by] / data[by])} /> },
              { key: 'bytes', title: 'Bytes', numeric: true, render: (v) => bytes(v.bytes) },
              { key: 'series', title: 'Series', numeric: true, render: (v) => count(v.series) },
              { key: 'each', title: 'Bytes a series', numeric: true, class: 'col-wide', render: (v) => (v.series > 0 ? bytes(v.bytes / v.series) : '–') },
            ]}
          />
          {data.left > 0 && (
            <p class="foot-note dim">
              and {count(data.left)} more. {more && <Button small kind="quiet" onClick={() => setLimit(more)}>Show {count(more)}</Button>}
            </p>
          )}
          <p class="foot-note dim">Of the last {count(data.days ?? windowDays)} days. Bytes are an estimate.</p>
        </>
      )}
    </Card>
  );
}

/** SortChoice is by what is sorted and drawn. */
export function SortChoice(props: { sort: CardinalitySort; onChange: (sort: CardinalitySort) => void }) {
  return (
    <div class="row" role="group" aria-label="Sorted by">
      {(['bytes', 'series'] as const).map((s) => (
        <Button key={s} small kind="quiet" pressed={props.sort === s} onClick={() => props.onChange(s)}>by {s}</Button>
      ))}
    </div>
  );
}
