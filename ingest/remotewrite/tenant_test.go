package remotewrite_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"varve/ingest/remotewrite"
)

// TestTenantLabel shows that the tenant of a request becomes a label of its series, that equal bytes of two
// tenants are two series, in both versions and also when their keys are known, and that the header goes before
// a label of that name.
func TestTenantLabel(t *testing.T) {
	r := optionReceiver(remotewrite.Options{TenantLabel: "tenant"})
	symbols := []string{"", "__name__", "up", "tenant", "forged"}
	for _, c := range []struct {
		contentType string
		wire        []byte
		name        string
	}{
		{contentType1, wire1(t, one1(1, "__name__", "v1"), one1(1, "__name__", "v1_forged", "tenant", "forged")), "v1"},
		{contentType2, wire2(t, append(symbols[:2:2], "v2", "tenant", "forged", "v2_forged"), one2(1, 2), one2(1, 5, 3, 4)), "v2"},
	} {
		for range 2 {
			r.sink.Clear()
			for _, header := range [][2]string{{"", ""}, {"X-Scope-OrgID", "a"}, {"X-Scope-Org-ID", "b"}, {"X-Scope-OrgID", " a "}, {"X-Scope-OrgID", ""}} {
				req := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(c.wire))
				req.Header.Set("Content-Type", c.contentType)
				if header[0] != "" {
					req.Header.Set(header[0], header[1])
				}
				require.Equal(t, http.StatusNoContent, r.send(t, req).code)
			}
			written := map[string]int{}
			for name, s := range r.sink.Written() {
				written[name] = len(s.Samples)
			}
			require.Equal(t, map[string]int{
				`{__name__="` + c.name + `"}`:                         2,
				`{__name__="` + c.name + `", tenant="a"}`:             2,
				`{__name__="` + c.name + `", tenant="b"}`:             1,
				`{__name__="` + c.name + `_forged", tenant="forged"}`: 2,
				`{__name__="` + c.name + `_forged", tenant="a"}`:      2,
				`{__name__="` + c.name + `_forged", tenant="b"}`:      1,
			}, written)
		}
	}
}

// TestTenantExemplars shows that labels of exemplars are left alone.
func TestTenantExemplars(t *testing.T) {
	r := optionReceiver(remotewrite.Options{TenantLabel: "tenant"})
	ts := one1(1, "__name__", "up")
	ts.Exemplars = append(ts.Exemplars, exemplar1("tenant", "x"))
	req := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(wire1(t, ts)))
	req.Header.Set("X-Scope-OrgID", "a")
	require.Equal(t, http.StatusNoContent, r.send(t, req).code)
	require.Equal(t, `{tenant="x"}`, r.sink.Written()[`{__name__="up", tenant="a"}`].Exemplars[0].Labels.String())
}

// TestTenantNotValid shows that a tenant that can't be a label refuses the series, in readable text.
func TestTenantNotValid(t *testing.T) {
	r := optionReceiver(remotewrite.Options{TenantLabel: "tenant"})
	for _, tenant := range []string{"\xff\xfe", strings.Repeat("x", 20<<10)} {
		req := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(wire1(t, one1(1, "__name__", "up"))))
		req.Header.Set("X-Scope-OrgID", tenant)
		answer := r.send(t, req)
		require.Equal(t, http.StatusBadRequest, answer.code)
		require.Contains(t, answer.body, "invalid_labels: 1")
		require.Empty(t, r.sink.Written())
	}
}

// exemplar1 is an exemplar of 1.0 with one label.
func exemplar1(name, value string) prompb.Exemplar {
	return prompb.Exemplar{Labels: []prompb.Label{{Name: name, Value: value}}, Value: 1, Timestamp: nowMillis}
}
