package nats

import (
	"bytes"
	"fmt"
	"unique"

	"github.com/klauspost/compress/s2"
	"github.com/prometheus/prometheus/model/histogram"

	"varve/forward"
	"varve/forward/lineprotocol"
	"varve/forward/writerequest"
)

// Payload is a form of messages.
type Payload string

// The payloads, as the package comment has them.
const (
	PayloadPrometheus Payload = "prometheus"
	PayloadInflux     Payload = "influx"
	PayloadJSON       Payload = "json"
)

// form is what Prepare makes of labels.
type form struct {
	subject unique.Handle[string]
	// encoded is what stands before a sample: labels of a series, measurement and tags, or the beginning of an object.
	encoded    []byte
	histograms *lineprotocol.HistogramSeries // of PayloadInflux if they are written
}

// payload writes messages of one form. It is not changed once made.
type payload struct {
	kind       Payload
	precision  lineprotocol.Precision
	histograms lineprotocol.Histograms
	parts      writerequest.Parts
}

func newPayload(o *Options) (*payload, error) {
	p := &payload{
		kind: o.Payload, precision: o.Precision, histograms: o.InfluxHistograms,
		parts: writerequest.Parts{Histograms: o.Histograms, Exemplars: o.Exemplars, Metadata: o.Metadata},
	}
	switch p.kind {
	case "":
		p.kind = PayloadPrometheus
	case PayloadPrometheus, PayloadInflux, PayloadJSON:
	default:
		return nil, fmt.Errorf("payload is %q, not %s, %s or %s", o.Payload, PayloadPrometheus, PayloadInflux, PayloadJSON)
	}
	if p.kind != PayloadPrometheus {
		p.parts.Exemplars = false
	}
	if p.kind == PayloadInflux {
		p.parts.Histograms = p.histograms != lineprotocol.SkipHistograms
	}
	return p, nil
}

// encode makes what stands before each sample of a target.
func (p *payload) encode(t *forward.Target, f *form) (err error) {
	switch p.kind {
	case PayloadInflux:
		f.encoded = lineprotocol.AppendSeries(nil, t.Labels)
		f.histograms = lineprotocol.NewHistogramSeries(t.Labels, p.histograms)
	case PayloadJSON:
		f.encoded, err = jsonPrefix(t.Labels)
	default:
		f.encoded = writerequest.AppendLabels(nil, t.Labels)
	}
	f.encoded = bytes.Clone(f.encoded)
	return err
}

// skips counts what of a series is not going to be in a message.
func (p *payload) skips(s *forward.Series, o *forward.Outcome) {
	if !p.parts.Histograms {
		o.Skip(lineprotocol.ReasonHistogram, len(s.Histograms))
	}
	if p.kind != PayloadInflux {
		return
	}
	for i := range s.Floats {
		if reason := lineprotocol.Reason(s.Floats[i].Value, s.Floats[i].TimeMillis); reason != "" {
			o.Skip(reason, 1)
		}
	}
	if !p.parts.Histograms {
		return
	}
	for i := range s.Histograms {
		h := &s.Histograms[i]
		_, sum := lineprotocol.CountSum(h.Int, h.Float)
		if reason := lineprotocol.HistogramReason(sum, h.TimeMillis); reason != "" {
			o.Skip(reason, 1)
		}
	}
}

// append appends a series to an uncompressed message. scratch is overwritten.
func (p *payload) append(dst []byte, s *forward.Series, scratch *histogram.FloatHistogram) []byte {
	f := s.Form.(*form)
	switch p.kind {
	case PayloadInflux:
		for i := range s.Floats {
			dst, _ = lineprotocol.AppendSample(dst, f.encoded, s.Floats[i].Value, s.Floats[i].TimeMillis, p.precision)
		}
		for i := range s.Histograms {
			if h := &s.Histograms[i]; p.parts.Histograms {
				dst, _ = f.histograms.Append(dst, h.Int, h.Float, scratch, h.TimeMillis, p.precision)
			}
		}
	case PayloadJSON:
		for i := range s.Floats {
			dst = appendFloat(dst, f.encoded, &s.Floats[i])
		}
		for i := range s.Histograms {
			if p.parts.Histograms {
				dst = appendHistogram(dst, f.encoded, &s.Histograms[i])
			}
		}
	default:
		if !p.parts.Empty(s) {
			dst = writerequest.AppendSeries(dst, f.encoded, s, p.parts)
		}
	}
	return dst
}

// finish is the message as it is published, in buf if it has to be another.
func (p *payload) finish(plain, buf []byte) (message, newBuf []byte) {
	if p.kind != PayloadPrometheus {
		return plain, buf
	}
	if n := s2.MaxEncodedLen(len(plain)); cap(buf) < n {
		buf = make([]byte, n)
	}
	message = s2.EncodeSnappy(buf[:cap(buf)], plain)
	return message, buf
}

// bound is how long an uncompressed message may become before it is tried. Series with a sample or two shrink to a tenth, samples
// alone to a half: then the message is cut again.
func (p *payload) bound(limit int) int {
	if p.kind == PayloadPrometheus {
		return 4 * limit
	}
	return limit
}
