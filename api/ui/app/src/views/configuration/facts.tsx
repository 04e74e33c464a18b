// Facts of the build and of the process, and its flags.
import { useMemo, useState } from 'preact/hooks';
import type { ComponentChildren } from 'preact';
import { get } from '../../core/api';
import { ago, bytes, count, timeWithZone } from '../../core/format';
import { usePage } from '../../core/page';
import { usePoll } from '../../core/poll';
import { Badge, Card, Empty, ErrorBox, Field, Loading, Table } from '../../core/ui';
import { missing } from '../pipeline/action';

interface Row {
  name: string;
  value: ComponentChildren;
}

function Pairs(props: { caption: string; rows: Row[]; testid: string }) {
  return (
    <Table
      caption={props.caption} testid={props.testid} rows={props.rows} rowKey={(r) => r.name}
      columns={[
        { key: 'name', title: 'What', class: 'col-what', render: (r) => r.name },
        { key: 'value', title: 'Value', class: 'col-value', render: (r) => r.value },
      ]}
    />
  );
}

const none = <span class="dim">–</span>;

interface Build {
  version: string;
  revision: string;
  branch: string;
  buildUser: string;
  buildDate: string;
  goVersion: string;
}

export function BuildFacts() {
  const { facts } = usePage();
  const { data, error, reload } = usePoll((signal) => get<Build>('status/buildinfo', undefined, signal), 0);
  return (
    <Card title="Build">
      {!missing(error) && <ErrorBox error={error} retry={reload} />}
      {missing(error) ? <Empty testid="build-table">Not available in this build of the server.</Empty> : !data ? !error && <Loading /> : (
        <Pairs
          caption="Facts of the build" testid="build-table"
          rows={[
            { name: 'Varve', value: <strong>{facts?.version || data.branch.replace(/^varve-/, '') || none}</strong> },
            { name: 'Revision', value: (facts?.revision || data.revision) ? <code>{facts?.revision || data.revision}</code> : none },
            { name: 'Built', value: data.buildDate || none },
            { name: 'Go', value: facts?.goVersion || data.goVersion },
            { name: 'Prometheus API', value: <>as of {data.version} <span class="dim">(what clients such as Grafana are told)</span></> },
            { name: 'Canary', value: facts?.canary === undefined ? none : facts.canary ? 'on' : 'off' },
          ]}
        />
      )}
    </Card>
  );
}

interface Runtime {
  startTime: string;
  CWD: string;
  hostname: string;
  serverTime: string;
  reloadConfigSuccess: boolean;
  lastConfigTime: string;
  corruptionCount: number;
  goroutineCount: number;
  GOMAXPROCS: number;
  GOMEMLIMIT: number;
  GOGC: string;
  GODEBUG: string;
  storageRetention: string;
}

/** GOMEMLIMIT is the largest number of an int64 where there is no limit. */
const noLimit = 2 ** 62;

export function RuntimeFacts() {
  const { facts } = usePage();
  const { data, error, reload, at } = usePoll((signal) => get<Runtime>('status/runtimeinfo', undefined, signal), 15);
  const skew = data ? Date.parse(data.serverTime) - at : 0;
  return (
    <Card title="Runtime">
      {!missing(error) && <ErrorBox error={error} retry={reload} title={data ? 'Not up to date:' : undefined} />}
      {missing(error) ? <Empty testid="runtime-table">Not available in this build of the server.</Empty> : !data ? !error && <Loading /> : (
        <Pairs
          caption="Facts of the process" testid="runtime-table"
          rows={[
            { name: 'Started', value: <>{ago(data.startTime)} <span class="dim">{timeWithZone(data.startTime)}</span></> },
            { name: 'Clock of the server', value: <>{timeWithZone(data.serverTime)}{Math.abs(skew) > 5000 && <> <Badge kind="warn">{Math.round(Math.abs(skew) / 1000)} s {skew > 0 ? 'ahead of' : 'behind'} yours</Badge></>}</> },
            { name: 'Configuration', value: <>{data.reloadConfigSuccess ? <Badge kind="good">in effect</Badge> : <Badge kind="bad">the last reload failed</Badge>} <span class="dim">read {ago(data.lastConfigTime)}</span></> },
            { name: 'Host', value: data.hostname || none },
            { name: 'Directory', value: <code>{data.CWD}</code> },
            { name: 'URL', value: facts?.externalURL ? <code>{facts.externalURL}</code> : none },
            { name: 'Caller', value: facts === undefined ? none : facts.caller || <span class="dim">nobody has to log in</span> },
            { name: 'Admin actions', value: facts === undefined ? none : facts.admin ? 'on' : <>off <span class="dim">(--web.enable-admin-api)</span></> },
            { name: 'Reload and stop', value: facts === undefined ? none : facts.lifecycle ? 'on' : <>off <span class="dim">(--web.enable-lifecycle)</span></> },
            { name: 'Goroutines', value: count(data.goroutineCount) },
            { name: 'Cores that Go may use', value: count(data.GOMAXPROCS) },
            { name: 'Memory limit of Go', value: data.GOMEMLIMIT > 0 && data.GOMEMLIMIT < noLimit ? bytes(data.GOMEMLIMIT) : 'none' },
            { name: 'GOGC', value: data.GOGC || 'default' },
            ...(data.GODEBUG ? [{ name: 'GODEBUG', value: <code>{data.GODEBUG}</code> }] : []),
            { name: 'Retention', value: data.storageRetention || 'forever' },
          ]}
        />
      )}
    </Card>
  );
}

export function Flags() {
  const { data, error, reload } = usePoll((signal) => get<Record<string, string>>('status/flags', undefined, signal), 0);
  const [wanted, setWanted] = useState('');
  const rows = useMemo(
    () => Object.entries(data ?? {}).filter(([name, value]) => `--${name}=${value}`.toLowerCase().includes(wanted.trim().toLowerCase())).sort(([a], [b]) => (a < b ? -1 : 1)),
    [data, wanted],
  );
  return (
    <Card title="Flags" note="as the server was started, with defaults">
      {!missing(error) && <ErrorBox error={error} retry={reload} />}
      {missing(error) ? <Empty testid="flags-table">Not available in this build of the server.</Empty> : !data ? !error && <Loading /> : (
        <div class="stack">
          <Field label="Filter the flags" hideLabel>
            {(ids) => <input id={ids.id} type="search" placeholder="Filter" value={wanted} data-testid="flags-filter" autocomplete="off" spellcheck={false} onInput={(e) => setWanted(e.currentTarget.value)} />}
          </Field>
          <Table
            caption="Flags and their values" testid="flags-table" rows={rows} rowKey={([name]) => name} empty="No flag is like this."
            columns={[
              { key: 'name', title: 'Flag', class: 'col-what', render: ([name]) => <code>--{name}</code> },
              { key: 'value', title: 'Value', class: 'col-value', render: ([, value]) => (value === '' ? none : <code>{value}</code>) },
            ]}
          />
        </div>
      )}
    </Card>
  );
}
