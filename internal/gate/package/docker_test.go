package packages_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/config"
	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"

	"varve/internal/gate/server"
)

// composed is what the tests look at of compose.yml.
type composed struct {
	Services map[string]struct {
		Image       string
		Build       struct{ Context, Dockerfile string }
		Command     []string
		Environment map[string]string
		Volumes     []string
		Ports       []string
		DependsOn   map[string]struct{ Condition string } `yaml:"depends_on"`
		StopGrace   string                                `yaml:"stop_grace_period"`
		ReadOnly    bool                                  `yaml:"read_only"`
		CapDrop     []string                              `yaml:"cap_drop"`
	}
	Volumes map[string]any
}

func dockerDir(t testing.TB) string {
	return filepath.Join(server.ModuleRoot(t), "packaging/docker")
}

func readCompose(t testing.TB) composed {
	t.Helper()
	var c composed
	require.NoError(t, yaml.Unmarshal([]byte(read(t, dockerDir(t), "compose.yml")), &c))
	return c
}

func TestComposeFile(t *testing.T) {
	// Every file that a service mounts is in the checkout, every volume is declared, services wait for ones that exist, and no port is open beyond this machine.
	c := readCompose(t)
	require.ElementsMatch(t, []string{"varve", "prometheus", "node", "grafana"}, keysOf(c.Services))
	for name, s := range c.Services {
		require.NotEmpty(t, s.Image, name)
		for _, v := range s.Volumes {
			from := strings.Split(v, ":")[0]
			switch {
			case strings.HasPrefix(from, "."):
				_, err := os.Stat(filepath.Join(dockerDir(t), from))
				require.NoError(t, err, "%s mounts %s", name, v)
				require.True(t, strings.HasSuffix(v, ":ro"), "%s may write to %s", name, v)
			case !strings.HasPrefix(from, "/"):
				require.Contains(t, c.Volumes, from)
			}
		}
		for _, p := range s.Ports {
			require.True(t, strings.HasPrefix(p, "127.0.0.1:"), "%s publishes %s", name, p)
		}
		for other := range s.DependsOn {
			require.Contains(t, c.Services, other)
		}
	}
	varve := c.Services["varve"]
	require.True(t, varve.ReadOnly)
	require.Equal(t, []string{"ALL"}, varve.CapDrop)
	_, err := os.Stat(filepath.Join(dockerDir(t), varve.Build.Context, varve.Build.Dockerfile))
	require.NoError(t, err)
}

func keysOf[V any](m map[string]V) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	return keys
}

func TestComposeConfiguresVarve(t *testing.T) {
	// The configuration that is mounted is valid, and the program takes the command that the image gets.
	need(t, "sh")
	output(t, server.Binary(t, ""), "check", "config", filepath.Join(dockerDir(t), "varve.yml"))
	command := readCompose(t).Services["varve"].Command
	require.Contains(t, command, "--config.file=/etc/varve/varve.yml")
	// The parser reads the flags before it shows the help.
	output(t, server.Binary(t, ""), append(slices.Clone(command), "--help")...)
}

func TestComposeConfiguresPrometheus(t *testing.T) {
	// Prometheus takes its configuration: as upstream's own code reads it, and as promtool does but for a key that Debian's
	// is too old for. It writes to the service varve, and every target and rule file is one of the composition.
	c := readCompose(t)
	file := filepath.Join(dockerDir(t), "prometheus.yml")
	parsed, err := config.Load(read(t, dockerDir(t), "prometheus.yml"), promslog.NewNopLogger())
	require.NoError(t, err)
	require.Len(t, parsed.RemoteWriteConfigs, 1)
	require.Equal(t, "http://varve:9095/api/v1/write", parsed.RemoteWriteConfigs[0].URL.String())
	var raw struct {
		ScrapeConfigs []struct {
			StaticConfigs []struct{ Targets []string } `yaml:"static_configs"`
		} `yaml:"scrape_configs"`
	}
	text := read(t, dockerDir(t), "prometheus.yml")
	require.NoError(t, yaml.Unmarshal([]byte(text), &raw))
	for _, s := range raw.ScrapeConfigs {
		for _, target := range s.StaticConfigs[0].Targets {
			host, _, _ := strings.Cut(target, ":")
			require.Contains(t, append(keysOf(c.Services), "localhost"), host)
		}
	}
	mounts := c.Services["prometheus"].Volumes
	require.NotEmpty(t, parsed.RuleFiles)
	for _, rules := range parsed.RuleFiles {
		mounted := slices.IndexFunc(mounts, func(m string) bool {
			return strings.HasSuffix(m, ":/etc/prometheus/"+rules+":ro")
		})
		require.GreaterOrEqual(t, mounted, 0, "%s is not mounted", rules)
	}

	need(t, "promtool")
	dir := t.TempDir()
	text = strings.ReplaceAll(text, "    protobuf_message: io.prometheus.write.v2.Request\n", "")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(text), 0o600))
	rules := read(t, dockerDir(t), "../prometheus/varve.rules.yml")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "varve.rules.yml"), []byte(rules), 0o600))
	out, err := exec.Command("promtool", "check", "config", filepath.Join(dir, "prometheus.yml")).CombinedOutput()
	require.NoError(t, err, "%s: %s", file, out)
}

func TestComposeProvisionsGrafana(t *testing.T) {
	// Grafana finds a default data source that is the service varve, and dashboards where its provider looks for them.
	c := readCompose(t)
	var sources struct {
		Datasources []struct {
			Type, URL string
			IsDefault bool `yaml:"isDefault"`
		}
	}
	grafana := filepath.Join(dockerDir(t), "../grafana")
	require.NoError(t, yaml.Unmarshal([]byte(read(t, grafana, "provisioning/datasources/varve.yml")), &sources))
	require.Equal(t, "prometheus", sources.Datasources[0].Type)
	require.Equal(t, "http://varve:9095", sources.Datasources[0].URL)
	require.True(t, sources.Datasources[0].IsDefault)
	var providers struct {
		Providers []struct {
			Options struct{ Path string }
		}
	}
	require.NoError(t, yaml.Unmarshal([]byte(read(t, grafana, "provisioning/dashboards/varve.yml")), &providers))
	require.Contains(t, c.Services["grafana"].Volumes, "../grafana/dashboards:"+providers.Providers[0].Options.Path+":ro")
	boards, err := filepath.Glob(filepath.Join(grafana, "dashboards/*.json"))
	require.NoError(t, err)
	require.NotEmpty(t, boards)
}

// instruction is one of a Dockerfile, its lines joined.
type instruction struct{ name, text string }

// instructions reads a Dockerfile: comments go, and a backslash joins lines.
func instructions(t testing.TB, text string) []instruction {
	t.Helper()
	var all []instruction
	joined := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if rest, ok := strings.CutSuffix(line, `\`); ok {
			joined += rest
			continue
		}
		name, rest, ok := strings.Cut(joined+line, " ")
		require.True(t, ok, line)
		all = append(all, instruction{name, strings.TrimSpace(rest)})
		joined = ""
	}
	require.Empty(t, joined, "the last line is joined to nothing")
	return all
}

func TestDockerfile(t *testing.T) {
	// The file has instructions that exist, in two stages of which the second has a user that isn't root, takes from the first what that
	// makes, and probes with a verb that the program has. Shell commands in it are ones that a shell can read.
	known := []string{"ARG", "FROM", "RUN", "WORKDIR", "COPY", "USER", "VOLUME", "ENV", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD"}
	stages := [][]instruction{nil}
	for _, i := range instructions(t, read(t, dockerDir(t), "Dockerfile")) {
		require.Contains(t, known, i.name)
		if i.name == "FROM" {
			stages = append(stages, nil)
		}
		stages[len(stages)-1] = append(stages[len(stages)-1], i)
		if i.name == "RUN" {
			output(t, "sh", "-n", "-c", i.text)
		}
	}
	require.Len(t, stages, 3)
	values := func(stage int, name string) []string {
		var found []string
		for _, i := range stages[stage] {
			if i.name == name {
				found = append(found, i.text)
			}
		}
		return found
	}
	require.Equal(t, []string{"${GO_IMAGE} AS build"}, values(1, "FROM"))
	require.Contains(t, strings.Join(values(1, "RUN"), "\n"), "-o /out/varve ./cmd/varve")
	require.Contains(t, values(2, "COPY"), "--from=build /out/varve /usr/bin/varve")
	require.Equal(t, []string{"9095:9095"}, values(2, "USER"))
	require.Equal(t, []string{"/var/lib/varve"}, values(2, "VOLUME"))
	// The one folder that can be written to in a container with a read-only root, and is no memory.
	require.Equal(t, []string{"TMPDIR=/var/lib/varve"}, values(2, "ENV"))
	require.Contains(t, strings.Join(values(2, "RUN"), "\n"), "librocksdb7.8")

	// Forms with brackets are YAML too.
	var entry, cmd, probe []string
	require.NoError(t, yaml.Unmarshal([]byte(values(2, "ENTRYPOINT")[0]), &entry))
	require.NoError(t, yaml.Unmarshal([]byte(values(2, "CMD")[0]), &cmd))
	_, health, ok := strings.Cut(values(2, "HEALTHCHECK")[0], " CMD ")
	require.True(t, ok)
	require.NoError(t, yaml.Unmarshal([]byte(health), &probe))
	require.Equal(t, []string{"/usr/bin/varve"}, entry)
	for _, args := range [][]string{cmd, probe[1:]} {
		output(t, server.Binary(t, ""), append(slices.Clone(args), "--help")...)
	}
	require.Equal(t, entry[0], probe[0])
	// The Go that builds the image is the module's.
	goVersion := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(read(t, server.ModuleRoot(t), "go.mod"))[1]
	require.Contains(t, values(0, "ARG"), fmt.Sprintf("GO_IMAGE=golang:%s-%s", goVersion, release))
}

func TestDockerContext(t *testing.T) {
	// What is sent to the engine holds every folder that the program is built from, and every file that the Dockerfile copies.
	need(t, "go")
	var kept []string
	for line := range strings.Lines(read(t, dockerDir(t), "Dockerfile.dockerignore")) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "!"); ok {
			kept = append(kept, name)
			_, err := os.Stat(filepath.Join(server.ModuleRoot(t), name))
			require.NoError(t, err)
		}
	}
	cmd := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", "./cmd/varve")
	cmd.Dir = server.ModuleRoot(t)
	for path := range strings.FieldsSeq(outputOf(t, cmd)) {
		if ours, ok := strings.CutPrefix(path, "varve/"); ok {
			top, _, _ := strings.Cut(ours, "/")
			require.Contains(t, kept, top)
		}
	}
	for _, file := range []string{"go.mod", "go.sum", "LICENSE", "NOTICE", "packaging/debian/licences"} {
		require.Contains(t, kept, file)
	}
}
