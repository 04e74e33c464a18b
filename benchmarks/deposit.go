package main

import (
	"context"
	"fmt"
	"time"

	"varve/benchmarks/fleet"
	"varve/benchmarks/result"
)

// churnHours is the span of the fleets of pods.
const churnHours = 24

// exportersAlone measures what each recorded exporter takes by itself.
func exportersAlone(ctx context.Context, b *bench) error {
	e, err := b.openExporters(ctx)
	if err != nil {
		return err
	}
	rounds := b.roundsOf(e)
	for _, name := range recordedTargets {
		f, err := b.depositFleet(e, rounds, fleet.Config{Groups: e.groups(map[string]int{name: b.settings.alone}, 0), Naming: fleet.Short})
		if err != nil {
			return err
		}
		err = b.deposit(ctx, e, f, name, func(entry *result.Entry, d result.Deposit) { entry.Exporters = append(entry.Exporters, d) })
		if err != nil {
			return err
		}
	}
	return nil
}

// churn measures what the names of series cost when they live for a day or less.
// Values are those of the recorded exporters, some series of each.
func churn(ctx context.Context, b *bench) error {
	e, err := b.openExporters(ctx)
	if err != nil {
		return err
	}
	counts := map[string]int{}
	for i := range b.settings.pods {
		counts[recordedTargets[i%len(recordedTargets)]]++
	}
	const rounds = churnHours * roundsPerHour
	for _, naming := range []fleet.Naming{fleet.Short, fleet.Kubernetes} {
		for _, hours := range b.settings.lifeHours {
			life := hours * roundsPerHour
			if life >= rounds {
				life = 0
			}
			f, err := b.depositFleet(e, rounds, fleet.Config{Groups: e.groups(counts, b.settings.podSeries), LifeRounds: life, Naming: naming})
			if err != nil {
				return err
			}
			name := fmt.Sprintf("%s, %d h", naming, hours)
			err = b.deposit(ctx, e, f, name, func(entry *result.Entry, d result.Deposit) { entry.Churn = append(entry.Churn, d) })
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// depositFleet makes a fleet of so many rounds in past days.
func (b *bench) depositFleet(e *exporters, rounds int, config fleet.Config) (*fleet.Fleet, error) {
	config.Seed, config.StepMillis, config.Rounds = b.settings.seed, stepMillis, rounds
	config.StartMillis = startOfData(time.Now(), rounds).UnixMilli()
	return fleet.New(config)
}

// deposit sends a fleet to every server, one after the other, and adds what it takes
// there to the server's entry.
func (b *bench) deposit(ctx context.Context, e *exporters, f *fleet.Fleet, name string, add func(*result.Entry, result.Deposit)) error {
	b.describeFleet(f)
	template := result.Deposit{Name: name, LabelBytes: f.LabelBytesMean(), Replay: e.replayOf(f)}
	life := f.Config().LifeRounds
	if life == 0 {
		life = f.Config().Rounds
	}
	template.LifeS = int64(life) * stepMillis / 1000
	b.say("%s: %d targets, %d series of %.0f label bytes, %.1f M samples", name, f.Targets(), f.Series(), template.LabelBytes, float64(template.Replay.Samples)/1e6)
	for i := range b.specs {
		if b.specs[i].Address != "" {
			b.say("the directory of %s is not known: left out", b.specs[i].Name)
			continue
		}
		b.specs[i] = withoutSelfScrape(b.specs[i])
		r := &fleetRun{bench: b, exporters: e, fleet: f, replay: template.Replay}
		point := template
		if err := r.depositOnce(ctx, i, &point); err != nil {
			return err
		}
		add(&b.entries[i], point)
	}
	return nil
}

// depositOnce measures one server from an empty directory.
func (r *fleetRun) depositOnce(ctx context.Context, i int, point *result.Deposit) (err error) {
	server, err := r.start(ctx, r.specs[i], "deposit-"+r.specs[i].Name)
	if err != nil {
		return err
	}
	defer func() {
		if discarded := r.discard(server); err == nil {
			err = discarded
		}
	}()
	before, _ := r.reading(ctx, server)
	report, err := r.loadFleet(ctx, server, r.fleet)
	if err != nil {
		return err
	}
	loaded, _ := r.reading(ctx, server)
	if point.Remark, err = server.Tidy(ctx, r.tidying()); err != nil {
		return err
	}
	settled, _ := r.reading(ctx, server)
	millions := float64(report.Acknowledged) / 1e6
	point.CPU, point.CPUSettled = (loaded.CPUSeconds-before.CPUSeconds)/millions, (settled.CPUSeconds-before.CPUSeconds)/millions
	point.RSSBytes = settled.RSSBytes
	if point.Disk, err = r.diskOf(ctx, server); err != nil {
		return err
	}
	r.say("%-18s %-16s %.3f B/sample without fixed files, index %.1f B/series; CPU %.3f s/M, settled %.3f, data in the log %t %s", point.Name, r.specs[i].Name+":",
		float64(point.Disk.Bytes-point.Disk.FixedBytes)/float64(point.Replay.Samples), float64(point.Disk.IndexBytes)/float64(point.Replay.Series),
		point.CPU, point.CPUSettled, point.Disk.Logged, point.Remark)
	return nil
}
