package ingest

import "math"

// Limits bound what one request may make the process hold. A zero field means
// its default, so the zero Limits are the defaults. Every maximum is inclusive.
type Limits struct {
	// CompressedBytesMax and DecodedBytesMax bound a request's body before and
	// after decompression; beyond them the answer is 413. Defaults 10 MiB and 32 MiB,
	// which is a hundred times what Prometheus sends in one request.
	CompressedBytesMax, DecodedBytesMax int64
	// InFlight bounds the bytes of all requests in the process together; beyond it
	// the answer is 503. Inputs that should share a budget get the same one. nil
	// means a budget of the input's own of 256 MiB.
	InFlight *Budget
	// SeriesMax bounds the series messages of one request. Those beyond it are
	// refused one by one. Default 100 000.
	SeriesMax int
	// LabelsMax bounds the labels of a series. Default 64.
	LabelsMax int
	// NameBytesMax and ValueBytesMax bound a label's name and value, and a metric
	// family's name and texts. Defaults 1 KiB and 16 KiB.
	NameBytesMax, ValueBytesMax int
	// ExemplarCharsMax bounds the Unicode characters of all names and values of an
	// exemplar's labels together. Default 128, as OpenMetrics 1.0 has it.
	ExemplarCharsMax int
	// BucketsMax bounds separately the buckets, spans and custom bounds of a native
	// histogram. Default 65 536: an exponential histogram of Prometheus has at most
	// a few hundred.
	BucketsMax int
	// ErrorBytesMax and ErrorExamplesMax bound the text of a refusal. Defaults 1 KiB and 10.
	ErrorBytesMax, ErrorExamplesMax int
}

// inFlightBytesMax is the default of Limits.InFlight.
const inFlightBytesMax = 256 << 20

// labelBytesMax is the most that labels.Labels can hold in one name or value: it
// writes lengths in 24 bits.
const labelBytesMax = 1<<24 - 1

// WithDefaults returns l with its zero fields filled in and its sizes brought
// down to what the data types can hold.
func (l Limits) WithDefaults() Limits {
	orDefault(&l.CompressedBytesMax, 10<<20)
	orDefault(&l.DecodedBytesMax, 32<<20)
	orDefault(&l.SeriesMax, 100_000)
	orDefault(&l.LabelsMax, 64)
	orDefault(&l.NameBytesMax, 1<<10)
	orDefault(&l.ValueBytesMax, 16<<10)
	orDefault(&l.ExemplarCharsMax, 128)
	orDefault(&l.BucketsMax, 1<<16)
	orDefault(&l.ErrorBytesMax, 1<<10)
	orDefault(&l.ErrorExamplesMax, 10)
	if l.InFlight == nil {
		l.InFlight = NewBudget(inFlightBytesMax)
	}
	l.CompressedBytesMax = min(l.CompressedBytesMax, math.MaxInt32)
	l.DecodedBytesMax = min(l.DecodedBytesMax, math.MaxInt32)
	l.NameBytesMax = min(l.NameBytesMax, labelBytesMax)
	l.ValueBytesMax = min(l.ValueBytesMax, labelBytesMax)
	return l
}

func orDefault[N int | int64](field *N, value N) {
	if *field <= 0 {
		*field = value
	}
}
