package archive

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"varve/archive/format"
	"varve/durable"
	"varve/rocks"
)

// Checkpoint is what a copy of an archive holds.
type Checkpoint struct {
	// Incarnation is that of the archive, which the copy has until it is adopted.
	Incarnation [16]byte
	// Taken is when the copy was begun: what was acknowledged before is in it.
	Taken time.Time
	// Last is the last record of the journal that it has or had, 0 if nothing ever arrived.
	Last uint64
	// Series is about how many series there are, those without samples included.
	Series uint64
	// Files are all files below the folder, by path.
	Files []CheckpointFile
	// Days are those that have sealed samples, ascending. They may have others besides.
	Days []CheckpointDay
	// Cursors are the places of outputs in the journal, by name.
	Cursors []AdoptedCursor
}

// CheckpointFile is a file of a copy.
type CheckpointFile struct {
	// Path is relative to the folder, with slashes.
	Path  string
	Bytes int64
	// Family is the column family of a table file, else empty.
	Family string
	// Immutable tells of a file that never changes: a table file. In later copies of the same archive one of this path has the same
	// content.
	Immutable bool
}

// CheckpointDay is a day of a copy.
type CheckpointDay struct {
	// Day is its start (UTC).
	Day time.Time
	// Samples, Bytes and Digest are those of what is sealed.
	Samples, Bytes, Digest uint64
	// Sealed is when it was sealed last; zero while that is not done for the first time.
	Sealed time.Time
}

// checkpointMemoryBytes is what a copy is opened with to be looked at.
const checkpointMemoryBytes = 32 << 20

// Incarnation is what tells this archive from a copy that was made an archive of its own.
func (a *Archive) Incarnation() [16]byte { return a.ack.incarnation }

// Checkpoint makes folder dir, which must not exist, a copy of the archive as it is at one moment: a data directory that Open takes,
// with everything that was acknowledged before the call. What is told of it is read from the copy.
//
// Table files are hard links, so dir must be on the archive's file system; it takes about as much room there as the engine has in memory. Writers,
// queries and jobs go on meanwhile. When it returns the copy is durable; until then the folder is called dir.partial, and a leftover of
// that name is removed. The error is an *arrival.Unavailable if the archive takes no writes.
func (a *Archive) Checkpoint(ctx context.Context, dir string) (Checkpoint, error) {
	if err := a.writable(); err != nil {
		return Checkpoint{}, err
	}
	c, err := a.checkpoint(ctx, dir)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("checkpoint %s: %w", dir, err)
	}
	return c, nil
}

func (a *Archive) checkpoint(ctx context.Context, dir string) (c Checkpoint, err error) {
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		return c, errors.Join(fmt.Errorf("it is in the way: %w", fs.ErrExist), err)
	}
	if err := a.disk.check(); err != nil {
		return c, err
	}
	partial := dir + ".partial"
	if err := os.RemoveAll(partial); err != nil {
		return c, err
	}
	if err := os.Mkdir(partial, 0o700); err != nil {
		return c, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(partial))
		}
	}()
	c.Taken = a.o.Now()
	if err := a.db.Checkpoint(filepath.Join(partial, databaseDir)); err != nil {
		return c, err
	}
	a.step("checkpoint")
	if err := ctx.Err(); err != nil {
		return c, err
	}
	a.cat.mu.Lock()
	c.Series = a.cat.total()
	a.cat.mu.Unlock()
	families, err := c.describe(partial, &a.o)
	if err != nil {
		return c, err
	}
	ack, err := openAckFile(filepath.Join(partial, ackName))
	if err != nil {
		return c, err
	}
	ack.incarnation = c.Incarnation
	if err := errors.Join(ack.write(c.Last), ack.close(), durable.Sync(partial)); err != nil {
		return c, err
	}
	if err := c.list(partial, families); err != nil {
		return c, err
	}
	if err := ctx.Err(); err != nil {
		return c, err
	}
	if err := os.Rename(partial, dir); err != nil {
		return c, err
	}
	return c, durable.Sync(filepath.Dir(dir))
}

// describe reads from the copy in a folder what it holds, and returns the families of its table files.
func (c *Checkpoint) describe(dir string, o *Options) (files map[string]string, err error) {
	copied, err := openCopy(dir, o, true)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, copied.db.Close()) }()
	if c.Incarnation, err = copied.incarnation(); err != nil {
		return nil, err
	}
	if c.Last, err = copied.lastKnown(); err != nil {
		return nil, err
	}
	if c.Days, err = copied.sealedDays(); err != nil {
		return nil, err
	}
	files = map[string]string{}
	for _, f := range copied.db.LiveFiles() {
		files[f.Name] = format.FamilyNames[f.Family]
	}
	c.Cursors, err = copied.places()
	return files, err
}

// list lists the files of the copy in a folder.
func (c *Checkpoint) list(dir string, families map[string]string) error {
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		path, err = filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		f := CheckpointFile{Path: filepath.ToSlash(path), Bytes: info.Size()}
		if name, ok := strings.CutPrefix(f.Path, databaseDir+"/"); ok {
			f.Family, f.Immutable = families[name]
		}
		c.Files = append(c.Files, f)
		return nil
	})
}

// Exists says why there is no archive in a folder, nil if there is one. Open would make it.
func Exists(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, databaseDir)); err != nil {
		return fmt.Errorf("there is no archive: %w", err)
	}
	return nil
}

// copiedArchive reads an archive that nobody has open, without starting it.
type copiedArchive struct{ Archive }

func openCopy(dir string, o *Options, readOnly bool) (*copiedArchive, error) {
	if err := Exists(dir); err != nil {
		return nil, err
	}
	db, err := openRocks(filepath.Join(dir, databaseDir), rocks.Options{
		Families: families(), ReadOnly: readOnly, MemoryBytes: checkpointMemoryBytes, MaxWALBytes: walBytesMax,
	})
	if err != nil {
		return nil, err
	}
	c := &copiedArchive{Archive{o: *o, dir: dir, db: db}}
	version, ok, err := c.meta(format.MetaVersion)
	switch {
	case err != nil:
	case !ok:
		err = fmt.Errorf("%w: the database in %s has no format version: it isn't an archive, or lost what it began with", ErrCorrupt, dir)
	case version > format.Version:
		err = fmt.Errorf("the archive has format version %d, this build knows up to %d: use a newer Varve", version, format.Version)
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return c, nil
}

func (c *copiedArchive) incarnation() (id [16]byte, err error) {
	value, _, err := c.db.Get(family(format.FamilyMeta), []byte(format.MetaIncarnation), nil)
	if err != nil {
		return id, err
	}
	if len(value) != len(id) {
		return id, fmt.Errorf("%w: incarnation of %d bytes", ErrCorrupt, len(value))
	}
	return [16]byte(value), nil
}

// lastKnown is the last record of the journal, or the last that was trimmed if there is none.
func (c *copiedArchive) lastKnown() (uint64, error) {
	last, err := c.lastRecord()
	if err != nil {
		return 0, err
	}
	c.found = last
	trimmed, ok, err := c.meta(format.MetaJournal)
	if err != nil || !ok || trimmed == 0 {
		return uint64(last), err
	}
	return max(uint64(last), trimmed-1), nil
}

// sealedDays lists the days that have bundles.
func (c *copiedArchive) sealedDays() (out []CheckpointDay, err error) {
	var floors format.Floors
	value, ok, err := c.db.Get(family(format.FamilyMeta), []byte(format.MetaFloors), nil)
	if err != nil {
		return nil, err
	}
	if ok {
		if err := floors.Parse(value); err != nil {
			return nil, fmt.Errorf("floors of retention: %w", err)
		}
	}
	if err := c.days.load(c.db); err != nil {
		return nil, err
	}
	for day, state := range c.days.days {
		r := &state.record
		if r.Bundles == 0 || ok && day < floors.Of(0) {
			continue
		}
		d := CheckpointDay{Day: time.UnixMilli(day.StartMillis()).UTC(), Samples: r.Samples, Bytes: r.Bytes, Digest: r.Digest}
		if r.SealedMillis != 0 {
			d.Sealed = time.UnixMilli(r.SealedMillis).UTC()
		}
		out = append(out, d)
	}
	slices.SortFunc(out, func(x, y CheckpointDay) int { return x.Day.Compare(y.Day) })
	return out, nil
}

// places tells where the cursors are. lastKnown comes before.
func (c *copiedArchive) places() ([]AdoptedCursor, error) {
	if err := c.tails.load(&c.Archive); err != nil {
		return nil, err
	}
	var out []AdoptedCursor
	for _, cursor := range c.tails.all() {
		lag, err := cursor.Lag()
		if err != nil {
			return nil, err
		}
		out = append(out, AdoptedCursor{Name: cursor.name, Next: uint64(cursor.rec.Next), Arrived: lag.Since, Samples: lag.Samples})
	}
	return out, nil
}

// Adopted is what a copy became.
type Adopted struct {
	Incarnation [16]byte
	// Last is the last record of the journal that it has or had.
	Last    uint64
	Cursors []AdoptedCursor
}

// AdoptedCursor is the place of an output in the journal.
type AdoptedCursor struct {
	Name string
	// Next is the first sequence that is not settled.
	Next uint64
	// Arrived is when the first arrival that is not settled came in; zero if there is none.
	Arrived time.Time
	// Samples are those that are not settled, as far as they are counted.
	Samples uint64
}

// Adopt makes a copy that was restored to dir an archive of its own, and tells what its outputs send again: they go on where they
// were when the copy was taken. It gets a new incarnation, so that what arrives in it is never taken for what arrives in the one that it is
// a copy of: the ids under which peers know deliveries begin with it.
//
// Nobody may have it open. An Adopt that was killed is done again.
func Adopt(dir string, o Options) (Adopted, error) {
	o.setDefaults()
	c, err := openCopy(dir, &o, false)
	if err != nil {
		return Adopted{}, fmt.Errorf("adopt %s: %w", dir, err)
	}
	r, err := c.adopt()
	if err = errors.Join(err, c.db.Close()); err != nil {
		return Adopted{}, fmt.Errorf("adopt %s: %w", dir, err)
	}
	return r, nil
}

// adopt replaces incarnation and ack file. The old file goes first: with neither of the two could a file of another
// incarnation be told from one that was mixed up.
func (c *copiedArchive) adopt() (r Adopted, err error) {
	old, err := c.incarnation()
	if err != nil {
		return r, err
	}
	if r.Last, err = c.lastKnown(); err != nil {
		return r, err
	}
	if r.Cursors, err = c.places(); err != nil {
		return r, err
	}
	path := filepath.Join(c.dir, ackName)
	if err := c.dropAck(path, old, r.Last); err != nil {
		return r, err
	}
	if _, err := rand.Read(r.Incarnation[:]); err != nil {
		return r, err
	}
	var b rocks.Batch
	b.Put(family(format.FamilyMeta), []byte(format.MetaIncarnation), r.Incarnation[:])
	if err := c.db.Write(&b, true); err != nil {
		return r, err
	}
	ack, err := openAckFile(path)
	if err != nil {
		return r, err
	}
	ack.incarnation = r.Incarnation
	return r, errors.Join(ack.write(r.Last), ack.close())
}

// dropAck holds the ack file against the database, and removes it.
func (c *copiedArchive) dropAck(path string, incarnation [16]byte, last uint64) error {
	ack, err := openAckFile(path)
	if err != nil {
		return err
	}
	if err := errors.Join(ack.bind(incarnation), ack.close()); err != nil {
		return err
	}
	if last < ack.sequence {
		return fmt.Errorf("%w: record %d was acknowledged, the last one here is %d: the copy is not whole; restore it again", ErrCorrupt, ack.sequence, last)
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	return durable.Sync(c.dir)
}
