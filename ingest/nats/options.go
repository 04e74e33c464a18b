package nats

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"varve/ingest"
	"varve/natsconn"
)

// Payload is a form of messages.
type Payload string

// The payloads.
const (
	// PayloadPrometheus is a prometheus.WriteRequest in a snappy block, as remote write 1.0 has it.
	PayloadPrometheus Payload = "prometheus"
	// PayloadPrometheus2 is an io.prometheus.write.v2.Request in a snappy block.
	PayloadPrometheus2 Payload = "prometheus2"
	// PayloadInflux is line protocol.
	PayloadInflux Payload = "influx"
	// PayloadJSON is what NewJSON reads.
	PayloadJSON Payload = "json"
)

// Options of an Input.
type Options struct {
	// Name is the input's, for metrics, log lines and the file of dead letters.
	Name       string
	Connection natsconn.Options

	// Core subscribes to Subjects without JetStream: at most once. Queue is the group of subscribers that share the messages, which may be empty.
	Core  bool
	Queue string

	Stream Stream
	// Durable is the consumer's name. It is made if it isn't there.
	Durable string
	// Subjects are those of the stream that are consumed; all if empty. Several need a server since 2.10.
	Subjects []string
	// AckWait is how long the server waits for a word of a message before it brings it again; zero: 30 s.
	AckWait time.Duration
	// MaxAckPending is how many messages may be under way; zero: 8192.
	MaxAckPending int

	// Payload is that of messages without a Content-Type.
	Payload Payload
	// Receivers take the messages of each payload. There must be one for Payload.
	Receivers map[Payload]ingest.Receiver

	// Workers receive at a time; zero: 4.
	Workers int
	// BatchMessages and BatchBytes bound what is joined to one body. Zero: 1024 and 1 MiB. BatchMessages of 1 joins nothing.
	BatchMessages, BatchBytes int
	// InFlightBytes bounds the messages that wait or are received. As much again may have come from the server and wait for that. Zero: 32 MiB.
	InFlightBytes int64

	DeadLetters DeadLetters
	// StopTimeout is how long Run goes on with what has come after its context ends; zero: 10 s.
	StopTimeout time.Duration
}

// Stream is the JetStream stream that has the messages.
type Stream struct {
	// Name is looked up by the first subject if it is empty.
	Name string
	// Create makes the stream if there is none of the name. One that is there stays as it is.
	Create bool
	// What follows is for a stream that is made. Subjects are those that are consumed if empty. Memory keeps it off the disk.
	Subjects   []string
	Memory     bool
	Replicas   int           // zero: 1
	Duplicates time.Duration // how long ids of messages are remembered; zero: the server's 2 min
	MaxAge     time.Duration // zero: for ever
	MaxBytes   int64         // zero: unbounded
}

// DeadLetters are where messages go that are refused. With neither they are counted and logged only.
type DeadLetters struct {
	// Directory holds the file NAME.jsonl, with a line of JSON for each message. It is put aside as NAME.jsonl.old, instead of the one before, when it has
	// FileBytes; zero: 64 MiB.
	Directory string
	FileBytes int64
	// Subject gets the messages as they are, with headers that say where they are from and why. With JetStream a stream must take it. What is
	// too large for the server with these headers goes without its payload, which a Directory has too.
	Subject string
}

func (o *Options) normalize() error {
	if err := o.Connection.Check(); err != nil {
		return err
	}
	for _, subject := range o.Subjects {
		if err := natsconn.CheckSubject(subject); err != nil {
			return err
		}
		if o.DeadLetters.Subject != "" && natsconn.Covers(subject, o.DeadLetters.Subject) {
			return fmt.Errorf("dead letters on %s would come back: subject %s takes them", o.DeadLetters.Subject, subject)
		}
	}
	switch {
	case o.Core && len(o.Subjects) == 0:
		return errors.New("core NATS needs subjects")
	case !o.Core && o.Durable == "":
		return errors.New("no name of a durable consumer")
	case !o.Core && o.Stream.Name == "" && len(o.Subjects) == 0:
		return errors.New("neither a stream nor a subject of one")
	case !o.Core && o.Stream.Create && (o.Stream.Name == "" || len(o.Stream.Subjects)+len(o.Subjects) == 0):
		return errors.New("a stream that is to be created needs a name and subjects")
	case o.Workers < 0 || o.BatchMessages < 0 || o.BatchBytes < 0 || o.InFlightBytes < 0 || o.MaxAckPending < 0 || o.DeadLetters.FileBytes < 0:
		return errors.New("a limit is below zero")
	case o.AckWait != 0 && o.AckWait < time.Second:
		return errors.New("the wait for acknowledgements is less than a second")
	}
	if err := errors.Join(natsconn.CheckStream(o.Stream.Name), natsconn.CheckStream(o.Durable)); err != nil {
		return err
	}
	o.Payload = cmp.Or(o.Payload, PayloadPrometheus)
	if o.Receivers[o.Payload] == nil {
		return fmt.Errorf("nobody here reads the payload %s", o.Payload)
	}
	o.AckWait = cmp.Or(o.AckWait, 30*time.Second)
	o.MaxAckPending = cmp.Or(o.MaxAckPending, 8192)
	o.Workers = cmp.Or(o.Workers, 4)
	o.BatchMessages = cmp.Or(o.BatchMessages, 1024)
	o.BatchBytes = cmp.Or(o.BatchBytes, 1<<20)
	o.InFlightBytes = cmp.Or(o.InFlightBytes, 32<<20)
	o.DeadLetters.FileBytes = cmp.Or(o.DeadLetters.FileBytes, 64<<20)
	o.StopTimeout = cmp.Or(o.StopTimeout, 10*time.Second)
	return nil
}

// newStream is the stream that is made.
func (o *Options) newStream() jetstream.StreamConfig {
	s := &o.Stream
	c := jetstream.StreamConfig{
		Name: s.Name, Subjects: s.Subjects, Storage: jetstream.FileStorage, Replicas: max(1, s.Replicas),
		Duplicates: s.Duplicates, MaxAge: s.MaxAge, MaxBytes: cmp.Or(s.MaxBytes, -1),
	}
	if len(c.Subjects) == 0 {
		c.Subjects = o.Subjects
	}
	if s.Memory {
		c.Storage = jetstream.MemoryStorage
	}
	return c
}

// consumer puts what is ours into a consumer's configuration and says whether that changed it.
func (o *Options) consumer(c *jetstream.ConsumerConfig) (changed bool) {
	was := *c
	c.AckWait, c.MaxAckPending, c.MaxDeliver = o.AckWait, o.MaxAckPending, -1
	c.FilterSubject, c.FilterSubjects = "", nil
	same := len(o.Subjects) == len(was.FilterSubjects)
	switch len(o.Subjects) {
	case 0:
		same = was.FilterSubject == "" && len(was.FilterSubjects) == 0
	case 1:
		c.FilterSubject = o.Subjects[0]
		same = was.FilterSubject == c.FilterSubject || len(was.FilterSubjects) == 1 && was.FilterSubjects[0] == c.FilterSubject
	default:
		c.FilterSubjects = o.Subjects
		for i := range was.FilterSubjects {
			same = same && was.FilterSubjects[i] == o.Subjects[i]
		}
	}
	return !same || was.AckWait != c.AckWait || was.MaxAckPending != c.MaxAckPending || was.MaxDeliver > 0
}
