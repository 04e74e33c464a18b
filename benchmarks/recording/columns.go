package recording

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
)

const (
	// absentBits mark a slot in which a series was not scraped: a NaN that no
	// exporter writes.
	absentBits = 0x7ff0_dead_dead_dead
	// DigitsMax is how many significant decimal digits every float64 keeps.
	DigitsMax = 15
	// cellsMax bounds the values of a recording: 2 GiB of them.
	cellsMax = 1 << 28
	// earlyShare is the part of the interval by which a scrape may be earlier than the
	// first one says.
	earlyShare = 4
	// slotsPerScrapeMax bounds how much of a recording may be missing.
	slotsPerScrapeMax = 4
)

// Absent is the value of a slot in which a series was not scraped.
var Absent = math.Float64frombits(absentBits)

// IsAbsent says whether a value stands for none.
func IsAbsent(v float64) bool { return math.Float64bits(v) == absentBits }

// Columns is a recording by series. Slot i stands for the scrape that was due at i
// times the interval after the first one.
type Columns struct {
	Name string
	// Slots is the number of slots, Scrapes how many of them hold a scrape.
	Slots, Scrapes int
	// DelayMillis is by how much each scrape began later than the one that was least
	// late: 0 or more. It is -1 in slots without a scrape.
	DelayMillis []int64
	Series      []Series
}

// Series is one series of a recording.
type Series struct {
	Labels labels.Labels
	// Counter says that the value grows, apart from restarts: by its type, buckets,
	// sums and counts included.
	Counter bool
	// Decimals is how many decimal places every value is made of, or -1 if some value
	// is no decimal of DigitsMax digits.
	Decimals int
	// Values has one value a slot, or Absent.
	Values []float64
}

// Open reads the recording in a file, made with the given interval.
func Open(path string, intervalMillis int64) (*Columns, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open recording: %w", err)
	}
	defer file.Close()
	columns, err := Read(file, intervalMillis)
	if err != nil {
		return nil, fmt.Errorf("open recording %s: %w", path, err)
	}
	return columns, nil
}

// Read reads a whole recording.
func Read(source io.Reader, intervalMillis int64) (*Columns, error) {
	r, err := NewReader(source)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	c := &collector{columns: &Columns{Name: r.Name()}, known: map[string]int{}, types: map[string]model.MetricType{}, symbols: labels.NewSymbolTable()}
	for {
		scrape, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if err := c.add(scrape, intervalMillis); err != nil {
			return nil, err
		}
	}
	return c.finish()
}

// collector gathers columns scrape by scrape.
type collector struct {
	columns *Columns
	known   map[string]int // by the series as it is written
	types   map[string]model.MetricType
	symbols *labels.SymbolTable
	first   int64
}

// add puts a scrape into its slot. The second of two in one slot is dropped.
func (c *collector) add(scrape Scrape, intervalMillis int64) error {
	if c.columns.Scrapes == 0 {
		c.first = scrape.Millis
	}
	// Scrapes are late rather than early: early by no more than the first one was late.
	slot := (scrape.Millis - c.first + intervalMillis/earlyShare) / intervalMillis
	if slot < int64(c.columns.Slots) {
		return nil
	}
	if slot > int64(c.columns.Scrapes+1)*slotsPerScrapeMax+1000 || slot*int64(len(c.columns.Series)+1) > cellsMax {
		return fmt.Errorf("read recording: %w: scrape %d is due to slot %d", ErrCorrupt, c.columns.Scrapes, slot)
	}
	for len(c.columns.DelayMillis) < int(slot) {
		c.columns.DelayMillis = append(c.columns.DelayMillis, -1)
	}
	// Delays are relative to the first scrape's until finish knows the least.
	c.columns.DelayMillis = append(c.columns.DelayMillis, scrape.Millis-c.first-slot*intervalMillis+intervalMillis)
	c.columns.Slots = int(slot) + 1
	c.columns.Scrapes++
	return c.parse(scrape.Text)
}

// parse reads the text of the newest slot.
func (c *collector) parse(text []byte) error {
	parser := textparse.NewPromParser(text, c.symbols, false)
	for {
		entry, err := parser.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read recording: %w: scrape %d: %w", ErrCorrupt, c.columns.Scrapes, err)
		}
		switch entry {
		case textparse.EntryType:
			name, kind := parser.Type()
			c.types[string(name)] = kind
		case textparse.EntrySeries:
			written, _, value := parser.Series()
			i, known := c.known[string(written)]
			if !known {
				i = len(c.columns.Series)
				var l labels.Labels
				parser.Labels(&l)
				c.known[string(written)] = i
				c.columns.Series = append(c.columns.Series, Series{Labels: l, Counter: c.isCounter(l.Get(model.MetricNameLabel))})
			}
			s := &c.columns.Series[i]
			s.Values = padded(s.Values, c.columns.Slots-1)
			// A series that is written twice keeps its first value.
			if len(s.Values) < c.columns.Slots {
				s.Values = append(s.Values, value)
			}
		default:
		}
	}
}

// padded fills up with Absent.
func padded(values []float64, length int) []float64 {
	for len(values) < length {
		values = append(values, Absent)
	}
	return values
}

// isCounter knows the type of a series by its name, or that of its family.
func (c *collector) isCounter(name string) bool {
	switch c.types[name] {
	case model.MetricTypeCounter:
		return true
	case model.MetricTypeGauge, model.MetricTypeSummary:
		return false
	default:
	}
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		if family, cut := strings.CutSuffix(name, suffix); cut {
			kind := c.types[family]
			return kind == model.MetricTypeHistogram || kind == model.MetricTypeSummary
		}
	}
	return strings.HasSuffix(name, "_total")
}

// finish completes the columns.
func (c *collector) finish() (*Columns, error) {
	least := int64(math.MaxInt64)
	for _, delay := range c.columns.DelayMillis {
		if delay >= 0 {
			least = min(least, delay)
		}
	}
	for i, delay := range c.columns.DelayMillis {
		if delay >= 0 {
			c.columns.DelayMillis[i] = delay - least
		}
	}
	if len(c.columns.Series) == 0 {
		return nil, fmt.Errorf("read recording: %w: it holds no series", ErrCorrupt)
	}
	for i := range c.columns.Series {
		s := &c.columns.Series[i]
		s.Values = padded(s.Values, c.columns.Slots)
		s.Decimals = decimals(s.Values)
	}
	slices.SortFunc(c.columns.Series, func(a, b Series) int { return labels.Compare(a.Labels, b.Labels) })
	return c.columns, nil
}

// decimals is the largest number of decimal places among the values, or -1 if they
// are not all integers over one power of ten, exactly.
func decimals(values []float64) int {
	most := 0
	last := Absent
	for _, v := range values {
		if math.Float64bits(v) == math.Float64bits(last) || IsAbsent(v) {
			continue
		}
		last = v
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return -1
		}
		text := strconv.FormatFloat(math.Abs(v), 'e', -1, 64)
		mantissa, exponent, _ := strings.Cut(text, "e")
		power, err := strconv.Atoi(exponent)
		digits := len(mantissa)
		if digits > 1 {
			digits-- // the point
		}
		if err != nil || digits > DigitsMax {
			return -1
		}
		most = max(most, digits-1-power)
	}
	if most > DigitsMax {
		return -1
	}
	scale := math.Pow10(most)
	for _, v := range values {
		if k := math.Round(v * scale); !IsAbsent(v) && (math.Abs(k) >= 1<<53 || math.Float64bits(k/scale) != math.Float64bits(v)) {
			return -1
		}
	}
	return most
}
