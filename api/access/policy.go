package access

import (
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

const (
	principalAnonymous     = "anonymous"
	principalAuthenticated = "authenticated"
	prefixUser             = "user:"
	prefixToken            = "token:"
	prefixSAN              = "san:"
)

// Token is a bearer token. Its name stands in rules, its secret is never shown.
type Token struct{ Name, Secret string }

// Rule grants the groups of May to each principal in Who.
type Rule struct {
	// Who holds "user:NAME", "token:NAME", "san:NAME", "authenticated" or "anonymous".
	Who []string
	May []Group
}

// PolicyOptions is what a Policy is made of. The zero value lets everybody in.
type PolicyOptions struct {
	// WebFile holds users and client certificate authorities; nil means none.
	WebFile *WebFile
	Tokens  []Token
	// Rules, if there are any, replace the default that whoever is
	// authenticated may use every group.
	Rules []Rule
}

// Policy is an immutable answer to who may do what.
type Policy struct {
	webFile *WebFile
	users   map[string]string
	tokens  []Token
	grants  map[string]groupSet
}

// NewPolicy checks the options and returns their policy. Errors name the token
// or rule at fault and never contain a secret.
func NewPolicy(o PolicyOptions) (*Policy, error) {
	p := &Policy{webFile: o.WebFile, tokens: slices.Clone(o.Tokens), grants: map[string]groupSet{}}
	if o.WebFile != nil {
		p.users = o.WebFile.users
	}
	known := map[string]bool{principalAnonymous: true, principalAuthenticated: true}
	for user := range p.users {
		known[prefixUser+user] = true
	}
	for _, t := range o.Tokens {
		switch {
		case t.Name == "":
			return nil, errors.New("a token has no name")
		case t.Secret == "":
			return nil, fmt.Errorf("token %q is empty", t.Name)
		case known[prefixToken+t.Name]:
			return nil, fmt.Errorf("token %q is defined twice", t.Name)
		}
		known[prefixToken+t.Name] = true
	}
	for i, rule := range o.Rules {
		if len(rule.Who) == 0 || len(rule.May) == 0 {
			return nil, fmt.Errorf("rule %d grants nothing: it needs both who and may", i+1)
		}
		for _, who := range rule.Who {
			if !known[who] && !(strings.HasPrefix(who, prefixSAN) && len(who) > len(prefixSAN)) {
				return nil, fmt.Errorf("rule %d: %q is not known: use %s", i+1, who, strings.Join(slices.Sorted(maps.Keys(known)), ", ")+" or san:NAME")
			}
			for _, g := range rule.May {
				if g >= groupCount {
					return nil, fmt.Errorf("rule %d: unknown %s", i+1, g)
				}
				p.grants[who] |= 1 << g
			}
		}
	}
	return p, nil
}

// Open reports whether somebody without credentials may use the group.
func (p *Policy) Open(g Group) bool { return p.allows(nil, g) }

// Secured reports whether any credential is asked for at all.
func (p *Policy) Secured() bool {
	return len(p.users) > 0 || len(p.tokens) > 0 || len(p.grants) > 0 || p.certificatesRequired()
}

func (p *Policy) certificatesRequired() bool {
	return p.webFile != nil && p.webFile.clientCertificatesRequired
}

// allows reports whether the principals that a request proved may use the group.
func (p *Policy) allows(principals []string, g Group) bool {
	if len(p.grants) == 0 {
		return !p.Secured() || slices.Contains(principals, principalAuthenticated)
	}
	if p.grants[principalAnonymous].has(g) {
		return true
	}
	return slices.ContainsFunc(principals, func(who string) bool { return p.grants[who].has(g) })
}

// TLSConfig returns what connections are to be encrypted with, nil if they aren't. It must not be changed.
func (p *Policy) TLSConfig() *tls.Config {
	if p.webFile == nil {
		return nil
	}
	return p.webFile.tls
}

// TLS reports whether connections are to be encrypted.
func (p *Policy) TLS() bool { return p.webFile.TLS() }
