// The picture of a graph for a file: title, axes, lines or stack or heatmap, legend. Always on white, as it goes into documents.
import { heatColor } from '../../core/color';
import { bounds, timeTicks } from '../../core/axis';
import { value as valueText, zoneName, type Zone } from '../../core/format';
import { edgeSplits, edgeText, shade, type Heat } from './heat';
import { layersOf, runs, type Line } from './lines';
import { drawable } from './result';
import type { Surface } from './surface';

const ink = '#1b2323';
const dim = '#566062';
const gridColor = '#e4e7e3';
const size = 12;
const lineHeight = 18;

/** legendMax bounds the entries of a picture's legend; the rest is named as a number. */
const legendMax = 40;

export interface Figure {
  title: string;
  subtitle: string;
  times: readonly number[];
  lines: readonly Line[];
  stacked: boolean;
  heat: Heat | undefined;
  zone: Zone;
  width: number;
}

interface Box {
  x: number;
  y: number;
  w: number;
  h: number;
}

/** heightOf is how high the picture of a figure becomes, in pixels. */
export function heightOf(f: Figure): number {
  return plotTop + plotHeight + 44 + (f.heat ? 34 : legendRows(f) * lineHeight + 20);
}

const plotTop = 56;
const plotHeight = 400;

const legendRows = (f: Figure) => Math.min(f.lines.length, legendMax) + (f.lines.length > legendMax ? 1 : 0);

/** fitted cuts text so that it is not wider than room. */
export function fitted(s: Surface, text: string, room: number, points: number, bold = false): string {
  if (s.measure(text, points, bold) <= room) return text;
  let low = 0;
  let high = text.length;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (s.measure(`${text.slice(0, middle)}…`, points, bold) <= room) low = middle;
    else high = middle - 1;
  }
  return `${text.slice(0, low)}…`;
}

export function drawFigure(s: Surface, f: Figure): void {
  const height = heightOf(f);
  s.rect(0, 0, f.width, height, '#ffffff');
  s.text(16, 26, fitted(s, f.title, f.width - 32, 15, true), { size: 15, color: ink, bold: true });
  s.text(16, 44, fitted(s, f.subtitle, f.width - 32, size), { size, color: dim });
  const end = f.heat ? drawHeat(s, f, f.heat) : drawLines(s, f);
  const y = end + 40;
  if (f.heat) drawScale(s, f.heat, y);
  else drawLegend(s, f, y);
}

function drawLines(s: Surface, f: Figure): number {
  const layers = f.stacked ? layersOf(f.lines) : undefined;
  let low = Infinity;
  let high = -Infinity;
  const look = (values: readonly (number | null)[]) => {
    for (const v of values) {
      if (!drawable(v)) continue;
      low = Math.min(low, v);
      high = Math.max(high, v);
    }
  };
  if (layers) layers.forEach((l) => look(l.upper));
  else f.lines.forEach((l) => look(l.series.values));
  const [bottom, top] = bounds(low === Infinity ? null : low, high === -Infinity ? null : high, f.stacked);
  const ticks = niceTicks(bottom, top, 8);
  const box = frame(s, f, ticks.map((v) => ({ at: (v - bottom) / (top - bottom), text: valueText(v) })), gridColor);
  const first = f.times[0] ?? 0;
  const last = f.times[f.times.length - 1] ?? 1;
  const x = (i: number) => box.x + (last > first ? ((f.times[i]! - first) / (last - first)) * box.w : box.w / 2);
  const y = (v: number) => box.y + box.h - ((v - bottom) / (top - bottom)) * box.h;
  s.clip(box.x, box.y, box.w, box.h, () => {
    f.lines.forEach((line, n) => {
      const values = layers ? layers[n]!.upper : line.series.values;
      for (const [from, to] of runs(values, 0, f.times.length - 1)) {
        const upper: number[] = [];
        for (let i = from; i <= to; i++) upper.push(x(i), y(values[i]!));
        if (layers) {
          const lower: number[] = [];
          for (let i = to; i >= from; i--) lower.push(x(i), y(layers[n]!.lower[i]!));
          if (from === to) s.rect(x(from) - 1, Math.min(upper[1]!, lower[1]!), 2, Math.abs(lower[1]! - upper[1]!), line.color);
          else s.area([...upper, ...lower], line.color, 0.6);
        }
        if (from === to && !layers) s.rect(upper[0]! - 1.5, upper[1]! - 1.5, 3, 3, line.color);
        else if (from !== to) s.line(upper, line.color, layers ? 1 : 1.5);
      }
    });
  });
  return box.y + box.h;
}

function drawHeat(s: Surface, f: Figure, heat: Heat): number {
  const rows = heat.rows.length;
  const marks = edgeSplits(rows, plotHeight).map((e) => ({ at: e / Math.max(rows, 1), text: edgeText(heat.edges[e] ?? NaN) }));
  const box = frame(s, f, marks, 'none');
  const n = heat.times.length;
  const seconds = heat.step / 1000;
  const first = heat.times[0]! - seconds;
  const last = heat.times[n - 1]!;
  const x = (t: number) => box.x + ((t - first) / (last - first)) * box.w;
  for (let r = 0; r < rows; r++) {
    const top = box.y + box.h - ((r + 1) / rows) * box.h;
    for (let i = 0; i < n; i++) {
      const v = heat.rows[r]![i];
      if (!drawable(v) || v <= 0) continue;
      const left = x(heat.times[i]! - seconds);
      s.rect(left, top, x(heat.times[i]!) - left + 0.3, box.h / rows + 0.3, heatColor(shade(v, heat.max), false));
    }
  }
  return box.y + box.h;
}

/** frame draws both axes and returns the box between them. Marks stand at shares of the height. */
function frame(s: Surface, f: Figure, marks: { at: number; text: string }[], gridLines: string): Box {
  const left = 16 + Math.max(30, ...marks.map((m) => s.measure(m.text, size))) + 8;
  const box = { x: left, y: plotTop + 8, w: f.width - left - 24, h: plotHeight - 8 };
  for (const m of marks) {
    const y = box.y + box.h - m.at * box.h;
    if (gridLines !== 'none') s.line([box.x, y, box.x + box.w, y], gridLines, 1);
    s.text(box.x - 7, y + 4, m.text, { size, color: dim, anchor: 'end' });
  }
  const from = f.heat ? f.heat.times[0]! - f.heat.step / 1000 : (f.times[0] ?? 0);
  const to = f.times[f.times.length - 1] ?? 1;
  const { ticks, step } = timeMarks(from, to, Math.max(2, Math.floor(box.w / 110)), f.zone);
  const texts = timeTicks(ticks, step, f.zone);
  ticks.forEach((t, i) => {
    const x = to > from ? box.x + ((t - from) / (to - from)) * box.w : box.x + box.w / 2;
    if (gridLines !== 'none') s.line([x, box.y, x, box.y + box.h], gridLines, 1);
    s.line([x, box.y + box.h, x, box.y + box.h + 4], dim, 1);
    texts[i]!.split('\n').forEach((text, k) => s.text(x, box.y + box.h + 17 + k * 14, text, { size: 11, color: dim, anchor: 'middle' }));
  });
  s.line([box.x, box.y, box.x, box.y + box.h, box.x + box.w, box.y + box.h], dim, 1);
  s.text(box.x + box.w, box.y - 4, `time in ${zoneName(f.zone, to * 1000)}`, { size: 11, color: dim, anchor: 'end' });
  return box;
}

function drawLegend(s: Surface, f: Figure, y: number): void {
  f.lines.slice(0, legendMax).forEach((line, n) => {
    const at = y + n * lineHeight;
    s.rect(16, at - 4, 16, 4, line.color);
    s.text(40, at + 2, fitted(s, line.series.name, f.width - 56, size), { size, color: ink });
  });
  if (f.lines.length > legendMax) s.text(40, y + legendMax * lineHeight + 2, `and ${f.lines.length - legendMax} more series`, { size, color: dim });
}

function drawScale(s: Surface, heat: Heat, y: number): void {
  s.text(16, y + 6, '0', { size, color: dim });
  for (let i = 0; i < 24; i++) s.rect(30 + i * 8, y - 6, 8.3, 14, heatColor((i + 1) / 24, false));
  s.text(30 + 24 * 8 + 8, y + 6, `${valueText(heat.max)} in a cell; the colour goes with the square root`, { size, color: dim });
}

/** niceTicks are round values between two bounds, at most so many. */
export function niceTicks(low: number, high: number, most: number): number[] {
  const raw = (high - low) / Math.max(1, most - 1);
  if (!(raw > 0) || !Number.isFinite(raw)) return [low];
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((v) => v >= raw * 0.999) ?? 10 * power;
  const out: number[] = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9 && out.length < 50; i++) out.push(Number((i * step).toPrecision(12)));
  return out;
}

const spans = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 2 * 86400, 7 * 86400, 14 * 86400];

/** timeMarks are round times of the zone between two times in Unix seconds, at most so many. Months and years are those of the calendar. */
export function timeMarks(from: number, to: number, most: number, zone: Zone): { ticks: number[]; step: number } {
  const length = to - from;
  const step = spans.find((s) => length / s <= most);
  const ticks: number[] = [];
  if (step !== undefined) {
    const shift = zone === 'utc' ? 0 : -new Date(from * 1000).getTimezoneOffset() * 60;
    for (let t = Math.ceil((from + shift) / step) * step - shift; t <= to; t += step) ticks.push(t);
    return { ticks, step };
  }
  const months = [1, 2, 3, 6, 12, 24, 60, 120].find((m) => length / (m * 30.4 * 86400) <= most) ?? 240;
  const d = new Date(from * 1000);
  const year = zone === 'utc' ? d.getUTCFullYear() : d.getFullYear();
  for (let m = 0; m < 12 * 400; m += months) {
    const at = (zone === 'utc' ? Date.UTC(year, m, 1) : new Date(year, m, 1).getTime()) / 1000;
    if (at > to) break;
    if (at >= from) ticks.push(at);
  }
  return { ticks, step: 86400 * 30 };
}
