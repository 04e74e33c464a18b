package forwarding_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"varve/internal/gate/ledger"
	"varve/internal/gate/server"
)

// throughInputs is how outputs of one Varve are inputs of another: what is configured of an output, after its name, and of the
// input, whose name is that of the output.
var throughInputs = map[string]struct{ output, input string }{
	"remote_write_1": {
		"remote_write: {url: 'http://TARGET/rw1/api/v1/write'}", "{path: /rw1, remote_write: {}}",
	},
	"remote_write_2": {
		"remote_write: {url: 'http://TARGET/rw2/api/v1/write', protobuf_message: io.prometheus.write.v2.Request}", "{path: /rw2, remote_write: {}}",
	},
	"influxdb_1": {
		"influxdb: {url: 'http://TARGET/i1', database: metrics, precision: ms}", "{path: /i1, influxdb: {names: utf8}}",
	},
	"influxdb_2": {
		"influxdb: {url: 'http://TARGET/i2', version: 2, bucket: metrics, precision: ns, authorization: {type: Token, credentials: any}}",
		"{path: /i2, influxdb: {names: utf8}}",
	},
	"opentsdb_http": {
		"opentsdb: {url: 'http://TARGET/o1', milliseconds: true, gzip: true}", "{path: /o1, opentsdb: {names: restored}}",
	},
	"opentsdb_telnet": {
		"opentsdb: {url: 'telnet://TELNET', milliseconds: true}", "{opentsdb: {telnet_listen_address: 'TELNET', names: restored}}",
	},
	"nats_prometheus": {
		"nats: {urls: ['QUEUE'], subject: 'p.{writer}', payload: prometheus, stream: {name: P, create: true, subjects: [p.>]}}",
		"{nats: {urls: ['QUEUE'], stream: {name: P}, durable: gate, payload: prometheus}}",
	},
	"nats_influx": {
		"nats: {urls: ['QUEUE'], subject: 'i.{writer}', payload: influx, stream: {name: I, create: true, subjects: [i.>]}}",
		"{nats: {urls: ['QUEUE'], stream: {name: I}, durable: gate, payload: influx, influx: {names: utf8}}}",
	},
	"nats_json": {
		"nats: {urls: ['QUEUE'], subject: 'j.{writer}', payload: json, stream: {name: J, create: true, subjects: [j.>]}}",
		"{nats: {urls: ['QUEUE'], stream: {name: J}, durable: gate, payload: json}}",
	},
}

// The two configurations of TestThroughInputs, with their outputs and inputs behind them.
const (
	sourceConfiguration = `
storage: {memory: 64MiB, runs: {max_age: 1s}}
self_scrape: {enabled: false}
log: {level: warn}
web: {enable_admin_api: true}
outputs:
`
	targetConfiguration = `
storage: {memory: 64MiB}
self_scrape: {enabled: false}
log: {level: warn}
inputs:
`
)

// TestThroughInputs shows that what any output sends is read back as the same samples by the input of its protocol, though
// both servers and NATS are killed or restarted on the way.
func TestThroughInputs(t *testing.T) {
	queue := newNATS(t)
	telnet, err := server.FreeAddress()
	require.NoError(t, err)
	var names []string
	outputs, inputs := "", ""
	target := newVarve(t, func() string { return targetConfiguration + inputs })
	source := newVarve(t, func() string { return sourceConfiguration + outputs })
	places := strings.NewReplacer("TARGET", target.address, "TELNET", telnet, "QUEUE", queue.url())
	for name, c := range throughInputs {
		names = append(names, name)
		outputs += fmt.Sprintf("  - name: %s\n    batch_delay: 50ms\n    max_backoff: 500ms\n    %s\n", name, places.Replace(c.output))
		inputs += fmt.Sprintf("  - {name: %s, external_labels: {via: %s}, %s\n", name, name, places.Replace(c.input)[1:])
	}
	target.start()
	source.start()
	source.begun(names...)
	b := newBulk(t, "http://"+source.address, "through", 200, time.Now().Add(-time.Hour).Truncate(time.Second), 1001*time.Millisecond)
	b.write(0, 20)
	target.kill()
	b.write(20, 30)
	target.start()
	source.drain(names...)
	b.write(30, 40)
	source.kill()
	source.start()
	queue.restart()
	b.write(40, 50)
	source.drain(names...)

	want := read(t, source.server.URL(""), true, nil, is(ledger.LabelGate, bulkGate))
	require.Equal(t, 50*b.series, want.samples())
	for _, name := range names {
		equal(t, name, want, target.arrived(name, want.samples()))
	}
}

// arrived is what came through an input that adds its name as the label via. What is in a queue comes a moment later.
func (v *varve) arrived(input string, samples int) (got contents) {
	v.t.Helper()
	without := func(b *labels.Builder) { b.Del("via") }
	require.Eventually(v.t, func() bool {
		got = read(v.t, v.server.URL(""), true, without, is("via", input))
		return got.samples() >= samples
	}, readyTimeout, 100*time.Millisecond, "what came through %s", input)
	return got
}

// TestThroughDatagrams shows the same of UDP, where what is lost on the way is sent again until it is there.
func TestThroughDatagrams(t *testing.T) {
	udp, err := server.FreeAddress()
	require.NoError(t, err)
	target := newVarve(t, func() string {
		return targetConfiguration + fmt.Sprintf("  - {name: udp, external_labels: {via: udp}, influxdb: {udp_listen_address: '%s', precision: ns, names: utf8}}\n", udp)
	})
	target.start()
	source := newVarve(t, func() string {
		return sourceConfiguration + fmt.Sprintf("  - {name: udp, batch_delay: 50ms, rate_limit: 20000, influxdb: {url: 'udp://%s', version: udp}}\n", udp)
	})
	source.start()
	source.begun("udp")
	b := newBulk(t, "http://"+source.address, "datagrams", 100, time.Now().Add(-time.Hour).Truncate(time.Second), time.Second)
	b.write(0, 20)
	source.drain("udp")
	want := read(t, source.server.URL(""), true, nil, is(ledger.LabelGate, bulkGate))
	without := func(b *labels.Builder) { b.Del("via") }
	var lost []string
	require.Eventually(t, func() bool {
		lost = differences(want, read(t, target.server.URL(""), true, without, is("via", "udp")))
		if len(lost) > 0 {
			source.post("/api/v1/admin/outputs/udp/rewind", url.Values{"to": {"beginning"}})
			source.drain("udp")
		}
		return len(lost) == 0
	}, readyTimeout, time.Second, "%v", lost)
}
