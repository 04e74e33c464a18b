package main

import (
	"errors"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// lease registers metrics for as long as a part of the server lives that a reload may end.
type lease struct {
	from prometheus.Registerer

	mu    sync.Mutex // guards taken
	taken []prometheus.Collector
}

// Register implements prometheus.Registerer.
func (l *lease) Register(c prometheus.Collector) error {
	if err := l.from.Register(c); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.taken = append(l.taken, c)
	return nil
}

// MustRegister implements prometheus.Registerer.
func (l *lease) MustRegister(all ...prometheus.Collector) {
	var errs []error
	for _, c := range all {
		errs = append(errs, l.Register(c))
	}
	if err := errors.Join(errs...); err != nil {
		panic(err)
	}
}

// Unregister implements prometheus.Registerer.
func (l *lease) Unregister(c prometheus.Collector) bool { return l.from.Unregister(c) }

// end gives everything back.
func (l *lease) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.taken {
		l.from.Unregister(c)
	}
	l.taken = nil
}
