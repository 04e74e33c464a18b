// Explore: queries over time, as graphs and as tables.
import { useCallback, useEffect, useMemo, useRef, useState } from 'preact/hooks';
import './style.css';
import { href, navigate, useRoute } from '../../core/router';
import { usePage } from '../../core/page';
import { parseDuration, useZone } from '../../core/format';
import { Button, TabPanel, Tabs } from '../../core/ui';
import { Icon, paths } from '../../shell/icons';
import { DetailControls, RangeControls } from './controls';
import { remember } from './history';
import { QueryStats } from './notes';
import { QueryRow } from './query';
import { autoStep, gridOf, isRelative, parseRange, parseStep, parseTime, pointsOf, widened, written, type Span } from './range';
import { Results } from './results';
import { useRunner, type Request } from './run';
import { initialState, queriesMax, readState, writeState, type ExploreState } from './state';
import { RunButtons } from './runbuttons';

/** defaultPixels is taken for the width of the graph before it is there. */
const defaultPixels = 900;

export default function Explore() {
  const route = useRoute();
  const zone = useZone();
  const { facts } = usePage();
  const address = route.params.toString();
  const state = useMemo(() => readState(new URLSearchParams(address)), [address]);
  // What is typed is not what is run: the address says what was run.
  const [drafts, setDrafts] = useState(state.queries);
  const [focus, setFocus] = useState(-1);
  const [complaint, setComplaint] = useState<string | undefined>();
  const runner = useRunner();
  const body = useRef<HTMLDivElement>(null);
  const maxPoints = facts?.maxPoints ?? 11000;
  const resolutions = facts?.resolutions ?? [];

  const pixels = useCallback(() => Math.max(240, (body.current?.clientWidth ?? defaultPixels) - 90), []);

  const requestOf = useCallback((s: ExploreState): Request | string => {
    const now = Date.now();
    const range = parseRange(s.from, s.to, now, zone);
    if ('error' in range) return range.error;
    const queries = s.queries.flatMap((q, index) => (q.on && q.text.trim() !== '' ? [{ index, text: q.text }] : []));
    const at = s.at === '' ? range.span.end : parseTime(s.at, now, zone);
    if (s.tab === 'table') return Number.isFinite(at) ? { queries, resolution: s.resolution, at } : `“${s.at}” is not a time.`;
    const chosen = parseStep(s.step);
    const step = chosen > 0 ? chosen : autoStep(range.span.end - range.span.start, pixels(), resolutions.map(parseDuration).filter((r) => r > 0), maxPoints);
    const grid = gridOf(range.span, step, chosen > 0 && !isRelative(s.from) && !isRelative(s.to));
    if (pointsOf(grid) > maxPoints) return `A step of ${s.step} makes ${pointsOf(grid).toLocaleString('en-US')} points of this range, and ${maxPoints.toLocaleString('en-US')} is the most. Choose a longer step, or auto.`;
    return { queries, resolution: s.resolution, grid, at };
  }, [zone, pixels, maxPoints, resolutions.join(' ')]);

  const execute = useCallback((s: ExploreState) => {
    const request = requestOf(s);
    if (typeof request === 'string') {
      setComplaint(request);
      return;
    }
    setComplaint(undefined);
    if (request.queries.length > 0) runner.run(request);
    else runner.clear();
  }, [requestOf, runner.run, runner.clear]);

  // The address is the one cause of a run, so that Back and a pasted link do what a press does.
  const first = useRef(true);
  useEffect(() => {
    setDrafts(state.queries);
    if (first.current) setFocus(state.queries.every((q) => q.text === '') ? 0 : -1);
    first.current = false;
  }, [state]);
  const asked = JSON.stringify([state.queries, state.from, state.to, state.step, state.resolution, state.tab, state.at]);
  useEffect(() => execute(state), [asked, zone]);

  const go = useCallback((change: Partial<ExploreState>) => {
    const next = { ...state, queries: drafts, ...change };
    const params = writeState(next);
    if (params.toString() === address) execute(next);
    else navigate('explore', params);
  }, [state, drafts, address, execute]);

  const run = (queries = drafts) => {
    remember(queries.filter((q) => q.on).map((q) => q.text));
    go({ queries });
  };

  useEffect(() => {
    if (state.refresh === 0 || runner.since !== 0) return;
    let timer: ReturnType<typeof setTimeout>;
    const tick = () => {
      timer = setTimeout(() => (document.hidden ? tick() : execute(state)), state.refresh * 1000);
    };
    tick();
    return () => clearTimeout(timer);
  }, [state, runner.since, execute]);

  const zoomTo = useCallback((span: Span) => go({ from: written(span.start), to: written(span.end) }), [go]);
  const zoomOut = useCallback(() => {
    const range = parseRange(state.from, state.to, Date.now(), zone);
    if ('span' in range) zoomTo(widened(range.span, Date.now()));
  }, [state, zone, zoomTo]);

  const spanNow = () => {
    const range = parseRange(state.from, state.to, Date.now(), zone);
    return 'span' in range ? range.span : undefined;
  };

  const link = () => {
    const now = Date.now();
    const grid = runner.round?.request.grid;
    const range = parseRange(state.from, state.to, now, zone);
    const span = grid ?? ('span' in range ? range.span : undefined);
    const at = state.at !== '' || state.tab === 'table' ? runner.round?.request.at ?? now : undefined;
    const shared: ExploreState = {
      ...state,
      ...(span ? { from: written(span.start), to: written(span.end) } : {}),
      ...(at !== undefined && state.at !== '' ? { at: written(at) } : {}),
      refresh: 0,
    };
    return new URL(href('explore', writeState(shared)), document.baseURI).href;
  };

  const span = spanNow();
  const step = span ? autoStep(span.end - span.start, pixels(), resolutions.map(parseDuration).filter((r) => r > 0), maxPoints) : 0;
  const outcomes = runner.round?.outcomes ?? [];
  const changed = JSON.stringify(drafts) !== JSON.stringify(state.queries);

  return (
    <>
      <h1 class="hidden-text">Explore</h1>
      <section class="card explore-queries" aria-label="Queries">
        {drafts.map((query, index) => (
          <QueryRow
            key={index} index={index} query={query} removable={drafts.length > 1 || query.text !== ''} focus={focus === index} span={spanNow}
            outcome={outcomes.find((o) => o.index === index)}
            onText={(text) => setDrafts((d) => d.map((q, i) => (i === index && q.text !== text ? { ...q, text } : q)))}
            onSwitch={() => run(drafts.map((q, i) => (i === index ? { ...q, on: !q.on } : q)))}
            onRemove={() => {
              const rest = drafts.filter((_, i) => i !== index);
              go({ queries: rest.length > 0 ? rest : initialState.queries });
            }}
            onRun={(text) => run(text === undefined ? drafts : drafts.map((q, i) => (i === index ? { text, on: true } : q)))}
          />
        ))}
        <div class="query-foot">
          <RunButtons since={runner.since} cancelled={runner.cancelled} changed={changed} onRun={() => run()} onCancel={runner.cancel} />
          <Button
            kind="quiet" testid="query-add" disabled={drafts.length >= queriesMax} title={drafts.length >= queriesMax ? `At most ${queriesMax} queries` : undefined}
            onClick={() => {
              setFocus(drafts.length);
              setDrafts([...drafts, { text: '', on: true }]);
            }}
          >
            <Icon d={paths.plus} />Add query
          </Button>
        </div>
      </section>
      <section class="card explore-controls" aria-label="Time and resolution">
        <RangeControls state={state} resolutions={resolutions} autoStep={step} onChange={go} />
        <DetailControls state={state} resolutions={resolutions} autoStep={step} onChange={go} />
      </section>
      <section class="card explore-result" aria-label="Result" aria-busy={runner.since !== 0} ref={body}>
        <Results
          state={state} runner={runner} complaint={complaint} zone={zone} link={link} onChange={go} onZoom={zoomTo} onZoomOut={zoomOut}
          onExample={(text) => run([{ text, on: true }])}
          tabs={
            <Tabs
              id="explore" label="Result as" active={state.tab} onChange={(tab) => go({ tab: tab as ExploreState['tab'] })}
              items={[{ key: 'graph', title: 'Graph', testid: 'tab-graph' }, { key: 'table', title: 'Table', testid: 'tab-table' }]}
            />
          }
          panel={(content) => <TabPanel id="explore" active={state.tab}>{content}</TabPanel>}
        />
      </section>
      <QueryStats outcomes={outcomes} />
    </>
  );
}
