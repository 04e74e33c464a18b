package remotewrite

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/metadata"

	"varve/arrival"
)

var errFamily = errors.New("metadata of a metric family is not UTF-8, too long or without a name")

// metricTypes are the types by their number, which both protocols share.
var metricTypes = [...]model.MetricType{
	model.MetricTypeUnknown, model.MetricTypeCounter, model.MetricTypeGauge, model.MetricTypeHistogram,
	model.MetricTypeGaugeHistogram, model.MetricTypeSummary, model.MetricTypeInfo, model.MetricTypeStateset,
}

func metricType(number uint64) uint8 {
	if number >= uint64(len(metricTypes)) {
		return 0
	}
	return uint8(number)
}

// metadata1 decodes a MetricMetadata message of 1.0, which names its family.
func (q *request) metadata1(b []byte) error {
	var number uint64
	var name, help, unit []byte
	for i := 0; i < len(b); {
		tag, j := tagAt(b, i)
		if j < 0 {
			return errMalformed
		}
		switch tag >> 3 {
		case 1:
			number, i = uint64At(b, j, tag)
		case 2:
			name, i = messageAt(b, j, tag)
		case 4:
			help, i = messageAt(b, j, tag)
		case 5:
			unit, i = messageAt(b, j, tag)
		default:
			i = skip(b, j, tag)
		}
		if i < 0 {
			return errMalformed
		}
	}
	return q.addFamily(text(name), metricType(number), text(help), text(unit))
}

// addFamily checks and adds what is said of a metric family. The strings may alias
// the body.
func (q *request) addFamily(name string, metricType uint8, help, unit string) error {
	if err := q.charge(familyBytes + len(name) + len(help) + len(unit)); err != nil {
		return err
	}
	if !q.familyValid(name, help, unit) {
		q.report.add(arrival.ReasonInvalidSeries, 1, errFamily)
		return nil
	}
	q.batch.Metadata = append(roomy(q.batch.Metadata), newFamily(name, metricType, help, unit))
	return nil
}

func (q *request) familyValid(name, help, unit string) bool {
	return name != "" && len(name) <= q.limits.ValueBytesMax && len(help) <= q.limits.ValueBytesMax && len(unit) <= q.limits.ValueBytesMax &&
		utf8.ValidString(name) && utf8.ValidString(help) && utf8.ValidString(unit)
}

// familyBytes is the size of an arrival.Metadata.
const familyBytes = 64

func newFamily(name string, metricType uint8, help, unit string) arrival.Metadata {
	return arrival.Metadata{
		Family:   strings.Clone(name),
		Metadata: metadata.Metadata{Type: metricTypes[metricType], Help: strings.Clone(help), Unit: strings.Clone(unit)},
	}
}

// family2 is what a series of 2.0 says of its metric family, as symbols.
type family2 struct {
	name, help, unit uint32
	metricType       uint8
	native           bool
}

// metadata2 decodes a Metadata message of 2.0 into the series.
func (s *series) metadata2(b []byte) error {
	var x uint64
	for i := 0; i < len(b); {
		tag, j := uint64(b[i]), i+1
		if tag >= 0x80 || tag < 8 {
			if tag, j = tagAt(b, i); j < 0 {
				return errMalformed
			}
		}
		switch tag >> 3 {
		case 1:
			x, i = uint64At(b, j, tag)
			s.family.metricType = metricType(x)
		case 3:
			x, i = uint64At(b, j, tag)
			s.family.help = uint32(x)
		case 4:
			x, i = uint64At(b, j, tag)
			s.family.unit = uint32(x)
		default:
			i = skip(b, j, tag)
		}
		if i < 0 {
			return errMalformed
		}
	}
	s.hasMetadata = s.family.metricType != 0 || s.family.help != 0 || s.family.unit != 0
	return nil
}

// familySymbols checks the symbols of the series' metadata and finds that of its
// metric name.
func (q *request) familySymbols(s *series) error {
	f, t := &s.family, &q.table
	n := uint32(len(t.symbols))
	if f.help >= n || f.unit >= n {
		return fmt.Errorf("%w: metadata", errSymbolRange)
	}
	f.name, f.native = noSymbol, s.native
	for k := 0; k+1 < len(t.refs); k += 2 {
		ref := t.refs[k]
		if ref == t.metricName || string(q.symbolText(ref)) == string(metricNameLabel) {
			f.name = t.refs[k+1]
			break
		}
	}
	s.hasMetadata = f.name != noSymbol
	q.anyMetadata = q.anyMetadata || s.hasMetadata
	return nil
}

// metadataOnly handles a series of 2.0 of which there is nothing else to store: it
// adds its metadata and creates no series.
func (q *request) metadataOnly(s *series) error {
	if err := q.parseLabels2(s); err != nil {
		return err
	}
	if _, err := q.sets.Series(); err != nil {
		q.report.add(arrival.ReasonInvalidLabels, 1, err)
		return nil
	}
	if !s.hasMetadata {
		if !s.native {
			q.report.add(arrival.ReasonInvalidSeries, 1, errEmptySeries)
		}
		return nil
	}
	return q.family(&s.family)
}

// addFamilies adds the metadata of the rows that will be written, each family once.
func (q *request) addFamilies() error {
	if !q.anyMetadata {
		return nil
	}
	q.families.mu.RLock()
	for i := range q.series {
		s := &q.series[i]
		if !s.hasMetadata || q.batch.Rows[i].Ref == 0 || q.filter.seen(&s.family) {
			continue
		}
		if m, ok := q.families.known[q.familyKey(&s.family)]; ok {
			q.batch.Metadata = append(q.batch.Metadata, m)
		} else {
			q.newFamilies = append(q.newFamilies, s.family)
		}
	}
	q.families.mu.RUnlock()
	for i := range q.newFamilies {
		if err := q.family(&q.newFamilies[i]); err != nil {
			return err
		}
	}
	return nil
}

// familyKey is the hash of what a series says of its family.
func (q *request) familyKey(f *family2) arrival.Key {
	symbols := q.table.symbols
	var b [3*16 + 2]byte
	for i, ref := range [...]uint32{f.name, f.help, f.unit} {
		binary.LittleEndian.PutUint64(b[16*i:], symbols[ref].key.Hi)
		binary.LittleEndian.PutUint64(b[16*i+8:], symbols[ref].key.Lo)
	}
	b[48] = f.metricType
	if f.native {
		b[49] = 1
	}
	return q.seeds.family.Hash(b[:])
}

// family adds metadata by symbols and remembers its strings.
func (q *request) family(f *family2) error {
	name := text(q.symbolText(f.name))
	if !f.native {
		name = familyName(name, metricTypes[f.metricType])
	}
	before := len(q.batch.Metadata)
	if err := q.addFamily(name, f.metricType, text(q.symbolText(f.help)), text(q.symbolText(f.unit))); err != nil {
		return err
	}
	if len(q.batch.Metadata) > before {
		q.families.put(q.familyKey(f), q.batch.Metadata[before])
	}
	return nil
}

// familyName is the family of a series' metric: classic histograms and summaries are
// several metrics each. 2.0 names the metric only.
func familyName(metric string, t model.MetricType) string {
	var suffixes []string
	switch t {
	case model.MetricTypeHistogram:
		suffixes = []string{"_bucket", "_count", "_sum"}
	case model.MetricTypeGaugeHistogram:
		suffixes = []string{"_bucket", "_gcount", "_gsum"}
	case model.MetricTypeSummary:
		suffixes = []string{"_count", "_sum"}
	}
	for _, suffix := range suffixes {
		if name, ok := strings.CutSuffix(metric, suffix); ok && name != "" {
			return name
		}
	}
	return metric
}

// familyFilter knows most of the families that a request named already. It may
// forget one, which then is added twice, but takes none for another.
type familyFilter struct {
	used  bool
	slots [512]family2 // the zero slot: names symbol 0, which is no metric's name
}

func (f *familyFilter) reset() {
	if f.used {
		clear(f.slots[:])
		f.used = false
	}
}

func (f *familyFilter) seen(m *family2) bool {
	f.used = true
	slot := &f.slots[(m.name*0x9e3779b1)>>23]
	if *slot == *m {
		return true
	}
	*slot = *m
	return false
}

// familyCacheBytes bounds the texts in a familyCache; a large installation has some
// ten thousand families of about 150 bytes.
const familyCacheBytes = 16 << 20

// familyCache holds metadata by the hash of what 2.0 senders repeat with every
// sample, so that its strings are not made anew. When full it starts over.
type familyCache struct {
	mu    sync.RWMutex // guards the fields below
	known map[arrival.Key]arrival.Metadata
	bytes int
}

func (c *familyCache) put(key arrival.Key, m arrival.Metadata) {
	bytes := 2*familyBytes + len(m.Family) + len(m.Help) + len(m.Unit)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil || c.bytes+bytes > familyCacheBytes {
		c.known, c.bytes = make(map[arrival.Key]arrival.Metadata), 0
	}
	c.known[key] = m
	c.bytes += bytes
}
