package remotewrite

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/prometheus/prometheus/model/histogram"

	"varve/arrival"
	"varve/ingest"
)

// request is what one request needs while it is handled. It is pooled: in the
// steady state nothing below is allocated anew.
//
// The steps, with the invariants between them:
//
//  1. read, decompress: wire, then body. Every byte held is taken from the budget.
//  2. walk: one arrival.Row and one series for each series message that says
//     something; the columns of the batch are filled. Nothing is remembered yet.
//  3. resolve: rows whose key the sink knows get their ref. The label bytes of a
//     known key were parsed when it was remembered, so they are not looked at. All
//     others are parsed now, and only what proves valid is handed to the sink with
//     its key. A malformed message is found out here at the latest, before anything
//     is created.
//  4. Write.
type request struct {
	limits ingest.Limits
	sink   ingest.Sink
	proto  protocol

	wire []byte // as received
	body []byte // decoded
	// turned is the body with histograms turned, which takes the place of body.
	turned  []byte
	buckets bucketFinder
	// series1Bytes is the series message that is being written into turned.
	series1Bytes []byte
	// copied holds label bytes of series whose label fields do not lie together.
	copied []byte

	batch  arrival.Batch
	series []series // runs beside batch.Rows
	// seriesSeen counts the series messages, those without a row too.
	seriesSeen int

	unknown     []arrival.Unknown
	unknownRows []uint32
	sets        *ingest.LabelSets
	seeds       seeds
	tenant      tenant
	table       symbolTable // 2.0 only
	families    *familyCache
	filter      familyFilter
	anyMetadata bool
	newFamilies []family2

	report report

	held, wireHeld int64
	received       int // bytes of the body, read or not
	// allowance is what the decoded form may still cost in memory before more has to
	// be taken from the budget; charged is what it cost.
	allowance, charged int64
	// resolving: the walk is over, and the rest may be charged as much again.
	resolving bool
}

// series is what a row needs besides arrival.Row until it is resolved.
type series struct {
	// from and to delimit in 1.0 the label bytes, in body or in copied, in 2.0 the
	// series message in body.
	from, to uint32
	// guessed: the label bytes are a guess of walk1 that only a known key or a
	// parser can confirm.
	guessed, inCopied bool
	refused           arrival.Reason
	// What 2.0 says of the metric family. hasMetadata is false where it says nothing.
	// native: some of the row's samples are native histograms.
	hasMetadata, native bool
	family              family2
}

// seeds are the secrets of the keys of one sink. Bytes of 1.0 are hashed under the
// sink's own seed, as it wants; all else under seeds made from it.
type seeds struct {
	series, symbol, place, family arrival.Seed
}

func seedsOf(s arrival.Seed) seeds {
	derived := func(use string) arrival.Seed {
		return arrival.Seed(s.Hash([]byte("remote write 2.0 " + use)).Lo)
	}
	return seeds{series: s, symbol: derived("symbol"), place: derived("place in a list"), family: derived("metric family")}
}

// pool keeps requests of one handler.
type pool struct {
	limits   ingest.Limits
	sink     ingest.Sink
	o        Options
	families familyCache
	free     sync.Pool
}

func (p *pool) get(proto protocol) *request {
	q, _ := p.free.Get().(*request)
	if q == nil {
		q = &request{limits: p.limits, sink: p.sink, sets: ingest.NewLabelSets(p.limits), seeds: seedsOf(p.sink.Seed()), families: &p.families}
		q.report.limit = p.limits.ErrorExamplesMax
		q.table.places = newPlaces(q.seeds.place, 2*p.limits.LabelsMax)
	}
	q.proto = proto
	q.setTenant(tenant{})
	return q
}

// What a pooled request keeps: four times what 10 000 samples need.
const (
	keptBytes = 1 << 20
	keptBody  = 8 << 20
	keptItems = 1 << 16
)

// put gives back what the request holds and keeps its memory unless the request
// was unusually large.
func (p *pool) put(q *request) {
	q.limits.InFlight.Release(q.held)
	q.held, q.wireHeld, q.allowance, q.received = 0, 0, 0, 0
	q.rewind()
	if cap(q.wire) > keptBytes || cap(q.body) > keptBody || cap(q.turned) > keptBody || cap(q.copied) > keptBytes ||
		cap(q.batch.Times) > keptItems || cap(q.batch.Rows) > keptItems || cap(q.batch.Histograms) > keptItems/16 ||
		cap(q.batch.Exemplars) > keptItems/16 || cap(q.batch.Metadata) > keptItems/16 || cap(q.table.symbols) > keptItems ||
		cap(q.unknown) > keptItems/16 || cap(q.newFamilies) > keptItems/16 || cap(q.buckets.buckets) > keptItems {
		return
	}
	q.wire, q.body, q.turned = q.wire[:0], q.body[:0], q.turned[:0]
	p.free.Put(q)
}

// rewind forgets what was decoded from the body.
func (q *request) rewind() {
	q.batch.Reset()
	q.series = q.series[:0]
	q.copied = q.copied[:0]
	q.seriesSeen, q.charged, q.resolving = 0, 0, false
	clear(q.unknown)
	q.unknown, q.unknownRows = q.unknown[:0], q.unknownRows[:0]
	q.sets.Clear()
	q.table.reset()
	q.filter.reset()
	q.anyMetadata, q.newFamilies = false, q.newFamilies[:0]
	q.report.reset()
}

// charge accounts for memory beyond the body's own size that decoding needs, and for
// work that grows faster than the body. The walk may need as much again as the
// largest body has bytes, and label sets of new series as much again: float samples
// need 16 bytes for 18 on the wire, and only messages that say nothing (two bytes
// for a histogram of 240) or that name long symbols over and over need more.
func (q *request) charge(bytes int) error {
	q.charged += int64(bytes)
	if q.charged <= q.allowance {
		return nil
	}
	return q.raiseAllowance()
}

func (q *request) raiseAllowance() error {
	most := q.limits.DecodedBytesMax
	if q.resolving {
		most *= 2
	}
	if q.charged > most {
		return fmt.Errorf("%w: its decoded form needs more than %d bytes", ingest.ErrTooBig, most)
	}
	step := max(chargeStepBytes, q.charged-q.allowance)
	if err := q.hold(step); err != nil {
		return err
	}
	q.allowance += step
	return nil
}

// chargeStepBytes is taken from the budget at once, so that its counter is not
// touched for every sample.
const chargeStepBytes = 64 << 10

// What an item costs in memory.
const (
	sampleBytes    = 16
	startBytes     = 8
	histogramBytes = 40 + 200
	exemplarBytes  = 64 + 32
	symbolBytes    = 24
	unknownBytes   = 40
)

// decode fills the batch from the body and gives every row that will be written
// its ref. Errors are errMalformed, ingest.ErrTooBig, ingest.ErrOverload and those of the sink.
func (q *request) decode(ctx context.Context) error {
	if q.proto == version2 {
		if err := q.walk2(); err != nil {
			return err
		}
		return q.resolve(ctx)
	}
	if err := q.walk1(true); err != nil {
		return err
	}
	err := q.resolve(ctx)
	if errors.Is(err, errGuess) {
		q.rewind()
		if err := q.walk1(false); err != nil {
			return err
		}
		err = q.resolve(ctx)
	}
	return err
}

// mark remembers the ends of the columns before a series message, so that one
// that is refused as a whole can be taken out again.
type mark struct {
	times, histograms, exemplars int
}

func (q *request) mark() mark {
	return mark{len(q.batch.Times), len(q.batch.Histograms), len(q.batch.Exemplars)}
}

// items counts what was decoded since the mark and is to be stored.
func (q *request) items(m mark) int {
	return len(q.batch.Times) - m.times + len(q.batch.Histograms) - m.histograms + len(q.batch.Exemplars) - m.exemplars
}

// drop takes everything since the mark out of the batch and counts it under the
// reason, a series without content as one.
func (q *request) drop(m mark, reason arrival.Reason) {
	q.report.rejected[reason] += max(q.items(m), 1)
	b := &q.batch
	b.Times, b.Values = b.Times[:m.times], b.Values[:m.times]
	b.Starts = b.Starts[:min(m.times, len(b.Starts))]
	clear(b.Histograms[m.histograms:])
	b.Histograms = b.Histograms[:m.histograms]
	clear(b.Exemplars[m.exemplars:])
	b.Exemplars = b.Exemplars[:m.exemplars]
}

// addSample adds a sample to the row that is being decoded.
func (q *request) addSample(s sample) error {
	if err := q.charge(sampleBytes); err != nil {
		return err
	}
	b := &q.batch
	if s.startMillis != 0 || len(b.Starts) > 0 {
		if err := q.padStarts(); err != nil {
			return err
		}
		if err := q.charge(startBytes); err != nil {
			return err
		}
		b.Starts = append(roomy(b.Starts), s.startMillis)
	}
	b.Times = append(roomy(b.Times), s.timeMillis)
	b.Values = append(roomy(b.Values), s.bits)
	return nil
}

// padStarts brings the column of start timestamps to the length of the times.
func (q *request) padStarts() error {
	b := &q.batch
	missing := len(b.Times) - len(b.Starts)
	if missing == 0 {
		return nil
	}
	if err := q.charge(startBytes * missing); err != nil {
		return err
	}
	at := len(b.Starts)
	b.Starts = slices.Grow(b.Starts, missing)[:len(b.Times)]
	clear(b.Starts[at:])
	return nil
}

// roomy returns s with room for one more element. It doubles where append grows
// large slices by a quarter, which makes garbage of five times their size.
func roomy[S ~[]E, E any](s S) S {
	if len(s) < cap(s) {
		return s
	}
	return append(make(S, 0, max(64, 2*len(s))), s...)
}

// addHistogram decodes, checks and adds a histogram to the row that is being decoded.
func (q *request) addHistogram(m []byte) error {
	// One byte on the wire is at most one bucket of eight, or half a span of eight.
	if err := q.charge(histogramBytes + 8*len(m)); err != nil {
		return err
	}
	h, ok := decodeHistogram(m, q.proto == version2)
	if !ok {
		return errMalformed
	}
	h.Row = uint32(len(q.batch.Rows))
	if err := q.checkHistogram(h.Int, h.Float); err != nil {
		q.report.add(arrival.ReasonInvalidHistogram, 1, err)
		return nil
	}
	q.batch.Histograms = append(roomy(q.batch.Histograms), h)
	return nil
}

func (q *request) checkHistogram(h *histogram.Histogram, fh *histogram.FloatHistogram) error {
	if h != nil {
		return q.limits.CheckHistogram(h)
	}
	return q.limits.CheckFloatHistogram(fh)
}

// addExemplar checks and adds an exemplar to the row that is being decoded. The
// labels are in q.sets.
func (q *request) addExemplar(e arrival.Exemplar) error {
	if err := q.charge(exemplarBytes); err != nil {
		return err
	}
	ls, err := q.sets.Exemplar()
	if err != nil {
		q.report.add(arrival.ReasonInvalidExemplar, 1, err)
		return nil
	}
	e.Labels = ls
	e.Row = uint32(len(q.batch.Rows))
	q.batch.Exemplars = append(roomy(q.batch.Exemplars), e)
	return nil
}

var errExemplarTime = errors.New("exemplar without a timestamp beside no sample")

// endSeries gives the exemplars of the row that have no timestamp that of the
// row's last sample, and refuses them where there is none.
func (q *request) endSeries(m mark) {
	b := &q.batch
	if len(b.Exemplars) == m.exemplars {
		return
	}
	var last int64
	known := true
	switch {
	case len(b.Times) > m.times:
		last = b.Times[len(b.Times)-1]
	case len(b.Histograms) > m.histograms:
		last = b.Histograms[len(b.Histograms)-1].TimeMillis
	default:
		known = false
	}
	kept := b.Exemplars[:m.exemplars]
	for _, e := range b.Exemplars[m.exemplars:] {
		if !e.HasTs {
			if !known {
				q.report.add(arrival.ReasonInvalidExemplar, 1, errExemplarTime)
				continue
			}
			e.Ts = last
		}
		kept = append(kept, e)
	}
	clear(b.Exemplars[len(kept):])
	b.Exemplars = kept
}
