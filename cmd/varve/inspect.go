package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"varve/archive"
)

func addInspect(app *kingpin.Application, stdout io.Writer) {
	cmd := app.Command("inspect", "Tell what takes the room in a data directory while no server runs on it: families, metrics, labels.")
	dir := cmd.Arg("dir", "The data directory.").Required().ExistingDir()
	limit := cmd.Flag("limit", "Entries of each list.").Default("20").Uint16()
	cmd.Action(func(*kingpin.ParseContext) error {
		survey, err := archive.Inspect(context.Background(), *dir, max(1, int(*limit)))
		if err != nil {
			return err
		}
		return printSurvey(stdout, survey)
	})
}

func printSurvey(out io.Writer, s archive.Survey) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "%d bytes on disk, %d series and %d label pairs in the last month", s.DiskBytes, s.Series, s.PairCount)
	if s.MaxMillis > 0 {
		fmt.Fprintf(w, ", samples from %s to %s", day(s.MinMillis), day(s.MaxMillis))
	}
	fmt.Fprintln(w, ".")
	for _, list := range []struct {
		name, count string
		sizes       []archive.Size
	}{
		{"FAMILY", "KEYS", s.Families},
		{"METRIC", "SERIES", s.Metrics},
		{"LABEL", "VALUES", s.Labels},
		{"LABEL PAIR", "SERIES", s.Pairs},
	} {
		fmt.Fprintf(w, "\n%s\tBYTES\t%s\n", list.name, list.count)
		for _, size := range list.sizes {
			// Names come from senders: quoting keeps what they hold from the terminal.
			fmt.Fprintf(w, "%q\t%d\t%d\n", size.Name, size.Bytes, size.Count)
		}
	}
	return w.Flush()
}

func day(millis int64) string { return time.UnixMilli(millis).UTC().Format(time.DateOnly) }
