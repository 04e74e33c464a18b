// Package blocks moves the blocks of a real Prometheus into Varve and back out of it, and
// asks all of them the same questions.
//
// Prometheus takes counters, gauges with stale markers and odd floats, native histograms and
// samples out of order. Varve takes its data directory in twice, blocks and head:
// while it runs, and as a data directory on which nothing runs. What it hands out as blocks, promtool
// has to take, and a Prometheus that is started on them has to answer as the first one does.
//
// The package has tests only. They run one server at a time of each kind.
package blocks
