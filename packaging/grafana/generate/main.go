// Command generate writes the Grafana dashboards beside it.
//
// A dashboard is a list of rows of panels, told in Go: what each shows, in which unit, by which
// queries. This command gives them their places on the grid and the many fields that Grafana
// wants. Its output depends on nothing else, so that a test can compare it with the files that
// are committed. Run "go generate ./packaging/grafana/generate" after a change.
//
// Whether the metrics exist that the queries name is not its business: internal/gate/dashboards
// holds the files against a running server.
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

//go:generate go run . ../dashboards

// dashboards are all files by their names.
func dashboards() map[string]dashboard {
	return map[string]dashboard{"varve.json": health(), "node-long-range.json": longRange()}
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: generate DIRECTORY")
		os.Exit(2)
	}
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

// write writes all dashboards into the folder.
func write(dir string) error {
	for name, d := range dashboards() {
		text, err := d.text()
		if err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	return nil
}
