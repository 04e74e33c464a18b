// A heatmap on a canvas: time to the right, buckets upwards, the colour says how much fell into each.
import { useEffect, useRef, useState } from 'preact/hooks';
import uPlot from 'uplot';
import { axes, tzDate } from '../../core/chart';
import { heatColor } from '../../core/color';
import { digits, time, useZone, value as valueText, zoneName, type Zone } from '../../core/format';
import { cssColor, useDark } from '../../core/theme';
import { edgeSplits, edgeText, shade, type Heat } from './heat';

export interface HeatmapProps {
  heat: Heat;
  height: number;
  onZoom: (from: number, to: number) => void;
  label: string;
}

const shades = 48;

export function Heatmap(props: HeatmapProps) {
  const host = useRef<HTMLDivElement>(null);
  const tip = useRef<HTMLDivElement>(null);
  const latest = useRef(props);
  latest.current = props;
  const dark = useDark();
  const zone = useZone();
  const at = useRef({ column: -1, row: 0 });
  const [spoken, setSpoken] = useState('');
  const plot = useRef<uPlot | undefined>(undefined);

  useEffect(() => {
    const element = host.current;
    const heat = props.heat;
    const n = heat.times.length;
    if (!element || n === 0) return;
    const rows = heat.rows.length;
    const seconds = heat.step / 1000;
    const palette = Array.from({ length: shades }, (_, i) => heatColor((i + 1) / shades, dark));
    const [x, y] = axes(String, zone) as [uPlot.Axis, uPlot.Axis];
    const paint = (u: uPlot) => {
      const { ctx } = u;
      ctx.save();
      ctx.beginPath();
      ctx.rect(u.bbox.left, u.bbox.top, u.bbox.width, u.bbox.height);
      ctx.clip();
      const xs = heat.times.map((t) => Math.round(u.valToPos(t, 'x', true)));
      const before = Math.round(u.valToPos(heat.times[0]! - seconds, 'x', true));
      const ys = Array.from({ length: rows + 1 }, (_, r) => Math.round(u.valToPos(r, 'y', true)));
      for (let r = 0; r < rows; r++) {
        const row = heat.rows[r]!;
        for (let i = 0; i < n; i++) {
          const v = row[i];
          if (v === null || v === undefined || v <= 0) continue;
          ctx.fillStyle = palette[Math.min(shades - 1, Math.floor(shade(v, heat.max) * shades))]!;
          const left = i === 0 ? before : xs[i - 1]!;
          ctx.fillRect(left, ys[r + 1]!, Math.max(1, xs[i]! - left), Math.max(1, ys[r]! - ys[r + 1]!));
        }
      }
      ctx.restore();
    };
    const u = new uPlot(
      {
        width: element.clientWidth || 300,
        height: props.height,
        tzDate: tzDate(zone),
        legend: { show: false },
        cursor: { drag: { x: true, y: false, setScale: false }, points: { show: false } },
        scales: {
          x: { time: true, range: () => [heat.times[0]! - seconds, heat.times[n - 1]!] },
          y: { range: () => [0, Math.max(rows, 1)] },
        },
        axes: [
          { ...x, grid: { show: false } },
          {
            ...y,
            grid: { show: false },
            splits: (self: uPlot) => edgeSplits(rows, self.bbox.height / devicePixelRatio),
            values: (_u: uPlot, splits: number[]) => splits.map((s) => edgeText(heat.edges[s] ?? NaN)),
          },
        ],
        series: [{}, { show: true, stroke: cssColor('--accent'), paths: () => null, points: { show: false } }],
        hooks: {
          drawAxes: [paint],
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
          setCursor: [
            (self) => {
              const box = tip.current;
              const left = self.cursor.left ?? -1;
              if (!box || left < 0) {
                if (box) box.hidden = true;
                return;
              }
              // A cell is of what came up to its time, so it is that of the next point.
              const t = self.posToVal(left, 'x');
              const i = heat.times.findIndex((p) => p >= t - seconds * 1e-6);
              const r = Math.floor(self.posToVal(self.cursor.top ?? 0, 'y'));
              if (i < 0 || r < 0 || r >= rows) {
                box.hidden = true;
                return;
              }
              at.current = { column: i, row: r };
              const lines = describe(heat, i, r, zone);
              box.replaceChildren(...lines.map((text, k) => {
                const line = document.createElement('div');
                line.className = k === 0 ? 'tip-time' : 'tip-note';
                line.textContent = text;
                return line;
              }));
              box.hidden = false;
              const px = self.over.offsetLeft + left;
              const width = box.offsetWidth;
              box.style.left = `${px + 14 + width > element.clientWidth ? Math.max(0, px - width - 14) : px + 14}px`;
              box.style.top = `${self.over.offsetTop + 6}px`;
            },
          ],
        },
      },
      [heat.times, heat.times.map(() => 0)],
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
      tip.current?.replaceChildren();
    };
  }, [props.heat, props.height, dark, zone]);

  const key = (e: KeyboardEvent) => {
    const step: Record<string, [number, number]> = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    const by = step[e.key];
    const u = plot.current;
    if (!by || !u || e.ctrlKey || e.metaKey || e.altKey) return;
    e.preventDefault();
    const { heat } = props;
    const column = Math.max(0, Math.min(heat.times.length - 1, at.current.column + by[0]));
    const row = Math.max(0, Math.min(heat.rows.length - 1, at.current.row + by[1]));
    at.current = { column, row };
    u.setCursor({ left: u.valToPos(heat.times[column]! - heat.step / 2000, 'x'), top: u.valToPos(row + 0.5, 'y') });
    at.current = { column, row };
    setSpoken(describe(heat, column, row, zone).join(', '));
  };

  return (
    <div>
      <div class="graph-host" tabIndex={0} role="group" aria-roledescription="heatmap" aria-label={`${props.label}. Arrow keys read cells.`} onKeyDown={key}>
        <div ref={host} style={{ minHeight: `${props.height}px` }} />
        <div class="tip" ref={tip} hidden />
        <div class="hidden-text" role="status">{spoken}</div>
      </div>
      <Scale max={props.heat.max} dark={dark} />
      {props.heat.notes.map((note) => <p class="dim small" key={note}>{note}</p>)}
    </div>
  );
}

function describe(heat: Heat, i: number, r: number, zone: Zone): string[] {
  const v = heat.rows[r]![i] ?? null;
  let sum = 0;
  for (const row of heat.rows) sum += row[i] ?? 0;
  return [
    `${time(heat.times[i]! * 1000, zone, true)} ${zoneName(zone, heat.times[i]! * 1000)}`,
    `from ${edgeText(heat.edges[r]!)} to ${edgeText(heat.edges[r + 1]!)}`,
    v === null ? 'no value' : `${valueText(v)}${sum > 0 ? ` (${digits((100 * v) / sum, 3)} % of ${valueText(sum)})` : ''}`,
  ];
}

/** Scale shows which colour means how much. */
function Scale(props: { max: number; dark: boolean }) {
  const steps = 24;
  return (
    <div class="heat-scale" role="img" aria-label={`Colours from 0 to ${valueText(props.max)} in a cell`}>
      <span class="tabular">0</span>
      <span class="heat-colors" aria-hidden="true">
        {Array.from({ length: steps }, (_, i) => <span key={i} style={{ backgroundColor: heatColor((i + 1) / steps, props.dark) }} />)}
      </span>
      <span class="tabular">{valueText(props.max)}</span>
      <span class="dim">in a cell; the colour goes with the square root</span>
    </div>
  );
}
