package blocks

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"unicode/utf8"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
)

// Names inside a block.
const (
	metaName       = "meta.json"
	indexName      = "index"
	tombstonesName = "tombstones"
	chunksName     = "chunks"
	deletionName   = "deletion-mark.json" // Thanos: the block is to be deleted, its samples are elsewhere
)

// metaBytesMax bounds meta.json. One of a block of ten thousand sources has about 1 MB.
const metaBytesMax = 16 << 20

// meta is what meta.json says, with the section that Thanos and Mimir add.
type meta struct {
	tsdb.BlockMeta
	Thanos struct {
		Labels     map[string]string `json:"labels"`
		Downsample struct {
			Resolution int64 `json:"resolution"`
		} `json:"downsample"`
		Files []struct {
			SizeBytes int64 `json:"size_bytes"`
		} `json:"files"`
	} `json:"thanos"`
}

// parseMeta reads meta.json and checks what the rest believes.
func parseMeta(b []byte) (m meta, err error) {
	if len(b) > metaBytesMax {
		return m, fmt.Errorf("%s has more than %d bytes", metaName, metaBytesMax)
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("%s: %w", metaName, err)
	}
	switch {
	case m.Version != 1:
		return m, fmt.Errorf("%s has version %d, only 1 is known", metaName, m.Version)
	case m.ULID == ulid.ULID{}:
		return m, fmt.Errorf("%s names no block", metaName)
	case m.MinTime > m.MaxTime || m.MinTime == math.MinInt64:
		return m, fmt.Errorf("%s says that the block is from %d to %d ms", metaName, m.MinTime, m.MaxTime)
	}
	for name, value := range m.Thanos.Labels {
		if name == "" || !utf8.ValidString(name) || !utf8.ValidString(value) || len(name)+len(value) > 1<<20 {
			return m, fmt.Errorf("%s has an external label that is not valid: %.100q", metaName, name)
		}
	}
	return m, nil
}

// externalLabels are the labels of all series of the block.
func (m *meta) externalLabels() labels.Labels { return labels.FromMap(m.Thanos.Labels) }

// fileBytes is the size of the block's files, as far as Thanos wrote it down.
func (m *meta) fileBytes() (n uint64) {
	for _, f := range m.Thanos.Files {
		n += uint64(max(0, f.SizeBytes))
	}
	return n
}

// errSuperseded says which block holds all of another one.
type errSuperseded struct{ by ulid.ULID }

func (e errSuperseded) Error() string { return "its samples are in block " + e.by.String() }

// superseded tells for each block that is left over from a compaction whose result is there too.
//
// That is one whose sources are a part of those of another one, which covers its time and has its external labels and resolution; or, of equal
// sources, one that another names as its parent. Blocks with equal sources else are shards of one compaction, of which each is needed.
func superseded(blocks []*block) map[*block]error {
	bySource := map[ulid.ULID][]*block{}
	for _, b := range blocks {
		for _, s := range b.meta.Compaction.Sources {
			bySource[s] = append(bySource[s], b)
		}
	}
	out := map[*block]error{}
	for _, b := range blocks {
		if len(b.meta.Compaction.Sources) == 0 {
			continue
		}
		for _, by := range bySource[b.meta.Compaction.Sources[0]] {
			if by != b && by.replaces(b) {
				out[b] = errSuperseded{by.meta.ULID}
				break
			}
		}
	}
	return out
}

func (b *block) replaces(old *block) bool {
	if !labels.Equal(b.external, old.external) || b.meta.Thanos.Downsample.Resolution != old.meta.Thanos.Downsample.Resolution ||
		b.meta.MinTime > old.meta.MinTime || b.meta.MaxTime < old.meta.MaxTime {
		return false
	}
	for _, s := range old.meta.Compaction.Sources {
		if !b.sources[s] {
			return false
		}
	}
	if len(b.sources) > len(old.sources) {
		return true
	}
	return slices.ContainsFunc(b.meta.Compaction.Parents, func(d tsdb.BlockDesc) bool { return d.ULID == old.meta.ULID })
}

// ErrDownsampled is wrapped by the refusal of Thanos' aggregates.
var ErrDownsampled = errors.New("the block is downsampled")
