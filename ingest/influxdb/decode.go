package influxdb

import (
	"context"
	"errors"
	"math/bits"

	"varve/arrival"
	"varve/ingest"
)

// decoder reads lines and adds their samples to a delivery. It is pooled, and used by
// one goroutine at a time.
//
// For each line:
//
//  1. The line ends at the next newline. The point's measurement and tags end at the
//     first space that no backslash precedes; they are hashed and not looked at.
//  2. The fields and the time are read. Text may hold newlines, so it moves the end.
//  3. When all of the line is good its samples are added, each under the hash of 1
//     combined with that of the field's key.
//  4. Series that the archive doesn't know by that hash are named when the delivery
//     is written: then the line is read again, measurement and tags are checked, and
//     what is wrong with them refuses the samples. So a hash that is known is that
//     of bytes that were checked.
type decoder struct {
	in       *Input
	delivery *ingest.Delivery
	name     func(place uint64, sets *ingest.LabelSets) error // name of the decoder, made once

	// What a request says of all its lines.
	seed      arrival.Seed
	precision Precision
	nowMillis int64
	extra     extraLabels
	// sent says of the parts of the body that were not read yet when they were sent; of what is in none, nowMillis is the time.
	sent []ingest.Sent

	// body holds the lines until they are written: places are offsets in it.
	body  []byte
	point point
	again point // the line of series that are being named
	named namedLine
	// cleaned and scratch are for refuseTwins.
	cleaned []cleanedField
	scratch []byte
	// pointsRead counts the lines that hold a point, good or not.
	pointsRead int
	// examples are texts about the first lines that were refused.
	examples []string
}

// decoder returns an empty decoder of lines that come in a way.
func (in *Input) decoder(w way, p Precision, extra extraLabels) *decoder {
	d, _ := in.decoders.Get().(*decoder)
	if d == nil {
		d = &decoder{in: in}
		d.name = d.nameSeries
	}
	d.delivery = in.ports[w].Delivery()
	d.precision, d.nowMillis = p, in.now().UnixMilli()
	d.extra, d.seed = extra, extra.seed(in.seed)
	return d
}

// keptFields is how many fields of a line a pooled decoder keeps memory for.
const keptFields = 4096

// end gives the decoder back; code is what its sender is told.
func (d *decoder) end(code int) {
	d.delivery.End(code)
	d.delivery, d.body, d.extra, d.sent = nil, nil, extraLabels{}, nil
	d.pointsRead = 0
	clear(d.examples)
	d.examples = d.examples[:0]
	d.named.forget()
	if cap(d.point.fields) > keptFields || cap(d.again.fields) > keptFields {
		d.point, d.again, d.named, d.cleaned = point{}, point{}, namedLine{}, nil
	}
	d.in.decoders.Put(d)
}

// all reads all lines of a body and writes their samples.
func (d *decoder) all(ctx context.Context, body []byte) error {
	d.body = body
	if _, err := d.lines(ctx, 0, len(body), true); err != nil {
		return err
	}
	return d.write(ctx)
}

// lines reads the lines of body[at:to] and returns the index of the first byte that it
// did not read: of a line that is not all there, unless final says that there is no more.
func (d *decoder) lines(ctx context.Context, at, to int, final bool) (int, error) {
	for at < to {
		next, err := d.line(at, to, final)
		if errors.Is(err, errMore) {
			return at, nil
		}
		if err != nil {
			return at, err
		}
		at = next
		if d.delivery.Full() {
			if err := d.write(ctx); err != nil {
				return at, err
			}
		}
	}
	return at, nil
}

// write writes the samples that were added. The body may change afterwards.
func (d *decoder) write(ctx context.Context) error {
	d.named.forget()
	return d.delivery.Write(ctx, d.name)
}

// line reads the line at body[at:to] and returns where the next begins. Errors are errMore
// and those of the delivery; a fault refuses the line.
func (d *decoder) line(at, to int, final bool) (next int, err error) {
	p := &d.point
	empty, fault := p.read(d.in.names, d.body[:to], at, final)
	switch {
	case errors.Is(fault, errMore):
		return at, errMore
	case empty:
		return p.next, nil
	case fault != nil:
		d.pointsRead++
		d.refuseLine(p, to, fault)
		return p.next, nil
	}
	d.pointsRead++
	millis := d.sentMillis(p.start)
	if p.hasTime {
		var ok bool
		if millis, ok = d.precision.millis(p.time); !ok {
			d.refuseLine(p, to, errTimeRange)
			return p.next, nil
		}
	}
	if p.texts > 0 {
		d.delivery.Drop(arrival.ReasonText, p.texts)
	}
	if p.numbers == 0 {
		return p.next, nil
	}
	if p.odd && p.numbers > 1 {
		d.refuseTwins(p)
	}
	return p.next, d.add(p, millis)
}

// sentMillis is the time of a line without one, which begins at a place of the body. Places come in their order.
func (d *decoder) sentMillis(at int) int64 {
	for len(d.sent) > 0 && d.sent[0].To <= at {
		d.sent = d.sent[1:]
	}
	if len(d.sent) == 0 {
		return d.nowMillis
	}
	return d.sent[0].Millis
}

// Marks keep apart the hashes of bytes that mean something else in the same place. They
// are any numbers.
const (
	markField  = 0x9e3779b97f4a7c15
	markSingle = 0xbf58476d1ce4e5b9
	markLabel  = 0x94d049bb133111eb
)

// combine returns the key of b beside what k stands for.
func combine(k arrival.Key, mark uint64, b []byte) arrival.Key {
	h := arrival.Seed(k.Lo ^ mark).Hash(b)
	return arrival.Key{Hi: h.Hi ^ k.Hi, Lo: h.Lo + bits.RotateLeft64(k.Hi, 32)}
}

// add adds the samples of a good line.
func (d *decoder) add(p *point, millis int64) error {
	key := d.seed.Hash(d.body[p.start:p.keyEnd])
	if p.labelled > 0 {
		for i := range p.fields {
			if f := &p.fields[i]; f.kind == kindLabel {
				key = combine(key, markLabel, d.body[f.from:f.end])
			}
		}
	}
	mark := uint64(markField)
	if p.numbers == 1 {
		mark = markSingle
	}
	place := uint64(p.start) << 32
	for i := range p.fields {
		f := &p.fields[i]
		if f.kind != kindNumber {
			continue
		}
		if err := d.delivery.Add(combine(key, mark, d.body[f.from:f.to]), place|uint64(i), millis, f.bits); err != nil {
			return err
		}
	}
	return nil
}

// errSeen is handed to a delivery about what has its example already. Its text is empty.
var errSeen = errors.New("")

// refuseLine counts a line that is not stored. Of two faults it names the one that comes first.
func (d *decoder) refuseLine(p *point, to int, fault error) {
	d.delivery.Refuse(arrival.ReasonInvalidLine, 1, errSeen)
	if len(d.examples) >= d.in.limits.ErrorExamplesMax {
		return
	}
	if _, _, err := splitKey(d.body[p.start:min(p.keyEnd, to)], nil); err != nil && !errors.Is(fault, errLineTooLong) {
		fault = err
	}
	d.example(p, fault)
}

// quotedBytes is the most that the text about a line quotes of it.
const quotedBytes = 160

// example keeps a text about a line while there are few, in the form of InfluxDB.
func (d *decoder) example(p *point, fault error) {
	if len(d.examples) >= d.in.limits.ErrorExamplesMax {
		return
	}
	line, more := d.body[p.start:p.end], ""
	if len(line) > quotedBytes {
		line, more = line[:quotedBytes], "..."
	}
	d.examples = append(d.examples, "unable to parse '"+printable(line)+more+"': "+fault.Error())
}
