package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"varve/benchmarks/fleet"
	"varve/benchmarks/load"
	"varve/benchmarks/peer"
	"varve/benchmarks/result"
	"varve/benchmarks/wire"
)

const (
	// passConfig lets the compactor do background work on what was just written, once it is
	// resumed.
	passConfig = "self_scrape: {enabled: false}\nweb: {enable_lifecycle: true}\ncompactor: {interval: 1s, quiet: 0s, max_drop_share: 1}\n"
	// passBatch makes many requests, of whose latencies a percentile says something.
	passBatch = 500
	// bulkSamples is how many samples fillDays encodes at a time: about 100 MB.
	bulkSamples = 8_000_000
	// passLimit is how long work may take.
	passLimit = 10 * time.Minute
)

// passWorks are what the compactor does on one server after the other. Rules are those of
// retention from then on.
var passWorks = [][]passWork{
	{
		{"run: seal, roll up", "[]", false},
		{"run: expire some series", `[{match: '{job="node"}', raw: 1d}]`, false},
		{"run: expire days", "[{raw: 1d}]", false},
	},
	{
		{"background: seal, roll up", "[]", true},
		{"background: expire some series", `[{match: '{job="node"}', raw: 1d}]`, true},
	},
}

// passWork is one thing that the compactor has to do.
type passWork struct {
	name, rules string
	background  bool
}

// passRun is the passage of one server.
type passRun struct {
	*bench
	point  *result.Pass
	server *peer.Server
	number int
	path   string // of the configuration
	live   [][]wire.Frame
	rate   int // samples a second of live, 0 for as many as are taken
}

// pass measures the latency of writes of now while the compactor works on past days.
func pass(ctx context.Context, b *bench) error {
	s := b.settings
	if err := b.varvesOnly(); err != nil {
		return err
	}
	e, err := b.openExporters(ctx)
	if err != nil {
		return err
	}
	old, err := b.passFleet(e)
	if err != nil {
		return err
	}
	// Enough for all stretches of a server.
	stretches := 2 * len(passWorks[0])
	rounds := 2 + s.passRate*int((s.passFor*time.Duration(stretches)).Seconds())/s.series
	d, err := b.dataset(s.series, hostsPerCluster, rounds)
	if err != nil {
		return err
	}
	b.describe(d)
	first, live := b.encodeRounds(d, passBatch, rounds)
	for i, spec := range b.specs {
		point := &result.Pass{Days: s.passDays, OfferedPerSecond: s.passRate}
		b.entries[i].Pass = point
		for repetition := range s.repetitions {
			for k, works := range passWorks {
				r := &passRun{bench: b, point: point, number: repetition*len(passWorks) + k + 1, live: slices.Clone(live), rate: s.passRate}
				if err := r.measure(ctx, e, old, first, spec, works); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// passFleet is what is written beforehand: as the year's, in fewer days.
func (b *bench) passFleet(e *exporters) (*fleet.Fleet, error) {
	own := *b.settings
	own.days, own.yearSeries = b.settings.passDays, b.settings.passSeries
	return (&bench{settings: &own}).yearFleet(e)
}

// measure does all with one server.
func (r *passRun) measure(ctx context.Context, e *exporters, old *fleet.Fleet, first [][]wire.Frame, spec peer.Spec, works []passWork) (err error) {
	spec.Config = passConfig
	name := fmt.Sprintf("pass-%s-%d", spec.Name, r.number)
	if r.server, err = r.start(ctx, spec, name); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.discard(r.server)) }()
	r.path = r.server.DataDir + ".yml"
	if err := r.server.PauseCompactor(ctx); err != nil {
		return err
	}
	tally, err := r.fillDays(ctx, r.server, old, r.settings.passDays)
	if err != nil {
		return err
	}
	r.point.Replay = e.replayCounted(old, tally)
	r.server.Settle(ctx, settleLimit)
	// The first samples of all series are not measured.
	if _, err := r.push(ctx, r.server, 1, first, load.Options{}); err != nil {
		return err
	}
	r.server.Settle(ctx, settleLimit)
	for _, work := range works {
		idle, err := r.write(ctx, "", nil, r.settings.passFor)
		if err != nil {
			return err
		}
		busy, err := r.write(ctx, work.name, func(ctx context.Context) error { return r.work(ctx, work) }, r.settings.passFor)
		if err != nil {
			return err
		}
		r.point.Stretches = append(r.point.Stretches, idle, busy)
		r.say("pass %d, %-31s took %.1f s: p50 %.2f p99 %.2f max %.0f ms at %.0f k/s; before p50 %.2f p99 %.2f max %.0f ms: x %.2f, x %.2f", r.number, work.name+":", busy.WorkSeconds,
			busy.P50Millis, busy.P99Millis, busy.MaxMillis, busy.SamplesPerSecond/1000, idle.P50Millis, idle.P99Millis, idle.MaxMillis, busy.P50Millis/idle.P50Millis, busy.P99Millis/idle.P99Millis)
	}
	return nil
}

// fillDays writes the first days of a fleet, as somebody does who backfills. What is encoded meanwhile is
// some hours, a few million samples.
func (b *bench) fillDays(ctx context.Context, server *peer.Server, f *fleet.Fleet, days int) (fleet.Tally, error) {
	var total fleet.Tally
	perHour := 1 + int(f.Count(0, 1).Samples)*roundsPerHour
	slice := roundsPerHour * min(24, max(1, bulkSamples/perHour))
	for first := 0; first < days*roundsPerDay; first += slice {
		b.show("day %d of %d", first/roundsPerDay+1, days)
		frames, tally := f.Bulk(replayConnections, yearBatch, first, min(first+slice, days*roundsPerDay))
		if _, err := b.push(ctx, server, 1, frames, load.Options{}); err != nil {
			return total, err
		}
		total.Samples, total.Stale = total.Samples+tally.Samples, total.Stale+tally.Stale
	}
	return total, nil
}

// write writes samples of now for some time, or until work is done if that is sooner, and
// then waits for the work.
func (r *passRun) write(ctx context.Context, name string, work func(context.Context) error, limit time.Duration) (result.PassWrite, error) {
	w := result.PassWrite{Server: r.number, Work: name}
	syncs, err := peer.SyncTimes(r.root, syncWrites)
	if err != nil {
		return w, err
	}
	w.SyncP99 = millis(load.Percentile(syncs, 0.99))
	worked, enough := make(chan error, 1), make(chan struct{})
	began := time.Now()
	before, _ := r.reading(ctx, r.server)
	if work == nil {
		worked <- nil
	} else {
		go func() {
			defer close(enough)
			worked <- work(ctx)
		}()
	}
	report, err := r.push(ctx, r.server, 1, r.live, load.Options{For: limit, Until: enough, SamplesPerSecond: r.rate})
	if err != nil {
		return w, errors.Join(err, <-worked)
	}
	after, _ := r.reading(ctx, r.server)
	if err := <-worked; err != nil {
		return w, fmt.Errorf("%s: %w", name, err)
	}
	if work != nil {
		w.WorkSeconds = time.Since(began).Seconds()
	}
	for lane, done := range report.Done {
		r.live[lane] = r.live[lane][done:]
	}
	w.Seconds, w.SamplesPerSecond = report.Elapsed.Seconds(), float64(report.Acknowledged)/report.Elapsed.Seconds()
	w.Requests, w.CPUSeconds = len(report.Latencies), after.CPUSeconds-before.CPUSeconds
	percentile := func(share float64) float64 { return millis(load.Percentile(report.Latencies, share)) }
	w.P50Millis, w.P90Millis, w.P99Millis, w.MaxMillis = percentile(0.5), percentile(0.9), percentile(0.99), percentile(1)
	return w, nil
}

// work sets the rules and has the compactor do what follows from them.
func (r *passRun) work(ctx context.Context, work passWork) error {
	if err := os.WriteFile(r.path, []byte(passConfig+"retention: "+work.rules+"\n"), 0o600); err != nil {
		return fmt.Errorf("set the rules of retention: %w", err)
	}
	if err := r.server.Reload(ctx); err != nil {
		return err
	}
	if !work.background {
		done, err := r.server.CompactForced(ctx)
		if err == nil && len(done.Sealed)+len(done.Rolled)+len(done.Expired)+len(done.Trimmed) == 0 {
			err = fmt.Errorf("the compactor did nothing: %+v", done)
		}
		return err
	}
	if err := r.server.ResumeCompactor(ctx); err != nil {
		return err
	}
	began := time.Now()
	err := poll(ctx, passLimit, func() (bool, error) {
		status, err := r.server.CompactorStatus(ctx)
		if err == nil && status.LastError != "" {
			err = fmt.Errorf("the compactor said: %s", status.LastError)
		}
		// It looks for work every second.
		return time.Since(began) > 3*time.Second && status.Running == "" && len(status.Planned) == 0, err
	})
	return errors.Join(err, r.server.PauseCompactor(ctx))
}
