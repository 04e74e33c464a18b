package config_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"varve/config"
)

const twoOutputs = `
outputs:
  - name: central
    start: 2025-01-31T00:00:00Z
    filter_include: ['{job="x"}', 'up']
    relabel_configs:
      - {source_labels: [a], target_label: b}
    external_labels: {site: a}
    backlog_policy: drop_oldest
    backlog_age: 2d
    queries: [{name: q, query: 'sum(up)', metric: ups, interval: 1m}]
    remote_write:
      url: http://user:geheim1@host/api/v1/write
      send_exemplars: false
      basic_auth: {username: u, password: geheim2}
      tls_config: {insecure_skip_verify: true}
  - name: bus
    nats: {urls: ['nats://host:4222'], subject: 'varve.{__name__}', token: geheim3, stream: {create: true, max_age: 1h}}
`

// TestOutputs shows what a file with outputs means, and that no secret of them is shown.
func TestOutputs(t *testing.T) {
	c, err := config.Read(write(t, twoOutputs), nil)
	require.NoError(t, err)
	require.Len(t, c.Outputs, 2)
	o := &c.Outputs[0]
	require.Equal(t, "remote_write", o.Kind())
	at, all, err := o.StartTime()
	require.NoError(t, err)
	require.False(t, all)
	require.Equal(t, int64(1738281600), at.Unix())
	include, exclude, err := o.Filters()
	require.NoError(t, err)
	require.Len(t, include, 2)
	require.Empty(t, exclude)
	require.Equal(t, "geheim2", string(o.RemoteWrite.HTTP.BasicAuth.Password))
	require.False(t, *o.RemoteWrite.SendExemplars)
	require.Equal(t, "b", o.RelabelConfigs[0].TargetLabel)
	require.Equal(t, "nats", c.Outputs[1].Kind())
	require.True(t, c.Outputs[1].NATS.Stream.Create)
	require.NotContains(t, c.YAML(), "geheim")
	require.Contains(t, c.YAML(), "central")
	require.NotEmpty(t, o.Fingerprint)
	require.NotEqual(t, o.Fingerprint, c.Outputs[1].Fingerprint)

	// A secret that changes makes another output, one that is only moved does not.
	again, err := config.Read(write(t, "log: {level: warn}\n"+strings.Replace(twoOutputs, "geheim2", "geheim9", 1)), nil)
	require.NoError(t, err)
	require.NotEqual(t, o.Fingerprint, again.Outputs[0].Fingerprint)
	require.Equal(t, c.Outputs[1].Fingerprint, again.Outputs[1].Fingerprint)

	// Outputs change with a reload.
	effective, waiting := config.Reloaded(config.Default(), c)
	require.Empty(t, waiting)
	require.Equal(t, c.Outputs, effective.Outputs)
}

// TestOutputExampleIsValid shows that the example of an output in default.yaml is what a file may have, kind by kind.
func TestOutputExampleIsValid(t *testing.T) {
	_, rest, found := strings.Cut(config.DefaultYAML(), "#\n#   - name: central")
	require.True(t, found)
	example, _, _ := strings.Cut("#   - name: central"+rest, "\noutputs:")
	var lines []string
	kinds := map[string][]string{}
	kind := ""
	for _, line := range strings.Split(example, "\n") {
		line = strings.TrimPrefix(line, "# ")
		text := strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(text, "#"):
			continue
		case strings.HasPrefix(line, "      ") && kind != "":
			kinds[kind] = append(kinds[kind], line)
		case strings.HasPrefix(text, "remote_write:"), strings.HasPrefix(text, "influxdb:"), strings.HasPrefix(text, "opentsdb:"),
			strings.HasPrefix(text, "nats:"), strings.HasPrefix(text, "cc_metric_store:"):
			kind, _, _ = strings.Cut(text, ":")
			kinds[kind] = []string{line}
		default:
			lines = append(lines, line)
		}
	}
	require.Len(t, kinds, 5)
	for kind, own := range kinds {
		file := "outputs:\n" + strings.Join(append(append([]string{}, lines...), own...), "\n")
		file = strings.ReplaceAll(file, "HOST", "localhost")
		_, err := config.Read(write(t, file), nil)
		require.NoError(t, err, "%s\n%s", kind, file)
	}
}

// TestMistakesInOutputs shows that what is wrong with an output is found when the file is read, with its line.
func TestMistakesInOutputs(t *testing.T) {
	const url = "    remote_write: {url: 'http://h'}\n"
	for text, want := range map[string]string{
		"outputs:\n  - name: a/b\n" + url:                                                                                        `:2: outputs.0.name: "a/b" is not a name`,
		"outputs:\n  - name: a\n" + url + "  - name: a\n" + url:                                                                  `:4: outputs.1.name: two outputs are called "a"`,
		"outputs:\n  - name: a\n":                                                                                                "it has 0 of them",
		"outputs:\n  - name: a\n" + url + "    opentsdb: {url: 'http://h'}\n":                                                    "it has 2 of them",
		"outputs:\n  - name: a\n    remote_write: {url: 'ftp://h'}\n":                                                            "it must begin with http:// or https://",
		"outputs:\n  - name: a\n    remote_write: {}\n":                                                                          "an address is needed",
		"outputs:\n  - name: a\n    start: soon\n" + url:                                                                         `"soon" is neither now nor beginning`,
		"outputs:\n  - name: a\n    filter_include: ['up']\n    filter_exclude: ['{a=\"b\"}']\n" + url:                           "exclude each other",
		"outputs:\n  - name: a\n    filter_include: ['sum(up)']\n" + url:                                                         "is not a selector",
		"outputs:\n  - name: a\n    backlog_policy: drop_oldest\n" + url:                                                         "needs backlog_size or backlog_age",
		"outputs:\n  - name: a\n    backlog_policy: drop_oldest\n    backlog_size: 5GiB\n" + url:                                 "5GiB is more than the journal keeps",
		"outputs:\n  - name: a\n    queries: [{name: q, query: 'sum(', interval: 1m}]\n" + url:                                   "outputs.0.queries.0.query",
		"outputs:\n  - name: a\n    queries: [{name: q, query: 'up'}]\n" + url:                                                   "interval: 0s is out of bounds",
		"outputs:\n  - name: a\n    remote_write: {url: 'http://h', basic_auth: {username: u, password: p, password_file: f}}\n": "at most one of",
		"outputs:\n  - name: a\n    remote_write: {url: 'http://h', nonsense: 1}\n":                                              `unknown key "nonsense"`,
		"outputs:\n  - name: a\n    nats: {subject: x}\n":                                                                        "the address of a server is needed",
		"outputs:\n  - name: a\n    cc_metric_store: {url: 'http://h', cluster: c}\n":                                            "without metrics nothing is written",
	} {
		require.Contains(t, mistakes(t, text).Error(), want, text)
	}
}

// TestOutputAlias shows that an output is another one when what it refers to elsewhere in the file has changed.
func TestOutputAlias(t *testing.T) {
	const text = `
outputs:
  - name: a
    external_labels: &labels {site: one}
    remote_write: {url: 'http://host/w'}
  - name: b
    external_labels: *labels
    remote_write: {url: 'http://host/w'}
`
	c, err := config.Read(write(t, text), nil)
	require.NoError(t, err)
	again, err := config.Read(write(t, strings.Replace(text, "one", "two", 1)), nil)
	require.NoError(t, err)
	require.Equal(t, "two", again.Outputs[1].ExternalLabels["site"])
	require.NotEqual(t, c.Outputs[1].Fingerprint, again.Outputs[1].Fingerprint)
}

// TestNATSAddressWithoutSecret shows that secrets are not taken in addresses, which are shown.
func TestNATSAddressWithoutSecret(t *testing.T) {
	_, err := config.Read(write(t, strings.Replace(twoOutputs, "nats://host", "nats://geheim@host", 1)), nil)
	require.ErrorContains(t, err, "urls")
	require.NotContains(t, err.Error(), "geheim")
}
