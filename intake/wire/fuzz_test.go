package wire

import (
	"bytes"
	"context"
	"math"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tombstones"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"

	"varve/digest"
	"varve/intake"
)

func seedChunks(t testing.TB) []intake.Chunk {
	var all []intake.Chunk
	for _, e := range []chunkenc.Encoding{chunkenc.EncXOR, chunkenc.EncXOR2, chunkenc.EncHistogram, chunkenc.EncFloatHistogram, chunkenc.EncHistogramST, chunkenc.EncFloatHistogramST} {
		c, err := chunkenc.NewEmptyChunk(e)
		require.NoError(t, err)
		app, err := c.Appender()
		require.NoError(t, err)
		for i := range int64(3) {
			switch e {
			case chunkenc.EncXOR, chunkenc.EncXOR2:
				app.Append(i, 1000+i*10, float64(i))
			case chunkenc.EncHistogram, chunkenc.EncHistogramST:
				_, _, app, err = app.AppendHistogram(nil, i, 1000+i*10, tsdbutil.GenerateTestHistogram(i), true)
			default:
				_, _, app, err = app.AppendFloatHistogram(nil, i, 1000+i*10, tsdbutil.GenerateTestFloatHistogram(i), true)
			}
			require.NoError(t, err)
		}
		all = append(all, intake.Chunk{Chunk: c, MinMillis: 1000, MaxMillis: 1020, Deleted: tombstones.Intervals{{Mint: 1010, Maxt: 1010}}})
	}
	return all
}

// FuzzFrames shows that no bytes make a reader of streams panic, take more memory than they justify, or read what it would not
// write itself.
func FuzzFrames(f *testing.F) {
	all := seedChunks(f)
	ls := labels.FromStrings(model.MetricNameLabel, "up", "job", "x")
	day := beginFrame(nil)
	day = append(day, 7)
	day, _, _ = appendChunks(day, all)
	endFrame(day, kindDay)
	f.Add(appendEnd(day, tally{1, 6, 18}))
	samples, _, _ := appendChunks(appendLabels(beginFrame(nil), ls), all)
	endFrame(samples, kindSamples)
	f.Add(samples)
	series := appendLabels(beginFrame(nil), ls)
	endFrame(series, kindSeries)
	f.Add(series)
	resolved := appendResolved(beginFrame(nil), []intake.Series{{Ref: 1, Metric: 2}, {Refused: "no"}})
	endFrame(resolved, kindResolved)
	f.Add(resolved)
	digests := appendDigest(beginFrame(nil), 9, digest.Series{Samples: 1, FirstMillis: -1, LastMillis: 5, Hash: math.MaxUint64})
	endFrame(digests, kindDigests)
	f.Add(digests)
	report := appendDayReport(beginFrame(nil), intake.DayReport{Series: 1})
	endFrame(report, kindDayReport)
	f.Add(report)
	written := appendWriteReport(beginFrame(nil), intake.WriteReport{Samples: 1, Reasons: map[string]uint64{"x": 2}})
	endFrame(written, kindWriteReport)
	f.Add(written)
	f.Add(appendFault(nil, &fault{Code: codeBusy, Text: "x"}))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := frameReader{from: bytes.NewReader(b), max: 1 << 20}
		for {
			k, p, err := r.next()
			if err != nil {
				return
			}
			readAny(t, k, p)
		}
	})
}

// FuzzPayloads shows the same of payloads behind a checksum that is right.
func FuzzPayloads(f *testing.F) {
	all := seedChunks(f)
	ls := labels.FromStrings(model.MetricNameLabel, "up", "job", "x")
	for i := range all {
		b, _, _ := appendChunks([]byte{7}, all[i:i+1])
		f.Add(byte(kindDay), b)
	}
	b, _, _ := appendChunks(appendLabels(nil, ls), all[:1])
	f.Add(byte(kindSamples), b)
	f.Add(byte(kindSeries), appendLabels(nil, ls))
	f.Add(byte(kindResolved), appendResolved(nil, []intake.Series{{Ref: 1, Metric: 2}, {Refused: "no"}}))
	f.Add(byte(kindDigests), appendDigest(nil, 9, digest.Series{Samples: 1, FirstMillis: -1, LastMillis: 5, Hash: math.MaxUint64}))
	f.Add(byte(kindDayReport), appendDayReport(nil, intake.DayReport{Series: 1}))
	f.Add(byte(kindWriteReport), appendWriteReport(nil, intake.WriteReport{Samples: 1, Reasons: map[string]uint64{"x": 2}}))
	f.Add(byte(kindFault), appendFault(nil, &fault{Code: codeBusy, Text: "x"})[frameHeadBytes:])
	f.Add(byte(kindEnd), appendEnd(nil, tally{1, 2, 3})[frameHeadBytes:])
	f.Fuzz(func(t *testing.T, k byte, p []byte) { readAny(t, kind(k), p) })
}

// readAny reads a payload as what it says it is. What is read of a day must be writable, and be the same then.
func readAny(t *testing.T, k kind, p []byte) {
	var rec records
	var count tally
	switch k {
	case kindDay:
		_ = rec.daySeries(p, &count, func(ref uint64, chunks []intake.Chunk) error {
			var sum, again digest.Series
			for i := range chunks {
				addTo(&sum, chunks[i].Chunk)
			}
			b, n, samples := appendChunks(nil, chunks)
			require.EqualValues(t, len(chunks), n)
			require.Equal(t, sum.Samples, samples)
			var other records
			q := payload{b: b}
			back, _ := other.seriesChunks(&q)
			require.NoError(t, q.end())
			for i := range back {
				require.Equal(t, chunks[i].MinMillis, back[i].MinMillis)
				require.Equal(t, chunks[i].MaxMillis, back[i].MaxMillis)
				addTo(&again, back[i].Chunk)
			}
			require.Equal(t, sum, again)
			return nil
		})
	case kindSamples:
		_, _ = rec.samples(p, &count)
	case kindSeries:
		all, err := rec.series(p)
		if err == nil {
			var b []byte
			for _, s := range all {
				b = appendLabels(b, s.Labels)
			}
			back, err := rec.series(b)
			require.NoError(t, err)
			require.Len(t, back, len(all))
		}
	case kindResolved:
		_ = readResolved(p, make([]intake.Series, 2))
	case kindDigests:
		_ = readDigests(p, &count, func(uint64, digest.Series) error { return nil })
	case kindDayReport:
		_, _ = readDayReport(p)
	case kindWriteReport:
		_, _ = readWriteReport(p)
	case kindFault:
		_ = readFault(p)
	case kindEnd:
		_ = checkEnd(p, tally{})
	}
}

func addTo(sum *digest.Series, c chunkenc.Chunk) {
	it := c.Iterator(nil)
	for v := it.Next(); v != chunkenc.ValNone; v = it.Next() {
		switch v {
		case chunkenc.ValFloat:
			sum.Float(it.At())
		case chunkenc.ValHistogram:
			sum.Histogram(it.AtHistogram(nil))
		case chunkenc.ValFloatHistogram:
			sum.FloatHistogram(it.AtFloatHistogram(nil))
		}
	}
}

// TestFrames shows that each byte of a frame counts: changed or missing, it is an error.
func TestFrames(t *testing.T) {
	b := appendEnd(nil, tally{1, 2, 3})
	for i := range b {
		changed := bytes.Clone(b)
		changed[i] ^= 4
		r := frameReader{from: bytes.NewReader(changed), max: 100}
		_, _, err := r.next()
		require.Error(t, err, "%d", i)
		r = frameReader{from: bytes.NewReader(b[:i]), max: 100}
		_, _, err = r.next()
		require.Error(t, err, "%d", i)
	}
	r := frameReader{from: bytes.NewReader(b), max: 100}
	_, p, err := r.next()
	require.NoError(t, err)
	require.NoError(t, checkEnd(p, tally{1, 2, 3}))
	require.ErrorIs(t, checkEnd(p, tally{1, 2, 4}), ErrMalformed)
	require.NoError(t, r.ended())
	r = frameReader{from: bytes.NewReader(append(b, 0)), max: 2}
	_, _, err = r.next()
	require.ErrorIs(t, err, errTooLarge)
}

// TestWaitFor shows that a wait ends with its context.
func TestWaitFor(t *testing.T) {
	require.NoError(t, waitFor(t.Context(), 1))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, waitFor(ctx, math.MaxInt64), context.Canceled)
}
