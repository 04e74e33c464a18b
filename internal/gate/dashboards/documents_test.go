package dashboards_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"varve/internal/gate/server"
)

// upstream are prefixes of metrics that come with libraries: docs/metrics.md need not have them, but must not have them wrong.
var upstream = []string{"go_", "process_", "promhttp_", "prometheus_sd_", "prometheus_target_", "prometheus_remote_read_", "varve_objstore_"}

// documented is a line of docs/metrics.md.
type documented struct{ kind, labels string }

// readDocument returns the metrics that docs/metrics.md has, by name.
func readDocument(t *testing.T) map[string]documented {
	t.Helper()
	page, err := os.ReadFile(filepath.Join(server.ModuleRoot(t), "docs", "metrics.md"))
	require.NoError(t, err)
	all := map[string]documented{}
	for line := range strings.Lines(string(page)) {
		cells := strings.Split(line, "|")
		if len(cells) != 6 || !strings.HasPrefix(strings.TrimSpace(cells[1]), "`") {
			continue
		}
		name := strings.Trim(strings.TrimSpace(cells[1]), "`")
		_, twice := all[name]
		require.False(t, twice, "docs/metrics.md has %s twice", name)
		require.NotEmpty(t, strings.TrimSpace(cells[4]), "docs/metrics.md doesn't say what %s means", name)
		all[name] = documented{kind: strings.TrimSpace(cells[2]), labels: strings.TrimSpace(cells[3])}
	}
	return all
}

// family is what is exposed by now of a family, with the labels that docs/metrics.md names, or nil.
func (r *rig) family(name string) *metric {
	var f *metric
	for _, one := range []string{name, name + "_bucket", name + "_sum", name + "_count"} {
		m := r.exposed[one]
		if m == nil || m.family != name {
			continue
		}
		if f == nil {
			f = &metric{kind: m.kind, labels: map[string]bool{}, family: name}
		}
		for l := range m.labels {
			if l != "le" && l != "quantile" {
				f.labels[l] = true
			}
		}
	}
	return f
}

// documents checks docs/metrics.md against what the server exposes.
func (r *rig) documents(t *testing.T, used map[string]bool) {
	documents := readDocument(t)
	families := map[string]*metric{}
	inUse := map[string]bool{}
	for name, m := range r.exposed {
		if families[m.family] == nil {
			families[m.family] = r.family(m.family)
		}
		inUse[m.family] = inUse[m.family] || used[name]
	}
	for name, m := range families {
		d, ok := documents[name]
		foreign := slices.ContainsFunc(upstream, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
		if !ok {
			require.True(t, foreign, "docs/metrics.md lacks %s (%s, labels %s; used in a dashboard or a rule: %v)", name, m.kind, joined(m.labels), inUse[name])
			continue
		}
		require.Equal(t, m.kind, d.kind, "the type of %s", name)
		require.Equal(t, joined(m.labels), d.labels, "the labels of %s", name)
	}
	for name := range documents {
		require.NotNil(t, families[name], "docs/metrics.md has %s, which the server doesn't expose", name)
	}
	unseen := 0
	for name := range families {
		if !inUse[name] {
			unseen++
		}
	}
	t.Logf("%d metrics are exposed, %d documented, %d in no dashboard and no rule", len(families), len(documents), unseen)
}

// joined are the labels as docs/metrics.md has them.
func joined(labels map[string]bool) string {
	var names []string
	for l := range labels {
		names = append(names, l)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}
