// Package ingest holds what every way into Varve shares: the port to the
// archive, the limits on what one sender may ask of the process, the rules that
// a label set must keep, the metrics of arrivals, and an adapter for everything
// upstream that writes through storage.Appendable or storage.AppendableV2.
//
// The nouns:
//
//   - Sink is the archive as an input sees it. An input fills an arrival.Batch,
//     asks the sink for the refs of its series, and hands the batch over; when
//     Write returns, what it reports is on disk.
//   - Door is the archive as one input may see it: with the filters, limits,
//     replicas and thinning that are configured for it. It is a Sink too.
//   - Port and Delivery are for inputs that decode float samples themselves.
//   - Limits and Budget bound memory. A limit concerns one request, the budget
//     all requests that are in the process at a time.
//   - LabelSets turns the pairs that a sender names into the one form the archive
//     stores, or says what is wrong with them.
//   - Metrics and Meter count. Their names and help texts exist once, here.
//   - Appendable is the input for callers inside the process: the scrape
//     manager, rule evaluation, upstream's test scripts.
//
// Sinks, Budgets, Metrics and Appendables are safe for use by several
// goroutines; LabelSets and the appenders that an Appendable hands out are not.
//
// The package knows no wire protocol, owns no logger and never decides how old
// or how far ahead a sample may be: that is the archive's, behind Write.
package ingest

import (
	"context"

	"varve/arrival"
)

// Sink is the archive as inputs see it. All methods may be called from several
// goroutines at a time.
type Sink interface {
	// Seed is the seed under which Key = Seed.Hash(label bytes) is a series' own
	// key: its sorted, non-empty labels as remote write 1.0 wire bytes (repeated
	// field-1 Label messages {1: name, 2: value}). Other encodings derive seeds of
	// their own from it. It does not change while the sink lives.
	Seed() arrival.Seed
	// Lookup sets Ref in every row whose Key the archive knows, without a lock, and
	// returns how many rows are left with Ref 0.
	Lookup(rows []arrival.Row) int
	// Resolve finds or creates the series of the given label sets, sets Ref or
	// Refused in each and remembers Key for those that have one. Strings of Labels
	// become the archive's: they must not alias a buffer that is used again. An
	// error means that some may have been left with neither.
	Resolve(ctx context.Context, unknown []arrival.Unknown) error
	// Write returns once everything it reports as written is fsynced. It reads the
	// batch during the call only. *arrival.Unavailable says that it could not, and
	// that nothing may be acknowledged.
	Write(ctx context.Context, b *arrival.Batch) (arrival.Result, error)
}
