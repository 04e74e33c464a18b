package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"varve/benchmarks/peer"
	"varve/benchmarks/points"
	"varve/benchmarks/result"
	"varve/benchmarks/wire"
)

const (
	queueStream  = "IN"
	queueDurable = "bench"
	// queueLimit is how long the input may take for what is in the stream.
	queueLimit = 5 * time.Minute
	// queueMessages is how many messages may be under way to the stream.
	queueMessages = 256
	queueBase     = "self_scrape: {enabled: false}\nweb: {enable_lifecycle: true}\ncompactor: {interval: 24h}\n"
	queueInput    = "inputs:\n- {name: queue, disabled: %t, nats: {urls: [%q], stream: {name: " + queueStream + "}, durable: " + queueDurable + ", payload: %s}}\n"
)

// queueRun is one measurement of an input that consumes a stream.
type queueRun struct {
	*bench
	queue  *peer.Server // NATS
	js     jetstream.JetStream
	server *peer.Server
	point  *result.Input
	// messages is how many are in the stream.
	messages uint64
}

// inputQueue measures how fast a stream is consumed that is full beforehand, in both
// formats.
func (b *bench) inputQueue(ctx context.Context, part inputPart, r *points.Rows, most int) error {
	program, err := findProgram("nats-server")
	if err != nil {
		return fmt.Errorf("%w: apt-get install nats-server, or leave nats out of --inputs-parts", err)
	}
	for _, format := range part.formats {
		compression := points.Plain
		if format == points.RemoteWrite {
			compression = points.Snappy
		}
		bodies, err := b.encodePoints(r, format, compression, otherRows, 1, most)
		if err != nil {
			return err
		}
		for repetition := range b.settings.repetitions {
			for i, spec := range b.specs {
				if spec.Kind != peer.Varve {
					continue
				}
				point := result.Input{
					Part: part.name, Shape: string(r.Config().Shape), Format: string(format), Rows: otherRows, SamplesPerRow: r.Fields(), Repetition: repetition + 1,
				}
				if err := b.queueOnce(ctx, spec, program, &point, bodies); err != nil {
					return err
				}
				b.entries[i].Inputs = append(b.entries[i].Inputs, point)
			}
		}
	}
	return nil
}

// queueOnce measures one server, from an empty directory, and a stream of its own.
func (b *bench) queueOnce(ctx context.Context, spec peer.Spec, program string, point *result.Input, bodies pointBodies) (err error) {
	if err := b.noteSyncs(point); err != nil {
		return err
	}
	run := &queueRun{bench: b, point: point}
	if run.queue, err = b.start(ctx, peer.Spec{Name: "nats", Kind: peer.NATS, Binary: program}, "inputs-nats"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.discard(run.queue)) }()
	conn, err := nats.Connect("nats://" + run.queue.SideAddress)
	if err != nil {
		return fmt.Errorf("connect to NATS: %w", err)
	}
	defer conn.Close()
	if run.js, err = jetstream.New(conn, jetstream.WithPublishAsyncMaxPending(queueMessages)); err != nil {
		return fmt.Errorf("connect to NATS: %w", err)
	}
	if _, err := run.js.CreateStream(ctx, jetstream.StreamConfig{Name: queueStream, Subjects: []string{"in.>"}, Storage: jetstream.FileStorage}); err != nil {
		return fmt.Errorf("make a stream: %w", err)
	}
	spec.Config = queueBase + run.input(true)
	if run.server, err = b.start(ctx, spec, "inputs-"+spec.Name); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.discard(run.server)) }()
	if err := run.measure(ctx, bodies); err != nil {
		return fmt.Errorf("%w; the server said: %s", err, run.server.Output())
	}
	b.sayInput(spec, *point)
	return nil
}

// input is the configuration of the input.
func (r *queueRun) input(disabled bool) string {
	return fmt.Sprintf(queueInput, disabled, "nats://"+r.queue.SideAddress, r.point.Format)
}

// measure consumes the first round, in which all series are new, then the others.
func (r *queueRun) measure(ctx context.Context, bodies pointBodies) error {
	point := r.point
	before, _ := r.reading(ctx, r.server)
	first, elapsed, err := r.consume(ctx, bodies.first)
	if err != nil {
		return err
	}
	after, _ := r.reading(ctx, r.server)
	point.NewSeriesPerSecond, point.NewSeriesCPU = float64(first)/elapsed.Seconds(), (after.CPUSeconds-before.CPUSeconds)/float64(first)*1e6
	if err := r.configure(ctx, true); err != nil {
		return err
	}
	if err := r.publish(ctx, bodies.rest); err != nil {
		return err
	}
	r.queue.Settle(ctx, settleLimit)
	r.server.Settle(ctx, settleLimit)
	costs := inputCosts{}
	costs.before, costs.countersBefore = r.reading(ctx, r.server)
	own := ownCPU()
	if point.Seconds, err = r.acknowledged(ctx); err != nil {
		return err
	}
	costs.own = ownCPU() - own
	costs.after, costs.countersAfter = r.reading(ctx, r.server)
	r.server.Settle(ctx, settleLimit)
	costs.settled, _ = r.reading(ctx, r.server)
	point.Samples = samplesOf(bodies.rest)
	point.Sent = first + point.Samples
	point.BodyBytes = float64(bytesOf(bodies.rest)) / float64(point.Samples)
	noteCosts(point, r.server.Spec, costs)
	point.Found, err = r.countStored(ctx, r.server, bodies, point.Sent)
	return err
}

// consume publishes bodies and consumes them.
func (r *queueRun) consume(ctx context.Context, frames [][]wire.Frame) (samples int64, elapsed time.Duration, err error) {
	if err := r.publish(ctx, frames); err != nil {
		return 0, 0, err
	}
	seconds, err := r.acknowledged(ctx)
	return samplesOf(frames), time.Duration(seconds * float64(time.Second)), err
}

// configure opens the input or closes it.
func (r *queueRun) configure(ctx context.Context, disabled bool) error {
	if err := os.WriteFile(r.server.DataDir+".yml", []byte(queueBase+r.input(disabled)), 0o600); err != nil {
		return fmt.Errorf("configure the input: %w", err)
	}
	return r.server.Reload(ctx)
}

// publish puts all bodies into the stream, one message each, and waits until NATS has them.
func (r *queueRun) publish(ctx context.Context, frames [][]wire.Frame) error {
	for _, lane := range frames {
		for _, frame := range lane {
			if _, err := r.js.PublishAsync("in.bench", frame.Body, jetstream.WithStallWait(time.Minute)); err != nil {
				return fmt.Errorf("publish: %w", err)
			}
			if r.messages++; r.messages%1000 == 0 {
				r.show("published %d messages", r.messages)
			}
		}
	}
	select {
	case <-r.js.PublishAsyncComplete():
	case <-ctx.Done():
		return ctx.Err()
	}
	stream, err := r.js.Stream(ctx, queueStream)
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	if info := stream.CachedInfo(); info.State.LastSeq != r.messages {
		return fmt.Errorf("publish: NATS has %d of %d messages", info.State.LastSeq, r.messages)
	}
	return nil
}

// acknowledged opens the input and waits until every message of the stream is
// acknowledged. It gives the seconds that this took.
func (r *queueRun) acknowledged(ctx context.Context) (float64, error) {
	began := time.Now()
	if err := r.configure(ctx, false); err != nil {
		return 0, err
	}
	floor := uint64(0)
	err := poll(ctx, queueLimit, func() (bool, error) {
		consumer, err := r.js.Consumer(ctx, queueStream, queueDurable)
		if errors.Is(err, jetstream.ErrConsumerNotFound) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		floor = consumer.CachedInfo().AckFloor.Stream
		r.show("%d of %d messages acknowledged", floor, r.messages)
		return floor == r.messages, nil
	})
	if err != nil {
		return 0, fmt.Errorf("wait for %d messages, of which %d were acknowledged: %w", r.messages, floor, err)
	}
	return time.Since(began).Seconds(), nil
}

// bytesOf is how long all bodies are.
func bytesOf(frames [][]wire.Frame) int64 {
	n := int64(0)
	for _, lane := range frames {
		for _, frame := range lane {
			n += int64(len(frame.Body))
		}
	}
	return n
}
