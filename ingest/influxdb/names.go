package influxdb

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"varve/arrival"
	"varve/ingest"
)

// naming says how a line's series are named. It is read only.
type naming struct {
	characters  Characters
	separator   string
	appendValue bool
	bare        map[string]bool
	text        []string
	requests    [requestParameters]string // names of labels, empty for none
	identity    string
}

func newNaming(o *Options) *naming {
	n := &naming{
		characters: o.Characters, separator: o.Separator, appendValue: o.AppendValue,
		bare: make(map[string]bool), text: slices.Clone(o.TextLabels), identity: o.identity(),
		requests: [requestParameters]string{o.DatabaseLabel, o.RetentionPolicyLabel, o.BucketLabel, o.OrgLabel},
	}
	for _, measurement := range o.BareMeasurements {
		n.bare[measurement] = true
	}
	return n
}

// kindOfText says what becomes of a field of text.
func (n *naming) kindOfText(key []byte) fieldKind {
	if bytes.IndexByte(key, '\\') >= 0 {
		key = []byte(unescape(key, fieldEscapes))
	}
	for _, name := range n.text {
		if string(key) == name {
			return kindLabel
		}
	}
	return kindText
}

// onlyField is the field that a metric's name leaves out where no other is stored.
const onlyField = "value"

// metric is the name of a field's metric. single says that no other field of the line is stored.
func (n *naming) metric(measurement, field string, single bool) string {
	switch {
	case n.bare[measurement]:
		return n.clean(field, true)
	case single && field == onlyField && !n.appendValue:
		return n.clean(measurement, true)
	}
	return n.clean(measurement+n.separator+field, true)
}

// renamed is put before a tag that bears the name of the metric's label, as Prometheus
// does with labels of a target that it keeps for itself.
const renamed = "exported_"

// label is the name of a tag's label.
func (n *naming) label(key string) string {
	name := n.clean(key, false)
	if name == model.MetricNameLabel {
		return renamed + name
	}
	return name
}

// clean replaces the characters of a name that may not be kept.
func (n *naming) clean(name string, colons bool) string {
	if n.characters == UTF8 {
		return name
	}
	var b strings.Builder
	if isDigit(name[0]) {
		b.WriteByte('_')
	} else if i := firstUnclean(name, colons); i == len(name) {
		return name
	}
	for _, r := range name {
		if r < utf8.RuneSelf && cleanByte(byte(r), colons) {
			b.WriteByte(byte(r))
		} else {
			b.WriteByte('_')
		}
	}
	return b.String()
}

// isBare says whether the metrics of a measurement, as it stands in a line, bear the names of the fields alone.
func (n *naming) isBare(measurement []byte) bool {
	if bytes.IndexByte(measurement, '\\') >= 0 {
		return n.bare[unescape(measurement, measurementEscapes)]
	}
	return n.bare[string(measurement)]
}

// appendField appends what is left of a field's key, as it stands in a line, in the name of its metric, where others are stored beside it.
func (n *naming) appendField(dst, key []byte, bare bool) []byte {
	if n.characters == UTF8 {
		return appendUnescaped(dst, key, fieldEscapes)
	}
	if bare && isDigit(key[0]) {
		dst = append(dst, '_')
	}
	at := len(dst)
	dst = appendUnescaped(dst, key, fieldEscapes)
	// Cleaning makes one byte of each character, so that what is written stays behind what is read.
	out := dst[:at]
	for name := dst[at:]; len(name) > 0; {
		_, size := utf8.DecodeRune(name)
		c := name[0]
		if size > 1 || !cleanByte(c, true) {
			c = '_'
		}
		out, name = append(out, c), name[size:]
	}
	return out
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func firstUnclean(name string, colons bool) int {
	for i := range len(name) {
		if !cleanByte(name[i], colons) {
			return i
		}
	}
	return len(name)
}

func cleanByte(c byte, colons bool) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == ':' && colons
}

// What a backslash escapes where. It stays before every other byte.
const (
	measurementEscapes = ", "
	tagEscapes         = ", ="
	fieldEscapes       = `, ="`
	textEscapes        = `"\`
)

// unescape takes the backslashes away from before the bytes of escapes.
func unescape(b []byte, escapes string) string {
	if bytes.IndexByte(b, '\\') < 0 {
		return string(b)
	}
	return string(appendUnescaped(make([]byte, 0, len(b)), b, escapes))
}

func appendUnescaped(dst, b []byte, escapes string) []byte {
	for i := 0; i < len(b); i++ {
		if b[i] == '\\' && i+1 < len(b) && strings.IndexByte(escapes, b[i+1]) >= 0 {
			i++
		}
		dst = append(dst, b[i])
	}
	return dst
}

// tag is a tag as it is written.
type tag struct {
	key, value []byte
}

// splitKey finds the measurement and the tags of a line and checks them as InfluxDB does.
// It appends the tags.
func splitKey(key []byte, tags []tag) (measurement []byte, _ []tag, fault error) {
	if len(key) == 0 || key[0] == ',' {
		return nil, tags, errMissingMeasurement
	}
	i := unescaped(key, 1, ",")
	measurement = key[:i]
	for i < len(key) {
		i++ // the comma
		if i == len(key) || key[i] == ',' || key[i] == ' ' || key[i] == '=' {
			return nil, tags, errMissingTagKey
		}
		t := tag{key: key[i:]}
		i = unescaped(key, i+1, ",=")
		if i == len(key) || key[i] == ',' {
			return nil, tags, errMissingTagValue
		}
		t.key = t.key[:i-(len(key)-len(t.key))]
		i++ // the equals sign
		if i == len(key) || key[i] == ',' || key[i] == ' ' {
			return nil, tags, errMissingTagValue
		}
		t.value = key[i:]
		i = unescaped(key, i+1, ",=")
		if i < len(key) && key[i] == '=' {
			return nil, tags, errTagFormat
		}
		t.value = t.value[:i-(len(key)-len(t.value))]
		tags = append(tags, t)
	}
	return measurement, tags, nil
}

// unescaped returns the index of the first of the bytes at or behind at that no backslash
// precedes, or the length.
func unescaped(b []byte, at int, bytes string) int {
	for ; at < len(b); at++ {
		if strings.IndexByte(bytes, b[at]) >= 0 && b[at-1] != '\\' {
			return at
		}
	}
	return at
}

// duplicateTags tells whether two tags have the same key. Where there are more than
// tagsMax they are refused for that.
func duplicateTags(tags []tag, tagsMax int) bool {
	if len(tags) > tagsMax {
		return false
	}
	for i := range tags {
		for j := range i {
			if bytes.Equal(tags[i].key, tags[j].key) {
				return true
			}
		}
	}
	return false
}

// namedLine is the line whose series are being named: its rows come one after the other.
type namedLine struct {
	place int // offset of the line plus one, 0 for none
	fault error

	measurement string
	tags        []tag
	pairs       []labels.Label
	// byField are the names of the metrics of the line.
	byField []string
}

func (n *namedLine) forget() {
	n.place, n.fault, n.measurement = 0, nil, ""
	clear(n.tags)
	clear(n.pairs)
	clear(n.byField)
	n.tags, n.pairs, n.byField = n.tags[:0], n.pairs[:0], n.byField[:0]
}

// nameSeries is what a delivery calls for series that the archive doesn't know.
func (d *decoder) nameSeries(place uint64, sets *ingest.LabelSets) error {
	n := &d.named
	if start := int(place >> 32); n.place != start+1 {
		n.forget()
		n.place = start + 1
		if n.fault = d.nameLine(start); n.fault != nil {
			d.example(&d.again, n.fault)
		}
	}
	if n.fault != nil {
		return errSeen
	}
	index := int(uint32(place))
	sets.Add(model.MetricNameLabel, n.byField[index])
	for _, p := range n.pairs {
		sets.Add(p.Name, p.Value)
	}
	return nil
}

// nameLine reads the line at start again, which is a good one but for its tags, and finds
// the names and labels of its series.
func (d *decoder) nameLine(start int) error {
	n, p, names := &d.named, &d.again, d.in.names
	if _, fault := p.read(names, d.body, start, true); fault != nil {
		return fault
	}
	measurement, tags, fault := splitKey(d.body[p.start:p.keyEnd], n.tags)
	n.tags = tags
	if fault != nil {
		return fault
	}
	if duplicateTags(tags, d.in.limits.LabelsMax) {
		return errDuplicateTags
	}
	for _, t := range tags {
		n.pairs = append(n.pairs, labels.Label{Name: names.label(unescape(t.key, tagEscapes)), Value: unescape(t.value, tagEscapes)})
	}
	for i := range p.fields {
		if f := &p.fields[i]; f.kind == kindLabel {
			// What stands behind the closing quote is not read, see readText.
			text := d.body[f.to+len(`="`) : f.end]
			n.pairs = append(n.pairs, labels.Label{
				Name:  names.label(unescape(d.body[f.from:f.to], fieldEscapes)),
				Value: unescape(text[:bytes.LastIndexByte(text, '"')], textEscapes),
			})
		}
	}
	if err := n.collisions(d.in.limits.LabelsMax); err != nil {
		return err
	}
	n.pairs = d.extra.appendTo(n.pairs)
	n.measurement = unescape(measurement, measurementEscapes)
	for i := range p.fields {
		f := &p.fields[i]
		name := ""
		if f.kind == kindNumber {
			name = names.metric(n.measurement, unescape(d.body[f.from:f.to], fieldEscapes), p.numbers == 1)
		}
		n.byField = append(n.byField, name)
	}
	return nil
}

// collisions finds labels that come twice, which tags with different keys may once they
// are names.
func (n *namedLine) collisions(labelsMax int) error {
	if len(n.pairs) > labelsMax {
		return nil // refused for that
	}
	for i, p := range n.pairs {
		for _, q := range n.pairs[:i] {
			if p.Name == q.Name {
				return fmt.Errorf("two tags are both the label %s", strconv.QuoteToASCII(cut(p.Name, faultDigits)))
			}
		}
	}
	return nil
}

// requestParameters is how many parameters of a request may become labels.
const requestParameters = 4

// extraLabels are the labels that a request adds to all its lines.
type extraLabels struct {
	pairs [requestParameters]labels.Label
	// forced take the place of labels of the same name. They are sorted, and none is called like another.
	forced []labels.Label
	any    bool
}

// force reads the parameters extra_label=name=value of a request.
func (e *extraLabels) force(texts []string) error {
	for _, text := range texts {
		name, value, ok := strings.Cut(text, "=")
		if !ok || name == "" || name == model.MetricNameLabel {
			return fmt.Errorf("extra_label %s: want name=value", printable([]byte(cut(text, logBytes))))
		}
		// The last of a name stays.
		e.forced = slices.DeleteFunc(e.forced, func(l labels.Label) bool { return l.Name == name })
		e.forced = append(e.forced, labels.Label{Name: name, Value: value})
		e.any = true
	}
	slices.SortFunc(e.forced, func(a, b labels.Label) int { return strings.Compare(a.Name, b.Name) })
	return nil
}

// extraLabels returns the labels for the parameters db, rp, bucket and org.
func (n *naming) extraLabels(values [requestParameters]string) (e extraLabels) {
	for i, value := range values {
		if n.requests[i] != "" && value != "" {
			e.pairs[i] = labels.Label{Name: n.requests[i], Value: value}
			e.any = true
		}
	}
	return e
}

// seed is that of the keys of lines with these labels.
func (e *extraLabels) seed(of arrival.Seed) arrival.Seed {
	if !e.any {
		return of
	}
	var b []byte
	for _, p := range e.pairs {
		b = arrival.AppendLabel(b, p.Name, p.Value)
	}
	// There are always as many of the first kind, so none can be taken for one of the other.
	for _, p := range e.forced {
		b = arrival.AppendLabel(b, p.Name, p.Value)
	}
	return arrival.Seed(of.Hash(b).Lo)
}

// appendTo appends those that no pair bears the name of, and the others in the place of such a pair.
func (e *extraLabels) appendTo(pairs []labels.Label) []labels.Label {
	if !e.any {
		return pairs
	}
	for _, p := range e.pairs {
		if p.Name != "" && !slices.ContainsFunc(pairs, func(q labels.Label) bool { return q.Name == p.Name }) {
			pairs = append(pairs, p)
		}
	}
	for _, p := range e.forced {
		pairs = append(slices.DeleteFunc(pairs, func(q labels.Label) bool { return q.Name == p.Name }), p)
	}
	return pairs
}

// printable is text of a sender without control characters or broken UTF-8.
func printable(b []byte) string {
	out := make([]byte, 0, len(b))
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		switch {
		case r == utf8.RuneError && n == 1:
			out = fmt.Appendf(out, `\x%02x`, b[0])
		case !strconv.IsPrint(r):
			quoted := strconv.QuoteRuneToASCII(r)
			out = append(out, quoted[1:len(quoted)-1]...)
		default:
			out = utf8.AppendRune(out, r)
		}
		b = b[n:]
	}
	return string(out)
}
