package main

import (
	"fmt"
	"io"

	"github.com/alecthomas/kingpin/v2"

	"varve/archive"
)

func addCheckData(check *kingpin.CmdClause, stdout, stderr io.Writer) {
	cmd := check.Command("data", "Verify the archive in a data directory while no server runs on it: checksums, the catalogue and the index against the data, both ways.")
	dir := cmd.Arg("dir", "The data directory.").Required().ExistingDir()
	cmd.Action(func(*kingpin.ParseContext) error {
		report, err := archive.Check(*dir, func(f archive.Fault) { fmt.Fprintln(stderr, f) })
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(stdout, "%d series, %d label pairs, %d runs and %d bundles with %d samples, %d clocks, %d journal records, %d exemplars, %d deletes: %d faults.\n",
			report.Series, report.Pairs, report.Runs, report.Bundles, report.Samples, report.Clocks, report.JournalRecords, report.Exemplars, report.Deletes, report.Faults); err != nil {
			return err
		}
		if report.Faults > 0 {
			return errFound
		}
		return nil
	})
}
