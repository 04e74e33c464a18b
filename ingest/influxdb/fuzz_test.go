package influxdb_test

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"varve/ingest/influxdb"
	"varve/ingest/ingesttest"
)

// hostile are the bodies of testdata/hostile.
func hostile(t testing.TB) map[string][]byte {
	t.Helper()
	names, err := filepath.Glob("testdata/hostile/*")
	require.NoError(t, err)
	require.NotEmpty(t, names)
	out := map[string][]byte{}
	for _, name := range names {
		body, err := os.ReadFile(name)
		require.NoError(t, err)
		out[filepath.Base(name)] = body
	}
	return out
}

const goodLine = "\ngood v=1 5000000\n"

// TestHostile shows that no body keeps the line behind it from being stored, or takes long:
// each is repeated to a megabyte.
func TestHostile(t *testing.T) {
	for name, body := range hostile(t) {
		t.Run(name, func(t *testing.T) {
			sink := ingesttest.NewSink()
			in := newInput(sink, influxdb.Options{TextLabels: []string{"t"}})
			began := time.Now()
			w := send(in.Write(), "/write", string(bytes.Repeat(body, 1+(1<<20)/len(body)))+goodLine)
			require.Contains(t, []int{204, 400}, w.Code)
			require.Contains(t, samples(sink), `{__name__="good_v"} 5 1`)
			// What takes time in the square of the size takes hours.
			require.Less(t, time.Since(began), 3*time.Minute)
		})
	}
}

// FuzzLines shows that no body makes the decoder panic or lose the line behind it, that a
// second body of known keys is stored alike, and that pieces and datagrams are as the whole.
func FuzzLines(f *testing.F) {
	for _, c := range judgedBodies {
		if len(c.body) < 1000 {
			f.Add([]byte(c.body), uint8(7))
		}
	}
	for _, body := range hostile(f) {
		f.Add(body, uint8(1))
	}
	f.Fuzz(func(t *testing.T, body []byte, piece uint8) {
		if len(body) > 1<<16 {
			return
		}
		o := influxdb.Options{Characters: influxdb.UTF8, TextLabels: []string{"t"}, LineBytesMax: 1 << 17}
		whole, pieces, datagrams := ingesttest.NewSink(), ingesttest.NewSink(), ingesttest.NewSink()
		h := newInput(whole, o).Write()
		first := send(h, "/write", string(body)+goodLine)
		want := samples(whole)
		require.Contains(t, want, `{__name__="good_v"} 5 1`)
		second := send(h, "/write", string(body)+goodLine)
		require.Equal(t, first.Body.String(), second.Body.String())
		require.Equal(t, want, samples(whole))

		in := newInput(pieces, o)
		report, err := in.Import(t.Context(), chunks(string(body)+goodLine, int(piece)+1, nil), influxdb.Precision{})
		require.NoError(t, err)
		require.Equal(t, want, samples(pieces))
		require.EqualValues(t, len(body)+len(goodLine), report.Bytes)

		if len(body) < 32<<10 {
			require.NoError(t, newInput(datagrams, o).DeliverUDP(t.Context(), []byte("open t=\"x"), slices.Concat(body, []byte(goodLine)), []byte("y\",v=1")))
			got := samples(datagrams)
			for _, line := range want {
				require.Contains(t, got, line)
			}
		}
	})
}

// FuzzGzip shows that broken gzip is refused, by requests and imports alike, and kills nothing.
func FuzzGzip(f *testing.F) {
	good := zipped(f, "a b=1\nc d=2 5\n")
	f.Add([]byte(good))
	f.Add([]byte(good[:len(good)-5]))
	f.Add([]byte(good + good))
	f.Add([]byte(good + "x"))
	f.Add([]byte(zipped(f, strings.Repeat("a b=1\n", 10_000))))
	f.Fuzz(func(t *testing.T, body []byte) {
		sink := ingesttest.NewSink()
		in := newInput(sink, influxdb.Options{})
		a := send(in.Write(), "/write", string(body), "Content-Encoding", "gzip")
		require.Contains(t, []int{204, 400, 413}, a.Code)
		b := send(in.ImportHandler(), "/", string(body), "Content-Encoding", "gzip")
		require.Contains(t, []int{200, 400}, b.Code)
		if a.Code == 204 {
			require.Equal(t, 200, b.Code)
		}
	})
}

var (
	floats   = regexp.MustCompile(`^-?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$`)
	integers = regexp.MustCompile(`^-?\d+i$`)
	unsigned = regexp.MustCompile(`^\d+u$`)
	booleans = map[string]float64{"t": 1, "T": 1, "true": 1, "True": 1, "TRUE": 1, "f": 0, "F": 0, "false": 0, "False": 0, "FALSE": 0}
)

// reference reads a value with strconv.
func reference(token string) (value float64, ok bool) {
	var err error
	switch {
	case floats.MatchString(token):
		value, err = strconv.ParseFloat(token, 64)
	case integers.MatchString(token):
		var n int64
		n, err = strconv.ParseInt(token[:len(token)-1], 10, 64)
		value = float64(n)
	case unsigned.MatchString(token):
		var n uint64
		n, err = strconv.ParseUint(token[:len(token)-1], 10, 64)
		value = float64(n)
	default:
		value, ok = booleans[token]
		return value, ok
	}
	return value, err == nil
}

// FuzzValue compares values, bit for bit, with what strconv makes of them.
func FuzzValue(f *testing.F) {
	for _, s := range []string{
		"1", "-0", "0i", "-0i", "1.5", ".5", "5.", "1e5", "1E-5", "9223372036854775807i", "-9223372036854775808i", "18446744073709551615u", "9007199254740993", "9007199254740993.5",
		"0.1234567890123456789", "44667375401.9253275", "337.83147282794969", "123456789012345678901234567890", "0.000000000000000000000000001", "1e400", "t", "TRUE", "nan", "0x10", "1_0", "00000000000000000000000001i", "1.7976931348623157e308", "4.9e-324",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, token string) {
		if strings.ContainsAny(token, "\", \n\r\\=") {
			return
		}
		sink := ingesttest.NewSink()
		w := send(newInput(sink, influxdb.Options{}).Write(), "/write", "m f="+token+" 5000000")
		want, ok := reference(token)
		if !ok {
			require.Equal(t, 400, w.Code)
			return
		}
		require.Equal(t, 204, w.Code, w.Body)
		require.Equal(t, math.Float64bits(want), sink.Written()[`{__name__="m_f"}`].Samples[0].Bits)
	})
}

var escaper = strings.NewReplacer(",", `\,`, " ", `\ `, "=", `\=`)

// FuzzRoundTrip shows that what an encoder writes is what is stored.
func FuzzRoundTrip(f *testing.F) {
	f.Add("cpu", "host", "a b", "usage,user=", 1.5, int64(1_700_000_000_000))
	f.Add("a,b c", "k=,", "é", "x", math.Copysign(0, -1), int64(-1))
	f.Add("m", "quote", `"x"`, `"f"`, 5e-324, int64(0))
	f.Fuzz(func(t *testing.T, measurement, key, value, field string, v float64, millis int64) {
		for _, s := range []string{measurement, key, value, field} {
			// The protocol has no escape for these.
			if s == "" || len(s) > 200 || strings.ContainsAny(s, "\\\n\r") || !utf8.ValidString(s) {
				return
			}
		}
		if strings.ContainsAny(measurement[:1], "#\t\x00") || strings.ContainsAny(field[:1], "\t\x00") || math.IsNaN(v) || math.IsInf(v, 0) || millis > math.MaxInt64/1_000_000-1 || millis < -math.MaxInt64/1_000_000+1 ||
			strings.Contains(measurement, "=") || key == model.MetricNameLabel {
			return
		}
		line := escaper.Replace(measurement) + "," + escaper.Replace(key) + "=" + escaper.Replace(value) + " " + escaper.Replace(field) + "=" +
			strconv.FormatFloat(v, 'g', -1, 64) + " " + strconv.FormatInt(millis*1_000_000, 10)
		sink := ingesttest.NewSink()
		w := send(newInput(sink, influxdb.Options{Characters: influxdb.UTF8, AppendValue: true, Separator: "|", BareMeasurements: []string{}}).Write(), "/write", line)
		require.Equal(t, 204, w.Code, "%s: %s", line, w.Body)
		require.Equal(t, []string{fmt.Sprintf("%s %d %v", labels.FromStrings(model.MetricNameLabel, measurement+"|"+field, key, value), millis, v)}, samples(sink))
	})
}

// FuzzQuery shows that no query makes the parser panic, and that all answers are JSON of one kind.
func FuzzQuery(f *testing.F) {
	for _, q := range []string{`CREATE DATABASE "a\"b" WITH DURATION 1d; SHOW DATABASES`, "SHOW RETENTION POLICIES ON x", "SELECT * FROM a", `"`, `CREATE DATABASE "\`, ";;;", "create retention policy r on d"} {
		f.Add(q)
	}
	in := newInput(ingesttest.NewSink(), influxdb.Options{})
	f.Fuzz(func(t *testing.T, q string) {
		w := send(in.Query(), "/query?db=d&q="+percent(q), "")
		require.Contains(t, []int{200, 400}, w.Code)
		if w.Code == 200 {
			require.Contains(t, w.Body.String(), `{"results":[{"statement_id":0`)
		} else {
			require.NotEmpty(t, errorOf(t, w.Body.Bytes()))
		}
	})
}

func percent(s string) string {
	var b strings.Builder
	for i := range len(s) {
		fmt.Fprintf(&b, "%%%02X", s[i])
	}
	return b.String()
}
