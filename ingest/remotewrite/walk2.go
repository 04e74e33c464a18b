package remotewrite

import (
	"errors"
	"fmt"
	"unsafe"

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
// their hash. A series' key is the hash of the hashes of its symbols, names and
// values in turn, so the label bytes are read once a request however many series
// share them. All are of 128 bits under secret seeds: two label sets with the same
// key would need a collision.
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
	// refs and keys are the labels of the series that is being walked.
	refs []uint32
	keys []arrival.Key
}

func (t *symbolTable) reset() {
	t.symbols, t.refs, t.keys = t.symbols[:0], t.refs[:0], t.keys[:0]
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
	q.table.symbols = append(q.table.symbols, symbol{key: q.seeds.symbol.Hash(b), from: uint32(start), to: uint32(end)})
	return nil
}

// symbolBytes returns the bytes of a symbol.
func (q *request) symbolBytes(ref uint32) []byte {
	s := q.table.symbols[ref]
	return q.body[s.from:s.to]
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
	q.applyCreated(m, created)
	q.endSeries(m)
	reason := arrival.ReasonNone
	switch {
	case q.seriesSeen > q.limits.SeriesMax:
		reason, refused = arrival.ReasonInvalidSeries, fmt.Errorf("%w: %d", errSeriesMax, q.limits.SeriesMax)
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
	q.batch.Rows = append(q.batch.Rows, arrival.Row{Key: q.listKey(), First: first, Count: uint32(len(q.batch.Times)) - first})
	q.series = append(q.series, s)
	return nil
}

// listKey is the key of the labels in the table's keys.
func (q *request) listKey() arrival.Key {
	keys := q.table.keys
	b := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(keys))), len(keys)*int(unsafe.Sizeof(arrival.Key{})))
	return q.seeds.list.Hash(b)
}

// seriesFields2 decodes the fields of a series message into the columns, its label
// references into the table. refused is what is wrong with the references.
func (q *request) seriesFields2(s *series) (created int64, refused, err error) {
	b := q.body[:s.to:s.to]
	q.table.refs, q.table.keys = q.table.refs[:0], q.table.keys[:0]
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
			if i, outside = q.labelRefs(b, j, tag); outside != nil {
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
		case len(t.refs) >= 2*q.limits.LabelsMax:
			refused = fmt.Errorf("%w: %d", errManyLabels, q.limits.LabelsMax)
		case ref >= uint64(len(t.symbols)):
			refused = fmt.Errorf("%w: %d of %d", errSymbolRange, ref, len(t.symbols))
		default:
			t.refs = append(t.refs, uint32(ref))
			t.keys = append(t.keys, t.symbols[ref].key)
		}
	}
	return end, refused
}

// applyCreated gives the series' start timestamp, which drafts of 2.0 had instead of
// one for each sample, to the samples since the mark that have none.
func (q *request) applyCreated(m mark, created int64) {
	if created == 0 {
		return
	}
	b := &q.batch
	if len(b.Times) > m.times {
		q.padStarts()
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
}

// parseLabels2 adds the pairs that a series message names to q.sets. Its
// references were checked by the walk.
func (q *request) parseLabels2(s *series) error {
	q.sets.Clear()
	if _, _, err := q.refsOf(s); err != nil {
		return err
	}
	refs := q.table.refs
	for k := 0; k+1 < len(refs); k += 2 {
		q.sets.Add(text(q.symbolBytes(refs[k])), text(q.symbolBytes(refs[k+1])))
	}
	return nil
}

// refsOf reads only the label references of a series message into the table.
func (q *request) refsOf(s *series) (next int, refused, err error) {
	b := q.body[:s.to:s.to]
	q.table.refs, q.table.keys = q.table.refs[:0], q.table.keys[:0]
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
	n := 0
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
			case uint64(ref) >= uint64(len(q.table.symbols)):
				refused = fmt.Errorf("%w: %d of %d", errSymbolRange, ref, len(q.table.symbols))
			case n%2 == 0:
				name = ref
			case refused == nil:
				q.sets.Add(text(q.symbolBytes(name)), text(q.symbolBytes(ref)))
			}
			n++
		})
		if i < 0 {
			return errMalformed
		}
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
