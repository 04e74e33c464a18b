package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"varve/benchmarks/dataset"
	"varve/benchmarks/fleet"
	"varve/benchmarks/load"
	"varve/benchmarks/peer"
	"varve/benchmarks/result"
)

const (
	// snapshotConfig keeps the compactor from working by itself: a snapshot has sealed what is due.
	snapshotConfig = "self_scrape: {enabled: false}\ncompactor: {interval: 24h, seal_delay: %s, quiet: 0s}\nsnapshots: {objstore_config_file: %q, max_upload_rate: %dMiB}\n"
	// sealDelayOld lets yesterday stay unsealed, and the day before not.
	sealDelayOld = "24h"
	// hotHoursMax is how much of a day that is not over a snapshot has at most.
	hotHoursMax = 12
	// hotMargin keeps samples from lying in the future.
	hotMargin = 2 * time.Minute
	// liveStepMillis lets the samples of now be of the last minutes, however many.
	liveStepMillis = 1000
)

// Kinds of snapshots beside which samples come in.
const (
	snapshotsWhole   = "all is sent"
	snapshotsChanges = "changes are sent"
)

// snapshotsRun is the passage of one server.
type snapshotsRun struct {
	*bench
	point  *result.Snapshots
	fleet  *fleet.Fleet
	server *peer.Server
	spec   peer.Spec
	// name is that of the data directory, objstore the file that says where the bucket is.
	name, bucket, objstore string
	days, hotRounds        int
	// uploadMiB is what snapshots send a second at most, 0 for any rate.
	uploadMiB int
	// moved counts folders of the bucket that were set aside.
	moved int
}

// snapshots measures how fast snapshots are made and restored, what a day later is sent again, and
// what writes feel of them.
func snapshots(ctx context.Context, b *bench) error {
	if err := b.varvesOnly(); err != nil {
		return err
	}
	e, err := b.openExporters(ctx)
	if err != nil {
		return err
	}
	f, hotRounds, err := b.snapshotFleet(e, time.Now())
	if err != nil {
		return err
	}
	b.describeFleet(f)
	for i, spec := range b.specs {
		r := &snapshotsRun{
			bench: b, fleet: f, spec: spec, name: "snapshots-" + spec.Name, bucket: filepath.Join(b.snapshotsBucket(), "bucket-"+spec.Name), days: b.settings.snapshotsDays, hotRounds: hotRounds,
			point: &result.Snapshots{Days: b.settings.snapshotsDays, HotHours: float64(hotRounds) / roundsPerHour,
				EachSeconds: b.settings.snapshotsEach.Seconds(), UploadMiB: b.settings.snapshotsUploadMiB, Elsewhere: b.settings.snapshotsBucket != "",
			},
		}
		b.entries[i].Snapshots = r.point
		if err := r.measure(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

// snapshotsBucket is the folder in which buckets are made.
func (b *bench) snapshotsBucket() string { return cmp.Or(b.settings.snapshotsBucket, b.root) }

// snapshotFleet begins so many days before yesterday and ends today. It gives the rounds of today.
func (b *bench) snapshotFleet(e *exporters, now time.Time) (*fleet.Fleet, int, error) {
	s := b.settings
	counts, err := parseTargets(s.snapshotsTargets)
	if err != nil {
		return nil, 0, err
	}
	const day = 24 * time.Hour
	today := now.UTC().Truncate(day)
	hot := min(now.Add(-hotMargin).Sub(today), hotHoursMax*time.Hour)
	hotRounds := max(0, int(hot/(stepMillis*time.Millisecond)))
	f, err := fleet.New(fleet.Config{
		Seed: s.seed, Groups: e.groups(counts, 0), StartMillis: today.Add(-day * time.Duration(s.snapshotsDays+1)).UnixMilli(), StepMillis: stepMillis,
		Rounds: (s.snapshotsDays+1)*roundsPerDay + hotRounds, Naming: fleet.Short,
	})
	return f, hotRounds, err
}

// measure does all with one server.
func (r *snapshotsRun) measure(ctx context.Context, e *exporters) (err error) {
	r.objstore = r.bucket + ".yml"
	if err := os.WriteFile(r.objstore, fmt.Appendf(nil, "type: FILESYSTEM\nconfig: {directory: %q}\n", r.bucket), 0o600); err != nil {
		return err
	}
	if err := r.restart(ctx, sealDelayOld); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.discard(r.server), os.RemoveAll(r.bucket)) }()
	if err := r.fillAndCreate(ctx); err != nil {
		return err
	}
	tally := r.fleet.Count(0, r.fleet.Config().Rounds)
	r.point.Replay, r.point.Want = e.replayCounted(r.fleet, tally), tally.Samples-tally.Stale
	r.uploadMiB = r.settings.snapshotsUploadMiB
	if err := r.restart(ctx, "0s"); err != nil {
		return err
	}
	return r.beside(ctx)
}

// restart starts the server, anew if it runs. Days are sealed that are over for the delay.
func (r *snapshotsRun) restart(ctx context.Context, sealDelay string) error {
	if r.server != nil {
		if err := r.server.Stop(stopLimit); err != nil {
			return err
		}
	}
	r.spec.Config = fmt.Sprintf(snapshotConfig, sealDelay, r.objstore, r.uploadMiB)
	server, err := r.start(ctx, r.spec, r.name)
	if err == nil {
		r.server = server
	}
	return err
}

// fillAndCreate writes the fleet and makes three snapshots of it, and reads one back.
func (r *snapshotsRun) fillAndCreate(ctx context.Context) error {
	if _, err := r.fillDays(ctx, r.server, r.fleet, r.days); err != nil {
		return err
	}
	r.show("sealing")
	if _, err := r.server.Compact(ctx); err != nil {
		return err
	}
	noon := r.days*roundsPerDay + r.hotRounds
	if _, err := r.loadRounds(ctx, r.server, r.fleet, r.days*roundsPerDay, noon); err != nil {
		return err
	}
	if _, err := r.create(ctx, "the first"); err != nil {
		return err
	}
	if _, err := r.loadRounds(ctx, r.server, r.fleet, noon, noon+roundsPerDay); err != nil {
		return err
	}
	if err := r.restart(ctx, "0s"); err != nil {
		return err
	}
	id, err := r.create(ctx, "a day later")
	if err != nil {
		return err
	}
	r.sayAgain()
	if _, err := r.create(ctx, "at once after it"); err != nil {
		return err
	}
	return r.readBack(ctx, id)
}

// create makes a snapshot once the server is idle, and notes it.
func (r *snapshotsRun) create(ctx context.Context, name string) (id string, err error) {
	r.server.Settle(ctx, settleLimit)
	r.show("making a snapshot: %s", name)
	before := r.costOf(r.server)
	made, err := r.server.CreateSnapshot(ctx)
	if err != nil {
		return "", err
	}
	after := r.costOf(r.server)
	f := made.Files
	point := result.SnapshotMade{
		Name: name, Seconds: made.Seconds, TookSeconds: f.Took.Seconds(), CPUSeconds: after.CPUSeconds - before.CPUSeconds, Files: f.Files, SentFiles: f.SentFiles,
		Bytes: f.Bytes, SentBytes: f.SentBytes, HashedBytes: f.HashedBytes, Families: map[string]result.SnapshotFamily{},
	}
	for name, total := range f.Families {
		point.Families[name] = result.SnapshotFamily{Bytes: total.Bytes, SentBytes: total.SentBytes}
	}
	r.point.Made = append(r.point.Made, point)
	r.say("snapshot, %s: %.1f s after %.1f s of sealing, %.1f MB in %d files, sent %.1f MB in %d, hashed %.1f MB, %.0f MB/s, CPU %.1f s", name, point.TookSeconds, point.Seconds-point.TookSeconds,
		float64(point.Bytes)/1e6, point.Files, float64(point.SentBytes)/1e6, point.SentFiles, float64(point.HashedBytes)/1e6, float64(point.SentBytes)/1e6/point.TookSeconds, point.CPUSeconds)
	return made.ID, nil
}

// sayAgain prints what the second snapshot sent, by family.
func (r *snapshotsRun) sayAgain() {
	first, second := r.point.Made[0], r.point.Made[1]
	for name, f := range second.Families {
		before := first.Families[name]
		r.say("  %-12q %8.2f MB, was %8.2f; sent %8.2f, of this again %8.2f", name, float64(f.Bytes)/1e6, float64(before.Bytes)/1e6, float64(f.SentBytes)/1e6, float64(result.SentAgain(before, f))/1e6)
	}
}

// readBack verifies a snapshot in each way and restores it.
func (r *snapshotsRun) readBack(ctx context.Context, id string) error {
	restored := filepath.Join(r.root, r.name+"-restored")
	for repetition := range r.settings.repetitions {
		for _, verb := range [][]string{
			{"verify", id}, {"verify", id, "--contents"}, {"verify", id, "--deep", "--scratch=" + r.root}, {"restore", id, restored},
		} {
			if err := errors.Join(peer.DropCached(r.bucket), os.RemoveAll(restored)); err != nil {
				return err
			}
			if err := r.readOnce(ctx, verb, repetition+1); err != nil {
				return err
			}
		}
	}
	server, err := r.start(ctx, withoutSelfScrape(r.spec), filepath.Base(restored))
	if err != nil {
		return err
	}
	r.point.Found, err = r.countFleet(ctx, server, r.fleet, r.fleet.Config().Rounds)
	return errors.Join(err, r.discard(server))
}

// readOnce runs a verb over the bucket.
func (r *snapshotsRun) readOnce(ctx context.Context, verb []string, repetition int) error {
	text := "varve snapshot " + verb[0] + " ID"
	switch {
	case verb[0] == "restore":
		text += " DIR"
	case len(verb) > 2:
		text += " " + verb[2]
	default:
	}
	r.show("%s", text)
	run, err := r.runProgram(ctx, r.spec.Binary, append(append([]string{"snapshot"}, verb...), "--objstore.config-file="+r.objstore, "--quiet")...)
	if err != nil {
		return err
	}
	point := result.SnapshotMove{Command: text, Repetition: repetition, Bytes: r.point.Made[1].Bytes, Seconds: run.Elapsed.Seconds(), CPUSeconds: run.CPUSeconds, PeakBytes: run.PeakBytes}
	r.point.Moves = append(r.point.Moves, point)
	r.say("%-36s %.2f s, %.0f MB/s, CPU %.2f s, peak %d MiB", text+":", point.Seconds, float64(point.Bytes)/1e6/point.Seconds, point.CPUSeconds, point.PeakBytes>>20)
	return nil
}

// beside writes samples of now, by turns without and with snapshots.
func (r *snapshotsRun) beside(ctx context.Context) error {
	s := r.settings
	kinds := []string{"", snapshotsWhole, "", snapshotsChanges}
	total := 1
	for _, rate := range s.snapshotsRates {
		total += r.liveRounds(rate) * len(kinds) * s.snapshotsTurns
	}
	d, err := dataset.New(dataset.Config{
		Seed: s.seed, Series: s.series, StartMillis: time.Now().Add(-time.Minute).UnixMilli() - int64(total)*liveStepMillis, StepMillis: liveStepMillis, HostsPerCluster: hostsPerCluster,
	})
	if err != nil {
		return err
	}
	encoder := d.NewEncoder(1, passBatch)
	// The first samples of all series are not measured.
	if _, err := r.push(ctx, r.server, 1, encoder.Rounds(forwardConnections, 0, d.Len(), 0, 1), load.Options{}); err != nil {
		return err
	}
	next := 1
	for turn := range s.snapshotsTurns {
		for _, rate := range s.snapshotsRates {
			for _, kind := range kinds {
				rounds := r.liveRounds(rate)
				r.show("encoding")
				live := &passRun{bench: r.bench, server: r.server, number: turn + 1, rate: rate, live: encoder.Rounds(forwardConnections, 0, d.Len(), next, rounds)}
				next += rounds
				r.server.Settle(ctx, settleLimit)
				if err := r.stretch(ctx, live, kind); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// liveRounds is how many rounds of the samples of now a stretch may need.
func (r *snapshotsRun) liveRounds(rate int) int {
	s := r.settings
	if rate == 0 {
		return max(1, int(s.snapshotsSamples/int64(s.series)))
	}
	return 2 + int(float64(rate)*s.snapshotsFor.Seconds())/s.series
}

// stretch writes for some time, without snapshots or while some are made.
func (r *snapshotsRun) stretch(ctx context.Context, live *passRun, kind string) error {
	point := result.SnapshotWrite{OfferedPerSecond: live.rate}
	var work func(context.Context) error
	var aside []string
	if kind != "" {
		work = func(ctx context.Context) error {
			for began := time.Now(); time.Since(began) < r.settings.snapshotsFor || point.Snapshots == 0; {
				next := time.After(r.settings.snapshotsEach)
				if kind == snapshotsWhole {
					moved, err := r.emptyBucket()
					if err != nil {
						return err
					}
					aside = append(aside, moved)
				}
				made, err := r.server.CreateSnapshot(ctx)
				if err != nil {
					return err
				}
				point.Snapshots++
				point.SentBytes += made.Files.SentBytes
				select {
				case <-next:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			return nil
		}
	}
	var err error
	if point.PassWrite, err = live.write(ctx, kind, work, r.settings.snapshotsFor); err != nil {
		return err
	}
	for _, path := range aside {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	r.point.Stretches = append(r.point.Stretches, point)
	r.say("offered %4d k/s, %-16s %4.0f k/s, p50 %.2f p90 %.2f p99 %.2f max %.0f ms, %.2f cores, %d snapshots, %.1f MB sent", live.rate/1000, kind+":", point.SamplesPerSecond/1000,
		point.P50Millis, point.P90Millis, point.P99Millis, point.MaxMillis, point.CPUSeconds/point.Seconds, point.Snapshots, float64(point.SentBytes)/1e6)
	return nil
}

// emptyBucket sets the bucket's folder aside, which takes no time; whoever calls removes it.
func (r *snapshotsRun) emptyBucket() (string, error) {
	r.moved++
	aside := fmt.Sprintf("%s-%d", r.bucket, r.moved)
	if err := os.Rename(r.bucket, aside); err != nil {
		return "", fmt.Errorf("empty the bucket: %w", err)
	}
	return aside, os.Mkdir(r.bucket, 0o700)
}
