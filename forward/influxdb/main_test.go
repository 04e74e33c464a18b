package influxdb_test

import (
	"encoding/json"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/prometheus/common/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"varve/forward"
	"varve/forward/influxdb"
	"varve/internal/gate/peers"
	"varve/internal/testkit/leaks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(leaks.Patient(m)) }

// patience bounds the wait for what happens in another goroutine or process, which only something that hangs outlasts.
const patience = 2 * time.Minute

// start is when the samples of tests begin, in Unix ms.
const start = 1_700_000_000_000

// newSender returns a sender, closed with the test.
func newSender(t testing.TB, o influxdb.Options) *influxdb.Sender {
	t.Helper()
	o.Name, o.HTTP, o.Timeout = "test", config.DefaultHTTPClientConfig, patience
	s, err := influxdb.New(o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// series is a prepared series with these values, a second apart.
func series(t testing.TB, s forward.Sender, ls labels.Labels, values ...float64) forward.Series {
	t.Helper()
	target := &forward.Target{Labels: ls}
	require.NoError(t, s.Prepare(target))
	out := forward.Series{Target: target}
	for i, v := range values {
		out.Floats = append(out.Floats, forward.Float{TimeMillis: start + int64(i)*1000, Value: v})
	}
	return out
}

// startInflux starts an InfluxDB with the database metrics.
func startInflux(t testing.TB, binary string) *peers.InfluxDB {
	t.Helper()
	influx := peers.StartInfluxDB(t, binary)
	influx.Query(t, "metrics", "CREATE DATABASE metrics")
	return influx
}

// sample is a field's value at the target, with the bits of the float.
type sample struct {
	timeNanos int64
	bits      uint64
}

// stored reads all samples of the field of every measurement back, by measurement and tags.
func stored(t testing.TB, s *peers.InfluxDB, field string) map[string][]sample {
	t.Helper()
	out := map[string][]sample{}
	for _, r := range s.Query(t, "metrics", fmt.Sprintf(`SELECT %q FROM /.*/ GROUP BY *`, field)) {
		key := r.Name
		tags := labels.FromMap(r.Tags)
		tags.Range(func(l labels.Label) {
			if l.Value != "" {
				key += "," + l.Name + "=" + l.Value
			}
		})
		for _, v := range r.Values {
			if v[1] == nil {
				continue
			}
			at, err := v[0].(json.Number).Int64()
			require.NoError(t, err)
			number, err := v[1].(json.Number).Float64()
			require.NoError(t, err)
			out[key] = append(out[key], sample{at, math.Float64bits(number)})
		}
	}
	return out
}

// wanted is what has to be stored of a batch, by the labels.
func wanted(b *forward.Batch) map[string][]sample {
	out := map[string][]sample{}
	for _, s := range b.Series {
		key := s.Labels.Get("__name__")
		s.Labels.Range(func(l labels.Label) {
			if l.Name != "__name__" {
				key += "," + l.Name + "=" + l.Value
			}
		})
		for _, f := range s.Floats {
			if f.Value-f.Value == 0 {
				out[key] = append(out[key], sample{f.TimeMillis * 1_000_000, math.Float64bits(f.Value)})
			}
		}
	}
	return out
}
