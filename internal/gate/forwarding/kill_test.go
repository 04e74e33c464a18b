package forwarding_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"varve/internal/gate/ledger"
	"varve/internal/gate/server"
	"varve/internal/testkit/leaks"
)

// The environment variables of TestKilled and TestPowerCut, the seed of other tests too. Cycles beyond the default belong to the nightly gate and to releases.
const (
	envCycles = "FORWARD_CYCLES"
	envSeed   = "FORWARD_SEED"
)

const (
	// defaultCycles and defaultPowerCycles are the share of a CI run.
	defaultCycles      = 6
	defaultPowerCycles = 4
	// archiveCycles fall on one archive: what they leave behind is compared as a whole.
	archiveCycles = 10
	// killDelayMax is how long the writers write before a kill.
	killDelayMax = 3 * time.Second
	// writersPauseMax keeps the load so low that the outputs come to rest within seconds.
	writersPauseMax = 30 * time.Millisecond
	// noiseSeries and noiseStepsAtOnce make about a megabyte of the journal. A run has no more than noiseStepsMax steps.
	noiseSeries      = 1000
	noiseStepsAtOnce = 100
	noiseStepsMax    = archiveCycles * noiseStepsAtOnce
	// meetTimeout is how long a kill waits for the moment that was drawn for it.
	meetTimeout = time.Second
)

func TestMain(m *testing.M) {
	code := m.Run()
	server.RemoveBinaries()
	http.DefaultClient.CloseIdleConnections()
	if err := leaks.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// killedConfiguration is what the draws of a start go into. The journal is as short as it can be, so that outputs whose target is
// away for some cycles read from the archive.
const killedConfiguration = `
storage:
  memory: %s
  runs: {max_age: 1s, max_size: %s}
  journal: {max_size: 1MiB}
web: {enable_admin_api: true}
compactor: {interval: %s, seal_delay: 0s, quiet: 0s, reseal_after: 0s, cpu_share: 1}
self_scrape: {enabled: false}
log: {level: warn}
outputs:
  - name: one
    remote_write: {url: %q}
    %s
  - name: two
    external_labels: {via: two}
    relabel_configs: [{source_labels: [gate], target_label: gate, replacement: "$1-two"}]
    remote_write: {url: %q, protobuf_message: io.prometheus.write.v2.Request}
    %s
  - name: three
    filter_exclude: ['{writer="histograms"}']
    nats: {urls: [%q], subject: "gate.{writer}", stream: {name: GATE, create: true}}
    %s
`

// peerConfiguration is that of a Varve as a target.
const peerConfiguration = `
storage: {memory: 64MiB}
self_scrape: {enabled: false}
log: {level: warn}
`

// TestKilled shows that what a server acknowledged is at its targets, with its bits, when it is killed again and again while it
// forwards, at any moment and between a target's answer and the note of it, and while targets are killed and away; and
// that nothing else is there.
func TestKilled(t *testing.T) { killInCycles(t, defaultCycles, func(*killed) {}) }

// TestPowerCut shows the same where each kill, of the server and of a Varve that is its target, is a loss of power: what was not
// synced may be gone, the place of an output among it.
func TestPowerCut(t *testing.T) {
	killInCycles(t, defaultPowerCycles, func(k *killed) {
		p := newPower(t, k.random)
		k.varve.power, k.peer.power = p, p
	})
}

func killInCycles(t *testing.T, cycles int, prepare func(*killed)) {
	cycles = number(t, envCycles, cycles)
	if testing.Short() {
		cycles = min(cycles, 3)
	}
	t.Logf("%d cycles", cycles)
	random := rand.New(rand.NewPCG(seed(t, envCycles), 0x666f7277))
	for number := 0; cycles > 0 && !t.Failed(); number++ {
		name := fmt.Sprintf("archive-%03d", number)
		t.Run(name, func(t *testing.T) {
			k := newKilled(t, random, name)
			prepare(k)
			k.run(min(cycles, archiveCycles))
		})
		cycles -= archiveCycles
	}
}

// killed is an archive under test with its targets.
type killed struct {
	t        *testing.T
	random   *rand.Rand
	varve    *varve
	peer     *varve
	one, two *relay
	nats     *natsServer
	// away is for how many cycles the peer stays down, silent those for which it answers nothing.
	away, silent int

	work    *ledger.Workload
	book    *ledger.Ledger
	writers []*ledger.Writer
	acks    chan struct{}
	// noise is written besides while targets are away: the journal is trimmed under their outputs. noiseSteps are written so far.
	noise      *bulk
	noiseSteps int
	moments    map[string]int
	gaps       int // outputs with gaps at the end of a cycle
	rewinds    int
}

func newKilled(t *testing.T, random *rand.Rand, name string) *killed {
	t.Helper()
	k := &killed{
		t: t, random: random, nats: newNATS(t), acks: make(chan struct{}, 1), moments: map[string]int{},
		work: &ledger.Workload{Seed: random.Uint64(), Start: time.Now(), Name: name},
	}
	k.peer = newVarve(t, func() string { return peerConfiguration })
	k.one, k.two = newRelay(t, "http://"+k.peer.address+"/api/v1/write"), newRelay(t, "http://"+k.peer.address+"/api/v1/write")
	k.varve = newVarve(t, k.configure)
	log, err := os.Create(filepath.Join(k.varve.dir, "ledger.log"))
	require.NoError(t, err)
	k.book = ledger.New(log)
	t.Cleanup(func() {
		require.NoError(t, k.book.Flush())
		require.NoError(t, log.Close())
	})
	k.noise = newBulk(t, "http://"+k.varve.address, "noise", noiseSeries, k.work.Start.Add(-noiseStepsMax*time.Second), time.Second)
	k.noise.gate = name
	for i, kind := range ledger.Kinds {
		k.writers = append(k.writers, ledger.NewWriter(k.work, k.book, ledger.Options{
			Kind: kind, ID: ledger.WriterID(kind), Protocol: pick(k, ledger.RemoteWrite1, ledger.RemoteWrite2),
			URL: "http://" + k.varve.address + "/api/v1/write", PauseMax: writersPauseMax,
			Random: rand.New(rand.NewPCG(random.Uint64(), uint64(i))), Observe: k.observe,
		}))
	}
	return k
}

// pick draws one of the choices.
func pick[T any](k *killed, choices ...T) T { return choices[k.random.IntN(len(choices))] }

func (k *killed) configure() string {
	knobs := func() string {
		return fmt.Sprintf("{batch_samples: %d, batch_delay: %s, shards: %d, timeout: 3s, max_backoff: 1s}",
			pick(k, 100, 2000, 10000), pick(k, "10ms", "200ms", "1s"), pick(k, 1, 1, 4))
	}
	merge := func() string { return strings.ReplaceAll(strings.Trim(knobs(), "{}"), ", ", "\n    ") }
	return fmt.Sprintf(killedConfiguration,
		pick(k, "32MiB", "64MiB", "256MiB"), pick(k, "1MiB", "4MiB", "64MiB"), pick(k, "1s", "1h"),
		k.one.url(), merge(), k.two.url(), merge(), k.nats.url(), merge())
}

// observe is told of every answer to a writer.
func (k *killed) observe(status int, _ string) {
	if status/100 == 2 {
		select {
		case k.acks <- struct{}{}:
		default:
		}
	}
}

func (k *killed) run(cycles int) {
	k.peer.start()
	for cycle := range cycles {
		k.targets()
		if k.random.IntN(5) == 0 {
			k.killedStart()
		}
		k.varve.start()
		if cycle == 0 {
			k.varve.begun("one", "two", "three")
		}
		k.look()
		k.makeNoise()
		acked, moment := k.writeAndKill()
		k.t.Logf("cycle %d: killed %s, with %d samples acknowledged", cycle, moment, acked)
		if k.random.IntN(4) == 0 {
			k.varve.verb("check", "data")
		}
	}
	k.end()
}

// targets lets targets come and go.
func (k *killed) targets() {
	switch {
	case k.away > 0:
		if k.away--; k.away == 0 {
			k.peer.start()
		}
	case k.silent > 0:
		if k.silent--; k.silent == 0 {
			k.one.set(false, false)
			k.two.set(false, false)
		}
	default:
		k.leave()
	}
	if k.random.IntN(4) == 0 {
		k.nats.restart()
	}
}

// leave draws whether a target goes, and for how long.
func (k *killed) leave() {
	switch k.random.IntN(6) {
	case 0:
		k.peer.kill()
		k.away = 1 + k.random.IntN(3)
	case 1:
		k.peer.kill()
		k.peer.start()
	case 2:
		k.silent = 1 + k.random.IntN(2)
		k.one.set(false, true)
		k.two.set(false, k.random.IntN(2) == 0)
	}
}

// look rewinds an output now and then: all comes again.
func (k *killed) look() {
	if k.random.IntN(6) == 0 {
		name := pick(k, "one", "two", "three")
		k.varve.begun(name)
		k.varve.post("/api/v1/admin/outputs/"+name+"/rewind", url.Values{"to": {"beginning"}})
		k.rewinds++
	}
}

// makeNoise writes more than the journal takes, if targets are away.
func (k *killed) makeNoise() {
	if k.away+k.silent == 0 {
		return
	}
	k.noise.write(k.noiseSteps, k.noiseSteps+noiseStepsAtOnce)
	k.noiseSteps += noiseStepsAtOnce
}

// killedStart kills the server before or while it gets ready.
func (k *killed) killedStart() {
	k.varve.launch()
	delay := time.NewTimer(time.Duration(k.random.Int64N(int64(400 * time.Millisecond))))
	defer delay.Stop()
	select {
	case <-k.varve.server.Exited():
	case <-delay.C:
	}
	k.varve.kill()
}

// writeAndKill writes with all writers until the kill.
func (k *killed) writeAndKill() (acked int, moment string) {
	k.t.Helper()
	before := k.book.Acked()
	ctx, stop := context.WithCancel(k.t.Context())
	defer stop()
	ended := make(chan error, len(k.writers))
	for _, w := range k.writers {
		go func() { ended <- w.Run(ctx) }()
	}
	delay := time.NewTimer(time.Millisecond + time.Duration(k.random.Int64N(int64(killDelayMax))))
	defer delay.Stop()
	select {
	case <-delay.C:
	case <-k.varve.server.Exited():
	}
	for _, o := range []string{"one", "two"} {
		if k.varve.output(o).Lag.GapDays > 0 {
			k.gaps++
		}
	}
	if k.random.IntN(6) == 0 {
		moment = "not at all, but stopped in order"
		k.varve.stop()
	} else {
		moment = k.meet()
		k.varve.kill()
	}
	k.one.set(false, k.silent > 0)
	k.two.set(false, k.silent > 0)
	stop()
	for range k.writers {
		require.NoError(k.t, <-ended)
	}
	k.moments[moment]++
	return k.book.Acked() - before, moment
}

// meet waits for the moment that is drawn for a kill.
func (k *killed) meet() string {
	r := pick(k, k.one, k.two)
	switch k.random.IntN(4) {
	case 0:
		return k.within("behind an acknowledgement", k.acks)
	case 1:
		// The target has it, and the output never hears of it.
		r.set(true, false)
		return k.within("before an answer", r.answered)
	case 2:
		return k.within("behind an answer", r.passed)
	}
	return "at any moment"
}

func (k *killed) within(moment string, reached <-chan struct{}) string {
	timer := time.NewTimer(meetTimeout)
	defer timer.Stop()
	select {
	case <-reached:
		return moment
	case <-timer.C:
		return "at any moment"
	}
}

// end lets everything arrive, and compares.
func (k *killed) end() {
	t := k.t
	if k.away > 0 {
		k.peer.start()
	}
	k.one.set(false, false)
	k.two.set(false, false)
	k.away, k.silent = 0, 0
	k.varve.start()
	k.look()
	took := k.varve.drain("one", "two", "three")
	k.compare()
	k.varve.stop()
	list := k.varve.verb("outputs")
	require.Equal(t, 4, strings.Count(list, "\n"), list)
	k.varve.verb("check", "data")
	t.Logf("%d kills (%v), %d of the peer, %d restarts of NATS, %d outputs with gaps at a kill, %d rewinds, all sent %v after the last start; %d samples acknowledged; 1.0 %+v, 2.0 %+v",
		k.varve.kills, k.moments, k.peer.kills, k.nats.restarts, k.gaps, k.rewinds, took.Round(time.Millisecond), k.book.Acked(), k.one.count(), k.two.count())
}

// compare requires that the server has what it acknowledged, and the targets what the server has.
func (k *killed) compare() {
	t, ctx := k.t, k.t.Context()
	for _, s := range []*varve{k.varve, k.peer} {
		reader := ledger.NewReader(s.server.URL(""))
		found := k.book.Check(ctx, reader, ledger.CheckOptions{Gate: k.work.Name, Streamed: true, Restarted: s == k.varve})
		reader.Close()
		require.Empty(t, found, "%s, which is the target: %v", s.dir, s == k.peer)
	}
	base, peer := k.varve.server.URL(""), k.peer.server.URL("")
	want := read(t, base, true, nil, is(ledger.LabelGate, k.work.Name))
	require.Positive(t, want.samples())
	equal(t, "remote write 1.0", want, read(t, peer, true, nil, is(ledger.LabelGate, k.work.Name)))
	rename := func(b *labels.Builder) { b.Set(ledger.LabelGate, k.work.Name).Del("via") }
	equal(t, "remote write 2.0", want, read(t, peer, true, rename, is("via", "two"), is(ledger.LabelGate, k.work.Name+"-two")))
	all := read(t, peer, true, nil, labels.MustNewMatcher(labels.MatchNotEqual, model.MetricNameLabel, ""))
	require.Equal(t, 2*want.samples(), all.samples(), "the target has samples of neither output")

	floats := read(t, base, true, nil, is(ledger.LabelGate, k.work.Name), labels.MustNewMatcher(labels.MatchNotEqual, ledger.LabelWriter, string(ledger.Histograms)))
	messages, got, again := k.nats.contents()
	equal(t, "NATS", floats, got)
	n := want.samples()
	k.totals("one", n)
	k.totals("two", n)
	k.totals("three", floats.samples())
	t.Logf("%d samples of %d series are at all targets; sent again: %d over 1.0, %d over 2.0, %d of %d over NATS in %d messages",
		n, len(want), k.one.count().samples-n, k.two.count().samples-n, again, floats.samples(), messages)
}

// totals requires of the counters that every sample was sent, and nothing given up. Values that were overwritten before they were sent count
// as filtered.
func (k *killed) totals(name string, samples int) {
	o := k.varve.output(name)
	require.Zero(k.t, o.Totals.Dropped, name)
	require.Zero(k.t, o.Totals.Refused, name)
	require.GreaterOrEqual(k.t, o.Totals.Sent, uint64(samples), name)
}
