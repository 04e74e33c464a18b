// Package natsconn holds what every user of NATS in Varve needs to connect: addresses, credentials, TLS, and the rules of subjects.
//
// Options are a plain struct. Check fills in its defaults and says what is wrong with it, and Client makes the options of the
// client of it: a connection that is made again for as long as it takes, also with credentials that were refused, and that keeps nothing
// back while it is away. Secrets in files are read again with each connection.
//
// The package makes no connection, starts nothing, logs nothing and knows no payload.
package natsconn

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/common/config"
)

// Options of a connection.
type Options struct {
	// Name is the connection's, as the server shows it.
	Name string
	// URLs are servers of one cluster: nats://, tls://, ws:// or wss://, or host:port.
	URLs []string

	// User, with Password or PasswordFile; Token or TokenFile; CredentialsFile (a JWT with its seed); NKeyFile (a seed): at most one
	// of the four.
	User                   string
	Password, PasswordFile string
	Token, TokenFile       string
	CredentialsFile        string
	NKeyFile               string
	TLS                    *config.TLSConfig // nil: as the URL says, with the system's authorities
	ConnectTimeout         time.Duration     // of one attempt at one server; zero: 2 s
	ReconnectWait          time.Duration     // between attempts to connect again; zero: 2 s, with jitter
}

// Check fills in defaults and says what is wrong. Its errors show no secret.
func (o *Options) Check() error {
	if len(o.URLs) == 0 {
		return errors.New("no url of a server")
	}
	for _, s := range o.URLs {
		if err := checkURL(s); err != nil {
			return err
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
	}
	o.ConnectTimeout = cmp.Or(o.ConnectTimeout, nats.DefaultTimeout)
	o.ReconnectWait = cmp.Or(o.ReconnectWait, nats.DefaultReconnectWait)
	return nil
}

func checkURL(s string) error {
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
		return nil
	}
	u.User = nil // it may be a token
	return fmt.Errorf("url %s: want nats, tls, ws or wss", u)
}

// Servers are the URLs as the client wants them.
func (o *Options) Servers() string { return strings.Join(o.URLs, ",") }

// Client returns the options of the client, but for its callbacks.
func (o *Options) Client() ([]nats.Option, error) {
	opts := []nats.Option{
		nats.Name(o.Name), nats.Timeout(o.ConnectTimeout),
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

// CheckStream says what is wrong with the name of a stream or a consumer.
func CheckStream(name string) error {
	if strings.ContainsAny(name, " \t\r\n.*>/\\") {
		return fmt.Errorf("name %q: no white space, dots, wildcards and slashes", name)
	}
	return nil
}

// CheckSubject says what is wrong with a subject, which may have wildcards.
func CheckSubject(subject string) error {
	tokens := strings.Split(subject, ".")
	for i, token := range tokens {
		switch {
		case token == "", strings.ContainsAny(token, " \t\r\n"):
			return fmt.Errorf("subject %q: want tokens without white space between dots", subject)
		case token == ">" && i != len(tokens)-1:
			return fmt.Errorf("subject %q: > stands at the end alone", subject)
		}
	}
	return nil
}

// Covers says whether every subject that matches the narrow pattern matches the wide one.
func Covers(wide, narrow string) bool {
	w, n := strings.Split(wide, "."), strings.Split(narrow, ".")
	for i, token := range w {
		switch {
		case token == ">":
			return i < len(n)
		case i >= len(n) || n[i] == ">":
			return false
		case token != "*" && token != n[i]:
			return false
		}
	}
	return len(w) == len(n)
}
