package main

import (
	"fmt"
	"io"
	"time"

	"github.com/schollz/progressbar/v3"

	"varve/snapshot"
)

// snapshotProgress shows how far work on a snapshot is: a bar on a terminal, elsewhere a line now and then.
type snapshotProgress struct {
	out      io.Writer
	terminal bool
	now      func() time.Time

	phase snapshot.Phase
	bar   *progressbar.ProgressBar
	last  time.Time
}

// lineEvery is how often a line is written where there is no terminal.
const lineEvery = 10 * time.Second

func newSnapshotProgress(out io.Writer, now func() time.Time) snapshot.Progress {
	p := &snapshotProgress{out: out, now: now, last: now()}
	p.terminal = isTerminal(out)
	return p.step
}

func (p *snapshotProgress) step(s snapshot.Step) {
	if !p.terminal {
		p.line(s)
		return
	}
	if s.Phase != p.phase {
		p.phase = s.Phase
		if p.bar != nil {
			_ = p.bar.Finish() // What can't be shown is no error of the work.
		}
		if p.bar = nil; s.BytesTotal > 0 {
			p.bar = progressbar.NewOptions64(s.BytesTotal, progressbar.OptionSetWriter(p.out), progressbar.OptionSetDescription(string(s.Phase)),
				progressbar.OptionShowBytes(true), progressbar.OptionSetPredictTime(true), progressbar.OptionSetWidth(30),
				progressbar.OptionOnCompletion(func() { fmt.Fprintln(p.out) }))
		}
	}
	if p.bar != nil {
		_ = p.bar.Set64(min(s.BytesDone, s.BytesTotal))
	}
}

func (p *snapshotProgress) line(s snapshot.Step) {
	now := p.now()
	if now.Sub(p.last) < lineEvery {
		return
	}
	p.last = now
	fmt.Fprintf(p.out, "%s: %d of %d files, %d of %d bytes\n", s.Phase, s.FilesDone, s.FilesTotal, s.BytesDone, s.BytesTotal)
}
