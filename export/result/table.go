package result

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
)

// Column is a series of a Table, and what its values are like.
type Column struct {
	Query  int
	Labels labels.Labels
	// Finite, NaNs, Infs and Histograms count values.
	Finite, NaNs, Infs, Histograms uint64
	// Alone counts finite values with none a step before or behind, which a line doesn't show.
	Alone uint64

	run     int64 // length of the run of finite values that goes on
	last    int64 // time of its last
	ordinal int   // of discovery
}

// table keeps parts until all series are known. What is larger than memoryBytes lies in a scratch file, which has no name.
type table struct {
	scratch    string
	bytesMax   int64
	columnsMax int

	columns []*Column
	byKey   map[string]*Column
	key     []byte
	step    int64

	memory bytes.Buffer
	file   *os.File
	out    *bufio.Writer
	ends   []int64 // where each part ends
	size   int64
	spool  []byte // a part that is being written
}

// memoryBytes is how much of a table is kept in memory.
const memoryBytes = 8 << 20

func newTable(scratch string, bytesMax int64, columnsMax int, step int64) *table {
	return &table{scratch: scratch, bytesMax: bytesMax, columnsMax: columnsMax, step: step, byKey: map[string]*Column{}}
}

// close removes the scratch file.
func (t *table) close() error {
	if t.file == nil {
		return nil
	}
	return t.file.Close()
}

// add keeps a part. Layout: first, last and number of series; of each series the ordinal, then floats and histograms, each behind
// their number, with times as multiples of the step from the last one.
func (t *table) add(p *Part) error {
	b := t.spool[:0]
	b = binary.AppendVarint(b, p.Grid.First)
	b = binary.AppendVarint(b, p.Grid.Last)
	b = binary.AppendUvarint(b, uint64(len(p.Series)))
	for i := range p.Series {
		s := &p.Series[i]
		c, err := t.column(s)
		if err != nil {
			return err
		}
		b = binary.AppendUvarint(b, uint64(c.ordinal))
		b = binary.AppendUvarint(b, uint64(len(s.Floats)))
		last := p.Grid.First
		for _, v := range s.Floats {
			b = binary.AppendUvarint(b, uint64((v.T-last)/t.step))
			b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v.F))
			last = v.T
			c.see(v, t.step)
		}
		b = binary.AppendUvarint(b, uint64(len(s.Histograms)))
		last = p.Grid.First
		for _, h := range s.Histograms {
			b = binary.AppendUvarint(b, uint64((h.T-last)/t.step))
			b = binary.AppendUvarint(b, uint64(len(h.JSON)))
			b = append(b, h.JSON...)
			last = h.T
		}
		c.Histograms += uint64(len(s.Histograms))
	}
	t.spool = b
	if t.size += int64(len(b)); t.size > t.bytesMax {
		return fmt.Errorf("%w: the values take more than %d MiB before the first line can be written; choose a longer step, fewer series or less time, or the long form of CSV or JSON lines, which are written as they come",
			ErrTooLarge, t.bytesMax>>20)
	}
	t.ends = append(t.ends, t.size)
	return t.keep(b)
}

func (t *table) keep(b []byte) error {
	if t.file == nil && t.memory.Len()+len(b) <= memoryBytes {
		t.memory.Write(b)
		return nil
	}
	if t.file == nil {
		f, err := os.CreateTemp(t.scratch, "varve-export-*.tmp")
		if err != nil {
			return fmt.Errorf("keep values until all series are known: %w", err)
		}
		t.file = f
		// What has no name is gone with the process.
		if err := os.Remove(f.Name()); err != nil {
			return fmt.Errorf("keep values until all series are known: %w", err)
		}
		t.out = bufio.NewWriterSize(f, 256<<10)
		if _, err := t.out.Write(t.memory.Bytes()); err != nil {
			return fmt.Errorf("keep values until all series are known: %w", err)
		}
		t.memory = bytes.Buffer{}
	}
	if _, err := t.out.Write(b); err != nil {
		return fmt.Errorf("keep values until all series are known: %w", err)
	}
	return nil
}

func (t *table) column(s *Series) (*Column, error) {
	t.key = binary.AppendUvarint(t.key[:0], uint64(s.Query))
	s.Labels.Range(func(l labels.Label) {
		t.key = append(binary.AppendUvarint(t.key, uint64(len(l.Name))), l.Name...)
		t.key = append(binary.AppendUvarint(t.key, uint64(len(l.Value))), l.Value...)
	})
	if c, ok := t.byKey[string(t.key)]; ok {
		return c, nil
	}
	if len(t.columns) >= t.columnsMax {
		return nil, fmt.Errorf("%w: there are more than %d series, which are a column each; narrow the query, or use the long form", ErrTooLarge, t.columnsMax)
	}
	// The labels of a part don't outlive it.
	c := &Column{Query: s.Query, Labels: cloned(s.Labels), ordinal: len(t.columns), last: math.MinInt64}
	t.columns = append(t.columns, c)
	t.byKey[string(t.key)] = c
	return c, nil
}

func cloned(ls labels.Labels) labels.Labels {
	b := labels.NewScratchBuilder(ls.Len())
	ls.Range(func(l labels.Label) { b.Add(strings.Clone(l.Name), strings.Clone(l.Value)) })
	return b.Labels()
}

// see counts a value.
func (c *Column) see(v promql.FPoint, step int64) {
	switch {
	case math.IsNaN(v.F):
		c.NaNs++
		return
	case math.IsInf(v.F, 0):
		c.Infs++
		return
	}
	c.Finite++
	if c.run > 0 && v.T == c.last+step {
		if c.run == 1 {
			c.Alone--
		}
		c.run++
	} else {
		c.run = 1
		c.Alone++
	}
	c.last = v.T
}

// sorted returns the columns by query and labels, and for each ordinal its place among them.
func (t *table) sorted() (columns []*Column, place []int) {
	columns = slices.Clone(t.columns)
	slices.SortFunc(columns, func(a, b *Column) int {
		return cmp.Or(cmp.Compare(a.Query, b.Query), labels.Compare(a.Labels, b.Labels))
	})
	place = make([]int, len(columns))
	for i, c := range columns {
		place[c.ordinal] = i
	}
	return columns, place
}

// errSpool is for what can't be in a file that nobody else has.
var errSpool = errors.New("the scratch file is not what was written to it")

// parts calls f with the parts that were added. place maps ordinals to Series.Query, which is the place of the column here; series with
// a negative place are left out. Labels are empty.
func (t *table) parts(place []int, f func(*Part) error) error {
	if t.out != nil {
		if err := t.out.Flush(); err != nil {
			return fmt.Errorf("keep values until all series are known: %w", err)
		}
	}
	var from io.ReaderAt = bytes.NewReader(t.memory.Bytes())
	if t.file != nil {
		from = t.file
	}
	var buf []byte
	start := int64(0)
	for _, end := range t.ends {
		buf = slices.Grow(buf[:0], int(end-start))[:end-start]
		if _, err := from.ReadAt(buf, start); err != nil {
			return fmt.Errorf("read the scratch file: %w", err)
		}
		p, err := t.decode(buf, place)
		if err != nil {
			return err
		}
		if err := f(p); err != nil {
			return err
		}
		start = end
	}
	return nil
}

func (t *table) decode(b []byte, place []int) (*Part, error) {
	d := spoolReader{b: b}
	p := &Part{Grid: Grid{First: d.varint(), Last: d.varint(), Step: t.step}}
	for n := d.uvarint(); n > 0 && !d.bad; n-- {
		ordinal := d.uvarint()
		if ordinal >= uint64(len(place)) {
			return nil, errSpool
		}
		s := Series{Query: place[ordinal]}
		floats := d.uvarint()
		if floats > uint64(len(d.b)) {
			return nil, errSpool
		}
		s.Floats = make([]promql.FPoint, 0, floats)
		at := p.Grid.First
		for ; floats > 0 && !d.bad; floats-- {
			at += int64(d.uvarint()) * t.step
			s.Floats = append(s.Floats, promql.FPoint{T: at, F: math.Float64frombits(d.uint64())})
		}
		at = p.Grid.First
		for n := d.uvarint(); n > 0 && !d.bad; n-- {
			at += int64(d.uvarint()) * t.step
			s.Histograms = append(s.Histograms, Histogram{at, d.bytes()})
		}
		if s.Query >= 0 {
			p.Series = append(p.Series, s)
		}
	}
	if d.bad || len(d.b) > 0 {
		return nil, errSpool
	}
	slices.SortFunc(p.Series, func(a, b Series) int { return cmp.Compare(a.Query, b.Query) })
	return p, nil
}

// spoolReader reads what table.add wrote.
type spoolReader struct {
	b   []byte
	bad bool
}

func (d *spoolReader) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	return d.advance(v, n)
}

func (d *spoolReader) varint() int64 {
	v, n := binary.Varint(d.b)
	return int64(d.advance(uint64(v), n))
}

func (d *spoolReader) advance(v uint64, n int) uint64 {
	if n <= 0 {
		d.bad = true
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *spoolReader) uint64() uint64 {
	if len(d.b) < 8 {
		d.bad = true
		return 0
	}
	v := binary.LittleEndian.Uint64(d.b)
	d.b = d.b[8:]
	return v
}

func (d *spoolReader) bytes() []byte {
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.bad = true
		return nil
	}
	v := d.b[:n]
	d.b = d.b[n:]
	return v
}
