package load

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"varve/benchmarks/wire"
)

// lane is one connection with its requests.
type lane struct {
	fd     int
	frames []wire.Frame
	// done counts the acknowledged frames; the frame with that index is under way
	// if waiting is set.
	done    int
	waiting bool
	began   time.Time

	prefix []byte // the request head up to the length
	head   []byte
	// headLeft and bodyLeft are what is still to be written; blocked says that the
	// socket takes no more for now.
	headLeft, bodyLeft []byte
	vector             [][]byte
	blocked            bool
	answer             []byte
}

// dial opens the connection of a lane.
func dial(target Target, frames []wire.Frame) (*lane, error) {
	address, err := netip.ParseAddrPort(target.Address)
	if err != nil || !address.Addr().Is4() || !address.Addr().IsLoopback() {
		return nil, fmt.Errorf("load: %q is not an IPv4 loopback address with a port", target.Address)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("load: open socket: %w", err)
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(address.Port()), Addr: address.Addr().As4()}); err != nil {
		return nil, errors.Join(fmt.Errorf("load: connect to %s: %w", target.Address, err), unix.Close(fd))
	}
	err = errors.Join(unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1), unix.SetNonblock(fd, true))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("load: set up socket: %w", err), unix.Close(fd))
	}
	return &lane{fd: fd, frames: frames, prefix: requestHead(target)}, nil
}

// requestHead is the head of every request to a target, up to the length.
func requestHead(target Target) []byte {
	head := fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: varve-benchmarks\r\n", target.Path, target.Address)
	switch {
	case target.ContentType != "":
		head = fmt.Appendf(head, "Content-Type: %s\r\n", target.ContentType)
		if target.Encoding != "" {
			head = fmt.Appendf(head, "Content-Encoding: %s\r\n", target.Encoding)
		}
	case target.Protocol == 2:
		head = append(head, "Content-Encoding: snappy\r\nContent-Type: application/x-protobuf;proto=io.prometheus.write.v2.Request\r\n"+
			"X-Prometheus-Remote-Write-Version: 2.0.0\r\n"...)
	default:
		head = append(head, "Content-Encoding: snappy\r\nContent-Type: application/x-protobuf\r\nX-Prometheus-Remote-Write-Version: 0.1.0\r\n"...)
	}
	return append(head, "Content-Length: "...)
}

// round is the round of the next frame, far ahead if there is none.
func (l *lane) round() int {
	if l.done == len(l.frames) {
		return 1 << 61
	}
	return l.frames[l.done].LastRound
}

// begin makes the next frame the one under way.
func (l *lane) begin() {
	body := l.frames[l.done].Body
	l.head = strconv.AppendInt(append(l.head[:0], l.prefix...), int64(len(body)), 10)
	l.head = append(l.head, "\r\n\r\n"...)
	l.headLeft, l.bodyLeft = l.head, body
	l.answer = l.answer[:0]
	l.waiting = true
	l.began = time.Now()
}

// write writes what the socket takes.
func (l *lane) write() error {
	for len(l.headLeft)+len(l.bodyLeft) > 0 {
		l.vector = append(l.vector[:0], l.headLeft, l.bodyLeft)
		if len(l.headLeft) == 0 {
			l.vector = append(l.vector[:0], l.bodyLeft)
		}
		n, err := unix.Writev(l.fd, l.vector)
		switch {
		case errors.Is(err, unix.EAGAIN):
			l.blocked = true
			return nil
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("%w: write: %w", errBroken, err)
		}
		fromHead := min(n, len(l.headLeft))
		l.headLeft, l.bodyLeft = l.headLeft[fromHead:], l.bodyLeft[n-fromHead:]
	}
	l.blocked = false
	return nil
}

// read takes in what has arrived and reports whether the answer is complete.
func (l *lane) read(scratch []byte) (bool, error) {
	n, err := unix.Read(l.fd, scratch)
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("%w: read: %w", errBroken, err)
	case n == 0:
		return false, fmt.Errorf("%w: closed by the server", errBroken)
	}
	l.answer = append(l.answer, scratch[:n]...)
	status, body, complete, err := parseAnswer(l.answer)
	switch {
	case err != nil:
		return false, err
	case !complete:
		return false, nil
	case status/100 != 2:
		return false, fmt.Errorf("%w: status %d: %.300q", ErrRefused, status, body)
	case !l.waiting:
		return false, fmt.Errorf("%w: an answer nobody asked for", errBroken)
	}
	return true, nil
}

// parseAnswer reads a response as far as it has arrived.
func parseAnswer(answer []byte) (status int, body []byte, complete bool, err error) {
	end := bytes.Index(answer, []byte("\r\n\r\n"))
	if end < 0 {
		if len(answer) > 32<<10 {
			return 0, nil, false, fmt.Errorf("%w: endless response head", errBroken)
		}
		return 0, nil, false, nil
	}
	head, body := answer[:end], answer[end+4:]
	if len(head) < 12 || !bytes.HasPrefix(head, []byte("HTTP/1.")) {
		return 0, nil, false, fmt.Errorf("%w: not an HTTP response: %.40q", errBroken, head)
	}
	if status, err = strconv.Atoi(string(head[9:12])); err != nil {
		return 0, nil, false, fmt.Errorf("%w: not an HTTP status: %.40q", errBroken, head)
	}
	if status == 204 {
		return status, nil, true, nil
	}
	length := 0
	for _, line := range bytes.Split(head, []byte("\r\n"))[1:] {
		name, value, _ := bytes.Cut(line, []byte(":"))
		if bytes.EqualFold(name, []byte("Content-Length")) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return 0, nil, false, fmt.Errorf("%w: content length: %w", errBroken, err)
			}
		}
	}
	return status, body, len(body) >= length, nil
}
