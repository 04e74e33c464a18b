package config

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
)

// validator collects what is wrong with values that could be decoded, under the
// line of their key or of the nearest section that the file has.
type validator struct {
	lines    map[string]int
	dir      string
	mistakes []Mistake
}

func (v *validator) mistake(path, format string, args ...any) {
	line := 0
	for p := path; ; {
		if line = v.lines[p]; line > 0 {
			break
		}
		dot := strings.LastIndexByte(p, '.')
		if dot < 0 {
			break
		}
		p = p[:dot]
	}
	v.mistakes = append(v.mistakes, Mistake{Line: line, Text: path + ": " + fmt.Sprintf(format, args...)})
}

// within checks that a value lies in [least, most], where NaN does not.
func within[T cmp.Ordered](v *validator, path string, value, least, most T) {
	if !(value >= least && value <= most) {
		v.mistake(path, "%v is out of bounds: use %v to %v", value, least, most)
	}
}

// autoOr checks that a size is Auto or not less than least.
func autoOr(v *validator, path string, value, least Size) {
	if value != Auto {
		within(v, path, value, least, tib)
	}
}

func oneOf(v *validator, path, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		v.mistake(path, "%q is not one of %s", value, strings.Join(allowed, ", "))
	}
}

const (
	kib Size = 1 << 10
	mib Size = 1 << 20
	gib Size = 1 << 30
	tib Size = 1 << 40

	second = Duration(time.Second)
	minute = Duration(time.Minute)
	day    = Duration(24 * time.Hour)
)

func (v *validator) check(c *Config) {
	v.checkStorage(&c.Storage)
	v.checkWeb(&c.Web)
	v.checkQuery(&c.Query)
	v.checkIngest(&c.Ingest)
	v.checkCompactor(&c.Compactor)
	v.checkRollups(c.Rollups)
	v.checkResolution(c.Query.Resolution, c.Rollups)
	v.checkRetention(c)
	within(v, "deletes.grace", c.Deletes.Grace, 0, 365*day)
	v.checkInputs(c.Inputs, &c.Ingest)
	v.checkOutputs(c.Outputs, &c.Storage.Journal)
	v.checkSnapshots(&c.Snapshots)
	v.checkExternalLabels(c.Federation.ExternalLabels)
	within(v, "self_scrape.interval", c.SelfScrape.Interval, second, day)
	v.checkCanary(&c.Canary)
	oneOf(v, "log.level", c.Log.Level, "debug", "info", "warn", "error")
	oneOf(v, "log.format", c.Log.Format, "logfmt", "json")
}

func (v *validator) checkStorage(s *Storage) {
	if s.Path == "" {
		v.mistake("storage.path", "a data directory is needed")
	}
	autoOr(v, "storage.memory", s.Memory, 32*mib)
	oneOf(v, "storage.sync", s.Sync, "always", "interval")
	within(v, "storage.sync_interval", s.SyncInterval, second/1000, minute)
	within(v, "storage.runs.max_age", s.Runs.MaxAge, second, day)
	autoOr(v, "storage.runs.max_size", s.Runs.MaxSize, mib)
	within(v, "storage.journal.max_size", s.Journal.MaxSize, mib, 1024*tib)
	within(v, "storage.journal.max_age", s.Journal.MaxAge, minute, 365*day)
	within(v, "storage.journal.max_owed", s.Journal.MaxOwed, 0, 3650*day)
	autoOr(v, "storage.caches.labels", s.Caches.Labels, mib)
	autoOr(v, "storage.caches.symbols", s.Caches.Symbols, mib)
	autoOr(v, "storage.caches.clocks", s.Caches.Clocks, mib)
	within(v, "storage.min_free", s.MinFree, mib, 1024*tib)
	within(v, "storage.min_free_percent", s.MinFreePercent, 0.01, 90)
	within(v, "storage.reserve", s.Reserve, mib, tib)
}

func (v *validator) checkWeb(w *Web) {
	if _, port, err := net.SplitHostPort(w.ListenAddress); err != nil {
		v.mistake("web.listen_address", "%q is not an address: write it as HOST:PORT or :PORT", w.ListenAddress)
	} else if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		v.mistake("web.listen_address", "%q has no valid port", w.ListenAddress)
	}
	if w.ExternalURL != "" {
		u, err := url.Parse(w.ExternalURL)
		switch {
		case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
			v.mistake("web.external_url", "it must begin with http:// or https:// and a host")
		case u.User != nil:
			v.mistake("web.external_url", "it must not hold a user or a password")
		case u.RawQuery != "" || u.Fragment != "":
			v.mistake("web.external_url", "it must end with its path")
		}
	}
	if w.ConfigFile != "" {
		w.ConfigFile = v.resolve(w.ConfigFile)
		if info, err := os.Stat(w.ConfigFile); err != nil || info.IsDir() {
			v.mistake("web.config_file", "%s is not a file that can be read", w.ConfigFile)
		}
	}
	within(v, "web.max_connections", w.MaxConnections, 1, 1_000_000)
	for i := range w.Tokens {
		v.checkToken(fmt.Sprintf("web.tokens.%d", i), &w.Tokens[i], w.Tokens[:i])
	}
	for i, rule := range w.Rules {
		v.checkRule(fmt.Sprintf("web.rules.%d", i), rule, w.Tokens)
	}
}

func (v *validator) checkToken(path string, t *Token, before []Token) {
	switch {
	case t.Name == "":
		v.mistake(path, "a token needs a name")
	case slices.ContainsFunc(before, func(b Token) bool { return b.Name == t.Name }):
		v.mistake(path+".name", "two tokens are called %q", t.Name)
	}
	switch {
	case t.Token.Reveal() != "" && t.TokenFile != "":
		v.mistake(path, "token and token_file exclude each other")
		return
	case t.TokenFile != "":
		t.TokenFile = v.resolve(t.TokenFile)
		text, err := os.ReadFile(t.TokenFile)
		if err != nil {
			v.mistake(path+".token_file", "%s can't be read", t.TokenFile)
			return
		}
		t.Token = Secret{text: strings.TrimSpace(string(text))}
	}
	if t.Token.Reveal() == "" {
		v.mistake(path, "a token must not be empty")
	}
}

// groups repeats the names of package access, which this package doesn't import;
// a test of the command holds the two lists together.
var groups = []string{"write", "query", "federate", "metadata", "admin", "lifecycle", "debug"}

func (v *validator) checkRule(path string, rule Rule, tokens []Token) {
	if len(rule.Who) == 0 || len(rule.May) == 0 {
		v.mistake(path, "a rule needs both who and may")
	}
	for i, who := range rule.Who {
		at := fmt.Sprintf("%s.who.%d", path, i)
		kind, name, named := strings.Cut(who, ":")
		switch {
		case who == "anonymous" || who == "authenticated":
		case !named || name == "" || !slices.Contains([]string{"user", "token", "san"}, kind):
			v.mistake(at, "%q is nobody: use user:NAME, token:NAME, san:NAME, authenticated or anonymous", who)
		case kind == "token" && !slices.ContainsFunc(tokens, func(t Token) bool { return t.Name == name }):
			v.mistake(at, "no token is called %q", name)
		}
	}
	for i, may := range rule.May {
		oneOf(v, fmt.Sprintf("%s.may.%d", path, i), may, groups...)
	}
}

func (v *validator) checkQuery(q *Query) {
	within(v, "query.timeout", q.Timeout, second, day)
	within(v, "query.max_samples", q.MaxSamples, 1, 1<<40)
	within(v, "query.max_series", q.MaxSeries, 1, 1<<40)
	autoOr(v, "query.max_size", q.MaxSize, mib)
	within(v, "query.max_rows", q.MaxRows, 1, 1<<40)
	within(v, "query.max_concurrency", q.MaxConcurrency, 1, 10_000)
	within(v, "query.max_queue", q.MaxQueue, 1, 1_000_000)
	within(v, "query.max_queue_wait", q.MaxQueueWait, second/1000, day)
	within(v, "query.max_cores", q.MaxCores, 0, 1024)
	within(v, "query.lookback_delta", q.LookbackDelta, second/1000, 365*day)
	within(v, "query.max_text", q.MaxText, 1, 64*mib)
	within(v, "query.max_regex", q.MaxRegex, 1, mib)
	within(v, "query.max_regex_steps", q.MaxRegexSteps, 1, 1_000_000)
	within(v, "query.max_nesting", q.MaxNesting, 1, 10_000)
	within(v, "query.max_form", q.MaxForm, kib, gib)
	within(v, "query.max_federated_series", q.MaxFederatedSeries, 1, 1<<40)
	within(v, "query.max_remote_read_samples", q.MaxRemoteReadSamples, 1, 1<<40)
}

func (v *validator) checkIngest(i *Ingest) {
	within(v, "ingest.max_compressed", i.MaxCompressed, kib, gib)
	within(v, "ingest.max_decoded", i.MaxDecoded, kib, gib)
	within(v, "ingest.max_in_flight", i.MaxInFlight, mib, tib)
	if i.MaxInFlight < i.MaxDecoded {
		v.mistake("ingest.max_in_flight", "%v is less than max_decoded, so that the largest request could never be taken", i.MaxInFlight)
	}
	within(v, "ingest.max_series", i.MaxSeries, 1, 100_000_000)
	within(v, "ingest.max_labels", i.MaxLabels, 1, 10_000)
	within(v, "ingest.max_label_name", i.MaxLabelName, 1, 16*mib-1)
	within(v, "ingest.max_label_value", i.MaxLabelValue, 1, 16*mib-1)
	within(v, "ingest.max_exemplar_chars", i.MaxExemplarChars, 1, 1_000_000)
	within(v, "ingest.max_future", i.MaxFuture, second, 365*day)
	oneOf(v, "ingest.overwrites", i.Overwrites, "last", "reject")
	within(v, "ingest.max_total_series", i.MaxTotalSeries, 0, 1<<40)
	within(v, "ingest.max_new_series_per_minute", i.MaxNewSeriesPerMinute, 0, 1<<40)
	within(v, "ingest.max_samples_per_second", i.MaxSamplesPerSecond, 0, 1e12)
}

func (v *validator) checkCompactor(c *Compactor) {
	within(v, "compactor.interval", c.Interval, second, day)
	within(v, "compactor.seal_delay", c.SealDelay, 0, 365*day)
	within(v, "compactor.quiet", c.Quiet, 0, day)
	within(v, "compactor.reseal_after", c.ResealAfter, 0, 365*day)
	within(v, "compactor.cpu_share", c.CPUShare, 0.01, 1)
	within(v, "compactor.max_drop_share", c.MaxDropShare, 0.01, 1)
}

// checkResolution checks what queries are answered from by default.
func (v *validator) checkResolution(text string, rollups []Rollup) {
	switch text {
	case "auto", "raw", "strict":
		return
	}
	d, err := model.ParseDuration(text)
	if err != nil || !slices.ContainsFunc(rollups, func(r Rollup) bool { return time.Duration(r.Resolution) == time.Duration(d) }) {
		v.mistake("query.resolution", "%q is none of auto, raw, strict and the resolutions of rollups", text)
	}
}

func (v *validator) checkRollups(rollups []Rollup) {
	before := Duration(0)
	for i, r := range rollups {
		path := fmt.Sprintf("rollups.%d.resolution", i)
		switch {
		case r.Resolution < second || r.Resolution > day || day%r.Resolution != 0:
			v.mistake(path, "%s is not a part of a day, from 1s to 1d", r.Resolution)
		case before != 0 && (r.Resolution <= before || r.Resolution%before != 0):
			v.mistake(path, "%s is not a multiple of the %s before it", r.Resolution, before)
		default:
			before = r.Resolution
		}
	}
}

func (v *validator) checkExternalLabels(external map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(external)) {
		path := "federation.external_labels." + name
		switch {
		case !model.UTF8Validation.IsValidLabelName(name):
			v.mistake(path, "%q is not a label name", name)
		case name == model.MetricNameLabel:
			v.mistake(path, "the metric name can't be set")
		case !model.LabelValue(external[name]).IsValid():
			v.mistake(path, "the value is not valid UTF-8")
		}
	}
}

// resolve makes a path relative to the folder of the configuration file.
func (v *validator) resolve(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(v.dir, path)
}
