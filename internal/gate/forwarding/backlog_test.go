package forwarding_test

import (
	"fmt"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"varve/internal/gate/ledger"
)

const (
	// hourSteps are an hour of samples every 15 seconds.
	hourSteps    = 240
	hourStep     = 15 * time.Second
	hourSeries   = 3000
	lateSeries   = 20
	lateSteps    = 60
	deleted      = "000107"
	journalSmall = "1MiB"
	journalLarge = "4GiB"
)

// backlogConfiguration is that of a server with an output, whose journal and target go into it.
const backlogConfiguration = `
storage:
  memory: 64MiB
  runs: {max_age: 1s}
  journal: {max_size: %s}
web: {enable_admin_api: true}
self_scrape: {enabled: false}
log: {level: warn}
outputs:
  - name: hour
    batch_samples: 10000
    max_backoff: 1s
    shards: 2
    timeout: 5m
    remote_write: {url: %q}
`

// TestHourAway shows that a target which was away for an hour of data gets all of it when it comes back, in the order of time for each
// series, with what arrived meanwhile for last year, and without what was deleted meanwhile: from the journal, and from the
// archive where the journal was trimmed. The server is killed in the midst of it.
func TestHourAway(t *testing.T) {
	for _, c := range []struct {
		name, journal string
		gaps          bool
	}{
		{"journal", journalLarge, false},
		{"archive", journalSmall, true},
	} {
		t.Run(c.name, func(t *testing.T) { hourAway(t, c.journal, c.gaps) })
	}
}

func hourAway(t *testing.T, journal string, gaps bool) {
	peer := newVarve(t, func() string { return peerConfiguration })
	r := newRelay(t, "http://"+peer.address+"/api/v1/write")
	order := watchOrder(r)
	v := newVarve(t, func() string { return fmt.Sprintf(backlogConfiguration, journal, r.url()) })
	v.start()
	v.begun("hour")
	base := "http://" + v.address
	now := time.Now().Add(-time.Minute).Truncate(time.Second)
	hour := newBulk(t, base, "hour", hourSeries, now.Add(-hourSteps*hourStep), hourStep)
	late := newBulk(t, base, "late", lateSeries, now.AddDate(-1, 0, 0), time.Minute)

	hour.write(0, hourSteps/2)
	late.write(0, lateSteps)
	// What the output has in memory at this moment would be sent, but for the kill. What arrives later is not deleted.
	v.post("/api/v1/admin/tsdb/delete_series", url.Values{"match[]": {fmt.Sprintf("{series=%q}", deleted)}})
	v.kill()
	v.start()
	hour.write(hourSteps/2, hourSteps)
	if gaps {
		v.await("hour", "the journal was trimmed under the output", func(o *outputStatus) bool { return o.Lag.GapDays > 0 })
	}
	var o outputStatus
	v.await("hour", "all that was written is behind it", func(now *outputStatus) bool {
		o = *now
		return o.Lag.Seconds > 0 && o.Lag.Samples >= uint64(hourSeries*hourSteps+lateSeries*lateSteps)
	})
	require.Equal(t, gaps, o.Lag.GapDays > 0, "%+v", o)

	peer.start()
	took := v.drain("hour")
	for _, name := range []string{"seconds", "samples", "bytes"} {
		require.Zero(t, v.metric("varve_forward_lag_"+name, "output", "hour"), name)
	}
	require.Zero(t, v.metric("varve_forward_gap_days", "output", "hour"))
	want := read(t, v.server.URL(""), true, nil, is(ledger.LabelGate, bulkGate))
	require.Equal(t, (hourSeries-1)*hourSteps+hourSteps/2+lateSeries*lateSteps, want.samples())
	equal(t, "the target", want, read(t, peer.server.URL(""), true, nil, is(ledger.LabelGate, bulkGate)))
	require.Zero(t, peer.metric("varve_archive_overwritten_total"))
	require.Empty(t, order.wrong())
	o = v.output("hour")
	require.Zero(t, o.Totals.Dropped+o.Totals.Refused, "%+v", o)
	sent := r.count().samples
	t.Logf("%d samples in %v, %.0f/s, %d of them sent again", sent, took.Round(time.Millisecond), float64(sent)/took.Seconds(), sent-want.samples())
}

// sendOrder is in what order a target took the samples of each series.
type sendOrder struct {
	relay *relay
	last  map[string]int64
	found []string
}

// watchOrder watches what a relay's target takes.
func watchOrder(r *relay) *sendOrder {
	o := &sendOrder{relay: r, last: map[string]int64{}}
	r.observe = o.observe
	return o
}

// observe is called by the relay with its lock held.
func (o *sendOrder) observe(s *prompb.TimeSeries) {
	key := ""
	for _, l := range s.Labels {
		if l.Name == ledger.LabelWriter || l.Name == "series" {
			key += l.Value
		}
	}
	for _, sample := range s.Samples {
		if last, ok := o.last[key]; ok && sample.Timestamp <= last && len(o.found) < 10 {
			o.found = append(o.found, fmt.Sprintf("%s: %d was sent behind %d", key, sample.Timestamp, last))
		}
		o.last[key] = sample.Timestamp
	}
}

func (o *sendOrder) wrong() []string {
	o.relay.mu.Lock()
	defer o.relay.mu.Unlock()
	return o.found
}

// dropConfiguration is that of a server with an output that drops the oldest.
const dropConfiguration = `
storage:
  memory: 64MiB
  runs: {max_age: 1s}
  journal: {max_size: %s}
self_scrape: {enabled: false}
log: {level: warn}
outputs:
  - name: drop
    max_backoff: 1s
    shards: 2
    backlog_policy: drop_oldest
    backlog_size: 1MiB
    timeout: 5m
    remote_write: {url: %q}
`

const (
	dropSeries = 1000
	dropSteps  = 400
)

// requirePart requires that the points are some of all, in their order, and that the last of all is among them. Those that are missing need not
// be the very first: what is under way when the backlog goes over its limit may arrive though what comes behind it is dropped.
func requirePart(t *testing.T, all, points []point, key string) {
	t.Helper()
	at := 0
	for _, p := range points {
		found := slices.Index(all[at:], p)
		require.GreaterOrEqual(t, found, 0, "%s: %+v", key, p)
		at += found + 1
	}
	require.Equal(t, len(all), at, "%s: the latest is missing", key)
}

// TestDropOldest shows that an output which drops the oldest gives up no more than it counts: what arrives at a target that was away is
// what was accepted without what was dropped, and for each series the latest. A kill in between changes nothing of that.
func TestDropOldest(t *testing.T) {
	t.Run("running", func(t *testing.T) { dropOldest(t, false) })
	t.Run("killed", func(t *testing.T) { dropOldest(t, true) })
}

func dropOldest(t *testing.T, kill bool) {
	peer := newVarve(t, func() string { return peerConfiguration })
	r := newRelay(t, "http://"+peer.address+"/api/v1/write")
	v := newVarve(t, func() string { return fmt.Sprintf(dropConfiguration, journalLarge, r.url()) })
	v.start()
	v.begun("drop")
	b := newBulk(t, "http://"+v.address, "drop", dropSeries, time.Now().Add(-dropSteps*hourStep), hourStep)
	b.write(0, dropSteps/2)
	v.await("drop", "something was dropped", func(o *outputStatus) bool { return o.Totals.Dropped > 0 })
	if kill {
		v.kill()
		v.start()
	}
	b.write(dropSteps/2, dropSteps)
	peer.start()
	v.drain("drop")
	want := read(t, v.server.URL(""), true, nil, is(ledger.LabelGate, bulkGate))
	got := read(t, peer.server.URL(""), true, nil, is(ledger.LabelGate, bulkGate))
	for key, points := range got {
		requirePart(t, want[key], points, key)
	}
	o := v.output("drop")
	require.Zero(t, o.Totals.Refused)
	require.Equal(t, uint64(want.samples()), o.Totals.Dropped+o.Totals.Sent, "%+v", o)
	require.Equal(t, uint64(want.samples()-got.samples()), o.Totals.Dropped, "%+v", o)
	require.Positive(t, got.samples())
	t.Logf("%d samples, %d dropped, %d at the target", want.samples(), o.Totals.Dropped, got.samples())
}
