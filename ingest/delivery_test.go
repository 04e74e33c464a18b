package ingest_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"varve/arrival"
	"varve/ingest"
	"varve/ingest/ingesttest"
)

// named is a series whose place is its number.
func named(place uint64, sets *ingest.LabelSets) error {
	if place == 666 {
		return errors.New("a series that has no name")
	}
	sets.Add("__name__", "m")
	sets.Add("place", fmt.Sprint(place))
	return nil
}

func newPort(sink ingest.Sink, limits ingest.Limits) (*ingest.Port, *prometheus.Registry) {
	reg := prometheus.NewRegistry()
	return ingest.NewPort(sink, limits, ingest.NewMetrics(reg).For("in").Meter("test"), time.Now), reg
}

func keyOf(p *ingest.Port, n uint64) arrival.Key {
	return p.Seed("test").Hash(fmt.Append(nil, n))
}

// TestDelivery shows that what is added is written with the labels of its place, once for a series that is unknown and without
// asking for one that is known; that rows are refused alone; and that all is counted.
func TestDelivery(t *testing.T) {
	sink := ingesttest.NewSink()
	budget := ingest.NewBudget(1 << 20)
	p, reg := newPort(sink, ingest.Limits{InFlight: budget, ErrorExamplesMax: 2})
	asked := 0
	name := func(place uint64, sets *ingest.LabelSets) error {
		asked++
		return named(place, sets)
	}
	for round := range 2 {
		d := p.Delivery()
		for _, n := range []uint64{1, 2, 666, 1} {
			require.NoError(t, d.Add(keyOf(p, n), n, int64(10*round)+int64(n), math.Float64bits(float64(n))))
		}
		require.NotZero(t, budget.Used())
		d.Refuse(arrival.ReasonInvalidLine, 3, errors.New("three bad lines"))
		d.Refuse(arrival.ReasonInvalidLine, 1, errors.New(""))
		d.Drop(arrival.ReasonText, 2)
		d.Took(5, 7)
		require.NoError(t, d.Write(t.Context(), name))
		require.Equal(t, 3, d.Result().Samples)
		require.Equal(t, []string{"three bad lines", "a series that has no name"}, d.Examples())
		require.Equal(t, "refused invalid_labels: 1, invalid_line: 4; the rest is written; for example: three bad lines; a series that has no name", d.Refusals())
		require.NoError(t, d.Write(t.Context(), name), "nothing is left")
		d.End(400)
		require.Zero(t, budget.Used())
	}
	// The second round asked for the series alone that has no labels.
	require.Equal(t, 4+1, asked)
	require.Equal(t, 2, sink.Writes())
	require.Len(t, sink.Written(), 2)
	require.Len(t, sink.Written()[`{__name__="m", place="1"}`].Samples, 4)
	require.NoError(t, testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP varve_ingest_bytes_total Bytes of request bodies by protocol, as received (form="wire") and decompressed (form="decoded").
# TYPE varve_ingest_bytes_total counter
varve_ingest_bytes_total{form="decoded",input="in",protocol="test"} 14
varve_ingest_bytes_total{form="wire",input="in",protocol="test"} 10
# HELP varve_ingest_in_flight_bytes Bytes of the requests that are being handled, by protocol.
# TYPE varve_ingest_in_flight_bytes gauge
varve_ingest_in_flight_bytes{input="in",protocol="test"} 0
# HELP varve_ingest_requests_total Write requests answered, by protocol and status code; appenders inside the process count a commit as 204, 400 or 503.
# TYPE varve_ingest_requests_total counter
varve_ingest_requests_total{code="400",input="in",protocol="test"} 2
`), "varve_ingest_bytes_total", "varve_ingest_in_flight_bytes", "varve_ingest_requests_total"))
}

// TestDeliveryComesAgain shows that of a delivery whose sender is told to bring it again nothing is counted but what was settled
// before, however often it comes, and all of it once it is stored or refused for good.
func TestDeliveryComesAgain(t *testing.T) {
	p, reg := newPort(ingesttest.NewSink(), ingest.Limits{})
	for _, code := range []int{503, 429, 503, 400} {
		d := p.Delivery()
		require.NoError(t, d.Add(keyOf(p, 1), 1, 1, 0))
		require.NoError(t, d.Write(t.Context(), named))
		d.Refuse(arrival.ReasonInvalidLine, 1, errors.New("a bad line"))
		d.Drop(arrival.ReasonText, 1)
		d.End(code)
	}
	d := p.Delivery()
	d.Refuse(arrival.ReasonInvalidLine, 10, errors.New("bad lines"))
	d.Settled()
	d.Refuse(arrival.ReasonInvalidLine, 100, errors.New("bad lines"))
	d.End(503)
	p.Delivery().End(503)
	require.EqualValues(t, 1, ingesttest.Counted(t, reg, "varve_ingest_written_total"))
	require.EqualValues(t, 11, ingesttest.Counted(t, reg, "varve_ingest_rejected_total"))
	require.EqualValues(t, 1, ingesttest.Counted(t, reg, "varve_ingest_dropped_total"))
	require.EqualValues(t, 6, ingesttest.Counted(t, reg, "varve_ingest_requests_total"))
}

// TestDeliveryInPieces shows that more than is written at a time is written in pieces, in bounded memory, and that a sink's refusals
// are those of the rows.
func TestDeliveryInPieces(t *testing.T) {
	sink := ingesttest.NewSink()
	sink.SeriesMax = 100
	budget := ingest.NewBudget(16 << 20)
	p, _ := newPort(sink, ingest.Limits{InFlight: budget})
	d := p.Delivery()
	rows := uint64(200_000)
	for n := range rows {
		require.NoError(t, d.Add(keyOf(p, n%101), n%101, int64(n), 0))
		if d.Full() {
			require.NoError(t, d.Write(t.Context(), named))
		}
	}
	require.NoError(t, d.Write(t.Context(), named))
	require.Equal(t, 4, sink.Writes())
	require.Equal(t, int(rows), d.Result().Samples+d.Result().Rejected[arrival.ReasonSeriesLimit])
	require.Equal(t, int(rows/101), d.Result().Rejected[arrival.ReasonSeriesLimit])
	d.End(400)
	require.Zero(t, budget.Used())
}

// TestDeliveryFails shows that trouble of the sink is the error of the write, of a class that is not the sender's, that a budget
// without room refuses, and that a delivery that failed is given back whole.
func TestDeliveryFails(t *testing.T) {
	sink := ingesttest.NewSink()
	budget := ingest.NewBudget(100 << 10)
	p, _ := newPort(sink, ingest.Limits{InFlight: budget})
	d := p.Delivery()
	require.NoError(t, d.Add(keyOf(p, 1), 1, 1, 1))
	sink.Err = &arrival.Unavailable{Reason: "disk_full", RetryAfter: 7 * time.Second, Err: io.ErrShortWrite}
	err := d.Write(t.Context(), named)
	code, after := ingest.Status(err)
	require.Equal(t, 503, code)
	require.Equal(t, 7*time.Second, after)
	d.End(code)
	sink.Err, sink.ResolveErr = nil, errors.New("no")
	d = p.Delivery()
	require.NoError(t, d.Add(keyOf(p, 2), 2, 1, 1))
	require.Error(t, d.Write(t.Context(), named))
	for err = nil; err == nil; {
		err = d.Add(keyOf(p, 1), 1, 1, 1)
	}
	require.ErrorIs(t, err, ingest.ErrOverload)
	d.End(503)
	require.Zero(t, budget.Used())
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	sink.ResolveErr = nil
	d = p.Delivery()
	require.NoError(t, d.Add(keyOf(p, 3), 3, 1, 1))
	require.ErrorIs(t, d.Write(canceled, named), context.Canceled)
	d.End(503)
}

// TestReadBody shows what of a body is read, in which encodings, and which class every fault is of.
func TestReadBody(t *testing.T) {
	zip := func(s string) string {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		_, _ = io.WriteString(w, s)
		_ = w.Close()
		return b.String()
	}
	long := strings.Repeat("0123456789", 20_000)
	for name, c := range map[string]struct {
		body, encoding string
		length         int64 // -1: chunked, 0: that of the body
		want           string
		class          error
	}{
		"plain":              {body: "abc", want: "abc"},
		"empty":              {},
		"identity":           {body: "abc", encoding: "Identity", want: "abc"},
		"chunked":            {body: long, length: -1, want: long},
		"gzip":               {body: zip(long), encoding: "gzip", want: long},
		"chunked gzip":       {body: zip("abc"), encoding: "x-gzip", length: -1, want: "abc"},
		"two gzip members":   {body: zip("ab") + zip("c"), encoding: "gzip", want: "abc"},
		"unknown":            {body: "abc", encoding: "br", class: ingest.ErrEncoding},
		"not gzip":           {body: "abc", encoding: "gzip", class: ingest.ErrMalformed},
		"half gzip":          {body: zip(long)[:100], encoding: "gzip", class: ingest.ErrMalformed},
		"bomb":               {body: zip(strings.Repeat("x", 1<<21)), encoding: "gzip", class: ingest.ErrTooBig},
		"too long":           {body: strings.Repeat("x", 1<<20+1), class: ingest.ErrTooBig},
		"too long, chunked":  {body: strings.Repeat("x", 1<<20+1), length: -1, class: ingest.ErrTooBig},
		"exactly long":       {body: strings.Repeat("x", 1<<20), length: -1, want: strings.Repeat("x", 1<<20)},
		"too long on wire":   {body: zip(noise(300 << 10)), encoding: "gzip", class: ingest.ErrTooBig},
		"the same, chunked":  {body: zip(noise(300 << 10)), encoding: "gzip", length: -1, class: ingest.ErrTooBig},
		"more than promised": {body: "abc", length: 10, class: ingest.ErrReading},
	} {
		t.Run(name, func(t *testing.T) {
			p, _ := newPort(ingesttest.NewSink(), ingest.Limits{CompressedBytesMax: 256 << 10, DecodedBytesMax: 1 << 20})
			for range 2 { // The second has the memory of the first.
				r := httptest.NewRequest(http.MethodPost, "/", io.NopCloser(&shortBody{Reader: strings.NewReader(c.body), ends: c.length > 0}))
				r.ContentLength = c.length
				if c.length == 0 {
					r.ContentLength = int64(len(c.body))
				}
				r.Header.Set("Content-Encoding", c.encoding)
				d := p.Delivery()
				got, err := d.ReadBody(r)
				if c.class != nil {
					require.ErrorIs(t, err, c.class)
				} else {
					require.NoError(t, err)
					require.Equal(t, c.want, string(got))
				}
				d.End(204)
				require.Zero(t, p.Limits().InFlight.Used())
			}
		})
	}
}

// noise does not compress.
func noise(n int) string {
	b := make([]byte, n)
	x := uint64(1)
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x)
	}
	return string(b)
}

// shortBody ends as a connection that breaks does, where it is told to.
type shortBody struct {
	io.Reader
	ends bool
}

// Read implements io.Reader.
func (s *shortBody) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err == io.EOF && s.ends {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// BenchmarkDelivery is what a delivery costs a sample of a known series, without the sink.
func BenchmarkDelivery(b *testing.B) {
	p, _ := newPort(nowhere{}, ingest.Limits{})
	keys := make([]arrival.Key, 1000)
	for i := range keys {
		keys[i] = keyOf(p, uint64(i))
	}
	b.ReportAllocs()
	for b.Loop() {
		d := p.Delivery()
		for i, k := range keys {
			if err := d.Add(k, uint64(i), 1, 1); err != nil {
				b.Fatal(err)
			}
		}
		if err := d.Write(b.Context(), named); err != nil {
			b.Fatal(err)
		}
		d.End(204)
	}
}

// nowhere knows every series.
type nowhere struct{}

func (nowhere) Seed() arrival.Seed { return 1 }

func (nowhere) Lookup(rows []arrival.Row) int {
	for i := range rows {
		rows[i].Ref = 1
	}
	return 0
}

func (nowhere) Resolve(context.Context, []arrival.Unknown) error { return nil }

func (nowhere) Write(_ context.Context, b *arrival.Batch) (arrival.Result, error) {
	return arrival.Result{Samples: len(b.Times)}, nil
}

// TestDeliveryLabels shows that the labels of new series are taken from the budget, and are bounded: a line may give its long tags to
// thousands of fields.
func TestDeliveryLabels(t *testing.T) {
	budget := ingest.NewBudget(64 << 20)
	sink := ingesttest.NewSink()
	p, _ := newPort(sink, ingest.Limits{InFlight: budget, DecodedBytesMax: 1 << 20})
	long := strings.Repeat("v", 16<<10)
	d := p.Delivery()
	const rows = 2000 // 32 MiB of labels
	for n := range uint64(rows) {
		require.NoError(t, d.Add(keyOf(p, n), 1000+n, 1, 1))
	}
	most := int64(0)
	require.NoError(t, d.Write(t.Context(), func(place uint64, sets *ingest.LabelSets) error {
		most = max(most, budget.Used())
		sets.Add("long", long)
		return named(place, sets)
	}))
	require.Equal(t, rows, d.Result().Samples)
	require.Greater(t, most, int64(7<<20), "labels are counted")
	require.Less(t, most, int64(10<<20), "and forgotten when they are known")
	d.End(204)
	require.Zero(t, budget.Used())
	require.Len(t, sink.Written(), rows)
}
