package remotewrite

import (
	"encoding/binary"
	"errors"
	"fmt"

	"varve/arrival"
)

var (
	errSymbols      = errors.New("the table of symbols does not start with an empty string")
	errSymbolRange  = errors.New("reference outside the table of symbols")
	errSymbolCount  = errors.New("odd number of references to label names and values")
	errManyLabels   = errors.New("more labels than allowed")
	errMixed        = errors.New("a series of both samples and histograms")
	errEmptySeries  = errors.New("a series without samples, histograms, exemplars and metadata")
	errLateSymbols  = errors.New("symbols behind a series")
	metricNameLabel = []byte("__name__")
)

// noSymbol is the index of no symbol.
const noSymbol = ^uint32(0)

// symbol is an entry of a request's table: where its bytes lie in the body, and
// their hash of 128 bits under a secret seed.
//
// The key of a series is made from the hashes of its symbols, names and values in
// turn, so that label bytes are read once a request however many series share
// them. Each 64-bit half of the key is the sum of the halves of the hashes, each
// multiplied by an odd number that belongs to its place in the list and is as secret
// as the seed. Two different lists have the same sum only if the products of what
// they differ in cancel out in both halves. For numbers that a sender neither knows
// nor can choose the odds are 2^-64 for each half, or a few bits worse where a
// difference is even, and so about 2^-120 for a pair of lists; symbols swapped
// within a list count as differences, because no two places have the same number.
type symbol struct {
	key      arrival.Key
	from, to uint32
}

// symbolTable is the table of a request.
type symbolTable struct {
	symbols []symbol
	// complete: walk2 read all symbols before any series.
	complete bool
	// metricName is the index of the first symbol "__name__", or noSymbol.
	metricName uint32
	// refs are the labels of the series that is being walked, key their key so far.
	refs []uint32
	key  arrival.Key
	// tenant is what keys begin with: zero without one.
	tenant arrival.Key
	// places are the secret numbers of the places in a list.
	places []arrival.Key
}

// newPlaces returns the numbers of a list's places.
func newPlaces(seed arrival.Seed, places int) []arrival.Key {
	out := make([]arrival.Key, places)
	for i := range out {
		k := seed.Hash(binary.LittleEndian.AppendUint64(nil, uint64(i)))
		out[i] = arrival.Key{Hi: k.Hi | 1, Lo: k.Lo | 1}
	}
	return out
}

// add adds a reference to the list of the series. There must be a place for it and
// the symbol must exist.
func (t *symbolTable) add(ref uint32) {
	place, k := &t.places[len(t.refs)], &t.symbols[ref].key
	t.key.Hi += place.Hi * k.Hi
	t.key.Lo += place.Lo * k.Lo
	t.refs = append(t.refs, ref)
}

// clear empties the list of the series.
func (t *symbolTable) clear() { t.refs, t.key = t.refs[:0], t.tenant }

func (t *symbolTable) reset() {
	t.symbols = t.symbols[:0]
	t.clear()
	t.complete, t.metricName = false, noSymbol
}

// walk2 walks a Request and fills the batch. Symbols come before series from every
// known sender; where they do not, the body is walked twice.
func (q *request) walk2() error {
	q.table.reset()
	err := q.fields2(true)
	if !errors.Is(err, errLateSymbols) {
		return err
	}
	q.rewind()
	if err := q.fields2(false); err != nil {
		return err
	}
	q.table.complete = true
	return q.fields2(true)
}

// fields2 walks the fields of a Request, without those of series if withSeries is
// false.
func (q *request) fields2(withSeries bool) error {
	b := q.body
	for i := 0; i < len(b); {
		if start, end, ok := shortField(b, i, 5<<3|wireBytes); ok && withSeries && q.usual2(start, end) {
			i = end
			continue
		}
		tag, j := tagAt(b, i)
		if j < 0 {
			return errMalformed
		}
		field := tag >> 3
		if field != 4 && field != 5 {
			if i = skip(b, j, tag); i < 0 {
				return errMalformed
			}
			continue
		}
		if tag&7 != wireBytes {
			return errMalformed
		}
		start, end := bytesAt(b, j)
		if start < 0 {
			return errMalformed
		}
		i = end
		var err error
		switch {
		case field == 5 && withSeries:
			err = q.series2(start, end)
		case field == 4 && !q.table.complete:
			if q.seriesSeen > 0 {
				return errLateSymbols
			}
			err = q.symbol(start, end)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (q *request) symbol(start, end int) error {
	if err := q.charge(symbolBytes); err != nil {
		return err
	}
	b := q.body[start:end]
	if q.table.metricName == noSymbol && string(b) == string(metricNameLabel) {
		q.table.metricName = uint32(len(q.table.symbols))
	}
	q.table.symbols = append(roomy(q.table.symbols), symbol{key: q.seeds.symbol.Hash(b), from: uint32(start), to: uint32(end)})
	return nil
}

// symbolText returns the bytes of a symbol.
func (q *request) symbolText(ref uint32) []byte {
	s := q.table.symbols[ref]
	return q.body[s.from:s.to]
}

// usual2 adds the row of the series message body[start:end] if it is what senders
// send nearly always: packed label references, one sample without a start
// timestamp, and maybe metadata, in this order and without fault. It returns false
// and has changed nothing for every other message.
func (q *request) usual2(start, end int) bool {
	t := &q.table
	b := q.body[start:end:end]
	if len(b) < 2+usualBytes || b[0] != 1<<3|wireBytes || b[1] >= 0x80 || int(b[1]) > len(b)-2-usualBytes ||
		q.seriesSeen >= q.limits.SeriesMax || len(t.symbols) == 0 || t.symbols[0].from != t.symbols[0].to {
		return false
	}
	rest := b[2+b[1]:]
	millis, bits, ok := usualSample(rest)
	if !ok {
		return false
	}
	s := series{from: uint32(start), to: uint32(end)}
	if rest = rest[usualBytes:]; len(rest) > 0 {
		if len(rest) < 2 || rest[0] != 5<<3|wireBytes || rest[1] >= 0x80 || int(rest[1]) != len(rest)-2 || s.metadata2(rest[2:]) != nil {
			return false
		}
	}
	if !t.usualRefs(b[2:2+b[1]]) || s.hasMetadata && q.familySymbols(&s) != nil {
		return false
	}
	q.seriesSeen++
	batch := &q.batch
	batch.Rows = append(batch.Rows, arrival.Row{Key: t.key, First: uint32(len(batch.Times)), Count: 1})
	q.series = append(q.series, s)
	if len(batch.Starts) > 0 {
		batch.Starts = append(batch.Starts, 0)
	}
	batch.Times = append(batch.Times, millis)
	batch.Values = append(batch.Values, bits)
	return true
}

// usualRefs reads packed references below 2^21 into the table. It returns false if
// anything is wrong with them.
func (t *symbolTable) usualRefs(b []byte) bool {
	t.clear()
	for i := 0; i < len(b); {
		x := uint32(b[i])
		i++
		for shift := 7; x>>shift != 0; shift += 7 {
			if i == len(b) || shift > 14 {
				return false
			}
			x = x&(1<<shift-1) | uint32(b[i])<<shift
			i++
		}
		if x >= uint32(len(t.symbols)) || len(t.refs) == len(t.places) {
			return false
		}
		t.add(x)
	}
	return len(t.refs)%2 == 0
}

// series2 walks the series message body[start:end].
func (q *request) series2(start, end int) error {
	q.seriesSeen++
	m := q.mark()
	first := uint32(len(q.batch.Times))
	s := series{from: uint32(start), to: uint32(end)}
	created, refused, err := q.seriesFields2(&s)
	if err != nil {
		return err
	}
	if err := q.applyCreated(m, created); err != nil {
		return err
	}
	q.endSeries(m)
	reason := arrival.ReasonNone
	switch {
	case q.seriesSeen > q.limits.SeriesMax:
		reason, refused = arrival.ReasonInvalidSeries, errSeriesMax
	case len(q.table.symbols) == 0 || q.table.symbols[0].from != q.table.symbols[0].to:
		reason, refused = arrival.ReasonInvalidSymbols, errSymbols
	case errors.Is(refused, errManyLabels):
		reason = arrival.ReasonInvalidLabels
	case refused != nil:
		reason = arrival.ReasonInvalidSymbols
	case len(q.batch.Times) > m.times && s.native:
		reason, refused = arrival.ReasonInvalidSeries, errMixed
	}
	if reason != arrival.ReasonNone {
		q.drop(m, reason)
		q.report.example(refused)
		return nil
	}
	if q.items(m) == 0 {
		return q.metadataOnly(&s)
	}
	q.batch.Rows = append(q.batch.Rows, arrival.Row{Key: q.table.key, First: first, Count: uint32(len(q.batch.Times)) - first})
	q.series = append(q.series, s)
	return nil
}

// seriesFields2 decodes the fields of a series message into the columns, its label
// references into the table. refused is what is wrong with the references.
func (q *request) seriesFields2(s *series) (created int64, refused, err error) {
	b := q.body[:s.to:s.to]
	q.table.clear()
	var x uint64
	for i := int(s.from); i < len(b); {
		tag, j := tagAt(b, i)
		if j < 0 {
			return 0, nil, errMalformed
		}
		field := tag >> 3
		switch {
		case field == 1:
			var outside error
			if i, outside = q.labelRefs(b, j, tag); outside != nil && refused == nil {
				refused = outside
			}
		case field >= 2 && field <= 5:
			var message []byte
			if message, i = messageAt(b, j, tag); i >= 0 {
				err = q.message2(s, field, message)
			}
		case tag == 6<<3|wireVarint:
			x, i = uvarint(b, j)
			created = int64(x)
		default:
			i = skip(b, j, tag)
		}
		if i < 0 {
			return 0, nil, errMalformed
		}
		if err != nil {
			return 0, nil, err
		}
	}
	if len(q.table.refs)%2 != 0 && refused == nil {
		refused = errSymbolCount
	}
	if s.hasMetadata && refused == nil {
		refused = q.familySymbols(s)
	}
	return created, refused, nil
}

// message2 decodes one of the messages in a series.
func (q *request) message2(s *series, field uint64, b []byte) error {
	switch field {
	case 2:
		v, ok := decodeSample(b, true)
		if !ok {
			return errMalformed
		}
		return q.addSample(v)
	case 3:
		s.native = true
		return q.addHistogram(b)
	case 4:
		return q.exemplar2(b)
	default:
		return s.metadata2(b)
	}
}

// labelRefs reads a field of label references, packed or not, into the table.
func (q *request) labelRefs(b []byte, i int, tag uint64) (next int, refused error) {
	end := i
	switch tag & 7 {
	case wireVarint:
		_, end = uvarint(b, i)
	case wireBytes:
		i, end = bytesAt(b, i)
	default:
		return -1, nil
	}
	if end < 0 {
		return -1, nil
	}
	t := &q.table
	for i < end {
		var x uint64
		if b[i] < 0x80 {
			x = uint64(b[i])
			i++
		} else if x, i = uvarint(b[:end], i); i < 0 {
			return -1, nil
		}
		ref := uint64(uint32(x))
		switch {
		case len(t.refs) == len(t.places):
			refused = errManyLabels
		case ref >= uint64(len(t.symbols)):
			if refused == nil {
				refused = fmt.Errorf("%w: %d of %d", errSymbolRange, ref, len(t.symbols))
			}
		default:
			t.add(uint32(ref))
		}
	}
	return end, refused
}

// applyCreated gives the series' start timestamp, which drafts of 2.0 had instead of
// one for each sample, to the samples since the mark that have none.
func (q *request) applyCreated(m mark, created int64) error {
	if created == 0 {
		return nil
	}
	b := &q.batch
	if len(b.Times) > m.times {
		if err := q.padStarts(); err != nil {
			return err
		}
		for i := range b.Starts[m.times:] {
			if at := &b.Starts[m.times+i]; *at == 0 {
				*at = created
			}
		}
	}
	for i := range b.Histograms[m.histograms:] {
		if h := &b.Histograms[m.histograms+i]; h.StartMillis == 0 {
			h.StartMillis = created
		}
	}
	return nil
}

// parseLabels2 adds the pairs that a series message names to q.sets. Its
// references were checked by the walk.
func (q *request) parseLabels2(s *series) error {
	q.sets.Clear()
	if _, _, err := q.refsOf(s); err != nil {
		return err
	}
	refs := q.table.refs
	bytes := 0
	for k := 0; k+1 < len(refs); k += 2 {
		if leftOut := q.tenant.label; leftOut != "" && text(q.symbolText(refs[k])) == leftOut {
			continue
		}
		bytes += q.addPair(refs[k], refs[k+1])
	}
	q.tenant.add(q.sets)
	return q.charge(bytes)
}

// addPair adds a pair of symbols to q.sets and returns its size, which a few bytes
// of the body stand for.
func (q *request) addPair(name, value uint32) int {
	n, v := q.symbolText(name), q.symbolText(value)
	q.sets.Add(text(n), text(v))
	return len(n) + len(v)
}

// refsOf reads only the label references of a series message into the table.
func (q *request) refsOf(s *series) (next int, refused, err error) {
	b := q.body[:s.to:s.to]
	q.table.clear()
	i := int(s.from)
	for i < len(b) {
		tag, j := tagAt(b, i)
		if j < 0 {
			return i, nil, errMalformed
		}
		if tag>>3 == 1 {
			i, refused = q.labelRefs(b, j, tag)
		} else {
			i = skip(b, j, tag)
		}
		if i < 0 {
			return i, nil, errMalformed
		}
	}
	return i, refused, nil
}

// exemplar2 decodes an Exemplar message. One with references that lead nowhere is
// refused without its series.
func (q *request) exemplar2(b []byte) error {
	q.sets.Clear()
	var e arrival.Exemplar
	var refused error
	var name uint32
	n, bytes := 0, 0
	for i := 0; i < len(b); {
		tag, j := tagAt(b, i)
		if j < 0 {
			return errMalformed
		}
		if tag>>3 != 1 {
			if i = exemplarField(&e, b, j, tag); i < 0 {
				return errMalformed
			}
			continue
		}
		i = packedVarints(b, j, tag, func(x uint64) {
			ref := uint32(x)
			switch {
			case refused != nil:
			case uint64(ref) >= uint64(len(q.table.symbols)):
				refused = fmt.Errorf("%w: %d of %d", errSymbolRange, ref, len(q.table.symbols))
			case n%2 == 0:
				name = ref
			default:
				bytes += q.addPair(name, ref)
			}
			n++
		})
		if i < 0 {
			return errMalformed
		}
	}
	if err := q.charge(bytes); err != nil {
		return err
	}
	if refused == nil && n%2 != 0 {
		refused = errSymbolCount
	}
	if refused != nil {
		q.report.add(arrival.ReasonInvalidSymbols, 1, refused)
		return nil
	}
	return q.addExemplar(e)
}
