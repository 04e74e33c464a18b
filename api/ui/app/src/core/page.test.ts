import { afterEach, describe, expect, it, vi } from 'vitest';
import { mustAskAgain, page, refreshPage } from './page';

afterEach(() => vi.unstubAllGlobals());

const answer = (status: number, body: unknown) => vi.stubGlobal('fetch', vi.fn(async () => new Response(JSON.stringify(body), { status })));

describe('the facts of the page', () => {
  // Shows that a page that was opened while the server starts asks again until it knows, keeps what it knows while the server is away,
  // and asks no more once there is data.
  it('are asked for until they are there', async () => {
    expect(mustAskAgain(page.get())).toBe(true);
    answer(503, { status: 'error', errorType: 'unavailable', error: 'the archive is starting' });
    await refreshPage();
    expect(page.get().facts).toBeUndefined();
    expect(mustAskAgain(page.get())).toBe(true);
    answer(200, { status: 'success', data: { hasData: false } });
    await refreshPage();
    expect(mustAskAgain(page.get())).toBe(true);
    answer(200, { status: 'success', data: { hasData: true } });
    await refreshPage();
    expect(mustAskAgain(page.get())).toBe(false);
    vi.stubGlobal('fetch', vi.fn(async () => { throw new TypeError('refused'); }));
    await refreshPage();
    expect(page.get().facts?.hasData).toBe(true);
  });
});
