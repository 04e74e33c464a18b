package writerequest

import (
	"hash/maphash"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"

	"varve/forward"
)

// Fields of io.prometheus.write.v2.Request and of the messages within, as its types.proto has them.
const (
	requestSymbols2    = 4
	requestTimeseries2 = 5

	seriesLabels2     = 1
	seriesSamples2    = 2
	seriesHistograms2 = 3
	seriesExemplars2  = 4
	seriesMetadata2   = 5

	metadataType = 1
	metadataHelp = 3
	metadataUnit = 4
)

// Request is an io.prometheus.write.v2.Request in the making. The zero value is empty and ready; after Reset it is empty again and has
// its memory. It keeps the strings of what it was given until then. One goroutine at a time.
type Request struct {
	symbols symbols
	series  []byte
	// Written are counted as the peer counts them in its answer.
	samples, histograms, exemplars int
}

// Reset empties the request.
func (r *Request) Reset() {
	r.symbols.reset()
	r.series = r.series[:0]
	r.samples, r.histograms, r.exemplars = 0, 0, 0
}

// Counts are the floats, histograms and exemplars in the request.
func (r *Request) Counts() (floats, histograms, exemplars int) {
	return r.samples, r.histograms, r.exemplars
}

// Add adds a series, as two if it has floats and histograms, since 2.0 wants one kind in a series; the exemplars go with the first. hashes is
// what AppendHashes made of its labels; they are hashed anew if it is empty. A series of which nothing is left (Parts.Empty) must
// not be given.
func (r *Request) Add(s *forward.Series, hashes []uint32, parts Parts) {
	bare := *s
	if !parts.Exemplars {
		bare.Exemplars = nil
	}
	if !parts.Histograms {
		bare.Histograms = nil
	}
	if !parts.Metadata {
		bare.Metadata = metadata.Metadata{}
	}
	if len(bare.Floats) > 0 && len(bare.Histograms) > 0 {
		floats := bare
		floats.Histograms = nil
		r.add(&floats, hashes)
		bare.Floats, bare.Exemplars = nil, nil
	}
	r.add(&bare, hashes)
}

func (r *Request) add(s *forward.Series, hashes []uint32) {
	dst := append(r.series, tag(requestTimeseries2, bytesType))
	dst, series := begin(dst, seriesGuess(s, 2+3*len(hashes)+16))
	dst = r.appendRefs(dst, seriesLabels2, s.Labels, hashes)
	for i := range s.Floats {
		dst = appendSample(dst, seriesSamples2, &s.Floats[i], true)
	}
	for i := range s.Histograms {
		dst = appendHistogram(dst, seriesHistograms2, &s.Histograms[i], true)
	}
	for i := range s.Exemplars {
		dst = r.appendExemplar(dst, &s.Exemplars[i])
	}
	dst = r.appendMetadata(dst, &s.Metadata)
	r.series = series.end(dst)
	r.samples += len(s.Floats)
	r.histograms += len(s.Histograms)
	r.exemplars += len(s.Exemplars)
}

// Append appends the message. The symbols come first, so that it can be decoded in one pass.
func (r *Request) Append(dst []byte) []byte {
	dst = append(dst, tag(requestSymbols2, bytesType), 0) // the empty string is the first symbol
	dst = append(dst, r.symbols.encoded...)
	return append(dst, r.series...)
}

// appendRefs appends labels as references to symbols.
func (r *Request) appendRefs(dst []byte, field int, ls labels.Labels, hashes []uint32) []byte {
	dst = append(dst, tag(field, bytesType))
	dst, refs := begin(dst, 3*len(hashes))
	i := 0
	hashed := len(hashes) > 0
	ls.Range(func(l labels.Label) {
		var name, value uint32
		if hashed {
			name, value = hashes[i], hashes[i+1]
			i += 2
		} else {
			name, value = hashOf(l.Name), hashOf(l.Value)
		}
		dst = appendVarint(dst, uint64(r.symbols.ref(l.Name, name)))
		dst = appendVarint(dst, uint64(r.symbols.ref(l.Value, value)))
	})
	return refs.end(dst)
}

func (r *Request) appendExemplar(dst []byte, e *exemplar.Exemplar) []byte {
	dst = append(dst, tag(seriesExemplars2, bytesType))
	dst, message := begin(dst, exemplarGuess)
	if !e.Labels.IsEmpty() {
		dst = r.appendRefs(dst, exemplarLabels, e.Labels, nil)
	}
	return message.end(appendExemplarValue(dst, e))
}

func (r *Request) appendMetadata(dst []byte, m *metadata.Metadata) []byte {
	kind := metricType(m.Type)
	if kind == 0 && m.Help == "" && m.Unit == "" {
		return dst
	}
	// A type and two varints of 32 bits with their tags: at most 14 bytes.
	dst = append(dst, tag(seriesMetadata2, bytesType), 0)
	at := len(dst)
	dst = appendNonZero(dst, metadataType, kind)
	dst = appendNonZero(dst, metadataHelp, uint64(r.symbols.ref(m.Help, hashOf(m.Help))))
	dst = appendNonZero(dst, metadataUnit, uint64(r.symbols.ref(m.Unit, hashOf(m.Unit))))
	dst[at-1] = byte(len(dst) - at)
	return dst
}

// seed is the process's own, so that nobody can choose labels whose hashes are equal.
var seed = maphash.MakeSeed()

func hashOf(s string) uint32 { return uint32(maphash.String(seed, s)) }

// AppendHashes appends the hashes of the labels' names and values, in turn. They are worth something in this process only.
func AppendHashes(dst []uint32, ls labels.Labels) []uint32 {
	ls.Range(func(l labels.Label) { dst = append(dst, hashOf(l.Name), hashOf(l.Value)) })
	return dst
}

// symbols is a table of strings, by open addressing with linear probing.
type symbols struct {
	slots   []slot // a power of two, at most three quarters of them taken
	texts   []string
	encoded []byte // as fields of the request, the empty string left out
}

// slot is a place in the table. ref is zero in an empty one.
type slot struct{ hash, ref uint32 }

// slotsMin suffices for a request of 500 series of a dozen labels of which two differ.
const slotsMin = 1 << 11

// ref returns the reference of a string: its place among the symbols, where the empty string is the first.
func (t *symbols) ref(s string, hash uint32) uint32 {
	if s == "" {
		return 0
	}
	if 4*len(t.texts) >= 3*len(t.slots) {
		t.grow()
	}
	mask := uint32(len(t.slots) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		switch at := &t.slots[i]; {
		case at.ref == 0:
			t.texts = append(t.texts, s)
			t.encoded = appendString(t.encoded, requestSymbols2, s)
			*at = slot{hash, uint32(len(t.texts))}
			return at.ref
		case at.hash == hash && t.texts[at.ref-1] == s:
			return at.ref
		}
	}
}

func (t *symbols) grow() {
	old := t.slots
	t.slots = make([]slot, max(slotsMin, 2*len(old)))
	mask := uint32(len(t.slots) - 1)
	for _, s := range old {
		if s.ref == 0 {
			continue
		}
		i := s.hash & mask
		for t.slots[i].ref != 0 {
			i = (i + 1) & mask
		}
		t.slots[i] = s
	}
}

func (t *symbols) reset() {
	clear(t.slots)
	clear(t.texts)
	t.texts, t.encoded = t.texts[:0], t.encoded[:0]
}
