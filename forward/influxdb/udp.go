package influxdb

import (
	"context"
	"fmt"
	"net"

	"varve/forward"
	"varve/forward/payload"
)

// ReasonTooLong counts samples whose line no datagram carries.
const ReasonTooLong = "line_too_long"

// sendDatagrams sends a batch over UDP: as many lines in a datagram as fit, a longer line alone.
//
// The only error there can be is that the host said, in answer to an earlier datagram, that nobody listens, or
// that the network is away. Then the whole batch is sent again.
func (s *Sender) sendDatagrams(ctx context.Context, e *encoder, b *forward.Batch) (forward.Outcome, error) {
	p := payload.Get()
	defer p.Put()
	p.Data = e.encode(p.Data, b, &s.opts)
	from, to := 0, 0
	for _, l := range e.lines {
		if to > from && l.end-from > s.opts.DatagramBytesMax {
			if err := s.datagram(ctx, p.Data[from:to]); err != nil {
				return forward.Outcome{}, err
			}
			from = to
		}
		if l.end-from > datagramBytesMax {
			e.out.Skip(ReasonTooLong, 1)
			from = l.end
		}
		to = l.end
	}
	if to > from {
		if err := s.datagram(ctx, p.Data[from:to]); err != nil {
			return forward.Outcome{}, err
		}
	}
	return e.out, nil
}

func (s *Sender) datagram(ctx context.Context, content []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	conn, err := s.dial(ctx)
	if err == nil {
		if _, err = conn.Write(content); err != nil {
			s.hangUp(conn) // The name may stand for another address by now.
		}
	}
	if err != nil {
		return &forward.Retry{Err: fmt.Errorf("write to InfluxDB: %w", err)}
	}
	return nil
}

// dial resolves the address, unless that was done.
func (s *Sender) dial(ctx context.Context) (net.Conn, error) {
	s.udpMu.Lock()
	defer s.udpMu.Unlock()
	if s.udp != nil {
		return s.udp, nil
	}
	u, err := s.opts.parsed()
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	s.udp, err = d.DialContext(ctx, "udp", u.Host)
	return s.udp, err
}

// hangUp forgets the socket if it is conn, or in any case for nil.
func (s *Sender) hangUp(conn net.Conn) {
	s.udpMu.Lock()
	defer s.udpMu.Unlock()
	if s.udp != nil && (conn == nil || conn == s.udp) {
		_ = s.udp.Close() // It holds nothing.
		s.udp = nil
	}
}
