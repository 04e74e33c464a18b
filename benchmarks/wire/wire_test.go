package wire_test

import (
	"math"
	"testing"

	"github.com/klauspost/compress/s2"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"varve/benchmarks/wire"
)

// Shows that upstream reads what was written, zeros of both signs and stale markers
// included, and would have written the same bytes.
func TestBody(t *testing.T) {
	labels := wire.AppendLabel(wire.AppendLabel(nil, "__name__", "up"), "instance", string(make([]byte, 300)))
	values := []float64{0, math.Copysign(0, -1), 1.5, math.Float64frombits(0x7ff0000000000002), math.Inf(1)}
	var plain []byte
	for i, v := range values {
		plain = wire.AppendSeries(plain, labels, v, int64(i)*1_700_000_000_000)
	}
	var slab wire.Slab
	frame := slab.Frame(plain, len(values), 7)
	require.Equal(t, 7, frame.LastRound)
	decoded, err := s2.Decode(nil, frame.Body)
	require.NoError(t, err)
	var request prompb.WriteRequest
	require.NoError(t, request.Unmarshal(decoded))
	require.Len(t, request.Timeseries, len(values))
	for i, series := range request.Timeseries {
		require.Equal(t, []prompb.Label{{Name: "__name__", Value: "up"}, {Name: "instance", Value: string(make([]byte, 300))}}, series.Labels)
		require.Equal(t, math.Float64bits(values[i]), math.Float64bits(series.Samples[0].Value))
		require.Equal(t, int64(i)*1_700_000_000_000, series.Samples[0].Timestamp)
	}
}

// Shows that bodies are kept as they are, also beyond what a slab asks for at a time, and that the caller may reuse his.
func TestKeep(t *testing.T) {
	var slab wire.Slab
	body := []byte("abc")
	first := slab.Keep(body, 3, 1)
	body[0] = 'x'
	second := slab.Keep(make([]byte, 40<<20), 4, 2)
	require.Equal(t, wire.Frame{Body: []byte("abc"), Samples: 3, LastRound: 1}, first)
	require.Len(t, second.Body, 40<<20)
	require.Equal(t, 3, cap(first.Body))
}
