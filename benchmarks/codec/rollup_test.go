package codec_test

import (
	"fmt"
	"testing"

	"varve/archive/chunk"
	"varve/rollup"
)

// recordBytes is about what a record takes beside its value, once keys are compressed.
const recordBytes = 15

// rolledDay are the buckets of a day at one resolution.
type rolledDay struct {
	window  chunk.RollupWindow
	columns []rollup.Columns
	clock   *chunk.RollupClock
	buckets int
}

// rollUp makes the buckets of a day, those of series numbered as in the day.
func (d *day) rollUp(resolutionMillis int64) *rolledDay {
	r := &rolledDay{
		window:  chunk.RollupWindow{StartMillis: dayNumber.StartMillis(), ResolutionMillis: resolutionMillis},
		columns: make([]rollup.Columns, len(d.series)),
	}
	uses, best := map[string]int{}, 0
	var b rollup.Builder
	for i := range d.series {
		c, samples := &r.columns[i], &d.series[i].column
		b.Begin(resolutionMillis, c)
		for k, t := range samples.Times {
			b.Float(t, samples.Values[k])
		}
		b.Finish()
		r.buckets += c.Len()
		times := fmt.Sprint(c.Counts, c.FirstMillis, c.LastMillis)
		if uses[times]++; uses[times] > best {
			best = uses[times]
			r.clock = &chunk.RollupClock{Ends: c.Ends, Counts: c.Counts, FirstMillis: c.FirstMillis, LastMillis: c.LastMillis}
		}
	}
	return r
}

// sealRollups writes the buckets in bundles that close as those of samples do. It returns their
// bytes, records and clock included.
func (s *sealer) sealRollups(d *day, r *rolledDay, builder *chunk.RollupBuilder) (bytes int, err error) {
	value, err := chunk.AppendRollupClock(nil, nil, r.window, r.clock)
	if err != nil {
		return 0, err
	}
	bytes = len(value) + recordBytes
	builder.Reset(r.window)
	s.buckets = s.buckets[:0]
	flush := func() {
		if builder.Len() > 0 {
			value = builder.Append(value[:0], nil)
			bytes += len(value) + recordBytes
		}
		builder.Reset(r.window)
		s.buckets = s.buckets[:0]
	}
	first := 0
	for i := range d.series {
		if i > 0 && d.series[i].metric != d.series[i-1].metric || builder.Size() >= bundleBytes || builder.Len() >= bundleChunks {
			flush()
			first = i
		}
		base := s.base(&d.series[i], i-first)
		if err := builder.Add(uint64(i), targetClock, r.clock, base, &r.columns[i]); err != nil {
			return 0, fmt.Errorf("series %d, %s: %w", i, d.series[i].metric, err)
		}
	}
	flush()
	return bytes, nil
}

// BenchmarkRolledUp writes the buckets of a day of each recorded exporter. "%raw" is their
// share of the sealed samples, records and clocks included on both sides.
func BenchmarkRolledUp(b *testing.B) {
	for _, name := range []string{"node", "prometheus", "varve"} {
		for _, minutes := range []int64{5, 60} {
			b.Run(fmt.Sprintf("%s/%dm", name, minutes), func(b *testing.B) {
				d := recordedDay(b, name)
				var s sealer
				out, err := s.seal(d)
				if err != nil {
					b.Fatal(err)
				}
				raw := out.valueBytes() + len(out.clock) + (len(out.bundles)+1)*recordBytes
				r := d.rollUp(minutes * 60_000)
				var builder chunk.RollupBuilder
				var bytes int
				for b.Loop() {
					if bytes, err = s.sealRollups(d, r, &builder); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(r.buckets), "ns/bucket")
				b.ReportMetric(float64(bytes)/float64(r.buckets), "B/bucket")
				b.ReportMetric(100*float64(bytes)/float64(raw), "%raw")
			})
		}
	}
}
