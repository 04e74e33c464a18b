package main

import (
	"cmp"
	"context"
	"slices"

	"github.com/prometheus/prometheus/model/metadata"
	v1 "github.com/prometheus/prometheus/web/api/v1"

	"varve/api"
	"varve/archive"
	"varve/archive/format"
)

// catalogue shows the archive's catalogue as the API wants it.
type catalogue struct{ archive *archive.Archive }

func (c catalogue) Metadata(_ context.Context, metric string, limit int) (map[string][]metadata.Metadata, error) {
	out := map[string][]metadata.Metadata{}
	if metric != "" {
		if m, ok := c.archive.MetadataOf(metric); ok {
			out[metric] = []metadata.Metadata{m}
		}
		return out, c.archive.StartError()
	}
	c.archive.Metadata(func(family string, m metadata.Metadata) bool {
		out[family] = []metadata.Metadata{m}
		return limit <= 0 || len(out) < limit
	})
	return out, c.archive.StartError()
}

// surveyEntries is how many entries of each list are asked for at least: the
// archive ranks by bytes, and Prometheus' own lists rank by counts.
const surveyEntries = 10_000

func (c catalogue) Status(ctx context.Context, limit int) (api.StorageStatus, error) {
	survey, err := c.archive.Survey(ctx, max(limit, surveyEntries))
	if err != nil {
		return api.StorageStatus{}, err
	}
	s := api.StorageStatus{
		TSDBStatus: v1.TSDBStatus{
			HeadStats: v1.HeadStats{
				NumSeries: survey.Series, NumLabelPairs: int(survey.PairCount), MinTime: survey.MinMillis, MaxTime: survey.MaxMillis,
			},
			SeriesCountByMetricName:     ranked(survey.Metrics, countOf, limit),
			LabelValueCountByLabelName:  ranked(survey.Labels, countOf, limit),
			MemoryInBytesByLabelName:    ranked(survey.Labels, bytesOf, limit),
			SeriesCountByLabelValuePair: ranked(survey.Pairs, countOf, limit),
		},
		BytesByMetricName: ranked(survey.Metrics, bytesOf, limit),
		BytesByLabelName:  ranked(survey.Labels, bytesOf, limit),
		BytesByFamily:     ranked(survey.Families, bytesOf, len(survey.Families)),
		DiskBytes:         survey.DiskBytes,
	}
	for _, f := range survey.Families {
		if f.Name == format.FamilyNames[format.FamilyHot] || f.Name == format.FamilyNames[format.FamilyRaw] {
			s.HeadStats.ChunkCount += int64(f.Count)
		}
	}
	s.ReadOnly, _ = c.archive.ReadOnly()
	return s, nil
}

func countOf(s archive.Size) uint64 { return s.Count }
func bytesOf(s archive.Size) uint64 { return s.Bytes }

// ranked returns the largest entries.
func ranked(sizes []archive.Size, value func(archive.Size) uint64, limit int) []v1.TSDBStat {
	out := make([]v1.TSDBStat, 0, len(sizes))
	for _, s := range sizes {
		out = append(out, v1.TSDBStat{Name: s.Name, Value: value(s)})
	}
	slices.SortFunc(out, func(a, b v1.TSDBStat) int {
		return cmp.Or(cmp.Compare(b.Value, a.Value), cmp.Compare(a.Name, b.Name))
	})
	return out[:min(limit, len(out))]
}
