// Package forward sends what the archive took in to other systems: durably, at least once, in order.
//
// An output is a cursor in the archive's journal, a sender, and what stands between them: filters, relabelling, shards,
// retries. The archive is the queue; nothing in the write path waits for an output or knows of one. A peer that is away costs lag,
// and what the journal no longer holds is read from the archive by time.
//
// A Forwarder runs outputs and changes them by reload. Each output is a chain of goroutines, a session (session.go): one reads, and makes
// parts for shards of what is wanted (stage.go); each shard cuts batches off its parts (cut.go) and delivers them whatever the peer
// answers (deliver.go), or drops them if they are over the limits and the output is told to (backlog.go); the ledger moves the cursor
// over what is settled, without gaps (ledger.go). What a peer refuses for good goes to the dead letters (bury.go, deadletter.go). What
// is in memory is bounded by bytes, and is read again after a restart.
//
// The protocols are in packages below, each a Sender. This package knows none of them.
package forward
