package forward

import (
	"context"
	"slices"
)

// Classes of dead letters, as metrics name them.
const (
	classUnwritable = "unwritable"      // the sender can't express the series
	classRefused    = "refused"         // the peer refused it when it was alone
	classNamed      = "refused_by_name" // the peer took the rest and named it
	classTooLarge   = "too_large"       // the peer found it too large when it was alone
)

// Reasons of the forwarder for leaving something out, beside those of senders.
const (
	skippedSuperseded = "superseded" // there is a later arrival for the same time
	skippedExemplar   = "exemplar_refused"
	skippedMetadata   = "metadata_refused"
)

// writable takes what the sender can't write out of a batch, to the dead letters, and returns the rest. An error means that
// ctx ended.
func (w *shard) writable(ctx context.Context, b *batch) (piece, error) {
	kept := 0
	for i := range b.series {
		if reason := b.owners[i].unwritable; reason != "" {
			bad := piece{series: b.series[i : i+1], places: b.places[i : i+1]}
			if err := w.bury(ctx, b, &bad, classUnwritable, reason); err != nil {
				return piece{}, err
			}
			continue
		}
		b.series[kept], b.places[kept] = b.series[i], b.places[i]
		kept++
	}
	return piece{series: b.series[:kept], places: b.places[:kept], families: b.families}, nil
}

// bury writes all of a piece to the dead letters, and counts it as refused. An error means that ctx ended.
func (w *shard) bury(ctx context.Context, b *batch, p *piece, class, reason string) error {
	l := letter{When: w.f.Now().UTC(), Class: class, Reason: reason}
	w.letters = w.letters[:0]
	for i := range p.series {
		s := &p.series[i]
		l.Labels = s.Labels
		for j := range s.Floats {
			l.float(&s.Floats[j])
			w.letters = l.appendLine(w.letters)
		}
		for j := range s.Histograms {
			l.histogram(&s.Histograms[j])
			w.letters = l.appendLine(w.letters)
		}
	}
	if err := w.post(ctx); err != nil {
		return err
	}
	for i := range p.series {
		s, at := &p.series[i], p.places[i]
		for j := range s.Floats {
			b.floatTally(at, j).Refused++
		}
		for j := range s.Histograms {
			b.histogramTally(at, j).Refused++
		}
		w.m.skip(skippedExemplar, len(s.Exemplars))
	}
	w.o.refused(p.samples(), class, reason)
	return nil
}

// burySome writes to the dead letters what the peer named, takes it out of the piece, and returns how many samples that were. An error
// means that ctx ended.
func (w *shard) burySome(ctx context.Context, b *batch, p *piece, refusals []Refusal) (named int, err error) {
	if len(refusals) == 0 {
		return 0, nil
	}
	sorted := slices.Clone(refusals)
	slices.SortStableFunc(sorted, func(x, y Refusal) int { return x.Series - y.Series })
	l := letter{When: w.f.Now().UTC(), Class: classNamed}
	w.letters = w.letters[:0]
	var gone []refusedSeries
	for len(sorted) > 0 {
		i := sorted[0].Series
		n := 1
		for n < len(sorted) && sorted[n].Series == i {
			n++
		}
		if i >= 0 && i < len(p.series) {
			r := reasonsOf(&p.series[i], sorted[:n])
			r.series = i
			w.write(&l, &p.series[i], &r)
			gone = append(gone, r)
		}
		sorted = sorted[n:]
	}
	if err := w.post(ctx); err != nil {
		return 0, err
	}
	for i := range gone {
		r := &gone[i]
		s, at := &p.series[r.series], p.places[r.series]
		floats, histograms := len(s.Floats), len(s.Histograms)
		s.Floats = unrefused(b, s.Floats, b.floatShares[at.float:], r.floats)
		if histograms > 0 {
			s.Histograms = unrefused(b, s.Histograms, b.histogramShares[at.histogram:], r.histograms)
		}
		named += floats + histograms - s.Samples()
		if r.all {
			w.m.skip(skippedExemplar, len(s.Exemplars))
			s.Exemplars = nil
		}
	}
	kept := 0
	for i := range p.series {
		if s := &p.series[i]; s.Samples() > 0 || len(s.Exemplars) > 0 {
			p.series[kept], p.places[kept] = *s, p.places[i]
			kept++
		}
	}
	p.series, p.places = p.series[:kept], p.places[:kept]
	w.o.refused(named, classNamed, l.Reason)
	return named, nil
}

// refusedSeries are the reasons why samples of a series of a piece were refused, empty where one was not.
type refusedSeries struct {
	series             int
	all                bool
	floats, histograms []string
}

// reasonsOf spreads refusals over the samples of their series.
func reasonsOf(s *Series, refusals []Refusal) refusedSeries {
	r := refusedSeries{floats: make([]string, len(s.Floats)), histograms: make([]string, len(s.Histograms))}
	for _, f := range refusals {
		reason := f.Reason
		if reason == "" {
			reason = "refused"
		}
		if f.Float < 0 && f.Histogram < 0 {
			r.all = true
			for i := range r.floats {
				r.floats[i] = reason
			}
			for i := range r.histograms {
				r.histograms[i] = reason
			}
		}
		if f.Float >= 0 && f.Float < len(r.floats) {
			r.floats[f.Float] = reason
		}
		if f.Histogram >= 0 && f.Histogram < len(r.histograms) {
			r.histograms[f.Histogram] = reason
		}
	}
	return r
}

// write adds the letters of a series' refused samples to those to be posted.
func (w *shard) write(l *letter, s *Series, r *refusedSeries) {
	l.Labels = s.Labels
	for i, reason := range r.floats {
		if reason != "" {
			l.Reason = reason
			l.float(&s.Floats[i])
			w.letters = l.appendLine(w.letters)
		}
	}
	for i, reason := range r.histograms {
		if reason != "" {
			l.Reason = reason
			l.histogram(&s.Histograms[i])
			w.letters = l.appendLine(w.letters)
		}
	}
}

// unrefused takes out the samples that were refused, and their shares.
func unrefused[T any](b *batch, samples []T, shares []uint16, reasons []string) []T {
	n := 0
	for i := range samples {
		if reasons[i] != "" {
			b.shares[shares[i]].tally.Refused++
			continue
		}
		samples[n], shares[n] = samples[i], shares[i]
		n++
	}
	return samples[:n]
}

// post writes the letters, and tries until it succeeds: what isn't written isn't settled. An error means that ctx ended.
func (w *shard) post(ctx context.Context) error {
	if len(w.letters) == 0 {
		return nil
	}
	for tries := 0; ; tries++ {
		err := w.output.letters.write(w.letters)
		if err == nil {
			if tries > 0 {
				w.calm()
			}
			break
		}
		w.fail(err)
		if err := wait(ctx, w.output.backoff(tries)); err != nil {
			return err
		}
	}
	// The wait comes behind, so that what is written is settled even if the output ends.
	_ = w.output.letters.rate.wait(ctx, len(w.letters))
	return nil
}
