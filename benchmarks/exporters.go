package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"varve/benchmarks/fleet"
	"varve/benchmarks/peer"
	"varve/benchmarks/recording"
	"varve/benchmarks/result"
)

const (
	roundsPerHour = 3600_000 / stepMillis
	// dayMargin is how old the newest sample is at least: more than one and a half of
	// Prometheus' block ranges, so that a sample of now moves its head beyond the data.
	dayMargin = 4 * time.Hour
	// sliceSamples is how many samples are encoded before they are sent: about 40 MB.
	sliceSamples = 1_500_000
)

// exporters are the recordings of a session, ready to be replayed.
type exporters struct {
	rings map[string]*fleet.Ring
	// scrapes is the length of the session, positions that of the shortest ring.
	scrapes, positions int
}

// openExporters reads the longest session there is, or makes one of the given
// length if none is as long.
func (b *bench) openExporters(ctx context.Context) (*exporters, error) {
	session, err := b.sessionFor(ctx, b.settings.scrapesMin)
	if err != nil {
		return nil, err
	}
	e := &exporters{rings: map[string]*fleet.Ring{}}
	for _, name := range recordedTargets {
		b.show("reading the recording of %s", name)
		columns, err := recording.Open(filepath.Join(session, name+recording.Extension), recordInterval.Milliseconds())
		if err != nil {
			return nil, err
		}
		ring, err := fleet.Stitch(columns, recordInterval.Milliseconds(), stepMillis)
		if err != nil {
			return nil, err
		}
		e.rings[name] = ring
		e.scrapes = max(e.scrapes, columns.Scrapes)
		if e.positions == 0 || ring.Len() < e.positions {
			e.positions = ring.Len()
		}
		b.say("recording of %s: %d scrapes, %d series, %d steps of %d s", name, columns.Scrapes, ring.Series(), ring.Len(), stepMillis/1000)
	}
	return e, nil
}

// groups are so many targets of each recording, with at most so many series.
func (e *exporters) groups(counts map[string]int, seriesMax int) []fleet.Group {
	var groups []fleet.Group
	for _, name := range recordedTargets {
		if counts[name] > 0 {
			groups = append(groups, fleet.Group{Ring: e.rings[name], Count: counts[name], SeriesMax: seriesMax})
		}
	}
	return groups
}

// parseTargets reads NAME=COUNT.
func parseTargets(list []string) (map[string]int, error) {
	counts := map[string]int{}
	for _, text := range list {
		name, number, _ := strings.Cut(text, "=")
		n, err := strconv.Atoi(number)
		known := false
		for _, target := range recordedTargets {
			known = known || target == name
		}
		if err != nil || n < 0 || !known {
			return nil, fmt.Errorf("--targets: %q is no NAME=COUNT with a name of %s", text, strings.Join(recordedTargets, ", "))
		}
		counts[name] = n
	}
	return counts, nil
}

// startOfData is the beginning of whole UTC days that are over, of so many rounds.
func startOfData(now time.Time, rounds int) time.Time {
	const day = 24 * time.Hour
	days := (time.Duration(rounds)*stepMillis*time.Millisecond + day - 1).Truncate(day)
	return now.Add(-dayMargin).UTC().Truncate(day).Add(-days)
}

// describeFleet notes the data in all lines.
func (b *bench) describeFleet(f *fleet.Fleet) {
	for i := range b.entries {
		b.entries[i].Dataset = result.Dataset{
			Seed: f.Config().Seed, Series: f.Series(), StepMillis: f.Config().StepMillis, StartMillis: f.Config().StartMillis,
			LabelsMean: f.LabelsMean(), LabelBytesMean: f.LabelBytesMean(),
		}
	}
}

// replayOf says what a fleet is made of. It visits every sample.
func (e *exporters) replayOf(f *fleet.Fleet) result.Replay {
	return e.replayCounted(f, f.Count(0, f.Config().Rounds))
}

// replayCounted says what a fleet is made of whose samples were counted.
func (e *exporters) replayCounted(f *fleet.Fleet, tally fleet.Tally) result.Replay {
	config := f.Config()
	r := result.Replay{
		Scrapes: e.scrapes, Positions: e.positions, Repeated: f.Repeated(), Targets: f.Targets(), Series: f.Series(),
		Samples: tally.Samples, Stale: tally.Stale, SpanSeconds: float64(config.Rounds) * float64(config.StepMillis) / 1000,
	}
	for _, group := range config.Groups {
		series := group.Ring.Series()
		if group.SeriesMax > 0 {
			series = min(series, group.SeriesMax)
		}
		r.Groups = append(r.Groups, result.ReplayGroup{Name: group.Ring.Name(), Targets: group.Count, Series: series})
	}
	return r
}

// withoutSelfScrape makes a Varve keep nothing but what is sent, as the others do.
func withoutSelfScrape(spec peer.Spec) peer.Spec {
	if spec.Kind == peer.Varve {
		spec.Config = "self_scrape: {enabled: false}\n"
	}
	return spec
}
