package text

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"varve/export"
)

// lineEnd ends records, see RFC 4180.
const lineEnd = "\r\n"

// csvLong writes a record for each sample. The header has the names of all labels that any series has, so series are
// looked at once before the first record.
func (w *writer) csvLong(ctx context.Context) error {
	known := map[string]struct{}{}
	each := func(ls labels.Labels) error {
		ls.Range(func(l labels.Label) {
			if _, ok := known[l.Name]; !ok && l.Name != model.MetricNameLabel {
				known[strings.Clone(l.Name)] = struct{}{}
			}
		})
		if len(known) > w.o.ColumnsMax {
			return fmt.Errorf("%w: the series have more than %d different labels, which are a column each; narrow the selectors", export.ErrTooWide, w.o.ColumnsMax)
		}
		return nil
	}
	var names []string
	header := func() error {
		for name := range known {
			names = append(names, name)
		}
		slices.Sort(names)
		b := append(w.buf[:0], "time,metric"...)
		for _, name := range names {
			b = appendField(append(b, ','), name)
		}
		w.buf = append(append(b, ",value"...), lineEnd...)
		return w.put()
	}
	var middle []byte // of the records of a series
	return w.walk(ctx, each, header, func(p *export.Piece) error {
		if p.First {
			middle = appendField(append(middle[:0], ','), p.Labels.Get(model.MetricNameLabel))
			for _, name := range names {
				middle = appendField(append(middle, ','), p.Labels.Get(name))
			}
			middle = append(middle, ',')
		}
		for {
			t, v, ok := w.next(p.Samples)
			if !ok {
				return p.Samples.Err()
			}
			w.buf = w.appendTime(w.buf[:0], t)
			w.buf = append(w.buf, middle...)
			w.buf = append(appendFloat(w.buf, v), lineEnd...)
			if err := w.put(); err != nil {
				return err
			}
		}
	})
}

// appendTime appends a time as the options have it.
func (w *writer) appendTime(b []byte, t int64) []byte { return AppendTime(b, t, w.o.Times) }

// appendSeconds appends ms as seconds, with a fraction if there is one.
func appendSeconds(b []byte, millis int64) []byte {
	if millis < 0 {
		b = append(b, '-')
	}
	abs := uint64(millis)
	if millis < 0 {
		abs = -abs
	}
	b = strconv.AppendUint(b, abs/1000, 10)
	if rest := abs % 1000; rest != 0 {
		b = append(b, '.', byte('0'+rest/100), byte('0'+rest/10%10), byte('0'+rest%10))
	}
	return b
}

func appendField(b []byte, s string) []byte { return AppendField(b, s, ',') }
