// When an output that is behind will have caught up, if it goes on as of late.

/** sightingsMax bounds what is remembered: at a poll in 5 s, the last two minutes. */
const sightingsMax = 24;

/** Backlog remembers how much waited at the last polls. */
export class Backlog {
  private readonly seen: { at: number; samples: number }[] = [];

  /** observe takes what waits at a moment in ms. */
  observe(at: number, samples: number): void {
    const last = this.seen.at(-1);
    if (last && at <= last.at) return;
    this.seen.push({ at, samples });
    if (this.seen.length > sightingsMax) this.seen.shift();
  }

  /**
   * trend is by how many samples a second the backlog grows, negative where it shrinks; undefined before it was watched
   * for 20 s.
   */
  trend(): number | undefined {
    const first = this.seen[0];
    const last = this.seen.at(-1);
    if (!first || !last || last.at - first.at < 20_000) return undefined;
    return (last.samples - first.samples) / ((last.at - first.at) / 1000);
  }

  /** secondsLeft is when nothing waits any more; undefined where it doesn't shrink, or is not known. */
  secondsLeft(): number | undefined {
    const trend = this.trend();
    const last = this.seen.at(-1);
    if (trend === undefined || !last || trend >= 0 || last.samples === 0) return undefined;
    return last.samples / -trend;
  }
}
