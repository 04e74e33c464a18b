package query

import (
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/util/stats"
)

// mergeSamples adds up the statistics of the parts. PeakSamples is the sum of
// the parts' peaks, which is no less than the peak of the whole.
func (q *query) mergeSamples(parts []*part) *stats.QuerySamples {
	sum := stats.NewQuerySamples(q.engine.options.PerStepStats && q.opts != nil && q.opts.EnablePerStepStats())
	sum.InitStepTracking(q.start.UnixMilli(), q.end.UnixMilli(), q.step.Milliseconds())
	at := 0
	for _, p := range parts {
		s := p.upstream.Stats().Samples
		total, read := s.TotalSamplesPerStep, s.SamplesReadPerStep
		sum.PeakSamples += s.PeakSamples
		sum.TotalSamples += s.TotalSamples
		sum.SamplesRead += s.SamplesRead
		if p.extra {
			sum.TotalSamples -= total[0]
			sum.SamplesRead -= read[0]
			total, read = total[1:], read[1:]
		}
		if sum.EnablePerStepStats {
			copy(sum.TotalSamplesPerStep[at:], total)
			copy(sum.SamplesReadPerStep[at:], read)
			at += len(total)
		}
	}
	return sum
}

// mergeMatrices joins the results of the parts, each sorted by labels as
// upstream sorts every range result, into one that is. Their points are copied:
// those of the parts go back to upstream's pools.
func mergeMatrices(parts []*part) promql.Matrix {
	rest := make([]promql.Matrix, len(parts))
	series, floats, histograms := 0, 0, 0
	for i, p := range parts {
		rest[i] = p.result.Value.(promql.Matrix)
		series = max(series, len(rest[i]))
		for j := range rest[i] {
			floats += len(rest[i][j].Floats)
			histograms += len(rest[i][j].Histograms)
		}
	}
	m := merger{floats: make([]promql.FPoint, 0, floats), histograms: make([]promql.HPoint, 0, histograms)}
	out := make(promql.Matrix, 0, series)
	for {
		low := -1
		for i := range rest {
			if len(rest[i]) > 0 && (low < 0 || labels.Compare(rest[i][0].Metric, rest[low][0].Metric) < 0) {
				low = i
			}
		}
		if low < 0 {
			return out
		}
		s := promql.Series{Metric: rest[low][0].Metric, DropName: rest[low][0].DropName}
		for i := low; i < len(rest); i++ {
			if len(rest[i]) == 0 || i > low && !labels.Equal(rest[i][0].Metric, s.Metric) {
				continue
			}
			m.add(parts[i], &rest[i][0])
			rest[i] = rest[i][1:]
		}
		if m.take(&s) {
			out = append(out, s)
		}
	}
}

// merger holds the points of all series, one after the other.
type merger struct {
	floats     []promql.FPoint
	histograms []promql.HPoint
	// fromFloats and fromHistograms are where the points of the current series
	// begin.
	fromFloats, fromHistograms int
}

// add appends the points of a part's series to the current one.
func (m *merger) add(p *part, s *promql.Series) {
	f, h := s.Floats, s.Histograms
	if p.extra && len(f) > 0 && f[0].T == p.first {
		f = f[1:]
	}
	if p.extra && len(h) > 0 && h[0].T == p.first {
		h = h[1:]
	}
	m.floats = append(m.floats, f...)
	m.histograms = append(m.histograms, h...)
}

// take gives the points of the current series to s and begins another. It
// returns false when there are none.
func (m *merger) take(s *promql.Series) bool {
	f, h := m.floats[m.fromFloats:len(m.floats):len(m.floats)], m.histograms[m.fromHistograms:len(m.histograms):len(m.histograms)]
	m.fromFloats, m.fromHistograms = len(m.floats), len(m.histograms)
	if len(f) > 0 {
		s.Floats = f
	}
	if len(h) > 0 {
		s.Histograms = h
	}
	return len(f)+len(h) > 0
}
