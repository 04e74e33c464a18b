package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"

	"varve/bucket"
	"varve/intake"
	"varve/intake/blocks"
)

// addImportTSDB adds the verb that imports blocks.
func addImportTSDB(parent *kingpin.CmdClause, stdout, stderr io.Writer) {
	c := parent.Command("tsdb", "Import data directories and blocks of Prometheus and Thanos, from disk or from a bucket, whole days at a time, and prove that every sample arrived. "+
		"Of a Prometheus that runs, import a snapshot.")
	dirs := c.Arg("dir", "Data directories or blocks; with --objstore.config-file blocks, or prefixes that hold some, in the bucket. Default then: all of it.").Strings()
	object := c.Flag("objstore.config-file", "Read blocks from the bucket that this file of Thanos' form describes.").PlaceHolder("FILE").ExistingFile()
	broken := c.Flag("skip-broken", "Leave blocks out that can't be read, and say which.").Bool()
	down := c.Flag("skip-downsampled", "Pass over Thanos' downsampled blocks, which hold aggregates and no samples.").Bool()
	head := c.Flag("no-wal", "Leave out what is in no block yet, which else is read from a copy of the write-ahead log.").Bool()
	f := addIntakeFlags(c, stdout, stderr)
	c.Action(func(*kingpin.ParseContext) (err error) {
		var from objstore.Bucket
		state := ""
		switch {
		case *object != "":
			var text []byte
			if text, err = os.ReadFile(*object); err != nil {
				return err
			}
			if from, err = bucket.Open(text, "import", slog.New(slog.DiscardHandler), prometheus.NewRegistry()); err != nil {
				return fmt.Errorf("%s: %w", *object, err)
			}
			defer func() { err = errors.Join(err, from.Close()) }()
		case len(*dirs) == 0:
			return errors.New("name data directories or blocks, or give --objstore.config-file")
		default:
			state = strings.TrimRight((*dirs)[0], string(os.PathSeparator)) + importStateSuffix
		}
		var source intake.Source
		err = f.importTo(state, func(ctx context.Context, wanted intakeRange, p *intakeProgress) (intake.Source, error) {
			var err error
			source, err = blocks.Open(ctx, *dirs, blocks.Options{
				Bucket: from, Scratch: *f.scratch, Start: wanted.start, End: wanted.end, Match: wanted.selectors,
				SkipBroken: *broken, SkipDownsampled: *down, NoHead: *head, Logger: slog.New(p),
			})
			return source, err
		})
		if s, ok := source.(*blocks.Source); ok {
			for _, why := range s.Skipped() {
				fmt.Fprintf(stdout, "left out: %s\n", why)
			}
		}
		return err
	})
}
