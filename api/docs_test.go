package api_test

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"varve/api"
)

// everything makes every route of the table be there.
func everything(o *api.Options) {
	o.Compactor, o.Outputs, o.Deletes, o.Snapshots = &jobs{}, &peers{}, &deletes{}, &copies{}
	o.Overview, o.Checker = &overview{}, &checker{}
	o.EnableAdmin, o.EnableLifecycle = true, true
}

// TestDocumented compares the routing table with docs/api.md, both ways: path, methods and group of each row of its tables.
func TestDocumented(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/api.md")
	require.NoError(t, err)
	row := regexp.MustCompile("(?m)^\\| `(/[^`]*)` \\| ([A-Z, ]+) \\| ([a-z]+) \\| (.+) \\|$")
	var documented []string
	for _, cells := range row.FindAllStringSubmatch(string(text), -1) {
		documented = append(documented, strings.Join(cells[1:4], " "))
		require.NotEmpty(t, strings.TrimSpace(cells[4]))
	}
	f := newFixture(t, func(o *api.Options) {
		everything(o)
		o.Storage = latestStorage{o.Storage}
	})
	var served []string
	for _, s := range f.handler.Served() {
		served = append(served, fmt.Sprint(s.Path, " ", strings.Join(s.Methods, ", "), " ", s.Group))
	}
	slices.Sort(served)
	slices.Sort(documented)
	require.Equal(t, served, documented, "docs/api.md and the routing table differ: each route needs one row there")
}
