package opentsdb_test

import (
	"context"
	"reflect"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"varve/forward"
	"varve/forward/opentsdb"
	"varve/internal/gate/peers"
	"varve/internal/gate/server"
)

// exported reads all samples back, by the labels that the names of OpenTSDB stand for.
func exported(t *testing.T, vm *peers.Victoria) map[string][]forward.Float {
	t.Helper()
	out := map[string][]forward.Float{}
	for _, series := range vm.Exported(t) {
		text := map[string]string{}
		var err error
		for name, v := range series.Metric {
			if name != "__name__" {
				name, err = opentsdb.Name(name)
				require.NoError(t, err)
			}
			text[name], err = opentsdb.Name(v)
			require.NoError(t, err)
		}
		key := labels.FromMap(text).String()
		for i, v := range series.Values {
			out[key] = append(out[key], forward.Float{TimeMillis: series.Timestamps[i], Value: v})
		}
	}
	return out
}

// What is sent over HTTP and over telnet arrives at VictoriaMetrics sample by sample, with the labels that it stands for. Its
// telnet listener takes all times for seconds, so that milliseconds are for HTTP alone.
func TestVictoriaMetrics(t *testing.T) {
	for name, o := range map[string]opentsdb.Options{
		"http milliseconds": {Milliseconds: true, Gzip: true},
		"http seconds":      {},
		"telnet seconds":    {Protocol: opentsdb.Telnet},
	} {
		t.Run(name, func(t *testing.T) {
			vm := peers.StartVictoria(t)
			o.URL = "http://" + vm.OpenTSDB
			if o.Protocol == opentsdb.Telnet {
				o.URL = vm.Telnet
			}
			s := newSender(t, o)
			b := &forward.Batch{Series: []forward.Series{
				series(t, s, labels.FromStrings("__name__", "up", "job", "a"), 1, 0, -1),
				series(t, s, labels.FromStrings("__name__", "job:rate x_y", "instance", "host:9100", "path", `C:\x "y" é`, "under_score", "_"), 0.5, 1.25, 1000, 1e9),
			}}
			want := map[string][]forward.Float{}
			for _, s := range b.Series {
				for _, f := range s.Floats {
					if !o.Milliseconds {
						f.TimeMillis -= f.TimeMillis % 1000
					}
					want[s.Labels.String()] = append(want[s.Labels.String()], f)
				}
			}
			_, err := s.Send(t.Context(), b)
			require.NoError(t, err)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			var got map[string][]forward.Float
			// Over telnet it answers nothing, and stores a moment after it has read.
			err = server.Wait(ctx, "the samples are there", func() (bool, error) {
				got = exported(t, vm)
				return reflect.DeepEqual(want, got), nil
			})
			require.Equal(t, want, got)
			require.NoError(t, err)
		})
	}
}
