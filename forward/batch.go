package forward

import (
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
)

// Target is a series as an output writes it: what filters, relabelling and external labels
// made of a series of the archive. There is one of a label set in an output, as long as it is remembered.
type Target struct {
	// Labels are sorted, unique, not empty and without empty values. They never change.
	Labels labels.Labels
	// Form belongs to the sender: what its Prepare made of the labels, such as their encoded bytes.
	Form any
}

// Float is a float sample.
type Float struct {
	TimeMillis  int64
	StartMillis int64 // zero: not known
	Value       float64
}

// Histogram is a native histogram sample. Exactly one of Int and Float is set.
type Histogram struct {
	TimeMillis  int64
	StartMillis int64 // zero: not known
	Int         *histogram.Histogram
	Float       *histogram.FloatHistogram
}

// Series are the samples of one target in a batch.
type Series struct {
	*Target
	// Floats and Histograms ascend by time, and no time is in one of them twice.
	Floats     []Float
	Histograms []Histogram
	Exemplars  []exemplar.Exemplar
	// Metadata is what is known of the metric, or empty.
	Metadata metadata.Metadata
}

// Samples is the number of samples, floats and histograms.
func (s *Series) Samples() int { return len(s.Floats) + len(s.Histograms) }

// FamilyMetadata is what a sender of old said of a metric family.
type FamilyMetadata struct {
	Family string
	metadata.Metadata
}

// Batch is what is sent at once. A sender reads it during Send only, and changes nothing of it.
type Batch struct {
	// ID names the arrivals that the batch is made of: the archive's incarnation, the first and last sequence, and the
	// shard. Batches of one ID may differ when they were cut differently, so that who makes message ids of it adds a hash of what is sent.
	ID string
	// Series have each target once. Each has a sample or an exemplar.
	Series []Series
	// Families is what arrived of metadata.
	Families []FamilyMetadata
}

// Samples is the number of samples in the batch.
func (b *Batch) Samples() int {
	n := 0
	for i := range b.Series {
		n += b.Series[i].Samples()
	}
	return n
}
