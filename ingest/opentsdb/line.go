package opentsdb

import (
	"bytes"
	"errors"
	"fmt"
	"unicode/utf8"
	"unsafe"

	"varve/arrival"
	"varve/ingest"
)

// putLine is a put line in place: put METRIC TIME VALUE TAG=VALUE...
type putLine struct {
	metric, timestamp, value []byte
	// tags is everything behind the value.
	tags []byte
}

// word cuts the first word off a line.
func word(line []byte) (first, rest []byte) {
	line = bytes.TrimLeft(line, " \t")
	if i := bytes.IndexAny(line, " \t"); i >= 0 {
		return line[:i], line[i:]
	}
	return line, nil
}

// parsePut reads what stands behind "put".
func parsePut(rest []byte) (l putLine) {
	l.metric, rest = word(rest)
	l.timestamp, rest = word(rest)
	l.value, rest = word(rest)
	l.tags = bytes.Trim(rest, " \t")
	return l
}

var errArguments = errors.New("not enough arguments: want a metric, a time, a value and tags")

// judge says at what time a line has which value, or why it is refused, and whether that is the number's fault. The tags are looked at where their
// series is named.
func (l *putLine) judge() (millis int64, bits uint64, reason arrival.Reason, err error) {
	if len(l.value) == 0 {
		return 0, 0, arrival.ReasonInvalidLine, errArguments
	}
	if millis, err = times(l.timestamp); err != nil {
		return 0, 0, arrival.ReasonInvalidLine, fmt.Errorf("invalid timestamp: %s", quoted(string(l.timestamp)))
	}
	if bits, reason, err = value(l.value); err != nil {
		return 0, 0, reason, fmt.Errorf("%w: %s", err, quoted(string(l.value)))
	}
	return millis, bits, arrival.ReasonNone, nil
}

// appendIdentity appends the bytes that name the line's series.
func (l *putLine) appendIdentity(dst []byte) []byte {
	return append(append(append(dst, l.metric...), ' '), l.tags...)
}

// text is b as a string that aliases it.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// appendTags appends the tags. One that is there twice must have one value.
func (l *putLine) appendTags(tags []pair, tagsMax int) ([]pair, error) {
	for rest := l.tags; len(rest) > 0; {
		var w []byte
		w, rest = word(rest)
		if len(w) == 0 {
			break
		}
		name, value, ok := bytes.Cut(w, []byte("="))
		if !ok || len(name) == 0 {
			return tags, fmt.Errorf("invalid tag: %s", quoted(string(w)))
		}
		t, known := pair{text(name), text(value)}, false
		for _, other := range tags {
			if other.name == t.name {
				if other.value != t.value {
					return tags, fmt.Errorf("duplicate tag: %s", quoted(string(w)))
				}
				known = true
			}
		}
		if known {
			continue
		}
		if tags = append(tags, t); len(tags) > tagsMax {
			return tags, fmt.Errorf("%w: more than %d", errMaxTags, tagsMax)
		}
	}
	return tags, nil
}

// addLine adds the labels of a line.
func (o *Options) addLine(sets *ingest.LabelSets, l *putLine, tags []pair, tagsMax int) ([]pair, error) {
	tags, err := l.appendTags(tags[:0], tagsMax)
	if err != nil {
		return tags, err
	}
	return tags, o.addLabels(sets, text(l.metric), tags)
}

// printable is what of a client's own text is said back to it.
func printable(b []byte) string {
	if !utf8.Valid(b) {
		return quoted(string(b))
	}
	for _, c := range string(b) {
		if c < ' ' || c == 0x7f {
			return quoted(string(b))
		}
	}
	return string(b[:min(len(b), quotedBytes)])
}
