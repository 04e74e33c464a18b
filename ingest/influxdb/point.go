package influxdb

import (
	"bytes"
	"errors"
	"fmt"
	"math"
)

// point is a line as it was read. All numbers are offsets in the body.
type point struct {
	start, keyEnd int
	// end is behind the last byte of the line without its line ending, next where the
	// next line begins. retry is behind the first newline: where the next line begins if
	// this one's quotes are not to be trusted.
	end, next, retry int

	fields []field
	// numbers is how many fields are stored, labelled how many hold text that becomes a
	// label, texts how many hold other text.
	numbers, labelled, texts int
	// odd says that a field may have a twin: see refuseTwins.
	odd bool
	// time is in units of the precision.
	time    int64
	hasTime bool
}

// field is one field of a line.
type field struct {
	from, to int // of the key
	end      int // behind the value
	kind     fieldKind
	bits     uint64 // of the number; of a twin the index of the field that is stored
}

type fieldKind uint8

const (
	kindNumber fieldKind = iota
	kindText             // left out
	kindLabel            // text that becomes a label
	kindTwin             // a number that is refused: see refuseTwins
)

// What is wrong with a line, in InfluxDB's words.
var (
	errMissingMeasurement = errors.New("missing measurement")
	errMissingFields      = errors.New("missing fields")
	errMissingTagKey      = errors.New("missing tag key")
	errMissingTagValue    = errors.New("missing tag value")
	errTagFormat          = errors.New("invalid tag format")
	errDuplicateTags      = errors.New("duplicate tags")
	errFieldFormat        = errors.New("invalid field format")
	errMissingFieldKey    = errors.New("missing field key")
	errMissingFieldValue  = errors.New("missing field value")
	errQuotes             = errors.New("unbalanced quotes")
	errBadTime            = errors.New("bad timestamp")
	errTimeDigits         = errors.New(`strconv.ParseInt: parsing "-": invalid syntax`)
	errTimeRange          = errors.New("time outside range -9223372036854775806 - 9223372036854775806")
	errBehindTime         = errors.New("point is invalid")
	errLineTooLong        = errors.New("line too long")
	errManyFields         = fmt.Errorf("more than %d fields", fieldsMax)
)

// fieldsMax bounds the fields of a line: in four bytes each, those of a body take ten times its memory.
const fieldsMax = 1 << 16

// errMore says that the line is not all there yet. It is no fault.
var errMore = errors.New("the line goes on")

// read reads the line at b[at:]. empty says that it holds no point. Whatever it returns,
// next is where to go on, except after errMore, which it returns only without final: more
// bytes will follow b then.
func (p *point) read(names *naming, b []byte, at int, final bool) (empty bool, fault error) {
	p.fields = p.fields[:0]
	p.numbers, p.labelled, p.texts, p.hasTime, p.odd = 0, 0, 0, false, false
	p.start = at
	if !p.endAt(b, at, final) {
		return false, errMore
	}
	p.retry = p.next
	p.start = skipBlank(b[:p.end], at)
	if p.start == p.end || b[p.start] == '#' {
		return true, nil
	}
	p.keyEnd = endOfKey(b[:p.end], p.start)
	if p.keyEnd == p.end {
		return false, errMissingFields
	}
	i, fault := p.readFields(names, b, skipBlank(b[:p.end], p.keyEnd), final)
	if fault != nil {
		return false, p.skipFields(b, fault, final)
	}
	return false, p.readTime(b[:p.end], i)
}

// endAt sets end and next to those of the line that goes on at b[at:].
func (p *point) endAt(b []byte, at int, final bool) bool {
	n := bytes.IndexByte(b[at:], '\n')
	switch {
	case n >= 0:
		p.end, p.next = at+n, at+n+1
	case !final:
		return false
	default:
		p.end, p.next = len(b), len(b)
	}
	if p.end > at && b[p.end-1] == '\r' {
		p.end--
	}
	return true
}

// skipBlank returns the index of the first byte at or behind at that is not blank, as
// InfluxDB sees it.
func skipBlank(b []byte, at int) int {
	for at < len(b) && (b[at] == ' ' || b[at] == '\t' || b[at] == 0) {
		at++
	}
	return at
}

// endOfKey returns the index of the space that ends measurement and tags, or the length
// of the line where there is none. A byte behind a backslash ends nothing, be that
// backslash itself behind one or not.
func endOfKey(line []byte, start int) int {
	for at := start; ; {
		n := bytes.IndexByte(line[at:], ' ')
		if n < 0 {
			return len(line)
		}
		at += n
		if line[at-1] != '\\' || at == start {
			return at
		}
		at++
	}
}

// readFields reads the fields at b[i:] and returns the index behind them: of a space, or
// of the line's end.
func (p *point) readFields(names *naming, b []byte, i int, final bool) (next int, fault error) {
	line := b[:p.end]
	for {
		if len(p.fields) == fieldsMax {
			return 0, errManyFields
		}
		f := field{from: i}
		if f.to, fault = p.endOfFieldKey(names, line, i); fault != nil {
			return 0, fault
		}
		i = f.to + 1
		if i == len(line) || line[i] == ',' || line[i] == ' ' {
			return 0, errMissingFieldValue
		}
		switch c := line[i]; {
		case c <= '9' && (c >= '0' || c == '-' || c == '.'):
			f.bits, i, fault = number(line, i)
			p.numbers++
		case c == '"':
			if i, fault = p.readText(b, i, final); fault == nil {
				line = b[:p.end]
				f.kind = names.kindOfText(line[f.from:f.to])
				p.countText(f.kind)
			}
		case c == 'N' || c == 'n':
			fault = errInvalidNumber
		default:
			f.bits, i, fault = boolean(line, i)
			p.numbers++
		}
		if fault != nil {
			return 0, fault
		}
		f.end = i
		p.fields = append(p.fields, f)
		if i == len(line) || line[i] == ' ' {
			return i, nil
		}
		i++
	}
}

func (p *point) countText(kind fieldKind) {
	if kind == kindLabel {
		p.labelled++
	} else {
		p.texts++
	}
}

// keyByte is what a byte means in the key of a field.
type keyByte uint8

const (
	keyPlain keyByte = iota
	keyEquals
	keyEscape
	keyEnd // where no key may end
	keyOdd // cleaning changes it
)

// keyBytes are the meanings of all bytes, by the characters that names may hold.
var keyBytes = [...][256]keyByte{Legacy: keyBytesFor(Legacy), UTF8: keyBytesFor(UTF8)}

func keyBytesFor(characters Characters) (meanings [256]keyByte) {
	for c := range meanings {
		if characters == Legacy && !cleanByte(byte(c), true) {
			meanings[c] = keyOdd
		}
	}
	meanings['='], meanings['\\'], meanings[','], meanings[' '] = keyEquals, keyEscape, keyEnd, keyEnd
	return meanings
}

// endOfFieldKey returns the index of the equals sign that ends the key at line[at:].
func (p *point) endOfFieldKey(names *naming, line []byte, at int) (int, error) {
	meanings := &keyBytes[names.characters]
	odd := false
	for i := at; i < len(line); i++ {
		switch meanings[line[i]] {
		case keyPlain:
		case keyOdd:
			odd = true
		case keyEscape:
			odd = true
			i++
		case keyEquals:
			if i == at {
				return 0, errMissingFieldKey
			}
			// Where a metric is the field's name alone, a digit at its front is changed.
			p.odd = p.odd || odd || isDigit(line[at])
			return i, nil
		case keyEnd:
			return 0, errFieldFormat
		}
	}
	return 0, errFieldFormat
}

// readText returns the index behind the text at b[at], which is a quote. Text may hold
// newlines: then the line ends later. What follows a closing quote on its own line
// belongs to the text too, as InfluxDB has it; behind text of several lines it
// shows that a quote was left open further up.
func (p *point) readText(b []byte, at int, final bool) (int, error) {
	for i := at; ; i++ {
		from := i + 1
		i = closingQuote(b, from)
		if i < 0 {
			if !final {
				return 0, errMore
			}
			return 0, errQuotes
		}
		if i >= p.end && !p.endAt(b, i, final) {
			return 0, errMore
		}
		for i++; i < p.end && b[i] != ',' && b[i] != ' ' && b[i] != '"'; i++ {
			switch {
			case p.next != p.retry:
				return 0, errQuotes
			case b[i] == '=':
				return 0, errFieldFormat
			case b[i] == '\\':
				i++
			}
		}
		if i >= p.end || b[i] != '"' {
			return min(i, p.end), nil
		}
		if p.next != p.retry {
			return 0, errQuotes
		}
	}
}

// closingQuote returns the index of the first quote of b[from:] that is not escaped, or -1.
func closingQuote(b []byte, from int) int {
	for at := from; ; at++ {
		n := bytes.IndexByte(b[at:], '"')
		if n < 0 {
			return -1
		}
		at += n
		escapes := 0
		for at-escapes > from && b[at-escapes-1] == '\\' {
			escapes++
		}
		if escapes%2 == 0 {
			return at
		}
	}
}

// skipFields finds the end of a line whose fields are at fault: what stands in its text
// must not be read as lines of their own. It returns the fault, or errMore.
func (p *point) skipFields(b []byte, fault error, final bool) error {
	if errors.Is(fault, errMore) {
		return fault
	}
	p.endAt(b, p.start, true)
	if errors.Is(fault, errQuotes) {
		return fault
	}
	for i := p.keyEnd; i < p.end; i++ {
		switch {
		case b[i] == '\\':
			i++
		case b[i] == '=' && i+1 < p.end && b[i+1] == '"':
			next, err := p.readText(b, i+1, final)
			if errors.Is(err, errMore) {
				return err
			}
			if err != nil {
				p.endAt(b, p.start, true)
				return fault
			}
			i = next - 1
		}
	}
	return fault
}

// readTime reads the time at line[i:], if there is one.
func (p *point) readTime(line []byte, i int) error {
	i = skipBlank(line, i)
	if i == len(line) {
		return nil
	}
	first := i
	negative := line[i] == '-'
	if negative {
		i++
	}
	var t uint64
	digits := 0
	for ; i < len(line) && line[i] != ' '; i++ {
		d := line[i] - '0'
		if d > 9 {
			return errBadTime
		}
		if digits == digitsMax {
			return &outOfRangeTime{cut(string(line[first:min(len(line), first+faultDigits)]), faultDigits)}
		}
		if t = t*10 + uint64(d); t != 0 {
			digits++
		}
	}
	switch {
	case negative && i == first+1:
		return errTimeDigits
	case t > math.MaxInt64 && !(negative && t == 1<<63):
		return &outOfRangeTime{string(line[first:i])}
	}
	for j := i; j < len(line); j++ {
		if line[j] != ' ' {
			return errBehindTime
		}
	}
	p.time, p.hasTime = int64(t), true
	if negative {
		p.time = -p.time
	}
	return nil
}

// outOfRangeTime is the fault of a time that does not fit into 64 bits.
type outOfRangeTime struct{ digits string }

// Error implements error, in InfluxDB's words.
func (e *outOfRangeTime) Error() string {
	return "strconv.ParseInt: parsing \"" + e.digits + "\": value out of range"
}
