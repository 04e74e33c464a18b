// Package block writes a fleet as blocks of Prometheus' TSDB, as its compaction leaves
// them: for importers to read.
//
// The files are written by upstream's own writers of chunks and indexes, so their format
// is the real one: index version 2, chunks of XOR with at most 120 samples. Where chunks are
// cut is how a Prometheus does it that scraped the fleet: none reaches beyond two hours,
// which is what its head holds, and compaction joins blocks without touching chunks.
// Ranges are aligned to multiples of their length since 1970, as compaction aligns them;
// the first and the last block hold what there is of theirs.
//
// Write holds the labels of the fleet and the chunks of one series. It does not write
// what a Prometheus may have besides: histograms, out-of-order blocks, tombstones, a log.
//
// The functions hold no state.
package block

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/prometheus/prometheus/tsdb/tombstones"

	"varve/benchmarks/fleet"
)

const (
	// samplesPerChunk is Prometheus' default.
	samplesPerChunk = 120
	// headMillis is the range of a head, which no chunk crosses.
	headMillis = 2 * 3600_000
)

// Made is what was written.
type Made struct {
	Blocks int `json:"blocks"`
	// Series counts a series once for each block that it is in.
	Series  int64 `json:"series"`
	Chunks  int64 `json:"chunks"`
	Samples int64 `json:"samples"`
	// Stale are stale markers, NaN other samples that are no number. Samples are all.
	Stale int64 `json:"stale"`
	NaN   int64 `json:"nan"`
	// Bytes are the lengths of all files, IndexBytes those of the indexes.
	Bytes      int64 `json:"bytes"`
	IndexBytes int64 `json:"index_bytes"`
}

// add adds up.
func (m *Made) add(o Made) {
	m.Blocks, m.Series, m.Chunks = m.Blocks+o.Blocks, m.Series+o.Series, m.Chunks+o.Chunks
	m.Samples, m.Stale, m.NaN = m.Samples+o.Samples, m.Stale+o.Stale, m.NaN+o.NaN
	m.Bytes, m.IndexBytes = m.Bytes+o.Bytes, m.IndexBytes+o.IndexBytes
}

// named is a series of the fleet by its labels.
type named struct {
	labels    labels.Labels
	target, i int
}

// Write writes all of a fleet into blocks in dir, which must exist. Each covers a multiple
// of rangeMillis, which is itself one of two hours. Progress, if set, is called after each
// block with what was written so far.
func Write(ctx context.Context, dir string, f *fleet.Fleet, rangeMillis int64, progress func(Made)) (Made, error) {
	config := f.Config()
	if rangeMillis <= 0 || rangeMillis%headMillis != 0 || headMillis%config.StepMillis != 0 || config.StartMillis%config.StepMillis != 0 {
		return Made{}, fmt.Errorf("write blocks: a range of %d ms is no multiple of two hours, or the start %d no multiple of the step of %d ms", rangeMillis, config.StartMillis, config.StepMillis)
	}
	all := sorted(f)
	var total Made
	end := config.StartMillis + int64(config.Rounds)*config.StepMillis
	for from := config.StartMillis - config.StartMillis%rangeMillis; from < end; from += rangeMillis {
		mint, maxt := max(from, config.StartMillis), min(from+rangeMillis, end)
		made, err := writeBlock(ctx, dir, f, all, mint, maxt)
		if err != nil {
			return total, fmt.Errorf("write the block of %d: %w", mint, err)
		}
		total.add(made)
		if progress != nil {
			progress(total)
		}
	}
	return total, nil
}

// sorted are the series of all targets, in the order of an index.
func sorted(f *fleet.Fleet) []named {
	var all []named
	for t := range f.Targets() {
		for i := range f.TargetSeries(t) {
			all = append(all, named{f.Labels(t, i), t, i})
		}
	}
	slices.SortFunc(all, func(a, b named) int { return labels.Compare(a.labels, b.labels) })
	return all
}

// writeBlock writes one block, of the time from mint to below maxt.
func writeBlock(ctx context.Context, dir string, f *fleet.Fleet, all []named, mint, maxt int64) (made Made, err error) {
	id, err := blockID(mint)
	if err != nil {
		return made, err
	}
	path := filepath.Join(dir, id.String())
	if err := os.Mkdir(path, 0o700); err != nil {
		return made, err
	}
	if made, err = writeSeries(ctx, path, f, all, mint, maxt); err != nil {
		return made, err
	}
	if _, err := tombstones.WriteFile(promslog.NewNopLogger(), path, tombstones.NewMemTombstones()); err != nil {
		return made, err
	}
	meta := tsdb.BlockMeta{
		ULID: id, MinTime: mint, MaxTime: maxt, Version: 1,
		Stats: tsdb.BlockStats{
			NumSamples: uint64(made.Samples), NumFloatSamples: uint64(made.Samples), NumSeries: uint64(made.Series), NumChunks: uint64(made.Chunks),
		},
		Compaction: tsdb.BlockMetaCompaction{Level: 3, Sources: []ulid.ULID{id}},
	}
	text, err := json.MarshalIndent(meta, "", "\t")
	if err != nil {
		return made, err
	}
	if err := os.WriteFile(filepath.Join(path, "meta.json"), text, 0o600); err != nil {
		return made, err
	}
	made.Blocks = 1
	made.Bytes, made.IndexBytes, err = sizes(path)
	return made, err
}

// blockID is the same for equal blocks: its time is the block's.
func blockID(mint int64) (ulid.ULID, error) {
	var id ulid.ULID
	if err := id.SetTime(uint64(mint)); err != nil {
		return id, err
	}
	var entropy [10]byte
	binary.BigEndian.PutUint64(entropy[:], uint64(mint)*0x9e3779b97f4a7c15)
	return id, id.SetEntropy(entropy[:])
}

// writeSeries writes chunks and index.
func writeSeries(ctx context.Context, path string, f *fleet.Fleet, all []named, mint, maxt int64) (made Made, err error) {
	chunkWriter, err := chunks.NewWriter(filepath.Join(path, "chunks"))
	if err != nil {
		return made, err
	}
	defer func() { err = errors.Join(err, chunkWriter.Close()) }()
	indexWriter, err := index.NewWriter(ctx, filepath.Join(path, "index"))
	if err != nil {
		return made, err
	}
	defer func() { err = errors.Join(err, indexWriter.Close()) }()
	for _, symbol := range symbols(all) {
		if err := indexWriter.AddSymbol(symbol); err != nil {
			return made, err
		}
	}
	c := cutter{made: &made}
	for n, s := range all {
		if err := ctx.Err(); err != nil {
			return made, err
		}
		if err := c.cut(f, s, mint, maxt); err != nil {
			return made, err
		}
		if len(c.metas) == 0 {
			continue
		}
		if err := chunkWriter.WriteChunks(c.metas...); err != nil {
			return made, err
		}
		if err := indexWriter.AddSeries(storage.SeriesRef(n), s.labels, c.metas...); err != nil {
			return made, err
		}
		made.Series++
		made.Chunks += int64(len(c.metas))
	}
	return made, nil
}

// symbols are all names and values of labels, sorted.
func symbols(all []named) []string {
	seen := map[string]bool{}
	for _, s := range all {
		s.labels.Range(func(l labels.Label) { seen[l.Name], seen[l.Value] = true, true })
	}
	var list []string
	for symbol := range seen {
		list = append(list, symbol)
	}
	slices.Sort(list)
	return list
}

// cutter makes the chunks of one series after the other.
type cutter struct {
	made  *Made
	metas []chunks.Meta
	app   chunkenc.Appender
}

// cut sets metas to the chunks of a series from mint to below maxt.
func (c *cutter) cut(f *fleet.Fleet, s named, mint, maxt int64) error {
	config := f.Config()
	c.metas, c.app = c.metas[:0], nil
	head, count := int64(-1), 0
	for round := int((mint - config.StartMillis) / config.StepMillis); round < int((maxt-config.StartMillis)/config.StepMillis); round++ {
		v, ok := f.At(s.target, s.i, round)
		if !ok {
			continue
		}
		millis := f.Millis(s.target, round)
		if count == samplesPerChunk || c.app == nil || millis/headMillis != head {
			chunk := chunkenc.NewXORChunk()
			app, err := chunk.Appender()
			if err != nil {
				return err
			}
			c.app, count, head = app, 0, millis/headMillis
			c.metas = append(c.metas, chunks.Meta{Chunk: chunk, MinTime: millis})
		}
		c.app.Append(0, millis, v)
		count++
		c.metas[len(c.metas)-1].MaxTime = millis
		c.made.Samples++
		switch {
		case value.IsStaleNaN(v):
			c.made.Stale++
		case math.IsNaN(v):
			c.made.NaN++
		default:
		}
	}
	return nil
}

// sizes adds up the files of a block.
func sizes(path string) (all, indexes int64, err error) {
	err = filepath.WalkDir(path, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		all += info.Size()
		if entry.Name() == "index" {
			indexes += info.Size()
		}
		return nil
	})
	return all, indexes, err
}
