// Archive: how much there is, where the bytes go, whether it is whole, and what will be let go.
import '../pipeline/style.css';
import './style.css';
import type { ComponentChildren } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import { get } from '../../core/api';
import { usePoll } from '../../core/poll';
import { Card, Empty, ErrorBox, Loading } from '../../core/ui';
import { AdminNote, missing } from '../pipeline/action';
import { CardinalityExplorer } from './cardinality';
import { Days } from './daysview';
import { Facts, Families, Resolutions } from './facts';
import { IntegrityCard } from './integrity';
import { Metrics } from './metrics';
import type { ArchiveStatus } from './model';
import { Retention } from './retention';

const pollSeconds = 30;
/** While a check runs its progress is worth looking at more often. */
const checkingSeconds = 3;

export default function Archive() {
  const [seconds, setSeconds] = useState(pollSeconds);
  const status = usePoll((signal) => get<ArchiveStatus>('status/archive', undefined, signal), seconds);
  const check = status.data?.integrity?.check;
  const checking = !!check && !check.finished;
  useEffect(() => setSeconds(checking ? checkingSeconds : pollSeconds), [checking]);

  const of = (show: (s: ArchiveStatus) => ComponentChildren, testid: string) =>
    status.data ? show(status.data)
      : missing(status.error) ? <Empty testid={testid}>Not available in this build of the server.</Empty>
      : !status.error && <Loading />;
  return (
    <>
      <h1 class="hidden-text">Archive</h1>
      <AdminNote />
      <Card title="Archive">
        {!missing(status.error) && <ErrorBox error={status.error} retry={status.reload} title={status.data ? 'Not up to date:' : undefined} />}
        {of((s) => <Facts status={s} />, 'archive-facts')}
      </Card>
      <Days />
      <div class="columns columns-uneven">
        <Card title="Bytes by resolution">{of((s) => <Resolutions status={s} />, 'resolutions-table')}</Card>
        <IntegrityCard status={status.data} error={status.error} reload={status.reload} />
      </div>
      <CardinalityExplorer />
      <div class="columns columns-wide">
        <Metrics />
        <Card title="Bytes by column family" note="what is in files, as RocksDB keeps them">{of((s) => <Families status={s} />, 'families-table')}</Card>
      </div>
      <Retention resolutions={status.data?.resolutions ?? undefined} />
    </>
  );
}
