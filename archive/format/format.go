// Package format knows every byte that the archive keeps in RocksDB: the names
// of the column families, the layout of keys, and the values that are not
// chunks. It turns fields into bytes and bytes into fields, and does nothing else:
// no I/O, no state, no goroutines. Every function may be called from anywhere.
//
// Keys are big endian, so that their byte order is the order of their fields.
// Days and months are biased by half their range: times before 1970 sort first.
// Time comes first in the keys of data, so a new day arrives behind all older
// keys and RocksDB never rewrites history to take it in.
//
// Decoders take untrusted bytes. They return an error that wraps ErrCorrupt, never
// panic, and never allocate more than the input can justify.
//
// docs/format describes the same bytes in words; a test pins each layout.
package format

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Version is the format version that this build writes. It is stored under
// MetaVersion and only ever grows; a build refuses an archive of a higher one.
const Version = 1

// ErrCorrupt marks bytes that no version of Varve can have written.
var ErrCorrupt = errors.New("corrupt")

func corrupt(what string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrCorrupt, fmt.Sprintf(what, args...))
}

// Family numbers a column family. The number is an index into Families and lives
// in memory only; on disk families are known by name.
type Family uint8

// The column families. The order may change, the names may not.
const (
	FamilyMeta Family = iota
	FamilySeries
	FamilySymbols
	FamilyMetadata
	FamilyLookup
	FamilyIndex
	FamilyActive
	FamilyJournal
	FamilyHot
	FamilyRaw
	FamilyClocks
	FamilyExemplars
	FamilyTombstones
	FamilyDirty
	FamilyGaps
	FamilyExpired
	// familyRollups is the first of several, see RollupFamily.
	familyRollups
)

const familyCount = familyRollups + Family(len(rollupLengths))

// FamilyNames are the names on disk, by Family.
var FamilyNames = [familyCount]string{
	"meta", "series", "symbols", "metadata", "lookup", "index", "active", "journal", "hot", "raw", "clocks",
	"exemplars", "tombstones", "dirty", "gaps", "expired",
	"rollups_1ms", "rollups_2m", "rollups_15m", "rollups_2h", "rollups_12h",
}

// FormerRollups is the family that builds before the first release had all rollups in. An archive with it has format version 1 too, and
// can't be read.
const FormerRollups = "rollups"

// Names of the records in the meta family. Numbers are 8 bytes, big endian.
const (
	// MetaVersion holds Version.
	MetaVersion = "version"
	// MetaIncarnation holds the 16 bytes that tell this archive from a copy that was restored and written to.
	MetaIncarnation = "incarnation"
	// MetaSeed holds the secret under which label bytes are hashed.
	MetaSeed = "seed"
	// MetaNextRef holds the first ref that was never handed out.
	MetaNextRef = "next_ref"
	// MetaNextPair holds the first pair id that was never handed out.
	MetaNextPair = "next_pair"
	// MetaNextGroup holds the first group that was never handed out.
	MetaNextGroup = "next_group"
	// MetaCut holds the first sequence whose samples may not all be in runs.
	MetaCut = "cut"
	// MetaIndex holds the first sequence whose samples may not all be in the index.
	MetaIndex = "index"
	// MetaJournal holds the sequence from which on a start-up reads the journal: the begin of a segment.
	MetaJournal = "journal"
	// MetaKept holds the first sequence that is still in the journal, for cursors: the begin of a segment, not
	// behind MetaJournal. Without the record that is MetaJournal.
	MetaKept = "kept"
	// MetaStamp holds the JournalStamp of the journal's last record, as it was when the journal was last trimmed.
	MetaStamp = "stamp"
	// MetaEdgePrefix begins the names of records of the journal's segments: the JournalStamp of what lies before.
	MetaEdgePrefix = "edge/"
	// MetaCursorPrefix begins the names of the records of cursors, see Cursor.
	MetaCursorPrefix = "cursor/"
	// MetaClockPrefix begins the names of records of how far a query that is an output's source was evaluated, Unix ms.
	MetaClockPrefix = "clock/"
	// MetaNotePrefix begins the names of records that inputs keep, see AppendNote.
	MetaNotePrefix = "note/"
	// MetaPagePrefix begins the names of records that hold, for a page of 256 refs, the
	// first sequence whose samples may not be in the page's runs. It spares a start-up
	// the samples of pages that were cut lately, and is only a saving: without the
	// record MetaCut counts.
	MetaPagePrefix = "page/"
	// MetaDayPrefix begins the names of the records of days, see DayRecord.
	MetaDayPrefix = "day/"
	// MetaRollPrefix begins the names of the records of days at a resolution, see RollRecord.
	MetaRollPrefix = "roll/"
	// MetaFloors holds the Floors.
	MetaFloors = "floors"
	// MetaTrimPrefix begins the names of records of days from which rules of retention remove series:
	// they hold when that was begun, Unix ms, and go when it is done.
	MetaTrimPrefix = "trim/"
	// MetaLeasePrefix begins the names of records of days that are being taken in whole: they hold when
	// that was begun, Unix ms, and go when it is done.
	MetaLeasePrefix = "lease/"
	// MetaProbe is overwritten to find out whether the disk takes writes again.
	MetaProbe = "probe"
)

// AppendPageName appends the name of the meta record of the page that begins with first.
func AppendPageName(dst []byte, first Ref) []byte {
	return binary.BigEndian.AppendUint64(append(dst, MetaPagePrefix...), uint64(first))
}
