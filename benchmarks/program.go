package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"varve/benchmarks/peer"
)

// programRun is a program that ran to its end: what it wrote and what it cost.
type programRun struct {
	Output       string
	Elapsed      time.Duration
	CPUSeconds   float64 // user and system
	PeakBytes    int64   // resident memory at most
	WrittenBytes int64   // to the disk, as far as the kernel tells
}

const (
	// programOutputMax bounds what an error tells of a program's output.
	programOutputMax = 2000
	blockBytes       = 512 // of Rusage.Oublock
	// peakEvery is how often it is looked how much memory a program has.
	peakEvery = 10 * time.Millisecond
)

// runProgram runs a program to its end, in the directory of the run. Its input is a terminal
// at which nobody types: vmctl does not run without one. It is killed when the context ends, and
// with the thread that started it.
func (b *bench) runProgram(ctx context.Context, binary string, arguments ...string) (programRun, error) {
	master, terminal, err := openTerminal()
	if err != nil {
		return programRun{}, fmt.Errorf("run %s: %w", binary, err)
	}
	defer master.Close()
	defer terminal.Close()
	var output bytes.Buffer
	command := exec.CommandContext(ctx, binary, arguments...)
	command.Dir = b.root
	// What a program puts aside belongs on the file system that is measured.
	command.Env = append(os.Environ(), "TMPDIR="+b.root)
	command.Stdin, command.Stdout, command.Stderr = terminal, &output, &output
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	began := time.Now()
	run := programRun{}
	if err = command.Start(); err == nil {
		ended, peak := make(chan struct{}), make(chan int64)
		go watchPeak(command.Process.Pid, ended, peak)
		err = command.Wait()
		run.Elapsed = time.Since(began)
		close(ended)
		run.PeakBytes = <-peak
	}
	run.Output = output.String()
	if err != nil {
		end := output.Bytes()
		end = end[max(0, len(end)-programOutputMax):]
		return run, errors.Join(fmt.Errorf("run %s %v: %w; it said: %s", binary, arguments, err, end), ctx.Err())
	}
	if usage, ok := command.ProcessState.SysUsage().(*syscall.Rusage); ok {
		run.CPUSeconds = float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
		run.WrittenBytes = usage.Oublock * blockBytes
	}
	return run, nil
}

// watchPeak looks again and again for a process' largest resident memory and sends what it saw last once
// the process has ended. The kernel's own figure at the end (Rusage.Maxrss) is no use: it is at least
// what this program had when it started the other.
func watchPeak(pid int, ended <-chan struct{}, peak chan<- int64) {
	tick := time.NewTicker(peakEvery)
	defer tick.Stop()
	// At once, too: a short program may be over at the first tick.
	last, _ := peer.PeakOf(pid)
	for {
		select {
		case <-ended:
			peak <- last
			return
		case <-tick.C:
			if now, err := peer.PeakOf(pid); err == nil {
				last = max(last, now)
			}
		}
	}
}

// openTerminal makes a terminal of its own, and the end at which somebody would type.
func openTerminal() (master, terminal *os.File, err error) {
	if master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0); err != nil {
		return nil, nil, fmt.Errorf("open a terminal: %w", err)
	}
	fd := int(master.Fd())
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("open a terminal: %w", err), master.Close())
	}
	return master, terminal, nil
}
