package main

import (
	"math"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"

	"varve/config"
	"varve/rocks"
)

// heapBytesMin keeps the collector from running without pause where the machine
// is smaller than the engine's budget asks for.
const heapBytesMin = 128 << 20

// engineBytes returns the memory of the storage engine under c.
func engineBytes(c *config.Config) int64 {
	if c.Storage.Memory == config.Auto {
		return rocks.DefaultMemoryBytes()
	}
	return int64(c.Storage.Memory)
}

// limitHeap sets the limit that the garbage collector works towards: what the
// control group or the machine has, less a tenth for everything that neither Go
// nor the engine counts, less the engine's own. GOMEMLIMIT in the environment
// wins. It returns the limit in effect.
func limitHeap(engineBytes int64) int64 {
	if os.Getenv("GOMEMLIMIT") != "" {
		return debug.SetMemoryLimit(-1)
	}
	total := uint64(math.MaxInt64)
	for _, read := range []memlimit.Provider{memlimit.FromCgroup, memlimit.FromSystem} {
		if n, err := read(); err == nil && n > 0 {
			total = min(total, n)
		}
	}
	if total == math.MaxInt64 {
		return debug.SetMemoryLimit(-1)
	}
	limit := max(int64(total)-int64(total)/10-engineBytes, heapBytesMin)
	debug.SetMemoryLimit(limit)
	return limit
}

const (
	// headroomBytes is what may be allocated between two collections however small
	// the live heap is. Queries allocate by the gigabyte; at Go's default a small
	// heap would be collected a hundred times a second for them.
	headroomBytes = 96 << 20
	// gcPercentMin holds for large heaps, whose size is mostly that of the series:
	// half as much again.
	gcPercentMin, gcPercentMax = 50, 400
	gcTuneInterval             = time.Second
)

// gcTuner sets how far the heap may grow between two collections, by the live
// heap that the last one found. The limit that limitHeap sets holds all the same.
type gcTuner struct{ stopped chan struct{} }

func newGCTuner() *gcTuner { return &gcTuner{stopped: make(chan struct{})} }

// run tunes until stop. GOGC in the environment wins.
func (g *gcTuner) run() error {
	if os.Getenv("GOGC") != "" {
		<-g.stopped
		return nil
	}
	before := debug.SetGCPercent(100)
	defer debug.SetGCPercent(before)
	ticker := time.NewTicker(gcTuneInterval)
	defer ticker.Stop()
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	current := 100
	for {
		select {
		case <-ticker.C:
		case <-g.stopped:
			return nil
		}
		metrics.Read(live)
		// Setting it stops the world, so small changes aren't worth it.
		if next := gcPercent(live[0].Value.Uint64()); next < current*9/10 || next > current*11/10 {
			debug.SetGCPercent(next)
			current = next
		}
	}
}

func (g *gcTuner) stop(error) { close(g.stopped) }

// gcPercent returns the growth in percent of the live heap.
func gcPercent(liveBytes uint64) int {
	if liveBytes == 0 {
		return gcPercentMax
	}
	return int(min(max(headroomBytes*100/liveBytes, gcPercentMin), gcPercentMax))
}
