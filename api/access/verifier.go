package access

import (
	"container/list"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"
	"golang.org/x/time/rate"
)

const (
	// An address may try ten wrong credentials at once and one more a second.
	// Right ones that were seen before pass at any rate.
	failuresBurst     = 10
	failuresPerSecond = 1
	// addressesMax bounds the memory for addresses that failed: the one whose last
	// failure is longest ago is forgotten first.
	addressesMax = 1024
)

var (
	errWrongCredentials = errors.New("wrong credentials")
	errTooManyFailures  = errors.New("too many wrong credentials from this address")
)

// verifier finds out what a request proves about its sender.
//
//  1. A bearer token is compared with all tokens in constant time.
//  2. A password that was right before is recognised by its HMAC under a key of
//     this process, since bcrypt takes tens of milliseconds.
//  3. Any other password costs one bcrypt comparison, one at a time, for unknown
//     users too, so that neither the time nor the CPU tells or gives anything.
//  4. Wrong ones draw on an allowance of their address, checked before step 3.
type verifier struct {
	now func() time.Time
	key [32]byte

	// bcryptMu is held during a comparison. It is taken before mu.
	bcryptMu sync.Mutex

	// mu guards what follows.
	mu sync.Mutex
	// proved has the HMAC of user, hash and password of each user's last success.
	proved   map[string][sha256.Size]byte
	failures map[string]*list.Element
	// recent orders the values of failures, the latest first.
	recent *list.List
}

type failure struct {
	address string
	limiter *rate.Limiter
}

func newVerifier(now func() time.Time) *verifier {
	v := &verifier{now: now, proved: map[string][sha256.Size]byte{}, failures: map[string]*list.Element{}, recent: list.New()}
	rand.Read(v.key[:])
	return v
}

// unknownUserHash is compared with passwords of users that don't exist: a hash
// of cost 10 that nobody knows the password of.
var unknownUserHash = sync.OnceValue(func() []byte {
	hash, err := bcrypt.GenerateFromPassword([]byte(rand.Text()), bcrypt.DefaultCost)
	if err != nil {
		panic(err)
	}
	return hash
})

// principals returns what the request proved, without "anonymous", which every
// request has. It is empty for a request that shows no credential. Wrong
// credentials are an error, also where none were asked for.
func (v *verifier) principals(r *http.Request, p *Policy) ([]string, error) {
	var who []string
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		who = certificateNames(r.TLS.VerifiedChains[0][0])
		// As with exporter-toolkit, a certificate alone is not enough where
		// passwords or tokens exist; a rule may still name it.
		if len(p.users) == 0 && len(p.tokens) == 0 {
			who = append(who, principalAuthenticated)
		}
	}
	header := r.Header.Get("Authorization")
	if header == "" || len(p.users) == 0 && len(p.tokens) == 0 {
		return who, nil
	}
	if user, password, ok := r.BasicAuth(); ok {
		if err := v.checkPassword(user, password, address(r), p); err != nil {
			return nil, err
		}
		return append([]string{prefixUser + user, principalAuthenticated}, who...), nil
	}
	scheme, secret, _ := strings.Cut(header, " ")
	if strings.EqualFold(scheme, "Bearer") {
		if name, ok := findToken(p.tokens, strings.TrimSpace(secret)); ok {
			return append([]string{prefixToken + name, principalAuthenticated}, who...), nil
		}
	}
	return nil, v.failed(address(r))
}

// findToken compares the secret with every token, so that the time tells nothing
// of which one came close.
func findToken(tokens []Token, secret string) (name string, found bool) {
	got := sha256.Sum256([]byte(secret))
	for _, t := range tokens {
		want := sha256.Sum256([]byte(t.Secret))
		if subtle.ConstantTimeCompare(got[:], want[:]) == 1 {
			name, found = t.Name, true
		}
	}
	return name, found
}

func (v *verifier) checkPassword(user, password, address string, p *Policy) error {
	hash, exists := p.users[user]
	proof := v.proof(user, hash, password)
	v.mu.Lock()
	last, ok := v.proved[user]
	v.mu.Unlock()
	if exists && ok && subtle.ConstantTimeCompare(last[:], proof[:]) == 1 {
		return nil
	}
	if v.exhausted(address) {
		return errTooManyFailures
	}
	stored := []byte(hash)
	if !exists {
		stored = unknownUserHash()
	}
	v.bcryptMu.Lock()
	err := bcrypt.CompareHashAndPassword(stored, []byte(password))
	v.bcryptMu.Unlock()
	if err != nil || !exists {
		return v.failed(address)
	}
	v.mu.Lock()
	v.proved[user] = proof
	v.mu.Unlock()
	return nil
}

// proof covers the hash, so that a changed password forgets the old one. The
// parts are hashed first, so that no part can run into the next.
func (v *verifier) proof(user, hash, password string) (sum [sha256.Size]byte) {
	mac := hmac.New(sha256.New, v.key[:])
	for _, part := range []string{user, hash, password} {
		digest := sha256.Sum256([]byte(part))
		mac.Write(digest[:])
	}
	return [sha256.Size]byte(mac.Sum(nil))
}

func (v *verifier) exhausted(address string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	e, ok := v.failures[address]
	return ok && e.Value.(*failure).limiter.TokensAt(v.now()) < 1
}

// failed draws on the allowance of the address and returns the error to answer.
func (v *verifier) failed(address string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	e, ok := v.failures[address]
	if !ok {
		if v.recent.Len() >= addressesMax {
			oldest := v.recent.Remove(v.recent.Back()).(*failure)
			delete(v.failures, oldest.address)
		}
		e = v.recent.PushFront(&failure{address: address, limiter: rate.NewLimiter(failuresPerSecond, failuresBurst)})
		v.failures[address] = e
	}
	v.recent.MoveToFront(e)
	if !e.Value.(*failure).limiter.AllowN(v.now(), 1) {
		return errTooManyFailures
	}
	return errWrongCredentials
}

func address(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

func certificateNames(c *x509.Certificate) []string {
	var names []string
	for _, n := range c.DNSNames {
		names = append(names, prefixSAN+n)
	}
	for _, n := range c.EmailAddresses {
		names = append(names, prefixSAN+n)
	}
	for _, n := range c.IPAddresses {
		names = append(names, prefixSAN+n.String())
	}
	for _, n := range c.URIs {
		names = append(names, prefixSAN+n.String())
	}
	return names
}
