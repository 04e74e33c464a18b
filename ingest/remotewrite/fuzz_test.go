package remotewrite_test

import (
	"bytes"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
	"pgregory.net/rapid"

	"varve/ingest"
	_ "varve/internal/testkit/draws"
)

// seeds adds a few hundred valid bodies and each of them cut and with a byte changed.
func seeds(f *testing.F, draw func(d drawn) []byte) {
	example := rapid.Custom(func(t *rapid.T) []byte { return draw(drawn{t}) })
	for i := range 100 {
		body := example.Example(i)
		f.Add(body)
		if n := len(body); n > 0 {
			f.Add(body[:n-1])
			f.Add(body[:n/2])
			changed := append([]byte{}, body...)
			changed[n/3] ^= 0x81
			f.Add(changed)
		}
	}
}

// check compares what the receiver stores with what the reference does of the same
// body. upstream is the error of the generated decoder.
func (r *receiver) check(t *testing.T, contentType string, body []byte, want *reference, upstream error) {
	r.sink.Clear()
	answer := r.post(t, contentType, snappy.Encode(nil, body))
	if upstream != nil {
		require.Equal(t, http.StatusBadRequest, answer.code, answer.body)
		require.Empty(t, r.sink.Written())
		return
	}
	if answer.code == http.StatusRequestEntityTooLarge || strings.Contains(answer.body, "nothing is written") && hasGroups(body) {
		require.Empty(t, r.sink.Written())
		return
	}
	require.Equal(t, codeOf(want.refused), answer.code, answer.body)
	require.Equal(t, dump(want.written, nil), dump(r.sink.Written(), nil))
	require.Equal(t, len(want.families), len(r.sink.Families()))
}

// hasGroups says whether there is, or could be, something in the body that upstream
// skips and this receiver takes for damage: groups, and field numbers that do not
// exist. It may be wrong in one direction only.
func hasGroups(b []byte) bool {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 || num > protowire.MaxValidNumber || typ == protowire.StartGroupType || typ == protowire.EndGroupType {
			return true
		}
		b = b[n:]
		if typ == protowire.BytesType {
			inner, n := protowire.ConsumeBytes(b)
			if n < 0 || len(inner) > 0 && hasGroups(inner) {
				return true
			}
			b = b[n:]
			continue
		}
		if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
			return true
		}
		b = b[n:]
	}
	return false
}

// FuzzRemoteWrite1 compares the decoder of 1.0 with upstream's generated one.
func FuzzRemoteWrite1(f *testing.F) {
	seeds(f, func(d drawn) []byte {
		b, err := d.request1().Marshal()
		require.NoError(d, err)
		return b
	})
	r := newReceiver()
	f.Fuzz(func(t *testing.T, body []byte) {
		var req prompb.WriteRequest
		err := req.Unmarshal(body)
		want := newReference()
		if err == nil {
			want.request1(&req)
		}
		r.check(t, contentType1, body, want, err)
	})
}

// FuzzRemoteWrite2 compares the decoder of 2.0 with upstream's generated one.
func FuzzRemoteWrite2(f *testing.F) {
	seeds(f, func(d drawn) []byte {
		b, err := d.request2().Marshal()
		require.NoError(d, err)
		return b
	})
	r := newReceiver()
	f.Fuzz(func(t *testing.T, body []byte) {
		var req writev2.Request
		err := req.Unmarshal(body)
		want := newReference()
		if err == nil {
			if !applyCreated(body, &req) {
				t.Skip("a field that upstream does not read is spread over the message in a way the reference does not follow")
			}
			want.request2(&req)
		}
		r.check(t, contentType2, body, want, err)
	})
}

// FuzzWire shows that no compressed body makes the receiver panic, keep bytes of its
// budget, or accept what the snappy decoder does not.
func FuzzWire(f *testing.F) {
	for _, c := range hostileBodies() {
		if c.wire != nil && len(c.wire) < 1000 {
			f.Add(c.wire)
		}
	}
	f.Add(snappy.Encode(nil, series1(upLabel, oneSample)))
	budget := ingest.NewBudget(64 << 20)
	r := newLimitedReceiver(ingest.Limits{InFlight: budget, DecodedBytesMax: 1 << 20})
	f.Fuzz(func(t *testing.T, wire []byte) {
		r.sink.Clear()
		answer := r.post(t, contentType1, wire)
		require.Contains(t, []int{204, 400, 413}, answer.code)
		if _, err := snappy.Decode(nil, wire); err != nil {
			require.NotEqual(t, 204, answer.code)
			require.Empty(t, r.sink.Written())
		}
		require.Zero(t, budget.Used())
	})
}

// FuzzNegotiation shows that any Content-Type and Content-Encoding get 204 or 415,
// 204 only for the media type of remote write, and the headers of 2.0 only where its
// message is named.
func FuzzNegotiation(f *testing.F) {
	f.Add("application/x-protobuf;proto=io.prometheus.write.v2.Request", "snappy")
	f.Add("application/x-protobuf; proto=\"prometheus.WriteRequest\"", "")
	f.Add("application/x-protobuf;proto*=utf-8''io.prometheus.write.v2.Request", "gzip")
	r := newReceiver()
	wire := snappy.Encode(nil, nil)
	f.Fuzz(func(t *testing.T, contentType, encoding string) {
		req := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(wire))
		req.Header["Content-Type"], req.Header["Content-Encoding"] = []string{contentType}, []string{encoding}
		answer := r.send(t, req)
		require.Contains(t, []int{204, 415}, answer.code)
		if answer.code == 204 && contentType != "" {
			require.Contains(t, strings.ToLower(contentType), "application/x-protobuf")
		}
		if answer.written != nil {
			require.Contains(t, strings.ToLower(contentType), "proto")
		}
	})
}

// applyCreated reads the start timestamps of series, which upstream reserves, into
// their samples. It reports false where tags are spelled in a way that only
// upstream's decoder accepts.
func applyCreated(body []byte, req *writev2.Request) bool {
	at := 0
	for len(body) > 0 {
		num, typ, n := protowire.ConsumeTag(body)
		if n < 0 {
			return false
		}
		body = body[n:]
		if num != 5 || typ != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(num, typ, body); n < 0 {
				return false
			}
			body = body[n:]
			continue
		}
		series, n := protowire.ConsumeBytes(body)
		if n < 0 {
			return false
		}
		body = body[n:]
		created, ok := createdOf(series)
		if !ok {
			return false
		}
		ts := &req.Timeseries[at]
		at++
		for i := range ts.Samples {
			if ts.Samples[i].StartTimestamp == 0 {
				ts.Samples[i].StartTimestamp = created
			}
		}
		for i := range ts.Histograms {
			if ts.Histograms[i].StartTimestamp == 0 {
				ts.Histograms[i].StartTimestamp = created
			}
		}
	}
	return at == len(req.Timeseries)
}

func createdOf(series []byte) (created int64, ok bool) {
	for len(series) > 0 {
		num, typ, n := protowire.ConsumeTag(series)
		if n < 0 || num > math.MaxInt32>>3 {
			return 0, false
		}
		series = series[n:]
		if num == 6 && typ == protowire.VarintType {
			x, n := protowire.ConsumeVarint(series)
			if n < 0 {
				return 0, false
			}
			created, series = int64(x), series[n:]
			continue
		}
		if n = protowire.ConsumeFieldValue(num, typ, series); n < 0 {
			return 0, false
		}
		series = series[n:]
	}
	return created, true
}
