package sink

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Fields of WriteRequest 1.0 and Request 2.0 that hold series, and of a series, in
// either, that hold samples.
const (
	series1, series2         = 1, 5
	floats1, floats2         = 2, 2
	histograms1, histograms2 = 4, 3
)

// errMessage is a message that is no protobuf.
var errMessage = errors.New("not a protobuf message")

// Count is how many samples a decompressed body holds, floats and native histograms.
// Other fields are passed over. Protocol is 1 or 2.
func Count(body []byte, protocol int) (int, error) {
	series, floats, histograms := uint64(series1), uint64(floats1), uint64(histograms1)
	if protocol == 2 {
		series, floats, histograms = series2, floats2, histograms2
	}
	samples := 0
	for len(body) > 0 {
		field, inner, rest, err := next(body)
		if err != nil {
			return 0, err
		}
		body = rest
		if field != series {
			continue
		}
		for len(inner) > 0 {
			field, _, rest, err := next(inner)
			if err != nil {
				return 0, err
			}
			inner = rest
			if field == floats || field == histograms {
				samples++
			}
		}
	}
	return samples, nil
}

// next reads a field: its number, what it holds if that has a length, and what follows.
func next(b []byte) (field uint64, inner, rest []byte, err error) {
	tag, n := binary.Uvarint(b)
	if n <= 0 {
		return 0, nil, nil, fmt.Errorf("%w: tag", errMessage)
	}
	b = b[n:]
	size := uint64(0)
	switch tag & 7 {
	case 0:
		if _, n = binary.Uvarint(b); n <= 0 {
			return 0, nil, nil, fmt.Errorf("%w: number", errMessage)
		}
		return tag >> 3, nil, b[n:], nil
	case 1:
		size = 8
	case 2:
		if size, n = binary.Uvarint(b); n <= 0 {
			return 0, nil, nil, fmt.Errorf("%w: length", errMessage)
		}
		b = b[n:]
	case 5:
		size = 4
	default:
		return 0, nil, nil, fmt.Errorf("%w: wire type %d", errMessage, tag&7)
	}
	if size > uint64(len(b)) {
		return 0, nil, nil, fmt.Errorf("%w: %d bytes of %d", errMessage, len(b), size)
	}
	return tag >> 3, b[:size], b[size:], nil
}
