package otlp

import (
	"encoding/binary"
	"math"

	"github.com/prometheus/prometheus/model/value"

	"varve/arrival"
)

// A walk reads a request in protobuf without decoding it: it names each series by a hash of the bytes that decide its
// labels, and takes times and values from where they lie. Where all series are known by such keys, the samples are
// written as they are and nothing else is done: no structure is made, no label built, no memory taken for a sample.
//
// It knows what steady traffic is made of: gauges, cumulative sums and cumulative histograms with explicit bounds,
// without exemplars, each field once and in its usual form. At anything else it gives up, and the request takes the
// long way, by upstream's converter. So it does when a key is unknown; what the converter made is then remembered
// under the keys (learn), if everything of the request was taken. What a key stands for was vetted that way, with:
//
//   - the bytes of the resource and of the scope, which decide the labels of all their series, and are valid;
//   - the metric's name, unit and kind, and the bytes of the data point's attributes;
//   - for a histogram which of its series it is, and the bucket's bound.
//
// What does not go into a key is checked here each time: that a data point has a possible time and a value, and has no more
// buckets than it may.
type walk struct {
	h     *Handler
	batch arrival.Batch
	// resources are those of the request, in order, metrics those that have data points.
	resources []walkedResource
	metrics   []walkedMetric
	points    int
	families  map[string]struct{}
	keyed     []byte
	// scopeKey is of the scope that is walked, and its resource.
	scopeKey arrival.Key

	pairing
}

type walkedResource struct {
	key arrival.Key
	// first and last are the times of its data points in Unix nanoseconds.
	first, last uint64
	// metrics is the number of metrics up to its last one.
	metrics int
}

type walkedMetric struct {
	// key is of what its metadata is made of.
	key arrival.Key
	// row is that of its first sample.
	row int
}

// What a hash is of, so that none is taken for another.
const (
	keyResource byte = iota
	keyScope
	keyMetric
	keyMetadata
	keyTargetInfo
	keySum
	keyCount
	keyBucket
	keyLastBucket
)

// request walks a whole body. It returns false where it gives up.
func (w *walk) request(body []byte) bool {
	for r := (fields{b: body}); ; {
		if !r.next() {
			return r.ok()
		}
		if r.tag != bytesTag(1) || !w.resourceMetrics(r.bytes) || len(w.batch.Rows) > samplesMax {
			return false
		}
	}
}

// once notes that a field came, and returns false if it came before.
func once(seen *uint32, tag byte) bool {
	bit := uint32(1) << (tag >> 3)
	was := *seen & bit
	*seen |= bit
	return was == 0
}

func (w *walk) resourceMetrics(b []byte) bool {
	var resource []byte
	seen := uint32(0)
	r := fields{b: b}
	for r.next() {
		switch r.tag {
		case bytesTag(1):
			if !once(&seen, r.tag) {
				return false
			}
			resource = r.bytes
		case bytesTag(2), bytesTag(3):
		default:
			return false
		}
	}
	if !r.ok() {
		return false
	}
	w.resources = append(w.resources, walkedResource{key: w.hash(keyResource, resource), first: math.MaxUint64})
	for r = (fields{b: b}); r.next(); {
		if r.tag == bytesTag(2) && !w.scopeMetrics(r.bytes) {
			return false
		}
	}
	at := &w.resources[len(w.resources)-1]
	at.metrics = len(w.metrics)
	// A resource without data points is vetted the long way.
	return at.last > 0
}

func (w *walk) scopeMetrics(b []byte) bool {
	var scope, schema []byte
	seen := uint32(0)
	r := fields{b: b}
	for r.next() {
		switch r.tag {
		case bytesTag(1):
			scope = r.bytes
		case bytesTag(3):
			schema = r.bytes
		case bytesTag(2):
			continue
		default:
			return false
		}
		if !once(&seen, r.tag) {
			return false
		}
	}
	if !r.ok() {
		return false
	}
	k := w.begin(keyScope, &w.resources[len(w.resources)-1].key)
	k = append(binary.AppendUvarint(k, uint64(len(schema))), schema...)
	w.scopeKey = w.sealed(append(k, scope...))
	points := w.points
	for r = (fields{b: b}); r.next(); {
		if r.tag == bytesTag(2) && !w.metric(r.bytes) {
			return false
		}
	}
	return w.points > points
}

func (w *walk) metric(b []byte) bool {
	var name, description, unit, data []byte
	kind := byte(0)
	seen := uint32(0)
	r := fields{b: b}
	for r.next() {
		switch r.tag {
		case bytesTag(1):
			name = r.bytes
		case bytesTag(2):
			description = r.bytes
		case bytesTag(3):
			unit = r.bytes
		case bytesTag(5), bytesTag(7), bytesTag(9):
			if kind != 0 {
				return false
			}
			kind, data = r.tag, r.bytes
		default:
			return false
		}
		if !once(&seen, r.tag) {
			return false
		}
	}
	if !r.ok() || kind == 0 || kind == bytesTag(9) && w.h.settings.ConvertHistogramsToNHCB {
		return false
	}
	monotonic, ok := w.data(kind, data)
	if !ok {
		return false
	}
	k := append(w.begin(keyMetric, &w.scopeKey), kind, monotonic)
	k = append(binary.AppendUvarint(k, uint64(len(name))), name...)
	key := w.sealed(append(k, unit...))
	k = append(w.begin(keyMetadata, nil), kind, monotonic)
	k = append(binary.AppendUvarint(k, uint64(len(name))), name...)
	k = append(binary.AppendUvarint(k, uint64(len(unit))), unit...)
	m := walkedMetric{key: w.sealed(append(k, description...)), row: len(w.batch.Rows)}

	at := &w.resources[len(w.resources)-1]
	for r = (fields{b: data}); r.next(); {
		if r.tag != bytesTag(1) {
			continue
		}
		if kind == bytesTag(9) {
			ok = w.histogram(r.bytes, &key, at)
		} else {
			ok = w.number(r.bytes, &key, at)
		}
		if !ok || len(w.batch.Rows) > samplesMax {
			return false
		}
	}
	if len(w.batch.Rows) == m.row {
		return false
	}
	w.metrics = append(w.metrics, m)
	return true
}

// cumulative is AGGREGATION_TEMPORALITY_CUMULATIVE.
const cumulative = 2

// data reads what a gauge, sum or histogram has beside its data points. It returns false unless they are cumulative.
func (w *walk) data(kind byte, b []byte) (monotonic byte, ok bool) {
	seen := uint32(0)
	temporality := uint64(cumulative)
	if kind != bytesTag(5) {
		temporality = 0
	}
	r := fields{b: b}
	for r.next() {
		switch {
		case r.tag == bytesTag(1):
			continue
		case r.tag == varintTag(2) && kind != bytesTag(5):
			temporality = r.number
		case r.tag == varintTag(3) && kind == bytesTag(7) && r.number <= 1:
			monotonic = byte(r.number)
		default:
			return 0, false
		}
		if !once(&seen, r.tag) {
			return 0, false
		}
	}
	return monotonic, r.ok() && temporality == cumulative
}

// point is what number data points and those of histograms have in common.
type point struct {
	start, at uint64
	// from and to are where the attributes lie.
	from, to int
	stale    bool
}

// sound says whether a point has the times that it needs.
func (p *point) sound() bool { return p.at > 0 && p.at <= math.MaxInt64 && p.start <= math.MaxInt64 }

// attribute takes a field that was read to the attributes, which have to follow one another.
func (p *point) attribute(r *fields) bool {
	if p.to == 0 {
		p.from = r.from
	} else if p.to != r.from {
		return false
	}
	p.to = r.all - len(r.b)
	return true
}

// noRecordedValue is DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK.
const noRecordedValue = 1

func (w *walk) number(b []byte, metric *arrival.Key, at *walkedResource) bool {
	var p point
	bits := uint64(0)
	valued := false
	seen := uint32(0)
	r := fields{b: b, all: len(b)}
	for r.next() {
		switch r.tag {
		case bytesTag(7):
			if !p.attribute(&r) {
				return false
			}
			continue
		case fixedTag(2):
			p.start = r.number
		case fixedTag(3):
			p.at = r.number
		case fixedTag(4):
			if valued {
				return false
			}
			bits, valued = r.number, true
		case fixedTag(6):
			if valued {
				return false
			}
			bits, valued = math.Float64bits(float64(int64(r.number))), true
		case varintTag(8):
			if r.number > noRecordedValue {
				return false
			}
			p.stale = r.number != 0
		default:
			return false
		}
		if !once(&seen, r.tag) {
			return false
		}
	}
	if !r.ok() || !p.sound() || !valued && !p.stale {
		return false
	}
	if p.stale {
		bits = value.StaleNaN
	}
	w.point(&p, at)
	w.add(w.sealed(append(w.prefixed(metric), b[p.from:p.to]...)), &p, bits)
	return true
}

func (w *walk) histogram(b []byte, metric *arrival.Key, at *walkedResource) bool {
	var p point
	var counts, bounds []byte
	count, sum := uint64(0), uint64(0)
	summed := false
	seen := uint32(0)
	r := fields{b: b, all: len(b)}
	for r.next() {
		switch r.tag {
		case bytesTag(9):
			if !p.attribute(&r) {
				return false
			}
			continue
		case fixedTag(2):
			p.start = r.number
		case fixedTag(3):
			p.at = r.number
		case fixedTag(4):
			count = r.number
		case fixedTag(5):
			sum, summed = r.number, true
		case bytesTag(6):
			counts = r.bytes
		case bytesTag(7):
			bounds = r.bytes
		case varintTag(10):
			if r.number > noRecordedValue {
				return false
			}
			p.stale = r.number != 0
		case fixedTag(11), fixedTag(12):
		default:
			return false
		}
		if !once(&seen, r.tag) {
			return false
		}
	}
	if !r.ok() || !p.sound() || len(counts)%8 != 0 || len(bounds)%8 != 0 || max(len(counts), len(bounds)) > 8*w.h.limits.BucketsMax {
		return false
	}
	w.point(&p, at)
	bits := func(v uint64) uint64 {
		if p.stale {
			return value.StaleNaN
		}
		return v
	}
	key := w.sealed(append(w.prefixed(metric), b[p.from:p.to]...))
	if summed {
		w.add(w.sealed(w.begin(keySum, &key)), &p, bits(sum))
	}
	total := bits(math.Float64bits(float64(count)))
	w.add(w.sealed(w.begin(keyCount, &key)), &p, total)
	below := uint64(0)
	for i := 0; i < min(len(counts), len(bounds)); i += 8 {
		below += binary.LittleEndian.Uint64(counts[i:])
		w.add(w.sealed(append(w.begin(keyBucket, &key), bounds[i:i+8]...)), &p, bits(math.Float64bits(float64(below))))
	}
	w.add(w.sealed(w.begin(keyLastBucket, &key)), &p, total)
	return true
}

// point counts a data point.
func (w *walk) point(p *point, at *walkedResource) {
	w.points++
	at.first, at.last = min(at.first, p.at), max(at.last, p.at)
}

func (w *walk) add(key arrival.Key, p *point, bits uint64) {
	w.addSample(key, int64(p.start)/1_000_000, int64(p.at)/1_000_000, bits)
}

func (w *walk) addSample(key arrival.Key, start, at int64, bits uint64) {
	b := &w.batch
	b.Rows = append(b.Rows, arrival.Row{Key: key, First: uint32(len(b.Times)), Count: 1})
	if start != 0 || len(b.Starts) > 0 {
		for len(b.Starts) < len(b.Times) {
			b.Starts = append(b.Starts, 0)
		}
		b.Starts = append(b.Starts, start)
	}
	b.Times = append(b.Times, at)
	b.Values = append(b.Values, bits)
}

// prefixed begins what a key is hashed of with the key of what it is part of.
func (w *walk) prefixed(of *arrival.Key) []byte {
	k := binary.LittleEndian.AppendUint64(w.keyed[:0], of.Hi)
	return binary.LittleEndian.AppendUint64(k, of.Lo)
}

// begin is prefixed with what the key is of.
func (w *walk) begin(what byte, of *arrival.Key) []byte {
	if of == nil {
		return append(w.keyed[:0], what)
	}
	return append(w.prefixed(of), what)
}

// sealed returns the key of what was begun.
func (w *walk) sealed(k []byte) arrival.Key {
	w.keyed = k
	return w.h.seed.Hash(k)
}

func (w *walk) hash(what byte, b []byte) arrival.Key {
	return w.sealed(append(w.begin(what, nil), b...))
}
