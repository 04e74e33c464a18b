package peer

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Cost is what a process has used since its start, and holds now.
type Cost struct {
	// CPUSeconds is user and system time of all threads, those that ended
	// included. Its resolution is 10 ms.
	CPUSeconds float64
	// RSSBytes is the resident memory now, PeakBytes its maximum so far.
	RSSBytes, PeakBytes int64
	// WrittenBytes is what the process caused to be written to the disk.
	WrittenBytes int64
}

// ticksPerSecond is the unit of processor time in /proc, a constant of Linux.
const ticksPerSecond = 100

// Cost reads the cost of the server process. It is zero for a server that was not
// started here.
func (s *Server) Cost() (Cost, error) {
	if s.command == nil {
		return Cost{}, nil
	}
	dir := fmt.Sprintf("/proc/%d/", s.command.Process.Pid)
	stat, err := os.ReadFile(dir + "stat")
	if err != nil {
		return Cost{}, fmt.Errorf("cost of %s: %w", s.Spec.Name, err)
	}
	cost := Cost{}
	if cost.CPUSeconds, err = cpuSeconds(string(stat)); err != nil {
		return Cost{}, fmt.Errorf("cost of %s: %w", s.Spec.Name, err)
	}
	status, err := readNumbers(dir + "status")
	if err != nil {
		return Cost{}, fmt.Errorf("cost of %s: %w", s.Spec.Name, err)
	}
	cost.RSSBytes, cost.PeakBytes = status["VmRSS"]<<10, status["VmHWM"]<<10
	// Some containers hide this file; the figure is then left out.
	if io, err := readNumbers(dir + "io"); err == nil {
		cost.WrittenBytes = io["write_bytes"]
	}
	return cost, nil
}

// PeakOf is the largest resident memory that a process has had so far.
func PeakOf(pid int) (int64, error) {
	status, err := readNumbers(fmt.Sprintf("/proc/%d/status", pid))
	return status["VmHWM"] << 10, err
}

// CPUSecondsFine is the processor time of the threads that live, to the
// nanosecond: for stretches too short for Cost. Threads that ended in between
// would make it too small, but these servers keep theirs.
func (s *Server) CPUSecondsFine() float64 {
	if s.command == nil {
		return 0
	}
	paths, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", s.command.Process.Pid))
	if err != nil {
		return 0
	}
	total := 0.0
	for _, path := range paths {
		// A thread may end between the listing and the reading.
		text, _ := os.ReadFile(path)
		first, _, _ := strings.Cut(string(text), " ")
		nanos, _ := strconv.ParseFloat(first, 64)
		total += nanos / 1e9
	}
	return total
}

// cpuSeconds reads user and system time out of the text of /proc/PID/stat.
func cpuSeconds(stat string) (float64, error) {
	// The name of the program may hold spaces and parentheses.
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 13 {
		return 0, fmt.Errorf("parse process times: %d fields", len(fields))
	}
	user, err := strconv.ParseUint(fields[11], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("parse process times: %w", err)
	}
	system, err := strconv.ParseUint(fields[12], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("parse process times: %w", err)
	}
	return float64(user+system) / ticksPerSecond, nil
}

// readNumbers reads lines of a name, a colon and a number.
func readNumbers(path string) (map[string]int64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	numbers := map[string]int64{}
	for line := range strings.Lines(string(text)) {
		name, rest, _ := strings.Cut(line, ":")
		if fields := strings.Fields(rest); len(fields) > 0 {
			if n, err := strconv.ParseInt(fields[0], 10, 64); err == nil {
				numbers[name] = n
			}
		}
	}
	return numbers, nil
}

// Settle waits until the server uses less than a tenth of a core over a second,
// or until the limit.
func (s *Server) Settle(ctx context.Context, limit time.Duration) {
	deadline := time.Now().Add(limit)
	for last := -1.0; time.Now().Before(deadline) && ctx.Err() == nil; {
		cost, err := s.Cost()
		if err != nil || last >= 0 && cost.CPUSeconds-last < 0.1 {
			return
		}
		last = cost.CPUSeconds
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
}

// metricsBytesMax bounds how much of a /metrics page is read.
const metricsBytesMax = 16 << 20

// Metrics reads the server's own metrics: the values by name, summed over all
// labels, and by name with labels as they are written. Values that are not finite
// are left out.
func (s *Server) Metrics(ctx context.Context) (map[string]float64, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.Address+"/metrics", nil)
	if err != nil {
		return nil, fmt.Errorf("metrics of %s: %w", s.Spec.Name, err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, fmt.Errorf("metrics of %s: %w", s.Spec.Name, err)
	}
	defer response.Body.Close()
	return sumMetrics(io.LimitReader(response.Body, metricsBytesMax))
}

// sumMetrics reads the text format.
func sumMetrics(r io.Reader) (map[string]float64, error) {
	sums := map[string]float64{}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if strings.HasPrefix(line, "#") {
			continue
		}
		name, rest := line, line
		if open := strings.IndexByte(line, '{'); open >= 0 {
			name, rest = line[:open], line[strings.LastIndexByte(line, '}')+1:]
		} else if space := strings.IndexByte(line, ' '); space >= 0 {
			name, rest = line[:space], line[space:]
		}
		fields := strings.Fields(rest)
		if len(fields) == 0 {
			continue
		}
		if value, err := strconv.ParseFloat(fields[0], 64); err == nil && !math.IsNaN(value) && !math.IsInf(value, 0) {
			sums[name] += value
			if series := strings.TrimSuffix(line, rest); series != name {
				sums[series] = value
			}
		}
	}
	return sums, lines.Err()
}
