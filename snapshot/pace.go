package snapshot

import (
	"context"
	"crypto/sha256"
	"hash"
	"sync"
	"time"
)

// pace keeps the hashing of all files together within a share of one core, so that writers beside it find one that is free.
type pace struct {
	share float64
	sleep func(ctx context.Context, d time.Duration) error

	mu     sync.Mutex
	worked time.Duration
}

// paceSlice is how long hashing goes on before it rests: shorter than what a scheduler gives at once.
const paceSlice = 2 * time.Millisecond

// pacedHash is a SHA-256 whose Write rests. It fails if the context ends meanwhile.
type pacedHash struct {
	hash.Hash
	ctx  context.Context
	pace *pace
}

func (s *Store) newHash(ctx context.Context) hash.Hash {
	if s.o.CPUShare >= 1 {
		return sha256.New()
	}
	return &pacedHash{sha256.New(), ctx, &s.pace}
}

// Write implements io.Writer. One hash at a time is at work: the others wait, which is what is meant.
func (h *pacedHash) Write(b []byte) (int, error) {
	p := h.pace
	p.mu.Lock()
	defer p.mu.Unlock()
	began := time.Now()
	n, err := h.Hash.Write(b)
	if p.worked += time.Since(began); err != nil || p.worked < paceSlice {
		return n, err
	}
	rest := time.Duration(float64(p.worked) * (1 - p.share) / p.share)
	p.worked = 0
	return n, p.sleep(h.ctx, rest)
}
