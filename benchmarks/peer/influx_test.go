package peer_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"varve/benchmarks/peer"
)

// Shows what an InfluxDB is asked, that the counts of all fields are added up, and that bad answers are errors.
func TestInflux(t *testing.T) {
	asked, status, answer := "", 200, ""
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.FormValue("db") + ": " + r.FormValue("q")
		w.WriteHeader(status)
		fmt.Fprint(w, answer)
	}))
	defer server.Close()
	s := &peer.Server{Spec: peer.Spec{Name: "fake", Kind: peer.InfluxDB}, Address: strings.TrimPrefix(server.URL, "http://")}

	answer = `{"results":[{"statement_id":0,"series":[{"name":"cpu","columns":["time","count_a","count_b"],"values":[[0,7,5]]}]}]}`
	n, err := s.InfluxCount(t.Context(), "cpu")
	require.NoError(t, err)
	require.EqualValues(t, 12, n)
	require.Equal(t, `bench: SELECT count(*) FROM "cpu"`, asked)

	answer = `{"results":[{"statement_id":0}]}`
	require.NoError(t, s.CreateDatabase(t.Context()))
	require.Equal(t, "bench: CREATE DATABASE bench", asked)
	n, err = s.InfluxCount(t.Context(), "cpu")
	require.NoError(t, err)
	require.Zero(t, n, "of a measurement that is not there")

	for _, c := range []struct {
		status int
		answer string
		want   string
	}{
		{400, `{"error":"broken"}`, "broken"},
		{200, `{"results":[{"error":"bad query"}]}`, "bad query"},
		{200, `{"results":[]}`, "status 200"},
		{200, "x", "invalid character"},
		{200, `{"results":[{"series":[{"values":[[0,"x"]]}]}]}`, "invalid"},
	} {
		status, answer = c.status, c.answer
		_, err := s.InfluxCount(t.Context(), "cpu")
		require.ErrorContains(t, err, c.want)
	}
}
