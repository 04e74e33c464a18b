package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestCommitted shows that the files are what this command writes, and that no other is beside them.
func TestCommitted(t *testing.T) {
	files, err := os.ReadDir("../dashboards")
	require.NoError(t, err)
	all := dashboards()
	require.Len(t, files, len(all))
	for name, d := range all {
		want, err := d.text()
		require.NoError(t, err)
		got, err := os.ReadFile(filepath.Join("../dashboards", name))
		require.NoError(t, err)
		require.Equal(t, string(want), string(got), "run: go generate ./packaging/grafana/generate")
	}
}

// TestPanelsMustTell shows that a panel without a description, a unit, a query or a size is refused.
func TestPanelsMustTell(t *testing.T) {
	good := panel{kind: graph, title: "t", description: "d", width: 4, height: 4, unit: "s", queries: []query{{expr: "up"}}}
	for name, spoil := range map[string]func(*panel){
		"nothing":     func(*panel) {},
		"description": func(p *panel) { p.description = "" },
		"unit":        func(p *panel) { p.unit = "" },
		"query":       func(p *panel) { p.queries = nil },
		"size":        func(p *panel) { p.width = 25 },
	} {
		p := good
		spoil(&p)
		d := dashboard{rows: []row{{title: "r", panels: []panel{p}}}}
		_, err := d.text()
		require.Equal(t, name == "nothing", err == nil, "without its %s", name)
	}
}

// TestPlaces shows that panels are laid out within the grid without overlapping.
func TestPlaces(t *testing.T) {
	for name, d := range dashboards() {
		placed, err := d.place()
		require.NoError(t, err)
		taken := map[[2]int]string{}
		ids := map[any]bool{}
		var look func(all []any)
		look = func(all []any) {
			for _, one := range all {
				p := one.(object)
				require.False(t, ids[p["id"]], "%s has the id %v twice", name, p["id"])
				ids[p["id"]] = true
				at := p["gridPos"].(position)
				require.LessOrEqual(t, at.X+at.W, gridWidth)
				for x := at.X; x < at.X+at.W; x++ {
					for y := at.Y; y < at.Y+at.H; y++ {
						cell := [2]int{x, y}
						require.Empty(t, taken[cell], "%s: %v lies on %v", name, p["title"], taken[cell])
						taken[cell] = p["title"].(string)
					}
				}
				if inside, ok := p["panels"].([]any); ok {
					look(inside)
				}
			}
		}
		look(placed)
	}
}
