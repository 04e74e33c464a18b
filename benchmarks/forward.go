package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"varve/benchmarks/dataset"
	"varve/benchmarks/load"
	"varve/benchmarks/peer"
	"varve/benchmarks/result"
	"varve/benchmarks/sink"
	"varve/benchmarks/wire"
)

const (
	forwardConnections = 4
	// forwardBatch is what a Prometheus sends at a time. Latencies of writes are measured
	// at deadBatch: there are more of them.
	forwardBatch = 2000
	deadBatch    = 500
	// drainLimit is how long an output may take for what is left.
	drainLimit = 3 * time.Minute
)

// forwardConfig keeps what is measured apart from other work.
const forwardConfig = "self_scrape: {enabled: false}\ncompactor: {interval: 24h}\n"

// forwardRun is what is measured on one server.
type forwardRun struct {
	*bench
	spec  peer.Spec
	point *result.Forward
	data  *dataset.Dataset
}

// forwardParts are what --forward-parts chooses from.
var forwardParts = []string{"sustained", "catchup", "dead"}

// forward measures what outputs send and what they cost ingestion, alive and dead.
func forward(ctx context.Context, b *bench) error {
	s := b.settings
	for _, part := range s.forwardParts {
		if !slices.Contains(forwardParts, part) {
			return fmt.Errorf("--forward-parts: %q is none of %s", part, strings.Join(forwardParts, ", "))
		}
	}
	if err := b.varvesOnly(); err != nil {
		return err
	}
	rounds := 1 + int((s.forwardSamples+int64(s.series)-1)/int64(s.series))
	d, err := b.dataset(s.series, hostsPerCluster, rounds)
	if err != nil {
		return err
	}
	b.describe(d)
	var runs []*forwardRun
	for i, spec := range b.specs {
		b.entries[i].Forward = &result.Forward{}
		runs = append(runs, &forwardRun{bench: b, spec: spec, point: b.entries[i].Forward, data: d})
	}
	if slices.Contains(s.forwardParts, "sustained") || slices.Contains(s.forwardParts, "catchup") {
		first, rest := b.encodeRounds(d, forwardBatch, rounds)
		for _, r := range runs {
			if slices.Contains(s.forwardParts, "sustained") {
				if err := r.sustained(ctx, first, rest); err != nil {
					return err
				}
			}
			if slices.Contains(s.forwardParts, "catchup") {
				if err := r.catchUp(ctx, first, rest); err != nil {
					return err
				}
			}
		}
	}
	if slices.Contains(s.forwardParts, "dead") {
		first, rest := b.encodeRounds(d, deadBatch, rounds)
		for _, r := range runs {
			if err := r.dead(ctx, first, rest); err != nil {
				return err
			}
		}
	}
	return nil
}

// encodeRounds encodes all rounds, the first of them apart.
func (b *bench) encodeRounds(d *dataset.Dataset, batch, rounds int) (first, rest [][]wire.Frame) {
	b.show("encoding %d rounds of %d series", rounds, d.Len())
	encoder := d.NewEncoder(1, batch)
	return encoder.Rounds(forwardConnections, 0, d.Len(), 0, 1), encoder.Rounds(forwardConnections, 0, d.Len(), 1, rounds-1)
}

// remoteWriteOutput is one output in the configuration.
func remoteWriteOutput(name string, to *sink.Sink, protocol, shards int) string {
	message := "prometheus.WriteRequest"
	if protocol == 2 {
		message = "io.prometheus.write.v2.Request"
	}
	return fmt.Sprintf("- {name: %s, start: now, shards: %d, max_backoff: 1s, remote_write: {url: %q, protobuf_message: %s}}\n", name, shards, to.URL(), message)
}

// startFirst starts an empty server and sends it the first round, in which all series
// are new.
func (r *forwardRun) startFirst(ctx context.Context, config, outputs string, first [][]wire.Frame) (*peer.Server, error) {
	spec := r.spec
	spec.Config = forwardConfig + config
	if outputs != "" {
		spec.Config += "outputs:\n" + outputs
	}
	server, err := r.start(ctx, spec, "forward-"+spec.Name)
	if err != nil {
		return nil, err
	}
	if _, err := r.push(ctx, server, 1, first, load.Options{}); err != nil {
		return nil, errors.Join(err, r.discard(server))
	}
	return server, nil
}

// samplesOf is how many samples are in all frames.
func samplesOf(frames [][]wire.Frame) int64 {
	n := int64(0)
	for _, lane := range frames {
		for _, frame := range lane {
			n += int64(frame.Samples)
		}
	}
	return n
}

// pollEvery is how often it is looked whether something has come about.
const pollEvery = 50 * time.Millisecond

// poll calls until is true, or an error, or the limit.
func poll(ctx context.Context, limit time.Duration, until func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		done, err := until()
		if done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// output is what the server says of its only output.
func output(ctx context.Context, server *peer.Server) (peer.Output, error) {
	outputs, err := server.Outputs(ctx)
	if err != nil {
		return peer.Output{}, err
	}
	if len(outputs) != 1 {
		return peer.Output{}, fmt.Errorf("%s has %d outputs", server.Spec.Name, len(outputs))
	}
	return outputs[0], nil
}

// drained waits until the output has nothing left, and then tells whether the peer has all samples.
func drained(ctx context.Context, server *peer.Server, to *sink.Sink, samples int64) error {
	var last peer.Output
	err := poll(ctx, drainLimit, func() (done bool, err error) {
		// Counting in this process disturbs less than asking.
		if to.Samples() < samples {
			return false, to.Fault()
		}
		last, err = output(ctx, server)
		return last.Idle(), err
	})
	if err != nil {
		last, _ = output(ctx, server)
		return fmt.Errorf("wait for the output of %s, which has sent %d of %d: %w; it says %+v, and: %s", server.Spec.Name, to.Samples(), samples, err, last, server.Output())
	}
	return nil
}
