// Package snapshots takes snapshots of a server that writes, seals, deletes and answers
// queries at the same time, kills it while it uploads, damages what was uploaded, and restores.
//
// A restored copy has to hold every sample that was acknowledged before its snapshot was asked
// for, has to pass "varve check data", and has to go on as an archive of its own. The bucket is
// a folder; other kinds of object storage are the business of package snapshot's own tests.
//
// The package has tests only. They run one server at a time, in sequence.
package snapshots
