package forwarding_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"varve/internal/gate/ledger"
	"varve/internal/gate/server"
)

// reloadConfiguration is that of a server whose outputs come and go. They go into it.
const reloadConfiguration = `
storage: {memory: 64MiB, runs: {max_age: 1s}, journal: {max_size: 1MiB}}
web: {enable_lifecycle: true}
compactor: {interval: 1s, seal_delay: 0s, quiet: 0s, reseal_after: 0s, cpu_share: 1}
self_scrape: {enabled: false}
log: {level: warn}
outputs:
%s
`

const (
	// reloadSamples are written before the output comes, and as many after it.
	reloadSamples = 20_000
	// reloads change the output while it sends.
	reloads     = 8
	outputWhole = "  - {name: whole, start: beginning, batch_delay: 100ms, shards: %d, remote_write: {url: %q}}\n"
	outputNow   = "  - {name: fresh, start: now, batch_delay: 100ms, external_labels: {via: fresh}, remote_write: {url: %q}}\n"
)

// TestReload shows that an output which a reload adds with start: beginning, while samples come in, sends what was there before
// and what comes, each to the bit, though more reloads change it; that one with start: now sends nothing of before; and that a reload
// without an output forgets its place.
func TestReload(t *testing.T) {
	whole, fresh := newVarve(t, func() string { return peerConfiguration }), newVarve(t, func() string { return peerConfiguration })
	whole.start()
	fresh.start()
	outputs := "  []"
	v := newVarve(t, func() string { return fmt.Sprintf(reloadConfiguration, outputs) })
	v.start()
	w := newWriting(t, v)

	w.await(reloadSamples)
	before := w.book.Acked()
	for i := range reloads {
		outputs = fmt.Sprintf(outputWhole, 1+i%3, "http://"+whole.address+"/api/v1/write")
		v.reload()
		w.await(before + (i+1)*reloadSamples/reloads)
	}
	w.stop()
	v.drain("whole")
	want := w.compare(v, whole)

	// What comes from now on is all that the second one is to have.
	outputs += fmt.Sprintf(outputNow, "http://"+fresh.address+"/api/v1/write")
	v.reload()
	v.begun("fresh")
	feed := &feed{t: t, url: "http://" + v.address + "/api/v1/write", start: time.Now().Add(-time.Hour)}
	feed.write(5)
	v.drain("whole", "fresh")
	got := read(t, fresh.server.URL(""), true, nil, is("via", "fresh"))
	require.Equal(t, 5*feedSeries, got.samples())

	outputs = fmt.Sprintf(outputNow, "http://"+fresh.address+"/api/v1/write")
	v.reload()
	ctx, cancel := context.WithTimeout(t.Context(), drainTimeout)
	defer cancel()
	require.NoError(t, server.Wait(ctx, "the output is gone", func() (bool, error) {
		all, err := v.outputs(ctx)
		_, there := all["whole"]
		return err == nil && !there, err
	}))
	v.stop()
	list := v.verb("outputs")
	require.NotContains(t, list, "whole")
	require.Contains(t, list, "fresh")
	v.verb("check", "data")
	t.Logf("%d samples of %d series, %d of them acknowledged before the output was there", want.samples(), len(want), before)
}

// writing is a server that writers of all kinds write to.
type writing struct {
	t    *testing.T
	work *ledger.Workload
	book *ledger.Ledger
	stop func()
}

func newWriting(t *testing.T, v *varve) *writing {
	t.Helper()
	log, err := os.Create(v.dir + "/ledger.log")
	require.NoError(t, err)
	seed := seed(t, envCycles)
	w := &writing{t: t, work: &ledger.Workload{Seed: seed, Start: time.Now(), Name: "reload"}, book: ledger.New(log)}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, len(ledger.Kinds))
	for i, kind := range ledger.Kinds {
		writer := ledger.NewWriter(w.work, w.book, ledger.Options{
			Kind: kind, ID: ledger.WriterID(kind), Protocol: ledger.RemoteWrite2, URL: "http://" + v.address + "/api/v1/write",
			PauseMax: writersPauseMax, Random: rand.New(rand.NewPCG(seed, uint64(i))),
		})
		go func() { ended <- writer.Run(ctx) }()
	}
	stopped := false
	w.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		for range ledger.Kinds {
			require.NoError(t, <-ended)
		}
		require.NoError(t, w.book.Flush())
		require.NoError(t, log.Close())
	}
	t.Cleanup(w.stop)
	return w
}

// await waits until so many samples are acknowledged.
func (w *writing) await(samples int) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), drainTimeout)
	defer cancel()
	require.NoError(w.t, server.Wait(ctx, "enough is written", func() (bool, error) { return w.book.Acked() >= samples, nil }))
}

// compare requires of server and target that they have what was acknowledged.
func (w *writing) compare(v, target *varve) contents {
	w.t.Helper()
	for _, s := range []*varve{v, target} {
		reader := ledger.NewReader(s.server.URL(""))
		found := w.book.Check(w.t.Context(), reader, ledger.CheckOptions{Gate: w.work.Name, Streamed: true})
		reader.Close()
		require.Empty(w.t, found, "%s, which is the target: %v", s.dir, s == target)
	}
	want := read(w.t, v.server.URL(""), true, nil, is(ledger.LabelGate, w.work.Name))
	equal(w.t, "the target", want, read(w.t, target.server.URL(""), true, nil, is(ledger.LabelGate, w.work.Name)))
	return want
}
