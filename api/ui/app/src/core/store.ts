// A value that several parts of the page watch, and that may outlive a visit in localStorage.
import { useEffect, useState } from 'preact/hooks';

export interface Store<T> {
  get(): T;
  set(value: T): void;
  subscribe(watch: () => void): () => void;
}

const prefix = 'varve.';

/** readStored returns what localStorage has for a name, or undefined where there is nothing or no storage. */
export function readStored<T>(name: string): T | undefined {
  try {
    const text = localStorage.getItem(prefix + name);
    return text === null ? undefined : (JSON.parse(text) as T);
  } catch {
    return undefined;
  }
}

/** writeStored keeps a value. Storage that is off or full loses it, which nobody has to act upon. */
export function writeStored(name: string, value: unknown): void {
  try {
    localStorage.setItem(prefix + name, JSON.stringify(value));
  } catch {
    // The page works without.
  }
}

/** createStore makes a store; with a name it begins with what was kept, if valid says yes, and keeps what is set. */
export function createStore<T>(initial: T, name?: string, valid: (v: unknown) => boolean = () => true): Store<T> {
  const kept = name === undefined ? undefined : readStored<T>(name);
  let value = kept !== undefined && valid(kept) ? kept : initial;
  const watchers = new Set<() => void>();
  return {
    get: () => value,
    set(next) {
      if (Object.is(next, value)) return;
      value = next;
      if (name !== undefined) writeStored(name, next);
      for (const watch of [...watchers]) watch();
    },
    subscribe(watch) {
      watchers.add(watch);
      return () => watchers.delete(watch);
    },
  };
}

/** useStore returns the value and renders again when it changes. */
export function useStore<T>(store: Store<T>): T {
  const [, render] = useState(0);
  useEffect(() => {
    const seen = store.get();
    const unsubscribe = store.subscribe(() => render((n) => n + 1));
    if (!Object.is(seen, store.get())) render((n) => n + 1);
    return unsubscribe;
  }, [store]);
  return store.get();
}
