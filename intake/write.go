package intake

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"varve/digest"
)

// pieceSeries bounds the series of one call of Target.Write.
const pieceSeries = 1024

// piece is some series of a day that goes through the write port.
type piece struct {
	feedBatch
	labels []labels.Labels
	// sums are of the samples, lacks how many of them the target doesn't have, and differ how many it has another value of.
	sums         []digest.Series
	lacks, other []uint64
	what         []string // the first that is wrong with it
}

// write brings a day that has samples already through the write port.
//
// For each piece the target is asked first what it has of it, so that a rerun writes nothing and what a live server has sent already
// isn't stored twice. The series of which it lacks samples, or has other values, are written, and looked up again: then
// every sample of the source must be there, bit for bit.
func (r *run) write(ctx context.Context, p *prepared) (done dayState, diff differences, err error) {
	r.meter.phase("write", p.start)
	done.Way, done.RefusedSamples = wayWritten, map[string]uint64{}
	ranks, ordinal := p.ranks(), 0
	extra := newExtraLabels(r.o.ExtraLabels)
	pc := &piece{feedBatch: feedBatch{exact: true}}
	err = p.source.Series(ctx, func(ls labels.Labels, handle uint64) error {
		if ordinal >= len(ranks) {
			return errors.New("the source lists other series than before")
		}
		rank := ranks[ordinal]
		ordinal++
		if rank == noRank || rank > 0 && p.entries[rank-1].ref == p.entries[rank].ref {
			return nil // refused, or done with the first of its handles
		}
		if p.entries[rank].handle != handle {
			return errors.New("the source lists other series than before")
		}
		before := len(pc.series)
		if err := pc.add(ctx, p, p.group(int(rank))); err != nil {
			return err
		}
		if len(pc.series) > before {
			pc.labels = append(pc.labels, extra.add(ls))
		}
		if len(pc.bytes) < r.o.PieceBytes && len(pc.series) < pieceSeries {
			return nil
		}
		return r.writePiece(ctx, p, pc, &done, &diff)
	})
	if err == nil && len(pc.series) > 0 {
		err = r.writePiece(ctx, p, pc, &done, &diff)
	}
	return done, diff, err
}

// writePiece writes what the target lacks of a piece, proves it, and empties it.
func (r *run) writePiece(ctx context.Context, p *prepared, pc *piece, done *dayState, diff *differences) error {
	all := make([]int, len(pc.series))
	for i := range all {
		all[i] = i
	}
	if err := r.lookUp(ctx, p, pc, all); err != nil {
		return fmt.Errorf("look up what is there: %w", err)
	}
	var some []int
	var samples []SeriesSamples
	counted := uint64(0)
	for i := range pc.series {
		counted += pc.sums[i].Samples
		if pc.lacks[i]+pc.other[i] > 0 {
			some = append(some, i)
			samples = append(samples, SeriesSamples{Labels: pc.labels[i], Chunks: pc.chunks[pc.series[i].first:pc.series[i].end]})
		} else {
			done.Repeated += pc.sums[i].Samples
		}
	}
	if len(some) > 0 {
		told, err := r.t.Write(ctx, samples)
		if err != nil {
			return fmt.Errorf("write: %w", err)
		}
		done.Stored += told.Samples
		done.Repeated += told.Repeated
		for reason, n := range told.Reasons {
			done.RefusedSamples[reason] += n
		}
		if err := r.lookUp(ctx, p, pc, some); err != nil {
			return fmt.Errorf("prove: %w", err)
		}
		pc.judge(some, told.Refused, diff)
	}
	for i := range pc.series {
		if pc.sums[i].Samples > 0 {
			done.Series++
			done.Digest.Add(pc.sums[i])
		}
	}
	r.meter.add(counted)
	pc.reset()
	pc.labels = pc.labels[:0]
	return nil
}

// judge notes the series of which not all is there. What was refused at the write port is told as such, and may be missing.
func (pc *piece) judge(some []int, refused uint64, diff *differences) {
	lacks := uint64(0)
	for _, i := range some {
		lacks += pc.lacks[i]
	}
	for _, i := range some {
		if pc.other[i] > 0 || pc.lacks[i] > 0 && lacks > refused {
			what := fmt.Sprintf("of %d samples the target lacks %d and has other values of %d: %s", pc.sums[i].Samples, pc.lacks[i], pc.other[i], pc.what[i])
			diff.add(pc.series[i].ref, pc.labels[i].String(), what)
		}
	}
}

// lookUp compares some series of the piece with what the target has.
func (r *run) lookUp(ctx context.Context, p *prepared, pc *piece, some []int) (err error) {
	n := len(pc.series)
	pc.sums, pc.lacks, pc.other, pc.what = sized(pc.sums, n), sized(pc.lacks, n), sized(pc.other, n), sized(pc.what, n)
	byMetric := map[string][]int{}
	for _, i := range some {
		metric := pc.labels[i].Get(model.MetricNameLabel)
		byMetric[metric] = append(byMetric[metric], i)
	}
	q, err := r.t.Querier(p.from, p.to-1)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, q.Close()) }()
	for _, group := range byMetric {
		if err := r.lookUpGroup(ctx, q, p, pc, group); err != nil {
			return err
		}
	}
	return nil
}

// sized returns s with n elements. They keep what they have.
func sized[T any](s []T, n int) []T { return slices.Grow(s, max(0, n-len(s)))[:n] }

func (r *run) lookUpGroup(ctx context.Context, q storage.Querier, p *prepared, pc *piece, group []int) error {
	byHash := make(map[uint64][]int, len(group))
	sets := make([]labels.Labels, len(group))
	for k, i := range group {
		sets[k] = pc.labels[i]
		h := sets[k].Hash()
		byHash[h] = append(byHash[h], i)
	}
	found := map[int]bool{}
	set := q.Select(ctx, false, &storage.SelectHints{Start: p.from, End: p.to - 1}, selecting(sets)...)
	var it chunkenc.Iterator
	for set.Next() {
		s := set.At()
		ls := s.Labels()
		for _, i := range byHash[ls.Hash()] {
			if !found[i] && labels.Equal(pc.labels[i], ls) {
				it, found[i] = s.Iterator(it), true
				if err := r.compareSamples(p, pc, i, it); err != nil {
					return fmt.Errorf("%s: %w", ls, err)
				}
			}
		}
	}
	if err := set.Err(); err != nil {
		return err
	}
	for _, i := range group {
		if !found[i] {
			if err := r.compareSamples(p, pc, i, chunkenc.NewNopIterator()); err != nil {
				return fmt.Errorf("%s: %w", pc.labels[i], err)
			}
		}
	}
	return nil
}

// Bounds of a matcher that lists values.
const (
	listedValues = 256
	listedBytes  = 16 << 10
)

// selecting returns matchers that select all of the label sets, of one metric, and few others: for each name that all of
// them have, the values that it has.
func selecting(sets []labels.Labels) []*labels.Matcher {
	var matchers []*labels.Matcher
	sets[0].Range(func(l labels.Label) {
		values, seen, bytes := []string{}, map[string]bool{}, 0
		for _, ls := range sets {
			v := ls.Get(l.Name)
			if v == "" || len(values) > listedValues || bytes > listedBytes {
				return
			}
			if !seen[v] {
				seen[v] = true
				values = append(values, v)
				bytes += len(v)
			}
		}
		if len(values) == 1 {
			matchers = append(matchers, labels.MustNewMatcher(labels.MatchEqual, l.Name, values[0]))
			return
		}
		for i := range values {
			values[i] = regexp.QuoteMeta(values[i])
		}
		if m, err := labels.NewMatcher(labels.MatchRegexp, l.Name, strings.Join(values, "|")); err == nil {
			matchers = append(matchers, m)
		}
	})
	return matchers
}

// compareSamples looks for every sample of a series in what the target has, which may be more.
func (r *run) compareSamples(p *prepared, pc *piece, i int, it chunkenc.Iterator) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: decoding it panics: %v", ErrBadChunk, r)
		}
	}()
	m := &r.proof
	s := pc.series[i]
	pc.sums[i], pc.lacks[i], pc.other[i], pc.what[i] = digest.Series{}, 0, 0, ""
	m.reset(pc.chunks[s.first:s.end], p.from, p.to)
	theirs := it.Next()
	for m.Next() != chunkenc.ValNone {
		var want, got digest.Series
		m.addTo(&want)
		pc.sums[i].Add(want)
		for theirs != chunkenc.ValNone && it.AtT() < m.last {
			theirs = it.Next()
		}
		if theirs == chunkenc.ValNone || it.AtT() > m.last {
			if pc.lacks[i]++; pc.what[i] == "" {
				pc.what[i] = "none at " + stamp(m.last)
			}
			continue
		}
		if m.addAt(&got, it, theirs); got != want {
			if pc.other[i]++; pc.what[i] == "" {
				pc.what[i] = "another at " + stamp(m.last)
			}
		}
	}
	return errors.Join(m.err, it.Err())
}
