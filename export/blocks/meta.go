package blocks

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/tombstones"
)

// Meta is meta.json: what Prometheus has in it, and the part that Thanos added. Their package doesn't compile beside the
// Prometheus of this module.
type Meta struct {
	tsdb.BlockMeta
	Thanos Thanos `json:"thanos"`
}

// Thanos is the part of meta.json that Thanos reads.
type Thanos struct {
	Version      int               `json:"version"`
	Labels       map[string]string `json:"labels"`
	Downsample   Downsample        `json:"downsample"`
	Source       string            `json:"source"`
	SegmentFiles []string          `json:"segment_files"`
	Files        []File            `json:"files"`
	IndexStats   IndexStats        `json:"index_stats"`
	Extensions   *Extensions       `json:"extensions,omitempty"`
}

// Downsample has the resolution of aggregates in ms, 0 for samples.
type Downsample struct {
	Resolution int64 `json:"resolution"`
}

// File is one of a block; meta.json is listed without its size.
type File struct {
	RelPath   string `json:"rel_path"`
	SizeBytes int64  `json:"size_bytes,omitempty"`
}

// IndexStats are bounds, in bytes, of what Thanos fetches at a time.
type IndexStats struct {
	SeriesMaxSize int64 `json:"series_max_size,omitempty"`
	ChunkMaxSize  int64 `json:"chunk_max_size,omitempty"`
}

// Extensions are what Thanos leaves to others.
type Extensions struct {
	// Varve tells what was exported.
	Varve *Exported `json:"varve,omitempty"`
}

// Exported is what a block is of.
type Exported struct {
	// Export is the identity by which a rerun knows the block.
	Export    string `json:"export"`
	Selectors string `json:"selectors"`
}

// metaVersion is that of Prometheus' part, thanosVersion that of the other.
const (
	metaVersion   = 1
	thanosVersion = 1
	sourceName    = "varve"
)

// level is what a compactor would give a block of its length after as many rounds.
func level(millis int64) int {
	const hour = 3600_000
	for i, length := range []int64{2 * hour, 8 * hour, 48 * hour} {
		if millis <= length {
			return i + 1
		}
	}
	return 4
}

func (b *builder) writeMeta() error {
	if _, err := tombstones.WriteFile(discard, b.dir, tombstones.NewMemTombstones()); err != nil {
		return err
	}
	m := Meta{BlockMeta: tsdb.BlockMeta{
		ULID: b.id, MinTime: b.window.min, MaxTime: b.window.max, Version: metaVersion,
		Stats: tsdb.BlockStats{
			NumSamples: b.stats.Floats + b.stats.Histograms + b.stats.Buckets, NumFloatSamples: b.stats.Floats, NumHistogramSamples: b.stats.Histograms,
			NumSeries: b.stats.Series, NumChunks: b.stats.Chunks,
		},
		Compaction: tsdb.BlockMetaCompaction{Level: level(b.window.max - b.window.min), Sources: []ulid.ULID{b.id}},
	}}
	m.Thanos = Thanos{
		Version: thanosVersion, Labels: map[string]string{}, Downsample: Downsample{b.o.Resolution.Milliseconds()}, Source: sourceName,
		IndexStats: b.longest, Extensions: &Extensions{&Exported{b.identity, b.o.Request.String()}},
	}
	b.o.ExternalLabels.Range(func(l labels.Label) { m.Thanos.Labels[l.Name] = l.Value })
	var err error
	if m.Thanos.Files, err = files(b.dir); err != nil {
		return err
	}
	for _, f := range m.Thanos.Files {
		if name, ok := strings.CutPrefix(f.RelPath, chunksName+"/"); ok {
			m.Thanos.SegmentFiles = append(m.Thanos.SegmentFiles, name)
		}
		b.stats.Bytes += f.SizeBytes
	}
	m.Thanos.Files = append(m.Thanos.Files, File{RelPath: metaName})
	text, err := json.MarshalIndent(&m, "", "\t")
	if err != nil {
		return err
	}
	return writeSynced(filepath.Join(b.dir, metaName), append(text, '\n'))
}

// files lists the files with chunks and the index, by path.
func files(dir string) ([]File, error) {
	entries, err := os.ReadDir(filepath.Join(dir, chunksName))
	if err != nil {
		return nil, err
	}
	var all []File
	add := func(rel string) error {
		st, err := os.Stat(filepath.Join(dir, filepath.FromSlash(rel)))
		if err == nil {
			all = append(all, File{rel, st.Size()})
		}
		return err
	}
	for _, e := range entries {
		if err := add(chunksName + "/" + e.Name()); err != nil {
			return nil, err
		}
	}
	if err := add(indexName); err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(x, y File) int { return strings.Compare(x.RelPath, y.RelPath) })
	return all, nil
}

// readMeta reads meta.json. ok is false if there is none, or one of something else.
func readMeta(dir string) (m Meta, ok bool, err error) {
	text, err := os.ReadFile(filepath.Join(dir, metaName))
	if errors.Is(err, fs.ErrNotExist) {
		return m, false, nil
	}
	if err != nil {
		return m, false, err
	}
	return m, json.Unmarshal(text, &m) == nil, nil
}

func writeSynced(name string, text []byte) (err error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(text); err != nil {
		return err
	}
	return f.Sync()
}
