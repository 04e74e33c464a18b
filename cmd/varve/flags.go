package main

import (
	"fmt"
	"strconv"

	"github.com/alecthomas/kingpin/v2"

	"varve/config"
)

// setting is a flag of serve that overrides a key of the configuration. It has
// Prometheus' name where Prometheus has the flag.
type setting struct {
	flag, help string
	// value points into a configuration.
	value func(*config.Config) kingpin.Value
}

var settings = []setting{
	{"storage.path", "Data directory.", func(c *config.Config) kingpin.Value { return (*textValue)(&c.Storage.Path) }},
	{"storage.memory", "Memory of the storage engine.", func(c *config.Config) kingpin.Value { return &c.Storage.Memory }},
	{"storage.sync", "When writes are synced to disk: always (before they are acknowledged) or interval.", func(c *config.Config) kingpin.Value { return (*textValue)(&c.Storage.Sync) }},
	{"web.listen-address", "Address to listen on.", func(c *config.Config) kingpin.Value { return (*textValue)(&c.Web.ListenAddress) }},
	{"web.external-url", "URL under which users reach the server, if a proxy stands in front of it.", func(c *config.Config) kingpin.Value { return (*textValue)(&c.Web.ExternalURL) }},
	{"web.config.file", "File with TLS and users, in the format of Prometheus' web configuration file.", func(c *config.Config) kingpin.Value { return (*textValue)(&c.Web.ConfigFile) }},
	{"web.enable-admin-api", "Switch on endpoints for administrators.", func(c *config.Config) kingpin.Value { return (*boolValue)(&c.Web.EnableAdminAPI) }},
	{"web.enable-lifecycle", "Switch on reload and quit by HTTP.", func(c *config.Config) kingpin.Value { return (*boolValue)(&c.Web.EnableLifecycle) }},
	{"web.max-connections", "Open connections at a time.", func(c *config.Config) kingpin.Value { return (*intValue)(&c.Web.MaxConnections) }},
	{"query.timeout", "Time of a query.", func(c *config.Config) kingpin.Value { return &c.Query.Timeout }},
	{"query.max-samples", "Samples that a query may have in memory.", func(c *config.Config) kingpin.Value { return (*intValue)(&c.Query.MaxSamples) }},
	{"query.max-concurrency", "Queries at a time.", func(c *config.Config) kingpin.Value { return (*intValue)(&c.Query.MaxConcurrency) }},
	{"query.lookback-delta", "How far back an instant looks for the last sample.", func(c *config.Config) kingpin.Value { return &c.Query.LookbackDelta }},
	{"log.level", "debug, info, warn or error.", func(c *config.Config) kingpin.Value { return (*textValue)(&c.Log.Level) }},
	{"log.format", "logfmt or json.", func(c *config.Config) kingpin.Value { return (*textValue)(&c.Log.Format) }},
}

// overrides are the flags that were given. They are kept as texts and applied to
// every configuration that is read, at a reload too.
type overrides struct {
	given []givenFlag
	// last, unless nil, is applied behind them.
	last func(*config.Config)
}

type givenFlag struct {
	setting setting
	text    string
}

// addFlags adds a flag for every setting to the command.
func addFlags(cmd *kingpin.CmdClause) *overrides {
	o := &overrides{}
	defaults := config.Default()
	for _, s := range settings {
		v := &flagValue{o: o, setting: s}
		clause := cmd.Flag(s.flag, s.help)
		if _, v.bool = s.value(defaults).(*boolValue); !v.bool {
			clause.PlaceHolder(s.value(defaults).String())
		}
		clause.SetValue(v)
	}
	return o
}

// apply puts the flags that were given into c.
func (o *overrides) apply(c *config.Config) error {
	for _, g := range o.given {
		if err := g.setting.value(c).Set(g.text); err != nil {
			return fmt.Errorf("--%s: %w", g.setting.flag, err)
		}
	}
	if o.last != nil {
		o.last(c)
	}
	return nil
}

// shown returns every flag with its value in c, as status/flags shows them.
func shown(c *config.Config, configFile string) map[string]string {
	out := map[string]string{"config.file": configFile}
	for _, s := range settings {
		out[s.flag] = s.value(c).String()
	}
	return out
}

// flagValue is what the command line parser fills. Its text is tried at once on
// a configuration that is thrown away, so that a mistake is told like any other
// of the command line.
type flagValue struct {
	o       *overrides
	setting setting
	bool    bool
}

func (v *flagValue) Set(text string) error {
	if err := v.setting.value(config.Default()).Set(text); err != nil {
		return fmt.Errorf("--%s: %w", v.setting.flag, err)
	}
	v.o.given = append(v.o.given, givenFlag{v.setting, text})
	return nil
}

func (v *flagValue) String() string { return "" }

// IsBoolFlag tells the parser that the flag needs no value.
func (v *flagValue) IsBoolFlag() bool { return v.bool }

type textValue string

func (v *textValue) Set(text string) error { *v = textValue(text); return nil }
func (v *textValue) String() string        { return string(*v) }

type boolValue bool

func (v *boolValue) Set(text string) error {
	b, err := strconv.ParseBool(text)
	*v = boolValue(b)
	return err
}
func (v *boolValue) String() string { return strconv.FormatBool(bool(*v)) }

type intValue int

func (v *intValue) Set(text string) error {
	n, err := strconv.Atoi(text)
	if err != nil {
		return fmt.Errorf("%q is not a whole number", text)
	}
	*v = intValue(n)
	return nil
}
func (v *intValue) String() string { return strconv.Itoa(int(*v)) }
