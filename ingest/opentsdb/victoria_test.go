package opentsdb_test

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"varve/ingest"
	"varve/ingest/ingesttest"
	"varve/ingest/opentsdb"
	"varve/internal/gate/peers"
	"varve/internal/gate/server"
)

// stored is what an archive holds, by the text of labels.
type stored map[string][]forwarded

type forwarded struct {
	millis int64
	value  float64
}

// exported reads everything back.
func exported(t *testing.T, vm *peers.Victoria) stored {
	t.Helper()
	out := stored{}
	for _, series := range vm.Exported(t) {
		key := labels.FromMap(series.Metric).String()
		for i, v := range series.Values {
			out[key] = append(out[key], forwarded{series.Timestamps[i], v})
		}
	}
	return out
}

func held(sink *ingesttest.Sink) stored {
	out := stored{}
	for name, s := range sink.Written() {
		for _, v := range s.Samples {
			out[name] = append(out[name], forwarded{v.TimeMillis, math.Float64frombits(v.Bits)})
		}
	}
	return out
}

// alike waits until VictoriaMetrics holds what the sink does.
func alike(t *testing.T, vm *peers.Victoria, sink *ingesttest.Sink) {
	t.Helper()
	want := held(sink)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var got stored
	err := server.Wait(ctx, "both hold the same", func() (bool, error) {
		got = exported(t, vm)
		return reflect.DeepEqual(want, got), nil
	})
	require.Equal(t, want, got)
	require.NoError(t, err)
}

// Bodies that both take are stored alike, point by point, and answered alike; where a point in them is bad the neighbours are stored by both, and
// VictoriaMetrics says nothing of it.
func TestPutsLikeVictoriaMetrics(t *testing.T) {
	vm := peers.StartVictoria(t)
	sink := ingesttest.NewSink()
	h := handler(t, sink, opentsdb.Options{}, ingest.Limits{})
	send := func(body string) (theirs, ours int) {
		t.Helper()
		r, err := http.Post("http://"+vm.OpenTSDB+"/api/put", "application/json", strings.NewReader(body))
		require.NoError(t, err)
		require.NoError(t, r.Body.Close())
		return r.StatusCode, post(h, "", body).Code
	}
	point := func(name, value, timestamp, tags string) string {
		return fmt.Sprintf(`{"metric":%q,"timestamp":%s,"value":%s,"tags":%s}`, name, timestamp, value, tags)
	}
	const when, tags = "1700000000", `{"a":"b"}`
	for i, body := range []string{
		point("int", "1", when, tags), point("text", `"1.5"`, when, tags), point("time.text", "1", `"1700000000"`, tags), point("millis", "1", "1700000000123", tags),
		point("middle", "1", "9999999998", tags), point("exponent", "1e3", "1.7e9", tags), point("big", "100000000000000000000000000000", when, tags), point("no.tags", "1", when, "{}"),
		point("empty.tag", "1", when, `{"a":"","b":"c"}`), point("with space", "1", when, `{"a b":"b c"}`), point("escapes", "1", when, `{"a":"x\u00e9\"\\y"}`), point("twice", "1", when, `{"a":"b","a":"c"}`),
		point("nine", "1", when, `{"1":"v","2":"v","3":"v","4":"v","5":"v","6":"v","7":"v","8":"v","9":"v"}`),
		"[" + point("one", "1", when, tags) + "," + point("two", "2", when, tags) + "," + point("one", "3", "1700000001", tags) + "]",
		`{"metric":"others","timestamp":1700000000,"value":1,"x":{"y":[1]},"tags":{"a":"b"}}`, `{"metric":"none","timestamp":1700000000,"value":1}`,
	} {
		theirs, ours := send(body)
		require.Equal(t, [2]int{204, 204}, [2]int{theirs, ours}, "body %d: %s", i, body)
	}
	for i, bad := range []string{
		point("bad", `"NaN"`, when, tags), point("bad", "NaN", when, tags), point("bad", `"x"`, when, tags), point("bad", "true", when, tags), point("bad", `"0x10"`, when, tags), point("bad", "1", "-5", tags),
		point("", "1", when, tags), point("bad", "1", when, "[]"), `{"timestamp":1700000000,"value":1,"tags":{"a":"b"}}`, "5", `{"metric":7,"timestamp":1700000000,"value":1,"tags":{"a":"b"}}`,
	} {
		theirs, ours := send("[" + point(fmt.Sprint("before.", i), "1", when, tags) + "," + bad + "," + point(fmt.Sprint("behind.", i), "1", when, tags) + "]")
		require.Equal(t, [2]int{204, 400}, [2]int{theirs, ours}, bad)
	}
	for _, body := range []string{"", "[", point("cut", "1", when, tags)[:40], "[" + point("cut", "1", when, tags) + `,{"met`, point("tail", "1", when, tags) + " x"} {
		theirs, ours := send(body)
		require.Equal(t, [2]int{400, 400}, [2]int{theirs, ours}, body)
	}
	alike(t, vm, sink)
}

// Put lines that both take are stored alike.
func TestLinesLikeVictoriaMetrics(t *testing.T) {
	vm := peers.StartVictoria(t)
	sink := ingesttest.NewSink()
	_, address := listen(t, sink, opentsdb.Options{}, ingest.Limits{})
	lines := strings.Join([]string{
		"put plain 1700000000 1 a=b", "put plain 1700000001 -2.5e3 a=b", "put no.tags 1700000000 1", "put spaces  1700000000  1  a=b  c=d", "put empty 1700000000 1 a= c=d",
		"put same 1700000000 1 a=b a=b", "put equals 1700000000 1 a=b=c", "put crlf 1700000000 1 a=b\r", "put fraction 1700000000.000 1 a=b", "put bad 1700000000 NaN a=b", "put bad 1700000000 x a=b", "put bad -5 1 a=b", "put last 1700000000 1 a=b",
	}, "\n") + "\n"
	require.Equal(t, 3, strings.Count(exchange(t, address, lines), "put: "))
	conn := dial(t, vm.Telnet)
	_, err := io.WriteString(conn, lines)
	require.NoError(t, err)
	require.NoError(t, conn.CloseWrite())
	_, err = io.ReadAll(conn)
	require.NoError(t, err)
	alike(t, vm, sink)
}
