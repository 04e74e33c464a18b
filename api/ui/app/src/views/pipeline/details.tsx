// A table whose rows open to show more. Rows keep their place in the document over refreshes, and with it focus.
import type { ComponentChildren } from 'preact';
import { Fragment } from 'preact';
import { useId, useMemo, useState } from 'preact/hooks';
import { classes, type Column } from '../../core/ui';

export interface DetailTableProps<T> {
  caption: string;
  columns: Column<T>[];
  rows: readonly T[];
  rowKey: (row: T) => string;
  /** What a row shows when it is open; null where there is nothing more to tell. */
  details: (row: T) => ComponentChildren | null;
  empty: ComponentChildren;
  testid?: string;
}

/** DetailTable sorts like core's Table. Its first column opens a row. */
export function DetailTable<T>(props: DetailTableProps<T>) {
  const base = useId();
  const [open, setOpen] = useState<ReadonlySet<string>>(new Set());
  const [sort, setSort] = useState<{ key: string; descending: boolean } | undefined>();
  const by = props.columns.find((c) => c.key === sort?.key)?.value;
  const rows = useMemo(() => {
    if (!by) return props.rows;
    const sign = sort?.descending ? -1 : 1;
    return [...props.rows].sort((a, b) => {
      const [x, y] = [by(a), by(b)];
      return x < y ? -sign : x > y ? sign : 0;
    });
  }, [props.rows, by, sort?.descending]);
  const toggle = (key: string) => {
    setOpen((before) => {
      const next = new Set(before);
      if (!next.delete(key)) next.add(key);
      return next;
    });
  };
  if (rows.length === 0) return <div data-testid={props.testid}>{props.empty}</div>;
  return (
    <div class="table-scroll" tabIndex={0} role="region" aria-label={props.caption}>
      <table data-testid={props.testid} class="detail-table">
        <caption class="hidden-text">{props.caption}</caption>
        <thead>
          <tr>
            {props.columns.map((c) => {
              const sorted = sort?.key === c.key && c.value;
              return (
                <th key={c.key} scope="col" class={classes(c.numeric && 'num', c.class)} aria-sort={sorted ? (sort.descending ? 'descending' : 'ascending') : undefined}>
                  {c.value ? (
                    <button type="button" class="sort" onClick={() => setSort({ key: c.key, descending: sorted ? !sort.descending : !!c.numeric })}>
                      {c.title}
                      <span aria-hidden="true" class="sort-mark">{sorted ? (sort.descending ? '▼' : '▲') : ''}</span>
                    </button>
                  ) : c.title}
                </th>
              );
            })}
          </tr>
        </thead>
        <tbody>
          {rows.map((row, n) => {
            const key = props.rowKey(row);
            const shown = open.has(key);
            const details = shown ? props.details(row) : null;
            const id = `${base}-${n}`;
            return (
              <Fragment key={key}>
                <tr class={classes(shown && 'row-open')}>
                  {props.columns.map((c, i) => (
                    <td key={c.key} class={classes(c.numeric && 'num', c.class)}>
                      {i === 0 ? (
                        <button type="button" class="opener" aria-expanded={shown} aria-controls={shown ? id : undefined} onClick={() => toggle(key)}>
                          <span aria-hidden="true" class="opener-mark">{shown ? '▾' : '▸'}</span>
                          {c.render(row)}
                        </button>
                      ) : c.render(row)}
                    </td>
                  ))}
                </tr>
                {shown && (
                  <tr class="row-details" id={id}>
                    <td colSpan={props.columns.length}>{details}</td>
                  </tr>
                )}
              </Fragment>
            );
          })}
        </tbody>
      </table>
    </div>
  );
}

/** Spark is a small line of what something was of late. It says nothing that isn't in a number beside it. */
export function Spark(props: { values: readonly number[] }) {
  const n = props.values.length;
  if (n < 3) return <svg class="spark" viewBox="0 0 72 18" aria-hidden="true" />;
  const most = Math.max(...props.values);
  const points = props.values
    .map((v, i) => `${((i / (n - 1)) * 71 + 0.5).toFixed(1)},${(most > 0 ? 17 - (v / most) * 16 : 17).toFixed(1)}`)
    .join(' ');
  return (
    <svg class="spark" viewBox="0 0 72 18" preserveAspectRatio="none" aria-hidden="true">
      <polygon points={`0.5,18 ${points} 71.5,18`} class="spark-area" />
      <polyline points={points} class="spark-line" />
    </svg>
  );
}

/** Progress is how far something is, in its unit. */
export function Progress(props: { done: number; total: number; label: string }) {
  const share = props.total > 0 ? Math.min(1, props.done / props.total) : 0;
  return (
    <div class="progress" role="progressbar" aria-label={props.label} aria-valuemin={0} aria-valuemax={100} aria-valuenow={Math.round(share * 100)}>
      <span class="progress-fill" style={{ width: `${(share * 100).toFixed(2)}%` }} />
    </div>
  );
}

/** Breakable is a name that may be broken behind its separators, so that narrow columns don't break it anywhere. */
export function Breakable(props: { text: string }) {
  const parts = props.text.split(/(?<=[_:./-])(?=[^_:./-])/);
  return <>{parts.map((p, i) => <Fragment key={i}>{i > 0 && <wbr />}{p}</Fragment>)}</>;
}
