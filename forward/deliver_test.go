package forward_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/arrival"
	"varve/forward"
)

// TestRetries shows that what a peer can't take now is sent again, after what it asked for, and that it is shown
// meanwhile.
func TestRetries(t *testing.T) {
	hang := errors.New("hang")
	for _, c := range []struct {
		name      string
		err       error
		at, after time.Duration // when the state is looked at, and when the batch has to be there at last
		before    time.Duration // and before which it may not be
		state     forward.State
	}{
		{"429", &forward.Retry{After: 90 * time.Second, Err: errors.New("slow down")}, time.Minute, 91 * time.Second, 89 * time.Second, forward.StateRetrying},
		{"500", &forward.Retry{Err: errors.New("oops")}, 10 * time.Millisecond, time.Minute, 0, forward.StateRetrying},
		{"network", errors.New("connection refused"), 10 * time.Millisecond, time.Minute, 0, forward.StateRetrying},
		{"blocked", &forward.Blocked{Err: errors.New("no such database")}, 10 * time.Second, 31 * time.Second, 14 * time.Second, forward.StateBlocked},
		{"hang", hang, 59 * time.Second, 2 * time.Minute, time.Minute, forward.StateRunning},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, p := newFakeArchive(), newPeer()
				a.floats(1, a.named(10)...)
				p.answer = func(ctx context.Context, n int, _ *forward.Batch) (forward.Outcome, error) {
					if n > 1 {
						return forward.Outcome{}, nil
					}
					if c.err == hang {
						<-ctx.Done()
						return forward.Outcome{}, ctx.Err()
					}
					return forward.Outcome{}, c.err
				}
				r := start(t, a, t.TempDir(), output(p))
				began := time.Now()
				pass(c.at)
				s := r.status(t)
				require.Equal(t, c.state, s.State)
				require.Equal(t, c.state, s.Shards[0].State)
				if c.err != hang {
					require.Contains(t, s.Error, c.err.Error())
				}
				pass(c.before - time.Since(began))
				require.Zero(t, p.samples())
				pass(c.after - time.Since(began))
				require.Equal(t, 10, p.samples())
				require.Equal(t, 2, p.sends)
				require.Equal(t, forward.StateRunning, r.status(t).State)
				require.Equal(t, archive.Tally{Sent: 10}, a.tally("out"))
			})
		})
	}
}

// TestBackoffGrows shows that a peer that stays away is asked less and less often, but again and again.
func TestBackoffGrows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, p := newFakeArchive(), newPeer()
		a.floats(1, a.named(10)...)
		p.answer = func(context.Context, int, *forward.Batch) (forward.Outcome, error) {
			return forward.Outcome{}, errors.New("away")
		}
		start(t, a, t.TempDir(), output(p))
		pass(time.Minute)
		first := p.sent()
		require.Greater(t, first, 8)
		require.Less(t, first, 30)
		pass(time.Hour)
		require.Greater(t, p.sent()-first, 115)
		require.Less(t, p.sent()-first, 245)
	})
}

// refuse is a peer that takes nothing with one of the values in it.
func refuse(bad ...float64) func(context.Context, int, *forward.Batch) (forward.Outcome, error) {
	return func(_ context.Context, _ int, b *forward.Batch) (forward.Outcome, error) {
		for i := range b.Series {
			for _, f := range b.Series[i].Floats {
				for _, v := range bad {
					if f.Value == v {
						return forward.Outcome{}, &forward.Refused{Err: fmt.Errorf("no %v here", v)}
					}
				}
			}
		}
		return forward.Outcome{}, nil
	}
}

// TestBisect shows that of a batch of a thousand series with a bad one all others are delivered, with few attempts, and that
// the bad one is a dead letter.
func TestBisect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, p := newFakeArchive(), newPeer()
		a.floats(0, a.named(1000)...)
		p.answer = refuse(577)
		o := output(p)
		o.BatchSamples = 1000
		r := start(t, a, t.TempDir(), o)
		pass(time.Minute)
		require.Equal(t, 999, p.samples())
		require.LessOrEqual(t, p.sends, 21)
		require.Equal(t, archive.Tally{Sent: 999, Refused: 1}, a.tally("out"))
		lines := letters(t, r.dir)
		require.Len(t, lines, 1)
		var letter map[string]any
		require.NoError(t, json.Unmarshal([]byte(lines[0]), &letter))
		require.Equal(t, "refused", letter["class"])
		require.Equal(t, "no 577 here", letter["reason"])
		require.Equal(t, "577", letter["value"])
		require.Equal(t, 577.0, letter["timestamp"])
		require.Equal(t, map[string]any{"__name__": "m", "i": "578"}, letter["labels"])
		require.NotEmpty(t, letter["when"])
		p.faultless(t)
	})
}

// TestBisectWithinSeries shows that only the bad samples of a series are refused, that the order holds, and that trouble in between
// sends nothing again that was taken.
func TestBisectWithinSeries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, p := newFakeArchive(), newPeer()
		ref := a.named(1)[0]
		var refs []storage.SeriesRef
		for range 100 {
			refs = append(refs, ref)
		}
		a.floats(0, refs...)
		bad := refuse(13, 14, 99)
		taken := map[float64]int{}
		p.answer = func(ctx context.Context, n int, b *forward.Batch) (forward.Outcome, error) {
			if n%2 == 0 {
				return forward.Outcome{}, &forward.Retry{Err: errors.New("not now")}
			}
			out, err := bad(ctx, n, b)
			if err == nil {
				for _, f := range b.Series[0].Floats {
					taken[f.Value]++
				}
			}
			return out, err
		}
		o := output(p)
		o.BatchSamples = 100
		r := start(t, a, t.TempDir(), o)
		pass(time.Hour)
		require.Equal(t, 97, p.samples())
		require.Len(t, letters(t, r.dir), 3)
		for v, n := range taken {
			require.Equal(t, 1, n, v)
		}
		require.Equal(t, archive.Tally{Sent: 97, Refused: 3}, a.tally("out"))
		p.faultless(t)
	})
}

// TestTooLarge shows that a batch that is too large is cut until it fits, that the next ones are smaller at once, and that a
// single sample that is too large is a dead letter.
func TestTooLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, p := newFakeArchive(), newPeer()
		refs := a.named(64)
		p.answer = func(_ context.Context, _ int, b *forward.Batch) (forward.Outcome, error) {
			for i := range b.Series {
				for _, f := range b.Series[i].Floats {
					if f.Value == 7 {
						return forward.Outcome{}, forward.TooLarge("seven")
					}
				}
			}
			if b.Samples() > 20 {
				return forward.Outcome{}, forward.TooLarge("twenty")
			}
			return forward.Outcome{}, nil
		}
		o := output(p)
		o.BatchSamples = 64
		r := start(t, a, t.TempDir(), o)
		for i := range 20 {
			a.floats(1000*i, refs...)
		}
		pass(time.Minute)
		require.Equal(t, 20*64-1, p.samples())
		require.Equal(t, archive.Tally{Sent: 20*64 - 1, Refused: 1}, a.tally("out"))
		large := 0
		for _, n := range p.sizes {
			if n > 20 {
				large++
			}
		}
		require.Less(t, large, 15)
		require.Contains(t, strings.Join(letters(t, r.dir), ""), `"class":"too_large"`)
		p.faultless(t)
	})
}

// TestPartial shows that a peer that names what it refused has the rest counted as sent, without another attempt; and that where
// it refused all and names some, the rest is sent again.
func TestPartial(t *testing.T) {
	for _, all := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			a, p := newFakeArchive(), newPeer()
			refs := a.named(4)
			a.write(record{
				refs: []storage.SeriesRef{1, 1, 2, 2, 3}, times: []int64{1, 2, 1, 2, 1}, values: []float64{1, 2, 3, 4, 5},
				histograms: []archive.ArrivedHistogram{{Ref: refs[3], Histogram: arrival.Histogram{TimeMillis: 1, Float: floatHistogram(6)}}},
				exemplars:  []archive.ArrivedExemplar{{Ref: 2, Exemplar: exemplar.Exemplar{Value: 1}}},
			})
			p.answer = func(_ context.Context, n int, b *forward.Batch) (out forward.Outcome, err error) {
				if n > 1 {
					return out, nil
				}
				out.Refusals = []forward.Refusal{
					{Series: 1, Float: -1, Histogram: -1, Reason: "no two"}, {Series: 0, Float: 1, Histogram: -1, Reason: "late"},
					{Series: 3, Float: -1, Histogram: 0, Reason: "no histograms"}, {Series: 0, Float: 1, Histogram: -1}, {Series: 77, Float: 3},
				}
				if all {
					return out, &forward.Refused{Err: errors.New("some are bad")}
				}
				return out, nil
			}
			r := start(t, a, t.TempDir(), output(p))
			pass(time.Minute)
			require.Equal(t, archive.Tally{Sent: 2, Refused: 4}, a.tally("out"))
			lines := strings.Join(letters(t, r.dir), "\n")
			require.Equal(t, 4, strings.Count(lines, "\n")+1)
			require.Contains(t, lines, `"reason":"no histograms"`)
			require.Contains(t, lines, `"encoded":`)
			require.Equal(t, 2, strings.Count(lines, `"reason":"no two"`))
			if all {
				require.Equal(t, 2, p.sends)
				require.Equal(t, map[string][]sample{`{__name__="m", i="1"}`: {{1, 1}}, `{__name__="m", i="3"}`: {{1, 5}}}, p.series)
			} else {
				require.Equal(t, 1, p.sends)
			}
			p.faultless(t)
		})
	}
}

// TestRefusedExtras shows that exemplars and metadata that a peer refuses keep no sample from it.
func TestRefusedExtras(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, p := newFakeArchive(), newPeer()
		a.named(2)
		a.write(record{refs: []storage.SeriesRef{1, 2}, times: []int64{1, 1}, values: []float64{1, 2}})
		a.write(record{
			refs: []storage.SeriesRef{1}, times: []int64{2}, values: []float64{3},
			exemplars: []archive.ArrivedExemplar{{Ref: 1, Exemplar: exemplar.Exemplar{Value: 1}}, {Ref: 1, Exemplar: exemplar.Exemplar{Value: 2}}},
			metadata:  []arrival.Metadata{{Family: "m", Metadata: metadata.Metadata{Help: "x"}}},
		})
		p.answer = func(_ context.Context, _ int, b *forward.Batch) (out forward.Outcome, err error) {
			for i := range b.Series {
				if len(b.Series[i].Exemplars) > 0 {
					return out, &forward.Refused{Err: errors.New("no exemplars")}
				}
			}
			if len(b.Families) > 0 {
				return out, &forward.Refused{Err: errors.New("no metadata")}
			}
			return out, nil
		}
		start(t, a, t.TempDir(), output(p))
		pass(time.Minute)
		require.Equal(t, 3, p.samples())
		require.Equal(t, archive.Tally{Sent: 3}, a.tally("out"))
		require.True(t, a.settled("out"))
		p.faultless(t)
	})
}

// TestPanics shows that a sender that panics costs an attempt, and one series where it is asked to prepare that.
func TestPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, p := newFakeArchive(), newPeer()
		a.floats(1, a.named(10)...)
		p.prepare = func(t *forward.Target) error {
			if t.Labels.Get("i") == "3" {
				panic("three")
			}
			return nil
		}
		p.answer = func(_ context.Context, n int, _ *forward.Batch) (forward.Outcome, error) {
			if n < 3 {
				panic("at the disco")
			}
			return forward.Outcome{}, nil
		}
		r := start(t, a, t.TempDir(), output(p))
		pass(5 * time.Millisecond)
		require.Contains(t, r.status(t).Error, "at the disco")
		pass(time.Minute)
		require.Equal(t, 9, p.samples())
		require.Len(t, letters(t, r.dir), 1)
		require.Equal(t, archive.Tally{Sent: 9, Refused: 1}, a.tally("out"))
	})
}

// TestRateLimit shows that no more samples a second are sent than may be.
func TestRateLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, p := newFakeArchive(), newPeer()
		refs := a.named(10)
		for i := range 100 {
			a.floats(100*i, refs...)
		}
		o := output(p)
		o.RateLimit = 20
		start(t, a, t.TempDir(), o)
		pass(10*time.Second + time.Millisecond)
		require.Equal(t, 220, p.samples(), "those of the first second, and then twenty each")
	})
}

// TestShardsAreIndependent shows that a shard whose peer is slow doesn't keep the others from sending what is there, and that the place
// stays behind it.
func TestShardsAreIndependent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, p := newFakeArchive(), newPeer()
		refs := a.named(40)
		stuck := `{__name__="m", i="5"}`
		release := make(chan struct{})
		p.answer = func(ctx context.Context, _ int, b *forward.Batch) (forward.Outcome, error) {
			for i := range b.Series {
				if b.Series[i].Labels.String() == stuck {
					<-release
				}
			}
			return forward.Outcome{}, nil
		}
		o := output(p)
		o.Shards = 4
		start(t, a, t.TempDir(), o)
		for i := range 10 {
			a.floats(100*i, refs...)
		}
		pass(10 * time.Second)
		require.Greater(t, p.samples(), 200)
		require.Less(t, p.samples(), 400)
		require.Zero(t, a.tally("out").Sent)
		close(release)
		pass(time.Second)
		require.Equal(t, 400, p.samples())
		require.Equal(t, archive.Tally{Sent: 400}, a.tally("out"))
		p.faultless(t)
	})
}
