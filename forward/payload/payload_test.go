package payload_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"varve/forward/payload"
)

// A request's body is the data, compressed if asked, and can be read again for another connection.
func TestPost(t *testing.T) {
	data := strings.Repeat("a line of text\n", 100)
	for _, gzipped := range []bool{false, true} {
		for range 3 { // in memory that was used before
			p := payload.Get()
			require.Empty(t, p.Data)
			p.Data = append(p.Data, data...)
			r, err := p.Post(t.Context(), "http://host/write", gzipped)
			require.NoError(t, err)
			require.Equal(t, http.MethodPost, r.Method)
			again, err := r.GetBody()
			require.NoError(t, err)
			for _, body := range []io.ReadCloser{r.Body, again} {
				wire, err := io.ReadAll(body)
				require.NoError(t, err)
				require.NoError(t, body.Close())
				require.Equal(t, int(r.ContentLength), len(wire))
				if gzipped {
					require.Equal(t, "gzip", r.Header.Get("Content-Encoding"))
					require.Less(t, len(wire), len(data))
					unpacked, err := gzip.NewReader(bytes.NewReader(wire))
					require.NoError(t, err)
					wire, err = io.ReadAll(unpacked)
					require.NoError(t, err)
				}
				require.Equal(t, data, string(wire))
			}
			p.Put()
		}
	}
	p := payload.Get()
	defer p.Put()
	_, err := p.Post(t.Context(), "http://host:port", false)
	require.Error(t, err)
}

// The memory of a body that is still open stays out of the pool.
func TestPutWhileOpen(t *testing.T) {
	for i := range 100 {
		p := payload.Get()
		p.Data = append(p.Data, "mine"...)
		r, err := p.Post(t.Context(), "http://host/", false)
		require.NoError(t, err)
		body := r.Body
		if i%2 == 1 {
			// Another reader is open, and closing the first one twice doesn't hide that.
			body, err = r.GetBody()
			require.NoError(t, err)
			require.NoError(t, r.Body.Close())
			require.NoError(t, r.Body.Close())
		}
		p.Put()
		other := payload.Get()
		other.Data = append(other.Data, "not!"...)
		other.Put()
		read, err := io.ReadAll(body)
		require.NoError(t, err)
		require.Equal(t, "mine", string(read))
		require.NoError(t, body.Close())
	}
}
