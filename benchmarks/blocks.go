package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"varve/benchmarks/block"
	"varve/benchmarks/fleet"
	"varve/benchmarks/peer"
	"varve/benchmarks/result"
)

const (
	// madeFile says of a folder of blocks that it is complete, and what is in it.
	madeFile = "made.json"
	// importBinary is the peer's own program for blocks, of the same Debian package.
	importBinary = "vmctl"
	// countsMax is how often samples are counted until none is lacking, countPause the time between.
	countsMax  = 4
	countPause = 5 * time.Second
)

// blockWay is one way of importing blocks into one kind of server. SERVER, BLOCKS, DATA and STATE
// stand for an address and paths in the arguments.
type blockWay struct {
	name string
	kind peer.Kind
	// program is empty for the server's own.
	program   string
	arguments []string
	// offline ways write the data directory themselves: no server runs.
	offline bool
}

// blockWays are measured in this order, servers in turns.
var blockWays = []blockWay{
	{"varve, data directory", peer.Varve, "", []string{"import", "tsdb", "BLOCKS", "--data=DATA", "--state=STATE"}, true},
	{"varve, running server", peer.Varve, "", []string{"import", "tsdb", "BLOCKS", "--url=http://SERVER", "--state=STATE"}, false},
	{"vmctl", peer.VictoriaMetrics, importBinary, []string{"prometheus", "--prom-snapshot=BLOCKS", "--vm-addr=http://SERVER", "-s", "--vm-disable-progress-bar"}, false},
	// The loopback needs no compression, and two cores may read two blocks.
	{"vmctl, tuned", peer.VictoriaMetrics, importBinary, []string{"prometheus", "--prom-snapshot=BLOCKS", "--vm-addr=http://SERVER", "-s", "--vm-disable-progress-bar",
		"--prom-concurrency=2", "--vm-concurrency=2", "--vm-compress=false"}, false},
}

// blocksRun is what all imports share.
type blocksRun struct {
	*bench
	exporters *exporters
	fleet     *fleet.Fleet
	dir       string // of the blocks
	made      block.Made
}

// importBlocks measures how fast servers take in blocks of Prometheus' TSDB.
func importBlocks(ctx context.Context, b *bench) (err error) {
	r := &blocksRun{bench: b}
	if r.exporters, err = b.openExporters(ctx); err != nil {
		return err
	}
	if err := r.makeBlocks(ctx); err != nil {
		return err
	}
	for i := range b.specs {
		b.specs[i] = withoutSelfScrape(b.specs[i])
		b.entries[i].Blocks = &result.Blocks{Replay: r.replay(), RangeS: int64(b.settings.blocksHours) * 3600, Made: result.MadeBlocks(r.made)}
	}
	for repetition := range b.settings.repetitions {
		for _, way := range blockWays {
			for i, spec := range b.specs {
				if spec.Kind != way.kind {
					continue
				}
				point, err := r.importOnce(ctx, spec, way)
				if err != nil {
					return fmt.Errorf("%s: %w", way.name, err)
				}
				point.Repetition = repetition + 1
				b.entries[i].Blocks.Imports = append(b.entries[i].Blocks.Imports, point)
			}
		}
	}
	return nil
}

// blockSpecs are the servers that have a way of importing blocks and are started here.
func (b *bench) blockSpecs(specs []peer.Spec) ([]peer.Spec, error) {
	var kept []peer.Spec
	for _, spec := range specs {
		if spec.Address != "" || !slices.ContainsFunc(blockWays, func(w blockWay) bool { return w.kind == spec.Kind }) {
			b.say("blocks: %s is left out: it has no import, or is not started here", spec.Name)
			continue
		}
		if spec.Kind == peer.VictoriaMetrics {
			if _, err := findProgram(importBinary); err != nil {
				return nil, fmt.Errorf("%w: it is part of victoria-metrics; or leave that out with --peers", err)
			}
		}
		kept = append(kept, spec)
	}
	if len(kept) == 0 {
		return nil, errors.New("none of --peers has an import of blocks")
	}
	return kept, nil
}

// makeBlocks writes the blocks, or finds them in --blocks-directory.
func (r *blocksRun) makeBlocks(ctx context.Context) error {
	s := r.settings
	counts, err := parseTargets(s.targets)
	if err != nil {
		return err
	}
	rounds := s.blocksDays * roundsPerDay
	if r.fleet, err = fleet.New(fleet.Config{
		Seed: s.seed, Groups: r.exporters.groups(counts, 0), StartMillis: startOfData(r.began, rounds).UnixMilli(), StepMillis: stepMillis,
		Rounds: rounds, Naming: fleet.Short,
	}); err != nil {
		return err
	}
	r.describeFleet(r.fleet)
	parent := s.blocksDirectory
	if parent == "" {
		parent = r.root
	}
	if parent, err = filepath.Abs(parent); err != nil {
		return err
	}
	r.dir = filepath.Join(parent, fmt.Sprintf("blocks-%d-%d-%dd-%dh-%d-%d", s.seed, r.fleet.Config().StartMillis/1000, s.blocksDays, s.blocksHours, r.fleet.Series(), r.exporters.scrapes))
	if text, err := os.ReadFile(r.dir + "-" + madeFile); err == nil && json.Unmarshal(text, &r.made) == nil {
		r.say("%d blocks of %.1f M samples were there", r.made.Blocks, float64(r.made.Samples)/1e6)
		return nil
	}
	return r.writeBlocks(ctx)
}

// writeBlocks writes the blocks and, when they are complete, says so beside them.
func (r *blocksRun) writeBlocks(ctx context.Context) error {
	if err := errors.Join(os.RemoveAll(r.dir), os.MkdirAll(r.dir, 0o700)); err != nil {
		return fmt.Errorf("write blocks: %w", err)
	}
	var err error
	began := time.Now()
	r.made, err = block.Write(ctx, r.dir, r.fleet, int64(r.settings.blocksHours)*3600_000, func(m block.Made) {
		r.show("writing blocks: %d, %.1f M samples", m.Blocks, float64(m.Samples)/1e6)
	})
	if err != nil {
		return err
	}
	r.say("wrote %d blocks of %d h: %d series, %.1f M samples, %.1f MiB, %.3f B/sample, in %.0f s", r.made.Blocks, r.settings.blocksHours, r.fleet.Series(),
		float64(r.made.Samples)/1e6, float64(r.made.Bytes)/(1<<20), float64(r.made.Bytes)/float64(r.made.Samples), time.Since(began).Seconds())
	text, err := json.Marshal(r.made)
	if err != nil {
		return err
	}
	// Not among the blocks: importers read that folder.
	if err := os.WriteFile(r.dir+"-"+madeFile, text, 0o600); err != nil {
		return fmt.Errorf("write blocks: %w", err)
	}
	return nil
}

// replay says what is in the blocks.
func (r *blocksRun) replay() result.Replay {
	return r.exporters.replayCounted(r.fleet, fleet.Tally{Samples: r.made.Samples, Stale: r.made.Stale})
}

// importOnce imports all blocks into an empty server or directory.
func (r *blocksRun) importOnce(ctx context.Context, spec peer.Spec, way blockWay) (point result.BlockImport, err error) {
	name := "blocks-" + spec.Name
	data := filepath.Join(r.root, name)
	point = result.BlockImport{Way: way.name, Samples: r.made.Samples, Want: r.made.Samples - r.made.Stale}
	// Everybody reads the blocks from the disk.
	if err := peer.DropCached(r.dir); err != nil {
		return point, fmt.Errorf("drop cached blocks: %w", err)
	}
	var server *peer.Server
	defer func() {
		if server != nil {
			err = errors.Join(err, r.discard(server))
		}
	}()
	if !way.offline {
		if server, err = r.start(ctx, spec, name); err != nil {
			return point, err
		}
	}
	before := r.costOf(server)
	program, arguments := way.command(spec, r.dir, data, server)
	point.Command = way.text()
	r.show("%s: importing", way.name)
	run, err := r.runProgram(ctx, program, arguments...)
	if err != nil {
		return point, err
	}
	after := r.costOf(server)
	millions := float64(point.Samples) / 1e6
	point.Seconds, point.ClientCPU, point.ClientPeakBytes = run.Elapsed.Seconds(), run.CPUSeconds/millions, run.PeakBytes
	point.ServerCPU, point.ServerPeakBytes = (after.CPUSeconds-before.CPUSeconds)/millions, after.PeakBytes
	point.Written = float64(run.WrittenBytes+after.WrittenBytes-before.WrittenBytes) / float64(point.Samples)
	if server == nil {
		if server, err = r.start(ctx, spec, name); err != nil {
			return point, err
		}
	}
	if err := r.settleImport(ctx, server, &point, run.CPUSeconds-before.CPUSeconds); err != nil {
		return point, err
	}
	if err := os.RemoveAll(data + ".state"); err != nil {
		return point, err
	}
	r.sayImport(point)
	return point, nil
}

// costOf is the cost of a server, nothing for none.
func (b *bench) costOf(server *peer.Server) peer.Cost {
	if server == nil {
		return peer.Cost{}
	}
	cost, err := server.Cost()
	if err != nil {
		b.say("%v", err)
	}
	return cost
}

// settleImport lets the server bring what it has into its final form, and counts. Spent is the
// CPU time of the client, less what the server had used before.
func (r *blocksRun) settleImport(ctx context.Context, server *peer.Server, point *result.BlockImport, spent float64) (err error) {
	began := time.Now()
	tidying := peer.Tidying{
		EndMillis: r.fleet.Config().StartMillis + int64(r.fleet.Config().Rounds)*stepMillis, Labels: r.fleet.Wire(0, 0),
		Limit: r.settings.settle, Quiet: r.settings.quiet,
	}
	if point.Remark, err = server.Tidy(ctx, tidying); err != nil {
		return err
	}
	if point.Remark == peer.NothingSealed {
		// As it should be: what is imported is sealed.
		point.Remark = ""
	}
	point.SettleSeconds = time.Since(began).Seconds()
	settled, err := server.Cost()
	if err != nil {
		return err
	}
	point.CPUSettled = (spent + settled.CPUSeconds) / (float64(point.Samples) / 1e6)
	for range countsMax {
		if point.Found, err = r.countFleet(ctx, server, r.fleet, r.fleet.Config().Rounds); err != nil {
			return err
		}
		if missing := point.Want - point.Found; missing == 0 || missing == r.made.NaN {
			break
		}
		// It may take a server some time to show all that it has. What it still lacks then is a result.
		r.say("%s: counted %d of %d samples", point.Way, point.Found, point.Want)
		pause(ctx, countPause)
	}
	// A Varve is stopped for this.
	point.Disk, err = r.diskOf(ctx, server)
	return err
}

// command is what to run.
func (w blockWay) command(spec peer.Spec, blocks, data string, server *peer.Server) (program string, arguments []string) {
	program = w.program
	if program == "" {
		program = spec.Binary
	}
	address := ""
	if server != nil {
		address = server.Address
	}
	return program, w.replaced(map[string]string{"SERVER": address, "BLOCKS": blocks, "DATA": data, "STATE": data + ".state"})
}

// replaced are the arguments with what their names stand for.
func (w blockWay) replaced(names map[string]string) []string {
	var pairs []string
	for name, stands := range names {
		pairs = append(pairs, name, stands)
	}
	replacer := strings.NewReplacer(pairs...)
	var arguments []string
	for _, argument := range w.arguments {
		arguments = append(arguments, replacer.Replace(argument))
	}
	return arguments
}

// text is the command with its names, as the page shows it.
func (w blockWay) text() string {
	program := w.program
	if program == "" {
		program = string(w.kind)
	}
	return program + " " + strings.Join(w.arguments, " ")
}

// sayImport prints a point.
func (r *blocksRun) sayImport(p result.BlockImport) {
	doubt := ""
	if missing := p.Want - p.Found; missing != 0 {
		doubt = fmt.Sprintf("; LACKS %d of %d, of which %d are NaN", missing, p.Want, r.made.NaN)
	}
	r.say("%-22s %.2f M samples/s in %.1f s; CPU %.3f + %.3f s/M, settled %.3f; peak %d + %d MiB; written %.2f B/sample; %.3f B/sample, was %.3f%s %s", p.Way+":",
		p.SamplesPerSecond()/1e6, p.Seconds, p.ClientCPU, p.ServerCPU, p.CPUSettled, p.ClientPeakBytes>>20, p.ServerPeakBytes>>20, p.Written,
		float64(p.Disk.Bytes-p.Disk.FixedBytes)/float64(p.Samples), float64(r.made.Bytes)/float64(p.Samples), doubt, p.Remark)
}
