package remoteread

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"testing"

	"github.com/gogo/protobuf/proto"
	"github.com/golang/snappy"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"

	"varve/intake"
)

// FuzzAnswers shows that no answer of a server makes a reader panic, and that what it hands on ascends in time and comes out of the
// spool as it went in.
func FuzzAnswers(f *testing.F) {
	c := chunkenc.NewXORChunk()
	app, err := c.Appender()
	require.NoError(f, err)
	app.Append(0, 5, 1)
	app.Append(0, 6, 2)
	name := []prompb.Label{{Name: model.MetricNameLabel, Value: "up"}, {Name: "job", Value: "x"}}
	chunked, err := proto.Marshal(&prompb.ChunkedReadResponse{ChunkedSeries: []*prompb.ChunkedSeries{{Labels: name, Chunks: []prompb.Chunk{{Type: prompb.Chunk_XOR, MinTimeMs: 5, MaxTimeMs: 6, Data: c.Bytes()}}}}})
	require.NoError(f, err)
	sampled, err := proto.Marshal(&prompb.ReadResponse{Results: []*prompb.QueryResult{{Timeseries: []*prompb.TimeSeries{
		{Labels: name, Samples: []prompb.Sample{{Timestamp: 7, Value: 1}, {Timestamp: 5, Value: 1}, {Timestamp: 7, Value: 2}}},
		{Labels: name[:1], Histograms: []prompb.Histogram{prompb.FromIntHistogram(1, tsdbutil.GenerateTestHistogram(1)), prompb.FromFloatHistogram(2, tsdbutil.GenerateTestFloatHistogram(1))}},
	}}}})
	require.NoError(f, err)
	f.Add(true, chunked)
	f.Add(false, sampled)
	f.Fuzz(func(t *testing.T, streamed bool, b []byte) {
		sp := spool{memoryBytes: 1 << 30}
		series := 0
		take := func(ls labels.Labels, chunks []intake.Chunk) error {
			var check intake.ChunkCheck
			for i := range chunks {
				_, err := check.Chunk(chunks[i].Chunk.Encoding(), chunks[i].Chunk.Bytes(), chunks[i].MinMillis, chunks[i].MaxMillis)
				require.NoError(t, err)
			}
			if len(chunks) > 0 {
				series++
			}
			return sp.add(ls, chunks)
		}
		if streamed {
			framed := binary.AppendUvarint(nil, uint64(len(b)))
			framed = binary.BigEndian.AppendUint32(framed, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
			_ = readChunks(bytes.NewReader(append(framed, b...)), take)
		} else {
			_ = readSamples(bytes.NewReader(snappy.Encode(nil, b)), take)
		}
		found := 0
		require.NoError(t, sp.each(t.Context(), func(_ labels.Labels, handle uint64) error {
			found++
			_, err := sp.chunks(handle, nil)
			return err
		}))
		require.Equal(t, series, found)
	})
}

// FuzzBytes shows the same of bytes that are no answer at all.
func FuzzBytes(f *testing.F) {
	f.Add([]byte{1, 2, 3})
	f.Fuzz(func(_ *testing.T, b []byte) {
		none := func(labels.Labels, []intake.Chunk) error { return nil }
		_ = readChunks(bytes.NewReader(b), none)
		_ = readSamples(bytes.NewReader(b), none)
	})
}
