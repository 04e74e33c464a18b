// What the completion asks the server: names, values and help, each once a minute at most, and never without a bound.
import type { PrometheusClient } from '@prometheus-io/codemirror-promql';
import { EqlRegex, EqlSingle, Neq, NeqRegex } from '@prometheus-io/lezer-promql';
import { get, type Params } from '../../core/api';
import { quote } from './result';

interface Matcher {
  type: number;
  name: string;
  value: string;
}

interface Metadata {
  type: string;
  help: string;
}

const keepMillis = 60_000;
const entriesMax = 100;
const namesMax = 20_000;
const valuesMax = 5_000;

const operators: Record<number, string> = { [EqlSingle]: '=', [Neq]: '!=', [EqlRegex]: '=~', [NeqRegex]: '!~' };

/** selector writes a metric and its matchers, leaving out those of a label. What stands inside quotes there is already escaped. */
export function selector(metric: string, matchers: readonly Matcher[] = [], without = ''): string {
  const parts = matchers
    .filter((m) => m.name !== without && m.value !== '' && operators[m.type])
    .map((m) => `${/^[a-zA-Z_][a-zA-Z0-9_]*$/.test(m.name) ? m.name : quote(m.name)}${operators[m.type]}"${m.value}"`);
  if (/^[a-zA-Z_:][a-zA-Z0-9_:]*$/.test(metric)) return parts.length > 0 ? `${metric}{${parts.join(',')}}` : metric;
  if (metric !== '') parts.unshift(quote(metric));
  return parts.length > 0 ? `{${parts.join(',')}}` : '';
}

/** Client answers the completion of all editors of the page. */
export class Client implements PrometheusClient {
  private readonly cache = new Map<string, { at: number; answer: Promise<unknown> }>();
  private readonly abort = new AbortController();

  /** @param span the range of time whose series are offered, in Unix milliseconds. */
  constructor(private readonly span: () => { start: number; end: number } | undefined) {}

  labelNames(metric = ''): Promise<string[]> {
    return this.ask<string[]>('labels', { 'match[]': selector(metric), limit: namesMax, ...this.times() }, []);
  }

  labelValues(label: string, metric = '', matchers: Matcher[] = []): Promise<string[]> {
    const path = `label/${encodeURIComponent(label)}/values`;
    return this.ask<string[]>(path, { 'match[]': selector(metric, matchers, label), limit: valuesMax, ...this.times() }, []);
  }

  metricMetadata(): Promise<Record<string, Metadata[]>> {
    return this.ask('metadata', { limit_per_metric: 1, limit: namesMax }, {});
  }

  series(metric: string, matchers: Matcher[] = [], label = ''): Promise<Map<string, string>[]> {
    return this.ask('series', { 'match[]': selector(metric, matchers, label), limit: 1000, ...this.times() }, []);
  }

  metricNames(): Promise<string[]> {
    return this.ask<string[]>('label/__name__/values', { limit: namesMax, ...this.times() }, []);
  }

  flags(): Promise<Record<string, string>> {
    return Promise.resolve({});
  }

  destroy(): void {
    this.abort.abort();
    this.cache.clear();
  }

  /** times are whole hours, so that what was asked for a moment ago is found again. */
  private times(): Params {
    const span = this.span();
    if (!span) return {};
    const hour = 3600_000;
    return { start: Math.floor(span.start / hour) * 3600, end: Math.ceil(span.end / hour) * 3600 };
  }

  private ask<T>(path: string, params: Params, otherwise: T): Promise<T> {
    const key = `${path} ${JSON.stringify(params)}`;
    const known = this.cache.get(key);
    if (known && Date.now() - known.at < keepMillis) return known.answer as Promise<T>;
    // Completion is a help: where there is no answer there is no list, and the query itself will tell what is wrong.
    const answer = get<T>(path, params, this.abort.signal).then(
      (data) => data ?? otherwise,
      () => {
        this.cache.delete(key);
        return otherwise;
      },
    );
    this.cache.delete(key);
    this.cache.set(key, { at: Date.now(), answer });
    for (const oldest of this.cache.keys()) {
      if (this.cache.size <= entriesMax) break;
      this.cache.delete(oldest);
    }
    return answer;
  }
}
