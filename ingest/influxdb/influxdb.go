// Package influxdb receives InfluxDB line protocol: over HTTP as InfluxDB 1.x and
// 2.x take it, over UDP, as messages that another input brings, and as files of any
// size.
//
// The nouns:
//
//   - Input holds what all ways in share: the options of naming, the ports to the
//     archive and the pool of decoders. Its methods return the HTTP handlers, each for
//     one path; a Receiver for messages; and a UDP listener.
//   - A point is one line: a measurement with tags, fields and a time. Every field that
//     holds a number is a sample of a series of its own; see Options for its name.
//   - A fault is what is wrong with one line, in InfluxDB's own words. It refuses that
//     line alone: the others of the same body are stored.
//
// What clients are told follows InfluxDB 1.6 and 2.x, except where a client would lose
// data that can be kept: no database has to exist or be named, a field may change its
// type, a tag or field may be called time, lines may end in CR LF, and neither a
// backslash at the end of a line nor a quote that is never closed takes the next line
// along. Points of any age are taken. Differences that refuse more: a precision that
// nobody knows (InfluxDB 1.x reads nanoseconds) and tags that are not UTF-8.
//
// Of two fields of one line that cleaning gives one name, such as a-b and a_b, the second is refused. In different lines they
// are one series.
//
// The decoder allocates nothing for a line whose series are known. It hashes the bytes
// of measurement and tags once and each field's key beside them; bytes that the archive
// knows by their hash were checked when they were first seen and are not looked at again.
//
// An Input and everything it returns may be used by several goroutines. Nothing here
// authenticates, speaks TLS, or judges how old or new a sample may be.
package influxdb

import (
	"context"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"varve/arrival"
	"varve/ingest"
)

// Input takes line protocol.
type Input struct {
	names  *naming
	ports  [wayCount]*ingest.Port
	seed   arrival.Seed
	limits ingest.Limits
	// lineBytesMax is Options.LineBytesMax.
	lineBytesMax int
	version      string

	logger *slog.Logger
	now    func() time.Time
	lines  ingest.RareLines

	decoders  sync.Pool // of *decoder
	databases databases
	requests  requestIDs
}

// way is a way in, as metrics tell them apart.
type way uint8

const (
	wayWrite1 way = iota
	wayWrite2
	wayImport
	wayMessage
	wayUDP
	wayCount
)

var wayNames = [wayCount]string{"influxdb", "influxdb_v2", "influxdb_import", "influxdb_message", "influxdb_udp"}

// New returns an input that writes to sink. now is the clock of lines without a time,
// of durations and of the rate of log lines.
func New(sink ingest.Sink, limits ingest.Limits, metrics *ingest.Metrics, logger *slog.Logger, now func() time.Time, o Options) *Input {
	o = o.withDefaults()
	in := &Input{
		names: newNaming(&o), limits: limits.WithDefaults(), lineBytesMax: o.LineBytesMax,
		version: o.Version, logger: logger, now: now,
	}
	for w := range wayCount {
		// All ways share one budget, which is in the limits.
		in.ports[w] = ingest.NewPort(sink, in.limits, metrics.Meter(wayNames[w]), now)
	}
	in.seed = in.ports[wayWrite1].Seed("influxdb line protocol" + in.names.identity)
	in.requests.prefix = newRequestPrefix(now())
	return in
}

// logBytes is the most that a log line quotes of anything that came from a sender.
const logBytes = 200

// log writes a line about what was not taken in full, unless there was one not long ago:
// the metrics count them all.
func (in *Input) log(w way, remote string, code int, reason string) {
	level, class := slog.LevelWarn, ingest.LogRefusals
	if code >= 500 {
		level, class = slog.LevelError, ingest.LogFailures
	}
	if !in.lines.Due(class, in.now()) {
		return
	}
	in.logger.Log(context.Background(), level, "line protocol not accepted in full",
		"protocol", wayNames[w], "code", code, "remote", remote, "reason", strconv.QuoteToASCII(cut(reason, logBytes)))
}

// cut shortens a text to at most bytesMax bytes.
func cut(text string, bytesMax int) string {
	if len(text) <= bytesMax {
		return text
	}
	return text[:bytesMax]
}
