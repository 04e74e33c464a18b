package main

import (
	"fmt"
	"io"
	"os"
	"time"
)

// importProgress shows on a terminal how far an import is. Elsewhere it is quiet, but for retries.
type importProgress struct {
	out      io.Writer
	terminal bool
	now      func() time.Time

	name        string
	began, last time.Time
	from, size  int64
	samples     int64 // stored by earlier runs
	open        bool  // a line is shown that has no end
}

func newImportProgress(out io.Writer, now func() time.Time) *importProgress {
	p := &importProgress{out: out, now: now}
	p.terminal = isTerminal(out)
	return p
}

// isTerminal tells whether somebody watches what is written to out.
func isTerminal(out io.Writer) bool {
	f, ok := out.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// begin begins a file where it was left; size is 0 where nobody knows it.
func (p *importProgress) begin(name string, size int64, m *importMark) {
	p.name, p.from, p.size, p.samples = name, m.Offset, size, m.Samples
	p.began, p.last = p.now(), time.Time{}
}

// progressEvery is how often the line is written anew.
const progressEvery = 500 * time.Millisecond

// sent tells how far the file is.
func (p *importProgress) sent(m *importMark) {
	now := p.now()
	if !p.terminal || now.Sub(p.last) < progressEvery {
		return
	}
	p.last = now
	elapsed := max(now.Sub(p.began), time.Millisecond)
	bytes := m.Offset - p.from
	text := fmt.Sprintf("%s: %.1f MiB", p.name, float64(m.Offset)/(1<<20))
	if p.size > 0 {
		text += fmt.Sprintf(" of %.1f MiB", float64(p.size)/(1<<20))
	}
	text += fmt.Sprintf(", %.1f MiB/s, %.0f samples/s", float64(bytes)/(1<<20)/elapsed.Seconds(), float64(m.Samples-p.samples)/elapsed.Seconds())
	if left := p.size - m.Offset; p.size > 0 && left > 0 && bytes > 0 {
		text += fmt.Sprintf(", %s left", (time.Duration(float64(elapsed) * float64(left) / float64(bytes))).Round(time.Second))
	}
	fmt.Fprintf(p.out, "\r\x1b[K%s", text)
	p.open = true
}

// retrying tells why a piece is sent again.
func (p *importProgress) retrying(err error, wait time.Duration) {
	p.end()
	fmt.Fprintf(p.out, "%v; again in %s\n", err, wait.Round(100*time.Millisecond))
}

// end ends the line that is shown.
func (p *importProgress) end() {
	if p.open {
		fmt.Fprintln(p.out)
		p.open = false
	}
}
