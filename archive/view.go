package archive

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/prometheus/prometheus/storage"

	"varve/archive/format"
	"varve/rocks"
)

// ErrQueryLimit is wrapped by the error of a query that asks for more than the
// limits allow. It is the caller's fault: a narrower question is answered.
var ErrQueryLimit = errors.New("query limit exceeded")

// view is one state of the archive, as a reader sees it between two times. It is the
// Querier and is safe for several goroutines.
//
// It registers an epoch first and takes its snapshot then: what has left memory for
// disk before the snapshot is found on disk, what leaves later stays in memory until
// the view is closed. Something found in both is the same and merges.
type view struct {
	a          *Archive
	mint, maxt int64 // inclusive, Unix ms, clamped to what keys can hold
	epoch      uint64
	snap       *rocks.Snapshot

	// memoryMu guards loaded: what the Selects of the view saw in memory.
	memoryMu sync.Mutex
	loaded   [][]samples

	bytes  atomic.Int64
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	reads  sync.WaitGroup
	closed atomic.Bool
}

// Querier implements storage.Queryable: mint and maxt are inclusive, in Unix ms.
// The error is ErrStarting until the journal is read back.
func (a *Archive) Querier(mint, maxt int64) (storage.Querier, error) {
	return a.view(mint, maxt)
}

// ChunkQuerier implements storage.ChunkQueryable like Querier.
func (a *Archive) ChunkQuerier(mint, maxt int64) (storage.ChunkQuerier, error) {
	v, err := a.view(mint, maxt)
	if err != nil {
		return nil, err
	}
	return &chunkView{v}, nil
}

func (a *Archive) view(mint, maxt int64) (*view, error) {
	if err := a.StartError(); err != nil {
		return nil, err
	}
	if a.closing.Load() {
		return nil, errShutdown
	}
	v := &view{a: a, mint: format.ClampTime(mint), maxt: format.ClampTime(maxt)}
	v.ctx, v.cancel = context.WithCancel(context.Background())
	if err := a.index.drain(); err != nil {
		v.cancel()
		return nil, fmt.Errorf("read index: %w", err)
	}
	v.epoch = a.views.open()
	v.snap = a.db.NewSnapshot()
	return v, nil
}

// Concurrent marks the view as safe for Selects from several goroutines, whose
// series may be iterated independently.
func (v *view) Concurrent() {}

// Close ends reads that are under way and releases the snapshot.
func (v *view) Close() error {
	if v.closed.Swap(true) {
		return nil
	}
	v.cancel()
	v.reads.Wait()
	v.snap.Release()
	v.a.views.close(v.epoch)
	return nil
}

// take counts bytes that the query holds.
func (v *view) take(n int) error {
	if total := v.bytes.Add(int64(n)); total > v.a.o.QueryBytesMax {
		return fmt.Errorf("%w: the query needs more than %d bytes of coded samples; ask for a shorter time range or fewer series, or raise query.max_size", ErrQueryLimit, v.a.o.QueryBytesMax)
	}
	return nil
}
