// The list of series under a graph: colour, name, values; a press shows one alone.
import { useMemo, useState } from 'preact/hooks';
import { classes } from '../../core/ui';
import { value as valueText } from '../../core/format';
import { summarize, type Summary } from './result';
import type { Line } from './lines';

export interface LegendProps {
  lines: readonly Line[];
  hidden: ReadonlySet<string>;
  onHidden: (hidden: ReadonlySet<string>) => void;
  onPoint: (key: string | undefined) => void;
}

const columns = [
  { key: 'last', title: 'Last' },
  { key: 'min', title: 'Min' },
  { key: 'max', title: 'Max' },
  { key: 'mean', title: 'Mean' },
] as const;

type SortKey = (typeof columns)[number]['key'];

/** pressed is what is hidden after a press: alone shows one, and all again if it was alone; with more it is switched by itself. */
export function pressed(all: readonly string[], hidden: ReadonlySet<string>, key: string, more: boolean): ReadonlySet<string> {
  if (more) {
    const next = new Set(hidden);
    if (next.has(key)) next.delete(key);
    else next.add(key);
    return next.size === all.length ? new Set() : next;
  }
  const alone = !hidden.has(key) && all.every((k) => k === key || hidden.has(k));
  return alone ? new Set() : new Set(all.filter((k) => k !== key));
}

export function Legend(props: LegendProps) {
  const [sort, setSort] = useState<{ key: SortKey; descending: boolean } | undefined>();
  const rows = useMemo(() => props.lines.map((line) => ({ line, sum: summarize(line.series.values) })), [props.lines]);
  const sorted = useMemo(() => {
    if (!sort) return rows;
    const by = (s: Summary) => s[sort.key] ?? -Infinity;
    return [...rows].sort((a, b) => (sort.descending ? by(b.sum) - by(a.sum) : by(a.sum) - by(b.sum)) || 0);
  }, [rows, sort]);
  const keys = props.lines.map((l) => l.key);
  return (
    <div class="legend" data-testid="legend">
      <table>
        <caption class="hidden-text">Series of the graph. Press a series to see it alone, with Control to switch it on or off.</caption>
        <thead>
          <tr>
            <th scope="col">
              {props.lines.length === 1 ? '1 series' : `${props.lines.length} series`}
              {props.hidden.size > 0 && <button type="button" class="link" onClick={() => props.onHidden(new Set())}>show all</button>}
            </th>
            {columns.map((c) => (
              <th key={c.key} scope="col" class="num" aria-sort={sort?.key === c.key ? (sort.descending ? 'descending' : 'ascending') : undefined}>
                <button
                  type="button" class="sort"
                  onClick={() => setSort(sort?.key !== c.key ? { key: c.key, descending: true } : sort.descending ? { key: c.key, descending: false } : undefined)}
                >
                  {c.title}<span class="sort-mark" aria-hidden="true">{sort?.key === c.key ? (sort.descending ? '▼' : '▲') : ''}</span>
                </button>
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {sorted.map(({ line, sum }) => {
            const off = props.hidden.has(line.key);
            return (
              <tr
                key={line.key} data-testid="legend-row" class={classes(off && 'off')}
                onMouseEnter={() => props.onPoint(off ? undefined : line.key)} onMouseLeave={() => props.onPoint(undefined)}
              >
                <th scope="row">
                  <button
                    type="button" class="series" aria-pressed={!off} title={line.series.name}
                    onClick={(e) => props.onHidden(pressed(keys, props.hidden, line.key, e.ctrlKey || e.metaKey || e.shiftKey))}
                    onFocus={() => props.onPoint(off ? undefined : line.key)} onBlur={() => props.onPoint(undefined)}
                  >
                    <span class="swatch" style={{ backgroundColor: line.color }} />
                    <span class="series-name">{line.series.name}</span>
                  </button>
                </th>
                {columns.map((c) => <td key={c.key} class="num">{sum[c.key] === null ? '–' : valueText(sum[c.key])}</td>)}
              </tr>
            );
          })}
        </tbody>
      </table>
    </div>
  );
}
