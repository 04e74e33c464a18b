package nats

import (
	"context"
	"time"
)

// Join joins messages of a payload, for tests.
func Join(kind Payload, bytesMax int, data ...[]byte) (body []byte, n int) {
	messages := make([]*message, len(data))
	for i := range data {
		messages[i] = &message{payload: kind, data: data[i]}
	}
	body, _, n = (&joiner{bytesMax: bytesMax}).join(messages)
	return body, n
}

// KnownLetters is how many places a file of dead letters tells of, for tests.
func KnownLetters(name, dir string) (int, error) {
	d, err := newDeadLetters(name, DeadLetters{Directory: dir})
	if err != nil {
		return 0, err
	}
	return len(d.buried), nil
}

// Grave is a message that is to get a letter, for tests.
type Grave struct {
	Subject, Stream, Reason string
	Sequence                uint64
	Data                    []byte
}

// Bury writes letters, for tests.
func Bury(name string, opts DeadLetters, graves ...Grave) error {
	d, err := newDeadLetters(name, opts)
	if err != nil {
		return err
	}
	for _, g := range graves {
		m := &message{data: g.Data, at: place{subject: g.Subject, stream: g.Stream, sequence: g.Sequence}}
		if err := d.bury(context.Background(), nil, grave{message: m, outcome: poison, reason: g.Reason}, time.UnixMilli(1_700_000_000_000)); err != nil {
			return err
		}
	}
	return d.close()
}
