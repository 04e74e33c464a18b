package format

import (
	"encoding/binary"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
)

// Series is the record of a series. Its labels are Pairs, in label order.
type Series struct {
	Metric        PairID // pair of the metric name, zero without one
	Group         GroupID
	CreatedMillis int64 // when the series was first seen, Unix ms
	Pairs         []PairID
}

const seriesVersion = 1

// Append appends the record.
func (s *Series) Append(dst []byte) []byte {
	dst = append(dst, seriesVersion)
	dst = binary.AppendUvarint(dst, uint64(s.Metric))
	dst = binary.AppendUvarint(dst, uint64(s.Group))
	dst = binary.AppendVarint(dst, s.CreatedMillis)
	dst = binary.AppendUvarint(dst, uint64(len(s.Pairs)))
	for _, p := range s.Pairs {
		dst = binary.AppendUvarint(dst, uint64(p))
	}
	return dst
}

// Parse reads a record into s and reuses the memory of s.Pairs.
func (s *Series) Parse(b []byte) error {
	if len(b) == 0 || b[0] != seriesVersion {
		return corrupt("series record of unknown version")
	}
	r := reader{b: b[1:]}
	s.Metric = PairID(r.uvarint32())
	s.Group = GroupID(r.uvarint32())
	s.CreatedMillis = r.varint()
	n := r.count(1)
	s.Pairs = s.Pairs[:0]
	for range n {
		s.Pairs = append(s.Pairs, PairID(r.uvarint32()))
	}
	return r.end("series record")
}

// AppendPair appends the text of a pair as the value of its pair key.
func AppendPair(dst []byte, name, value string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(name)))
	return append(append(dst, name...), value...)
}

// ParsePair reads what AppendPair wrote. The results alias b.
func ParsePair(b []byte) (name, value []byte, err error) {
	n, w := binary.Uvarint(b)
	if w <= 0 || n > uint64(len(b)-w) {
		return nil, nil, corrupt("label pair with a name of %d bytes in %d", n, len(b))
	}
	return b[w : w+int(n)], b[w+int(n):], nil
}

// AppendPairID appends the value of a text key.
func AppendPairID(dst []byte, id PairID) []byte {
	return binary.BigEndian.AppendUint32(dst, uint32(id))
}

// ParsePairID reads the value of a text key.
func ParsePairID(b []byte) (PairID, error) {
	if len(b) != 4 {
		return 0, corrupt("pair id of %d bytes, want 4", len(b))
	}
	return PairID(binary.BigEndian.Uint32(b)), nil
}

// Group is the record of a group: its number and the refs that are reserved for
// its next series, First up to but not including End. A start-up finds the first
// free one among them.
type Group struct {
	ID         GroupID
	First, End Ref
}

// Append appends the record.
func (g *Group) Append(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(g.ID))
	dst = binary.AppendUvarint(dst, uint64(g.First))
	return binary.AppendUvarint(dst, uint64(g.End))
}

// ParseGroup reads a group's record.
func ParseGroup(b []byte) (Group, error) {
	r := reader{b: b}
	g := Group{ID: GroupID(r.uvarint32()), First: Ref(r.uvarint()), End: Ref(r.uvarint())}
	return g, r.end("group record")
}

// AppendMetadata appends the value of a metadata key.
func AppendMetadata(dst []byte, m metadata.Metadata) []byte {
	dst = appendText(dst, string(m.Type))
	dst = appendText(dst, m.Unit)
	return appendText(dst, m.Help)
}

// ParseMetadata reads the value of a metadata key.
func ParseMetadata(b []byte) (metadata.Metadata, error) {
	r := reader{b: b}
	var m metadata.Metadata
	m.Type = metricType(r.text())
	m.Unit = r.text()
	m.Help = r.text()
	return m, r.end("metadata")
}

// AppendExemplar appends the value of an exemplar key. The timestamp is in the key.
func AppendExemplar(dst []byte, e *exemplar.Exemplar) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, floatBits(e.Value))
	dst = binary.AppendUvarint(dst, uint64(e.Labels.Len()))
	e.Labels.Range(func(l labels.Label) {
		dst = appendText(appendText(dst, l.Name), l.Value)
	})
	return dst
}

// ParseExemplar reads the value of an exemplar key. Ts is left alone.
func ParseExemplar(b []byte, e *exemplar.Exemplar) error {
	r := reader{b: b}
	e.Value = bitsFloat(r.uint64())
	n := r.count(2)
	var lb labels.ScratchBuilder
	for range n {
		name := r.text()
		lb.Add(name, r.text())
	}
	if err := r.end("exemplar"); err != nil {
		return err
	}
	lb.Sort()
	e.Labels = lb.Labels()
	return nil
}

// CheckExemplar tells whether b is the value of an exemplar key.
func CheckExemplar(b []byte) error {
	var e exemplar.Exemplar
	return ParseExemplar(b, &e)
}
