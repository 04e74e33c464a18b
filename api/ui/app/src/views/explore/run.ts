// Asking the server: all queries of the page at once, with a way to stop, and never two rounds at a time.
import { useCallback, useEffect, useRef, useState } from 'preact/hooks';
import { ApiError, ask, isAbort } from '../../core/api';
import { readMatrix, type QueryData, type RangeResult } from './result';
import { pointsOf, type Grid } from './range';

export interface Ask {
  index: number;
  text: string;
}

export interface Request {
  queries: Ask[];
  resolution: string;
  /** The points of a graph; without it the queries are answered at one time. */
  grid?: Grid;
  /** That time, in Unix milliseconds. */
  at: number;
}

/** Outcome is what became of one query. */
export interface Outcome {
  index: number;
  text: string;
  range?: RangeResult;
  instant?: QueryData;
  error?: unknown;
  /** The header that names what the answer was made from. */
  resolution: string;
  warnings: string[];
  infos: string[];
  stats: unknown;
  /** From the request to the last byte. */
  seconds: number;
  /** Length of the answer's JSON, in characters. */
  length: number;
}

export interface Round {
  request: Request;
  outcomes: Outcome[];
  finished: number;
}

export interface Runner {
  /** The last round that came to its end, kept while another runs. */
  round: Round | undefined;
  /** When the round that runs began, in Unix milliseconds; 0 if none runs. */
  since: number;
  /** How long the round that was cancelled had run, in seconds. */
  cancelled: number | undefined;
  run: (request: Request) => void;
  cancel: () => void;
  /** Stops what runs and forgets what was answered. */
  clear: () => void;
}

/** valuesMax bounds the values of an answer: they pass through the memory of the tab as text. */
const valuesMax = 3_000_000;

/** rowsMax bounds the rows of a table's answer. */
const rowsMax = 10_000;

async function askOne(q: Ask, r: Request, signal: AbortSignal): Promise<Outcome> {
  const began = performance.now();
  const common = { query: q.text, stats: 'all', resolution: r.resolution === 'auto' ? undefined : r.resolution };
  try {
    const answer = r.grid
      ? await ask<QueryData>('POST', 'query_range', {
          ...common,
          start: r.grid.start / 1000,
          end: r.grid.end / 1000,
          step: r.grid.step / 1000,
          limit: Math.min(rowsMax, Math.max(600, Math.floor(valuesMax / pointsOf(r.grid)))),
        }, signal)
      : await ask<QueryData>('POST', 'query', { ...common, time: r.at / 1000, limit: rowsMax }, signal);
    const out: Outcome = {
      index: q.index,
      text: q.text,
      resolution: answer.headers.get('X-Varve-Resolution') ?? '',
      warnings: answer.warnings,
      infos: answer.infos,
      stats: answer.data.stats,
      seconds: (performance.now() - began) / 1000,
      length: answer.length,
    };
    if (r.grid && answer.data.resultType === 'matrix') out.range = readMatrix(answer.data.result, r.grid, q.index);
    else out.instant = answer.data;
    return out;
  } catch (error) {
    if (isAbort(error)) throw error;
    return { index: q.index, text: q.text, error, resolution: '', warnings: [], infos: [], stats: undefined, seconds: (performance.now() - began) / 1000, length: 0 };
  }
}

export function useRunner(): Runner {
  const [state, setState] = useState<Pick<Runner, 'round' | 'since' | 'cancelled'>>({ round: undefined, since: 0, cancelled: undefined });
  const abort = useRef<AbortController | undefined>(undefined);

  const run = useCallback((request: Request) => {
    abort.current?.abort();
    const mine = new AbortController();
    abort.current = mine;
    setState((s) => ({ ...s, since: Date.now(), cancelled: undefined }));
    Promise.all(request.queries.map((q) => askOne(q, request, mine.signal))).then(
      (outcomes) => {
        if (mine.signal.aborted) return;
        setState({ round: { request, outcomes, finished: Date.now() }, since: 0, cancelled: undefined });
      },
      (error) => {
        if (mine.signal.aborted) return;
        setState((s) => ({ ...s, since: 0 }));
        throw error;
      },
    );
  }, []);

  const cancel = useCallback(() => {
    if (!abort.current || abort.current.signal.aborted) return;
    abort.current.abort();
    setState((s) => (s.since === 0 ? s : { ...s, since: 0, cancelled: (Date.now() - s.since) / 1000 }));
  }, []);

  const clear = useCallback(() => {
    abort.current?.abort();
    setState((s) => (s.round || s.since !== 0 ? { round: undefined, since: 0, cancelled: undefined } : s));
  }, []);

  useEffect(() => () => abort.current?.abort(), []);
  return { ...state, run, cancel, clear };
}

/** faultAt finds the place in a query that an error of the parser names, as an offset; undefined if it names none. */
export function faultAt(text: string, error: unknown): { at: number; message: string } | undefined {
  if (!(error instanceof ApiError)) return undefined;
  const match = /(?:^|\D)(\d+):(\d+): (parse error: .*)$/s.exec(error.message);
  if (!match) return undefined;
  const lines = text.split('\n');
  const line = Number(match[1]) - 1;
  const before = lines.slice(0, line).reduce((sum, l) => sum + l.length + 1, 0);
  return { at: Math.min(text.length, before + Number(match[2]) - 1), message: match[3]! };
}
