package text

import (
	"strconv"
	"strings"
	"time"
)

// AppendTime appends a time, Unix ms, in one of the forms.
func AppendTime(b []byte, millis int64, f TimeFormat) []byte {
	switch f {
	case UnixSeconds:
		return appendSeconds(b, millis)
	case UnixMillis:
		return strconv.AppendInt(b, millis, 10)
	}
	return time.UnixMilli(millis).UTC().AppendFormat(b, "2006-01-02T15:04:05.000Z07:00")
}

// AppendField appends a field of CSV, in quotes if it has to be, see RFC 4180.
func AppendField(b []byte, s string, separator rune) []byte {
	if !strings.ContainsAny(s, "\"\r\n") && !strings.ContainsRune(s, separator) && !strings.HasPrefix(s, " ") && !strings.HasSuffix(s, " ") {
		return append(b, s...)
	}
	b = append(b, '"')
	b = append(b, strings.ReplaceAll(s, `"`, `""`)...)
	return append(b, '"')
}

// AppendJSONString appends a string of JSON. Bytes that are no UTF-8 become the replacement character.
func AppendJSONString(b []byte, s string) []byte { return appendString(b, s) }

// AppendJSONFloat appends a float as VictoriaMetrics' lines have it: NaN is null, infinity a string.
func AppendJSONFloat(b []byte, v float64) []byte { return appendJSONFloat(b, v) }
