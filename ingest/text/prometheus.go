package text

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"

	"varve/arrival"
	"varve/ingest"
)

// Prometheus returns the handler for POST /api/v1/import/prometheus: lines of the text exposition format, with
// timestamps in milliseconds, or of OpenMetrics, with timestamps in seconds.
//
// Which one it is says the parameter format (prometheus or openmetrics), else a Content-Type that names one, else each
// timestamp: whole numbers beyond ±2^31 are milliseconds, all others seconds, as VictoriaMetrics has it. Further
// parameters: timestamp (Unix ms of lines without one, default now), extra_label=name=value (repeated; in the place
// of a label that has the name) and verbose (an answer with counts even if all went well).
//
// Labels stay as they are written, the bounds of buckets and quantiles too, which a scrape would write in one way. TYPE,
// HELP and UNIT become metadata. Exemplars are stored. A line name_created of a counter, histogram or summary
// of OpenMetrics, behind the samples that it is about, is their start timestamp and no series of its own. # EOF
// ends nothing, so that files may be put behind each other.
func (in *Input) Prometheus() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var p lineReader
		in.serve(w, r, formatText, func(q url.Values, x *reading) error {
			times, err := timesOf(q.Get("format"), r.Header.Get("Content-Type"))
			p.reading, p.times = x, times
			x.seed = x.seedFor("exposition format")
			return err
		}, func(ctx context.Context, _ *reading) error { return p.read(ctx) })
	})
}

// timeUnit is what the timestamps of lines are in.
type timeUnit uint8

const (
	timeGuessed timeUnit = iota
	timeMillis
	timeSeconds
)

func timesOf(parameter, contentType string) (timeUnit, error) {
	switch parameter {
	case "openmetrics":
		return timeSeconds, nil
	case "prometheus":
		return timeMillis, nil
	case "":
	default:
		return 0, fmt.Errorf("%w format %s: want prometheus or openmetrics", ingest.ErrMalformed, quoted(parameter))
	}
	media, parameters, err := mime.ParseMediaType(contentType)
	switch {
	case err != nil:
		return timeGuessed, nil
	case media == "application/openmetrics-text":
		return timeSeconds, nil
	case media == "text/plain" && parameters["version"] != "":
		return timeMillis, nil
	}
	return timeGuessed, nil
}

// lineReader reads lines of samples.
//
// A line is split into what names its series, a value, a time and an exemplar. What names the series is not looked
// at: if the archive knows its hash, it was parsed when it was first seen, by upstream's parser. The
// hash is not even made where the line before had the same bytes.
type lineReader struct {
	*reading
	times   timeUnit
	family  family
	key     arrival.Key
	scratch [2][]byte
}

// Errors of lines.
var (
	errNoSeries    = errors.New("no name of a series")
	errNoValue     = errors.New("no value")
	errLongLine    = errors.New("longer than a line may be")
	errTrailing    = errors.New("something behind the timestamp")
	errExemplarEnd = errors.New("the labels of an exemplar do not end")
)

func (p *lineReader) read(ctx context.Context) error {
	for {
		line, ok := p.nextLine()
		if ok {
			if err := p.line(line); err != nil {
				return err
			}
			if p.full() {
				if err := p.flush(ctx, true); err != nil {
					return err
				}
			}
			continue
		}
		if p.ended {
			break
		}
		// The bytes of the batch's series are about to move.
		tooLong := p.tooLong()
		if err := p.flush(ctx, !tooLong); err != nil {
			return err
		}
		if tooLong {
			p.lines++
			p.refuseLong(p.window.line)
			if err := p.skipLine(); err != nil {
				return err
			}
			continue
		}
		if err := p.more(); err != nil {
			return err
		}
	}
	p.endFamily()
	return p.flush(ctx, false)
}

// line takes one line, which nextLine returned.
func (p *lineReader) line(whole []byte) error {
	b := bytes.TrimLeft(whole, " \t")
	if len(b) == 0 {
		return nil
	}
	p.lines++
	number := p.window.line - 1
	if len(b) > p.lineBytesMax {
		p.refuseLong(number)
		return nil
	}
	if b[0] == '#' {
		return p.comment(b, number)
	}
	end := seriesEnd(b)
	if end <= 0 {
		p.refuse(arrival.ReasonInvalidLine, 1, number, fmt.Errorf("%w in %s", errNoSeries, quoted(b)))
		return nil
	}
	series := b[:end]
	s, err := p.split(b[end:])
	if err != nil {
		p.refuse(arrival.ReasonInvalidLine, 1, number, fmt.Errorf("%w in %s", err, quoted(b)))
		return nil
	}
	if p.family.created != "" && p.isCreated(series) && p.startOf(series, &s) {
		return nil
	}
	from := uint32(p.lineAt + len(whole) - len(b))
	at := place{from: from, to: from + uint32(len(series)), line: number, lineAt: from, lines: p.lines - 1}
	if n := len(p.places); n == 0 || !bytes.Equal(p.buf[p.places[n-1].from:p.places[n-1].to], series) {
		p.key = p.seed.Hash(series)
	}
	millis := p.nowMillis
	if s.hasTime {
		millis = s.millis
	}
	if err := p.add(p.key, at, millis, s.bits); err != nil {
		return err
	}
	if s.exemplar != nil {
		return p.exemplar(s.exemplar, millis, number)
	}
	return nil
}

func (x *reading) refuseLong(line uint64) {
	x.refuse(arrival.ReasonInvalidLine, 1, line, fmt.Errorf("%w: %d bytes", errLongLine, x.lineBytesMax))
}

// sampleText is what stands on a line behind the series.
type sampleText struct {
	bits     uint64
	millis   int64
	hasTime  bool
	exemplar []byte // from its labels on; nil for none
}

// split reads what stands behind the series.
func (p *lineReader) split(b []byte) (s sampleText, err error) {
	text, rest := field(b)
	if len(text) == 0 {
		return s, errNoValue
	}
	var ok bool
	if s.bits, ok = parseFloat(text); !ok {
		return s, fmt.Errorf("%s is no number", quoted(text))
	}
	text, rest = field(rest)
	if len(text) == 0 {
		return s, nil
	}
	if text[0] != '#' {
		if s.millis, ok = p.time(text); !ok {
			return s, fmt.Errorf("%s is no timestamp", quoted(text))
		}
		s.hasTime = true
		if text, rest = field(rest); len(text) == 0 {
			return s, nil
		}
	}
	if len(text) != 1 || text[0] != '#' {
		return s, errTrailing
	}
	s.exemplar = bytes.TrimLeft(rest, " \t")
	return s, nil
}

// field cuts off the next run of what is no blank.
func field(b []byte) (text, rest []byte) {
	i := 0
	for i < len(b) && (b[i] == ' ' || b[i] == '\t') {
		i++
	}
	j := i
	for j < len(b) && b[j] != ' ' && b[j] != '\t' {
		j++
	}
	return b[i:j], b[j:]
}

// time reads a timestamp.
func (p *lineReader) time(b []byte) (millis int64, ok bool) {
	switch p.times {
	case timeMillis:
		return parseInt(b)
	case timeSeconds:
		return parseSeconds(b)
	}
	n, ok := parseInt(b)
	if !ok || n >= -1<<31 && n < 1<<31 {
		return parseSeconds(b)
	}
	return n, true
}

// seriesEnd returns where the name and the labels of a line end, or -1. It only looks for the closing brace outside of
// quotes; whether what is before is right, the parser says when the series is first met.
func seriesEnd(b []byte) int {
	i := 0
	for i < len(b) && b[i] != '{' && b[i] != ' ' && b[i] != '\t' {
		i++
	}
	j := i
	for j < len(b) && (b[j] == ' ' || b[j] == '\t') {
		j++
	}
	if j == len(b) || b[j] != '{' {
		return i
	}
	for j++; j < len(b); j++ {
		switch b[j] {
		case '}':
			return j + 1
		case '"':
			if j = closingQuote(b, j+1); j < 0 {
				return -1
			}
		}
	}
	return -1
}

// closingQuote returns where the quote is that ends a text which begins at i, or -1.
func closingQuote(b []byte, i int) int {
	for {
		n := bytes.IndexByte(b[i:], '"')
		if n < 0 {
			return -1
		}
		end := i + n
		escapes := 0
		for escapes < end-i && b[end-1-escapes] == '\\' {
			escapes++
		}
		if escapes%2 == 0 {
			return end
		}
		i = end + 1
	}
}

// flush writes the batch. With keepBack the samples of the last series stay, if what comes next could be when they
// were created.
func (p *lineReader) flush(ctx context.Context, keepBack bool) error {
	if row := p.unfinished(); keepBack && row > 0 {
		at := p.cut(row)
		p.at, p.window.line = int(at.lineAt), at.line
		// They are counted when they are read again.
		p.lines = at.lines
	}
	p.family.first = 0
	return p.write(ctx, p.nameSeries)
}

// nameSeries parses what names a series.
func (p *lineReader) nameSeries(at *place, sets *ingest.LabelSets) error {
	ls, err := p.parse(p.buf[at.from:at.to])
	if err != nil {
		return err
	}
	ls.Range(func(l labels.Label) { p.name(sets, l.Name, l.Value) })
	p.addExtra(sets)
	return nil
}

// parse has upstream parse a name and labels.
func (p *lineReader) parse(series []byte) (ls labels.Labels, err error) {
	line := append(append(p.scratch[0][:0], series...), " 1\n"...)
	p.scratch[0] = line
	parser := textparse.NewPromParser(line, labels.NewSymbolTable(), false)
	entry, err := parser.Next()
	if err != nil {
		return ls, fmt.Errorf("%s: %s", quoted(series), strings.TrimSpace(asciiOnly(err.Error())))
	}
	if entry != textparse.EntrySeries {
		return ls, fmt.Errorf("%w in %s", errNoSeries, quoted(series))
	}
	parser.Labels(&ls)
	return ls, nil
}

// asciiOnly keeps what a sender wrote from controlling a terminal or a log.
func asciiOnly(s string) string {
	q := quoted(s)
	return strings.Trim(q, `"`)
}

// exemplar adds the exemplar of the last row.
func (p *lineReader) exemplar(b []byte, sampleMillis int64, line uint64) error {
	e, err := p.parseExemplar(b)
	if err == nil {
		err = p.checkExemplar(&e)
	}
	if err != nil {
		p.refuse(arrival.ReasonInvalidExemplar, 1, line, err)
		return nil
	}
	if !e.HasTs {
		e.Ts = sampleMillis
	}
	if err := p.want(exemplarBytes); err != nil {
		return err
	}
	e.Row = uint32(len(p.arrived.Rows) - 1)
	p.arrived.Exemplars = append(p.arrived.Exemplars, e)
	return nil
}

func (p *lineReader) checkExemplar(e *arrival.Exemplar) error {
	p.sets.Clear()
	e.Labels.Range(func(l labels.Label) {
		if l.Name != model.MetricNameLabel {
			p.sets.Add(l.Name, l.Value)
		}
	})
	var err error
	e.Labels, err = p.sets.Exemplar()
	return err
}

// parseExemplar reads {labels} value [timestamp].
func (p *lineReader) parseExemplar(b []byte) (e arrival.Exemplar, err error) {
	if len(b) == 0 || b[0] != '{' {
		return e, errExemplarEnd
	}
	end := seriesEnd(b)
	if end < 0 {
		return e, errExemplarEnd
	}
	p.scratch[1] = append(append(p.scratch[1][:0], 'x'), b[:end]...)
	if e.Labels, err = p.parse(p.scratch[1]); err != nil {
		return e, err
	}
	text, rest := field(b[end:])
	bits, ok := parseFloat(text)
	if !ok {
		return e, errNoValue
	}
	e.Value = floatOf(bits)
	if text, rest = field(rest); len(text) == 0 {
		return e, nil
	}
	if e.Ts, ok = parseSeconds(text); !ok {
		return e, fmt.Errorf("%s is no timestamp", quoted(text))
	}
	e.HasTs = true
	if text, _ = field(rest); len(text) > 0 {
		return e, errTrailing
	}
	return e, nil
}
