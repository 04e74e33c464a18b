package remotewrite

import (
	"cmp"
	"encoding/binary"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/common/model"

	"varve/arrival"
)

// bucketFinder finds in a request of 1.0 the histograms of OpenTelemetry's Python exporter, which
// PromQL can't read as they are:
//
//   - Each bucket is a series of the histogram's own name, without _bucket.
//   - It counts what is in it alone, not what lies below.
//   - The bound 0.0 is no truth in Python, so the bucket up to it, the first of the default
//     ones, has no le at all.
//   - name_sum and name_count are as they should be.
//
// A group is a name, the other labels and a time. It is turned into name_bucket series, which
// count all below their bound and end with +Inf, if all of this is so: it has buckets with le; each bound
// once; a sum and a count; and what the buckets count together is the count. All else stays as it
// was sent, among it whatever has _bucket in its name already.
//
// The work is one walk over the body that keeps the buckets, one that looks for what belongs to them,
// and one that writes the body anew, so that all behind it sees a usual request. Without a bucket
// the first walk is the only one.
type bucketFinder struct {
	groups map[bucketGroup]int32 // places in found
	found  []otelHistogram
	// buckets are those of all groups, each the message of a series.
	buckets []otelBucket
	own     []otelBucket // of the group that is being looked at
	order   []int32      // places of the buckets that are turned, as they lie in the body
}

// bucketGroup names a group: the sum of the hashes of its labels, and its time.
type bucketGroup struct {
	labels arrival.Key
	millis int64
}

type otelHistogram struct {
	millis     int64
	last       int32 // the last of its buckets, -1 for none
	bare       int32 // the one without le, -1 for none
	sum, count bool
	total      float64
	turned     bool
	spoilt     bool
}

type otelBucket struct {
	// from and to delimit the field of the series in the body, with its tag; message is where its content begins.
	from, message, to uint32
	group, previous   int32
	hasLe             bool
	bound, value      float64
}

// otelBucketBytes is what a bucket takes in memory, with its share of a group.
const otelBucketBytes = 48 + 64

func (f *bucketFinder) reset() {
	clear(f.groups)
	f.found, f.buckets = f.found[:0], f.buckets[:0]
}

// otelSeries is what a series message says, as far as it matters here.
type otelSeries struct {
	name, le string // share the memory of the body
	hasLe    bool
	rest     arrival.Key // of the labels but name and le
	sample   sample
	// usual: labels and one sample, nothing else.
	usual bool
}

// turnHistograms replaces the body by one with classic histograms, where it has any of the exporter's.
// A malformed body is left for the walk to judge.
func (q *request) turnHistograms() error {
	f := &q.buckets
	f.reset()
	if f.groups == nil {
		f.groups = make(map[bucketGroup]int32)
	}
	if ok, err := q.eachSeries(q.findBucket); err != nil || !ok || len(f.buckets) == 0 {
		return err
	}
	if ok, err := q.eachSeries(q.findTotals); err != nil || !ok {
		return err
	}
	extra := 0
	for i := range f.found {
		extra += f.judge(i, len(bucketSuffix)+len(infinity))
	}
	if extra == 0 {
		return nil
	}
	if err := q.hold(int64(len(q.body) + extra)); err != nil {
		return err
	}
	q.writeTurned(extra)
	q.body, q.turned = q.turned, q.body
	return nil
}

const (
	bucketSuffix = "_bucket"
	infinity     = "+Inf"
	// zeroBound is how the exporter writes a bound of zero elsewhere, and Prometheus too.
	zeroBound = "0.0"
)

// eachSeries calls f for each series message of the body with the place of its field. It is false if the
// body is malformed.
func (q *request) eachSeries(f func(s *otelSeries, from, message, to uint32) error) (ok bool, err error) {
	b := q.body
	for i := 0; i < len(b); {
		tag, j := tagAt(b, i)
		if j < 0 {
			return false, nil
		}
		if tag != 1<<3|wireBytes {
			if i = skip(b, j, tag); i < 0 {
				return false, nil
			}
			continue
		}
		start, end := bytesAt(b, j)
		if start < 0 {
			return false, nil
		}
		var s otelSeries
		if !q.otelSeries(b[start:end:end], &s) {
			return false, nil
		}
		if s.usual {
			if err := f(&s, uint32(i), uint32(start), uint32(end)); err != nil {
				return false, err
			}
		}
		i = end
	}
	return true, nil
}

// otelSeries reads a series message. It is false if that is malformed.
func (q *request) otelSeries(b []byte, s *otelSeries) bool {
	samples := 0
	s.usual = true
	for i := 0; i < len(b); {
		tag, j := tagAt(b, i)
		if j < 0 {
			return false
		}
		if field := tag >> 3; field != 1 && field != 2 {
			s.usual = s.usual && field > 4
			if i = skip(b, j, tag); i < 0 {
				return false
			}
			continue
		}
		var message []byte
		if message, i = messageAt(b, j, tag); i < 0 {
			return false
		}
		if tag>>3 == 2 {
			samples++
			var ok bool
			if s.sample, ok = decodeSample(message, false); !ok {
				return false
			}
			continue
		}
		name, value, ok := labelAt(message)
		if !ok {
			return false
		}
		switch name {
		case model.MetricNameLabel:
			s.usual = s.usual && s.name == ""
			s.name = value
		case model.BucketLabel:
			s.usual = s.usual && !s.hasLe
			s.le, s.hasLe = value, true
		default:
			// A sum, since the order of labels doesn't matter.
			h := q.seeds.symbol.Hash(message)
			s.rest.Hi, s.rest.Lo = s.rest.Hi+h.Hi, s.rest.Lo+h.Lo
		}
	}
	s.usual = s.usual && samples == 1 && s.name != ""
	return true
}

// labelAt reads a Label message.
func labelAt(b []byte) (name, value string, ok bool) {
	for i := 0; i < len(b); {
		tag, j := tagAt(b, i)
		if j < 0 {
			return "", "", false
		}
		var m []byte
		switch tag >> 3 {
		case 1:
			m, i = messageAt(b, j, tag)
			name = text(m)
		case 2:
			m, i = messageAt(b, j, tag)
			value = text(m)
		default:
			i = skip(b, j, tag)
		}
		if i < 0 {
			return "", "", false
		}
	}
	return name, value, true
}

// groupOf names the group of a histogram's name that the series belongs to.
func (q *request) groupOf(name string, s *otelSeries) bucketGroup {
	h := q.seeds.family.Hash([]byte(name))
	return bucketGroup{labels: arrival.Key{Hi: h.Hi + s.rest.Hi, Lo: h.Lo + s.rest.Lo}, millis: s.sample.timeMillis}
}

// findBucket keeps a series with le.
func (q *request) findBucket(s *otelSeries, from, message, to uint32) error {
	if !s.hasLe || strings.HasSuffix(s.name, bucketSuffix) {
		return nil
	}
	bound, err := strconv.ParseFloat(s.le, 64)
	if err != nil || math.IsNaN(bound) {
		return nil
	}
	if err := q.charge(otelBucketBytes); err != nil {
		return err
	}
	f := &q.buckets
	key := q.groupOf(s.name, s)
	at, ok := f.groups[key]
	if !ok {
		at = int32(len(f.found))
		f.groups[key] = at
		f.found = append(f.found, otelHistogram{millis: key.millis, last: -1, bare: -1})
	}
	f.found[at].last = f.add(otelBucket{from: from, message: message, to: to, group: at, previous: f.found[at].last, hasLe: true, bound: bound, value: math.Float64frombits(s.sample.bits)})
	return nil
}

func (f *bucketFinder) add(b otelBucket) int32 {
	f.buckets = append(f.buckets, b)
	return int32(len(f.buckets) - 1)
}

// findTotals looks at a series without le: it may be the bucket up to zero, the sum or the count of
// a group.
func (q *request) findTotals(s *otelSeries, from, message, to uint32) error {
	if s.hasLe {
		return nil
	}
	f := &q.buckets
	if at, ok := f.groups[q.groupOf(s.name, s)]; ok {
		h := &f.found[at]
		h.spoilt = h.spoilt || h.bare >= 0
		if err := q.charge(otelBucketBytes); err != nil {
			return err
		}
		h.bare = f.add(otelBucket{from: from, message: message, to: to, group: at, previous: -1, value: math.Float64frombits(s.sample.bits)})
		return nil
	}
	if name, ok := strings.CutSuffix(s.name, "_sum"); ok {
		if at, ok := f.groups[q.groupOf(name, s)]; ok {
			f.found[at].spoilt = f.found[at].spoilt || f.found[at].sum
			f.found[at].sum = true
		}
	}
	if name, ok := strings.CutSuffix(s.name, "_count"); ok {
		if at, ok := f.groups[q.groupOf(name, s)]; ok {
			h := &f.found[at]
			h.spoilt = h.spoilt || h.count
			h.count, h.total = true, math.Float64frombits(s.sample.bits)
		}
	}
	return nil
}

// judge decides whether a group is turned, and sorts its buckets. It returns how many bytes more than now it
// then takes at most, where each bucket has more bytes more.
func (f *bucketFinder) judge(group, more int) (extra int) {
	h := &f.found[group]
	if h.spoilt || !h.sum || !h.count {
		return 0
	}
	own := f.of(h)
	counted, widest := 0.0, 0
	for i, b := range own {
		if i > 0 && own[i-1].bound == b.bound {
			return 0
		}
		counted += b.value
		widest = max(widest, int(b.to-b.from))
	}
	if h.bare >= 0 {
		bare := &f.buckets[h.bare]
		hasZero := slices.ContainsFunc(own, func(b otelBucket) bool { return b.bound == 0 })
		if !hasZero && counted+bare.value == h.total {
			counted += bare.value
			widest = max(widest, int(bare.to-bare.from))
		} else {
			h.bare = -1 // A series that has the same name.
		}
	}
	if counted != h.total {
		return 0
	}
	h.turned = true
	// Lengths take some bytes more as well, and +Inf may be missing.
	const lengths = 32
	return (len(own)+2)*(more+lengths) + widest
}

// of returns the buckets of a histogram with le, by bound. It is valid until the next call.
func (f *bucketFinder) of(h *otelHistogram) []otelBucket {
	f.own = f.own[:0]
	for i := h.last; i >= 0; i = f.buckets[i].previous {
		f.own = append(f.own, f.buckets[i])
	}
	slices.SortFunc(f.own, func(x, y otelBucket) int { return cmp.Compare(x.bound, y.bound) })
	return f.own
}

// writeTurned fills q.turned: all that isn't turned as it is, then the histograms that are.
func (q *request) writeTurned(extra int) {
	f := &q.buckets
	if cap(q.turned) < len(q.body)+extra {
		q.turned = make([]byte, 0, len(q.body)+extra)
	}
	dst := q.turned[:0]
	f.order = f.order[:0]
	for i := range f.buckets {
		h := &f.found[f.buckets[i].group]
		if h.turned && (f.buckets[i].hasLe || h.bare == int32(i)) {
			f.order = append(f.order, int32(i))
		}
	}
	slices.SortFunc(f.order, func(x, y int32) int { return cmp.Compare(f.buckets[x].from, f.buckets[y].from) })
	kept := uint32(0)
	for _, i := range f.order {
		dst = append(dst, q.body[kept:f.buckets[i].from]...)
		kept = f.buckets[i].to
	}
	dst = append(dst, q.body[kept:]...)
	for i := range f.found {
		if f.found[i].turned {
			dst = q.appendTurned(dst, &f.found[i])
		}
	}
	q.turned = dst
}

// appendTurned appends the buckets of a histogram as Prometheus has them.
func (q *request) appendTurned(dst []byte, h *otelHistogram) []byte {
	f := &q.buckets
	own := f.of(h)
	if h.bare >= 0 {
		bare := f.buckets[h.bare]
		at, _ := slices.BinarySearchFunc(own, 0.0, func(b otelBucket, zero float64) int { return cmp.Compare(b.bound, zero) })
		own = slices.Insert(own, at, bare)
		f.own = own
	}
	counted := 0.0
	for i := range own {
		counted += own[i].value
		dst = q.appendBucket(dst, &own[i], "", h.millis, counted)
	}
	if last := &own[len(own)-1]; !math.IsInf(last.bound, 1) {
		dst = q.appendBucket(dst, last, infinity, h.millis, h.total)
	}
	return dst
}

// appendBucket appends a series with the labels of a bucket and one sample. le is that of the bucket, if it is
// empty.
func (q *request) appendBucket(dst []byte, b *otelBucket, le string, millis int64, v float64) []byte {
	series := q.series1Bytes[:0]
	m := q.body[b.message:b.to:b.to]
	if le == "" && !b.hasLe {
		le = zeroBound
	}
	// The message was walked before.
	for i := 0; i < len(m); {
		tag, j := tagAt(m, i)
		var label []byte
		if tag>>3 != 1 {
			i = skip(m, j, tag)
			continue
		}
		label, i = messageAt(m, j, tag)
		name, value, _ := labelAt(label)
		switch name {
		case model.MetricNameLabel:
			series = arrival.AppendLabel(series, name, value+bucketSuffix)
		case model.BucketLabel:
			if le == "" {
				le = value
			}
		default:
			series = arrival.AppendLabel(series, name, value)
		}
	}
	series = arrival.AppendLabel(series, model.BucketLabel, le)
	var s [3 + 8 + 1 + binary.MaxVarintLen64]byte
	at := append(s[:0], 2<<3|wireBytes, 0, 1<<3|wireFixed8)
	at = binary.LittleEndian.AppendUint64(at, math.Float64bits(v))
	at = binary.AppendUvarint(append(at, 2<<3|wireVarint), uint64(millis))
	at[1] = byte(len(at) - 2)
	series = append(series, at...)
	q.series1Bytes = series
	dst = binary.AppendUvarint(append(dst, 1<<3|wireBytes), uint64(len(series)))
	return append(dst, series...)
}
