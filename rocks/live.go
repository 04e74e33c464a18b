package rocks

import "sync/atomic"

// kind is a type of C object that this package creates and must destroy.
type kind uint8

const (
	kindDB kind = iota
	kindFamily
	kindIterator
	kindSnapshot
	kindOptions
	kindTableOptions
	kindReadOptions
	kindWriteOptions
	kindOtherOptions
	kindCache
	kindCheckpoint
	kindValues
	kindFileWriter
	kindFileList
	kindCount
)

var kindNames = [kindCount]string{
	"db", "family handle", "iterator", "snapshot", "options", "table options", "read options",
	"write options", "other options", "cache", "checkpoint", "pinned values",
	"file writer", "file list",
}

var live [kindCount]atomic.Int64

func (k kind) created()   { live[k].Add(1) }
func (k kind) destroyed() { live[k].Add(-1) }

// Live returns how many C objects of each type exist in this process, over all
// databases. All counts are zero when every DB is closed. Safe for concurrent
// use.
func Live() map[string]int {
	counts := make(map[string]int, kindCount)
	for k := range kindCount {
		counts[kindNames[k]] = int(live[k].Load())
	}
	return counts
}
