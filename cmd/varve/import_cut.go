package main

import (
	"bytes"

	"varve/ingest/influxdb"
)

// cutter returns where the last whole record of a buffer ends, 0 if there is none.
type cutter func(b []byte) int

// cutLines cuts behind the last line.
func cutLines(b []byte) int { return bytes.LastIndexByte(b, '\n') + 1 }

// influxLineBytesMax is what the server takes as one line.
const influxLineBytesMax = 1 << 20

// cutInflux cuts behind the last line that doesn't end within text.
func cutInflux(b []byte) int { return influxdb.WholeLines(b, influxLineBytesMax) }

// cutExposition cuts behind the last line too, but rather before the last comment or behind the last line name_created of the
// second half: what says when samples were created stands behind them, and must come with them.
func cutExposition(b []byte) int {
	end := cutLines(b)
	for to := end; to > len(b)/2; {
		from := bytes.LastIndexByte(b[:to-1], '\n') + 1
		line := b[from:to]
		if from > 0 && line[0] == '#' {
			return from
		}
		if n := bytes.IndexAny(line, "{ \t"); n > 0 && bytes.HasSuffix(line[:n], []byte("_created")) {
			return to
		}
		to = from
	}
	return end
}

// cutCSV cuts behind the last line that doesn't end within quotes. A quote opens at the start of a field only, or doubles
// the one before it; elsewhere it stands for itself.
func cutCSV(b []byte) int {
	end, quoted, opens := 0, false, true
	for i, c := range b {
		switch {
		case quoted:
			quoted = c != '"'
			opens = !quoted
			continue
		case c == '"' && opens:
			quoted = true
		case c == '\n':
			end = i + 1
		}
		opens = c == ',' || c == '\n'
	}
	if end == 0 {
		// A quote that means nothing: the server refuses its line alone.
		return cutLines(b)
	}
	return end
}

// carriedFamily keeps the comments about the last metric family of what was sent: they hold for what is sent next.
type carriedFamily struct {
	name  string
	lines []byte
}

// see looks at a piece.
func (c *carriedFamily) see(piece []byte) {
	for line := range bytes.Lines(piece) {
		if len(line) < 8 || line[0] != '#' {
			continue
		}
		fields := bytes.Fields(line[:min(len(line), 4096)])
		if len(fields) < 3 || string(fields[0]) != "#" {
			continue
		}
		switch string(fields[1]) {
		case "TYPE", "HELP", "UNIT":
		default:
			continue
		}
		if name := string(fields[2]); name != c.name {
			c.name, c.lines = name, c.lines[:0]
		}
		if len(c.lines) > 64<<10 {
			continue // The same comment over and over.
		}
		c.lines = append(c.lines, line...)
		if line[len(line)-1] != '\n' {
			c.lines = append(c.lines, '\n')
		}
	}
}
