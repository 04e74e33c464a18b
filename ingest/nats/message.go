package nats

import (
	"context"
	"mime"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// message is one that came.
type message struct {
	payload Payload
	data    []byte
	// cost is what it takes of the room.
	cost int64
	// at is its place.
	at place
	// js acknowledges it; nil for core NATS.
	js jetstream.Msg
	// since is when it came.
	since time.Time
}

// place says where a message is from. It is the same each time that one comes.
type place struct {
	subject, stream string
	sequence        uint64
	// publishedNanos tells messages of a stream from those of another with its name.
	publishedNanos int64
}

// sentMillis is when a message was sent: when its stream took it, which is the same each time that it comes, or else when it came.
func (m *message) sentMillis() int64 {
	if m.at.publishedNanos != 0 {
		return time.Unix(0, m.at.publishedNanos).UnixMilli()
	}
	return m.since.UnixMilli()
}

// messageBytes is what a message takes beside its data.
const messageBytes = 512

// payloadOf is what a message holds by its header; "" if that says something nobody knows.
func payloadOf(h nats.Header, configured Payload) Payload {
	contentType := h.Get("Content-Type")
	if contentType == "" {
		return configured
	}
	kind, parameters, err := mime.ParseMediaType(contentType)
	if err != nil {
		return ""
	}
	switch kind {
	case "application/x-protobuf":
		switch parameters["proto"] {
		case "", "prometheus.WriteRequest":
			return PayloadPrometheus
		case "io.prometheus.write.v2.Request":
			return PayloadPrometheus2
		}
		return ""
	case "application/json", "application/x-ndjson":
		return PayloadJSON
	case "text/plain", "application/vnd.influx.line-protocol":
		return PayloadInflux
	}
	return ""
}

func (m *message) ack() {
	if m.js != nil {
		// Without it the message comes again, which harms nothing.
		_ = m.js.Ack()
	}
}

func (m *message) term() {
	if m.js != nil {
		_ = m.js.Term()
	}
}

func (m *message) nak() {
	if m.js != nil {
		_ = m.js.Nak()
	}
}

// room bounds the bytes of messages that are under way, and remembers these.
type room struct {
	bytesMax int64

	mu   sync.Mutex // guards what follows
	used int64
	// freed is closed when there is more room; nil if nobody waits.
	freed chan struct{}
	held  map[*message]struct{}
}

func newRoom(bytesMax int64) *room {
	return &room{bytesMax: bytesMax, held: make(map[*message]struct{})}
}

// enter waits for room. A message that is larger than all of it goes alone.
func (r *room) enter(ctx context.Context, m *message) error {
	for {
		r.mu.Lock()
		if r.used == 0 || r.used+m.cost <= r.bytesMax {
			r.used += m.cost
			r.held[m] = struct{}{}
			r.mu.Unlock()
			return nil
		}
		if r.freed == nil {
			r.freed = make(chan struct{})
		}
		freed := r.freed
		r.mu.Unlock()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-freed:
		}
	}
}

func (r *room) leave(m *message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.held[m]; !ok {
		return
	}
	delete(r.held, m)
	r.used -= m.cost
	if r.freed != nil {
		close(r.freed)
		r.freed = nil
	}
}

func (r *room) bytes() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.used
}

// longerThan returns the messages that have been here since a time.
func (r *room) longerThan(since time.Time) (old []*message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for m := range r.held {
		if m.js != nil && m.since.Before(since) {
			old = append(old, m)
		}
	}
	return old
}
