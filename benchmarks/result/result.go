// Package result keeps what the benchmarks measured, one JSON line for each
// server of each run, and makes the page of tables from these lines.
//
// An Entry is such a line. Its run names the invocation, so that the servers that
// were measured side by side are found together; figures of different runs are
// never put into one ratio. Lines are only ever appended. The page shows the
// newest run of each verb, and nothing that is not in the lines: the same file
// gives the same page.
//
// The functions hold no state. Appending from several processes at once is not
// provided for.
package result

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// Schema is the version of the lines. A reader skips none: it refuses what it does
// not know.
const Schema = 1

// Entry is what one server showed in one run.
type Entry struct {
	Schema  int    `json:"schema"`
	Run     string `json:"run"`  // the same for all servers of an invocation
	Date    string `json:"date"` // RFC 3339, UTC
	Verb    string `json:"verb"`
	Command string `json:"command"`
	Commit  string `json:"commit"`
	Note    string `json:"note,omitempty"`

	Machine Machine `json:"machine"`
	Peer    Peer    `json:"peer"`
	Dataset Dataset `json:"dataset"`

	Ingest  []Ingest  `json:"ingest,omitempty"`
	Memory  []Memory  `json:"memory,omitempty"`
	Restart []Restart `json:"restart,omitempty"`
	Query   *Query    `json:"query,omitempty"`
	Fleet   *Fleet    `json:"fleet,omitempty"`
	// Exporters are fleets of one recording each, Churn are fleets of pods.
	Exporters []Deposit `json:"exporters,omitempty"`
	Churn     []Deposit `json:"churn,omitempty"`
	Year      *Year     `json:"year,omitempty"`
	Forward   *Forward  `json:"forward,omitempty"`
	Pass      *Pass     `json:"pass,omitempty"`
	Inputs    []Input   `json:"inputs,omitempty"`
	Blocks    *Blocks   `json:"blocks,omitempty"`
	// Snapshots are of Varve alone.
	Snapshots *Snapshots `json:"snapshots,omitempty"`
}

// Machine is where the run took place.
type Machine struct {
	Cores       int    `json:"cores"`
	CPU         string `json:"cpu"`
	MemoryBytes int64  `json:"memory_bytes"`
	Kernel      string `json:"kernel"`
	FileSystem  string `json:"file_system"`
	Go          string `json:"go"`
	// Load is the load average of the last minute before the run: what else the
	// machine was doing.
	Load float64 `json:"load"`
}

// Peer is the server.
type Peer struct {
	Name    string `json:"name"`
	Kind    string `json:"kind"`
	Version string `json:"version"`
	RocksDB string `json:"rocksdb,omitempty"`
	Sync    string `json:"sync"`
}

// Dataset is what was sent.
type Dataset struct {
	Seed           uint64  `json:"seed"`
	Series         int     `json:"series"`
	StepMillis     int64   `json:"step_ms"`
	StartMillis    int64   `json:"start_ms"`
	LabelsMean     float64 `json:"labels_mean"`
	LabelBytesMean float64 `json:"label_bytes_mean"`
}

// Ingest is one repetition at one point of connections and samples a request. Its
// times are without the first round, in which the series are new.
type Ingest struct {
	Protocol    int     `json:"protocol"`
	Connections int     `json:"connections"`
	Batch       int     `json:"batch"`
	Repetition  int     `json:"repetition"`
	Samples     int64   `json:"samples"`
	Seconds     float64 `json:"seconds"`

	SamplesPerSecond float64 `json:"samples_per_s"`
	P50Millis        float64 `json:"p50_ms"`
	P99Millis        float64 `json:"p99_ms"`
	MaxMillis        float64 `json:"max_ms"`
	// CPU is the server's while samples came in, CPUSettled also what it went on to
	// do afterwards, both in seconds a million samples; GeneratorCPU is the load
	// generator's own.
	CPU          float64 `json:"cpu_s_per_m"`
	CPUSettled   float64 `json:"cpu_settled_s_per_m"`
	GeneratorCPU float64 `json:"generator_cpu_s_per_m"`
	RSSBytes     int64   `json:"rss_bytes"`
	PeakBytes    int64   `json:"peak_bytes"`
	BodyBytes    float64 `json:"body_bytes_per_sample"`
	DiskBytes    float64 `json:"written_bytes_per_sample"`

	// NewSeriesPerSecond and NewSeriesCPU are of the first round.
	NewSeriesPerSecond float64 `json:"new_series_per_s"`
	NewSeriesCPU       float64 `json:"new_series_cpu_s_per_m"`
	// SamplesPerCommit is how many samples shared a sync, Allocations how many heap
	// objects a sample cost; zero if the server does not say.
	SamplesPerCommit float64 `json:"samples_per_commit,omitempty"`
	Allocations      float64 `json:"allocations_per_sample,omitempty"`
	// SyncP50Millis and SyncP99Millis are of writes with fdatasync, just before.
	SyncP50Millis float64 `json:"fdatasync_p50_ms"`
	SyncP99Millis float64 `json:"fdatasync_p99_ms"`
}

// Memory is what a number of active series takes.
type Memory struct {
	Series    int   `json:"series"`
	Rounds    int   `json:"rounds"`
	RSSBytes  int64 `json:"rss_bytes"`
	PeakBytes int64 `json:"peak_bytes"`
	IdleBytes int64 `json:"idle_bytes"` // before the first sample
	// CacheBytes is what the engine's configured caches and write buffers hold of
	// it, CacheBytesMax what they may grow to; zero if the server does not say.
	CacheBytes    int64 `json:"cache_bytes"`
	CacheBytesMax int64 `json:"cache_bytes_max"`
}

// Restart is the return from kill -9 under load.
type Restart struct {
	Series           int     `json:"series"`
	SamplesPerSecond int     `json:"samples_per_s"` // before the kill
	LoadSeconds      float64 `json:"load_s"`
	WriteSeconds     float64 `json:"write_s"` // from start to the first accepted write
	// QuerySeconds is from start to an answer with every series; negative if none
	// came in time.
	QuerySeconds float64 `json:"query_s"`
	// UsualCPU and FirstCPU are the CPU seconds of a full scrape of all series
	// before the kill and first after a restart.
	UsualCPU float64 `json:"usual_cpu_s"`
	FirstCPU float64 `json:"first_cpu_s"`
	// Acknowledged and Found count samples before and after the kill.
	Acknowledged int64 `json:"acknowledged"`
	Found        int64 `json:"found"`
}

// Query is the dashboard on one server.
type Query struct {
	Samples   int64        `json:"samples"`
	Reference string       `json:"reference"` // the peer whose answers are the measure
	Queries   []QueryPoint `json:"queries"`
}

// QueryPoint is one query. Seconds are the wall clock until the last byte.
type QueryPoint struct {
	Name        string    `json:"name"`
	Query       string    `json:"query"`
	RangeS      int64     `json:"range_s"`
	StepS       int64     `json:"step_s"`
	ColdSeconds []float64 `json:"cold_s"`
	WarmSeconds []float64 `json:"warm_s"`
	WarmCPU     []float64 `json:"warm_cpu_s"`
	Series      int       `json:"series"`
	Points      int64     `json:"points"`
	AnswerBytes int64     `json:"answer_bytes"`
	// Identical says that series, times and value strings equal the reference's.
	// Close says that series and times are equal and values within 1e-9 of it.
	Identical  bool   `json:"identical"`
	Close      bool   `json:"close"`
	Difference string `json:"difference,omitempty"`
	Error      string `json:"error,omitempty"`
}

// Append adds lines to the file, which need not exist.
func Append(path string, entries []Entry) error {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	for _, entry := range entries {
		if err := encoder.Encode(entry); err != nil {
			return fmt.Errorf("append results: %w", err)
		}
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("append results: %w", err)
	}
	_, err = file.Write(text.Bytes())
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("append results: %w", err)
	}
	return nil
}

// lineBytesMax bounds a line.
const lineBytesMax = 4 << 20

// Load reads all lines. A field or a schema it does not know is an error.
func Load(r io.Reader) ([]Entry, error) {
	var entries []Entry
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, lineBytesMax)
	for number := 1; lines.Scan(); number++ {
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		decoder := json.NewDecoder(bytes.NewReader(lines.Bytes()))
		decoder.DisallowUnknownFields()
		var entry Entry
		if err := decoder.Decode(&entry); err != nil {
			return nil, fmt.Errorf("results line %d: %w", number, err)
		}
		if entry.Schema != Schema {
			return nil, fmt.Errorf("results line %d: schema %d, this program reads %d", number, entry.Schema, Schema)
		}
		entries = append(entries, entry)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read results: %w", err)
	}
	return entries, nil
}
