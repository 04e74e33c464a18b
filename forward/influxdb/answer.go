package influxdb

import (
	"cmp"
	"encoding/json"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"varve/forward"
)

// message is what an answer with an error carries. Its forms:
//
//	1.x      {"error":"partial write: ... dropped=1"}
//	2.x      {"code":"invalid","message":"..."}
//	QuestDB  {"code":"invalid","message":"... error in line 2: ...","line":2,"errorId":"..."}
//	3.x      {"error":"partial write of line protocol occurred","data":[{"line_number":2,"error_message":"...","original_line":"..."}]}
type message struct {
	text  string
	lines []badLine
}

// badLine is a line of the request, counted from 1.
type badLine struct {
	number int
	reason string
}

func messageOf(a *forward.Answer) message {
	var body struct {
		Error   string `json:"error"`
		Message string `json:"message"`
		Line    int    `json:"line"`
		Data    []struct {
			Line   int    `json:"line_number"`
			Reason string `json:"error_message"`
		} `json:"data"`
	}
	// What is not JSON, or of another form, is taken as text.
	if err := json.Unmarshal([]byte(a.Body), &body); err != nil {
		return message{text: cmp.Or(a.Body, a.Header.Get("X-Influxdb-Error"))}
	}
	m := message{text: cmp.Or(body.Message, body.Error, a.Body)}
	for _, d := range body.Data {
		m.lines = append(m.lines, badLine{d.Line, d.Reason})
	}
	for _, found := range errorInLine.FindAllStringSubmatch(m.text, -1) {
		if n, err := strconv.Atoi(found[1]); err == nil {
			m.lines = append(m.lines, badLine{n, strings.TrimSpace(found[2])})
		}
	}
	if body.Line > 0 && len(m.lines) == 0 {
		m.lines = append(m.lines, badLine{body.Line, m.text})
	}
	return m
}

func (m *message) says(any ...string) bool {
	return slices.ContainsFunc(any, func(s string) bool { return strings.Contains(m.text, s) })
}

var (
	errorInLine  = regexp.MustCompile(`(?m)error in line (\d+):(.*)$`)
	typeConflict = regexp.MustCompile(`(?s)field type conflict: input field "(.*)" on measurement "(.*)" is type \w+, already exists as type \w+`)
	dropped      = regexp.MustCompile(`dropped=(\d+)\b`)
)

const (
	unableToParse   = "unable to parse '"
	beyondRetention = "points beyond retention policy"
	// reasonBytesMax bounds what of a parse error goes to a refusal, since it repeats the line.
	reasonBytesMax = 300
)

// trace finds the samples that a refusing answer is about, of the lines just encoded. It returns none where the answer doesn't name them, or
// where its count speaks of more or fewer.
func (e *encoder) trace(a *forward.Answer, b *forward.Batch, body []byte) []forward.Refusal {
	m := messageOf(a)
	switch {
	case len(m.lines) > 0:
		return e.numbered(m.lines)
	case m.says(unableToParse):
		return e.unparsable(m.text, body)
	case m.says(beyondRetention):
		return e.oldest(droppedBy(m.text), b, m.text)
	}
	if conflict := typeConflict.FindStringSubmatch(m.text); conflict != nil {
		return e.conflicting(conflict[1], conflict[2], droppedBy(m.text), body, m.text)
	}
	return nil
}

// droppedBy is the count that an answer names, or -1.
func droppedBy(text string) int {
	found := dropped.FindAllStringSubmatch(text, -1)
	if len(found) == 0 {
		return -1
	}
	n, err := strconv.Atoi(found[len(found)-1][1])
	if err != nil {
		return -1
	}
	return n
}

// numbered are the samples of lines that the answer counts from 1.
func (e *encoder) numbered(bad []badLine) []forward.Refusal {
	var refusals []forward.Refusal
	for _, l := range bad {
		if l.number < 1 || l.number > len(e.lines) {
			return nil
		}
		refusals = appendRefusals(refusals, e.samples(l.number-1), clip(l.reason))
	}
	return refusals
}

// unparsable are the samples of the lines that the answer repeats, one behind the other: unable to parse 'LINE': REASON.
func (e *encoder) unparsable(text string, body []byte) []forward.Refusal {
	reasons := map[string]string{}
	for part := range strings.SplitSeq(text, unableToParse) {
		if end := strings.LastIndex(part, "': "); end >= 0 {
			reasons[part[:end]] = part[end+len("': "):]
		}
	}
	var refusals []forward.Refusal
	for i := range e.lines {
		if reason, bad := reasons[e.text(body, i)]; bad {
			reason, _, _ = strings.Cut(reason, "\n")
			refusals = appendRefusals(refusals, e.samples(i), "unable to parse: "+clip(reason))
		}
	}
	return refusals
}

// oldest are the n oldest lines: InfluxDB drops what is older than a certain time.
func (e *encoder) oldest(n int, b *forward.Batch, reason string) []forward.Refusal {
	if n < 1 || n > len(e.lines) {
		return nil
	}
	times := make([]int64, len(e.lines))
	for i := range e.lines {
		times[i] = e.samples(i)[0].time(b)
	}
	sorted := slices.Sorted(slices.Values(times))
	last := sorted[n-1]
	if n < len(sorted) && sorted[n] == last {
		// Lines of one time are dropped together, so that the count is about something else.
		return nil
	}
	var refusals []forward.Refusal
	for i, t := range times {
		if t <= last {
			refusals = appendRefusals(refusals, e.samples(i), clip(reason))
		}
	}
	return refusals
}

// conflicting are the samples of a field of a measurement, if they are in as many lines as were dropped. In other lines than
// these the conflict may be none, since each shard of the target has types of its own.
func (e *encoder) conflicting(field, measurement string, n int, body []byte, reason string) []forward.Refusal {
	var refusals []forward.Refusal
	found := 0
	for i := range e.lines {
		at := fieldOf(e.text(body, i), measurement, field)
		if at < 0 {
			continue
		}
		found++
		// A line of the form with one metric a measurement has one sample. One of a route has as many as fields.
		refusals = appendRefusals(refusals, e.samples(i)[at:at+1], clip(reason))
	}
	if found != n {
		return nil
	}
	return refusals
}

// fieldOf is the place of a field among those of a line of that measurement, or -1.
func fieldOf(line, measurement, field string) int {
	name, rest := cutUnescaped(line, ", ")
	if unescape(name) != measurement {
		return -1
	}
	for strings.HasPrefix(rest, ",") {
		_, rest = cutUnescaped(rest[1:], ", ")
	}
	for i := 0; rest != ""; i++ {
		var key string
		key, rest = cutUnescaped(rest[1:], "=")
		if unescape(key) == field {
			return i
		}
		if _, rest = cutUnescaped(rest, ", "); strings.HasPrefix(rest, " ") {
			break
		}
	}
	return -1
}

// cutUnescaped cuts before the first of the bytes that has no backslash before it.
func cutUnescaped(s, ends string) (before, from string) {
	for i := range len(s) {
		if strings.IndexByte(ends, s[i]) >= 0 && (i == 0 || s[i-1] != '\\') {
			return s[:i], s[i:]
		}
	}
	return s, ""
}

var unescaper = strings.NewReplacer(`\,`, `,`, `\ `, ` `, `\=`, `=`)

func unescape(s string) string { return unescaper.Replace(s) }

func appendRefusals(refusals []forward.Refusal, refs []ref, reason string) []forward.Refusal {
	for _, r := range refs {
		refusals = append(refusals, r.refusal(reason))
	}
	return refusals
}

func clip(reason string) string {
	if len(reason) > reasonBytesMax {
		return strings.ToValidUTF8(reason[:reasonBytesMax], "") + "..."
	}
	return reason
}
