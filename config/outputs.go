package config

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"

	commonconfig "github.com/prometheus/common/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	"github.com/prometheus/prometheus/promql/parser"
	"gopkg.in/yaml.v3"
)

// Output is one system that what comes in is forwarded to. What a field means stands in default.yaml.
type Output struct {
	Name string `yaml:"name"`
	// Start is now, beginning or a time in RFC 3339.
	Start          string            `yaml:"start,omitempty"`
	FilterInclude  []string          `yaml:"filter_include,omitempty"`
	FilterExclude  []string          `yaml:"filter_exclude,omitempty"`
	RelabelConfigs []*relabel.Config `yaml:"relabel_configs,omitempty"`
	ExternalLabels map[string]string `yaml:"external_labels,omitempty"`
	Queries        []OutputQuery     `yaml:"queries,omitempty"`
	QueriesOnly    bool              `yaml:"queries_only,omitempty"`

	BatchSamples  int      `yaml:"batch_samples,omitempty"`
	BatchDelay    Duration `yaml:"batch_delay,omitempty"`
	Shards        int      `yaml:"shards,omitempty"`
	RateLimit     float64  `yaml:"rate_limit,omitempty"`
	Timeout       Duration `yaml:"timeout,omitempty"`
	MinBackoff    Duration `yaml:"min_backoff,omitempty"`
	MaxBackoff    Duration `yaml:"max_backoff,omitempty"`
	MaxInFlight   Size     `yaml:"max_in_flight,omitempty"`
	BacklogPolicy string   `yaml:"backlog_policy,omitempty"`
	BacklogSize   Size     `yaml:"backlog_size,omitempty"`
	BacklogAge    Duration `yaml:"backlog_age,omitempty"`

	RemoteWrite   *RemoteWriteOutput   `yaml:"remote_write,omitempty"`
	InfluxDB      *InfluxDBOutput      `yaml:"influxdb,omitempty"`
	OpenTSDB      *OpenTSDBOutput      `yaml:"opentsdb,omitempty"`
	NATS          *NATSOutput          `yaml:"nats,omitempty"`
	CCMetricStore *CCMetricStoreOutput `yaml:"cc_metric_store,omitempty"`

	// Fingerprint tells outputs apart that are written differently, secrets included.
	Fingerprint string `yaml:"-"`
}

// OutputQuery is a query whose results an output is sent.
type OutputQuery struct {
	Name     string            `yaml:"name"`
	Query    string            `yaml:"query"`
	Metric   string            `yaml:"metric,omitempty"`
	Labels   map[string]string `yaml:"labels,omitempty"`
	Interval Duration          `yaml:"interval,omitempty"`
	Delay    Duration          `yaml:"delay,omitempty"`
}

// RemoteWriteOutput is a receiver of remote write.
type RemoteWriteOutput struct {
	URL                  *commonconfig.URL             `yaml:"url"`
	ProtobufMessage      string                        `yaml:"protobuf_message,omitempty"`
	SendMetadata         *bool                         `yaml:"send_metadata,omitempty"`
	SendExemplars        *bool                         `yaml:"send_exemplars,omitempty"`
	SendNativeHistograms *bool                         `yaml:"send_native_histograms,omitempty"`
	Headers              map[string]string             `yaml:"headers,omitempty"`
	HTTP                 commonconfig.HTTPClientConfig `yaml:",inline"`
}

// InfluxDBOutput is a receiver of line protocol.
type InfluxDBOutput struct {
	URL *commonconfig.URL `yaml:"url"`
	// Version is 1, 2 or udp.
	Version            string                        `yaml:"version,omitempty"`
	Database           string                        `yaml:"database,omitempty"`
	RetentionPolicy    string                        `yaml:"retention_policy,omitempty"`
	Consistency        string                        `yaml:"consistency,omitempty"`
	User               string                        `yaml:"user,omitempty"`
	Password           commonconfig.Secret           `yaml:"password,omitempty"`
	Org                string                        `yaml:"org,omitempty"`
	Bucket             string                        `yaml:"bucket,omitempty"`
	Token              commonconfig.Secret           `yaml:"token,omitempty"`
	TokenFile          string                        `yaml:"token_file,omitempty"`
	Precision          string                        `yaml:"precision,omitempty"`
	Gzip               *bool                         `yaml:"gzip,omitempty"`
	Histograms         string                        `yaml:"native_histograms,omitempty"`
	MeasurementLabel   string                        `yaml:"measurement_label,omitempty"`
	DefaultMeasurement string                        `yaml:"default_measurement,omitempty"`
	DropLabels         []string                      `yaml:"drop_labels,omitempty"`
	MaxDatagram        Size                          `yaml:"max_datagram,omitempty"`
	HTTP               commonconfig.HTTPClientConfig `yaml:",inline"`
}

// Routed tells that rows of several metrics are joined.
func (i *InfluxDBOutput) Routed() bool { return i.MeasurementLabel != "" || i.DefaultMeasurement != "" }

// OpenTSDBOutput is an OpenTSDB.
type OpenTSDBOutput struct {
	// URL is of http or https, or telnet://HOST:PORT.
	URL          *commonconfig.URL             `yaml:"url"`
	Sync         bool                          `yaml:"sync,omitempty"`
	Milliseconds bool                          `yaml:"milliseconds,omitempty"`
	Gzip         bool                          `yaml:"gzip,omitempty"`
	MaxTags      int                           `yaml:"max_tags,omitempty"`
	KeepLabels   []string                      `yaml:"keep_labels,omitempty"`
	DefaultTag   map[string]string             `yaml:"default_tag,omitempty"`
	HTTP         commonconfig.HTTPClientConfig `yaml:",inline"`
}

// NATSConnection is how a NATS server is reached.
type NATSConnection struct {
	URLs            []string                `yaml:"urls"`
	User            string                  `yaml:"user,omitempty"`
	Password        commonconfig.Secret     `yaml:"password,omitempty"`
	PasswordFile    string                  `yaml:"password_file,omitempty"`
	Token           commonconfig.Secret     `yaml:"token,omitempty"`
	TokenFile       string                  `yaml:"token_file,omitempty"`
	CredentialsFile string                  `yaml:"credentials_file,omitempty"`
	NKeyFile        string                  `yaml:"nkey_file,omitempty"`
	TLS             *commonconfig.TLSConfig `yaml:"tls_config,omitempty"`
}

// NATSOutput is a NATS server or cluster, with JetStream unless Core is set.
type NATSOutput struct {
	NATSConnection       `yaml:",inline"`
	Subject              string      `yaml:"subject"`
	Payload              string      `yaml:"payload,omitempty"`
	Core                 bool        `yaml:"core,omitempty"`
	Stream               *NATSStream `yaml:"stream,omitempty"`
	RewindWindow         Duration    `yaml:"rewind_window,omitempty"`
	SendMetadata         *bool       `yaml:"send_metadata,omitempty"`
	SendExemplars        *bool       `yaml:"send_exemplars,omitempty"`
	SendNativeHistograms *bool       `yaml:"send_native_histograms,omitempty"`
	Precision            string      `yaml:"precision,omitempty"`
	Histograms           string      `yaml:"native_histograms,omitempty"`
	MaxPayload           Size        `yaml:"max_payload,omitempty"`
}

// NATSStream is the stream of an output.
type NATSStream struct {
	Name       string   `yaml:"name,omitempty"`
	Create     bool     `yaml:"create,omitempty"`
	Subjects   []string `yaml:"subjects,omitempty"`
	Memory     bool     `yaml:"memory,omitempty"`
	Replicas   int      `yaml:"replicas,omitempty"`
	Duplicates Duration `yaml:"duplicates,omitempty"`
	MaxAge     Duration `yaml:"max_age,omitempty"`
	MaxSize    Size     `yaml:"max_size,omitempty"`
}

// CCMetricStoreOutput is ClusterCockpit's metric store, over HTTP or NATS.
type CCMetricStoreOutput struct {
	URL           *commonconfig.URL             `yaml:"url,omitempty"`
	NATS          *NATSConnection               `yaml:"nats,omitempty"`
	Subject       string                        `yaml:"subject,omitempty"`
	Cluster       string                        `yaml:"cluster"`
	StoreConfig   string                        `yaml:"store_config,omitempty"`
	HostnameLabel string                        `yaml:"hostname_label,omitempty"`
	HostnameRegex string                        `yaml:"hostname_regex,omitempty"`
	Metrics       []CCMetric                    `yaml:"metrics"`
	Token         commonconfig.Secret           `yaml:"token,omitempty"`
	TokenFile     string                        `yaml:"token_file,omitempty"`
	Seed          commonconfig.Secret           `yaml:"seed,omitempty"`
	SeedFile      string                        `yaml:"seed_file,omitempty"`
	TokenLife     Duration                      `yaml:"token_life,omitempty"`
	HTTP          commonconfig.HTTPClientConfig `yaml:",inline"`
}

// CCMetric is a row of the table of metrics. With Query it is what the query gives, else what the selector selects.
type CCMetric struct {
	Name       string   `yaml:"name"`
	Selector   string   `yaml:"selector,omitempty"`
	Query      string   `yaml:"query,omitempty"`
	Type       string   `yaml:"type,omitempty"`
	IDLabel    string   `yaml:"id_label,omitempty"`
	IDRegex    string   `yaml:"id_regex,omitempty"`
	SubType    string   `yaml:"subtype,omitempty"`
	SubIDLabel string   `yaml:"subtype_id_label,omitempty"`
	SubIDRegex string   `yaml:"subtype_id_regex,omitempty"`
	Scale      float64  `yaml:"scale,omitempty"`
	Frequency  Duration `yaml:"frequency,omitempty"`
	Delay      Duration `yaml:"delay,omitempty"`
}

// The words of an output.
const (
	StartNow       = "now"
	StartBeginning = "beginning"
	CatchUp        = "catch_up"
	DropOldest     = "drop_oldest"
)

// StartTime is where a new cursor begins: all tells that it is the beginning, and a zero time without it now.
func (o *Output) StartTime() (at time.Time, all bool, err error) {
	switch o.Start {
	case "", StartNow:
		return at, false, nil
	case StartBeginning:
		return at, true, nil
	}
	at, err = time.Parse(time.RFC3339, o.Start)
	if err != nil {
		return at, false, fmt.Errorf("%q is neither now nor beginning nor a time such as 2025-01-31T00:00:00Z", o.Start)
	}
	return at, false, nil
}

// Kind is the key of what the output writes to; empty unless it is one.
func (o *Output) Kind() string {
	kinds := o.kinds()
	if len(kinds) != 1 {
		return ""
	}
	return kinds[0]
}

func (o *Output) kinds() (kinds []string) {
	for kind, set := range map[string]bool{
		"remote_write": o.RemoteWrite != nil, "influxdb": o.InfluxDB != nil, "opentsdb": o.OpenTSDB != nil, "nats": o.NATS != nil, "cc_metric_store": o.CCMetricStore != nil,
	} {
		if set {
			kinds = append(kinds, kind)
		}
	}
	return kinds
}

// selectors parses selectors of series.
func selectors(texts []string) ([][]*labels.Matcher, error) {
	p := parser.NewParser(parser.Options{})
	var all [][]*labels.Matcher
	for _, text := range texts {
		ms, err := p.ParseMetricSelector(text)
		if err != nil {
			return nil, fmt.Errorf("%q is not a selector such as {job=\"node\"}: %w", text, err)
		}
		all = append(all, ms)
	}
	return all, nil
}

// Filters are the matchers of what is included and what is excluded.
func (o *Output) Filters() (include, exclude [][]*labels.Matcher, err error) {
	if include, err = selectors(o.FilterInclude); err != nil {
		return nil, nil, err
	}
	exclude, err = selectors(o.FilterExclude)
	return include, exclude, err
}

// Matchers are those of the metric's selector, nil without one.
func (m *CCMetric) Matchers() ([]*labels.Matcher, error) {
	if m.Selector == "" {
		return nil, nil
	}
	all, err := selectors([]string{m.Selector})
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

// fingerprint sets the fingerprints of the outputs and inputs that the file has.
func fingerprint(data []byte, c *Config) {
	for i, f := range fingerprints(data, "outputs") {
		c.Outputs[i].Fingerprint = f
	}
	for i, f := range fingerprints(data, "inputs") {
		c.Inputs[i].Fingerprint = f
	}
}

func hasAlias(n *yaml.Node) bool {
	return n.Kind == yaml.AliasNode || slices.ContainsFunc(n.Content, hasAlias)
}

// outputName is what names a cursor, a metric's label and a file of dead letters.
var outputName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}$`)

func (v *validator) checkOutputs(outputs []Output, journal *Journal) {
	for i := range outputs {
		o := &outputs[i]
		if o.BacklogPolicy == DropOldest && o.BacklogSize > journal.MaxSize {
			// What is trimmed from the journal isn't counted by size any more.
			v.mistake(fmt.Sprintf("outputs.%d.backlog_size", i), "%s is more than the journal keeps: use at most storage.journal.max_size, %s", o.BacklogSize, journal.MaxSize)
		}
		path := fmt.Sprintf("outputs.%d", i)
		if !outputName.MatchString(o.Name) {
			v.mistake(path+".name", "%q is not a name: use up to 64 letters, digits, dots, dashes and underscores", o.Name)
		}
		if slices.ContainsFunc(outputs[:i], func(b Output) bool { return b.Name == o.Name }) {
			v.mistake(path+".name", "two outputs are called %q", o.Name)
		}
		v.checkOutput(path, o)
		v.checkKind(path, o)
	}
}

func (v *validator) checkOutput(path string, o *Output) {
	if _, _, err := o.StartTime(); err != nil {
		v.mistake(path+".start", "%v", err)
	}
	if len(o.FilterInclude) > 0 && len(o.FilterExclude) > 0 {
		v.mistake(path+".filter_exclude", "filter_include and filter_exclude exclude each other")
	}
	if _, err := selectors(o.FilterInclude); err != nil {
		v.mistake(path+".filter_include", "%v", err)
	}
	if _, err := selectors(o.FilterExclude); err != nil {
		v.mistake(path+".filter_exclude", "%v", err)
	}
	v.checkRelabel(path, o.RelabelConfigs)
	v.checkLabelNames(path+".external_labels", o.ExternalLabels)
	within(v, path+".batch_samples", o.BatchSamples, 0, 1_000_000)
	within(v, path+".batch_delay", o.BatchDelay, 0, minute)
	within(v, path+".shards", o.Shards, 0, 256)
	within(v, path+".rate_limit", o.RateLimit, 0, 1e12)
	within(v, path+".timeout", o.Timeout, 0, 60*minute)
	within(v, path+".min_backoff", o.MinBackoff, 0, 60*minute)
	if o.MaxBackoff != 0 {
		within(v, path+".max_backoff", o.MaxBackoff, max(o.MinBackoff, second/1000), day)
	}
	within(v, path+".max_in_flight", o.MaxInFlight, 0, gib)
	if o.BacklogPolicy != "" {
		oneOf(v, path+".backlog_policy", o.BacklogPolicy, CatchUp, DropOldest)
	}
	if o.BacklogPolicy == DropOldest && o.BacklogSize == 0 && o.BacklogAge == 0 {
		v.mistake(path+".backlog_policy", "drop_oldest needs backlog_size or backlog_age")
	}
	within(v, path+".backlog_size", o.BacklogSize, 0, math.MaxInt64)
	within(v, path+".backlog_age", o.BacklogAge, 0, 3650*day)
	v.checkQueries(path+".queries", o.Queries)
}

func (v *validator) checkQueries(path string, queries []OutputQuery) {
	p := parser.NewParser(parser.Options{})
	for i, q := range queries {
		at := fmt.Sprintf("%s.%d", path, i)
		if q.Name == "" || slices.ContainsFunc(queries[:i], func(b OutputQuery) bool { return b.Name == q.Name }) {
			v.mistake(at+".name", "each query needs a name of its own")
		}
		if _, err := p.ParseExpr(q.Query); err != nil {
			v.mistake(at+".query", "%v", err)
		}
		within(v, at+".interval", q.Interval, second, day)
		within(v, at+".delay", q.Delay, 0, day)
	}
}

// checkKind checks what is written to. What the sender itself finds wrong is found when it is made.
func (v *validator) checkKind(path string, o *Output) {
	kinds := o.kinds()
	if len(kinds) != 1 {
		v.mistake(path, "an output writes to one of remote_write, influxdb, opentsdb, nats and cc_metric_store; it has %d of them", len(kinds))
		return
	}
	at := path + "." + kinds[0]
	switch {
	case o.RemoteWrite != nil:
		v.checkURL(at, o.RemoteWrite.URL, "http", "https")
		v.checkHTTP(at, &o.RemoteWrite.HTTP)
	case o.InfluxDB != nil:
		i := o.InfluxDB
		if i.Version != "" {
			oneOf(v, at+".version", i.Version, "1", "2", "udp")
		}
		if i.Version == "udp" {
			v.checkURL(at, i.URL, "udp")
		} else {
			v.checkURL(at, i.URL, "http", "https")
		}
		i.TokenFile = v.file(i.TokenFile)
		v.checkHTTP(at, &i.HTTP)
	case o.OpenTSDB != nil:
		v.checkURL(at, o.OpenTSDB.URL, "http", "https", "telnet")
		if len(o.OpenTSDB.DefaultTag) > 1 {
			v.mistake(at+".default_tag", "it is one name with its value")
		}
		v.checkHTTP(at, &o.OpenTSDB.HTTP)
	case o.NATS != nil:
		v.checkNATS(at, &o.NATS.NATSConnection)
		if o.NATS.Subject == "" {
			v.mistake(at+".subject", "a subject is needed, such as varve.{__name__}")
		}
	case o.CCMetricStore != nil:
		v.checkCCMetricStore(at, o)
	}
}

func (v *validator) checkCCMetricStore(at string, o *Output) {
	c := o.CCMetricStore
	switch {
	case (c.URL == nil) == (c.NATS == nil):
		v.mistake(at, "it needs either url or nats")
	case c.NATS != nil:
		v.checkNATS(at+".nats", c.NATS)
		if c.Subject == "" {
			v.mistake(at+".subject", "NATS needs the subject that the store listens to")
		}
	default:
		v.checkURL(at, c.URL, "http", "https")
	}
	if len(c.Metrics) == 0 {
		v.mistake(at+".metrics", "without metrics nothing is written")
	}
	for i := range c.Metrics {
		m := &c.Metrics[i]
		row := fmt.Sprintf("%s.metrics.%d", at, i)
		if m.Name == "" {
			v.mistake(row+".name", "the store's name of the metric is needed")
		}
		if m.Selector != "" && m.Query != "" {
			v.mistake(row+".query", "selector and query exclude each other")
		}
		if _, err := m.Matchers(); err != nil {
			v.mistake(row+".selector", "%v", err)
		}
		if m.Query != "" {
			v.checkQueries(row, []OutputQuery{{Name: m.Name, Query: m.Query, Interval: m.Frequency, Delay: m.Delay}})
		}
	}
	c.TokenFile, c.SeedFile, c.StoreConfig = v.file(c.TokenFile), v.file(c.SeedFile), v.file(c.StoreConfig)
	v.checkHTTP(at, &c.HTTP)
}

func (v *validator) checkNATS(at string, n *NATSConnection) {
	if len(n.URLs) == 0 {
		v.mistake(at+".urls", "the address of a server is needed, such as nats://localhost:4222")
	}
	if slices.ContainsFunc(n.URLs, func(address string) bool { return strings.Contains(address, "@") }) {
		// Addresses are shown.
		v.mistake(at+".urls", "user, password and token are settings of their own, not parts of the address")
	}
	n.PasswordFile, n.TokenFile = v.file(n.PasswordFile), v.file(n.TokenFile)
	n.CredentialsFile, n.NKeyFile = v.file(n.CredentialsFile), v.file(n.NKeyFile)
	if n.TLS != nil {
		n.TLS.SetDirectory(v.dir)
	}
}

// file is the path of another file, relative to this one.
func (v *validator) file(path string) string {
	if path == "" {
		return ""
	}
	return v.resolve(path)
}

func (v *validator) checkURL(path string, u *commonconfig.URL, schemes ...string) {
	switch {
	case u == nil || u.URL == nil || u.Host == "":
		v.mistake(path+".url", "an address is needed that begins with %s://", strings.Join(schemes, ":// or "))
	case !slices.Contains(schemes, u.Scheme):
		v.mistake(path+".url", "it must begin with %s://", strings.Join(schemes, ":// or "))
	}
}

func (v *validator) checkHTTP(path string, c *commonconfig.HTTPClientConfig) {
	c.SetDirectory(v.dir)
	if err := c.Validate(); err != nil {
		v.mistake(path, "%v", err)
	}
}
