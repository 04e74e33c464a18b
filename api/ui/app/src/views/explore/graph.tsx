// Lines and stacks over time, on uPlot, with hover values, zoom by dragging, and keys.
import { useEffect, useRef, useState } from 'preact/hooks';
import uPlot from 'uplot';
import { bounds } from '../../core/axis';
import { axes, tzDate } from '../../core/chart';
import { time, useZone, value as valueText, zoneName } from '../../core/format';
import { useDark } from '../../core/theme';
import { layersOf, runs, type Line } from './lines';
import type { Layer } from './result';

export interface GraphProps {
  times: readonly number[];
  lines: readonly Line[];
  stacked: boolean;
  height: number;
  /** The line that the legend points at, by key. */
  pointed: string | undefined;
  /** Unix seconds. */
  onZoom: (from: number, to: number) => void;
  onZoomOut: () => void;
  label: string;
}

/** tipRows bounds the series that the box at the pointer lists. */
const tipRows = 10;

const scaleText = (v: number) => valueText(v);

function stackedPaths(layers: readonly Layer[]): uPlot.Series.PathBuilder {
  return (u, index, from, to) => {
    const layer = layers[index - 1]!;
    const stroke = new Path2D();
    const fill = new Path2D();
    const x = (i: number) => u.valToPos(u.data[0]![i]!, 'x', true);
    const y = (v: number) => u.valToPos(v, 'y', true);
    for (const [first, last] of runs(layer.upper, from, to)) {
      if (first === last) {
        // A point without neighbours has no area, and is drawn as a thin bar.
        const w = Math.max(2, devicePixelRatio * 1.5);
        const top = y(layer.upper[first]!);
        const bottom = y(layer.lower[first]!);
        fill.rect(x(first) - w / 2, Math.min(top, bottom), w, Math.abs(bottom - top));
        continue;
      }
      fill.moveTo(x(first), y(layer.upper[first]!));
      stroke.moveTo(x(first), y(layer.upper[first]!));
      for (let i = first + 1; i <= last; i++) {
        fill.lineTo(x(i), y(layer.upper[i]!));
        stroke.lineTo(x(i), y(layer.upper[i]!));
      }
      for (let i = last; i >= first; i--) fill.lineTo(x(i), y(layer.lower[i]!));
      fill.closePath();
    }
    return { stroke, fill, clip: null, band: null, flags: 0 };
  };
}

/** plotted is a list for uPlot, which knows null alone as a gap. */
const plotted = (values: readonly (number | null)[]) => values.map((v) => (v !== null && Number.isFinite(v) ? v : null));

export function Graph(props: GraphProps) {
  const host = useRef<HTMLDivElement>(null);
  const tip = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | undefined>(undefined);
  const at = useRef<number | null>(null);
  const latest = useRef(props);
  latest.current = props;
  const dark = useDark();
  const zone = useZone();
  const [spoken, setSpoken] = useState('');

  useEffect(() => {
    const element = host.current;
    if (!element || props.times.length === 0) return;
    const layers = props.stacked ? layersOf(props.lines) : undefined;
    const data = props.lines.map((l, i) => (layers ? layers[i]!.upper : plotted(l.series.values)));
    const few = props.times.length < 60;
    const step = props.times.length > 1 ? props.times[1]! - props.times[0]! : 1;
    const first = props.times[0]!;
    const last = props.times[props.times.length - 1]!;
    const span: [number, number] = first === last ? [first - step, last + step] : [first, last];
    const showTip = (self: uPlot) => {
      const box = tip.current;
      if (!box) return;
      const i = self.cursor.idx;
      const left = self.cursor.left ?? -1;
      if (i === null || i === undefined || left < 0) {
        box.hidden = true;
        at.current = null;
        return;
      }
      at.current = i;
      fillTip(box, latest.current, i, self.posToVal(self.cursor.top ?? 0, 'y'), layers, zone);
      box.hidden = false;
      const over = self.over;
      const x = over.offsetLeft + self.valToPos(self.data[0][i]!, 'x');
      const room = element.clientWidth;
      const width = box.offsetWidth;
      box.style.left = `${Math.max(0, x + 14 + width > room ? Math.max(0, x - width - 14) : x + 14)}px`;
      box.style.top = `${over.offsetTop + 6}px`;
    };

    const u = new uPlot(
      {
        width: element.clientWidth || 300,
        height: props.height,
        tzDate: tzDate(zone),
        legend: { show: false },
        focus: { alpha: 0.22 },
        cursor: {
          drag: { x: true, y: false, setScale: false },
          points: { show: !props.stacked, size: 6, width: 1.5 },
          focus: { prox: -1 },
        },
        scales: {
          x: { time: true, range: () => span },
          y: { range: (_u, low, high) => bounds(low, high, props.stacked) },
        },
        axes: axes(scaleText, zone),
        series: [
          {},
          ...props.lines.map((l) => ({
            stroke: l.color,
            width: props.stacked ? 1 : 1.5,
            fill: props.stacked ? `${l.color}${dark ? 'a6' : '99'}` : undefined,
            spanGaps: false,
            points: props.stacked ? { show: false } : { show: few ? true : undefined, size: 4 },
            ...(layers ? { paths: stackedPaths(layers) } : {}),
          })),
        ] as uPlot.Series[],
        hooks: {
          setSelect: [
            (self) => {
              const { left, width } = self.select;
              if (width < 4) return;
              const from = self.posToVal(left, 'x');
              const to = self.posToVal(left + width, 'x');
              self.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
              latest.current.onZoom(from, to);
            },
          ],
          setCursor: [(self) => showTip(self)],
        },
      },
      [props.times as number[], ...data] as uPlot.AlignedData,
      element,
    );
    plot.current = u;

    const resized = new ResizeObserver(() => {
      const width = element.clientWidth;
      if (width > 0 && width !== u.width) u.setSize({ width, height: props.height });
    });
    resized.observe(element);
    return () => {
      resized.disconnect();
      u.destroy();
      plot.current = undefined;
      if (tip.current) {
        tip.current.hidden = true;
        tip.current.replaceChildren();
      }
    };
  }, [props.times, props.lines, props.stacked, props.height, dark, zone]);

  useEffect(() => {
    const u = plot.current;
    if (!u) return;
    const index = props.lines.findIndex((l) => l.key === props.pointed);
    u.setSeries(index >= 0 ? index + 1 : null, { focus: index >= 0 }, false);
  }, [props.pointed, props.lines]);

  const move = (i: number) => {
    const u = plot.current;
    if (!u || props.times.length === 0) return;
    const to = Math.max(0, Math.min(props.times.length - 1, i));
    const left = u.valToPos(props.times[to]!, 'x');
    const shown = props.lines.map((l) => ({ l, v: l.series.values[to] })).filter((x) => x.v !== null && x.v !== undefined);
    const top = shown.length > 0 && !props.stacked && Number.isFinite(shown[0]!.v!) ? u.valToPos(shown[0]!.v!, 'y') : 10;
    u.setCursor({ left, top });
    at.current = to;
    setSpoken(`${time(props.times[to]! * 1000, zone)}: ${shown.slice(0, 5).map((x) => `${x.l.series.name} ${valueText(x.v)}`).join('; ') || 'no values'}`);
  };

  const key = (e: KeyboardEvent) => {
    if (e.ctrlKey || e.metaKey || e.altKey) return;
    const n = props.times.length;
    const now = at.current ?? (e.key === 'ArrowLeft' ? n : -1);
    const by = e.shiftKey ? Math.max(1, Math.round(n / 20)) : 1;
    switch (e.key) {
      case 'ArrowLeft':
        move(now - by);
        break;
      case 'ArrowRight':
        move(now + by);
        break;
      case 'Home':
        move(0);
        break;
      case 'End':
        move(n - 1);
        break;
      case '+':
      case '=': {
        if (n < 2) return;
        // Half of the range around the cursor, but not beyond its ends.
        const [first, last] = [props.times[0]!, props.times[n - 1]!];
        const half = (last - first) / 2;
        const middle = props.times[Math.max(0, Math.min(n - 1, at.current ?? Math.floor(n / 2)))]!;
        const from = Math.max(first, Math.min(middle - half / 2, last - half));
        props.onZoom(from, from + half);
        break;
      }
      case '-':
        props.onZoomOut();
        break;
      case 'Escape':
        plot.current?.setCursor({ left: -10, top: -10 });
        break;
      default:
        return;
    }
    e.preventDefault();
  };

  return (
    <div class="graph-host" tabIndex={0} role="group" aria-roledescription="graph" aria-label={`${props.label}. Arrow keys read values, plus and minus zoom.`} onKeyDown={key}>
      <div ref={host} style={{ minHeight: `${props.height}px` }} />
      <div class="tip" ref={tip} hidden />
      <div class="hidden-text" role="status">{spoken}</div>
    </div>
  );
}

/** fillTip writes the values at a point into the box: those nearest to the pointer, the largest first. */
function fillTip(box: HTMLElement, props: GraphProps, i: number, pointer: number, layers: readonly Layer[] | undefined, zone: 'utc' | 'local'): void {
  const here = props.lines
    .map((line, n) => ({ line, v: line.series.values[i] ?? null, place: layers ? (layers[n]!.upper[i] ?? null) : (line.series.values[i] ?? null), low: layers?.[n]!.lower[i] ?? null }))
    .filter((h) => h.v !== null);
  const distance = (h: (typeof here)[number]) => {
    if (h.place === null || !Number.isFinite(h.place)) return Infinity;
    if (h.low !== null && pointer <= Math.max(h.place, h.low) && pointer >= Math.min(h.place, h.low)) return 0;
    return Math.abs(h.place - pointer);
  };
  const near = [...here].sort((a, b) => distance(a) - distance(b));
  const nearest = near[0];
  const listed = near.slice(0, tipRows).sort((a, b) => (b.v! < a.v! ? -1 : b.v! > a.v! ? 1 : 0));
  const head = document.createElement('div');
  head.className = 'tip-time';
  head.textContent = `${time(props.times[i]! * 1000, zone, true)} ${zoneName(zone, props.times[i]! * 1000)}`;
  const rows = listed.map((h) => {
    const row = document.createElement('div');
    row.className = h === nearest ? 'tip-row tip-near' : 'tip-row';
    const swatch = document.createElement('span');
    swatch.className = 'swatch';
    swatch.style.backgroundColor = h.line.color;
    const name = document.createElement('span');
    name.className = 'tip-name';
    name.textContent = h.line.series.name;
    const v = document.createElement('span');
    v.className = 'tip-value';
    v.textContent = valueText(h.v);
    row.append(swatch, name, v);
    return row;
  });
  const tail: HTMLElement[] = [];
  const note = (text: string) => {
    const line = document.createElement('div');
    line.className = 'tip-note';
    line.textContent = text;
    tail.push(line);
  };
  if (here.length === 0) note('no values here');
  if (here.length > listed.length) note(`and ${here.length - listed.length} more`);
  if (layers && here.length > 1) note(`sum ${valueText(here.reduce((sum, h) => sum + (Number.isFinite(h.v!) ? h.v! : 0), 0))}`);
  box.replaceChildren(head, ...rows, ...tail);
}
