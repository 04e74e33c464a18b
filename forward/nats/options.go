package nats

import (
	"errors"
	"fmt"
	"time"

	"varve/forward/lineprotocol"
	"varve/natsconn"
)

// DefaultRewindWindow is twice JetStream's interval of syncs.
const DefaultRewindWindow = 4 * time.Minute

// Options of a Sender.
type Options struct {
	// The connection.
	natsconn.Options
	// Subject is a template, see the package comment.
	Subject string
	Payload Payload

	// Core publishes without JetStream: at most once. What is about streams is unused then.
	Core   bool
	Stream Stream
	// Window is how many messages of one Send wait for their acknowledgements at a time; zero: 256.
	Window int
	// AckTimeout bounds the wait for one; zero: 10 s.
	AckTimeout time.Duration
	// RewindWindow is how much of what was acknowledged before a server went away is asked for again by Rewinds; zero: 4 min, which is
	// twice JetStream's interval of syncs; negative: nothing.
	RewindWindow time.Duration
	// MaxPayloadBytes bounds a message with its header, if it is less than the server's and the stream's own bounds.
	MaxPayloadBytes int

	// Metadata, Exemplars and Histograms are left out unless set. The first two are in PayloadPrometheus only. Histograms that are left out are
	// counted as skipped. In PayloadInflux InfluxHistograms decides instead.
	Metadata, Exemplars, Histograms bool
	Precision                       lineprotocol.Precision  // of PayloadInflux
	InfluxHistograms                lineprotocol.Histograms // of PayloadInflux
}

// Stream is the JetStream stream that takes the messages.
type Stream struct {
	// Name is looked up by the subject if it is empty.
	Name string
	// Create makes the stream if there is none of the name. One that is there stays as it is.
	Create bool
	// What follows is for a stream that is made. Subjects are those of the template if empty. Memory keeps it off the disk.
	Subjects   []string
	Memory     bool
	Replicas   int           // zero: 1
	Duplicates time.Duration // how long ids of messages are remembered; zero: the server's 2 min
	MaxAge     time.Duration // zero: for ever
	MaxBytes   int64         // zero: unbounded
}

// normalize fills in defaults and says what is wrong.
func (o *Options) normalize() error {
	if err := o.Check(); err != nil {
		return err
	}
	switch {
	case o.Stream.Create && o.Stream.Name == "" && !o.Core:
		return errors.New("a stream that is to be created needs a name")
	}
	if err := natsconn.CheckStream(o.Stream.Name); err != nil {
		return fmt.Errorf("stream: %w", err)
	}
	o.AckTimeout = orDefault(o.AckTimeout, 10*time.Second)
	o.RewindWindow = orDefault(o.RewindWindow, DefaultRewindWindow)
	if o.Window <= 0 {
		o.Window = 256
	}
	return nil
}

func orDefault(d, def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return d
}
