package points_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/klauspost/compress/s2"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"

	"varve/benchmarks/points"
	"varve/benchmarks/wire"
)

// sample is what a body says: the name with a slash before the field, the tags in order,
// the time in milliseconds.
type sample struct {
	name, tags string
	millis     int64
}

// contents are the values by what they are of.
type contents map[sample]float64

func (c contents) put(t *testing.T, s sample, v float64) {
	t.Helper()
	_, there := c[s]
	require.False(t, there, "%v is there twice", s)
	c[s] = v
}

func newRows(t *testing.T, shape points.Shape, series int) *points.Rows {
	t.Helper()
	r, err := points.New(points.Config{Seed: 1, Shape: shape, Series: series, StartMillis: 1_700_000_000_000, StepMillis: 15_000})
	require.NoError(t, err)
	return r
}

// readers read the bodies of each format back, with what is not ours.
var readers = map[points.Format]func(*testing.T, []byte, contents){
	points.Influx: func(t *testing.T, body []byte, to contents) {
		for line := range strings.Lines(string(body)) {
			parts := strings.Split(strings.TrimSuffix(line, "\n"), " ")
			require.Len(t, parts, 3, line)
			name, tags, _ := strings.Cut(parts[0], ",")
			nanos, err := strconv.ParseInt(parts[2], 10, 64)
			require.NoError(t, err)
			for field := range strings.SplitSeq(parts[1], ",") {
				key, value, _ := strings.Cut(field, "=")
				v, err := strconv.ParseFloat(value, 64)
				require.NoError(t, err)
				to.put(t, sample{name + "/" + key, tags, nanos / 1e6}, v)
			}
		}
	},
	points.Text: func(t *testing.T, body []byte, to contents) {
		for line := range strings.Lines(string(body)) {
			name, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "{")
			tags, rest, _ := strings.Cut(rest, "} ")
			value, time, _ := strings.Cut(rest, " ")
			v, err := strconv.ParseFloat(value, 64)
			require.NoError(t, err)
			millis, err := strconv.ParseInt(time, 10, 64)
			require.NoError(t, err)
			to.put(t, sample{strings.Replace(name, "_", "/", 1), strings.ReplaceAll(tags, `"`, ""), millis}, v)
		}
	},
	points.OpenTSDB: func(t *testing.T, body []byte, to contents) {
		var list []struct {
			Metric    string
			Timestamp int64
			Value     float64
			Tags      map[string]string
		}
		require.NoError(t, json.Unmarshal(body, &list))
		for _, p := range list {
			text, err := json.Marshal(p.Tags) // sorted
			require.NoError(t, err)
			tags := strings.NewReplacer(`"`, "", ":", "=", "{", "", "}", "").Replace(string(text))
			to.put(t, sample{strings.Replace(p.Metric, ".", "/", 1), tags, p.Timestamp}, p.Value)
		}
	},
	points.RemoteWrite: func(t *testing.T, body []byte, to contents) {
		var request prompb.WriteRequest
		require.NoError(t, request.Unmarshal(body))
		for _, series := range request.Timeseries {
			require.Equal(t, "__name__", series.Labels[0].Name)
			var tags []string
			for _, label := range series.Labels[1:] {
				tags = append(tags, label.Name+"="+label.Value)
			}
			require.Len(t, series.Samples, 1)
			to.put(t, sample{strings.Replace(series.Labels[0].Value, "_", "/", 1), strings.Join(tags, ","), series.Samples[0].Timestamp}, series.Samples[0].Value)
		}
	},
	points.OTLP: readOTLP,
}

// readOTLP undoes what sums add.
func readOTLP(t *testing.T, body []byte, to contents) {
	request := pmetricotlp.NewExportRequest()
	require.NoError(t, request.UnmarshalProto(body))
	for _, resource := range request.Metrics().ResourceMetrics().All() {
		name, _ := resource.Resource().Attributes().Get("service.name")
		require.Equal(t, "bench", name.Str())
		for _, metric := range resource.ScopeMetrics().At(0).Metrics().All() {
			var list pmetric.NumberDataPointSlice
			sum := metric.Type() == pmetric.MetricTypeSum
			if sum {
				require.True(t, metric.Sum().IsMonotonic())
				require.Equal(t, pmetric.AggregationTemporalityCumulative, metric.Sum().AggregationTemporality())
				list = metric.Sum().DataPoints()
			} else {
				list = metric.Gauge().DataPoints()
			}
			for _, point := range list.All() {
				var tags []string
				for key, value := range point.Attributes().All() {
					tags = append(tags, key+"="+value.Str())
				}
				millis, v := int64(point.Timestamp())/1e6, point.DoubleValue()
				if sum {
					require.EqualValues(t, 1_700_000_000_000*1e6, point.StartTimestamp())
					v -= 100 * float64((millis-1_700_000_000_000)/15_000+1)
				}
				to.put(t, sample{strings.Replace(metric.Name(), ".", "/", 1), strings.Join(tags, ","), millis}, v)
			}
		}
	}
}

// plain is a body as it was before it was compressed.
func plain(t *testing.T, frame wire.Frame, compression points.Compression) []byte {
	t.Helper()
	switch compression {
	case points.Gzip:
		r, err := gzip.NewReader(bytes.NewReader(frame.Body))
		require.NoError(t, err)
		body, err := io.ReadAll(r)
		require.NoError(t, err)
		return body
	case points.Snappy:
		body, err := s2.Decode(nil, frame.Body)
		require.NoError(t, err)
		return body
	default:
		return frame.Body
	}
}

// Shows that all formats say the same of the same rows, every sample once, in bodies of the
// length that was asked for, in order within a lane.
func TestFormats(t *testing.T) {
	const lanes, first, count, batch = 3, 2, 3, 70
	for _, shape := range []points.Shape{points.DevOps, points.Short} {
		r := newRows(t, shape, 4000)
		var want contents
		for _, format := range []points.Format{points.Influx, points.Text, points.OpenTSDB, points.RemoteWrite, points.OTLP} {
			for _, compression := range []points.Compression{points.Plain, points.Gzip, points.Snappy} {
				frames, err := r.NewEncoder(format, batch, compression).Rounds(lanes, first, count)
				require.NoError(t, err)
				require.Len(t, frames, lanes)
				got := contents{}
				for _, lane := range frames {
					round := 0
					for n, frame := range lane {
						before := len(got)
						readers[format](t, plain(t, frame, compression), got)
						require.Equal(t, frame.Samples, len(got)-before)
						require.LessOrEqual(t, frame.Samples, batch*r.Fields())
						require.True(t, format == points.OTLP || n == len(lane)-1 || frame.Samples == batch*r.Fields())
						require.GreaterOrEqual(t, frame.LastRound, round)
						round = frame.LastRound
					}
					require.Equal(t, first+count-1, round)
				}
				require.Len(t, got, r.Series()*count)
				if want == nil {
					want = got
				}
				for s, v := range want {
					if math.Abs(v-got[s]) > 1e-9 {
						require.Equal(t, v, got[s], "%s: %v", format, s)
					}
				}
			}
		}
	}
}

// Shows that lanes of OTLP share no resource, also where there are more lanes than resources.
func TestLanesOfResources(t *testing.T) {
	r := newRows(t, points.DevOps, 2500)
	frames, err := r.NewEncoder(points.OTLP, 100, points.Plain).Rounds(4, 0, 1)
	require.NoError(t, err)
	seen, samples := map[string]int{}, 0
	for lane, list := range frames {
		for _, frame := range list {
			request := pmetricotlp.NewExportRequest()
			require.NoError(t, request.UnmarshalProto(frame.Body))
			samples += frame.Samples
			for _, resource := range request.Metrics().ResourceMetrics().All() {
				id, _ := resource.Resource().Attributes().Get("service.instance.id")
				other, known := seen[id.Str()]
				require.True(t, !known || other == lane)
				seen[id.Str()] = lane
			}
		}
	}
	require.Len(t, seen, 3)
	require.Equal(t, 2500, samples)
}

// Shows that values stay within their bounds, that some stand still and the others move, and
// that equal configurations give equal bytes.
func TestValues(t *testing.T) {
	r := newRows(t, points.DevOps, 1000)
	frames, err := r.NewEncoder(points.Influx, 100, points.Plain).Rounds(1, 0, 20)
	require.NoError(t, err)
	again, err := newRows(t, points.DevOps, 1000).NewEncoder(points.Influx, 100, points.Plain).Rounds(1, 0, 20)
	require.NoError(t, err)
	require.Equal(t, frames, again)
	got := contents{}
	for _, frame := range frames[0] {
		readers[points.Influx](t, frame.Body, got)
	}
	values := map[string]map[float64]bool{}
	for s, v := range got {
		require.GreaterOrEqual(t, v, 0.0)
		require.LessOrEqual(t, v, 100.0)
		key := s.name + s.tags
		if values[key] == nil {
			values[key] = map[float64]bool{}
		}
		values[key][v] = true
	}
	idle := 0
	for _, different := range values {
		if len(different) == 1 {
			idle++
		}
	}
	require.InDelta(t, 1000*3/8, idle, 100)
	require.Equal(t, 11.0, r.LabelsMean())
	require.Positive(t, r.LabelBytesMean())
}

// Shows that selectors are different ones and that each names the series as its format does.
func TestSelectors(t *testing.T) {
	r := newRows(t, points.DevOps, 1000)
	require.Equal(t, `{__name__="cpu.usage_system"}`, r.Selectors(points.OpenTSDB)[1])
	require.Equal(t, `{__name__="cpu_usage_system_total"}`, r.Selectors(points.OTLP)[1])
	require.Equal(t, `{__name__="cpu_usage_system"}`, r.Selectors(points.Influx)[1])
	for _, shape := range []points.Shape{points.DevOps, points.Short} {
		seen := map[string]bool{}
		for _, selector := range newRows(t, shape, 1000).Selectors(points.Influx) {
			require.False(t, seen[selector])
			seen[selector] = true
		}
		require.Len(t, seen, 10)
	}
}

// Shows which configurations are refused.
func TestNewRefuses(t *testing.T) {
	for _, c := range []points.Config{{Shape: "x", Series: 100, StepMillis: 1}, {Shape: points.DevOps, Series: 9, StepMillis: 1}, {Shape: points.Short, Series: 1}} {
		_, err := points.New(c)
		require.ErrorContains(t, err, "points:", fmt.Sprint(c))
	}
}
