// Package access decides who may do what over HTTP.
//
// The nouns: a Group is a set of endpoints that are granted together. A
// principal is what a request proved about its sender: "user:NAME" by a basic
// auth password, "token:NAME" by a bearer token, "san:NAME" by a verified client
// certificate, "authenticated" by any of these, "anonymous" always. A Rule
// grants groups to principals. A Policy is the immutable whole of users, tokens
// and rules; a Guard stands in front of every endpoint and applies the policy of
// the moment, which a reload replaces in one step.
//
// Without rules the policy is: who has credentials configured must show them and
// may then use every group; where none are configured everybody may. Endpoints
// that are dangerous by nature (admin, lifecycle) are switched on by flags of the
// server, in front of all this.
//
// Users, TLS, client certificates, response headers and the request rate come
// from a web configuration file in the format of Prometheus' exporter-toolkit.
// The toolkit's own server can't be used: it refuses every request without a
// basic auth password before a bearer token is looked at, and gives each user
// every right. Its TLS code is used as it is.
//
// A Guard may be used by several goroutines. The package stores no sessions, sets
// no cookies and never logs a credential.
package access
