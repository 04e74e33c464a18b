package forward_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/model/relabel"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/arrival"
	"varve/forward"
)

// TestEverythingArrives shows that floats, histograms, exemplars and metadata come to the peer, in batches by number and by
// delay, and that the place moves over them.
func TestEverythingArrives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, p := newFakeArchive(), newPeer()
		a.known = map[string]metadata.Metadata{"m": {Help: "help of m"}}
		refs := a.named(7)
		for i := range 5 {
			a.floats(100*i, refs...)
		}
		r := start(t, a, t.TempDir(), output(p))
		synctest.Wait()
		require.Equal(t, 29, p.samples(), "the rest waits for more to come, and metadata takes a place too")
		pass(100 * time.Millisecond)
		require.Equal(t, 35, p.samples())
		require.True(t, a.settled("out"))

		a.write(record{
			refs: refs[:1], times: []int64{1000}, values: []float64{1},
			histograms: []archive.ArrivedHistogram{{Ref: 2, Histogram: arrival.Histogram{TimeMillis: 1001, Float: floatHistogram(4)}}},
			exemplars:  []archive.ArrivedExemplar{{Ref: 2, Exemplar: exemplar.Exemplar{Value: 1, Ts: 1001}}, {Ref: 3, Exemplar: exemplar.Exemplar{Value: 2}}},
			metadata:   []arrival.Metadata{{Family: "m", Metadata: metadata.Metadata{Help: "x"}}, {Family: "never_seen"}},
		})
		pass(100 * time.Millisecond)
		require.Equal(t, 37, p.samples())
		require.Equal(t, 2, p.exem)
		require.Equal(t, []string{"m", "m"}, p.fams, "with the first series, and as it arrived")
		require.Equal(t, "help of m", p.last.Series[0].Metadata.Help)
		require.Equal(t, "inc-1-1-0", p.last.ID)
		p.faultless(t)

		s := r.status(t)
		require.Equal(t, forward.StateRunning, s.State)
		require.Equal(t, forward.StatusTotals{Sent: 37}, s.Totals)
		require.Zero(t, s.Lag.Samples)
		require.Zero(t, s.InFlightBytes)
		require.Empty(t, s.Error)
		r.stop()
		require.Equal(t, forward.StateStopped, r.status(t).State)
		require.Equal(t, 1, p.closed)
	})
}

// TestMetadataOfBefore shows that the metadata of what is sent is sent too, once for each family, though it arrived before the output was there
// or when the output had nothing of the family.
func TestMetadataOfBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, p := newFakeArchive(), newPeer()
		a.known = map[string]metadata.Metadata{
			"seconds": {Type: model.MetricTypeHistogram}, "up": {Help: "x"}, "other": {Help: "y"},
		}
		for i, name := range []string{"seconds", "seconds_count", "up", "up", "unknown"} {
			a.series[storage.SeriesRef(i+1)] = labels.FromStrings("__name__", name, "i", fmt.Sprint(i))
		}
		a.write(record{metadata: []arrival.Metadata{{Family: "up", Metadata: metadata.Metadata{Help: "x"}}}})
		a.perRead = 1
		a.floats(1, 1, 2, 5)
		a.floats(11, 3)
		a.floats(21, 4)
		start(t, a, t.TempDir(), output(p))
		pass(time.Minute)
		require.Equal(t, 5, p.samples())
		require.Equal(t, []string{"seconds", "up"}, p.fams)
		p.faultless(t)
	})
}

// matchers parses label, operator and value, three by three.
func matchers(parts ...string) []*labels.Matcher {
	types := map[string]labels.MatchType{"=": labels.MatchEqual, "!=": labels.MatchNotEqual, "=~": labels.MatchRegexp, "!~": labels.MatchNotRegexp}
	var out []*labels.Matcher
	for i := 0; i < len(parts); i += 3 {
		out = append(out, labels.MustNewMatcher(types[parts[i+1]], parts[i], parts[i+2]))
	}
	return out
}

// TestFilters shows that selectors choose as in PromQL, a missing label being empty, and that external labels and relabelling make the series
// that are sent.
func TestFilters(t *testing.T) {
	series := []labels.Labels{
		labels.FromStrings("__name__", "up", "job", "a"),
		labels.FromStrings("__name__", "up", "job", "b", "env", "x"),
		labels.FromStrings("__name__", "down", "job", "a"),
		labels.EmptyLabels(), // it is gone
	}
	drop := &relabel.Config{Action: relabel.Drop, SourceLabels: model.LabelNames{"job"}, Regex: relabel.MustNewRegexp("b"), Separator: ";"}
	cut := labelDrop("job|__name__")
	for _, c := range []struct {
		name   string
		change func(o *forward.Output)
		want   []string
	}{
		{"nothing", func(*forward.Output) {}, []string{`{__name__="up", job="a"}`, `{__name__="up", job="b", env="x"}`, `{__name__="down", job="a"}`}},
		{"include either", func(o *forward.Output) {
			o.Include = [][]*labels.Matcher{matchers("__name__", "=", "down"), matchers("job", "=~", "b|c")}
		}, []string{`{__name__="up", env="x", job="b"}`, `{__name__="down", job="a"}`}},
		{"include both", func(o *forward.Output) {
			o.Include = [][]*labels.Matcher{matchers("__name__", "=", "up", "job", "=", "a")}
		}, []string{`{__name__="up", job="a"}`}},
		{"include a missing label", func(o *forward.Output) { o.Include = [][]*labels.Matcher{matchers("env", "=", "")} }, []string{`{__name__="up", job="a"}`, `{__name__="down", job="a"}`}},
		{"exclude", func(o *forward.Output) { o.Exclude = [][]*labels.Matcher{matchers("env", "!=", "")} }, []string{`{__name__="up", job="a"}`, `{__name__="down", job="a"}`}},
		{"external labels give way", func(o *forward.Output) {
			o.ExternalLabels = labels.FromStrings("env", "e", "site", "s")
			o.Relabel = []*relabel.Config{drop}
		}, []string{`{__name__="up", env="e", job="a", site="s"}`, `{__name__="down", env="e", job="a", site="s"}`}},
		{"what has no label left isn't sent", func(o *forward.Output) { o.Relabel = []*relabel.Config{cut} }, []string{`{env="x"}`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, p := newFakeArchive(), newPeer()
				for i, ls := range series {
					a.series[storage.SeriesRef(i+1)] = ls
				}
				a.floats(1, 1, 2, 3, 4)
				o := output(p)
				c.change(&o)
				start(t, a, t.TempDir(), o)
				pass(time.Second)
				require.Len(t, p.series, len(c.want))
				for _, want := range c.want {
					found := false
					for got := range p.series {
						found = found || sorted(got) == sorted(want)
					}
					require.True(t, found, "%s in %v", want, p.series)
				}
				tally := a.tally("out")
				require.Equal(t, archive.Tally{Sent: uint64(len(c.want)), Filtered: uint64(4 - len(c.want))}, tally)
			})
		})
	}
}

// labelDrop is a rule that takes labels away.
func labelDrop(regex string) *relabel.Config {
	c := relabel.DefaultRelabelConfig
	c.Action, c.Regex = relabel.LabelDrop, relabel.MustNewRegexp(regex)
	return &c
}

// sorted is the text of labels without their order.
func sorted(ls string) string {
	parts := strings.Split(strings.Trim(ls, "{}"), ", ")
	n := 0
	for _, p := range parts {
		for _, c := range p {
			n += int(c) * int(c)
		}
	}
	return fmt.Sprint(len(parts), n)
}

// TestCollision shows that two series that become one are one in every batch, and that the last arrival for a time wins.
func TestCollision(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, p := newFakeArchive(), newPeer()
		a.named(4)
		a.write(record{refs: []storage.SeriesRef{1, 2, 3, 1, 2}, times: []int64{5, 5, 4, 6, 5}, values: []float64{1, 2, 3, 4, 5}})
		o := output(p)
		o.Relabel = []*relabel.Config{labelDrop("i")}
		o.Shards = 3
		start(t, a, t.TempDir(), o)
		pass(time.Second)
		require.Equal(t, map[string][]sample{`{__name__="m"}`: {{4, 3}, {5, 5}, {6, 4}}}, p.series)
		require.Equal(t, archive.Tally{Sent: 3, Filtered: 2}, a.tally("out"))
		p.faultless(t)
	})
}

// TestReload shows that outputs come, change and go by name: who stays as it was isn't disturbed, who changes goes on where it was,
// who goes loses its cursor, and who comes back begins anew.
func TestReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newFakeArchive()
		refs := a.named(3)
		stays, changes, goes := newPeer(), newPeer(), newPeer()
		named := func(name, fingerprint string, p *peer) forward.Output {
			o := output(p)
			o.Name, o.Fingerprint = name, fingerprint
			return o
		}
		r := start(t, a, t.TempDir(), named("stays", "1", stays), named("changes", "1", changes), named("goes", "1", goes))
		a.floats(1, refs...)
		pass(time.Second)

		require.NoError(t, r.Pause("changes"))
		changed := newPeer()
		require.NoError(t, r.Apply([]forward.Output{named("stays", "1", newPeer()), named("changes", "2", changed)}))
		a.floats(101, refs...)
		pass(time.Second)
		require.Equal(t, 6, stays.samples())
		require.Equal(t, 3, goes.samples())
		require.Equal(t, []string{"goes"}, a.removed)
		require.Zero(t, changed.samples(), "a pause survives a reload")
		require.NoError(t, r.Resume("changes"))
		pass(time.Second)
		require.Equal(t, 3, changed.samples())
		require.Equal(t, []int{0, 1, 1}, []int{stays.closed, changes.closed, goes.closed})

		back := newPeer()
		require.NoError(t, r.Apply([]forward.Output{named("goes", "1", back)}))
		pass(time.Second)
		require.Equal(t, 6, back.samples())
		require.Len(t, r.Status(), 1)
		require.ErrorIs(t, r.Pause("stays"), forward.ErrUnknownOutput)
	})
}

// TestApplyRefuses shows that a list with a mistake changes nothing.
func TestApplyRefuses(t *testing.T) {
	p := newPeer()
	good := output(p)
	for name, break_ := range map[string]func(o *forward.Output){
		"no name":     func(o *forward.Output) { o.Name = "" },
		"there twice": func(o *forward.Output) {},
		"includes and excludes": func(o *forward.Output) {
			o.Include, o.Exclude = make([][]*labels.Matcher, 1), make([][]*labels.Matcher, 1)
		},
		"no sender":          func(o *forward.Output) { o.NewSender = nil },
		"shards":             func(o *forward.Output) { o.Shards = 1000 },
		"relabelling rule 1": func(o *forward.Output) { o.Relabel = []*relabel.Config{{Action: relabel.HashMod}} },
		"nobody to ask":      func(o *forward.Output) { o.Queries = []forward.Query{{Name: "q", Expr: "up", Interval: time.Second}} },
	} {
		f := forward.New(forward.Options{Open: newFakeArchive().open})
		require.NoError(t, f.Apply([]forward.Output{good}))
		bad := good
		break_(&bad)
		err := f.Apply([]forward.Output{good, bad})
		require.ErrorContains(t, err, name)
		require.Len(t, f.Status(), 1)
	}
}

// TestSteer shows that a pause sends nothing, keeps what is read, and ends, and that a rewind sends all again, also while the
// peer hangs.
func TestSteer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, p := newFakeArchive(), newPeer()
		refs := a.named(3)
		r := start(t, a, t.TempDir(), output(p))
		a.floats(1, refs...)
		pass(time.Second)
		require.NoError(t, r.Pause("out"))
		a.floats(101, refs...)
		pass(time.Minute)
		require.Equal(t, 3, p.samples())
		s := r.status(t)
		require.Equal(t, forward.StatePaused, s.State)
		require.Equal(t, uint64(3), s.Lag.Samples)
		require.InDelta(t, 60, s.Lag.Seconds, 0.001)

		require.NoError(t, r.Rewind("out", archive.Start{All: true}))
		require.NoError(t, r.Resume("out"))
		pass(time.Second)
		require.Equal(t, 6, p.samples())
		require.Equal(t, uint64(9), r.status(t).Totals.Sent)

		var calls atomic.Int32
		p.answer = func(ctx context.Context, _ int, _ *forward.Batch) (forward.Outcome, error) {
			if calls.Add(1) == 1 {
				<-ctx.Done()
				return forward.Outcome{}, ctx.Err()
			}
			return forward.Outcome{}, nil
		}
		a.floats(201, refs...)
		pass(time.Second)
		require.NoError(t, r.Rewind("out", archive.Start{}))
		a.floats(301, refs...)
		pass(time.Second)
		require.Equal(t, 9, p.samples(), "what hung was skipped by the rewind")
		require.ErrorIs(t, r.Rewind("other", archive.Start{}), forward.ErrUnknownOutput)
		r.stop()
		require.ErrorIs(t, r.Rewind("out", archive.Start{}), forward.ErrNotRunning)
	})
}

// TestBrokenOutput shows that an output without sender or cursor shows why, harms no other, and begins when it can.
func TestBrokenOutput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, p, q := newFakeArchive(), newPeer(), newPeer()
		refs := a.named(3)
		a.floats(1, refs...)
		var fixed atomic.Bool
		broken := output(p)
		broken.Name = "broken"
		broken.NewSender = func() (forward.Sender, error) {
			if !fixed.Load() {
				return nil, errors.New("no such file")
			}
			return p, nil
		}
		r := start(t, a, t.TempDir(), broken, output(q))
		pass(time.Minute)
		require.Equal(t, 3, q.samples())
		s := r.Status()[0]
		require.Equal(t, forward.StateFailed, s.State)
		require.Contains(t, s.Error, "no such file")
		require.NotNil(t, s.ErrorTime)
		fixed.Store(true)
		pass(time.Minute)
		require.Equal(t, 3, p.samples())
	})
}

// TestOwnTrouble shows that nothing is lost or counted twice when the archive fails to read, to find labels or to save.
func TestOwnTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, p := newFakeArchive(), newPeer()
		refs := a.named(10)
		var calls atomic.Int32
		a.fail = func(call string) error {
			if calls.Add(1)%3 == 0 {
				return errors.New("disk error at " + call)
			}
			return nil
		}
		r := start(t, a, t.TempDir(), output(p))
		for i := range 20 {
			a.floats(100*i, refs...)
		}
		pass(time.Hour)
		require.Equal(t, 200, p.samples())
		require.True(t, a.settled("out"))
		require.Equal(t, archive.Tally{Sent: 200}, a.tally("out"))
		require.Contains(t, r.status(t).Error, "disk error")
		require.Equal(t, forward.StateRunning, r.status(t).State)
		p.faultless(t)
	})
}

// TestGrace shows that a batch under way may end when the output stops, within the grace, and that one that hangs is cut off then.
func TestGrace(t *testing.T) {
	for _, takes := range []time.Duration{time.Second, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			a, p := newFakeArchive(), newPeer()
			p.answer = func(ctx context.Context, _ int, _ *forward.Batch) (forward.Outcome, error) {
				select {
				case <-time.After(takes):
					return forward.Outcome{}, nil
				case <-ctx.Done():
					return forward.Outcome{}, ctx.Err()
				}
			}
			a.floats(1, a.named(10)...)
			r := start(t, a, t.TempDir(), output(p))
			synctest.Wait()
			began := time.Now()
			r.stop()
			if takes < time.Minute {
				require.Equal(t, takes, time.Since(began))
				require.True(t, a.settled("out"))
				return
			}
			require.Equal(t, 5*time.Second, time.Since(began))
			require.False(t, a.settled("out"))
		})
	}
}

// TestCacheIsBounded shows that many more series than may be remembered are sent right, in order.
func TestCacheIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, p := newFakeArchive(), newPeer()
		refs := a.named(3000)
		o := output(p)
		o.CacheSeries, o.BatchSamples, o.Shards = 512, 700, 3
		start(t, a, t.TempDir(), o)
		for i := range 5 {
			a.floats(i*len(refs), refs...)
		}
		pass(time.Minute)
		require.Equal(t, 15000, p.samples())
		require.Greater(t, a.labelCalls, 4000)
		p.faultless(t)
	})
}

// TestMetrics shows the names and what they count, and that a removed output leaves none.
func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, p := newFakeArchive(), newPeer()
		registry := prometheus.NewRegistry()
		a.floats(1, a.named(10)...)
		o := output(p)
		o.Exclude = [][]*labels.Matcher{matchers("i", "=", "1")}
		p.prepare = func(t *forward.Target) error {
			if t.Labels.Get("i") == "2" {
				return errors.New("no two")
			}
			return nil
		}
		p.answer = func(_ context.Context, n int, b *forward.Batch) (out forward.Outcome, err error) {
			if n == 1 {
				return out, &forward.Retry{Err: errors.New("busy")}
			}
			out.Skip("nan", 2)
			out.Refusals = []forward.Refusal{{Series: 0, Float: 0, Histogram: -1, Reason: "bad"}}
			return out, nil
		}
		r := startWith(t, a, forward.Options{DeadLetters: t.TempDir(), Registerer: registry}, o)
		pass(time.Minute)
		require.NoError(t, testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP varve_forward_samples_sent_total Samples that the peer of an output took.
# TYPE varve_forward_samples_sent_total counter
varve_forward_samples_sent_total{output="out"} 5
# HELP varve_forward_samples_filtered_total Samples read that an output is not to have.
# TYPE varve_forward_samples_filtered_total counter
varve_forward_samples_filtered_total{output="out"} 1
# HELP varve_forward_samples_dead_lettered_total Samples that were refused and written to the dead letters, by step.
# TYPE varve_forward_samples_dead_lettered_total counter
varve_forward_samples_dead_lettered_total{output="out",reason="refused_by_name"} 1
varve_forward_samples_dead_lettered_total{output="out",reason="unwritable"} 1
# HELP varve_forward_samples_skipped_total Samples left out because the protocol can't express them or a later one replaces them, by reason. Refused exemplars and metadata too.
# TYPE varve_forward_samples_skipped_total counter
varve_forward_samples_skipped_total{output="out",reason="nan"} 2
# HELP varve_forward_retries_total Batches, or parts of them, sent again after a wait.
# TYPE varve_forward_retries_total counter
varve_forward_retries_total{output="out"} 1
# HELP varve_forward_lag_samples Samples that an output has not settled, as far as they are known.
# TYPE varve_forward_lag_samples gauge
varve_forward_lag_samples{output="out"} 0
# HELP varve_forward_in_flight_bytes Memory of what an output has read and not settled.
# TYPE varve_forward_in_flight_bytes gauge
varve_forward_in_flight_bytes{output="out"} 0
`), "varve_forward_samples_sent_total", "varve_forward_samples_filtered_total", "varve_forward_samples_dead_lettered_total",
			"varve_forward_samples_skipped_total", "varve_forward_retries_total", "varve_forward_lag_samples", "varve_forward_in_flight_bytes"))
		require.Equal(t, archive.Tally{Sent: 5, Refused: 4, Filtered: 1}, a.tally("out"))

		require.NoError(t, r.Apply(nil))
		pass(time.Minute)
		families, err := registry.Gather()
		require.NoError(t, err)
		require.Empty(t, families)
	})
}

// letters reads the files of dead letters.
func letters(t testing.TB, dir string) (lines []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.jsonl*"))
	require.NoError(t, err)
	for _, name := range files {
		content, err := os.ReadFile(name)
		require.NoError(t, err)
		lines = append(lines, strings.Split(strings.TrimSpace(string(content)), "\n")...)
	}
	return lines
}

// forgetful is a peer that says when it may have lost something.
type forgetful struct {
	*peer
	rewinds chan time.Duration
}

func (f forgetful) Rewinds() <-chan time.Duration { return f.rewinds }

// keeper is a cursor that can go back in arrivals.
type keeper struct {
	forward.Source
	a     *fakeArchive
	kept  time.Duration
	since []time.Time
	fails int
}

func (k *keeper) KeepBehind(d time.Duration) { k.kept = d }

func (k *keeper) RewindArrivals(since time.Time) error {
	k.since = append(k.since, since)
	if len(k.since) <= k.fails {
		return errors.New("disk error")
	}
	return k.Rewind(archive.Start{All: true})
}

// TestRewinder shows that what a peer may have lost is sent again when it says so, also if going back fails at first.
func TestRewinder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, p := newFakeArchive(), newPeer()
		a.floats(1, a.named(10)...)
		k := &keeper{a: a, fails: 2}
		f := forward.New(forward.Options{Open: func(name string, start archive.Start) (forward.Source, error) {
			var err error
			k.Source, err = a.open(name, start)
			return k, err
		}})
		o := output(p)
		o.KeepBehind = 4 * time.Minute
		rewinds := make(chan time.Duration, 1)
		o.NewSender = func() (forward.Sender, error) { return forgetful{p, rewinds}, nil }
		require.NoError(t, f.Apply([]forward.Output{o}))
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error)
		go func() { ended <- f.Run(ctx) }()
		pass(time.Minute)
		require.Equal(t, archive.Tally{Sent: 10}, a.tally("out"))
		said := time.Now()
		rewinds <- 30 * time.Second
		pass(5 * time.Minute)
		require.Equal(t, archive.Tally{Sent: 20}, a.tally("out"))
		cancel()
		require.NoError(t, <-ended)
		back := said.Add(-30 * time.Second)
		require.Equal(t, []time.Time{back, back, back}, k.since)
		require.Equal(t, 4*time.Minute, k.kept)
	})
}
