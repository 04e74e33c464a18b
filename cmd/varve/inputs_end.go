package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"varve/config"
)

const (
	// inputEndTimeout bounds the wait for an input that is reconfigured: its requests, and what it has received otherwise.
	inputEndTimeout = 20 * time.Second
	// inputCutTimeout bounds the wait for what was cut off then. With drainTimeout it is less than the 30 s after which service managers kill.
	inputCutTimeout = 2 * time.Second
)

// errStalled keeps an input from beginning.
var errStalled = errors.New("the one of that name that was before has not ended; it begins by itself when that has")

// stop ends all inputs for good, within the time that ctx gives and a little more.
func (i *inputs) stop(ctx context.Context) {
	i.endQuit() // A reload that waits for inputs to end gives up.
	i.mu.Lock()
	defer i.mu.Unlock()
	i.ended = true
	i.endAll(ctx, slices.Collect(maps.Values(i.running)))
	clear(i.running)
	i.show()
}

// endAll ends inputs, all at once. What is not done when ctx ends is cut off. Called with mu held.
func (i *inputs) endAll(ctx context.Context, leaving []*input) {
	var wait sync.WaitGroup
	for _, in := range leaving {
		wait.Go(func() { in.end(ctx, i) })
	}
	wait.Wait()
	for _, in := range leaving {
		if in.cancel == nil || closed(in.gone) {
			continue
		}
		i.s.o.logger.Error("An input does not end, and is left behind.", "input", in.name)
		i.stalled[in.name] = in
		go i.resume(in)
	}
}

// resume begins what is wanted under the name of an input that has ended late.
func (i *inputs) resume(stalled *input) {
	select {
	case <-i.quit.Done():
		return
	case <-stalled.gone:
	}
	if i.quit.Err() != nil {
		return // It came to its end with all the others.
	}
	i.s.o.logger.Info("An input that was left behind has ended.", "input", stalled.name)
	i.s.reloadMu.Lock()
	defer i.s.reloadMu.Unlock()
	// Each input that does not begin is logged, and says so in its status.
	_ = i.apply(i.s.current.Load())
}

// startAlone begins an input unless one of its name has not ended. Called with mu held.
func (i *inputs) startAlone(conf config.Input) (*input, error) {
	if before := i.stalled[conf.Name]; before != nil {
		if !closed(before.gone) {
			return nil, errStalled
		}
		delete(i.stalled, conf.Name)
	}
	return i.start(conf)
}

// end stops taking requests and what the input does beside them, and waits for both until ctx ends. Then it lets nothing more be written,
// whoever goes on, and waits a little for what is being written.
func (in *input) end(ctx context.Context, i *inputs) {
	if in.cancel == nil {
		return // It never began.
	}
	logger := i.s.o.logger
	in.ending.Store(true)
	in.cancel()
	if in.web != nil {
		if err := in.web.Shutdown(ctx); err != nil {
			logger.Warn("Some requests to an input were cut off.", "input", in.name, "err", errors.Join(err, in.web.Close()))
		}
	}
	idle := make(chan struct{})
	go func() {
		in.answering.Lock()
		in.running.Wait()
		close(idle)
	}()
	select {
	case <-idle:
	case <-ctx.Done():
		logger.Warn("An input is cut off in the midst of what it does.", "input", in.name, "err", fmt.Errorf("after its time to end: %w", context.Cause(ctx)))
	}
	go func() {
		in.door.Close()
		in.running.Wait()
		in.lease.end()
		i.arrivals.For(in.name).Forget()
		i.nats.Forget(in.name)
		close(in.gone)
	}()
	select {
	case <-in.gone:
	case <-time.After(inputCutTimeout):
	}
}

// closed tells whether a channel is.
func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
