package remotewrite

import (
	"encoding/binary"
	"errors"

	"varve/arrival"
)

// errGuess says that a guess of walk1 was wrong and the body must be walked again
// without guessing.
var errGuess = errors.New("series message is not labels and one sample")

var errSeriesMax = errors.New("more series in a request than allowed")

// walk1 walks a WriteRequest and fills the batch.
//
// With guess it does not step over the labels of a series message whose last 18
// bytes look like its only sample: it hashes all bytes before them. The sink knows
// only keys of byte strings that a parser found to be a whole number of label
// fields, so a known key proves that the sample starts at the edge of a field.
// resolve parses the bytes of the others and returns errGuess if they are not.
func (q *request) walk1(guess bool) error {
	b := q.body
	for i := 0; i < len(b); {
		if start, end, ok := shortField(b, i, 1<<3|wireBytes); ok && guess && q.seriesSeen < q.limits.SeriesMax && q.guess1(start, end) {
			i = end
			continue
		}
		tag, j := tagAt(b, i)
		if j < 0 {
			return errMalformed
		}
		field := tag >> 3
		if field != 1 && field != 3 {
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
		if field == 3 {
			err = q.metadata1(b[start:end])
		} else {
			err = q.series1(start, end)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// guess1 adds the row of the series message body[start:end] if it looks like labels
// and one sample.
func (q *request) guess1(start, end int) bool {
	if end-start <= usualBytes {
		return false
	}
	split := end - usualBytes
	millis, bits, ok := usualSample(q.body[split:end:end])
	if !ok {
		return false
	}
	// Before the only sample there is a label, whose end could be anything, but
	// hardly the shape of another sample.
	if split-start >= usualBytes && binary.LittleEndian.Uint32(q.body[split-usualBytes:])&0xff_ffff == usualHead {
		return false
	}
	b := &q.batch
	b.Rows = append(b.Rows, arrival.Row{Key: q.tenant.series.Hash(q.body[start:split]), First: uint32(len(b.Times)), Count: 1})
	q.series = append(q.series, series{from: uint32(start), to: uint32(split), guessed: true})
	q.seriesSeen++
	b.Times = append(b.Times, millis)
	b.Values = append(b.Values, bits)
	return true
}

// series1 walks the series message body[i:end] field by field.
func (q *request) series1(i, end int) error {
	q.seriesSeen++
	m := q.mark()
	first := uint32(len(q.batch.Times))
	s, err := q.fields1(i, end)
	if err != nil {
		return err
	}
	q.endSeries(m)
	if q.seriesSeen > q.limits.SeriesMax {
		q.drop(m, arrival.ReasonInvalidSeries)
		q.report.example(errSeriesMax)
		return nil
	}
	if q.items(m) == 0 {
		return q.checkLabels1(s)
	}
	row := arrival.Row{Key: q.tenant.series.Hash(q.labelBytes(&s)), First: first, Count: uint32(len(q.batch.Times)) - first}
	q.batch.Rows = append(q.batch.Rows, row)
	q.series = append(q.series, s)
	return nil
}

// fields1 decodes the fields of a series message into the columns and returns
// where its label fields are. Those of usual senders lie together; others are
// copied together.
func (q *request) fields1(i, end int) (series, error) {
	b := q.body[:end:end]
	s := series{from: uint32(i)}
	for i < end && b[i] == 1<<3|wireBytes {
		if _, i = bytesAt(b, i+1); i < 0 {
			return s, errMalformed
		}
	}
	s.to = uint32(i)
	for i < end {
		at := i
		tag, j := tagAt(b, i)
		if j < 0 {
			return s, errMalformed
		}
		if tag>>3 > 4 {
			if i = skip(b, j, tag); i < 0 {
				return s, errMalformed
			}
			continue
		}
		var message []byte
		if message, i = messageAt(b, j, tag); i < 0 {
			return s, errMalformed
		}
		var err error
		switch tag >> 3 {
		case 1:
			err = q.copyLabel(&s, b[at:i])
		case 2:
			v, ok := decodeSample(message, false)
			if !ok {
				return s, errMalformed
			}
			err = q.addSample(v)
		case 3:
			err = q.exemplar1(message)
		case 4:
			err = q.addHistogram(message)
		}
		if err != nil {
			return s, err
		}
	}
	return s, nil
}

// copyLabel adds a label field that lies apart from those before it.
func (q *request) copyLabel(s *series, field []byte) error {
	if !s.inCopied {
		at := len(q.copied)
		if err := q.charge(int(s.to - s.from)); err != nil {
			return err
		}
		q.copied = append(q.copied, q.body[s.from:s.to]...)
		s.inCopied, s.from = true, uint32(at)
	}
	if err := q.charge(len(field)); err != nil {
		return err
	}
	q.copied = append(q.copied, field...)
	s.to = uint32(len(q.copied))
	return nil
}

// labelBytes returns the label fields of a series of 1.0.
func (q *request) labelBytes(s *series) []byte {
	if s.inCopied {
		return q.copied[s.from:s.to]
	}
	return q.body[s.from:s.to]
}

// checkLabels1 looks at the labels of a series of which nothing is to be stored.
func (q *request) checkLabels1(s series) error {
	if err := q.parseLabels1(q.labelBytes(&s)); err != nil {
		return err
	}
	if _, err := q.sets.Series(); err != nil {
		q.report.add(arrival.ReasonInvalidLabels, 1, err)
	}
	return nil
}

// parseLabels1 adds the pairs of a string of label fields to q.sets. It returns
// errGuess where the string is not a whole number of them.
func (q *request) parseLabels1(b []byte) error {
	q.sets.Clear()
	for i := 0; i < len(b); {
		tag, j := tagAt(b, i)
		if j < 0 || tag != 1<<3|wireBytes {
			return errGuess
		}
		message, next := messageAt(b, j, tag)
		if next < 0 {
			return errGuess
		}
		i = next
		if err := q.addLabel1(message, q.tenant.label); err != nil {
			return err
		}
	}
	q.tenant.add(q.sets)
	return nil
}

// addLabel1 adds the pair of a Label message to q.sets, unless its name is the one that
// is left out.
func (q *request) addLabel1(b []byte, leftOut string) error {
	var name, value []byte
	for i := 0; i < len(b); {
		tag, j := tagAt(b, i)
		if j < 0 {
			return errMalformed
		}
		switch tag >> 3 {
		case 1:
			name, i = messageAt(b, j, tag)
		case 2:
			value, i = messageAt(b, j, tag)
		default:
			i = skip(b, j, tag)
		}
		if i < 0 {
			return errMalformed
		}
	}
	if leftOut == "" || text(name) != leftOut {
		q.sets.Add(text(name), text(value))
	}
	return nil
}

// exemplar1 decodes an Exemplar message.
func (q *request) exemplar1(b []byte) error {
	q.sets.Clear()
	var e arrival.Exemplar
	for i := 0; i < len(b); {
		tag, j := tagAt(b, i)
		if j < 0 {
			return errMalformed
		}
		switch tag >> 3 {
		case 1:
			var message []byte
			if message, i = messageAt(b, j, tag); i < 0 {
				return errMalformed
			}
			if err := q.addLabel1(message, ""); err != nil {
				return err
			}
		default:
			if i = exemplarField(&e, b, j, tag); i < 0 {
				return errMalformed
			}
		}
	}
	return q.addExemplar(e)
}
