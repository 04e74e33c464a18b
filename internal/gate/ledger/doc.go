// Package ledger writes to a server under test and keeps the book of what the
// server acknowledged, so that a checker can say after a crash whether anything
// was lost, altered or invented.
//
// A Workload is a pure function: writer and sequence number give a request, bit
// by bit, so the book needs to remember only which requests were sent and which
// were acknowledged. Several Writers, of one Kind each, send their requests in
// order, one at a time, and repeat one until it is acknowledged or given up. The
// Ledger notes each request as pending before it is sent and as acknowledged
// after a 2xx, in memory and in a log file for whoever studies a failure. Its
// process is never killed, so the book needs no fsync.
//
// A Reader fetches what the server has, through remote read, which gives every
// float with its bits, and through the label, exemplar and metadata APIs. Check
// compares the two: acknowledged things must be there with their bits, pending
// ones may be there or not, anything else may not. What is found of pending
// requests after a restart is settled: it may not change later.
//
// A History is such a book for archives that age: it knows rules of retention, buckets and deletes, and its Sender makes the
// requests.
//
// Writers run in parallel, and a Ledger may be used by all of them. Check wants
// a server that nobody writes to. The package neither starts nor kills servers.
package ledger
