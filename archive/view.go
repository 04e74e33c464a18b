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
// It registers an epoch first, takes what is kept and the masks, and its snapshot then: what has left memory for
// disk before the snapshot is found on disk, what leaves later stays in memory until
// the view is closed. Something found in both is the same and merges.
type view struct {
	a          *Archive
	mint, maxt int64 // inclusive, Unix ms, clamped to what keys can hold
	epoch      uint64
	snap       *rocks.Snapshot
	masks      *masks
	kept       *cutoffs
	gone       *goneSets
	// leased is the day that was being taken in, if there was one: what is there of its bundles isn't whole.
	leased *format.Day

	// memoryMu guards loaded: what the Selects of the view saw in memory.
	memoryMu sync.Mutex
	loaded   [][]samples

	bytes    atomic.Int64
	bytesMax int64
	ctx      context.Context // ends with Close
	cancel   context.CancelFunc
	reads    sync.WaitGroup
	closed   atomic.Bool
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

func (a *Archive) view(mint, maxt int64) (_ *view, err error) {
	if err := a.StartError(); err != nil {
		return nil, err
	}
	if a.closing.Load() {
		return nil, errShutdown
	}
	v := &view{a: a, mint: format.ClampTime(mint), maxt: format.ClampTime(maxt), bytesMax: a.o.QueryBytesMax}
	v.ctx, v.cancel = context.WithCancel(context.Background())
	if err := a.index.drain(); err != nil {
		v.cancel()
		return nil, fmt.Errorf("read index: %w", err)
	}
	v.epoch = a.views.open()
	v.kept = a.kept.at(a.o.Now())
	for {
		v.masks, v.gone = a.deletes.masks.Load(), a.trims.gone.Load()
		intake := a.intakes.now.Load()
		v.snap = a.db.NewSnapshot()
		// What rules remove is noted before it goes. Masks that go are gone from memory after the disk, and a day is sealed only then: a
		// snapshot that is taken while they are there has no bundles of later samples.
		if a.deletes.masks.Load() == v.masks && a.trims.gone.Load() == v.gone && a.intakes.now.Load() == intake {
			if v.leased, err = intake.leasedIn(v.snap); err != nil {
				return nil, errors.Join(err, v.Close())
			}
			return v, nil
		}
		v.snap.Release()
	}
}

// storedView is a view that also sees what the rules of retention hide and what is still there.
func (a *Archive) storedView(mint, maxt int64) (*view, error) {
	v, err := a.view(mint, maxt)
	if err == nil {
		v.kept, v.gone = a.kept.carriedOut(), &goneSets{}
	}
	return v, err
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
	if total := v.bytes.Add(int64(n)); total > v.bytesMax {
		return fmt.Errorf("%w: the query needs more than %d bytes of coded samples; ask for a shorter time range or fewer series, or raise query.max_size", ErrQueryLimit, v.bytesMax)
	}
	return nil
}
