// Package load sends prepared writes, by remote write or otherwise, over kept-alive HTTP/1.1
// connections and measures how they are answered.
//
// A lane is the list of requests of one connection: each is sent when the one
// before it was answered. All lanes run on the calling goroutine, over one epoll
// set and raw sockets: the load shares the machine with the server it measures, so
// it must cost next to nothing. Nothing is encoded, compressed or allocated while
// the clock runs.
//
// The client understands what servers answer to a write (a status, maybe a
// short body with Content-Length) and nothing else. It does not retry: an answer
// other than 2xx, or a broken connection, ends the run, and the report says how
// far it came.
//
// Run is safe to call from several goroutines, each with its own lanes.
package load

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"varve/benchmarks/wire"
)

// Target is where requests go.
type Target struct {
	// Address is an IPv4 address on the loopback with its port.
	Address string
	Path    string
	// Protocol is the version of remote write, 1 or 2.
	Protocol int
	// ContentType, if set, says that requests are no remote write; Encoding is then that
	// of their bodies, empty for none.
	ContentType, Encoding string
}

// Options bound a run. Zero values mean no bound, apart from Timeout.
type Options struct {
	// For is when to stop sending; what is under way is waited for.
	For time.Duration
	// Until, when it is closed, does as much.
	Until <-chan struct{}
	// Timeout is how long to wait without any answer. Zero means a minute.
	Timeout time.Duration
	// SamplesPerSecond paces the run.
	SamplesPerSecond int
	// LeadRoundsMax is how many rounds a lane may be ahead of the slowest: some
	// servers refuse samples that are an hour older than their newest.
	LeadRoundsMax int
	// Progress, if set, is called about once a second with the samples
	// acknowledged so far.
	Progress func(acknowledged int64)
}

// Report is what a run saw.
type Report struct {
	// Acknowledged counts the samples, Requests the requests, BodyBytes their
	// compressed bodies, answered by 2xx.
	Acknowledged, Requests, BodyBytes int64
	Elapsed                           time.Duration
	// Latencies are the times from the first byte sent to the answer, sorted.
	Latencies []time.Duration
	// Done is the number of acknowledged frames of each lane; the next one may
	// have been sent.
	Done []int
}

// ErrRefused is an answer other than 2xx.
var ErrRefused = errors.New("load: request refused")

// errBroken is a connection that ended.
var errBroken = errors.New("load: connection broken")

// run is the state of Run.
type run struct {
	target  Target
	options Options
	epoll   int
	lanes   []*lane
	report  Report
	started time.Time
	sent    int64
	open    int // lanes that wait for an answer
	left    int // lanes that have frames left to send
	stopped bool
	turn    int // the lane that may send first
	scratch [64 << 10]byte
}

// Run sends all frames of all lanes, within the bounds. The report is valid also
// if there is an error.
func Run(ctx context.Context, target Target, frames [][]wire.Frame, options Options) (Report, error) {
	if options.Timeout == 0 {
		options.Timeout = time.Minute
	}
	r := &run{target: target, options: options, epoll: -1}
	defer r.close()
	if err := r.connect(frames); err != nil {
		return r.report, err
	}
	r.started = time.Now()
	err := r.loop(ctx)
	r.report.Elapsed = time.Since(r.started)
	for _, l := range r.lanes {
		r.report.Done = append(r.report.Done, l.done)
	}
	slices.Sort(r.report.Latencies)
	return r.report, err
}

// connect opens all connections and makes room for all latencies.
func (r *run) connect(frames [][]wire.Frame) error {
	var err error
	if r.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("load: create epoll set: %w", err)
	}
	total := 0
	for i, list := range frames {
		total += len(list)
		l, err := dial(r.target, list)
		if err != nil {
			return err
		}
		r.lanes = append(r.lanes, l)
		event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)}
		if err := unix.EpollCtl(r.epoll, unix.EPOLL_CTL_ADD, l.fd, &event); err != nil {
			return fmt.Errorf("load: watch connection: %w", err)
		}
		if len(list) > 0 {
			r.left++
		}
	}
	r.report.Latencies = make([]time.Duration, 0, total)
	return nil
}

// loop sends and receives until nothing is left.
func (r *run) loop(ctx context.Context) error {
	events := make([]unix.EpollEvent, len(r.lanes))
	heard, told := r.started, r.started
	for {
		if err := r.sendDue(); err != nil {
			return err
		}
		if r.open == 0 && (r.left == 0 || r.stopped) {
			return nil
		}
		n, err := unix.EpollWait(r.epoll, events, r.waitMillis())
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("load: wait for answers: %w", err)
		}
		now := time.Now()
		if n > 0 {
			heard = now
		} else if r.open > 0 && now.Sub(heard) > r.options.Timeout {
			return fmt.Errorf("load: no answer within %s", r.options.Timeout)
		}
		for _, event := range events[:max(n, 0)] {
			if err := r.serve(r.lanes[event.Fd], int(event.Fd), event.Events, now); err != nil {
				return err
			}
		}
		if now.Sub(told) > time.Second {
			told = now
			if r.options.Progress != nil {
				r.options.Progress(r.report.Acknowledged)
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		r.stopped = r.stopped || r.isOver(now)
	}
}

// isOver tells that a run of bounded time ends: with one request at least, however late the machine comes to send it.
func (r *run) isOver(now time.Time) bool {
	if r.sent == 0 {
		return false
	}
	select {
	case <-r.options.Until:
		return true
	default:
		return r.options.For > 0 && now.Sub(r.started) > r.options.For
	}
}

// waitMillis is how long to wait for events: briefly if pacing holds lanes back.
func (r *run) waitMillis() int {
	if r.options.SamplesPerSecond > 0 && r.open < len(r.lanes) {
		return 1
	}
	return 100
}

// sendDue sends the next frame of every idle lane that may send.
func (r *run) sendDue() error {
	if r.stopped || r.left == 0 || r.open == len(r.lanes) {
		return nil
	}
	allowed := int64(1) << 62
	if r.options.SamplesPerSecond > 0 {
		allowed = int64(time.Since(r.started).Seconds() * float64(r.options.SamplesPerSecond))
	}
	slowest := 1 << 62
	if r.options.LeadRoundsMax > 0 {
		for _, l := range r.lanes {
			slowest = min(slowest, l.round())
		}
		slowest += r.options.LeadRoundsMax
	}
	first := r.turn
	for n := range r.lanes {
		// By turns, as a pace could keep some lanes idle for so long that the server hangs up.
		i := (first + n) % len(r.lanes)
		l := r.lanes[i]
		if l.waiting || l.done == len(l.frames) || l.round() > slowest {
			continue
		}
		if r.sent >= allowed {
			return nil
		}
		r.sent += int64(l.frames[l.done].Samples)
		r.open++
		r.turn = i + 1
		l.begin()
		if err := r.push(l, i); err != nil {
			return err
		}
	}
	return nil
}

// push writes what the socket takes and watches for room if some is left.
func (r *run) push(l *lane, index int) error {
	blocked := l.blocked
	if err := l.write(); err != nil {
		return err
	}
	if l.blocked != blocked {
		event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(index)}
		if l.blocked {
			event.Events |= unix.EPOLLOUT
		}
		if err := unix.EpollCtl(r.epoll, unix.EPOLL_CTL_MOD, l.fd, &event); err != nil {
			return fmt.Errorf("load: watch connection: %w", err)
		}
	}
	return nil
}

// serve handles the events of one lane.
func (r *run) serve(l *lane, index int, events uint32, now time.Time) error {
	if events&unix.EPOLLOUT != 0 {
		if err := r.push(l, index); err != nil {
			return err
		}
	}
	if events&^unix.EPOLLOUT == 0 {
		return nil
	}
	complete, err := l.read(r.scratch[:])
	if err != nil || !complete {
		return err
	}
	frame := &l.frames[l.done]
	r.report.Latencies = append(r.report.Latencies, now.Sub(l.began))
	r.report.Acknowledged += int64(frame.Samples)
	r.report.BodyBytes += int64(len(frame.Body))
	r.report.Requests++
	r.open--
	l.waiting = false
	if l.done++; l.done == len(l.frames) {
		r.left--
	}
	return nil
}

// close ends all connections.
func (r *run) close() {
	for _, l := range r.lanes {
		unix.Close(l.fd)
	}
	if r.epoll >= 0 {
		unix.Close(r.epoll)
	}
}

// Percentile is the smallest latency that share of all (0 to 1) do not exceed:
// the nearest rank. Sorted must be sorted; the answer for none is zero.
func Percentile(sorted []time.Duration, share float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(share*float64(len(sorted)) + 0.9999999)
	return sorted[min(max(rank, 1), len(sorted))-1]
}
