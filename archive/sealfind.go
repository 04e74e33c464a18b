package archive

import (
	"encoding/binary"
	"math"
	"strconv"
	"strings"

	"github.com/prometheus/common/model"

	"varve/archive/format"
)

// groupFinder tells the group of each series. Refs are handed out to groups in blocks of
// at least refBlockMin, so a group is remembered once a block.
type groupFinder struct {
	cat   *catalogue
	pages map[format.Ref]*[pageSize / refBlockMin]format.GroupID // by the page's first ref
}

func newGroupFinder(cat *catalogue) groupFinder {
	return groupFinder{cat: cat, pages: map[format.Ref]*[pageSize / refBlockMin]format.GroupID{}}
}

func (f *groupFinder) of(ref format.Ref) (format.GroupID, error) {
	// Blocks begin at ref 1.
	first := (ref-1)&^(pageSize-1) + 1
	page := f.pages[first]
	if page == nil {
		page = new([pageSize / refBlockMin]format.GroupID)
		err := f.cat.records(first, first+pageSize, func(ref format.Ref, s *format.Series) error {
			page[(ref-first)/refBlockMin] = s.Group
			return nil
		})
		if err != nil {
			return 0, err
		}
		f.pages[first] = page
	}
	return page[(ref-first)/refBlockMin], nil
}

// baseFinder proposes, for a bucket of a classic histogram, the bucket with the next lower
// bound as the one to be written as a difference to: buckets count what lies below, so
// the two are near. It knows the buckets of the bundle that grows.
type baseFinder struct {
	cat    *catalogue
	metric format.PairID
	isHist bool
	// bounds are the values of le pairs, NaN for other pairs.
	bounds map[format.PairID]float64
	// buckets are those of the bundle by the labels they share.
	buckets map[string][]bucket
	key     []byte
}

type bucket struct {
	bound float64
	index int
}

func newBaseFinder(cat *catalogue) baseFinder {
	return baseFinder{cat: cat, bounds: map[format.PairID]float64{}, buckets: map[string][]bucket{}}
}

// reset begins a new bundle.
func (f *baseFinder) reset() { clear(f.buckets) }

// base returns the place in the bundle of the series to differ from, -1 for none. index is
// the place of the series itself: how many came before.
func (f *baseFinder) base(metric format.PairID, ref format.Ref, index int) (int, error) {
	own, err := f.find(metric, ref)
	if err != nil || math.IsNaN(own) {
		return -1, err
	}
	best := bucket{bound: math.Inf(-1), index: -1}
	for _, b := range f.buckets[string(f.key)] {
		if b.bound < own && b.bound >= best.bound {
			best = b
		}
	}
	f.buckets[string(f.key)] = append(f.buckets[string(f.key)], bucket{own, index})
	return best.index, nil
}

// hasBucketOf tells whether the series is a bucket of a histogram of which the bundle has another.
func (f *baseFinder) hasBucketOf(metric format.PairID, ref format.Ref) (bool, error) {
	own, err := f.find(metric, ref)
	return err == nil && !math.IsNaN(own) && len(f.buckets[string(f.key)]) > 0, err
}

// find returns the upper bound of a bucket, and sets the key of the histogram that it is of. It
// returns NaN if the series is no bucket.
func (f *baseFinder) find(metric format.PairID, ref format.Ref) (bound float64, err error) {
	if metric != f.metric {
		text, err := f.text(metric)
		if err != nil {
			return math.NaN(), err
		}
		f.metric, f.isHist = metric, text.name == model.MetricNameLabel && strings.HasSuffix(text.value, "_bucket")
	}
	if !f.isHist {
		return math.NaN(), nil
	}
	rec, err := f.cat.record(ref)
	if err != nil {
		return math.NaN(), err
	}
	f.key = f.key[:0]
	own := math.NaN()
	for _, pair := range rec.Pairs {
		bound, err := f.bound(pair)
		if err != nil {
			return math.NaN(), err
		}
		if math.IsNaN(bound) {
			f.key = binary.LittleEndian.AppendUint32(f.key, uint32(pair))
		} else {
			own = bound
		}
	}
	return own, nil
}

// bound is the upper bound that a pair stands for, NaN if it isn't one.
func (f *baseFinder) bound(id format.PairID) (float64, error) {
	if bound, ok := f.bounds[id]; ok {
		return bound, nil
	}
	text, err := f.text(id)
	if err != nil {
		return 0, err
	}
	bound := math.NaN()
	if text.name == model.BucketLabel {
		if v, err := strconv.ParseFloat(text.value, 64); err == nil {
			bound = v
		}
	}
	f.bounds[id] = bound
	return bound, nil
}

func (f *baseFinder) text(id format.PairID) (pairText, error) {
	if id == 0 {
		return pairText{}, nil
	}
	texts, err := f.cat.pairTexts([]format.Series{{Pairs: []format.PairID{id}}})
	return texts[id], err
}
