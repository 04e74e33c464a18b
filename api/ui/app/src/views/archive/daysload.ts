// All days of the archive, asked for page by page once, and then only the newest again.
import { get } from '../../core/api';
import { dayText, mergeDays, parseDay, refreshDays } from './days';
import type { ArchiveDay } from './model';

const pageDays = 1000;
/** pagesMax bounds what the page keeps: 55 years of days. */
const pagesMax = 20;
/** freshDays are those that are asked for again: older ones change when late samples are sealed, which is rare. */
const freshDays = 45;
/** wholeMillis is after how long all of them are. */
const wholeMillis = 15 * 60_000;

let known: ArchiveDay[] = [];
let wholeAt = 0;

/** loadDays returns all days, the newest first. What is known stays over visits of the view. */
export async function loadDays(signal: AbortSignal): Promise<ArchiveDay[]> {
  if (Date.now() - wholeAt < wholeMillis) {
    known = refreshDays(known, (await get<ArchiveDay[] | null>('status/days', { limit: freshDays }, signal)) ?? [], freshDays);
    return known;
  }
  let all: ArchiveDay[] = [];
  let end: string | undefined;
  for (let page = 0; page < pagesMax; page++) {
    const answer = (await get<ArchiveDay[] | null>('status/days', { limit: pageDays, end }, signal)) ?? [];
    const merged = mergeDays(all, answer);
    const grew = merged.length > all.length;
    all = merged;
    // A page that brings nothing new ends it too, however the server reads its bounds.
    if (answer.length < pageDays || !grew) break;
    end = `${dayText(parseDay(all.at(-1)!.day) - 1)}T23:59:59Z`;
  }
  known = all;
  wholeAt = Date.now();
  return known;
}

/** forgetDays makes the next load ask for all of them. */
export function forgetDays(): void {
  wholeAt = 0;
}
