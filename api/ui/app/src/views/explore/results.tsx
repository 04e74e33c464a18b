// What became of the queries: graph or table, with all that has to be said of it.
import type { ComponentChildren, VNode } from 'preact';
import { useEffect, useMemo, useState } from 'preact/hooks';
import { Empty, ErrorBox, Loading } from '../../core/ui';
import { count, durationText, timeWithZone, type Zone } from '../../core/format';
import { useDark } from '../../core/theme';
import { graphCSV, heatCSV, tableCSV } from './csv';
import { Graph } from './graph';
import { heatOf, type Heat } from './heat';
import { Heatmap } from './heatmap';
import { Legend } from './legend';
import { linesOf, type Line } from './lines';
import { ExportMenu, ShareButton } from './menu';
import { Annotations, ResolutionNote } from './notes';
import { parseTime, type Span } from './range';
import { fileName, saveFromServer, savePNG, saveSVG, saveText } from './save';
import { queryName, type ExploreState, type Mode } from './state';
import { ResultTable } from './table';
import { rangeText, TimeInput } from './controls';
import type { Outcome, Runner } from './run';

export interface ResultsProps {
  state: ExploreState;
  runner: Runner;
  complaint: string | undefined;
  zone: Zone;
  link: () => string;
  tabs: VNode;
  panel: (content: ComponentChildren) => VNode;
  onChange: (change: Partial<ExploreState>) => void;
  onZoom: (span: Span) => void;
  onZoomOut: () => void;
  onExample: (text: string) => void;
}

const noOutcomes: Outcome[] = [];
const graphHeight = 380;

export function Results(props: ResultsProps) {
  const { state, runner } = props;
  const dark = useDark();
  const round = runner.round;
  const outcomes = round?.outcomes ?? noOutcomes;
  const graph = useMemo(() => linesOf(outcomes, dark), [outcomes, dark]);
  const heats = useMemo(() => (state.mode === 'heatmap' ? heatsOf(outcomes) : []), [outcomes, state.mode]);
  const [hidden, setHidden] = useState<ReadonlySet<string>>(new Set());
  const [pointed, setPointed] = useState<string | undefined>();
  useEffect(() => {
    // What is not there any more need not be remembered as hidden.
    const there = new Set(graph.lines.map((l) => l.key));
    setHidden((h) => {
      const next = [...h].filter((k) => there.has(k));
      return next.length === h.size ? h : next.length === there.size ? new Set() : new Set(next);
    });
  }, [graph]);
  const shown = useMemo(() => graph.lines.filter((l) => !hidden.has(l.key)), [graph, hidden]);
  const heading = outcomes.map((o) => o.text).join('; ');
  const range = round?.request.grid;
  const isGraph = state.tab === 'graph';
  const good = outcomes.filter((o) => !o.error);
  const matches = isGraph ? !!range : !range;
  const notes = isGraph && matches ? graphNotes(graph, shown, state.mode) : [];

  // Files are on white, whatever the page is on.
  const figure = (heat: Heat | undefined) => ({
    title: heading,
    subtitle: range ? `${rangeText(range, props.zone)}, step ${durationText(range.step)}` : '',
    times: graph.times.length > 0 ? graph.times : (heat?.times ?? []),
    lines: linesOf(outcomes, false).lines.filter((l) => !hidden.has(l.key)),
    stacked: state.mode === 'stacked',
    heat,
    zone: props.zone,
    width: 1100,
  });
  const heat = heats[0]?.heat;
  const name = (extension: string) => fileName(heading, range?.end ?? round?.request.at ?? Date.now(), extension);
  const script = (format: 'gnuplot' | 'matplotlib', extension: string) => saveFromServer(
    { queries: good.map((o) => o.text), grid: range!, resolution: round!.request.resolution, title: heading, format }, name(extension),
  );
  const drawn = isGraph && !!range && (state.mode === 'heatmap' ? !!heat : shown.length > 0);

  return (
    <>
      <div class="result-head">
        {props.tabs}
        {isGraph ? (
          <label class="control">
            <span class="hidden-text">Graph as</span>
            <select data-testid="graph-mode" value={state.mode} onChange={(e) => props.onChange({ mode: e.currentTarget.value as Mode })}>
              <option value="lines">lines</option>
              <option value="stacked">stacked</option>
              <option value="heatmap">heatmap</option>
            </select>
          </label>
        ) : (
          <TimeInput
            name="At" text={state.at} zone={props.zone} testid="table-time" placeholder="end of the range"
            check={(t) => (Number.isFinite(parseTime(t, Date.now(), props.zone)) ? undefined : `“${t}” is not a time. Write now-1h, 2026-11-20 14:00, or nothing for the end of the range.`)}
            onSet={(at) => props.onChange({ at })}
          />
        )}
        <div class="result-tools">
          <ShareButton link={props.link} />
          <ExportMenu
            disabled={!matches || good.length === 0 || (isGraph && !drawn)} pictures={drawn} scripts={drawn && state.mode !== 'heatmap'}
            csv={() => saveText(
              !isGraph ? tableCSV(good.flatMap((o) => (o.instant ? [o.instant] : []))) : state.mode === 'heatmap' && heat ? heatCSV(heat) : graphCSV(graph.times, shown),
              'text/csv', name('csv'),
            )}
            png={() => savePNG(figure(state.mode === 'heatmap' ? heat : undefined), name('png'))}
            svg={() => saveSVG(figure(state.mode === 'heatmap' ? heat : undefined), name('svg'))}
            gnuplot={() => script('gnuplot', 'gp')}
            matplotlib={() => script('matplotlib', 'py')}
          />
        </div>
      </div>
      {props.panel(
        <div class={runner.since !== 0 && round ? 'result-body result-stale' : 'result-body'}>
          {props.complaint && <ErrorBox error={new Error(props.complaint)} />}
          {!round && runner.since === 0 && !props.complaint && <Nothing onExample={props.onExample} />}
          {((!round && runner.since !== 0) || (round && !matches && runner.since !== 0)) && <Loading text="Asking…" />}
          {round && matches && (
            <>
              <ResolutionNote outcomes={outcomes} />
              {isGraph ? (
                <GraphPart {...props} lines={shown} all={graph.lines} times={graph.times} heats={heats} hidden={hidden} setHidden={setHidden} pointed={pointed} setPointed={setPointed} outcomes={outcomes} histograms={graph.histograms} />
              ) : (
                <>
                  {good.length > 0 && <p class="dim small">Evaluated at {timeWithZone(round.request.at, props.zone)}</p>}
                  <ResultTable outcomes={outcomes} at={round.request.at} />
                </>
              )}
              {good.length === 0 && <Empty title="No answer">{outcomes.length === 1 ? 'The query failed. What is wrong stands under it.' : 'All queries failed. What is wrong stands under each.'}</Empty>}
              <Annotations outcomes={outcomes} notes={notes} />
            </>
          )}
        </div>,
      )}
    </>
  );
}

function heatsOf(outcomes: readonly Outcome[]): { index: number; heat: Heat }[] {
  return outcomes.flatMap((o) => {
    const heat = o.range ? heatOf(o.range, o.range.grid.step) : undefined;
    return heat ? [{ index: o.index, heat }] : [];
  });
}

function graphNotes(graph: ReturnType<typeof linesOf>, shown: readonly Line[], mode: Mode): string[] {
  const notes: string[] = [];
  if (graph.left > 0) notes.push(`${count(graph.left)} more series are not drawn. Aggregate with sum by (...) or choose fewer with topk, to see all.`);
  if (mode !== 'heatmap' && graph.odd > 0) notes.push(`${count(graph.odd)} values are NaN or infinite and have no place on the axis.`);
  if (mode !== 'heatmap' && graph.histograms > 0 && shown.length > 0) notes.push(`${count(graph.histograms)} native histograms are shown in the heatmap alone.`);
  return notes;
}

interface PartProps extends ResultsProps {
  lines: readonly Line[];
  all: readonly Line[];
  times: readonly number[];
  heats: { index: number; heat: Heat }[];
  hidden: ReadonlySet<string>;
  setHidden: (hidden: ReadonlySet<string>) => void;
  pointed: string | undefined;
  setPointed: (key: string | undefined) => void;
  outcomes: readonly Outcome[];
  histograms: number;
}

function GraphPart(props: PartProps) {
  const zoom = (from: number, to: number) => {
    // Whole seconds, where that makes no difference to see.
    const unit = to - from > 120 ? 1000 : 1;
    props.onZoom({ start: Math.floor((from * 1000) / unit) * unit, end: Math.ceil((to * 1000) / unit) * unit });
  };
  const answered = props.outcomes.some((o) => o.range);
  if (!answered) return props.outcomes.some((o) => !o.error) ? <Empty title="This answer is no graph">Look at it in the table.</Empty> : null;
  if (props.state.mode === 'heatmap') {
    if (props.heats.length === 0) {
      return props.all.length === 0 ? <NoSeries /> : (
        <Empty title="There are no buckets in this answer">
          A heatmap shows native histograms, or series with the label le, such as <code>sum by (le) (rate(NAME_bucket[5m]))</code>.
        </Empty>
      );
    }
    return (
      <div data-testid="graph" class="stack">
        {props.heats.map(({ index, heat }) => (
          <div key={index}>
            {props.heats.length > 1 && <h3>Query {queryName(index)}</h3>}
            <Heatmap heat={heat} height={graphHeight} onZoom={zoom} label={`Heatmap of query ${queryName(index)}`} />
          </div>
        ))}
      </div>
    );
  }
  if (props.all.length === 0) {
    return props.histograms > 0 ? (
      <Empty title="This answer is of native histograms">
        <button type="button" class="link" onClick={() => props.onChange({ mode: 'heatmap' })}>Show them as a heatmap</button>
      </Empty>
    ) : (
      <NoSeries />
    );
  }
  return (
    <>
      <div data-testid="graph">
        <Graph
          times={props.times} lines={props.lines} stacked={props.state.mode === 'stacked'} height={graphHeight} pointed={props.pointed}
          onZoom={zoom} onZoomOut={props.onZoomOut} label={`Graph of ${props.lines.length} series`}
        />
      </div>
      <Legend lines={props.all} hidden={props.hidden} onHidden={props.setHidden} onPoint={props.setPointed} />
    </>
  );
}

function NoSeries() {
  return <Empty title="No series in this range">Nothing matched. Look for the name with completion, or choose another range.</Empty>;
}

const examples: [string, string][] = [
  ['up', 'which targets could be scraped'],
  ['sum by (job) (scrape_samples_scraped)', 'samples of a scrape, by job'],
  ['rate(process_cpu_seconds_total[5m])', 'how much CPU processes use'],
];

function Nothing(props: { onExample: (text: string) => void }) {
  return (
    <Empty title="Write a query and press Enter">
      <p>Completion knows the metrics, labels and functions. Or begin with one of these:</p>
      <ul class="examples">
        {examples.map(([text, what]) => (
          <li key={text}><button type="button" class="example" onClick={() => props.onExample(text)}><code>{text}</code><span class="dim">{what}</span></button></li>
        ))}
      </ul>
    </Empty>
  );
}
