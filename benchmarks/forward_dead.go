package main

import (
	"context"
	"errors"
	"net/http"
	"strconv"

	"varve/benchmarks/load"
	"varve/benchmarks/result"
	"varve/benchmarks/sink"
	"varve/benchmarks/wire"
)

// refused stands for a peer at whose port nobody listens.
const refused = 0

// deadPeers are the ways in which peers are dead.
var deadPeers = []int{refused, sink.Hang, http.StatusInternalServerError, http.StatusTooManyRequests, http.StatusUnauthorized}

// dead measures ingestion without outputs and with dead ones, in turns that begin with either.
func (r *forwardRun) dead(ctx context.Context, first, rest [][]wire.Frame) error {
	for turn := range r.settings.deadTurns {
		for _, rate := range r.settings.deadRates {
			order := []int{0, len(deadPeers)}
			if turn%2 == 1 {
				order = []int{len(deadPeers), 0}
			}
			for _, outputs := range order {
				point := result.DeadOutputs{Outputs: outputs, Turn: turn + 1, OfferedPerSecond: rate}
				if err := r.deadOnce(ctx, &point, first, rest); err != nil {
					return err
				}
				r.point.Dead = append(r.point.Dead, point)
			}
		}
	}
	return nil
}

// deadOnce measures one point, from an empty directory.
func (r *forwardRun) deadOnce(ctx context.Context, point *result.DeadOutputs, first, rest [][]wire.Frame) (err error) {
	var sinks []*sink.Sink
	defer func() {
		for _, s := range sinks {
			err = errors.Join(err, s.Close())
		}
	}()
	outputs := ""
	for i, status := range deadPeers[:point.Outputs] {
		s, err := sink.New(status)
		if err != nil {
			return err
		}
		sinks = append(sinks, s)
		if status != refused {
			if err := s.Open(); err != nil {
				return err
			}
		}
		outputs += remoteWriteOutput("dead"+strconv.Itoa(i), s, 1, 1)
	}
	server, err := r.startFirst(ctx, "", outputs, first)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.discard(server)) }()
	server.Settle(ctx, settleLimit)
	before, _ := r.reading(ctx, server)
	report, err := r.push(ctx, server, 1, rest, load.Options{For: r.settings.deadFor, SamplesPerSecond: point.OfferedPerSecond})
	if err != nil {
		return err
	}
	after, _ := r.reading(ctx, server)
	for _, s := range sinks {
		point.Attempts += s.Requests()
	}
	point.Samples, point.Seconds = report.Acknowledged, report.Elapsed.Seconds()
	point.P50Millis, point.P99Millis = millis(load.Percentile(report.Latencies, 0.5)), millis(load.Percentile(report.Latencies, 0.99))
	point.MaxMillis = millis(load.Percentile(report.Latencies, 1))
	point.CPU, point.RSSBytes = (after.CPUSeconds-before.CPUSeconds)/(float64(report.Acknowledged)/1e6), after.RSSBytes
	r.say("%d dead outputs, offered %4d k/s: in %4.0f k/s, p50 %.2f p99 %.2f max %.0f ms, CPU %.3f s/M, RSS %d MiB, %d attempts", point.Outputs, point.OfferedPerSecond/1000,
		float64(point.Samples)/point.Seconds/1000, point.P50Millis, point.P99Millis, point.MaxMillis, point.CPU, point.RSSBytes>>20, point.Attempts)
	return nil
}
