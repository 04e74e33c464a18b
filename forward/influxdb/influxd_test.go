package influxdb_test

import (
	"context"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/stretchr/testify/require"

	"varve/forward"
	"varve/forward/influxdb"
	"varve/forward/lineprotocol"
	"varve/internal/gate/peers"
	"varve/internal/gate/server"
)

// strange is a batch with what is hard to write, all of which the protocol can hold.
func strange(t testing.TB, s forward.Sender) *forward.Batch {
	return &forward.Batch{Series: []forward.Series{
		series(t, s, labels.FromStrings("__name__", "up"), 1, 0),
		series(t, s, labels.FromStrings("__name__", "up", "job", "a b,c=d", "path", `C:\Windows\x`), 1),
		series(t, s, labels.FromStrings("__name__", "job:rate:sum", "quote", `"in" quotes"`, "é世", "世界"), 0.1, 1e-300, math.MaxFloat64, 5e-324, 1<<53, 1<<53+2, -1e15),
		series(t, s, labels.FromStrings("__name__", "a b,c=d\"e", "k ,=1", "v"), -1.5),
		series(t, s, labels.FromStrings("__name__", "skips", "i", "1"), math.NaN(), 1, math.Inf(1), 2, math.Inf(-1), math.Float64frombits(value.StaleNaN)),
		series(t, s, labels.FromStrings("__name__", "value", "value", "value"), 7),
	}}
}

// What is sent to InfluxDB arrives sample by sample, over both protocols, compressed or not, in every precision.
func TestInfluxd(t *testing.T) {
	for name, version := range map[string]struct {
		binary func(testing.TB) string
		o      influxdb.Options
	}{
		"1.6":           {peers.InfluxDB16, influxdb.Options{Database: "metrics"}},
		"1.6 gzip ms":   {peers.InfluxDB16, influxdb.Options{Database: "metrics", Gzip: true, Precision: lineprotocol.Milliseconds, RetentionPolicy: "autogen", Consistency: "one"}},
		"1.6 us":        {peers.InfluxDB16, influxdb.Options{Database: "metrics", Precision: lineprotocol.Microseconds}},
		"1.6 s u p":     {peers.InfluxDB16, influxdb.Options{Database: "metrics", Precision: lineprotocol.Seconds, User: "u", Password: "p"}},
		"1.8 v2":        {peers.InfluxDB18, influxdb.Options{Protocol: influxdb.V2, Org: "o", Bucket: "metrics", Token: "u:p"}},
		"1.8 v2 gzip u": {peers.InfluxDB18, influxdb.Options{Protocol: influxdb.V2, Bucket: "metrics/autogen", Gzip: true, Precision: lineprotocol.Microseconds}},
	} {
		t.Run(name, func(t *testing.T) {
			influx := startInflux(t, version.binary(t))
			version.o.URL = influx.URL("")
			s := newSender(t, version.o)
			b := strange(t, s)
			for range 2 { // what is sent again changes nothing
				out, err := s.Send(t.Context(), b)
				require.NoError(t, err)
				require.Equal(t, map[string]int{lineprotocol.ReasonNotFinite: 3, lineprotocol.ReasonStale: 1}, out.Skipped)
				require.Empty(t, out.Refusals)
			}
			require.Equal(t, wanted(b), stored(t, influx, "value"))
		})
	}
}

// Tags that the target keeps for itself, and backslashes and newlines that the protocol can't hold, are written as what comes closest.
func TestInfluxdReserved(t *testing.T) {
	influx := startInflux(t, peers.InfluxDB16(t))
	s := newSender(t, influxdb.Options{URL: influx.URL("/"), Database: "metrics"})
	_, err := s.Send(t.Context(), &forward.Batch{Series: []forward.Series{
		series(t, s, labels.FromStrings("__name__", "#m", "time", "noon", "_field", "f"), 1),
		series(t, s, labels.FromStrings("__name__", "m\n\tx", "a", `ends\`, "b", "x\\,y\\=\\ z\n\\\n", "c", "\x00\ty"), 1),
	}})
	require.NoError(t, err)
	require.Equal(t, []string{`\#m,_field_=f,time_=noon`, `m\n\tx,a=ends/,b=x/,y/=/ z\n/\n,c=\0\ty`}, slices.Sorted(maps.Keys(stored(t, influx, "value"))))
}

// Datagrams carry as many lines as fit, and what arrives is the same.
func TestInfluxdUDP(t *testing.T) {
	influx := startInflux(t, peers.InfluxDB16(t))
	s := newSender(t, influxdb.Options{Protocol: influxdb.UDP, URL: "udp://" + influx.UDP, DatagramBytesMax: 200})
	b := strange(t, s)
	long := series(t, s, labels.FromStrings("__name__", "long", "l", strings.Repeat("x", 300)), 1, 2)
	tooLong := series(t, s, labels.FromStrings("__name__", "too_long", "l", strings.Repeat("x", 66000)), 1)
	b.Series = append(b.Series, tooLong, long)
	want := wanted(b)
	delete(want, "too_long,l="+strings.Repeat("x", 66000))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	// InfluxDB listens for datagrams a moment after it listens for requests.
	looks, sent := 0, false
	require.NoError(t, server.Wait(ctx, "the datagrams are stored", func() (bool, error) {
		if !sent || looks%50 == 0 {
			out, err := s.Send(ctx, b)
			if sent = err == nil; !sent {
				return false, err
			}
			require.Equal(t, map[string]int{lineprotocol.ReasonNotFinite: 3, lineprotocol.ReasonStale: 1, influxdb.ReasonTooLong: 1}, out.Skipped)
		}
		looks++
		return len(slices.Concat(slices.Collect(maps.Values(stored(t, influx, "value")))...)) >= len(slices.Concat(slices.Collect(maps.Values(want))...)), nil
	}))
	require.Equal(t, want, stored(t, influx, "value"))
}

// A field that has another type at the target, points older than the retention, and both at once: the rest is stored, and just those are refused.
func TestInfluxdPartialWrites(t *testing.T) {
	for name, binary := range map[string]func(testing.TB) string{"1.6": peers.InfluxDB16, "1.8": peers.InfluxDB18} {
		t.Run(name, func(t *testing.T) {
			influx := startInflux(t, binary(t))
			influx.Query(t, "metrics", `CREATE RETENTION POLICY short ON metrics DURATION 24h REPLICATION 1`)
			now := time.Now().Truncate(time.Second).UnixMilli()
			s := newSender(t, influxdb.Options{URL: influx.URL(""), Database: "metrics", RetentionPolicy: "short"})
			// An integer, which only others write.
			status, body := postLines(t, influx.URL("/write?db=metrics&rp=short"), "ints value=1i\n")
			require.Equal(t, 204, status, body)

			good := series(t, s, labels.FromStrings("__name__", "good", "i", "1"), 1, 2, 3)
			bad := series(t, s, labels.FromStrings("__name__", "ints", "i", "1"), 4, 5)
			bad2 := series(t, s, labels.FromStrings("__name__", "ints", "i", "2"), math.NaN(), 6)
			b := &forward.Batch{Series: []forward.Series{good, bad, bad2}}
			for i := range b.Series {
				for j := range b.Series[i].Floats {
					b.Series[i].Floats[j].TimeMillis += now - start
				}
			}
			b.Series[0].Floats[0].TimeMillis -= (96 * time.Hour).Milliseconds()
			out := send(t, s, b)
			require.Equal(t, map[string]int{lineprotocol.ReasonNotFinite: 1}, out.Skipped)
			var refused [][2]int
			for _, r := range out.Refusals {
				refused = append(refused, [2]int{r.Series, r.Float})
				if r.Series == 0 {
					require.Contains(t, r.Reason, "points beyond retention policy")
				} else {
					require.Contains(t, r.Reason, "field type conflict")
				}
			}
			require.ElementsMatch(t, [][2]int{{0, 0}, {1, 0}, {1, 1}, {2, 1}}, refused)
			rows := influx.Query(t, "metrics", `SELECT value FROM short.good`)
			require.Len(t, rows[0].Values, 2)
		})
	}
}

// A route's rows arrive, and of a row with one field of another type the other fields do.
func TestInfluxdRouted(t *testing.T) {
	influx := startInflux(t, peers.InfluxDB16(t))
	s := newSender(t, influxdb.Options{URL: influx.URL(""), Database: "metrics", Histograms: lineprotocol.CountAndSum,
		Route: &lineprotocol.Route{MeasurementLabel: "prefix", DefaultMeasurement: "rest", DropLabels: []string{"unit"}}})
	status, body := postLines(t, influx.URL("/write?db=metrics&precision=ms"), "tank,system=heros a_raw_value=1i 1700000000000\n")
	require.Equal(t, 204, status, body)
	h := series(t, s, labels.FromStrings("__name__", "lat", "job", "j"))
	h.Histograms = []forward.Histogram{{TimeMillis: start, Int: &histogram.Histogram{Count: 3, Sum: 4.5}}, {TimeMillis: start, Int: &histogram.Histogram{Sum: math.Float64frombits(value.StaleNaN)}}}
	out := send(t, s, &forward.Batch{Series: []forward.Series{
		series(t, s, labels.FromStrings("__name__", "a_inbound", "prefix", "tank", "system", "heros"), 1, 2),
		series(t, s, labels.FromStrings("__name__", "a_value", "prefix", "tank", "system", "heros", "unit", "m"), 3, math.NaN()),
		series(t, s, labels.FromStrings("__name__", "a_raw_value", "prefix", "tank", "system", "heros"), 5, 6),
		series(t, s, labels.FromStrings("__name__", "up", "job", "j"), 1),
		h,
	}})
	require.Equal(t, map[string]int{lineprotocol.ReasonNotFinite: 1, lineprotocol.ReasonStale: 1}, out.Skipped)
	var refused [][2]int
	for _, r := range out.Refusals {
		refused = append(refused, [2]int{r.Series, r.Float})
	}
	require.ElementsMatch(t, [][2]int{{2, 0}, {2, 1}}, refused)
	two := float64(2)
	require.Equal(t, map[string][]sample{"tank,system=heros": {{start * 1_000_000, math.Float64bits(1)}, {(start + 1000) * 1_000_000, math.Float64bits(two)}}}, stored(t, influx, "a_inbound"))
	require.Equal(t, map[string][]sample{"tank,system=heros": {{start * 1_000_000, math.Float64bits(3)}}}, stored(t, influx, "a_value"))
	rest := influx.Query(t, "metrics", `SELECT up, lat_count, lat_sum FROM rest`)
	require.Equal(t, "[1700000000000000000 1 3 4.5]", formatted(rest[0].Values[0]))
}

// A database or policy that isn't there stops the output, and says so.
func TestInfluxdBlocked(t *testing.T) {
	influx := startInflux(t, peers.InfluxDB16(t))
	for _, c := range []struct {
		o    influxdb.Options
		said string
	}{
		{influxdb.Options{Database: "nowhere"}, `database not found: "nowhere"`},
		{influxdb.Options{Database: "metrics", RetentionPolicy: "none"}, "retention policy not found"},
		{influxdb.Options{}, "database is required"},
		{influxdb.Options{Protocol: influxdb.V2, Bucket: "metrics"}, "404"},
	} {
		c.o.URL = influx.URL("")
		s := newSender(t, c.o)
		_, err := s.Send(t.Context(), &forward.Batch{Series: []forward.Series{series(t, s, labels.FromStrings("__name__", "up"), 1)}})
		var blocked *forward.Blocked
		require.ErrorAs(t, err, &blocked, c.said)
		require.ErrorContains(t, err, c.said)
	}
}
