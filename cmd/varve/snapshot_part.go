package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"varve/archive"
	"varve/config"
	"varve/durable"
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

// Endings of what lies beside the folder that a part is restored to, until it is there.
const (
	wholeEnding = ".whole"
	partEnding  = ".part"
	// partMarkEnding is of the file that says what those two are of.
	partMarkEnding = ".part.restoring"
)

// restorePart restores a snapshot beside dir, and makes dir an archive of a part of it:
//
//  1. a file says of which snapshot and which part it will be,
//  2. the snapshot is restored to dir.whole, which is its name when it is whole,
//  3. its part is copied to dir.part, and compared,
//  4. dir.part becomes dir, and the rest is removed.
//
// What an interrupted one has left is used by the next if it is of the same snapshot and the same part; if it isn't, that is an error.
func restorePart(ctx context.Context, s *snapshot.Store, id, dir string, p *partOf, cfg *config.Config, progress snapshot.Progress, stdout, stderr io.Writer) (err error) {
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	m, err := newPartMark(dir, id, p)
	if err != nil {
		return fmt.Errorf("restore %s: %w", id, err)
	}
	defer func() { err = errors.Join(err, m.file.Close()) }()
	done, err := m.begin()
	if err != nil {
		return fmt.Errorf("restore %s: %w", id, err)
	}
	if done {
		_, err = fmt.Fprintf(stdout, "A part of %s was restored to %s before, and what was left beside it is removed.\n", id, dir)
		return err
	}
	if !there(m.whole) {
		if _, _, err := restoreWhole(ctx, s, id, m.whole, cfg, progress); err != nil {
			return errors.Join(err, m.drop())
		}
	}
	// All that is in the snapshot counts, and what comes of it is kept until a server applies its rules.
	kept := *cfg
	kept.Retention, kept.RetentionSize = nil, 0
	from, err := openOffline(m.whole, &kept, stderr)
	if err != nil {
		return err
	}
	report, err := copyPart(ctx, from, m.part, p, &kept, stderr)
	if err = closeAfter(from, err); err != nil {
		return fmt.Errorf("%w; run it again to go on, or remove what lies beside %s with the ending %s, %s and %s", err, dir, wholeEnding, partEnding, partMarkEnding)
	}
	if err := m.publish(); err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "A part of %s is restored to %s: %d samples of %d days, each compared with the snapshot. It is a new archive, without places of outputs.\n",
		id, dir, report.Samples, report.Leased+report.Written)
	return err
}

// partMark is the file beside the folder, locked for as long as it is open.
type partMark struct {
	dir, whole, part string
	file             *os.File
	want             partMarked
}

// partMarked is what the file says.
type partMarked struct {
	// ID is the snapshot that dir.whole is.
	ID string `json:"id"`
	// Part are the selectors and the time of what dir.part is.
	Part string `json:"part"`
	// Copied is set when dir.part is whole: from then on the rest may be half removed.
	Copied bool `json:"copied"`
}

func newPartMark(dir, id string, p *partOf) (*partMark, error) {
	m := &partMark{dir: dir, whole: dir + wholeEnding, part: dir + partEnding, want: partMarked{ID: id, Part: p.String()}}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return nil, err
	}
	var err error
	if m.file, err = os.OpenFile(dir+partMarkEnding, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(m.file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("another process restores to %s: %w", dir, err), m.file.Close())
	}
	return m, nil
}

// begin looks at what is there, and says whether an interrupted run was done but for removing what it needed.
func (m *partMark) begin() (done bool, err error) {
	had, known := m.read()
	entries, err := os.ReadDir(m.dir)
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return false, err
	}
	same := known && had.ID == m.want.ID && had.Part == m.want.Part
	switch {
	case len(entries) > 0 && same && had.Copied && !there(m.part):
		return true, m.clear()
	case len(entries) > 0:
		err = fmt.Errorf("%s is not empty: choose another folder", m.dir)
	case had.Copied && !there(m.part):
		// Its folder was moved away: of what it was made, there may be half.
		err = os.RemoveAll(m.whole)
	case !known && (there(m.whole) || there(m.part)):
		err = fmt.Errorf("%s and %s are in the way, and nothing says what they are: move or remove them", m.whole, m.part)
	case there(m.part) && !same, there(m.whole) && had.ID != m.want.ID:
		err = fmt.Errorf("%s and %s are what a restore left of snapshot %.40q, of %s: go on with that one, or remove them", m.whole, m.part, had.ID, had.Part)
	}
	if err != nil {
		if !known {
			// Nobody needs it.
			err = errors.Join(err, os.Remove(m.file.Name()))
		}
		return false, err
	}
	return false, m.write(m.want)
}

func (m *partMark) read() (had partMarked, known bool) {
	err := json.NewDecoder(io.NewSectionReader(m.file, 0, 1<<20)).Decode(&had)
	return had, err == nil && had.ID != ""
}

// write replaces what the file says, in place since it is the lock, and durably.
func (m *partMark) write(what partMarked) error {
	b, err := json.Marshal(what)
	if err != nil {
		return err
	}
	if err := m.file.Truncate(0); err != nil {
		return err
	}
	if _, err := m.file.WriteAt(b, 0); err != nil {
		return err
	}
	return errors.Join(m.file.Sync(), durable.Sync(filepath.Dir(m.dir)))
}

// publish gives the part its name and removes what it was made of.
func (m *partMark) publish() error {
	m.want.Copied = true
	if err := m.write(m.want); err != nil {
		return err
	}
	if err := removeEmpty(m.dir); err != nil {
		return err
	}
	if err := os.Rename(m.part, m.dir); err != nil {
		return err
	}
	return m.clear()
}

// clear removes what was needed; the part has its name.
func (m *partMark) clear() error {
	if err := durable.Sync(filepath.Dir(m.dir)); err != nil {
		return err
	}
	if err := os.RemoveAll(m.whole); err != nil {
		return err
	}
	return os.Remove(m.file.Name())
}

// drop removes the file if nothing was restored.
func (m *partMark) drop() error {
	if there(m.whole+".partial") || there(m.whole) || there(m.part) {
		return nil
	}
	return os.Remove(m.file.Name())
}

// String returns the selectors and the time, in the form of the flags.
func (p *partOf) String() string {
	var b strings.Builder
	for _, ms := range p.selectors {
		texts := make([]string, len(ms))
		for i, m := range ms {
			texts[i] = m.String()
		}
		fmt.Fprintf(&b, "{%s} ", strings.Join(texts, ","))
	}
	fmt.Fprintf(&b, "from %d to %d ms", p.start, p.end)
	return b.String()
}

// there tells whether there is something of that name.
func there(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, os.ErrNotExist)
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
