package scrape

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
)

const (
	// chunkBytes is how much text is looked at together: good text costs one more
	// parse, and a bad line that of its chunk's lines one by one.
	chunkBytes = 64 << 10
	// lineBytesMax bounds the memory for one line. A longer one is left out.
	lineBytesMax = 1 << 20
)

// The errors of lines for which upstream's parser has none.
var (
	errLongLine  = fmt.Errorf("a line of more than %d bytes", lineBytesMax)
	errNoName    = errors.New("a sample without a metric name")
	errName      = errors.New("a name that the job's validation scheme does not allow")
	errLineBreak = errors.New("a label value with a line break in it")
	errAfterEOF  = errors.New("data after # EOF")
	errTime      = errors.New("a timestamp beyond the year 9999")
)

// timeMillisMax is the end of the year 9999. Upstream's parser of OpenMetrics makes
// the least integer of what is far beyond it.
const timeMillisMax = 253_402_300_799_999

var eofLine = []byte("# EOF")

// dialect is the text format of an exposition.
type dialect struct {
	contentType, fallback string
	openMetrics           bool
	// scheme is what the job demands of names.
	scheme model.ValidationScheme
}

// dialectOf finds the format that upstream would read a body as. It is false where
// that is not text, or nothing.
func dialectOf(contentType, fallback string, scheme model.ValidationScheme) (dialect, bool) {
	d := dialect{contentType: contentType, fallback: fallback, scheme: scheme}
	p, _ := textparse.New(nil, contentType, nil, textparse.ParserOptions{FallbackContentType: fallback})
	switch p.(type) {
	case *textparse.PromParser:
		return d, true
	case *textparse.OpenMetricsParser:
		d.openMetrics = true
		return d, true
	}
	return d, false
}

// repairer copies an exposition without the lines that can't be read.
//
//  1. It reads whole lines, about chunkBytes at a time.
//  2. A chunk that upstream's parser reads to its end goes through as it is. A label
//     value that spans lines is taken for two broken lines, not for one good: the
//     parser would allow it and lose the lines between.
//  3. Of any other chunk each line is tried alone, and goes through if it can be read.
//  4. Carriage returns at the end of lines are taken out, OpenMetrics has its # EOF
//     supplied, and its blank lines taken out.
//
// Lines say nothing about each other in either format as far as reading them goes.
type repairer struct {
	dialect
	to io.Writer
	// leftOut is called for each line that is left out. The line is valid during the call.
	leftOut func(line []byte, err error)

	scratch []byte
	ended   bool
	labels  labels.Labels
}

// repair copies from src to the writer. Errors are of src and of the writer.
func (r *repairer) repair(src io.Reader) error {
	buf := make([]byte, 0, chunkBytes)
	skipping := false
	for {
		if len(buf) == cap(buf) {
			if cap(buf) >= lineBytesMax {
				if !skipping {
					r.leftOut(buf[:lineShownBytes], errLongLine)
				}
				skipping, buf = true, buf[:0]
			} else {
				buf = append(make([]byte, 0, 2*cap(buf)), buf...)
			}
		}
		n, err := src.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		atEnd := errors.Is(err, io.EOF)
		if err != nil && !atEnd {
			return err
		}
		if skipping {
			i := bytes.IndexByte(buf, '\n')
			if i < 0 {
				buf = buf[:0]
			} else {
				buf = buf[:copy(buf, buf[i+1:])]
				skipping = false
			}
		}
		whole := bytes.LastIndexByte(buf, '\n') + 1
		if atEnd {
			if len(buf) > whole {
				buf = append(buf, '\n')
			}
			whole = len(buf)
		} else if len(buf) < chunkBytes {
			continue
		}
		if err := r.chunk(buf[:whole]); err != nil {
			return err
		}
		if atEnd {
			return r.end()
		}
		buf = buf[:copy(buf, buf[whole:])]
	}
}

// end supplies the end mark of OpenMetrics, whether it was there or not.
func (r *repairer) end() error {
	if !r.openMetrics {
		return nil
	}
	_, err := r.to.Write(append(eofLine[:len(eofLine):len(eofLine)], '\n'))
	return err
}

// chunk copies whole lines.
func (r *repairer) chunk(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	if !r.openMetrics && r.readable(b) == nil {
		_, err := r.to.Write(b)
		return err
	}
	if r.openMetrics && !r.ended && !bytes.Contains(b, eofLine) && r.readable(b) == nil {
		_, err := r.to.Write(b)
		return err
	}
	for line := range bytes.Lines(b) {
		if err := r.line(line); err != nil {
			return err
		}
	}
	return nil
}

// line copies one line, which ends in a line break, if it can be read.
func (r *repairer) line(line []byte) error {
	text := bytes.TrimRight(line, "\r\n")
	if r.openMetrics {
		switch {
		case len(bytes.TrimSpace(text)) == 0:
			return nil
		case bytes.Equal(bytes.TrimSpace(text), eofLine):
			r.ended = true
			return nil
		case r.ended:
			r.leftOut(text, errAfterEOF)
			return nil
		}
	}
	whole := line
	if len(text)+1 != len(line) {
		whole = append(append(make([]byte, 0, len(text)+1), text...), '\n')
	}
	if err := r.readable(whole); err != nil {
		r.leftOut(text, err)
		return nil
	}
	_, err := r.to.Write(whole)
	return err
}

// readable says what keeps upstream's scrape loop from reading lines.
func (r *repairer) readable(lines []byte) error {
	r.scratch = append(r.scratch[:0], lines...)
	if r.openMetrics {
		r.scratch = append(append(r.scratch, eofLine...), '\n')
	}
	p, err := textparse.New(r.scratch, r.contentType, nil, textparse.ParserOptions{FallbackContentType: r.fallback})
	if p == nil {
		return err
	}
	for {
		entry, err := p.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if entry != textparse.EntrySeries {
			continue
		}
		series, at, _ := p.Series()
		if at != nil && (*at > timeMillisMax || *at < -timeMillisMax) {
			return errTime
		}
		if err := r.sample(p, series); err != nil {
			return err
		}
	}
}

// sample checks what the scrape loop demands of a sample beyond the syntax.
func (r *repairer) sample(p textparse.Parser, series []byte) error {
	if bytes.IndexByte(series, '\n') >= 0 {
		return errLineBreak
	}
	if series[0] != '{' && r.scheme != model.LegacyValidation {
		return nil
	}
	p.Labels(&r.labels)
	switch {
	case r.labels.Get(model.MetricNameLabel) == "":
		return errNoName
	case !r.labels.IsValid(r.scheme):
		return errName
	}
	return nil
}
