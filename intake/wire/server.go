package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"varve/digest"
	"varve/intake"
)

// HandlerOptions is what the server's side is made of.
type HandlerOptions struct {
	Target intake.Target
	// Forwarding is the target of clients that want outputs to get what goes through the write port. nil: they are
	// refused.
	Forwarding intake.Target
	// Archive tells the archive from one that is made anew, or restored, at the same address. Text that a header can hold.
	Archive string
	// Unavailable says whether an error of the target will pass, and when to try again.
	Unavailable func(error) (after time.Duration, ok bool)
	// Idle is how long a sender may be silent, and a receiver slow. 0: a minute.
	Idle time.Duration
	// Stalled is how long a sender may say that it is there and send no samples: other jobs wait for the day's lease. 0: ten minutes.
	Stalled time.Duration
}

// Limits of a server.
const (
	idleUsual    = time.Minute
	stalledServe = 10 * time.Minute
	// requestsMax is how many requests to resolve and to write are at work at a time.
	requestsMax = 4
	// aliveEvery, as a part of the idle time, is how often somebody with nothing to say says so.
	aliveParts = 4
)

// server answers requests. Its methods may be called from several goroutines.
type server struct {
	o HandlerOptions
	// day is held by the one intake at a time.
	day   sync.Mutex
	slots chan struct{}
}

// Handlers returns what serves the server's side, by path, each for POST. Whoever may call them may write.
func Handlers(o HandlerOptions) map[string]http.Handler {
	if o.Idle == 0 {
		o.Idle = idleUsual
	}
	if o.Stalled == 0 {
		o.Stalled = stalledServe
	}
	s := &server{o: o, slots: make(chan struct{}, requestsMax)}
	return map[string]http.Handler{
		pathResolve: s.handle(s.inSlot(s.serveResolve)),
		pathDay:     s.handle(s.serveDay),
		pathWrite:   s.handle(s.inSlot(s.serveWrite)),
	}
}

// handle checks what all requests have in common and answers with the error.
func (s *server) handle(serve func(*exchange) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Content-Type"); got != contentType {
			f := &fault{Code: codeVersion, Text: fmt.Sprintf("this server takes %q, not %q: use the same version of varve on both sides", contentType, got)}
			f.respond(w)
			return
		}
		w.Header().Set(archiveHeader, s.o.Archive)
		x := &exchange{w: w, r: r, control: http.NewResponseController(w), idle: s.o.Idle}
		x.frames = frameReader{from: x, max: frameBytesMax}
		err := serve(x)
		if x.begun {
			// The connection may be used again. If the deadline can't be lifted, it breaks then, and the client connects anew.
			_ = x.control.SetWriteDeadline(time.Time{})
			return
		}
		if err == nil {
			return
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = fmt.Errorf("%w: nothing came for %s", ErrMalformed, s.o.Idle)
		}
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("%w: the stream ends early", ErrMalformed)
		}
		asFault(err, s.o.Unavailable).respond(w)
	})
}

// inSlot bounds how many requests are at work.
func (s *server) inSlot(serve func(*exchange) error) func(*exchange) error {
	return func(x *exchange) error {
		select {
		case s.slots <- struct{}{}:
			defer func() { <-s.slots }()
		default:
			return &fault{Code: codeBusy, Text: "the server is at work on as many intake requests as it takes", after: time.Second}
		}
		x.left = requestBytesMax
		x.bounded = true
		return serve(x)
	}
}

// exchange is one request with its answer. One goroutine uses it.
type exchange struct {
	w       http.ResponseWriter
	r       *http.Request
	control *http.ResponseController
	idle    time.Duration
	frames  frameReader
	out     []byte
	// left is what may still be read, if bounded.
	left    int64
	bounded bool
	begun   bool
}

// Read implements io.Reader over the body: in time, or it ends.
func (x *exchange) Read(p []byte) (int, error) {
	if x.bounded {
		if x.left == 0 {
			return 0, fmt.Errorf("%w: the request has more than %d bytes", errTooLarge, requestBytesMax)
		}
		p = p[:min(int64(len(p)), x.left)]
	}
	if err := x.control.SetReadDeadline(time.Now().Add(x.idle)); err != nil {
		return 0, fmt.Errorf("limit the time of reading: %w", err)
	}
	n, err := x.r.Body.Read(p)
	x.left -= int64(n)
	return n, err
}

// finish requires the body's end and lifts the deadline, which else would end the connection under what follows.
func (x *exchange) finish() error {
	x.bounded = false // Only an end is still to be read.
	if err := x.frames.ended(); err != nil {
		return err
	}
	return x.control.SetReadDeadline(time.Time{})
}

// send writes frames of the answer.
func (x *exchange) send(b []byte) error {
	if !x.begun {
		x.begun = true
		x.w.Header().Set("Content-Type", contentType)
	}
	if err := x.control.SetWriteDeadline(time.Now().Add(x.idle)); err != nil {
		return fmt.Errorf("limit the time of writing: %w", err)
	}
	_, err := x.w.Write(b)
	if err == nil {
		err = x.control.Flush()
	}
	return err
}

// over ends an answer that has begun with what went wrong.
func (x *exchange) over(err error, unavailable func(error) (time.Duration, bool)) error {
	if !x.begun {
		return err
	}
	return errors.Join(err, x.send(appendFault(x.out[:0], asFault(err, unavailable))))
}

// serveResolve resolves all of a request at once: a client sends no more than it takes.
func (s *server) serveResolve(x *exchange) error {
	var all []intake.Series
	var rec records
	for {
		k, b, err := x.frames.next()
		if err != nil {
			return err
		}
		switch k {
		case kindSeries:
			some, err := rec.series(b)
			if err != nil {
				return err
			}
			all = append(all, some...)
			continue
		case kindEnd:
			err = checkEnd(b, tally{series: uint64(len(all))})
		default:
			err = errUnexpected(k)
		}
		if err = errors.Join(err, x.finish()); err != nil {
			return err
		}
		break
	}
	if err := s.o.Target.Resolve(x.r.Context(), all); err != nil {
		return err
	}
	for i := range all {
		if all[i].Ref == 0 && all[i].Refused == "" {
			return fmt.Errorf("series %s was neither resolved nor refused", all[i].Labels)
		}
	}
	x.out = appendResolved(beginFrame(x.out[:0]), all)
	endFrame(x.out, kindResolved)
	return x.send(appendEnd(x.out, tally{series: uint64(len(all))}))
}

// serveWrite writes frame by frame. What was written before an error stays, and the same request may be made again.
func (s *server) serveWrite(x *exchange) error {
	target := s.o.Target
	if x.r.URL.Query().Get("forward") == "true" {
		if target = s.o.Forwarding; target == nil {
			return &fault{Code: codeMalformed, Text: "this server doesn't forward what is imported"}
		}
	}
	var rec records
	var t tally
	sum := intake.WriteReport{Reasons: map[string]uint64{}}
	for {
		k, b, err := x.frames.next()
		if err != nil {
			return err
		}
		switch k {
		case kindSamples:
			some, err := rec.samples(b, &t)
			if err != nil {
				return err
			}
			r, err := target.Write(x.r.Context(), some)
			if err != nil {
				return err
			}
			addReport(&sum, r)
			continue
		case kindEnd:
			err = checkEnd(b, t)
		default:
			err = errUnexpected(k)
		}
		if err = errors.Join(err, x.finish()); err != nil {
			return err
		}
		break
	}
	x.out = appendWriteReport(beginFrame(x.out[:0]), sum)
	endFrame(x.out, kindWriteReport)
	return x.send(appendEnd(x.out, t))
}

func addReport(sum *intake.WriteReport, r intake.WriteReport) {
	sum.Samples += r.Samples
	sum.Repeated += r.Repeated
	sum.Refused += r.Refused
	for reason, n := range r.Reasons {
		sum.Reasons[reason] += n
	}
}

// serveDay leases a day for as long as the request lasts.
func (s *server) serveDay(x *exchange) (err error) {
	start, err := strconv.ParseInt(x.r.URL.Query().Get("start"), 10, 64)
	if err != nil || start%intake.DayMillis != 0 || start > math.MaxInt64-intake.DayMillis {
		return &fault{Code: codeMalformed, Text: "start must be the first ms of a UTC day"}
	}
	if !s.day.TryLock() {
		return &fault{Code: codeBusy, Text: "another intake is under way: it takes one at a time", after: busyWait}
	}
	defer s.day.Unlock()
	ctx, cancel := context.WithCancel(x.r.Context())
	defer cancel()
	day, err := s.o.Target.OpenDay(ctx, start)
	if err != nil {
		return err
	}
	defer func() {
		if closing := day.Close(); closing != nil {
			err = errors.Join(err, fmt.Errorf("end the lease: %w", closing))
		}
	}()
	if err := s.takeDay(x, day); err != nil {
		return err
	}
	report, err := s.commit(ctx, x, day)
	if err != nil {
		return x.over(err, s.o.Unavailable)
	}
	if err := s.sendDigests(ctx, x, day, report); err != nil {
		return x.over(err, s.o.Unavailable)
	}
	return nil
}

// takeDay adds what comes until the last frame, and returns nil only if all came.
func (s *server) takeDay(x *exchange, day intake.Day) error {
	var rec records
	var t tally
	came := time.Now()
	for {
		k, b, err := x.frames.next()
		if err != nil {
			return err
		}
		switch k {
		case kindAlive:
			if time.Since(came) > s.o.Stalled {
				return &fault{Code: codeMalformed, Text: fmt.Sprintf("no samples came for %s, and other work waits for the day: import it again when its source gives them", s.o.Stalled)}
			}
		case kindDay:
			came = time.Now()
			if err := rec.daySeries(b, &t, day.Add); err != nil {
				return err
			}
		case kindEnd:
			return errors.Join(checkEnd(b, t), x.finish())
		default:
			return errUnexpected(k)
		}
	}
}

// commit commits, and tells the client that it is at it for as long as it takes.
func (s *server) commit(ctx context.Context, x *exchange, day intake.Day) (intake.DayReport, error) {
	type answer struct {
		report intake.DayReport
		err    error
	}
	done := make(chan answer, 1)
	go func() {
		var a answer
		a.report, a.err = day.Commit(ctx)
		done <- a
	}()
	tick := time.NewTicker(s.o.Idle / aliveParts)
	defer tick.Stop()
	for {
		select {
		case a := <-done:
			return a.report, a.err
		case <-tick.C:
			// A client that is gone ends the context, and Commit knows best what that means to it.
			_ = x.send(aliveFrame())
		}
	}
}

func aliveFrame() []byte {
	b := beginFrame(nil)
	endFrame(b, kindAlive)
	return b
}

// sendDigests sends the report and the digests.
func (s *server) sendDigests(ctx context.Context, x *exchange, day intake.Day, report intake.DayReport) error {
	x.out = appendDayReport(beginFrame(x.out[:0]), report)
	endFrame(x.out, kindDayReport)
	if err := x.send(x.out); err != nil {
		return err
	}
	var t tally
	x.out = beginFrame(x.out[:0])
	err := day.Digests(ctx, func(ref uint64, d digest.Series) error {
		t.series++
		t.samples += d.Samples
		x.out = appendDigest(x.out, ref, d)
		if len(x.out) < frameBytesUsual {
			return nil
		}
		endFrame(x.out, kindDigests)
		err := x.send(x.out)
		x.out = beginFrame(x.out[:0])
		return err
	})
	if err != nil {
		return err
	}
	if len(x.out) > frameHeadBytes {
		endFrame(x.out, kindDigests)
	} else {
		x.out = x.out[:0]
	}
	return x.send(appendEnd(x.out, t))
}
