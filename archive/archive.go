// Package archive keeps series and their samples for years: it takes what arrives,
// makes it durable before it says so, and answers what is asked of it.
//
// The nouns: a series has a ref, its labels are pairs in the catalogue, its samples
// arrive in batches. A batch is written to the journal and, in the same pass, to
// the series' open runs in memory. A group commit makes the batches of many senders
// durable with one fsync. An open run is cut after minutes: it becomes a run on disk,
// and the journal behind it may go. The index tells which series have samples in a
// month or on a day.
//
// Writing: Lookup, Resolve and Write are the write port, safe for many goroutines.
// Write returns when the batch is fsynced. A sample may be read a moment before it is
// durable.
//
// Reading: Archive implements upstream's storage.Queryable, ChunkQueryable and
// ExemplarQueryable. A Querier sees one state of the archive, may be used by several
// goroutines, and holds files on disk until it is closed.
//
// Start: Open returns while the journal is still read back; writes are taken from
// then on, queries answer ErrStarting until the journal is through.
//
// Besides: OpenIntake brings whole days in, past the journal. Checkpoint copies the archive as it is at one moment, and Adopt makes
// a copy that was restored an archive of its own.
//
// The package owns no logger: rare events go to Options.Events, counts to the
// registerer. Seal and Reclaim do what they are told of one day; when to call them, and
// rolling up, expiring and forwarding, are jobs of other packages upon it. One process opens an archive at a time.
package archive

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"varve/archive/format"
	"varve/arrival"
	"varve/rocks"
)

// Options configure an archive. The zero value of a field means its default.
type Options struct {
	// MemoryBytes is RocksDB's share: block cache and memtables. Default: rocks.DefaultMemoryBytes.
	MemoryBytes int64
	// SyncInterval makes writes be acknowledged before they are fsynced, which then
	// happens this often. Zero, the default, is fsync before every acknowledgement.
	SyncInterval time.Duration
	// RunAgeMax is how long a sample stays in an open run. Default 15 min.
	RunAgeMax time.Duration
	// RunBytesMax bounds the memory of all open runs; beyond it the oldest are cut early. Default 1 GiB.
	RunBytesMax int64
	// GroupBytesMax bounds the journal bytes that wait for one commit; beyond it writes are refused for now. Default 64 MiB.
	GroupBytesMax int
	// IndexFlushInterval is how often the index goes to disk. Default 5 min, or RunAgeMax if that is less.
	IndexFlushInterval time.Duration
	// FutureMax is how far ahead of the clock a sample may lie. Default 10 min.
	FutureMax time.Duration
	// RejectOverwrites refuses a sample whose series has another value at the same
	// time, instead of letting the later arrival win. Samples that are not the newest of
	// their series then cost a read, and writes wait for the journal to be read back at a start.
	RejectOverwrites bool
	// Resolutions are the lengths of the buckets of rollups, ascending, each a multiple of
	// the one before and of a millisecond, and a part of a day. Default: none.
	Resolutions []time.Duration
	// JournalBytesMax and JournalAgeMax bound what the journal keeps for cursors that are behind: a cursor that is further behind
	// reads from the archive what was trimmed under it. Default 4 GiB and 24 h.
	JournalBytesMax int64
	JournalAgeMax   time.Duration
	// OwedMax is how long samples that a cursor reads from the archive are kept from expiring. Default 7 days.
	OwedMax time.Duration
	// Retention says how long samples and buckets are kept. SetRetention changes it. Default: forever.
	Retention Retention
	// SeriesMax bounds the number of series, those without data that are not forgotten yet included, NewSeriesPerMinuteMax the
	// rate of new ones. Default: no bound.
	SeriesMax             uint64
	NewSeriesPerMinuteMax int
	// LabelCacheBytes and SymbolCacheBytes bound caches of label sets and label pairs. Default 128 MiB and 64 MiB.
	LabelCacheBytes, SymbolCacheBytes int
	// ClockCacheBytes bounds the cache of decoded timestamps that sealed series share, and that of
	// what their rollups share. Default 64 MiB each.
	ClockCacheBytes int
	// QuerySeriesMax and QueryBytesMax bound what one query may select: series, and
	// bytes of coded samples. Default 1,000,000 and 1 GiB.
	QuerySeriesMax int
	QueryBytesMax  int64
	// DiskFloorBytes and DiskFloorShare say how much of the disk must stay free for
	// writes to be taken: the larger of the two. Default 1 GiB and 0.02.
	DiskFloorBytes int64
	DiskFloorShare float64
	// ReserveBytes is the size of a file that is given up when the archive is opened on a full disk. Default 64 MiB.
	ReserveBytes int64
	// MemtableBytes makes RocksDB's write buffers this small, for tests that want many files. Default: from MemoryBytes.
	MemtableBytes int64
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Manual leaves maintenance to calls of Maintain, for tests. Default: a goroutine does it every second.
	Manual bool
	// Registerer takes the metrics. Default: none.
	Registerer prometheus.Registerer
	// Events are told of rare things.
	Events Events
}

// Events are told of rare things that an operator may want to know. Each may be nil.
// They are called from any goroutine and must return soon.
type Events struct {
	// Recovered tells at a start that the journal is read back: from how many records, and how long it took.
	Recovered func(records, samples int, took time.Duration)
	// Damaged tells of damage that a start found: in the write-ahead log, which was
	// set aside, or in the journal, in which case queries are refused.
	Damaged func(err error)
	// ReadOnly tells that the archive takes no writes (reason and error), or that it does again (empty reason).
	ReadOnly func(reason string, err error)
	// Maintenance tells of an error of background work, which will be tried again.
	Maintenance func(err error)
}

func (o *Options) setDefaults() {
	def := func(p *time.Duration, d time.Duration) {
		if *p == 0 {
			*p = d
		}
	}
	def(&o.RunAgeMax, 15*time.Minute)
	// A start reads back what is not in the index as well as what is not in runs.
	def(&o.IndexFlushInterval, min(5*time.Minute, o.RunAgeMax))
	def(&o.FutureMax, 10*time.Minute)
	def(&o.JournalAgeMax, 24*time.Hour)
	def(&o.OwedMax, 7*24*time.Hour)
	num(&o.JournalBytesMax, 4<<30)
	num(&o.RunBytesMax, 1<<30)
	num(&o.GroupBytesMax, 64<<20)
	num(&o.LabelCacheBytes, 128<<20)
	num(&o.SymbolCacheBytes, 64<<20)
	num(&o.ClockCacheBytes, 64<<20)
	num(&o.QuerySeriesMax, 1_000_000)
	num(&o.QueryBytesMax, 1<<30)
	num(&o.DiskFloorBytes, 1<<30)
	num(&o.DiskFloorShare, 0.02)
	num(&o.ReserveBytes, 64<<20)
	if o.MemoryBytes == 0 {
		o.MemoryBytes = rocks.DefaultMemoryBytes()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
}

func num[T int | int64 | float64](p *T, d T) {
	if *p == 0 {
		*p = d
	}
}

// Archive is an open archive. All methods are safe for use by several goroutines.
type Archive struct {
	o     Options
	dir   string
	db    *rocks.DB
	cat   *catalogue
	index *index
	live  *openRuns
	views *views
	m     *metrics

	metadata *metadataStore
	state    health
	disk     diskFloor
	ack      *ackFile
	orders   *sortOrders
	guard    *overwriteGuard // nil unless overwrites are refused

	days    dayStates
	sealing sync.Mutex // held while a day is sealed, or another job changes what is
	intakes intakes
	left    leftovers
	clocks  clockCache
	deletes deletes
	rolls   rollStates
	kept    retention
	// dropAfter is the first epoch whose readers read nothing that has expired.
	dropAfter atomic.Uint64
	trims     trims
	tails     tails
	untidy    untidy
	forgets   forgets
	// leaves counts how often series began to leave. It changes with mu held.
	leaves atomic.Uint64
	// rollClocks keeps what rollups share. It never changes, so it needs no snapshot.
	rollClocks *rollClockCache
	// sealLimits are the default ones, except in tests; stepped is a test's, told of
	// the steps of a sealing, a delete or its cleaning, an intake, or nil.
	sealLimits sealLimits
	stepped    func(step string)

	// replayed holds what the journal gave back until it is on disk; nil afterwards.
	replayed atomic.Pointer[openRuns]
	started  chan struct{} // closed when the journal is read back
	startErr error         // set before started is closed

	// mu makes the order of the journal: it is held while a batch is journalled and
	// brought to the open runs. Inside it pages are locked, one at a time. It guards what follows.
	mu           sync.Mutex
	group        *group
	spare        *group // buffers of a group that is done
	committing   bool
	segment      uint32 // number of the journal segment
	segmentBytes int    // bytes of it, 0 before its first record
	segmentAt    time.Time
	// segmentBytesMax is the constant, except in tests.
	segmentBytesMax int
	edges           []format.Sequence // first records of segments that may still be in the journal
	carried         []*carriedRecords
	settling        []movedPage // durable, but perhaps not on disk for every reader
	durable         format.Sequence
	found           format.Sequence     // the last record that the start-up found
	stamp           format.JournalStamp // of the last record that is durable
	writing         *group              // the group that the leader writes
	newEdges        []journalEdge       // segments that began since the journal was last trimmed

	out           rocks.Batch  // the leader's, kept for its memory
	commitStarted atomic.Int64 // Unix ns, 0 while no commit runs
	closing       atomic.Bool

	upkeep upkeep
	stop   chan struct{}
	done   sync.WaitGroup
}

func family(f format.Family) rocks.Family { return rocks.Family(f) }

// Names inside the archive's directory.
const (
	databaseDir = "db"
	ackName     = "acknowledged"
	intakeDir   = "intake"
	reserveName = "reserve"
)

func families() []rocks.FamilySpec {
	specs := make([]rocks.FamilySpec, len(format.FamilyNames))
	for i, name := range format.FamilyNames {
		specs[i] = rocks.FamilySpec{Name: name, Profile: rocks.ProfileScan}
		switch format.Family(i) {
		case format.FamilyMeta, format.FamilySeries, format.FamilySymbols, format.FamilyLookup, format.FamilyMetadata:
			specs[i].Profile = rocks.ProfilePoint
		case format.FamilyJournal:
			specs[i].Profile = rocks.ProfileLog
		case format.FamilyRaw:
			specs[i].Profile = rocks.ProfileSealed
		}
	}
	for _, f := range format.RollupFamilies() {
		specs[f].Profile = rocks.ProfileSealed
	}
	return specs
}

// Open opens the archive in dir, or makes one there. It returns before the journal
// is read back; Started tells when that is done.
func Open(dir string, o Options) (*Archive, error) {
	o.setDefaults()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open archive: %w", err)
	}
	if err := makeRoom(dir, &o); err != nil {
		return nil, fmt.Errorf("open archive: %w", err)
	}
	ack, err := openAckFile(filepath.Join(dir, ackName))
	if err != nil {
		return nil, fmt.Errorf("open archive: %w", err)
	}
	db, err := openDatabase(filepath.Join(dir, databaseDir), &o)
	if err != nil {
		return nil, errors.Join(err, ack.close())
	}
	a := &Archive{
		o: o, dir: dir, db: db, ack: ack, views: newViews(),
		disk:    diskFloor{dir: dir, bytesMin: o.DiskFloorBytes, shareMin: o.DiskFloorShare, free: freeBytes},
		started: make(chan struct{}), stop: make(chan struct{}), orders: newSortOrders(), sealLimits: defaultSealLimits, segmentBytesMax: segmentBytesMax,
		untidy: untidy{waitMax: tidyWaitMax},
	}
	a.forgets.start()
	a.intakes.now.Store(&leasedDay{})
	a.cat = newCatalogue(db, func() int64 { return o.Now().UnixMilli() }, &a.o)
	a.index = newIndex(db, a.cat)
	a.live = newOpenRuns(a.cat)
	a.metadata = newMetadataStore(db, a.cat)
	a.clocks = newClockCache(o.ClockCacheBytes)
	a.rollClocks = newRollClockCache(o.ClockCacheBytes)
	a.m = newMetrics(a)
	if o.RejectOverwrites {
		a.guard = &overwriteGuard{a: a}
	}
	last, err := a.load()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open archive %s: %w", dir, err), db.Close(), ack.close())
	}
	// The runs of the replay take sequences behind the last record, one for each of
	// its commits; what arrives from now on is later still.
	a.replayed.Store(newOpenRuns(a.cat))
	a.group = newGroup(last + replaySequences)
	a.segment = 1
	if o.Registerer != nil {
		if err := o.Registerer.Register(a.m); err != nil {
			return nil, errors.Join(fmt.Errorf("open archive: %w", err), db.Close(), ack.close())
		}
	}
	a.done.Add(1)
	go func() {
		defer a.done.Done()
		a.replay(last)
	}()
	if o.SyncInterval > 0 {
		a.done.Add(1)
		go func() {
			defer a.done.Done()
			a.syncLoop()
		}()
	}
	if !o.Manual {
		a.done.Add(1)
		go func() {
			defer a.done.Done()
			a.maintainLoop()
		}()
	}
	return a, nil
}

// replaySequences is the number of sequences that a start-up sets aside.
const replaySequences = 1 << 20

// walBytesMax bounds RocksDB's write-ahead log, all of which an open reads: 128 MiB
// of small records take 2 to 3 s of one core.
const walBytesMax = 128 << 20

// openDatabase opens RocksDB as the recovery ladder says: a log whose end is damaged is
// set aside as a copy and read as far as it is whole; load then tells whether
// anything acknowledged was behind that.
func openDatabase(dir string, o *Options) (*rocks.DB, error) {
	ro := rocks.Options{Families: families(), MemoryBytes: o.MemoryBytes, MemtableBytes: o.MemtableBytes, MaxWALBytes: walBytesMax}
	db, err := openRocks(dir, ro)
	if !errors.Is(err, rocks.ErrCorrupt) {
		if err != nil {
			return nil, fmt.Errorf("open archive: %w", err)
		}
		return db, nil
	}
	aside, copyErr := copyLogs(dir, o.Now())
	if copyErr != nil {
		return nil, fmt.Errorf("open archive: %w", errors.Join(err, copyErr))
	}
	if o.Events.Damaged != nil {
		o.Events.Damaged(fmt.Errorf("the write-ahead log is damaged (%w); it was copied to %s and is read as far as it is whole", err, aside))
	}
	ro.Recovery = rocks.RecoveryPointInTime
	if db, err = openRocks(dir, ro); err != nil {
		return nil, fmt.Errorf("open archive: %w; the log before the attempt lies in %s; restore a snapshot, or run `varve check data`", err, aside)
	}
	return db, nil
}

// openRocks opens the database of an archive. It says what to do with one that a build before the first release wrote.
func openRocks(dir string, o rocks.Options) (*rocks.DB, error) {
	db, err := rocks.Open(dir, o)
	if u, ok := errors.AsType[*rocks.UnknownFamilies](err); ok && slices.Contains(u.Names, format.FormerRollups) {
		return nil, fmt.Errorf("%s: the archive is of a build before the first release, which had all rollups in one column family %q; this build reads none of it, and changed nothing: "+
			"export it with the build that wrote it (`varve export tsdb`), import that into a new archive (`varve import tsdb`), or name another folder", dir, format.FormerRollups)
	}
	return db, err
}

// load reads the records that an archive begins with, or writes them, and holds
// the last journal record against the acknowledged one.
func (a *Archive) load() (last format.Sequence, err error) {
	version, ok, err := a.meta(format.MetaVersion)
	if err != nil {
		return 0, err
	}
	if !ok {
		if a.ack.sequence > 0 {
			return 0, fmt.Errorf("%w: the database is empty, yet record %d was acknowledged; restore a snapshot, or remove the file %q to begin anew", ErrCorrupt, a.ack.sequence, ackName)
		}
		if err := a.initialise(); err != nil {
			return 0, err
		}
	} else if version > format.Version {
		return 0, fmt.Errorf("the archive has format version %d, this build knows up to %d: use a newer Varve", version, format.Version)
	}
	if err := a.cat.load(a.meta); err != nil {
		return 0, err
	}
	incarnation, _, err := a.db.Get(family(format.FamilyMeta), []byte(format.MetaIncarnation), nil)
	if err != nil {
		return 0, err
	}
	if len(incarnation) != 16 {
		return 0, fmt.Errorf("%w: incarnation of %d bytes", ErrCorrupt, len(incarnation))
	}
	if err := a.ack.bind([16]byte(incarnation)); err != nil {
		return 0, err
	}
	if err := a.rolls.load(a.db, a.o.Resolutions); err != nil {
		return 0, err
	}
	if err := a.kept.load(a.db, a.cat, a.rolls.resolutions, a.o.Retention); err != nil {
		return 0, err
	}
	a.index.saw, a.rolls.floors = a.kept.saw, &a.kept.floors
	if err := a.days.load(a.db); err != nil {
		return 0, err
	}
	if err := a.trims.load(a.db, a.kept.floors.Load()); err != nil {
		return 0, err
	}
	if err := a.endLeases(); err != nil {
		return 0, err
	}
	a.forgetExpired(a.kept.floors.Load())
	if err := a.findLeftovers(); err != nil {
		return 0, err
	}
	if last, err = a.lastRecord(); err != nil {
		return 0, err
	}
	a.found = last
	if err := a.tails.load(a); err != nil {
		return 0, err
	}
	// What lies before the journal's first record is in runs.
	trimmed, _, err := a.meta(format.MetaJournal)
	if err != nil {
		return 0, err
	}
	if max(uint64(last), trimmed-1) < a.ack.sequence {
		return 0, fmt.Errorf("%w: record %d was acknowledged, the last one here is %d: the write-ahead log in %q was cut short; "+
			"restore its files or a snapshot, or remove the file %q to accept the loss", ErrCorrupt, a.ack.sequence, last, databaseDir, ackName)
	}
	// Tombstones and watermarks may be ahead of the last record, because a commit without
	// arrivals has a sequence too. What arrives next must lie behind them.
	deleted, err := a.deletes.load(a.db)
	if err != nil {
		return 0, err
	}
	last = max(last, deleted)
	for _, name := range []string{format.MetaCut, format.MetaIndex} {
		mark, _, err := a.meta(name)
		if err != nil {
			return 0, err
		}
		last = max(last, format.Sequence(mark))
	}
	return last, a.metadata.load()
}

func (a *Archive) meta(name string) (uint64, bool, error) {
	v, ok, err := a.db.Get(family(format.FamilyMeta), []byte(name), nil)
	if err != nil || !ok {
		return 0, false, err
	}
	n, err := format.ParseUint64(v)
	if err != nil {
		return 0, false, fmt.Errorf("meta record %q: %w", name, err)
	}
	return n, true, nil
}

func (a *Archive) initialise() error {
	var random [24]byte
	if _, err := rand.Read(random[:]); err != nil {
		return err
	}
	var b rocks.Batch
	put := func(name string, value []byte) { b.Put(family(format.FamilyMeta), []byte(name), value) }
	put(format.MetaVersion, format.AppendUint64(nil, format.Version))
	put(format.MetaIncarnation, random[:16])
	put(format.MetaSeed, random[16:])
	for _, name := range []string{format.MetaNextRef, format.MetaNextPair, format.MetaNextGroup, format.MetaCut, format.MetaIndex, format.MetaJournal} {
		put(name, format.AppendUint64(nil, 1))
	}
	return a.db.Write(&b, true)
}

// lastRecord is the sequence of the last record in the journal, 0 without one. It sets the stamp that the next record
// counts on from: that of the record, or the one that was noted when the journal was trimmed, if that is later.
func (a *Archive) lastRecord() (seq format.Sequence, err error) {
	noted, ok, err := a.db.Get(family(format.FamilyMeta), []byte(format.MetaStamp), nil)
	if err != nil {
		return 0, err
	}
	if ok {
		if a.stamp, err = format.ParseStamp(noted); err != nil {
			return 0, err
		}
	}
	it := a.db.NewIterator(family(format.FamilyJournal), rocks.IterOptions{})
	defer it.Close()
	it.SeekToLast()
	if !it.Valid() {
		return 0, it.Err()
	}
	stamp, err := format.RecordStamp(it.Value())
	if err != nil {
		return 0, err
	}
	if stamp.Bytes > a.stamp.Bytes {
		a.stamp = stamp
	}
	last, err := format.ParseUint64(it.Key())
	return format.Sequence(last), err
}

// Started returns a channel that is closed when the journal is read back and
// queries are answered; StartError then tells whether that went well.
func (a *Archive) Started() <-chan struct{} { return a.started }

// StartError is the error of reading the journal back, once Started is closed.
func (a *Archive) StartError() error {
	select {
	case <-a.started:
		return a.startErr
	default:
		return ErrStarting
	}
}

// Close refuses further writes, waits for those under way, cuts the open runs so that
// the next start has nothing to read back, and closes the archive. Queriers must be
// closed before. What can't be cut, on a full disk for example, stays in the journal.
func (a *Archive) Close() error {
	if a.closing.Swap(true) {
		return nil
	}
	close(a.stop)
	endErr := a.intakes.end()
	// A sealing ends soon after closing is set, and goes on at the next start.
	a.sealing.Lock()
	defer a.sealing.Unlock()
	a.done.Wait()
	err := a.flushGroup()
	if err == nil && a.StartError() == nil && !a.o.Manual {
		err = a.Maintain(true)
	}
	if errors.Is(err, rocks.ErrNoSpace) {
		// Nothing is lost by it: what could not be written to runs is in the journal.
		err = nil
	}
	if a.o.SyncInterval > 0 {
		err = errors.Join(err, a.db.SyncWAL())
	}
	if a.o.Registerer != nil {
		a.o.Registerer.Unregister(a.m)
	}
	a.mu.Lock()
	durable := a.durable
	a.mu.Unlock()
	return errors.Join(endErr, err, a.ack.write(uint64(durable)), a.db.Close(), a.ack.close())
}

// step tells a test of a step of sealing, of a delete or its cleaning, or of an intake.
func (a *Archive) step(name string) {
	if a.stepped != nil {
		a.stepped(name)
	}
}

func (a *Archive) overload() error {
	return &arrival.Unavailable{Reason: "overload", RetryAfter: time.Second, Err: errors.New("too much waits for the disk")}
}
