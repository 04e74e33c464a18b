// Package wire is an intake over HTTP: a Target that talks to a running server, and the handlers of that
// server over a Target of its own.
//
// Three requests, all POST, bodies and good answers being streams of frames (see frame.go and records.go):
//
//	/api/v1/admin/intake/resolve       label sets, end        answers refs, end
//	/api/v1/admin/intake/day?start=ms  series of a day, end   answers the report, digests, end
//	/api/v1/admin/intake/write         series, end            answers the report, end
//
// A request of a day asks with "Expect: 100-continue": the server says "100 Continue" when it has the lease, and else answers
// at once, so no sample travels in vain. The lease is as long as the request. The server commits only if the last
// frame came and its counts fit, so a cut connection leaves nothing. A sender that has nothing to send says so
// from time to time; one that falls silent loses the lease. While the server commits, it too says that it is alive.
//
// Errors before an answer has begun have a status and a small JSON text with a word that says which of intake's errors
// it is; later ones are a frame of the same. Content-Type carries the version of the protocol.
//
// Memory on both sides is bounded by the limits below, whatever the other side sends: frames, label sets, and each chunk are
// looked at before they are used.
package wire

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"varve/intake"
)

// archiveHeader of an answer names the archive that it comes from.
const archiveHeader = "X-Varve-Archive"

// contentType of bodies and answers. Its number is the version of the protocol: one that this package doesn't know is refused.
const contentType = "application/x-varve-intake; version=1"

// The paths.
const (
	pathResolve = "/api/v1/admin/intake/resolve"
	pathDay     = "/api/v1/admin/intake/day"
	pathWrite   = "/api/v1/admin/intake/write"
)

// Limits that both sides know. A series of a day is one record in one frame, whatever its length; other frames are made
// shorter than frameBytesUsual, or little longer.
const (
	frameBytesUsual = 1 << 20
	frameBytesMax   = 64 << 20
	// requestBytesMax bounds a request to resolve or write.
	requestBytesMax = 16 << 20
)

// code says what went wrong. The words are on the wire and never change their meaning.
type code string

const (
	codeTaken       code = "day_taken"
	codeBusy        code = "busy"
	codeRefused     code = "day_refused"
	codeUnavailable code = "unavailable"
	codeMalformed   code = "malformed"
	codeTooLarge    code = "too_large"
	codeVersion     code = "version"
	codeInternal    code = "internal"
)

// statuses are the HTTP statuses of codes.
var statuses = map[code]int{
	codeTaken:       http.StatusConflict,
	codeBusy:        http.StatusServiceUnavailable,
	codeRefused:     http.StatusUnprocessableEntity,
	codeUnavailable: http.StatusServiceUnavailable,
	codeMalformed:   http.StatusBadRequest,
	codeTooLarge:    http.StatusRequestEntityTooLarge,
	codeVersion:     http.StatusUnsupportedMediaType,
	codeInternal:    http.StatusInternalServerError,
}

// sentinels are the errors of intake that survive the wire.
var sentinels = map[code]error{
	codeTaken:   intake.ErrDayTaken,
	codeBusy:    intake.ErrBusy,
	codeRefused: intake.ErrDayRefused,
}

// fault is an error as it travels.
type fault struct {
	Code code   `json:"errorType"`
	Text string `json:"error"`
	// after is when to try again.
	after time.Duration
}

// Error implements error.
func (f *fault) Error() string { return f.Text }

// Is makes a fault equal to the error of intake that it stands for.
func (f *fault) Is(target error) bool {
	sentinel, ok := sentinels[f.Code]
	return ok && target == sentinel
}

// passing says whether the same request may succeed later.
func (f *fault) passing() bool { return f.Code == codeBusy || f.Code == codeUnavailable }

// faultTextMax bounds the text of an error.
const faultTextMax = 1000

// respond answers with the fault, if no answer has begun.
func (f *fault) respond(w http.ResponseWriter) {
	if f.passing() {
		seconds := max(1, int64((f.after+time.Second-1)/time.Second))
		w.Header().Set("Retry-After", strconv.FormatInt(seconds, 10))
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(statuses[f.Code])
	text, err := json.Marshal(struct {
		Status string `json:"status"`
		*fault
	}{"error", f})
	if err == nil {
		_, _ = w.Write(append(text, '\n')) // Nobody is left to tell.
	}
}

// appendFault appends a frame: the code, the text, after how many ms to try again.
func appendFault(dst []byte, f *fault) []byte {
	at := len(dst)
	dst = appendString(beginFrame(dst), string(f.Code))
	dst = appendString(dst, f.Text[:min(len(f.Text), faultTextMax)])
	dst = binary.AppendUvarint(dst, uint64(max(0, f.after.Milliseconds())))
	endFrame(dst[at:], kindFault)
	return dst
}

// retryAfterMax bounds how long the other side can make this one wait.
const retryAfterMax = 10 * time.Minute

func readFault(b []byte) error {
	p := payload{b: b}
	f := &fault{Code: code(p.bytes()), Text: string(p.bytes())}
	f.after = time.Duration(min(p.uvarint(), uint64(retryAfterMax.Milliseconds()))) * time.Millisecond
	if err := p.end(); err != nil {
		return err
	}
	return f
}

// errUnexpected is a frame that has no place where it came.
func errUnexpected(k kind) error {
	return fmt.Errorf("%w: a frame of kind %d where none belongs", ErrMalformed, k)
}

// asFault says what to tell the other side about an error.
func asFault(err error, unavailable func(error) (time.Duration, bool)) *fault {
	f := &fault{Code: codeInternal, Text: err.Error()}
	var own *fault
	switch {
	case errors.As(err, &own):
		return own
	case errors.Is(err, errTooLarge):
		f.Code = codeTooLarge
	case errors.Is(err, ErrMalformed), errors.Is(err, intake.ErrBadChunk):
		f.Code = codeMalformed
	case errors.Is(err, intake.ErrDayTaken):
		f.Code = codeTaken
	case errors.Is(err, intake.ErrBusy):
		f.Code, f.after = codeBusy, busyWait
	case errors.Is(err, intake.ErrDayRefused):
		f.Code = codeRefused
	default:
		if unavailable != nil {
			if after, ok := unavailable(err); ok {
				f.Code, f.after = codeUnavailable, after
			}
		}
	}
	return f
}

// busyWait is what a client is told to wait where another job is at work.
const busyWait = 5 * time.Second
