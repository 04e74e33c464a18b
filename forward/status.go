package forward

import (
	"time"
)

// State says what an output is at.
type State string

// States of an output, or of a part of it.
const (
	// StateRunning sends what arrives.
	StateRunning State = "running"
	// StateCatchingUp sends, and is behind.
	StateCatchingUp State = "catching_up"
	// StateRetrying waits to send again what the peer could not take.
	StateRetrying State = "retrying"
	// StateBlocked waits because the peer takes nothing at all until somebody changes something.
	StateBlocked State = "blocked"
	// StateFailed waits because of trouble of our own: no sender, no cursor, no space for dead letters.
	StateFailed State = "failed"
	// StatePaused waits for Resume.
	StatePaused State = "paused"
	// StateStopped is before Run and after it.
	StateStopped State = "stopped"
)

var states = []State{StateRunning, StateCatchingUp, StateRetrying, StateBlocked, StateFailed, StatePaused, StateStopped}

// catchingUp is the lag from which an output counts as behind.
const catchingUp = time.Minute

// Status says how an output is doing.
type Status struct {
	Name  string `json:"name"`
	Kind  string `json:"kind"`
	State State  `json:"state"`
	// Error is the last one there was, ErrorTime when. They stay when it is over.
	Error     string     `json:"error,omitempty"`
	ErrorTime *time.Time `json:"errorTime,omitempty"`
	// Totals are since the cursor was made.
	Totals StatusTotals `json:"totals"`
	Lag    StatusLag    `json:"lag"`
	// InFlightBytes is the memory of what was read and is not settled.
	InFlightBytes int64             `json:"inFlightBytes"`
	Shards        []StatusShard     `json:"shards"`
	Queries       []StatusQuery     `json:"queries,omitempty"`
	DeadLetters   StatusDeadLetters `json:"deadLetters"`
}

// StatusTotals are samples.
type StatusTotals struct {
	Sent     uint64 `json:"sent"`
	Dropped  uint64 `json:"dropped"`
	Refused  uint64 `json:"refused"`
	Filtered uint64 `json:"filtered"`
}

// StatusLag is how far an output is behind.
type StatusLag struct {
	Seconds float64    `json:"seconds"`
	Since   *time.Time `json:"since,omitempty"`
	Samples uint64     `json:"samples"`
	Bytes   uint64     `json:"bytes"`
	GapDays int        `json:"gapDays"`
	// WholeFrom is where a new or rewound output reads the archive at the moment, by time.
	WholeFrom *time.Time `json:"wholeFrom,omitempty"`
}

// StatusShard is one of those that send at once.
type StatusShard struct {
	State State `json:"state"`
	// Retries are those of the batch at hand, Since when its trouble began.
	Retries int        `json:"retries,omitempty"`
	Since   *time.Time `json:"since,omitempty"`
}

// StatusQuery is a query of an output.
type StatusQuery struct {
	Name string `json:"name"`
	// Settled is the last step that is settled, At the one that is evaluated next.
	Settled *time.Time `json:"settled,omitempty"`
	At      *time.Time `json:"at,omitempty"`
	State   State      `json:"state"`
}

// StatusDeadLetters is the file of what was refused.
type StatusDeadLetters struct {
	Path  string `json:"path"`
	Bytes int64  `json:"bytes"`
}

func (o *output) status() Status {
	o.mu.Lock()
	s := Status{Name: o.Name, Kind: o.Kind, State: o.phase, Shards: []StatusShard{}}
	if o.err != nil {
		s.Error, s.ErrorTime = o.err.Error(), optional(o.errAt)
	}
	session := o.session
	o.mu.Unlock()
	s.DeadLetters = StatusDeadLetters{Path: o.letters.path(), Bytes: o.letters.bytes()}
	if session != nil {
		session.show(&s)
	}
	if o.gate.closed() && s.State != StateStopped {
		s.State = StatePaused
	}
	return s
}

// show fills in what a session knows.
func (s *session) show(to *Status) {
	to.State = StateRunning
	to.InFlightBytes = s.room.inFlight()
	behind := false
	if s.source != nil {
		t := s.source.Totals()
		to.Totals = StatusTotals{t.Sent, t.Dropped, t.Refused, t.Filtered}
		lag, err := s.source.Lag()
		if err != nil && to.Error == "" {
			to.Error = err.Error()
		}
		to.Lag = StatusLag{Since: optional(lag.Since), Samples: lag.Samples, Bytes: lag.Bytes, GapDays: lag.GapDays}
		if !lag.Since.IsZero() {
			to.Lag.Seconds = max(0, s.f.Now().Sub(lag.Since).Seconds())
		}
		if lag.Whole {
			to.Lag.WholeFrom = optional(lag.WholeFrom)
		}
		behind = lag.Whole || lag.GapDays > 0 || to.Lag.Seconds > catchingUp.Seconds()
	}
	if behind {
		to.State = StateCatchingUp
	}
	worst := StateRunning
	for _, w := range []*worker{s.reader, s.saver} {
		worst = worse(worst, w.shown().State)
	}
	for _, w := range s.shards {
		shown := w.shown()
		to.Shards = append(to.Shards, shown)
		worst = worse(worst, shown.State)
	}
	for _, q := range s.queries {
		shown := q.shown()
		to.Queries = append(to.Queries, shown)
		worst = worse(worst, shown.State)
	}
	if worst != StateRunning {
		to.State = worst
	}
}

// badness orders the states that parts of an output are in.
var badness = map[State]int{StateRunning: 0, StateRetrying: 1, StateBlocked: 2, StateFailed: 3}

func worse(a, b State) State {
	if badness[b] > badness[a] {
		return b
	}
	return a
}

func (w *worker) shown() StatusShard {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.state == StateRunning {
		return StatusShard{State: StateRunning}
	}
	return StatusShard{State: w.state, Retries: w.retries, Since: optional(w.since)}
}

// optional is nil for the zero time.
func optional(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
