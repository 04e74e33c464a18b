// Package figures exports what range queries give out of real servers, and lets real programs read and draw it.
//
// Prometheus, Varve and VictoriaMetrics are given the same samples, with label values that mean something to
// CSV, gnuplot, Python, mathematical text or a shell. "varve export query" asks them, and a data directory, for the same. CSV has to be the
// same bytes from Prometheus and from Varve, and is read by Go's and by Python's csv and compared with the API value by value. gnuplot and
// matplotlib draw the files in an empty folder, with the servers stopped; the PNGs are decoded and the pixels of each line counted.
//
// The package has tests only. Programs that aren't installed skip theirs, loudly.
package figures
