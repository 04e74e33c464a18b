package snapshot

import (
	"context"
	"errors"
	"time"
)

// Jobs that a Store does one at a time.
const (
	jobCreate = "create"
	jobPrune  = "prune"
)

// Status is what a Store is doing and how the last jobs went.
type Status struct {
	// Running is the job under way, nil without one.
	Running *Running `json:"running,omitempty"`
	// LastSuccess is the newest snapshot. Of one that another process made only ID, Taken and the sums are known.
	LastSuccess *Success `json:"lastSuccess,omitempty"`
	// LastFailure is the last job that failed, nil if the same job has succeeded since.
	LastFailure *Failure `json:"lastFailure,omitempty"`
	// Next is when a snapshot is due, zero without a schedule.
	Next time.Time `json:"next,omitzero"`
	// Snapshots are those in the bucket when it was last listed, and those made and removed since.
	Snapshots int `json:"snapshots"`
}

// Running is a job under way.
type Running struct {
	Job   string    `json:"job"`
	Since time.Time `json:"since"`
	Step
}

// Success is a snapshot that was made.
type Success struct {
	ID      string    `json:"id"`
	Taken   time.Time `json:"taken"`
	Seconds float64   `json:"seconds"`
	Total
}

// Failure is a job that failed.
type Failure struct {
	Job   string    `json:"job"`
	At    time.Time `json:"at"`
	Error string    `json:"error"`
}

// Status returns a copy.
func (s *Store) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	status := s.status
	if status.Running != nil {
		running := *status.Running
		status.Running = &running
	}
	return status
}

// started notes that a job runs.
func (s *Store) started(job string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Running = &Running{Job: job, Since: s.o.Now()}
}

// stepped is the Progress of jobs into the status.
func (s *Store) stepped(step Step) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.status.Running != nil {
		s.status.Running.Step = step
	}
}

// created notes how a Create went.
func (s *Store) created(m Manifest, took time.Duration, err error) {
	s.ended(jobCreate, err)
	if err != nil {
		return
	}
	s.metrics.created.Inc()
	s.metrics.reusedBytes.Add(float64(m.Stats.ReusedBytes))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known[m.ID] = m.listed()
	s.changes++
	s.status.Snapshots++
	s.status.LastSuccess = &Success{ID: m.ID, Taken: m.Taken, Seconds: took.Seconds(), Total: m.Stats.Total}
}

// pruned notes how a Prune went.
func (s *Store) pruned(err error) { s.ended(jobPrune, err) }

func (s *Store) ended(job string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Running = nil
	switch {
	case err == nil:
		if f := s.status.LastFailure; f != nil && f.Job == job {
			s.status.LastFailure = nil
		}
	case errors.Is(err, context.Canceled):
		// Somebody didn't want it any more.
	default:
		s.metrics.failures.WithLabelValues(job).Inc()
		s.status.LastFailure = &Failure{Job: job, At: s.o.Now(), Error: err.Error()}
	}
}

// changesNow is how often snapshots came or went so far, for listedAll.
func (s *Store) changesNow() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changes
}

// listedAll notes what the bucket has, by a list that began after so many changes: one that has not seen the last of them is older than
// what is known.
func (s *Store) listedAll(all []Listed, began int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if began != s.changes {
		return
	}
	s.status.Snapshots = 0
	there := make(map[string]bool, len(all))
	for _, l := range all {
		there[l.ID] = true
		if l.Foreign || l.Damaged != "" {
			continue
		}
		s.status.Snapshots++
		if last := s.status.LastSuccess; s.own(&l) && (last == nil || l.Taken.After(last.Taken)) {
			s.status.LastSuccess = &Success{ID: l.ID, Taken: l.Taken, Total: Total{Files: l.Files, Bytes: l.Bytes, SentBytes: l.SentBytes, ReusedBytes: l.Bytes - l.SentBytes}}
		}
	}
	for id := range s.known {
		if !there[id] {
			delete(s.known, id)
		}
	}
}
