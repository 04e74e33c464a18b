// Package codec measures the codec of sealed data on recorded exporters, beside
// upstream's XOR chunks in the same run.
//
// A day is one target of a recording, brought to true steps of 15 s as package fleet does
// it. It is sealed as the archive seals: bundles of one metric, closed at the same size
// and number of chunks, timestamps shared, buckets written as differences to their
// neighbours. What the archive does beside that, which is reading runs, finding labels
// and writing keys, is left out, and so are the keys' bytes: with one target a metric has
// few series, and a fleet shares them among many targets.
//
// BenchmarkRecorded needs recordings in the user's cache, or where -recordings points to;
// `go run ./benchmarks record` makes them. The tests make a small one of their own.
//
// The package has tests only. They start no goroutines.
package codec
