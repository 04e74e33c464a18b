package ledger

import (
	"fmt"
	"math"

	"github.com/golang/snappy"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
)

// Protocol is a version of remote write.
type Protocol string

// The two versions.
const (
	RemoteWrite1 Protocol = "1.0"
	RemoteWrite2 Protocol = "2.0"
)

// encode returns the compressed body of a request and its content type.
func encode(protocol Protocol, request []Series) (body []byte, contentType string, err error) {
	switch protocol {
	case RemoteWrite1:
		message := message1(request)
		body, err = message.Marshal()
		contentType = "application/x-protobuf"
	case RemoteWrite2:
		message := message2(request)
		body, err = message.Marshal()
		contentType = "application/x-protobuf;proto=io.prometheus.write.v2.Request"
	default:
		err = fmt.Errorf("unknown protocol %q", protocol)
	}
	if err != nil {
		return nil, "", fmt.Errorf("encode a request: %w", err)
	}
	return snappy.Encode(nil, body), contentType, nil
}

func message1(request []Series) *prompb.WriteRequest {
	m := &prompb.WriteRequest{Timeseries: make([]prompb.TimeSeries, len(request))}
	named := map[string]bool{}
	for i := range request {
		s, out := &request[i], &m.Timeseries[i]
		out.Labels = prompb.FromLabels(s.Labels, nil)
		for _, sample := range s.Samples {
			out.Samples = append(out.Samples, prompb.Sample{Timestamp: sample.Millis, Value: math.Float64frombits(sample.Bits)})
		}
		for _, h := range s.Histograms {
			if h.Int != nil {
				out.Histograms = append(out.Histograms, prompb.FromIntHistogram(h.Millis, h.Int))
			} else {
				out.Histograms = append(out.Histograms, prompb.FromFloatHistogram(h.Millis, h.Float))
			}
		}
		for _, e := range s.Exemplars {
			out.Exemplars = append(out.Exemplars, prompb.Exemplar{Labels: prompb.FromLabels(e.Labels, nil), Value: e.Value, Timestamp: e.Ts})
		}
		if name := s.Labels.Get(model.MetricNameLabel); !named[name] {
			named[name] = true
			m.Metadata = append(m.Metadata, prompb.MetricMetadata{
				MetricFamilyName: name, Type: prompb.FromMetadataType(s.Metadata.Type), Help: s.Metadata.Help, Unit: s.Metadata.Unit,
			})
		}
	}
	return m
}

func message2(request []Series) *writev2.Request {
	symbols := writev2.NewSymbolTable()
	m := &writev2.Request{Timeseries: make([]writev2.TimeSeries, len(request))}
	for i := range request {
		s, out := &request[i], &m.Timeseries[i]
		out.LabelsRefs = symbols.SymbolizeLabels(s.Labels, nil)
		for _, sample := range s.Samples {
			out.Samples = append(out.Samples, writev2.Sample{Timestamp: sample.Millis, Value: math.Float64frombits(sample.Bits)})
		}
		for _, h := range s.Histograms {
			if h.Int != nil {
				out.Histograms = append(out.Histograms, writev2.FromIntHistogram(0, h.Millis, h.Int))
			} else {
				out.Histograms = append(out.Histograms, writev2.FromFloatHistogram(0, h.Millis, h.Float))
			}
		}
		for _, e := range s.Exemplars {
			out.Exemplars = append(out.Exemplars, writev2.Exemplar{LabelsRefs: symbols.SymbolizeLabels(e.Labels, nil), Value: e.Value, Timestamp: e.Ts})
		}
		out.Metadata = writev2.Metadata{
			Type: writev2.FromMetadataType(s.Metadata.Type), HelpRef: symbols.Symbolize(s.Metadata.Help), UnitRef: symbols.Symbolize(s.Metadata.Unit),
		}
	}
	m.Symbols = symbols.Symbols()
	return m
}
