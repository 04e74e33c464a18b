package config

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/common/promslog"
	promconfig "github.com/prometheus/prometheus/config"
	_ "github.com/prometheus/prometheus/discovery/file" // So that scrape_configs may have file_sd_configs.
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	"gopkg.in/yaml.v3"
)

// Input is one way in. What a field means stands in default.yaml.
type Input struct {
	Name     string `yaml:"name"`
	Disabled bool   `yaml:"disabled,omitempty"`
	// ListenAddress and Path exclude each other. Without both the input stands for the usual paths of its kind.
	ListenAddress string  `yaml:"listen_address,omitempty"`
	Path          string  `yaml:"path,omitempty"`
	WebConfigFile string  `yaml:"web_config_file,omitempty"`
	Tokens        []Token `yaml:"tokens,omitempty"`

	FilterInclude  []string          `yaml:"filter_include,omitempty"`
	FilterExclude  []string          `yaml:"filter_exclude,omitempty"`
	RelabelConfigs []*relabel.Config `yaml:"relabel_configs,omitempty"`
	ExternalLabels map[string]string `yaml:"external_labels,omitempty"`
	Limits         InputLimits       `yaml:"limits,omitempty"`
	Downsample     Duration          `yaml:"downsample,omitempty"`
	TTL            Duration          `yaml:"ttl,omitempty"`
	HA             *InputHA          `yaml:"ha,omitempty"`

	RemoteWrite *RemoteWriteInput `yaml:"remote_write,omitempty"`
	InfluxDB    *InfluxDBInput    `yaml:"influxdb,omitempty"`
	OpenTSDB    *OpenTSDBInput    `yaml:"opentsdb,omitempty"`
	OTLP        *OTLPInput        `yaml:"otlp,omitempty"`
	Import      *ImportInput      `yaml:"import,omitempty"`
	NATS        *NATSInput        `yaml:"nats,omitempty"`
	Scrape      *ScrapeInput      `yaml:"scrape,omitempty"`

	// Fingerprint tells inputs apart that are written differently, secrets included.
	Fingerprint string `yaml:"-"`
}

// InputLimits bound what an input takes. A zero is the limit of the section ingest, or none where that has none.
type InputLimits struct {
	MaxCompressed       Size    `yaml:"max_compressed,omitempty"`
	MaxDecoded          Size    `yaml:"max_decoded,omitempty"`
	MaxSeries           int     `yaml:"max_series,omitempty"`
	MaxLabels           int     `yaml:"max_labels,omitempty"`
	MaxLabelName        Size    `yaml:"max_label_name,omitempty"`
	MaxLabelValue       Size    `yaml:"max_label_value,omitempty"`
	MaxActiveSeries     int     `yaml:"max_active_series,omitempty"`
	MaxSamplesPerSecond float64 `yaml:"max_samples_per_second,omitempty"`
	BurstSamples        int     `yaml:"burst_samples,omitempty"`
}

// InputHA tells replicas of one cluster apart, of which one is listened to.
type InputHA struct {
	ClusterLabel    string   `yaml:"cluster_label"`
	ReplicaLabel    string   `yaml:"replica_label"`
	FailoverTimeout Duration `yaml:"failover_timeout,omitempty"`
}

// RemoteWriteInput takes Prometheus remote write.
type RemoteWriteInput struct {
	TenantLabel    string `yaml:"tenant_label,omitempty"`
	OTelHistograms bool   `yaml:"otel_histograms,omitempty"`
}

// InfluxDBInput takes line protocol.
type InfluxDBInput struct {
	// UDPListenAddress makes the input one of datagrams alone.
	UDPListenAddress     string `yaml:"udp_listen_address,omitempty"`
	Precision            string `yaml:"precision,omitempty"`
	InfluxNames          `yaml:",inline"`
	DatabaseLabel        string `yaml:"database_label,omitempty"`
	RetentionPolicyLabel string `yaml:"retention_policy_label,omitempty"`
	BucketLabel          string `yaml:"bucket_label,omitempty"`
	OrgLabel             string `yaml:"org_label,omitempty"`
}

// InfluxNames are how lines become series.
type InfluxNames struct {
	// Names is legacy or utf8.
	Names            string    `yaml:"names,omitempty"`
	Separator        string    `yaml:"separator,omitempty"`
	AppendValue      bool      `yaml:"append_value,omitempty"`
	BareMeasurements *[]string `yaml:"bare_measurements,omitempty"`
	TextLabels       []string  `yaml:"text_labels,omitempty"`
}

// OpenTSDBInput takes points of OpenTSDB.
type OpenTSDBInput struct {
	// TelnetListenAddress makes the input one of put lines alone.
	TelnetListenAddress string `yaml:"telnet_listen_address,omitempty"`
	// Names is as_they_come, restored or classic.
	Names      string            `yaml:"names,omitempty"`
	DefaultTag map[string]string `yaml:"default_tag,omitempty"`
}

// ImportInput takes text and CSV.
type ImportInput struct{}

// ScrapeInput scrapes targets.
type ScrapeInput struct {
	Tolerant          bool          `yaml:"tolerant,omitempty"`
	StartTimestamps   bool          `yaml:"start_timestamps,omitempty"`
	TypeAndUnitLabels bool          `yaml:"type_and_unit_labels,omitempty"`
	ScrapeConfigs     ScrapeConfigs `yaml:"scrape_configs"`
	// Dir is what the names of files in it are relative to.
	Dir string `yaml:"-"`
}

// ScrapeConfigs are Prometheus' own.
type ScrapeConfigs struct {
	// Text is a configuration of Prometheus that holds scrape_configs alone.
	Text []byte
}

// UnmarshalYAML keeps the text, which Prometheus' own code reads.
func (s *ScrapeConfigs) UnmarshalYAML(n *yaml.Node) error {
	text, err := yaml.Marshal(map[string]*yaml.Node{"scrape_configs": n})
	s.Text = text
	return err
}

// MarshalYAML shows what may be shown: secrets are hidden as Prometheus does.
func (s ScrapeConfigs) MarshalYAML() (any, error) {
	c, err := s.load()
	if err != nil {
		return "<invalid>", nil
	}
	return c.ScrapeConfigs, nil
}

func (s *ScrapeConfigs) load() (*promconfig.Config, error) {
	return promconfig.Load(string(s.Text), promslog.NewNopLogger())
}

// Kind is the key of what the input takes; empty unless it is one.
func (i *Input) Kind() string {
	if kinds := i.kinds(); len(kinds) == 1 {
		return kinds[0]
	}
	return ""
}

func (i *Input) kinds() (kinds []string) {
	for kind, set := range map[string]bool{
		"remote_write": i.RemoteWrite != nil, "influxdb": i.InfluxDB != nil, "opentsdb": i.OpenTSDB != nil, "otlp": i.OTLP != nil,
		"import": i.Import != nil, "nats": i.NATS != nil, "scrape": i.Scrape != nil,
	} {
		if set {
			kinds = append(kinds, kind)
		}
	}
	slices.Sort(kinds)
	return kinds
}

// Usual tells that the input stands for the usual paths of its kind on the server's own address.
func (i *Input) Usual() bool {
	return i.servesHTTP() && i.ListenAddress == "" && i.Path == ""
}

// servesHTTP tells that the input takes HTTP requests.
func (i *Input) servesHTTP() bool {
	switch {
	case i.NATS != nil, i.Scrape != nil:
		return false
	case i.InfluxDB != nil:
		return i.InfluxDB.UDPListenAddress == ""
	case i.OpenTSDB != nil:
		return i.OpenTSDB.TelnetListenAddress == ""
	}
	return true
}

// usualInputs are there without being configured.
func usualInputs() []Input {
	return []Input{
		{Name: "remote_write", RemoteWrite: &RemoteWriteInput{}},
		{Name: "influxdb", InfluxDB: &InfluxDBInput{}},
		{Name: "opentsdb", OpenTSDB: &OpenTSDBInput{}},
		{Name: "otlp", OTLP: &OTLPInput{}},
		{Name: "import", Import: &ImportInput{}},
	}
}

// AllInputs are the configured inputs and those that are there without.
func (c *Config) AllInputs() []Input {
	all := slices.Clone(c.Inputs)
	for _, u := range usualInputs() {
		if !slices.ContainsFunc(all, func(i Input) bool { return i.Usual() && i.Kind() == u.Kind() }) {
			all = append(all, u)
		}
	}
	return slices.DeleteFunc(all, func(i Input) bool { return i.Disabled })
}

// Filters are the matchers of what is included and what is excluded.
func (i *Input) Filters() (include, exclude [][]*labels.Matcher, err error) {
	if include, err = selectors(i.FilterInclude); err != nil {
		return nil, nil, err
	}
	exclude, err = selectors(i.FilterExclude)
	return include, exclude, err
}

// fingerprints returns a fingerprint of each item of a list of the file, secrets included.
func fingerprints(data []byte, list string) []string {
	var file map[string]yaml.Node
	if yaml.Unmarshal(data, &file) != nil {
		return nil
	}
	var out []string
	items := file[list]
	for _, item := range items.Content {
		text, err := yaml.Marshal(item)
		if err != nil || hasAlias(item) {
			text = data // What an alias stands for is elsewhere.
		}
		sum := sha256.Sum256(text)
		out = append(out, base64.RawURLEncoding.EncodeToString(sum[:]))
	}
	return out
}

// nameOfSelf is the name under which the server scrapes itself.
const nameOfSelf = "varve"

func (v *validator) checkInputs(inputs []Input, all *Ingest) {
	usual, addresses := map[string]string{}, map[string]string{}
	for i := range inputs {
		in := &inputs[i]
		at := fmt.Sprintf("inputs.%d", i)
		if !outputName.MatchString(in.Name) {
			v.mistake(at+".name", "%q is not a name: use up to 64 letters, digits, dots, dashes and underscores", in.Name)
		}
		if slices.ContainsFunc(inputs[:i], func(b Input) bool { return b.Name == in.Name }) {
			v.mistake(at+".name", "two inputs are called %q", in.Name)
		}
		kinds := in.kinds()
		if len(kinds) != 1 {
			v.mistake(at, "an input takes one of remote_write, influxdb, opentsdb, otlp, import, nats and scrape; it has %d of them", len(kinds))
			continue
		}
		v.checkPlace(at, in, usual, addresses)
		v.checkInputRules(at, in)
		if in.Limits.MaxDecoded > all.MaxInFlight {
			v.mistake(at+".limits.max_decoded", "%v is more than ingest.max_in_flight, so that the largest request could never be taken", in.Limits.MaxDecoded)
		}
		if in.Name == nameOfSelf {
			v.mistake(at+".name", "%q is what the server's own metrics come in by", in.Name)
		}
		v.checkInputKind(at+"."+kinds[0], in)
	}
	for _, u := range usualInputs() {
		// The name of what is there anyway may be taken by an input of that kind alone.
		if usual[u.Kind()] == "" && slices.ContainsFunc(inputs, func(b Input) bool { return b.Name == u.Name }) {
			v.mistake("inputs", "%q is the name of the input that is there without being configured", u.Name)
		}
	}
}

// inputPath is a path of segments that need no escape.
var inputPath = regexp.MustCompile(`^(/[A-Za-z0-9._~-]+)+$`)

// checkPlace checks where an input listens.
func (v *validator) checkPlace(at string, in *Input, usual, addresses map[string]string) {
	own := in.ListenAddress
	switch {
	case in.InfluxDB != nil && in.InfluxDB.UDPListenAddress != "":
		own = in.InfluxDB.UDPListenAddress + "/udp"
		v.checkAddress(at+".influxdb.udp_listen_address", in.InfluxDB.UDPListenAddress)
	case in.OpenTSDB != nil && in.OpenTSDB.TelnetListenAddress != "":
		own = in.OpenTSDB.TelnetListenAddress
		v.checkAddress(at+".opentsdb.telnet_listen_address", own)
	case own != "":
		v.checkAddress(at+".listen_address", own)
	}
	switch {
	case !in.servesHTTP() && (in.ListenAddress != "" || in.Path != ""):
		v.mistake(at, "it takes no HTTP, so that listen_address and path mean nothing")
	case in.ListenAddress != "" && in.Path != "":
		v.mistake(at+".path", "listen_address and path exclude each other")
	case in.Path != "" && (!inputPath.MatchString(in.Path) || path.Clean(in.Path) != in.Path):
		v.mistake(at+".path", "%q is not a path such as /telegraf", in.Path)
	case in.Usual() && usual[in.Kind()] != "":
		v.mistake(at, "%q stands for the usual paths already: give this one a listen_address or a path", usual[in.Kind()])
	case in.Usual():
		usual[in.Kind()] = in.Name
	}
	place := own + in.Path
	if before, taken := addresses[place]; taken && place != "" && !strings.HasSuffix(place, ":0") {
		v.mistake(at, "%q listens at %s already", before, place)
	}
	addresses[place] = in.Name
	secured := in.WebConfigFile != "" || len(in.Tokens) > 0
	if secured && in.ListenAddress == "" && (in.OpenTSDB == nil || in.OpenTSDB.TelnetListenAddress == "" || len(in.Tokens) > 0) {
		v.mistake(at, "web_config_file and tokens are for an address of its own; the server's address has the section web")
	}
	if in.WebConfigFile != "" {
		in.WebConfigFile = v.resolve(in.WebConfigFile)
		if info, err := os.Stat(in.WebConfigFile); err != nil || info.IsDir() {
			v.mistake(at+".web_config_file", "%s is not a file that can be read", in.WebConfigFile)
		}
	}
	for k := range in.Tokens {
		v.checkToken(fmt.Sprintf("%s.tokens.%d", at, k), &in.Tokens[k], in.Tokens[:k])
	}
	if secured {
		in.Fingerprint = withSecrets(in)
	}
}

// withSecrets is the fingerprint of an input with what stands in other files of who may use it: one that was withdrawn
// there must not stay good when the configuration is read again.
func withSecrets(in *Input) string {
	sum := sha256.New()
	fmt.Fprint(sum, in.Fingerprint)
	for _, t := range in.Tokens {
		fmt.Fprintf(sum, " %q %q", t.Name, t.Token.Reveal())
	}
	if text, err := os.ReadFile(in.WebConfigFile); err == nil {
		sum.Write(text)
	}
	return base64.RawURLEncoding.EncodeToString(sum.Sum(nil))
}

func (v *validator) checkAddress(at, address string) {
	if _, port, err := net.SplitHostPort(address); err != nil {
		v.mistake(at, "%q is not an address: write it as HOST:PORT or :PORT", address)
	} else if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		v.mistake(at, "%q has no valid port", address)
	}
}

const (
	// ttlIntervalsMax is how many points a sample may make.
	ttlIntervalsMax        = 1000
	defaultFailoverTimeout = 30 * second
)

func (v *validator) checkInputRules(at string, in *Input) {
	if len(in.FilterInclude) > 0 && len(in.FilterExclude) > 0 {
		v.mistake(at+".filter_exclude", "filter_include and filter_exclude exclude each other")
	}
	if _, err := selectors(in.FilterInclude); err != nil {
		v.mistake(at+".filter_include", "%v", err)
	}
	if _, err := selectors(in.FilterExclude); err != nil {
		v.mistake(at+".filter_exclude", "%v", err)
	}
	v.checkRelabel(at, in.RelabelConfigs)
	v.checkLabelNames(at+".external_labels", in.ExternalLabels)
	l := &in.Limits
	autoless := func(key string, value, least, most Size) {
		if value != 0 {
			within(v, at+".limits."+key, value, least, most)
		}
	}
	autoless("max_compressed", l.MaxCompressed, kib, gib)
	autoless("max_decoded", l.MaxDecoded, kib, gib)
	autoless("max_label_name", l.MaxLabelName, 1, 16*mib-1)
	autoless("max_label_value", l.MaxLabelValue, 1, 16*mib-1)
	within(v, at+".limits.max_series", l.MaxSeries, 0, 100_000_000)
	within(v, at+".limits.max_labels", l.MaxLabels, 0, 10_000)
	within(v, at+".limits.max_active_series", l.MaxActiveSeries, 0, 1<<32-1)
	within(v, at+".limits.max_samples_per_second", l.MaxSamplesPerSecond, 0, 1e12)
	within(v, at+".limits.burst_samples", l.BurstSamples, 0, 1<<31)
	if l.BurstSamples > 0 && l.MaxSamplesPerSecond == 0 {
		v.mistake(at+".limits.burst_samples", "it means nothing without max_samples_per_second")
	}
	if in.Downsample != 0 {
		within(v, at+".downsample", in.Downsample, second, day)
		if in.TTL != 0 {
			within(v, at+".ttl", in.TTL, in.Downsample, min(7*day, ttlIntervalsMax*in.Downsample))
		}
	} else if in.TTL != 0 {
		v.mistake(at+".ttl", "it means nothing without downsample")
	}
	if in.HA == nil {
		return
	}
	for key, name := range map[string]string{"cluster_label": in.HA.ClusterLabel, "replica_label": in.HA.ReplicaLabel} {
		if !model.UTF8Validation.IsValidLabelName(name) || name == model.MetricNameLabel {
			v.mistake(at+".ha."+key, "%q is not the name of a label", name)
		}
	}
	if in.HA.ClusterLabel == in.HA.ReplicaLabel {
		v.mistake(at+".ha.replica_label", "it is another label than cluster_label")
	}
	if in.HA.FailoverTimeout == 0 {
		in.HA.FailoverTimeout = defaultFailoverTimeout
	}
	within(v, at+".ha.failover_timeout", in.HA.FailoverTimeout, second, day)
}

// checkRelabel checks rules of relabelling.
func (v *validator) checkRelabel(at string, rules []*relabel.Config) {
	for k, r := range rules {
		if r == nil {
			v.mistake(fmt.Sprintf("%s.relabel_configs.%d", at, k), "it is empty")
		} else if err := r.Validate(model.UTF8Validation); err != nil {
			v.mistake(fmt.Sprintf("%s.relabel_configs.%d", at, k), "%v", err)
		}
	}
}

// checkLabelNames checks the names of labels that are added.
func (v *validator) checkLabelNames(at string, names map[string]string) {
	for name := range names {
		if !model.UTF8Validation.IsValidLabelName(name) || name == model.MetricNameLabel {
			v.mistake(at, "%q is not the name of a label", name)
		}
	}
}

// checkInputKind checks what is of one kind alone. What the input itself finds wrong is found when it is made.
func (v *validator) checkInputKind(at string, in *Input) {
	switch {
	case in.RemoteWrite != nil:
		v.checkLabelName(at+".tenant_label", in.RemoteWrite.TenantLabel)
	case in.InfluxDB != nil:
		i := in.InfluxDB
		v.checkInfluxNames(at, &i.InfluxNames)
		v.checkLabelName(at+".database_label", i.DatabaseLabel)
		v.checkLabelName(at+".retention_policy_label", i.RetentionPolicyLabel)
		v.checkLabelName(at+".bucket_label", i.BucketLabel)
		v.checkLabelName(at+".org_label", i.OrgLabel)
		if i.Precision != "" {
			oneOf(v, at+".precision", i.Precision, "ns", "us", "ms", "s", "m", "h")
		}
		if i.Precision != "" && i.UDPListenAddress == "" {
			v.mistake(at+".precision", "it is that of datagrams; requests say their own")
		}
	case in.OpenTSDB != nil:
		if in.OpenTSDB.Names != "" {
			oneOf(v, at+".names", in.OpenTSDB.Names, "as_they_come", "restored", "classic")
		}
		if len(in.OpenTSDB.DefaultTag) > 1 {
			v.mistake(at+".default_tag", "it is one name with its value")
		}
	case in.OTLP != nil:
		if in.OTLP.TranslationStrategy != "" {
			oneOf(v, at+".translation_strategy", in.OTLP.TranslationStrategy,
				"UnderscoreEscapingWithSuffixes", "UnderscoreEscapingWithoutSuffixes", "NoUTF8EscapingWithSuffixes", "NoTranslation")
		}
		if in.OTLP.Delta != "" {
			oneOf(v, at+".delta", in.OTLP.Delta, "convert", "refuse", "keep")
		}
		if in.OTLP.MaxDeltaSize != 0 {
			within(v, at+".max_delta_size", in.OTLP.MaxDeltaSize, mib, tib)
		}
	case in.NATS != nil:
		v.checkNATS(at, &in.NATS.NATSConnection)
		v.checkNATSInput(at, in.NATS)
	case in.Scrape != nil:
		in.Scrape.Dir = v.dir
		c, err := in.Scrape.ScrapeConfigs.load()
		switch {
		case err != nil:
			v.mistake(at+".scrape_configs", "%s", strings.TrimSpace(err.Error()))
		case len(c.ScrapeConfigs) == 0 && bytes.Contains(in.Scrape.ScrapeConfigs.Text, []byte("job_name")):
			v.mistake(at+".scrape_configs", "it holds no job")
		}
	}
}

func (v *validator) checkInfluxNames(at string, n *InfluxNames) {
	if n.Names != "" {
		oneOf(v, at+".names", n.Names, "legacy", "utf8")
	}
}

// checkLabelName checks the name of a label that may be left out.
func (v *validator) checkLabelName(at, name string) {
	if name != "" && (!model.UTF8Validation.IsValidLabelName(name) || name == model.MetricNameLabel) {
		v.mistake(at, "%q is not the name of a label", name)
	}
}

// NATSInput consumes from a NATS server or cluster, with JetStream unless Core is set.
type NATSInput struct {
	NATSConnection `yaml:",inline"`
	Stream         *NATSStream `yaml:"stream,omitempty"`
	Durable        string      `yaml:"durable,omitempty"`
	Subjects       []string    `yaml:"subjects,omitempty"`
	Core           bool        `yaml:"core,omitempty"`
	QueueGroup     string      `yaml:"queue_group,omitempty"`
	// Payload is prometheus, prometheus2, influx or json.
	Payload           string            `yaml:"payload,omitempty"`
	Precision         string            `yaml:"precision,omitempty"`
	Influx            *InfluxNames      `yaml:"influx,omitempty"`
	RemoteWrite       *RemoteWriteInput `yaml:"remote_write,omitempty"`
	AckWait           Duration          `yaml:"ack_wait,omitempty"`
	MaxAckPending     int               `yaml:"max_ack_pending,omitempty"`
	Workers           int               `yaml:"workers,omitempty"`
	MaxInFlight       Size              `yaml:"max_in_flight,omitempty"`
	DeadLetterSubject string            `yaml:"dead_letter_subject,omitempty"`
}

func (v *validator) checkNATSInput(at string, n *NATSInput) {
	if n.Payload != "" {
		oneOf(v, at+".payload", n.Payload, "prometheus", "prometheus2", "influx", "json")
	}
	if n.Precision != "" {
		oneOf(v, at+".precision", n.Precision, "ns", "us", "ms", "s", "m", "h")
	}
	if n.Influx != nil {
		v.checkInfluxNames(at+".influx", n.Influx)
	}
	if n.AckWait != 0 {
		within(v, at+".ack_wait", n.AckWait, second, day)
	}
	within(v, at+".max_ack_pending", n.MaxAckPending, 0, 1_000_000)
	within(v, at+".workers", n.Workers, 0, 256)
	if n.MaxInFlight != 0 {
		within(v, at+".max_in_flight", n.MaxInFlight, mib, tib)
	}
}

// OTLPInput takes metrics of OpenTelemetry. The keys are those of Prometheus' section otlp.
type OTLPInput struct {
	TranslationStrategy               string   `yaml:"translation_strategy,omitempty"`
	PromoteResourceAttributes         []string `yaml:"promote_resource_attributes,omitempty"`
	PromoteAllResourceAttributes      bool     `yaml:"promote_all_resource_attributes,omitempty"`
	IgnoreResourceAttributes          []string `yaml:"ignore_resource_attributes,omitempty"`
	KeepIdentifyingResourceAttributes bool     `yaml:"keep_identifying_resource_attributes,omitempty"`
	DisableTargetInfo                 bool     `yaml:"disable_target_info,omitempty"`
	ConvertHistogramsToNHCB           bool     `yaml:"convert_histograms_to_nhcb,omitempty"`
	PromoteScopeMetadata              bool     `yaml:"promote_scope_metadata,omitempty"`
	TypeAndUnitLabels                 bool     `yaml:"type_and_unit_labels,omitempty"`
	// What is nil is true.
	LabelNameUnderscoreSanitization      *bool `yaml:"label_name_underscore_sanitization,omitempty"`
	LabelNamePreserveMultipleUnderscores *bool `yaml:"label_name_preserve_multiple_underscores,omitempty"`
	// Delta is convert, refuse or keep.
	Delta        string `yaml:"delta,omitempty"`
	MaxDeltaSize Size   `yaml:"max_delta_size,omitempty"`
}
