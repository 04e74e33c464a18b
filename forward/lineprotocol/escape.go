package lineprotocol

import (
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
)

// escapes say of each byte how it is written: 0 as it is, else as a backslash and that letter.
type escapes [256]byte

var (
	measurementEscapes = newEscapes(", ")
	keyEscapes         = newEscapes(",= ")
	// misread are the bytes before which a backslash would be taken for an escape.
	misread = newEscapes(`,= "`)
)

// newEscapes escapes what ends a part of a line with a backslash. Control characters are written as a backslash and a letter, as
// InfluxDB's own clients do: the protocol has no other way to put them. NUL and tab are among them since readers strip them
// at the beginning of a line.
func newEscapes(ends string) *escapes {
	e := &escapes{'\n': 'n', '\r': 'r', '\t': 't', '\f': 'f', 0: '0'}
	for i := range len(ends) {
		e[ends[i]] = ends[i]
	}
	return e
}

// AppendMeasurement appends the name of a measurement, escaped. A number sign in front, which would make the line a comment, gets a backslash that
// readers keep. The name must not be empty.
func AppendMeasurement(dst []byte, name string) []byte {
	if name[0] == '#' {
		dst = append(dst, '\\')
	}
	return appendEscaped(dst, name, measurementEscapes)
}

// AppendTagKey appends the name of a tag, escaped. Names that InfluxDB keeps for itself get an underscore behind, see [Reserved].
func AppendTagKey(dst []byte, key string) []byte {
	dst = appendEscaped(dst, key, keyEscapes)
	if Reserved(key) {
		dst = append(dst, '_')
	}
	return dst
}

// AppendTagValue appends the value of a tag, escaped. The value must not be empty.
//
// Line protocol has no escape for the backslash itself: readers take it for one, unless it stands before an ordinary character. So a backslash
// before a comma, an equals sign, a space, a quote or the end, where it would change what the line means, becomes a slash;
// all others stand as they are.
// A newline is written as backslash and n, which readers keep as these two characters.
func AppendTagValue(dst []byte, value string) []byte { return appendEscaped(dst, value, keyEscapes) }

// AppendFieldKey appends the name of a field, escaped. The name must not be empty.
func AppendFieldKey(dst []byte, name string) []byte {
	dst = appendEscaped(dst, name, keyEscapes)
	if name == reservedTime {
		dst = append(dst, '_')
	}
	return dst
}

const reservedTime = "time"

// Reserved says whether InfluxDB drops points with a tag of this name: 1.x those with time, 2.x also those with _field and _measurement.
func Reserved(tagKey string) bool {
	return tagKey == reservedTime || tagKey == "_field" || tagKey == "_measurement"
}

// AppendSeries appends what stands before the fields of a series' lines: the metric's name as measurement and the other labels as tags, in the
// order of the labels, which is sorted. Labels with an empty value are left out. The labels must have a metric name.
func AppendSeries(dst []byte, ls labels.Labels) []byte {
	dst = AppendMeasurement(dst, ls.Get(model.MetricNameLabel))
	ls.Range(func(l labels.Label) {
		if l.Name != model.MetricNameLabel {
			dst = appendTag(dst, l.Name, l.Value)
		}
	})
	return dst
}

func appendTag(dst []byte, key, value string) []byte {
	if key == "" || value == "" {
		return dst
	}
	dst = append(dst, ',')
	dst = AppendTagKey(dst, key)
	dst = append(dst, '=')
	return AppendTagValue(dst, value)
}

func appendEscaped(dst []byte, s string, e *escapes) []byte {
	for i := range len(s) {
		c := s[i]
		switch {
		case e[c] != 0:
			dst = append(dst, '\\', e[c])
		case c == '\\' && (i+1 == len(s) || misread[s[i+1]] != 0):
			dst = append(dst, '/')
		default:
			dst = append(dst, c)
		}
	}
	return dst
}
