package snapshot

import (
	"context"
	"crypto/sha256"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestHashingRests shows that a store with a share rests as long as its share asks for, finds the same hashes, and stops resting when
// it is told to end.
func TestHashingRests(t *testing.T) {
	var rested time.Duration
	ended := errors.New("ended")
	var end error
	s := &Store{o: Options{CPUShare: 0.25}}
	s.pace = pace{share: 0.25, sleep: func(_ context.Context, d time.Duration) error {
		rested += d
		return end
	}}
	h := s.newHash(context.Background())
	content := make([]byte, 32<<20)
	began := time.Now()
	for at := 0; at < len(content); at += 1 << 20 {
		_, err := h.Write(content[at : at+1<<20])
		require.NoError(t, err)
	}
	worked := time.Since(began)
	want := sha256.Sum256(content)
	require.Equal(t, want[:], h.Sum(nil))
	require.Positive(t, rested)
	require.LessOrEqual(t, rested, 3*worked, "three quarters of the time")
	end = ended
	var err error
	for range 1000 {
		if _, err = h.Write(content); err != nil {
			break
		}
	}
	require.ErrorIs(t, err, ended)
}
