package remotewrite_test

import (
	"io"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"go.uber.org/goleak"

	"varve/internal/testkit/leaks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(leaks.Patient(m)) }

const (
	contentType1 = "application/x-protobuf"
	contentType2 = "application/x-protobuf;proto=io.prometheus.write.v2.Request"
)

var discard = slog.New(slog.DiscardHandler)

func fixedNow() time.Time { return time.UnixMilli(1_700_000_000_000) }

// rewinding is a request body that can be sent again without an allocation.
type rewinding struct {
	b  []byte
	at int
}

func (r *rewinding) Read(p []byte) (int, error) {
	if r.at == len(r.b) {
		return 0, io.EOF
	}
	n := copy(p, r.b[r.at:])
	r.at += n
	return n, nil
}

func (*rewinding) Close() error { return nil }

// bareWriter is a ResponseWriter that keeps the status only.
type bareWriter struct {
	header http.Header
	code   int
}

func (w *bareWriter) Header() http.Header         { return w.header }
func (w *bareWriter) Write(b []byte) (int, error) { return len(b), nil }
func (w *bareWriter) WriteHeader(code int)        { w.code = code }
