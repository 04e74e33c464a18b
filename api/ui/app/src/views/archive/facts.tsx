// Facts of the whole archive, and bytes by resolution and by column family.
import type { ComponentChildren } from 'preact';
import { bytes, compact, count, ratio } from '../../core/format';
import { Badge, Bar, Empty, Fact, Table } from '../../core/ui';
import { dayText, parseDay } from './days';
import { daysWords, spanOf } from './words';
import { familyWord, levelWord, type ArchiveStatus, type ResolutionSize } from './model';

export function Facts(props: { status: ArchiveStatus }) {
  const s = props.status;
  const taken = s.diskBytes + (s.otherBytes ?? 0);
  const disk = taken + s.freeBytes;
  const span = spanOf(s.resolutions ?? []);
  return (
    <div data-testid="archive-facts">
      <dl class="facts facts-archive">
        <Fact name="On disk" hint={`${bytes(s.diskBytes)} in tables, ${bytes(s.freeBytes)} free`} testid="fact-disk">
          <span title="Tables, the log of what is not in tables yet, and the reserve for a full disk">{bytes(taken)}</span>
        </Fact>
        <Fact name="Bytes a sample" hint="of sealed days" testid="fact-bps">{s.samples > 0 ? `${s.bytesPerSample.toFixed(s.bytesPerSample < 10 ? 3 : 1)} B` : '–'}</Fact>
        <Fact name="Samples" hint="of sealed days" testid="fact-samples"><span title={count(s.samples)}>{compact(s.samples)}</span></Fact>
        <Fact name="Series" hint="that have a record" testid="fact-series"><span title={count(s.series)}>{compact(s.series)}</span></Fact>
        <Fact name="Time" hint={span ? `${dayText(span[0])} to ${dayText(span[1])}` : 'no day is sealed yet'} testid="fact-span">{span ? daysWords(span[1] - span[0] + 1) : '–'}</Fact>
        <Fact name="State" hint={s.readOnly ? (typeof s.readOnly === 'string' ? s.readOnly : 'damage or a full disk: see the log') : 'takes samples'} testid="fact-state">
          {s.readOnly ? <Badge kind="bad">read only</Badge> : <Badge kind="good">writable</Badge>}
        </Fact>
      </dl>
      <Bar value={taken} max={disk} label={`The archive takes ${bytes(taken)} of ${bytes(disk)} that it could have: ${ratio(disk > 0 ? taken / disk : 0)}`} />
    </div>
  );
}

/** Resolutions draws the span of time of each on one scale, so that one sees what is left of which time. */
export function Resolutions(props: { status: ArchiveStatus }) {
  const rows = props.status.resolutions ?? [];
  const span = spanOf(rows);
  const total = rows.reduce((sum, r) => sum + r.bytes, 0);
  return (
    <Table
      caption="Resolutions" testid="resolutions-table" rows={rows} rowKey={(r) => r.resolution}
      empty={<Empty>Nothing is sealed yet. A day is sealed when it is over and an hour has passed.</Empty>}
      columns={[
        { key: 'resolution', title: 'Resolution', render: (r) => <span title={levelWord(r.resolution)}><strong>{r.resolution}</strong></span> },
        { key: 'days', title: 'Days', numeric: true, render: (r) => count(r.days) },
        { key: 'samples', title: 'Samples, buckets', numeric: true, render: (r) => <span title={count(r.samples)}>{compact(r.samples)}</span> },
        { key: 'bytes', title: 'Bytes', numeric: true, render: (r) => bytes(r.bytes) },
        { key: 'each', title: 'Each', numeric: true, render: (r) => (r.samples > 0 ? `${(r.bytes / r.samples).toFixed(2)} B` : '–') },
        { key: 'share', title: 'Share', numeric: true, render: (r) => ratio(total > 0 ? r.bytes / total : 0) },
        { key: 'span', title: 'Time that is kept', class: 'col-span', render: (r) => <Span resolution={r} whole={span} /> },
      ]}
    />
  );
}

function Span(props: { resolution: ResolutionSize; whole: [number, number] | undefined }): ComponentChildren {
  const { resolution: r, whole } = props;
  const [first, last] = [parseDay(r.oldest), parseDay(r.newest)];
  if (!whole || !Number.isFinite(first) || !Number.isFinite(last)) return <span class="dim">–</span>;
  const length = whole[1] - whole[0] + 1;
  const left = ((first - whole[0]) / length) * 100;
  const width = ((last - first + 1) / length) * 100;
  return (
    <span class="span">
      <span class="span-line" aria-hidden="true"><span class="span-fill" style={{ marginLeft: `${left.toFixed(2)}%`, width: `${width.toFixed(2)}%` }} /></span>
      <span class="span-ends"><span>{dayText(first)}</span><span>{dayText(last)}</span></span>
    </span>
  );
}

export function Families(props: { status: ArchiveStatus }) {
  const rows = [...(props.status.families ?? [])].filter((f) => f.bytes > 0).sort((a, b) => b.bytes - a.bytes);
  const most = rows[0]?.bytes ?? 0;
  const total = rows.reduce((sum, r) => sum + r.bytes, 0);
  return (
    <Table
      caption="Column families" testid="families-table" rows={rows} rowKey={(f) => f.name} empty="Nothing has been written to files yet."
      columns={[
        { key: 'name', title: 'Family', render: (f) => <><strong>{f.name}</strong><span class="sub">{familyWord(f.name)}</span></> },
        { key: 'bar', title: <span class="hidden-text">Share, drawn</span>, class: 'col-bar', render: (f) => <Bar value={f.bytes} max={most} label={ratio(f.bytes / total)} /> },
        { key: 'bytes', title: 'Bytes', numeric: true, render: (f) => bytes(f.bytes) },
        { key: 'share', title: 'Share', numeric: true, render: (f) => ratio(total > 0 ? f.bytes / total : 0) },
      ]}
    />
  );
}
