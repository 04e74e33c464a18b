package forward

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"

	"varve/durable"
)

// Bounds of dead letters: the size at which a file is put aside, one of which is kept, and the bytes a second that are written. A
// peer that refuses more makes the output slower.
const (
	letterFileBytes      = 64 << 20
	letterBytesPerSecond = 4 << 20
	letterBytesBurst     = 16 << 20
	letterFile           = ".jsonl"
	letterFileOld        = ".jsonl.old"
	letterFileMode       = 0o600
	letterDirMode        = 0o700
)

// letter is a line of a file of dead letters: a sample that the peer refused.
type letter struct {
	// When it was refused, why, and at which step.
	When   time.Time     `json:"when"`
	Class  string        `json:"class"`
	Reason string        `json:"reason"`
	Labels labels.Labels `json:"labels"`
	// Timestamp and StartTimestamp are Unix milliseconds.
	Timestamp      int64 `json:"timestamp"`
	StartTimestamp int64 `json:"startTimestamp,omitempty"`
	// Value is that of a float, the shortest text that names it, Bits those of a NaN.
	Value string `json:"value,omitempty"`
	Bits  string `json:"bits,omitempty"`
	// Histogram is for people, Encoded is a prometheus.Histogram of remote write 1.0.
	Histogram string `json:"histogram,omitempty"`
	Encoded   []byte `json:"encoded,omitempty"`
}

func (l *letter) float(f *Float) {
	l.Timestamp, l.StartTimestamp = f.TimeMillis, f.StartMillis
	l.Value = strconv.FormatFloat(f.Value, 'g', -1, 64)
	l.Bits, l.Histogram, l.Encoded = "", "", nil
	if math.IsNaN(f.Value) {
		l.Bits = fmt.Sprintf("%#016x", math.Float64bits(f.Value))
	}
}

func (l *letter) histogram(h *Histogram) {
	l.Timestamp, l.StartTimestamp = h.TimeMillis, h.StartMillis
	l.Value, l.Bits = "", ""
	var encoded prompb.Histogram
	switch {
	case h.Int != nil:
		l.Histogram, encoded = h.Int.String(), prompb.FromIntHistogram(h.TimeMillis, h.Int)
	case h.Float != nil:
		l.Histogram, encoded = h.Float.String(), prompb.FromFloatHistogram(h.TimeMillis, h.Float)
	}
	// It can't fail: what is left out then is the form for machines.
	l.Encoded, _ = encoded.Marshal()
}

// appendLine appends the letter as a line.
func (l *letter) appendLine(dst []byte) []byte {
	line, err := json.Marshal(l)
	if err != nil {
		line = strconv.AppendQuote(nil, err.Error()+": "+l.Labels.String())
	}
	return append(append(dst, line...), '\n')
}

// deadLetters is the file of an output's dead letters. Safe for use by several goroutines.
type deadLetters struct {
	dir, name string
	rate      *limiter
	fileBytes int64

	mu   sync.Mutex
	file *os.File
	size int64
	// unsynced tells that what was written may not survive a power cut.
	unsynced bool
}

func newDeadLetters(dir, output string) *deadLetters {
	return &deadLetters{
		dir: dir, name: url.PathEscape(output), fileBytes: letterFileBytes,
		rate: newLimiter(letterBytesPerSecond, letterBytesBurst),
	}
}

func (d *deadLetters) path() string { return filepath.Join(d.dir, d.name+letterFile) }

// write appends whole lines. After an error none of them are there, as far as that can be helped.
func (d *deadLetters) write(lines []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.file != nil && d.size > 0 && d.size+int64(len(lines)) > d.fileBytes {
		if err := d.rotate(); err != nil {
			return fmt.Errorf("put dead letters aside: %w", err)
		}
	}
	if d.file == nil {
		if err := d.open(); err != nil {
			return fmt.Errorf("open dead letters: %w", err)
		}
	}
	if _, err := d.file.Write(lines); err != nil {
		// What came half is cut off, or else ended with a newline when the file is opened again.
		err = errors.Join(err, d.file.Truncate(d.size), d.file.Sync(), d.file.Close())
		d.file, d.unsynced = nil, false
		return fmt.Errorf("write dead letters: %w", err)
	}
	d.size += int64(len(lines))
	d.unsynced = true
	return nil
}

// sync makes what was written durable. It comes before the place moves over what was refused.
func (d *deadLetters) sync() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.file == nil || !d.unsynced {
		return nil
	}
	if err := d.file.Sync(); err != nil {
		return fmt.Errorf("sync dead letters: %w", err)
	}
	d.unsynced = false
	return nil
}

// open opens the file at its end, behind a whole line. Called with mu held.
func (d *deadLetters) open() error {
	if err := os.MkdirAll(d.dir, letterDirMode); err != nil {
		return err
	}
	f, err := os.OpenFile(d.path(), os.O_RDWR|os.O_CREATE|os.O_APPEND, letterFileMode)
	if err != nil {
		return err
	}
	size, err := endLine(f)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	if err := errors.Join(durable.Sync(d.dir), durable.Sync(filepath.Dir(d.dir))); err != nil {
		return errors.Join(err, f.Close())
	}
	d.file, d.size = f, size
	return nil
}

// endLine ends a line that a crash cut off, and returns the size of the file.
func endLine(f *os.File) (int64, error) {
	st, err := f.Stat()
	if err != nil || st.Size() == 0 {
		return 0, err
	}
	var last [1]byte
	if _, err := f.ReadAt(last[:], st.Size()-1); err != nil || last[0] == '\n' {
		return st.Size(), err
	}
	if _, err := f.Write([]byte{'\n'}); err != nil {
		return 0, err
	}
	return st.Size() + 1, nil
}

// rotate puts the file aside, in the place of the one that was put aside before. Called with mu held.
func (d *deadLetters) rotate() error {
	if err := d.shut(); err != nil {
		return err
	}
	if err := os.Rename(d.path(), filepath.Join(d.dir, d.name+letterFileOld)); err != nil {
		return err
	}
	return durable.Sync(d.dir)
}

func (d *deadLetters) shut() error {
	if d.file == nil {
		return nil
	}
	f := d.file
	d.file, d.unsynced = nil, false
	return errors.Join(f.Sync(), f.Close())
}

func (d *deadLetters) close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.shut()
}

func (d *deadLetters) bytes() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.size
}
