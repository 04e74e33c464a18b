package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/promslog"

	"varve/archive"
	"varve/compactor"
	"varve/config"
	"varve/snapshot"
)

// addSnapshot adds the verbs about copies in object storage.
func addSnapshot(app *kingpin.Application, stdout, stderr io.Writer) {
	cmd := app.Command("snapshot", "Make, verify and restore copies of an archive in object storage.")
	addSnapshotCreate(cmd, stdout, stderr)
	addSnapshotList(cmd, stdout, stderr)
	addSnapshotVerify(cmd, stdout, stderr)
	addSnapshotRestore(cmd, stdout, stderr)
	addSnapshotPrune(cmd, stdout, stderr)
	addSnapshotDelete(cmd, stdout, stderr)
}

// snapshotFlags are those of verbs that use the object storage themselves.
type snapshotFlags struct {
	file     *string
	parallel *int
	rate     config.Size
	quiet    *bool
	stderr   io.Writer
}

// moving is what a verb does with files.
type moving int

const (
	movesNone moving = iota
	fetches
	sends
)

func addSnapshotFlags(c *kingpin.CmdClause, required bool, moves moving, stderr io.Writer) *snapshotFlags {
	f := &snapshotFlags{parallel: new(int), quiet: new(bool), stderr: stderr}
	file := c.Flag("objstore.config-file", "File that says where snapshots are, in the form of Thanos and Mimir: type FILESYSTEM, S3, GCS or AZURE, config, and prefix.").PlaceHolder("FILE")
	if required {
		file = file.Required()
	}
	f.file = file.ExistingFile()
	if moves >= fetches {
		f.parallel = c.Flag("parallel", "Files that are moved at once.").Default("4").Int()
	}
	if moves == sends {
		c.Flag("max-upload-rate", "Bytes a second, such as 20MiB; 0B for any.").Default("0B").SetValue(&f.rate)
	}
	f.quiet = c.Flag("quiet", "Show no progress.").Bool()
	return f
}

// use calls f with the snapshots in the storage until the process is told to stop. fill, which may be nil, completes the options.
func (f *snapshotFlags) use(fill func(*snapshot.Options), do func(ctx context.Context, s *snapshot.Store, progress snapshot.Progress) error) error {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	logger := promslog.New(&promslog.Config{Level: promslog.NewLevel(), Format: promslog.NewFormat(), Writer: f.stderr})
	bucket, err := openBucket(*f.file, logger, nil)
	if err != nil {
		return err
	}
	o := snapshot.Options{Bucket: bucket, Parallel: *f.parallel, BytesPerSecond: int64(f.rate), Logger: logger, Version: buildVersion().Version}
	if fill != nil {
		fill(&o)
	}
	store, err := snapshot.New(o)
	if err == nil {
		err = do(ctx, store, f.progress())
	}
	return errors.Join(err, bucket.Close())
}

func (f *snapshotFlags) progress() snapshot.Progress {
	if *f.quiet {
		return nil
	}
	return newSnapshotProgress(f.stderr, time.Now)
}

func addSnapshotCreate(parent *kingpin.CmdClause, stdout, stderr io.Writer) {
	c := parent.Command("create", "Make a snapshot: of a running server, which needs snapshots.objstore_config_file and --web.enable-admin-api, or of a data directory on which none runs.")
	dir := c.Arg("dir", "The data directory; without it the server at --url is asked.").ExistingDir()
	base := c.Flag("url", "The server.").Default("http://127.0.0.1:9095").URL()
	httpFile := c.Flag("http.config.file", "File with authentication and TLS of the client, in the format of promtool's.").PlaceHolder("FILE").ExistingFile()
	f := addSnapshotFlags(c, false, sends, stderr)
	configFile := c.Flag("config.file", "Of a data directory: the configuration file, for the resolutions of rollups and the rules of retention.").PlaceHolder("FILE").ExistingFile()
	c.Action(func(*kingpin.ParseContext) error {
		switch {
		case *dir == "" && *f.file != "":
			return errors.New("the server at --url uses the storage of its own configuration: leave out --objstore.config-file, or name a data directory")
		case *dir == "":
			return askForSnapshot(*base, *httpFile, stdout)
		case *f.file == "":
			return errors.New("--objstore.config-file must say where the snapshot of a data directory goes")
		}
		cfg, err := config.Read(*configFile, nil)
		if err != nil {
			return err
		}
		a, err := openExisting(*dir, cfg, stderr)
		if err != nil {
			return err
		}
		return closeAfter(a, f.use(func(o *snapshot.Options) {
			o.Scratch, o.HashCache = filepath.Join(*dir, uploadingDir), filepath.Join(*dir, hashesName)
			o.Take = func(ctx context.Context, to string) (snapshot.Taken, error) { return takeCheckpoint(ctx, a, to) }
			o.Before = func(ctx context.Context) error {
				if err := a.Maintain(true); err != nil {
					return err
				}
				_, err := compactor.New(a, compactorOptions(cfg)).Run(ctx)
				return err
			}
		}, func(ctx context.Context, s *snapshot.Store, progress snapshot.Progress) error {
			began := time.Now()
			m, stats, err := s.Create(ctx, progress)
			if err != nil {
				return err
			}
			return printMade(stdout, &snapshotMade{m.ID, m.Taken, stats, time.Since(began).Seconds()})
		}))
	})
}

// askForSnapshot has a server make a snapshot, and waits for it.
func askForSnapshot(base *url.URL, httpFile string, stdout io.Writer) error {
	client, err := importClient(httpFile)
	if err != nil {
		return err
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	target := base.JoinPath("/api/v1/admin/snapshots")
	target.RawQuery = "wait=true"
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, target.String(), nil)
	if err != nil {
		return err
	}
	answer, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("ask the server: %w", err)
	}
	defer answer.Body.Close()
	var body struct {
		Error string
		Data  snapshotMade
	}
	if err := json.NewDecoder(io.LimitReader(answer.Body, 1<<20)).Decode(&body); err != nil {
		return fmt.Errorf("%s answered %s, which is no answer of Varve: %w", target.Redacted(), answer.Status, err)
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s: %s", target.Redacted(), answer.Status, body.Error)
	}
	return printMade(stdout, &body.Data)
}

func printMade(out io.Writer, m *snapshotMade) error {
	_, err := fmt.Fprintf(out, "%s of %s: %d files of %d bytes, of which %d files of %d bytes were sent, in %.1f s.\n",
		m.ID, m.Taken.UTC().Format(time.RFC3339), m.Files.Files, m.Files.Bytes, m.Files.SentFiles, m.Files.SentBytes, m.Seconds)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "FAMILY\tBYTES\tSENT")
	for _, name := range slices.Sorted(maps.Keys(m.Files.Families)) {
		f := m.Files.Families[name]
		fmt.Fprintf(w, "%s\t%d\t%d\n", cmp.Or(name, "others"), f.Bytes, f.SentBytes)
	}
	return w.Flush()
}

func addSnapshotList(parent *kingpin.CmdClause, stdout, stderr io.Writer) {
	c := parent.Command("list", "List the snapshots in the storage, the oldest first.")
	f := addSnapshotFlags(c, true, movesNone, stderr)
	asJSON := c.Flag("json", "As JSON.").Bool()
	c.Action(func(*kingpin.ParseContext) error {
		return f.use(nil, func(ctx context.Context, s *snapshot.Store, _ snapshot.Progress) error {
			list, err := s.List(ctx)
			if err != nil {
				return err
			}
			if *asJSON {
				e := json.NewEncoder(stdout)
				e.SetIndent("", "  ")
				return e.Encode(list)
			}
			w := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "ID\tTAKEN\tFILES\tBYTES\tSENT\tSERIES\tDAYS\t")
			for i := range list {
				l := &list[i]
				switch {
				case l.Foreign:
					fmt.Fprintf(w, "%s\tis no manifest\t\t\t\t\t\t\n", l.Object)
				case l.Damaged != "":
					fmt.Fprintf(w, "%s\tcan't be read\t\t\t\t\t\t%s\n", l.ID, l.Damaged)
				default:
					fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t\n", l.ID, l.Taken.UTC().Format(time.RFC3339), l.Files, l.Bytes, l.SentBytes, l.Series, l.Days)
				}
			}
			return w.Flush()
		})
	})
}

func addSnapshotVerify(parent *kingpin.CmdClause, stdout, stderr io.Writer) {
	c := parent.Command("verify", "Look whether all of a snapshot is there.")
	id := c.Arg("id", "The snapshot.").Required().String()
	f := addSnapshotFlags(c, true, fetches, stderr)
	contents := c.Flag("contents", "Read every file and compare its hash.").Bool()
	deep := c.Flag("deep", "Besides, restore it to a temporary folder and verify the archive as \"varve check data\" does.").Bool()
	scratch := c.Flag("scratch", "Folder for that.").Default(os.TempDir()).String()
	c.Action(func(*kingpin.ParseContext) error {
		return f.use(nil, func(ctx context.Context, s *snapshot.Store, progress snapshot.Progress) (err error) {
			o := snapshot.VerifyOptions{Contents: *contents || *deep}
			if *deep {
				// A folder of its own in one that others use too: not Options.Scratch, which the Store clears.
				if o.Scratch, err = os.MkdirTemp(*scratch, "varve-verify-*"); err != nil {
					return err
				}
				defer func() { err = errors.Join(err, os.RemoveAll(o.Scratch)) }()
				o.Deep = func(dir string) error {
					report, err := archive.Check(dir, func(f archive.Fault) { fmt.Fprintln(stderr, f) })
					if err == nil && report.Faults > 0 {
						err = fmt.Errorf("the archive in it has %d faults", report.Faults)
					}
					return err
				}
			}
			report, err := s.Verify(ctx, *id, o, progress)
			for _, f := range report.Faults {
				fmt.Fprintf(stderr, "%s (%s): %s\n", f.Path, f.Object, f.Text)
			}
			if err != nil {
				return err
			}
			found := "are there"
			if o.Contents {
				found += " and hold what they should"
			}
			if *deep {
				found += ", and the archive in them is sound"
			}
			_, err = fmt.Fprintf(stdout, "%s: %d files of %d bytes %s.\n", *id, report.Files, report.Bytes, found)
			return err
		})
	})
}

func addSnapshotRestore(parent *kingpin.CmdClause, stdout, stderr io.Writer) {
	c := parent.Command("restore", "Restore a snapshot, or a part of it, to an empty folder, as a data directory.")
	id := c.Arg("id", "The snapshot.").Required().String()
	dir := c.Arg("dir", "The folder; it must be empty or not there.").Required().String()
	f := addSnapshotFlags(c, true, fetches, stderr)
	match := c.Flag("match", "Only series that a selector matches, repeatable.").PlaceHolder("SELECTOR").Strings()
	start := c.Flag("start", "Only samples from then on: a Unix time in seconds, or RFC 3339.").PlaceHolder("TIME").String()
	end := c.Flag("end", "Only samples up to then, inclusive.").PlaceHolder("TIME").String()
	file := c.Flag("config.file", "The configuration file of the archive, for the resolutions of rollups.").PlaceHolder("FILE").ExistingFile()
	c.Action(func(*kingpin.ParseContext) error {
		cfg, err := config.Read(*file, nil)
		if err != nil {
			return err
		}
		part, err := newPartOf(*match, *start, *end)
		if err != nil {
			return err
		}
		return f.use(nil, func(ctx context.Context, s *snapshot.Store, progress snapshot.Progress) error {
			if part != nil {
				return restorePart(ctx, s, *id, *dir, part, cfg, progress, stdout, stderr)
			}
			report, adopted, err := restoreWhole(ctx, s, *id, *dir, cfg, progress)
			if err != nil {
				return err
			}
			fmt.Fprintf(stdout, "%s is restored to %s: %d files of %d bytes. What arrived after %s is not in it.\n",
				*id, *dir, report.Files, report.Bytes, report.Manifest.Taken.UTC().Format(time.RFC3339))
			return printAdopted(stdout, adopted)
		})
	})
}

// restoreWhole restores a snapshot as an archive of its own.
func restoreWhole(ctx context.Context, s *snapshot.Store, id, dir string, cfg *config.Config, progress snapshot.Progress) (snapshot.RestoreReport, archive.Adopted, error) {
	var adopted archive.Adopted
	report, err := s.Restore(ctx, id, dir, snapshot.RestoreOptions{Adopt: func(dir string) error {
		kept, err := retention(cfg)
		if err != nil {
			return err
		}
		adopted, err = archive.Adopt(dir, archive.Options{Resolutions: resolutions(cfg), Retention: kept})
		return err
	}}, progress)
	return report, adopted, err
}

// printAdopted says what outputs send again: their places went back with the archive.
func printAdopted(out io.Writer, adopted archive.Adopted) error {
	if len(adopted.Cursors) == 0 {
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nOutputs go on, and send again, from:")
	fmt.Fprintln(w, "OUTPUT\tRECORD\tARRIVED\tSAMPLES BEHIND")
	for _, c := range adopted.Cursors {
		arrived := "nothing waits"
		if !c.Arrived.IsZero() {
			arrived = c.Arrived.UTC().Format(time.RFC3339)
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%d\n", c.Name, c.Next, arrived, c.Samples)
	}
	return w.Flush()
}

func addSnapshotPrune(parent *kingpin.CmdClause, stdout, stderr io.Writer) {
	c := parent.Command("prune", "Remove the snapshots that no rule keeps, and the files that no other snapshot needs.")
	f := addSnapshotFlags(c, true, movesNone, stderr)
	keep := snapshot.Keep{}
	c.Flag("keep-last", "Keep so many of the newest.").IntVar(&keep.Last)
	c.Flag("keep-daily", "Keep the newest of each of so many days (UTC).").IntVar(&keep.Daily)
	c.Flag("keep-weekly", "Keep the newest of each of so many weeks.").IntVar(&keep.Weekly)
	c.Flag("keep-monthly", "Keep the newest of each of so many months.").IntVar(&keep.Monthly)
	c.Flag("keep-yearly", "Keep the newest of each of so many years.").IntVar(&keep.Yearly)
	dry := c.Flag("dry-run", "Only tell what would go.").Bool()
	c.Action(func(*kingpin.ParseContext) error {
		if keep == (snapshot.Keep{}) {
			return errors.New("say what is kept, such as --keep-daily=7 --keep-monthly=12: without a rule nothing is removed")
		}
		return f.use(nil, func(ctx context.Context, s *snapshot.Store, _ snapshot.Progress) error {
			report, err := s.Prune(ctx, keep, *dry)
			return printPruned(stdout, &report, err)
		})
	})
}

func addSnapshotDelete(parent *kingpin.CmdClause, stdout, stderr io.Writer) {
	c := parent.Command("delete", "Remove snapshots by name, of an archive that is no more for example, and the files that no other snapshot needs.")
	ids := c.Arg("id", "The snapshots.").Required().Strings()
	f := addSnapshotFlags(c, true, movesNone, stderr)
	dry := c.Flag("dry-run", "Only tell what would go.").Bool()
	c.Action(func(*kingpin.ParseContext) error {
		return f.use(nil, func(ctx context.Context, s *snapshot.Store, _ snapshot.Progress) error {
			report, err := s.Delete(ctx, *ids, *dry)
			return printPruned(stdout, &report, err)
		})
	})
}

// printPruned says what is gone, also before an error, and what stays that no snapshot needs.
func printPruned(out io.Writer, r *snapshot.PruneReport, err error) error {
	for i := range r.Removed {
		fmt.Fprintln(out, r.Removed[i].ID)
	}
	if err != nil {
		return err
	}
	what := "are gone"
	if r.DryRun {
		what = "would go"
	}
	text := fmt.Sprintf("%d of %d snapshots %s, and %d files that no snapshot needs.\n", len(r.Removed), len(r.Removed)+len(r.Kept), what, r.RemovedFiles)
	if r.YoungFiles > 0 {
		text += fmt.Sprintf("%d more files stay until they are a day old: a later prune removes them.\n", r.YoungFiles)
	}
	if r.ClaimedFiles > 0 {
		text += fmt.Sprintf("%d more files stay because a snapshot that is being made, or was cut off within the last day, counts on them.\n", r.ClaimedFiles)
	}
	if len(r.Foreign) > 0 {
		text += fmt.Sprintf("%d objects that Varve didn't write stay, first %s.\n", len(r.Foreign), r.Foreign[0])
	}
	_, err = io.WriteString(out, text)
	return err
}
