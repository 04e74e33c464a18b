// Package peer starts the servers that are measured, reads from the operating
// system what they cost, and stops them.
//
// A Spec says which server: Varve, VictoriaMetrics, Prometheus or InfluxDB, as a binary to
// start or as the address of one that runs. A Server is one started process, in a
// process group of its own, on a port of the loopback at or above 20000, with a
// data directory that belongs to the caller. Costs come from /proc and hold for
// the server process alone. A server that was not started here has no costs.
//
// Every server runs with its defaults, apart from what a comparison needs: a
// retention that keeps old samples, the remote-write receiver, and no artificial
// delay before fresh samples are seen. Arguments says so for each.
//
// Start must be called from a goroutine that stays on its operating system
// thread (as main does here): the kernel kills the servers when that thread ends,
// so that nothing outlives a benchmark that was killed. The other methods may be
// called from several goroutines.
package peer

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Kind is the make of a server.
type Kind string

// The makes of servers.
const (
	Varve           Kind = "varve"
	VictoriaMetrics Kind = "victoriametrics"
	Prometheus      Kind = "prometheus"
	// InfluxDB is of the 1.x series, which has line protocol and no PromQL.
	InfluxDB Kind = "influxdb"
	// NATS holds messages for others, and is not measured: Parse does not know it.
	NATS Kind = "nats"
	// NodeExporter is recorded, never measured: Parse does not know it.
	NodeExporter Kind = "node_exporter"
)

// Spec says which server to measure.
type Spec struct {
	Name string
	Kind Kind
	// Binary is the program to start; Address is set instead for a server that
	// runs already.
	Binary, Address string
	// More are arguments after those of Arguments.
	More []string
	// Config is the configuration file of a Varve or a Prometheus, empty for defaults
	// and for a Prometheus that scrapes nothing. In it, SELF stands for the address of
	// the server itself.
	Config string
	// OpenTSDB has a VictoriaMetrics take OpenTSDB's JSON, for which it listens on
	// Server.SideAddress.
	OpenTSDB bool
}

// Parse reads NAME, NAME=KIND:PROGRAM or NAME=KIND:http://HOST:PORT. A bare name is a
// kind, with the program that Debian installs for it.
func Parse(text string) (Spec, error) {
	name, rest, named := strings.Cut(text, "=")
	kind, where := Kind(name), ""
	if named {
		before, after, _ := strings.Cut(rest, ":")
		kind, where = Kind(before), after
	}
	programs := map[Kind]string{Varve: "", VictoriaMetrics: "victoria-metrics", Prometheus: "prometheus", InfluxDB: "influxd"}
	program, known := programs[kind]
	if !known {
		return Spec{}, fmt.Errorf("peer %q: kind %q is none of varve, victoriametrics, prometheus, influxdb; write NAME=KIND:PROGRAM", text, kind)
	}
	spec := Spec{Name: name, Kind: kind, Binary: program}
	if address, isURL := strings.CutPrefix(where, "http://"); isURL {
		spec.Binary, spec.Address = "", strings.TrimSuffix(address, "/")
	} else if where != "" {
		spec.Binary = where
	}
	return spec, nil
}

// Sync says in words when an acknowledged sample is on the disk.
func (s Spec) Sync() string {
	switch {
	case s.Kind == VictoriaMetrics:
		return "none (memory for seconds, no fsync before the answer)"
	case s.Kind == Prometheus:
		return "none (log written, fsync when a segment is full)"
	case s.Kind == InfluxDB:
		return "always (fsync of the log before the answer)"
	case len(s.More) > 0:
		return "as given: " + strings.Join(s.More, " ")
	default:
		return "always (fdatasync before the answer)"
	}
}

// Arguments are what the program is started with. Side is an address for what it does
// not serve at the first.
func (s Spec) Arguments(address, side, dataDir string) []string {
	var arguments []string
	switch s.Kind {
	case Varve:
		arguments = []string{"serve", "--storage.path", dataDir, "--web.listen-address", address, "--log.level=warn", "--web.enable-admin-api"}
	case VictoriaMetrics:
		arguments = []string{"-storageDataPath=" + dataDir, "-httpListenAddr=" + address, "-retentionPeriod=100y",
			"-search.latencyOffset=0s", "-loggerLevel=ERROR"}
		if s.OpenTSDB {
			arguments = append(arguments, "-opentsdbHTTPListenAddr="+side)
		}
	case Prometheus:
		arguments = []string{"--config.file=" + filepath.Join(dataDir, "prometheus.yml"), "--storage.tsdb.path=" + dataDir,
			"--storage.tsdb.retention.time=100y", "--web.listen-address=" + address, "--web.enable-remote-write-receiver", "--log.level=warn"}
	case InfluxDB:
		arguments = []string{"run", "-config", filepath.Join(dataDir, influxConfigFile)}
	case NATS:
		host, port, _ := strings.Cut(side, ":")
		_, monitor, _ := strings.Cut(address, ":")
		arguments = []string{"-js", "-sd", dataDir, "-a", host, "-p", port, "-m", monitor}
	case NodeExporter:
		arguments = []string{"--web.listen-address=" + address, "--collector.interrupts", "--collector.processes", "--collector.tcpstat", "--log.level=error"}
	}
	return append(arguments, s.More...)
}

// versionPattern finds a version in what a program says of itself.
var versionPattern = regexp.MustCompile(`\d+\.\d+[\w.+~-]*`)

// Version is the version of the program, and the text it came from, which may
// hold more; both are empty if it cannot be found out.
func (s Spec) Version(ctx context.Context) (version, text string) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, s.Binary, "--version")
	switch {
	case s.Binary == "":
		return "", ""
	case s.Kind == Varve:
		command = exec.CommandContext(ctx, s.Binary, "version")
	case s.Kind == InfluxDB:
		command = exec.CommandContext(ctx, s.Binary, "version")
	case s.Kind == VictoriaMetrics:
		// Debian's build prints an empty version.
		command = exec.CommandContext(ctx, "dpkg-query", "-W", "-f=${Version}", filepath.Base(s.Binary))
	}
	output, err := command.CombinedOutput()
	if err != nil {
		return "", ""
	}
	return versionPattern.FindString(string(output)), string(output)
}

// readyPath is what answers 2xx once the server serves.
func (s Spec) readyPath() string {
	switch s.Kind {
	case VictoriaMetrics:
		return "/health"
	case InfluxDB:
		return "/ping"
	case NATS:
		return "/healthz"
	case NodeExporter:
		return "/"
	default:
		return "/-/ready"
	}
}

// Server is a server that was started, or the address of one.
type Server struct {
	Spec Spec
	// Address is host and port, DataDir where the server keeps its data.
	Address, DataDir string
	// SideAddress is where a VictoriaMetrics takes OpenTSDB's JSON and where NATS serves its
	// clients; Address is then its monitor.
	SideAddress string

	command *exec.Cmd
	exited  chan struct{}
	output  tail
}

// Start starts a server on the data directory, which must exist. It does not wait
// until the server serves.
func Start(spec Spec, dataDir string) (*Server, error) {
	if spec.Address != "" {
		return &Server{Spec: spec, Address: spec.Address}, nil
	}
	address, side, err := freeAddresses()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", spec.Name, err)
	}
	arguments := spec.Arguments(address, side, dataDir)
	if spec.Kind == Varve && spec.Config != "" {
		path := dataDir + ".yml"
		if err := os.WriteFile(path, []byte(spec.Config), 0o600); err != nil {
			return nil, fmt.Errorf("start %s: %w", spec.Name, err)
		}
		arguments = append(arguments, "--config.file="+path)
	}
	if spec.Kind == Prometheus {
		config := cmp.Or(strings.ReplaceAll(spec.Config, "SELF", address), "global: {}\n")
		if err := os.WriteFile(filepath.Join(dataDir, "prometheus.yml"), []byte(config), 0o600); err != nil {
			return nil, fmt.Errorf("start %s: %w", spec.Name, err)
		}
	}
	if spec.Kind == InfluxDB {
		if err := os.WriteFile(filepath.Join(dataDir, influxConfigFile), influxConfig(address, side, dataDir), 0o600); err != nil {
			return nil, fmt.Errorf("start %s: %w", spec.Name, err)
		}
	}
	s := &Server{Spec: spec, Address: address, SideAddress: side, DataDir: dataDir, exited: make(chan struct{})}
	s.command = exec.Command(spec.Binary, arguments...)
	s.command.Dir = dataDir
	s.command.Stdout, s.command.Stderr = &s.output, &s.output
	s.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := s.command.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", spec.Name, err)
	}
	go func() {
		// The reason of the exit is in the output; whoever waits learns that it ended.
		_ = s.command.Wait()
		close(s.exited)
	}()
	return s, nil
}

// WaitReady waits until the server says that it serves.
func (s *Server) WaitReady(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	client := &http.Client{Timeout: 10 * time.Second}
	defer client.CloseIdleConnections()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.Address+s.Spec.readyPath(), nil)
		if err != nil {
			return fmt.Errorf("wait for %s: %w", s.Spec.Name, err)
		}
		if response, err := client.Do(request); err == nil {
			response.Body.Close()
			if response.StatusCode/100 == 2 {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: not ready within %s; it said: %s", s.Spec.Name, limit, s.Output())
		case <-s.exited:
			return fmt.Errorf("wait for %s: it ended; it said: %s", s.Spec.Name, s.Output())
		case <-tick.C:
		}
	}
}

// Kill ends the process group at once, as a crash would, and waits for its end.
func (s *Server) Kill() {
	if s.command == nil {
		return
	}
	// An error means that nothing of the group is left, which is what we want.
	_ = syscall.Kill(-s.command.Process.Pid, syscall.SIGKILL)
	<-s.exited
}

// Stop asks the server to end and kills it after the limit.
func (s *Server) Stop(limit time.Duration) error {
	if s.command == nil {
		return nil
	}
	_ = syscall.Kill(-s.command.Process.Pid, syscall.SIGTERM)
	select {
	case <-s.exited:
		s.Kill()
		return nil
	case <-time.After(limit):
		s.Kill()
		return fmt.Errorf("stop %s: still running after %s; it said: %s", s.Spec.Name, limit, s.Output())
	}
}

// Output is the end of what the server wrote.
func (s *Server) Output() string { return s.output.String() }

// freeAddresses finds two free ports of the loopback, at or above 20000 and below those
// that the kernel hands out by itself.
func freeAddresses() (first, second string, err error) {
	var found []string
	from := 20000 + os.Getpid()%5000
	for port := from; port < 32000; port++ {
		address := fmt.Sprintf("127.0.0.1:%d", port)
		listener, err := net.Listen("tcp4", address)
		if err != nil {
			continue
		}
		if err := listener.Close(); err != nil {
			return "", "", err
		}
		if found = append(found, address); len(found) == 2 {
			return found[0], found[1], nil
		}
	}
	return "", "", fmt.Errorf("no two free ports of the loopback from %d to 31999", from)
}

// tail keeps the last bytes written to it.
type tail struct {
	mu   sync.Mutex
	kept []byte
}

const tailBytesMax = 4096

// Write never fails.
func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, b...)
	if over := len(t.kept) - tailBytesMax; over > 0 {
		t.kept = append(t.kept[:0], t.kept[over:]...)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.kept))
}
