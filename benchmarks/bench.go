package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"varve/benchmarks/dataset"
	"varve/benchmarks/load"
	"varve/benchmarks/peer"
	"varve/benchmarks/result"
	"varve/benchmarks/wire"
)

// bench is one run: the servers to measure and their growing entries, in the same
// order.
type bench struct {
	settings *settings
	specs    []peer.Spec
	entries  []result.Entry
	root     string // the run's directory, removed at the end
	began    time.Time
}

const (
	stepMillis = 15_000
	// hostsPerCluster gives clusters of 20 000 series: below every server's default
	// limit of series a query.
	hostsPerCluster = 20
	readyLimit      = 2 * time.Minute
	stopLimit       = 2 * time.Minute
	settleLimit     = 20 * time.Second
	leadRoundsMax   = 40
)

// measure runs verbs one after the other and appends what they found. What was
// found before an error is kept, verb by verb.
func (s *settings) measure(ctx context.Context, verbs []verb) (err error) {
	root, err := os.MkdirTemp(s.directory, "varve-benchmarks-")
	if err != nil {
		return fmt.Errorf("make a directory for the data: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(root)) }()
	b := &bench{settings: s, root: root, began: time.Now()}
	specs, err := b.findPeers(ctx)
	if err != nil {
		return err
	}
	for _, verb := range verbs {
		b.specs = slices.Clone(specs)
		if (verb.name == "query" || verb.name == "fleet") && s.reference != "" {
			b.specs = append(b.specs, peer.Spec{Name: "reference", Kind: peer.Prometheus, Binary: s.reference})
		}
		if verb.name == "inputs" {
			if b.specs, err = b.inputSpecs(ctx, specs); err != nil {
				return err
			}
		}
		if verb.name == "blocks" {
			if b.specs, err = b.blockSpecs(specs); err != nil {
				return err
			}
		}
		b.newEntries(ctx, verb.name)
		if err := verb.run(ctx, b); err != nil {
			return fmt.Errorf("%s: %w", verb.name, err)
		}
		if err := result.Append(s.results, b.entries); err != nil {
			return err
		}
		b.say("appended %d lines to %s; make the page with: go run ./benchmarks render", len(b.entries), s.results)
	}
	return nil
}

// findPeers reads the list of servers and builds varve if it must.
func (b *bench) findPeers(ctx context.Context) ([]peer.Spec, error) {
	var specs []peer.Spec
	for text := range strings.SplitSeq(b.settings.peers, ",") {
		spec, err := peer.Parse(text)
		if err != nil {
			return nil, err
		}
		if spec.Kind == peer.Varve {
			spec.More = b.settings.varveMore
		}
		if spec.Kind == peer.Varve && spec.Binary == "" && spec.Address == "" {
			if spec.Binary, err = b.buildVarve(ctx); err != nil {
				return nil, err
			}
		}
		if spec.Binary != "" {
			if spec.Binary, err = findProgram(spec.Binary); err != nil {
				return nil, fmt.Errorf("peer %s: %w; install it or leave it out with --peers", spec.Name, err)
			}
		}
		specs = append(specs, spec)
	}
	if b.settings.reference != "" {
		var err error
		if b.settings.reference, err = findProgram(b.settings.reference); err != nil {
			return nil, fmt.Errorf("reference: %w", err)
		}
	}
	return specs, nil
}

// findProgram is the whole path of a program, which starts in another directory.
func findProgram(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", err
	}
	return filepath.Abs(path)
}

// buildVarve is the varve program to measure.
func (b *bench) buildVarve(ctx context.Context) (string, error) {
	if b.settings.varve != "" {
		return b.settings.varve, nil
	}
	binary := filepath.Join(b.root, "varve")
	b.say("building varve")
	output, err := exec.CommandContext(ctx, "go", "build", "-o", binary, "./cmd/varve").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build varve: %w: %s", err, output)
	}
	return binary, nil
}

// rocksPattern finds the version of RocksDB in what varve says of itself.
var rocksPattern = regexp.MustCompile(`(?i)rocksdb\D{0,12}(\d+\.\d+[\w.]*)`)

// newEntries begins the lines of a verb.
func (b *bench) newEntries(ctx context.Context, verb string) {
	now := time.Now().UTC()
	b.entries = nil
	for _, spec := range b.specs {
		version, text := spec.Version(ctx)
		entry := result.Entry{
			Schema: result.Schema, Run: fmt.Sprintf("%s-%d", now.Format("20060102T150405Z"), os.Getpid()), Date: now.Format(time.RFC3339), Verb: verb,
			Command: command(), Commit: commit(ctx), Note: b.settings.note, Machine: machine(b.settings.directory),
			Peer: result.Peer{Name: spec.Name, Kind: string(spec.Kind), Version: version, Sync: spec.Sync()},
		}
		if match := rocksPattern.FindStringSubmatch(text); match != nil {
			entry.Peer.RocksDB = match[1]
		} else if spec.Kind == peer.Varve && spec.Binary != "" {
			entry.Peer.RocksDB = installedRocksDB(ctx)
		}
		b.entries = append(b.entries, entry)
	}
}

// describe notes the data in all lines.
func (b *bench) describe(d *dataset.Dataset) {
	for i := range b.entries {
		b.entries[i].Dataset = result.Dataset{
			Seed: d.Config().Seed, Series: d.Len(), StepMillis: d.Config().StepMillis, StartMillis: d.Config().StartMillis,
			LabelsMean: d.LabelsMean(), LabelBytesMean: d.LabelBytesMean(),
		}
	}
}

// dataset names the series of a measurement of the given length.
func (b *bench) dataset(series, perCluster, rounds int) (*dataset.Dataset, error) {
	start := time.Now().Add(-time.Minute - time.Duration(rounds)*stepMillis*time.Millisecond).Truncate(time.Minute)
	if b.settings.start != "" {
		var err error
		if start, err = time.Parse(time.RFC3339, b.settings.start); err != nil {
			return nil, fmt.Errorf("--start: %w", err)
		}
	}
	return dataset.New(dataset.Config{
		Seed: b.settings.seed, Series: series, StartMillis: start.UnixMilli(), StepMillis: stepMillis, HostsPerCluster: perCluster,
	})
}

// start starts a server on the directory of the given name and waits until it
// serves.
func (b *bench) start(ctx context.Context, spec peer.Spec, name string) (*peer.Server, error) {
	dir := filepath.Join(b.root, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("start %s: %w", spec.Name, err)
	}
	server, err := peer.Start(spec, dir)
	if err != nil {
		return nil, err
	}
	if err := server.WaitReady(ctx, readyLimit); err != nil {
		server.Kill()
		return nil, err
	}
	return server, nil
}

// discard kills a server and removes its data.
func (b *bench) discard(server *peer.Server) error {
	server.Kill()
	if server.DataDir == "" {
		return nil
	}
	return os.RemoveAll(server.DataDir)
}

// push sends frames to a server, showing how far it is.
func (b *bench) push(ctx context.Context, server *peer.Server, protocol int, frames [][]wire.Frame, options load.Options) (load.Report, error) {
	return b.pushTo(ctx, server, load.Target{Address: server.Address, Path: "/api/v1/write", Protocol: protocol}, frames, options)
}

// pushTo is push, for any way in.
func (b *bench) pushTo(ctx context.Context, server *peer.Server, target load.Target, frames [][]wire.Frame, options load.Options) (load.Report, error) {
	options.LeadRoundsMax = leadRoundsMax
	began := time.Now()
	options.Progress = func(acknowledged int64) {
		b.show("%s: %.1f M samples, %.2f M/s", server.Spec.Name, float64(acknowledged)/1e6, float64(acknowledged)/1e6/time.Since(began).Seconds())
	}
	report, err := load.Run(ctx, target, frames, options)
	if err != nil {
		return report, fmt.Errorf("write to %s after %d samples: %w; it said: %s", server.Spec.Name, report.Acknowledged, err, server.Output())
	}
	return report, nil
}

// say prints a line with the time since the start.
func (b *bench) say(format string, arguments ...any) {
	fmt.Fprintf(os.Stderr, "\r\x1b[K[%6.1fs] %s\n", time.Since(b.began).Seconds(), fmt.Sprintf(format, arguments...))
}

// show replaces the line of progress.
func (b *bench) show(format string, arguments ...any) {
	fmt.Fprintf(os.Stderr, "\r\x1b[K[%6.1fs] %s", time.Since(b.began).Seconds(), fmt.Sprintf(format, arguments...))
}

// renderPage writes the page, or compares it.
func renderPage(_ context.Context, s *settings) error {
	file, err := os.Open(s.results)
	if err != nil {
		return fmt.Errorf("render: %w", err)
	}
	defer file.Close()
	entries, err := result.Load(file)
	if err != nil {
		return err
	}
	files, err := result.Charts(entries)
	if err != nil {
		return err
	}
	folder := filepath.Join(filepath.Dir(s.page), result.ChartFolder)
	for name, text := range files {
		if err := s.writeOrCheck(filepath.Join(folder, name), text); err != nil {
			return err
		}
	}
	return s.writeOrCheck(s.page, []byte(result.Page(entries)))
}

// writeOrCheck writes a file of the page, or compares it.
func (s *settings) writeOrCheck(path string, text []byte) error {
	if s.check {
		old, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("render: %w", err)
		}
		if !bytes.Equal(old, text) {
			return fmt.Errorf("%s is not what %s gives; run: go run ./benchmarks render", path, s.results)
		}
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("render: %w", err)
	}
	if err := os.WriteFile(path, text, 0o644); err != nil {
		return fmt.Errorf("render: %w", err)
	}
	return nil
}
