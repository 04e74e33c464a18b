package wire

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tombstones"

	"varve/digest"
	"varve/intake"
)

// Limits of a label set. A target's own are lower; these keep a request from being all labels.
const (
	labelsMax     = 4096
	labelBytesMax = 1 << 16
)

// appendLabels appends: count, then names and values in ascending order of the names.
func appendLabels(dst []byte, ls labels.Labels) []byte {
	dst = binary.AppendUvarint(dst, uint64(ls.Len()))
	ls.Range(func(l labels.Label) {
		dst = appendString(appendString(dst, l.Name), l.Value)
	})
	return dst
}

// labelsFit says whether the other side would read the label set.
func labelsFit(ls labels.Labels) bool {
	fit := ls.Len() <= labelsMax
	ls.Range(func(l labels.Label) { fit = fit && len(l.Name) <= labelBytesMax && len(l.Value) <= labelBytesMax })
	return fit
}

// records decodes what streams hold. It reuses its memory. One goroutine uses it.
type records struct {
	check   intake.ChunkCheck
	builder labels.ScratchBuilder
	chunks  []intake.Chunk
}

// labels reads a label set, which is a copy.
func (r *records) labels(p *payload) labels.Labels {
	n := p.count(2)
	if n > labelsMax {
		p.fail("a series has too many labels")
		return labels.EmptyLabels()
	}
	r.builder.Reset()
	before := ""
	for range n {
		name, value := p.bytes(), p.bytes()
		if len(name) > labelBytesMax || len(value) > labelBytesMax {
			p.fail("a label is too long")
		}
		if string(name) <= before {
			p.fail("labels don't ascend")
		}
		if p.fault != nil {
			return labels.EmptyLabels()
		}
		before = string(name)
		r.builder.Add(before, string(value))
	}
	return r.builder.Labels()
}

// appendChunk appends: encoding, lowest time, span of time, what is deleted of it, data.
func appendChunk(dst []byte, c *intake.Chunk) []byte {
	dst = append(dst, byte(c.Chunk.Encoding()))
	dst = binary.AppendVarint(dst, c.MinMillis)
	dst = binary.AppendUvarint(dst, uint64(c.MaxMillis)-uint64(c.MinMillis))
	first, last := 0, len(c.Deleted)
	for first < last && c.Deleted[first].Maxt < c.MinMillis {
		first++
	}
	for first < last && c.Deleted[last-1].Mint > c.MaxMillis {
		last--
	}
	dst = binary.AppendUvarint(dst, uint64(last-first))
	for _, d := range c.Deleted[first:last] {
		dst = binary.AppendVarint(dst, d.Mint)
		dst = binary.AppendUvarint(dst, uint64(d.Maxt)-uint64(d.Mint))
	}
	return appendBytes(dst, c.Chunk.Bytes())
}

// stretch reads a time and how much later another is.
func stretch(p *payload) (from, to int64) {
	from = p.varint()
	length := p.uvarint()
	if length > uint64(math.MaxInt64)-uint64(from) {
		p.fail("a stretch of time ends beyond all time")
		return 0, 0
	}
	return from, int64(uint64(from) + length)
}

// chunk reads a chunk, decodes it for a trial, and says how many samples it has. Its data are those of the frame.
func (r *records) chunk(p *payload) (c intake.Chunk, samples uint64) {
	e := chunkenc.Encoding(p.octet())
	from, to := stretch(p)
	var deleted tombstones.Intervals
	if n := p.count(2); n > 0 {
		deleted = make(tombstones.Intervals, 0, n)
		for range n {
			mint, maxt := stretch(p)
			deleted = append(deleted, tombstones.Interval{Mint: mint, Maxt: maxt})
		}
	}
	data := p.bytes()
	if p.fault != nil {
		return c, 0
	}
	if !slices.IsSortedFunc(deleted, func(a, b tombstones.Interval) int {
		if a.Maxt < b.Mint {
			return -1
		}
		return 1
	}) {
		p.fail("deleted stretches of time don't ascend")
		return c, 0
	}
	c, err := r.check.Chunk(e, data, from, to)
	if err != nil {
		p.fault = fmt.Errorf("%w: %w", ErrMalformed, err)
		p.b = nil
		return c, 0
	}
	c.Deleted = deleted
	return c, uint64(c.Chunk.NumSamples())
}

// chunkBytesMin is the least that a chunk takes: encoding, two times, no deletes, a length and a head.
const chunkBytesMin = 7

// appendChunks appends a series' chunks, but for those without samples, and returns how many they are and what samples they have.
func appendChunks(dst []byte, all []intake.Chunk) (_ []byte, chunks, samples uint64) {
	for i := range all {
		if all[i].Chunk.NumSamples() > 0 {
			chunks++
			samples += uint64(all[i].Chunk.NumSamples())
		}
	}
	dst = binary.AppendUvarint(dst, chunks)
	for i := range all {
		if all[i].Chunk.NumSamples() > 0 {
			dst = appendChunk(dst, &all[i])
		}
	}
	return dst, chunks, samples
}

// seriesChunks reads what appendChunks appended. It is valid until the next call.
func (r *records) seriesChunks(p *payload) (chunks []intake.Chunk, samples uint64) {
	r.chunks = r.chunks[:0]
	for range p.count(chunkBytesMin) {
		c, n := r.chunk(p)
		if p.fault != nil {
			return nil, 0
		}
		samples += n
		r.chunks = append(r.chunks, c)
	}
	return r.chunks, samples
}

// tally is how much a stream held, as its last frame says.
type tally struct{ series, chunks, samples uint64 }

func appendEnd(dst []byte, t tally) []byte {
	at := len(dst)
	dst = beginFrame(dst)
	dst = binary.AppendUvarint(dst, t.series)
	dst = binary.AppendUvarint(dst, t.chunks)
	dst = binary.AppendUvarint(dst, t.samples)
	endFrame(dst[at:], kindEnd)
	return dst
}

// checkEnd compares what the last frame says with what came.
func checkEnd(b []byte, came tally) error {
	p := payload{b: b}
	said := tally{p.uvarint(), p.uvarint(), p.uvarint()}
	if err := p.end(); err != nil {
		return err
	}
	if said != came {
		return fmt.Errorf("%w: %d series, %d chunks, %d samples came of %d, %d, %d that were sent", ErrMalformed,
			came.series, came.chunks, came.samples, said.series, said.chunks, said.samples)
	}
	return nil
}

// daySeries reads a frame of series of a leased day.
func (r *records) daySeries(b []byte, t *tally, add func(ref uint64, chunks []intake.Chunk) error) error {
	p := payload{b: b}
	for len(p.b) > 0 && p.fault == nil {
		ref := p.uvarint()
		chunks, samples := r.seriesChunks(&p)
		if p.fault != nil {
			break
		}
		t.series++
		t.chunks += uint64(len(chunks))
		t.samples += samples
		if err := add(ref, chunks); err != nil {
			return err
		}
	}
	return p.fault
}

// samples reads a frame of series for the write port. Chunks hold on to the frame.
func (r *records) samples(b []byte, t *tally) (all []intake.SeriesSamples, err error) {
	p := payload{b: b}
	for len(p.b) > 0 && p.fault == nil {
		ls := r.labels(&p)
		chunks, samples := r.seriesChunks(&p)
		t.series++
		t.chunks += uint64(len(chunks))
		t.samples += samples
		all = append(all, intake.SeriesSamples{Labels: ls, Chunks: slices.Clone(chunks)})
	}
	return all, p.fault
}

// series reads a frame of label sets.
func (r *records) series(b []byte) (all []intake.Series, err error) {
	p := payload{b: b}
	for len(p.b) > 0 && p.fault == nil {
		all = append(all, intake.Series{Labels: r.labels(&p)})
	}
	return all, p.fault
}

func appendResolved(dst []byte, all []intake.Series) []byte {
	for i := range all {
		s := &all[i]
		dst = binary.AppendUvarint(dst, s.Ref)
		if s.Ref == 0 {
			dst = appendString(dst, s.Refused)
			continue
		}
		dst = binary.AppendUvarint(dst, uint64(s.Metric))
	}
	return dst
}

// readResolved fills in what the frame says of the series.
func readResolved(b []byte, all []intake.Series) error {
	p := payload{b: b}
	for i := range all {
		s := &all[i]
		s.Ref, s.Metric, s.Refused = p.uvarint(), 0, ""
		if s.Ref == 0 {
			if s.Refused = string(p.bytes()); s.Refused == "" {
				p.fail("a series is refused without a reason")
			}
			continue
		}
		metric := p.uvarint()
		if metric > math.MaxUint32 {
			p.fail("a metric's number is too large")
		}
		s.Metric = uint32(metric)
	}
	return p.end()
}

func appendDigest(dst []byte, ref uint64, d digest.Series) []byte {
	dst = binary.AppendUvarint(dst, ref)
	dst = binary.AppendUvarint(dst, d.Samples)
	dst = binary.AppendVarint(dst, d.FirstMillis)
	dst = binary.AppendVarint(dst, d.LastMillis)
	return binary.BigEndian.AppendUint64(dst, d.Hash)
}

func readDigests(b []byte, t *tally, each func(ref uint64, d digest.Series) error) error {
	p := payload{b: b}
	for len(p.b) > 0 && p.fault == nil {
		ref := p.uvarint()
		d := digest.Series{Samples: p.uvarint(), FirstMillis: p.varint(), LastMillis: p.varint(), Hash: p.fixed64()}
		if p.fault != nil {
			break
		}
		t.series++
		t.samples += d.Samples
		if err := each(ref, d); err != nil {
			return err
		}
	}
	return p.fault
}

func appendDayReport(dst []byte, r intake.DayReport) []byte {
	dst = binary.AppendUvarint(dst, r.Series)
	dst = binary.AppendUvarint(dst, r.Samples)
	dst = binary.AppendUvarint(dst, r.Bytes)
	return binary.AppendUvarint(dst, r.Expired)
}

func readDayReport(b []byte) (intake.DayReport, error) {
	p := payload{b: b}
	r := intake.DayReport{Series: p.uvarint(), Samples: p.uvarint(), Bytes: p.uvarint(), Expired: p.uvarint()}
	return r, p.end()
}

func appendWriteReport(dst []byte, r intake.WriteReport) []byte {
	dst = binary.AppendUvarint(dst, r.Samples)
	dst = binary.AppendUvarint(dst, r.Repeated)
	dst = binary.AppendUvarint(dst, r.Refused)
	dst = binary.AppendUvarint(dst, uint64(len(r.Reasons)))
	for _, reason := range slices.Sorted(maps.Keys(r.Reasons)) {
		dst = binary.AppendUvarint(appendString(dst, reason), r.Reasons[reason])
	}
	return dst
}

func readWriteReport(b []byte) (intake.WriteReport, error) {
	p := payload{b: b}
	r := intake.WriteReport{Samples: p.uvarint(), Repeated: p.uvarint(), Refused: p.uvarint(), Reasons: map[string]uint64{}}
	for range p.count(2) {
		reason := string(p.bytes())
		r.Reasons[reason] += p.uvarint()
	}
	return r, p.end()
}
