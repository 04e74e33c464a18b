// Package differential asks a real Prometheus and Varve the same questions.
//
// A Prometheus scrapes itself, a node exporter and targets of the package's own
// with everything that is awkward: counters that restart, gauges that are NaN or
// infinite, histograms of both sorts, summaries, exemplars, series that come and
// go, targets that vanish or flap. It writes what it scrapes to Varve by remote
// write 1.0 and, where it knows that, 2.0. Then scraping ends, and every question
// of testdata/queries.txt goes to both, as instant and as range query, together
// with the label, series, exemplar and metadata APIs. The answers have to be the
// same JSON, once series are sorted where Prometheus promises no order.
//
// Two versions serve as the reference: one of the engine that Varve uses, with
// which values, errors and annotations have to agree to the letter, and Debian's
// 2.42, an engine of its own. Where the two engines mean different things, the
// file of queries says so, with the reason. One such difference concerns all
// queries: since 3.0 the left edge of a window does not belong to it. The gate
// therefore asks only at times of which no window's edge meets a sample.
//
// TestMonth2 and TestMonth3 are about what is left when samples have expired. A month
// of generated data goes to the reference, which keeps all of it, and to Varve, which
// keeps the samples of two days and rollups. A dashboard over the month has to get the
// same answers from both; where that is impossible Varve has to say so, and its
// answer to be within a bound that follows from the data.
//
// The package has tests only.
package differential
