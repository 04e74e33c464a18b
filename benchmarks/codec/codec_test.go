package codec_test

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"varve/benchmarks/recording"
)

// made records an exporter that never was: counters, one of which restarts, decimals, sums,
// histograms whose buckets are written out of order, constants, a series that comes and goes,
// not-a-number, and a scrape that is missing.
func made(t *testing.T, scrapes int) *day {
	t.Helper()
	path := filepath.Join(t.TempDir(), "made"+recording.Extension)
	w, err := recording.Create(path, "made")
	require.NoError(t, err)
	random := rand.New(rand.NewPCG(1, 2))
	bounds := []string{"10", "2.5", "+Inf", "0.5", "1"}
	var buckets [3][5]int
	count, restarting, sum := 0, 0, 0.1
	for i := range scrapes {
		if i == scrapes/3 {
			continue
		}
		count, restarting, sum = count+random.IntN(50), restarting+random.IntN(9), sum+random.Float64()/1000
		if i == scrapes/2 {
			restarting = 0
		}
		var text bytes.Buffer
		fmt.Fprintf(&text, "# TYPE count_total counter\ncount_total %d\n# TYPE sum_total counter\nsum_total %v\n", count, sum)
		fmt.Fprintf(&text, "# TYPE restarts_total counter\nrestarts_total %d\n", restarting)
		fmt.Fprintf(&text, "# TYPE degrees gauge\ndegrees %v\nnoise %v\n", float64(random.IntN(900))/10, random.NormFloat64())
		fmt.Fprintf(&text, "built 1\nhalf 0.5\nnothing NaN\nquantile %v\n", []float64{math.NaN(), 0.25, math.Inf(1)}[random.IntN(3)])
		if i%40 > 25 {
			fmt.Fprintf(&text, "rare %d\n", i)
		}
		text.WriteString("# TYPE took_seconds histogram\n")
		for path := range buckets {
			took := math.Exp(random.NormFloat64())
			for k, bound := range bounds {
				if le, _ := strconv.ParseFloat(bound, 64); took <= le {
					buckets[path][k]++
				}
				fmt.Fprintf(&text, "took_seconds_bucket{path=\"/%d\",le=%q} %d\n", path, bound, buckets[path][k])
			}
		}
		for k := range bundleChunks + 9 {
			fmt.Fprintf(&text, "many{number=\"%d\"} %d\n", k, k)
		}
		require.NoError(t, w.Append(recording.Scrape{Millis: int64(1_000_000 + i*recordedMillis + random.IntN(4)), Text: text.Bytes()}))
	}
	require.NoError(t, w.Close())
	c, err := recording.Open(path, recordedMillis)
	require.NoError(t, err)
	d, err := newDay(c)
	require.NoError(t, err)
	return d
}

// TestRoundTrip shows that what the benchmarks encode comes back bit for bit, from bundles
// and from upstream's chunks, also from a sealer that has sealed before.
func TestRoundTrip(t *testing.T) {
	d := made(t, 300)
	require.Greater(t, len(d.series), bundleChunks)
	var s sealer
	var first []byte
	for range 2 {
		out, err := s.seal(d)
		require.NoError(t, err)
		fault, err := d.differs(out)
		require.NoError(t, err)
		require.Empty(t, fault)
		if first == nil {
			first = bytes.Clone(out.data)
		}
		require.Equal(t, first, out.data)
	}
	chunks, err := encodeXOR(d)
	require.NoError(t, err)
	var r xorReader
	for i := range d.series {
		c, err := r.read(chunks[i])
		require.NoError(t, err)
		require.Empty(t, d.series[i].differs(c))
	}
}

// TestRoundTripSeesDifferences shows that a bit, a sample or a series that is not there
// would be told.
func TestRoundTripSeesDifferences(t *testing.T) {
	for name, change := range map[string]func(d *day){
		"bit": func(d *day) {
			v := &d.series[len(d.series)-1].column.Values[7]
			*v = math.Float64frombits(math.Float64bits(*v) ^ 1)
		},
		"time": func(d *day) {
			d.series[0].column.Times = append([]int64{d.series[0].column.Times[0] + 1}, d.series[0].column.Times[1:]...)
		},
		"sample": func(d *day) {
			c := &d.series[0].column
			c.Times, c.Values = c.Times[1:], c.Values[1:]
		},
		"series": func(d *day) { d.series = append(d.series, d.series[0]) },
	} {
		t.Run(name, func(t *testing.T) {
			d := made(t, 60)
			var s sealer
			out, err := s.seal(d)
			require.NoError(t, err)
			change(d)
			fault, err := d.differs(out)
			require.NoError(t, err)
			require.NotEmpty(t, fault)
		})
	}
}

// TestSealsAsArchive shows that bundles end with a metric, at their size and at their number
// of chunks, and that buckets are differences to their neighbours: without those the day
// takes more.
func TestSealsAsArchive(t *testing.T) {
	d := made(t, 300)
	var s sealer
	out, err := s.seal(d)
	require.NoError(t, err)
	metrics, first := map[string]int{}, 0
	for _, b := range out.bundles {
		for i := first; i <= b.last; i++ {
			require.Equal(t, d.series[first].metric, d.series[i].metric)
		}
		metrics[d.series[first].metric]++
		require.LessOrEqual(t, b.last-first, bundleChunks)
		require.Less(t, len(out.value(b)), 2*bundleBytes)
		first = b.last + 1
	}
	require.Equal(t, 2, metrics["many"])
	require.Equal(t, 1, metrics["took_seconds_bucket"])
	with := out.valueBytes()
	for i := range d.series {
		d.series[i].bound = math.NaN()
	}
	out, err = s.seal(d)
	require.NoError(t, err)
	require.Less(t, with, out.valueBytes())
}
