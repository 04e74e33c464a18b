package blocks

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"

	"varve/digest"
	"varve/export"
)

// builder makes one block in a folder.
type builder struct {
	o        *Options
	window   window
	request  export.Request
	dir      string
	id       ulid.ULID
	identity string
	progress *Progress
	stats    Stats

	encoder encoder
	chunks  *chunks.Writer
	written *seriesFile
	symbols map[string]struct{}
	// longest are those of the index' series and of chunks, in bytes, which Thanos reads ahead by.
	longest IndexStats
}

const (
	chunksName = "chunks"
	indexName  = "index"
	metaName   = "meta.json"
)

// build makes the block; made is false if no series has samples.
func (b *builder) build(ctx context.Context) (made bool, err error) {
	b.step("list")
	list, err := b.o.Source.List(ctx, b.request, b.o.Resolution > 0, b.dir, b.admit)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, list.Close()) }()
	if list.Series() == 0 {
		return false, nil
	}
	b.progress.SeriesTotal = list.Series()
	b.symbols = map[string]struct{}{}
	if b.written, err = newSeriesFile(b.dir); err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, b.written.close()) }()
	b.step("read")
	if err := b.writeChunks(ctx, list); err != nil {
		return false, err
	}
	if b.stats.Series == 0 {
		return false, nil
	}
	b.step("index")
	if err := b.writeIndex(ctx); err != nil {
		return false, fmt.Errorf("write index: %w", err)
	}
	if err := b.writeMeta(); err != nil {
		return false, fmt.Errorf("write %s: %w", metaName, err)
	}
	if b.o.SkipVerification {
		return true, nil
	}
	b.step("verify")
	if err := b.verify(ctx); err != nil {
		return false, fmt.Errorf("verify: %w", err)
	}
	return true, nil
}

func (b *builder) step(name string) {
	b.progress.Step = name
	b.o.tell(b.progress)
}

// admit refuses series that have a label of which the external labels say something else.
func (b *builder) admit(ls labels.Labels) error {
	var err error
	b.o.ExternalLabels.Range(func(l labels.Label) {
		if err == nil && ls.Has(l.Name) {
			err = fmt.Errorf("%w: the external label %s is also a label of %s; choose another name, or leave such series out", ErrOption, l.Name, ls)
		}
	})
	return err
}

// progressEvery is how many series lie between two calls of Progress.
const progressEvery = 1000

func (b *builder) writeChunks(ctx context.Context, list *export.List) (err error) {
	var options []chunks.WriterOption
	if b.o.segmentBytes > 0 {
		options = append(options, chunks.WithSegmentSize(b.o.segmentBytes))
	}
	if b.chunks, err = chunks.NewWriter(filepath.Join(b.dir, chunksName), options...); err != nil {
		return fmt.Errorf("write chunks: %w", err)
	}
	defer func() { err = errors.Join(err, b.chunks.Close()) }()
	b.encoder.stats = Stats{}
	b.o.Walker.Request = b.request
	before := b.progress.Samples
	switch r := b.o.Resolution.Milliseconds(); {
	case r > 0:
		err = b.writeAggregates(ctx, list, r)
	default:
		err = b.o.Walker.Walk(ctx, list, func(p export.Piece) error {
			if p.First {
				b.encoder.begin()
			}
			if err := b.encoder.add(p.Samples); err != nil {
				return fmt.Errorf("read %s: %w", p.Labels, err)
			}
			if !p.Last {
				return nil
			}
			b.progress.Samples = before + b.encoder.stats.Floats + b.encoder.stats.Histograms
			return b.series(p.Labels, b.encoder.metas, b.encoder.digest)
		})
	}
	if err != nil {
		return err
	}
	b.stats.add(&b.encoder.stats)
	return b.written.flush()
}

func (b *builder) writeAggregates(ctx context.Context, list *export.List, resolution int64) error {
	a := &aggregator{resolution: resolution, stats: &b.encoder.stats, encoder: &b.encoder}
	before := b.progress.Samples
	finish := func(ls labels.Labels) error {
		if err := a.finish(); err != nil {
			return fmt.Errorf("aggregate %s: %w", ls, err)
		}
		b.progress.Samples = before + a.stats.Buckets
		return b.series(ls, a.metas, a.digest)
	}
	if b.o.Source.Rolled == nil {
		return b.o.Walker.Walk(ctx, list, func(p export.Piece) error {
			if p.First {
				a.begin()
			}
			if err := a.samples(p.Samples); err != nil {
				return fmt.Errorf("read %s: %w", p.Labels, err)
			}
			if !p.Last {
				return nil
			}
			return finish(p.Labels)
		})
	}
	return b.o.Walker.WalkRolled(ctx, list, resolution, func(ls labels.Labels, s export.RolledSeries, have []int64) error {
		a.begin()
		if s != nil {
			if err := a.rolled(ctx, s, b.window.min, b.window.max, bases(resolution, have)); err != nil {
				return fmt.Errorf("read %s: %w", ls, err)
			}
		}
		return finish(ls)
	})
}

// series writes the chunks of a series.
func (b *builder) series(ls labels.Labels, metas []chunks.Meta, d digest.Series) error {
	b.progress.Series++
	if b.progress.Series%progressEvery == 0 {
		b.o.tell(b.progress)
	}
	if len(metas) == 0 {
		return nil
	}
	if err := b.chunks.WriteChunks(metas...); err != nil {
		return fmt.Errorf("write chunks: %w", err)
	}
	for i := range metas {
		// Length and encoding before the data, checksum behind it.
		b.longest.ChunkMaxSize = max(b.longest.ChunkMaxSize, int64(len(metas[i].Chunk.Bytes())+chunks.MaxChunkLengthFieldSize+chunks.ChunkEncodingSize+4))
	}
	ls.Range(func(l labels.Label) {
		for _, text := range []string{l.Name, l.Value} {
			if _, ok := b.symbols[text]; !ok {
				b.symbols[strings.Clone(text)] = struct{}{}
			}
		}
	})
	b.stats.Series++
	b.stats.Chunks += uint64(len(metas))
	return b.written.add(ls, metas, d)
}

func (b *builder) writeIndex(ctx context.Context) (err error) {
	w, err := index.NewWriter(ctx, filepath.Join(b.dir, indexName))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	sorted := make([]string, 0, len(b.symbols))
	for s := range b.symbols {
		sorted = append(sorted, s)
	}
	b.symbols = nil
	slices.Sort(sorted)
	for _, s := range sorted {
		if err := w.AddSymbol(s); err != nil {
			return err
		}
	}
	sorted = nil
	r := b.written.reader()
	for ref := storage.SeriesRef(0); ; ref++ {
		ls, metas, _, err := r.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := w.AddSeries(ref, ls, metas...); err != nil {
			return err
		}
		// Two references a label and three numbers a chunk, each ten bytes at most.
		b.longest.SeriesMaxSize = max(b.longest.SeriesMaxSize, int64(10*(2*ls.Len()+3*len(metas)+2)))
	}
}

// seriesFile keeps label sets with the places of their chunks, in a file that has no name.
type seriesFile struct {
	file *os.File
	out  *bufio.Writer
	buf  []byte
}

func newSeriesFile(dir string) (*seriesFile, error) {
	f, err := os.CreateTemp(dir, "chunks-*.tmp")
	if err != nil {
		return nil, fmt.Errorf("make scratch file: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(fmt.Errorf("unlink scratch file: %w", err), f.Close())
	}
	return &seriesFile{file: f, out: bufio.NewWriterSize(f, 1<<20)}, nil
}

func (f *seriesFile) close() error { return f.file.Close() }

func (f *seriesFile) flush() error {
	if err := f.out.Flush(); err != nil {
		return fmt.Errorf("write scratch file: %w", err)
	}
	return nil
}

func (f *seriesFile) add(ls labels.Labels, metas []chunks.Meta, d digest.Series) error {
	b := export.AppendLabels(f.buf[:0], ls)
	b = binary.AppendUvarint(b, uint64(len(metas)))
	for i := range metas {
		b = binary.AppendUvarint(b, uint64(metas[i].Ref))
		b = binary.AppendVarint(b, metas[i].MinTime)
		b = binary.AppendVarint(b, metas[i].MaxTime)
	}
	b = binary.AppendUvarint(b, d.Samples)
	b = binary.AppendVarint(b, d.FirstMillis)
	b = binary.AppendVarint(b, d.LastMillis)
	b = binary.AppendUvarint(b, d.Hash)
	f.buf = b
	if _, err := f.out.Write(b); err != nil {
		return fmt.Errorf("write scratch file: %w", err)
	}
	return nil
}

func (f *seriesFile) reader() *seriesReader {
	return &seriesReader{in: bufio.NewReaderSize(io.NewSectionReader(f.file, 0, 1<<62), 256<<10)}
}

type seriesReader struct {
	in    *bufio.Reader
	dec   export.LabelsDecoder
	metas []chunks.Meta
	err   error
}

// next returns the next series; the chunks are good until the next call. The error is io.EOF behind the last one.
func (r *seriesReader) next() (labels.Labels, []chunks.Meta, digest.Series, error) {
	ls, err := r.dec.Decode(r.in)
	if err != nil {
		return ls, nil, digest.Series{}, err
	}
	r.metas = r.metas[:0]
	for range r.uvarint() {
		r.metas = append(r.metas, chunks.Meta{Ref: chunks.ChunkRef(r.uvarint()), MinTime: r.varint(), MaxTime: r.varint()})
		if r.err != nil {
			break
		}
	}
	d := digest.Series{Samples: r.uvarint(), FirstMillis: r.varint(), LastMillis: r.varint(), Hash: r.uvarint()}
	if errors.Is(r.err, io.EOF) {
		r.err = io.ErrUnexpectedEOF
	}
	return ls, r.metas, d, r.err
}

func (r *seriesReader) uvarint() uint64 {
	v, err := binary.ReadUvarint(r.in)
	if r.err == nil {
		r.err = err
	}
	return v
}

func (r *seriesReader) varint() int64 {
	v, err := binary.ReadVarint(r.in)
	if r.err == nil {
		r.err = err
	}
	return v
}
