// The compactor: what it is at, what is due, which days wait, and the levers.
import { useEffect, useMemo, useState } from 'preact/hooks';
import { get, post } from '../../core/api';
import { bytes, count, duration, time } from '../../core/format';
import { usePoll } from '../../core/poll';
import { Badge, Button, Card, Empty, ErrorBox, Fact, Loading, Table } from '../../core/ui';
import { Dialog, missing, OutcomeLine, useActions, useAdminOff } from './action';
import { Progress } from './details';
import { sentence, waitingDays, waitsFor, type CompactorStatus } from './model';

/** The answer names every day there is, so it is asked for less often where there are many. */
function pollSeconds(status: CompactorStatus | undefined): number {
  const busy = status !== undefined && (status.running !== '' || (status.planned ?? []).length > 0);
  const days = status?.days?.length ?? 0;
  return days > 2000 ? 30 : busy && days < 400 ? 3 : 10;
}

const plannedShown = 8;
const daysShown = 10;

export function Compactor() {
  const [seconds, setSeconds] = useState(10);
  const { data, error, reload } = usePoll((signal) => get<CompactorStatus>('status/compactor', undefined, signal), seconds);
  useEffect(() => setSeconds(pollSeconds(data)), [data]);
  const actions = useActions();
  const off = useAdminOff();
  const [forcing, setForcing] = useState(false);

  const act = (verb: string, failed: string, done: string) => async () => {
    await actions.run(failed, () => post(`admin/compactor/${verb}`), done);
    reload();
  };
  return (
    <Card
      title="Compactor" testid="compactor" note="seals days that are over, rolls them up, and lets old ones expire"
      actions={
        <>
          <Button
            small testid="compactor-run" disabled={off !== ''} title={off || 'Look for work now instead of at the next interval'} confirm="Look for work now?"
            onClick={act('run', 'The compactor was not started', 'The compactor looks for work now.')}
          >
            Run now
          </Button>
          {data?.paused ? (
            <Button small testid="compactor-resume" disabled={off !== ''} title={off} confirm="Resume it?" onClick={act('resume', 'The compactor was not resumed', 'The compactor goes on.')}>Resume</Button>
          ) : (
            <Button
              small testid="compactor-pause" disabled={off !== ''} title={off || 'Stop background work until it is resumed, or until the server is started again'} confirm="Pause it?"
              onClick={act('pause', 'The compactor was not paused', 'The compactor pauses once the batch under way is written. Samples are taken and answered as before.')}
            >
              Pause
            </Button>
          )}
        </>
      }
    >
      {!missing(error) && <ErrorBox error={error} retry={reload} title={data ? 'Not up to date:' : undefined} />}
      <OutcomeLine actions={actions} testid="compactor-outcome" />
      {missing(error) ? <Empty>Not available in this build of the server.</Empty> : !data ? !error && <Loading /> : (
        <div class="stack">
          <Now data={data} />
          {data.lastError !== '' && <p class="note-box note-bad"><strong>The last job failed, and will be tried again:</strong> {data.lastError}</p>}
          {data.unforced !== '' && (
            <div class="note-box note-warn note-action">
              <span><strong>Something is past its age and waits to be forced:</strong> {sentence(data.unforced)}</span>
              <Button small kind="danger" disabled={off !== ''} title={off} testid="compactor-force" onClick={() => setForcing(true)}>Let it expire…</Button>
            </div>
          )}
          <Days data={data} />
        </div>
      )}
      {forcing && (
        <Dialog
          title="Let it expire" testid="force" confirm="Remove it for good" danger onClose={() => setForcing(false)}
          onConfirm={async () => {
            await actions.run('Nothing was forced', () => post('admin/compactor/run?force=true'), 'What is past its age is being removed.');
            reload();
          }}
        >
          <p>{sentence(data?.unforced ?? '')}</p>
          <ul class="consequences">
            <li>What is past its age leaves the disk for good. Nothing but a snapshot brings it back.</li>
            <li>The card of retention in the view Archive says which rules free how much.</li>
          </ul>
        </Dialog>
      )}
    </Card>
  );
}

/** Now is the job under way and those that are due. */
function Now(props: { data: CompactorStatus }) {
  const { data } = props;
  const planned = data.planned ?? [];
  // The job under way is the first of those that were due when it began.
  const rest = planned.filter((p) => p !== data.running);
  const waiting = waitingDays(data.days).length;
  return (
    <>
      <dl class="facts">
        <Fact name="Now">
          {data.paused ? <Badge kind="warn">paused</Badge> : data.running !== '' ? <Badge kind="accent">{data.running}</Badge> : <Badge kind="good">idle</Badge>}
          {data.running !== '' && <span class="dim"> for {duration(Math.round(data.runningSeconds))}</span>}
        </Fact>
        <Fact name="Due" hint={rest.length > 0 ? 'jobs, in this order' : 'jobs'}>{count(rest.length)}</Fact>
        <Fact name="Days that wait" hint={`of ${count(data.days?.length ?? 0)}`}>{count(waiting)}</Fact>
        <Fact name="Held by queries" hint="days whose space is free when their readers end">{count(data.heldDays)}</Fact>
      </dl>
      {rest.length > 0 && (
        <p class="planned">
          {rest.slice(0, plannedShown).map((p, i) => <code key={`${p}${i}`} class="chip">{p}</code>)}
          {rest.length > plannedShown && <span class="dim">and {count(rest.length - plannedShown)} more</span>}
        </p>
      )}
    </>
  );
}

function Days(props: { data: CompactorStatus }) {
  const days = props.data.days ?? [];
  const [all, setAll] = useState(false);
  const waiting = useMemo(() => waitingDays(days), [days]);
  const sealed = days.filter((d) => d.sealed && !d.unsealed && d.rolled && !d.dirty).length;
  const shown = all ? waiting.slice(0, 500) : waiting.slice(0, daysShown);
  return (
    <div class="stack" data-testid="compactor-days">
      {days.length > 0 && (
        <div>
          <div class="progress-line">
            <span>{count(sealed)} of {count(days.length)} days are sealed and rolled up</span>
          </div>
          <Progress done={sealed} total={days.length} label={`${sealed} of ${days.length} days are sealed and rolled up`} />
        </div>
      )}
      {waiting.length === 0 ? (
        <p class="dim">{days.length === 0 ? 'No day has samples on disk yet. The first appear when open runs are cut, after 15 minutes or less.' : 'No day waits for anything.'}</p>
      ) : (
        <Table
          caption="Days that wait, the newest first" rows={shown} rowKey={(d) => d.day}
          columns={[
            { key: 'day', title: 'Day (UTC)', class: 'col-tight', render: (d) => d.day },
            { key: 'waits', title: 'Waits for', render: (d) => waitsFor(d) },
            { key: 'runs', title: 'Runs', numeric: true, render: (d) => bytes(d.runBytes) },
            { key: 'bundles', title: 'Sealed', numeric: true, render: (d) => bytes(d.bundleBytes) },
            { key: 'sealed', title: 'Last sealed', class: 'col-tight', render: (d) => (d.sealed ? time(d.sealed) : <span class="dim">never</span>) },
          ]}
        />
      )}
      {waiting.length > daysShown && (
        <div><Button small kind="quiet" onClick={() => setAll(!all)}>{all ? 'Show fewer' : `Show all ${count(Math.min(500, waiting.length))}`}</Button></div>
      )}
    </div>
  );
}
