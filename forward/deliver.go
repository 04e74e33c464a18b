package forward

import (
	"context"
	"errors"
	"time"

	"varve/archive"
)

// piece is a part of a batch that is sent at once: all of it at first, less when the peer refuses it.
type piece struct {
	series []Series
	// places go with series: where their samples begin in the batch.
	places   []place
	families []FamilyMetadata
}

func (p *piece) empty() bool { return len(p.series) == 0 && len(p.families) == 0 }

func (p *piece) samples() int {
	n := 0
	for i := range p.series {
		n += p.series[i].Samples()
	}
	return n
}

// retryAfterMax bounds what a peer may ask for.
const retryAfterMax = time.Hour

// lookEvery is how often a wait is interrupted to look whether what waits is over the limits of the backlog.
const lookEvery = time.Second

// deliver sees to it that all of the batch is settled: sent, refused, or dropped. It is false if ctx ended before.
//
// What is refused is cut in halves, by series and then by time, until what is bad is alone. Halves are sent in order, and what was
// settled stays so whatever becomes of the rest.
func (w *shard) deliver(ctx, sending context.Context, b *batch) bool {
	whole, err := w.writable(ctx, b)
	if err != nil {
		return false
	}
	w.whole = whole.samples()
	todo := []piece{whole}
	for tries := 0; len(todo) > 0; {
		if w.gate.pass(ctx) != nil {
			return false
		}
		p := &todo[len(todo)-1]
		if w.drop(b, p); p.empty() {
			// What was tried is given up. Whether the peer is back shows with what comes next.
			w.attempt()
			todo = todo[:len(todo)-1]
			continue
		}
		out, err := w.send(ctx, sending, p)
		if err != nil && (ctx.Err() != nil && sending.Err() != nil || errors.Is(err, errStopped)) {
			return false
		}
		halves, pause, err := w.judge(ctx, b, p, &out, err, tries)
		if err != nil {
			return false
		}
		if pause > 0 {
			tries++
			w.m.retries.Inc()
			if !w.rest(ctx, b, pause) {
				return false
			}
			continue
		}
		tries = 0
		w.calm()
		todo = append(todo[:len(todo)-1], halves...)
	}
	return true
}

// errStopped is the error of a batch that was not sent because the output ends.
var errStopped = errors.New("the output ends")

// send makes one attempt.
func (w *shard) send(ctx, sending context.Context, p *piece) (out Outcome, err error) {
	if w.limiter.wait(ctx, p.samples()) != nil {
		return Outcome{}, errStopped
	}
	bound, cancel := context.WithTimeout(sending, w.SendTimeout)
	defer cancel()
	begun := time.Now()
	defer func() { w.m.seconds.Observe(time.Since(begun).Seconds()) }()
	defer catch(&err)
	return w.sender.Send(bound, &Batch{ID: w.id, Series: p.series, Families: p.families})
}

// judge decides what becomes of a piece that was sent: it is settled, or a pause is made before it is sent again, or it is
// cut in pieces, in reverse order. An error means that ctx ended.
func (w *shard) judge(ctx context.Context, b *batch, p *piece, out *Outcome, answer error, tries int) (pieces []piece, pause time.Duration, err error) {
	var refused *Refused
	var blocked *Blocked
	var retry *Retry
	switch {
	case answer == nil:
		if w.most < w.BatchSamples && p.samples() >= w.most {
			w.most = min(w.BatchSamples, w.most+max(1, w.most/16))
		}
		if _, err := w.burySome(ctx, b, p, out.Refusals); err != nil {
			return nil, 0, err
		}
		w.skipped(b, out.Skipped)
		return nil, 0, nil
	case errors.As(answer, &blocked):
		w.enter(StateBlocked)
		w.failed(answer, true)
		return nil, jitter(w.BackoffMax), nil
	case errors.As(answer, &retry):
		w.enter(StateRetrying)
		w.failed(answer, false)
		return nil, max(w.output.backoff(tries), min(retry.After, retryAfterMax)), nil
	case errors.Is(answer, ErrTooLarge):
		w.failed(answer, false)
		if p.samples() == w.whole {
			w.most = max(1, w.whole/2)
		}
		pieces, err := w.halve(ctx, b, p, classTooLarge, answer)
		return pieces, 0, err
	case errors.As(answer, &refused):
		w.m.failed.Inc()
		named, err := w.burySome(ctx, b, p, out.Refusals)
		switch {
		case err != nil:
			return nil, 0, err
		case p.empty():
			w.skipped(b, out.Skipped)
			return nil, 0, nil
		case named > 0:
			return []piece{*p}, 0, nil
		}
		pieces, err := w.halve(ctx, b, p, classRefused, answer)
		return pieces, 0, err
	}
	w.enter(StateRetrying)
	w.failed(answer, false)
	return nil, w.output.backoff(tries), nil
}

// failed notes an attempt that failed.
func (w *shard) failed(err error, serious bool) {
	w.m.failed.Inc()
	w.o.trouble(err, serious)
}

// rest waits, at most until something of the batch is to be dropped. It is false if ctx ended.
func (w *shard) rest(ctx context.Context, b *batch, pause time.Duration) bool {
	for pause > 0 {
		part := pause
		if w.Policy == DropOldest {
			part = min(pause, lookEvery)
		}
		if wait(ctx, part) != nil {
			return false
		}
		if pause -= part; w.overMore(b) {
			return true
		}
	}
	return true
}

// halve cuts a piece in two, in reverse order. One that can't be cut is buried.
func (w *shard) halve(ctx context.Context, b *batch, p *piece, class string, reason error) ([]piece, error) {
	if len(p.series) > 0 && len(p.families) > 0 {
		return []piece{{families: p.families}, {series: p.series, places: p.places}}, nil
	}
	if n := len(p.families); n > 1 {
		return []piece{{families: p.families[n/2:]}, {families: p.families[:n/2]}}, nil
	}
	if n := cutAt(p.series); n > 0 {
		return []piece{{series: p.series[n:], places: p.places[n:]}, {series: p.series[:n], places: p.places[:n]}}, nil
	}
	if len(p.series) == 0 {
		w.m.skip(skippedMetadata, 1)
		return nil, nil
	}
	if first, second, ok := cutSeries(&p.series[0], p.places[0]); ok {
		return []piece{second, first}, nil
	}
	return nil, w.bury(ctx, b, p, class, reason.Error())
}

// cutAt is how many of the series make about half of the samples, zero if there is only one series.
func cutAt(series []Series) int {
	if len(series) < 2 {
		return 0
	}
	total := 0
	for i := range series {
		total += series[i].Samples()
	}
	n := 0
	for i := range series[:len(series)-1] {
		n += series[i].Samples()
		if 2*n >= total {
			return i + 1
		}
	}
	return len(series) - 1
}

// cutSeries cuts a series in two by time, or its exemplars off. It is not ok if there is one thing only.
func cutSeries(s *Series, at place) (first, second piece, ok bool) {
	if len(s.Exemplars) > 0 && s.Samples() > 0 {
		samples, exemplars := *s, *s
		samples.Exemplars = nil
		exemplars.Floats, exemplars.Histograms = nil, nil
		return onePiece(samples, at), onePiece(exemplars, at), true
	}
	if n := len(s.Exemplars); n > 1 {
		one, two := *s, *s
		one.Exemplars, two.Exemplars = s.Exemplars[:n/2], s.Exemplars[n/2:]
		return onePiece(one, at), onePiece(two, at), true
	}
	if s.Samples() < 2 {
		return piece{}, piece{}, false
	}
	floats, histograms := len(s.Floats)/2, len(s.Histograms)/2
	switch {
	case len(s.Histograms) == 0 || len(s.Floats) == 0:
	case len(s.Floats) >= len(s.Histograms) && len(s.Floats) > 1:
		histograms = before(s.Histograms, s.Floats[floats].TimeMillis, func(h *Histogram) int64 { return h.TimeMillis })
	case len(s.Histograms) > 1:
		floats = before(s.Floats, s.Histograms[histograms].TimeMillis, func(f *Float) int64 { return f.TimeMillis })
	case s.Floats[0].TimeMillis <= s.Histograms[0].TimeMillis:
		floats = 1
	default:
		histograms = 1
	}
	one, two := *s, *s
	one.Floats, two.Floats = s.Floats[:floats], s.Floats[floats:]
	one.Histograms, two.Histograms = s.Histograms[:histograms], s.Histograms[histograms:]
	return onePiece(one, at), onePiece(two, place{at.float + int32(floats), at.histogram + int32(histograms)}), true
}

func onePiece(s Series, at place) piece { return piece{series: []Series{s}, places: []place{at}} }

// before is how many of the samples are earlier than t.
func before[T any](samples []T, t int64, at func(*T) int64) int {
	n := 0
	for n < len(samples) && at(&samples[n]) < t {
		n++
	}
	return n
}

// skipped counts what the sender left out. It doesn't say of which read that was: the first that have room take it.
func (w *shard) skipped(b *batch, reasons map[string]int) {
	total := uint64(0)
	for reason, n := range reasons {
		w.m.skip(reason, n)
		total += uint64(max(n, 0))
	}
	for i := range b.shares {
		s := &b.shares[i]
		n := min(total, uint64(s.samples)-s.tally.Dropped-s.tally.Refused-s.tally.Filtered)
		s.tally.Refused += n
		total -= n
	}
}

// floatTally is the tally of the read that a float of a series is of.
func (b *batch) floatTally(at place, i int) *archive.Tally {
	return &b.shares[b.floatShares[int(at.float)+i]].tally
}

// histogramTally is the tally of the read that a histogram of a series is of.
func (b *batch) histogramTally(at place, i int) *archive.Tally {
	return &b.shares[b.histogramShares[int(at.histogram)+i]].tally
}
