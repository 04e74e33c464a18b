// Package config reads Varve's configuration file.
//
// There is one truth for what can be configured: default.yaml, which is embedded.
// Its comments are the reference that "varve config" prints, its values are the
// defaults, and a test holds that it names every field of Config and explains
// each. A user's file is decoded over it, strictly: a key that doesn't exist, a
// value of the wrong kind and a value out of bounds are each a Mistake with its
// line, and all of them are reported at once.
//
// A Config is plain data: it may be read by several goroutines as long as nobody
// changes it. Secrets in it show themselves to nobody who doesn't call Reveal.
// The package knows none of the parts that it configures; the command turns a
// Config into their options.
package config

import (
	_ "embed"

	"gopkg.in/yaml.v3"
)

//go:embed default.yaml
var defaultYAML []byte

// DefaultYAML returns the default configuration as a commented file.
func DefaultYAML() string { return string(defaultYAML) }

// Config is the whole configuration. What a field means stands in default.yaml.
type Config struct {
	Storage   Storage         `yaml:"storage"`
	Web       Web             `yaml:"web"`
	Query     Query           `yaml:"query"`
	Ingest    Ingest          `yaml:"ingest"`
	Compactor Compactor       `yaml:"compactor"`
	Deletes   Deletes         `yaml:"deletes"`
	Rollups   []Rollup        `yaml:"rollups"`
	Retention []RetentionRule `yaml:"retention"`
	// RetentionSize of zero means no limit.
	RetentionSize Size       `yaml:"retention_size"`
	Inputs        []Input    `yaml:"inputs"`
	Outputs       []Output   `yaml:"outputs"`
	Snapshots     Snapshots  `yaml:"snapshots"`
	Federation    Federation `yaml:"federation"`
	SelfScrape    SelfScrape `yaml:"self_scrape"`
	Canary        Canary     `yaml:"canary"`
	Log           Log        `yaml:"log"`
}

// Storage configures the archive.
type Storage struct {
	Path string `yaml:"path"`
	// Memory may be Auto.
	Memory         Size     `yaml:"memory"`
	Sync           string   `yaml:"sync"`
	SyncInterval   Duration `yaml:"sync_interval"`
	Runs           Runs     `yaml:"runs"`
	Caches         Caches   `yaml:"caches"`
	Journal        Journal  `yaml:"journal"`
	MinFree        Size     `yaml:"min_free"`
	MinFreePercent float64  `yaml:"min_free_percent"`
	Reserve        Size     `yaml:"reserve"`
}

// Runs configures when an open run is cut.
type Runs struct {
	MaxAge  Duration `yaml:"max_age"`
	MaxSize Size     `yaml:"max_size"`
}

// Journal bounds what is kept for outputs that are behind.
type Journal struct {
	MaxSize Size     `yaml:"max_size"`
	MaxAge  Duration `yaml:"max_age"`
	MaxOwed Duration `yaml:"max_owed"`
}

// Caches configures what is remembered of series.
type Caches struct {
	Labels  Size `yaml:"labels"`
	Symbols Size `yaml:"symbols"`
	Clocks  Size `yaml:"clocks"`
}

// Web configures the server and who may use it.
type Web struct {
	ListenAddress   string  `yaml:"listen_address"`
	ExternalURL     string  `yaml:"external_url"`
	ConfigFile      string  `yaml:"config_file"`
	EnableAdminAPI  bool    `yaml:"enable_admin_api"`
	EnableLifecycle bool    `yaml:"enable_lifecycle"`
	MaxConnections  int     `yaml:"max_connections"`
	Tokens          []Token `yaml:"tokens"`
	Rules           []Rule  `yaml:"rules"`
}

// Token is a bearer token, written in the file or in a file of its own.
type Token struct {
	Name      string `yaml:"name"`
	Token     Secret `yaml:"token,omitempty"`
	TokenFile string `yaml:"token_file,omitempty"`
}

// Rule grants groups of endpoints to principals.
type Rule struct {
	Who []string `yaml:"who"`
	May []string `yaml:"may"`
}

// Query bounds queries.
type Query struct {
	Timeout        Duration `yaml:"timeout"`
	MaxSamples     int      `yaml:"max_samples"`
	MaxSeries      int      `yaml:"max_series"`
	MaxSize        Size     `yaml:"max_size"`
	MaxRows        int      `yaml:"max_rows"`
	MaxConcurrency int      `yaml:"max_concurrency"`
	MaxQueue       int      `yaml:"max_queue"`
	MaxQueueWait   Duration `yaml:"max_queue_wait"`
	MaxCores       int      `yaml:"max_cores"`
	LookbackDelta  Duration `yaml:"lookback_delta"`
	// Resolution is auto, raw, strict or a duration.
	Resolution           string `yaml:"resolution"`
	MaxText              Size   `yaml:"max_text"`
	MaxRegex             Size   `yaml:"max_regex"`
	MaxRegexSteps        int    `yaml:"max_regex_steps"`
	MaxNesting           int    `yaml:"max_nesting"`
	MaxForm              Size   `yaml:"max_form"`
	MaxFederatedSeries   int    `yaml:"max_federated_series"`
	MaxRemoteReadSamples int    `yaml:"max_remote_read_samples"`
}

// Ingest bounds writes.
type Ingest struct {
	MaxCompressed    Size     `yaml:"max_compressed"`
	MaxDecoded       Size     `yaml:"max_decoded"`
	MaxInFlight      Size     `yaml:"max_in_flight"`
	MaxSeries        int      `yaml:"max_series"`
	MaxLabels        int      `yaml:"max_labels"`
	MaxLabelName     Size     `yaml:"max_label_name"`
	MaxLabelValue    Size     `yaml:"max_label_value"`
	MaxExemplarChars int      `yaml:"max_exemplar_chars"`
	MaxFuture        Duration `yaml:"max_future"`
	// Overwrites is last or reject.
	Overwrites string `yaml:"overwrites"`
	// MaxTotalSeries and MaxNewSeriesPerMinute of zero mean no limit.
	MaxTotalSeries        int `yaml:"max_total_series"`
	MaxNewSeriesPerMinute int `yaml:"max_new_series_per_minute"`
	// MaxSamplesPerSecond of zero means no limit.
	MaxSamplesPerSecond float64 `yaml:"max_samples_per_second"`
}

// Compactor configures when days are sealed, and how much work that may be.
type Compactor struct {
	Interval     Duration `yaml:"interval"`
	SealDelay    Duration `yaml:"seal_delay"`
	Quiet        Duration `yaml:"quiet"`
	ResealAfter  Duration `yaml:"reseal_after"`
	CPUShare     float64  `yaml:"cpu_share"`
	MaxDropShare float64  `yaml:"max_drop_share"`
}

// Rollup is a resolution at which buckets are kept beside samples.
type Rollup struct {
	Resolution Duration `yaml:"resolution"`
}

// Deletes configures what becomes of deletes.
type Deletes struct {
	Grace Duration `yaml:"grace"`
}

// Federation configures what is handed out to other servers.
type Federation struct {
	ExternalLabels map[string]string `yaml:"external_labels"`
}

// SelfScrape configures the server's own metrics.
type SelfScrape struct {
	Enabled  bool     `yaml:"enabled"`
	Interval Duration `yaml:"interval"`
}

// Log configures the log.
type Log struct {
	Level  string `yaml:"level"`
	Format string `yaml:"format"`
}

// YAML returns the configuration as a file would hold it, with secrets hidden.
func (c *Config) YAML() string {
	out, err := yaml.Marshal(c)
	if err != nil {
		// Plain structs of texts and numbers always marshal; whoever adds a field
		// that doesn't sees it in the first test.
		panic(err)
	}
	return string(out)
}
