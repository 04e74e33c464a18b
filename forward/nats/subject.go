package nats

import (
	"errors"
	"fmt"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
)

// subjectBytesMax bounds a subject: a server takes protocol lines of 4096 bytes, which hold the subject, one for the reply and some numbers.
const subjectBytesMax = 3 << 10

var errSubjectLong = fmt.Errorf("the subject would have more than %d bytes", subjectBytesMax)

// template makes a subject of labels.
type template struct {
	// Literal i stands before label i, the last one behind all.
	literals, labels []string
}

// parseTemplate reads a subject with names of labels in braces.
func parseTemplate(s string) (*template, error) {
	t := &template{}
	rest := s
	for {
		literal, behind, braced := strings.Cut(rest, "{")
		if strings.Contains(literal, "}") {
			return nil, errors.New("} without {")
		}
		t.literals = append(t.literals, literal)
		if !braced {
			break
		}
		name, after, closed := strings.Cut(behind, "}")
		if !closed || name == "" || strings.Contains(name, "{") {
			return nil, errors.New("want the name of a label between { and }")
		}
		t.labels = append(t.labels, name)
		rest = after
	}
	for token := range strings.SplitSeq(strings.Join(t.literals, "x"), ".") {
		if token == "" {
			return nil, errors.New("a token is empty")
		}
	}
	whole := strings.Join(t.literals, "")
	if i := strings.IndexFunc(whole, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '*' || r == '>' }); i >= 0 {
		return nil, fmt.Errorf("%q has no place in a subject", whole[i])
	}
	if strings.HasPrefix(t.literals[0], "$") {
		return nil, errors.New("subjects that begin with $ are the server's own")
	}
	return t, nil
}

// pattern matches all subjects that the template can make, with a wildcard for each token that has a label in it.
func (t *template) pattern() string {
	tokens := strings.Split(strings.Join(t.literals, "*"), ".")
	for i, token := range tokens {
		if strings.Contains(token, "*") {
			tokens[i] = "*"
		}
	}
	return strings.Join(tokens, ".")
}

// append appends the subject of a series. value gives a label's value, empty if it has none.
func (t *template) append(dst []byte, value func(name string) string) ([]byte, error) {
	from := len(dst)
	for i, name := range t.labels {
		dst = append(dst, t.literals[i]...)
		dst = appendToken(dst, value(name))
	}
	dst = append(dst, t.literals[len(t.labels)]...)
	if len(dst)-from > subjectBytesMax {
		return dst[:from], errSubjectLong
	}
	return dst, nil
}

func (t *template) series(ls labels.Labels) (string, error) {
	b, err := t.append(nil, ls.Get)
	return string(b), err
}

func (t *template) family(name string) (string, error) {
	b, err := t.append(nil, func(label string) string {
		if label == model.MetricNameLabel {
			return name
		}
		return ""
	})
	return string(b), err
}

// emptyToken stands for an empty value. No escape begins like it.
const emptyToken = "%-"

const hexDigits = "0123456789ABCDEF"

// appendToken escapes a value so that it is a part of one token of a subject, and can be read back.
func appendToken(dst []byte, value string) []byte {
	if value == "" {
		return append(dst, emptyToken...)
	}
	for i := 0; i < len(value); i++ {
		c := value[i]
		if c <= ' ' || c == 0x7f || strings.IndexByte(".*>$%", c) >= 0 {
			dst = append(dst, '%', hexDigits[c>>4], hexDigits[c&15])
		} else {
			dst = append(dst, c)
		}
	}
	return dst
}
