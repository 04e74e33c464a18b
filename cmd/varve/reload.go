package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"varve/config"
)

// errTLSChanged is the mistake of a reload that would need another listener.
var errTLSChanged = errors.New("web.config_file: TLS can only be switched on or off at a start; restart the server")

// errInputs says that inputs did not begin. That keeps nothing else from what it is to be: each says so in its status.
var errInputs = errors.New("the rest is in effect")

// reload reads the configuration again and puts into effect what can change
// without a restart. After an error everything is as before.
func (s *server) reload() error {
	s.reloadMu.Lock()
	defer s.reloadMu.Unlock()
	waiting, err := s.tryReload()
	s.reloadGood.Store(err == nil)
	switch {
	case errors.Is(err, errInputs):
		s.o.logger.Error("The configuration was read again, and not every input could begin.", "file", s.o.configFile, "err", err)
		return err
	case err != nil:
		s.o.logger.Error("The configuration was not changed.", "file", s.o.configFile, "err", err)
		return err
	}
	s.reloadedAt.Store(time.Now().UnixMilli())
	s.o.logger.Info("The configuration was read again.", "file", s.o.configFile)
	if len(waiting) > 0 {
		s.o.logger.Warn("Some keys take effect at the next start.", "keys", strings.Join(waiting, ", "))
	}
	return nil
}

// tryReload builds everything that may fail before it changes anything. It
// returns the keys that wait for the next start.
func (s *server) tryReload() (waiting []string, err error) {
	next, err := config.Read(s.o.configFile, s.o.flags.apply)
	if err != nil {
		return nil, err
	}
	policy, err := newPolicy(next)
	if err != nil {
		return nil, err
	}
	if policy.TLS() != s.guard.Policy().TLS() {
		return nil, errTLSChanged
	}
	effective, waiting := config.Reloaded(s.current.Load(), next)
	kept, err := retention(effective)
	if err != nil {
		return nil, err
	}
	if s.archive != nil {
		if err := s.archive.CheckRetention(kept); err != nil {
			return nil, err
		}
	}
	if _, err := forwardOutputs(effective.Outputs); err != nil {
		return nil, err
	}
	if err := s.scrape.apply(effective.SelfScrape); err != nil {
		return nil, err
	}
	if err := s.o.logLevel.Set(effective.Log.Level); err != nil {
		return nil, err
	}
	if s.archive != nil {
		if err := s.archive.SetRetention(kept); err != nil {
			return nil, err
		}
	}
	if err := s.forwarding.reload(effective.Outputs); err != nil {
		return nil, err
	}
	s.guard.Set(policy)
	s.current.Store(effective)
	if err := s.inputs.Load().reload(effective); err != nil {
		return waiting, fmt.Errorf("%w: %w", errInputs, err)
	}
	return waiting, nil
}
