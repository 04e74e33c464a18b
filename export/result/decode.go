package result

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"strconv"
	"strings"

	jsoniter "github.com/json-iterator/go"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
)

// decoder reads an answer of query_range as it comes, so that what is too large is noticed before it is held.
type decoder struct {
	grid     Grid
	bytesMax int64

	answer  Answer
	used    int64
	status  string
	failure string
	kind    string
	builder labels.ScratchBuilder
}

// decodeBuffer is how much of an answer is read at a time.
const decodeBuffer = 64 << 10

func (d *decoder) decode(r io.Reader) error {
	it := jsoniter.Parse(jsoniter.ConfigDefault, r, decodeBuffer)
	var partial bool
	it.ReadMapCB(func(it *jsoniter.Iterator, field string) bool {
		switch field {
		case "status":
			d.status = it.ReadString()
		case "error":
			d.failure = it.ReadString()
		case "warnings":
			d.answer.Warnings = remarks(it)
		case "infos":
			d.answer.Infos = remarks(it)
		case "isPartial":
			partial = it.WhatIsNext() == jsoniter.BoolValue && it.ReadBool()
		case "data":
			return d.data(it)
		default:
			it.Skip()
		}
		return it.Error == nil
	})
	switch {
	case it.Error != nil:
		_, network := errors.AsType[net.Error](it.Error)
		switch {
		case errors.Is(it.Error, io.EOF):
			return io.ErrUnexpectedEOF
		case network, errors.Is(it.Error, ErrTooLarge), errors.Is(it.Error, io.ErrUnexpectedEOF), errors.Is(it.Error, context.Canceled), errors.Is(it.Error, context.DeadlineExceeded):
			return it.Error
		}
		// It shows what was found, which may be anything.
		return errors.New(shorten(Line(it.Error.Error()), titleMax))
	case d.status == "error":
		return fmt.Errorf("the server says: %s", Line(d.failure))
	case d.status != "success":
		return errors.New("it is none of Prometheus' API")
	case d.kind != "" && d.kind != "matrix":
		return fmt.Errorf("it is a %s and not a matrix", Line(d.kind))
	}
	if partial {
		d.answer.Warnings = append(d.answer.Warnings, "the server says that its answer is only a part, since some of its data can't be reached")
	}
	return nil
}

// remarks reads a list of texts, of which some are kept.
func remarks(it *jsoniter.Iterator) (out []string) {
	if it.WhatIsNext() != jsoniter.ArrayValue {
		it.Skip()
		return nil
	}
	for it.ReadArray() {
		if text := it.ReadString(); len(out) < remarksMax {
			out = append(out, Line(text))
		}
	}
	return out
}

func (d *decoder) data(it *jsoniter.Iterator) bool {
	if it.WhatIsNext() != jsoniter.ObjectValue {
		it.Skip()
		return it.Error == nil
	}
	return it.ReadMapCB(func(it *jsoniter.Iterator, field string) bool {
		switch field {
		case "resultType":
			d.kind = it.ReadString()
		case "result":
			for it.ReadArray() {
				if !d.series(it) {
					return false
				}
			}
		default:
			it.Skip()
		}
		return it.Error == nil
	})
}

// series reads one element of the matrix.
func (d *decoder) series(it *jsoniter.Iterator) bool {
	var s Series
	ok := it.ReadMapCB(func(it *jsoniter.Iterator, field string) bool {
		switch field {
		case "metric":
			d.builder.Reset()
			it.ReadMapCB(func(it *jsoniter.Iterator, name string) bool {
				if value := it.ReadString(); value != "" {
					d.builder.Add(strings.Clone(name), value)
				}
				return it.Error == nil
			})
			d.builder.Sort()
			s.Labels = d.builder.Labels()
			d.spend(it, s.bytes())
		case "values":
			d.floats(it, &s)
		case "histograms":
			d.histograms(it, &s)
		default:
			it.Skip()
		}
		return it.Error == nil
	})
	if ok && it.Error == nil {
		d.answer.Series = append(d.answer.Series, s)
	}
	return ok && it.Error == nil
}

// spend counts bytes that are kept.
func (d *decoder) spend(it *jsoniter.Iterator, n int64) {
	if d.used += n; d.used > d.bytesMax && it.Error == nil {
		it.Error = fmt.Errorf("%w: it has more than %d MiB of values; narrow the query", ErrTooLarge, d.bytesMax>>20)
	}
}

// fail notes what is wrong with the answer.
func fail(it *jsoniter.Iterator, format string, args ...any) {
	if it.Error == nil {
		it.Error = fmt.Errorf(format, args...)
	}
}

func (d *decoder) floats(it *jsoniter.Iterator, s *Series) {
	for it.ReadArray() {
		t := pairTime(it)
		text := it.ReadString()
		if it.Error != nil {
			return
		}
		v, err := strconv.ParseFloat(text, 64)
		if err != nil && !math.IsInf(v, 0) {
			fail(it, "%q is no value", text)
			return
		}
		endPair(it)
		// Before there is room for it: nothing is allocated for points that weren't sent.
		d.spend(it, pointBytes)
		if it.Error != nil {
			return
		}
		s.Floats = append(s.Floats, promql.FPoint{T: t, F: v})
	}
}

func (d *decoder) histograms(it *jsoniter.Iterator, s *Series) {
	for it.ReadArray() {
		t := pairTime(it)
		if it.Error != nil {
			return
		}
		if it.WhatIsNext() != jsoniter.ObjectValue {
			fail(it, "a histogram is no object")
			return
		}
		var text bytes.Buffer
		if raw := it.SkipAndReturnBytes(); it.Error == nil {
			if err := json.Compact(&text, raw); err != nil {
				fail(it, "a histogram: %w", err)
			}
		}
		endPair(it)
		d.spend(it, int64(histogramBytes+text.Len()))
		if it.Error != nil {
			return
		}
		s.Histograms = append(s.Histograms, Histogram{t, text.Bytes()})
	}
}

// pairTime reads the begin of [time, value], up to the value.
func pairTime(it *jsoniter.Iterator) int64 {
	if !it.ReadArray() {
		fail(it, "a point is empty")
		return 0
	}
	text := string(it.ReadNumber())
	t, err := millisOf(text)
	if err != nil {
		fail(it, "%w", err)
	}
	if !it.ReadArray() {
		fail(it, "a point has no value")
	}
	return t
}

func endPair(it *jsoniter.Iterator) {
	if it.Error == nil && it.ReadArray() {
		fail(it, "a point has more than a time and a value")
	}
}

// millisOf reads seconds, exactly where they are written as Prometheus does.
func millisOf(text string) (int64, error) {
	whole, fraction, _ := strings.Cut(text, ".")
	if n, err := strconv.ParseInt(whole, 10, 64); err == nil && len(fraction) <= 3 && n > -1<<52 && n < 1<<52 {
		rest, err := strconv.ParseUint((fraction + "000")[:3], 10, 16)
		if err == nil {
			if strings.HasPrefix(whole, "-") {
				return n*1000 - int64(rest), nil
			}
			return n*1000 + int64(rest), nil
		}
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(f) || math.Abs(f) > 1e12 {
		return 0, fmt.Errorf("%q is no time", text)
	}
	return int64(math.Round(f * 1000)), nil
}
