package ingest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"varve/arrival"
)

// Port is how an input that decodes float samples itself writes to a sink. It is
// safe for use by several goroutines; the deliveries it hands out are not.
type Port struct {
	sink   Sink
	limits Limits
	meter  *Meter
	now    func() time.Time
	free   sync.Pool // of *Delivery
}

// NewPort returns a port to sink. now is the clock of durations.
func NewPort(sink Sink, limits Limits, meter *Meter, now func() time.Time) *Port {
	return &Port{sink: sink, limits: limits.WithDefaults(), meter: meter, now: now}
}

// Limits are those of the port, with defaults filled in.
func (p *Port) Limits() Limits { return p.limits }

// Seed returns a secret for the keys of series as an input's encoding names them.
// The name of the encoding includes everything that decides which labels the same
// bytes stand for.
func (p *Port) Seed(encoding string) arrival.Seed {
	return arrival.Seed(p.sink.Seed().Hash([]byte(encoding)).Lo)
}

// Delivery is what one request, message or datagram brings: rows that are written
// together, or in pieces where there are many, and what is said of them. It is
// taken from a Port and given back with End. In the steady state it allocates
// nothing for a sample of a known series.
type Delivery struct {
	port  *Port
	began time.Time

	batch arrival.Batch
	// places runs beside batch.Rows.
	places      []uint64
	unknown     []arrival.Unknown
	unknownRows []uint32
	sets        *LabelSets

	result arrival.Result
	// settled is what of result is final, whatever becomes of the rest.
	settled  arrival.Result
	examples []string

	body body
	// wire and decoded are the bytes of what did not come through ReadBody.
	wire, decoded int
	held          int64
	wanted        int64 // what the rows need; held in steps
	// written counts the rows that were handed to the sink.
	written int64
}

// rowsMax is how many rows are written at a time: enough for one fsync to cost
// next to nothing each.
const rowsMax = 1 << 16

// deliveryRowBytes is what a row with its sample takes in memory.
const deliveryRowBytes = 40 + 8 + 16

// startBytes is what a start timestamp takes.
const startBytes = 8

// wantedMax is how much a delivery holds beside its body before it is written: as much as the most rows with their starts, and histograms
// that are not many.
const wantedMax = 16 << 20

// holdStep is taken from the budget at once, so that its counter is not touched
// for every row.
const holdStep = 64 << 10

// Delivery returns an empty delivery.
func (p *Port) Delivery() *Delivery {
	d, _ := p.free.Get().(*Delivery)
	if d == nil {
		d = &Delivery{port: p, sets: NewLabelSets(p.limits)}
	}
	d.began = p.now()
	return d
}

// Add adds one float sample of the series that key stands for: at Unix
// milliseconds, with the bits of its value. place is what Write hands to name
// where nobody knows the key.
func (d *Delivery) Add(key arrival.Key, place uint64, millis int64, bits uint64) error {
	if err := d.want(deliveryRowBytes); err != nil {
		return err
	}
	b := &d.batch
	b.Rows = append(b.Rows, arrival.Row{Key: key, First: uint32(len(b.Times)), Count: 1})
	b.Times = append(b.Times, millis)
	b.Values = append(b.Values, bits)
	if len(b.Starts) > 0 {
		b.Starts = append(b.Starts, 0)
	}
	d.places = append(d.places, place)
	return nil
}

// Since says since when the sample counts that was added last, in Unix milliseconds.
func (d *Delivery) Since(startMillis int64) error {
	b := &d.batch
	if missing := len(b.Times) - len(b.Starts); missing > 0 {
		if err := d.want(startBytes * int64(missing)); err != nil {
			return err
		}
		b.Starts = append(b.Starts, make([]int64, missing)...)
	}
	b.Starts[len(b.Starts)-1] = startMillis
	return nil
}

// AddHistogram adds a native histogram of the series that key stands for, as Add adds a sample. The delivery sets its
// Row. bytes is what the histogram takes in memory.
func (d *Delivery) AddHistogram(key arrival.Key, place uint64, h *arrival.Histogram, bytes int64) error {
	if err := d.want(deliveryRowBytes + bytes); err != nil {
		return err
	}
	b := &d.batch
	h.Row = uint32(len(b.Rows))
	b.Rows = append(b.Rows, arrival.Row{Key: key, First: uint32(len(b.Times))})
	b.Histograms = append(b.Histograms, *h)
	d.places = append(d.places, place)
	return nil
}

// rowItems is how much a row holds that can be refused: samples, or a histogram.
func rowItems(r *arrival.Row) int { return max(1, int(r.Count)) }

// Took counts bytes that were read otherwise than by ReadBody, as they came and decompressed.
func (d *Delivery) Took(wire, decoded int) {
	d.wire += wire
	d.decoded += decoded
}

// Full tells that Write should be called before more is added.
func (d *Delivery) Full() bool { return len(d.batch.Rows) >= rowsMax || d.wanted >= wantedMax }

// Refuse counts items that are not stored through the sender's fault. The error
// becomes an example while there are few, unless its text is empty; it must quote what the sender wrote in
// printable characters.
func (d *Delivery) Refuse(reason arrival.Reason, items int, err error) {
	d.result.Rejected[reason] += items
	if text := err.Error(); text != "" && len(d.examples) < d.port.limits.ErrorExamplesMax {
		d.examples = append(d.examples, text)
	}
}

// Drop counts items that are not stored by rule, which is no fault.
func (d *Delivery) Drop(reason arrival.Reason, items int) { d.result.Dropped[reason] += items }

// Result is what became of everything so far.
func (d *Delivery) Result() *arrival.Result { return &d.result }

// Settled tells that what became of everything so far is final: if the sender is told to bring the rest again, it does not bring
// that.
func (d *Delivery) Settled() { d.settled = d.result }

// Examples are texts about the first things that were refused, the last of them about what the sink refused first.
func (d *Delivery) Examples() []string {
	if d.result.Example == "" || len(d.examples) >= d.port.limits.ErrorExamplesMax {
		return d.examples
	}
	return append(slices.Clip(d.examples), d.result.Example)
}

// Refusals tells in at most ErrorBytesMax bytes what was refused and why; it is
// empty if nothing was.
func (d *Delivery) Refusals() string {
	if d.result.Rejected.Total() == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("refused ")
	b.WriteString(d.result.Rejected.String())
	b.WriteString("; the rest is written")
	for i, e := range d.Examples() {
		separator := "; for example: "
		if i > 0 {
			separator = "; "
		}
		if b.Len()+len(separator)+len(e) > d.port.limits.ErrorBytesMax {
			break
		}
		b.WriteString(separator)
		b.WriteString(e)
	}
	return b.String()
}

// Write writes what was added and forgets it, so that more can be added. It
// returns when everything that Result counts as written is durable. name adds the
// labels of the series at a place to the sets; its error, like labels that are not
// valid, refuses that row alone. The labels' strings may alias the body. An error of
// Write means that what was added since the last one may or may not be stored.
func (d *Delivery) Write(ctx context.Context, name func(place uint64, sets *LabelSets) error) error {
	err := d.write(ctx, name)
	d.batch.Reset()
	d.places = d.places[:0]
	clear(d.unknown)
	d.unknown, d.unknownRows = d.unknown[:0], d.unknownRows[:0]
	d.wanted = 0
	return err
}

func (d *Delivery) write(ctx context.Context, name func(place uint64, sets *LabelSets) error) error {
	rows := d.batch.Rows
	if len(rows) == 0 {
		return nil
	}
	known := len(rows)
	if missing := d.port.sink.Lookup(rows); missing > 0 {
		known -= missing
		resolved, err := d.resolve(ctx, name)
		if err != nil {
			return err
		}
		known += resolved
	}
	if known == 0 {
		return nil
	}
	if d.written > 0 && d.written <= d.port.limits.DecodedBytesMax/sampleTextBytesMin {
		ctx = GoingOn(ctx)
	}
	written, err := d.port.sink.Write(ctx, &d.batch)
	if err != nil {
		return fmt.Errorf("write samples: %w", err)
	}
	d.written += int64(len(rows))
	d.result.Add(&written)
	return nil
}

// sampleTextBytesMin is the least that a sample takes in a body, such as ",a=1". What
// brings more samples than a body can is a stream, which may be told to wait in its midst.
const sampleTextBytesMin = 4

// unknownBytes is what a series that the sink doesn't know takes beside its labels.
const unknownBytes = 48

// newLabelBytesMax is how much of the labels of new series is in memory at a time: a line may
// give its long tags to thousands of fields, each a series of its own.
const newLabelBytesMax = 8 << 20

// resolve names the series that the sink doesn't know, and returns how many have a ref now.
func (d *Delivery) resolve(ctx context.Context, name func(place uint64, sets *LabelSets) error) (resolved int, err error) {
	bytes := int64(0)
	for i := range d.batch.Rows {
		row := &d.batch.Rows[i]
		if row.Ref != 0 {
			continue
		}
		d.sets.Clear()
		if err := name(d.places[i], d.sets); err != nil {
			d.Refuse(arrival.ReasonInvalidLabels, rowItems(row), err)
			continue
		}
		ls, err := d.sets.Series()
		if err != nil {
			d.Refuse(arrival.ReasonInvalidLabels, rowItems(row), err)
			continue
		}
		size := unknownBytes + int64(ls.ByteSize())
		if err := d.want(size); err != nil {
			return 0, err
		}
		d.unknown = append(d.unknown, arrival.Unknown{Key: row.Key, Labels: ls})
		d.unknownRows = append(d.unknownRows, uint32(i))
		if bytes += size; bytes >= newLabelBytesMax {
			n, err := d.resolveNamed(ctx, bytes)
			if err != nil {
				return 0, err
			}
			resolved, bytes = resolved+n, 0
		}
	}
	n, err := d.resolveNamed(ctx, bytes)
	return resolved + n, err
}

// resolveNamed has the sink find the series that were named, and forgets their labels, which take so many bytes.
func (d *Delivery) resolveNamed(ctx context.Context, bytes int64) (resolved int, err error) {
	if len(d.unknown) == 0 {
		return 0, nil
	}
	if err := d.port.sink.Resolve(ctx, d.unknown); err != nil {
		return 0, fmt.Errorf("resolve series: %w", err)
	}
	for i := range d.unknown {
		u := &d.unknown[i]
		row := &d.batch.Rows[d.unknownRows[i]]
		row.Ref = u.Ref
		if u.Ref == 0 {
			d.result.Rejected[u.Refused] += rowItems(row)
			continue
		}
		resolved++
	}
	clear(d.unknown)
	d.unknown, d.unknownRows = d.unknown[:0], d.unknownRows[:0]
	d.wanted -= bytes
	return resolved, nil
}

// want accounts for bytes until the next Write is over.
func (d *Delivery) want(bytes int64) error {
	d.wanted += bytes
	lacking := d.wanted - (d.held - d.body.held)
	if lacking <= 0 {
		return nil
	}
	return d.hold(max(holdStep, lacking))
}

// hold takes bytes from the budget until the delivery ends.
func (d *Delivery) hold(bytes int64) error {
	if bytes <= 0 {
		return nil
	}
	if !d.port.limits.InFlight.TryAcquire(bytes) {
		return ErrOverload
	}
	d.held += bytes
	d.port.meter.Held(bytes)
	return nil
}

// What a delivery keeps of its memory: four times what 10 000 samples need.
const (
	keptRows = 4 * 10_000
	keptBody = 4 << 20
)

// End counts the delivery under the HTTP status that its sender is told, or would
// be, and gives it back. Of one that is to come again only the request and its bytes are
// counted, with what was settled: the rest is when it has come. Nothing of the delivery may
// be used afterwards.
func (d *Delivery) End(code int) {
	p, counted := d.port, &d.result
	if ComesAgain(code) {
		counted = &d.settled
	}
	p.meter.Answered(code, p.now().Sub(d.began), d.wire+d.body.received, d.decoded+len(d.body.bytes), counted)
	p.meter.Told(&counted.Rejected, d.Refusals)
	p.meter.Held(-d.held)
	p.limits.InFlight.Release(d.held)
	d.held, d.wanted, d.wire, d.decoded, d.written = 0, 0, 0, 0, 0
	d.result, d.settled = arrival.Result{}, arrival.Result{}
	clear(d.examples)
	d.examples = d.examples[:0]
	d.body.reset()
	if cap(d.batch.Rows) > keptRows || cap(d.unknown) > keptRows/16 || cap(d.body.bytes) > keptBody {
		return
	}
	d.batch.Reset()
	d.places = d.places[:0]
	p.free.Put(d)
}
