package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/prometheus/common/model"

	"varve/archive/format"
	"varve/rocks"
)

// Size is how much a thing takes.
type Size struct {
	Name string
	// Bytes on disk and Count of parts: series of a metric or a pair, values of a label, about the keys of a family, which are
	// not counted of an archive that is at work.
	Bytes, Count uint64
}

// Survey says what an archive holds and what takes the room.
type Survey struct {
	// Families are the column families with the bytes of their table files. DiskBytes
	// is the sum of these, or for Inspect of all files, write-ahead log and reserve included.
	Families  []Size
	DiskBytes uint64
	// Series is the number of series with samples in the month looked at, Pairs that of their label pairs.
	Series, PairCount uint64
	// MinMillis and MaxMillis bound the days that have samples. Both zero when there is none.
	MinMillis, MaxMillis int64
	// Metrics are the metrics with the most bytes of samples, Labels the label names
	// with the most bytes of index and text, Pairs the pairs with the most series.
	Metrics, Labels, Pairs []Size
}

// Survey looks at the current month and the last two days of a running archive. It
// estimates bytes from RocksDB's own index and reads no samples. limit bounds each list.
func (a *Archive) Survey(ctx context.Context, limit int) (Survey, error) {
	if err := a.StartError(); err != nil {
		return Survey{}, err
	}
	if err := a.index.drain(); err != nil {
		return Survey{}, err
	}
	s := surveyor{ctx: ctx, db: a.db, cat: a.cat, running: true, generation: func(d format.Day) format.Generation { return a.days.record(d).Generation }, limit: limit, sets: map[format.PairID]*roaring.Bitmap{}, bytes: map[format.PairID]uint64{}}
	today := format.DayOf(format.ClampTime(a.o.Now().UnixMilli()))
	s.month = today.Month()
	a.index.mu.Lock()
	a.index.addPending(latest, func(p *postings) {
		for k, b := range p.pairs {
			if k.month == s.month {
				s.set(k.pair).Or(b)
			}
		}
	})
	a.index.mu.Unlock()
	return s.run(func(metric format.PairID) (uint64, error) { return s.estimate(metric, today-1, today) })
}

// Inspect surveys an archive that no process has open: its last month and all samples, whose
// bytes it counts exactly.
func Inspect(ctx context.Context, dir string, limit int) (_ Survey, err error) {
	db, err := openRocks(filepath.Join(dir, databaseDir), rocks.Options{Families: families(), ReadOnly: true, MemoryBytes: 256 << 20})
	if err != nil {
		return Survey{}, fmt.Errorf("inspect %s: %w", dir, err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	var o Options
	o.setDefaults()
	s := surveyor{ctx: ctx, db: db, cat: newCatalogue(db, nil, &o), limit: limit, sets: map[format.PairID]*roaring.Bitmap{}, bytes: map[format.PairID]uint64{}}
	last, err := lastMonth(db)
	if err != nil {
		return Survey{}, fmt.Errorf("inspect %s: %w", dir, err)
	}
	s.month = last
	counted, err := s.count()
	if err != nil {
		return Survey{}, fmt.Errorf("inspect %s: %w", dir, err)
	}
	out, err := s.run(func(metric format.PairID) (uint64, error) { return counted[metric], nil })
	if err != nil {
		return out, fmt.Errorf("inspect %s: %w", dir, err)
	}
	// What lies in the write-ahead log is in no table file yet.
	out.DiskBytes, err = directoryBytes(dir)
	return out, err
}

// directoryBytes adds up the files in a folder and all below it.
func directoryBytes(dir string) (uint64, error) {
	total := uint64(0)
	err := filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			total += uint64(info.Size())
		}
		return err
	})
	return total, err
}

func lastMonth(db *rocks.DB) (format.Month, error) {
	it := db.NewIterator(family(format.FamilyIndex), rocks.IterOptions{})
	defer it.Close()
	if it.SeekToLast(); it.Valid() {
		m, _, _, err := format.ParseIndexKey(it.Key())
		return m, err
	}
	return 0, it.Err()
}

type surveyor struct {
	ctx context.Context
	db  *rocks.DB
	cat *catalogue
	// running tells that the archive is at work meanwhile.
	running bool
	// generation is that of the day's newest runs.
	generation func(format.Day) format.Generation
	limit      int
	month      format.Month
	sets       map[format.PairID]*roaring.Bitmap // series of each pair in the month
	bytes      map[format.PairID]uint64          // index bytes of each pair in the month
}

func (s *surveyor) set(id format.PairID) *roaring.Bitmap {
	b := s.sets[id]
	if b == nil {
		b = roaring.New()
		s.sets[id] = b
	}
	return b
}

func (s *surveyor) run(sampleBytes func(metric format.PairID) (uint64, error)) (Survey, error) {
	var out Survey
	if err := s.postings(); err != nil {
		return out, err
	}
	for f, name := range format.FamilyNames {
		st := s.db.FamilyStats(family(format.Family(f)))
		size := Size{Name: name, Bytes: st.Bytes}
		if !s.running {
			size.Count = s.db.KeysEstimate(family(format.Family(f)))
		}
		out.Families = append(out.Families, size)
		out.DiskBytes += st.Bytes
	}
	var err error
	if out.MinMillis, out.MaxMillis, err = s.days(); err != nil {
		return out, err
	}
	return out, s.rank(&out, sampleBytes)
}

func (s *surveyor) postings() error {
	it := s.db.NewIterator(family(format.FamilyIndex), rocks.IterOptions{
		Lower: format.AppendMonthPrefix(nil, s.month), Upper: format.AppendMonthPrefix(nil, s.month+1), NoFillCache: true,
	})
	defer it.Close()
	for it.SeekToFirst(); it.Valid(); it.Next() {
		_, pair, high, err := format.ParseIndexKey(it.Key())
		if err != nil {
			return err
		}
		if err := addContainer(s.set(pair), it.Value(), high); err != nil {
			return err
		}
		s.bytes[pair] += uint64(len(it.Key()) + len(it.Value()))
		if err := s.ctx.Err(); err != nil {
			return err
		}
	}
	return it.Err()
}

// days finds the first and the last day with samples.
func (s *surveyor) days() (minMillis, maxMillis int64, err error) {
	it := s.db.NewIterator(family(format.FamilyActive), rocks.IterOptions{})
	defer it.Close()
	it.SeekToFirst()
	if !it.Valid() {
		return 0, 0, it.Err()
	}
	first, _, err := format.ParseActiveKey(it.Key())
	if err != nil {
		return 0, 0, err
	}
	if it.SeekToLast(); !it.Valid() {
		return 0, 0, it.Err()
	}
	last, _, err := format.ParseActiveKey(it.Key())
	return first.StartMillis(), last.EndMillis() - 1, err
}

// rank fills the lists of the survey.
func (s *surveyor) rank(out *Survey, sampleBytes func(format.PairID) (uint64, error)) error {
	recs := []format.Series{{}}
	for id := range s.sets {
		recs[0].Pairs = append(recs[0].Pairs, id)
	}
	// Of a running archive a pair may have been forgotten since its postings were read.
	texts, err := s.cat.textsOf(recs, func(id format.PairID) error {
		if !s.running {
			return fmt.Errorf("%w: label pair %d has no text; run `varve check data`", ErrCorrupt, id)
		}
		delete(s.sets, id)
		return nil
	})
	if err != nil {
		return err
	}
	byLabel := map[string]*Size{}
	all := roaring.New()
	for id, set := range s.sets {
		p, n := texts[id], set.GetCardinality()
		out.Pairs = append(out.Pairs, Size{Name: p.name + "=" + p.value, Bytes: s.bytes[id], Count: n})
		l := byLabel[p.name]
		if l == nil {
			l = &Size{Name: p.name}
			byLabel[p.name] = l
		}
		l.Count++
		// A pair's text stands under its id and under itself.
		l.Bytes += s.bytes[id] + 2*uint64(len(p.name)+len(p.value))
		if p.name != model.MetricNameLabel {
			continue
		}
		all.Or(set)
		bytes, err := sampleBytes(id)
		if err != nil {
			return err
		}
		out.Metrics = append(out.Metrics, Size{Name: p.value, Bytes: bytes, Count: n})
	}
	for _, l := range byLabel {
		out.Labels = append(out.Labels, *l)
	}
	out.Series, out.PairCount = all.GetCardinality(), uint64(len(s.sets))
	byBytes := func(z Size) uint64 { return z.Bytes }
	out.Metrics = largest(out.Metrics, s.limit, byBytes)
	out.Labels = largest(out.Labels, s.limit, byBytes)
	out.Pairs = largest(out.Pairs, s.limit, func(z Size) uint64 { return z.Count })
	return nil
}

// largest returns at most limit of the sizes, those with the most of what by gives first.
func largest(sizes []Size, limit int, by func(Size) uint64) []Size {
	slices.SortFunc(sizes, func(x, y Size) int {
		if bx, by := by(x), by(y); bx != by {
			if bx > by {
				return -1
			}
			return 1
		}
		if x.Name < y.Name {
			return -1
		}
		return 1
	})
	return sizes[:min(len(sizes), limit)]
}

// estimate asks RocksDB how much the metric's runs and bundles take on some days.
func (s *surveyor) estimate(metric format.PairID, from, to format.Day) (uint64, error) {
	var hot, raw []rocks.Range
	for d := from; d <= to; d++ {
		for slot := range uint8(format.SlotsPerDay) {
			lower := format.AppendHotPrefix(nil, d, s.generation(d), slot, metric)
			hot = append(hot, rocks.Range{Lower: lower, Upper: format.PrefixEnd(lower)})
		}
		lower := format.AppendRawPrefix(nil, d, metric)
		raw = append(raw, rocks.Range{Lower: lower, Upper: format.PrefixEnd(lower)})
	}
	runs, err := s.db.ApproximateBytes(family(format.FamilyHot), hot)
	if err != nil {
		return 0, err
	}
	bundles, err := s.db.ApproximateBytes(family(format.FamilyRaw), raw)
	sum := uint64(0)
	for _, n := range append(runs, bundles...) {
		sum += n
	}
	return sum, err
}

// count adds up the bytes of all runs and bundles, keys included, by metric.
func (s *surveyor) count() (map[format.PairID]uint64, error) {
	out := map[format.PairID]uint64{}
	err := s.countFamily(out, format.FamilyHot, func(key []byte) (format.PairID, error) {
		k, err := format.ParseHotKey(key)
		return k.Metric, err
	})
	if err != nil {
		return nil, err
	}
	err = s.countFamily(out, format.FamilyRaw, func(key []byte) (format.PairID, error) {
		k, err := format.ParseRawKey(key)
		return k.Metric, err
	})
	return out, err
}

func (s *surveyor) countFamily(out map[format.PairID]uint64, f format.Family, metric func(key []byte) (format.PairID, error)) error {
	it := s.db.NewIterator(family(f), rocks.IterOptions{NoFillCache: true, ReadaheadBytes: 2 << 20})
	defer it.Close()
	for it.SeekToFirst(); it.Valid(); it.Next() {
		id, err := metric(it.Key())
		if err != nil {
			return err
		}
		out[id] += uint64(len(it.Key()) + len(it.Value()))
		if err := s.ctx.Err(); err != nil {
			return err
		}
	}
	return it.Err()
}
