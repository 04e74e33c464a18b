package access

import (
	"net/http"
	"strings"
)

// FromInflux returns a handler that shows next the credentials which clients of InfluxDB send in ways of their own as
// those that a Guard understands: "Authorization: Token SECRET" or "Token USER:PASSWORD", and u and p in the query. A
// password that comes with a user nobody here knows may be a token, as in version 2 of InfluxDB; one that is none takes
// as long to refuse as that of a known user. What was in the query is taken out of it, so that it is in no log.
func (g *Guard) FromInflux(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, found := influxCredentials(r)
		if !found {
			next.ServeHTTP(w, r)
			return
		}
		r = withoutPassword(r)
		if g.policy.Load().takesToken(user, password) {
			r.Header.Set("Authorization", "Bearer "+password)
		} else {
			r.SetBasicAuth(user, password)
		}
		next.ServeHTTP(w, r)
	})
}

// takesToken tells that a password is to be judged as a token: it is one, or there are no passwords.
func (p *Policy) takesToken(user, password string) bool {
	if user == "" || len(p.users) == 0 {
		return true
	}
	_, known := p.users[user]
	_, token := findToken(p.tokens, password)
	return token && !known
}

// influxCredentials finds what the request shows. The user is empty where a token alone is shown.
func influxCredentials(r *http.Request) (user, password string, found bool) {
	header := r.Header.Get("Authorization")
	if header == "" {
		q := r.URL.Query()
		return q.Get("u"), q.Get("p"), q.Has("p")
	}
	if user, password, ok := r.BasicAuth(); ok {
		return user, password, true
	}
	scheme, secret, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Token") {
		return "", "", false
	}
	secret = strings.TrimSpace(secret)
	if user, password, ok := strings.Cut(secret, ":"); ok {
		return user, password, true
	}
	return "", secret, true
}

// withoutPassword returns the request with headers of its own, and without u and p in its query.
func withoutPassword(r *http.Request) *http.Request {
	r = r.Clone(r.Context())
	if q := r.URL.Query(); q.Has("p") || q.Has("u") {
		q.Del("u")
		q.Del("p")
		r.URL.RawQuery = q.Encode()
		r.RequestURI = r.URL.RequestURI()
	}
	return r
}
