package points

import (
	"bytes"
	"fmt"
	"math"
	"strconv"

	"github.com/klauspost/compress/gzip"
	"google.golang.org/protobuf/encoding/protowire"

	"varve/benchmarks/wire"
)

// Format is how rows are written.
type Format string

const (
	// Influx is line protocol, a line a row, times in nanoseconds.
	Influx Format = "influx"
	// OpenTSDB is an array of JSON objects, one a series, times in milliseconds.
	OpenTSDB Format = "opentsdb"
	// Text is the exposition format with times, a line a series.
	Text Format = "text"
	// OTLP is an ExportMetricsServiceRequest; every other field is a cumulative sum, the
	// others are gauges.
	OTLP Format = "otlp"
	// RemoteWrite is a WriteRequest of remote write 1.0.
	RemoteWrite Format = "prometheus"
)

// Compression is how bodies are compressed.
type Compression string

const (
	Plain  Compression = ""
	Gzip   Compression = "gzip"
	Snappy Compression = "snappy"
)

// ContentType is the header of requests of the format.
func (f Format) ContentType() string {
	switch f {
	case OpenTSDB:
		return "application/json"
	case OTLP, RemoteWrite:
		return "application/x-protobuf"
	default:
		return "text/plain; charset=utf-8"
	}
}

// resourceRows is how many rows share a resource of OTLP. With DevOps that makes
// requests of 1000 points of one resource.
const resourceRows = 100

// Encoder makes request bodies.
type Encoder struct {
	r           *Rows
	format      Format
	rows        int
	compression Compression

	// fixed is what comes before the value, or before the fields, of each series or row.
	fixed [][]byte
	plain []byte
	spare [3][]byte
	slab  wire.Slab
	zip   *gzip.Writer
	out   bytes.Buffer
}

// NewEncoder makes bodies of so many rows, but for the last of a lane.
func (r *Rows) NewEncoder(format Format, rows int, compression Compression) *Encoder {
	e := &Encoder{r: r, format: format, rows: rows, compression: compression}
	if compression == Gzip {
		e.zip = gzip.NewWriter(&e.out) // the default level, as Telegraf and OTLP's exporters
	}
	for row, tags := range r.tags {
		if format == Influx {
			e.fixed = append(e.fixed, appendTags([]byte(r.measurement+","), tags))
			continue
		}
		for field := range r.fields {
			e.fixed = append(e.fixed, e.seriesHead(row, field))
		}
	}
	return e
}

// seriesHead is the part of a series that stays the same from round to round.
func (e *Encoder) seriesHead(row, field int) []byte {
	tags, name := e.r.tags[row], e.r.measurement+"_"+e.r.fields[field]
	var head []byte
	switch e.format {
	case OpenTSDB:
		head = fmt.Appendf(head, `{"metric":"%s.%s","tags":{`, e.r.measurement, e.r.fields[field])
		for i, tag := range tags {
			if i > 0 {
				head = append(head, ',')
			}
			head = fmt.Appendf(head, "%q:%q", tag[0], tag[1])
		}
		return append(head, `},"timestamp":`...)
	case Text:
		head = append(head, name...)
		for i, tag := range tags {
			head = append(head, "{,"[min(i, 1)])
			head = fmt.Appendf(head, "%s=%q", tag[0], tag[1])
		}
		return append(head, "} "...)
	case OTLP:
		for _, tag := range tags {
			head = protowire.AppendTag(head, 7, protowire.BytesType)
			head = protowire.AppendBytes(head, attribute(tag))
		}
		return head
	default:
		head = wire.AppendLabel(head, "__name__", name)
		for _, tag := range tags {
			head = wire.AppendLabel(head, tag[0], tag[1])
		}
		return head
	}
}

// appendTags appends tags and the space after them as line protocol has them. None of
// ours needs escapes.
func appendTags(dst []byte, tags [][2]string) []byte {
	for i, tag := range tags {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(append(append(dst, tag[0]...), '='), tag[1]...)
	}
	return append(dst, ' ')
}

// attribute is a KeyValue with a text.
func attribute(tag [2]string) []byte {
	value := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), tag[1])
	pair := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), tag[0])
	return protowire.AppendBytes(protowire.AppendTag(pair, 2, protowire.BytesType), value)
}

// Rounds encodes the rounds from first to below first+count. The rows are dealt to the
// lanes in blocks; within a lane one round follows the other, and a body may begin in one
// and end in the next. In OTLP a body is of one round, and lanes share no resource, of
// which a server keeps samples too. Samples of the frames count series, not rows.
func (e *Encoder) Rounds(lanes, first, count int) ([][]wire.Frame, error) {
	frames := make([][]wire.Frame, lanes)
	for lane := range lanes {
		from, to := e.share(lane, lanes), e.share(lane+1, lanes)
		e.begin()
		rows := 0
		for round := first; round < first+count; round++ {
			for lo := from; lo < to; {
				hi := min(lo+e.rows-rows, to)
				e.add(lo, hi, round)
				rows += hi - lo
				lo = hi
				last := lo == to && (e.format == OTLP || round == first+count-1)
				if rows < e.rows && !last {
					continue
				}
				frame, err := e.finish(rows*e.r.Fields(), round)
				if err != nil {
					return nil, err
				}
				frames[lane] = append(frames[lane], frame)
				e.begin()
				rows = 0
			}
		}
	}
	return frames, nil
}

// share is the first row of a lane.
func (e *Encoder) share(lane, lanes int) int {
	if e.format != OTLP {
		return e.r.Len() * lane / lanes
	}
	resources := (e.r.Len() + resourceRows - 1) / resourceRows
	return min(e.r.Len(), resources*lane/lanes*resourceRows)
}

// begin begins a body.
func (e *Encoder) begin() {
	e.plain = e.plain[:0]
	if e.format == OpenTSDB {
		e.plain = append(e.plain, '[')
	}
}

// finish completes the body and compresses it.
func (e *Encoder) finish(samples, round int) (wire.Frame, error) {
	if e.format == OpenTSDB {
		e.plain = append(e.plain, ']')
	}
	switch e.compression {
	case Snappy:
		return e.slab.Frame(e.plain, samples, round), nil
	case Gzip:
		e.out.Reset()
		e.zip.Reset(&e.out)
		if _, err := e.zip.Write(e.plain); err != nil {
			return wire.Frame{}, fmt.Errorf("compress a body: %w", err)
		}
		if err := e.zip.Close(); err != nil {
			return wire.Frame{}, fmt.Errorf("compress a body: %w", err)
		}
		return e.slab.Keep(e.out.Bytes(), samples, round), nil
	default:
		return e.slab.Keep(e.plain, samples, round), nil
	}
}

// add writes the rows from lo to below hi in a round.
func (e *Encoder) add(lo, hi, round int) {
	switch e.format {
	case Influx:
		for row := lo; row < hi; row++ {
			e.line(row, round)
		}
	case OTLP:
		for from := lo; from < hi; {
			to := min(hi, (from/resourceRows+1)*resourceRows)
			e.resource(from, to, round)
			from = to
		}
	case OpenTSDB:
		e.each(lo, hi, func(head []byte, row, field int) {
			if len(e.plain) > 1 {
				e.plain = append(e.plain, ',')
			}
			e.plain = strconv.AppendInt(append(e.plain, head...), e.r.Time(row, round), 10)
			e.plain = append(e.plain, `,"value":`...)
			e.plain = append(appendValue(e.plain, e.r.value(row, field, round)), '}')
		})
	case Text:
		e.each(lo, hi, func(head []byte, row, field int) {
			e.plain = append(appendValue(append(e.plain, head...), e.r.value(row, field, round)), ' ')
			e.plain = append(strconv.AppendInt(e.plain, e.r.Time(row, round), 10), '\n')
		})
	default:
		e.each(lo, hi, func(head []byte, row, field int) {
			e.plain = wire.AppendSeries(e.plain, head, e.r.value(row, field, round), e.r.Time(row, round))
		})
	}
}

// each calls with every series of the rows.
func (e *Encoder) each(lo, hi int, series func(head []byte, row, field int)) {
	for row := lo; row < hi; row++ {
		for field := range e.r.fields {
			series(e.fixed[row*len(e.r.fields)+field], row, field)
		}
	}
}

// appendValue appends the shortest decimal that gives the same value.
func appendValue(dst []byte, v float64) []byte { return strconv.AppendFloat(dst, v, 'f', -1, 64) }

// line writes one line of line protocol.
func (e *Encoder) line(row, round int) {
	e.plain = append(e.plain, e.fixed[row]...)
	for field, name := range e.r.fields {
		if field > 0 {
			e.plain = append(e.plain, ',')
		}
		e.plain = append(append(e.plain, name...), '=')
		e.plain = appendValue(e.plain, e.r.value(row, field, round))
	}
	e.plain = strconv.AppendInt(append(e.plain, ' '), e.r.Time(row, round)*1e6, 10)
	e.plain = append(e.plain, '\n')
}

// rising says which fields are sums in OTLP.
func rising(field int) bool { return field%2 == 1 }

// sumPerRound is how much a sum grows from round to round, above what its value wanders.
const sumPerRound = 100

// resource writes a ResourceMetrics with a metric for each field, whose points are the
// rows.
func (e *Encoder) resource(lo, hi, round int) {
	host := strconv.Itoa(lo / resourceRows)
	resource := e.spare[0][:0]
	for _, pair := range [][2]string{{"service.name", "bench"}, {"service.instance.id", "instance-" + host}, {"host.name", "host-" + host}} {
		resource = appendMessage(resource, 1, attribute(pair))
	}
	scope := appendMessage(e.spare[1][:0], 1, protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "bench"))
	for field := range e.r.fields {
		scope = appendMessage(scope, 2, e.metric(field, lo, hi, round))
	}
	message := appendMessage(nil, 1, resource)
	message = appendMessage(message, 2, scope)
	e.plain = appendMessage(e.plain, 1, message)
	e.spare[0], e.spare[1] = resource, scope
}

// metric is a Metric with the points of the rows.
func (e *Encoder) metric(field, lo, hi, round int) []byte {
	data := e.spare[2][:0]
	for row := lo; row < hi; row++ {
		value := e.r.value(row, field, round)
		point := append([]byte(nil), e.fixed[row*len(e.r.fields)+field]...)
		if rising(field) {
			value += sumPerRound * float64(round+1)
			point = protowire.AppendFixed64(protowire.AppendTag(point, 2, protowire.Fixed64Type), uint64(e.r.config.StartMillis*1e6))
		}
		point = protowire.AppendFixed64(protowire.AppendTag(point, 3, protowire.Fixed64Type), uint64(e.r.Time(row, round)*1e6))
		point = protowire.AppendFixed64(protowire.AppendTag(point, 4, protowire.Fixed64Type), math.Float64bits(value))
		data = appendMessage(data, 1, point)
	}
	const cumulative = 2
	number := protowire.Number(5)
	if rising(field) {
		number = 7
		data = protowire.AppendVarint(protowire.AppendTag(data, 2, protowire.VarintType), cumulative)
		data = protowire.AppendVarint(protowire.AppendTag(data, 3, protowire.VarintType), 1)
	}
	e.spare[2] = data
	metric := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), e.r.measurement+"."+e.r.fields[field])
	return appendMessage(metric, number, data)
}

// appendMessage appends a field with a message.
func appendMessage(dst []byte, number protowire.Number, message []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(dst, number, protowire.BytesType), message)
}
