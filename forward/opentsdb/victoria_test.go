package opentsdb_test

import (
	"context"
	"encoding/json"
	"net/http"
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"varve/forward"
	"varve/forward/opentsdb"
	"varve/internal/gate/server"
)

// victoria starts Debian's VictoriaMetrics with its two OpenTSDB listeners.
func victoria(t *testing.T) (s *server.Server, http, telnet string) {
	t.Helper()
	path, err := exec.LookPath("victoria-metrics")
	if err != nil {
		server.Lacking(t, "no victoria-metrics in PATH: apt-get install victoria-metrics")
	}
	var addresses [3]string
	for i := range addresses {
		addresses[i], err = server.FreeAddress()
		require.NoError(t, err)
	}
	s, err = server.Start(server.Options{Binary: path, Address: addresses[0], ReadyPath: "/health", Args: []string{
		"-httpListenAddr=" + addresses[0], "-opentsdbHTTPListenAddr=" + addresses[1], "-opentsdbListenAddr=" + addresses[2],
		"-storageDataPath=" + t.TempDir(), "-retentionPeriod=100y", "-search.latencyOffset=0s",
	}})
	require.NoError(t, err)
	t.Cleanup(s.Kill)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, s.WaitReady(ctx))
	return s, addresses[1], addresses[2]
}

// exported reads all samples back, by the labels that the names of OpenTSDB stand for.
func exported(t *testing.T, s *server.Server) map[string][]forward.Float {
	t.Helper()
	ctx := t.Context()
	_, _, err := server.Get(ctx, s.URL("/internal/force_flush"))
	require.NoError(t, err)
	status, body, err := server.Get(ctx, s.URL("/api/v1/export?match[]={__name__!=%22%22}&start=0"))
	http.DefaultClient.CloseIdleConnections()
	require.NoError(t, err)
	require.Equal(t, 200, status)
	out := map[string][]forward.Float{}
	for line := range strings.Lines(string(body)) {
		var series struct {
			Metric     map[string]string `json:"metric"`
			Values     []float64         `json:"values"`
			Timestamps []int64           `json:"timestamps"`
		}
		require.NoError(t, json.Unmarshal([]byte(line), &series), line)
		text := map[string]string{}
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
			vm, web, telnet := victoria(t)
			o.URL = "http://" + web
			if o.Protocol == opentsdb.Telnet {
				o.URL = telnet
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
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
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
