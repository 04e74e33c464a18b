package main

import (
	"context"
	"errors"
	"net/http"
	"time"

	"varve/benchmarks/load"
	"varve/benchmarks/result"
	"varve/benchmarks/sink"
	"varve/benchmarks/wire"
)

// sustained measures ingestion at every rate without an output and with one, in turns.
func (r *forwardRun) sustained(ctx context.Context, first, rest [][]wire.Frame) error {
	s := r.settings
	for repetition := range s.repetitions {
		for _, rate := range s.forwardRates {
			points := []result.Forwarding{{}}
			for _, protocol := range s.forwardProtocols {
				for _, shards := range s.forwardShards {
					points = append(points, result.Forwarding{Protocol: protocol, Shards: shards})
				}
			}
			for _, point := range points {
				point.Repetition, point.OfferedPerSecond = repetition+1, rate
				if err := r.sustainedOnce(ctx, &point, first, rest); err != nil {
					return err
				}
				r.point.Sustained = append(r.point.Sustained, point)
			}
		}
	}
	return nil
}

// sustainedOnce measures one point, from an empty directory.
func (r *forwardRun) sustainedOnce(ctx context.Context, point *result.Forwarding, first, rest [][]wire.Frame) (err error) {
	var to *sink.Sink
	outputs := ""
	if point.Protocol > 0 {
		if to, err = openSink(http.StatusNoContent); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, to.Close()) }()
		outputs = remoteWriteOutput("sink", to, point.Protocol, point.Shards)
	}
	server, err := r.startFirst(ctx, "", outputs, first)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.discard(server)) }()
	if to != nil {
		if err := drained(ctx, server, to, samplesOf(first)); err != nil {
			return err
		}
	}
	server.Settle(ctx, settleLimit)
	sent, bytes := int64(0), int64(0)
	if to != nil {
		sent, bytes = to.Samples(), to.Bytes()
	}
	before, _ := r.reading(ctx, server)
	own := ownCPU()
	report, err := r.push(ctx, server, 1, rest, load.Options{For: r.settings.forwardFor, SamplesPerSecond: point.OfferedPerSecond})
	if err != nil {
		return err
	}
	ended := time.Now()
	if to != nil {
		point.SentDuring = to.Samples() - sent
		lag, err := output(ctx, server)
		if err != nil {
			return err
		}
		point.LagSamples, point.LagSeconds = lag.Lag.Samples, lag.Lag.Seconds
		if err := drained(ctx, server, to, sent+report.Acknowledged); err != nil {
			return err
		}
		point.DrainSeconds = time.Since(ended).Seconds()
		point.Sent = to.Samples() - sent
		point.BodyBytes = float64(to.Bytes()-bytes) / float64(point.Sent)
	}
	after, _ := r.reading(ctx, server)
	own = ownCPU() - own
	millions := float64(report.Acknowledged) / 1e6
	point.Samples, point.Seconds = report.Acknowledged, report.Elapsed.Seconds()
	point.P50Millis, point.P99Millis = millis(load.Percentile(report.Latencies, 0.5)), millis(load.Percentile(report.Latencies, 0.99))
	point.CPU, point.GeneratorCPU, point.RSSBytes = (after.CPUSeconds-before.CPUSeconds)/millions, own/millions, after.RSSBytes
	r.say("sustained, output %d.0 x %d, offered %4d k/s: in %4.0f k/s, out %4.0f k/s, lag %.1f s, drained in %.1f s, %d twice; CPU %.3f s/M, benchmark %.3f; p50 %.2f p99 %.2f ms",
		point.Protocol, point.Shards, point.OfferedPerSecond/1000, float64(point.Samples)/point.Seconds/1000, float64(point.SentDuring)/point.Seconds/1000,
		point.LagSeconds, point.DrainSeconds, max(0, point.Sent-point.Samples), point.CPU, point.GeneratorCPU, point.P50Millis, point.P99Millis)
	return nil
}

// openSink is a sink that listens.
func openSink(status int) (*sink.Sink, error) {
	s, err := sink.New(status)
	if err != nil {
		return nil, err
	}
	if err := s.Open(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}
