package main

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"varve/api"
	"varve/config"
	"varve/ingest"
	"varve/ingest/influxdb"
	"varve/ingest/ingesttest"
	"varve/ingest/nats"
)

// bareInputs are inputs without an archive, of a server that has nothing else.
func bareInputs(t *testing.T, log *bytes.Buffer) *inputs {
	t.Helper()
	reg := prometheus.NewRegistry()
	s := &server{registry: reg, o: serverOptions{logger: slog.New(slog.NewTextHandler(log, nil)), config: &config.Config{}}}
	i := &inputs{s: s, arrivals: ingest.NewMetrics(reg), running: map[string]*input{}, stalled: map[string]*input{}, udp: influxdb.NewUDPMetrics(reg), nats: nats.NewMetrics(reg)}
	i.quit, i.endQuit = context.WithCancel(context.Background())
	t.Cleanup(i.endQuit)
	return i
}

// stall adds an input with a task that ends when release is closed, and a request likewise.
func (i *inputs) stall(t *testing.T, name string, release <-chan struct{}) *input {
	t.Helper()
	in := &input{name: name, conf: config.Input{Name: name, Fingerprint: name}, gone: make(chan struct{}), lease: lease{from: i.s.registry}}
	var err error
	in.door, err = ingest.NewDoor(ingest.DoorOptions{Name: name, Sink: ingesttest.NewSink(), SeriesMax: 5, Registerer: i.s.registry, Now: time.Now})
	require.NoError(t, err)
	i.arrivals.For(name).Meter("test")
	in.cancel = func() {}
	in.running.Go(func() { <-release })
	began := make(chan struct{})
	in.endpoints = []api.Endpoint{{Path: "/x", Handler: in.untilEnd(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(began)
		<-release
	}))}}
	in.tell()
	go in.endpoints[0].Handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/x", nil))
	<-began
	i.mu.Lock()
	i.running[name] = in
	i.show()
	i.mu.Unlock()
	return in
}

// gaugesOf counts the series of an input that say how it is at the moment.
func gaugesOf(t *testing.T, i *inputs, name string) (n int) {
	t.Helper()
	families, err := i.s.registry.Gather()
	require.NoError(t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "input" && l.GetValue() == name && m.GetGauge() != nil {
					n++
				}
			}
		}
	}
	return n
}

// states are the inputs with their states, as the status tells them.
func states(t *testing.T, i *inputs) map[string]string {
	t.Helper()
	all, err := i.InputsStatus()
	require.NoError(t, err)
	out := map[string]string{}
	for _, st := range all.([]inputStatus) {
		out[st.Name] = st.State
	}
	return out
}

// TestStalledInput shows that an input that does not end keeps neither the status nor the end of the server waiting for longer than it is
// given, that another of its name does not begin before it has ended, and that its gauges are gone then.
func TestStalledInput(t *testing.T) {
	var log bytes.Buffer
	i := bareInputs(t, &log)
	release := make(chan struct{})
	in := i.stall(t, "a", release)
	require.NotZero(t, gaugesOf(t, i, "a"))
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		i.mu.Lock()
		defer i.mu.Unlock()
		i.endAll(ctx, []*input{in})
	}()
	require.Eventually(t, in.ending.Load, patience, time.Millisecond, "the end is under way, and holds mu")
	require.Equal(t, map[string]string{"a": "ending"}, states(t, i))
	require.Empty(t, targets{inputs: i}.all()[1:])
	cancel()
	<-stopped
	require.Contains(t, log.String(), "An input does not end, and is left behind.")
	_, err := i.startAlone(config.Input{Name: "a"})
	require.ErrorIs(t, err, errStalled)
	i.endQuit() // Nothing is to begin here.
	close(release)
	<-in.gone
	require.Zero(t, gaugesOf(t, i, "a"))
}

// TestReloadGivesWay shows that a server that is to end does not wait for a reload that waits for an input.
func TestReloadGivesWay(t *testing.T) {
	var log bytes.Buffer
	i := bareInputs(t, &log)
	release := make(chan struct{})
	in := i.stall(t, "a", release)
	reloaded := make(chan struct{})
	go func() {
		defer close(reloaded)
		i.mu.Lock()
		defer i.mu.Unlock()
		ctx, cancel := context.WithTimeout(i.quit, time.Hour)
		defer cancel()
		i.endAll(ctx, []*input{in})
	}()
	require.Eventually(t, in.ending.Load, patience, time.Millisecond, "the end is under way, and holds mu")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	i.stop(ctx)
	<-reloaded
	require.Empty(t, states(t, i))
	close(release)
	<-in.gone
}
