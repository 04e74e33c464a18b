package forward_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/storage"

	"varve/archive"
	"varve/forward"
)

// torrent is a Source that gives the same scrapes again and again, and says when enough are settled.
type torrent struct {
	series  []labels.Labels
	refs    []storage.SeriesRef
	perRead int
	at      int
	left    int      // samples to give
	settle  int      // samples to settle
	more    chan int // more samples to give
	done    chan struct{}
}

func (s *torrent) Read(ctx context.Context, into *archive.Arrivals) error {
	into.Reset()
	if s.left == 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case s.left = <-s.more:
		}
	}
	n := min(s.perRead, s.left)
	s.left -= n
	for range n {
		into.Refs = append(into.Refs, s.refs[s.at])
		into.Times = append(into.Times, int64(s.at))
		into.Values = append(into.Values, uint64(s.at))
		s.at = (s.at + 1) % len(s.refs)
	}
	into.Arrived = time.Unix(1, 0)
	return nil
}

func (s *torrent) Done(_ archive.Position, t archive.Tally) error {
	s.settle -= int(t.Sent + t.Filtered)
	if s.settle == 0 {
		s.done <- struct{}{}
	}
	return nil
}

// give gives n samples and returns when they are settled.
func (s *torrent) give(n int) {
	s.settle = n
	s.more <- n
	<-s.done
}

func (s *torrent) Labels(refs []storage.SeriesRef, out []labels.Labels) error {
	for i, ref := range refs {
		out[i] = s.series[ref-1]
	}
	return nil
}

func (s *torrent) Metadata(string) metadata.Metadata                  { return metadata.Metadata{} }
func (s *torrent) Lag() (archive.Lag, error)                          { return archive.Lag{}, nil }
func (s *torrent) Totals() archive.Tally                              { return archive.Tally{} }
func (s *torrent) Incarnation() string                                { return "" }
func (s *torrent) Rewind(archive.Start) error                         { return nil }
func (s *torrent) Close() error                                       { return nil }
func (s *torrent) open(string, archive.Start) (forward.Source, error) { return s, nil }

// null is a Sender that takes everything.
type null struct{}

func (null) Prepare(*forward.Target) error { return nil }
func (null) Send(context.Context, *forward.Batch) (forward.Outcome, error) {
	return forward.Outcome{}, nil
}
func (null) Close() error { return nil }

// cpuTime is what the process has used of all cores: other than the wall clock it says the same on a machine that is busy.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkCore is what a sample costs between the cursor and the sender, with all series known. Per operation: a sample.
func BenchmarkCore(b *testing.B) {
	for _, c := range []struct {
		series, shards, perRead int
		shuffled                bool
	}{
		{10_000, 1, 65536, false}, {10_000, 1, 2000, false}, {10_000, 4, 65536, false},
		{1_000_000, 1, 65536, false}, {1_000_000, 4, 65536, false}, {1_000_000, 1, 65536, true},
	} {
		b.Run(fmt.Sprintf("series=%d/shards=%d/read=%d/shuffled=%v", c.series, c.shards, c.perRead, c.shuffled), func(b *testing.B) {
			s := &torrent{perRead: c.perRead, more: make(chan int), done: make(chan struct{})}
			for i := range c.series {
				s.series = append(s.series, labels.FromStrings("__name__", "http_requests_total", "instance", fmt.Sprint("host-", i/500), "job", "node", "n", fmt.Sprint(i)))
				s.refs = append(s.refs, storage.SeriesRef(i+1))
			}
			if c.shuffled {
				r := rand.New(rand.NewPCG(1, 1))
				r.Shuffle(len(s.refs), func(i, j int) { s.refs[i], s.refs[j] = s.refs[j], s.refs[i] })
			}
			f := forward.New(forward.Options{Open: s.open})
			o := forward.Output{Name: "out", Shards: c.shards, InFlightBytes: 32 << 20, NewSender: func() (forward.Sender, error) { return null{}, nil }}
			if err := f.Apply([]forward.Output{o}); err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan error, 1)
			go func() { ended <- f.Run(ctx) }()
			s.give(len(s.refs))
			b.ReportAllocs()
			before := cpuTime()
			b.ResetTimer()
			s.give(b.N)
			b.StopTimer()
			b.ReportMetric(float64(cpuTime()-before)/float64(b.N), "cpu-ns/op")
			cancel()
			<-ended
		})
	}
}
