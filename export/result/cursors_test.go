package result

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/stretchr/testify/require"
)

// TestCursors shows that the values of series that come and go are met by time and then by series, each once, and that
// each point of the grid is told of with their number.
func TestCursors(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	g := Grid{First: -500, Last: 3000, Step: 50}
	for _, density := range []float64{0, 0.01, 0.3, 1} {
		p := &Part{Grid: g}
		for i := range 40 {
			s := Series{Query: i}
			for at := g.First; at <= g.Last; at += g.Step {
				if random.Float64() < density {
					s.Floats = append(s.Floats, promql.FPoint{T: at, F: float64(at)})
				}
				if random.Float64() < density/2 {
					s.Histograms = append(s.Histograms, Histogram{at, []byte(fmt.Sprint(at))})
				}
			}
			p.Series = append(p.Series, s)
		}
		var want, got []string
		for at := g.First; at <= g.Last; at += g.Step {
			n := 0
			for i := range p.Series {
				for _, v := range p.Series[i].Floats {
					if v.T == at {
						want = append(want, fmt.Sprint(at, i, v.F))
						n++
					}
				}
				for _, h := range p.Series[i].Histograms {
					if h.T == at {
						want = append(want, fmt.Sprint(at, i, string(h.JSON)))
						n++
					}
				}
			}
			want = append(want, fmt.Sprint("end ", at, n))
		}
		err := newCursors(p).each(func(at int64, s *Series, v float64, h []byte) error {
			if h != nil {
				got = append(got, fmt.Sprint(at, s.Query, string(h)))
			} else {
				got = append(got, fmt.Sprint(at, s.Query, v))
			}
			return nil
		}, func(at int64, n int) error {
			got = append(got, fmt.Sprint("end ", at, n))
			return nil
		})
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
}

// BenchmarkCursors walks 2 million values of 200 series, and 200,000 of as many series, over 10,000 points.
func BenchmarkCursors(b *testing.B) {
	g := Grid{First: 0, Last: 9_999_000, Step: 1000}
	dense, sparse := &Part{Grid: g}, &Part{Grid: g}
	for i := range 200_000 {
		s := Series{Labels: labels.FromStrings("a", fmt.Sprint(i))}
		sparse.Series = append(sparse.Series, Series{Labels: s.Labels, Floats: []promql.FPoint{{T: int64(i%10_000) * 1000}}})
		if i < 200 {
			for at := g.First; at <= g.Last; at += g.Step {
				s.Floats = append(s.Floats, promql.FPoint{T: at})
			}
			dense.Series = append(dense.Series, s)
		}
	}
	for name, p := range map[string]*Part{"dense": dense, "sparse": sparse} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := newCursors(p).each(func(int64, *Series, float64, []byte) error { return nil }, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
