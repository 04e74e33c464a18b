// What is seen, as CSV after RFC 4180: lines end with CR LF, what holds a comma, a quote or an end of line is quoted. Pure.
import { rfc3339 } from '../../core/format';
import { edgeText, type Heat } from './heat';
import { printNumber, seriesName, type QueryData } from './result';
import type { Line } from './lines';
import { rowsOf } from './table';

/** field is a value as CSV. */
export function field(text: string): string {
  return /[",\r\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
}

export function record(fields: readonly string[]): string {
  return `${fields.map(field).join(',')}\r\n`;
}

/** graphCSV has one column a series and one row a point; where a series has no value the field is empty. */
export function graphCSV(times: readonly number[], lines: readonly Line[]): string {
  const out = [record(['time', ...lines.map((l) => l.series.name)])];
  times.forEach((t, i) => {
    out.push(record([rfc3339(Math.round(t * 1000)), ...lines.map((l) => {
      const v = l.series.values[i];
      return v === null || v === undefined ? '' : printNumber(v);
    })]));
  });
  return out.join('');
}

/** heatCSV has one row a cell that counts anything. */
export function heatCSV(heat: Heat): string {
  const out = [record(['time', 'from', 'to', 'amount'])];
  heat.times.forEach((t, i) => {
    heat.rows.forEach((row, r) => {
      const v = row[i];
      if (v !== null && v !== undefined && v !== 0) out.push(record([rfc3339(Math.round(t * 1000)), bound(heat.edges[r]!), bound(heat.edges[r + 1]!), printNumber(v)]));
    });
  });
  return out.join('');
}

const bound = (edge: number) => (Number.isFinite(edge) ? printNumber(edge) : edgeText(edge));

/** tableCSV has a column for each label, the time, and the value as the server wrote it. */
export function tableCSV(answers: readonly QueryData[]): string {
  const vectors = answers.flatMap((a) => (a.resultType === 'vector' || a.resultType === 'matrix' ? a.result.map((s) => s.metric) : []));
  const names = [...new Set(vectors.flatMap((m) => Object.keys(m)))].sort((a, b) => (a === '__name__' ? -1 : b === '__name__' ? 1 : a < b ? -1 : 1));
  const out = [record([...names, 'time', 'value'])];
  for (const answer of answers) {
    const metrics = new Map<string, Record<string, string>>();
    if (answer.resultType === 'vector' || answer.resultType === 'matrix') for (const s of answer.result) metrics.set(seriesName(s.metric), s.metric);
    for (const row of rowsOf(answer)) {
      const labels = metrics.get(row.name) ?? {};
      out.push(record([...names.map((n) => labels[n] ?? ''), Number.isFinite(row.at) ? rfc3339(Math.round(row.at)) : '', row.value]));
    }
  }
  return out.join('');
}
