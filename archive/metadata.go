package archive

import (
	"fmt"
	"maps"
	"sync"

	"github.com/prometheus/prometheus/model/metadata"

	"varve/archive/format"
	"varve/rocks"
)

// metadataStore keeps what senders last said of each metric family. The number
// of families is that of metrics, so all of them stay in memory.
type metadataStore struct {
	db  *rocks.DB
	cat *catalogue

	mu     sync.RWMutex
	latest map[string]metadata.Metadata
}

func newMetadataStore(db *rocks.DB, cat *catalogue) *metadataStore {
	return &metadataStore{db: db, cat: cat, latest: map[string]metadata.Metadata{}}
}

// metadataFamiliesMax bounds the memory of metadata: families beyond it are kept on disk only.
const metadataFamiliesMax = 1 << 20

// set remembers m and puts its record into the batch, unless that is what is known.
func (s *metadataStore) set(b *rocks.Batch, metricFamily string, m metadata.Metadata, now int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.latest[metricFamily]; ok && old == m || !ok && len(s.latest) >= metadataFamiliesMax {
		return false
	}
	s.latest[metricFamily] = m
	b.Put(family(format.FamilyMetadata), format.AppendMetadataKey(nil, metricFamily, now), format.AppendMetadata(nil, m))
	return true
}

// forget removes what is known of a metric family, unless some of it is younger than before (Unix ms), and returns the
// number of records.
func (s *metadataStore) forget(metricFamily string, before int64, write func(*rocks.Batch) error) (uint64, error) {
	lower := format.AppendMetadataKey(nil, metricFamily, 0)
	lower = lower[:len(lower)-8]
	it := s.db.NewIterator(family(format.FamilyMetadata), rocks.IterOptions{Lower: lower, Upper: format.PrefixEnd(lower)})
	defer it.Close()
	var b rocks.Batch
	for it.SeekToFirst(); it.Valid(); it.Next() {
		_, since, err := format.ParseMetadataKey(it.Key())
		if err != nil {
			return 0, err
		}
		if since > before {
			return 0, nil
		}
		b.Delete(family(format.FamilyMetadata), it.Key())
	}
	if err := it.Err(); err != nil {
		return 0, fmt.Errorf("read metadata: %w", err)
	}
	s.mu.Lock()
	delete(s.latest, metricFamily)
	s.mu.Unlock()
	n := uint64(b.Len())
	return n, write(&b)
}

// load reads the latest metadata of all families.
func (s *metadataStore) load() error {
	it := s.db.NewIterator(family(format.FamilyMetadata), rocks.IterOptions{})
	defer it.Close()
	for it.SeekToFirst(); it.Valid(); it.Next() {
		name, _, err := format.ParseMetadataKey(it.Key())
		if err != nil {
			return err
		}
		m, err := format.ParseMetadata(it.Value())
		if err != nil {
			return fmt.Errorf("metadata of %q: %w", name, err)
		}
		s.latest[name] = m
	}
	return it.Err()
}

// Metadata calls each for the metric families of which something is known, in no
// order, until it returns false.
func (a *Archive) Metadata(each func(metricFamily string, m metadata.Metadata) bool) {
	// The writer needs the lock while it holds the archive's, so it is not held over each.
	a.metadata.mu.RLock()
	latest := maps.Clone(a.metadata.latest)
	a.metadata.mu.RUnlock()
	for f, m := range latest {
		if !each(f, m) {
			return
		}
	}
}

// MetadataOf returns what is known of one metric family.
func (a *Archive) MetadataOf(metricFamily string) (metadata.Metadata, bool) {
	a.metadata.mu.RLock()
	defer a.metadata.mu.RUnlock()
	m, ok := a.metadata.latest[metricFamily]
	return m, ok
}
