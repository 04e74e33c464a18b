package remotewrite_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"github.com/golang/snappy"
	"github.com/stretchr/testify/require"

	"varve/ingest"
)

// hostile is one hostile request.
type hostile struct {
	name    string
	version int
	body    []byte // decoded; wire is made from it unless given
	wire    []byte
	code    int
	// written is how many samples and histograms must be stored.
	written int
	text    string // part of the answer
}

// field writes a length-delimited field.
func field(num int, content ...[]byte) []byte {
	b := bytes.Join(content, nil)
	out := binary.AppendUvarint(nil, uint64(num)<<3|2)
	out = binary.AppendUvarint(out, uint64(len(b)))
	return append(out, b...)
}

// number writes a varint field.
func number(num int, x uint64) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(nil, uint64(num)<<3), x)
}

// double writes a double field.
func double(num int, bits uint64) []byte {
	return binary.LittleEndian.AppendUint64(binary.AppendUvarint(nil, uint64(num)<<3|1), bits)
}

func labelField(name, value string) []byte {
	return field(1, field(1, []byte(name)), field(2, []byte(value)))
}

func sampleField(millis int64, bits uint64) []byte {
	return field(2, double(1, bits), number(2, uint64(millis)))
}

var (
	upLabel   = labelField("__name__", "up")
	oneSample = sampleField(nowMillis, math.Float64bits(1))
	oneBits   = math.Float64bits(1)
)

// series1 is a body of 1.0 with one series.
func series1(parts ...[]byte) []byte { return field(1, parts...) }

// request2 is a body of 2.0 with the usual symbols and one series.
func request2(parts ...[]byte) []byte {
	var b []byte
	for _, s := range symbols2 {
		b = append(b, field(4, []byte(s))...)
	}
	return append(b, field(5, parts...)...)
}

var upRefs = field(1, []byte{1, 2})

// histogramField is a histogram of either version: field 4 in 1.0, 3 in 2.0.
func histogramField(version int, parts ...[]byte) []byte {
	return field(5-version, append(parts, number(15, nowMillis))...)
}

func span(offset int32, length uint64) []byte {
	return field(11, number(1, uint64(uint32(offset<<1)^uint32(offset>>31))), number(2, length))
}

func hostileBodies() []hostile {
	var out []hostile
	add := func(c hostile) { out = append(out, c) }
	both := func(name string, code, written int, text string, body func(version int) []byte) {
		for version := 1; version <= 2; version++ {
			add(hostile{name: name, version: version, body: body(version), code: code, written: written, text: text})
		}
	}
	// wrap puts parts behind the labels of a series.
	wrap := func(version int, parts ...[]byte) []byte {
		if version == 1 {
			return series1(append([][]byte{upLabel}, parts...)...)
		}
		return request2(append([][]byte{upRefs}, parts...)...)
	}

	// Bombs.
	both("millions of empty samples", 413, 0, "too big", func(v int) []byte { return wrap(v, bytes.Repeat([]byte{0x12, 0}, bomb)) })
	both("millions of empty histograms", 413, 0, "too big", func(v int) []byte {
		return wrap(v, bytes.Repeat(field(5-v), bomb))
	})
	both("millions of empty exemplars", 413, 0, "too big", func(v int) []byte {
		return wrap(v, bytes.Repeat(field(2+v), bomb))
	})
	add(hostile{name: "millions of empty symbols", version: 2, body: bytes.Repeat([]byte{0x22, 0}, bomb), code: 413})
	add(hostile{name: "millions of empty series", version: 1, body: bytes.Repeat([]byte{0x0a, 0}, bomb), code: 400, text: "invalid_labels: 100000, invalid_series"})
	add(hostile{name: "millions of empty series", version: 2, body: bytes.Repeat([]byte{0x2a, 0}, bomb), code: 400, text: "invalid_symbols: 100000, invalid_series"})
	add(hostile{name: "millions of empty metadata", version: 1, body: bytes.Repeat([]byte{0x1a, 0}, bomb), code: 413})
	add(hostile{name: "millions of families", version: 1, body: bytes.Repeat(field(3, field(2, []byte("x"))), bomb/2), code: 413})
	both("millions of unknown fields", 204, 1, "", func(v int) []byte {
		return append(wrap(v, oneSample), bytes.Repeat([]byte{0x78, 1}, bomb)...)
	})
	add(hostile{name: "zeros decoded over the limit", version: 1, wire: snappy.Encode(nil, make([]byte, 32<<20+1)), code: 413})
	add(hostile{name: "zeros decoded at the limit", version: 1, wire: snappy.Encode(nil, make([]byte, 10<<20)), code: 400, text: "malformed protobuf"})
	add(hostile{name: "header promises 4 GiB", version: 1, wire: []byte{0xff, 0xff, 0xff, 0xff, 0x0f, 0}, code: 413})
	add(hostile{name: "header promises 2^63", version: 1, wire: []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 0}, code: 400})
	add(hostile{name: "header promises 32 MiB in 6 bytes", version: 2, wire: []byte{0x80, 0x80, 0x80, 0x10, 0, 0}, code: 400})
	add(hostile{name: "header of 11 bytes", version: 1, wire: bytes.Repeat([]byte{0xff}, 11), code: 400})
	add(hostile{name: "copy from before the start", version: 1, wire: []byte{4, 0xfe, 0xff, 0xff}, code: 400})
	add(hostile{name: "copy of offset 0, which only S2 knows", version: 1, wire: []byte{8, 0x0c, 'a', 'b', 'c', 'd', 0x01, 0x00}, code: 400})
	add(hostile{name: "literal longer than the input", version: 1, wire: []byte{100, 0xf0, 0xff, 1}, code: 400})
	add(hostile{name: "block shorter than promised", version: 1, wire: []byte{10, 0x0c, 'a', 'b', 'c', 'd'}, code: 400})
	add(hostile{name: "block longer than promised", version: 1, wire: []byte{2, 0x0c, 'a', 'b', 'c', 'd'}, code: 400})

	// Labels.
	add(hostile{name: "a million labels", version: 1, body: series1(upLabel, bytes.Repeat(labelField("a", "b"), 1_000_000), oneSample), code: 400, text: "1000001 labels, at most 64"})
	add(hostile{name: "a million labels, by reference", version: 2, body: request2(field(1, bytes.Repeat([]byte{1, 2}, 1_000_000)), oneSample), code: 400, text: "more labels than allowed"})
	add(hostile{name: "five million unpacked references", version: 2, body: request2(bytes.Repeat([]byte{0x08, 1}, 5_000_000), oneSample), code: 400, text: "more labels than allowed"})
	add(hostile{name: "ten million labels after the sample", version: 1, body: series1(oneSample, bytes.Repeat([]byte{0x0a, 0}, 10_000_000)), code: 400})
	add(hostile{name: "a value of 1 MiB", version: 1, body: series1(upLabel, labelField("a", strings.Repeat("x", 1<<20)), oneSample), code: 400, text: "1048576 bytes"})
	add(hostile{name: "a name of 1 MiB", version: 1, body: series1(upLabel, labelField(strings.Repeat("x", 1<<20), "a"), oneSample), code: 400, text: "1048576 bytes"})
	add(hostile{name: "a metric name of 20 MiB", version: 1, body: series1(labelField("__name__", strings.Repeat("x", 20<<20)), oneSample), code: 400})
	add(hostile{name: "a symbol of 20 MiB", version: 2, body: append(append(field(4), append(field(4, []byte("__name__")), field(4, make([]byte, 20<<20))...)...), field(5, upRefs, oneSample)...), code: 400})
	both("NUL in a name", 204, 1, "", func(v int) []byte { return withLabel(v, "a\x00b", "x") })
	both("bad UTF-8 in a value", 400, 0, `\xc3(`, func(v int) []byte { return withLabel(v, "a", "\xc3\x28") })
	both("surrogate half in a value", 400, 0, "not UTF-8", func(v int) []byte { return withLabel(v, "a", "\xed\xa0\x80") })
	both("overlong UTF-8", 400, 0, "not UTF-8", func(v int) []byte { return withLabel(v, "a", "\xc0\xaf") })
	both("CRLF in a refused name", 400, 0, `\r\nX-Evil: 1`, func(v int) []byte { return withLabel(v, "\r\nX-Evil: 1\xff", "x") })
	both("terminal escapes in a refused value", 400, 0, `\x1b[31m`, func(v int) []byte { return withLabel(v, "a", "\x1b[31m\xff") })
	both("HTML in a refused value", 400, 0, "", func(v int) []byte { return withLabel(v, "a", "<script>\xff") })
	both("path as a metric name", 204, 1, "", func(v int) []byte { return withLabel(v, "__name__", "../../etc/passwd") })
	add(hostile{name: "label that is not a message", version: 1, body: series1(upLabel, field(1, []byte{0xff}), oneSample), code: 400, text: "malformed protobuf"})
	add(hostile{name: "label whose name is a number", version: 1, body: series1(upLabel, field(1, number(1, 5)), oneSample), code: 400, text: "malformed protobuf"})
	add(hostile{name: "label without name and value", version: 1, body: series1(upLabel, field(1), oneSample), code: 400, text: "without a name"})

	// Numbers.
	for name, millis := range map[string]int64{"MinInt64": math.MinInt64, "MaxInt64": math.MaxInt64, "-1": -1} {
		both("timestamp "+name, 204, 1, "", func(v int) []byte { return wrap(v, sampleField(millis, oneBits)) })
	}
	for name, bits := range map[string]uint64{"stale": 0x7ff0000000000002, "payload": 0xfff8dead0000beef, "signalling": 0x7ff0000000000001, "denormal": 1} {
		both("value "+name, 204, 1, "", func(v int) []byte { return wrap(v, sampleField(nowMillis, bits)) })
	}
	both("varint of 11 bytes", 400, 0, "malformed", func(v int) []byte {
		return wrap(v, field(2, []byte{0x10}, bytes.Repeat([]byte{0xff}, 11)))
	})
	both("cut varint", 400, 0, "malformed", func(v int) []byte { return wrap(v, field(2, []byte{0x10, 0xff})) })
	both("cut double", 400, 0, "malformed", func(v int) []byte { return wrap(v, field(2, []byte{0x09, 1, 2, 3})) })
	both("value as a varint", 400, 0, "malformed", func(v int) []byte { return wrap(v, field(2, number(1, 1))) })
	both("time as a double", 400, 0, "malformed", func(v int) []byte { return wrap(v, field(2, double(2, 1))) })
	both("sample that is a number", 400, 0, "malformed", func(v int) []byte { return wrap(v, number(2, 1)) })
	both("inner length beyond the outer", 400, 0, "malformed", func(v int) []byte { return wrap(v, []byte{0x12, 0x7f, 0x09}) })
	both("inner length of 2^63", 400, 0, "malformed", func(v int) []byte {
		return wrap(v, []byte{0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f})
	})
	both("inner length of 2^64-1", 400, 0, "malformed", func(v int) []byte {
		return wrap(v, []byte{0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	})
	both("field number 0", 400, 0, "malformed", func(v int) []byte { return append(wrap(v, oneSample), 0x02, 0) })
	both("field number 2^40", 400, 0, "malformed", func(v int) []byte {
		return append(wrap(v, oneSample), binary.AppendUvarint(nil, 1<<43)...)
	})
	both("groups", 400, 0, "malformed", func(v int) []byte { return append(wrap(v, oneSample), bytes.Repeat([]byte{0x7b}, 1<<20)...) })
	both("wire type 7", 400, 0, "malformed", func(v int) []byte { return append(wrap(v, oneSample), 0x7f) })
	both("skipped field cut off", 400, 0, "malformed", func(v int) []byte { return append(wrap(v, oneSample), 0x7d, 1, 2) })
	both("unknown type of metadata", 204, 0, "", func(v int) []byte {
		if v == 1 {
			return field(3, number(1, math.MaxUint64), field(2, []byte("up")))
		}
		return request2(upRefs, field(5, number(1, math.MaxUint64), number(3, 5)))
	})

	// Symbols.
	for name, ref := range map[string]uint64{"8": 8, "2^31": 1 << 31, "2^32-1": math.MaxUint32} {
		add(hostile{name: "reference " + name, version: 2, body: request2(field(1, binary.AppendUvarint([]byte{1}, ref)), oneSample), code: 400, text: "outside the table"})
		add(hostile{name: "help " + name, version: 2, body: request2(upRefs, oneSample, field(5, number(3, ref))), code: 400, text: "outside the table"})
		add(hostile{name: "exemplar reference " + name, version: 2, body: request2(upRefs, oneSample, field(4, field(1, binary.AppendUvarint([]byte{1}, ref)))), code: 400, written: 1, text: "outside the table"})
	}
	add(hostile{name: "odd references", version: 2, body: request2(field(1, []byte{1}), oneSample), code: 400, text: "odd number"})
	add(hostile{name: "no symbols", version: 2, body: field(5, upRefs, oneSample), code: 400, text: "invalid_symbols"})
	add(hostile{name: "cut references", version: 2, body: request2(field(1, []byte{1, 0xff}), oneSample), code: 400, text: "malformed"})
	add(hostile{name: "1.0 under the name of 2.0", version: 2, body: series1(upLabel, oneSample), code: 204})
	add(hostile{name: "2.0 under the name of 1.0", version: 1, body: request2(upRefs, oneSample), code: 204})

	// Histograms.
	both("span of 2^31", 400, 0, "invalid_histogram", func(v int) []byte {
		return wrap(v, histogramField(v, number(1, 1), span(0, 1<<31), field(12, []byte{2})))
	})
	both("span of 2^32-1 at schema 52", 400, 0, "invalid_histogram", func(v int) []byte {
		return wrap(v, histogramField(v, number(1, 1), number(4, 104), span(0, math.MaxUint32), field(12, []byte{2})))
	})
	both("a thousand spans of 2^31", 400, 0, "invalid_histogram", func(v int) []byte {
		return wrap(v, histogramField(v, number(1, 1), bytes.Repeat(span(1, 1<<31), 1000)))
	})
	both("a million spans of nothing", 400, 0, "invalid_histogram", func(v int) []byte {
		return wrap(v, histogramField(v, bytes.Repeat([]byte{0x5a, 0}, 1_000_000)))
	})
	both("a million buckets", 400, 0, "invalid_histogram", func(v int) []byte {
		return wrap(v, histogramField(v, span(0, 1_000_000), field(12, make([]byte, 1_000_000))))
	})
	both("20 million buckets", 413, 0, "too big", func(v int) []byte {
		return wrap(v, histogramField(v, span(0, 20_000_000), field(12, make([]byte, 20_000_000))))
	})
	both("negative span offset", 400, 0, "invalid_histogram", func(v int) []byte {
		return wrap(v, histogramField(v, number(1, 2), span(0, 1), span(-5, 1), field(12, []byte{2, 0})))
	})
	both("negative bucket", 400, 0, "invalid_histogram", func(v int) []byte {
		return wrap(v, histogramField(v, number(1, 0), span(0, 1), field(12, []byte{1})))
	})
	both("fewer observations than in buckets", 400, 0, "invalid_histogram", func(v int) []byte {
		return wrap(v, histogramField(v, number(1, 1), span(0, 1), field(12, []byte{4})))
	})
	both("schema 9999", 400, 0, "invalid_histogram", func(v int) []byte { return wrap(v, histogramField(v, number(1, 0), number(4, 19998))) })
	both("schema -100", 400, 0, "invalid_histogram", func(v int) []byte { return wrap(v, histogramField(v, number(1, 0), number(4, 199))) })
	both("custom bounds NaN", 400, 0, "invalid_histogram", func(v int) []byte {
		return wrap(v, histogramField(v, number(1, 0), number(4, 105), double(16, 0x7ff8000000000001)))
	})
	both("custom bounds falling", 400, 0, "invalid_histogram", func(v int) []byte {
		return wrap(v, histogramField(v, number(1, 0), number(4, 105), double(16, math.Float64bits(2)), double(16, math.Float64bits(1))))
	})
	both("reset hint 200", 204, 1, "", func(v int) []byte { return wrap(v, histogramField(v, number(1, 0), number(14, 200))) })
	both("a stale histogram", 204, 1, "", func(v int) []byte { return wrap(v, histogramField(v, number(1, 0), double(3, 0x7ff0000000000002))) })
	both("doubles packed in 7 bytes", 400, 0, "malformed", func(v int) []byte { return wrap(v, histogramField(v, field(13, make([]byte, 7)))) })
	both("cut span", 400, 0, "malformed", func(v int) []byte { return wrap(v, histogramField(v, field(11, []byte{0x08}))) })

	// Exemplars.
	add(hostile{name: "exemplar of 200 characters", version: 1, body: series1(upLabel, oneSample, field(3, labelField("trace_id", strings.Repeat("é", 200)))), code: 400, written: 1, text: "208 characters"})
	add(hostile{name: "exemplar with bad UTF-8", version: 1, body: series1(upLabel, oneSample, field(3, labelField("trace_id", "\xff"))), code: 400, written: 1, text: "invalid_exemplar"})
	add(hostile{name: "exemplar with a label twice", version: 1, body: series1(upLabel, oneSample, field(3, labelField("a", "1"), labelField("a", "2"))), code: 400, written: 1, text: "given twice"})
	return out
}

// bomb is a number of messages of a few bytes each that is far over what any limit
// allows to be kept of them.
const bomb = 4 << 20

// withLabel is a body with one series of one sample and one label more, or with
// another name for the metric.
func withLabel(version int, name, value string) []byte {
	if version == 1 {
		if name == "__name__" {
			return series1(labelField(name, value), oneSample)
		}
		return series1(upLabel, labelField(name, value), oneSample)
	}
	body := append(field(4), field(4, []byte("__name__"))...)
	body = append(body, field(4, []byte("up"))...)
	body = append(body, field(4, []byte(name))...)
	body = append(body, field(4, []byte(value))...)
	if name == "__name__" {
		return append(body, field(5, field(1, []byte{3, 4}), oneSample)...)
	}
	return append(body, field(5, field(1, []byte{1, 2, 3, 4}), oneSample)...)
}

// allocatedMax is four times what a body may have, compressed and decoded. It bounds
// all that is allocated, garbage of growing columns included, so what is held at a
// time is less.
const allocatedMax = 4 * (10 + 32) << 20

// TestHostile sends the corpus: each body gets the status it deserves, the valid part
// of it is stored, the answer is short and printable, no byte of the budget is lost,
// and what a request allocates is bounded by four times the body limits.
func TestHostile(t *testing.T) {
	cases := hostileBodies()
	require.GreaterOrEqual(t, len(cases), 60)
	for _, c := range cases {
		t.Run(fmt.Sprintf("%d %s", c.version, c.name), func(t *testing.T) {
			wire := c.wire
			if wire == nil {
				wire = snappy.Encode(nil, c.body)
			}
			budget := ingest.NewBudget(256 << 20)
			r := newLimitedReceiver(ingest.Limits{InFlight: budget})
			contentType := contentType1
			if c.version == 2 {
				contentType = contentType2
			}
			req := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(wire))
			req.Header.Set("Content-Type", contentType)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			answer := r.send(t, req)
			runtime.ReadMemStats(&after)
			require.LessOrEqual(t, after.TotalAlloc-before.TotalAlloc, uint64(allocatedMax), "allocated")
			require.Equal(t, c.code, answer.code, answer.body)
			require.Contains(t, answer.body, c.text)
			require.LessOrEqual(t, len(answer.body), 1025)
			for _, b := range []byte(strings.TrimSuffix(answer.body, "\n")) {
				require.True(t, b >= ' ' && b < 0x7f, "%q", answer.body)
			}
			require.Zero(t, budget.Used())
			written := 0
			for _, s := range r.sink.Written() {
				written += len(s.Samples) + len(s.Histograms)
			}
			require.Equal(t, c.written, written)
		})
	}
}

// TestHostileUnaltered shows that odd values and times are stored as they came.
func TestHostileUnaltered(t *testing.T) {
	for _, bits := range []uint64{0x7ff0000000000002, 0xfff8dead0000beef, 0x7ff0000000000001, 1, 1 << 63} {
		for _, millis := range []int64{math.MinInt64, math.MaxInt64, -1, 0, nowMillis} {
			for version, body := range map[string][]byte{contentType1: series1(upLabel, sampleField(millis, bits)), contentType2: request2(upRefs, sampleField(millis, bits))} {
				r := newReceiver()
				require.Equal(t, 204, r.post(t, version, snappy.Encode(nil, body)).code)
				s := r.sink.Written()[`{__name__="up"}`].Samples
				require.Len(t, s, 1)
				require.Equal(t, []any{bits, millis}, []any{s[0].Bits, s[0].TimeMillis})
			}
		}
	}
}
