package nats_test

import (
	"fmt"
	"testing"

	"github.com/golang/snappy"
	"github.com/stretchr/testify/require"

	"varve/ingest/nats"
)

// cutRequest is a message whose request ends within a series.
func cutRequest(t testing.TB, message []byte) []byte {
	t.Helper()
	body, err := snappy.Decode(nil, message)
	require.NoError(t, err)
	return snappy.Encode(nil, body[:len(body)-3])
}

// Write requests are joined to one with the series of all, up to the limit and to the first that can't be.
func TestJoin(t *testing.T) {
	whole := [][]byte{write("a", 1, 3), write("b", 2, 1), write("c", 3, 2)}
	r := newReceiver()
	body, n := nats.Join(nats.PayloadPrometheus, 1<<20, whole...)
	require.Equal(t, 3, n)
	_, err := r.Receive(t.Context(), body, nil)
	require.NoError(t, err)
	require.Equal(t, 6, r.stored())
	f := func(want int, bytesMax int, kind nats.Payload, messages ...[]byte) {
		t.Helper()
		body, n := nats.Join(kind, bytesMax, messages...)
		require.Equal(t, want, n)
		if n == 1 {
			require.Equal(t, messages[0], body)
		}
	}
	bad := cutRequest(t, whole[0])
	f(1, 1<<20, nats.PayloadPrometheus, bad, whole[1])
	f(1, 1<<20, nats.PayloadPrometheus, whole[0], bad, whole[1])
	f(2, 1<<20, nats.PayloadPrometheus, whole[0], whole[1], bad)
	f(2, 1<<20, nats.PayloadPrometheus, whole[0], whole[1], []byte("no block"))
	f(2, 150, nats.PayloadPrometheus, whole[0], whole[1], whole[2], whole[0])
	// What a block says of its length is not believed.
	f(1, 1<<30, nats.PayloadPrometheus, whole[0], []byte{0xff, 0xff, 0xff, 0xff, 0x01})
	f(1, 1<<20, nats.PayloadPrometheus2, whole[0], whole[1])
	f(2, 1<<20, nats.PayloadInflux, []byte("a v=1 1"), []byte("b v=2 2\n"))
	f(1, 10, nats.PayloadJSON, []byte("{\"a\":1}"), []byte("{\"a\":2}"))
	body, _ = nats.Join(nats.PayloadJSON, 100, []byte("a"), []byte("b"))
	require.Equal(t, "a\nb\n", string(body))
}

// More than an element of a block holds is stored as it is.
func TestJoinLarge(t *testing.T) {
	messages := [][]byte{write("a", 1, 3000), write("b", 2, 3000), write("c", 3, 1)}
	body, n := nats.Join(nats.PayloadPrometheus, 1<<20, messages...)
	require.Equal(t, 3, n)
	r := newReceiver()
	_, err := r.Receive(t.Context(), body, nil)
	require.NoError(t, err)
	require.Equal(t, 6001, r.stored())
}

// FuzzJoin shows that whatever two messages are, joined they mean what each means: a good one is never changed by its neighbour.
func FuzzJoin(f *testing.F) {
	f.Add([]byte("no block"), uint8(0))
	f.Add(write("x", 5, 2), uint8(3))
	f.Add([]byte{2, 4, 0x0a, 0x40}, uint8(0))
	f.Fuzz(func(t *testing.T, other []byte, cut uint8) {
		raw := snappy.Encode(nil, other)
		for _, odd := range [][]byte{other, raw, raw[:len(raw)-min(len(raw), int(cut))]} {
			good := write("good", 77, 2)
			for _, messages := range [][][]byte{{odd, good}, {good, odd}} {
				body, n := nats.Join(nats.PayloadPrometheus, 1<<20, messages...)
				if n == 1 {
					continue
				}
				alone, joined := newReceiver(), newReceiver()
				var failed error
				for _, m := range messages {
					if _, err := alone.Receive(t.Context(), m, nil); err != nil {
						failed = err
					}
				}
				_, err := joined.Receive(t.Context(), body, nil)
				require.Equal(t, failed == nil, err == nil)
				if err == nil {
					require.Equal(t, fmt.Sprint(alone.samples), fmt.Sprint(joined.samples))
				}
			}
		}
	})
}
