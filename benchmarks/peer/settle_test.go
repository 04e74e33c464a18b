package peer_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"varve/benchmarks/peer"
)

// Shows what each make is asked for to settle, that a Varve without a compactor is
// told of, and that merges and compactions are waited for.
func TestTidy(t *testing.T) {
	for _, c := range []struct {
		kind   peer.Kind
		answer func(path string, metricsAsked int) (int, string)
		asked  []string
		remark string
		fails  string
	}{
		{peer.Varve, func(string, int) (int, string) { return 200, `{"status":"success","data":{"sealed":[{"day":"x"}]}}` },
			[]string{"POST /api/v1/admin/compactor/run"}, "", ""},
		{peer.Varve, func(string, int) (int, string) { return 200, `{"status":"success","data":{"sealed":[]}}` },
			[]string{"POST /api/v1/admin/compactor/run"}, "no day", ""},
		{peer.Varve, func(string, int) (int, string) { return 404, "" }, []string{"POST /api/v1/admin/compactor/run"}, peer.NotSealed, ""},
		{peer.Varve, func(string, int) (int, string) { return 500, "broken" }, []string{"POST /api/v1/admin/compactor/run"}, "", "broken"},
		{peer.VictoriaMetrics, func(_ string, asked int) (int, string) {
			return 200, fmt.Sprintf("vm_active_force_merges %d\n", max(0, 2-asked))
		},
			[]string{"GET /internal/force_flush", "GET /internal/force_merge", "GET /metrics", "GET /metrics"}, "", ""},
		{peer.Prometheus, func(_ string, asked int) (int, string) {
			return 200, fmt.Sprintf("prometheus_tsdb_head_min_time %d\nprometheus_tsdb_compactions_total 7\n", asked*600)
		}, []string{"POST /api/v1/write", "GET /metrics", "GET /metrics"}, "", ""},
	} {
		t.Run(string(c.kind)+c.remark+c.fails, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			var asked []string
			metrics := 0
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				defer mu.Unlock()
				asked = append(asked, r.Method+" "+r.URL.Path)
				if r.URL.Path == "/metrics" {
					metrics++
				}
				status, text := c.answer(r.URL.Path, metrics)
				w.WriteHeader(status)
				fmt.Fprint(w, text)
			}))
			defer server.Close()
			s := &peer.Server{Spec: peer.Spec{Name: "fake", Kind: c.kind}, Address: strings.TrimPrefix(server.URL, "http://")}
			remark, err := s.Tidy(t.Context(), peer.Tidying{EndMillis: 1000, Limit: time.Minute})
			require.Equal(t, c.asked, asked)
			require.Contains(t, remark, c.remark)
			require.Equal(t, c.remark == "", remark == "")
			if c.fails == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, c.fails)
			}
		})
	}
}
