package nats_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"varve/ingest"
	"varve/ingest/influxdb"
	"varve/ingest/ingesttest"
	"varve/ingest/nats"
	"varve/internal/gate/server"
)

// Messages of a stream are stored and acknowledged, small ones together; the stream and the consumer are made.
func TestConsume(t *testing.T) {
	s := run(t)
	r := newReceiver()
	r.gate = make(chan struct{})
	in, end := begin(t, options(s.ClientURL(), r))
	connected(t, in)
	_, js := dial(t, s.ClientURL())
	const n = 3000
	for i := range n {
		_, err := js.PublishAsync(fmt.Sprint("varve.", i%7), write("m", int64(i), 2))
		require.NoError(t, err)
	}
	// More wait than there are workers, so that some have to be joined.
	eventually(t, func() bool { return in.Status().InFlightBytes > 100<<10 })
	close(r.gate)
	eventually(t, func() bool { return r.stored() == 2*n && in.Status().Stored == n })
	settled(t, js)
	status := in.Status()
	require.EqualValues(t, n, status.Stored)
	require.Zero(t, status.Poison+status.Partial+status.Redelivered+status.Retries)
	require.Equal(t, [2]string{"VARVE", "varve"}, [2]string{status.Stream, status.Consumer})
	require.Greater(t, r.messages, 2, "messages are joined")
	require.Less(t, r.calls, n)
	end()
	require.False(t, in.Status().Connected)
	consumer, err := js.Consumer(t.Context(), "VARVE", "varve")
	require.NoError(t, err)
	c := consumer.CachedInfo().Config
	require.Equal(t, jetstream.AckExplicitPolicy, c.AckPolicy)
	require.Equal(t, jetstream.DeliverAllPolicy, c.DeliverPolicy)
	require.Equal(t, -1, c.MaxDeliver)
	require.Equal(t, time.Minute, c.AckWait)
}

// A consumer that is there is used with our settings, and one that acknowledges in another way is refused with what to do.
func TestConsumerThere(t *testing.T) {
	s := run(t)
	_, js := dial(t, s.ClientURL())
	stream, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "VARVE", Subjects: []string{"varve.>"}})
	require.NoError(t, err)
	_, err = stream.CreateConsumer(t.Context(), jetstream.ConsumerConfig{Durable: "varve", AckPolicy: jetstream.AckExplicitPolicy, FilterSubject: "varve.old"})
	require.NoError(t, err)
	_, err = stream.CreateConsumer(t.Context(), jetstream.ConsumerConfig{Durable: "other", AckPolicy: jetstream.AckAllPolicy})
	require.NoError(t, err)
	publish(t, js, "varve.a", write("a", 1, 1))
	publish(t, js, "varve.b", write("b", 1, 1))
	publish(t, js, "varve.c", write("c", 1, 1))
	r := newReceiver()
	in, _ := begin(t, options(s.ClientURL(), r, func(o *nats.Options) {
		o.Subjects = []string{"varve.a", "varve.b"}
		o.Stream.Name, o.Stream.Create = "", false
	}))
	eventually(t, func() bool { return r.stored() == 2 })
	require.Equal(t, "VARVE", in.Status().Stream)
	bad, _ := begin(t, options(s.ClientURL(), r, func(o *nats.Options) { o.Durable = "other" }))
	says(t, bad, "it has to be explicit; remove it or name another")
	missing, _ := begin(t, options(s.ClientURL(), r, func(o *nats.Options) { o.Stream = nats.Stream{Name: "NONE"} }))
	says(t, missing, "nats stream add NONE")
}

// A poison message is ended, written to the file of dead letters and counted, once, also when it comes again after a crash that lost the end of it; its
// neighbours in the same body are stored.
func TestPoison(t *testing.T) {
	s := run(t)
	dir := t.TempDir()
	r := newReceiver()
	r.gate = make(chan struct{})
	change := func(o *nats.Options) { o.DeadLetters.Directory = dir }
	in, end := begin(t, options(s.ClientURL(), r, change))
	connected(t, in)
	_, js := dial(t, s.ClientURL())
	whole := write("whole", 1, 3)
	for i := range 100 {
		publish(t, js, "varve.a", write("m", int64(i), 1))
		switch i {
		case 20:
			publish(t, js, "varve.bad", []byte("no block"))
		case 40:
			// It is cut within a series, so that what is joined behind it would be taken for its end.
			publish(t, js, "varve.bad", cutRequest(t, whole))
		case 60:
			publish(t, js, "varve.part", write("refuse", 7, 2))
		}
	}
	close(r.gate)
	eventually(t, func() bool { s := in.Status(); return s.Stored+s.Poison+s.Partial == 103 })
	settled(t, js)
	status := in.Status()
	require.Equal(t, [3]uint64{100, 2, 1}, [3]uint64{status.Stored, status.Poison, status.Partial})
	require.Equal(t, 101, r.stored())
	end()
	lines := letters(t, dir)
	require.Len(t, lines, 3)
	byReason := map[string]map[string]any{}
	for _, line := range lines {
		var l map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &l))
		byReason[l["reason"].(string)] = l
	}
	block := byReason["malformed block"]
	require.Equal(t, [4]any{"poison", "varve.bad", "VARVE", 22.0}, [4]any{block["outcome"], block["subject"], block["stream"], block["sequence"]})
	require.Equal(t, "bm8gYmxvY2s=", block["payload"])
	require.Contains(t, byReason, "malformed request")
	require.Equal(t, "partial", byReason["refused too_far_in_future: 1; the rest is written"]["outcome"])

	// The consumer is wiped, so that all comes again, to another process that reads the letters.
	require.NoError(t, js.DeleteConsumer(t.Context(), "VARVE", "varve"))
	again, end := begin(t, options(s.ClientURL(), r, change))
	eventually(t, func() bool { return again.Status().Stored == 100 && again.Status().Repeated == 3 })
	settled(t, js)
	require.Zero(t, again.Status().Poison+again.Status().Partial)
	end()
	require.Equal(t, lines, letters(t, dir))
}

// Dead letters go to a subject as they are, with headers, and once.
func TestLettersOnSubject(t *testing.T) {
	s := run(t)
	_, js := dial(t, s.ClientURL())
	in, _ := begin(t, options(s.ClientURL(), newReceiver(), func(o *nats.Options) { o.DeadLetters.Subject = "dead.varve" }))
	connected(t, in)
	publish(t, js, "varve.bad", []byte("no block"))
	// Nobody takes the letter, so that the message is not ended.
	eventually(t, func() bool { return in.Status().Retries > 0 })
	require.Zero(t, in.Status().Poison)
	stream, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "DEAD", Subjects: []string{"dead.*"}})
	require.NoError(t, err)
	settled(t, js)
	eventually(t, func() bool { return in.Status().Poison == 1 })
	m, err := stream.GetMsg(t.Context(), 1)
	require.NoError(t, err)
	require.Equal(t, "no block", string(m.Data))
	require.Equal(t, [4]string{"poison", `"malformed block"`, "varve.bad", "1"}, [4]string{m.Header.Get("Varve-Outcome"), m.Header.Get("Varve-Reason"), m.Header.Get("Varve-Subject"), m.Header.Get("Varve-Sequence")})
	loop, _ := begin(t, options(s.ClientURL(), newReceiver(), func(o *nats.Options) { o.DeadLetters.Subject = "varve.dead" }))
	says(t, loop, "would come back")
}

// A message that is too large for another with headers has a letter without its payload, and is ended: four of them
// would stop all workers for ever.
func TestLargeLetters(t *testing.T) {
	s := run(t, func(o *natsserver.Options) { o.MaxPayload = 10_000 })
	_, js := dial(t, s.ClientURL())
	stream, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "DEAD", Subjects: []string{"dead.*"}, MaxMsgSize: 9000})
	require.NoError(t, err)
	in, _ := begin(t, options(s.ClientURL(), newReceiver(), func(o *nats.Options) { o.DeadLetters.Subject = "dead.varve" }))
	connected(t, in)
	for i, size := range []uint64{10_000, 9000} {
		// Without an identifier, for which the server would have no room.
		_, err := js.Publish(t.Context(), "varve.bad", bytes.Repeat([]byte{0xff}, int(size)))
		require.NoError(t, err)
		eventually(t, func() bool { return in.Status().Poison == uint64(i+1) })
		settled(t, js)
		m, err := stream.GetMsg(t.Context(), uint64(i+1))
		require.NoError(t, err)
		require.Empty(t, m.Data)
		require.Equal(t, fmt.Sprint(size), m.Header.Get("Varve-Payload-Left-Out"))
	}
}

// While the archive is away messages are held longer than the server waits for an acknowledgement, and then stored, none of them refused.
func TestArchiveAway(t *testing.T) {
	s := run(t)
	r := newReceiver()
	r.err = errAway
	in, _ := begin(t, options(s.ClientURL(), r, impatient))
	connected(t, in)
	_, js := dial(t, s.ClientURL())
	for i := range 50 {
		publish(t, js, "varve.a", write("m", int64(i), 1))
	}
	// They are in progress: for more than twice that wait none comes again. A machine that stalls may bring some again before.
	began, again := time.Now(), uint64(0)
	eventually(t, func() bool {
		if now := in.Status().Redelivered; now != again {
			began, again = time.Now(), now
		}
		return time.Since(began) > 5*time.Second && r.failed() > 10
	})
	require.Zero(t, r.stored())
	says(t, in, "no room")
	r.fail(&ingest.RateLimited{RetryAfter: time.Millisecond})
	was := r.failed()
	eventually(t, func() bool { return r.failed() > was+3 })
	r.fail(nil)
	eventually(t, func() bool { s := in.Status(); return s.Stored >= 50 && s.Stored == 50+s.Redelivered })
	settled(t, js)
	require.Equal(t, 50, r.stored())
	require.Zero(t, in.Status().Poison)
	require.NotZero(t, in.Status().Retries)
}

// A process that dies with messages unacknowledged leaves them to the next: at the end each sample is there.
func TestUnacknowledged(t *testing.T) {
	s := run(t)
	r := newReceiver()
	r.gate = make(chan struct{})
	hurried := func(o *nats.Options) { impatient(o); o.StopTimeout = time.Nanosecond }
	in, end := begin(t, options(s.ClientURL(), r, hurried))
	connected(t, in)
	_, js := dial(t, s.ClientURL())
	for i := range 200 {
		publish(t, js, "varve.a", write("m", int64(i), 1))
	}
	eventually(t, func() bool { return in.Status().InFlightBytes > 0 })
	end()
	require.Zero(t, r.stored())
	close(r.gate)
	next, _ := begin(t, options(s.ClientURL(), r, impatient))
	eventually(t, func() bool { return r.stored() == 200 && next.Status().Stored >= 200 })
	settled(t, js)
	require.NotZero(t, next.Status().Redelivered)
}

// portOf and on make a server come back where it was.
func portOf(t testing.TB, s *natsserver.Server) int { return s.Addr().(*net.TCPAddr).Port }

func on(port int, dir string) func(*natsserver.Options) {
	return func(o *natsserver.Options) { o.Port, o.StoreDir = port, dir }
}

// A server that is restarted again and again in mid-stream costs no message.
func TestRestart(t *testing.T) {
	dir := folder(t)
	s := run(t, on(-1, dir))
	port, url := portOf(t, s), s.ClientURL()
	r := newReceiver()
	in, _ := begin(t, options(url, r, impatient))
	connected(t, in)
	_, js := dial(t, url)
	const rounds, each = 4, 150
	for round := range rounds {
		var publisher sync.WaitGroup
		half := make(chan struct{})
		publisher.Go(func() {
			for i := range each {
				if i == each/2 {
					close(half)
				}
				publish(t, js, "varve.a", write("m", int64(round*each+i), 1))
			}
		})
		<-half
		stop(s)
		s = run(t, on(port, dir))
		publisher.Wait()
	}
	eventually(t, func() bool { return r.stored() == rounds*each })
	settled(t, js)
	connected(t, in)
}

// A server that comes late, and one that comes back without its streams, are waited for: the stream and the consumer are made again.
func TestLateAndWiped(t *testing.T) {
	address, err := server.FreeAddress()
	require.NoError(t, err)
	r := newReceiver()
	in, _ := begin(t, options(address, r, impatient))
	eventually(t, func() bool { return in.Status().LastError != "" })
	_, text, err := net.SplitHostPort(address)
	require.NoError(t, err)
	port, err := strconv.Atoi(text)
	require.NoError(t, err)
	s := run(t, on(port, folder(t)))
	connected(t, in)
	_, js := dial(t, s.ClientURL())
	publish(t, js, "varve.a", write("m", 1, 1))
	eventually(t, func() bool { return r.stored() == 1 })
	stop(s)
	run(t, on(port, folder(t)))
	publish(t, js, "varve.a", write("m", 2, 1))
	eventually(t, func() bool { return r.stored() == 2 })
	settled(t, js)
}

// A consumer that somebody removes is made again, and what comes twice by that harms nothing.
func TestConsumerRemoved(t *testing.T) {
	s := run(t)
	r := newReceiver()
	in, _ := begin(t, options(s.ClientURL(), r))
	connected(t, in)
	_, js := dial(t, s.ClientURL())
	publish(t, js, "varve.a", write("m", 1, 1))
	eventually(t, func() bool { return in.Status().Stored == 1 })
	settled(t, js)
	require.NoError(t, js.DeleteConsumer(t.Context(), "VARVE", "varve"))
	publish(t, js, "varve.a", write("m", 2, 1))
	eventually(t, func() bool { return r.stored() == 2 })
	eventually(t, func() bool { return in.Status().Stored == 3 })
	settled(t, js)
}

// Without JetStream messages of subjects are stored, shared by the members of a queue, and what has come is stored at the end.
func TestCore(t *testing.T) {
	s := run(t, func(o *natsserver.Options) { o.JetStream = false })
	r := newReceiver()
	core := func(o *nats.Options) { o.Core, o.Queue, o.Subjects = true, "varve", []string{"varve.*", "other"} }
	dir := t.TempDir()
	one, endOne := begin(t, options(s.ClientURL(), r, core, func(o *nats.Options) { o.DeadLetters.Directory = dir }))
	two, endTwo := begin(t, options(s.ClientURL(), r, core))
	connected(t, one)
	connected(t, two)
	c, _ := dial(t, s.ClientURL())
	for i := range 500 {
		require.NoError(t, c.Publish([]string{"varve.a", "other"}[i%2], write("m", int64(i), 1)))
	}
	flush(t, c)
	eventually(t, func() bool { return r.stored() == 500 && one.Status().Stored+two.Status().Stored == 500 })
	require.NotZero(t, one.Status().Stored*two.Status().Stored)
	endTwo()
	eventually(t, func() bool {
		takers, err := s.Subsz(&natsserver.SubszOptions{Subscriptions: true, Test: "other"})
		return err == nil && takers.Total == 1
	})
	require.NoError(t, c.Publish("other", []byte("no block")))
	r.mu.Lock()
	r.gate = make(chan struct{})
	r.mu.Unlock()
	for i := range 100 {
		require.NoError(t, c.Publish("other", write("n", int64(i), 1)))
	}
	flush(t, c)
	eventually(t, func() bool { return one.Status().Poison == 1 })
	go close(r.gate)
	endOne()
	require.Equal(t, 600, r.stored())
	require.Len(t, letters(t, dir), 1)
}

// What comes to a subject of core NATS faster than it is stored is counted.
func TestCoreOverrun(t *testing.T) {
	s := run(t, func(o *natsserver.Options) { o.JetStream = false })
	r := newReceiver()
	r.gate = make(chan struct{})
	in, _ := begin(t, options(s.ClientURL(), r, func(o *nats.Options) {
		o.Core, o.Subjects, o.InFlightBytes, o.BatchMessages = true, []string{"varve"}, 4096, 1
	}))
	connected(t, in)
	c, _ := dial(t, s.ClientURL())
	const n = 2000
	for i := range n {
		require.NoError(t, c.Publish("varve", write("m", int64(i), 1)))
	}
	flush(t, c)
	eventually(t, func() bool { return in.Status().Dropped > 0 })
	require.LessOrEqual(t, in.Status().InFlightBytes, int64(4096))
	close(r.gate)
	eventually(t, func() bool { return in.Status().Stored+in.Status().Dropped == n })
	require.EqualValues(t, in.Status().Stored, r.stored())
}

// The bytes in the process are bounded, and a message that is larger than the bound gets through alone.
func TestInFlight(t *testing.T) {
	s := run(t)
	r := newReceiver()
	r.gate = make(chan struct{})
	const bound = 64 << 10
	in, _ := begin(t, options(s.ClientURL(), r, func(o *nats.Options) { o.InFlightBytes = bound }))
	connected(t, in)
	_, js := dial(t, s.ClientURL())
	for i := range 300 {
		publish(t, js, "varve.a", write("m", int64(i), 20))
	}
	publish(t, js, "varve.a", write("large", 1, 20_000))
	eventually(t, func() bool { return in.Status().InFlightBytes > bound/2 })
	require.LessOrEqual(t, in.Status().InFlightBytes, int64(bound))
	close(r.gate)
	eventually(t, func() bool { return r.stored() == 26_000 })
	settled(t, js)
	eventually(t, func() bool { return in.Status().InFlightBytes == 0 })
}

// The header says what a message holds; one that nobody reads is a dead letter.
func TestPayloads(t *testing.T) {
	s := run(t)
	requests, texts := newReceiver(), ingesttest.NewSink()
	dir := t.TempDir()
	in, _ := begin(t, options(s.ClientURL(), requests, func(o *nats.Options) {
		o.Receivers[nats.PayloadJSON] = nats.NewJSON(texts, ingest.Limits{}, ingest.NewMetrics(nil), discard, time.Now)
		o.Payload, o.DeadLetters.Directory = nats.PayloadJSON, dir
	}))
	connected(t, in)
	_, js := dial(t, s.ClientURL())
	send := func(contentType string, data []byte) {
		m := client.NewMsg("varve.a")
		m.Data = data
		if contentType != "" {
			m.Header.Set("Content-Type", contentType)
		}
		_, err := js.PublishMsg(t.Context(), m)
		require.NoError(t, err)
	}
	object := []byte(`{"labels":{"__name__":"m"},"timestamp_ms":1,"value":"1"}`)
	send("", object)
	send("application/json; charset=utf-8", object)
	send("application/x-protobuf", write("m", 1, 1))
	send("application/x-protobuf;proto=prometheus.WriteRequest", write("m", 2, 1))
	send("application/x-protobuf;proto=io.prometheus.write.v2.Request", write("m", 3, 1))
	send("application/x-protobuf;proto=other", write("m", 3, 1))
	send("text/plain", []byte("m v=1"))
	send("video/mp4", object)
	send(";", object)
	eventually(t, func() bool { return in.Status().Stored == 4 && in.Status().Poison == 5 })
	settled(t, js)
	require.Equal(t, 2, requests.stored())
	require.Len(t, texts.Written(), 1)
	require.Len(t, letters(t, dir), 5)
}

// Lines without a time are those of when the stream took them, however often they come: joined with others, alone, and from a consumer that is made again.
func TestTimeOfLines(t *testing.T) {
	s := run(t)
	sink := ingesttest.NewSink()
	lines := influxdb.New(sink, ingest.Limits{}, ingest.NewMetrics(nil), discard, time.Now, influxdb.Options{}).Receiver(influxdb.Precision{})
	only := func(o *nats.Options) {
		o.Receivers, o.Payload = map[nats.Payload]ingest.Receiver{nats.PayloadInflux: lines}, nats.PayloadInflux
	}
	_, js := dial(t, s.ClientURL())
	stream, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "VARVE", Subjects: []string{"varve.>"}})
	require.NoError(t, err)
	want := map[string]int64{}
	const n = 20
	for i := range n {
		publish(t, js, "varve.a", fmt.Appendf(nil, "m,i=%d value=1\n", i))
		m, err := stream.GetMsg(t.Context(), uint64(i+1))
		require.NoError(t, err)
		want[fmt.Sprintf(`{__name__="m", i="%d"}`, i)] = m.Time.UnixMilli()
	}
	for round, batch := range []int{1024, 1, 7} {
		in, end := begin(t, options(s.ClientURL(), nil, only, func(o *nats.Options) { o.BatchMessages = batch }))
		eventually(t, func() bool { return in.Status().Stored == n })
		settled(t, js)
		end()
		got := sink.Written()
		require.Len(t, got, n)
		for series, at := range want {
			require.Len(t, got[series].Samples, round+1)
			for _, sample := range got[series].Samples {
				require.Equal(t, at, sample.TimeMillis, series)
			}
		}
		require.NoError(t, js.DeleteConsumer(t.Context(), "VARVE", "varve"))
	}
}

// A message of core NATS has the time at which it came, also where the archive takes it only later.
func TestTimeOfLinesCore(t *testing.T) {
	s := run(t, func(o *natsserver.Options) { o.JetStream = false })
	stalled := &stalledReceiver{sent: make(chan []ingest.Sent, 8)}
	in, _ := begin(t, options(s.ClientURL(), stalled, func(o *nats.Options) {
		o.Core, o.Subjects, o.StopTimeout = true, []string{"varve"}, time.Nanosecond
	}))
	connected(t, in)
	c, _ := dial(t, s.ClientURL())
	before := time.Now().UnixMilli()
	require.NoError(t, c.Publish("varve", write("m", 1, 1)))
	flush(t, c)
	first := <-stalled.sent
	require.Len(t, first, 1)
	require.GreaterOrEqual(t, first[0].Millis, before)
	for range 3 {
		require.Equal(t, first, <-stalled.sent)
	}
}

// Options that contradict themselves are refused.
func TestOptions(t *testing.T) {
	f := func(want string, change func(*nats.Options)) {
		t.Helper()
		_, err := nats.New(options("host", newReceiver(), change), nats.NewMetrics(nil), discard, time.Now)
		require.ErrorContains(t, err, want)
	}
	f("no url", func(o *nats.Options) { o.Connection.URLs = nil })
	f("subject", func(o *nats.Options) { o.Subjects = []string{"a b"} })
	f("core NATS needs subjects", func(o *nats.Options) { o.Core = true })
	f("no name of a durable", func(o *nats.Options) { o.Durable = "" })
	f("neither a stream", func(o *nats.Options) { o.Stream = nats.Stream{} })
	f("needs a name and subjects", func(o *nats.Options) { o.Stream.Subjects = nil })
	f("no white space", func(o *nats.Options) { o.Durable = "a.b" })
	f("below zero", func(o *nats.Options) { o.Workers = -1 })
	f("less than a second", func(o *nats.Options) { o.AckWait = time.Millisecond })
	f("nobody here reads the payload influx", func(o *nats.Options) { o.Payload = nats.PayloadInflux })
	f("would come back", func(o *nats.Options) { o.Subjects, o.DeadLetters.Subject = []string{"varve.>"}, "varve.dead" })
	f("read the nkey", func(o *nats.Options) { o.Connection.NKeyFile = "none" })
}

// Wrong credentials are said and tried again until they are right.
func TestCredentials(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(file, []byte("wrong"), 0o600))
	s := run(t, func(o *natsserver.Options) { o.Authorization = "right" })
	in, _ := begin(t, options(s.ClientURL(), newReceiver(), func(o *nats.Options) { o.Connection.TokenFile = file }))
	eventually(t, func() bool { return in.Status().LastError != "" })
	require.NoError(t, os.WriteFile(file, []byte("right"), 0o600))
	connected(t, in)
	// A token in the address, where a user would stand, is not shown.
	in, _ = begin(t, options(strings.Replace(s.ClientURL(), "://", "://right@", 1), newReceiver()))
	eventually(t, func() bool { s := in.Status(); return s.Connected && s.Server != "" })
	require.Equal(t, s.ClientURL(), in.Status().Server)
}
