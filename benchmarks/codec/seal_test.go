package codec_test

import (
	"fmt"
	"math"
	"slices"

	"varve/archive/chunk"
	"varve/archive/format"
)

// Where the archive closes a bundle: its bundleBytesTarget and bundleChunksMax.
const (
	bundleBytes  = 8 << 10
	bundleChunks = 512
)

// targetClock names the clock of the only target.
const targetClock chunk.ClockID = 1 << 16

// sealed is a day in bundles, and the clock that all of its series share.
type sealed struct {
	clockKey, clock []byte
	bundles         []sealedBundle
	// data are the keys and values of all bundles.
	data []byte
}

// sealedBundle is where in the data the key of a bundle begins and its value ends. The ref
// of a series is its number in the day, last is the highest.
type sealedBundle struct {
	begin, end, last int
}

func (s *sealed) key(b sealedBundle) []byte   { return s.data[b.begin:][:format.RawKeySize] }
func (s *sealed) value(b sealedBundle) []byte { return s.data[b.begin+format.RawKeySize : b.end] }

// valueBytes are the bytes of all bundles without their keys.
func (s *sealed) valueBytes() int { return len(s.data) - len(s.bundles)*format.RawKeySize }

// sealer seals days. It keeps its memory for the next one.
type sealer struct {
	builder chunk.BundleBuilder
	// buckets are those of the bundle that grows.
	buckets []bucket
	out     sealed
}

// bucket is a series of a bundle that has a bound. index is its place there.
type bucket struct {
	family string
	bound  float64
	index  int
}

// seal encodes a day. What it returns is overwritten by the next call.
func (s *sealer) seal(d *day) (*sealed, error) {
	s.builder.Reset()
	s.buckets = s.buckets[:0]
	clockKey := format.ClockKey{Window: dayNumber, Group: 1}
	s.out.clockKey = clockKey.Append(s.out.clockKey[:0])
	s.out.clock = chunk.AppendClock(s.out.clock[:0], s.out.clockKey, d.clock)
	s.out.bundles, s.out.data = s.out.bundles[:0], s.out.data[:0]
	first, metric := 0, format.PairID(1)
	for i := range d.series {
		series := &d.series[i]
		isNext := i > 0 && series.metric != d.series[i-1].metric
		if isNext || s.isFull(series) {
			s.closeBundle(metric, i-1)
			first = i
		}
		if isNext {
			metric++
		}
		base := s.base(series, i-first)
		if err := s.builder.Add(uint64(i), targetClock, d.clock, base, &series.column); err != nil {
			return nil, fmt.Errorf("seal series %d, %s: %w", i, series.metric, err)
		}
	}
	s.closeBundle(metric, len(d.series)-1)
	return &s.out, nil
}

// isFull is the archive's rule: buckets of a histogram stay together.
func (s *sealer) isFull(series *series) bool {
	size := bundleBytes
	if n := len(s.buckets); n > 0 && !math.IsNaN(series.bound) && s.buckets[n-1].family == series.family {
		size *= 2
	}
	return s.builder.Size() >= size || s.builder.Len() >= bundleChunks
}

// base is the bucket of the bundle with the next lower bound, -1 if there is none.
func (s *sealer) base(series *series, index int) int {
	if math.IsNaN(series.bound) {
		return -1
	}
	best := bucket{bound: math.Inf(-1), index: -1}
	for _, b := range s.buckets {
		if b.bound < series.bound && b.bound >= best.bound && b.family == series.family {
			best = b
		}
	}
	s.buckets = append(s.buckets, bucket{series.family, series.bound, index})
	return best.index
}

func (s *sealer) closeBundle(metric format.PairID, last int) {
	if s.builder.Len() == 0 {
		return
	}
	b := sealedBundle{begin: len(s.out.data), last: last}
	key := format.RawKey{Day: dayNumber, Metric: metric, Last: format.Ref(last)}
	s.out.data = key.Append(s.out.data)
	s.out.data = s.builder.Append(s.out.data, s.out.data[b.begin:])
	b.end = len(s.out.data)
	s.out.bundles = append(s.out.bundles, b)
	s.builder.Reset()
	s.buckets = s.buckets[:0]
}

// unsealer decodes sealed days. It keeps its memory for the next one.
type unsealer struct {
	clock  clock
	bundle chunk.Bundle
	column chunk.Column
}

// clock are decoded times.
type clock []int64

// Times implements chunk.Clock.
func (c *clock) Times() ([]int64, error) { return *c, nil }

// unseal decodes all series of a day and hands each to visit, unless that is nil. The
// column is overwritten by the next.
func (u *unsealer) unseal(s *sealed, visit func(series int, c *chunk.Column)) error {
	times, err := chunk.ParseClock(s.clockKey, s.clock, u.clock[:0])
	if err != nil {
		return err
	}
	u.clock = times
	var one chunk.Sealed
	pieces := []chunk.Piece{{Samples: len(times), MinMillis: dayNumber.StartMillis(), MaxMillis: dayNumber.EndMillis() - 1, Sealed: &one}}
	for _, b := range s.bundles {
		if err := chunk.ParseBundle(s.key(b), s.value(b), uint64(b.last), &u.bundle); err != nil {
			return err
		}
		for i := range u.bundle.Len() {
			one = chunk.Sealed{Bundle: &u.bundle, Chunk: i, Clock: &u.clock}
			if err := u.column.Decode(pieces, math.MinInt64, math.MaxInt64); err != nil {
				return err
			}
			if visit != nil {
				visit(int(u.bundle.Ref(i)), &u.column)
			}
		}
	}
	return nil
}

// differs tells what of the day is not in s bit for bit; it is empty if all is.
func (d *day) differs(s *sealed) (string, error) {
	var u unsealer
	next, fault := 0, ""
	err := u.unseal(s, func(i int, c *chunk.Column) {
		switch {
		case fault != "":
		case i != next || i >= len(d.series):
			fault = fmt.Sprintf("series %d in place of %d", i, next)
		default:
			fault = d.series[i].differs(c)
		}
		next++
	})
	if fault == "" && next != len(d.series) {
		fault = fmt.Sprintf("%d of %d series", next, len(d.series))
	}
	return fault, err
}

func (s *series) differs(c *chunk.Column) string {
	sameBits := func(x, y float64) bool { return math.Float64bits(x) == math.Float64bits(y) }
	switch {
	case !slices.Equal(c.Times, s.column.Times):
		return s.metric + ": times"
	case !slices.EqualFunc(c.Values, s.column.Values, sameBits):
		return s.metric + ": values"
	case c.Starts != nil || c.Kinds != nil:
		return s.metric + ": starts or kinds"
	default:
		return ""
	}
}
