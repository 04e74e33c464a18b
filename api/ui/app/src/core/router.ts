// The address behind the hash: #/view?name=value. It says all that a view shows, so that it can be kept and sent to others.
import { useEffect, useState } from 'preact/hooks';

export const viewNames = ['explore', 'archive', 'pipeline', 'configuration'] as const;
export type ViewName = (typeof viewNames)[number];

export interface Route {
  view: ViewName;
  params: URLSearchParams;
}

/** parseRoute reads a hash. What names no view is Explore. */
export function parseRoute(hash: string): Route {
  const text = hash.replace(/^#\/?/, '');
  const mark = text.indexOf('?');
  const name = mark < 0 ? text : text.slice(0, mark);
  const view = viewNames.find((v) => v === name.replace(/\/+$/, '')) ?? 'explore';
  return { view, params: new URLSearchParams(mark < 0 ? '' : text.slice(mark + 1)) };
}

/** href is the link to a view, relative to the page. */
export function href(view: ViewName, params?: URLSearchParams): string {
  const text = params?.toString() ?? '';
  return `#/${view}${text === '' ? '' : `?${text}`}`;
}

const changed = new Set<() => void>();
addEventListener('hashchange', () => changed.forEach((f) => f()));

/** navigate goes to a view; with replace the step back leaves it out. */
export function navigate(view: ViewName, params?: URLSearchParams, replace = false): void {
  const to = href(view, params);
  if (to === location.hash) return;
  if (replace) history.replaceState(null, '', to);
  else history.pushState(null, '', to);
  changed.forEach((f) => f());
}

/** useRoute is the route of the address now. */
export function useRoute(): Route {
  const [hash, setHash] = useState(location.hash);
  useEffect(() => {
    const update = () => setHash(location.hash);
    changed.add(update);
    update();
    return () => {
      changed.delete(update);
    };
  }, []);
  return parseRoute(hash);
}
