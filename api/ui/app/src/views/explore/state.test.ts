import { describe, expect, it } from 'vitest';
import { initialState, queriesMax, readState, writeState, type ExploreState } from './state';

describe('address', () => {
  // Shows that what is written is read back as it was, whatever the queries hold.
  it('comes back', () => {
    const s: ExploreState = {
      queries: [{ text: 'sum by (a) (b{c="&?#=%+ 😀\n"})', on: true }, { text: 'up', on: false }],
      from: '2026-11-20T00:00:00Z', to: 'now', step: '5m', resolution: 'strict', mode: 'heatmap', tab: 'table', at: 'now-1h', refresh: 30,
    };
    expect(readState(new URLSearchParams(writeState(s).toString()))).toEqual(s);
    expect(readState(new URLSearchParams(''))).toEqual(initialState);
    expect(writeState(initialState).toString()).toBe('');
  });
  // Shows that a wrong or hostile address falls back to what is safe.
  it('bounds', () => {
    const q = new URLSearchParams();
    for (let i = 0; i < 100; i++) q.append('q', 'up');
    q.set('step', 'x');
    q.set('res', '<b>');
    q.set('mode', 'pie');
    q.set('refresh', '0.001');
    const s = readState(q);
    expect(s.queries).toHaveLength(queriesMax);
    expect([s.step, s.resolution, s.mode, s.refresh]).toEqual(['auto', 'auto', 'lines', 0]);
  });
});
