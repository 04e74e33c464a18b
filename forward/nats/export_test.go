package nats

import (
	"testing"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/prometheus/model/labels"
)

// Subject makes the subject of a series, for tests.
func Subject(t testing.TB, template string, ls labels.Labels) (subject string, err error) {
	t.Helper()
	p, err := parseTemplate(template)
	if err != nil {
		t.Fatal(err)
	}
	return p.series(ls)
}

// Pattern matches what the template makes, for tests.
func Pattern(template string) (string, error) {
	p, err := parseTemplate(template)
	if err != nil {
		return "", err
	}
	return p.pattern(), nil
}

// Token escapes a value, for tests.
func Token(value string) string { return string(appendToken(nil, value)) }

// Reconnected is what the client calls when it has connected again, for tests.
func Reconnected(s *Sender) { s.reconnected(s.conn) }

// Fly publishes n messages to the stream with a window, for tests.
func Fly(t testing.TB, js jetstream.JetStream, window, n int) error {
	t.Helper()
	f := &flight{at: &place{js: js, stream: "VARVE"}, window: window}
	for range n {
		if err := f.publish(t.Context(), "varve", "id", nil); err != nil {
			return err
		}
	}
	return f.land(t.Context(), 0)
}
