// Package server builds and runs the programs that the gates drive: varve, and
// the Prometheus servers it is compared with.
//
// A Server is one child process in a process group of its own, so that Kill
// takes down what it started too, at any instruction, as a crash would. Its
// output is kept in a bounded tail for the message of a failing test. The gates
// are black boxes: nothing here imports a package of the product, all goes
// through the binary, its flags and its HTTP interface.
//
// A Server may be used by several goroutines. The package judges nothing: what
// an answer should have been is the business of the gate.
package server
