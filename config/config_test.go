package config_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"

	"varve/config"
)

// write puts a configuration into a file of its own and returns the path.
func write(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "varve.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// mistakes reads a configuration that must be refused.
func mistakes(t testing.TB, text string) *config.Mistakes {
	t.Helper()
	_, err := config.Read(write(t, text), nil)
	var m *config.Mistakes
	require.ErrorAs(t, err, &m, "%s", text)
	require.NotEmpty(t, m.List)
	return m
}

func TestDefaultFileIsTheDefaults(t *testing.T) {
	// The printed default configuration, no file and an empty file all give the same.
	printed, err := config.Read(write(t, config.DefaultYAML()), nil)
	require.NoError(t, err)
	none, err := config.Read("", nil)
	require.NoError(t, err)
	empty, err := config.Read(write(t, "# nothing\n"), nil)
	require.NoError(t, err)
	require.Equal(t, config.Default(), none)
	require.Equal(t, none, empty)
	require.Equal(t, none, printed)
}

func TestDefaultFileNamesAndExplainsEveryField(t *testing.T) {
	// Each field of the struct is a key of default.yaml, in the same place, and each
	// key or group of keys has a comment.
	var root yaml.Node
	require.NoError(t, yaml.Unmarshal([]byte(config.DefaultYAML()), &root))
	compare(t, "", reflect.TypeFor[config.Config](), root.Content[0])
}

func compare(t *testing.T, path string, typ reflect.Type, n *yaml.Node) {
	t.Helper()
	require.Equal(t, yaml.MappingNode, n.Kind, path)
	keys := map[string]*yaml.Node{}
	explained := false
	for i := 0; i < len(n.Content); i += 2 {
		keys[n.Content[i].Value] = n.Content[i+1]
		explained = explained || n.Content[i].HeadComment != ""
	}
	// Small sections of plain keys may be explained by the comment above them.
	require.True(t, explained || path == ".self_scrape", "nothing below %s has a comment", path)
	require.Len(t, keys, typ.NumField(), path)
	for i := range typ.NumField() {
		key, _, _ := strings.Cut(typ.Field(i).Tag.Get("yaml"), ",")
		child, ok := keys[key]
		require.True(t, ok, "default.yaml has no %s.%s", path, key)
		if f := typ.Field(i).Type; f.Kind() == reflect.Struct {
			compare(t, path+"."+key, f, child)
		}
	}
}

func TestYAMLReadsBack(t *testing.T) {
	// What status/config shows is itself a configuration, with the same meaning.
	c, err := config.Read(write(t, "storage: {memory: 96MiB, runs: {max_age: 90s}}\nfederation: {external_labels: {site: a}}\n"), nil)
	require.NoError(t, err)
	again, err := config.Read(write(t, c.YAML()), nil)
	require.NoError(t, err)
	require.Equal(t, c, again)
}

func TestFileOverridesDefaultsAndFlagsOverrideTheFile(t *testing.T) {
	// A key that the file doesn't have keeps its default, and override has the last
	// word before the checks, which then name no line.
	path := write(t, "query:\n  timeout: 30s\n  max_samples: 7\n")
	c, err := config.Read(path, func(c *config.Config) error { return c.Query.Timeout.Set("1m30s") })
	require.NoError(t, err)
	require.Equal(t, "1m30s", c.Query.Timeout.String())
	require.Equal(t, 7, c.Query.MaxSamples)
	require.Equal(t, config.Default().Query.MaxSeries, c.Query.MaxSeries)

	_, err = config.Read("", func(c *config.Config) error { return c.Query.Timeout.Set("0s") })
	require.EqualError(t, err, "query.timeout: 0s is out of bounds: use 1s to 1d")
}

func TestMistakesNameTheirLine(t *testing.T) {
	// One mistake of each kind stands on the line that is named.
	f := func(text string, line int, contains string) {
		t.Helper()
		m := mistakes(t, text)
		require.Equal(t, line, m.List[0].Line, m.Error())
		require.Contains(t, m.Error(), contains)
		require.Contains(t, m.Error(), fmt.Sprintf("varve.yaml:%d: ", line))
	}
	f("storage:\n  path: x\n  pfad: y\n", 3, `unknown key "pfad"`)
	f("storage:\n\n  memory: lots\n", 3, `"lots" is not a size`)
	f("storage:\n  memory: 1KiB\n", 2, "out of bounds: use 32MiB to 1TiB")
	f("storage:\n  reserve: auto\n", 2, "out of bounds")
	f("canary:\n  interval: 0s\n", 2, "out of bounds: use 1s to 1h")
	f("canary:\n  interval: 7m\n", 2, "no part of a day")
	f("compactor:\n  cpu_share: .nan\n", 2, "out of bounds")
	f("ingest:\n  overwrites: first\n", 2, `"first" is not one of last, reject`)
	f("storage:\n  sync: sometimes\n", 2, `"sometimes" is not one of always, interval`)
	f("query:\n  timeout: soon\n", 2, "is not a duration")
	f("query:\n  max_samples: many\n", 2, "must be a whole number")
	f("query:\n  max_samples: 99999999999999999999999\n", 2, "must be a whole number")
	f("web:\n  enable_lifecycle: 3\n", 2, "must be true or false")
	f("web:\n  listen_address: nowhere\n", 2, "is not an address")
	f("web:\n  external_url: ftp://x/\n", 2, "must begin with http")
	f("web:\n  config_file: missing.yml\n", 2, "is not a file")
	f("web:\n  tokens:\n    - name: a\n      token: x\n    - name: a\n      token: y\n", 5, "two tokens")
	f("web:\n  tokens:\n    - name: a\n", 3, "must not be empty")
	f("web:\n  tokens:\n    - name: a\n      token_file: missing\n", 4, "can't be read")
	f("web:\n  tokens: secret\n", 2, "must be a list")
	f("web:\n  rules:\n    - who: [token:b]\n      may: [query]\n", 3, "no token is called")
	f("web:\n  rules:\n    - who: [anonymous]\n      may: [query, all]\n", 4, `"all" is not one of`)
	f("web:\n  rules:\n    - who: [anonymous]\n", 3, "needs both")
	f("federation:\n  external_labels:\n    __name__: x\n", 3, "can't be set")
	f("ingest:\n  max_in_flight: 1MiB\n", 2, "largest request could never be taken")
	f("log: {level: info}\nlog: {level: warn}\n", 2, "already defined")
	f("log:\n  level: info\n---\nlog: {}\n", 3, "second document")
	f("log:\n\tlevel: info\n", 2, "cannot start any token")
	f("- a list\n", 1, "must be a section")
}

func TestAllMistakesAreReportedAtOnce(t *testing.T) {
	// Whoever mends a file sees everything in one run.
	m := mistakes(t, "storage:\n  sync: no\nquery:\n  max_nesting: 0\nlog:\n  level: loud\n")
	lines := []int{}
	for _, one := range m.List {
		lines = append(lines, one.Line)
	}
	require.Equal(t, []int{2, 4, 6}, lines)
}

// badConfigs makes at least 100 configurations with one mistake each: every key
// with a value of the wrong kind, and every section with a key that doesn't exist.
func badConfigs() map[string]int {
	var root yaml.Node
	if err := yaml.Unmarshal([]byte(config.DefaultYAML()), &root); err != nil {
		panic(err)
	}
	out := map[string]int{}
	var walk func(prefix []string, n *yaml.Node)
	walk = func(prefix []string, n *yaml.Node) {
		file := func(key, value string) {
			var b strings.Builder
			for depth, p := range prefix {
				fmt.Fprintf(&b, "%s%s:\n", strings.Repeat("  ", depth), p)
			}
			fmt.Fprintf(&b, "%s%s: %s\n", strings.Repeat("  ", len(prefix)), key, value)
			out[b.String()] = len(prefix) + 1
		}
		file("no_such_key", "1")
		for i := 0; i < len(n.Content); i += 2 {
			key, value := n.Content[i].Value, n.Content[i+1]
			switch {
			case value.Kind == yaml.MappingNode && len(value.Content) > 0:
				walk(append(prefix, key), value)
				file(key, "[1, 2]")
			case value.Kind == yaml.ScalarNode:
				file(key, "[1, 2]")
				file(key, "{a: b}")
			default:
				file(key, "7")
			}
		}
	}
	walk(nil, root.Content[0])
	return out
}

func TestEveryKeyRefusesValuesOfTheWrongKind(t *testing.T) {
	// At least 100 generated files, each with one mistake, whose line is named.
	bad := badConfigs()
	require.GreaterOrEqual(t, len(bad), 100)
	for text, line := range bad {
		m := mistakes(t, text)
		require.Equal(t, line, m.List[0].Line, "%s\n%s", text, m.Error())
	}
}

func TestSecretsShowThemselvesToNobody(t *testing.T) {
	// A canary in every place for a secret appears in no way of printing, encoding
	// or logging the configuration, nor in the text of a mistake about it.
	const canary = "canary-5up3r"
	dir := t.TempDir()
	file := filepath.Join(dir, "token")
	require.NoError(t, os.WriteFile(file, []byte(canary+"\n"), 0o600))
	c, err := config.Read(write(t, "web:\n  tokens:\n    - {name: a, token: "+canary+"}\n    - {name: b, token_file: "+file+"}\n"), nil)
	require.NoError(t, err)
	require.Equal(t, canary, c.Web.Tokens[0].Token.Reveal())
	require.Equal(t, canary, c.Web.Tokens[1].Token.Reveal())

	shown := []string{c.YAML()}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		shown = append(shown, fmt.Sprintf(verb, c), fmt.Sprintf(verb, *c), fmt.Sprintf(verb, c.Web.Tokens[0].Token))
	}
	asJSON, err := json.Marshal(c)
	require.NoError(t, err)
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "config", c, "token", c.Web.Tokens[0].Token)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "config", c, "token", c.Web.Tokens[0].Token)
	shown = append(shown, string(asJSON), log.String(), errors.New(c.Web.Tokens[0].Token.String()).Error())
	for _, text := range []string{
		"web: {tokens: [{name: a, token: [" + canary + "]}]}",
		"web: {tokens: [" + canary + "]}",
		"web: {tokens: " + canary + "}",
		"web: {tokens: [{name: a, token: " + canary + ", token_file: x}]}",
		"web: {tokens: [{token: " + canary + "}]}",
	} {
		shown = append(shown, mistakes(t, text).Error())
	}
	for _, text := range shown {
		require.NotContains(t, text, canary)
		require.NotContains(t, text, fmt.Sprintf("%x", canary))
	}
}

func FuzzRead(f *testing.F) {
	// No file makes reading panic; what is accepted reads back to the same.
	f.Add(config.DefaultYAML())
	f.Add("a: &a [*a]")
	f.Add("web: {tokens: [{name: x, token: !!binary aGk=}]}")
	for text := range badConfigs() {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := config.Read(write(t, text), nil)
		if err != nil || len(c.Web.Tokens) > 0 {
			return
		}
		again, err := config.Read(write(t, c.YAML()), nil)
		require.NoError(t, err)
		require.Equal(t, c.YAML(), again.YAML())
	})
}
