package ccms

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

// tokens hands out bearer tokens. Safe for use by several goroutines.
type tokens struct {
	read func() (string, error) // the token or the seed; nil for none
	made bool                   // read gives a seed
	life time.Duration
	now  func() time.Time

	mu      sync.Mutex // guards what follows
	seed    string
	token   string
	expires time.Time
}

func newTokens(o *Options) *tokens {
	t := &tokens{life: o.TokenLife, now: o.Now, made: o.Seed != "" || o.SeedFile != ""}
	fixed := string(o.Token) + string(o.Seed)
	file := o.TokenFile + o.SeedFile
	switch {
	case fixed != "":
		t.read = func() (string, error) { return fixed, nil }
	case file != "":
		t.read = func() (string, error) {
			content, err := os.ReadFile(file)
			return strings.TrimSpace(string(content)), err
		}
	}
	return t
}

// get returns the token to send, empty for none. Files are read each time, since a file is read in far less time than a
// request takes. used is a token that the store refused: if there is no other yet, one is made of the seed, or used comes again.
func (t *tokens) get(used string) (string, error) {
	if t.read == nil {
		return "", nil
	}
	content, err := t.read()
	if err != nil {
		return "", fmt.Errorf("read the token: %w", err)
	}
	if !t.made {
		return content, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	// A token is replaced when half of its life is over.
	if content == t.seed && t.token != used && t.token != "" && now.Before(t.expires.Add(-t.life/2)) {
		return t.token, nil
	}
	key, err := keyOf(content)
	if err != nil {
		return "", err
	}
	if t.token, err = sign(key, now, now.Add(t.life)); err != nil {
		return "", err
	}
	t.seed, t.expires = content, now.Add(t.life)
	return t.token, nil
}

var errSeed = errors.New("the seed of the token is not the base64 of an Ed25519 key (32 or 64 bytes)")

// keyOf reads a seed, or a seed with its public key. The text is never in an error.
func keyOf(text string) (ed25519.PrivateKey, error) {
	seed, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(seed) != ed25519.SeedSize && len(seed) != ed25519.PrivateKeySize {
		return nil, errSeed
	}
	return ed25519.NewKeyFromSeed(seed[:ed25519.SeedSize]), nil
}

// clockSkew is how far the store's clock may be behind ours.
const clockSkew = time.Minute

// sign makes a JWT (RFC 7519) signed with Ed25519 (RFC 8037).
func sign(key ed25519.PrivateKey, now, expires time.Time) (string, error) {
	claims, err := json.Marshal(map[string]any{
		"sub": "varve", "roles": []string{"api"},
		"iat": now.Add(-clockSkew).Unix(), "exp": expires.Unix(),
	})
	if err != nil {
		return "", fmt.Errorf("make a token: %w", err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode([]byte(`{"alg":"EdDSA","typ":"JWT"}`)) + "." + encode(claims)
	return signed + "." + encode(ed25519.Sign(key, []byte(signed))), nil
}
