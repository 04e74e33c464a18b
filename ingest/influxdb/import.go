package influxdb

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"

	"varve/arrival"
	"varve/ingest"
)

// ImportHandler returns the handler for POST /api/v1/import/influx: line protocol of any
// length, which is stored while it is read. Parameters: precision, db, rp, bucket,
// org and extra_label=name=value (repeated; in the place of a label of that name). The body may be compressed with gzip.
//
// The answer is an ImportReport in JSON: with status 200 when all of the body was read,
// whether lines were refused or not, and otherwise with the status of what ended it.
func (in *Input) ImportHandler() http.Handler { return http.HandlerFunc(in.serveImport) }

// ImportReport says what became of an import.
type ImportReport struct {
	// Lines are those that hold a point, good or not; Samples what is on disk.
	Lines   int `json:"lines"`
	Samples int `json:"samples"`
	// Refused counts lines that could not be read, and samples that were refused.
	Refused int `json:"refused"`
	// Dropped counts what the rules leave out, such as text.
	Dropped int `json:"dropped"`
	// Bytes is how much of the body, decompressed, is dealt with for good: whoever goes
	// on later may begin there, which is behind a line.
	Bytes int64 `json:"bytes"`
	// Examples are texts about the first things refused.
	Examples []string `json:"examples,omitempty"`
	// Error is what ended the import early.
	Error string `json:"error,omitempty"`
}

// readPause is how long the sender of an import may be silent.
const readPause = time.Minute

func (in *Input) serveImport(w http.ResponseWriter, r *http.Request) {
	in.head(w, r)
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		refuseV1(w, http.StatusMethodNotAllowed, "only POST is allowed")
		return
	}
	q := r.URL.Query()
	precision, err := ParsePrecision(q.Get("precision"))
	extra := in.names.extraLabels([requestParameters]string{q.Get("db"), q.Get("rp"), q.Get("bucket"), q.Get("org")})
	if err == nil {
		err = extra.force(q["extra_label"])
	}
	if err != nil {
		refuseV1(w, http.StatusBadRequest, err.Error())
		return
	}
	patient := &patientReader{r: r.Body, control: http.NewResponseController(w)}
	body, err := inflated(patient, r.Header.Get("Content-Encoding"))
	var report ImportReport
	if err == nil {
		report, err = in.importLines(r.Context(), body, precision, extra)
	}
	code := http.StatusOK
	if err != nil {
		var wait time.Duration
		code, wait = ingest.Status(err)
		if wait > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
		}
		report.Error = cut(err.Error(), in.limits.ErrorBytesMax)
		in.log(wayImport, r.RemoteAddr, code, report.Error)
	}
	answerJSON(w, code, report)
}

// patientReader gives every read of a body a deadline of its own: an import takes longer
// than a request may.
type patientReader struct {
	r       io.Reader
	control *http.ResponseController
}

// Read implements io.Reader.
func (p *patientReader) Read(b []byte) (int, error) {
	// A response that knows no deadlines has none in the way.
	_ = p.control.SetReadDeadline(time.Now().Add(readPause))
	n, err := p.r.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: %w", ingest.ErrReading, err)
	}
	return n, err
}

// inflated is the decompressed form of a body.
func inflated(r io.Reader, encoding string) (io.Reader, error) {
	switch strings.ToLower(encoding) {
	case "", "identity":
		return r, nil
	case "gzip", "x-gzip":
		unzip, err := gzip.NewReader(r)
		if err != nil {
			return nil, gzipError(err)
		}
		return &inflating{unzip}, nil
	}
	return nil, fmt.Errorf("%w %s: send gzip or identity", ingest.ErrEncoding, strconv.QuoteToASCII(cut(encoding, faultDigits)))
}

// inflating reads what gzip holds and tells broken gzip from a broken connection.
type inflating struct{ unzip *gzip.Reader }

// Read implements io.Reader.
func (i *inflating) Read(b []byte) (int, error) {
	n, err := i.unzip.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		// io.ReadFull says io.ErrUnexpectedEOF too, and that is no error.
		err = gzipError(err)
	}
	return n, err
}

func gzipError(err error) error {
	if errors.Is(err, ingest.ErrReading) {
		return err
	}
	return fmt.Errorf("%w gzip: %w", ingest.ErrMalformed, err)
}

// Import stores all lines that r holds, in pieces. Lines that are refused are in the
// report; an error is of r, or of the archive, and the report then says how far it came.
// It holds as much memory as two lines may have.
func (in *Input) Import(ctx context.Context, r io.Reader, precision Precision) (ImportReport, error) {
	return in.importLines(ctx, r, precision, extraLabels{})
}

func (in *Input) importLines(ctx context.Context, r io.Reader, precision Precision, extra extraLabels) (ImportReport, error) {
	size := int64(2 * in.lineBytesMax)
	if !in.limits.InFlight.TryAcquire(size) {
		return ImportReport{}, ingest.ErrOverload
	}
	defer in.limits.InFlight.Release(size)
	d := in.decoder(wayImport, precision, extra)
	returned := false
	defer func() {
		if !returned { // a panic: see writeHandler
			d.delivery.End(http.StatusServiceUnavailable)
		}
	}()
	durable, err := d.stream(ctx, r, make([]byte, size))
	returned = true
	d.delivery.Took(0, int(durable))
	result := d.delivery.Result()
	report := ImportReport{
		Lines: d.pointsRead, Samples: result.Samples, Refused: result.Rejected.Total(), Dropped: result.Dropped.Total(),
		Bytes: durable, Examples: d.allExamples(),
	}
	code := http.StatusOK
	if err != nil {
		code, _ = ingest.Status(err)
	}
	d.end(code)
	return report, err
}

// stream reads lines from r through the buffer, which holds two lines of the greatest
// length, and returns how many bytes of r are dealt with for good.
func (d *decoder) stream(ctx context.Context, r io.Reader, buffer []byte) (durable int64, err error) {
	filled, skipping := 0, false
	for {
		n, readErr := io.ReadFull(r, buffer[filled:])
		filled += n
		// Compared as ReadFull returns them: gzip that breaks off wraps the same error.
		final := readErr == io.EOF || readErr == io.ErrUnexpectedEOF
		d.body = buffer[:filled]
		at := 0
		if skipping {
			at, skipping = behindNewline(d.body)
		}
		// What is there of a body that broke off is stored as far as its lines are whole.
		at, err = d.lines(ctx, at, filled, final)
		if err == nil && !final && readErr == nil && filled-at >= d.in.lineBytesMax {
			at, skipping = d.refuseLong(at)
		}
		if err == nil {
			err = d.write(ctx)
		}
		if err != nil {
			return durable, err
		}
		d.delivery.Settled()
		durable += int64(at)
		filled = copy(buffer, buffer[at:filled])
		switch {
		case final:
			return durable, nil
		case readErr != nil:
			return durable, readErr
		}
	}
}

// WholeLines returns where the last line of b ends that is all there: text may hold newlines. What is behind it and longer
// than lineBytesMax counts as lines cut at every newline, since it has a quote that is never closed. It is for who sends a
// body in parts.
func WholeLines(b []byte, lineBytesMax int) int {
	var p point
	var names naming
	at := 0
	for at < len(b) {
		if _, fault := p.read(&names, b, at, false); errors.Is(fault, errMore) {
			break
		}
		at = p.next
	}
	if len(b)-at > lineBytesMax {
		return bytes.LastIndexByte(b, '\n') + 1
	}
	return at
}

// behindNewline returns where the next line begins in b, or that it begins behind it.
func behindNewline(b []byte) (at int, beyond bool) {
	if n := bytes.IndexByte(b, '\n'); n >= 0 {
		return n + 1, false
	}
	return len(b), true
}

// refuseLong refuses the line that fills the body from at on and has no end: it is too
// long, or has a quote that is not closed within what a line may have.
func (d *decoder) refuseLong(at int) (next int, skipping bool) {
	n, beyond := behindNewline(d.body[at:])
	fault := errQuotes
	if beyond {
		fault = errLineTooLong
	}
	p := &d.point
	p.start, p.end = at, at+n
	p.keyEnd = endOfKey(d.body[:p.end], at)
	d.pointsRead++
	d.refuseLine(p, p.end, fault)
	return at + n, beyond
}

// messages takes lines in messages.
type messages struct {
	in        *Input
	precision Precision
}

// Receiver returns a receiver of messages that hold lines with times of a precision.
func (in *Input) Receiver(p Precision) ingest.Receiver { return &messages{in, p} }

// Receive implements ingest.Receiver. A message of which no line can be read is malformed.
func (m *messages) Receive(ctx context.Context, message []byte, sent []ingest.Sent) (arrival.Result, error) {
	d := m.in.decoder(wayMessage, m.precision, extraLabels{})
	d.sent = sent
	d.delivery.Took(len(message), len(message))
	var err error
	if int64(len(message)) > m.in.limits.DecodedBytesMax {
		err = fmt.Errorf("%w: %d bytes, at most %d", ingest.ErrTooBig, len(message), m.in.limits.DecodedBytesMax)
	} else {
		err = d.all(ctx, message)
	}
	code, text, _ := d.answer(err)
	result := *d.delivery.Result()
	if err == nil && result.Samples+result.Dropped.Total() == 0 && result.Rejected[arrival.ReasonInvalidLine]+result.Rejected[arrival.ReasonInvalidLabels] > 0 {
		err = fmt.Errorf("%w: %s", ingest.ErrMalformed, text)
	}
	if code != http.StatusNoContent {
		m.in.log(wayMessage, "", code, text)
	}
	d.end(code)
	return result, err
}
