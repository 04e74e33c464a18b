// Queries that wait or run, with a button to end one.
import { del, get } from '../../core/api';
import { count, durationText, duration, time } from '../../core/format';
import { usePoll } from '../../core/poll';
import { Badge, Button, Card, Empty, ErrorBox, Loading, Table } from '../../core/ui';
import { missing, OutcomeLine, useActions, useAdminOff } from './action';
import type { RunningQuery } from './model';

const pollSeconds = 2;

export function Queries() {
  const { data, error, reload } = usePoll((signal) => get<RunningQuery[] | null>('status/queries', undefined, signal), pollSeconds);
  const actions = useActions();
  const off = useAdminOff();
  const end = (q: RunningQuery) => async () => {
    await actions.run('The query was not ended', () => del(`status/queries/${encodeURIComponent(q.id)}`), 'The query was ended. Whoever asked gets an error.');
    reload();
  };
  return (
    <Card title="Running queries" note={data && data.length > 0 ? `${count(data.length)} at the moment` : undefined}>
      {!missing(error) && <ErrorBox error={error} retry={reload} title={data ? 'Not up to date:' : undefined} />}
      <OutcomeLine actions={actions} testid="queries-outcome" />
      {missing(error) ? <Empty testid="queries-table">Not available in this build of the server.</Empty> : data === undefined ? !error && <Loading /> : (
        <Table
          caption="Running queries, the oldest first" testid="queries-table" rows={data ?? []} rowKey={(q) => q.id} empty={<Empty>No query waits or runs at the moment.</Empty>}
          columns={[
            { key: 'query', title: 'Query', class: 'col-query', render: (q) => <code class="query-text">{q.query}</code> },
            { key: 'phase', title: 'Phase', render: (q) => <Badge kind={q.phase === 'waiting' || q.phase === 'queued' ? 'warn' : 'accent'}>{q.phase}</Badge> },
            { key: 'seconds', title: 'For', numeric: true, value: (q) => q.seconds, render: (q) => duration(q.seconds) },
            { key: 'range', title: 'Range (UTC)', render: (q) => range(q) },
            { key: 'parts', title: 'Parts', numeric: true, render: (q) => count(q.parts) },
            { key: 'series', title: 'Series', numeric: true, value: (q) => q.series, render: (q) => count(q.series) },
            { key: 'client', title: 'Asked by', render: (q) => q.client || <span class="dim">–</span> },
            {
              key: 'end', title: <span class="hidden-text">Actions</span>, class: 'col-actions',
              render: (q) => <Button small kind="quiet" disabled={off !== ''} title={off} label="End this query" confirm="End it?" testid={`query-end-${q.id}`} onClick={end(q)}>End</Button>,
            },
          ]}
        />
      )}
    </Card>
  );
}

/** range is the time that a query is about, and its step. */
function range(q: RunningQuery) {
  if (q.start === q.end || q.stepSeconds === 0) return <span class="tabular">at {time(q.end, 'utc')}</span>;
  const length = Date.parse(q.end) - Date.parse(q.start);
  return (
    <span class="tabular" title={`${time(q.start, 'utc')} to ${time(q.end, 'utc')}`}>
      {duration(length / 1000)} to {time(q.end, 'utc').slice(0, 16)}
      <span class="sub">step {durationText(q.stepSeconds * 1000)}</span>
    </span>
  );
}
