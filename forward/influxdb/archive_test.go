package influxdb_test

import (
	"fmt"
	"math"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/common/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/forward"
	"varve/forward/influxdb"
	"varve/internal/testkit"
)

// What an archive holds when the output begins, what arrives while it sends, and what arrived while it was stopped is at InfluxDB,
// sample by sample as in the archive.
func TestArchiveToInfluxd(t *testing.T) {
	influx, _ := startInflux(t, influx16(t))
	o := testkit.Options()
	var now atomic.Int64
	now.Store(start)
	o.Now = func() time.Time { return time.UnixMilli(now.Load()) }
	a := testkit.Open(t, testkit.MemoryDir(t), o)
	var sets []labels.Labels
	for i := range 40 {
		sets = append(sets, labels.FromStrings("__name__", fmt.Sprint("metric_", i%7), "job", "j", "instance", fmt.Sprint("host ", i, ",=x")))
	}
	write := func(steps int) {
		for range steps {
			at := now.Add(15_000)
			values := make([]float64, len(sets))
			for i := range values {
				values[i] = float64(at%100_000)/7 + float64(i)
			}
			values[3], values[4] = math.NaN(), math.Float64frombits(value.StaleNaN)
			testkit.Write(t, a, at-int64(steps%3)*20_000_000, sets, values)
		}
	}
	write(100)
	require.NoError(t, a.Maintain(true))
	out := forward.Output{
		Name: "influx", Start: archive.Start{All: true}, BatchSamples: 500, BatchDelay: 5 * time.Millisecond, Shards: 3,
		NewSender: func() (forward.Sender, error) {
			return influxdb.New(influxdb.Options{Name: "influx", URL: influx.URL(""), Database: "metrics", Gzip: true, HTTP: config.DefaultHTTPClientConfig})
		},
	}
	testkit.Forward(t, a, out, func() { write(50) })
	write(51)
	testkit.Forward(t, a, out, func() { write(20) })
	require.Equal(t, wanted(testkit.ReadBatch(t, a)), stored(t, influx, "value"))
}
