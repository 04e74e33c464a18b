package lint_test

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"varve/internal/lint"
)

// TestRepository shows that this repository keeps every house rule. Each message
// says what to do.
func TestRepository(t *testing.T) {
	tree, err := lint.Load(os.DirFS(filepath.Join("..", "..")))
	require.NoError(t, err)
	require.Contains(t, tree.Files, "go.mod", "the tree must be the repository's")
	for _, rule := range lint.Rules {
		t.Run(rule.Name, func(t *testing.T) {
			for _, fault := range rule.Check(tree) {
				t.Error(fault)
			}
		})
	}
}

// TestRulesFire shows that each rule finds what breaks it and nothing else, by a
// script in testdata that holds a tree and the faults expected of it.
func TestRulesFire(t *testing.T) {
	for _, rule := range lint.Rules {
		t.Run(rule.Name, func(t *testing.T) {
			files, want := readScript(t, rule.Name)
			tree, err := lint.Load(files)
			require.NoError(t, err)
			var got []string
			for _, fault := range rule.Check(tree) {
				require.NotEmpty(t, fault.Cure, fault.Text)
				got = append(got, fault.String())
			}
			slices.Sort(got)
			require.NotEmpty(t, want, "a script without faults proves nothing")
			require.Equal(t, strings.Join(want, "\n"), strings.Join(got, "\n"))
		})
	}
}

// TestScriptsHaveRules shows that no script was left behind by a rule that went.
func TestScriptsHaveRules(t *testing.T) {
	found, err := fs.Glob(os.DirFS("testdata"), "*.txtar")
	require.NoError(t, err)
	require.Len(t, found, len(lint.Rules))
}

// readScript reads testdata/NAME.txtar: files under lines "-- path --", and under
// "-- want --" the expected faults, sorted. A few words stand for text that must
// not appear in a committed file.
func readScript(t *testing.T, name string) (files fstest.MapFS, want []string) {
	t.Helper()
	content, err := os.ReadFile(path.Join("testdata", name+".txtar"))
	require.NoError(t, err)
	text := strings.NewReplacer(
		"%REGISTRY%", "proxy.golang"+".org",
		"%BESIDE%", "../"+"shared",
		"%NUL%", "\x00",
	).Replace(string(content))

	files = fstest.MapFS{}
	var current string
	for line := range strings.Lines(text) {
		if marker, ok := strings.CutPrefix(line, "-- "); ok && strings.HasSuffix(marker, " --\n") {
			current = strings.TrimSuffix(marker, " --\n")
			files[current] = &fstest.MapFile{}
			continue
		}
		if current == "" {
			continue // what stands above the first file explains the script
		}
		files[current].Data = append(files[current].Data, line...)
	}
	require.Contains(t, files, "want")
	want = strings.Split(strings.TrimSpace(string(files["want"].Data)), "\n")
	delete(files, "want")
	return files, want
}
