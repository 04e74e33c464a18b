package archive

import (
	"fmt"
	"time"

	"varve/rocks"
)

// diskFloor refuses commits when the disk is nearly full, so that what RocksDB
// does in the background still finds room.
type diskFloor struct {
	dir      string
	bytesMin int64
	shareMin float64
	free     func(dir string) (free, total int64, err error)

	// What follows is the leader's: when it asked last with so much to spare that the next commits need not ask, and
	// what was committed since. spare is set by a check that found it.
	asked     time.Time
	committed int64
	spare     bool
	// always is a test's: every commit asks.
	always bool
}

// The free space is asked for again after so long, or so many bytes of commits, and by every commit while less than
// floorSpareBytes is free above the floor: what others and RocksDB write within the time is a fraction of that.
const (
	floorAskEvery   = 100 * time.Millisecond
	floorAskBytes   = 64 << 20
	floorSpareBytes = 1 << 30
)

// checkBefore is check for the leader before it commits so many bytes.
func (d *diskFloor) checkBefore(bytes int, now time.Time) error {
	since := now.Sub(d.asked)
	d.committed += int64(bytes)
	if d.spare && since >= 0 && since < floorAskEvery && d.committed < floorAskBytes {
		return nil
	}
	spare, err := d.look()
	d.spare, d.asked, d.committed = spare && !d.always, now, int64(bytes)
	return err
}

// check may be called from any goroutine.
func (d *diskFloor) check() error {
	_, err := d.look()
	return err
}

// look asks for the free space, and tells whether there is much to spare.
func (d *diskFloor) look() (spare bool, err error) {
	free, total, err := d.free(d.dir)
	if err != nil {
		return false, fmt.Errorf("ask for free space of %s: %w", d.dir, err)
	}
	floor := d.floor(total)
	if free < floor {
		return false, fmt.Errorf("%w: %d bytes are free in %s, writes need %d; free space or lower storage.min_free", rocks.ErrNoSpace, free, d.dir, floor)
	}
	return free-floor >= floorSpareBytes, nil
}

func (d *diskFloor) floor(total int64) int64 {
	return max(d.bytesMin, int64(float64(total)*d.shareMin))
}
