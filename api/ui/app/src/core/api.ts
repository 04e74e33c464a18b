// Requests to the server's API. Every address is relative to the page, which may be served below a prefix.

export type Param = string | number | boolean | null | undefined | readonly (string | number)[];
export type Params = Record<string, Param>;

/** ApiError is an answer that is not a success, or none at all (status 0). */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly type: string,
    message: string,
  ) {
    super(message);
    this.name = 'ApiError';
  }
}

/** Answer is a successful answer with what came beside its data. */
export interface Answer<T> {
  data: T;
  warnings: string[];
  infos: string[];
  headers: Headers;
  /** The length of the body as text, in characters. */
  length: number;
}

interface Envelope {
  status?: string;
  data?: unknown;
  warnings?: string[];
  infos?: string[];
  error?: string;
  errorType?: string;
}

/** address is the relative URL of a path: below api/v1, unless it begins with "-/" as the lifecycle's do. */
export function address(path: string, params?: Params): string {
  const base = path.startsWith('-/') ? path : `api/v1/${path}`;
  const text = params ? encode(params).toString() : '';
  return text === '' ? base : `${base}?${text}`;
}

/** encode leaves out what is undefined, null or empty, and repeats lists. */
export function encode(params: Params): URLSearchParams {
  const out = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) {
    if (value === undefined || value === null || value === '') continue;
    if (Array.isArray(value)) for (const v of value) out.append(name, String(v));
    else out.append(name, String(value));
  }
  return out;
}

/** isAbort tells that a request was ended by its signal, which is no error to show. */
export function isAbort(error: unknown): boolean {
  return error instanceof DOMException && error.name === 'AbortError';
}

/** send sends a request, and says so where there is no answer at all. What may be long, such as a query, goes into a form. */
async function send<R>(method: string, path: string, params: Params | undefined, accept: string, signal: AbortSignal | undefined, read: (response: Response) => Promise<R>): Promise<R> {
  const form = method === 'POST' && params !== undefined;
  let begun = false;
  try {
    const response = await fetch(form ? address(path) : address(path, params), {
      method,
      signal: signal ?? null,
      body: form ? encode(params) : null,
      headers: { Accept: accept },
      credentials: 'same-origin',
      cache: 'no-store',
    });
    begun = true;
    return await read(response);
  } catch (error) {
    if (isAbort(error) || error instanceof ApiError) throw error;
    if (begun) throw new ApiError(0, 'broken', 'The answer broke off before its end. The server was stopped, or it met an error on its way: its log says which.');
    throw new ApiError(0, 'unreachable', 'The server does not answer. Check that varve runs and that this page can reach it.');
  }
}

/** answerBytesMax bounds an answer: as text and as what is made of it, it takes a multiple of the memory of the tab. */
const answerBytesMax = 192 * 1024 * 1024;

/** readText reads a body of at most so many bytes. What is longer is not read to its end, so that the server stops too. */
export async function readText(response: Response, bytesMax: number): Promise<string> {
  if (!response.body) return response.text();
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  const parts: string[] = [];
  let taken = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    taken += value.byteLength;
    if (taken > bytesMax) {
      await reader.cancel();
      throw new ApiError(0, 'too_large', `The answer is larger than ${Math.floor(bytesMax / 1024 / 1024)} MiB, too much for a page. Ask for less: a shorter range, a longer step, or an aggregation such as sum.`);
    }
    parts.push(decoder.decode(value, { stream: true }));
  }
  parts.push(decoder.decode());
  return parts.join('');
}

/** parsed is a body as JSON, undefined where it is none. */
function parsed(text: string): Envelope | undefined {
  try {
    return text === '' ? {} : ((JSON.parse(text) as Envelope | null) ?? undefined);
  } catch {
    return undefined;
  }
}

/** askFile fetches a file that the server makes. */
export async function askFile(path: string, params: Params, signal?: AbortSignal): Promise<Blob> {
  const answer = await send('POST', path, params, '*/*', signal, async (response) => ({ response, body: response.ok ? await response.blob() : await response.text() }));
  if (typeof answer.body === 'string') throw refused(answer.response.status, answer.response.statusText, answer.body, parsed(answer.body));
  return answer.body;
}

/** ask sends a request and throws ApiError for every answer but a success. It throws the signal's AbortError as it is. */
export async function ask<T>(method: string, path: string, params?: Params, signal?: AbortSignal): Promise<Answer<T>> {
  const { response, text } = await send(method, path, params, 'application/json', signal, async (r) => ({ response: r, text: await readText(r, answerBytesMax) }));
  const body = parsed(text);
  if (!response.ok || body === undefined || body?.status === 'error') {
    throw refused(response.status, response.statusText, text, body);
  }
  return {
    data: body.data as T,
    warnings: body.warnings ?? [],
    infos: body.infos ?? [],
    headers: response.headers,
    length: text.length,
  };
}

/** bareTexts are what the server answers where it says no more than the status: HTTP/2 has no text of its own for it. */
const bareTexts: Record<number, string> = { 401: 'Unauthorized', 403: 'Forbidden', 429: 'Too Many Requests', 503: 'Service Unavailable' };

function refused(status: number, statusText: string, text: string, body: Envelope | undefined): ApiError {
  if (body?.error) return new ApiError(status, body.errorType ?? 'error', body.error);
  // What only repeats the status says nothing: "Unauthorized".
  const said = text.trim();
  const plain = said.startsWith('<') || said === statusText || said === bareTexts[status] ? '' : said.slice(0, 500);
  if (status === 401) return new ApiError(status, 'unauthorized', plain || 'The server wants credentials. Load the page again and log in.');
  if (status === 403) return new ApiError(status, 'forbidden', plain || 'Your user may not do this.');
  return new ApiError(status, 'http', plain || `The server answered ${status} ${statusText}.`);
}

export async function get<T>(path: string, params?: Params, signal?: AbortSignal): Promise<T> {
  return (await ask<T>('GET', path, params, signal)).data;
}

export async function post<T>(path: string, params?: Params, signal?: AbortSignal): Promise<T> {
  return (await ask<T>('POST', path, params, signal)).data;
}

export async function del<T>(path: string, params?: Params, signal?: AbortSignal): Promise<T> {
  return (await ask<T>('DELETE', path, params, signal)).data;
}
