package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"varve/config"
)

const someInputs = `
inputs:
  - name: telegraf
    listen_address: :8086
    tokens: [{name: t, token: geheim1}]
    filter_exclude: ['{job="x"}']
    relabel_configs: [{action: labeldrop, regex: host}]
    external_labels: {site: a}
    limits: {max_decoded: 1MiB, max_active_series: 1000, max_samples_per_second: 5000}
    ha: {cluster_label: cluster, replica_label: __replica__, failover_timeout: 10s}
    influxdb: {names: utf8, text_labels: [state], bare_measurements: []}
  - name: thin
    path: /thin
    downsample: 2m
    ttl: 4m
    remote_write: {}
  - {name: otlp, disabled: true, otlp: {}}
  - {name: bus, nats: {urls: ['nats://host:4222'], stream: {name: S}, durable: d, token: geheim2}}
  - name: scraped
    scrape:
      tolerant: true
      scrape_configs:
        - job_name: heros
          basic_auth: {username: u, password: geheim3}
          static_configs: [{targets: ['localhost:9099'], labels: {group: heros}}]
          file_sd_configs: [{files: ['targets/*.yml']}]
`

// TestInputs shows what a file with inputs means, which are there besides, and that no secret of them is shown.
func TestInputs(t *testing.T) {
	c, err := config.Read(write(t, someInputs), nil)
	require.NoError(t, err)
	require.Len(t, c.Inputs, 5)
	in := &c.Inputs[0]
	require.Equal(t, "influxdb", in.Kind())
	require.False(t, in.Usual())
	require.Equal(t, []string{}, *in.InfluxDB.BareMeasurements)
	include, exclude, err := in.Filters()
	require.NoError(t, err)
	require.Empty(t, include)
	require.Len(t, exclude, 1)
	require.Equal(t, "geheim1", in.Tokens[0].Token.Reveal())
	require.Contains(t, string(c.Inputs[4].Scrape.ScrapeConfigs.Text), "geheim3")
	shown := c.YAML()
	require.NotContains(t, shown, "geheim")
	require.Contains(t, shown, "job_name: heros")
	require.NotEmpty(t, in.Fingerprint)
	require.NotEqual(t, in.Fingerprint, c.Inputs[1].Fingerprint)

	var names []string
	for _, i := range c.AllInputs() {
		names = append(names, i.Name+" "+i.Kind())
	}
	require.Equal(t, []string{
		"telegraf influxdb", "thin remote_write", "bus nats", "scraped scrape",
		"remote_write remote_write", "influxdb influxdb", "opentsdb opentsdb", "import import",
	}, names)

	again, err := config.Read(write(t, "log: {level: warn}\n"+strings.Replace(someInputs, "geheim3", "geheim9", 1)), nil)
	require.NoError(t, err)
	require.Equal(t, in.Fingerprint, again.Inputs[0].Fingerprint)
	require.NotEqual(t, c.Inputs[4].Fingerprint, again.Inputs[4].Fingerprint)
	effective, waiting := config.Reloaded(c, again)
	require.Equal(t, again.Inputs[4].Fingerprint, effective.Inputs[4].Fingerprint)
	require.Empty(t, waiting, "all of it is reloaded")
}

// TestUsualInputs shows that an entry without a place of its own takes the place of the input that is there without being configured.
func TestUsualInputs(t *testing.T) {
	c, err := config.Read(write(t, "inputs: [{name: lines, external_labels: {a: b}, influxdb: {}}, {name: udp, influxdb: {udp_listen_address: ':8089'}}]"), nil)
	require.NoError(t, err)
	kinds := map[string][]string{}
	for _, i := range c.AllInputs() {
		kinds[i.Kind()] = append(kinds[i.Kind()], i.Name)
	}
	require.Equal(t, map[string][]string{
		"influxdb": {"lines", "udp"}, "remote_write": {"remote_write"}, "opentsdb": {"opentsdb"}, "otlp": {"otlp"}, "import": {"import"},
	}, kinds)
}

// TestInputMistakes shows what is refused, and what is said of it.
func TestInputMistakes(t *testing.T) {
	for name, c := range map[string]struct{ text, says string }{
		"no kind":             {"{name: a}", "it has 0 of them"},
		"two kinds":           {"{name: a, path: /a, influxdb: {}, otlp: {}}", "it has 2 of them"},
		"no name":             {"{influxdb: {}}", "is not a name"},
		"same name":           {"{name: a, path: /a, influxdb: {}}, {name: a, path: /b, influxdb: {}}", `two inputs are called "a"`},
		"name that is there":  {"{name: otlp, path: /a, otlp: {}}", "is there without being configured"},
		"own name":            {"{name: varve, path: /a, influxdb: {}}", "the server's own metrics"},
		"larger than all":     {"{name: a, path: /a, limits: {max_decoded: 1GiB}, influxdb: {}}", "more than ingest.max_in_flight"},
		"two usual":           {"{name: a, influxdb: {}}, {name: b, influxdb: {}}", `"a" stands for the usual paths already`},
		"same path":           {"{name: a, path: /x, influxdb: {}}, {name: b, path: /x, otlp: {}}", `"a" listens at /x already`},
		"same address":        {"{name: a, listen_address: ':1', influxdb: {}}, {name: b, listen_address: ':1', otlp: {}}", `"a" listens at :1 already`},
		"address and path":    {"{name: a, listen_address: ':1', path: /a, influxdb: {}}", "exclude each other"},
		"bad path":            {"{name: a, path: 'a/../b', influxdb: {}}", "is not a path"},
		"bad address":         {"{name: a, listen_address: '1', influxdb: {}}", "is not an address"},
		"bad port":            {"{name: a, listen_address: ':99999', influxdb: {}}", "no valid port"},
		"path of a queue":     {"{name: a, path: /a, nats: {urls: ['nats://h'], durable: d, stream: {name: s}}}", "takes no HTTP"},
		"tokens on the main":  {"{name: a, path: /a, tokens: [{name: t, token: x}], influxdb: {}}", "are for an address of its own"},
		"empty token":         {"{name: a, listen_address: ':1', tokens: [{name: t}], influxdb: {}}", "must not be empty"},
		"both filters":        {"{name: a, filter_include: [up], filter_exclude: [up], influxdb: {}}", "exclude each other"},
		"bad filter":          {"{name: a, filter_include: ['{'], influxdb: {}}", "is not a selector"},
		"bad external label":  {"{name: a, external_labels: {__name__: x}, influxdb: {}}", "is not the name of a label"},
		"ttl alone":           {"{name: a, ttl: 1m, influxdb: {}}", "means nothing without downsample"},
		"ttl below":           {"{name: a, downsample: 2m, ttl: 1m, influxdb: {}}", "out of bounds"},
		"ttl of many points":  {"{name: a, downsample: 1s, ttl: 1001s, influxdb: {}}", "out of bounds"},
		"one label for both":  {"{name: a, ha: {cluster_label: c, replica_label: c}, influxdb: {}}", "another label than cluster_label"},
		"burst alone":         {"{name: a, limits: {burst_samples: 3}, influxdb: {}}", "means nothing without"},
		"replica":             {"{name: a, ha: {cluster_label: c}, influxdb: {}}", "is not the name of a label"},
		"unknown key":         {"{name: a, influxdb: {bukket_label: x}}", `unknown key "bukket_label"`},
		"precision of HTTP":   {"{name: a, influxdb: {precision: s}}", "that of datagrams"},
		"OTLP strategy":       {"{name: a, otlp: {translation_strategy: x}}", "is not one of"},
		"names of OpenTSDB":   {"{name: a, opentsdb: {names: x}}", "is not one of"},
		"no server":           {"{name: a, nats: {durable: d}}", "address of a server"},
		"payload":             {"{name: a, nats: {urls: ['nats://h'], payload: x}}", "is not one of"},
		"scrape":              {"{name: a, scrape: {scrape_configs: [{job_name: j, scrape_intervall: 5s}]}}", "scrape_intervall"},
		"scrape without name": {"{name: a, scrape: {scrape_configs: [{static_configs: []}]}}", "job_name"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := config.Read(write(t, "inputs: ["+c.text+"]"), nil)
			require.ErrorContains(t, err, c.says)
		})
	}
}

// TestInputSecretFiles shows that an input is another one when what its files say of who may use it changed.
func TestInputSecretFiles(t *testing.T) {
	path := write(t, "inputs: [{name: a, listen_address: ':1', web_config_file: web.yml, tokens: [{name: t, token_file: token}], ha: {cluster_label: c, replica_label: r}, influxdb: {}}]")
	var before string
	for _, files := range [][2]string{{"one", ""}, {"two", ""}, {"two", "rate_limit: {}"}} {
		for i, name := range []string{"token", "web.yml"} {
			require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(path), name), []byte(files[i]), 0o600))
		}
		c, err := config.Read(path, nil)
		require.NoError(t, err)
		require.NotEqual(t, before, c.Inputs[0].Fingerprint)
		before = c.Inputs[0].Fingerprint
		require.NotContains(t, before, files[0])
		require.Equal(t, config.Duration(30*time.Second), c.Inputs[0].HA.FailoverTimeout, "by default")
		again, err := config.Read(path, nil)
		require.NoError(t, err)
		require.Equal(t, before, again.Inputs[0].Fingerprint)
	}
}
