// Asking the server again and again, but never twice at a time and not while nobody looks.
import { useCallback, useEffect, useRef, useState } from 'preact/hooks';
import { isAbort } from './api';

export interface Poll<T> {
  /** The last answer, kept while a later request fails. */
  data: T | undefined;
  /** What the last request failed with, undefined after a success. */
  error: unknown;
  /** Whether a request is under way. */
  loading: boolean;
  /** When the last answer came, in Unix milliseconds; 0 for never. */
  at: number;
  /** Asks now. */
  reload: () => void;
}

/**
 * usePoll calls load at once, whenever one of deps changes, and seconds after each answer; 0 asks once. A request is aborted when the
 * component goes or deps change. While the tab is hidden nothing is asked; it asks at once when the tab is seen again.
 */
export function usePoll<T>(load: (signal: AbortSignal) => Promise<T>, seconds: number, deps: readonly unknown[] = []): Poll<T> {
  const [state, setState] = useState<Omit<Poll<T>, 'reload'>>({ data: undefined, error: undefined, loading: true, at: 0 });
  const latest = useRef(load);
  latest.current = load;
  const again = useRef<() => void>(() => {});

  useEffect(() => {
    let abort: AbortController | undefined;
    let timer: ReturnType<typeof setTimeout> | undefined;
    let missed = false;
    let gone = false;
    const run = async () => {
      clearTimeout(timer);
      abort?.abort();
      const mine = new AbortController();
      abort = mine;
      setState((s) => ({ ...s, loading: true }));
      try {
        const data = await latest.current(mine.signal);
        if (!mine.signal.aborted) setState({ data, error: undefined, loading: false, at: Date.now() });
      } catch (error) {
        if (mine.signal.aborted || isAbort(error)) return;
        setState((s) => ({ ...s, error, loading: false }));
      }
      if (gone || mine.signal.aborted || seconds <= 0) return;
      timer = setTimeout(() => {
        if (document.hidden) missed = true;
        else void run();
      }, seconds * 1000);
    };
    const seen = () => {
      if (document.hidden || !missed) return;
      missed = false;
      void run();
    };
    again.current = () => void run();
    document.addEventListener('visibilitychange', seen);
    void run();
    return () => {
      gone = true;
      clearTimeout(timer);
      abort?.abort();
      document.removeEventListener('visibilitychange', seen);
    };
  }, [seconds, ...deps]);

  const reload = useCallback(() => again.current(), []);
  return { ...state, reload };
}
