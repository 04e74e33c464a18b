package fleet

import (
	"github.com/prometheus/prometheus/model/value"

	"varve/benchmarks/wire"
)

// bulkRounds is how many rounds of a series stand together in a request of Bulk: an
// hour at 15 s.
const bulkRounds = 240

// Bulk encodes the rounds from first to below end as somebody would who backfills:
// hour by hour, in an hour series by series, so that labels are sent once for up to 240
// samples. A request has batch samples or, as series are not divided, up to 239 more;
// the last of a lane has what is left. The targets are dealt to the lanes. The tally
// is of all that was encoded.
func (f *Fleet) Bulk(lanes, batch, first, end int) ([][]wire.Frame, Tally) {
	frames := make([][]wire.Frame, lanes)
	var tally Tally
	var slab wire.Slab
	var plain, samples []byte
	end = min(end, f.config.Rounds)
	for lane := range lanes {
		pending, last := 0, 0
		flush := func() {
			if pending > 0 {
				frames[lane] = append(frames[lane], slab.Frame(plain, pending, last))
			}
			plain, pending = plain[:0], 0
		}
		for from := first; from < end; from += bulkRounds {
			to := min(from+bulkRounds, end)
			for t := len(f.targets) * lane / lanes; t < len(f.targets)*(lane+1)/lanes; t++ {
				for i := range f.targets[t].series {
					var count int64
					samples, count = f.appendRounds(samples[:0], t, i, from, to, &tally)
					if count == 0 {
						continue
					}
					plain = wire.AppendMany(plain, f.targets[t].series[i].wire, samples)
					last = to - 1
					if pending += int(count); pending >= batch {
						flush()
					}
				}
			}
		}
		flush()
	}
	return frames, tally
}

// appendRounds appends the sample fields of a series in some rounds and counts them.
func (f *Fleet) appendRounds(dst []byte, t, i, from, to int, tally *Tally) ([]byte, int64) {
	count := int64(0)
	for round := from; round < to; round++ {
		v, ok := f.At(t, i, round)
		if !ok {
			continue
		}
		count++
		if value.IsStaleNaN(v) {
			tally.Stale++
		}
		dst = wire.AppendSample(dst, v, f.Millis(t, round))
	}
	tally.Samples += count
	return dst, count
}
