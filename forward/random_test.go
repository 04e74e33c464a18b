package forward_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/arrival"
	"varve/forward"
)

// TestRandom shows that under random arrivals, settings, answers of the peer, trouble of the archive, pauses, reloads, stops and kills, every sample is in the end
// with the peer, in the dead letters, not wanted, or superseded; that the place's counts say so, and that the order of a series holds.
func TestRandom(t *testing.T) {
	rounds := 150
	if testing.Short() {
		rounds = 20
	}
	for round := range rounds {
		seed := uint64(round)
		if !t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { randomRun(t, rand.New(rand.NewPCG(seed, 5))) })
		}) {
			return
		}
	}
}

// chaos is a peer whose answers are random, but for what is bad for good.
type chaos struct {
	*peer
	random *rand.Rand
	// trouble is how often an attempt fails, of a hundred.
	trouble int
	sizeMax int
}

// bad tells what the peer never takes.
func bad(v float64) bool { return int(v)%97 == 13 }

func (c *chaos) answerTo(ctx context.Context, _ int, b *forward.Batch) (out forward.Outcome, err error) {
	c.mu.Lock()
	dice, how, named := c.random.IntN(100), c.random.IntN(7), c.random.IntN(2) == 0
	delay := time.Duration(c.random.IntN(20)) * time.Millisecond
	c.mu.Unlock()
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return out, ctx.Err()
	}
	var refusals []forward.Refusal
	for i := range b.Series {
		for j, f := range b.Series[i].Floats {
			if bad(f.Value) {
				refusals = append(refusals, forward.Refusal{Series: i, Float: j, Histogram: -1, Reason: "bad"})
			}
		}
	}
	if dice < c.trouble {
		switch how {
		case 0:
			return out, &forward.Retry{After: time.Second, Err: errors.New("429")}
		case 1:
			return out, &forward.Retry{Err: errors.New("503")}
		case 2:
			<-ctx.Done()
			return out, ctx.Err()
		case 3:
			return out, &forward.Blocked{Err: errors.New("401")}
		case 4:
			panic("panic of a peer")
		case 5:
			c.mu.Lock()
			c.take(b, refusals) // It took what it takes, and the answer was lost.
			c.mu.Unlock()
			return out, errors.New("reset")
		}
		return out, errors.New("connection refused")
	}
	if b.Samples() > c.sizeMax {
		return out, forward.TooLarge("413")
	}
	out.Refusals = refusals
	if len(out.Refusals) > 0 && !named {
		return forward.Outcome{}, &forward.Refused{Err: errors.New("400")}
	}
	return out, nil
}

func randomRun(t *testing.T, random *rand.Rand) {
	a, p := newFakeArchive(), newPeer()
	c := &chaos{peer: p, random: rand.New(rand.NewPCG(random.Uint64(), 2)), trouble: random.IntN(60), sizeMax: 1 + random.IntN(60)}
	p.answer = c.answerTo
	count := 1 + random.IntN(30)
	collide := random.IntN(2) == 0
	// Refs that are far from each other are forgotten now and then: there may be few pages.
	stride := storage.SeriesRef(1)
	if random.IntN(2) == 0 {
		stride, count = 257, 1+random.IntN(60)
	}
	for i := range count {
		a.series[stride*storage.SeriesRef(i+1)] = labels.FromStrings("__name__", "m", "i", fmt.Sprint(i+1))
	}
	a.refused = func(ref storage.SeriesRef, v float64) bool { return ref != 3*stride && bad(v) }
	a.perRead = 1 + random.IntN(10)
	if random.IntN(3) == 0 {
		shaky := rand.New(rand.NewPCG(random.Uint64(), 1))
		a.fail = func(call string) error {
			a.mu.Lock()
			defer a.mu.Unlock()
			if shaky.IntN(5) == 0 {
				return errors.New(call)
			}
			return nil
		}
	}
	settings := func(fingerprint string) forward.Output {
		o := forward.Output{
			Name: "out", Fingerprint: fingerprint, Start: archive.Start{All: true}, Shards: 1 + random.IntN(5),
			BatchSamples: 1 + random.IntN(50), BatchDelay: time.Duration(1+random.IntN(2000)) * time.Millisecond, SendTimeout: 5 * time.Second,
			InFlightBytes: int64(1 + random.IntN(20000)), CacheSeries: 512,
			Exclude:   [][]*labels.Matcher{matchers("i", "=", "3")},
			NewSender: func() (forward.Sender, error) { return p, nil },
		}
		if collide {
			o.Relabel = []*relabel.Config{{
				Action: relabel.Replace, SourceLabels: labelNames("i"), Regex: relabel.MustNewRegexp(".*(.)"), Replacement: "$1", TargetLabel: "i", Separator: ";",
			}}
		}
		return o
	}
	dir := t.TempDir()
	r := start(t, a, dir, settings("0"))
	killed := false
	now := int64(0)
	for step := range 60 {
		switch random.IntN(12) {
		case 0:
			pass(time.Duration(random.IntN(5000)) * time.Millisecond)
		case 1:
			require.NoError(t, r.Apply([]forward.Output{settings(fmt.Sprint(step))}))
		case 2:
			if random.IntN(2) == 0 {
				a.kill()
				killed = true
			}
			r.stop()
			r = start(t, a, dir, settings("0"))
		case 3:
			require.NoError(t, r.Pause("out"))
		case 4:
			require.NoError(t, r.Resume("out"))
		default:
			var rec record
			for range random.IntN(40) {
				number := 1 + random.IntN(count)
				ref := stride * storage.SeriesRef(number)
				now++
				if number%10 == 4 { // A series is of one kind.
					rec.histograms = append(rec.histograms, archive.ArrivedHistogram{Ref: ref, Histogram: arrival.Histogram{TimeMillis: now, Float: floatHistogram(float64(now))}})
					continue
				}
				rec.refs, rec.times, rec.values = append(rec.refs, ref), append(rec.times, now), append(rec.values, float64(now))
			}
			a.write(rec)
		}
	}
	require.NoError(t, r.Resume("out"))
	for range 1000 {
		if a.settled("out") {
			break
		}
		pass(time.Minute)
	}
	require.True(t, a.settled("out"))
	if len(p.faults) > 0 {
		// A batch that was sent, or a part of it, comes again after a fault: the peer compares with what it has, so this is about order.
		require.Empty(t, p.faults)
	}
	judge(t, a, p, dir, collide, killed)
}

func labelNames(name string) model.LabelNames { return model.LabelNames{model.LabelName(name)} }

// judge compares what was written with what the peer has and the letters.
func judge(t *testing.T, a *fakeArchive, p *peer, dir string, collide, killed bool) {
	t.Helper()
	var wanted, unwanted, refused int
	lines := strings.Join(letters(t, dir), "\n")
	for i := range a.records {
		r := &a.records[i]
		check := func(ref storage.SeriesRef, s sample, float bool) {
			number := a.series[ref].Get("i")
			if number == "3" {
				unwanted++
				return
			}
			if collide {
				number = number[len(number)-1:]
			}
			have := p.series[labels.FromStrings("__name__", "m", "i", number).String()]
			if float && bad(s.value) {
				refused++
				require.Contains(t, lines, fmt.Sprintf(`"value":"%v"`, s.value))
				return
			}
			wanted++
			require.True(t, slices.Contains(have, s), "%v of %s is missing", s, number)
		}
		for j, ref := range r.refs {
			check(ref, sample{r.times[j], r.values[j]}, true)
		}
		for _, h := range r.histograms {
			check(h.Ref, sample{h.TimeMillis, h.Float.Count}, false)
		}
	}
	if !killed {
		require.Equal(t, archive.Tally{Sent: uint64(wanted), Refused: uint64(refused), Filtered: uint64(unwanted)}, a.tally("out"))
		return
	}
	// A place that was not saved is counted when it is.
	got := a.tally("out")
	require.Equal(t, uint64(wanted+refused+unwanted), got.Sent+got.Refused+got.Filtered+got.Dropped)
}
