package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"

	"varve/intake"
)

// intakeProgress shows how far an intake is: a bar of samples on a terminal, elsewhere a line now and then. It is
// also the handler of the intake's log, so that lines and the bar don't mix. It may be used by several goroutines.
type intakeProgress struct {
	terminal bool
	now      func() time.Time

	mu   sync.Mutex // guards what follows
	out  io.Writer
	bar  *progressbar.ProgressBar
	last time.Time
}

func newIntakeProgress(out io.Writer, now func() time.Time) *intakeProgress {
	p := &intakeProgress{out: out, now: now, last: now()}
	p.terminal = isTerminal(out)
	return p
}

// step shows where an intake is.
func (p *intakeProgress) step(s intake.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.terminal {
		if now := p.now(); now.Sub(p.last) >= lineEvery {
			p.last = now
			fmt.Fprintln(p.out, stepText(s))
		}
		return
	}
	if p.bar == nil {
		total := int64(s.SamplesTotal)
		if total == 0 {
			total = -1 // a spinner
		}
		p.bar = progressbar.NewOptions64(total, progressbar.OptionSetWriter(p.out), progressbar.OptionSetWidth(30), progressbar.OptionShowCount(),
			progressbar.OptionSetPredictTime(false), progressbar.OptionSetElapsedTime(false), progressbar.OptionThrottle(progressEvery), progressbar.OptionClearOnFinish())
	}
	p.bar.Describe(fmt.Sprintf("%s %s, day %d of %d, %.0f samples/s%s", s.Day, s.Phase, min(s.Days+1, s.DaysTotal), s.DaysTotal, s.SamplesPerSecond, leftText(s)))
	done := int64(s.Samples)
	if s.SamplesTotal > 0 {
		done = min(done, int64(s.SamplesTotal))
	}
	_ = p.bar.Set64(done) // What can't be shown is no error of the work.
}

func stepText(s intake.Progress) string {
	of := ""
	if s.SamplesTotal > 0 {
		of = fmt.Sprintf(" of about %d", s.SamplesTotal)
	}
	return fmt.Sprintf("%s %s: day %d of %d, %d%s samples, %.0f samples/s%s", s.Day, s.Phase, min(s.Days+1, s.DaysTotal), s.DaysTotal,
		s.Samples, of, s.SamplesPerSecond, leftText(s))
}

func leftText(s intake.Progress) string {
	if left := s.Left(); left > 0 {
		return ", " + left.String() + " left"
	}
	return ""
}

// say writes a line of its own.
func (p *intakeProgress) say(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bar != nil {
		_ = p.bar.Clear() // What can't be shown is no error of the work.
	}
	fmt.Fprintln(p.out, text)
}

// retrying tells why something is tried again.
func (p *intakeProgress) retrying(err error, wait time.Duration) {
	p.say(fmt.Sprintf("%v; again in %s", err, wait.Round(100*time.Millisecond)))
}

// end takes the bar away.
func (p *intakeProgress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bar != nil {
		_ = p.bar.Finish() // What can't be shown is no error of the work.
		p.bar = nil
	}
}

// Enabled implements slog.Handler: what is done day by day is on a terminal shown by the bar.
func (p *intakeProgress) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn || level >= slog.LevelInfo && !p.terminal
}

// Handle implements slog.Handler.
func (p *intakeProgress) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	b.WriteString(r.Message)
	r.Attrs(func(a slog.Attr) bool {
		fmt.Fprintf(&b, " %s=%s", a.Key, a.Value)
		return true
	})
	p.say(b.String())
	return nil
}

// WithAttrs implements slog.Handler. An intake has none that all of its lines need.
func (p *intakeProgress) WithAttrs([]slog.Attr) slog.Handler { return p }

// WithGroup implements slog.Handler.
func (p *intakeProgress) WithGroup(string) slog.Handler { return p }
