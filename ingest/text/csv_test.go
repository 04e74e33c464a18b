package text_test

import (
	"context"
	"encoding/csv"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"varve/arrival"
	"varve/ingest"
	"varve/ingest/ingesttest"
	"varve/ingest/text"
)

const csvFormat = "1:label:host,2:metric:cpu,3:metric:mem,4:time:unix_ms"

// TestCSVRecords shows what becomes of each kind of record, and of which the sender is told.
func TestCSVRecords(t *testing.T) {
	for _, c := range []struct {
		name, format, record, want, reason string
		parameters                         []string
	}{
		{name: "plain", record: "a,1,2,5", want: join(`{__name__="cpu", host="a"} 1 @5`, `{__name__="mem", host="a"} 2 @5`)},
		{name: "carriage return", record: "a,1,2,5\r", want: join(`{__name__="cpu", host="a"} 1 @5`, `{__name__="mem", host="a"} 2 @5`)},
		{name: "quotes", record: `"a,""b"" ","1","2","5"`, want: join(`{__name__="cpu", host="a,\"b\" "} 1 @5`, `{__name__="mem", host="a,\"b\" "} 2 @5`)},
		{name: "lines within quotes", record: "\"a\nb\r\n\",1,,5", want: `{__name__="cpu", host="a\nb\r\n"} 1 @5`},
		{name: "quote within", record: `5" disk,1,,5`, want: `{__name__="cpu", host="5\" disk"} 1 @5`},
		{name: "empty value", record: "a,,2,5", want: `{__name__="mem", host="a"} 2 @5`},
		{name: "empty label", record: ",1,,5", want: `{__name__="cpu"} 1 @5`},
		{name: "quoted empty label", record: `"",1,,5`, want: `{__name__="cpu"} 1 @5`},
		{name: "no values", record: "a,,,5", want: ""},
		{name: "more columns", record: `a,1,,5,x,"y,z",`, want: `{__name__="cpu", host="a"} 1 @5`},
		{name: "seconds", format: "1:time:unix_s,2:metric:m", record: "1600000000,1", want: `{__name__="m"} 1 @1600000000000`},
		{name: "fraction of seconds", format: "1:time:unix_s,2:metric:m", record: "1600000000.1239,1", want: `{__name__="m"} 1 @1600000000123`},
		{name: "microseconds", format: "1:time:unix_us,2:metric:m", record: "1600000000123999,1", want: `{__name__="m"} 1 @1600000000123`},
		{name: "nanoseconds", format: "1:time:unix_ns,2:metric:m", record: "1600000000123999999,1", want: `{__name__="m"} 1 @1600000000123`},
		{name: "nanoseconds before 1970", format: "1:time:unix_ns,2:metric:m", record: "-1,1", want: `{__name__="m"} 1 @-1`},
		{name: "RFC 3339", format: "1:time:rfc3339,2:metric:m", record: "2020-09-13T12:26:40.5+00:00,1", want: `{__name__="m"} 1 @1600000000500`},
		{name: "layout", format: "1:time:custom:2006-01-02 15:04:05,2:metric:m", record: "2020-09-13 12:26:41,1", want: `{__name__="m"} 1 @1600000001000`},
		{name: "no time", format: "2:metric:m", record: "x,2", want: `{__name__="m"} 2 @1700000000000`},
		{name: "default time", format: "2:metric:m", record: "x,2", want: `{__name__="m"} 2 @7`, parameters: []string{"timestamp", "7"}},
		{name: "extra label", format: "1:label:host,2:metric:m", record: "x,2", want: `{__name__="m", host="y"} 2 @1700000000000`, parameters: []string{"extra_label", "host=y"}},
		{name: "metric by extra label", format: "1:label:host,2:metric:m", record: "x,1", want: `{__name__="n", host="x"} 1 @1700000000000`, parameters: []string{"extra_label", "__name__=n"}},

		{name: "one value is none", record: "a,x,2,5", want: `{__name__="mem", host="a"} 2 @5`, reason: "invalid_value: 1"},
		{name: "no time there", record: "a,1,2,", reason: "invalid_line: 1"},
		{name: "bad time", record: "a,1,2,soon", reason: "invalid_line: 1"},
		{name: "too few", record: "a,1", reason: "invalid_line: 1"},
		{name: "behind the quote", record: `"a"b,1,2,5`, reason: "invalid_line: 1"},
		{name: "open quote", record: `"a,1,2,5`, reason: "invalid_line: 1"},
		{name: "open quote at the end", record: `a,1,2,"`, reason: "invalid_line: 1"},
		{name: "not UTF-8", record: "\xff,1,,5", reason: "invalid_labels: 1"},
		{name: "long", record: strings.Repeat("x", 1<<20) + ",1,2,5", reason: "invalid_line: 1"},
		{name: "long label", record: strings.Repeat("x", 17<<10) + ",1,2,5", reason: "invalid_labels: 2"},
	} {
		format := c.format
		if format == "" {
			format = csvFormat
		}
		good := "good,1,,5"
		switch {
		case strings.Contains(format, "unix_"):
			good = strings.NewReplacer("1:time:unix_s,2:metric:m", "5,1", "1:time:unix_us,2:metric:m", "5,1", "1:time:unix_ns,2:metric:m", "5,1", csvFormat, good).Replace(format)
		case strings.Contains(format, "rfc3339"):
			good = "2020-09-13T12:26:40Z,1"
		case strings.Contains(format, "custom"):
			good = "2020-09-13 12:26:40,1"
		default:
			good = "good,1"
		}
		for _, known := range []bool{false, true} {
			alone := newImporter(text.Options{})
			alone.csv(t, good+"\n", format, c.parameters...)
			i := newImporter(text.Options{})
			body := join(good, c.record, good, "")
			if known {
				i.csv(t, body, format, c.parameters...)
				i.sink.Clear()
			}
			var a answer
			if len(body) < 1<<16 {
				a = i.send(t, i.in.CSV(), request("/", dribble(body), append(c.parameters, "format", format)...))
			} else {
				a = i.csv(t, body, format, c.parameters...)
			}
			goodLine := alone.written()
			got := strings.Split(i.written(), "\n")
			var rest []string
			goods := 0
			for _, line := range got {
				if line == goodLine {
					goods++
				} else {
					rest = append(rest, line)
				}
			}
			require.Equal(t, 2, goods, "%s: %s", c.name, i.written())
			require.Equal(t, c.want, strings.Join(rest, "\n"), c.name)
			if c.reason == "" {
				require.Equal(t, http.StatusNoContent, a.code, "%s: %s", c.name, a.body)
				continue
			}
			require.Equal(t, http.StatusBadRequest, a.code, c.name)
			require.Equal(t, c.reason, a.Reasons, c.name)
			require.Contains(t, a.Examples[0], "line 2: ", c.name)
		}
	}
}

// TestCSVFormats shows which formats are refused.
func TestCSVFormats(t *testing.T) {
	i := newImporter(text.Options{})
	for _, format := range []string{
		"", "x", "1", "1:metric", "1:metric:", "0:metric:a", "-1:metric:a", "2000:metric:a", "a:metric:a", "1:value:a", "1:label:a", "1:metric:a,1:label:b",
		"1:time:unix_s,2:time:unix_s,3:metric:a", "1:time:unix,2:metric:a", "1:time:custom:,2:metric:a", "1:metric:a,", "1:label:a,2:label:a,3:metric:m", "1:label:__name__,2:metric:m",
	} {
		a := i.csv(t, "1,2,3", format)
		require.Equal(t, http.StatusBadRequest, a.code, format)
		require.Contains(t, a.Error, "format", format)
	}
	require.Equal(t, http.StatusBadRequest, i.csv(t, "", csvFormat, "header", "x").code)
	require.Equal(t, http.StatusBadRequest, i.csv(t, "", csvFormat, "header", "-1").code)
	require.Empty(t, i.sink.Written())
}

// TestCSVHeader shows that a byte order mark and records of a header are passed over, and that lines are counted with them.
func TestCSVHeader(t *testing.T) {
	i := newImporter(text.Options{})
	a := i.csv(t, "\ufeffhost,\"the\ncpu\",mem,time\na,1,,5\nb,x,,5\n", csvFormat, "header", "1")
	require.Equal(t, http.StatusBadRequest, a.code)
	require.Equal(t, `{__name__="cpu", host="a"} 1 @5`, i.written())
	require.Equal(t, []string{`line 4: no number in column 2: "x"`}, a.Examples)
}

// TestCSVAnyWindow shows that the same is stored whatever the window's size and however the bytes come, and that it is what
// encoding/csv reads.
func TestCSVAnyWindow(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var body strings.Builder
	w := csv.NewWriter(&body)
	w.UseCRLF = true
	want := 0
	for n := range 20_000 {
		label := []string{"", "a", "a b", "a,b", `a"b`, "a\nb", "\"\"", strings.Repeat("ö", r.IntN(100)), "\r\n"}[r.IntN(9)]
		require.NoError(t, w.Write([]string{fmt.Sprint(n%50, label), fmt.Sprint(n), "", fmt.Sprint(n)}))
		want++
	}
	w.Flush()
	whole := newImporter(text.Options{WindowBytesMax: 64 << 20})
	require.Equal(t, http.StatusNoContent, whole.csv(t, body.String(), csvFormat).code)
	require.Len(t, strings.Split(whole.written(), "\n"), want)
	records, err := csv.NewReader(strings.NewReader(body.String())).ReadAll()
	require.NoError(t, err)
	written := whole.sink.Written()
	for _, record := range records {
		// encoding/csv reads a line end within quotes as one character.
		if strings.Contains(record[0], "\n") {
			continue
		}
		require.Contains(t, written, fmt.Sprintf(`{__name__="cpu", host=%q}`, record[0]))
	}
	for _, window := range []int{128 << 10, 150_001, 1 << 20} {
		i := newImporter(text.Options{WindowBytesMax: window})
		a := i.send(t, i.in.CSV(), request("/", &chunky{strings.NewReader(body.String()), r}, "format", csvFormat))
		require.Equal(t, http.StatusNoContent, a.code, a.body)
		require.Equal(t, whole.written(), i.written())
	}
}

// TestCSVOpenQuotes shows that quotes that are never closed take their own lines alone, in time that grows with the body
// and not with its square.
func TestCSVOpenQuotes(t *testing.T) {
	const n = 100_000
	for _, line := range []string{"\"a\n", "a,\"\n", "\"a\"b\n", "\"\"\"\n", "\"\"x\n"} {
		i := newImporter(text.Options{})
		a := i.csv(t, strings.Repeat(line, n)+"good,1,,5\n", csvFormat)
		require.Equal(t, http.StatusBadRequest, a.code)
		require.Positive(t, a.Refused)
		if strings.Count(line, `"`)%2 == 0 {
			require.Equal(t, n, a.Refused)
			require.Equal(t, `{__name__="cpu", host="good"} 1 @5`, i.written())
		}
	}
	var body strings.Builder
	for k := range 1000 {
		if k == 500 {
			body.WriteString("\"open,1,2,5\n")
		}
		fmt.Fprintf(&body, "h%d,1,,5\n", k)
	}
	i := newImporter(text.Options{})
	a := i.csv(t, body.String(), csvFormat)
	require.Equal(t, 1, a.Refused)
	require.Contains(t, a.Examples[0], "line 501: a quote that is never closed")
	require.Len(t, i.sink.Written(), 1000)
}

// FuzzCSV shows that no body makes the reader panic, keep memory of its budget or loop, and that records which encoding/csv
// reads are read alike.
func FuzzCSV(f *testing.F) {
	for _, s := range []string{"a,1,2,5", "\"a\"\"b\",1,2,5\r\n", "\"a\nb\",1,,5\n", "a,1,2,5,\"x", "\"", ",,,\n", "a\",1,2,5", "\xef\xbb\xbfa,1,2,3", "\r\n\r\n", "\"a\" ,1,2,3\n", "\"\r"} {
		f.Add(s, csvFormat, uint8(0))
	}
	f.Add("1600000000,2", "1:time:unix_s,2:metric:m", uint8(1))
	f.Add("2020-09-13T12:26:40Z,2", "1:time:rfc3339,2:metric:m", uint8(0))
	f.Add("x,2", "1:time:custom:Jan 2,2:metric:m", uint8(0))
	i := newImporter(text.Options{WindowBytesMax: 128 << 10, LineBytesMax: 4096})
	f.Fuzz(func(t *testing.T, body, format string, header uint8) {
		i.sink.Clear()
		a := i.csv(t, body, format, "header", fmt.Sprint(header), "verbose", "1")
		require.Contains(t, []int{200, 400}, a.code)
		for _, example := range a.Examples {
			for _, r := range example {
				require.True(t, r >= 0x20 && r < 0x7f, "%q", example)
			}
		}
		if format != "1:metric:m" || header != 0 || len(body) > 4000 || strings.IndexByte(body, '\r') >= 0 || strings.IndexByte(body, 0xef) >= 0 {
			return
		}
		reader := csv.NewReader(strings.NewReader(body))
		reader.FieldsPerRecord = -1
		records, err := reader.ReadAll()
		if err != nil {
			return
		}
		numbers := 0
		for _, record := range records {
			if record[0] != "" {
				numbers++
			}
		}
		require.Equal(t, numbers, a.Samples+a.Refused, body)
	})
}

// heaviest is a sink that remembers the most bytes of labels that came at once.
type heaviest struct {
	*ingesttest.Sink
	bytes uint64
}

func (h *heaviest) Resolve(ctx context.Context, unknown []arrival.Unknown) error {
	bytes := uint64(0)
	for _, u := range unknown {
		bytes += u.Labels.ByteSize()
	}
	h.bytes = max(h.bytes, bytes)
	return h.Sink.Resolve(ctx, unknown)
}

// TestCSVLongLabels shows that a record which gives long labels to many columns is stored without all of their
// copies in memory.
func TestCSVLongLabels(t *testing.T) {
	sink := &heaviest{Sink: ingesttest.NewSink()}
	in := text.New(sink, ingest.Limits{}, ingest.NewMetrics(nil), discard, fixedNow, text.Options{})
	const labels, metrics = 20, 100
	var format []string
	for c := range labels + metrics {
		role := "label"
		if c >= labels {
			role = "metric"
		}
		format = append(format, fmt.Sprintf("%d:%s:c%d", c+1, role, c))
	}
	record := strings.Repeat(strings.Repeat("x", 10_000)+",", labels) + strings.Repeat("1,", metrics-1) + "1\n"
	w := httptest.NewRecorder()
	in.CSV().ServeHTTP(w, request("/api/v1/import/csv", strings.NewReader(record), "format", strings.Join(format, ",")))
	require.Equal(t, http.StatusNoContent, w.Code, w.Body)
	require.Equal(t, metrics, sink.SeriesCount())
	require.Len(t, sink.Written(), metrics)
	require.Less(t, sink.bytes, uint64(9<<20))
}
