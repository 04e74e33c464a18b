package archive

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// LiveCheck says how an open archive is checked.
type LiveCheck struct {
	// Scratch is the folder that the copy is made in, on the archive's file system. It must not exist.
	Scratch string
	// BytesPerSecond bounds how fast records are read. Default 64 MiB.
	BytesPerSecond int64
	// Share is how much of the time of one core may be taken, up to 1. Default 0.5.
	Share float64
	// Report is given each fault, Progress what was read so far, several times a second; the latter may be nil.
	Report   func(Fault)
	Progress func(CheckProgress)
}

// CheckProgress tells how far a check is. Done and Total are bytes of table files.
type CheckProgress struct {
	// Family is the one that is read.
	Family      string
	Done, Total uint64
	// Read are the bytes of records that were read, before compression.
	Read uint64
}

// checkMemoryBytes is what RocksDB gets for the copy, and twice a fourth of it what clocks get.
const checkMemoryBytes = 64 << 20

// CheckLive is Check for an archive that is at work. Writers, queries and jobs go on meanwhile, and none of them can make it find
// a fault: what it looks at is a Checkpoint, a copy at one moment of hard links, which it opens beside the archive, read-only and
// with memory of its own, and removes at the end. So it also reads what the disk has, and not what a cache of the archive does.
//
// Until it ends the disk keeps what the archive removes; it gives up when the free space falls to the floor below which no
// samples are taken. The error is that of the check itself, context.Canceled when ctx ended; the faults that were reported before
// are faults.
func (a *Archive) CheckLive(ctx context.Context, o LiveCheck) (report CheckReport, err error) {
	num(&o.BytesPerSecond, 64<<20)
	num(&o.Share, 0.5)
	if o.BytesPerSecond < 0 || o.Share < 0 || o.Share > 1 || o.Report == nil || o.Scratch == "" {
		return report, errors.New("check: the rate, the share, the scratch folder or what takes the faults is missing or wrong")
	}
	if _, err := a.Checkpoint(ctx, o.Scratch); err != nil {
		return report, err
	}
	defer func() {
		if removeErr := os.RemoveAll(o.Scratch); removeErr != nil {
			err = errors.Join(err, fmt.Errorf("remove the copy that was checked: %w", removeErr))
		}
	}()
	p := &checkPace{ctx: ctx, o: &o, room: a.disk.check, worked: time.Now()}
	if o.Progress != nil {
		o.Progress(p.told)
	}
	report, err = check(o.Scratch, checkMemoryBytes, o.Report, p.read)
	if o.Progress != nil && err == nil {
		p.told.Done = p.told.Total
		o.Progress(p.told)
	}
	return report, err
}

// checkPace keeps a check from taking more than its share.
type checkPace struct {
	ctx context.Context
	o   *LiveCheck
	// room tells why the disk is too full to go on.
	room func() error
	// worked is when the last pause ended, since what was read since then, records how many of it, total all that was read.
	worked         time.Time
	since, records int64
	total          uint64
	looked         time.Time
	told           CheckProgress
}

const (
	// A pause comes after so many bytes, or so long.
	pauseBytes = 1 << 20
	pauseAfter = 20 * time.Millisecond
	// clockRecords is how many records go by before the clock is looked at.
	clockRecords = 256
	// lookEvery is how often the free space of the disk is asked for.
	lookEvery = 5 * time.Second
)

// read is told of what was read, and waits where that was too fast.
func (p *checkPace) read(family string, done, total uint64, bytes int) error {
	p.since += int64(bytes)
	p.total += uint64(bytes)
	p.told = CheckProgress{Family: family, Done: done, Total: total, Read: p.total}
	if p.records++; p.since < pauseBytes && p.records < clockRecords {
		return nil
	}
	now := time.Now()
	worked := now.Sub(p.worked)
	p.records = 0
	if p.since < pauseBytes && worked < pauseAfter {
		return p.ctx.Err()
	}
	if p.o.Progress != nil {
		p.o.Progress(p.told)
	}
	if now.Sub(p.looked) > lookEvery {
		p.looked = now
		if err := p.room(); err != nil {
			return fmt.Errorf("given up to make room: %w", err)
		}
	}
	byShare := time.Duration(float64(worked) * (1 - p.o.Share) / p.o.Share)
	byBytes := time.Duration(float64(p.since)/float64(p.o.BytesPerSecond)*float64(time.Second)) - worked
	if wait := max(byShare, byBytes); wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-p.ctx.Done():
		}
	}
	p.worked, p.since = time.Now(), 0
	return p.ctx.Err()
}
