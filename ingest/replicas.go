package ingest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"varve/arrival"
)

// HA says how the replicas of a cluster are told. A series with both labels is of a
// replica; others pass.
type HA struct {
	// ClusterLabel is kept, ReplicaLabel removed. An empty ReplicaLabel means that
	// there are no replicas.
	ClusterLabel, ReplicaLabel string
	// FailoverTimeout is how long a replica is silent before another is elected.
	FailoverTimeout time.Duration
	// BufferBytesMax bounds what is kept of replicas that are not elected, over all
	// clusters. Default 64 MiB.
	BufferBytesMax int64
	// ClustersMax bounds the clusters. Default 10 000.
	ClustersMax int
}

func (h *HA) on() bool { return h.ReplicaLabel != "" }

func (h *HA) check() error {
	switch {
	case !h.on():
		return nil
	case h.ClusterLabel == "" || h.ClusterLabel == h.ReplicaLabel:
		return errors.New("replicas need a label of the cluster and another of the replica")
	case h.FailoverTimeout <= 0:
		return errors.New("replicas need a timeout of failover")
	}
	return nil
}

func (h *HA) fingerprint(dst []byte) []byte {
	if !h.on() {
		return dst
	}
	return fmt.Appendf(dst, "replicas %q %q\n", h.ClusterLabel, h.ReplicaLabel)
}

const (
	defaultReplicaBufferBytes = 64 << 20
	defaultClustersMax        = 10_000
	// replicasMax bounds the replicas of a cluster: pairs are the rule, and pods get new names.
	replicasMax = 64
)

// replicas elects of each cluster one replica, whose samples are stored.
//
//  1. The first replica heard of is elected.
//  2. Of the others what is later than the last sample of the elected one is kept, as
//     far as the buffer reaches. It is what a failover now would need.
//  3. When the elected one was silent for the timeout, by the clock of arrivals, and
//     another was not, that one is elected. The cluster's cut becomes the last sample
//     time of the one before, and what the buffer holds behind the cut is written.
//  4. Nothing at or before the cut is stored of a replica elected after it. So
//     samples of two replicas never interleave in time, but those that came more than
//     the timeout ahead of the clock.
//
// A replica whose write is under way is not silent. What it says of itself is noted
// before samples that depend on it, so that a restart goes on with the same replica
// and a cut that is never too early. The buffer is lost with the process.
type replicas struct {
	door                       *Door
	clusterLabel, replicaLabel string
	timeout                    time.Duration
	clustersMax                int
	bufferMax                  int64
	notes                      Notes

	// saving puts notes in the order of what they say. It comes before mu.
	saving sync.Mutex

	mu       sync.Mutex // guards what follows and what hangs from it
	clusters map[string]*cluster
	byTag    map[keyTag]*replica
	lastTag  keyTag
	buffered int64
	// gone are the names of clusters whose notes are to be removed.
	gone []string
}

type cluster struct {
	name     string
	replicas map[string]*replica
	elected  *replica
	// cutMillis: later samples alone are stored of the elected replica.
	cutMillis int64
	// lastMillis is the latest sample of the elected one that is, or may be, stored, of
	// those that are not too far ahead, see latest.
	lastMillis int64
	// comingMillis is the latest of its writes under way, inFlight their number.
	comingMillis int64
	inFlight     int
	// heard is when the elected one last was.
	heard time.Time
	// owed is what was in the buffer of the elected one and is not written yet.
	// writingOwed: somebody does it.
	owed        []*kept
	owedSince   time.Time
	writingOwed bool
	// noted is what the cluster's note says; guarded by replicas.saving.
	noted clusterNote
}

type replica struct {
	name    string
	tag     keyTag
	cluster *cluster
	heard   time.Time
	buffer  []*kept
}

func newReplicas(d *Door, o HA, notes Notes) (*replicas, error) {
	rs := &replicas{
		door: d, clusterLabel: o.ClusterLabel, replicaLabel: o.ReplicaLabel, timeout: o.FailoverTimeout, notes: notes,
		clustersMax: o.ClustersMax, bufferMax: o.BufferBytesMax,
		clusters: make(map[string]*cluster), byTag: make(map[keyTag]*replica), lastTag: tagAlone,
	}
	if rs.clustersMax <= 0 {
		rs.clustersMax = defaultClustersMax
	}
	if rs.bufferMax <= 0 {
		rs.bufferMax = defaultReplicaBufferBytes
	}
	return rs, rs.readNotes()
}

// replicaNameBytesMax bounds the names of a cluster and a replica together: a note has 1 MiB.
const replicaNameBytesMax = 64 << 10

// tag returns the number of the replica that a series is of, tagAlone if of none, or why
// there is none: there are too many clusters or replicas, or their names are too long.
func (rs *replicas) tag(ls labels.Labels) (keyTag, arrival.Reason) {
	name, of := ls.Get(rs.replicaLabel), ls.Get(rs.clusterLabel)
	switch {
	case name == "" || of == "":
		return tagAlone, arrival.ReasonNone
	case len(name)+len(of) > replicaNameBytesMax:
		return 0, arrival.ReasonInvalidLabels
	}
	rs.mu.Lock()
	defer rs.mu.Unlock()
	c := rs.cluster(of)
	if c == nil {
		return 0, arrival.ReasonSeriesLimit
	}
	r := rs.replica(c, name)
	if r == nil {
		return 0, arrival.ReasonSeriesLimit
	}
	return r.tag, arrival.ReasonNone
}

// cluster returns the cluster, nil if there is no room for it. Called with mu held.
func (rs *replicas) cluster(name string) *cluster {
	if c, ok := rs.clusters[name]; ok {
		return c
	}
	if len(rs.clusters) >= rs.clustersMax && !rs.forgetCluster() {
		return nil
	}
	c := &cluster{
		name: strings.Clone(name), replicas: make(map[string]*replica), heard: rs.door.now(),
		cutMillis: math.MinInt64, lastMillis: math.MinInt64, comingMillis: math.MinInt64,
	}
	rs.clusters[c.name] = c
	return c
}

// forgetAfter is how long a cluster or a replica is silent before it makes room for another.
func (rs *replicas) forgetAfter() time.Duration { return max(time.Hour, 10*rs.timeout) }

// forgetCluster makes room for a cluster. Called with mu held.
func (rs *replicas) forgetCluster() bool {
	var oldest *cluster
	for _, c := range rs.clusters {
		if oldest == nil || c.heard.Before(oldest.heard) {
			oldest = c
		}
	}
	if rs.door.now().Sub(oldest.heard) < rs.forgetAfter() || oldest.inFlight > 0 || len(oldest.owed) > 0 {
		return false
	}
	for _, r := range oldest.replicas {
		rs.forgetReplica(r)
	}
	delete(rs.clusters, oldest.name)
	rs.gone = append(rs.gone, oldest.name)
	rs.door.m.failovers.DeleteLabelValues(oldest.name)
	return true
}

func (rs *replicas) forgetReplica(r *replica) {
	rs.release(r.buffer)
	delete(rs.byTag, r.tag)
	delete(r.cluster.replicas, r.name)
	rs.door.tags.clear()
	rs.door.m.elected.DeleteLabelValues(r.cluster.name, r.name)
}

// replica returns a replica of the cluster, nil if there is no room for it. Called with mu held.
func (rs *replicas) replica(c *cluster, name string) *replica {
	if r, ok := c.replicas[name]; ok {
		return r
	}
	now := rs.door.now()
	if len(c.replicas) >= replicasMax {
		var oldest *replica
		for _, r := range c.replicas {
			if r != c.elected && (oldest == nil || r.heard.Before(oldest.heard)) {
				oldest = r
			}
		}
		if now.Sub(oldest.heard) < rs.forgetAfter() {
			return nil
		}
		rs.forgetReplica(oldest)
	}
	if rs.lastTag >= tagMax {
		return nil
	}
	rs.lastTag++
	r := &replica{name: strings.Clone(name), tag: rs.lastTag, cluster: c, heard: now}
	c.replicas[r.name] = r
	rs.byTag[r.tag] = r
	return r
}

// errUnknownReplica is the answer to rows that were looked up before their replica was
// forgotten: looked up again, they find another.
var errUnknownReplica = errors.New("a replica was forgotten meanwhile")

// write writes what is of elected replicas or of none, and keeps some of the rest.
func (rs *replicas) write(ctx context.Context, b *arrival.Batch, res *arrival.Result) error {
	now := rs.door.now()
	due, err := rs.hear(b, now)
	if err != nil {
		return err
	}
	for _, c := range due {
		if err := rs.serve(ctx, c, now); err != nil {
			return err
		}
	}
	coming, late := rs.classify(b, now)
	res.Dropped[arrival.ReasonReplica] += late.samples + late.histograms
	res.DroppedSamples += late.samples
	res.DroppedHistograms += late.histograms
	leaveOut(b, refReplica).dropped(res, arrival.ReasonReplica)
	if err = rs.note(ctx, coming); err == nil {
		err = rs.door.store(ctx, b, res)
	}
	rs.arrived(coming, err)
	return err
}

// hear notes whose samples came and returns the clusters that have something to be
// done before they are written.
func (rs *replicas) hear(b *arrival.Batch, now time.Time) (due []*cluster, err error) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	last := tagAlone
	for i := range b.Rows {
		tag := tagOf(b.Rows[i].Ref)
		if tag == last || tag == tagAlone || b.Rows[i].Ref == 0 {
			continue
		}
		last = tag
		r := rs.byTag[tag]
		if r == nil {
			rs.door.tags.clear()
			return nil, &arrival.Unavailable{Reason: "overload", RetryAfter: time.Second, Err: errUnknownReplica}
		}
		c := r.cluster
		r.heard = now
		if c.elected == nil {
			rs.elect(c, r)
		}
		if c.elected == r {
			c.heard = now
		}
		if rs.overdue(c, now) || len(c.owed) > 0 {
			due = append(due, c)
		}
	}
	return due, nil
}

// overdue tells whether the elected replica of a cluster is silent for too long and
// another is not. While a gap is being filled there is no election, so that the next
// cut is behind what fills it. Called with mu held.
func (rs *replicas) overdue(c *cluster, now time.Time) bool {
	return c.elected != nil && c.inFlight == 0 && len(c.owed) == 0 && now.Sub(c.heard) >= rs.timeout && rs.candidate(c, now) != nil
}

// candidate is the replica whose buffer reaches back the farthest, of those that are
// not silent. Called with mu held.
func (rs *replicas) candidate(c *cluster, now time.Time) *replica {
	var best *replica
	bestFrom := int64(0)
	for _, r := range c.replicas {
		if r == c.elected || now.Sub(r.heard) >= rs.timeout || !r.heard.After(c.heard) {
			continue
		}
		from := int64(math.MaxInt64)
		for _, k := range r.buffer {
			from = min(from, k.firstAfter(c.lastMillis))
		}
		if best == nil || from < bestFrom || from == bestFrom && r.heard.After(best.heard) {
			best, bestFrom = r, from
		}
	}
	return best
}

// elect makes r the replica of its cluster. Called with mu held.
func (rs *replicas) elect(c *cluster, r *replica) {
	if c.elected != nil {
		rs.door.m.elected.DeleteLabelValues(c.name, c.elected.name)
		rs.door.m.failovers.WithLabelValues(c.name).Inc()
		rs.door.logger.Info("another replica of a cluster is elected", "cluster", quoted(c.name), "silent", quoted(c.elected.name), "elected", quoted(r.name), "last", time.UnixMilli(c.lastMillis).UTC())
	}
	rs.door.m.elected.WithLabelValues(c.name, r.name).Set(1)
	c.elected, c.heard, c.cutMillis = r, r.heard, c.lastMillis
}

// serve lets a cluster fail over if that is due and writes what it owes.
func (rs *replicas) serve(ctx context.Context, c *cluster, now time.Time) error {
	rs.mu.Lock()
	if rs.overdue(c, now) {
		r := rs.candidate(c, now)
		rs.elect(c, r)
		c.owed, c.owedSince = r.buffer, now
		r.buffer = nil
	}
	if len(c.owed) == 0 || c.writingOwed {
		rs.mu.Unlock()
		return nil
	}
	c.writingOwed = true
	owed, cut := c.owed, c.cutMillis
	rs.mu.Unlock()

	err := rs.note(ctx, []coming{{cluster: c}})
	if err == nil {
		err = rs.writeKept(ctx, cut, owed)
	}
	rs.mu.Lock()
	defer rs.mu.Unlock()
	c.writingOwed = false
	if err != nil && now.Sub(c.owedSince) >= rs.forgetAfter() {
		for _, k := range owed {
			rs.door.m.bufferLost.Add(float64(k.items()))
		}
		rs.door.logger.Error("a gap between two replicas is left", "cluster", quoted(c.name), "err", err)
		rs.release(owed)
		c.owed = nil
	}
	if err != nil {
		return fmt.Errorf("fill the gap of cluster %s: %w", quoted(c.name), err)
	}
	for _, k := range owed {
		c.lastMillis = max(c.lastMillis, min(k.lastMillis, rs.latest(now)))
	}
	c.owed = nil
	rs.release(owed)
	return nil
}

// latest is the time up to which a sample moves the cut that a failover would make. It
// can be stored, and it is over when the timeout is: one series of forecasts, or a clock
// that is far ahead, doesn't keep what comes after a failover from being stored.
func (rs *replicas) latest(now time.Time) int64 {
	return now.Add(min(rs.timeout, rs.door.futureMax)).UnixMilli()
}

// coming is what a write has of a cluster.
type coming struct {
	cluster *cluster
	millis  int64
}

// arrived notes that a write is over. Only Unavailable says that nothing of it is stored.
func (rs *replicas) arrived(all []coming, err error) {
	var unavailable *arrival.Unavailable
	stored := !errors.As(err, &unavailable)
	now := rs.door.now()
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for _, k := range all {
		c := k.cluster
		c.inFlight--
		if now.After(c.heard) {
			c.heard = now
		}
		if stored {
			c.lastMillis = max(c.lastMillis, k.millis)
		}
		if c.inFlight == 0 {
			c.comingMillis = c.lastMillis
		}
	}
}

// advance does what is due of all clusters.
func (rs *replicas) advance(ctx context.Context) error {
	now := rs.door.now()
	var due []*cluster
	rs.mu.Lock()
	for _, c := range rs.clusters {
		if rs.overdue(c, now) || len(c.owed) > 0 {
			due = append(due, c)
		}
		rs.dropOld(c, now)
	}
	rs.door.m.buffered.Set(float64(rs.buffered))
	rs.mu.Unlock()
	var errs []error
	for _, c := range due {
		errs = append(errs, rs.serve(ctx, c, now))
	}
	return errors.Join(errs...)
}

// dropOld drops what is kept of replicas that are silent for long: of clusters that are gone for good it would take the room of
// others. Called with mu held.
func (rs *replicas) dropOld(c *cluster, now time.Time) {
	for _, r := range c.replicas {
		if len(r.buffer) == 0 || now.Sub(r.heard) < rs.forgetAfter() {
			continue
		}
		for _, k := range r.buffer {
			rs.door.m.bufferLost.Add(float64(k.items()))
		}
		rs.release(r.buffer)
		r.buffer = nil
	}
}
