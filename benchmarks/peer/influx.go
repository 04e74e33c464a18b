package peer

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
)

// InfluxDatabase is where the samples of an InfluxDB go.
const InfluxDatabase = "bench"

// influxConfigFile is the file of an InfluxDB's configuration, in its data directory.
const influxConfigFile = "influxdb.conf"

// influxConfig keeps what an InfluxDB 1.x does by default, apart from addresses,
// directories, reports to its makers and a line of log a request.
func influxConfig(address, side, dataDir string) []byte {
	return fmt.Appendf(nil, `reporting-disabled = true
bind-address = %q
[meta]
dir = %q
[data]
dir = %q
wal-dir = %q
[http]
bind-address = %q
log-enabled = false
[logging]
level = "error"
suppress-logo = true
`, side, filepath.Join(dataDir, "meta"), filepath.Join(dataDir, "data"), filepath.Join(dataDir, "wal"), address)
}

// CreateDatabase makes the database of an InfluxDB.
func (s *Server) CreateDatabase(ctx context.Context) error {
	_, err := s.influxQuery(ctx, "CREATE DATABASE "+InfluxDatabase)
	return err
}

// InfluxCount is how many values of all fields an InfluxDB has of a measurement.
func (s *Server) InfluxCount(ctx context.Context, measurement string) (int64, error) {
	rows, err := s.influxQuery(ctx, fmt.Sprintf("SELECT count(*) FROM %q", measurement))
	if err != nil {
		return 0, err
	}
	total := int64(0)
	for _, row := range rows {
		// The first column is the time.
		for _, count := range row[min(1, len(row)):] {
			n, err := count.Int64()
			if err != nil {
				return 0, fmt.Errorf("ask %s: %w", s.Spec.Name, err)
			}
			total += n
		}
	}
	return total, nil
}

// influxQuery gives the rows of the only statement. Times are numbers.
func (s *Server) influxQuery(ctx context.Context, query string) ([][]json.Number, error) {
	form := url.Values{"q": {query}, "db": {InfluxDatabase}, "epoch": {"ms"}}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.Address+"/query", strings.NewReader(form.Encode()))
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", s.Spec.Name, err)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", s.Spec.Name, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, answerBytesMax))
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", s.Spec.Name, err)
	}
	var answer struct {
		Error   string
		Results []struct {
			Error  string
			Series []struct{ Values [][]json.Number }
		}
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		return nil, fmt.Errorf("ask %s: %w: %.300s", s.Spec.Name, err, text)
	}
	if response.StatusCode != http.StatusOK || len(answer.Results) != 1 || answer.Results[0].Error != "" {
		return nil, fmt.Errorf("ask %s: status %d: %.300s", s.Spec.Name, response.StatusCode, text)
	}
	var rows [][]json.Number
	for _, series := range answer.Results[0].Series {
		rows = append(rows, series.Values...)
	}
	return rows, nil
}
