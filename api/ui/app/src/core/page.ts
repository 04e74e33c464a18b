// Facts of the server that every view needs.
import { createStore, useStore } from './store';
import { ApiError, get } from './api';

/** PageFacts is api/v1/status/page. Times are Unix milliseconds. */
export interface PageFacts {
  version: string;
  revision: string;
  goVersion: string;
  externalURL: string;
  writeURL: string;
  /** Whether the endpoints of administrators are on, and this caller may use them. */
  admin: boolean;
  lifecycle: boolean;
  /** Who is logged in, empty if nobody has to. */
  caller: string;
  /** Whether there are samples of anything but the server itself. */
  hasData: boolean;
  now: number;
  resolutions: string[];
  lookbackSeconds: number;
  maxPoints: number;
  canary: boolean;
}

export interface PageState {
  facts: PageFacts | undefined;
  error: unknown;
}

export const page = createStore<PageState>({ facts: undefined, error: undefined });
export const usePage = () => useStore(page);

/** askAgainMillis is how soon to ask for a page that is not there. */
export const askAgainMillis = 5000;

/**
 * mustAskAgain tells that the facts are to be asked for again: while there are none, as a server that starts gives none yet, and while
 * there is nothing to see, when somebody is setting things up and wants to see the first sample come.
 */
export function mustAskAgain(state: PageState): boolean {
  return state.facts === undefined || !state.facts.hasData;
}

/** refreshPage asks for the facts again, and keeps the old ones if there is no answer. */
export async function refreshPage(signal?: AbortSignal): Promise<void> {
  try {
    const facts = await get<PageFacts>('status/page', undefined, signal);
    page.set({ facts, error: undefined });
  } catch (error) {
    if (error instanceof ApiError) page.set({ facts: page.get().facts, error });
  }
}
