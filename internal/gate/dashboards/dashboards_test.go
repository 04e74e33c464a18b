package dashboards_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"

	"varve/internal/gate/server"
)

// board is what the gate reads of a dashboard.
type board struct {
	UID, Title, Description, Timezone string
	SchemaVersion                     int
	Templating                        struct {
		List []struct{ Name, Type, Description, Definition string }
	}
	Panels []boardPanel
}

type boardPanel struct {
	ID                       int
	Type, Title, Description string
	Interval                 string
	Datasource               *struct{ Type, UID string }
	FieldConfig              struct{ Defaults struct{ Unit string } }
	Targets                  []struct {
		RefID, Expr, LegendFormat string
		Instant                   bool
		Datasource                struct{ Type, UID string }
	}
	Panels []boardPanel
}

// all are the panels that show something, those in collapsed rows too.
func (b *board) all() []boardPanel {
	var panels []boardPanel
	for _, p := range b.Panels {
		if p.Type != "row" {
			panels = append(panels, p)
		}
		panels = append(panels, p.Panels...)
	}
	return panels
}

func packaging(t *testing.T, path ...string) string {
	t.Helper()
	return filepath.Join(append([]string{server.ModuleRoot(t), "packaging"}, path...)...)
}

func readBoard(t *testing.T, name string) *board {
	t.Helper()
	text, err := os.ReadFile(packaging(t, "grafana", "dashboards", name))
	require.NoError(t, err)
	b := &board{}
	require.NoError(t, json.Unmarshal(text, b))
	return b
}

// boards are the dashboards by file name.
func boards(t *testing.T) map[string]*board {
	t.Helper()
	files, err := filepath.Glob(packaging(t, "grafana", "dashboards", "*.json"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	all := map[string]*board{}
	for _, f := range files {
		all[filepath.Base(f)] = readBoard(t, filepath.Base(f))
	}
	return all
}

// panelTypes are those of Grafana 10 and later that are used here. The types graph, singlestat and table-old are no more.
var panelTypes = set("timeseries", "stat", "state-timeline", "table", "text")

var variablePattern = regexp.MustCompile(`\$\{?(\w+)`)

// TestDashboardsAreWhole shows that Grafana can import the dashboards as they are: panels of today's types, with ids, units and
// descriptions, that ask the data source which the user chose, with variables that exist; and that provisioning finds them.
func TestDashboardsAreWhole(t *testing.T) {
	uids := map[string]bool{}
	for name, b := range boards(t) {
		require.NotEmpty(t, b.UID)
		require.False(t, uids[b.UID], "%s: the uid is taken", name)
		uids[b.UID] = true
		require.NotEmpty(t, b.Description)
		require.GreaterOrEqual(t, b.SchemaVersion, 38, "%s: Grafana 10", name)
		known := map[string]bool{}
		for i, v := range b.Templating.List {
			if i == 0 {
				require.Equal(t, "datasource", v.Type)
			}
			known[v.Name] = true
			require.NotEmpty(t, v.Description)
		}
		for _, must := range []string{"datasource", "job", "instance"} {
			require.True(t, known[must], "%s has no variable %s", name, must)
		}
		for _, builtin := range []string{"__rate_interval", "__interval", "__range"} {
			known[builtin] = true
		}
		ids := map[int]bool{}
		for _, p := range b.all() {
			require.False(t, ids[p.ID], "%s: id %d twice", name, p.ID)
			ids[p.ID] = true
			require.True(t, panelTypes[p.Type], "%s: panel type %s", name, p.Type)
			require.NotEmpty(t, p.Title)
			require.NotEmpty(t, p.Description, "%s: %s", name, p.Title)
			if p.Type == "text" {
				continue
			}
			require.NotEmpty(t, p.FieldConfig.Defaults.Unit, "%s: %s", name, p.Title)
			require.NotEmpty(t, p.Targets, "%s: %s", name, p.Title)
			require.NotNil(t, p.Datasource)
			require.Equal(t, "${datasource}", p.Datasource.UID)
			for _, q := range p.Targets {
				require.Equal(t, "${datasource}", q.Datasource.UID)
				for _, v := range variablePattern.FindAllStringSubmatch(q.Expr, -1) {
					require.True(t, known[v[1]], "%s: %s asks for the variable %s", name, p.Title, v[1])
				}
			}
		}
	}
	sources := struct {
		Datasources []struct {
			Name, UID, Type, URL string
			JSONData             map[string]any `yaml:"jsonData"`
		}
	}{}
	readYAML(t, packaging(t, "grafana", "provisioning", "datasources", "varve.yml"), &sources)
	require.Equal(t, "prometheus", sources.Datasources[0].Type)
	require.Equal(t, "POST", sources.Datasources[0].JSONData["httpMethod"])
	providers := struct {
		Providers []struct {
			Type    string
			Options struct{ Path string }
		}
	}{}
	readYAML(t, packaging(t, "grafana", "provisioning", "dashboards", "varve.yml"), &providers)
	require.Equal(t, "file", providers.Providers[0].Type)
	require.Equal(t, "/etc/grafana/dashboards", providers.Providers[0].Options.Path, "where packaging/docker mounts packaging/grafana/dashboards")
}

func readYAML(t *testing.T, file string, into any) {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NoError(t, yaml.Unmarshal(text, into), "%s", file)
}

// TestEverythingIsExposed shows that dashboards and rules name metrics and labels that a server with all features on exposes, that their queries
// are answered, and that docs/metrics.md has each metric as it is.
func TestEverythingIsExposed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.drive()
	used := map[string]bool{}
	t.Run("dashboards", func(t *testing.T) { r.dashboards(t, used) })
	t.Run("rules", func(t *testing.T) { r.rules(t, used) })
	t.Run("documents", func(t *testing.T) { r.documents(t, used) })
}

func (r *rig) dashboards(t *testing.T, used map[string]bool) {
	var asked []string
	for name, b := range boards(t) {
		exposed := r.exposed
		if strings.HasPrefix(name, "node-") {
			exposed = r.nodes
		}
		look := reader{exposed: exposed, used: used}
		for _, v := range b.Templating.List {
			if selector, _, ok := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(v.Definition, "label_values("), ")"), ", "); ok {
				_, faults := look.read(selector)
				require.Empty(t, faults, "%s: variable %s", name, v.Name)
			}
		}
		for _, p := range b.all() {
			for _, q := range p.Targets {
				labels, faults := look.read(q.Expr)
				require.Empty(t, faults, "%s: %s: %s", name, p.Title, q.Expr)
				for _, l := range legendPattern.FindAllStringSubmatch(q.LegendFormat, -1) {
					require.True(t, labels == nil || labels[l[1]], "%s: %s: the legend names %s, which %s hasn't", name, p.Title, l[1], q.Expr)
				}
				asked = append(asked, q.Expr)
			}
		}
	}
	// Rates need some samples of the server's own metrics.
	ctx, cancel := context.WithTimeout(t.Context(), exposeTimeout)
	defer cancel()
	require.NoError(t, server.Wait(ctx, "most queries find something", func() (bool, error) {
		empty := 0
		for _, expr := range asked {
			if r.answer(t, expr) == 0 {
				empty++
			}
		}
		t.Logf("%d queries were answered, %d of them with nothing", len(asked), empty)
		return empty < len(asked)/2, nil
	}))
}

// answer returns how many series a query of a dashboard has on the server, with all values of the variables.
func (r *rig) answer(t *testing.T, expr string) int {
	t.Helper()
	expr = strings.NewReplacer("$job", ".*", "$instance", ".*").Replace(standIns.Replace(expr))
	now := time.Now()
	form := url.Values{"query": {expr}, "start": {fmt.Sprint(now.Add(-time.Minute).Unix())}, "end": {fmt.Sprint(now.Unix())}, "step": {"15"}}
	resp, err := http.PostForm(r.URL("/api/v1/query_range"), form)
	require.NoError(t, err)
	defer resp.Body.Close()
	var answer struct {
		Error string
		Data  struct{ Result []any }
	}
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&answer))
	require.Equal(t, http.StatusOK, resp.StatusCode, "%s: %s", expr, answer.Error)
	return len(answer.Data.Result)
}
