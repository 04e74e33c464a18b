// Package forwarding shows that outputs lose nothing of what a server acknowledged, and
// send nothing else: across kill -9 of the server and of its targets, while targets are away,
// through answers that never come, and when outputs come and go by a reload.
//
// A Varve is written to, mostly by the writers of package ledger, and sends to real
// targets: a second Varve over both versions of remote write, a NATS server with JetStream
// in this process, Debian's Prometheus. A relay stands between it and a target over HTTP,
// which counts what comes by and holds answers back, so that a kill meets the moment between
// the target's answer and the note of it. Afterwards everything is read back from both
// sides and compared bit by bit. The journal is kept as short as can be configured, so
// that much comes from the archive by time.
//
// All is in the tests, which run one after the other: each has several servers.
package forwarding
