package peers

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"varve/internal/gate/server"
)

// InfluxDB is an empty InfluxDB 1.x.
type InfluxDB struct {
	*server.Server
	// UDP takes lines for the database metrics; it is host:port.
	UDP string
}

// InfluxDB16 is the path of Debian's.
func InfluxDB16(t testing.TB) string {
	t.Helper()
	return program(t, "influxd", "influxdb")
}

// InfluxDB18 is the path of an InfluxDB 1.8, of the environment variable INFLUXD1_8 or as build.sh left it in the cache.
func InfluxDB18(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("INFLUXD1_8"); path != "" {
		return path
	}
	return server.Peer(t, "influxd-1.8.")
}

// StartInfluxDB starts one. It has no database.
func StartInfluxDB(t testing.TB, binary string) *InfluxDB {
	t.Helper()
	s, at := begin(t, 3, func(at []string) server.Options {
		dir := t.TempDir()
		file := filepath.Join(dir, "influxdb.conf")
		must(t, os.WriteFile(file, fmt.Appendf(nil, `reporting-disabled = true
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
  log-enabled = false
[[udp]]
  enabled = true
  bind-address = %q
  database = "metrics"
  batch-size = 100
  batch-timeout = "50ms"
`, at[1], dir+"/meta", dir+"/data", dir+"/wal", at[0], at[2]), 0o600))
		return server.Options{Binary: binary, Args: []string{"run", "-config", file}}
	}, (*server.Server).WaitListening)
	return &InfluxDB{s, at[2]}
}

// InfluxSeries is a series in an answer of InfluxDB. Times are nanoseconds, numbers json.Number.
type InfluxSeries struct {
	Name    string            `json:"name"`
	Tags    map[string]string `json:"tags"`
	Columns []string          `json:"columns"`
	Values  [][]any           `json:"values"`
}

// Query answers one statement.
func (i *InfluxDB) Query(t testing.TB, database, statement string) []InfluxSeries {
	t.Helper()
	form := url.Values{"q": {statement}, "db": {database}, "epoch": {"ns"}}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, i.URL("/query"), strings.NewReader(form.Encode()))
	must(t, err)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultClient.Do(r)
	must(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	var answer struct {
		Results []struct {
			Error  string         `json:"error"`
			Series []InfluxSeries `json:"series"`
		} `json:"results"`
	}
	d := json.NewDecoder(strings.NewReader(string(body)))
	d.UseNumber()
	must(t, d.Decode(&answer))
	if resp.StatusCode != http.StatusOK || len(answer.Results) != 1 || answer.Results[0].Error != "" {
		t.Fatalf("InfluxDB answers %s with %d: %s", statement, resp.StatusCode, body)
	}
	return answer.Results[0].Series
}
