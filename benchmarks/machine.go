package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"varve/benchmarks/peer"
	"varve/benchmarks/result"
)

// machine describes where the run takes place.
func machine(dir string) result.Machine {
	m := result.Machine{Cores: runtime.NumCPU(), Go: runtime.Version(), FileSystem: peer.FileSystem(dir)}
	m.CPU = field("/proc/cpuinfo", "model name")
	kilobytes, _, _ := strings.Cut(field("/proc/meminfo", "MemTotal"), " ")
	if n, err := strconv.ParseInt(kilobytes, 10, 64); err == nil {
		m.MemoryBytes = n << 10
	}
	m.Kernel = firstWord("/proc/sys/kernel/osrelease")
	m.Load, _ = strconv.ParseFloat(firstWord("/proc/loadavg"), 64)
	return m
}

// field is the value of the first line "name: value" of a file.
func field(path, name string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if key, value, _ := strings.Cut(line, ":"); strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// firstWord is the first word of a file.
func firstWord(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	word, _, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
	return word
}

// command is how this run was called, without the directories of this machine.
func command() string {
	words := []string{"go run ./benchmarks"}
	for _, word := range os.Args[1:] {
		parts := strings.Split(word, ",")
		for i, part := range parts {
			if slash := strings.IndexByte(part, '/'); slash >= 0 && !strings.Contains(part, "://") {
				parts[i] = part[:slash] + filepath.Base(part)
			}
		}
		words = append(words, strings.Join(parts, ","))
	}
	return strings.Join(words, " ")
}

// commit names the state of the source, with a plus if files differ from it.
func commit(ctx context.Context) string {
	head, err := exec.CommandContext(ctx, "git", "rev-parse", "--short=12", "HEAD").Output()
	if err != nil {
		return "none"
	}
	name := strings.TrimSpace(string(head))
	// Results and their page change by measuring.
	status, err := exec.CommandContext(ctx, "git", "status", "--porcelain", "--", ":!benchmarks/results.jsonl", ":!docs/benchmarks.md").Output()
	if err != nil || len(status) > 0 {
		name += "+"
	}
	return name
}

// installedRocksDB is the version of the library that a build here links, empty if
// it is not known.
func installedRocksDB(ctx context.Context) string {
	output, err := exec.CommandContext(ctx, "pkg-config", "--modversion", "rocksdb").Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(output))
}

// ownCPU is the CPU time this process has used, in seconds.
func ownCPU() float64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
}
