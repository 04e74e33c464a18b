package nats

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/common/config"

	"varve/forward/lineprotocol"
)

// DefaultRewindWindow is twice JetStream's interval of syncs.
const DefaultRewindWindow = 4 * time.Minute

// Options of a Sender.
type Options struct {
	// Name is the connection's, as the server shows it.
	Name string
	// URLs are servers of one cluster: nats://, tls://, ws:// or wss://, or host:port.
	URLs []string
	// Subject is a template, see the package comment.
	Subject string
	Payload Payload

	// User, with Password or PasswordFile; Token or TokenFile; CredentialsFile (a JWT with its seed); NKeyFile (a seed): at most one
	// of the four. Files are read again with each connection.
	User                   string
	Password, PasswordFile string
	Token, TokenFile       string
	CredentialsFile        string
	NKeyFile               string
	TLS                    *config.TLSConfig // nil: as the URL says, with the system's authorities
	ConnectTimeout         time.Duration     // of one attempt at one server; zero: 2 s
	ReconnectWait          time.Duration     // between attempts to connect again; zero: 2 s, with jitter

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
	if len(o.URLs) == 0 {
		return errors.New("no url of a server")
	}
	for _, s := range o.URLs {
		if !strings.Contains(s, "://") {
			s = "nats://" + s
		}
		u, err := url.Parse(s)
		if err != nil {
			// The error of url.Parse has the address, which may hold a password.
			return errors.New("a url can't be parsed")
		}
		switch u.Scheme {
		case "nats", "tls", "ws", "wss":
		default:
			return fmt.Errorf("url %s: want nats, tls, ws or wss", u.Redacted())
		}
	}
	ways := 0
	for _, set := range []bool{o.User != "", o.Token != "" || o.TokenFile != "", o.CredentialsFile != "", o.NKeyFile != ""} {
		if set {
			ways++
		}
	}
	switch {
	case ways > 1:
		return errors.New("user, token, credentials file and nkey file exclude each other")
	case o.Password != "" && o.PasswordFile != "" || o.Token != "" && o.TokenFile != "":
		return errors.New("a secret is given twice, in place and as a file")
	case o.User == "" && (o.Password != "" || o.PasswordFile != ""):
		return errors.New("a password without a user")
	case o.Stream.Create && o.Stream.Name == "" && !o.Core:
		return errors.New("a stream that is to be created needs a name")
	case strings.ContainsAny(o.Stream.Name, " \t\r\n.*>/\\"):
		return fmt.Errorf("stream name %q: no white space, dots, wildcards and slashes", o.Stream.Name)
	}
	o.ConnectTimeout = orDefault(o.ConnectTimeout, nats.DefaultTimeout)
	o.ReconnectWait = orDefault(o.ReconnectWait, nats.DefaultReconnectWait)
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

// connectOptions are those of the client, but for the callbacks.
func (o *Options) connectOptions() ([]nats.Option, error) {
	opts := []nats.Option{
		nats.Name(o.Name), nats.Timeout(o.ConnectTimeout),
		// It connects again for as long as it takes, with credentials that were refused too, and keeps nothing back meanwhile:
		// what is not sent stays in the archive.
		nats.MaxReconnects(-1), nats.ReconnectWait(o.ReconnectWait), nats.IgnoreAuthErrorAbort(), nats.ReconnectBufSize(-1),
	}
	switch {
	case o.User != "":
		opts = append(opts, nats.UserInfoHandler(func() (string, string) { return o.User, secret(o.Password, o.PasswordFile) }))
	case o.Token != "" || o.TokenFile != "":
		opts = append(opts, nats.TokenHandler(func() string { return secret(o.Token, o.TokenFile) }))
	case o.CredentialsFile != "":
		opts = append(opts, nats.UserCredentials(o.CredentialsFile))
	case o.NKeyFile != "":
		key, err := nats.NkeyOptionFromSeed(o.NKeyFile)
		if err != nil {
			return nil, fmt.Errorf("read the nkey: %w", err)
		}
		opts = append(opts, key)
	}
	if o.TLS != nil {
		c, err := config.NewTLSConfig(o.TLS)
		if err != nil {
			return nil, fmt.Errorf("tls: %w", err)
		}
		opts = append(opts, nats.Secure(c))
	}
	return opts, nil
}

// secret is the secret in the file, if there is one. A file that can't be read is an empty secret, which the server refuses.
func secret(inPlace, file string) string {
	if file == "" {
		return inPlace
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
