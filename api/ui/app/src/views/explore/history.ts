// The queries that were run, newest first, kept in this browser.
import { createStore } from '../../core/store';

const entriesMax = 100;
const lengthMax = 4096;

const valid = (v: unknown) => Array.isArray(v) && v.every((s) => typeof s === 'string');

export const history = createStore<string[]>([], 'history', valid);

/** remembered is a history with a query in front. Pure. */
export function remembered(list: readonly string[], query: string): string[] {
  const text = query.trim();
  if (text === '' || text.length > lengthMax) return [...list];
  return [text, ...list.filter((q) => q !== text)].slice(0, entriesMax);
}

/** remember puts queries in front. */
export function remember(queries: readonly string[]): void {
  const next = [...queries].reverse().reduce(remembered, history.get());
  if (JSON.stringify(next) !== JSON.stringify(history.get())) history.set(next);
}
