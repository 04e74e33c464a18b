// Package crash kills a server at random moments, under load, again and again,
// and checks each time that it kept every promise it made.
//
// A run goes through archives, and each archive through cycles. A cycle starts
// the server on what the last one left, checks it against the ledger, writes with
// a writer of each kind, kills the server's process group with SIGKILL after up
// to three seconds, half of the times right after an acknowledgement, and has
// "varve check data" look at what is left now and then. Some starts are killed
// too, and some cycles have no check, so that one crash falls on the remains of
// another. With a power cut, the bytes that were never synced are taken away after
// the kill. An archive ends with an orderly stop and one more check.
//
// All draws come from one seed, which a run prints; which request a kill meets is
// up to the machine. A cycle counts only if the server acknowledged at least
// FloorSamplesPerSecond before the kill: idle servers survive anything.
//
// RunCompactor does the same to the compactor, in archives that go through weeks of days under rules of retention,
// with late samples and deletes. There a cycle counts only if a job was under way at the kill.
//
// The same drivers run against servers with a fault built in, which they have to
// find: their silence is worth as much as that. A run uses one server at a time
// and is not safe for use by several goroutines.
package crash
