package forwarding_test

import (
	"context"
	"fmt"
	"maps"
	"math"
	"net/url"
	"slices"
	"testing"
	"time"

	commonconfig "github.com/prometheus/common/config"
	commonmodel "github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	"varve/internal/gate/ledger"
)

// point is a sample. Bits are those of a float, or a histogram's digest.
type point struct {
	millis    int64
	bits      uint64
	histogram bool
}

// contents are samples by the text of their labels, in the order of time.
type contents map[string][]point

func (c contents) samples() (n int) {
	for _, points := range c {
		n += len(points)
	}
	return n
}

// The time range that all samples of these tests lie in: some are of before 1970.
var (
	earliest = time.Date(1900, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
	latest   = time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
)

// read returns what a server has of the series that match, by remote read.
func read(t *testing.T, base string, streamed bool, rename func(*labels.Builder), ms ...*labels.Matcher) contents {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), checkTimeout)
	defer cancel()
	address, err := url.Parse(base + "/api/v1/read")
	require.NoError(t, err)
	kind := prompb.ReadRequest_SAMPLES
	if streamed {
		kind = prompb.ReadRequest_STREAMED_XOR_CHUNKS
	}
	client, err := remote.NewReadClient("gate", &remote.ClientConfig{
		URL: &commonconfig.URL{URL: address}, Timeout: commonmodel.Duration(checkTimeout), ChunkedReadLimit: 64 << 20,
		AcceptedResponseTypes: []prompb.ReadRequest_ResponseType{kind},
		HTTPClientConfig:      commonconfig.HTTPClientConfig{},
	})
	require.NoError(t, err)
	query, err := remote.ToQuery(earliest, latest, ms, nil)
	require.NoError(t, err)
	set, err := client.Read(ctx, query, true)
	require.NoError(t, err)
	out := contents{}
	var it chunkenc.Iterator
	for set.Next() {
		series := set.At()
		lset := series.Labels()
		if rename != nil {
			b := labels.NewBuilder(lset)
			rename(b)
			lset = b.Labels()
		}
		key := lset.String()
		if _, ok := out[key]; ok {
			require.Fail(t, "the series is there twice", key)
		}
		it = series.Iterator(it)
		out[key] = points(t, it)
	}
	require.NoError(t, set.Err())
	return out
}

func points(t *testing.T, it chunkenc.Iterator) (out []point) {
	t.Helper()
	for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
		p := point{millis: it.AtT()}
		switch kind {
		case chunkenc.ValFloat:
			_, v := it.At()
			p.bits = math.Float64bits(v)
		case chunkenc.ValHistogram:
			_, h := it.AtHistogram(nil)
			p.bits, p.histogram = ledger.Histogram{Int: h}.Digest(), true
		case chunkenc.ValFloatHistogram:
			_, h := it.AtFloatHistogram(nil)
			p.bits, p.histogram = ledger.Histogram{Float: h}.Digest(), true
		}
		out = append(out, p)
	}
	require.NoError(t, it.Err())
	return out
}

// differences tells what a target has that is not what it should have, ten of it at most.
func differences(want, got contents) (out []string) {
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if d := difference(want[key], got[key]); d != "" {
			out = append(out, key+": "+d)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[key]; !ok {
			out = append(out, fmt.Sprintf("%s: %d samples of a series that was not to be sent, the first %v", key, len(got[key]), got[key][0]))
		}
	}
	if len(out) > 10 {
		out = append(out[:10], fmt.Sprintf("and %d series more", len(out)-10))
	}
	return out
}

func difference(want, got []point) string {
	have := map[int64]point{}
	for _, p := range got {
		have[p.millis] = p
	}
	lost, altered := 0, 0
	var example point
	for _, p := range want {
		g, ok := have[p.millis]
		delete(have, p.millis)
		if !ok {
			lost++
			example = p
		} else if g != p {
			altered++
			example = p
		}
	}
	if lost+altered+len(have) == 0 {
		return ""
	}
	for at := range have {
		example = have[at]
	}
	return fmt.Sprintf("of %d samples %d are lost and %d altered, and %d are there besides, such as %v", len(want), lost, altered, len(have), example)
}

// equal requires that the target has what it should have.
func equal(t *testing.T, what string, want, got contents) {
	t.Helper()
	require.Empty(t, differences(want, got), "%s: of %d samples of %d series, there are %d of %d", what, want.samples(), len(want), got.samples(), len(got))
}

func is(name, value string) *labels.Matcher {
	return labels.MustNewMatcher(labels.MatchEqual, name, value)
}
