// The configuration as text: its parts for colouring, its sections, and where a search finds something.

export type TokenKind = 'comment' | 'key' | 'text' | 'secret' | 'plain';

export interface Token {
  kind: TokenKind;
  text: string;
}

/** tokens takes a line of YAML apart. It colours what the server writes; it is no parser. Joined they are the line. */
export function tokens(line: string): Token[] {
  const out: Token[] = [];
  const push = (kind: TokenKind, text: string) => {
    if (text !== '') out.push({ kind, text });
  };
  const start = /^(\s*(?:- )*)([^\s#'"[\]{},:][^\s'"[\]{},]*|'[^']*'|"[^"]*")(:)(?=\s|$)/.exec(line);
  let rest = line;
  if (start) {
    push('plain', start[1]!);
    push('key', start[2]!);
    push('plain', ':');
    rest = line.slice(start[0].length);
  }
  // Strings, the secrets that the server hides, and comments; the rest is plain.
  const inside = /("(?:[^"\\]|\\.)*"|'(?:[^']|'')*')|(<secret>)|((?:^|(?<=\s))#.*$)/g;
  let at = 0;
  for (const m of rest.matchAll(inside)) {
    push('plain', rest.slice(at, m.index));
    push(m[1] ? 'text' : m[2] ? 'secret' : 'comment', m[0]);
    at = m.index + m[0].length;
  }
  push('plain', rest.slice(at));
  return out;
}

export interface Section {
  name: string;
  /** line counts from 0. */
  line: number;
}

/** sections are the keys at the left edge. */
export function sections(lines: readonly string[]): Section[] {
  const out: Section[] = [];
  lines.forEach((text, line) => {
    const key = /^([a-z][a-z0-9_]*):/.exec(text);
    if (key) out.push({ name: key[1]!, line });
  });
  return out;
}

/** find returns the lines that hold a text, in any case; none for an empty one. */
export function find(lines: readonly string[], text: string): number[] {
  const wanted = text.trim().toLowerCase();
  if (wanted === '') return [];
  const out: number[] = [];
  lines.forEach((line, n) => {
    if (line.toLowerCase().includes(wanted)) out.push(n);
  });
  return out;
}

/** marked splits a text at what was searched for: odd parts are what was found. */
export function marked(line: string, text: string): string[] {
  const wanted = text.trim().toLowerCase();
  if (wanted === '') return [line];
  const lower = line.toLowerCase();
  // A letter whose lower case has another length would shift the parts: then nothing is marked.
  if (lower.length !== line.length) return [line];
  const out: string[] = [];
  let at = 0;
  for (let i = lower.indexOf(wanted); i >= 0; i = lower.indexOf(wanted, at)) {
    out.push(line.slice(at, i), line.slice(i, i + wanted.length));
    at = i + wanted.length;
  }
  out.push(line.slice(at));
  return out;
}
