package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"varve/archive/format"
	"varve/rocks"
)

// Overview tells what an archive has and what it takes, by what is counted anyway: no sample is read.
type Overview struct {
	// Families are the column families, with the bytes of their table files. DiskBytes is their sum,
	// OtherBytes what else of the archive lies on the disk: RocksDB's write-ahead log, where samples are until they are in tables,
	// its own records, and the reserve. FreeBytes is free on the file system.
	Families                         []Size
	DiskBytes, OtherBytes, FreeBytes uint64
	// Series are those that have a record, without samples too until they are forgotten.
	Series uint64
	// Levels are samples and then the resolutions, ascending: those in use, and those that there are still buckets of.
	Levels []LevelOverview
}

// LevelOverview is what there is of samples, or of the buckets of a resolution.
type LevelOverview struct {
	// Resolution is the length of a bucket, 0 for samples.
	Resolution time.Duration
	// Days are sealed, or rolled up, in whole or in part. Oldest and Newest are the first and the last, both zero if there are none.
	Days           int
	Oldest, Newest time.Time
	// Samples counts what is sealed, or buckets. Bytes are those of their keys and values, ClockBytes about those of timestamps
	// that series share.
	Samples, Bytes, ClockBytes uint64
}

// Overview looks at the records of days and at the list of table files.
func (a *Archive) Overview() (Overview, error) {
	var o Overview
	if err := a.StartError(); err != nil {
		return o, err
	}
	for f, name := range format.FamilyNames {
		st := a.db.FamilyStats(family(format.Family(f)))
		o.Families = append(o.Families, Size{Name: name, Bytes: st.Bytes})
		o.DiskBytes += st.Bytes
	}
	free, _, err := a.disk.free(a.dir)
	if err != nil {
		return o, fmt.Errorf("ask for free space of %s: %w", a.dir, err)
	}
	o.FreeBytes = uint64(max(free, 0))
	if o.OtherBytes, err = a.otherBytes(); err != nil {
		return o, err
	}
	a.cat.mu.Lock()
	o.Series = a.cat.total()
	a.cat.mu.Unlock()

	raw := LevelOverview{}
	floor := a.kept.floors.Load().Of(0)
	a.days.mu.Lock()
	for day, state := range a.days.days {
		if r := &state.record; r.Bundles > 0 && day >= floor {
			raw.add(day, r.Samples, r.Bytes)
		}
	}
	a.days.mu.Unlock()
	o.Levels = append(o.Levels, raw)
	for _, resolution := range a.rolls.known() {
		l := LevelOverview{Resolution: time.Duration(resolution) * time.Millisecond}
		floor := a.kept.floors.Load().Of(resolution)
		for _, d := range a.rolls.days(resolution) {
			if d.Day >= floor {
				l.add(d.Day, d.Samples, d.Bytes)
			}
		}
		o.Levels = append(o.Levels, l)
	}
	return o, a.sizeClocks(o.Levels)
}

// tableSuffix is how table files end.
const tableSuffix = ".sst"

// otherBytes adds up the files of the archive that are no tables.
func (a *Archive) otherBytes() (sum uint64, err error) {
	entries, err := os.ReadDir(filepath.Join(a.dir, databaseDir))
	if err != nil {
		return 0, fmt.Errorf("list the files of the archive: %w", err)
	}
	paths := []string{filepath.Join(a.dir, reserveName), filepath.Join(a.dir, ackName)}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), tableSuffix) {
			paths = append(paths, filepath.Join(a.dir, databaseDir, e.Name()))
		}
	}
	for _, path := range paths {
		info, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // RocksDB removes what it doesn't need any more.
		}
		if err != nil {
			return 0, fmt.Errorf("list the files of the archive: %w", err)
		}
		if info.Mode().IsRegular() {
			sum += uint64(info.Size())
		}
	}
	return sum, nil
}

func (l *LevelOverview) add(day format.Day, samples, bytes uint64) {
	at := time.UnixMilli(day.StartMillis()).UTC()
	if l.Days == 0 || at.Before(l.Oldest) {
		l.Oldest = at
	}
	if l.Days == 0 || at.After(l.Newest) {
		l.Newest = at
	}
	l.Days++
	l.Samples += samples
	l.Bytes += bytes
}

// sizeClocks asks for the bytes of the clocks of each level.
func (a *Archive) sizeClocks(levels []LevelOverview) error {
	ranges := make([]rocks.Range, len(levels))
	for i := range levels {
		// Nothing lies between a resolution's last clock and the next resolution.
		lower := format.AppendClockPrefix(nil, uint32(levels[i].Resolution.Milliseconds()), format.MinDay, 0)[:4]
		ranges[i] = rocks.Range{Lower: lower, Upper: format.PrefixEnd(lower)}
	}
	sizes, err := a.db.ApproximateBytes(family(format.FamilyClocks), ranges)
	if err != nil {
		return err
	}
	for i, n := range sizes {
		levels[i].ClockBytes = n
	}
	return nil
}

// known lists the resolutions, ascending, that are in use or have a record.
func (s *rollStates) known() []uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := map[uint32]bool{}
	for _, r := range s.resolutions {
		found[r] = true
	}
	for k := range s.records {
		found[k.resolution] = true
	}
	return slices.Sorted(maps.Keys(found))
}

// RolledStatus tells how far a day is rolled up at a resolution.
type RolledStatus struct {
	Resolution time.Duration
	// Begun tells that there is a record, Rolling that the first roll-up was begun and not ended, Dirty that series wait to be
	// rolled up anew.
	Begun, Rolling, Dirty bool
	Buckets, Bytes        uint64
}

// DayOverview is a day with all that there is of it.
type DayOverview struct {
	DayStatus
	// Expired tells that its samples are past their age, so that only buckets are left.
	Expired bool
	// Rolls are the resolutions at which it is kept and in use, or has buckets, ascending.
	Rolls []RolledStatus
}

// DayOverviews lists the days from first to last, both inclusive, the newest first: at most limit of them, and how many there are
// besides. Those whose samples have expired are among them while there are buckets.
func (a *Archive) DayOverviews(first, last format.Day, limit int) (days []DayOverview, more int, err error) {
	all, err := a.Days()
	if err != nil {
		return nil, 0, err
	}
	found := map[format.Day]*DayOverview{}
	for _, d := range all {
		found[d.Day] = &DayOverview{DayStatus: d}
	}
	floors := a.kept.floors.Load()
	known := a.rolls.known()
	for _, resolution := range known {
		for _, d := range a.rolls.days(resolution) {
			if d.Day >= floors.Of(resolution) && found[d.Day] == nil {
				found[d.Day] = &DayOverview{DayStatus: DayStatus{Day: d.Day, Rolled: a.rolls.isRolled(d.Day)}, Expired: d.Day < floors.Of(0)}
			}
		}
	}
	maps.DeleteFunc(found, func(d format.Day, o *DayOverview) bool {
		return d < first || d > last || !o.Expired && !o.has() && !a.rolls.begun(d, known)
	})
	order := slices.Sorted(maps.Keys(found))
	slices.Reverse(order)
	more = max(0, len(order)-limit)
	for _, d := range order[:len(order)-more] {
		found[d].Rolls = a.rolls.status(d, known)
		days = append(days, *found[d])
	}
	return days, more, nil
}

// has tells whether there are samples on disk, or were when the day was sealed. Days has others too, which wait to be rolled up for
// a bucket that may reach into the day after.
func (d *DayOverview) has() bool { return d.Runs || d.Folding || !d.Sealed.IsZero() }

// begun tells whether a day has buckets at one of the resolutions, or gets some now.
func (s *rollStates) begun(day format.Day, resolutions []uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(resolutions, func(resolution uint32) bool {
		r := s.records[rollKey{resolution, day}]
		return r.Rolling || r.Buckets > 0
	})
}

// status tells how far a day is rolled up at each of the resolutions.
func (s *rollStates) status(day format.Day, resolutions []uint32) (out []RolledStatus) {
	floors := s.floors.Load()
	for _, resolution := range resolutions {
		if day < floors.Of(resolution) {
			continue
		}
		s.mu.Lock()
		r, begun := s.records[rollKey{resolution, day}]
		d := s.dirty[rollKey{resolution, day}]
		st := RolledStatus{
			Resolution: time.Duration(resolution) * time.Millisecond, Begun: begun, Rolling: r.Rolling, Buckets: r.Buckets, Bytes: r.Bytes,
			Dirty: d != nil && !d.refs.IsEmpty(),
		}
		used := slices.Contains(s.resolutions, resolution)
		s.mu.Unlock()
		// What has expired can't be rolled up any more.
		if begun || used && day >= floors.Of(0) {
			out = append(out, st)
		}
	}
	return out
}

// fewSeries is how many series may be looked through one by one to answer Others.
const fewSeries = 100_000

// Others tells whether a series that matches has samples, of whatever time. Of an archive of many series it is true unlooked:
// the question is whether there is anything but the few series that the server keeps of itself.
func (a *Archive) Others(ctx context.Context, ms ...*labels.Matcher) (bool, error) {
	v, err := a.view(math.MinInt64, math.MaxInt64)
	if err != nil {
		return false, err
	}
	a.cat.mu.Lock()
	total := a.cat.total()
	a.cat.mu.Unlock()
	if total > fewSeries {
		return true, v.Close()
	}
	sel, err := v.find(ctx, v.mint, v.maxt, ms)
	if errors.Is(err, ErrQueryLimit) {
		return true, v.Close()
	}
	if err = errors.Join(err, v.Close()); err != nil {
		return false, err
	}
	return len(sel.refs) > 0, nil
}
