package remotewrite

import (
	"mime"
	"net/http"
	"strings"
)

// protocol is a version of the remote write protocol.
type protocol uint8

const (
	version1 protocol = iota
	version2
	versionCount
)

// String returns the protocol as metrics and logs name it.
func (p protocol) String() string {
	if p == version2 {
		return "remote_write_2.0"
	}
	return "remote_write_1.0"
}

const (
	mediaType = "application/x-protobuf"
	message1  = "prometheus.WriteRequest"
	message2  = "io.prometheus.write.v2.Request"
	// contentType2 is how the specification spells it, and every sender so far.
	contentType2 = mediaType + ";proto=" + message2
)

// negotiate says by the headers alone which message the body holds. ok is false
// where the answer is 415.
func negotiate(h http.Header) (p protocol, ok bool) {
	if p, ok = messageOf(h["Content-Type"]); !ok {
		return p, false
	}
	switch encodings := h["Content-Encoding"]; len(encodings) {
	case 0:
		return p, true
	case 1:
		e := strings.TrimSpace(encodings[0])
		return p, e == "" || strings.EqualFold(e, "snappy")
	default:
		return p, false
	}
}

// messageOf reads the Content-Type. A request without one is taken as 1.0, as
// upstream does: senders older than the specification leave it out.
func messageOf(types []string) (protocol, bool) {
	if len(types) == 0 || len(types) == 1 && types[0] == "" {
		return version1, true
	}
	if len(types) > 1 {
		return version1, false
	}
	switch types[0] {
	case mediaType:
		return version1, true
	case contentType2:
		return version2, true
	}
	media, params, err := mime.ParseMediaType(types[0])
	if err != nil || media != mediaType {
		return version1, false
	}
	message, named := params["proto"]
	switch {
	case !named || message == message1:
		return version1, true
	case message == message2:
		return version2, true
	}
	return version1, false
}
