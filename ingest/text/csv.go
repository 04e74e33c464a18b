package text

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/prometheus/common/model"

	"varve/arrival"
	"varve/ingest"
)

// CSV returns the handler for POST /api/v1/import/csv?format=...: records as RFC 4180 has them, with quotes and with line
// ends within quotes. See parseCSVFormat for the format, which says what the columns are.
//
// Every metric column of a record is a sample, with the record's labels and time; an empty one is none, and an empty
// label is no label. Further parameters: header (how many records at the start to pass over, default 0), timestamp (Unix
// ms of records without one, default now), extra_label=name=value (repeated; in the place of a label that has the
// name) and verbose (an answer with counts even if all went well).
//
// What is not as RFC 4180 has it is taken as far as it makes sense: a quote within a field that doesn't begin with one
// stands for itself, and columns that the format doesn't name are not looked at, if there are any. Quotes that are never
// closed refuse the line that they are opened on.
func (in *Input) CSV() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := csvReader{}
		in.serve(w, r, formatCSV, func(q url.Values, x *reading) (err error) {
			c.reading = x
			if c.format, err = parseCSVFormat(q.Get("format")); err != nil {
				return err
			}
			if text := q.Get("header"); text != "" {
				if c.header, err = strconv.Atoi(text); err != nil || c.header < 0 {
					return fmt.Errorf("%w header %s: want a number of records", ingest.ErrMalformed, quoted(text))
				}
			}
			c.begin()
			return nil
		}, func(ctx context.Context, _ *reading) error { return c.read(ctx) })
	})
}

// csvReader reads records. What the labels of a record are is hashed as the bytes that stand there, quotes included,
// and looked at only where the archive doesn't know the hash.
type csvReader struct {
	*reading
	format *csvFormat
	header int
	fields [][2]int // of the record, from and to in the window; with quotes
	key    []byte
}

// Errors of records.
var (
	errQuote    = errors.New("a quote that is never closed")
	errBehind   = errors.New("something behind a closing quote")
	errColumns  = errors.New("too few columns")
	errCSVTime  = errors.New("no time")
	errCSVValue = errors.New("no number")
)

func (c *csvReader) begin() {
	c.seed = c.seedFor("csv " + c.format.text)
}

var byteOrderMark = []byte("\xef\xbb\xbf")

func (c *csvReader) read(ctx context.Context) error {
	if err := c.more(); err != nil {
		return err
	}
	if bytes.HasPrefix(c.buf, byteOrderMark) {
		c.at = len(byteOrderMark)
	}
	for {
		end, err := c.split()
		switch {
		case err != nil && !errors.Is(err, errIncomplete):
			// The lines behind the one where the record begins may be whole.
			c.lines++
			c.refuse(arrival.ReasonInvalidLine, 1, c.window.line, fmt.Errorf("%w in %s", err, quoted(c.buf[c.at:min(len(c.buf), c.at+quotedBytes)])))
			if bytes.IndexByte(c.buf[c.at:], '\n') < 0 {
				// The bytes of the batch's series are about to move.
				if err := c.flush(ctx); err != nil {
					return err
				}
			}
			if err := c.skipLine(); err != nil {
				return err
			}
		case err == nil:
			if err := c.take(end); err != nil {
				return err
			}
			if c.full() {
				if err := c.flush(ctx); err != nil {
					return err
				}
			}
			continue
		case c.ended:
			return c.flush(ctx)
		default:
			// The bytes of the batch's series are about to move.
			if err := c.flush(ctx); err != nil {
				return err
			}
			if c.tooLong() {
				c.lines++
				c.refuseLong(c.window.line)
				if err := c.skipLine(); err != nil {
					return err
				}
				continue
			}
			if err := c.more(); err != nil {
				return err
			}
		}
	}
}

func (c *csvReader) flush(ctx context.Context) error { return c.write(ctx, c.nameRow) }

// errIncomplete says that the window ends within a record.
var errIncomplete = errors.New("incomplete record")

// split finds the fields of the record that the window begins with, as far as the format names them, and where it ends.
func (c *csvReader) split() (end int, err error) {
	b := c.buf
	i := c.at
	c.fields = c.fields[:0]
	if i == len(b) {
		return 0, errIncomplete
	}
	for {
		from := i
		if i < len(b) && b[i] == '"' {
			if i, err = c.closing(i + 1); err != nil {
				return 0, err
			}
		}
		for i < len(b) && b[i] != ',' && b[i] != '\n' {
			if from < i && b[from] == '"' && (b[i] != '\r' || i+1 < len(b) && b[i+1] != '\n') {
				return 0, errBehind
			}
			i++
		}
		if i == len(b) && !c.ended {
			return 0, errIncomplete
		}
		to := i
		if last := i == len(b) || b[i] == '\n'; last && to > from && b[to-1] == '\r' {
			to--
		}
		if len(c.fields) < len(c.format.columns) {
			c.fields = append(c.fields, [2]int{from, to})
		}
		if i == len(b) {
			return i, nil
		}
		i++
		if b[i-1] == '\n' {
			return i, nil
		}
	}
}

// closing returns the place behind the quote that closes a field whose text begins at i.
func (c *csvReader) closing(i int) (int, error) {
	b := c.buf
	for {
		n := bytes.IndexByte(b[i:], '"')
		switch {
		case n < 0 && (c.ended || len(b)-c.at > c.lineBytesMax):
			return 0, errQuote
		case n < 0:
			return 0, errIncomplete
		}
		i += n + 1
		if i == len(b) {
			if !c.ended {
				return 0, errIncomplete // It may be the first of two.
			}
			return i, nil
		}
		if b[i] != '"' {
			return i, nil
		}
		i++
	}
}

// take takes the record that was split.
func (c *csvReader) take(end int) error {
	line, begin := c.window.line, c.at
	c.window.line += uint64(bytes.Count(c.buf[c.at:end], []byte{'\n'}))
	c.at = end
	if len(c.fields) == 1 && c.fields[0][0] == c.fields[0][1] {
		return nil // An empty line.
	}
	c.lines++
	if c.header > 0 {
		c.header--
		return nil
	}
	if end-begin > c.lineBytesMax+2 {
		c.refuseLong(line)
		return nil
	}
	f := c.format
	if len(c.fields) < len(f.columns) {
		c.refuse(arrival.ReasonInvalidLine, 1, line, fmt.Errorf("%w: %d of %d", errColumns, len(c.fields), len(f.columns)))
		return nil
	}
	millis := c.nowMillis
	if f.time >= 0 {
		var ok bool
		if millis, ok = f.clock(c.text(f.time)); !ok {
			c.refuse(arrival.ReasonInvalidLine, 1, line, fmt.Errorf("%w in column %d: %s", errCSVTime, f.time+1, quoted(c.raw(f.time))))
			return nil
		}
	}
	c.key = c.key[:0]
	for _, i := range f.labels {
		raw := c.raw(i)
		c.key = append(binary.AppendUvarint(c.key, uint64(len(raw))), raw...)
	}
	own := len(c.key)
	for _, i := range f.metrics {
		text := c.text(i)
		if len(text) == 0 {
			continue
		}
		bits, ok := parseFloat(text)
		if !ok {
			c.refuse(arrival.ReasonInvalidValue, 1, line, fmt.Errorf("%w in column %d: %s", errCSVValue, i+1, quoted(text)))
			continue
		}
		c.key = binary.AppendUvarint(c.key[:own], uint64(i))
		at := place{from: uint32(begin), to: uint32(end), line: line, column: uint16(i)}
		if err := c.add(c.seed.Hash(c.key), at, millis, bits); err != nil {
			return err
		}
	}
	return nil
}

// raw is a field as it stands there.
func (c *csvReader) raw(i int) []byte { return c.buf[c.fields[i][0]:c.fields[i][1]] }

// text is a field without its quotes; numbers and times have no doubled ones.
func (c *csvReader) text(i int) []byte {
	raw := c.raw(i)
	if len(raw) >= 2 && raw[0] == '"' {
		return raw[1 : len(raw)-1]
	}
	return raw
}

// nameRow names the series of a row.
func (c *csvReader) nameRow(at *place, sets *ingest.LabelSets) error {
	// The record is split again, as if it were all that there is.
	whole, was, ended := c.buf, c.at, c.ended
	c.buf, c.at, c.ended = whole[:at.to], int(at.from), true
	_, err := c.split()
	c.buf, c.at, c.ended = whole, was, ended
	if err != nil {
		return err
	}
	c.name(sets, model.MetricNameLabel, c.format.columns[at.column].name)
	for _, i := range c.format.labels {
		c.name(sets, c.format.columns[i].name, aliased(c.unquote(c.raw(i))))
	}
	c.addExtra(sets)
	return nil
}

// unquote returns a field without its quotes, which stays valid until the next row is named.
func (c *csvReader) unquote(raw []byte) []byte {
	if len(raw) < 2 || raw[0] != '"' {
		return raw
	}
	raw = raw[1 : len(raw)-1]
	if bytes.IndexByte(raw, '"') < 0 {
		return raw
	}
	return bytes.ReplaceAll(raw, []byte(`""`), []byte(`"`))
}
