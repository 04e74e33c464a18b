package lineprotocol_test

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// point is a line as a target understands it.
type point struct {
	measurement string
	tags        [][2]string
	fields      [][2]string
	time        int64
}

// parse reads one line, with the rules of InfluxDB 1.x written down anew: a byte behind a backslash ends nothing, and of the
// escapes only those of comma, space and equals sign (in measurements not that) are undone. It is stricter in that
// it takes neither quotes nor integers, empty tags or fields, or a line that is a comment.
func parse(line string) (p point, err error) {
	if line == "" || strings.ContainsAny(line[:1], "#\t\x00 ,") {
		return p, errors.New("the line is empty, a comment, or begins with what is stripped")
	}
	p.measurement, line = cut(line, ", ")
	p.measurement = strings.NewReplacer(`\,`, `,`, `\ `, ` `).Replace(p.measurement)
	for strings.HasPrefix(line, ",") {
		var tag [2]string
		tag[0], line = cut(line[1:], "=, ")
		if !strings.HasPrefix(line, "=") {
			return p, fmt.Errorf("tag %q has no value", tag[0])
		}
		tag[1], line = cut(line[1:], "=, ")
		if strings.HasPrefix(line, "=") {
			return p, fmt.Errorf("tag %q has two values", tag[0])
		}
		if tag[0] == "" || tag[1] == "" {
			return p, fmt.Errorf("empty tag %q", tag)
		}
		p.tags = append(p.tags, [2]string{unescape(tag[0]), unescape(tag[1])})
	}
	for before := " "; strings.HasPrefix(line, before); before = "," {
		var field [2]string
		field[0], line = cut(line[1:], "=, ")
		if field[0] == "" || !strings.HasPrefix(line, "=") {
			return p, fmt.Errorf("field %q has no value", field[0])
		}
		field[1], line = cut(line[1:], "=, ")
		if _, err := strconv.ParseFloat(field[1], 64); err != nil {
			return p, fmt.Errorf("field %q: %w", field[0], err)
		}
		p.fields = append(p.fields, [2]string{unescape(field[0]), field[1]})
	}
	if len(p.fields) == 0 || !strings.HasPrefix(line, " ") {
		return p, fmt.Errorf("no fields, or no time: %q", line)
	}
	p.time, err = strconv.ParseInt(line[1:], 10, 64)
	return p, err
}

func cut(s, ends string) (before, from string) {
	for i := range len(s) {
		if strings.IndexByte(ends, s[i]) >= 0 && (i == 0 || s[i-1] != '\\') {
			return s[:i], s[i:]
		}
	}
	return s, ""
}

func unescape(s string) string {
	return strings.NewReplacer(`\,`, `,`, `\ `, ` `, `\=`, `=`).Replace(s)
}
