// Package jsonwalk reads JSON in place, for inputs that see millions of small objects a second and keep few of their bytes.
//
// A Reader walks a text that is in memory. What it finds are Values: regions of the text, which are checked for their grammar and
// copied nowhere. Objects and arrays are entered with Open and left with Next, or read over as a whole with Value, which needs no more memory
// however deep they are; deeper than DepthMax is an error. Text and Float turn a value into what it stands for.
//
// Two things are wider than the standard, since senders write them: NaN, Infinity and -Infinity are values of the kind NotFinite, and a string
// may hold bytes that are no UTF-8, which is for the caller to judge. The package allocates nothing but texts of strings with escapes.
//
// A Reader is not safe for use by several goroutines. It builds no documents and finds nothing by name.
package jsonwalk

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
	"unsafe"
)

// ErrSyntax is the class of every text that is no JSON.
var ErrSyntax = errors.New("no JSON")

// DepthMax is how deep objects and arrays that are read over may lie in each other.
const DepthMax = 64

// Kind is what a value is.
type Kind uint8

// The kinds. None is that of the zero Value.
const (
	None Kind = iota
	String
	Number
	NotFinite
	True
	False
	Null
	Object
	Array
)

// Value is a region of the text.
type Value struct {
	Kind Kind
	// Raw is the value as it stands there, of a string what is between the quotes.
	Raw []byte
	// Escaped tells that a string has escapes, so that Raw is not its text.
	Escaped bool
}

// Text is what a string says, and for all other values how they are written. It aliases the text that is read unless it has escapes.
func (v Value) Text() string {
	if v.Escaped {
		return unescape(v.Raw)
	}
	return unsafe.String(unsafe.SliceData(v.Raw), len(v.Raw))
}

// Is tells whether a string says s.
func (v Value) Is(s string) bool {
	if v.Escaped {
		return unescape(v.Raw) == s
	}
	return string(v.Raw) == s
}

// Reader walks one text.
type Reader struct {
	src []byte
	at  int
}

// NewReader returns a reader that begins at a byte of src, which must not change while values of it are used.
func NewReader(src []byte, at int) Reader { return Reader{src: src, at: at} }

// Pos is the index of the byte that is read next.
func (r *Reader) Pos() int { return r.at }

func (r *Reader) fault(what string) error {
	return fmt.Errorf("%w: %s at byte %d", ErrSyntax, what, r.at)
}

// Peek skips white space and returns the byte behind it without reading it, 0 at the end.
func (r *Reader) Peek() byte {
	for r.at < len(r.src) {
		switch c := r.src[r.at]; c {
		case ' ', '\n', '\r', '\t':
			r.at++
		default:
			return c
		}
	}
	return 0
}

// Open reads the bracket of an object or array if it comes next.
func (r *Reader) Open(bracket byte) bool {
	if r.Peek() != bracket {
		return false
	}
	r.at++
	return true
}

// Next reads what is between the members of an object or the elements of an array: it returns false behind the closing bracket.
// first is true for the first of them.
func (r *Reader) Next(first bool, closing byte) (bool, error) {
	switch c := r.Peek(); {
	case c == closing:
		r.at++
		return false, nil
	case first:
		return true, nil
	case c != ',':
		return false, r.fault("want a comma or an end")
	}
	r.at++
	if r.Peek() == closing {
		return false, r.fault("want something after the comma")
	}
	return true, nil
}

// Key reads the name of a member and the colon behind it.
func (r *Reader) Key() (Value, error) {
	if r.Peek() != '"' {
		return Value{}, r.fault("want the name of a member")
	}
	key, err := r.str()
	if err != nil {
		return Value{}, err
	}
	if r.Peek() != ':' {
		return Value{}, r.fault("want a colon")
	}
	r.at++
	return key, nil
}

// Value reads a value as a whole.
func (r *Reader) Value() (Value, error) {
	switch c := r.Peek(); c {
	case '"':
		return r.str()
	case '{', '[':
		return r.nested()
	case 't':
		return r.word("true", True)
	case 'f':
		return r.word("false", False)
	case 'n':
		return r.word("null", Null)
	case 'N':
		return r.word("NaN", NotFinite)
	case 'I':
		return r.word("Infinity", NotFinite)
	case '-':
		if r.at+1 < len(r.src) && r.src[r.at+1] == 'I' {
			return r.word("-Infinity", NotFinite)
		}
		return r.number()
	default:
		if c >= '0' && c <= '9' {
			return r.number()
		}
		return Value{}, r.fault("want a value")
	}
}

func (r *Reader) word(w string, kind Kind) (Value, error) {
	end := r.at + len(w)
	if end > len(r.src) || string(r.src[r.at:end]) != w {
		return Value{}, r.fault("want a value")
	}
	v := Value{Kind: kind, Raw: r.src[r.at:end]}
	r.at = end
	return v, nil
}

// str reads a string whose quote comes next.
func (r *Reader) str() (Value, error) {
	begin := r.at + 1
	escaped := false
	for i := begin; i < len(r.src); i++ {
		switch c := r.src[i]; {
		case c == '"':
			r.at = i + 1
			return Value{Kind: String, Raw: r.src[begin:i], Escaped: escaped}, nil
		case c == '\\':
			escaped = true
			n := escapeLen(r.src[i:])
			if n == 0 {
				r.at = i
				return Value{}, r.fault("want an escape")
			}
			i += n - 1
		case c < ' ':
			r.at = i
			return Value{}, r.fault("a control character in a string")
		}
	}
	r.at = len(r.src)
	return Value{}, r.fault("a string without an end")
}

// escapeLen is the length of the escape that b begins with, 0 if it is none.
func escapeLen(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	switch b[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if _, ok := hex4(b[2:]); ok {
			return 6
		}
	}
	return 0
}

func hex4(b []byte) (rune, bool) {
	if len(b) < 4 {
		return 0, false
	}
	var v rune
	for _, c := range b[:4] {
		switch {
		case c >= '0' && c <= '9':
			v = v<<4 | rune(c-'0')
		case c >= 'a' && c <= 'f':
			v = v<<4 | rune(c-'a'+10)
		case c >= 'A' && c <= 'F':
			v = v<<4 | rune(c-'A'+10)
		default:
			return 0, false
		}
	}
	return v, true
}

// shortEscapes are the bytes that escapes of one letter stand for.
var shortEscapes = [256]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

// unescape returns the text of a string whose escapes were checked. Half a surrogate pair is the replacement character.
func unescape(raw []byte) string {
	text := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			text = append(text, raw[i])
			continue
		}
		i++
		if c := raw[i]; c != 'u' {
			text = append(text, shortEscapes[c])
			continue
		}
		c, _ := hex4(raw[i+1:])
		i += 4
		if utf16.IsSurrogate(c) {
			second := rune(utf8.RuneError)
			if i+6 < len(raw) && raw[i+1] == '\\' && raw[i+2] == 'u' {
				second, _ = hex4(raw[i+3:])
			}
			if c = utf16.DecodeRune(c, second); c != utf8.RuneError {
				i += 6
			}
		}
		text = utf8.AppendRune(text, c)
	}
	return string(text)
}

func (r *Reader) number() (Value, error) {
	n := numberLen(r.src[r.at:])
	if n == 0 {
		return Value{}, r.fault("want a number")
	}
	v := Value{Kind: Number, Raw: r.src[r.at : r.at+n]}
	r.at += n
	return v, nil
}

// numberLen is the length of the number that b begins with as JSON has it, 0 if there is none.
func numberLen(b []byte) int {
	i := 0
	if b[0] == '-' {
		i++
	}
	whole := digits(b[i:])
	if whole == 0 || whole > 1 && b[i] == '0' {
		return 0
	}
	i += whole
	if i < len(b) && b[i] == '.' {
		n := digits(b[i+1:])
		if n == 0 {
			return 0
		}
		i += 1 + n
	}
	if i < len(b) && b[i]|0x20 == 'e' {
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		n := digits(b[i:])
		if n == 0 {
			return 0
		}
		i += n
	}
	return i
}

func digits(b []byte) int {
	for i, c := range b {
		if c < '0' || c > '9' {
			return i
		}
	}
	return len(b)
}

// nested reads over an object or array.
func (r *Reader) nested() (Value, error) {
	begin, kind := r.at, Object
	if r.src[begin] == '[' {
		kind = Array
	}
	// Bit i tells whether the bracket at depth i is an object's.
	var objects uint64
	for depth := 0; ; {
		isObject, opened := r.src[r.at] == '{', true
		if depth == DepthMax {
			return Value{}, r.fault("too deep")
		}
		r.at++
		objects = objects &^ (1 << depth)
		if isObject {
			objects |= 1 << depth
		}
		depth++
		for ; ; opened = false {
			closing := byte(']')
			if objects>>(depth-1)&1 == 1 {
				closing = '}'
			}
			more, err := r.Next(opened, closing)
			if err != nil {
				return Value{}, err
			}
			if !more {
				if depth--; depth == 0 {
					return Value{Kind: kind, Raw: r.src[begin:r.at]}, nil
				}
				continue
			}
			if closing == '}' {
				if _, err := r.Key(); err != nil {
					return Value{}, err
				}
			}
			if c := r.Peek(); c == '{' || c == '[' {
				break
			}
			if _, err := r.Value(); err != nil {
				return Value{}, err
			}
		}
	}
}

// exactPowers are the powers of ten that a float64 holds exactly.
var exactPowers = [...]float64{1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22}

// Float reads a decimal number: a sign, digits, a point, an exponent, where one digit is all that must be there. The result is the nearest float64;
// what is too large is infinite. Hexadecimal numbers, NaN and the like are none.
func Float(b []byte) (v float64, ok bool) {
	i, negative := 0, false
	if len(b) > 0 && (b[0] == '-' || b[0] == '+') {
		negative = b[0] == '-'
		i++
	}
	var mantissa uint64
	seen, significant, exponent := 0, 0, 0
	point := false
	for ; i < len(b); i++ {
		c := b[i]
		if c == '.' && !point {
			point = true
			continue
		}
		if c < '0' || c > '9' {
			break
		}
		seen++
		if c != '0' || significant > 0 {
			significant++
		}
		mantissa = mantissa*10 + uint64(c-'0')
		if point {
			exponent--
		}
	}
	if seen == 0 {
		return 0, false
	}
	if i < len(b) {
		e, ok := exponentOf(b[i:])
		if !ok {
			return 0, false
		}
		exponent += e
	}
	// A number of at most 15 digits and a power of ten are both exact, so that one rounding is all there is.
	if significant <= 15 && exponent >= -22 && exponent <= 22 {
		v = float64(mantissa)
		if exponent < 0 {
			v /= exactPowers[-exponent]
		} else {
			v *= exactPowers[exponent]
		}
		if negative {
			v = -v
		}
		return v, true
	}
	v, err := strconv.ParseFloat(unsafe.String(unsafe.SliceData(b), len(b)), 64)
	if err != nil && !math.IsInf(v, 0) {
		return 0, false
	}
	return v, true
}

// exponentOf reads e, a sign and digits.
func exponentOf(b []byte) (e int, ok bool) {
	if b[0]|0x20 != 'e' || len(b) < 2 {
		return 0, false
	}
	b = b[1:]
	negative := b[0] == '-'
	if b[0] == '-' || b[0] == '+' {
		b = b[1:]
	}
	if len(b) == 0 || digits(b) != len(b) {
		return 0, false
	}
	for _, c := range b {
		// Beyond any exponent of a float64 more makes no difference.
		e = min(e*10+int(c-'0'), 1<<20)
	}
	if negative {
		e = -e
	}
	return e, true
}
