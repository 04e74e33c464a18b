package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// EnvPrometheus3 names the environment variable with the path of a Prometheus 3.x
// binary. Without it the one is taken that peers/build.sh left in the cache.
const EnvPrometheus3 = "PROMETHEUS3"

// startTimeout bounds the start of a server of other people.
const startTimeout = 3 * time.Minute

// Prometheus2 returns the path of Debian's Prometheus, and ends the test when it
// is not installed.
func Prometheus2(t testing.TB) string {
	t.Helper()
	path, err := exec.LookPath("prometheus")
	if err != nil {
		Lacking(t, "no prometheus in PATH: apt-get install prometheus")
	}
	return path
}

// Prometheus3 returns the path of a Prometheus 3.x, and ends the test when there
// is none.
func Prometheus3(t testing.TB) string {
	t.Helper()
	if path := os.Getenv(EnvPrometheus3); path != "" {
		return path
	}
	return Peer(t, "prometheus-3.")
}

// StartPrometheus starts a Prometheus with the configuration and flags in a new
// directory, waits until it is ready and ends it with the test.
func StartPrometheus(t testing.TB, binary, configuration string, flags ...string) *Server {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(file, []byte(configuration), 0o600); err != nil {
		t.Fatalf("write the configuration of Prometheus: %v", err)
	}
	address, err := FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	s, err := Start(Options{
		Binary:  binary,
		Address: address,
		Args: append([]string{
			"--config.file=" + file,
			"--storage.tsdb.path=" + filepath.Join(dir, "data"),
			"--web.listen-address=" + address,
		}, flags...),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Kill)
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	if err := s.WaitReady(ctx); err != nil {
		t.Fatalf("start Prometheus: %v", err)
	}
	return s
}

// Wait polls until the condition holds. It returns the context's error, with
// what was waited for, when that ends first.
func Wait(ctx context.Context, what string, condition func() (bool, error)) error {
	ticker := time.NewTicker(10 * pollInterval)
	defer ticker.Stop()
	var last error
	for {
		ok, err := condition()
		if ok {
			return nil
		}
		if ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until %s: %w", what, errors.Join(ctx.Err(), last))
		case <-ticker.C:
		}
	}
}
