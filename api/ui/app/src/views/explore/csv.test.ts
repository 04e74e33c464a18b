import { describe, expect, it } from 'vitest';
import { graphCSV, record, tableCSV } from './csv';
import type { Line } from './lines';

const line = (name: string, values: (number | null)[]): Line => ({ key: name, color: '#000000', series: { name, labels: {}, values, query: 0 } });

describe('CSV', () => {
  // Shows the quoting of RFC 4180, also of what would break lines and columns.
  it('quotes', () => {
    expect(record(['a', 'b,c', 'd"e', 'f\r\ng', ''])).toBe('a,"b,c","d""e","f\r\ng",\r\n');
  });
  // Shows that gaps are empty and odd values keep their names.
  it('has a column a series', () => {
    expect(graphCSV([0, 1.5], [line('up{a="x"}', [1, null]), line('b', [NaN, -Infinity])])).toBe(
      'time,"up{a=""x""}",b\r\n1970-01-01T00:00:00Z,1,NaN\r\n1970-01-01T00:00:01.500Z,,-Inf\r\n',
    );
  });
  // Shows that a table's values are those of the server, digit by digit.
  it('has a column a label', () => {
    expect(tableCSV([{ resultType: 'vector', result: [{ metric: { __name__: 'up', job: 'a,b' }, value: [0, '0.30000000000000004'] }, { metric: { x: 'y' }, value: [0, 'NaN'] }] }])).toBe(
      '__name__,job,x,time,value\r\nup,"a,b",,1970-01-01T00:00:00Z,0.30000000000000004\r\n,,y,1970-01-01T00:00:00Z,NaN\r\n',
    );
  });
});
