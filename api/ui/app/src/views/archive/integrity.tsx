// Integrity: faults that were met, and the check that reads everything and compares checksums.
import { post } from '../../core/api';
import { ago, bytes, count, duration, timeWithZone } from '../../core/format';
import { Badge, Button, Card, Empty, ErrorBox, Fact, Loading } from '../../core/ui';
import { missing, OutcomeLine, useActions, useAdminOff } from '../pipeline/action';
import { Progress } from '../pipeline/details';
import type { ArchiveStatus, Check } from './model';

const faultsShown = 50;

export function IntegrityCard(props: { status: ArchiveStatus | undefined; error: unknown; reload: () => void }) {
  const integrity = props.status?.integrity;
  const check = integrity?.check ?? undefined;
  const running = check !== undefined && !check.finished;
  const actions = useActions();
  const off = useAdminOff();
  const act = (verb: 'run' | 'stop', failed: string, done: string) => async () => {
    await actions.run(failed, () => post(`admin/check/${verb}`), done);
    props.reload();
  };
  return (
    <Card
      title="Integrity" testid="integrity" note="every read compares checksums; a check reads everything"
      actions={running ? (
        <Button small disabled={off !== ''} title={off} testid="check-stop" confirm="Stop it?" onClick={act('stop', 'The check was not stopped', 'The check was stopped. What it found so far stays below.')}>Stop the check</Button>
      ) : (
        <Button
          small disabled={off !== '' || !integrity} title={off || 'Reads all data in the background, at a bounded rate'} testid="check-run" confirm="Read everything now?"
          onClick={act('run', 'The check was not started', 'The check runs in the background, at a bounded rate. This page need not stay open.')}
        >
          Check the data
        </Button>
      )}
    >
      <OutcomeLine actions={actions} testid="integrity-outcome" />
      {missing(props.error) ? <Empty>Not available in this build of the server.</Empty>
        : !props.status ? <ErrorBoxOrLoading error={props.error} />
        : !integrity ? <Empty>Not available in this build of the server.</Empty>
        : (
          <div class="stack">
            <dl class="facts">
              <Fact name="Faults since the start" hint={integrity.faultsSinceStart > 0 ? 'met by reads and checks' : 'every checksum was right'} testid="integrity-faults">
                {integrity.faultsSinceStart > 0 ? <Badge kind="bad">{count(integrity.faultsSinceStart)}</Badge> : <Badge kind="good">none</Badge>}
              </Fact>
              <Fact name="Last check" hint={check?.finished ? timeWithZone(check.finished) : running ? `since ${timeWithZone(check.started)}` : 'since the server started'}>
                {running ? 'under way' : check?.finished ? ago(check.finished) : 'none'}
              </Fact>
            </dl>
            {integrity.lastFault && (
              <p class="note-box note-bad">
                <strong>The last fault</strong>, {ago(integrity.lastFault.at)}: {integrity.lastFault.text}
                <span class="sub">Restore the last good snapshot with varve snapshot restore, or ask varve check data which days are hit.</span>
              </p>
            )}
            {check && <CheckState check={check} />}
          </div>
        )}
    </Card>
  );
}

function ErrorBoxOrLoading(props: { error: unknown }) {
  return props.error ? <ErrorBox error={props.error} /> : <Loading />;
}

/** amount is a number of a check's unit. */
function amount(n: number, unit: string): string {
  return unit === 'bytes' ? bytes(n) : `${count(n)} ${unit}`;
}

function CheckState(props: { check: Check }) {
  const { check } = props;
  const began = Date.parse(check.started);
  const seconds = ((check.finished ? Date.parse(check.finished) : Date.now()) - began) / 1000;
  const rate = seconds > 0 ? check.done / seconds : 0;
  const left = !check.finished && rate > 0 && check.total > check.done && seconds > 5 ? (check.total - check.done) / rate : undefined;
  const whole = check.total > 0 && check.done >= check.total;
  const faults = check.faults ?? [];
  const found = Math.max(faults.length, check.faultCount ?? 0);
  return (
    <div class="stack" data-testid="check-state">
      <div>
        <div class="progress-line">
          <span>
            {!check.finished ? 'Reading' : whole ? 'Read all of' : 'Ended early: read'} {amount(check.done, check.unit)}{!whole && ` of ${amount(check.total, check.unit)}`}
            {!check.finished && check.reading && <span class="dim">, now {check.reading}</span>}
            {check.by !== '' && <span class="dim">, asked for by {check.by}</span>}
          </span>
          <span class="dim tabular">
            {check.finished ? `took ${duration(Math.round(seconds))}` : `${amount(Number(rate.toPrecision(2)), check.unit)}/s${left === undefined ? '' : `, ${duration(Math.ceil(left))} left`}`}
          </span>
        </div>
        <Progress done={check.done} total={check.total} label="The check of the data" />
      </div>
      {check.error && <p class="note-box note-warn">{check.error}</p>}
      {found > 0 ? (
        <div class="note-box note-bad">
          <strong>{count(found)} {found === 1 ? 'fault' : 'faults'}</strong>
          <ul class="faults">{faults.slice(0, faultsShown).map((f, i) => <li key={i}>{f}</li>)}</ul>
          {found > Math.min(faults.length, faultsShown) && <span>and {count(found - Math.min(faults.length, faultsShown))} more: run varve check data to see all.</span>}
        </div>
      ) : check.finished && <p class="dim">{whole ? 'It found no fault.' : 'It found no fault in what it read.'}</p>}
    </div>
  );
}
