// Package arrival holds the columns that cross the write port: what an input
// protocol decoded, laid out as the archive consumes it.
//
// It is a leaf with no behaviour of its own but how a series is named in bytes. The inputs (package ingest and
// below) fill a Batch, the archive writes it; neither imports the other, and a
// sample is never copied between two shapes on the way.
//
// A Batch has one Row for each series message of a request, in the order of the
// request, and the float samples of all rows in parallel columns, row after row.
// Rarer things (native histograms, exemplars) name their row by its index.
//
// A Batch and what it points to belong to the caller. The archive reads it
// during Write only and keeps no reference to it afterwards, apart from strings
// of Metadata and label sets, which are immutable. A Batch is not safe for use by
// several goroutines.
package arrival

import (
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/storage"
	"github.com/zeebo/xxh3"
)

// Key is the 128-bit keyed hash of the bytes by which a sender names a series.
// The zero Key means that a row has none and is not remembered.
//
// Keys of different encodings live in one table, so each encoding hashes under
// a seed of its own (see Seed). Only bytes that were parsed and validated once
// may be remembered under their key: a hit is trusted.
type Key struct{ Hi, Lo uint64 }

// Seed is the secret under which an encoding hashes its keys. Two encodings, or
// one encoding under two sets of relabelling rules, must not share a seed.
type Seed uint64

// Hash returns the key of b under the seed.
func (s Seed) Hash(b []byte) Key {
	h := xxh3.Hash128Seed(b, uint64(s))
	return Key{Hi: h.Hi, Lo: h.Lo}
}

// AppendLabels appends the labels, which are sorted, as remote write 1.0 has them in a
// series message. The bytes' key under the archive's own seed is the series' own key.
func AppendLabels(dst []byte, ls labels.Labels) []byte {
	ls.Range(func(l labels.Label) { dst = AppendLabel(dst, l.Name, l.Value) })
	return dst
}

// AppendLabel appends one label for AppendLabels.
func AppendLabel(dst []byte, name, value string) []byte {
	n := 1 + uvarintLen(len(name)) + len(name) + 1 + uvarintLen(len(value)) + len(value)
	dst = binary.AppendUvarint(append(dst, 0x0a), uint64(n))
	dst = append(binary.AppendUvarint(append(dst, 0x0a), uint64(len(name))), name...)
	return append(binary.AppendUvarint(append(dst, 0x12), uint64(len(value))), value...)
}

func uvarintLen(n int) int {
	w := 1
	for ; n >= 0x80; n >>= 7 {
		w++
	}
	return w
}

// Row is one series of a request.
type Row struct {
	// Key may be zero.
	Key Key
	// Ref is zero until the series is resolved. Write skips rows without.
	Ref storage.SeriesRef
	// First is the index of the row's first float sample in Batch.Times, Count
	// their number. The samples of consecutive rows are consecutive.
	First, Count uint32
}

// Histogram is a native histogram sample. Exactly one of Int and Float is set.
// Counter reset hints are kept as they came.
type Histogram struct {
	Row         uint32
	TimeMillis  int64
	StartMillis int64 // zero: not known
	Int         *histogram.Histogram
	Float       *histogram.FloatHistogram
}

// Exemplar is an exemplar of a row. One without a timestamp of its own has the
// timestamp of the row's last sample filled in by the input.
type Exemplar struct {
	Row uint32
	exemplar.Exemplar
}

// Metadata is what a sender says of a metric family.
type Metadata struct {
	Family string
	metadata.Metadata
}

// Batch is one request's arrivals.
type Batch struct {
	Rows []Row
	// Times are Unix milliseconds, Values the IEEE 754 bits of the float samples.
	Times  []int64
	Values []uint64
	// Starts are start timestamps in Unix milliseconds, zero where unknown. Empty,
	// or as long as Times.
	Starts     []int64
	Histograms []Histogram
	Exemplars  []Exemplar
	Metadata   []Metadata
	// Unforwarded keeps the arrivals from outputs: history that is moved here is no news to them. An output that reads the
	// archive by time, because it is new, was rewound or is far behind, sends them all the same.
	Unforwarded bool
}

// Reset empties the batch and keeps its memory.
func (b *Batch) Reset() {
	b.Unforwarded = false
	clear(b.Histograms)
	clear(b.Exemplars)
	clear(b.Metadata)
	b.Rows, b.Times, b.Values, b.Starts = b.Rows[:0], b.Times[:0], b.Values[:0], b.Starts[:0]
	b.Histograms, b.Exemplars, b.Metadata = b.Histograms[:0], b.Exemplars[:0], b.Metadata[:0]
}

// Unknown is a series that the table of keys did not know.
type Unknown struct {
	// Key is remembered for the series unless it is zero.
	Key Key
	// Labels are sorted, unique, valid and without empty values.
	Labels labels.Labels
	// Ref is the answer. Zero when the series was refused; Refused then says why.
	Ref     storage.SeriesRef
	Refused Reason
}

// Reason says why something was not stored.
type Reason uint8

// Reasons are counted in metrics by their String, so an entry keeps its text.
const (
	ReasonNone Reason = iota
	// ReasonFuture: more than ten minutes (Options) ahead of the clock.
	ReasonFuture
	// ReasonRetention: older than the series' raw retention.
	ReasonRetention
	// ReasonSeriesLimit: a new series beyond the total or the rate that is allowed.
	ReasonSeriesLimit
	// ReasonInvalidLabels: no metric name, duplicate or empty label name, bad UTF-8, over a length limit.
	ReasonInvalidLabels
	// ReasonInvalidSymbols: remote write 2.0 symbol table or references broken.
	ReasonInvalidSymbols
	// ReasonInvalidHistogram: a native histogram that contradicts itself.
	ReasonInvalidHistogram
	// ReasonInvalidExemplar: an exemplar over its length limit or with bad labels.
	ReasonInvalidExemplar
	// ReasonInvalidSeries: a series message that is malformed in another way, such as samples beside histograms.
	ReasonInvalidSeries
	// ReasonOverwrite: another value of the series at the same time is there, and the
	// archive was told to refuse overwrites.
	ReasonOverwrite
	// ReasonInvalidLine: a line or a point of a text protocol that can't be read.
	ReasonInvalidLine
	// ReasonInvalidValue: a value that is no number, where the rest of its line or point is good.
	ReasonInvalidValue
	// ReasonText: a field that holds text, and no rule that makes a label of it.
	ReasonText
	// ReasonFiltered: the input's filters or relabelling leave the series out.
	ReasonFiltered
	// ReasonReplica: another replica of the cluster is elected.
	ReasonReplica
	// ReasonThinned: a later sample of the same interval stands for it.
	ReasonThinned
	// ReasonRepeated: the same sample again, of an input that doesn't store it twice.
	ReasonRepeated
	// ReasonCount is the number of reasons.
	ReasonCount
)

var reasonTexts = [ReasonCount]string{
	"none", "too_far_in_future", "out_of_retention", "series_limit", "invalid_labels", "invalid_symbols",
	"invalid_histogram", "invalid_exemplar", "invalid_series", "overwrite", "invalid_line", "invalid_value", "text", "filtered",
	"replica", "thinned", "repeated",
}

// String returns the reason as metrics and answers name it.
func (r Reason) String() string {
	if r >= ReasonCount {
		return fmt.Sprintf("reason_%d", uint8(r))
	}
	return reasonTexts[r]
}

// Rejected counts by reason what was not stored.
type Rejected [ReasonCount]int

// Total is the number of things rejected.
func (r *Rejected) Total() int {
	n := 0
	for _, c := range r {
		n += c
	}
	return n
}

// Add adds the counts of o.
func (r *Rejected) Add(o *Rejected) {
	for i, c := range o {
		r[i] += c
	}
}

// String lists the reasons with their counts, "" when nothing was rejected.
func (r *Rejected) String() string {
	var b strings.Builder
	for i, c := range r {
		if c == 0 {
			continue
		}
		if b.Len() > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s: %d", Reason(i), c)
	}
	return b.String()
}

// Result says what a write stored, all of it durable, and what it refused.
// Partial acceptance is this value, not an error.
type Result struct {
	Samples, Histograms, Exemplars, Metadata int
	// Rejected is what was not stored through the sender's fault, Dropped what the
	// operator's rules leave out: a sender is told of the first alone.
	Rejected, Dropped Rejected
	// Example tells in one line of printable characters of something of Rejected that the sink refused, "" if it told of nothing: see ExampleOf.
	Example string
	// What of Dropped is of which kind, for protocols that tell their sender how much
	// was taken.
	DroppedSamples, DroppedHistograms, DroppedExemplars int
}

// Add adds what o says.
func (r *Result) Add(o *Result) {
	r.Samples += o.Samples
	r.Histograms += o.Histograms
	r.Exemplars += o.Exemplars
	r.Metadata += o.Metadata
	r.Rejected.Add(&o.Rejected)
	r.Dropped.Add(&o.Dropped)
	r.DroppedSamples += o.DroppedSamples
	r.DroppedHistograms += o.DroppedHistograms
	r.DroppedExemplars += o.DroppedExemplars
	if r.Example == "" {
		r.Example = o.Example
	}
}

// Refusals counts what was refused by reason, with the example if there is one; "" when nothing was.
func (r *Result) Refusals() string {
	if r.Example == "" {
		return r.Rejected.String()
	}
	return r.Rejected.String() + ", such as " + r.Example
}

// exampleLabelsMax bounds the labels that an example quotes, in bytes.
const exampleLabelsMax = 300

// ExampleOf tells of one sample that was refused, at a time in Unix ms, what its sender needs to find it.
func ExampleOf(reason Reason, ls labels.Labels, timeMillis int64) string {
	text := ls.String()
	if len(text) > exampleLabelsMax {
		text = strings.ToValidUTF8(text[:exampleLabelsMax], "") + "..."
	}
	return fmt.Sprintf("%s: %s at %s", reason, text, time.UnixMilli(timeMillis).UTC().Format("2006-01-02T15:04:05.000Z"))
}

// Unavailable is the error of a write that the archive could not make durable
// through no fault of the sender: a full disk, a stall, a shutdown. The sender
// should send the same again.
type Unavailable struct {
	// Reason is a short word for metrics: disk_full, disk_error, overload, shutdown, starting.
	Reason string
	// RetryAfter is the wait that the archive suggests.
	RetryAfter time.Duration
	Err        error
}

// Error implements error.
func (u *Unavailable) Error() string { return u.Reason + ": " + u.Err.Error() }

// Unwrap returns the cause.
func (u *Unavailable) Unwrap() error { return u.Err }
