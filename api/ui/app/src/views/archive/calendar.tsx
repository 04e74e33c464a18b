// A year of days as a calendar: a column a week. The shade is a measure, the edge a state.
import { useEffect, useMemo, useRef } from 'preact/hooks';
import { bytes, bytesPerSample, compact, count } from '../../core/format';
import { classes } from '../../core/ui';
import { calendar, dayText, measured, monthColumns, shade, shadeBounds, yearDays, type Measure } from './days';
import type { ArchiveDay } from './model';

const months = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];

export const measureWords: Record<Measure, string> = { bytes: 'bytes', samples: 'samples', bytesPerSample: 'bytes a sample' };

/** measureText is a number of a measure with its unit. */
export function measureText(n: number, m: Measure): string {
  return m === 'bytes' ? bytes(n) : m === 'samples' ? `${compact(n)} samples` : bytesPerSample(n);
}

export function Calendar(props: { year: number; days: ReadonlyMap<number, ArchiveDay>; measure: Measure; selected: number | undefined; onSelect: (day: number) => void }) {
  const host = useRef<HTMLDivElement>(null);
  const cells = useMemo(() => calendar(props.year), [props.year]);
  const bounds = useMemo(() => shadeBounds([...props.days.values()].map((d) => measured(d, props.measure)), props.measure), [props.days, props.measure]);
  const [first, next] = yearDays(props.year);
  const inYear = props.selected !== undefined && props.selected >= first && props.selected < next;
  const entry = inYear ? props.selected! : lastWithData(cells.map((c) => c.day), props.days) ?? first;
  useEffect(() => {
    // On a narrow screen the year is wider than its box: the end of what there is comes into sight.
    const box = host.current?.parentElement;
    const cell = host.current?.querySelector<HTMLElement>(`[data-day="${entry}"]`);
    if (box && cell) box.scrollLeft = cell.offsetLeft - box.clientWidth * 0.8;
  }, [props.year]);
  const columns = (cells.at(-1)?.column ?? 52) + 1;

  const move = (e: KeyboardEvent) => {
    const by = { ArrowLeft: -7, ArrowRight: 7, ArrowUp: -1, ArrowDown: 1, Home: -400, End: 400 }[e.key];
    if (by === undefined) return;
    e.preventDefault();
    const to = Math.min(next - 1, Math.max(first, entry + by));
    props.onSelect(to);
    // The button is there already: only what may be reached by Tab changes.
    host.current?.querySelector<HTMLElement>(`[data-day="${to}"]`)?.focus();
  };

  return (
    <div class="calendar-scroll">
      <div class="calendar" ref={host} role="group" aria-label={`Days of ${props.year}. Arrow keys move by days and weeks.`} onKeyDown={move} style={{ gridTemplateColumns: `repeat(${columns}, minmax(7px, 1fr))` }}>
        {monthColumns(props.year).map((column, m) => (
          <span key={m} class="calendar-month" style={{ gridColumn: `${column + 1} / span 4` }} aria-hidden="true">{months[m]}</span>
        ))}
        {cells.map((c) => {
          const d = props.days.get(c.day);
          const text = cellText(c.day, d, props.measure);
          return (
            <button
              key={c.day} type="button" data-day={c.day} tabIndex={c.day === entry ? 0 : -1}
              class={classes('cell', d && `shade-${shade(measured(d, props.measure), bounds)}`, d && stateClass(d), c.day === props.selected && 'cell-selected')}
              style={{ gridColumn: c.column + 1, gridRow: c.row + 2 }}
              title={text} aria-label={text} aria-pressed={c.day === props.selected} onClick={() => props.onSelect(c.day)}
            />
          );
        })}
      </div>
    </div>
  );
}

function lastWithData(days: number[], known: ReadonlyMap<number, ArchiveDay>): number | undefined {
  return days.findLast((d) => known.has(d));
}

/** stateClass draws the edge of days that are not sealed, or have late samples that aren't. */
function stateClass(d: ArchiveDay): string | false {
  switch (d.state) {
    case 'sealed':
      return d.pendingBytes > 0 && 'cell-late';
    case 'late':
      return 'cell-late';
    case 'expired':
      return 'cell-expired';
    case 'open':
      return 'cell-open';
    default:
      return 'cell-waiting';
  }
}

function cellText(day: number, d: ArchiveDay | undefined, m: Measure): string {
  if (!d) return `${dayText(day)}: no samples`;
  const what = measured(d, m) > 0 ? measureText(measured(d, m), m) : `no ${measureWords[m]} yet`;
  return `${d.day}: ${d.state}, ${what}${d.pendingBytes > 0 ? `, ${bytes(d.pendingBytes)} not sealed` : ''}`;
}

/** Legend explains shades and edges. */
export function Legend(props: { measure: Measure; days: readonly ArchiveDay[] }) {
  const bounds = useMemo(() => shadeBounds(props.days.map((d) => measured(d, props.measure)), props.measure), [props.days, props.measure]);
  return (
    <div class="legend dim">
      <span class="legend-item">less</span>
      {[1, 2, 3, 4].map((n) => (
        <span key={n} class={`cell shade-${n}`} title={n === 1 ? `below ${measureText(bounds[0], props.measure)}` : `from ${measureText(bounds[n - 2]!, props.measure)}`} />
      ))}
      <span class="legend-item">more {measureWords[props.measure]}</span>
      <span class="legend-item"><span class="cell cell-open" /> open</span>
      <span class="legend-item"><span class="cell cell-waiting" /> waits to be sealed</span>
      <span class="legend-item"><span class="cell shade-2 cell-late" /> sealed, with late samples</span>
      {props.days.some((d) => d.state === 'expired') && <span class="legend-item"><span class="cell cell-expired" /> rollups alone</span>}
      <span class="legend-item">{count(props.days.length)} days in all</span>
    </div>
  );
}
