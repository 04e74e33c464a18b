package nats_test

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"varve/ingest/nats"
	"varve/internal/gate/peers"
)

// Debian's server, which is three years older than the client, is killed in mid-stream again and again: what it acknowledged to the publisher is stored in the end,
// and its consumer goes on.
func TestDebian(t *testing.T) {
	s := peers.StartNATS(t)
	r := newReceiver()
	in, _ := begin(t, options(s.Address, r, impatient, func(o *nats.Options) { o.Subjects = []string{"varve.a"} }))
	connected(t, in)
	_, js := dial(t, s.Address)
	const rounds, each = 3, 200
	for round := range rounds {
		var publisher sync.WaitGroup
		half := make(chan struct{})
		publisher.Go(func() {
			for i := range each {
				if i == each/2 {
					close(half)
				}
				publish(t, js, "varve.a", write("m", int64(round*each+i), 1))
			}
		})
		<-half
		s.Restart()
		publisher.Wait()
	}
	publish(t, js, "varve.b", write("other", 1, 1))
	eventually(t, func() bool { return r.stored() == rounds*each })
	settled(t, js)
	require.Zero(t, in.Status().Poison)
}
