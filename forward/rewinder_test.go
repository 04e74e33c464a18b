package forward_test

import (
	"context"
	"errors"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/arrival"
	"varve/forward"
	"varve/internal/testkit"
)

// TestRewinderInFlight shows that what was on its way when a session ended to go back is sent, though there was nothing further back.
func TestRewinderInFlight(t *testing.T) {
	a := testkit.Open(t, testkit.MemoryDir(t), testkit.Options())
	u := []arrival.Unknown{{Labels: labels.FromStrings("__name__", "m")}}
	require.NoError(t, a.Resolve(context.Background(), u))
	p := newPeer()
	sending := make(chan struct{}, 1)
	p.answer = func(ctx context.Context, n int, _ *forward.Batch) (forward.Outcome, error) {
		if n > 1 {
			return forward.Outcome{}, nil
		}
		sending <- struct{}{}
		<-ctx.Done()
		return forward.Outcome{}, &forward.Retry{Err: ctx.Err()}
	}
	s := forgetful{p, make(chan time.Duration, 1)}
	o := output(p)
	o.NewSender = func() (forward.Sender, error) { return s, nil }
	o.BatchDelay, o.KeepBehind = time.Millisecond, time.Hour
	f := forward.New(forward.Options{
		Open:  func(name string, start archive.Start) (forward.Source, error) { return a.OpenCursor(name, start) },
		Grace: time.Millisecond, DeadLetters: t.TempDir(),
	})
	require.NoError(t, f.Apply([]forward.Output{o}))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- f.Run(ctx) }()
	_, err := a.Write(context.Background(), &arrival.Batch{
		Rows: []arrival.Row{{Ref: u[0].Ref, Count: 1}}, Times: []int64{time.Now().UnixMilli()}, Values: []uint64{math.Float64bits(1)},
	})
	require.NoError(t, err)
	<-sending
	s.rewinds <- time.Minute
	eventually(t, func() bool { return p.samples() == 1 })
	cancel()
	require.NoError(t, <-ended)
}

// TestSecretAddresses shows that errors have nothing of addresses but their hosts: neither that of the target, nor that where tokens
// are fetched, nor that of a redirect.
func TestSecretAddresses(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", "http://u:geheim@elsewhere/write?p=geheim")
		w.WriteHeader(http.StatusFound)
	}))
	defer server.Close()
	do := func(c config.HTTPClientConfig, address string) error {
		client, err := forward.NewClient(c, "out", patience)
		require.NoError(t, err)
		r, err := http.NewRequest(http.MethodPost, address, strings.NewReader(""))
		require.NoError(t, err)
		answer, err := forward.Do(client, r)
		if err == nil {
			err = answer.Err(time.Now())
		}
		return err
	}
	err := do(config.DefaultHTTPClientConfig, server.URL)
	require.ErrorIs(t, err, forward.ErrRedirect)
	require.ErrorContains(t, err, "http://elsewhere/write")
	require.NotContains(t, err.Error(), "geheim")

	gone := "127.0.0.1:1"
	err = do(config.DefaultHTTPClientConfig, "http://u:geheim@"+gone+"/write?p=geheim")
	require.ErrorContains(t, err, gone)
	require.NotContains(t, err.Error(), "geheim")

	c := config.DefaultHTTPClientConfig
	c.OAuth2 = &config.OAuth2{ClientID: "id", ClientSecret: "geheim", TokenURL: "http://u:geheim@" + gone + "/token?p=geheim"}
	err = do(c, server.URL)
	var retry *forward.Retry
	require.True(t, errors.As(err, &retry))
	require.ErrorContains(t, err, gone)
	require.NotContains(t, err.Error(), "geheim")
}
