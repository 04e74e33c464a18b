package nats_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"
	"github.com/stretchr/testify/require"

	"varve/forward"
	"varve/forward/nats"
	"varve/natsconn"
)

// class names the class of an error.
func class(err error) string {
	var retry *forward.Retry
	var blocked *forward.Blocked
	switch {
	case err == nil:
		return "sent"
	case errors.As(err, &retry):
		return "retry"
	case errors.As(err, &blocked):
		return "blocked"
	case errors.Is(err, forward.ErrTooLarge):
		return "too large"
	}
	return err.Error()
}

// stream makes the stream VARVE.
func stream(t *testing.T, url string, change ...func(*jetstream.StreamConfig)) {
	t.Helper()
	c, js := dial(t, url)
	defer c.Close()
	config := jetstream.StreamConfig{Name: "VARVE", Subjects: []string{"varve.>"}}
	for _, f := range change {
		f(&config)
	}
	_, err := js.CreateOrUpdateStream(t.Context(), config)
	require.NoError(t, err)
}

func unmade(o *nats.Options) { o.Stream.Create = false }

// TestStreamMade shows the stream that is made, and that one which is there stays as it is.
func TestStreamMade(t *testing.T) {
	server := run(t)
	s := newSender(t, server.ClientURL(), func(o *nats.Options) {
		o.Stream.Duplicates, o.Stream.MaxAge, o.Stream.Memory, o.Stream.MaxBytes = 5*time.Minute, time.Hour, true, 1<<20
	})
	send(t, s, plain("a", 1))
	_, js := dial(t, server.ClientURL())
	info := func() jetstream.StreamConfig {
		t.Helper()
		stream, err := js.Stream(t.Context(), "VARVE")
		require.NoError(t, err)
		return stream.CachedInfo().Config
	}
	got := info()
	require.Equal(t, []string{"varve.*.*"}, got.Subjects)
	require.Equal(t, jetstream.MemoryStorage, got.Storage)
	require.Equal(t, 5*time.Minute, got.Duplicates)
	require.Equal(t, time.Hour, got.MaxAge)
	require.EqualValues(t, 1<<20, got.MaxBytes)
	send(t, newSender(t, server.ClientURL()), plain("b", 1))
	require.Equal(t, got, info())
}

// TestStreamChecked shows what is said of a stream that can't take the messages, and that all goes on when it can.
func TestStreamChecked(t *testing.T) {
	server := run(t)
	url := server.ClientURL()
	s := newSender(t, url, unmade)
	b := prepare(t, s, plain("a", 3))
	blocked := func(what string) {
		t.Helper()
		_, err := s.Send(t.Context(), b)
		require.Equal(t, "blocked", class(err), err)
		require.ErrorContains(t, err, what)
	}
	blocked("there is no stream VARVE: nats stream add VARVE --subjects 'varve.*.*'")
	stream(t, url, func(c *jetstream.StreamConfig) { c.Subjects = []string{"varve.up.a", "other"} })
	blocked("stream VARVE takes varve.up.a, other, and not all of varve.*.*")
	stream(t, url, func(c *jetstream.StreamConfig) { c.NoAck = true })
	blocked("acknowledges nothing")
	stream(t, url)
	send(t, s, b)
	require.Len(t, stored(t, url), 3)

	// The stream changes while it is in use: the first batch finds out, the next says what it is.
	stream(t, url, func(c *jetstream.StreamConfig) { c.Subjects = []string{"other"} })
	_, err := s.Send(t.Context(), prepare(t, s, plain("b", 3)))
	require.Equal(t, "retry", class(err), err)
	blocked("not all of varve.*.*")
	stream(t, url)
	send(t, s, plain("b", 3))
	require.Len(t, stored(t, url), 6)
}

// TestStreamFound shows that a stream without a name is found by its subjects.
func TestStreamFound(t *testing.T) {
	server := run(t)
	s := newSender(t, server.ClientURL(), func(o *nats.Options) { o.Stream = nats.Stream{} })
	b := prepare(t, s, plain("a", 3))
	_, err := s.Send(t.Context(), b)
	require.Equal(t, "blocked", class(err), err)
	require.ErrorContains(t, err, "no stream takes varve.*.*")
	stream(t, server.ClientURL())
	send(t, s, b)
	require.Len(t, stored(t, server.ClientURL()), 3)
}

// TestWrongStream shows that a message which another stream would take is not published there.
func TestWrongStream(t *testing.T) {
	server := run(t)
	s := newSender(t, server.ClientURL())
	send(t, s, plain("a", 3))
	_, js := dial(t, server.ClientURL())
	require.NoError(t, js.DeleteStream(t.Context(), "VARVE"))
	_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "OTHER", Subjects: []string{"varve.>"}})
	require.NoError(t, err)
	_, err = s.Send(t.Context(), prepare(t, s, plain("b", 3)))
	require.Equal(t, "blocked", class(err), err)
	require.ErrorContains(t, err, "another stream than VARVE")
}

// TestStreamFull shows that a stream which takes no more for now is a reason to wait.
func TestStreamFull(t *testing.T) {
	server := run(t)
	stream(t, server.ClientURL(), func(c *jetstream.StreamConfig) { c.MaxMsgs, c.Discard = 2, jetstream.DiscardNew })
	s := newSender(t, server.ClientURL())
	_, err := s.Send(t.Context(), prepare(t, s, plain("a", 3)))
	require.Equal(t, "retry", class(err), err)
}

// TestStreamMessageSize shows that the stream's own limit of a message is kept, and that one set later is a reason to cut the batch.
func TestStreamMessageSize(t *testing.T) {
	server := run(t)
	stream(t, server.ClientURL(), func(c *jetstream.StreamConfig) { c.MaxMsgSize = 700 })
	s := newSender(t, server.ClientURL())
	send(t, s, plain("a", 300))
	stream(t, server.ClientURL(), func(c *jetstream.StreamConfig) { c.MaxMsgSize = 300 })
	b := prepare(t, s, plain("b", 300))
	_, err := s.Send(t.Context(), b)
	require.Equal(t, "too large", class(err), err)
	before := len(stored(t, server.ClientURL()))
	send(t, s, b)
	for _, m := range stored(t, server.ClientURL())[before:] {
		require.Less(t, len(m.content), 300)
	}
}

// TestNoJetStream shows what is said of a server without JetStream.
func TestNoJetStream(t *testing.T) {
	server := run(t, func(o *natsOptions) { o.JetStream = false })
	s := newSender(t, server.ClientURL())
	_, err := s.Send(t.Context(), prepare(t, s, plain("a", 1)))
	require.Equal(t, "retry", class(err), err)
	require.ErrorContains(t, err, "enable it on the server")
}

// TestCore shows that without JetStream a subscriber gets the messages, and that nothing is rewound.
func TestCore(t *testing.T) {
	server := run(t, func(o *natsOptions) { o.JetStream = false })
	c, _ := dial(t, server.ClientURL())
	sub, err := c.SubscribeSync("varve.>")
	require.NoError(t, err)
	require.NoError(t, c.FlushTimeout(patience))
	s := newSender(t, server.ClientURL(), func(o *nats.Options) { o.Core = true })
	b := rich()
	send(t, s, b)
	var got []message
	for range 3 {
		m, err := sub.NextMsg(patience)
		require.NoError(t, err)
		got = append(got, message{m.Subject, "", m.Data})
	}
	require.Equal(t, wanted(b, subjects), decoded(t, got))
}

// TestCredentials shows each way to log in, that a wrong secret blocks, and that a secret in a file is read again.
func TestCredentials(t *testing.T) {
	key, err := nkeys.CreateUser()
	require.NoError(t, err)
	seed, err := key.Seed()
	require.NoError(t, err)
	public, err := key.PublicKey()
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "secret")
	write := func(s string) { require.NoError(t, os.WriteFile(file, []byte(s), 0o600)) }
	for name, c := range map[string]struct {
		server       func(*natsOptions)
		wrong, right func(*nats.Options)
	}{
		"password": {
			func(o *natsOptions) { o.Username, o.Password = "u", "right-secret" },
			func(o *nats.Options) { o.User, o.Password = "u", "wrong-secret" },
			func(o *nats.Options) { o.User, o.Password = "u", "right-secret" },
		},
		"token": {
			func(o *natsOptions) { o.Authorization = "right-secret" },
			func(o *nats.Options) { o.Token = "wrong-secret" },
			func(o *nats.Options) { o.Token = "right-secret" },
		},
		"nkey": {
			func(o *natsOptions) { o.Nkeys = []*natsserver.NkeyUser{{Nkey: public}} },
			func(*nats.Options) {},
			func(o *nats.Options) { write(string(seed)); o.NKeyFile = file },
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := run(t, c.server)
			s := newSender(t, server.ClientURL(), c.wrong, func(o *nats.Options) { o.Core = true })
			_, err := s.Send(t.Context(), prepare(t, s, plain("a", 1)))
			require.Equal(t, "blocked", class(err), err)
			require.NotContains(t, err.Error(), "secret")
			send(t, newSender(t, server.ClientURL(), c.right, func(o *nats.Options) { o.Core = true }), plain("a", 1))
		})
	}
	t.Run("file", func(t *testing.T) {
		server := run(t, func(o *natsOptions) { o.Authorization = "right-secret" })
		write("wrong-secret\n")
		s := newSender(t, server.ClientURL(), func(o *nats.Options) { o.Core, o.TokenFile = true, file })
		_, err := s.Send(t.Context(), prepare(t, s, plain("a", 1)))
		require.Equal(t, "blocked", class(err), err)
		write("right-secret\n")
		send(t, s, plain("a", 1))
	})
}

// TestForbidden shows that a lack of permission to publish blocks, with and without JetStream.
func TestForbidden(t *testing.T) {
	for _, core := range []bool{true, false} {
		t.Run(fmt.Sprintf("core %t", core), func(t *testing.T) {
			server := run(t, func(o *natsOptions) {
				o.Users = []*natsserver.User{{Username: "u", Password: "p", Permissions: &natsserver.Permissions{Publish: &natsserver.SubjectPermission{Deny: []string{"varve.up.*"}}}}}
			})
			var err error
			// The server says no more of the message than why. On a slow machine a second may be too little for that.
			for _, wait := range []time.Duration{time.Second, 10 * time.Second, patience} {
				s := newSender(t, server.ClientURL(), func(o *nats.Options) { o.User, o.Password, o.Core, o.AckTimeout = "u", "p", core, wait })
				if _, err = s.Send(t.Context(), prepare(t, s, plain("a", 1))); class(err) != "retry" {
					break
				}
			}
			require.Equal(t, "blocked", class(err), err)
			require.ErrorIs(t, err, client.ErrPermissionViolation)
		})
	}
}

// TestOptions shows that nonsense is refused, without the password that an address may hold.
func TestOptions(t *testing.T) {
	good := nats.Options{Options: natsconn.Options{URLs: []string{"nats://localhost"}}, Subject: "varve"}
	_, err := nats.New(good)
	require.NoError(t, err)
	for name, change := range map[string]func(*nats.Options){
		"no url":         func(o *nats.Options) { o.URLs = nil },
		"scheme":         func(o *nats.Options) { o.URLs = []string{"http://u:secret@localhost"} },
		"url":            func(o *nats.Options) { o.URLs = []string{"nats://u:secret@%zz"} },
		"payload":        func(o *nats.Options) { o.Payload = "xml" },
		"two ways":       func(o *nats.Options) { o.User, o.Token = "u", "secret" },
		"two passwords":  func(o *nats.Options) { o.User, o.Password, o.PasswordFile = "u", "word", "f" },
		"no user":        func(o *nats.Options) { o.Password = "secret" },
		"no key":         func(o *nats.Options) { o.NKeyFile = filepath.Join(t.TempDir(), "none") },
		"nameless":       func(o *nats.Options) { o.Stream.Create = true },
		"name of stream": func(o *nats.Options) { o.Stream.Name = "a.b" },
	} {
		t.Run(name, func(t *testing.T) {
			o := good
			change(&o)
			_, err := nats.New(o)
			require.Error(t, err)
			require.NotContains(t, err.Error(), "u:secret")
		})
	}
}
