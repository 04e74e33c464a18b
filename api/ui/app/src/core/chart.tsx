// A graph over time for the views that show the server's own figures. Explore has its own, with more to it.
import { useEffect, useRef } from 'preact/hooks';
import uPlot from 'uplot';
import 'uplot/dist/uPlot.min.css';
import { cssColor, useDark } from './theme';
import { seriesColor } from './color';
import { bytes, compact, time, useZone, value as plainValue, type Zone } from './format';
import { bounds, timeTicks } from './axis';

/** pointsMax bounds what is drawn of a series: more than pixels are not seen. */
const pointsMax = 4000;

export interface ChartSeries {
  label: string;
  values: readonly (number | null)[];
  color?: string;
}

export interface ChartProps {
  /** Unix seconds, ascending. */
  times: readonly number[];
  series: readonly ChartSeries[];
  kind?: 'lines' | 'area' | 'bars';
  /** Axis and hover values. */
  format?: (v: number) => string;
  height?: number;
  /** What the graph shows, for those who don't see it. */
  label: string;
  testid?: string;
  onZoom?: (from: number, to: number) => void;
  /** What a point stands for, in seconds: bars get room at both ends, and no ticks stand closer. Of days, the zone is UTC, as days are. */
  stepSeconds?: number;
  /** The value axis begins at 0; on by default. */
  fromZero?: boolean;
}

/** axes returns the two axes as all graphs have them, in the colours of the theme. */
export function axes(format: (v: number) => string, z: Zone, binary = format(1536) === bytes(1536)): uPlot.Axis[] {
  const common = {
    stroke: cssColor('--text-dim'),
    font: '11px system-ui, sans-serif',
    grid: { stroke: cssColor('--grid'), width: 1 },
    ticks: { stroke: cssColor('--grid'), width: 1, size: 4 },
  };
  return [
    { ...common, space: 80, size: 34, values: (_u, splits, _axis, _space, step) => timeTicks(splits, step ?? 60, z) },
    { ...common, ...(binary ? { incrs: binarySteps } : {}), size: valueAxisSize, values: (_u, splits) => splits.map((v) => (v === null ? '' : format(v))) },
  ];
}

/** binarySteps are the distances of ticks of an axis of bytes, so that they stand at whole KiB, MiB, ... */
const binarySteps = Array.from({ length: 64 }, (_, i) => 2 ** i);

/** stepsFrom are the distances of ticks of days, weeks, months and years that are not below a step. */
function stepsFrom(step: number): number[] {
  const day = 86400;
  return [3600, 3 * 3600, 6 * 3600, 12 * 3600, day, 2 * day, 5 * day, 10 * day, 30 * day, 91 * day, 182 * day, 365 * day, 730 * day, 1826 * day].filter((s) => s >= step || s >= 30 * day);
}

/** valueAxisSize makes the axis as wide as its longest text. */
export function valueAxisSize(u: uPlot, values: string[] | null): number {
  if (!values || values.length === 0) return 44;
  u.ctx.save();
  u.ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
  const widest = Math.max(...values.map((v) => u.ctx.measureText(v ?? '').width));
  u.ctx.restore();
  return Math.ceil(Math.max(widest / devicePixelRatio + 16, 36));
}

/** tzDate makes uPlot put its ticks at round times of the zone. */
export function tzDate(z: Zone): (ts: number) => Date {
  return (ts) => (z === 'utc' ? uPlot.tzDate(new Date(ts * 1000), 'Etc/UTC') : new Date(ts * 1000));
}

/** thin keeps every n-th point, so that no more than most are left. */
function thin<T>(list: readonly T[], n: number): T[] {
  return n <= 1 ? [...list] : list.filter((_, i) => i % n === 0);
}

export function Chart(props: ChartProps) {
  const host = useRef<HTMLDivElement>(null);
  const dark = useDark();
  const chosen = useZone();
  const z = (props.stepSeconds ?? 0) >= 86400 ? 'utc' : chosen;
  const format = props.format ?? compact;
  const height = props.height ?? 220;

  useEffect(() => {
    const element = host.current;
    if (!element || props.times.length === 0) return;
    const every = Math.ceil(props.times.length / pointsMax);
    const colors = props.series.map((s, i) => s.color ?? (i === 0 ? cssColor('--accent') : seriesColor(0, i, true, dark)));
    const step = (props.stepSeconds ?? 0) * every;
    const [timeAxis, valueAxis] = axes(format, z);
    const bars = props.kind === 'bars' ? uPlot.paths.bars?.({ size: [0.8, 40, 1] }) : undefined;
    const plot = new uPlot(
      {
        width: element.clientWidth || 300,
        height,
        tzDate: tzDate(z),
        legend: { live: true, show: true },
        cursor: { drag: { x: !!props.onZoom, y: false, setScale: false }, points: { size: 6 } },
        // The last date needs room to be written.
        padding: [null, 28, null, null],
        scales: { x: { time: true, ...(step > 0 ? { range: (_u: uPlot, low: number, high: number): [number, number] => [low - step / 2, high + step / 2] } : {}) }, y: { range: (_u, low, high) => bounds(low, high, props.fromZero ?? true) } },
        axes: [step > 0 ? { ...timeAxis, incrs: stepsFrom(step) } : timeAxis!, valueAxis!],
        series: [
          { label: z === 'utc' ? 'Time (UTC)' : 'Time', value: (_u, v) => (v === null ? '–' : time(v * 1000, z)) },
          ...props.series.map((s, i) => ({
            label: s.label,
            stroke: colors[i]!,
            width: 1.5,
            fill: props.kind === 'lines' || !props.kind ? undefined : `${colors[i]}${props.kind === 'bars' ? 'cc' : '33'}`,
            points: { show: props.kind === 'bars' ? false : props.times.length < 40 },
            ...(bars ? { paths: bars } : {}),
            value: (_u: uPlot, v: number | null) => (v === null ? '–' : format === compact ? plainValue(v) : format(v)),
          })),
        ],
        hooks: {
          setSelect: [
            (u) => {
              if (u.select.width < 4) return;
              props.onZoom?.(u.posToVal(u.select.left, 'x'), u.posToVal(u.select.left + u.select.width, 'x'));
              u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
            },
          ],
        },
      },
      [thin(props.times, every), ...props.series.map((s) => thin(s.values, every))] as uPlot.AlignedData,
      element,
    );
    const resized = new ResizeObserver(() => {
      const width = element.clientWidth;
      if (width > 0 && width !== plot.width) plot.setSize({ width, height });
    });
    resized.observe(element);
    return () => {
      resized.disconnect();
      plot.destroy();
    };
  }, [props.times, props.series, props.kind, props.fromZero, props.stepSeconds, format, height, dark, z]);

  return <div class="chart" ref={host} role="img" aria-label={props.label} data-testid={props.testid} style={{ minHeight: `${height}px` }} />;
}
