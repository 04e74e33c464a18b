package influxdb

import (
	"github.com/prometheus/prometheus/model/histogram"

	"varve/forward"
	"varve/forward/lineprotocol"
)

// encoder writes batches as lines and remembers which samples each line holds. It is used again for the sake of its memory.
type encoder struct {
	lines []line
	// refs are the samples of all lines, one line's behind the other's.
	refs    []ref
	out     forward.Outcome
	rows    lineprotocol.Rows
	ids     []ref // the samples given to rows, by id
	scratch histogram.FloatHistogram
}

// line is where a line and its samples end; they begin where those of the line before end.
type line struct{ end, refsEnd int }

// ref is a sample of a batch: a float's index from 0 up, a histogram's from -1 down.
type ref struct{ series, sample int32 }

func histogramRef(series, i int) ref { return ref{int32(series), int32(-1 - i)} }

func (r ref) isHistogram() bool { return r.sample < 0 }

func (r ref) time(b *forward.Batch) int64 {
	if r.isHistogram() {
		return b.Series[r.series].Histograms[-1-r.sample].TimeMillis
	}
	return b.Series[r.series].Floats[r.sample].TimeMillis
}

func (r ref) refusal(reason string) forward.Refusal {
	if r.isHistogram() {
		return forward.Refusal{Series: int(r.series), Float: -1, Histogram: int(-1 - r.sample), Reason: reason}
	}
	return forward.Refusal{Series: int(r.series), Float: int(r.sample), Histogram: -1, Reason: reason}
}

// before is where line i begins.
func (e *encoder) before(i int) line {
	if i == 0 {
		return line{}
	}
	return e.lines[i-1]
}

// samples are those of line i.
func (e *encoder) samples(i int) []ref { return e.refs[e.before(i).refsEnd:e.lines[i].refsEnd] }

// text is line i without its newline.
func (e *encoder) text(body []byte, i int) string {
	return string(body[e.before(i).end : e.lines[i].end-1])
}

// encode appends the batch's lines to body, and counts in e.out what can't be written.
func (e *encoder) encode(body []byte, b *forward.Batch, o *Options) []byte {
	e.lines, e.refs, e.out = e.lines[:0], e.refs[:0], forward.Outcome{}
	if o.Route == nil {
		return e.series(body, b, o)
	}
	return e.routed(body, b, o)
}

func (e *encoder) series(body []byte, b *forward.Batch, o *Options) []byte {
	for i := range b.Series {
		s := &b.Series[i]
		f := s.Form.(*form)
		for j := range s.Floats {
			sample := &s.Floats[j]
			var ok bool
			if body, ok = lineprotocol.AppendSample(body, f.prefix, sample.Value, sample.TimeMillis, o.Precision); !ok {
				e.out.Skip(lineprotocol.Reason(sample.Value, sample.TimeMillis), 1)
				continue
			}
			e.refs = append(e.refs, ref{int32(i), int32(j)})
			e.lines = append(e.lines, line{len(body), len(e.refs)})
		}
		if f.histograms == nil {
			e.out.Skip(lineprotocol.ReasonHistogram, len(s.Histograms))
			continue
		}
		for j := range s.Histograms {
			body = e.histogram(body, f.histograms, &s.Histograms[j], histogramRef(i, j), o)
		}
	}
	return body
}

// histogram appends the lines of a histogram, each of which stands for it.
func (e *encoder) histogram(body []byte, forms *lineprotocol.HistogramSeries, h *forward.Histogram, at ref, o *Options) []byte {
	from := len(body)
	body, ok := forms.Append(body, h.Int, h.Float, &e.scratch, h.TimeMillis, o.Precision)
	if !ok {
		_, sum := lineprotocol.CountSum(h.Int, h.Float)
		e.out.Skip(lineprotocol.HistogramReason(sum, h.TimeMillis), 1)
		return body
	}
	for i := from; i < len(body); i++ {
		if body[i] == '\n' {
			e.refs = append(e.refs, at)
			e.lines = append(e.lines, line{i + 1, len(e.refs)})
		}
	}
	return body
}

func (e *encoder) routed(body []byte, b *forward.Batch, o *Options) []byte {
	e.rows.Reset()
	e.ids = e.ids[:0]
	for i := range b.Series {
		s := &b.Series[i]
		f := s.Form.(*form)
		e.rows.Column(f.row, f.field)
		for j := range s.Floats {
			sample := &s.Floats[j]
			if !e.add(sample.Value, sample.TimeMillis, ref{int32(i), int32(j)}, o) {
				e.out.Skip(lineprotocol.Reason(sample.Value, sample.TimeMillis), 1)
			}
		}
		if o.Histograms == lineprotocol.SkipHistograms {
			e.out.Skip(lineprotocol.ReasonHistogram, len(s.Histograms))
		} else if len(s.Histograms) > 0 {
			e.routedHistograms(s, i, o)
		}
	}
	return e.rows.AppendLines(body, o.Precision, func(end int, ids []int32) {
		for _, id := range ids {
			e.refs = append(e.refs, e.ids[id])
		}
		e.lines = append(e.lines, line{end, len(e.refs)})
	})
}

func (e *encoder) routedHistograms(s *forward.Series, series int, o *Options) {
	f := s.Form.(*form)
	e.rows.Column(f.row, f.countField)
	for j := range s.Histograms {
		h := &s.Histograms[j]
		count, sum := lineprotocol.CountSum(h.Int, h.Float)
		if reason := lineprotocol.HistogramReason(sum, h.TimeMillis); reason != "" || !e.add(count, h.TimeMillis, histogramRef(series, j), o) {
			if reason == "" {
				reason = lineprotocol.Reason(count, h.TimeMillis)
			}
			e.out.Skip(reason, 1)
		}
	}
	e.rows.Column(f.row, f.sumField)
	for j := range s.Histograms {
		h := &s.Histograms[j]
		// A sum that is not finite stays out; the count stands for the histogram.
		_, sum := lineprotocol.CountSum(h.Int, h.Float)
		e.add(sum, h.TimeMillis, histogramRef(series, j), o)
	}
}

func (e *encoder) add(v float64, timeMillis int64, at ref, o *Options) bool {
	if !e.rows.Add(v, timeMillis, o.Precision, int32(len(e.ids))) {
		return false
	}
	e.ids = append(e.ids, at)
	return true
}
