package access_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"varve/api/access"
)

// TestFromInflux shows that each way in which clients of InfluxDB name themselves is understood, that wrong credentials stay
// wrong, and that none is left in the query.
func TestFromInflux(t *testing.T) {
	g := guard(t, access.PolicyOptions{
		WebFile: webFile(t, "basic_auth_users:\n  alice: "+hash(t, "wonder:land")+"\n"), Tokens: []access.Token{{Name: "telegraf", Secret: "s3cret"}},
	})
	for name, c := range map[string]struct {
		query, header, user, password string
		who                           string
	}{
		"token":               {header: "Token s3cret", who: "token:telegraf"},
		"token, lower case":   {header: "token s3cret", who: "token:telegraf"},
		"user as token":       {header: "Token alice:wonder:land", who: "user:alice"},
		"u and p":             {query: "?db=x&u=alice&p=wonder%3Aland&precision=s", who: "user:alice"},
		"token as password":   {query: "?u=any&p=s3cret", who: "token:telegraf"},
		"basic":               {user: "alice", password: "wonder:land", who: "user:alice"},
		"token in basic":      {user: "any", password: "s3cret", who: "token:telegraf"},
		"bearer":              {header: "Bearer s3cret", who: "token:telegraf"},
		"header before query": {header: "Token s3cret", query: "?u=alice&p=wrong", who: "token:telegraf"},
		"wrong token":         {header: "Token s3crets"},
		"wrong password":      {query: "?u=alice&p=wonder"},
		"no password":         {query: "?u=alice"},
		"nothing":             {},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodPost, "/write"+c.query, nil)
			if c.header != "" {
				r.Header.Set("Authorization", c.header)
			}
			if c.user != "" {
				r.SetBasicAuth(c.user, c.password)
			}
			who, query, precision := "", "", r.URL.Query().Get("precision")
			h := g.FromInflux(g.Protect(access.Write, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				who, query = access.Caller(r.Context()), r.URL.RawQuery+r.RequestURI
				require.Equal(t, precision, r.URL.Query().Get("precision"))
			})))
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			require.Equal(t, c.who, who)
			require.NotContains(t, query, "p=wo")
			require.NotContains(t, query, "p=s3")
			if c.who == "" {
				require.Equal(t, http.StatusUnauthorized, w.Code)
			}
		})
	}
}

// TestFromInfluxUnknownUser shows that the password of a user nobody knows is compared like any other, so that the time doesn't tell
// who is known, unless it is a token.
func TestFromInfluxUnknownUser(t *testing.T) {
	g := guard(t, access.PolicyOptions{
		WebFile: webFile(t, "basic_auth_users:\n  alice: "+hash(t, "wonder:land")+"\n"), Tokens: []access.Token{{Name: "telegraf", Secret: "s3cret"}},
	})
	for password, basic := range map[string]bool{"wrong": true, "s3cret": false} {
		for _, user := range []string{"alice", "mallory"} {
			seen := false
			h := g.FromInflux(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _, seen = r.BasicAuth() }))
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/write?u="+user+"&p="+password, nil))
			require.Equal(t, basic || user == "alice", seen, "%s %s", user, password)
		}
	}
}
