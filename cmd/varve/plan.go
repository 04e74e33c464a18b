package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/alecthomas/kingpin/v2"

	"varve/api"
	"varve/compactor"
	"varve/config"
)

func addPlan(app *kingpin.Application, stdout, stderr io.Writer) {
	cmd := app.Command("plan", "Tell what the rules of retention keep in a data directory and what they will free, while no server runs on it. Nothing goes.")
	dir := cmd.Arg("dir", "The data directory.").Required().ExistingDir()
	file := cmd.Flag("config.file", "The configuration file with the rules of retention and the resolutions of rollups.").PlaceHolder("FILE").Required().ExistingFile()
	cmd.Action(func(*kingpin.ParseContext) error {
		c, err := config.Read(*file, nil)
		if err != nil {
			return err
		}
		a, err := openExisting(*dir, c, stderr)
		if err != nil {
			return err
		}
		status, err := retentionStatus(context.Background(), a, compactor.Policy{DropShareMax: c.Compactor.MaxDropShare})
		if err == nil {
			err = printRetention(stdout, &status)
		}
		return closeAfter(a, err)
	})
}

func printRetention(out io.Writer, s *api.RetentionStatus) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "%d bytes on disk.", s.DiskBytes)
	if s.Today != "" {
		fmt.Fprintf(w, " Ages are counted from %s.", s.Today)
	}
	fmt.Fprint(w, "\n\n")
	fmt.Fprintln(w, "RULE\tLEVEL\tKEEP\tBEFORE\tSERIES\tSAMPLES\tBYTES")
	for _, rule := range s.Rules {
		match := rule.Match
		if match == "" {
			match = "all others"
		}
		for _, k := range rule.Keep {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%d\t%d\n", match, k.Level, k.For, k.Before, k.Series, k.Samples, k.Bytes)
		}
	}
	fmt.Fprintln(w)
	if s.Kept != "" {
		fmt.Fprintf(w, "Past its age, but needed: %s.\n", s.Kept)
	}
	switch {
	case s.Next == nil:
		fmt.Fprintln(w, "Nothing expires now.")
	case s.Next.Waits != "":
		fmt.Fprintf(w, "Nothing expires now: %s.\n", s.Next.Waits)
	default:
		fmt.Fprintf(w, "%d of %d bytes expire now, %s:", s.Next.Bytes, s.Next.TotalBytes, s.Next.Why)
		for _, f := range s.Next.Floors {
			if f.Floor != "" {
				fmt.Fprintf(w, " %s before %s", f.Level, f.Floor)
			}
		}
		if n := len(s.Next.Trims); n > 0 {
			fmt.Fprintf(w, "; some series of %d days, from %s to %s", n, s.Next.Trims[0], s.Next.Trims[n-1])
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}
