// Package lineprotocol writes InfluxDB's line protocol: one line a sample, or one line a row of several metrics.
//
// A line is a prefix (the measurement and its tags, escaped), a field set and a time. The prefix is the same for all samples of a series, so
// that senders make it once with [AppendSeries] and write samples behind it with [AppendSample]. [Route] makes the prefix and the
// field name where several metrics share a table, and [Rows] joins what has the same prefix and time into one line.
//
// Values are always floats, never integers with their suffix: a field that is once an integer refuses floats for ever. What the
// protocol has no words for (NaN, infinities, times outside of 64 bit nanoseconds) is not written, and the caller is told.
//
// The escaping is the one of InfluxDB 1.x, kept to what other readers of the protocol (InfluxDB 2, QuestDB, VictoriaMetrics, Telegraf,
// cc-metric-store) take for the same: see [AppendTagValue]. Functions append to dst as the built-in append does, keep nothing of their arguments,
// and may be called from several goroutines.
package lineprotocol
