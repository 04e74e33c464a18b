package ledger

import (
	"fmt"
	"math"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/model/value"
)

// Kind is what a writer's samples are like.
type Kind string

const (
	// Steady series advance through the turns of days and months of the past.
	Steady Kind = "steady"
	// Live series advance through the last hour, in order.
	Live Kind = "live"
	// Late samples go back and forth over more than a year, before 1970 too.
	Late Kind = "late"
	// Churn brings new series with every request.
	Churn Kind = "churn"
	// Histograms are native ones of every sort, with exemplars beside them.
	Histograms Kind = "histograms"
	// Overwrites send half of the samples again with another value.
	Overwrites Kind = "overwrites"
)

// Kinds are all kinds of writers.
var Kinds = []Kind{Steady, Live, Late, Churn, Histograms, Overwrites}

// WriterID names a writer within a workload. It is a label value of its series.
type WriterID string

// Seq numbers a writer's requests from 0.
type Seq uint64

// Sample is a float sample. Bits are those of IEEE 754.
type Sample struct {
	Millis int64
	Bits   uint64
}

// Series is one series' part of a request: samples or histograms, not both.
type Series struct {
	Labels     labels.Labels
	Samples    []Sample
	Histograms []Histogram
	Exemplars  []exemplar.Exemplar
	Metadata   metadata.Metadata
}

// Workload makes the requests of all writers. It is immutable.
type Workload struct {
	// Seed decides everything that is not decided by Start.
	Seed uint64
	// Start is the time from which Live writers go back an hour. Nothing is later
	// than ten minutes after Start while a writer's Seq is below 36 000.
	Start time.Time
	// Name tells workloads in one archive apart. It is a label value.
	Name string
}

// LabelGate is the label that all series of ledgers have, with the Workload's
// name as value, and LabelWriter the one with the writer's.
const (
	LabelGate   = "gate"
	LabelWriter = "writer"
)

// The shape of the requests. Small ones, since the gates are after many commits
// a second rather than after many samples a commit.
const (
	steadySeries    = 60
	liveSeries      = 50
	lateSeries      = 40
	churnSeries     = 12
	histogramSeries = 10
	overwriteSeries = 30

	// steadyStepMillis is long enough that a minute of writing crosses hours.
	steadyStepMillis = 10_000
	// steadyTurnSeqMax is the number of requests within which each Steady series
	// crosses the turn it was given.
	steadyTurnSeqMax = 1500
	liveStepMillis   = 100
	lateDaysMax      = 400
	dayMillis        = 86_400_000
)

// Request returns the request of a writer. Equal arguments give equal requests,
// and no two requests of a workload share a series with another writer's.
func (w *Workload) Request(kind Kind, id WriterID, seq Seq) []Series {
	d := draw(w.Seed).text(string(id))
	switch kind {
	case Steady:
		return w.steady(d, id, seq)
	case Live:
		return w.live(d, id, seq)
	case Late:
		return w.late(d, id, seq)
	case Churn:
		return w.churn(d, id, seq)
	case Histograms:
		return w.histograms(d, id, seq)
	case Overwrites:
		return w.overwrites(d, id, seq)
	}
	panic("ledger: unknown kind of writer " + string(kind))
}

// Prefix is what the names of a writer's metrics begin with.
func (k Kind) prefix() string { return "gate_" + string(k) }

func (w *Workload) labels(kind Kind, id WriterID, series int, more ...string) labels.Labels {
	b := labels.NewScratchBuilder(8)
	b.Add(model.MetricNameLabel, fmt.Sprintf("%s_%d_total", kind.prefix(), series%7))
	b.Add(LabelGate, w.Name)
	b.Add(LabelWriter, string(id))
	b.Add("series", fmt.Sprintf("%04d", series))
	for i := 0; i+1 < len(more); i += 2 {
		b.Add(more[i], more[i+1])
	}
	b.Sort()
	return b.Labels()
}

func counterMetadata(kind Kind) metadata.Metadata {
	return metadata.Metadata{Type: model.MetricTypeCounter, Help: "What a " + string(kind) + " writer wrote.", Unit: ""}
}

// steady gives two samples to most of the series. Each series has a turn of a
// day or of a month of its own that it crosses at some request.
func (w *Workload) steady(d draw, id WriterID, seq Seq) []Series {
	out := make([]Series, 0, steadySeries)
	for i := range steadySeries {
		if d.at(uint64(i), uint64(seq)).below(4) == 0 {
			continue
		}
		turn := w.turnMillis(i%2 == 0)
		start := turn - int64(d.at(uint64(i)).below(steadyTurnSeqMax))*steadyStepMillis
		at := start + int64(seq)*steadyStepMillis
		out = append(out, Series{
			Labels: w.labels(Steady, id, i),
			Samples: []Sample{
				{at, d.bits(i, uint64(2*seq))},
				{at + steadyStepMillis/2, d.bits(i, uint64(2*seq+1))},
			},
			Metadata: counterMetadata(Steady),
		})
	}
	return out
}

// turnMillis is the last first day of a month, or the last midnight, that lies
// two days or more before the start, so that no sample gets into the future.
func (w *Workload) turnMillis(month bool) int64 {
	at := w.Start.UTC().AddDate(0, 0, -2)
	day := at.Day()
	if month {
		day = 1
	}
	return time.Date(at.Year(), at.Month(), day, 0, 0, 0, 0, time.UTC).UnixMilli()
}

func (w *Workload) live(d draw, id WriterID, seq Seq) []Series {
	at := w.Start.UnixMilli() - 3_600_000 + int64(seq)*liveStepMillis
	out := make([]Series, liveSeries)
	for i := range out {
		out[i] = Series{
			Labels:   w.labels(Live, id, i),
			Samples:  []Sample{{at, d.bits(i, uint64(seq))}},
			Metadata: counterMetadata(Live),
		}
	}
	return out
}

// late gives eight requests in a row to one day, and the next eight to another
// one, anywhere in a bit more than a year, one in fifty of them before 1970.
func (w *Workload) late(d draw, id WriterID, seq Seq) []Series {
	day := d.at(uint64(seq / 8))
	back := int64(1+day.below(lateDaysMax)) * dayMillis
	if day.at(1).below(50) == 0 {
		back += w.Start.UnixMilli() + dayMillis
	}
	out := make([]Series, 0, lateSeries)
	for i := range lateSeries {
		at := w.Start.UnixMilli() - back - int64(seq)*1000 - int64(i)
		out = append(out, Series{
			Labels:   w.labels(Late, id, i),
			Samples:  []Sample{{at, d.bits(i, uint64(seq))}},
			Metadata: counterMetadata(Late),
		})
	}
	return out
}

// churn gives one sample to new series and a few more to the new ones of the
// request before.
func (w *Workload) churn(d draw, id WriterID, seq Seq) []Series {
	out := make([]Series, 0, 2*churnSeries)
	start := w.Start.UnixMilli() - 3_600_000
	for back := range min(seq+1, 2) {
		born := seq - back
		for i := range churnSeries {
			series := Series{
				Labels:   w.labels(Churn, id, i, "instance", fmt.Sprintf("pod-%06d", born)),
				Metadata: counterMetadata(Churn),
			}
			for n := range 1 + 2*int(back) {
				at := start + int64(seq)*liveStepMillis + int64(n)
				series.Samples = append(series.Samples, Sample{at, d.at(uint64(born)).bits(i, uint64(seq)+uint64(n))})
			}
			out = append(out, series)
		}
	}
	return out
}

// overwrites sends samples with the even requests and the same series and times
// again with the odd ones, one in four with the same value.
func (w *Workload) overwrites(d draw, id WriterID, seq Seq) []Series {
	even := seq &^ 1
	at := w.turnMillis(false) + int64(even)*liveStepMillis
	out := make([]Series, overwriteSeries)
	for i := range out {
		bits := d.bits(i, uint64(even))
		if seq != even && d.at(uint64(i), uint64(seq)).below(4) != 0 {
			bits = d.bits(i+overwriteSeries, uint64(seq))
		}
		out[i] = Series{
			Labels:   w.labels(Overwrites, id, i),
			Samples:  []Sample{{at, bits}},
			Metadata: counterMetadata(Overwrites),
		}
	}
	return out
}

// draw is a state of the generator, a hash of all that went into it.
type draw uint64

// at returns the draw with the numbers mixed in.
func (d draw) at(numbers ...uint64) draw {
	h := uint64(d)
	for _, n := range numbers {
		// The finaliser of splitmix64, whose constants these are: every bit of the
		// input reaches every bit of the output.
		h += n*0x9e3779b97f4a7c15 + 0x9e3779b97f4a7c15
		h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
		h = (h ^ h>>27) * 0x94d049bb133111eb
		h ^= h >> 31
	}
	return draw(h)
}

func (d draw) text(s string) draw {
	for _, b := range []byte(s) {
		d = d.at(uint64(b))
	}
	return d
}

// below returns a number from 0 to n-1.
func (d draw) below(n uint64) uint64 { return uint64(d.at(n)) % n }

// rareBits are floats that careless arithmetic or a careless codec changes. The
// negative zero is not among them, since the usual protocol buffer encoders drop
// it on the way.
var rareBits = []uint64{
	math.Float64bits(math.Inf(1)), math.Float64bits(math.Inf(-1)),
	value.StaleNaN, value.NormalNaN, 0x7ff4000000000001, 0xfff8dead00000000,
	1, 0x000fffffffffffff, math.Float64bits(math.MaxFloat64), math.Float64bits(1e15), math.Float64bits(0.1),
}

// bits is the value of a series' n-th sample. The series number decides what
// sort of a series it is: counter, gauge with decimals, noise or rarities.
func (d draw) bits(series int, n uint64) uint64 {
	h := d.at(uint64(series), n)
	switch series % 5 {
	case 0:
		return math.Float64bits(float64(n * 13))
	case 1:
		return math.Float64bits(float64(h%100_000) / 100)
	case 2:
		return uint64(h)
	case 3:
		return rareBits[h.below(uint64(len(rareBits)))]
	default:
		return math.Float64bits(math.Sin(float64(n)/50) * 1000)
	}
}
