package opentsdb_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"varve/ingest"
	"varve/ingest/ingesttest"
	"varve/ingest/opentsdb"
)

// FuzzPut shows that every body gets an answer in OpenTSDB's form whose counts are those of what is stored, and that one good point behind a body
// that is an array is always stored.
func FuzzPut(f *testing.F) {
	for _, body := range []string{
		`{"metric":"m","timestamp":1,"value":1,"tags":{"a":"b"}}`, `[{"metric":"m","timestamp":"1.5","value":"NaN","tags":{"a":{}}},5]`, `[]`, `[[[[`, `[{"metric":"\ud83d","timestamp":1e9,"value":1e400}]`,
		`[{"metric":"_20","timestamp":99999999999,"value":null,"tags":{"__name__":"\u0000","":""}}]`, "[{\"metric\":\"\xff\",\"timestamp\":1,\"value\":1}]", `[{"tags":{"a":NaN},"metric":"a","timestamp":1,"value":1}]`,
	} {
		f.Add(body, uint8(0))
		f.Add(body, uint8(1))
		f.Add(body, uint8(2))
	}
	f.Fuzz(func(t *testing.T, body string, names uint8) {
		o := opentsdb.Options{Names: opentsdb.Names(names % 3)}
		sink := ingesttest.NewSink()
		h := handler(t, sink, o, ingest.Limits{})
		for range 2 {
			sink.Clear()
			w := post(h, "?details", body)
			require.True(t, json.Valid(w.Body.Bytes()), w.Body.String())
			stored := 0
			for _, s := range sink.Written() {
				stored += len(s.Samples)
			}
			if strings.HasPrefix(w.Body.String(), `{"error":`) {
				require.Equal(t, http.StatusBadRequest, w.Code)
				require.Zero(t, stored)
				return
			}
			a := details(t, w)
			require.Equal(t, stored, a.Success)
			require.Equal(t, a.Failed == 0, w.Code == http.StatusOK)
			require.Len(t, a.Errors, a.Failed)
		}
		if walked := strings.TrimSpace(body); strings.HasPrefix(walked, "[") {
			sink.Clear()
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest("POST", "/", strings.NewReader(walked[:len(walked)-1]+`,{"metric":"good.point","timestamp":77,"value":5}]`)))
			require.NotEmpty(t, sink.Written())
		}
	})
}

// FuzzLines shows that lines never break the connection, and that a good line behind any others is always stored.
func FuzzLines(f *testing.F) {
	for _, lines := range []string{"put m 1 1 a=b\n", "put m 1.5 x\nversion\n", "put m 1 1 a=b a=c\r\n\n", "\x00\xff\nput \xff 1 1 =\n", strings.Repeat("x", 3000) + "\n", "put m 1 1 __name__=x _20=_"} {
		f.Add(lines)
	}
	sink := ingesttest.NewSink()
	_, address := listen(f, sink, opentsdb.Options{LineBytesMax: 100, BatchBytes: 200, Names: opentsdb.NamesRestored}, ingest.Limits{})
	f.Fuzz(func(t *testing.T, lines string) {
		if strings.Contains(lines, "exit") || strings.Contains(lines, "quit") {
			return
		}
		sink.Clear()
		said := exchange(t, address, lines+"\nput good.point 77 5\n")
		require.NotContains(t, said, "Storage exception")
		require.NotContains(t, said, "no end")
		require.Contains(t, sink.Written(), `{__name__="good.point"}`)
	})
}
