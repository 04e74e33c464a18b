package dataset

import (
	"encoding/binary"

	"varve/benchmarks/wire"
)

// Encoder makes request bodies of a dataset. Rounds of a series must be asked
// for in order; series may join later.
type Encoder struct {
	d        *Dataset
	walk     *Walk
	protocol int
	batch    int

	plain []byte
	slab  wire.Slab
	// lookup and stamp number the symbols of the current request of protocol 2:
	// a symbol is known to it if its stamp is the request's.
	lookup, stamp []uint32
	request       uint32
	table         []uint32
	scratch       []byte
}

// NewEncoder makes bodies of exactly batch samples, but for the last of a lane,
// in remote write 1.0 (protocol 1) or 2.0 (protocol 2).
func (d *Dataset) NewEncoder(protocol, batch int) *Encoder {
	return &Encoder{
		d: d, walk: d.NewWalk(), protocol: protocol, batch: batch,
		lookup: make([]uint32, len(d.symbols)), stamp: make([]uint32, len(d.symbols)),
	}
}

// Rounds encodes the samples of the series from lo to below hi in the rounds from
// first to below first+count. The series are dealt to the lanes in blocks; within a
// lane one round follows the other, and a body may begin in one and end in the
// next.
func (e *Encoder) Rounds(lanes, lo, hi, first, count int) [][]wire.Frame {
	frames := make([][]wire.Frame, lanes)
	for lane := range lanes {
		from, to := lo+(hi-lo)*lane/lanes, lo+(hi-lo)*(lane+1)/lanes
		e.begin()
		samples, round := 0, 0
		for round = first; round < first+count; round++ {
			for i := from; i < to; i++ {
				e.sample(i, round)
				if samples++; samples == e.batch {
					frames[lane] = append(frames[lane], e.finish(samples, round))
					e.begin()
					samples = 0
				}
			}
		}
		if samples > 0 {
			frames[lane] = append(frames[lane], e.finish(samples, round-1))
		}
	}
	return frames
}

// begin begins a request.
func (e *Encoder) begin() {
	e.plain = e.plain[:0]
	e.request++
	e.table = append(e.table[:0], 0)
	e.stamp[0], e.lookup[0] = e.request, 0
}

// sample adds the message of one series with one sample to the request.
func (e *Encoder) sample(i, round int) {
	value, at := e.walk.Next(i, round), e.d.Time(i, round)
	if e.protocol == 1 {
		labels := e.d.labels1[e.d.labels1At[i]:e.d.labels1At[i+1]]
		e.plain = wire.AppendSeries(e.plain, labels, value, at)
		return
	}
	e.scratch = e.scratch[:0]
	for _, symbol := range e.d.refs[e.d.refsAt[i]:e.d.refsAt[i+1]] {
		if e.stamp[symbol] != e.request {
			e.stamp[symbol], e.lookup[symbol] = e.request, uint32(len(e.table))
			e.table = append(e.table, symbol)
		}
		e.scratch = binary.AppendUvarint(e.scratch, uint64(e.lookup[symbol]))
	}
	// Metadata says the type, as every sender of 2.0 does.
	metadata := 2
	if hostTemplate[i%HostSeries].shape.kind == kindConst {
		metadata = 0
	}
	length := 1 + wire.VarintBytes(len(e.scratch)) + len(e.scratch) + 2 + wire.SampleBytes(value, at) + 2 + metadata
	e.plain = append(e.plain, 0x2a)
	e.plain = binary.AppendUvarint(e.plain, uint64(length))
	e.plain = append(e.plain, 0x0a)
	e.plain = binary.AppendUvarint(e.plain, uint64(len(e.scratch)))
	e.plain = append(e.plain, e.scratch...)
	e.plain = wire.AppendSample(e.plain, value, at)
	e.plain = append(e.plain, 0x2a, byte(metadata))
	if metadata > 0 {
		e.plain = append(e.plain, 0x08, e.metricType(i))
	}
}

// metricType is the number of remote write 2.0 for the type of a series.
func (e *Encoder) metricType(i int) byte {
	const counter, gauge, histogram = 1, 2, 3
	s := &hostTemplate[i%HostSeries].shape
	switch {
	case s.group != 0:
		return histogram
	case s.rising || s.kind == kindCounter || s.kind == kindCentis || s.kind == kindNanos:
		return counter
	default:
		return gauge
	}
}

// finish completes the request and compresses it.
func (e *Encoder) finish(samples, round int) wire.Frame {
	if e.protocol == 2 {
		e.scratch = e.scratch[:0]
		for _, symbol := range e.table {
			e.scratch = append(e.scratch, 0x22)
			e.scratch = binary.AppendUvarint(e.scratch, uint64(len(e.d.symbols[symbol])))
			e.scratch = append(e.scratch, e.d.symbols[symbol]...)
		}
		e.plain, e.scratch = append(e.scratch, e.plain...), e.plain
	}
	return e.slab.Frame(e.plain, samples, round)
}
