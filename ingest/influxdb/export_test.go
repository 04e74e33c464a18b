package influxdb

import "context"

// DeliverUDP writes datagrams as one batch, as a UDP listener does.
func (in *Input) DeliverUDP(ctx context.Context, datagrams ...[]byte) error {
	b := &batch{millis: in.now().UnixMilli()}
	for _, d := range datagrams {
		n := copy(b.room(len(d)), d)
		b.take(n)
	}
	u := &UDP{in: in}
	_, err := u.deliver(ctx, b)
	return err
}
