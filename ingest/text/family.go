package text

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/metadata"

	"varve/arrival"
)

func floatOf(bits uint64) float64 { return math.Float64frombits(bits) }

// family is the metric family that the last comment was about.
type family struct {
	name string
	said metadata.Metadata
	// created is the name of the series that says when those of the family were created, as it stands in a line;
	// empty where the type has none.
	created string
	// first is the first row of the batch that may be of the family.
	first int
}

// metricTypes are the types by the words that both formats have for them.
var metricTypes = map[string]model.MetricType{
	"counter": model.MetricTypeCounter, "gauge": model.MetricTypeGauge, "histogram": model.MetricTypeHistogram,
	"gaugehistogram": model.MetricTypeGaugeHistogram, "summary": model.MetricTypeSummary, "info": model.MetricTypeInfo,
	"stateset": model.MetricTypeStateset, "unknown": model.MetricTypeUnknown, "untyped": model.MetricTypeUnknown,
}

// comment takes a line that begins with #: what is said of a family, or nothing.
func (p *lineReader) comment(b []byte, line uint64) error {
	word, rest := field(b[1:])
	kind := aliased(word)
	if kind != "TYPE" && kind != "HELP" && kind != "UNIT" {
		return nil
	}
	name, text, ok := familyName(rest)
	if !ok || len(name) > p.limits.NameBytesMax || len(text) > p.limits.ValueBytesMax || !model.UTF8Validation.IsValidMetricName(name) {
		p.refuse(arrival.ReasonInvalidLine, 1, line, fmt.Errorf("%s of no metric family: %s", kind, quoted(b)))
		return nil
	}
	said := strings.TrimRight(string(text), " \t")
	if name != p.family.name {
		p.endFamily()
		p.family = family{name: name, first: len(p.arrived.Rows)}
	}
	switch kind {
	case "TYPE":
		t, ok := metricTypes[said]
		if !ok {
			p.refuse(arrival.ReasonInvalidLine, 1, line, fmt.Errorf("no type of a metric: %s", quoted(said)))
			return nil
		}
		p.family.said.Type = t
		switch t {
		case model.MetricTypeCounter, model.MetricTypeHistogram, model.MetricTypeSummary:
			p.family.created = name + "_created"
		}
	case "HELP":
		p.family.said.Help = unescapedHelp(strings.ToValidUTF8(said, "\uFFFD"))
	case "UNIT":
		p.family.said.Unit = strings.ToValidUTF8(said, "\uFFFD")
	}
	return nil
}

// familyName reads the name in a comment, which may be quoted, and returns what is behind it.
func familyName(b []byte) (name string, rest []byte, ok bool) {
	b = bytes.TrimLeft(b, " \t")
	if len(b) > 0 && b[0] == '"' {
		end := closingQuote(b, 1)
		if end < 0 {
			return "", nil, false
		}
		name, err := strconv.Unquote(string(b[:end+1]))
		return name, bytes.TrimLeft(b[end+1:], " \t"), err == nil
	}
	word, rest := field(b)
	return string(word), bytes.TrimLeft(rest, " \t"), len(word) > 0
}

var helpEscapes = strings.NewReplacer(`\\`, `\`, `\n`, "\n", `\"`, `"`)

func unescapedHelp(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	return helpEscapes.Replace(s)
}

// endFamily adds what was said of the family to the batch.
func (p *lineReader) endFamily() {
	if said := p.family.said; p.family.name != "" && !said.IsEmpty() {
		if said.Type == "" {
			said.Type = model.MetricTypeUnknown
		}
		p.arrived.Metadata = append(p.arrived.Metadata, arrival.Metadata{Family: p.family.name, Metadata: said})
	}
	p.family = family{}
}

// isCreated tells whether a line is the family's name_created.
func (p *lineReader) isCreated(series []byte) bool {
	name := p.family.created
	return len(series) >= len(name) && aliased(series[:len(name)]) == name && (len(series) == len(name) || series[len(name)] == '{')
}

// startOf makes the value of a line name_created the start timestamp of the samples before it that have its
// labels. It is false if there are none.
func (p *lineReader) startOf(series []byte, s *sampleText) bool {
	seconds := floatOf(s.bits)
	if !(math.Abs(seconds) <= secondsMax) {
		return false
	}
	var at *int64
	if s.hasTime {
		at = &s.millis
	}
	own := series[len(p.family.created):]
	found := false
	for row := len(p.arrived.Rows) - 1; row >= p.family.first; row-- {
		if !p.ofGroup(row, own) {
			break
		}
		p.setStart(row, int64(math.Round(seconds*1000)), at)
		found = true
	}
	return found
}

// ofGroup tells whether a row's series has these labels, with their braces, but for the bound of a bucket or a quantile.
func (p *lineReader) ofGroup(row int, own []byte) bool {
	at := &p.places[row]
	series := p.buf[at.from:at.to]
	i := bytes.IndexByte(series, '{')
	if i < 0 {
		return len(own) == 0
	}
	p.scratch[0] = appendGroup(p.scratch[0][:0], series[i:])
	p.scratch[1] = appendGroup(p.scratch[1][:0], own)
	return bytes.Equal(p.scratch[0], p.scratch[1])
}

// appendGroup appends the pairs between braces without le and quantile.
func appendGroup(dst, b []byte) []byte {
	if len(b) < 2 {
		return dst
	}
	b = b[1 : len(b)-1]
	for len(b) > 0 {
		open := bytes.IndexByte(b, '"')
		if open < 0 {
			return append(dst, b...)
		}
		end := closingQuote(b, open+1)
		if end < 0 {
			return append(dst, b...)
		}
		pair := bytes.TrimLeft(b[:end+1], ", ")
		if !bytes.HasPrefix(pair, []byte("le=")) && !bytes.HasPrefix(pair, []byte("quantile=")) {
			dst = append(append(dst, pair...), ',')
		}
		b = bytes.TrimLeft(b[end+1:], ", ")
	}
	return dst
}

// groupRowsMax is how many rows are kept back at most for a line that may say when they were created: more buckets
// than a histogram has.
const groupRowsMax = 1000

// unfinished returns the first row of the last series of the family with all that belongs to it, 0 if nothing is
// to be kept back.
func (p *lineReader) unfinished() int {
	row := len(p.arrived.Rows) - 1
	if p.family.created == "" || p.times == timeMillis || row < p.family.first {
		return 0
	}
	series := p.buf[p.places[row].from:p.places[row].to]
	own := []byte(nil)
	if i := bytes.IndexByte(series, '{'); i >= 0 {
		own = bytes.Clone(series[i:])
	}
	least := max(p.family.first, row-groupRowsMax, 1)
	for row > least && p.ofGroup(row-1, own) {
		row--
	}
	if p.refusedAt >= p.places[row].line || int(p.places[row].lineAt) < len(p.buf)/2 {
		// A line that was refused would be refused again. And the window must get on.
		return 0
	}
	if p.full() && int(p.arrived.Rows[row].First) < len(p.arrived.Times)/2 {
		// Most lines would be read again, and again by the next batches.
		return 0
	}
	return row
}
