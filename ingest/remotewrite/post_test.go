package remotewrite_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strconv"

	"github.com/stretchr/testify/require"
)

// posted is the answer to a request.
type posted struct {
	code    int
	body    string
	header  http.Header
	written []int // the three headers of 2.0, nil where there are none
}

// send hands a request to the handler, without a network.
func (r *receiver) send(t require.TestingT, req *http.Request) posted {
	w := httptest.NewRecorder()
	r.ServeHTTP(w, req)
	p := posted{code: w.Code, body: w.Body.String(), header: w.Header()}
	for _, kind := range []string{"Samples", "Histograms", "Exemplars"} {
		values := w.Header().Values("X-Prometheus-Remote-Write-" + kind + "-Written")
		if len(values) == 0 {
			continue
		}
		require.Len(t, values, 1)
		n, err := strconv.Atoi(values[0])
		require.NoError(t, err)
		p.written = append(p.written, n)
	}
	return p
}

// post sends a compressed body as senders do.
func (r *receiver) post(t require.TestingT, contentType string, wire []byte) posted {
	req := httptest.NewRequest(http.MethodPost, "/api/v1/write", bytes.NewReader(wire))
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Content-Encoding", "snappy")
	return r.send(t, req)
}
