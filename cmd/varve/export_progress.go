package main

import (
	"fmt"
	"io"
	"time"

	"github.com/schollz/progressbar/v3"

	"varve/export/blocks"
	"varve/export/text"
)

// exportProgress shows how far an export is: a bar on a terminal, elsewhere a line now and then.
type exportProgress struct {
	out      io.Writer
	terminal bool
	now      func() time.Time
	began    time.Time
	last     time.Time
	bar      *progressbar.ProgressBar
}

func newExportProgress(out io.Writer, now func() time.Time) *exportProgress {
	p := &exportProgress{out: out, now: now, began: now()}
	p.last = p.began
	p.terminal = isTerminal(out)
	return p
}

// exportSteps is how finely the bar is divided.
const exportSteps = 1000

// show tells that a part is done, 0 to 1, of what.
func (p *exportProgress) show(done float64, samples uint64, what string) {
	now := p.now()
	if now.Sub(p.last) < progressEvery && done < 1 {
		return
	}
	rate := float64(samples) / max(now.Sub(p.began).Seconds(), 1e-3)
	text := fmt.Sprintf("%s, %d samples, %.0f samples/s", what, samples, rate)
	if !p.terminal {
		if now.Sub(p.last) >= lineEvery {
			p.last = now
			fmt.Fprintf(p.out, "%.1f %%: %s\n", 100*done, text)
		}
		return
	}
	p.last = now
	if p.bar == nil {
		p.bar = progressbar.NewOptions(exportSteps, progressbar.OptionSetWriter(p.out), progressbar.OptionSetPredictTime(true), progressbar.OptionSetWidth(30),
			progressbar.OptionClearOnFinish())
	}
	p.bar.Describe(text)
	_ = p.bar.Set(int(done * exportSteps)) // What can't be shown is no error of the work.
}

// block tells how far blocks are.
func (p *exportProgress) block(b blocks.Progress) {
	part := 0.0
	if b.SeriesTotal > 0 {
		part = float64(b.Series) / float64(b.SeriesTotal)
	}
	done := float64(b.Done) / float64(max(b.Blocks, 1))
	if b.Done < b.Blocks {
		done += part / float64(b.Blocks)
	}
	p.show(min(done, 1), b.Samples, fmt.Sprintf("block %d of %d, %s", min(b.Done+1, b.Blocks), b.Blocks, b.Step))
}

// text tells how far a text is.
func (p *exportProgress) text(t text.Progress) {
	p.show(t.Done, t.Samples, fmt.Sprintf("%.1f MiB", float64(t.Bytes)/(1<<20)))
}

// end ends the line that is shown.
func (p *exportProgress) end() {
	if p.bar != nil {
		_ = p.bar.Finish()
		fmt.Fprintln(p.out)
	}
}
