package wire

import "net/http"

// SetTransport makes a target reach its server by other ways than the network, for tests with a clock of their own.
func (t *Target) SetTransport(way http.RoundTripper) { t.client.Transport = way }
