package text

import (
	"context"
	"fmt"
	"slices"

	"varve/arrival"
	"varve/ingest"
)

// rowsMax is how many rows are written at a time: enough for one fsync to cost next to
// nothing each.
const rowsMax = 1 << 16

// place is where in the window a row's series is named.
type place struct {
	from, to uint32 // its bytes in the window
	line     uint64
	// lineAt is where its line begins, lines how many were counted before it.
	lineAt uint32
	lines  uint64
	// column is that of the value, in CSV.
	column uint16
}

// batch gathers the samples of a window. It is like an ingest.Delivery, and also holds what that
// has no place for: start timestamps, exemplars, metadata and the numbers of lines.
type batch struct {
	sink   ingest.Sink
	limits ingest.Limits
	meter  *ingest.Meter
	sets   *ingest.LabelSets

	arrived arrival.Batch
	places  []place // beside arrived.Rows
	unknown []arrival.Unknown
	rowOf   []uint32 // beside unknown

	result   arrival.Result
	examples []string
	// refusedAt is the last line of which something was refused.
	refusedAt uint64

	held   int64 // of the budget
	wanted int64 // what the rows need, held in steps
	spare  int64 // of held, for rows
}

func (b *batch) init(sink ingest.Sink, limits ingest.Limits) {
	b.sink, b.limits, b.sets = sink, limits, ingest.NewLabelSets(limits)
}

// What items cost in memory, and what is taken from the budget at once.
const (
	rowBytes      = 40 + 32
	sampleBytes   = 8 + 8 + 8
	exemplarBytes = 256
	holdStep      = 64 << 10
)

// hold implements holder.
func (b *batch) hold(bytes int64) error {
	if bytes <= 0 {
		return nil
	}
	if !b.limits.InFlight.TryAcquire(bytes) {
		return ingest.ErrOverload
	}
	b.held += bytes
	b.meter.Held(bytes)
	return nil
}

// want accounts for bytes until the batch is written.
func (b *batch) want(bytes int64) error {
	b.wanted += bytes
	if b.wanted <= b.spare {
		return nil
	}
	step := max(holdStep, b.wanted-b.spare)
	if err := b.hold(step); err != nil {
		return err
	}
	b.spare += step
	return nil
}

// release gives back what was held.
func (b *batch) release() {
	b.limits.InFlight.Release(b.held)
	b.meter.Held(-b.held)
	b.held, b.wanted, b.spare = 0, 0, 0
}

// keptRows is what stays for the next request.
const keptRows = 1 << 17

// end makes the batch ready for the next request.
func (b *batch) end() {
	b.forget()
	b.result = arrival.Result{}
	b.examples, b.refusedAt = nil, 0
	if cap(b.places) > keptRows || cap(b.arrived.Times) > 2*keptRows {
		b.arrived, b.places, b.unknown, b.rowOf = arrival.Batch{}, nil, nil, nil
	}
}

// forget drops what was added.
func (b *batch) forget() {
	b.arrived.Reset()
	b.places = b.places[:0]
	clear(b.unknown)
	b.unknown, b.rowOf = b.unknown[:0], b.rowOf[:0]
	b.wanted = 0
}

// add adds a float sample of the series that the key stands for. Samples of one series in a row share
// a row of the batch.
func (b *batch) add(key arrival.Key, at place, millis int64, bits uint64) error {
	a := &b.arrived
	if n := len(a.Rows); n > 0 && a.Rows[n-1].Key == key {
		if err := b.want(sampleBytes); err != nil {
			return err
		}
		a.Rows[n-1].Count++
	} else {
		if err := b.want(rowBytes + sampleBytes); err != nil {
			return err
		}
		a.Rows = append(a.Rows, arrival.Row{Key: key, First: uint32(len(a.Times)), Count: 1})
		b.places = append(b.places, at)
	}
	a.Times = append(a.Times, millis)
	a.Values = append(a.Values, bits)
	if len(a.Starts) > 0 {
		a.Starts = append(a.Starts, 0)
	}
	return nil
}

// full tells that the batch should be written before more is added.
func (b *batch) full() bool { return len(b.arrived.Times) >= rowsMax }

// refuse counts items that are not stored through the sender's fault.
func (b *batch) refuse(reason arrival.Reason, items int, line uint64, err error) {
	b.result.Rejected[reason] += items
	b.refusedAt = max(b.refusedAt, line)
	if len(b.examples) < b.limits.ErrorExamplesMax {
		b.examples = append(b.examples, fmt.Sprintf("line %d: %v", line, err))
	}
}

// write writes what was added and forgets it. name adds the labels of a series to the sets; its error
// refuses that row alone. Strings may alias the window.
func (b *batch) write(ctx context.Context, name func(at *place, sets *ingest.LabelSets) error) error {
	defer b.forget()
	rows := b.arrived.Rows
	if len(rows) == 0 && len(b.arrived.Metadata) == 0 {
		return nil
	}
	known := len(rows)
	if len(rows) > 0 {
		if missing := b.sink.Lookup(rows); missing > 0 {
			resolved, err := b.resolve(ctx, name)
			if err != nil {
				return err
			}
			known -= missing - resolved
		}
	}
	if known == 0 && len(b.arrived.Metadata) == 0 {
		return nil
	}
	if b.result.Samples > 0 {
		ctx = ingest.GoingOn(ctx)
	}
	written, err := b.sink.Write(ctx, &b.arrived)
	if err != nil {
		return fmt.Errorf("write samples: %w", err)
	}
	if len(b.places) > 0 && written.Rejected.Total() > 0 && len(b.examples) < b.limits.ErrorExamplesMax {
		b.examples = append(b.examples, fmt.Sprintf("of lines %d to %d the archive refused %s", b.firstLine(), b.lastLine(), written.Refusals()))
	}
	b.result.Add(&written)
	return nil
}

func (b *batch) firstLine() uint64 { return b.places[0].line }
func (b *batch) lastLine() uint64  { return b.places[len(b.places)-1].line }

// labelBytesMax is how much of labels is in memory at a time: a record of CSV may give its long
// labels to a thousand columns, each a series of its own.
const labelBytesMax = 8 << 20

// resolve names the series that the sink doesn't know, and returns how many have a ref now.
func (b *batch) resolve(ctx context.Context, name func(at *place, sets *ingest.LabelSets) error) (resolved int, err error) {
	bytes := 0
	for i := range b.arrived.Rows {
		row := &b.arrived.Rows[i]
		if row.Ref != 0 {
			continue
		}
		b.sets.Clear()
		reason := arrival.ReasonInvalidLine
		err := name(&b.places[i], b.sets)
		if err == nil {
			reason = arrival.ReasonInvalidLabels
			ls, invalid := b.sets.Series()
			if err = invalid; err == nil {
				b.unknown = append(b.unknown, arrival.Unknown{Key: row.Key, Labels: ls})
				b.rowOf = append(b.rowOf, uint32(i))
				if bytes += int(ls.ByteSize()); bytes < labelBytesMax {
					continue
				}
				n, err := b.resolveNamed(ctx)
				if err != nil {
					return 0, err
				}
				resolved, bytes = resolved+n, 0
				continue
			}
		}
		b.refuse(reason, b.items(i), b.places[i].line, err)
	}
	n, err := b.resolveNamed(ctx)
	return resolved + n, err
}

// resolveNamed has the sink find the series that were named, and forgets their labels.
func (b *batch) resolveNamed(ctx context.Context) (resolved int, err error) {
	if len(b.unknown) == 0 {
		return 0, nil
	}
	if err := b.sink.Resolve(ctx, b.unknown); err != nil {
		return 0, fmt.Errorf("resolve series: %w", err)
	}
	for i := range b.unknown {
		u := &b.unknown[i]
		at := int(b.rowOf[i])
		if b.arrived.Rows[at].Ref = u.Ref; u.Ref == 0 {
			b.refuse(u.Refused, b.items(at), b.places[at].line, fmt.Errorf("%s: %s", u.Refused, quoted(u.Labels.String())))
			continue
		}
		resolved++
	}
	clear(b.unknown)
	b.unknown, b.rowOf = b.unknown[:0], b.rowOf[:0]
	return resolved, nil
}

// items is how many samples and exemplars a row has.
func (b *batch) items(row int) int {
	n := int(b.arrived.Rows[row].Count)
	i, _ := slices.BinarySearchFunc(b.arrived.Exemplars, uint32(row), func(e arrival.Exemplar, row uint32) int { return int(e.Row) - int(row) })
	for ; i < len(b.arrived.Exemplars) && b.arrived.Exemplars[i].Row == uint32(row); i++ {
		n++
	}
	return n
}

// cut drops the rows from one on, and returns where the line of the first of them begins.
func (b *batch) cut(row int) place {
	at := b.places[row]
	a := &b.arrived
	first := a.Rows[row].First
	a.Rows, b.places = a.Rows[:row], b.places[:row]
	a.Times, a.Values, a.Starts = a.Times[:first], a.Values[:first], a.Starts[:min(int(first), len(a.Starts))]
	n := len(a.Exemplars)
	for n > 0 && a.Exemplars[n-1].Row >= uint32(row) {
		n--
	}
	clear(a.Exemplars[n:])
	a.Exemplars = a.Exemplars[:n]
	return at
}

// setStart gives the samples of a row that have no start timestamp one: those at one time alone, unless at is nil.
func (b *batch) setStart(row int, startMillis int64, at *int64) {
	a := &b.arrived
	if len(a.Starts) < len(a.Times) {
		a.Starts = append(a.Starts, make([]int64, len(a.Times)-len(a.Starts))...)
	}
	r := a.Rows[row]
	for i := r.First; i < r.First+r.Count; i++ {
		if a.Starts[i] == 0 && (at == nil || a.Times[i] == *at) {
			a.Starts[i] = startMillis
		}
	}
}
