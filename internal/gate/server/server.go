package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// outputTailBytesMax bounds what is kept of a server's output: enough for a
// panic's stack of the goroutine at fault and the log lines before it.
const outputTailBytesMax = 64 << 10

// pollInterval is the pause between two looks at a server that starts. Small,
// since start-up time is part of every crash cycle.
const pollInterval = 10 * time.Millisecond

// ErrExited means that the process ended before it was asked to.
var ErrExited = errors.New("the server process ended")

// Options of a Server.
type Options struct {
	// Binary and Args are the command line.
	Binary string
	Args   []string
	// Address is host:port on which the command line makes it listen.
	Address string
	// Env is added to the environment of the test.
	Env []string
	// ReadyPath answers 200 when the server is ready, "/-/ready" when empty.
	ReadyPath string
}

// Server is a running child process.
type Server struct {
	opts   Options
	cmd    *exec.Cmd
	output tail

	exited chan struct{} // closed when the process is gone
	err    error         // how it ended, to be read after exited is closed
	killed sync.Once     // the group: later its number may be another's
}

// Start runs the command in a process group of its own and returns at once.
// The caller ends it with Kill or Terminate.
func Start(opts Options) (*Server, error) {
	if opts.ReadyPath == "" {
		opts.ReadyPath = "/-/ready"
	}
	s := &Server{opts: opts, exited: make(chan struct{})}
	s.cmd = exec.Command(opts.Binary, opts.Args...)
	s.cmd.Env = append(os.Environ(), opts.Env...)
	s.cmd.Stdout, s.cmd.Stderr = &s.output, &s.output
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		// The kernel sends the death signal when the thread ends that started the
		// child, so that thread has to stay for as long as the child does.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := s.cmd.Start()
		started <- err
		if err == nil {
			s.err = s.cmd.Wait()
			close(s.exited)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", opts.Binary, err)
	}
	return s, nil
}

// URL returns the server's address with the path, which begins with a slash.
func (s *Server) URL(path string) string { return "http://" + s.opts.Address + path }

// Exited is closed when the process is gone.
func (s *Server) Exited() <-chan struct{} { return s.exited }

// Output returns the last part of what the process wrote.
func (s *Server) Output() string { return s.output.String() }

// Pid is the process id, which is the id of its group too.
func (s *Server) Pid() int { return s.cmd.Process.Pid }

// WaitReady returns when the server answers 200 on its ready path, or an error
// that carries the tail of its output when it ends or the context does.
func (s *Server) WaitReady(ctx context.Context) error {
	return s.wait(ctx, "ready", func() bool {
		status, _, err := Get(ctx, s.URL(s.opts.ReadyPath))
		return err == nil && status == http.StatusOK
	})
}

// WaitListening returns when the server accepts connections, ready or not.
func (s *Server) WaitListening(ctx context.Context) error {
	return s.wait(ctx, "listening", func() bool {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.opts.Address)
		if err != nil {
			return false
		}
		_ = conn.Close()
		return true
	})
}

func (s *Server) wait(ctx context.Context, what string, reached func() bool) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		if reached() {
			return nil
		}
		select {
		case <-s.exited:
			return fmt.Errorf("wait until %s is %s: %w (%v)\n%s", s.opts.Binary, what, ErrExited, s.err, s.Output())
		case <-ctx.Done():
			return fmt.Errorf("wait until %s is %s: %w\n%s", s.opts.Binary, what, ctx.Err(), s.Output())
		case <-ticker.C:
		}
	}
}

// Kill ends the process group with SIGKILL and returns when the process is gone.
func (s *Server) Kill() {
	s.killGroup()
	<-s.exited
}

// killGroup kills what there is of the group, once: numbers of processes come round.
func (s *Server) killGroup() {
	s.killed.Do(func() {
		// ESRCH means that it is gone already, which is what is wanted.
		_ = syscall.Kill(-s.Pid(), syscall.SIGKILL)
	})
}

// Terminate asks the process to end with SIGTERM. It returns an error when the
// process ends otherwise than with status 0, or not before the context, in
// which case it is killed.
func (s *Server) Terminate(ctx context.Context) error {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("terminate %s: %w", s.opts.Binary, err)
	}
	select {
	case <-s.exited:
	case <-ctx.Done():
		s.Kill()
		return fmt.Errorf("terminate %s: %w\n%s", s.opts.Binary, ctx.Err(), s.Output())
	}
	s.killGroup()
	if s.err != nil {
		return fmt.Errorf("terminate %s: %w\n%s", s.opts.Binary, s.err, s.Output())
	}
	return nil
}

// Signal sends a signal to the process.
func (s *Server) Signal(sig os.Signal) error { return s.cmd.Process.Signal(sig) }

// Get fetches a URL and returns the status and the body.
func Get(ctx context.Context, url string) (status int, body []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, nil, fmt.Errorf("get %s: %w", url, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, fmt.Errorf("get %s: %w", url, err)
	}
	body, err = io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return 0, nil, fmt.Errorf("get %s: %w", url, err)
	}
	return resp.StatusCode, body, nil
}

// tail is a writer that keeps the last bytes written to it.
type tail struct {
	mu   sync.Mutex // guards data
	data []byte
}

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.data = append(t.data, p...)
	if len(t.data) > 2*outputTailBytesMax {
		t.data = append(t.data[:0], t.data[len(t.data)-outputTailBytesMax:]...)
	}
	return len(p), nil
}

// String returns what is kept.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.ToValidUTF8(string(t.data), "?")
}
