package opentsdb_test

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/common/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/forward"
	"varve/forward/opentsdb"
	"varve/internal/gate/peers"
	"varve/internal/gate/server"
	"varve/internal/testkit"
)

// What an archive holds, before the output begins, while it sends and while it is stopped, is at VictoriaMetrics sample by sample.
func TestArchiveToVictoriaMetrics(t *testing.T) {
	vm := peers.StartVictoria(t)
	t.Run("HTTP", func(t *testing.T) {
		archiveToVictoriaMetrics(t, vm, opentsdb.Options{URL: "http://" + vm.OpenTSDB, Milliseconds: true}, "web")
	})
	t.Run("telnet", func(t *testing.T) {
		archiveToVictoriaMetrics(t, vm, opentsdb.Options{Protocol: opentsdb.Telnet, URL: vm.Telnet}, "telnet")
	})
}

// archiveToVictoriaMetrics sends as the options have it and reads back what has the job.
func archiveToVictoriaMetrics(t *testing.T, vm *peers.Victoria, to opentsdb.Options, job string) {
	o := testkit.Options()
	var now atomic.Int64
	now.Store(time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC).UnixMilli())
	o.Now = func() time.Time { return time.UnixMilli(now.Load()) }
	a := testkit.Open(t, testkit.MemoryDir(t), o)
	var sets []labels.Labels
	for i := range 40 {
		sets = append(sets, labels.FromStrings("__name__", fmt.Sprint("job:metric_", i%7), "job", job, "instance", fmt.Sprintf("host-%d:9100", i)))
	}
	write := func(steps int) {
		for range steps {
			at := now.Add(15_000)
			values := make([]float64, len(sets))
			for i := range values {
				values[i] = float64(at/15_000%1000) + float64(i)/4 // The target keeps few digits.
			}
			testkit.Write(t, a, at, sets, values)
		}
	}
	to.Name, to.HTTP = "tsdb", config.DefaultHTTPClientConfig
	write(100)
	require.NoError(t, a.Maintain(true))
	out := forward.Output{
		Name: "tsdb", Start: archive.Start{All: true}, BatchSamples: 500, BatchDelay: 5 * time.Millisecond, Shards: 3,
		NewSender: func() (forward.Sender, error) {
			return opentsdb.New(to)
		},
	}
	testkit.Forward(t, a, out, func() { write(50) })
	write(50)
	testkit.Forward(t, a, out, func() { write(20) })
	want := map[string][]forward.Float{}
	for _, s := range testkit.ReadBatch(t, a).Series {
		want[s.Labels.String()] = s.Floats
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var got map[string][]forward.Float
	err := server.Wait(ctx, "the samples are there", func() (bool, error) {
		got = exported(t, vm)
		for key, floats := range got {
			if !strings.Contains(key, "job=\""+job+"\"") {
				delete(got, key)
				continue
			}
			// At least once: it keeps what comes twice.
			got[key] = slices.Compact(floats)
		}
		return reflect.DeepEqual(want, got), nil
	})
	require.Equal(t, want, got)
	require.NoError(t, err)
}
