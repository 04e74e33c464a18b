import { afterEach, describe, expect, it, vi } from 'vitest';
import { address, ApiError, askFile, get, post, readText } from './api';

afterEach(() => vi.unstubAllGlobals());

const answer = (status: number, body: string) => vi.stubGlobal('fetch', vi.fn(async () => new Response(body, { status })));

describe('addresses', () => {
  // Shows that every address is relative to the page, and that what is empty is left out.
  it('are relative', () => {
    expect(address('query', { a: 'b&c', n: 0, x: undefined, y: '', l: ['1', '2'] })).toBe('api/v1/query?a=b%26c&n=0&l=1&l=2');
    expect(address('-/reload')).toBe('-/reload');
  });
});

describe('answers', () => {
  // Shows that the server's own words reach the reader, and what is said where there are none.
  it('tell what is wrong', async () => {
    answer(422, '{"status":"error","errorType":"execution","error":"too many samples"}');
    await expect(get('query')).rejects.toMatchObject({ status: 422, type: 'execution', message: 'too many samples' });
    // What the server says of credentials is its status alone; the reader is told what to do.
    answer(401, 'Unauthorized\n');
    await expect(get('query')).rejects.toMatchObject({ status: 401, type: 'unauthorized', message: expect.stringContaining('log in') });
    answer(403, 'Forbidden\n');
    await expect(get('query')).rejects.toMatchObject({ status: 403, message: 'Your user may not do this.' });
    answer(502, 'the proxy has no upstream');
    await expect(get('query')).rejects.toMatchObject({ status: 502, message: 'the proxy has no upstream' });
    answer(200, 'null');
    await expect(get('query')).rejects.toBeInstanceOf(ApiError);
    answer(403, '<html>');
    await expect(get('query')).rejects.toMatchObject({ status: 403, type: 'forbidden' });
    answer(200, 'not json');
    await expect(get('query')).rejects.toBeInstanceOf(ApiError);
    vi.stubGlobal('fetch', vi.fn(async () => { throw new TypeError('refused'); }));
    await expect(get('query')).rejects.toMatchObject({ status: 0, type: 'unreachable' });
  });
  // Shows that a file is asked for by a form, so that no query is too long for an address, and that its errors are as others.
  it('may be files', async () => {
    answer(200, 'set terminal');
    const query = 'x'.repeat(100_000);
    expect(await (await askFile('export/query', { query: [query, 'b'] })).text()).toBe('set terminal');
    const [url, options] = vi.mocked(fetch).mock.calls[0]!;
    expect(url).toBe('api/v1/export/query');
    expect(options?.method).toBe('POST');
    expect((options?.body as URLSearchParams).getAll('query')).toEqual([query, 'b']);
    answer(404, '{"status":"error","errorType":"not_found","error":"no values"}');
    await expect(askFile('export/query', {})).rejects.toMatchObject({ status: 404, message: 'no values' });
    vi.stubGlobal('fetch', vi.fn(async () => { throw new TypeError('refused'); }));
    await expect(askFile('export/query', {})).rejects.toMatchObject({ status: 0, type: 'unreachable' });
    const cut = new ReadableStream({ pull: (c) => c.error(new TypeError('network error')) });
    vi.stubGlobal('fetch', vi.fn(async () => new Response(cut)));
    await expect(askFile('export/query', {})).rejects.toMatchObject({ status: 0, type: 'broken' });
  });
  // Shows that an answer that is too large for a tab is given up before its end, and that letters that lie across pieces stay whole.
  it('are bounded', async () => {
    const bytes = new TextEncoder().encode('größe ✓ '.repeat(300));
    let pulled = 0;
    let cancelled = false;
    const body = () => new ReadableStream({
      pull(c) {
        if (pulled >= bytes.length) c.close();
        else c.enqueue(bytes.slice(pulled, (pulled += 7)));
      },
      cancel() {
        cancelled = true;
      },
    });
    expect(await readText(new Response(body()), bytes.length)).toBe('größe ✓ '.repeat(300));
    pulled = 0;
    await expect(readText(new Response(body()), 1000)).rejects.toMatchObject({ type: 'too_large' });
    expect(cancelled).toBe(true);
    expect(pulled).toBeLessThan(1100);
  });
  it('give their data', async () => {
    answer(200, '{"status":"success","data":[1]}');
    expect(await post('x', { a: 1 })).toEqual([1]);
    answer(204, '');
  });
});
