package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"varve/archive"
	"varve/config"
	"varve/intake"
	"varve/intake/direct"
	"varve/intake/remoteread"
	"varve/snapshot"
)

// partOf is the part of an archive that is wanted.
type partOf struct {
	// selectors are the series, those that match any of them; all without one.
	selectors [][]*labels.Matcher
	// start and end are in Unix ms, both inclusive.
	start, end int64
}

// newPartOf returns nil for all.
func newPartOf(match []string, start, end string) (*partOf, error) {
	if len(match) == 0 && start == "" && end == "" {
		return nil, nil
	}
	p := &partOf{start: math.MinInt64, end: math.MaxInt64}
	var err error
	if p.selectors, err = parseSelectors(match); err != nil {
		return nil, err
	}
	for _, bound := range []struct {
		flag, text string
		to         *int64
	}{{"--start", start, &p.start}, {"--end", end, &p.end}} {
		if bound.text == "" {
			continue
		}
		if *bound.to, err = parseTime(bound.text); err != nil {
			return nil, fmt.Errorf("%s: %w", bound.flag, err)
		}
	}
	if p.start > p.end {
		return nil, errors.New("--start is behind --end")
	}
	return p, nil
}

// Endings of folders that lie beside the one that a part is restored to, until it is there.
const (
	wholeEnding = ".whole"
	partEnding  = ".part"
)

// restorePart restores a snapshot beside dir, and makes dir an archive of a part of it. What an interrupted one has left is used
// by the next.
func restorePart(ctx context.Context, s *snapshot.Store, id, dir string, p *partOf, cfg *config.Config, progress snapshot.Progress, stdout, stderr io.Writer) error {
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return fmt.Errorf("restore %s: %s is not empty: choose another folder", id, dir)
	}
	whole, part := dir+wholeEnding, dir+partEnding
	if _, err := os.Stat(whole); errors.Is(err, os.ErrNotExist) {
		if _, _, err := restoreWhole(ctx, s, id, whole, cfg, progress); err != nil {
			return err
		}
	}
	// All that is in the snapshot counts, and what comes of it is kept until a server applies its rules.
	kept := *cfg
	kept.Retention, kept.RetentionSize = nil, 0
	from, err := openOffline(whole, &kept, stderr)
	if err != nil {
		return err
	}
	report, err := copyPart(ctx, from, part, p, &kept, stderr)
	if err = closeAfter(from, err); err != nil {
		return fmt.Errorf("%w; run it again to go on, or remove %s and %s", err, whole, part)
	}
	if err := errors.Join(removeEmpty(dir), os.Rename(part, dir), syncFolder(filepath.Dir(dir)), os.RemoveAll(whole)); err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "A part of %s is restored to %s: %d samples of %d days, each compared with the snapshot. It is a new archive, without places of outputs.\n",
		id, dir, report.Samples, report.Leased+report.Written)
	return err
}

// copyPart copies samples of an archive to another, which it makes.
func copyPart(ctx context.Context, from *archive.Archive, dir string, p *partOf, cfg *config.Config, stderr io.Writer) (report intake.Report, err error) {
	if err := from.Maintain(true); err != nil {
		return report, err
	}
	days, err := from.Days()
	if err != nil {
		return report, err
	}
	if len(days) == 0 {
		return report, errors.New("the snapshot holds no samples")
	}
	selection := remoteread.Selection{
		Start: max(p.start, days[0].Day.StartMillis()), End: min(p.end, days[len(days)-1].Day.EndMillis()-1), Selectors: p.selectors,
	}
	if selection.Start > selection.End {
		return report, fmt.Errorf("the snapshot holds samples from %s to %s, and none between --start and --end", archive.Date(days[0].Day), archive.Date(days[len(days)-1].Day))
	}
	to, err := openOffline(dir, cfg, stderr)
	if err != nil {
		return report, err
	}
	defer func() { err = closeAfter(to, err) }()
	source, err := remoteread.FromQueryable(from, "snapshot", selection)
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, source.Close()) }()
	show := newIntakeProgress(stderr, time.Now)
	report, err = intake.Run(ctx, source, direct.New(to, direct.Options{}), intake.Options{Start: selection.Start, End: selection.End + 1, Progress: show.step})
	show.end()
	if err == nil && !report.Equal() {
		err = fmt.Errorf("what was copied is not what is in the snapshot: %s", report.Unequal[0])
	}
	if err == nil {
		err = to.Maintain(true)
	}
	return report, err
}

// removeEmpty removes a folder that is empty or not there.
func removeEmpty(dir string) error {
	if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// syncFolder makes the names in a folder durable.
func syncFolder(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
