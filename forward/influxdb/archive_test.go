package influxdb_test

import (
	"context"
	"fmt"
	"math"
	"reflect"
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
	"varve/internal/gate/peers"
	"varve/internal/gate/server"
	"varve/internal/testkit"
)

// What an archive holds when the output begins, what arrives while it sends, and what arrived while it was stopped is at InfluxDB,
// sample by sample as in the archive, whichever way it is sent.
func TestArchiveToInfluxd(t *testing.T) {
	for name, c := range map[string]struct {
		binary func(testing.TB) string
		// options are where to send to, given the two addresses of the target.
		options func(web, udp string) influxdb.Options
		// lossy tells that some may be lost on the way, which nobody hears of.
		lossy bool
	}{
		"1.6": {peers.InfluxDB16, func(web, _ string) influxdb.Options {
			return influxdb.Options{URL: web, Database: "metrics", Gzip: true}
		}, false},
		"2": {peers.InfluxDB18, func(web, _ string) influxdb.Options {
			return influxdb.Options{Protocol: influxdb.V2, URL: web, Bucket: "metrics", Gzip: true}
		}, false},
		"UDP": {peers.InfluxDB16, func(_, udp string) influxdb.Options {
			return influxdb.Options{Protocol: influxdb.UDP, URL: "udp://" + udp, DatagramBytesMax: 1200}
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			influx := startInflux(t, c.binary(t))
			archiveToInfluxd(t, influx, c.options(influx.URL(""), influx.UDP), c.lossy)
		})
	}
}

func archiveToInfluxd(t *testing.T, influx *peers.InfluxDB, o influxdb.Options, lossy bool) {
	ao := testkit.Options()
	var now atomic.Int64
	now.Store(start)
	ao.Now = func() time.Time { return time.UnixMilli(now.Load()) }
	a := testkit.Open(t, testkit.MemoryDir(t), ao)
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
	o.Name, o.HTTP = "influx", config.DefaultHTTPClientConfig
	out := forward.Output{
		Name: "influx", Start: archive.Start{All: true}, BatchSamples: 500, BatchDelay: 5 * time.Millisecond, Shards: 3,
		NewSender: func() (forward.Sender, error) { return influxdb.New(o) },
	}
	testkit.Forward(t, a, out, func() { write(50) })
	write(51)
	testkit.Forward(t, a, out, func() { write(20) })
	want := wanted(testkit.ReadBatch(t, a))
	var got map[string][]sample
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	// What comes by UDP is stored a moment after it was sent. What the host had no room for is sent again as a new output would.
	times := 0
	err := server.Wait(ctx, "the samples are there", func() (bool, error) {
		got = stored(t, influx, "value")
		if times++; lossy && times%20 == 0 {
			again := out
			again.Name = fmt.Sprint("again", times)
			again.RateLimit = 10_000
			testkit.Forward(t, a, again, nil)
		}
		return reflect.DeepEqual(want, got), nil
	})
	require.Equal(t, want, got)
	require.NoError(t, err)
}
