package export

import (
	"bufio"
	"container/heap"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
)

// List is the label sets of a request, sorted, in a file that has no name any more.
type List struct {
	file   *os.File
	series int64
}

// Series is how many there are.
func (l *List) Series() int64 { return l.series }

// Close gives the file's room back.
func (l *List) Close() error { return l.file.Close() }

// labelSets is what List needs of a set of series.
type labelSets interface {
	Next() bool
	Labels() labels.Labels
	Err() error
}

type rawSets struct{ storage.SeriesSet }

func (s rawSets) Labels() labels.Labels { return s.At().Labels() }

type rolledSets struct{ RolledSet }

func (s rolledSets) Labels() labels.Labels { return s.At().Labels() }

// List finds the series of a request; with rolled set also those that have nothing but rollups, if the source has them. It may hold series that turn
// out to have no samples. each is called for every label set in order and may be nil; its error ends the search. scratch
// is the folder of the file.
func (s *Source) List(ctx context.Context, r Request, rolled bool, scratch string, each func(labels.Labels) error) (l *List, err error) {
	f, err := os.CreateTemp(scratch, "series-*.tmp")
	if err != nil {
		return nil, fmt.Errorf("make scratch file: %w", err)
	}
	l = &List{file: f}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
			l = nil
		}
	}()
	if err := os.Remove(f.Name()); err != nil {
		return nil, fmt.Errorf("unlink scratch file: %w", err)
	}
	w := &listWriter{list: l, out: bufio.NewWriterSize(f, 1<<20), each: each}
	if rolled && s.Rolled != nil {
		err = s.listRolled(ctx, r, w)
	} else {
		err = s.listRaw(ctx, r, w)
	}
	if err != nil {
		return l, fmt.Errorf("find series: %w", err)
	}
	if err := w.out.Flush(); err != nil {
		return l, fmt.Errorf("write scratch file: %w", err)
	}
	return l, nil
}

func (s *Source) listRaw(ctx context.Context, r Request, w *listWriter) error {
	return withQuerier(s.Queryable, r.MinMillis, r.MaxMillis, func(q storage.Querier) error {
		hints := &storage.SelectHints{Start: r.MinMillis, End: r.MaxMillis, Func: "series"}
		var sets []labelSets
		for _, ms := range r.Selectors {
			sets = append(sets, rawSets{q.Select(ctx, true, hints, ms...)})
		}
		return w.merge(ctx, sets)
	})
}

func (s *Source) listRolled(ctx context.Context, r Request, w *listWriter) (err error) {
	q, err := s.Rolled(r.MinMillis, r.MaxMillis)
	if err != nil {
		return fmt.Errorf("open storage: %w", err)
	}
	defer func() { err = errors.Join(err, q.Close()) }()
	var sets []labelSets
	for _, ms := range r.Selectors {
		sets = append(sets, rolledSets{q.SelectRolled(ctx, r.MinMillis, r.MaxMillis, ms...)})
	}
	return w.merge(ctx, sets)
}

// listWriter writes label sets: of each the number of bytes before it, and before each string of it.
type listWriter struct {
	list *List
	out  *bufio.Writer
	buf  []byte
	each func(labels.Labels) error
}

func (w *listWriter) add(ls labels.Labels) error {
	if w.each != nil {
		if err := w.each(ls); err != nil {
			return err
		}
	}
	w.buf = AppendLabels(w.buf[:0], ls)
	w.list.series++
	_, err := w.out.Write(w.buf)
	return err
}

// merge adds what any of the sets has, once.
func (w *listWriter) merge(ctx context.Context, sets []labelSets) error {
	h := &setHeap{}
	advance := func(i int) error {
		if sets[i].Next() {
			heap.Push(h, setHead{sets[i].Labels(), i})
			return nil
		}
		return sets[i].Err()
	}
	for i := range sets {
		if err := advance(i); err != nil {
			return err
		}
	}
	var last labels.Labels
	for n := 0; h.Len() > 0; n++ {
		if n&1023 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		next := heap.Pop(h).(setHead)
		if n == 0 || !labels.Equal(next.labels, last) {
			if n > 0 && labels.Compare(next.labels, last) < 0 {
				return fmt.Errorf("the storage returned %s behind %s, which is out of order", next.labels, last)
			}
			if err := w.add(next.labels); err != nil {
				return err
			}
			last = next.labels
		}
		if err := advance(next.set); err != nil {
			return err
		}
	}
	return nil
}

type setHead struct {
	labels labels.Labels
	set    int
}

// setHeap implements heap.Interface.
type setHeap []setHead

func (h setHeap) Len() int           { return len(h) }
func (h setHeap) Less(i, j int) bool { return labels.Compare(h[i].labels, h[j].labels) < 0 }
func (h setHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *setHeap) Push(x any) { *h = append(*h, x.(setHead)) }

// Pop implements heap.Interface.
func (h *setHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}

// Reader returns a reader of the list from its beginning. Readers are independent of each other.
func (l *List) Reader() *ListReader {
	return &ListReader{in: bufio.NewReaderSize(io.NewSectionReader(l.file, 0, 1<<62), 256<<10)}
}

// ListReader reads label sets in their order.
type ListReader struct {
	in  *bufio.Reader
	dec LabelsDecoder
}

// Next returns the next label set; the error is io.EOF behind the last one.
func (r *ListReader) Next() (labels.Labels, error) { return r.dec.Decode(r.in) }

// AppendLabels appends a label set as LabelsDecoder reads it.
func AppendLabels(b []byte, ls labels.Labels) []byte {
	b = binary.AppendUvarint(b, uint64(ls.Len()))
	ls.Range(func(l labels.Label) {
		b = binary.AppendUvarint(b, uint64(len(l.Name)))
		b = append(b, l.Name...)
		b = binary.AppendUvarint(b, uint64(len(l.Value)))
		b = append(b, l.Value...)
	})
	return b
}

// LabelsDecoder reads what AppendLabels appended. Only files that this process wrote itself are read by it.
type LabelsDecoder struct {
	builder labels.ScratchBuilder
	buf     []byte
}

// Decode reads one label set; the error is io.EOF only at its beginning.
func (d *LabelsDecoder) Decode(in *bufio.Reader) (labels.Labels, error) {
	n, err := binary.ReadUvarint(in)
	if err != nil {
		return labels.EmptyLabels(), err
	}
	d.builder.Reset()
	for range n {
		name, err := d.text(in)
		if err != nil {
			return labels.EmptyLabels(), err
		}
		value, err := d.text(in)
		if err != nil {
			return labels.EmptyLabels(), err
		}
		d.builder.Add(name, value)
	}
	return d.builder.Labels(), nil
}

func (d *LabelsDecoder) text(in *bufio.Reader) (string, error) {
	n, err := binary.ReadUvarint(in)
	if err == nil {
		if uint64(cap(d.buf)) < n {
			d.buf = make([]byte, n)
		}
		d.buf = d.buf[:n]
		_, err = io.ReadFull(in, d.buf)
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return string(d.buf), err
}
