// Snapshots: copies of the archive in object storage. What is there, what is under way, when the next is due.
import { useEffect, useState } from 'preact/hooks';
import { get, post } from '../../core/api';
import { ago, bytes, count, duration, timeWithZone } from '../../core/format';
import { usePoll } from '../../core/poll';
import { Badge, Button, Card, Empty, ErrorBox, Fact, Loading, Table } from '../../core/ui';
import { missing, OutcomeLine, useActions, useAdminOff, type Actions, type Outcome } from './action';
import { Progress } from './details';
import type { Snapshot, SnapshotJob, SnapshotStatus, VerifyReport } from './model';

const shownFirst = 8;

export function Snapshots() {
  const [seconds, setSeconds] = useState(10);
  const status = usePoll((signal) => get<SnapshotStatus>('status/snapshots', undefined, signal), seconds);
  const { data, error, reload } = status;
  useEffect(() => setSeconds(data?.running ? 2 : 10), [data?.running !== undefined]);
  const actions = useActions();
  const off = useAdminOff();
  return (
    <Card
      title="Snapshots" testid="snapshots" note="copies of the archive in object storage"
      actions={data?.configured && (
        <Button
          small testid="snapshot-create" disabled={off !== '' || data.running !== undefined} title={off || (data.running ? 'One job at a time: wait for the one under way' : '')} confirm="Make one now?"
          onClick={async () => {
            await actions.run('No snapshot was begun', () => post('admin/snapshots'), 'A snapshot is being made.');
            reload();
          }}
        >
          Make a snapshot
        </Button>
      )}
    >
      {!missing(error) && <ErrorBox error={error} retry={reload} title={data ? 'Not up to date:' : undefined} />}
      <OutcomeLine actions={actions} testid="snapshots-outcome" />
      {missing(error) ? <Empty>Not available in this build of the server.</Empty>
        : !data ? !error && <Loading />
        : !data.configured ? (
          <Empty title="No place for snapshots is configured">
            Name a file with the storage in <code>snapshots.objstore_config_file</code>: a folder, S3, GCS or Azure. Set <code>snapshots.every</code> to have them made by themselves.
          </Empty>
        ) : <Configured data={data} off={off} actions={actions} />}
    </Card>
  );
}

function Configured(props: { data: SnapshotStatus; off: string; actions: Actions }) {
  const { data } = props;
  return (
    <div class="stack">
      {data.closed && <p class="note-box note-warn">{data.closed}</p>}
      {data.running && <Running job={data.running} />}
      {data.lastFailure && (
        <p class="note-box note-bad"><strong>The last {jobWord(data.lastFailure.job)} failed</strong> {ago(data.lastFailure.at)}: {data.lastFailure.error}</p>
      )}
      <dl class="facts">
        <Fact name="In the storage">{count(data.snapshots)}</Fact>
        <Fact name="Newest" hint={data.lastSuccess ? timeWithZone(data.lastSuccess.taken) : 'make one, or set a schedule'}>{data.lastSuccess ? ago(data.lastSuccess.taken) : 'none yet'}</Fact>
        {data.lastSuccess && <Fact name="Its size" hint={`${bytes(data.lastSuccess.sentBytes)} were new and sent`}>{bytes(data.lastSuccess.bytes)}</Fact>}
        <Fact name="Next" hint={data.next ? timeWithZone(data.next) : 'snapshots.every is 0s'}>{data.next ? ago(data.next) : 'only when asked'}</Fact>
      </dl>
      {props.off === '' ? <List changed={`${data.snapshots} ${data.lastSuccess?.id ?? ''}`} actions={props.actions} /> : <p class="dim">The list of snapshots is for administrators.</p>}
    </div>
  );
}

function jobWord(job: string): string {
  return job === 'create' ? 'snapshot' : job === 'prune' ? 'removal of old snapshots' : job;
}

const phases: Record<string, string> = {
  sealing: 'sealing what is due',
  checkpoint: 'making a checkpoint',
  hashing: 'hashing files',
  waiting: 'waiting for a removal by another process',
  comparing: 'looking what the storage has',
  uploading: 'sending files',
  checking: 'checking what was sent',
  manifest: 'writing the manifest',
  reading: 'reading manifests',
  removing: 'removing files',
};

function Running(props: { job: SnapshotJob }) {
  const { job } = props;
  const what = job.job === 'create' ? 'A snapshot is being made' : job.job === 'prune' ? 'Old snapshots are being removed' : job.job;
  return (
    <div class="running" data-testid="snapshot-running">
      <div class="progress-line">
        <span><strong>{what}</strong>: {phases[job.phase] ?? (job.phase || 'beginning')}</span>
        <span class="dim tabular">
          {job.filesTotal > 0 && `${count(job.filesDone)} of ${count(job.filesTotal)} files, ${bytes(job.bytesDone)} of ${bytes(job.bytesTotal)}, `}
          for {duration(Math.max(0, Math.round((Date.now() - Date.parse(job.since)) / 1000)))}
        </span>
      </div>
      <Progress done={job.bytesTotal > 0 ? job.bytesDone : job.filesDone} total={job.bytesTotal > 0 ? job.bytesTotal : job.filesTotal} label={what} />
      {job.bytesSent + job.bytesReused > 0 && <span class="dim">{bytes(job.bytesSent)} sent, {bytes(job.bytesReused)} there already</span>}
    </div>
  );
}

/** List asks for what is in the storage rarely, since that may cost money, and whenever the number or the newest changes. */
function List(props: { changed: string; actions: Actions }) {
  const { data, error, reload } = usePoll((signal) => get<Snapshot[] | null>('admin/snapshots', undefined, signal), 300, [props.changed]);
  const [all, setAll] = useState(false);
  if (error) return <ErrorBox error={error} retry={reload} />;
  if (data === undefined) return <Loading text="Listing the storage…" />;
  const rows = data ?? [];
  return (
    <>
      <Table
        caption="Snapshots in the storage, the newest first" testid="snapshots-table" rows={all ? rows.slice(0, 1000) : rows.slice(0, shownFirst)} rowKey={(s) => s.object}
        empty="There is none yet."
        columns={[
          {
            key: 'taken', title: 'Taken', class: 'col-tight',
            render: (s) => (
              <>
                {timeWithZone(s.taken)}{' '}
                {s.damaged && <Badge kind="bad" title={s.damaged}>damaged</Badge>}
                {s.foreign && <Badge title="Another program or another archive made it">not of this archive</Badge>}
                <span class="sub mono">{s.id ?? s.object}</span>
              </>
            ),
          },
          { key: 'series', title: 'Series', numeric: true, render: (s) => count(s.series) },
          { key: 'days', title: 'Days', numeric: true, render: (s) => count(s.days) },
          { key: 'bytes', title: 'Size', numeric: true, render: (s) => bytes(s.bytes) },
          { key: 'sent', title: 'Sent for it', numeric: true, render: (s) => bytes(s.sentBytes) },
          {
            key: 'verify', title: <span class="hidden-text">Actions</span>, class: 'col-actions',
            render: (s) => s.id && !s.foreign && (
              <Button small kind="quiet" label={`Verify snapshot ${s.id}`} title="Read all of its files and compare their hashes" confirm="Read all its files?" onClick={() => verify(props.actions, s.id!)}>Verify</Button>
            ),
          },
        ]}
      />
      {rows.length > shownFirst && <div><Button small kind="quiet" onClick={() => setAll(!all)}>{all ? 'Show fewer' : `Show all ${count(Math.min(1000, rows.length))}`}</Button></div>}
      <p class="dim foot-note">Restore one with <code>varve snapshot restore</code> into an empty directory.</p>
    </>
  );
}

function verify(actions: Actions, id: string): Promise<boolean> {
  return actions.run(
    `Snapshot ${id} was not verified`,
    () => post<VerifyReport>(`admin/snapshots/${encodeURIComponent(id)}/verify?contents=true`),
    (r): Outcome => {
      const faults = r.faults ?? [];
      const first = faults[0];
      return first
        ? { good: false, text: `Snapshot ${id} has ${count(faults.length)} faults. The first: ${first.path || first.object}: ${first.text}. Make another one now.` }
        : { good: true, text: `Snapshot ${id} is whole: ${count(r.files)} files, ${bytes(r.readBytes)} read in ${duration(r.tookNanos / 1e9)}.` };
    },
  );
}
