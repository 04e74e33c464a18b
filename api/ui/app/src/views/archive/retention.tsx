// Retention: what the rules keep, what they are about to free, and when.
import { get } from '../../core/api';
import { bytes, compact, count, ratio } from '../../core/format';
import { usePoll } from '../../core/poll';
import { href } from '../../core/router';
import { Bar, Card, Empty, ErrorBox, Loading, Table } from '../../core/ui';
import { missing } from '../pipeline/action';
import { sentence } from '../pipeline/model';
import { levelWord, type ResolutionSize, type RetentionKeep, type RetentionStatus } from './model';
import { reaches, when } from './words';

const pollSeconds = 60;

interface Row {
  key: string;
  /** match is empty but for a rule's first row. */
  match: string;
  keep: RetentionKeep;
}

export function Retention(props: { resolutions: readonly ResolutionSize[] | undefined }) {
  const { data, error, reload } = usePoll((signal) => get<RetentionStatus>('status/retention', undefined, signal), pollSeconds);
  const rows = (data?.rules ?? []).flatMap((r, n) => r.keep.map((keep, i): Row => ({ key: `${n} ${keep.level}`, match: i === 0 ? r.match || 'every other series' : '', keep })));
  return (
    <Card title="Retention" note={data?.today ? `what each rule keeps and frees, as of ${data.today}` : 'what each rule keeps and frees'}>
      {!missing(error) && <ErrorBox error={error} retry={reload} title={data ? 'Not up to date:' : undefined} />}
      {missing(error) ? <Empty testid="retention-table">Not available in this build of the server.</Empty> : !data ? !error && <Loading /> : (
        <div class="stack">
          <NextPass status={data} resolutions={props.resolutions} />
          <SizeLimit status={data} />
          <Table
            caption="Rules of retention" testid="retention-table" rows={rows} rowKey={(r) => r.key}
            empty={<Empty title="Everything is kept forever">The section retention of the configuration says otherwise: how long samples and the buckets of each resolution are kept, by selector.</Empty>}
            columns={[
              { key: 'match', title: 'Series', class: 'col-name', render: (r) => (r.match ? <code>{r.match}</code> : '') },
              { key: 'level', title: 'Keeps', class: 'col-tight', render: (r) => levelWord(r.keep.level) },
              { key: 'for', title: 'For', render: (r) => r.keep.for },
              { key: 'before', title: 'From day', class: 'col-tight', render: (r) => r.keep.before ?? <span class="dim">the first</span> },
              { key: 'series', title: 'Frees series', numeric: true, render: (r) => frees(r.keep, count(r.keep.series)) },
              { key: 'samples', title: 'Frees samples', numeric: true, render: (r) => frees(r.keep, compact(r.keep.samples)) },
              { key: 'bytes', title: 'Frees bytes', numeric: true, render: (r) => frees(r.keep, bytes(r.keep.bytes)) },
              { key: 'when', title: 'When', class: 'col-text', render: (r) => when(r.keep, data, props.resolutions) },
            ]}
          />
          <p class="dim foot-note">Bytes are before compression. What is past its age is hidden from queries at once; it leaves the disk when the compactor has rolled up its day.</p>
        </div>
      )}
    </Card>
  );
}

function frees(keep: RetentionKeep, text: string) {
  return keep.samples > 0 || keep.bytes > 0 ? text : <span class="dim">–</span>;
}

function NextPass(props: { status: RetentionStatus; resolutions: readonly ResolutionSize[] | undefined }) {
  const { next, kept, dropping } = props.status;
  const floors = (next?.floors ?? []).filter((f) => reaches(f, props.resolutions));
  const trims = next?.trims ?? [];
  return (
    <>
      {next && (
        <div class={`note-box ${next.waits ? 'note-warn' : ''}`} data-testid="retention-next">
          <strong>{next.waits ? 'Waits to be forced' : 'Goes when the compactor looks next'}:</strong>{' '}
          {bytes(next.bytes)} of {bytes(next.totalBytes)} ({ratio(next.totalBytes > 0 ? next.bytes / next.totalBytes : 0)}), {next.why}.
          {floors.length > 0 && <> Days before {floors.map((f) => `${f.floor ?? '–'} (${f.level})`).join(', ')} go.</>}
          {trims.length > 0 && <> Of {count(trims.length)} {trims.length === 1 ? 'day' : 'days'} some series go{trims.length <= 5 ? ` (${trims.join(', ')})` : ''}.</>}
          {next.waits && <> {sentence(next.waits)} <a href={href('pipeline')}>The compactor, in Pipeline, lets it go.</a></>}
        </div>
      )}
      {dropping && <p class="note-box">What has expired leaves the disk when the queries that began before have ended.</p>}
      {kept !== '' && <p class="note-box note-warn"><strong>Kept although past their age:</strong> {sentence(kept)}</p>}
    </>
  );
}

function SizeLimit(props: { status: RetentionStatus }) {
  const { diskBytes, sizeLimit } = props.status;
  if (sizeLimit === 0) return null;
  return (
    <div>
      <div class="progress-line">
        <span>{bytes(diskBytes)} of {bytes(sizeLimit)} that retention_size allows</span>
        <span class="dim">{ratio(diskBytes / sizeLimit)}</span>
      </div>
      <Bar value={diskBytes} max={sizeLimit} label={`${bytes(diskBytes)} of ${bytes(sizeLimit)}`} />
    </div>
  );
}
