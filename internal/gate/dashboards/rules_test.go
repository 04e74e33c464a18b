package dashboards_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"varve/internal/gate/server"
)

// ruleFile is what the gate reads of the rules.
type ruleFile struct {
	Groups []struct {
		Name  string
		Rules []rule
	}
}

type rule struct {
	Alert, Record, Expr, For string
	Labels, Annotations      map[string]string
}

// ruleTests is what it reads of their tests.
type ruleTests struct {
	Tests []struct {
		Input []struct{ Series string } `yaml:"input_series"`
		Exprs []struct {
			Samples []struct{ Labels string } `yaml:"exp_samples"`
		} `yaml:"promql_expr_test"`
	}
}

func readRules(t *testing.T) []rule {
	t.Helper()
	var file ruleFile
	readYAML(t, packaging(t, "prometheus", "varve.rules.yml"), &file)
	var all []rule
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	require.NotEmpty(t, all)
	return all
}

// troubleshooting is the page with the runbooks.
const troubleshooting = "docs/troubleshooting.md"

var (
	runbookHeading = regexp.MustCompile(`(?m)^#+ +(Varve\w+) *$`)
	firingAlert    = regexp.MustCompile(`alertname="(\w+)",alertstate="firing"`)
	labelInText    = regexp.MustCompile(`\$labels\.(\w+)`)
)

// TestRulesArePassed shows that promtool finds no fault with the rules, and that their tests pass.
func TestRulesArePassed(t *testing.T) {
	t.Parallel()
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		server.Lacking(t, "no promtool in PATH: apt-get install prometheus")
	}
	for _, args := range [][]string{{"check", "rules", "varve.rules.yml"}, {"test", "rules", "varve.rules.test.yml"}} {
		cmd := exec.CommandContext(t.Context(), promtool, args...)
		cmd.Dir = packaging(t, "prometheus")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "promtool %s: %s", strings.Join(args, " "), out)
	}
}

// TestAlertsAreWhole shows that each alert has a time, a severity, texts, a test in which it fires and a runbook; and that a test or a runbook is of
// an alert that exists.
func TestAlertsAreWhole(t *testing.T) {
	var tests ruleTests
	readYAML(t, packaging(t, "prometheus", "varve.rules.test.yml"), &tests)
	fires := map[string]bool{}
	for _, one := range tests.Tests {
		for _, e := range one.Exprs {
			for _, s := range e.Samples {
				if m := firingAlert.FindStringSubmatch(s.Labels); m != nil {
					fires[m[1]] = true
				}
			}
		}
	}
	page, err := os.ReadFile(filepath.Join(server.ModuleRoot(t), troubleshooting))
	if err != nil {
		t.Logf("%s is not there, so runbooks are not looked for: %v", troubleshooting, err)
	}
	runbooks := map[string]bool{}
	for _, m := range runbookHeading.FindAllSubmatch(page, -1) {
		runbooks[string(m[1])] = true
	}
	alerts := map[string]bool{}
	for _, r := range readRules(t) {
		if r.Alert == "" {
			continue
		}
		alerts[r.Alert] = true
		require.NotEmpty(t, r.For, "%s", r.Alert)
		require.Contains(t, []string{"critical", "warning"}, r.Labels["severity"], "%s", r.Alert)
		for _, text := range []string{"summary", "description"} {
			require.True(t, strings.HasSuffix(strings.TrimSpace(r.Annotations[text]), "."), "%s: the %s is a sentence", r.Alert, text)
		}
		require.Equal(t, troubleshooting+"#"+strings.ToLower(r.Alert), r.Annotations["runbook"])
		require.True(t, fires[r.Alert], "%s fires in no test of varve.rules.test.yml", r.Alert)
		if page != nil {
			require.True(t, runbooks[r.Alert], "%s has no heading of %s", troubleshooting, r.Alert)
		}
	}
	for name := range fires {
		require.True(t, alerts[name], "there is a test of %s, which is no alert", name)
	}
	for name := range runbooks {
		require.True(t, alerts[name], "%s has a runbook of %s, which is no alert", troubleshooting, name)
	}
	dashboards, err := os.ReadFile(filepath.Join(server.ModuleRoot(t), "docs", "dashboards.md"))
	require.NoError(t, err)
	for name := range alerts {
		require.True(t, bytes.Contains(dashboards, []byte("`"+name+"`")), "docs/dashboards.md doesn't list %s", name)
	}
}

// rules checks what rules and their tests name against what the server exposes.
func (r *rig) rules(t *testing.T, used map[string]bool) {
	look := reader{exposed: r.exposed, used: used}
	for _, one := range readRules(t) {
		labels, faults := look.read(one.Expr)
		require.Empty(t, faults, "%s: %s", one.Alert, one.Expr)
		for _, text := range one.Annotations {
			for _, l := range labelInText.FindAllStringSubmatch(text, -1) {
				require.True(t, labels == nil || labels[l[1]], "%s: a text names the label %s, which its results have not", one.Alert, l[1])
			}
		}
		r.answer(t, one.Expr)
	}
	var tests ruleTests
	readYAML(t, packaging(t, "prometheus", "varve.rules.test.yml"), &tests)
	for _, one := range tests.Tests {
		for _, s := range one.Input {
			_, faults := look.read(s.Series)
			require.Empty(t, faults, "the input of a test: %s", s.Series)
		}
	}
}
