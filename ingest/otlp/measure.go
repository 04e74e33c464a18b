package otlp

import (
	"encoding/json"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	"varve/ingest"
)

// A message of two bytes becomes a structure of two hundred, and a value may hold a
// list that holds a value, as deep as a body is long. So a body is measured before
// anything is decoded from it: what it will take in memory, and how deep it is.

// depthMax bounds messages within messages. What is in a data point's attribute lies
// at depth 8, and each list or map in its value adds two.
const depthMax = 64

// expansionMax is how much more memory than the largest body a decoded request may
// take. A data point with five attributes has about 180 bytes on the wire and 770
// decoded.
const expansionMax = 6

// errDeep is the class of bodies that are nested deeper than depthMax.
var errDeep = fmt.Errorf("%w: nested too deeply", ingest.ErrMalformed)

// message is a kind of message of OTLP metrics.
type message uint8

const (
	leaf message = iota
	request
	resourceMetrics
	resource
	entityRef
	scopeMetrics
	scope
	metric
	gauge
	sum
	classic
	exponential
	summary
	numberPoint
	classicPoint
	exponentialPoint
	buckets
	summaryPoint
	quantile
	exemplar
	keyValue
	anyValue
	list
	keyValues
	messageCount
)

// shape says what a message takes in memory and which of its fields are messages.
type shape struct {
	// bytes are the decoded structure's own, with its share of the slice it is in.
	bytes  int64
	fields map[protowire.Number]message
	// varints is the field of packed varints, of which one byte decodes to eight.
	varints protowire.Number
}

// The field numbers are those of opentelemetry/proto/metrics/v1 and common/v1, which
// never change; the sizes those of pdata 1.66, rounded up.
var shapes = [messageCount]shape{
	request:          {fields: map[protowire.Number]message{1: resourceMetrics}},
	resourceMetrics:  {bytes: 192, fields: map[protowire.Number]message{1: resource, 2: scopeMetrics, 1000: scopeMetrics}},
	resource:         {bytes: 0, fields: map[protowire.Number]message{1: keyValue, 3: entityRef}},
	entityRef:        {bytes: 128},
	scopeMetrics:     {bytes: 192, fields: map[protowire.Number]message{1: scope, 2: metric}},
	scope:            {bytes: 0, fields: map[protowire.Number]message{3: keyValue}},
	metric:           {bytes: 192, fields: map[protowire.Number]message{5: gauge, 7: sum, 9: classic, 10: exponential, 11: summary, 12: keyValue}},
	gauge:            {bytes: 48, fields: map[protowire.Number]message{1: numberPoint}},
	sum:              {bytes: 48, fields: map[protowire.Number]message{1: numberPoint}},
	classic:          {bytes: 48, fields: map[protowire.Number]message{1: classicPoint}},
	exponential:      {bytes: 48, fields: map[protowire.Number]message{1: exponentialPoint}},
	summary:          {bytes: 48, fields: map[protowire.Number]message{1: summaryPoint}},
	numberPoint:      {bytes: 192, fields: map[protowire.Number]message{7: keyValue, 5: exemplar}},
	classicPoint:     {bytes: 320, fields: map[protowire.Number]message{9: keyValue, 8: exemplar}},
	exponentialPoint: {bytes: 400, fields: map[protowire.Number]message{1: keyValue, 8: buckets, 9: buckets, 11: exemplar}},
	buckets:          {bytes: 0, varints: 2},
	summaryPoint:     {bytes: 192, fields: map[protowire.Number]message{7: keyValue, 6: quantile}},
	quantile:         {bytes: 40},
	exemplar:         {bytes: 200, fields: map[protowire.Number]message{7: keyValue}},
	keyValue:         {bytes: 96, fields: map[protowire.Number]message{2: anyValue}},
	anyValue:         {bytes: 32, fields: map[protowire.Number]message{5: list, 6: keyValues}},
	list:             {bytes: 32, fields: map[protowire.Number]message{1: anyValue}},
	keyValues:        {bytes: 32, fields: map[protowire.Number]message{1: keyValue}},
}

// measureProto returns the bytes that an ExportMetricsServiceRequest will take
// decoded. The error is ingest.ErrMalformed where the messages don't add up.
func measureProto(body []byte) (int64, error) { return measureMessage(body, request, 0) }

func measureMessage(b []byte, m message, depth int) (int64, error) {
	if depth > depthMax {
		return 0, errDeep
	}
	s := &shapes[m]
	total := s.bytes
	for len(b) > 0 {
		number, wire, n := protowire.ConsumeTag(b)
		if n < 0 {
			return 0, malformed(protowire.ParseError(n))
		}
		b = b[n:]
		if wire == protowire.StartGroupType || wire == protowire.EndGroupType {
			return 0, malformed(fmt.Errorf("field %d is a group", number))
		}
		n = protowire.ConsumeFieldValue(number, wire, b)
		if n < 0 {
			return 0, malformed(protowire.ParseError(n))
		}
		child := s.fields[number]
		switch {
		case child != leaf:
			if wire != protowire.BytesType {
				return 0, malformed(fmt.Errorf("field %d is no message", number))
			}
			inner, _ := protowire.ConsumeBytes(b[:n])
			bytes, err := measureMessage(inner, child, depth+1)
			if err != nil {
				return 0, err
			}
			total += bytes
		case number == s.varints:
			total += 8 * int64(n)
		case wire == protowire.BytesType:
			total += int64(n)
		}
		b = b[n:]
	}
	return total, nil
}

func malformed(err error) error { return fmt.Errorf("%w: %w", ingest.ErrMalformed, err) }

// What tokens of a body in JSON take decoded: an object is a structure, and a comma
// may separate two numbers of a list.
const (
	jsonObjectBytes = 256
	jsonCommaBytes  = 8
)

// jsonDepthMax is depthMax as brackets: a value within a value takes three.
const jsonDepthMax = 3 * depthMax

// measureJSON is measureProto for a body in JSON.
func measureJSON(body []byte) (int64, error) {
	if !json.Valid(body) {
		return 0, fmt.Errorf("%w: no valid JSON", ingest.ErrMalformed)
	}
	total := int64(len(body))
	depth := 0
	inString := false
	for i := 0; i < len(body); i++ {
		c := body[i]
		if inString {
			switch c {
			case '\\':
				i++
			case '"':
				inString = false
			}
			continue
		}
		switch c {
		case '"':
			inString = true
		case '{', '[':
			if depth++; depth > jsonDepthMax {
				return 0, errDeep
			}
			if c == '{' {
				total += jsonObjectBytes
			}
		case '}', ']':
			depth--
		case ',':
			total += jsonCommaBytes
		}
	}
	return total, nil
}
