package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"varve/digest"
	"varve/intake"
)

var nilLabels = labels.EmptyLabels()

// gateWait is how long a day waits for the server to say that the lease is there, before it sends anyway: a proxy may
// have kept that to itself. The server may have to bring its memory of the day to disk first.
const gateWait = 30 * time.Second

// OpenDay implements intake.Target.
func (t *Target) OpenDay(ctx context.Context, startMillis int64) (intake.Day, error) {
	if t.o.Forward {
		return nil, fmt.Errorf("%w, or might have: outputs read what comes through the write port", intake.ErrDayTaken)
	}
	t.mu.Lock()
	before := t.cuts[startMillis]
	t.mu.Unlock()
	if before.times > 1 {
		if err := t.o.Wait(ctx, min(waitFirst<<min(before.times, 10), waitMax)); err != nil {
			return nil, err
		}
	}
	var d *day
	err := t.again(ctx, func() (err error) {
		d, err = t.openDay(ctx, startMillis)
		if errors.Is(err, intake.ErrBusy) {
			// Whoever asked knows better when to try again.
			return &busy{err}
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("lease the day: %w", err)
	}
	return d, nil
}

// busy hides that an error passes.
type busy struct{ err error }

func (b *busy) Error() string        { return b.err.Error() }
func (b *busy) Is(target error) bool { return target == intake.ErrBusy }

// day is a leased day: one request under way. Add, Commit, Digests and Close are for one goroutine.
//
//	Add ──> buf ──> pipe ──> request body ──> server
//	Commit, Digests <── frames <── answer <──┘
type day struct {
	t      *Target
	start  int64
	caller context.Context
	cancel context.CancelCauseFunc
	ctx    context.Context
	// watch ends the request when nothing moves.
	watch *time.Timer

	mu    sync.Mutex // guards what follows against the ticker
	pipe  *io.PipeWriter
	buf   []byte
	tally tally
	// moved says that something was sent since the ticker looked.
	moved bool
	over  bool // nothing more is to be sent

	// done is closed when the request has an answer, or failed.
	done   chan struct{}
	answer *http.Response
	err    error
	ticker chan struct{} // closed when the ticker has ended
	frames frameReader
	closed bool
}

// gate is a request body that gives nothing before it is opened.
type gate struct {
	*io.PipeReader
	open  chan struct{}
	once  *sync.Once
	ended <-chan struct{}
}

func (g *gate) unlock() { g.once.Do(func() { close(g.open) }) }

// Read implements io.Reader.
func (g *gate) Read(p []byte) (int, error) {
	select {
	case <-g.open:
		return g.PipeReader.Read(p)
	case <-g.ended:
		return 0, io.ErrClosedPipe
	}
}

// openDay makes one request and returns when the server has taken it or not.
func (t *Target) openDay(caller context.Context, startMillis int64) (*day, error) {
	ctx, cancel := context.WithCancelCause(caller)
	from, to := io.Pipe()
	g := &gate{PipeReader: from, open: make(chan struct{}), once: &sync.Once{}, ended: ctx.Done()}
	u := t.o.URL.JoinPath(pathDay)
	u.RawQuery = url.Values{"start": {strconv.FormatInt(startMillis, 10)}}.Encode()
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got100Continue: g.unlock})
	r, err := http.NewRequestWithContext(traced, http.MethodPost, u.String(), g)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	r.Header.Set("Content-Type", contentType)
	r.Header.Set("Expect", "100-continue")
	d := &day{
		t: t, start: startMillis, caller: caller, cancel: cancel, ctx: ctx, pipe: to, done: make(chan struct{}), ticker: make(chan struct{}),
		watch: time.AfterFunc(t.o.Stalled, func() { cancel(t.stalled()) }),
	}
	d.buf = beginFrame(make([]byte, 0, frameBytesUsual+frameBytesUsual/4))
	go func() {
		defer close(d.done)
		a, err := t.client.Do(r)
		switch {
		case err != nil:
			err = &broken{cause(ctx, err)}
		default:
			if err = answered(a); err != nil {
				a.Body.Close()
			} else {
				d.answer = a
			}
		}
		d.err = err
		if err != nil {
			to.CloseWithError(err)
		}
	}()
	impatient := time.AfterFunc(gateWait, g.unlock)
	defer impatient.Stop()
	select {
	case <-g.open:
		go d.tick()
		return d, nil
	case <-d.done:
		err := d.err
		if err == nil {
			err = fmt.Errorf("%w: an answer before anything was asked", ErrMalformed)
		}
		close(d.ticker)
		return nil, errors.Join(err, d.Close())
	}
}

// tick tells the server from time to time that the day goes on.
func (d *day) tick() {
	defer close(d.ticker)
	tick := time.NewTicker(d.t.o.Alive)
	defer tick.Stop()
	for {
		select {
		case <-d.ctx.Done():
			return
		case <-d.done:
			return
		case <-tick.C:
		}
		d.mu.Lock()
		if d.over {
			d.mu.Unlock()
			return
		}
		if !d.moved {
			// An error ends the request, and whoever adds next learns of it.
			_ = d.write(aliveFrame())
		}
		d.moved = false
		d.mu.Unlock()
	}
}

// write sends bytes. The lock is held.
func (d *day) write(b []byte) error {
	d.moved = true
	d.watch.Reset(d.t.o.Stalled)
	_, err := d.pipe.Write(b)
	if err != nil && errors.Is(err, io.ErrClosedPipe) {
		// The transport closed its end: what the request came to says why.
		<-d.done
		if d.err != nil {
			err = d.err
		}
	}
	return err
}

// flush sends the frame that is gathered. The lock is held.
func (d *day) flush() error {
	if len(d.buf) == frameHeadBytes {
		return nil
	}
	endFrame(d.buf, kindDay)
	err := d.write(d.buf)
	if cap(d.buf) > 4*frameBytesUsual {
		d.buf = make([]byte, 0, frameBytesUsual+frameBytesUsual/4)
	}
	d.buf = beginFrame(d.buf[:0])
	return err
}

// judge turns a request that broke off, or that the server can't go on with for now, into the wish to begin the day anew, for as long as
// patience lasts.
func (d *day) judge(err error) error {
	var b *broken
	var f *fault
	if !errors.As(err, &b) && !(errors.As(err, &f) && f.Code == codeUnavailable) || d.caller.Err() != nil {
		return err
	}
	d.t.mu.Lock()
	defer d.t.mu.Unlock()
	c, now := d.t.cuts[d.start], time.Now()
	if c.times == 0 {
		c.since = now
	}
	c.times++
	d.t.cuts[d.start] = c
	if now.Sub(c.since) > d.t.o.Patience {
		return fmt.Errorf("%w; gave up after %s: run the same command again to go on", err, d.t.o.Patience)
	}
	return fmt.Errorf("%w: %w", intake.ErrReadAgain, err)
}

// Add implements intake.Day. If it or Commit is intake.ErrReadAgain, the connection broke, or the server stops: nothing of the day is
// there, or all of it, and it is to be opened again.
func (d *day) Add(ref uint64, chunks []intake.Chunk) error {
	return d.judge(d.add(ref, chunks))
}

func (d *day) add(ref uint64, chunks []intake.Chunk) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.over {
		return errors.New("add to a day that is over")
	}
	size := 0
	for i := range chunks {
		size += len(chunks[i].Chunk.Bytes())
	}
	if len(d.buf) > frameHeadBytes && len(d.buf)+size > frameBytesUsual {
		if err := d.flush(); err != nil {
			return err
		}
	}
	at := len(d.buf)
	var n, samples uint64
	d.buf = binary.AppendUvarint(d.buf, ref)
	d.buf, n, samples = appendChunks(d.buf, chunks)
	if n == 0 {
		d.buf = d.buf[:at]
		return nil
	}
	if len(d.buf)-frameHeadBytes > frameBytesMax {
		return fmt.Errorf("a series of %d bytes on one day, at most %d can be sent: import these blocks on the server's machine with --data", len(d.buf), frameBytesMax)
	}
	d.tally.series++
	d.tally.chunks += n
	d.tally.samples += samples
	if len(d.buf) >= frameBytesUsual {
		return d.flush()
	}
	return nil
}

// Commit implements intake.Day.
func (d *day) Commit(ctx context.Context) (report intake.DayReport, err error) {
	report, err = d.commit(ctx)
	if ctx.Err() != nil {
		return report, err
	}
	if err == nil {
		d.t.mu.Lock()
		delete(d.t.cuts, d.start)
		d.t.mu.Unlock()
	}
	return report, d.judge(err)
}

func (d *day) commit(ctx context.Context) (report intake.DayReport, err error) {
	defer d.endWith(ctx)()
	if err := d.finish(); err != nil {
		return report, fmt.Errorf("commit the day: %w", err)
	}
	<-d.done // The context ends it too.
	if d.err != nil {
		return report, fmt.Errorf("commit the day: %w", d.err)
	}
	d.frames = frameReader{from: &watched{from: d.answer.Body, watch: d.watch, limit: d.t.o.Stalled}, max: frameBytesMax}
	k, b, err := d.next()
	if err == nil && k != kindDayReport {
		err = errUnexpected(k)
	}
	if err == nil {
		report, err = readDayReport(b)
	}
	if err != nil {
		return report, fmt.Errorf("commit the day: %w", err)
	}
	return report, nil
}

// finish sends what is left and that it is all.
func (d *day) finish() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.over {
		return errors.New("the day is over")
	}
	d.over = true
	if err := d.flush(); err != nil {
		return err
	}
	if err := d.write(appendEnd(nil, d.tally)); err != nil {
		return err
	}
	return d.pipe.Close()
}

// endWith ends the request if another context ends, until what it returns is called.
func (d *day) endWith(ctx context.Context) func() {
	stop := context.AfterFunc(ctx, func() { d.cancel(context.Cause(ctx)) })
	return func() { stop() }
}

// next returns the next frame that says something.
func (d *day) next() (kind, []byte, error) {
	for {
		k, b, err := d.frames.next()
		switch {
		case err != nil:
			return 0, nil, &broken{cause(d.ctx, err)}
		case k == kindFault:
			return 0, nil, readFault(b)
		case k != kindAlive:
			return k, b, nil
		}
	}
}

// Digests implements intake.Day. It can be called once. If it is intake.ErrReadAgain, the connection broke: the day is there, and
// who opens it again is told so.
func (d *day) Digests(ctx context.Context, each func(ref uint64, s digest.Series) error) error {
	err := d.digests(ctx, each)
	if ctx.Err() != nil {
		return err
	}
	return d.judge(err)
}

func (d *day) digests(ctx context.Context, each func(ref uint64, s digest.Series) error) error {
	defer d.endWith(ctx)()
	if d.frames.from == nil {
		return errors.New("digests of a day that isn't committed")
	}
	var t tally
	for {
		k, b, err := d.next()
		if err != nil {
			return fmt.Errorf("read digests: %w", err)
		}
		switch k {
		case kindDigests:
			if err := readDigests(b, &t, each); err != nil {
				return err
			}
		case kindEnd:
			return checkEnd(b, t)
		default:
			return errUnexpected(k)
		}
	}
}

// errGivenUp is why a request ends of which nothing is to stay.
var errGivenUp = errors.New("the day was given up")

// Close implements intake.Day. A day that isn't committed ends with its connection, which the server notices.
func (d *day) Close() error {
	if d.closed {
		return nil
	}
	d.closed = true
	d.watch.Stop()
	d.cancel(errGivenUp)
	d.pipe.CloseWithError(errGivenUp)
	<-d.done
	<-d.ticker
	if d.answer != nil {
		return d.answer.Body.Close()
	}
	return nil
}
