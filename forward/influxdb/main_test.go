package influxdb_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"varve/forward"
	"varve/forward/influxdb"
	"varve/internal/gate/server"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start is when the samples of tests begin, in Unix ms.
const start = 1_700_000_000_000

// newSender returns a sender, closed with the test.
func newSender(t testing.TB, o influxdb.Options) *influxdb.Sender {
	t.Helper()
	o.Name, o.HTTP = "test", config.DefaultHTTPClientConfig
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

// influx18 is InfluxDB 1.8, which peers/build.sh leaves in the cache.
func influx18(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("INFLUXD1_8"); path != "" {
		return path
	}
	return server.Peer(t, "influxd-1.8.")
}

// influx16 is Debian's.
func influx16(t testing.TB) string {
	t.Helper()
	path, err := exec.LookPath("influxd")
	if err != nil {
		server.Lacking(t, "no influxd in PATH: apt-get install influxdb")
	}
	return path
}

// startInflux starts an InfluxDB with the database metrics, and a UDP service for it.
func startInflux(t testing.TB, binary string) (s *server.Server, udp string) {
	t.Helper()
	dir := t.TempDir()
	address, err := server.FreeAddress()
	require.NoError(t, err)
	rpc, err := server.FreeAddress()
	require.NoError(t, err)
	udp, err = server.FreeAddress()
	require.NoError(t, err)
	file := filepath.Join(dir, "influxdb.conf")
	require.NoError(t, os.WriteFile(file, []byte(fmt.Sprintf(`reporting-disabled = true
bind-address = %q
[meta]
  dir = %q
[data]
  dir = %q
  wal-dir = %q
[monitor]
  store-enabled = false
[http]
  bind-address = %q
[[udp]]
  enabled = true
  bind-address = %q
  database = "metrics"
  batch-size = 100
  batch-timeout = "50ms"
`, rpc, dir+"/meta", dir+"/data", dir+"/wal", address, udp)), 0o600))
	s, err = server.Start(server.Options{Binary: binary, Args: []string{"run", "-config", file}, Address: address})
	require.NoError(t, err)
	t.Cleanup(s.Kill)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, s.WaitListening(ctx))
	ask(t, s, "CREATE DATABASE metrics")
	return s, udp
}

// row is a series in an answer of InfluxDB.
type row struct {
	Name    string            `json:"name"`
	Tags    map[string]string `json:"tags"`
	Columns []string          `json:"columns"`
	Values  [][]any           `json:"values"`
}

// ask runs a query and returns its rows.
func ask(t testing.TB, s *server.Server, query string) []row {
	t.Helper()
	form := url.Values{"q": {query}, "db": {"metrics"}, "epoch": {"ns"}}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL("/query"), strings.NewReader(form.Encode()))
	require.NoError(t, err)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, 200, resp.StatusCode, string(body))
	var answer struct {
		Results []struct {
			Error  string `json:"error"`
			Series []row  `json:"series"`
		} `json:"results"`
	}
	d := json.NewDecoder(strings.NewReader(string(body)))
	d.UseNumber()
	require.NoError(t, d.Decode(&answer), string(body))
	require.Empty(t, answer.Results[0].Error)
	return answer.Results[0].Series
}

// sample is a field's value at the target, with the bits of the float.
type sample struct {
	timeNanos int64
	bits      uint64
}

// stored reads all samples of the field of every measurement back, by measurement and tags.
func stored(t testing.TB, s *server.Server, field string) map[string][]sample {
	t.Helper()
	out := map[string][]sample{}
	for _, r := range ask(t, s, fmt.Sprintf(`SELECT %q FROM /.*/ GROUP BY *`, field)) {
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
