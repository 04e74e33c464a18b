package page_test

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"
)

// series is one series with its value at every time.
type series struct {
	labels []prompb.Label
	// value is of a float, hist of a native histogram, at a time in seconds since the beginning of the data.
	value func(seconds float64) float64
	hist  func(seconds float64) *histogram.Histogram
}

// named makes labels of names and values, the metric's first.
func named(metric string, pairs ...string) []prompb.Label {
	out := []prompb.Label{{Name: "__name__", Value: metric}}
	for i := 0; i < len(pairs); i += 2 {
		// Sorted by the caller, as senders have to.
		out = append(out, prompb.Label{Name: pairs[i], Value: pairs[i+1]})
	}
	return out
}

// hostileValue is a label value that would do harm if it was taken for anything but text.
const hostileValue = `</script><img src=x onerror=alert(1)>"'{{7*7}}` + "`" + `<b>bold</b>`

// sines is a turn of the sine, since a year has millions of samples.
var sines = func() (out [4096]float64) {
	for i := range out {
		out[i] = math.Sin(2 * math.Pi * float64(i) / float64(len(out)))
	}
	return out
}()

// sine is that of so many turns, which are not negative. Between two entries of the table it goes straight, so that counters grow.
func sine(turns float64) float64 {
	at := (turns - math.Floor(turns)) * float64(len(sines))
	i := int(at) & (len(sines) - 1)
	return sines[i] + (at-math.Floor(at))*(sines[(i+1)&(len(sines)-1)]-sines[i])
}

const (
	day    = 86400.
	season = 73 * day
)

// wave is between 0 and 1 with the rhythms of a season, a day and some shorter ones.
func wave(seconds, phase float64) float64 {
	return 0.5 + 0.2*sine(seconds/season+phase) + 0.15*sine(seconds/day+phase) + 0.1*sine(seconds/3700+2*phase) + 0.05*sine(seconds/601+phase)
}

// counter grows by a rate a second that swings by the day and by the season.
func counter(rate, phase float64) func(float64) float64 {
	return func(s float64) float64 {
		return math.Floor(rate * (s + 0.4*day/(2*math.Pi)*(1-sine(s/day+phase+0.25)) + 0.4*season/(2*math.Pi)*(1-sine(s/season+phase+0.25))))
	}
}

// fleet is what a Prometheus that scrapes some hosts with node_exporter and two services has, with classic and native histograms and
// with label values and names that are hostile.
func fleet(hosts int) (out []series) {
	float := func(value func(float64) float64, metric string, pairs ...string) {
		out = append(out, series{labels: named(metric, pairs...), value: value})
	}
	modes := []string{"idle", "iowait", "irq", "nice", "softirq", "steal", "system", "user"}
	for h := range hosts {
		instance, phase := fmt.Sprintf("host%d:9100", h), 0.17*float64(h)
		for cpu := range 4 {
			for m, mode := range modes {
				float(counter([]float64{.7, .01, .001, .002, .01, .001, .08, .2}[m], phase+0.1*float64(cpu)), "node_cpu_seconds_total",
					"cpu", strconv.Itoa(cpu), "instance", instance, "job", "node", "mode", mode)
			}
		}
		const memory = 16 << 30
		float(func(float64) float64 { return memory }, "node_memory_MemTotal_bytes", "instance", instance, "job", "node")
		float(func(s float64) float64 { return math.Floor(memory * wave(s, phase)) }, "node_memory_MemAvailable_bytes", "instance", instance, "job", "node")
		float(func(s float64) float64 { return math.Floor(400*wave(s, phase)) / 100 }, "node_load1", "instance", instance, "job", "node")
		float(func(float64) float64 { return 1 }, "up", "instance", instance, "job", "node")
		for d, device := range []string{"eth0", "lo"} {
			float(counter(50_000/float64(1+9*d), phase), "node_network_receive_bytes_total", "device", device, "instance", instance, "job", "node")
			float(counter(20_000/float64(1+9*d), phase+0.3), "node_network_transmit_bytes_total", "device", device, "instance", instance, "job", "node")
		}
		for _, mount := range []string{"/", "/var", "/home"} {
			float(func(s float64) float64 { return math.Floor(4e11 - 1e5*s) }, "node_filesystem_avail_bytes",
				"device", "/dev/sda", "fstype", "ext4", "instance", instance, "job", "node", "mountpoint", mount)
		}
		bounds := []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, math.Inf(1)}
		for b, le := range bounds {
			share := 1 - math.Pow(0.6, float64(b+1))
			if math.IsInf(le, 1) {
				share = 1
			}
			float(counter(20*share, phase), "http_request_duration_seconds_bucket",
				"handler", "/api", "instance", instance, "job", "web", "le", strconv.FormatFloat(le, 'g', -1, 64))
		}
		float(counter(20, phase), "http_request_duration_seconds_count", "handler", "/api", "instance", instance, "job", "web")
		float(counter(2, phase), "http_request_duration_seconds_sum", "handler", "/api", "instance", instance, "job", "web")
		out = append(out, series{labels: named("rpc_latency_seconds", "instance", instance, "job", "web"), hist: native(phase)})
	}
	float(func(s float64) float64 { return math.Floor(100 * wave(s, 0)) }, "hostile_gauge", "job", "web", "path", hostileValue)
	float(func(s float64) float64 { return math.Floor(100 * wave(s, 0.5)) }, "hostile_gauge", `<i>"name"</i>`, "x", "job", "web")
	return out
}

// native is a native histogram whose middle wanders by the day.
func native(phase float64) func(float64) *histogram.Histogram {
	return func(s float64) *histogram.Histogram {
		const buckets = 24
		h := &histogram.Histogram{
			Schema: 2, ZeroThreshold: 1e-128, PositiveSpans: []histogram.Span{{Offset: -16, Length: buckets}}, PositiveBuckets: make([]int64, buckets),
		}
		before := int64(0)
		for i := range buckets {
			off := (float64(i) - 12 - 4*sine(phase)) / 5
			n := int64(s / 10 * math.Exp(-off*off) * (1 + float64(i%3)/10))
			h.PositiveBuckets[i], before = n-before, n
			h.Count += uint64(n)
		}
		h.Sum = float64(h.Count) * 0.06
		return h
	}
}

// samplesOfRequest bounds a request, which is a megabyte or so then.
const samplesOfRequest = 60_000

// send writes the series from one time up to another, both inclusive, by remote write, two requests at a time, and returns how many
// samples there were.
func send(t testing.TB, a *archive, all []series, from, to time.Time, step time.Duration) int64 {
	t.Helper()
	points := int(to.Sub(from)/step) + 1
	// A day at a time, as time went by: runs end with their day.
	chunk := int(24 * time.Hour / step)
	group := max(1, samplesOfRequest/chunk)
	type job struct{ first, last, begin, end int }
	jobs := make(chan job)
	var sent atomic.Int64
	var failed atomic.Pointer[error]
	var workers sync.WaitGroup
	for range 2 {
		workers.Go(func() {
			var plain, packed []byte
			for j := range jobs {
				if failed.Load() != nil {
					continue
				}
				m := requestOf(all[j.first:j.last], from, step, j.begin, j.end)
				if cap(plain) < m.Size() {
					plain = make([]byte, m.Size())
				}
				n, err := m.MarshalToSizedBuffer(plain[:m.Size()])
				if err == nil {
					packed = snappy.Encode(packed[:cap(packed)], plain[:n])
					err = post(a, packed)
				}
				if err != nil {
					failed.Store(&err)
					continue
				}
				sent.Add(int64(j.last-j.first) * int64(j.end-j.begin))
			}
		})
	}
	for begin := 0; begin < points; begin += chunk {
		for first := 0; first < len(all); first += group {
			jobs <- job{first, min(first+group, len(all)), begin, min(begin+chunk, points)}
		}
	}
	close(jobs)
	workers.Wait()
	if err := failed.Load(); err != nil {
		require.NoError(t, *err, "%s", a.Output())
	}
	return sent.Load()
}

// requestOf has the samples of some series, from a point inclusive to another exclusive.
func requestOf(all []series, from time.Time, step time.Duration, begin, end int) *prompb.WriteRequest {
	m := &prompb.WriteRequest{Timeseries: make([]prompb.TimeSeries, len(all))}
	for i := range all {
		s, out := &all[i], &m.Timeseries[i]
		out.Labels = s.labels
		for p := begin; p < end; p++ {
			at := from.Add(time.Duration(p) * step)
			seconds := (time.Duration(p) * step).Seconds()
			if s.hist != nil {
				out.Histograms = append(out.Histograms, prompb.FromIntHistogram(at.UnixMilli(), s.hist(seconds)))
			} else {
				out.Samples = append(out.Samples, prompb.Sample{Timestamp: at.UnixMilli(), Value: s.value(seconds)})
			}
		}
	}
	return m
}

// packed compresses a request.
func packed(body []byte) []byte { return snappy.Encode(nil, body) }

func post(a *archive, body []byte) error {
	answer, err := http.Post(a.URL("/api/v1/write"), "application/x-protobuf", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode/100 != 2 {
		err = fmt.Errorf("write: %d: %s", answer.StatusCode, text)
	}
	return err
}
