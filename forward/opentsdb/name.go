package opentsdb

import (
	"fmt"
	"strings"
)

const hexDigits = "0123456789ABCDEF"

// AppendName appends a metric's name, a tag's name or a tag's value in the characters that OpenTSDB takes: letters, digits, and -./ stand as
// they are, the underscore is doubled, a colon is _. and any other byte is _ with two hexadecimal digits in capitals. Nothing
// is lost: Name is the way back. It is the mapping of Prometheus' adapter of old for OpenTSDB, and so of sop, but for bytes below 0x10, which these
// wrote with one digit.
func AppendName(dst []byte, s string) []byte {
	for i := range len(s) {
		switch c := s[i]; {
		case plain(c):
			dst = append(dst, c)
		case c == '_':
			dst = append(dst, "__"...)
		case c == ':':
			dst = append(dst, "_."...)
		default:
			dst = append(dst, '_', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return dst
}

func plain(c byte) bool {
	return c >= '-' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
}

// Name is the text that AppendName wrote as s. Of what AppendName does not write it is an error.
func Name(s string) (string, error) {
	var text strings.Builder
	for i := 0; i < len(s); i++ {
		c, width, ok := s[i], 1, plain(s[i])
		if !ok {
			c, width, ok = escaped(s[i:])
		}
		if !ok {
			return "", fmt.Errorf("%q is no name of OpenTSDB as this package writes them, from byte %d on", s, i)
		}
		text.WriteByte(c)
		i += width - 1
	}
	return text.String(), nil
}

// escaped reads the escape at the beginning of s.
func escaped(s string) (c byte, width int, ok bool) {
	switch {
	case len(s) < 2 || s[0] != '_':
		return 0, 0, false
	case s[1] == '_':
		return '_', 2, true
	case s[1] == '.':
		return ':', 2, true
	case len(s) < 3:
		return 0, 0, false
	}
	high, low := strings.IndexByte(hexDigits, s[1]), strings.IndexByte(hexDigits, s[2])
	if high < 0 || low < 0 {
		return 0, 0, false
	}
	c = byte(high<<4 | low)
	// What has a shorter form is not written in this one, so that no two names mean the same text.
	return c, 3, !plain(c) && c != '_' && c != ':'
}
