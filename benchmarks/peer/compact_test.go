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

// Shows what is asked of a Varve for its compactor's report and for the sizes of its
// families, what is read of the answers, and that bad answers are errors.
func TestCompact(t *testing.T) {
	asked, status, answer := "", 200, ""
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.Method + " " + r.URL.String()
		w.WriteHeader(status)
		fmt.Fprint(w, answer)
	}))
	defer server.Close()
	s := &peer.Server{Spec: peer.Spec{Name: "fake", Kind: peer.Varve}, Address: strings.TrimPrefix(server.URL, "http://")}

	answer = `{"status":"success","data":{"done":true,"sealed":[{"day":"a","samples":7,"bundleBytes":3,"seconds":0.5}],"rolled":[{"day":"a","samples":7,"buckets":2,"bundleBytes":1,"seconds":0.25}],"seconds":1}}`
	done, err := s.Compact(t.Context())
	require.NoError(t, err)
	require.Equal(t, "POST /api/v1/admin/compactor/run?wait=true", asked)
	require.Equal(t, peer.Compacted{
		Sealed:  []peer.CompactedDay{{Day: "a", Samples: 7, BundleBytes: 3, Seconds: 0.5}},
		Rolled:  []peer.CompactedDay{{Day: "a", Samples: 7, Buckets: 2, BundleBytes: 1, Seconds: 0.25}},
		Seconds: 1,
	}, done)

	answer = `{"status":"success","data":{"bytesByFamily":[{"name":"raw","value":9},{"name":"rollups","value":2}]}}`
	families, err := s.FamilyBytes(t.Context())
	require.NoError(t, err)
	require.Contains(t, asked, "GET /api/v1/status/tsdb?")
	require.Equal(t, map[string]int64{"raw": 9, "rollups": 2}, families)

	for _, c := range []struct {
		status int
		answer string
		want   string
	}{
		{500, `{"status":"error","error":"broken"}`, "broken"},
		{200, "x", "status 200: x"},
		{200, `{"data":[]}`, "cannot unmarshal"},
		{200, `{"data":{}}`, "names no families"},
	} {
		status, answer = c.status, c.answer
		_, err := s.FamilyBytes(t.Context())
		require.ErrorContains(t, err, c.want)
	}
}
