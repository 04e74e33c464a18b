// Package opentsdb takes the points of OpenTSDB: over HTTP (POST /api/put) and as put lines over TCP ("telnet").
//
// A point's metric is the metric name and its tags are the labels, as they come, in the form of Options.Names. An empty tag is left out, and a tag that
// is called like the label of the metric's name becomes exported___name__. Times are told apart as OpenTSDB does: what fits into 32 bits are seconds, what does not
// are milliseconds. Each point is judged alone; good ones are stored, and the answer tells of the others.
//
// What differs from OpenTSDB, which most clients have no use for:
//
//   - 2xx means that the points are on disk, whatever sync says.
//   - Any UTF-8 is a name, a point may have no tags, and more than 8.
//   - Whole numbers of any size are taken, as the nearest float64.
//   - Milliseconds behind a point ("1234567890.123") are kept in JSON as well as in put lines.
//
// VictoriaMetrics answers 204 to every body that is JSON, whatever becomes of its points, and stamps those without a time; here they are refused, as by
// OpenTSDB. It takes a put line without its end as well, and times in milliseconds over telnet for seconds.
//
// Handler and Telnet are safe for use by several goroutines.
package opentsdb

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"varve/ingest"
)

// Names is what becomes of the names of metrics and tags.
type Names uint8

const (
	// NamesAsTheyCome changes nothing.
	NamesAsTheyCome Names = iota
	// NamesRestored undoes the escapes in which Varve's forwarder and Prometheus' adapter of old write names and values: __ is an underscore,
	// _. a colon, and _XX the byte with that number. A name or value which they would not have written so stays as it came.
	NamesRestored
	// NamesClassic puts an underscore for everything but letters of ASCII, digits and in metrics colons, and before a digit at the beginning.
	NamesClassic
)

// Options of a Handler and a Telnet.
type Options struct {
	Names Names
	// DefaultTag is left out where it is a point's only tag: a forwarder gives it to series that have no label. The zero value leaves out none.
	DefaultTag labels.Label

	// What follows is Telnet's.

	// TLS is that of the connections, nil for none.
	TLS *tls.Config
	// ConnectionsMax bounds the connections at a time; one more is closed at once. Zero: 512.
	ConnectionsMax int
	// IdleTimeout ends a connection that has said nothing for so long. Zero: 5 min.
	IdleTimeout time.Duration
	// LineBytesMax bounds a line. A longer one is refused. Zero: 16 KiB.
	LineBytesMax int
	// BatchBytes and BatchDelay are how many bytes of lines are written at a time at most, and how long a line waits at most for
	// others while nothing more comes. Zero: 128 KiB and 20 ms.
	BatchBytes int
	BatchDelay time.Duration
	// AnswerTimeout bounds the wait for a client to read its errors: who reads none is told no more. Zero: 5 s.
	AnswerTimeout time.Duration
}

// orDefault puts a default for zero. Negative numbers are an error.
func orDefault[N int | time.Duration](field *N, value N) error {
	*field = cmp.Or(*field, value)
	if *field < 0 {
		return errors.New("a limit is below zero")
	}
	return nil
}

func (o *Options) normalize() error {
	if o.Names > NamesClassic {
		return fmt.Errorf("unknown way %d of taking names", o.Names)
	}
	if (o.DefaultTag.Name == "") != (o.DefaultTag.Value == "") {
		return errors.New("the default tag needs a name and a value")
	}
	err := errors.Join(
		orDefault(&o.ConnectionsMax, 512), orDefault(&o.IdleTimeout, 5*time.Minute), orDefault(&o.LineBytesMax, 16<<10),
		orDefault(&o.BatchBytes, 128<<10), orDefault(&o.BatchDelay, 20*time.Millisecond), orDefault(&o.AnswerTimeout, 5*time.Second),
	)
	// A whole line and its end must have room.
	o.BatchBytes = max(o.BatchBytes, o.LineBytesMax+2)
	return err
}

// encoding names everything that decides which labels the bytes of a point stand for.
func (o *Options) encoding(form string) string {
	return fmt.Sprintf("opentsdb %s %d %q %q", form, o.Names, o.DefaultTag.Name, o.DefaultTag.Value)
}

// exportedName is what a tag is called that has the name of the metric's label, as a scrape calls a label that is in its way.
const exportedName = model.ExportedLabelPrefix + model.MetricNameLabel

// pair is a tag of a point.
type pair struct{ name, value string }

var errTagName = errors.New("a tag has no name")

// addLabels adds the labels of a point. The pairs are overwritten.
func (o *Options) addLabels(sets *ingest.LabelSets, metric string, tags []pair) error {
	if metric == "" {
		return errNoMetric
	}
	sets.Add(model.MetricNameLabel, o.restored(metric, true))
	kept := tags[:0]
	for _, t := range tags {
		if t.value == "" {
			continue
		}
		if t.name == "" {
			return errTagName
		}
		t.name = o.restored(t.name, false)
		if t.name == model.MetricNameLabel {
			t.name = exportedName
		}
		if o.Names == NamesRestored {
			t.value = restore(t.value)
		}
		kept = append(kept, t)
	}
	if len(kept) == 1 && kept[0] == (pair{o.DefaultTag.Name, o.DefaultTag.Value}) {
		return nil
	}
	for _, t := range kept {
		sets.Add(t.name, t.value)
	}
	return nil
}

// restored is a name in the form that is wanted.
func (o *Options) restored(name string, metric bool) string {
	switch o.Names {
	case NamesRestored:
		return restore(name)
	case NamesClassic:
		return classic(name, metric)
	default:
		return name
	}
}

const hexDigits = "0123456789ABCDEF"

// plain tells whether a byte stands for itself in names as the forwarder writes them.
func plain(c byte) bool {
	return c >= '-' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
}

// restore undoes the escapes of a text, if it is one that has been escaped as a whole.
func restore(s string) string {
	if strings.IndexByte(s, '_') < 0 {
		return s
	}
	text := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if plain(s[i]) {
			text = append(text, s[i])
			continue
		}
		c, width := escaped(s[i:])
		if width == 0 {
			return s
		}
		text = append(text, c)
		i += width - 1
	}
	return string(text)
}

// escaped reads the escape that s begins with; a width of 0 says that there is none. What has a shorter form is never written in a longer one.
func escaped(s string) (c byte, width int) {
	switch {
	case len(s) < 2 || s[0] != '_':
		return 0, 0
	case s[1] == '_':
		return '_', 2
	case s[1] == '.':
		return ':', 2
	case len(s) < 3:
		return 0, 0
	}
	high, low := strings.IndexByte(hexDigits, s[1]), strings.IndexByte(hexDigits, s[2])
	if c = byte(high<<4 | low); high < 0 || low < 0 || plain(c) || c == '_' || c == ':' {
		return 0, 0
	}
	return c, 3
}

// classic is a name in the characters that all of Prometheus' tools take.
func classic(s string, metric bool) string {
	fits := func(i int, c byte) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || metric && c == ':' || i > 0 && c >= '0' && c <= '9'
	}
	for i := range len(s) {
		if fits(i, s[i]) {
			continue
		}
		name := make([]byte, 0, len(s)+1)
		if s[0] >= '0' && s[0] <= '9' {
			name = append(name, '_')
		}
		for _, c := range s {
			// Not the first byte, before which there is an underscore if it is a digit.
			if c >= 0x80 || !fits(1, byte(c)) {
				c = '_'
			}
			name = append(name, byte(c))
		}
		return string(name)
	}
	return s
}
