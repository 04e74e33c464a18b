// The frame around the views: name, navigation, the choices that hold everywhere, and what to do first.
import type { ComponentType } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import { href, useRoute, viewNames, type ViewName } from '../core/router';
import { Button, ErrorBox, Loading } from '../core/ui';
import { askAgainMillis, mustAskAgain, refreshPage, usePage } from '../core/page';
import { nextTheme, theme, type Theme } from '../core/theme';
import { useStore } from '../core/store';
import { useZone, zone, zoneName } from '../core/format';
import { FirstSteps } from './first';
import { Logo, ThemeIcon } from './icons';

const titles: Record<ViewName, string> = {
  explore: 'Explore',
  archive: 'Archive',
  pipeline: 'Pipeline',
  configuration: 'Configuration',
};

const loaders: Record<ViewName, () => Promise<{ default: ComponentType }>> = {
  explore: () => import('../views/explore/index'),
  archive: () => import('../views/archive/index'),
  pipeline: () => import('../views/pipeline/index'),
  configuration: () => import('../views/configuration/index'),
};

const loaded: Partial<Record<ViewName, ComponentType>> = {};

export function App() {
  const route = useRoute();
  const state = usePage();
  const { facts } = state;
  const again = mustAskAgain(state);
  // Going back to a view shows what it showed.
  const left = useRef<Partial<Record<ViewName, URLSearchParams>>>({});
  left.current[route.view] = route.params;
  useEffect(() => {
    const abort = new AbortController();
    void refreshPage(abort.signal);
    return () => abort.abort();
  }, []);
  useEffect(() => {
    if (!again) return;
    const timer = setInterval(() => {
      if (!document.hidden) void refreshPage();
    }, askAgainMillis);
    return () => clearInterval(timer);
  }, [again]);
  useEffect(() => {
    document.title = `${titles[route.view]} · Varve`;
  }, [route.view]);

  return (
    <>
      <a class="skip" href="#main" onClick={(e) => { e.preventDefault(); document.getElementById('main')?.focus(); }}>Skip to content</a>
      <header class="top">
        <a class="brand" href={href('explore')} aria-label="Varve, to Explore"><Logo /><span>Varve</span></a>
        <nav aria-label="Views">
          {viewNames.map((name) => (
            <a
              key={name} href={href(name, left.current[name])} data-testid={`nav-${name}`} aria-current={route.view === name ? 'page' : undefined}
              onClick={(e) => {
                // The view that is open keeps what it shows.
                if (route.view === name && !e.ctrlKey && !e.metaKey) e.preventDefault();
              }}
            >
              {titles[name]}
            </a>
          ))}
        </nav>
        <div class="top-choices">
          <ZoneToggle />
          <ThemeToggle />
        </div>
      </header>
      <main id="main" tabIndex={-1}>
        {facts?.hasData === false && <FirstSteps facts={facts} />}
        <View name={route.view} />
      </main>
      <footer class="foot">
        {facts && <span>Varve {facts.version}</span>}
        {facts?.caller && <span>logged in as {facts.caller}</span>}
        <span>Times in {zoneName(useZone())}</span>
      </footer>
    </>
  );
}

function View(props: { name: ViewName }) {
  const [, render] = useState(0);
  const [error, setError] = useState<unknown>();
  const load = (name: ViewName) => {
    setError(undefined);
    loaders[name]().then(
      (module) => {
        loaded[name] = module.default;
        render((n) => n + 1);
      },
      () => setError(new Error('This part of the page could not be loaded. The server may have been updated: reload the page.')),
    );
  };
  useEffect(() => {
    if (!loaded[props.name]) load(props.name);
  }, [props.name]);
  const Found = loaded[props.name];
  if (Found) return <Found key={props.name} />;
  if (error) return <ErrorBox error={error} retry={() => load(props.name)} />;
  return <Loading />;
}

function ZoneToggle() {
  const z = useZone();
  return (
    <Button
      kind="quiet" small testid="zone-toggle" label={`Times are in ${z === 'utc' ? 'UTC' : 'local time'}. Change to ${z === 'utc' ? 'local time' : 'UTC'}.`}
      title="UTC or local time" onClick={() => zone.set(z === 'utc' ? 'local' : 'utc')}
    >
      {z === 'utc' ? 'UTC' : 'Local'}
    </Button>
  );
}

const themeNames: Record<Theme, string> = { system: 'as the system', light: 'light', dark: 'dark' };

function ThemeToggle() {
  const now = useStore(theme);
  return (
    <Button
      kind="quiet" small testid="theme-toggle" label={`Theme: ${themeNames[now]}. Change to ${themeNames[nextTheme()]}.`}
      title={`Theme: ${themeNames[now]}`} onClick={() => theme.set(nextTheme())}
    >
      <ThemeIcon theme={now} />
    </Button>
  );
}

